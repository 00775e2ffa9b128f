//! A Delta table as a target: files first, then one entry of the table's log with the files, the cursor and the run.
//!
//! How far an export has come stands in the commit information of its last entry; that there is one, and that it is not made
//! twice, in the table's transactions (`txn`), under the export's name. Beside the table, under `_normstream`, is the lease.

mod upsert;
mod write;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::export::sink::log::{LogLease, StoreLog};
use crate::export::sink::{Lease, Load, Loaded, Sink, State};
use crate::export::slice::{Cursor, rfc3339};
use crate::export::{ExportError, ExportJob, Mode, Receipt};
use crate::storage::{Location, Storage};
use crate::table::{Change, DataFile, Removal, Revision, Snapshot, Table, TableError, TableFormat};
use crate::table::{Transaction, difference, table_schema};

use write::TableWriter;

/// The key of an export's note in the commit information.
const NOTE: &str = "normstream_export";
/// How many versions are looked back for a run that was committed before.
const LOOK_BACK: usize = 100;

/// What an export says of itself in the entry that it commits.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    cursor: Option<Cursor>,
    #[serde(with = "rfc3339::option")]
    slot: Option<DateTime<Utc>>,
    receipt: Receipt,
}

impl Note {
    fn after(base: &State, receipt: &Receipt) -> Self {
        let (cursor, slot) = (receipt.cursor.or(base.cursor), receipt.slot.max(base.slot));
        Note { cursor, slot, receipt: receipt.clone() }
    }
}

/// A Delta table as the target of one export.
#[derive(Clone)]
pub(super) struct DeltaSink {
    table: Table,
    export: String,
    log: StoreLog,
}

impl DeltaSink {
    pub(super) fn new(job: &ExportJob, storage: &Storage) -> Result<Self, ExportError> {
        if !job.partition_by.is_empty() {
            return Err(ExportError::Mode {
                target: job.target.name.clone(),
                mode: "partition".to_owned(),
                reason: "partition_by is for Parquet",
            });
        }
        let root = storage.open(&job.target.url)?;
        let log = root.child(&format!("_normstream/{}/{}/", job.table, job.name));
        let table = Table::new(storage, &root.child(&format!("{}/", job.table)), TableFormat::Delta);
        Ok(Self { table, export: job.name.clone(), log: StoreLog::new(storage, log, &job.target.name) })
    }

    fn app_id(&self) -> String {
        format!("normstream/export/{}", self.export)
    }

    /// The export's notes as of a version, the newest first; at most so many, from at most [`LOOK_BACK`] versions. The log of a
    /// table may have been shortened: then its oldest are not there any more.
    async fn notes(&self, newest: Option<Snapshot>, most: usize) -> Result<Vec<Note>, ExportError> {
        let mut notes = Vec::new();
        let Some(mut snapshot) = newest else { return Ok(notes) };
        if snapshot.transaction(&self.app_id()).await?.is_none() {
            return Ok(notes);
        }
        for _ in 0..LOOK_BACK {
            if let Some(note) = snapshot.info().await?.remove(NOTE) {
                let note: Note = serde_json::from_value(note).map_err(|error| ExportError::Ledger {
                    target: self.table.root().to_string(),
                    reason: format!("version {}: {error}", snapshot.version),
                })?;
                if note.receipt.export == self.export {
                    notes.push(note);
                }
            }
            if notes.len() >= most || snapshot.version == 0 {
                break;
            }
            match self.table.snapshot_at(snapshot.version - 1).await {
                Ok(older) => snapshot = older,
                Err(_) if !notes.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
        }
        if notes.is_empty() {
            return Err(ExportError::Ledger {
                target: self.table.root().to_string(),
                reason: format!("none of the last {LOOK_BACK} versions is of this export, though older ones are"),
            });
        }
        Ok(notes)
    }

    async fn current(&self) -> Result<State, ExportError> {
        let newest = self.table.snapshot().await?;
        let last = self.notes(newest, 1).await?.pop();
        Ok(last.map_or_else(State::default, |note| State {
            cursor: note.cursor,
            slot: note.slot,
            last: Some(note.receipt),
        }))
    }
}

#[async_trait]
impl Sink for DeltaSink {
    async fn state(&self) -> Result<State, ExportError> {
        self.current().await
    }

    async fn history(&self, most: usize) -> Result<Vec<Receipt>, ExportError> {
        let newest = self.table.snapshot().await?;
        Ok(self.notes(newest, most).await?.into_iter().map(|note| note.receipt).collect())
    }

    async fn describe(&self, schema: &Schema, mode: &Mode) -> Result<String, ExportError> {
        let schema = table_schema(schema)?;
        let table = self.table.root().to_string();
        match self.table.snapshot().await? {
            None => Ok(format!("creates the Delta table {table} with {} columns", schema.fields().len())),
            Some(snapshot) => match difference(&snapshot.schema, &schema) {
                Some(difference) => Err(TableError::Schema { table, difference }.into()),
                None => Ok(format!("{mode} on version {} of the Delta table {table}", snapshot.version)),
            },
        }
    }

    async fn lease(&self, patience: Duration) -> Result<Option<Box<dyn Lease>>, ExportError> {
        let Some(lease) = self.log.lease(patience).await? else { return Ok(None) };
        Ok(Some(Box::new(DeltaLease { sink: self.clone(), lease })))
    }
}

struct DeltaLease {
    sink: DeltaSink,
    lease: LogLease,
}

impl DeltaLease {
    /// Commits, from the state that the slice was cut from.
    async fn commit(
        &self,
        mut commit: DeltaCommit<'_>,
        receipt: &Receipt,
        base: &State,
    ) -> Result<(), ExportError> {
        let table = &self.sink.table;
        let number = match table.snapshot().await? {
            Some(snapshot) => snapshot.transaction(&self.sink.app_id()).await?.unwrap_or(0) + 1,
            None => 1,
        };
        let now = self.sink.current().await?;
        if (now.cursor, now.slot) != (base.cursor, base.slot) {
            return Err(ExportError::Conflict { export: self.sink.export.clone() });
        }
        let unknown = || ExportError::Unknown {
            export: self.sink.export.clone(),
            run_id: receipt.run_id.clone(),
            target: table.root().to_string(),
        };
        let note = serde_json::json!(Note::after(base, receipt));
        let info = Map::from_iter([(NOTE.to_owned(), note)]);
        let transaction = Transaction { app_id: self.sink.app_id(), number, info };
        let schema = Arc::clone(&commit.schema);
        match table.commit(&transaction, &schema, &mut commit).await {
            Ok(_) => {}
            Err(TableError::OutcomeUnknown { .. }) => return Err(unknown()),
            Err(error) => return Err(error.into()),
        }
        // The number may have been taken by another process, whose lease came after ours: the run tells whose it is.
        let newest = table.snapshot().await.map_err(|_| unknown())?;
        let notes = self.sink.notes(newest, LOOK_BACK).await.map_err(|_| unknown())?;
        match notes.iter().any(|note| note.receipt.run_id == receipt.run_id) {
            true => Ok(()),
            false => Err(ExportError::Conflict { export: self.sink.export.clone() }),
        }
    }
}

#[async_trait]
impl Lease for DeltaLease {
    async fn state(&mut self) -> Result<State, ExportError> {
        self.sink.current().await
    }

    async fn load(&mut self, mut load: Load) -> Result<Loaded, ExportError> {
        let began = Instant::now();
        crash_point!("export::leased");
        let table = &self.sink.table;
        let newest = table.snapshot().await?;
        let done = self.sink.notes(newest, usize::MAX).await?.into_iter();
        if let Some(note) = done.into_iter().find(|note| note.receipt.run_id == load.receipt.run_id) {
            return Ok(Loaded::AlreadyDone(note.receipt));
        }
        let mut writer = TableWriter::new(table, &load.rows.schema(), &load.receipt.run_id)?;
        writer.write_all(&mut load.rows, &self.sink.export).await?;
        let (export, rows, min_rows) = (self.sink.export.clone(), writer.rows(), load.min_rows);
        if rows < min_rows {
            return Err(ExportError::TooFewRows { export, rows, min_rows });
        }
        let schema = writer.schema();
        crash_point!("export::staged");
        let files = writer.finish().await?;
        load.receipt.rows = rows;
        load.receipt.bytes = files.iter().map(|file| file.size).sum();
        if let Mode::Upsert { key } = &load.mode {
            upsert::check_keys(&load.context, table, &files, key, &export).await?;
        }
        crash_point!("export::merged");
        load.receipt.seconds = began.elapsed().as_secs_f64();
        let commit = DeltaCommit {
            table,
            context: &load.context,
            mode: &load.mode,
            schema,
            run_id: load.receipt.run_id.clone(),
            files,
        };
        self.commit(commit, &load.receipt, &load.base).await?;
        crash_point!("export::committed");
        Ok(Loaded::Committed(load.receipt))
    }

    async fn set(&mut self, receipt: Receipt) -> Result<(), ExportError> {
        let base = self.sink.current().await?;
        let missing = || ExportError::Table(TableError::NoTable { table: self.sink.table.root().to_string() });
        let schema = self.sink.table.snapshot().await?.ok_or_else(missing)?.schema;
        let context = SessionContext::new();
        let commit = DeltaCommit {
            table: &self.sink.table,
            context: &context,
            mode: &Mode::Append,
            schema,
            run_id: receipt.run_id.clone(),
            files: Vec::new(),
        };
        self.commit(commit, &receipt, &base).await
    }

    async fn release(self: Box<Self>) {
        self.lease.release().await;
    }
}

/// What an export does to the version that it meets.
struct DeltaCommit<'a> {
    table: &'a Table,
    context: &'a SessionContext,
    mode: &'a Mode,
    schema: SchemaRef,
    run_id: String,
    files: Vec<DataFile>,
}

#[async_trait]
impl Revision for DeltaCommit<'_> {
    async fn change(&mut self, base: Option<&Snapshot>) -> Result<Change, TableError> {
        let (mut add, remove) = (
            self.files.clone(),
            match (self.mode, base) {
                (Mode::Append, _) | (_, None) => Removal::None,
                (Mode::Overwrite, Some(_)) => Removal::All,
                (Mode::Upsert { key }, Some(base)) => {
                    let kept =
                        upsert::replace(self.context, self.table, base, &self.files, key, &self.run_id, &self.schema);
                    let (kept, removed) = kept.await.map_err(|error| TableError::Revision(Box::new(error)))?;
                    return Ok(Change {
                        add: self.files.iter().cloned().chain(kept).collect(),
                        remove: if removed.is_empty() { Removal::None } else { Removal::Of(removed) },
                    });
                }
            },
        );
        add.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Change { add, remove })
    }
}

/// Where files of a table lie.
async fn places(table: &Table, files: &[DataFile]) -> Result<Vec<Location>, ExportError> {
    Ok(table.locations(files).await?)
}
