//! Scoring a whole input: parts in parallel, results in input order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef, UInt8Type};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::engine::{EngineError, InputPart, Scoring, SessionInput};
use crate::model::FaultCode;
use crate::model::result::{ERROR, ERROR_CODE, OK};
use crate::model::session::SESSION_ID;
use crate::operators::NormContext;
use crate::operators::row_group::RowGroupOptions;
use crate::run::encode::{Encoded, PartEncoder};
use crate::run::output::Output;
use crate::run::profile::PlanProfile;
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
    /// How many parts are worked on at once.
    pub threads: usize,
    /// How Parquet is encoded.
    pub row_groups: RowGroupOptions,
}

/// What a part is counted by, beside the columns of the output.
const COUNTED: [&str; 4] = [OK, ERROR_CODE, ERROR, SESSION_ID];

impl ScoreJob {
    /// The plan of one part: the output's columns, then those it is counted by that are not among them.
    pub fn plan(&self, part: &InputPart) -> Result<Arc<dyn ExecutionPlan>, EngineError> {
        let mut wanted = self.columns.clone();
        wanted.extend(COUNTED.map(str::to_owned).into_iter().filter(|name| !self.columns.contains(name)));
        let needed = self.scoring.needed_columns(&self.input.columns.schema(), &wanted);
        let scan = self.input.scan(&self.context, part, &needed)?;
        Ok(self.scoring.plan(scan, &wanted)?)
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
        let rows: Option<u64> = self.input.files.iter().map(|file| file.rows()).sum();
        Progress::new(rows, self.input.files.iter().map(|file| file.size()).sum())
    }

    /// Scores everything and makes the result visible.
    ///
    /// Memory: for each of [`ScoreJob::threads`] parts a batch on its way through the stages and one row group being encoded,
    /// and as many encoded row groups again that wait for their turn. Dropped, it stops at once and leaves no target.
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
        let at_once = Arc::new(Semaphore::new(self.threads));
        let mut parts = self.input.parts().into_iter();
        let mut workers = JoinSet::new();
        // Parts begun, in input order. Twice as many as are worked on, so that finished ones can wait for their turn.
        let mut begun: VecDeque<mpsc::Receiver<Result<Encoded, RunError>>> = VecDeque::new();
        loop {
            while begun.len() < 2 * self.threads
                && let Some(part) = parts.next()
            {
                let (sender, receiver) = mpsc::channel(2);
                let worker = PartWorker {
                    plan: self.plan(&part)?,
                    bytes: part.bytes(),
                    job: self.clone(),
                    encoder: PartEncoder::new(format, &schema, &self.row_groups),
                    progress: Arc::clone(progress),
                    profile: Arc::clone(&profile),
                };
                workers.spawn(worker.run(Arc::clone(&at_once), sender));
                begun.push_back(receiver);
            }
            let Some(part) = begun.front_mut() else { break };
            match part.recv().await {
                Some(encoded) => output.write(encoded?).await?,
                None => {
                    begun.pop_front();
                    // A worker that panicked closed its channel early: the part may be incomplete.
                    while let Some(ended) = workers.try_join_next() {
                        ended.map_err(|_| RunError::Worker)?;
                    }
                }
            }
        }
        while let Some(ended) = workers.join_next().await {
            ended.map_err(|_| RunError::Worker)?;
        }
        let (bytes, rows) = output.commit().await?;
        let norms = NormContext::of(&self.context.task_ctx())?.stats();
        let profile = std::mem::take(&mut *profile.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((progress.report(bytes, rows, norms), profile))
    }
}

/// The work on one part.
struct PartWorker {
    plan: Arc<dyn ExecutionPlan>,
    bytes: u64,
    job: ScoreJob,
    encoder: PartEncoder,
    progress: Arc<Progress>,
    profile: Arc<Mutex<PlanProfile>>,
}

impl PartWorker {
    async fn run(mut self, at_once: Arc<Semaphore>, sender: mpsc::Sender<Result<Encoded, RunError>>) {
        // The semaphore is fair: an earlier part is never kept waiting by a later one. It is never closed.
        let Ok(_permit) = at_once.acquire_owned().await else { return };
        if let Err(error) = self.score(&sender).await {
            // The receiver is gone only when the run has ended already.
            let _ = sender.send(Err(error)).await;
        }
    }

    async fn score(&mut self, sender: &mpsc::Sender<Result<Encoded, RunError>>) -> Result<(), RunError> {
        let mut batches = self.plan.execute(0, self.job.context.task_ctx())?;
        while let Some(batch) = batches.next().await {
            let batch = self.account_for(batch?)?;
            let step = self.encoder.rows_at_once();
            for from in (0..batch.num_rows()).step_by(step) {
                let rows = batch.slice(from, step.min(batch.num_rows() - from));
                if let Some(encoded) = self.encoder.encode(&rows)?
                    && sender.send(Ok(encoded)).await.is_err()
                {
                    return Ok(());
                }
            }
        }
        drop(batches);
        if let Some(encoded) = self.encoder.finish()? {
            let _ = sender.send(Ok(encoded)).await;
        }
        let mut part = PlanProfile::default();
        part.add(&self.plan);
        let scanned = part.sum("bytes_scanned") as u64;
        self.progress.add_part(if scanned > 0 { scanned } else { self.bytes }, self.bytes);
        self.profile.lock().unwrap_or_else(PoisonError::into_inner).add(&self.plan);
        Ok(())
    }

    /// Counts a batch, does with its failed sessions what the job says, and selects the output's columns.
    fn account_for(&self, batch: RecordBatch) -> Result<RecordBatch, RunError> {
        self.progress.add_sessions(batch.num_rows() as u64);
        let schema = batch.schema();
        let column = |name| Ok::<_, RunError>(batch.column(schema.index_of(name).map_err(arrow)?));
        let ok: &BooleanArray = column(OK)?.as_boolean();
        let mut kept = batch.clone();
        if ok.false_count() > 0 {
            let codes = column(ERROR_CODE)?.as_dictionary::<UInt8Type>();
            for code in codes.keys().iter().flatten() {
                self.progress.add_failed(FaultCode::ALL[usize::from(code)]);
            }
            match self.job.on_error {
                OnError::Keep => {}
                OnError::Drop => kept = filter_record_batch(&batch, ok).map_err(arrow)?,
                OnError::Fail => return Err(first_failure(&batch, ok)?),
            }
        }
        let output: Vec<usize> = (0..self.job.columns.len()).collect();
        kept.project(&output).map_err(arrow)
    }
}

/// The error that names the first failed session of a batch.
fn first_failure(batch: &RecordBatch, ok: &BooleanArray) -> Result<RunError, RunError> {
    let row = (0..ok.len()).find(|&row| !ok.value(row)).unwrap_or_default();
    let text = |name: &str| {
        let column = batch.column(batch.schema().index_of(name).map_err(arrow)?).slice(row, 1);
        let text = cast(&column, &DataType::Utf8).map_err(arrow)?;
        let text = text.as_string::<i32>();
        Ok::<_, RunError>(if text.is_null(0) { "null".to_owned() } else { text.value(0).to_owned() })
    };
    Ok(RunError::SessionFailed {
        code: text(ERROR_CODE)?,
        error: text(ERROR)?,
        place: format!("session_id {}", text(SESSION_ID)?),
    })
}

fn arrow(error: arrow::error::ArrowError) -> RunError {
    datafusion::error::DataFusionError::from(error).into()
}
