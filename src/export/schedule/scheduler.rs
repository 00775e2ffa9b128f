//! Runs exports when they are due, one after another for each export, different exports side by side.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::engine::with_causes;
use crate::export::run::LEASE;
use crate::export::schedule::due::due;
use crate::export::slice::{rfc3339, time_text};
use crate::export::{ExportError, ExportJob, Exporter, Outcome, Overlap, Request};

/// What a scheduler has to tell.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
// Made one at a time, on the way to a log.
#[allow(clippy::large_enum_variant)]
pub enum Event {
    /// It waits for slots now.
    Ready {
        /// How many exports it runs.
        exports: usize,
        /// The first slot that comes, and of which export.
        next: Option<(String, String)>,
    },
    /// An export begins.
    Started {
        /// The export.
        export: String,
        /// Its slot.
        #[serde(with = "rfc3339")]
        slot: DateTime<Utc>,
    },
    /// An export has ended well.
    Finished {
        /// The export.
        export: String,
        /// Its slot.
        #[serde(with = "rfc3339")]
        slot: DateTime<Utc>,
        /// How.
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// An export has failed for good.
    Failed {
        /// The export.
        export: String,
        /// Its slot.
        #[serde(with = "rfc3339")]
        slot: DateTime<Utc>,
        /// Why.
        error: String,
        /// Whether the next slot may do better by itself.
        retryable: bool,
    },
    /// Another process has the lease of the export, or died with it: the slot is looked at again when a lease that nobody renews
    /// has ended.
    Waits {
        /// The export.
        export: String,
        /// Its slot.
        #[serde(with = "rfc3339")]
        slot: DateTime<Utc>,
    },
    /// A slot is passed over.
    Skipped {
        /// The export.
        export: String,
        /// The slot.
        #[serde(with = "rfc3339")]
        slot: DateTime<Utc>,
        /// Why.
        reason: String,
    },
    /// No slot is begun any more.
    Draining {
        /// Exports that still run.
        running: usize,
    },
    /// It has ended.
    Stopped,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Ready { exports, next: Some((export, slot)) } => {
                write!(f, "ready: {exports} exports; next {export} at {slot}")
            }
            Event::Ready { exports, next: None } => write!(f, "ready: {exports} exports"),
            Event::Started { export, slot } => write!(f, "{export}: slot {} begins", time_text(slot)),
            Event::Finished { export, slot, outcome } => {
                let slot = time_text(slot);
                match outcome {
                    Outcome::Committed(receipt) => write!(
                        f,
                        "{export}: slot {slot} done, {} rows of {} in {:.1} s",
                        receipt.rows, receipt.slice, receipt.seconds
                    ),
                    Outcome::AlreadyDone(_) | Outcome::SlotDone => write!(f, "{export}: slot {slot} was done before"),
                    Outcome::NothingNew { cursor } => write!(f, "{export}: slot {slot}, nothing after {cursor}"),
                }
            }
            Event::Failed { export, slot, error, .. } => {
                write!(f, "{export}: slot {} failed: {error}", time_text(slot))
            }
            Event::Waits { export, slot } => {
                let (slot, seconds) = (time_text(slot), LEASE.as_secs());
                write!(f, "{export}: slot {slot} waits {seconds} s, as another process has the lease")
            }
            Event::Skipped { export, slot, reason } => {
                write!(f, "{export}: slot {} skipped: {reason}", time_text(slot))
            }
            Event::Draining { running } => write!(f, "stopping: {running} exports still run"),
            Event::Stopped => f.write_str("stopped"),
        }
    }
}

/// Runs the exports that have a schedule.
///
/// Any number of schedulers may run the same exports: a slot is noted at the target in the commit that brings its rows, and
/// what is noted is not run again.
pub struct Scheduler {
    exporter: Exporter,
    jobs: Vec<Arc<ExportJob>>,
    tell: Arc<dyn Fn(Event) + Send + Sync>,
    running: Arc<AtomicUsize>,
}

impl Scheduler {
    /// A scheduler of those jobs that have a schedule.
    pub fn new(exporter: Exporter, jobs: Vec<ExportJob>, tell: Arc<dyn Fn(Event) + Send + Sync>) -> Self {
        let jobs = jobs.into_iter().filter(|job| job.schedule.is_some()).map(Arc::new).collect();
        Self { exporter, jobs, tell, running: Arc::default() }
    }

    /// Runs what is due now, and returns what failed. Where another process has the lease it waits until one that nobody renews
    /// has ended: the slot of a process that died is run, and only that of one that lives is skipped.
    pub async fn run_once(&self) -> Vec<(String, ExportError)> {
        let mut failures = Vec::new();
        for job in &self.jobs {
            let mut follower = self.follower(job);
            let mut has_waited = false;
            for slot in follower.due().await {
                let mut ended = follower.run(slot).await;
                if let Err(ExportError::Busy { .. }) = ended {
                    // Who has the lease after a minute is alive: the slots after this one need not wait to know that.
                    if !std::mem::replace(&mut has_waited, true) {
                        self.exporter.clock.sleep_until(self.exporter.clock.now() + LEASE).await;
                    }
                    ended = follower.run(slot).await;
                }
                failures.extend(ended.err().map(|error| (job.name.clone(), error)));
            }
        }
        failures
    }

    /// Runs slots as they come, until `stop` becomes true; then lets what runs come to its end.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        let now = self.exporter.clock.now();
        let slots = self.jobs.iter().filter_map(|job| Some((job.schedule.as_ref()?.after(now)?, &job.name)));
        let next = slots.min().map(|(slot, export)| (export.clone(), time_text(&slot)));
        (self.tell)(Event::Ready { exports: self.jobs.len(), next });
        let mut followers = JoinSet::new();
        for job in &self.jobs {
            followers.spawn(self.follower(job).follow(stop.clone()));
        }
        // Without a sender nobody can ever say stop: then they are followed for ever.
        if stop.wait_for(|stop| *stop).await.is_ok() {
            (self.tell)(Event::Draining { running: self.running.load(Relaxed) });
        }
        while followers.join_next().await.is_some() {}
        (self.tell)(Event::Stopped);
    }

    fn follower(&self, job: &Arc<ExportJob>) -> Follower {
        let (exporter, job, tell) = (self.exporter.clone(), Arc::clone(job), Arc::clone(&self.tell));
        Follower { exporter, job, tell, running: Arc::clone(&self.running), passed: None, held: None }
    }
}

/// Follows the schedule of one export.
struct Follower {
    exporter: Exporter,
    job: Arc<ExportJob>,
    tell: Arc<dyn Fn(Event) + Send + Sync>,
    /// How many exports run, of all followers.
    running: Arc<AtomicUsize>,
    /// The last slot that was dealt with, whatever came of it.
    passed: Option<DateTime<Utc>>,
    /// The slot that is to be looked at again, as another process had the lease.
    held: Option<DateTime<Utc>>,
}

impl Follower {
    async fn follow(mut self, mut stop: watch::Receiver<bool>) {
        let Some(schedule) = self.job.schedule.clone() else { return };
        while !*stop.borrow() {
            for slot in self.due().await {
                if *stop.borrow() {
                    return;
                }
                // Told and noted already; the next slot comes whatever became of this one.
                let _ = self.run(slot).await;
                if self.held.is_some() {
                    break;
                }
            }
            let now = self.exporter.clock.now();
            let next = match self.held {
                Some(_) => Some(now + LEASE),
                None => {
                    self.pass_over();
                    schedule.after(self.passed.map_or(now, |passed| passed.max(now)))
                }
            };
            let Some(next) = next else { return };
            tokio::select! {
                () = self.exporter.clock.sleep_until(next) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// The slots that are due now.
    async fn due(&mut self) -> Vec<DateTime<Utc>> {
        let job = Arc::clone(&self.job);
        let Some(schedule) = &job.schedule else { return Vec::new() };
        let done = match self.exporter.state(&job).await {
            Ok(state) => state.slot,
            // The export itself will meet the same error, try again and tell of it.
            Err(error) => {
                tracing::warn!(export = job.name, "what has been run cannot be looked up: {error}");
                None
            }
        };
        let slots = due(schedule, job.catch_up, done, self.passed, self.exporter.clock.now());
        if let Some(slot) = self.held.take_if(|held| !slots.contains(held))
            && done >= Some(slot)
        {
            self.skip(slot, "another process has exported it");
        }
        slots
    }

    /// Runs a slot. [`ExportError::Busy`] leaves it to be looked at again when a lease that nobody renews has ended; whoever has
    /// the lease then is alive, and the slot is skipped.
    async fn run(&mut self, slot: DateTime<Utc>) -> Result<(), ExportError> {
        let export = self.job.name.clone();
        (self.tell)(Event::Started { export: export.clone(), slot });
        let request = Request { slot: Some(slot), ..Request::default() };
        self.running.fetch_add(1, Relaxed);
        let ended = self.exporter.run(&self.job, request).await;
        self.running.fetch_sub(1, Relaxed);
        let held = self.held.take();
        if let Err(ExportError::Busy { .. }) = ended
            && held != Some(slot)
        {
            self.held = Some(slot);
            (self.tell)(Event::Waits { export, slot });
            return ended.map(drop);
        }
        self.passed = self.passed.max(Some(slot));
        match ended {
            Ok(outcome) => {
                (self.tell)(Event::Finished { export, slot, outcome });
                Ok(())
            }
            Err(ExportError::Busy { .. }) => {
                self.skip(slot, "another process exports it");
                Ok(())
            }
            Err(error) => {
                (self.tell)(Event::Failed {
                    export,
                    slot,
                    error: with_causes(&error),
                    retryable: error.is_retryable(),
                });
                Err(error)
            }
        }
    }

    /// Passes over the slots that came while the export ran, if it is not to be queued.
    fn pass_over(&mut self) {
        let (Overlap::Skip, Some(schedule), Some(passed)) = (self.job.overlap, &self.job.schedule, self.passed) else {
            return;
        };
        let now = self.exporter.clock.now();
        for slot in schedule.between(passed, now) {
            self.skip(slot, "the export before it still ran");
        }
    }

    fn skip(&mut self, slot: DateTime<Utc>, reason: &str) {
        (self.tell)(Event::Skipped { export: self.job.name.clone(), slot, reason: reason.to_owned() });
        self.passed = self.passed.max(Some(slot));
    }
}
