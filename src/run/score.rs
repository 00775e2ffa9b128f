//! Scoring a whole input: parts in parallel, results in input order.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use crate::engine::{EngineError, InputPart, Scoring, SessionInput};
use crate::operators::NormContext;
use crate::operators::row_group::RowGroupOptions;
use crate::run::account::{Counts, account_for};
use crate::run::encode::{Encoded, PartEncoder};
use crate::run::ordered::{OrderedParts, PartSink};
use crate::run::output::Output;
use crate::run::part_plans::PartPlans;
use crate::run::profile::{PlanProfile, sum_of};
use crate::run::report::{Progress, RunReport};
use crate::run::{OutputTarget, RunError};
use crate::storage::Storage;

/// What is done with sessions that cannot be scored. They are counted and reported whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnError {
    /// They stand in the output, in place, with `ok = false`.
    #[default]
    Keep,
    /// The first one ends the run, and nothing is written.
    Fail,
    /// They are left out of the output.
    Drop,
}

/// A job: which sessions, scored how, with which columns in the output.
///
/// The output depends on these alone: not on the number of threads, nor on the batch size.
#[derive(Clone)]
pub struct ScoreJob {
    /// The session that plans run in.
    pub context: SessionContext,
    /// The sessions.
    pub input: Arc<SessionInput>,
    /// How they are scored.
    pub scoring: Scoring,
    /// The output's columns, in order.
    pub columns: Vec<String>,
    /// What is done with sessions that cannot be scored.
    pub on_error: OnError,
    /// How many parts are worked on at once; twice as many where the input comes from another machine, as half of them wait.
    pub threads: usize,
    /// How Parquet is encoded.
    pub row_groups: RowGroupOptions,
    /// The plans of its parts: none to begin with, and none again for a job with another input or another way of scoring.
    pub plans: PartPlans,
}

impl ScoreJob {
    /// The plan of one part: the output's columns, then those it is counted by that are not among them.
    pub fn plan(&self, part: &InputPart) -> Result<Arc<dyn ExecutionPlan>, EngineError> {
        self.plans.plan(self, part)
    }

    /// The schema of the output, as plans have it.
    pub fn output_schema(&self) -> Result<SchemaRef, EngineError> {
        let parts = self.input.parts();
        let part = parts.first().cloned().unwrap_or_else(|| InputPart::whole(&self.input.files[0]));
        let schema = self.plan(&part)?.schema();
        let output: Vec<usize> = (0..self.columns.len()).collect();
        Ok(Arc::new(schema.project(&output).map_err(datafusion::error::DataFusionError::from)?))
    }

    /// Counters for this job.
    pub fn progress(&self) -> Progress {
        Progress::new(self.input.sessions(), self.input.bytes())
    }

    /// Scores everything and makes the result visible.
    ///
    /// Memory: for each part that [`ScoreJob::threads`] allows a batch on its way through the stages and one row group being encoded,
    /// and as many encoded row groups again that wait for their turn (of other formats than Parquet: some slices of a thousand
    /// rows); for Parquet also the footer. Dropped, it stops at once and leaves no target.
    pub async fn run(
        &self,
        storage: &Storage,
        target: OutputTarget,
        overwrite: bool,
        progress: &Arc<Progress>,
    ) -> Result<(RunReport, PlanProfile), RunError> {
        let schema = self.output_schema()?;
        let format = target.format();
        let mut output = Output::new(storage.clone(), target, overwrite, Arc::clone(&schema), self.row_groups.clone());
        let profile = Arc::new(Mutex::new(PlanProfile::default()));
        let at_once = if self.input.is_remote() { 2 * self.threads } else { self.threads };
        let mut scored = OrderedParts::new(at_once, self.input.parts().into_iter(), |part: InputPart, sink| {
            let worker = PartWorker {
                part,
                job: self.clone(),
                encoder: PartEncoder::new(format, &schema, &self.row_groups),
                progress: Arc::clone(progress),
                profile: Arc::clone(&profile),
            };
            Ok(worker.score(sink))
        });
        while let Some(encoded) = scored.next().await? {
            output.write(encoded).await?;
        }
        let (bytes, rows) = output.commit().await?;
        let norms = NormContext::of(&self.context.task_ctx())?.stats();
        let profile = std::mem::take(&mut *profile.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((progress.report(bytes, rows, norms, storage.status()), profile))
    }
}

/// The work on one part.
struct PartWorker {
    part: InputPart,
    job: ScoreJob,
    encoder: PartEncoder,
    progress: Arc<Progress>,
    profile: Arc<Mutex<PlanProfile>>,
}

impl PartWorker {
    async fn score(mut self, sink: PartSink<Encoded>) -> Result<(), RunError> {
        let plan = self.job.plan(&self.part)?;
        let mut batches = plan.execute(0, self.job.context.task_ctx())?;
        while let Some(batch) = batches.next().await {
            let columns = self.job.columns.len();
            let batch = batch.map_err(|error| self.job.input.failed(&self.part, error))?;
            let batch = account_for(batch, columns, self.job.on_error, &self.progress, &mut Counts::default())?;
            if !self.encode(batch, &sink).await? {
                return Ok(());
            }
        }
        drop(batches);
        if let Some(encoded) = self.encoder.finish()? {
            sink.send(encoded).await;
        }
        let (scanned, bytes) = (sum_of("bytes_scanned", &plan) as u64, self.part.bytes());
        self.progress.add_part(if scanned > 0 { scanned } else { bytes }, bytes);
        self.profile.lock().unwrap_or_else(PoisonError::into_inner).add(&plan);
        Ok(())
    }

    /// Encodes rows and leaves what is ready. `false` if nobody will take it.
    ///
    /// Where rows stand for themselves they are encoded on any thread, while this one goes on to the next: lines of text cost many
    /// times what scoring costs, and there is only one part whose lines are wanted now.
    async fn encode(&mut self, batch: RecordBatch, sink: &PartSink<Encoded>) -> Result<bool, RunError> {
        let Some((rows, at_once)) = self.encoder.rows() else {
            return Ok(match self.encoder.encode(&batch)? {
                Some(encoded) => sink.send(encoded).await,
                None => true,
            });
        };
        for from in (0..batch.num_rows()).step_by(at_once) {
            let (rows, slice) = (rows.clone(), batch.slice(from, at_once.min(batch.num_rows() - from)));
            if !sink.send_made_by(move || rows.encode(&slice)).await {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
