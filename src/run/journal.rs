//! What a run leaves in its table's folder while it goes on: its plan, an entry for each part that is written, its receipt.
//!
//! ```text
//! _normstream/runs/<run id>/plan.json             the plan, put if absent before any work
//!                           active.json           when a process last began to work on it
//!                           abandoned.json        put by `clean` before it removes anything of the run
//!                           1/00000.json …        the entries of attempt 1, each put if absent after its file is durable
//!                           1/run.json            the receipt of attempt 1, after its commit
//!                           2/…                   a later attempt, if the run was asked to be done again
//! ```
//!
//! Nothing here says whether a run is committed: the log of the table does.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::run::receipt::Receipt;
use crate::run::{RunError, RunId, RunPlan};
use crate::storage::{Creation, Location, Storage, StorageError};
use crate::table::{BOOKKEEPING, DataFile, Table};

/// Entries read at once.
const READS_AT_ONCE: usize = 16;

/// A part that is written.
///
/// Invariant: its file was complete and durable before the entry was put.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartRecord {
    /// The part, an index into [`RunPlan::parts`].
    pub part: usize,
    /// Its file; none if it has no rows.
    pub file: Option<DataFile>,
    /// The file of its failed sessions, where they are written and there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<DataFile>,
    /// Its sessions.
    pub sessions: u64,
    /// Those that failed, by code.
    pub failed_by_code: BTreeMap<String, u64>,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// How long it took.
    pub seconds: f64,
}

impl PartRecord {
    /// Sessions that failed.
    pub fn failed(&self) -> u64 {
        self.failed_by_code.values().sum()
    }
}

/// A plan with the time when its run began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// The run.
    pub run: RunId,
    /// When it was first begun, as RFC 3339.
    pub begun_at: String,
    /// What it does.
    pub plan: RunPlan,
}

/// The bookkeeping of one run.
#[derive(Debug, Clone)]
pub struct Journal {
    storage: Storage,
    folder: Location,
}

impl Journal {
    /// The bookkeeping of a run in a table's folder.
    pub fn new(table: &Table, run: &RunId) -> Journal {
        let folder = runs_folder(table.root()).child(run.as_str());
        Journal { storage: table.storage().clone(), folder }
    }

    /// Leaves the plan, if it is not there. Returns what is there.
    pub async fn begin(&self, plan: &RunPlan) -> Result<PlanRecord, RunError> {
        let begun_at = chrono::Utc::now().to_rfc3339();
        let record = PlanRecord { run: plan.id(), begun_at, plan: plan.clone() };
        self.put(&self.folder.child("plan.json"), record).await
    }

    /// Says that somebody works on the run from now on. Fails if it is being cleaned away.
    ///
    /// Called before anything of the run is written or looked at, as [`Journal::check_kept`] is right before the commit: either
    /// the run sees that it is being cleaned away, or `clean` sees that it is worked on.
    pub(super) async fn enter(&self) -> Result<(), RunError> {
        // A `clean` that was stopped goes on only if nobody seems to work on the run: what is marked is left as it is.
        self.check_unmarked().await?;
        let now = format!("{{\"since\": \"{}\"}}\n", chrono::Utc::now().to_rfc3339());
        self.storage.write(&self.folder.child("active.json"), now, true).await?;
        self.check_unmarked().await
    }

    /// Fails if the run is being cleaned away, or has been since it was begun: then the plan is gone, or another one.
    pub(super) async fn check_kept(&self, begun: &PlanRecord) -> Result<(), RunError> {
        self.check_unmarked().await?;
        match self.plan().await? {
            Some(there) if there.begun_at == begun.begun_at => Ok(()),
            _ => Err(self.being_cleaned()),
        }
    }

    async fn check_unmarked(&self) -> Result<(), RunError> {
        if self.abandoned().exists().await? { Err(self.being_cleaned()) } else { Ok(()) }
    }

    fn being_cleaned(&self) -> RunError {
        RunError::BeingCleaned { run: self.folder.path.filename().unwrap_or_default().to_owned() }
    }

    /// The mark of a run that is being cleaned away.
    pub(super) fn abandoned(&self) -> Location {
        self.folder.child("abandoned.json")
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Location {
        &self.folder
    }

    /// The plan, if it is there.
    pub async fn plan(&self) -> Result<Option<PlanRecord>, RunError> {
        read(&self.folder.child("plan.json")).await
    }

    /// The entries of an attempt, by part.
    pub async fn entries(&self, attempt: i64) -> Result<BTreeMap<usize, PartRecord>, RunError> {
        let folder = self.folder.child(&format!("{attempt}/"));
        let objects = folder.list_files().await?;
        let is_entry = |name: Option<&str>| {
            name.and_then(|name| name.strip_suffix(".json")).is_some_and(|stem| stem.parse::<usize>().is_ok())
        };
        let entries = objects.into_iter().filter(|object| is_entry(object.location.filename()));
        let entries = entries.map(|object| folder.at(object.location));
        let read = stream::iter(entries).map(|at| async move { read::<PartRecord>(&at).await });
        let records: Vec<Option<PartRecord>> = read.buffer_unordered(READS_AT_ONCE).try_collect().await?;
        Ok(records.into_iter().flatten().map(|record| (record.part, record)).collect())
    }

    /// Leaves the entry of a part, if there is none. Returns what is there.
    pub async fn record(&self, attempt: i64, record: PartRecord) -> Result<PartRecord, RunError> {
        let at = self.folder.child(&format!("{attempt}/{:05}.json", record.part));
        self.put(&at, record).await
    }

    /// The receipt of an attempt, if there is one.
    pub async fn receipt(&self, attempt: i64) -> Result<Option<Receipt>, RunError> {
        read(&self.folder.child(&format!("{attempt}/run.json"))).await
    }

    /// Leaves the receipt of an attempt, if there is none. Returns what is there.
    pub async fn file_receipt(&self, receipt: Receipt) -> Result<Receipt, RunError> {
        let at = self.folder.child(&format!("{}/run.json", receipt.attempt));
        self.put(&at, receipt).await
    }

    /// Puts a record if there is none. A lost answer is looked up: whichever record is there, it is one of this run.
    async fn put<T: Serialize + DeserializeOwned>(&self, at: &Location, record: T) -> Result<T, RunError> {
        let text = serde_json::to_vec_pretty(&record)
            .map_err(|error| RunError::Bookkeeping { file: at.to_string(), what: error.to_string() })?;
        let doubt = match self.storage.create(at, text).await {
            Ok(Creation::Created(_)) => return Ok(record),
            Ok(Creation::Exists) => None,
            Ok(Creation::Unknown(error)) | Err(error) => Some(error),
        };
        match (read(at).await, doubt) {
            (Ok(Some(there)), _) => Ok(there),
            (_, Some(error)) => Err(error.into()),
            (Ok(None), None) => Err(StorageError::NotFound { target: at.to_string() }.into()),
            (Err(error), None) => Err(error),
        }
    }
}

/// The folder of all runs of a table.
pub(super) fn runs_folder(root: &Location) -> Location {
    root.child(BOOKKEEPING).child("runs")
}

/// The ids of all runs that have left a plan in a table's folder, in no order of time.
pub async fn known_runs(table: &Table) -> Result<Vec<RunId>, RunError> {
    let folder = runs_folder(table.root());
    let listed = folder.store.list_with_delimiter(Some(&folder.path)).await;
    let listed = listed.map_err(|error| StorageError::of_store(folder.to_string(), "list it", error))?;
    let id = |path: &object_store::path::Path| RunId::parse(path.filename()?);
    Ok(listed.common_prefixes.iter().filter_map(id).collect())
}

async fn read<T: DeserializeOwned>(at: &Location) -> Result<Option<T>, RunError> {
    let bytes = match at.read().await {
        Ok(bytes) => bytes,
        Err(StorageError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let malformed = |error: serde_json::Error| RunError::Bookkeeping { file: at.to_string(), what: error.to_string() };
    serde_json::from_slice(&bytes).map(Some).map_err(malformed)
}
