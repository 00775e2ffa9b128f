//! One export from beginning to end: lease, state, slice, query, load, receipt; again after temporary failures.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use futures::StreamExt;
use metrics::{counter, histogram};
use serde::Serialize;

use crate::engine::with_causes;
use crate::export::query::{self, Parameters};
use crate::export::schedule::Clock;
use crate::export::sink::{Lease, Load, Loaded, State, Targets};
use crate::export::slice::Cursor;
use crate::export::{ExportError, ExportJob, Incremental, Mode, Overlap, Receipt, Slice, Source, SourceRows};

/// How long the lease of a process that has died goes on at most: whoever lives renews its own before that.
pub(super) const LEASE: Duration = Duration::from_secs(60);
/// How long a queued export waits for the one before it.
const QUEUE: Duration = Duration::from_secs(24 * 60 * 60);
/// The first wait before another attempt; it doubles with each.
const BACKOFF: Duration = Duration::from_secs(1);
/// The longest wait before another attempt.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// What an export is asked to do, beside what its job says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Request {
    /// The slot of the schedule that it runs for. A slot that has been run is not run again.
    pub slot: Option<DateTime<Utc>>,
    /// Only rows of these times, the second exclusive. The cursor stays.
    pub window: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// Everything, in the place of what is there.
    pub full: bool,
}

/// How an export has ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The rows are there.
    Committed(Receipt),
    /// They were there before.
    AlreadyDone(Receipt),
    /// The slot has been run, here or elsewhere.
    SlotDone,
    /// There is nothing that has not been exported.
    NothingNew {
        /// How far the export has come.
        cursor: String,
    },
}

/// What an export would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The export.
    pub export: String,
    /// The target and its table.
    pub target: String,
    /// What is done with rows that are there.
    pub mode: String,
    /// Which rows.
    pub slice: String,
    /// The identity of the run.
    pub run_id: String,
    /// What happens to the table.
    pub table: String,
    /// The columns, with their types.
    pub columns: Vec<(String, String)>,
    /// How many rows there are, where they were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// What a failure hook is told.
#[derive(Debug, Serialize)]
struct Failure<'a> {
    outcome: &'static str,
    export: &'a str,
    target: &'a str,
    table: &'a str,
    error: String,
    retryable: bool,
    attempts: u32,
}

/// Runs exports. Cheap to share; exports may run at once.
#[derive(Clone)]
pub struct Exporter {
    /// Where rows come from.
    pub source: Source,
    /// Where they go.
    pub targets: Arc<Targets>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

impl Exporter {
    /// How far an export has come. Changes nothing.
    pub async fn state(&self, job: &ExportJob) -> Result<State, ExportError> {
        self.targets.open(job)?.state().await
    }

    /// What an export would do; with `count`, its rows are computed and counted. Changes nothing.
    pub async fn plan(&self, job: &ExportJob, request: Request, count: bool) -> Result<Plan, ExportError> {
        let sink = self.targets.open(job)?;
        let task = self.task(job, &sink.state().await?, request).await?;
        let mut rows = self.rows(job, &task).await?.stream;
        let schema = rows.schema();
        let columns = schema.fields().iter().map(|field| (field.name().clone(), field.data_type().to_string()));
        let table = sink.describe(&schema, &task.mode).await?;
        let mut counted = None;
        if count {
            let mut sum = 0;
            while let Some(batch) = rows.next().await {
                sum += batch.map_err(|error| query_failed(job, error.into()))?.num_rows() as u64;
            }
            counted = Some(sum);
        }
        Ok(Plan {
            export: job.name.clone(),
            target: format!("{} {}", job.target.name, job.table),
            mode: task.mode.to_string(),
            slice: task.slice.to_string(),
            run_id: task.receipt(job).run_id,
            table,
            columns: columns.collect(),
            rows: counted,
        })
    }

    /// Exports, and tries again after temporary failures as often as the job says. Hooks are told when it has ended.
    pub async fn run(&self, job: &ExportJob, request: Request) -> Result<Outcome, ExportError> {
        let mut attempts = 0;
        let ended = loop {
            attempts += 1;
            match self.attempt(job, request).await {
                Err(error) if attempts <= job.retries && error.is_retryable() && !is_busy(&error) => {
                    let wait = (BACKOFF * 2u32.saturating_pow(attempts - 1)).min(LONGEST_BACKOFF);
                    tracing::warn!(
                        export = job.name,
                        attempt = attempts,
                        ?wait,
                        "an export failed and is tried again: {error}"
                    );
                    tokio::time::sleep(wait).await;
                }
                ended => break ended,
            }
        };
        self.report(job, &ended, attempts).await;
        ended
    }

    async fn attempt(&self, job: &ExportJob, request: Request) -> Result<Outcome, ExportError> {
        let sink = self.targets.open(job)?;
        let patience = if job.overlap == Overlap::Queue { QUEUE } else { Duration::ZERO };
        let Some(mut lease) = sink.lease(patience).await? else {
            return Err(ExportError::Busy { export: job.name.clone() });
        };
        let ended = self.export(job, lease.as_mut(), request).await;
        lease.release().await;
        ended
    }

    async fn export(&self, job: &ExportJob, lease: &mut dyn Lease, request: Request) -> Result<Outcome, ExportError> {
        let state = lease.state().await?;
        if request.slot.is_some_and(|slot| state.slot.is_some_and(|done| done >= slot)) {
            return Ok(Outcome::SlotDone);
        }
        let task = self.task(job, &state, request).await?;
        if let (None, true, Some(cursor)) = (request.slot, task.slice.is_empty(), state.cursor) {
            return Ok(Outcome::NothingNew { cursor: cursor.to_string() });
        }
        let SourceRows { stream, context } = self.rows(job, &task).await?;
        let load = Load {
            receipt: task.receipt(job),
            base: state,
            mode: task.mode.clone(),
            min_rows: if task.is_past() { 0 } else { job.min_rows },
            partition_by: job.partition_by.clone(),
            rows: stream,
            context,
        };
        Ok(match lease.load(load).await? {
            Loaded::Committed(receipt) => Outcome::Committed(receipt),
            Loaded::AlreadyDone(receipt) => Outcome::AlreadyDone(receipt),
        })
    }

    /// Sets the cursor by hand.
    pub async fn set(&self, job: &ExportJob, cursor: Cursor) -> Result<(), ExportError> {
        let sink = self.targets.open(job)?;
        let Some(mut lease) = sink.lease(Duration::ZERO).await? else {
            return Err(ExportError::Busy { export: job.name.clone() });
        };
        let run_at = self.now();
        let mut receipt = Receipt::new(job, "set", &Slice::Everything, None, run_at, false);
        receipt.slice = "none".to_owned();
        receipt.cursor = Some(cursor);
        let set = lease.set(receipt).await;
        lease.release().await;
        set
    }

    /// Which rows, in which mode, under which name.
    async fn task(&self, job: &ExportJob, state: &State, request: Request) -> Result<Task, ExportError> {
        let run_at = request.slot.unwrap_or_else(|| self.now());
        let (slice, moves) = match (request.window, &job.incremental) {
            (Some((from, to)), _) => (Slice::Times { from: Some(from), to }, false),
            (None, Incremental::None) => (Slice::Everything, true),
            (None, Incremental::Column(_)) => {
                let from = match state.cursor {
                    Some(Cursor::Time(time)) if !request.full => Some(time),
                    _ => None,
                };
                // The cursor never goes back: what was exported after a slot by hand would come again.
                (Slice::Times { from, to: from.map_or(run_at, |from| from.max(run_at)) }, true)
            }
            (None, Incremental::Version) => {
                let after = match state.cursor {
                    Some(Cursor::Version(version)) if !request.full => Some(version),
                    _ => None,
                };
                (Slice::Versions { after, through: self.source.version(&job.name).await? }, true)
            }
        };
        let mode = if request.full { Mode::Overwrite } else { job.mode.clone() };
        Ok(Task { slice, mode, moves, slot: request.slot, run_at })
    }

    async fn rows(&self, job: &ExportJob, task: &Task) -> Result<SourceRows, ExportError> {
        let sql = query::text_of(job, &task.slice)?;
        let parameters = Parameters::new(&task.slice, task.run_at);
        self.source.query(job, &sql, &task.slice, &task.mode, &parameters).await
    }

    /// The time to the microsecond, which every target can keep.
    fn now(&self) -> DateTime<Utc> {
        let now = self.clock.now();
        now.duration_trunc(TimeDelta::microseconds(1)).unwrap_or(now)
    }

    async fn report(&self, job: &ExportJob, ended: &Result<Outcome, ExportError>, attempts: u32) {
        let name = || ("export", job.name.clone());
        let outcome = match ended {
            Ok(Outcome::Committed(receipt)) => {
                counter!("normstream_export_rows_total", &[name()]).increment(receipt.rows);
                counter!("normstream_export_bytes_total", &[name()]).increment(receipt.bytes);
                histogram!("normstream_export_seconds", &[name()]).record(receipt.seconds);
                "committed"
            }
            Ok(_) => "nothing_to_do",
            Err(ExportError::Busy { .. }) => "busy",
            Err(ExportError::Unknown { .. }) => "unknown",
            Err(_) => "failed",
        };
        counter!("normstream_exports_total", &[name(), ("outcome", outcome.to_owned())]).increment(1);
        match (ended, &job.on_success, &job.on_failure) {
            (Ok(news @ Outcome::Committed(_)), Some(hook), _) => hook.tell(&job.name, news).await,
            (Err(error), _, Some(hook)) if !is_busy(error) => {
                let news = Failure {
                    outcome,
                    export: &job.name,
                    target: &job.target.name,
                    table: &job.table,
                    error: with_causes(error),
                    retryable: error.is_retryable(),
                    attempts,
                };
                hook.tell(&job.name, &news).await;
            }
            _ => {}
        }
    }
}

fn is_busy(error: &ExportError) -> bool {
    matches!(error, ExportError::Busy { .. })
}

fn query_failed(job: &ExportJob, source: crate::engine::EngineError) -> ExportError {
    ExportError::Query { export: job.name.clone(), source: Box::new(source.into()) }
}

/// One export, decided.
struct Task {
    slice: Slice,
    mode: Mode,
    /// Whether the cursor moves to the end of the slice.
    moves: bool,
    slot: Option<DateTime<Utc>>,
    run_at: DateTime<Utc>,
}

impl Task {
    /// Whether the rows up to its time have all been exported before, so that none being left is no failure.
    fn is_past(&self) -> bool {
        matches!(self.slice, Slice::Times { .. }) && self.slice.is_empty()
    }

    fn receipt(&self, job: &ExportJob) -> Receipt {
        Receipt::new(job, &self.mode.to_string(), &self.slice, self.slot, self.run_at, self.moves)
    }
}
