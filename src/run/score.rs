//! Scoring a whole input: parts in parallel, results in input order.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef, UInt8Type};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use crate::engine::{EngineError, InputPart, Scoring, SessionInput};
use crate::model::FaultCode;
use crate::model::result::{ERROR, ERROR_CODE, OK};
use crate::model::session::SESSION_ID;
use crate::operators::NormContext;
use crate::operators::row_group::RowGroupOptions;
use crate::run::encode::{Encoded, PartEncoder};
use crate::run::ordered::{OrderedParts, PartSink};
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
        Progress::new(self.input.sessions(), self.input.bytes())
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
        let mut scored = OrderedParts::new(self.threads, self.input.parts().into_iter(), |part: InputPart, sink| {
            let worker = PartWorker {
                plan: self.plan(&part)?,
                bytes: part.bytes(),
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
    plan: Arc<dyn ExecutionPlan>,
    bytes: u64,
    job: ScoreJob,
    encoder: PartEncoder,
    progress: Arc<Progress>,
    profile: Arc<Mutex<PlanProfile>>,
}

impl PartWorker {
    async fn score(mut self, sink: PartSink<Encoded>) -> Result<(), RunError> {
        let mut batches = self.plan.execute(0, self.job.context.task_ctx())?;
        while let Some(batch) = batches.next().await {
            let batch = self.account_for(batch?)?;
            let step = self.encoder.rows_at_once();
            for from in (0..batch.num_rows()).step_by(step) {
                let rows = batch.slice(from, step.min(batch.num_rows() - from));
                if let Some(encoded) = self.encoder.encode(&rows)?
                    && !sink.send(encoded).await
                {
                    return Ok(());
                }
            }
        }
        drop(batches);
        if let Some(encoded) = self.encoder.finish()? {
            sink.send(encoded).await;
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
        let column = |name| Ok::<_, RunError>(batch.column(schema.index_of(name)?));
        let ok: &BooleanArray = column(OK)?.as_boolean();
        let mut kept = batch.clone();
        if ok.false_count() > 0 {
            let codes = column(ERROR_CODE)?.as_dictionary::<UInt8Type>();
            for code in codes.keys().iter().flatten() {
                self.progress.add_failed(FaultCode::ALL[usize::from(code)]);
            }
            match self.job.on_error {
                OnError::Keep => {}
                OnError::Drop => kept = filter_record_batch(&batch, ok)?,
                OnError::Fail => return Err(first_failure(&batch, ok)?),
            }
        }
        let output: Vec<usize> = (0..self.job.columns.len()).collect();
        Ok(kept.project(&output)?)
    }
}

/// The error that names the first failed session of a batch.
fn first_failure(batch: &RecordBatch, ok: &BooleanArray) -> Result<RunError, RunError> {
    let row = (0..ok.len()).find(|&row| !ok.value(row)).unwrap_or_default();
    let text = |name: &str| {
        let column = batch.column(batch.schema().index_of(name)?).slice(row, 1);
        let text = cast(&column, &DataType::Utf8)?;
        let text = text.as_string::<i32>();
        Ok::<_, RunError>(if text.is_null(0) { "null".to_owned() } else { text.value(0).to_owned() })
    };
    Ok(RunError::SessionFailed {
        code: text(ERROR_CODE)?,
        error: text(ERROR)?,
        place: format!("session_id {}", text(SESSION_ID)?),
    })
}
