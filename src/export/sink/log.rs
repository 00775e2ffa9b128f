//! A log of numbered entries in a folder of any store: the lease of an export, and for files its ledger.
//!
//! An entry is written only where there is none of its number, which every store can do in one request: of two processes that
//! go on from the same entry one wins, and the other knows. Everything that must not happen twice hangs on that.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::export::slice::{Cursor, rfc3339};
use crate::export::{ExportError, Receipt};
use crate::storage::{Location, Storage, StorageError};

/// How long a lease holds unless it is renewed.
const LEASE: Duration = Duration::from_secs(60);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(20);
/// How often a lease that another process has is asked for again.
const POLL: Duration = Duration::from_millis(500);

/// What an entry tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub(super) enum Event {
    /// A process exports, or goes on doing so.
    Lease,
    /// These files are about to become visible. Without a commit after it they mean nothing, and go.
    Begin { files: Vec<String> },
    /// These files are exported; those that are replaced go.
    Commit { receipt: Receipt, files: Vec<String>, replaced: Vec<String> },
    /// The cursor was set by hand.
    Set { receipt: Receipt },
    /// The lease is given back.
    Release,
}

/// An entry, with all that is needed to go on from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    pub(super) event: Event,
    /// Who wrote it.
    owner: String,
    /// Until when nobody else goes on from it; `None` from the moment on.
    #[serde(with = "rfc3339::option")]
    expires: Option<DateTime<Utc>>,
    pub(super) cursor: Option<Cursor>,
    #[serde(with = "rfc3339::option")]
    pub(super) slot: Option<DateTime<Utc>>,
    /// The number of the last entry that is a commit or a set cursor, this one aside.
    pub(super) last: Option<u64>,
}

/// The log of one export.
#[derive(Debug, Clone)]
pub(super) struct StoreLog {
    storage: Storage,
    folder: Location,
    target: String,
}

impl StoreLog {
    /// The log in a folder, which need not exist.
    pub(super) fn new(storage: &Storage, folder: Location, target: &str) -> Self {
        Self { storage: storage.clone(), folder, target: target.to_owned() }
    }

    /// The newest entry and its number.
    pub(super) async fn newest(&self) -> Result<Option<(u64, Entry)>, ExportError> {
        let objects = self.folder.list_files().await?;
        let number = |name: &str| name.strip_suffix(".json").and_then(|number| number.parse::<u64>().ok());
        match objects.iter().filter_map(|object| number(object.location.filename()?)).max() {
            Some(number) => Ok(Some((number, self.entry(number).await?))),
            None => Ok(None),
        }
    }

    /// The entry of a number.
    pub(super) async fn entry(&self, number: u64) -> Result<Entry, ExportError> {
        let at = self.at(number);
        let content = at.read().await?;
        serde_json::from_slice(&content).map_err(|error| ExportError::Ledger {
            target: self.target.clone(),
            reason: format!("{at} is not an entry of it: {error}"),
        })
    }

    /// The commits before and at an entry, the newest first, as far as `keep` says.
    pub(super) async fn commits(
        &self,
        from: Option<(u64, Entry)>,
        mut keep: impl FnMut(&Event) -> bool,
    ) -> Result<Vec<Event>, ExportError> {
        let mut found = Vec::new();
        let mut entry = from.map(|(_, entry)| entry);
        while let Some(Entry { event, last, .. }) = entry {
            if matches!(event, Event::Commit { .. } | Event::Set { .. }) {
                let goes_on = keep(&event);
                found.push(event);
                if !goes_on {
                    break;
                }
            }
            entry = match last {
                Some(number) => Some(self.entry(number).await?),
                None => None,
            };
        }
        Ok(found)
    }

    /// Takes the lease. `None` if another process has it and `patience` has passed.
    pub(super) async fn lease(&self, patience: Duration) -> Result<Option<LogLease>, ExportError> {
        let owner = format!("{:016x}", rand::random::<u64>());
        let asked = tokio::time::Instant::now();
        loop {
            let newest = self.newest().await?;
            let held = newest.as_ref().and_then(|(_, entry)| entry.expires).is_some_and(|expires| expires > Utc::now());
            if !held {
                let mut position = Position::after(newest);
                if position.append(self, &owner, Event::Lease, true).await? {
                    return Ok(Some(LogLease::new(self.clone(), owner, position)));
                }
            }
            if asked.elapsed() >= patience {
                return Ok(None);
            }
            tokio::time::sleep(POLL.min(patience)).await;
        }
    }

    fn at(&self, number: u64) -> Location {
        self.folder.child(&format!("{number:020}.json"))
    }
}

/// Where a process stands in the log.
#[derive(Debug)]
struct Position {
    number: Option<u64>,
    cursor: Option<Cursor>,
    slot: Option<DateTime<Utc>>,
    last: Option<u64>,
}

impl Position {
    fn after(newest: Option<(u64, Entry)>) -> Self {
        match newest {
            None => Self { number: None, cursor: None, slot: None, last: None },
            Some((number, entry)) => {
                let commits = matches!(entry.event, Event::Commit { .. } | Event::Set { .. });
                let last = if commits { Some(number) } else { entry.last };
                Self { number: Some(number), cursor: entry.cursor, slot: entry.slot, last }
            }
        }
    }

    /// Writes the next entry. `false` if another process has gone on from the same entry.
    async fn append(&mut self, log: &StoreLog, owner: &str, event: Event, keeps: bool) -> Result<bool, ExportError> {
        let number = self.number.map_or(0, |number| number + 1);
        let expires = keeps.then(|| Utc::now() + TimeDelta::from_std(LEASE).unwrap_or_default());
        let (mut cursor, mut slot) = (self.cursor, self.slot);
        if let Event::Commit { receipt, .. } | Event::Set { receipt } = &event {
            cursor = receipt.cursor.or(cursor);
            slot = receipt.slot.max(slot);
        }
        let entry = Entry { event, owner: owner.to_owned(), expires, cursor, slot, last: self.last };
        let content = serde_json::to_vec_pretty(&entry)
            .map_err(|error| ExportError::Ledger { target: log.target.clone(), reason: error.to_string() })?;
        match log.storage.write(&log.at(number), content, false).await {
            Ok(_) => {}
            // A request that was sent again finds what it wrote the first time.
            Err(StorageError::AlreadyExists { .. }) if log.entry(number).await? == entry => {}
            Err(StorageError::AlreadyExists { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        *self = Self::after(Some((number, entry)));
        Ok(true)
    }
}

/// The lease of an export, renewed until it is dropped or lost.
#[derive(Debug)]
pub(super) struct LogLease {
    pub(super) log: StoreLog,
    owner: String,
    position: Arc<Mutex<Position>>,
    renewal: JoinHandle<()>,
}

impl LogLease {
    fn new(log: StoreLog, owner: String, position: Position) -> Self {
        let position = Arc::new(Mutex::new(position));
        let renewal = {
            let (log, owner, position) = (log.clone(), owner.clone(), Arc::clone(&position));
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(RENEWAL).await;
                    match position.lock().await.append(&log, &owner, Event::Lease, true).await {
                        Ok(true) => {}
                        // The commit will find out too.
                        Ok(false) => return,
                        Err(error) => tracing::warn!(%error, "a lease could not be renewed"),
                    }
                }
            })
        };
        Self { log, owner, position, renewal }
    }

    /// Writes the next entry. `false` if the lease was lost.
    pub(super) async fn append(&self, event: Event) -> Result<bool, ExportError> {
        self.position.lock().await.append(&self.log, &self.owner, event, true).await
    }

    /// How far the export has come, by the log.
    pub(super) async fn state(&self) -> (Option<Cursor>, Option<DateTime<Utc>>) {
        let position = self.position.lock().await;
        (position.cursor, position.slot)
    }

    /// The number of the entry that this stands at.
    pub(super) async fn number(&self) -> Option<u64> {
        self.position.lock().await.number
    }

    /// Gives the lease back.
    pub(super) async fn release(self) {
        self.renewal.abort();
        let released = self.position.lock().await.append(&self.log, &self.owner, Event::Release, false).await;
        if let Err(error) = released {
            tracing::debug!(%error, "a lease was not given back; it ends by itself");
        }
    }
}

impl Drop for LogLease {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::storage::StorageOptions;

    fn log() -> StoreLog {
        let storage = Storage::new(StorageOptions::default(), []).unwrap();
        let folder = storage.open("memory:///log").unwrap();
        StoreLog::new(&storage, folder, "dw")
    }

    #[tokio::test]
    async fn one_process_at_a_time_has_the_lease() {
        let log = log();
        let first = log.lease(Duration::ZERO).await.unwrap().unwrap();
        assert!(log.lease(Duration::ZERO).await.unwrap().is_none());
        first.release().await;
        assert!(log.lease(Duration::ZERO).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn of_two_that_go_on_from_one_entry_one_wins() {
        let log = log();
        let mut one = Position::after(log.newest().await.unwrap());
        let mut two = Position::after(log.newest().await.unwrap());
        assert!(one.append(&log, "one", Event::Lease, true).await.unwrap());
        assert!(!two.append(&log, "two", Event::Lease, true).await.unwrap());
        assert!(one.append(&log, "one", Event::Release, false).await.unwrap());
        assert_eq!(log.newest().await.unwrap().unwrap().0, 1);
    }

    #[tokio::test]
    async fn a_lease_that_was_left_behind_ends_and_its_holder_cannot_go_on() {
        let log = log();
        let left = log.lease(Duration::ZERO).await.unwrap().unwrap();
        {
            // As if its minute had passed: another process writes after it.
            let mut other = Position::after(log.newest().await.unwrap());
            assert!(other.append(&log, "other", Event::Lease, true).await.unwrap());
        }
        assert!(!left.append(Event::Begin { files: Vec::new() }).await.unwrap());
    }
}
