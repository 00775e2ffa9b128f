//! The plan of scoring: which stages the wanted columns need, in which order, on top of which input columns.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::error::Result;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use crate::engine::EngineError;
use crate::engine::near::nearest;
use crate::instrument::Instrument;
use crate::model::session::{AGE_BAND, DATE_OF_BIRTH, Part, STARTED_AT};
use crate::model::{Layout, result};
use crate::norms::Chain;
use crate::operators::{PercentilesStage, PlanStage, PureStage, StageExec};
use crate::scoring::{Combinations, Flags, Flexibility, RawScales, Stage, Style, Validate};

/// How sessions are scored: everything that the stages of a plan need to know.
#[derive(Debug, Clone)]
pub struct Scoring {
    /// The instrument.
    pub instrument: Arc<Instrument>,
    /// The norm chain.
    pub chain: Chain,
    /// The layout of the input.
    pub layout: Layout,
}

impl Scoring {
    /// The stages, in order, for sessions with the columns of `input`.
    pub fn stages(&self, input: &Schema) -> Vec<Arc<dyn PlanStage>> {
        vec![
            pure(Validate::new(&self.instrument, self.layout)),
            pure(RawScales::new(&self.instrument)),
            pure(Combinations::new(&self.instrument)),
            pure(Style::new(&self.instrument)),
            pure(Flexibility::new(&self.instrument)),
            Arc::new(PercentilesStage::new(&self.instrument, self.chain.clone(), input)),
            pure(Flags::new(&self.instrument)),
        ]
    }

    /// The stages that need no learning contexts, in order: sessions are judged by their style items alone.
    pub fn style_stages(&self) -> Vec<Arc<dyn PlanStage>> {
        vec![
            pure(Validate::new(&self.instrument, self.layout).part(Part::Style)),
            pure(RawScales::new(&self.instrument)),
            pure(Combinations::new(&self.instrument)),
            pure(Style::new(&self.instrument)),
        ]
    }

    /// The input columns that the wanted output columns need, of those that sessions with the columns of `input` have.
    ///
    /// A column of the output needs the stages that add it and all that they read; everything else is not read.
    pub fn needed_columns(&self, input: &Schema, wanted: &[String]) -> Vec<String> {
        needed_columns(&self.stages(input), input, wanted)
    }

    /// Puts the stages that the wanted columns need on top of a plan, and selects those columns in their order.
    pub fn plan(&self, input: Arc<dyn ExecutionPlan>, wanted: &[String]) -> Result<Arc<dyn ExecutionPlan>> {
        plan_stages(self.stages(&input.schema()), input, wanted)
    }

    /// The columns of a whole result, passed-through ones last.
    pub fn output_columns(passed: &[String]) -> std::result::Result<Vec<String>, EngineError> {
        let mut columns = result::columns();
        for name in passed {
            if columns.contains(name) {
                return Err(EngineError::PassedTwice { column: name.clone() });
            }
            columns.push(name.clone());
        }
        Ok(columns)
    }
}

fn pure(stage: impl Stage + 'static) -> Arc<dyn PlanStage> {
    Arc::new(PureStage(Arc::new(stage)))
}

/// The columns of `input` that the wanted columns need, and the stages that these need.
pub(super) fn needed_columns(stages: &[Arc<dyn PlanStage>], input: &Schema, wanted: &[String]) -> Vec<String> {
    let (_, needed) = needed(stages, wanted);
    input.fields().iter().map(|field| field.name().clone()).filter(|name| needed.contains(name)).collect()
}

/// Puts those of the stages that the wanted columns need on top of a plan, and selects these columns in their order.
pub(super) fn plan_stages(
    stages: Vec<Arc<dyn PlanStage>>,
    input: Arc<dyn ExecutionPlan>,
    wanted: &[String],
) -> Result<Arc<dyn ExecutionPlan>> {
    let (kept, _) = needed(&stages, wanted);
    let mut plan = input;
    for (stage, kept) in stages.into_iter().zip(kept) {
        if kept {
            plan = Arc::new(StageExec::try_new(plan, stage)?);
        }
    }
    let schema = plan.schema();
    let select = |name: &String| {
        let column = Column::new(name, schema.index_of(name)?);
        Ok(ProjectionExpr { expr: Arc::new(column), alias: name.clone() })
    };
    let columns = wanted.iter().map(select).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(ProjectionExec::try_new(columns, plan)?))
}

/// Walks the stages backwards from the wanted columns: which of them are needed, and which columns are needed in all.
fn needed(stages: &[Arc<dyn PlanStage>], wanted: &[String]) -> (Vec<bool>, BTreeSet<String>) {
    let mut columns: BTreeSet<String> = wanted.iter().cloned().collect();
    let mut kept = vec![false; stages.len()];
    for (stage, kept) in stages.iter().zip(&mut kept).rev() {
        if stage.adds().iter().any(|field| columns.contains(field.name())) {
            *kept = true;
            columns.extend(stage.reads().into_iter().map(|read| read.name));
        }
    }
    (kept, columns)
}

/// The columns of sessions that a norm chain can be filled from.
pub fn chain_columns(chain: &Chain) -> Vec<String> {
    let mut columns: Vec<String> = chain.attributes().into_iter().map(str::to_owned).collect();
    if columns.iter().any(|name| name == AGE_BAND) {
        columns.extend([DATE_OF_BIRTH, STARTED_AT].map(str::to_owned));
    }
    columns
}

/// The error for an output column that does not exist, with the nearest name that does.
pub fn unknown_output(column: &str, known: &[String]) -> EngineError {
    let hint = nearest(column, known.iter().map(String::as_str));
    EngineError::UnknownOutput { column: column.to_owned(), hint }
}
