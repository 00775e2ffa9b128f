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
use crate::run::encode::{Encoded, PartEncoder, RowEncoder};
use crate::run::ordered::{OrderedParts, PartSink};
use crate::run::output::Output;
use crate::run::part_plans::PartPlans;
use crate::run::profile::{PlanProfile, sum_of};
use crate::run::report::{Progress, RunReport};
use crate::run::steps::Steps;
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
    /// Memory: for each part that [`ScoreJob::threads`] allows a batch on its way through the stages (two where another thread
    /// encodes) and one row group being encoded, and as many encoded row groups again that wait for their turn (of other formats
    /// than Parquet: some slices of a thousand rows); for Parquet also the footer. Dropped, it stops at once and leaves no target.
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
    /// Scores the part and leaves its rows encoded, until nobody will take them. A thread that has no part encodes Parquet here.
    async fn score(self, sink: PartSink<Encoded>) -> Result<(), RunError> {
        let PartWorker { part, job, encoder, progress, profile } = self;
        let _at_work = progress.begin_part();
        let plan = job.plan(&part)?;
        let mut batches = plan.execute(0, job.context.task_ctx())?;
        let rows = encoder.rows();
        let mut encoding = Steps::new(encoder);
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| job.input.failed(&part, error))?;
            let batch = account_for(batch, job.columns.len(), job.on_error, &progress, &mut Counts::default())?;
            match &rows {
                Some((rows, at_once)) => leave_rows(&batch, rows, *at_once, &sink).await,
                None => {
                    let sink = sink.clone();
                    let encode = async move |mut encoder: PartEncoder| {
                        if let Some(encoded) = encoder.encode(&batch)? {
                            sink.send(encoded).await;
                        }
                        Ok(encoder)
                    };
                    encoding.step(progress.parts_at_work() < job.threads, encode).await?;
                }
            }
            if !sink.is_open() {
                return Ok(());
            }
        }
        drop(batches);
        if let Some(encoded) = encoding.finish().await?.finish()? {
            sink.send(encoded).await;
        }
        let (scanned, bytes) = (sum_of("bytes_scanned", &plan) as u64, part.bytes());
        progress.add_part(if scanned > 0 { scanned } else { bytes }, bytes);
        profile.lock().unwrap_or_else(PoisonError::into_inner).add(&plan);
        Ok(())
    }
}

/// Leaves the rows of a batch, so many at once, in a format in which they stand for themselves.
///
/// They are encoded on any thread, while this one goes on to the next: lines of text cost many times what scoring costs, and there
/// is only one part whose lines are wanted now.
async fn leave_rows(batch: &RecordBatch, rows: &RowEncoder, at_once: usize, sink: &PartSink<Encoded>) {
    for from in (0..batch.num_rows()).step_by(at_once) {
        let (rows, slice) = (rows.clone(), batch.slice(from, at_once.min(batch.num_rows() - from)));
        if !sink.send_made_by(move || rows.encode(&slice)).await {
            return;
        }
    }
    // Scoring goes on without waiting for anything: where no other thread is free, lines would come after the next batch.
    tokio::task::yield_now().await;
}
