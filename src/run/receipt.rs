//! The receipt of a run: what it was, what it did, and how long it took.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::run::journal::{PartRecord, PlanRecord};
use crate::run::{RunId, RunPlan};

/// What a committed run did; `run.json`.
///
/// Invariants: it is left after the commit, so a run with a receipt is committed; `sessions = scored + failed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The run.
    pub run: RunId,
    /// Which attempt of it: 1, unless it was asked to be done again.
    pub attempt: i64,
    /// The version of the table that it became, where that is known: an answer to the commit may be lost.
    pub version: Option<u64>,
    /// Sessions in the input.
    pub sessions: u64,
    /// Sessions that were scored.
    pub scored: u64,
    /// Sessions that were not.
    pub failed: u64,
    /// The latter by error code.
    pub failed_by_code: BTreeMap<String, u64>,
    /// Rows that came to the table.
    pub rows: u64,
    /// Files that came to the table.
    pub files: u64,
    /// Their bytes.
    pub bytes_written: u64,
    /// Bytes of session files that were read.
    pub bytes_read: u64,
    /// When the run was first begun, as RFC 3339.
    pub begun_at: String,
    /// When it was committed.
    pub committed_at: String,
    /// Wall time of the process that committed it.
    pub seconds: f64,
    /// Work on its parts, by all processes together.
    pub part_seconds: f64,
    /// Parts that an earlier process had left.
    pub parts_resumed: usize,
    /// The process's greatest resident size, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// What the norm store of the process that committed did.
    pub norm_cache: Value,
    /// What the run was.
    pub plan: RunPlan,
}

/// Sums over the parts of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    /// Sessions.
    pub sessions: u64,
    /// Failed ones by code.
    pub failed_by_code: BTreeMap<String, u64>,
    /// Rows written.
    pub rows: u64,
    /// Files written.
    pub files: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Time taken.
    pub seconds: f64,
}

impl Totals {
    /// The sums over records.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a PartRecord>) -> Totals {
        let mut totals = Totals::default();
        for record in records {
            totals.sessions += record.sessions;
            for (code, count) in &record.failed_by_code {
                *totals.failed_by_code.entry(code.clone()).or_default() += count;
            }
            totals.bytes_read += record.bytes_read;
            totals.seconds += record.seconds;
            if let Some(file) = &record.file {
                totals.rows += file.rows.unwrap_or_default();
                totals.files += 1;
                totals.bytes_written += file.size;
            }
        }
        totals
    }

    /// Sessions that failed.
    pub fn failed(&self) -> u64 {
        self.failed_by_code.values().sum()
    }

    /// What the entry of the table's log says of the run.
    pub(super) fn commit_info(&self, record: &PlanRecord, attempt: i64) -> Map<String, Value> {
        let plan = &record.plan;
        let info = json!({
            "normstream": plan.tool,
            "runId": record.run,
            "attempt": attempt,
            "mode": plan.options.mode,
            "instrument": plan.instrument,
            "instrumentDigest": plan.instrument_digest,
            "normsDigest": plan.norms_digest,
            "sessions": self.sessions,
            "scored": self.sessions - self.failed(),
            "failed": self.failed(),
        });
        match info {
            Value::Object(info) => info,
            _ => Map::new(),
        }
    }
}
