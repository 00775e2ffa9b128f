//! The plan that assembles sessions.
//!
//! ```text
//! rank files ─▶ position ─▶ assemble rows ─▶ sequence ─▶ sort by id, position ─▶ assemble sheets ─┐
//! attribute files ─▶ position ───────────▶ sequence ─▶ sort by id, position ──────────────▶ full join
//!                                          unfold ◀─ sort by position in the table, then in the ranks ◀─┘
//! ```
//!
//! Where the rows of a session lie together, the first assembling makes one row of eighty, so that sorts and join see sessions,
//! not ranks. Sorts and join spill, and each sort has memory of its own.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::{JoinType, NullEquality};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::physical_expr::expressions::{Column, IsNotNullExpr, case};
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::joins::SortMergeJoinExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties as _};
use datafusion::prelude::SessionContext;

use crate::engine::input::canonical::CanonicalColumns;
use crate::engine::input::long::LongInput;
use crate::engine::input::open::{SessionFile, SessionInput, Source};
use crate::engine::input::part::InputPart;
use crate::engine::input::scan::{canonical_exprs, scan_parts};
use crate::model::session::{ITEM, MODE, PART, RANK, SESSION_ID};
use crate::operators::{
    AssembleExec, OwnMemoryExec, POSITION, PositionStage, RANK_SHEET, RankColumns, SequenceExec, StageExec, UnfoldStage,
};
use crate::scoring::LONG_FAULT;

/// A session's position in the table of attributes, after the join; null for one that is not in it.
const ATTRIBUTES_POSITION: &str = "attributes_position";

/// Each of the two tables has this fraction of the memory for its first sort; the join and the last sort have the rest.
const SHARE: usize = 4;

/// The memory that a sort should find: with less, fewer pieces are read at once, so that fewer sorts share it.
const SORT_MEMORY: usize = 8 << 20;

impl LongInput {
    /// The plan that gives assembled sessions: one partition, the columns of `needed` in its order, sessions in the order that the
    /// module states.
    ///
    /// Memory: the pool's for sorts and join, which spill, of which half is reserved as soon as the plan is executed; beside it, for
    /// each piece read at once, a batch of rows and a batch of sessions.
    pub(in crate::engine::input) fn scan(
        &self,
        input: &SessionInput,
        context: &SessionContext,
        needed: &[String],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let of_session = |of_table: bool| {
            let columns = needed.iter().filter(|name| {
                let is_ranks = *name == LONG_FAULT || self.shape.wide_columns().any(|column| column == **name);
                *name != SESSION_ID && !is_ranks && self.of_attributes.contains(*name) == of_table
            });
            typed(&input.columns, std::iter::once(SESSION_ID).chain(columns.map(String::as_str)))
        };
        let ranks = self.ranks(input, context, &of_session(false)?)?;
        let assembled = if input.attributes.is_empty() {
            sorted(ranks, &[POSITION], None)?
        } else {
            let attributes = attributes(input, context, &of_session(true)?)?;
            sorted(joined(attributes, ranks)?, &[ATTRIBUTES_POSITION, POSITION], None)?
        };
        let unfolded: Arc<dyn ExecutionPlan> =
            Arc::new(StageExec::try_new(assembled, Arc::new(UnfoldStage::new(self.shape)))?);
        let columns = needed.iter().map(|name| passed(&unfolded.schema(), name, name)).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(ProjectionExec::try_new(columns, unfolded)?))
    }

    /// Sessions as their rows tell them: `columns`, position of the first row, sheet and fault; sorted by id.
    fn ranks(
        &self,
        input: &SessionInput,
        context: &SessionContext,
        columns: &[(String, DataType)],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let names = &input.options.names;
        let read = columns.iter().map(|(name, _)| name.as_str()).chain([PART, ITEM, MODE, RANK]);
        let mut pieces = Pieces::default();
        for alike in parts_alike(input, &input.files) {
            let plan = pieces.numbered(scan_parts(&alike, names, read.clone(), input.scan_options(context))?)?;
            let in_file = |name: &str| names.in_file(name).to_owned();
            let ranks =
                RankColumns { part: in_file(PART), item: in_file(ITEM), mode: in_file(MODE), rank: in_file(RANK) };
            // By the id as the file has it: ids are cast, and blank ones become null, once per session.
            let plan = AssembleExec::from_rows(plan, names.in_file(SESSION_ID), ranks, self.shape)?;
            pieces.add(context, input, &alike[0].file, Arc::new(plan), columns, &[POSITION, RANK_SHEET, LONG_FAULT])?;
        }
        let sorted = pieces.sorted(context)?;
        Ok(Arc::new(AssembleExec::from_sheets(sorted, SESSION_ID, self.shape)?))
    }
}

/// The table of attributes: `columns` and position, sorted by id.
fn attributes(
    input: &SessionInput,
    context: &SessionContext,
    columns: &[(String, DataType)],
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut pieces = Pieces::default();
    for alike in parts_alike(input, &input.attributes) {
        let read = columns.iter().map(|(name, _)| name.as_str());
        let plan = pieces.numbered(scan_parts(&alike, &input.options.names, read, input.scan_options(context))?)?;
        pieces.add(context, input, &alike[0].file, plan, columns, &[POSITION])?;
    }
    pieces.sorted(context)
}

/// The pieces of a table, which are read a few at a time.
#[derive(Default)]
struct Pieces {
    plans: Vec<Arc<dyn ExecutionPlan>>,
    count: usize,
}

impl Pieces {
    /// The next pieces, with the positions of their rows.
    fn numbered(&mut self, scan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let counted = Arc::clone(&scan.schema().fields()[0]);
        let first = self.count;
        self.count += scan.output_partitioning().partition_count();
        Ok(Arc::new(StageExec::try_new(scan, Arc::new(PositionStage::new(first, counted)))?))
    }

    /// Adds the next pieces, with the file's columns made canonical and `internal` columns as they are.
    fn add(
        &mut self,
        context: &SessionContext,
        input: &SessionInput,
        file: &SessionFile,
        plan: Arc<dyn ExecutionPlan>,
        columns: &[(String, DataType)],
        internal: &[&str],
    ) -> Result<()> {
        let mut exprs = canonical_exprs(context, &input.options.names, file, plan.as_ref(), columns)?;
        for name in internal {
            exprs.push(passed(&plan.schema(), name, name)?);
        }
        self.plans.push(Arc::new(ProjectionExec::try_new(exprs, plan)?));
        Ok(())
    }

    /// All pieces as one partition, sorted by session and, within one, by position.
    fn sorted(self, context: &SessionContext) -> Result<Arc<dyn ExecutionPlan>> {
        let share = match context.runtime_env().memory_pool.memory_limit() {
            MemoryLimit::Finite(bytes) => Some(bytes / SHARE),
            MemoryLimit::Infinite | MemoryLimit::Unknown => None,
        };
        let sorts = share.map_or(usize::MAX, |share| share / SORT_MEMORY);
        let at_once = context.state().config().target_partitions().min(sorts).min(self.count).max(1);
        let pieces = Arc::new(SequenceExec::try_new(self.plans, at_once)?);
        sorted(pieces, &[SESSION_ID, POSITION], share.map(|share| share / at_once))
    }
}

/// The parts of files, in their order, cut into stretches that one scan can read.
fn parts_alike(input: &SessionInput, files: &[Arc<SessionFile>]) -> Vec<Vec<InputPart>> {
    let mut stretches: Vec<Vec<InputPart>> = Vec::new();
    for part in files.iter().flat_map(|file| input.parts_of(file)) {
        match stretches.last_mut().filter(|stretch| alike(&stretch[0].file, &part.file)) {
            Some(stretch) => stretch.push(part),
            None => stretches.push(vec![part]),
        }
    }
    if stretches.is_empty() {
        // A Parquet file without row groups has no parts, but its columns are wanted all the same.
        stretches.extend(files.first().map(|file| vec![InputPart::whole(file)]));
    }
    stretches
}

fn alike(one: &SessionFile, other: &SessionFile) -> bool {
    let (Source::File(found), Source::File(next)) = (&one.source, &other.source) else { return false };
    found.format == next.format
        && found.compression == next.compression
        && found.location.store_url == next.location.store_url
        && one.schema == other.schema
}

/// The full join of attributes and ranks by session id. Both are sorted by it; null equals nothing.
fn joined(attributes: Arc<dyn ExecutionPlan>, ranks: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let (of_attributes, of_ranks) = (attributes.schema(), ranks.schema());
    let left = |name: &str| Ok::<_, DataFusionError>(Column::new(name, of_attributes.index_of(name)?));
    let right = |name: &str| Ok::<_, DataFusionError>(Column::new(name, of_ranks.index_of(name)?));
    let on = vec![(Arc::new(left(SESSION_ID)?) as _, Arc::new(right(SESSION_ID)?) as _)];
    let join = SortMergeJoinExec::try_new(
        Arc::clone(&attributes),
        Arc::clone(&ranks),
        on,
        None,
        JoinType::Full,
        vec![SortOptions::default()],
        NullEquality::NullEqualsNothing,
    )?;
    let mut exprs: Vec<ProjectionExpr> = Vec::new();
    let mut ids: Vec<Arc<dyn PhysicalExpr>> = Vec::new();
    let in_attributes = of_attributes.fields().len();
    for (index, field) in join.schema().fields().iter().enumerate() {
        let expr: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), index));
        match field.name().as_str() {
            SESSION_ID => ids.push(expr),
            POSITION if index < in_attributes => {
                exprs.push(ProjectionExpr { expr, alias: ATTRIBUTES_POSITION.to_owned() });
            }
            name => exprs.push(ProjectionExpr { expr, alias: name.to_owned() }),
        }
    }
    let [of_table, of_rows] = <[_; 2]>::try_from(ids)
        .map_err(|_| DataFusionError::Internal("each side of the join has one session id".to_owned()))?;
    let is_in_table: Arc<dyn PhysicalExpr> = Arc::new(IsNotNullExpr::new(Arc::clone(&of_table)));
    let id = case(None, vec![(is_in_table, of_table)], Some(of_rows))?;
    exprs.push(ProjectionExpr { expr: id, alias: SESSION_ID.to_owned() });
    Ok(Arc::new(ProjectionExec::try_new(exprs, Arc::new(join))?))
}

/// Sorts each partition by columns, ascending with nulls last (for ids: first), and merges them into one. `own_memory` is what each
/// sort has for itself; without, it has what the session has left.
fn sorted(plan: Arc<dyn ExecutionPlan>, by: &[&str], own_memory: Option<usize>) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = plan.schema();
    let keys = by.iter().map(|name| {
        let options = SortOptions { descending: false, nulls_first: *name == SESSION_ID };
        Ok(PhysicalSortExpr::new(Arc::new(Column::new(name, schema.index_of(name)?)), options))
    });
    let Some(keys) = LexOrdering::new(keys.collect::<Result<Vec<_>>>()?) else {
        return Err(DataFusionError::Internal("a sort by no columns".to_owned()));
    };
    let partitions = plan.output_partitioning().partition_count();
    let mut plan: Arc<dyn ExecutionPlan> = Arc::new(SortExec::new(keys.clone(), plan).with_preserve_partitioning(true));
    if let Some(bytes) = own_memory {
        plan = Arc::new(OwnMemoryExec::new(plan, bytes));
    }
    if partitions > 1 {
        plan = Arc::new(SortPreservingMergeExec::new(keys, plan));
    }
    Ok(plan)
}

/// The columns of these names with their canonical types.
fn typed<'a>(columns: &CanonicalColumns, names: impl Iterator<Item = &'a str>) -> Result<Vec<(String, DataType)>> {
    let typed = |name: &str| {
        let data_type = columns.data_type(name);
        let unknown = || DataFusionError::Internal(format!("the sessions have no column '{name}'"));
        Ok((name.to_owned(), data_type.ok_or_else(unknown)?.clone()))
    };
    names.map(typed).collect()
}

/// The expression that passes a column of a plan.
fn passed(schema: &Schema, name: &str, alias: &str) -> Result<ProjectionExpr> {
    Ok(ProjectionExpr { expr: Arc::new(Column::new(name, schema.index_of(name)?)), alias: alias.to_owned() })
}
