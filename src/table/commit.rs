//! One commit: decided on the newest version, put if absent at the next number, looked up again whenever it is in doubt.
//!
//! ```text
//!        ┌────────────▶ read the newest version n
//!        │                 │ does it hold the transaction? ──▶ committed: before, or by an attempt whose answer was lost
//!        │                 ▼
//!        │              decide: which files are added and removed, given version n
//!        │                 ▼
//!        │              put entry n + 1 if absent ──▶ done: committed
//!        ├─ exists already ┤
//!        └─ answer lost ───┘
//! ```
//!
//! An entry whose answer was lost may still arrive. It can only become version n + 1, and once that exists, whosever it is, it
//! cannot arrive any more. So the loop goes on until the version it was meant for exists, and then knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use fail::fail_point;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};

use crate::storage::StorageError;
use crate::table::{DataFile, Snapshot, Table, TableError, TableFormat, difference, manifest};

/// How long commits of others are waited out.
const PATIENCE: Duration = Duration::from_secs(120);
/// The first wait before another attempt; it doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_millis(1_000);
/// How many answers may be lost before the outcome stays unknown.
const MOST_LOST_ANSWERS: u32 = 5;
/// How often files may move while a change is decided before it is given up.
const MOST_MOVES: u32 = 8;

/// What makes a commit happen once: an application's own name for what it commits, and a number that only grows.
///
/// A table remembers the last number of each name. A commit whose number is not above it has been made already.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transaction {
    /// The name, as in `normstream/run/3f9c…`.
    pub app_id: String,
    /// The number, from 1.
    pub number: i64,
    /// Further numbers by name that the same commit sets, up or down: how far something has come. They are read, and survive
    /// the shortening of a log, as the first does, but do not decide whether the commit has been made.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub marks: BTreeMap<String, i64>,
    /// What the entry of the log says of the commit beside its files: counts, digests, the cursor of an export.
    pub info: Map<String, Value>,
}

/// What a commit changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    /// Files that become live.
    pub add: Vec<DataFile>,
    /// Files that are not live any more.
    pub remove: Removal,
}

/// Which files a commit takes out of the table. They are not deleted.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Removal {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// Those with these paths.
    Of(Vec<String>),
}

impl Change {
    /// The same change as entries of a log may have it: a file that is live and stays is neither added nor removed.
    fn against(mut self, base: Option<&Snapshot>) -> SettledChange {
        let live = base.map(|base| base.files.as_slice()).unwrap_or_default();
        let replaces_all = self.remove == Removal::All;
        let added: BTreeSet<String> = self.add.iter().map(|file| file.path.clone()).collect();
        let removed: BTreeSet<String> = match self.remove {
            Removal::None => BTreeSet::new(),
            Removal::All => live.iter().map(|file| file.path.clone()).collect(),
            Removal::Of(paths) => paths.into_iter().collect(),
        };
        let live: BTreeSet<&String> = live.iter().map(|file| &file.path).collect();
        self.add.retain(|file| !live.contains(&file.path));
        let remove = removed.difference(&added).filter(|path| live.contains(path)).cloned().collect();
        SettledChange { add: self.add, remove, replaces_all }
    }
}

/// A change of a known version: what it adds is not live there, what it removes is, and no path is in both.
pub(super) struct SettledChange {
    pub(super) add: Vec<DataFile>,
    pub(super) remove: BTreeSet<String>,
    /// Whether it is meant to leave nothing of what was there.
    #[cfg_attr(not(feature = "delta"), expect(dead_code, reason = "manifests name what is removed"))]
    pub(super) replaces_all: bool,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the table, by this call.
    Committed {
        /// The version it became, unless the answer was lost and others have committed since.
        version: Option<u64>,
    },
    /// It was in the table already.
    CommittedBefore,
}

/// What a transaction does to the version it finds.
#[async_trait]
pub trait Revision: Send {
    /// The change to be made to a version, or to nothing where there is no table yet. Asked again whenever another commit was
    /// faster, and after [`TableError::FilesMoved`].
    async fn change(&mut self, base: Option<&Snapshot>) -> Result<Change, TableError>;
}

/// Adds files and keeps all that are there.
#[derive(Debug, Clone)]
pub struct Append(pub Vec<DataFile>);

/// Adds files in the place of all that are there.
#[derive(Debug, Clone)]
pub struct Overwrite(pub Vec<DataFile>);

#[async_trait]
impl Revision for Append {
    async fn change(&mut self, _: Option<&Snapshot>) -> Result<Change, TableError> {
        Ok(Change { add: self.0.clone(), remove: Removal::None })
    }
}

#[async_trait]
impl Revision for Overwrite {
    async fn change(&mut self, _: Option<&Snapshot>) -> Result<Change, TableError> {
        Ok(Change { add: self.0.clone(), remove: Removal::All })
    }
}

/// What one attempt to put an entry came to.
pub(super) enum Attempt {
    /// It is in the log.
    Done,
    /// Another entry has the number.
    Taken,
    /// It is not in the log, and will not be.
    Refused(Box<dyn std::error::Error + Send + Sync>),
    /// It may be in the log, or come to be.
    Unknown(Box<dyn std::error::Error + Send + Sync>),
}

impl Attempt {
    /// What the error of a put says of the entry: some are given before anything is sent.
    pub(super) fn failed(error: StorageError) -> Attempt {
        match error {
            StorageError::Denied { .. }
            | StorageError::ReadOnly { .. }
            | StorageError::InvalidTarget { .. }
            | StorageError::PoolTimeout { .. }
            | StorageError::Io { .. } => Attempt::Refused(Box::new(error)),
            error => Attempt::Unknown(Box::new(error)),
        }
    }
}

impl Table {
    /// Commits a transaction, once.
    ///
    /// A table that does not exist is made, with the columns of `schema`; one that exists must have them. The files must be
    /// complete and durable where [`Table::location_of_new`] says. After [`TableError::OutcomeUnknown`] the commit may be there
    /// or not: the same call with the same transaction finds out. Nothing is ever deleted.
    pub async fn commit(
        &self,
        transaction: &Transaction,
        schema: &SchemaRef,
        revision: &mut dyn Revision,
    ) -> Result<Outcome, TableError> {
        let started = Instant::now();
        let (mut attempts, mut lost_answers, mut moves) = (0, 0, 0);
        // The version that an attempt of ours may become yet.
        let mut doubt: Option<(u64, Box<dyn std::error::Error + Send + Sync>)> = None;
        loop {
            let mut doubted = None;
            let base = match (self.snapshot().await, doubt.take()) {
                (Ok(base), Some((version, source))) => {
                    doubted = Some(version);
                    if base.as_ref().is_none_or(|base| base.version < version) {
                        doubt = Some((version, source));
                    }
                    base
                }
                (Ok(base), None) => base,
                (Err(_), Some((version, source))) => return Err(self.unknown(version, source)),
                (Err(error), None) => return Err(error),
            };
            if let Some(base) = &base {
                if base.transaction(&transaction.app_id).await?.is_some_and(|done| done >= transaction.number) {
                    return Ok(match lost_answers {
                        0 => Outcome::CommittedBefore,
                        _ => Outcome::Committed { version: doubted.filter(|version| *version == base.version) },
                    });
                }
                if let Some(difference) = difference(&base.schema, schema) {
                    return Err(TableError::Schema { table: self.root.to_string(), difference });
                }
            }
            let version = base.as_ref().map_or(0, |base| base.version + 1);
            attempts += 1;
            let change = match revision.change(base.as_ref()).await {
                Ok(change) => change.against(base.as_ref()),
                Err(TableError::FilesMoved { .. }) if moves < MOST_MOVES => {
                    moves += 1;
                    sleep(wait_before(attempts)).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            fail_point!("commit-decided", |_| std::process::abort());
            match self.attempt(transaction, schema, base.as_ref(), change).await {
                Attempt::Done => return Ok(Outcome::Committed { version: Some(version) }),
                Attempt::Taken => {}
                Attempt::Refused(source) if doubt.is_none() => {
                    return Err(TableError::NotCommitted { table: self.root.to_string(), source });
                }
                Attempt::Refused(source) => return Err(self.unknown(version, source)),
                Attempt::Unknown(source) => {
                    lost_answers += 1;
                    if lost_answers > MOST_LOST_ANSWERS {
                        return Err(self.unknown(version, source));
                    }
                    doubt = Some((version, source));
                }
            }
            if started.elapsed() > PATIENCE {
                return Err(match doubt {
                    Some((version, source)) => self.unknown(version, source),
                    None => TableError::Contended { table: self.root.to_string(), attempts },
                });
            }
            sleep(wait_before(attempts)).await;
        }
    }

    async fn attempt(
        &self,
        transaction: &Transaction,
        schema: &SchemaRef,
        base: Option<&Snapshot>,
        change: SettledChange,
    ) -> Attempt {
        match self.format {
            #[cfg(feature = "delta")]
            TableFormat::Delta => super::delta::attempt(self, transaction, schema, base, change).await,
            #[cfg(not(feature = "delta"))]
            TableFormat::Delta => Attempt::Refused(Box::new(TableError::WithoutDelta { table: self.root.to_string() })),
            TableFormat::Parquet => manifest::attempt(self, transaction, schema, base, change).await,
        }
    }

    fn unknown(&self, version: u64, source: Box<dyn std::error::Error + Send + Sync>) -> TableError {
        TableError::OutcomeUnknown { table: self.root.to_string(), version, source }
    }
}

/// The wait before another attempt: between half of a growing time and all of it, so that writers do not keep in step.
fn wait_before(attempts: u32) -> Duration {
    let full = FIRST_WAIT.saturating_mul(1 << attempts.min(10)).min(LONGEST_WAIT);
    full.mul_f64(rand::random_range(0.5..=1.0))
}
