//! `score(…)`: session files as a table of their results, scored while they are read.
//!
//! The optimizer says which columns a query needs, and [`Scoring::plan`] keeps the stages that these need and the scan the
//! columns that those read: `SELECT count(*)` reads no column of the files, and a query for `style` neither opens norms nor
//! computes flexibility. It does read the ranks of the contexts: a session whose contexts are no rankings is not `ok`, and one
//! that is not `ok` has no `style`. Who wants styles alone says so with [`ScoreRequest::contexts`].
//!
//! A filter on a column that is passed through goes down to the scan; one on a score stays above the stages. For a query of scores
//! alone ranks are read as bytes, as for a run.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use datafusion::prelude::SessionContext;

use crate::engine::scoring_plan::{needed_columns, plan_stages};
use crate::engine::{
    EngineError, FileFormat, FoundFile, InputOptions, Reading, Scoring, SessionInput, Source, Sources, discover,
};
use crate::instrument::Instrument;
use crate::model::Layout;
use crate::model::result::{self, column_type, documented_schema, documented_type};
use crate::model::session::{DATE_OF_BIRTH, ITEM, MODE, PART, RANK};
use crate::norms::Chain;
use crate::operators::PlanStage;
use crate::storage::Storage;

/// The results of sessions, as a table whose rows are computed when they are asked for.
///
/// Columns are those of [`Scoring::output_columns`], in documented types.
pub struct ScoreTable {
    context: SessionContext,
    input: Arc<SessionInput>,
    scoring: Scoring,
    contexts: bool,
    columns: Vec<String>,
    schema: SchemaRef,
}

/// What `score(…)` is asked for.
#[derive(Debug, Clone)]
pub struct ScoreRequest {
    /// Session files, folders, patterns, URLs.
    pub inputs: Vec<String>,
    /// Long layout: the table of attributes.
    pub attributes: Option<String>,
    /// The format, where names do not say it.
    pub format: Option<FileFormat>,
    /// How the files are understood. [`ALL_COLUMNS`] among the passed columns stands for all that could be.
    pub input: InputOptions,
    /// The norm chain.
    pub chain: Chain,
    /// Whether learning contexts are scored. Without them they are neither read nor judged: `ok` speaks of the style items, and
    /// the columns that need contexts (flexibility, percentiles, flags) are not in the table.
    pub contexts: bool,
}

/// Every column that can be passed through, but for `date_of_birth`, which has to be named.
pub const ALL_COLUMNS: &str = "*";

impl ScoreTable {
    /// Finds session files and reads their schemas.
    pub async fn open(
        context: &SessionContext,
        storage: &Storage,
        instrument: &Arc<Instrument>,
        request: ScoreRequest,
    ) -> std::result::Result<ScoreTable, EngineError> {
        let found = discover(storage, &request.inputs, request.format, Reading::Everything).await?;
        let attributes = match &request.attributes {
            Some(table) => discover(storage, std::slice::from_ref(table), None, Reading::OnDemand).await?,
            None => Vec::new(),
        };
        let sources = || {
            let of_files = |files: &[FoundFile]| files.iter().cloned().map(Box::new).map(Source::File).collect();
            Sources { sessions: of_files(&found), attributes: of_files(&attributes) }
        };
        let mut options = request.input;
        if options.passed.iter().any(|column| column == ALL_COLUMNS) {
            let none = InputOptions { passed: Vec::new(), ..options.clone() };
            options.passed = passable(&SessionInput::open(context, sources(), instrument, none).await?);
        }
        let input = SessionInput::open(context, sources(), instrument, options).await?;
        let scoring = Scoring { instrument: Arc::clone(instrument), chain: request.chain, layout: input.layout };
        ScoreTable::new(context.clone(), Arc::new(input), scoring, request.contexts)
    }

    fn stages(&self, input: &Schema) -> Vec<Arc<dyn PlanStage>> {
        if self.contexts { self.scoring.stages(input) } else { self.scoring.style_stages() }
    }

    fn new(
        context: SessionContext,
        input: Arc<SessionInput>,
        scoring: Scoring,
        contexts: bool,
    ) -> std::result::Result<ScoreTable, EngineError> {
        let mut columns = Scoring::output_columns(&input.options.passed)?;
        if !contexts {
            let added: Vec<FieldRef> = scoring.style_stages().iter().flat_map(|stage| stage.adds()).collect();
            let is_added = |name: &String| added.iter().any(|field| field.name() == name);
            columns.retain(|name| column_type(name).is_none() || is_added(name));
        }
        let field = |name: &String| {
            let data_type = column_type(name).or_else(|| input.columns.data_type(name).cloned());
            Field::new(name, data_type.unwrap_or(DataType::Null), true)
        };
        let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
        Ok(ScoreTable { context, input, scoring, contexts, schema: Arc::new(documented_schema(&schema)), columns })
    }
}

impl std::fmt::Debug for ScoreTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScoreTable").field("files", &self.input.files.len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for ScoreTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    // Filters are left to the physical optimizer: it takes those on passed columns down through the stages.
    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted: Vec<String> = match projection {
            Some(projection) => projection.iter().map(|&index| self.columns[index].clone()).collect(),
            None => self.columns.clone(),
        };
        let input = self.input.columns.schema();
        let needed = needed_columns(&self.stages(&input), &input, &wanted);
        let partitions = session.config().target_partitions();
        // A filter or the limit of a sort leaves out rows by columns of the files, and the library's scan does not read them. Where a
        // query takes scores alone, all rows are read, and ranks faster as bytes.
        let takes_scores_alone = wanted.iter().all(|name| column_type(name).is_some());
        let scans = match takes_scores_alone {
            true => self.input.scans_to_score(&self.context, partitions, &needed)?,
            false => self.input.scans(&self.context, partitions, &needed)?,
        };
        let scored = scans.into_iter().map(|scan| documented(plan_stages(self.stages(&scan.schema()), scan, &wanted)?));
        let mut scored = scored.collect::<Result<Vec<_>>>()?;
        match scored.pop() {
            Some(only) if scored.is_empty() => Ok(only),
            last => UnionExec::try_new(scored.into_iter().chain(last).collect()),
        }
    }
}

/// The columns of the files that are neither ranks nor results, by their canonical names.
fn passable(input: &SessionInput) -> Vec<String> {
    let InputOptions { names, attributes, .. } = &input.options;
    let results = result::columns();
    let mut columns: Vec<String> = Vec::new();
    for field in input.files.iter().chain(&input.attributes).flat_map(|file| file.schema.fields()) {
        let name = names.0.iter().find(|(_, theirs)| *theirs == field.name()).map_or(field.name(), |(ours, _)| ours);
        let is_rank = input.columns.data_type(name).is_some() && !attributes.contains(name);
        let is_rank = is_rank || input.layout == Layout::Long && [PART, ITEM, MODE, RANK].contains(&name.as_str());
        if !is_rank && !results.contains(name) && name != DATE_OF_BIRTH && !columns.contains(name) {
            columns.push(name.clone());
        }
    }
    columns
}

/// The same rows in documented types: dictionaries become their values.
fn documented(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = plan.schema();
    let exprs = schema.fields().iter().enumerate().map(|(index, field)| {
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), index));
        let wanted = documented_type(field.data_type());
        let expr = if wanted == *field.data_type() { column } else { Arc::new(CastExpr::new(column, wanted, None)) };
        ProjectionExpr { expr, alias: field.name().clone() }
    });
    if schema.fields().iter().all(|field| documented_type(field.data_type()) == *field.data_type()) {
        return Ok(plan);
    }
    Ok(Arc::new(ProjectionExec::try_new(exprs.collect::<Vec<_>>(), plan)?))
}
