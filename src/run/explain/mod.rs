//! One session, stage by stage: the same plan operators as a run, one at a time over one row, and a report of each.
//!
//! [`ExplainJob::find`] looks a session up; [`ExplainJob::explain`] gives its [`Explanation`], which runs a stage when it is
//! asked for the next [`StageReport`]. Scores in a report are read from the columns that the stage added; beside them stand
//! the numbers they come from. Nothing is scored here.

mod find;
mod flags;
mod percentiles;
mod report;
mod row;
mod stages;
mod text;

use std::sync::Arc;
use std::vec::IntoIter;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionContext;

use crate::engine::{Scoring, SessionInput};
use crate::operators::{PlanStage, StageExec};
use crate::run::RunError;

pub use find::FoundSession;
pub use report::{
    AsFound, ByMode, ChainLinkReport, CombinationReport, ContextReport, Failure, FlagReport, FlexibilityReport,
    GridCell, ItemReport, PercentilesReport, PublishedEntry, PublishedRule, RawScaleReport, ReadReport, ScaleReport,
    StageReport, StepReport, StyleReport, TruncationReport, ValidateReport,
};

/// Sessions, and how they are scored.
#[derive(Clone)]
pub struct ExplainJob {
    /// The session that plans run in.
    pub context: SessionContext,
    /// The sessions.
    pub input: Arc<SessionInput>,
    /// How they are scored.
    pub scoring: Scoring,
}

impl ExplainJob {
    /// What scoring does with a session, stage by stage.
    pub fn explain(&self, session: &FoundSession) -> Explanation {
        Explanation::new(&self.scoring, self.context.task_ctx(), session.columns.clone())
    }
}

/// The stages of scoring over one session, each run when its report is asked for.
pub struct Explanation {
    scoring: Scoring,
    context: Arc<TaskContext>,
    /// The session as it was read.
    session: RecordBatch,
    /// The session with the columns of the stages that ran.
    scored: RecordBatch,
    stages: IntoIter<Arc<dyn PlanStage>>,
}

impl Explanation {
    /// An explanation of the one row of `session`, which has the columns of a scan.
    fn new(scoring: &Scoring, context: Arc<TaskContext>, session: RecordBatch) -> Self {
        let stages = scoring.stages(session.schema_ref()).into_iter();
        Explanation { scoring: scoring.clone(), context, scored: session.clone(), session, stages }
    }

    /// Runs the next stage. `None` after the last one, and after one that refused the session.
    pub async fn next(&mut self) -> Result<Option<StageReport>, RunError> {
        let Some(stage) = self.stages.next() else { return Ok(None) };
        let schema = self.scored.schema();
        let input = MemorySourceConfig::try_new_exec(&[vec![self.scored.clone()]], schema, None)?;
        let operator: Arc<dyn ExecutionPlan> = Arc::new(StageExec::try_new(input, Arc::clone(&stage))?);
        let batches = collect(Arc::clone(&operator), Arc::clone(&self.context)).await?;
        self.scored = concat_batches(&operator.schema(), &batches).map_err(DataFusionError::from)?;
        let report = stages::report(&stage, &self.scoring, &self.context, &self.session, &self.scored).await?;
        if report.failure().is_some() {
            self.stages = Vec::new().into_iter();
        }
        Ok(Some(report))
    }
}

#[cfg(test)]
mod tests;
