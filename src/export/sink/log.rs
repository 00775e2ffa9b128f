//! A log of numbered entries in a folder of any store: the lease of an export, and for files its ledger.
//!
//! An entry is written only where there is none of its number, which every store can do in one request: of two processes that
//! go on from the same entry one wins, and the other knows. Everything that must not happen twice hangs on that.
//!
//! Commits stay for good, each with the number of the one before it. Other entries go when a later lease has dealt with what they
//! noted. Then a number may be free again that somebody who was held up for long still means to write: so an entry counts only if
//! it is the newest once it is there, or, as a commit, if the newest leads back to it.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::export::run::LEASE;
use crate::export::slice::{Cursor, rfc3339};
use crate::export::{ExportError, Receipt};
use crate::storage::{Location, Storage, StorageError};

/// How often a lease is renewed.
const RENEWAL: Duration = Duration::from_secs(20);
/// How often the newest entry is looked for, when it goes in between.
const LOOKS: usize = 5;
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
        let mut looks = 0;
        loop {
            looks += 1;
            let Some(number) = self.numbers().await?.pop() else { return Ok(None) };
            match self.entry(number).await {
                Ok(entry) => return Ok(Some((number, entry))),
                // It went when a newer one came.
                Err(ExportError::Storage(StorageError::NotFound { .. })) if looks < LOOKS => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The numbers of all entries, in order.
    async fn numbers(&self) -> Result<Vec<u64>, ExportError> {
        let objects = self.folder.list_files().await?;
        let number = |name: &str| name.strip_suffix(".json").and_then(|number| number.parse::<u64>().ok());
        let mut numbers: Vec<u64> = objects.iter().filter_map(|object| number(object.location.filename()?)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Whether an entry is the newest, or a commit that the newest goes on from.
    async fn leads_back_to(&self, wanted: u64) -> Result<bool, ExportError> {
        let mut at = self.newest().await?;
        while let Some((number, Entry { last, .. })) = at {
            if number <= wanted {
                return Ok(number == wanted);
            }
            at = match last {
                Some(last) => Some((last, self.entry(last).await?)),
                None => None,
            };
        }
        Ok(false)
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
        let (number, entry) = loop {
            let number = self.number.map_or(0, |number| number + 1);
            let entry = self.next(owner, event.clone(), keeps);
            let content = serde_json::to_vec_pretty(&entry)
                .map_err(|error| ExportError::Ledger { target: log.target.clone(), reason: error.to_string() })?;
            let there = match log.storage.write(&log.at(number), content, false).await {
                Ok(_) => break (number, entry),
                Err(StorageError::AlreadyExists { .. }) => log.entry(number).await?,
                Err(error) => return Err(error.into()),
            };
            if there == entry {
                // A request that was sent again finds what it wrote the first time.
                break (number, entry);
            }
            if there.owner != owner {
                return Ok(false);
            }
            // Our own, from a request whose answer was lost: that is where we stand.
            *self = Self::after(Some((number, there)));
        };
        let counts = match &entry.event {
            Event::Commit { .. } | Event::Set { .. } => log.leads_back_to(number).await?,
            Event::Lease | Event::Begin { .. } | Event::Release => log.numbers().await?.last() == Some(&number),
        };
        if !counts {
            return Ok(false);
        }
        *self = Self::after(Some((number, entry)));
        Ok(true)
    }

    /// The entry that an event becomes after this place.
    fn next(&self, owner: &str, event: Event, keeps: bool) -> Entry {
        let expires = keeps.then(|| Utc::now() + TimeDelta::from_std(LEASE).unwrap_or_default());
        let (mut cursor, mut slot) = (self.cursor, self.slot);
        if let Event::Commit { receipt, .. } | Event::Set { receipt } = &event {
            cursor = receipt.cursor.or(cursor);
            slot = receipt.slot.max(slot);
        }
        Entry { event, owner: owner.to_owned(), expires, cursor, slot, last: self.last }
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

    /// The last commit, and what was noted after it by those who had the lease before.
    pub(super) async fn left_behind(&self) -> Result<(Option<Event>, Vec<Event>), ExportError> {
        let (last, number) = self.place().await;
        let after = last.map_or(0, |last| last + 1);
        let mut noted = Vec::new();
        for number in self.log.numbers().await?.into_iter().filter(|entry| (after..number).contains(entry)) {
            noted.push(self.log.entry(number).await?.event);
        }
        let commit = match last {
            Some(last) => Some(self.log.entry(last).await?.event),
            None => None,
        };
        Ok((commit, noted))
    }

    /// Removes the entries that nobody needs, from the last commit but one to this lease, once what they noted has been dealt with.
    pub(super) async fn prune(&self) {
        let pruned = async {
            let (last, number) = self.place().await;
            let before = match last {
                Some(last) => self.log.entry(last).await?.last,
                None => None,
            };
            let after = before.map_or(0, |before| before + 1);
            for entry in self.log.numbers().await? {
                if (after..number).contains(&entry) && Some(entry) != last {
                    self.log.at(entry).delete().await?;
                }
            }
            Ok::<_, ExportError>(())
        };
        if let Err(error) = pruned.await {
            tracing::debug!(%error, "entries of a log that nobody needs are still there");
        }
    }

    /// The numbers of the last commit and of the entry that this stands at.
    async fn place(&self) -> (Option<u64>, u64) {
        let position = self.position.lock().await;
        (position.last, position.number.unwrap_or(0))
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
    async fn who_lost_the_answer_to_a_renewal_still_has_the_lease_and_another_does_not() {
        let log = log();
        let lease = log.lease(Duration::ZERO).await.unwrap().unwrap();
        let mut renewed = Position::after(log.newest().await.unwrap());
        assert!(renewed.append(&log, &lease.owner, Event::Lease, true).await.unwrap());
        // It stands at entry 0 still, and its renewal is entry 1.
        let mut other = Position { number: Some(0), cursor: None, slot: None, last: None };
        assert!(!other.append(&log, "other", Event::Lease, true).await.unwrap());
        let commit = Event::Commit { receipt: receipt(), files: Vec::new(), replaced: Vec::new() };
        assert!(lease.append(commit).await.unwrap());
        assert_eq!(lease.place().await, (Some(2), 2));
        lease.release().await;
        assert_eq!(log.numbers().await.unwrap(), [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn entries_that_nobody_needs_go_and_who_stood_at_one_of_them_cannot_go_on() {
        let log = log();
        let first = log.lease(Duration::ZERO).await.unwrap().unwrap();
        let mut late = [Some(0), None].map(|number| Position { number, cursor: None, slot: None, last: None });
        first.release().await;
        let second = log.lease(Duration::ZERO).await.unwrap().unwrap();
        second.prune().await;
        assert_eq!(log.numbers().await.unwrap(), [2]);
        let commit = Event::Commit { receipt: receipt(), files: Vec::new(), replaced: Vec::new() };
        assert!(!late[0].append(&log, "late", commit.clone(), true).await.unwrap());
        assert!(!late[1].append(&log, "late", Event::Lease, true).await.unwrap());
        assert!(second.append(commit).await.unwrap());
        second.release().await;
        for _ in 0..3 {
            let lease = log.lease(Duration::ZERO).await.unwrap().unwrap();
            lease.prune().await;
            lease.release().await;
        }
        // The commit, the last lease and its end.
        assert_eq!(log.numbers().await.unwrap(), [3, 9, 10]);
        let newest = log.newest().await.unwrap();
        assert_eq!(log.commits(newest, |_| true).await.unwrap().len(), 1);
    }

    fn receipt() -> Receipt {
        let fields = serde_json::json!({
            "run_id": "r", "export": "e", "target": "t", "table": "t", "mode": "append", "slice": "everything",
            "cursor": null, "slot": null, "run_at": "2024-05-01T00:00:00Z", "query_digest": "", "rows": 0, "bytes": 0,
            "seconds": 0.0,
        });
        serde_json::from_value(fields).unwrap()
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
