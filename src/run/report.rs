//! What a run counts: while it goes on, and at its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use serde::Serialize;

use crate::model::FaultCode;
use crate::norms::NormStats;
use crate::run::journal::PartRecord;
use crate::run::peak_memory_bytes;
use crate::storage::PoolStatus;

/// Counters of a run, shared by its workers and whoever shows its progress.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    /// What is counted: sessions, unless a table of something else is written.
    pub counted: &'static str,
    /// How many sessions the input holds, where its files say so.
    pub expected_sessions: Option<u64>,
    /// How many bytes of input there are.
    pub expected_bytes: u64,
    sessions: AtomicU64,
    failed: [AtomicU64; FaultCode::ALL.len()],
    bytes_read: AtomicU64,
    bytes_of_finished_parts: AtomicU64,
    parts_at_work: AtomicUsize,
}

/// A part that is worked on, until it is dropped.
pub(super) struct PartAtWork(Arc<Progress>);

impl Drop for PartAtWork {
    fn drop(&mut self) {
        self.0.parts_at_work.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Progress {
    /// Counters for an input of this size.
    pub fn new(expected_sessions: Option<u64>, expected_bytes: u64) -> Self {
        Progress {
            started: Instant::now(),
            counted: "sessions",
            expected_sessions,
            expected_bytes,
            sessions: AtomicU64::new(0),
            failed: Default::default(),
            bytes_read: AtomicU64::new(0),
            bytes_of_finished_parts: AtomicU64::new(0),
            parts_at_work: AtomicUsize::new(0),
        }
    }

    /// Counters for writing a table of so many sessions or other things.
    pub fn of_table(counted: &'static str, expected: u64) -> Self {
        Progress { counted, ..Progress::new(Some(expected), 0) }
    }

    /// Counts the share of what is expected that one of `batches` equal batches is; all shares add up to all of it.
    pub(super) fn add_share(&self, index: u64, batches: u64) {
        let expected = u128::from(self.expected_sessions.unwrap_or_default());
        let before = |batches_before: u64| expected * u128::from(batches_before) / u128::from(batches.max(1));
        self.add_sessions((before(index + 1) - before(index)) as u64);
    }

    pub(super) fn add_sessions(&self, sessions: u64) {
        self.sessions.fetch_add(sessions, Ordering::Relaxed);
    }

    pub(super) fn add_failed(&self, code: FaultCode) {
        self.failed[code as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a part as worked on.
    pub(super) fn begin_part(self: &Arc<Self>) -> PartAtWork {
        self.parts_at_work.fetch_add(1, Ordering::Relaxed);
        PartAtWork(Arc::clone(self))
    }

    /// How many parts are worked on.
    pub(super) fn parts_at_work(&self) -> usize {
        self.parts_at_work.load(Ordering::Relaxed)
    }

    pub(super) fn add_part(&self, bytes_read: u64, bytes_of_part: u64) {
        self.bytes_read.fetch_add(bytes_read, Ordering::Relaxed);
        self.bytes_of_finished_parts.fetch_add(bytes_of_part, Ordering::Relaxed);
    }

    /// Counts a part that an earlier process has done.
    pub(super) fn add_resumed(&self, record: &PartRecord, bytes_of_part: u64) {
        self.add_sessions(record.sessions);
        for code in FaultCode::ALL {
            let failed = record.failed_by_code.get(code.as_str()).copied().unwrap_or_default();
            self.failed[code as usize].fetch_add(failed, Ordering::Relaxed);
        }
        self.add_part(0, bytes_of_part);
    }

    /// Sessions that went through, failed ones included.
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Bytes of the input whose parts are finished.
    pub fn finished_bytes(&self) -> u64 {
        self.bytes_of_finished_parts.load(Ordering::Relaxed)
    }

    /// Seconds since the run began.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Sessions a second so far.
    pub fn rate(&self) -> f64 {
        self.sessions() as f64 / self.seconds().max(1e-6)
    }

    /// Sessions that failed, by code; codes that did not occur are left out.
    pub fn failed_by_code(&self) -> BTreeMap<&'static str, u64> {
        let counts = FaultCode::ALL.map(|code| (code.as_str(), self.failed[code as usize].load(Ordering::Relaxed)));
        counts.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// The counters at the end of a run.
    pub(super) fn report(
        &self,
        bytes_written: u64,
        rows_written: u64,
        norms: NormStats,
        storage: Vec<PoolStatus>,
    ) -> RunReport {
        let failed_by_code = self.failed_by_code();
        let failed = failed_by_code.values().sum();
        RunReport {
            sessions: self.sessions(),
            scored: self.sessions() - failed,
            failed,
            failed_by_code,
            rows_written,
            seconds: self.seconds(),
            sessions_per_second: self.rate(),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            bytes_written,
            peak_memory_bytes: peak_memory_bytes(),
            norm_cache: norms,
            storage,
        }
    }
}

/// What a finished run did. Serialised as `--stats` prints it.
///
/// `sessions = scored + failed`, whatever was done with the failed ones.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// Sessions in the input.
    pub sessions: u64,
    /// Sessions that were scored.
    pub scored: u64,
    /// Sessions that were not.
    pub failed: u64,
    /// The latter by error code.
    pub failed_by_code: BTreeMap<&'static str, u64>,
    /// Rows in the output: all sessions, or with `--on-error drop` the scored ones.
    pub rows_written: u64,
    /// Wall time from the first part to the commit.
    pub seconds: f64,
    /// Sessions divided by seconds.
    pub sessions_per_second: f64,
    /// Bytes read from session files.
    pub bytes_read: u64,
    /// Bytes written to the target.
    pub bytes_written: u64,
    /// The process's greatest resident size, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// What the norm store did.
    pub norm_cache: NormStats,
    /// The pools of the object stores that were used; none for local files.
    pub storage: Vec<PoolStatus>,
}
