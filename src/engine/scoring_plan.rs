//! The plan of scoring: which stages the wanted columns need, in which order, on top of which input columns.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::error::Result;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use crate::engine::EngineError;
use crate::instrument::Instrument;
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
        let pure = |stage: Arc<dyn Stage>| Arc::new(PureStage(stage)) as Arc<dyn PlanStage>;
        vec![
            pure(Arc::new(Validate::new(&self.instrument, self.layout))),
            pure(Arc::new(RawScales::new(&self.instrument))),
            pure(Arc::new(Combinations::new(&self.instrument))),
            pure(Arc::new(Style::new(&self.instrument))),
            pure(Arc::new(Flexibility::new(&self.instrument))),
            Arc::new(PercentilesStage::new(&self.instrument, self.chain.clone(), input)),
            pure(Arc::new(Flags::new(&self.instrument))),
        ]
    }

    /// The input columns that the wanted output columns need, of those that sessions with the columns of `input` have.
    ///
    /// A column of the output needs the stages that add it and all that they read; everything else is not read.
    pub fn needed_columns(&self, input: &Schema, wanted: &[String]) -> Vec<String> {
        let stages = self.stages(input);
        let (_, needed) = needed(&stages, wanted);
        input.fields().iter().map(|field| field.name().clone()).filter(|name| needed.contains(name)).collect()
    }

    /// Puts the stages that the wanted columns need on top of a plan, and selects those columns in their order.
    pub fn plan(&self, input: Arc<dyn ExecutionPlan>, wanted: &[String]) -> Result<Arc<dyn ExecutionPlan>> {
        let stages = self.stages(&input.schema());
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

/// The error for an output column that does not exist, with the nearest name that does.
pub fn unknown_output(column: &str, known: &[String]) -> EngineError {
    let near = known.iter().map(|name| (strsim::jaro_winkler(column, name), name)).filter(|(score, _)| *score > 0.8);
    let hint = near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name.clone());
    EngineError::UnknownOutput { column: column.to_owned(), hint }
}
