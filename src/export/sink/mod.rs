//! Where exports go. A target keeps, beside the rows and in the same commit, how far each export has come.

mod delta;
mod files;
mod log;
#[cfg(feature = "postgres")]
mod postgres;

#[cfg(feature = "postgres")]
use std::collections::HashMap;
use std::fmt;
#[cfg(feature = "postgres")]
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::SessionContext;

use crate::engine::FileFormat;
use crate::export::slice::Cursor;
use crate::export::{ExportError, ExportJob, Mode, Receipt};
use crate::storage::{PoolOptions, Storage};

#[cfg(feature = "postgres")]
use postgres::{PostgresOptions, PostgresPool};

/// A target, resolved.
#[derive(Clone)]
pub struct TargetOptions {
    /// Its name in the configuration.
    pub name: String,
    /// `postgres://…`, or a folder of any store. It may hold a password.
    pub url: String,
    /// What is written into a folder.
    pub format: TargetFormat,
    /// How connections to a database are kept.
    pub pool: PoolOptions,
}

impl TargetOptions {
    /// Whether the target is a PostgreSQL database.
    pub fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres://") || self.url.starts_with("postgresql://")
    }
}

impl fmt::Debug for TargetOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TargetOptions").field("name", &self.name).field("format", &self.format).finish_non_exhaustive()
    }
}

/// What is written into a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetFormat {
    /// A Delta table.
    Delta,
    /// Files.
    Files(FileFormat),
}

/// How far an export has come at its target.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    /// Where the next slice begins; `None` before the first.
    pub cursor: Option<Cursor>,
    /// The last slot that has been run.
    pub slot: Option<DateTime<Utc>>,
    /// What has been exported last.
    pub last: Option<Receipt>,
}

/// Rows on their way to a target.
pub struct Load {
    /// What will stand in the ledger, rows, bytes and seconds aside.
    pub receipt: Receipt,
    /// The state that the slice was cut from. From any other nothing is committed.
    pub base: State,
    /// What is done with rows that are there.
    pub mode: Mode,
    /// Fewer rows are an error, and nothing is written.
    pub min_rows: u64,
    /// Columns whose values become folders.
    pub partition_by: Vec<String>,
    /// The rows.
    pub rows: SendableRecordBatchStream,
    /// The session that they are computed in.
    pub context: SessionContext,
}

/// How an export that was begun has ended, where it is known.
#[derive(Debug, Clone, PartialEq)]
pub enum Loaded {
    /// The rows are there, once.
    Committed(Receipt),
    /// They had been brought before, and nothing was done now.
    AlreadyDone(Receipt),
}

/// A target of one export.
#[async_trait]
pub trait Sink: Send + Sync {
    /// How far the export has come. Changes nothing; a target that does not exist yet has the state of the beginning.
    async fn state(&self) -> Result<State, ExportError>;

    /// The last exports, the newest first.
    async fn history(&self, most: usize) -> Result<Vec<Receipt>, ExportError>;

    /// What a load of rows of this schema would do to the table, in words; refuses what [`Lease::load`] would refuse of it.
    async fn describe(&self, schema: &arrow::datatypes::Schema, mode: &Mode) -> Result<String, ExportError>;

    /// Takes the lease of the export. `None` if another process has it and `patience` has passed.
    async fn lease(&self, patience: Duration) -> Result<Option<Box<dyn Lease>>, ExportError>;

    /// The pool of connections in words, for targets that have one.
    fn pool_status(&self) -> Option<PoolState> {
        None
    }
}

/// The right to export. Given back when it is dropped, and when its process dies.
///
/// The lease keeps two processes from doing the same work. That rows come once does not depend on it: a commit happens only
/// from the state that was read under the lease.
#[async_trait]
pub trait Lease: Send {
    /// How far the export has come.
    async fn state(&mut self) -> Result<State, ExportError>;

    /// Brings rows: all of them and the ledger's entry in one commit, or nothing.
    ///
    /// Memory: a few batches. An error means that nothing was committed, save [`ExportError::Unknown`]. Dropped, it leaves
    /// nothing that the ledger names; files that readers without it may see go with the next export.
    async fn load(&mut self, load: Load) -> Result<Loaded, ExportError>;

    /// Sets the cursor without rows.
    async fn set(&mut self, receipt: Receipt) -> Result<(), ExportError>;

    /// Gives the lease back now.
    async fn release(self: Box<Self>);
}

/// A pool of database connections at one moment.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PoolState {
    /// Steady capacity.
    pub size: usize,
    /// Burst above it.
    pub max_overflow: usize,
    /// Connections that are open.
    pub open: usize,
    /// Those in use.
    pub checked_out: usize,
    /// Those waiting for one.
    pub waiting: usize,
}

/// The targets of a process: exports to one database share its pool.
pub struct Targets {
    storage: Storage,
    #[cfg(feature = "postgres")]
    pools: Mutex<HashMap<String, Arc<PostgresPool>>>,
}

impl Targets {
    /// Targets in these stores, and databases.
    pub fn new(storage: Storage) -> Self {
        Self {
            storage,
            #[cfg(feature = "postgres")]
            pools: Mutex::default(),
        }
    }

    /// Opens the target of an export. Makes no request.
    pub fn open(&self, job: &ExportJob) -> Result<Box<dyn Sink>, ExportError> {
        if job.target.is_postgres() {
            return self.open_postgres(job);
        }
        match job.target.format {
            TargetFormat::Delta => Ok(Box::new(delta::DeltaSink::new(job, &self.storage)?)),
            TargetFormat::Files(format) => Ok(Box::new(files::FileSink::new(job, format, &self.storage)?)),
        }
    }

    #[cfg(feature = "postgres")]
    fn open_postgres(&self, job: &ExportJob) -> Result<Box<dyn Sink>, ExportError> {
        if !job.partition_by.is_empty() {
            return Err(ExportError::Mode {
                target: job.target.name.clone(),
                mode: "partition".to_owned(),
                reason: "partition_by is for Parquet",
            });
        }
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = match pools.get(&job.target.name) {
            Some(pool) => Arc::clone(pool),
            None => {
                let server = PostgresOptions::parse(&job.target.name, &job.target.url)?;
                let pool = Arc::new(PostgresPool::new(&job.target.name, server, job.target.pool.clone())?);
                pools.insert(job.target.name.clone(), Arc::clone(&pool));
                pool
            }
        };
        Ok(Box::new(postgres::PostgresSink::new(job, pool)?))
    }

    #[cfg(not(feature = "postgres"))]
    fn open_postgres(&self, job: &ExportJob) -> Result<Box<dyn Sink>, ExportError> {
        Err(ExportError::NotBuiltIn { target: job.target.name.clone(), feature: "postgres" })
    }
}

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Targets").finish_non_exhaustive()
    }
}
