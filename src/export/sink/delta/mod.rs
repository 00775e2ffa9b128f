//! A Delta table as a target: files first, then one entry of the table's log with the files, the cursor and the run.
//!
//! How far an export has come stands in the table's transactions (`txn`), which outlive the entries of its log, in the entry
//! that brings the rows:
//!
//! ```text
//! normstream/export/run/RUN           1: this run has been committed
//! normstream/export/version/EXPORT    the cursor, where it is a version
//! normstream/export/time/EXPORT       the cursor, where it is a time, in microseconds
//! normstream/export/slot/EXPORT       the last slot, in microseconds
//! ```
//!
//! The receipt stands in the commit information, for people. The lease is kept beside the table, under `_normstream`.

mod upsert;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use chrono::DateTime;
use datafusion::prelude::SessionContext;
use serde_json::Map;

use crate::export::sink::log::{LogLease, StoreLog};
use crate::export::sink::{Lease, Load, Loaded, Sink, State};
use crate::export::slice::Cursor;
use crate::export::{ExportError, ExportJob, Mode, Receipt};
use crate::storage::Storage;
use crate::table::{Change, DataFile, Removal, Revision, Snapshot, Table, TableError, TableFormat};
use crate::table::{Transaction, difference, table_schema};

use write::TableWriter;

/// The key of the receipt in the commit information.
const RECEIPT: &str = "normstream_export";
/// How many entries of the log are looked through for a receipt.
const LOOK_BACK: usize = 100;
/// The number of a cursor that is not set, because it is one of the other kind.
const UNSET: i64 = i64::MIN;

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

    /// The name of a number of this export.
    fn mark(&self, kind: &str) -> String {
        format!("normstream/export/{kind}/{}", self.export)
    }

    /// How far the export has come at a version.
    async fn progress(&self, snapshot: Option<&Snapshot>) -> Result<State, TableError> {
        let Some(snapshot) = snapshot else { return Ok(State::default()) };
        let mut numbers = [None; 3];
        for (number, kind) in numbers.iter_mut().zip(["version", "time", "slot"]) {
            *number = snapshot.transaction(&self.mark(kind)).await?.filter(|number| *number != UNSET);
        }
        let [version, time, slot] = numbers;
        let version = version.and_then(|version| u64::try_from(version).ok()).map(Cursor::Version);
        let time = time.and_then(DateTime::from_timestamp_micros).map(Cursor::Time);
        Ok(State { cursor: version.or(time), slot: slot.and_then(DateTime::from_timestamp_micros), last: None })
    }

    /// The entry of the table's log that a receipt becomes.
    fn transaction(&self, receipt: &Receipt) -> Transaction {
        let mut marks = BTreeMap::new();
        if let Some(cursor) = receipt.cursor {
            let (version, time) = match cursor {
                Cursor::Version(version) => (i64::try_from(version).unwrap_or(i64::MAX), UNSET),
                Cursor::Time(time) => (UNSET, time.timestamp_micros()),
            };
            marks.extend([(self.mark("version"), version), (self.mark("time"), time)]);
        }
        if let Some(slot) = receipt.slot {
            marks.insert(self.mark("slot"), slot.timestamp_micros());
        }
        let info = Map::from_iter([(RECEIPT.to_owned(), serde_json::json!(receipt))]);
        Transaction { app_id: run_mark(&receipt.run_id), number: 1, marks, info }
    }

    /// The last receipts as of a version, the newest first, of those that the last entries of the log hold.
    async fn receipts(&self, snapshot: &Snapshot, entries: usize) -> Result<Vec<Receipt>, ExportError> {
        let mut receipts = Vec::new();
        for mut info in snapshot.history(entries).await? {
            let Some(receipt) = info.remove(RECEIPT) else { continue };
            let receipt: Receipt = serde_json::from_value(receipt).map_err(|error| ExportError::Ledger {
                target: self.table.root().to_string(),
                reason: format!("an entry of its log is not one of ours: {error}"),
            })?;
            if receipt.export == self.export {
                receipts.push(receipt);
            }
        }
        Ok(receipts)
    }
}

/// The name of the number that says that a run has been committed.
fn run_mark(run_id: &str) -> String {
    format!("normstream/export/run/{run_id}")
}

#[async_trait]
impl Sink for DeltaSink {
    async fn state(&self) -> Result<State, ExportError> {
        let Some(snapshot) = self.table.snapshot().await? else { return Ok(State::default()) };
        let mut state = self.progress(Some(&snapshot)).await?;
        // Mostly the last entry is ours.
        for entries in [1, LOOK_BACK] {
            state.last = self.receipts(&snapshot, entries).await?.into_iter().next();
            if state.last.is_some() {
                break;
            }
        }
        Ok(state)
    }

    async fn history(&self, most: usize) -> Result<Vec<Receipt>, ExportError> {
        let Some(snapshot) = self.table.snapshot().await? else { return Ok(Vec::new()) };
        let mut receipts = self.receipts(&snapshot, most.max(LOOK_BACK)).await?;
        receipts.truncate(most);
        Ok(receipts)
    }

    async fn describe(&self, schema: &Schema, mode: &Mode) -> Result<String, ExportError> {
        let schema = table_schema(schema)?;
        let table = self.table.root().to_string();
        match self.table.snapshot().await? {
            None => Ok(format!("creates the Delta table {table} with {} columns", schema.fields().len())),
            Some(snapshot) => match difference(&snapshot.schema, &nullable(&schema)) {
                Some(difference) => Err(TableError::Schema { table, difference }.into()),
                None => Ok(format!("{mode} on version {} of the Delta table {table}", snapshot.version)),
            },
        }
    }

    async fn lease(&self, patience: Duration) -> Result<Option<Box<dyn Lease>>, ExportError> {
        let Some(lease) = self.log.lease(patience).await? else { return Ok(None) };
        lease.prune().await;
        Ok(Some(Box::new(DeltaLease { sink: self.clone(), lease })))
    }
}

/// What one query never leaves empty another may: no column of a table must have a value.
fn nullable(schema: &Schema) -> Schema {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Schema::new(fields.collect::<Vec<_>>())
}

struct DeltaLease {
    sink: DeltaSink,
    lease: LogLease,
}

impl DeltaLease {
    /// Commits, from the state that the slice was cut from and no other.
    async fn commit(&self, mut commit: DeltaCommit<'_>, receipt: &Receipt) -> Result<(), ExportError> {
        let schema = Arc::clone(&commit.schema);
        match self.sink.table.commit(&self.sink.transaction(receipt), &schema, &mut commit).await {
            // A run that others have committed is as good: it is the same run.
            Ok(_) => Ok(()),
            Err(TableError::OutcomeUnknown { .. }) => Err(ExportError::Unknown {
                export: self.sink.export.clone(),
                run_id: receipt.run_id.clone(),
                target: self.sink.table.root().to_string(),
            }),
            Err(TableError::Revision(error)) => Err(match error.downcast::<ExportError>() {
                Ok(error) => *error,
                Err(error) => TableError::Revision(error).into(),
            }),
            Err(error) => Err(error.into()),
        }
    }
}

#[async_trait]
impl Lease for DeltaLease {
    async fn state(&mut self) -> Result<State, ExportError> {
        let snapshot = self.sink.table.snapshot().await?;
        Ok(self.sink.progress(snapshot.as_ref()).await?)
    }

    async fn load(&mut self, mut load: Load) -> Result<Loaded, ExportError> {
        let began = Instant::now();
        crash_point!("export::leased");
        let (table, run_id) = (&self.sink.table, load.receipt.run_id.clone());
        match table.snapshot().await? {
            Some(snapshot) if snapshot.transaction(&run_mark(&run_id)).await?.is_some() => {
                let receipts = self.sink.receipts(&snapshot, LOOK_BACK).await?;
                let done = receipts.into_iter().find(|receipt| receipt.run_id == run_id);
                return Ok(Loaded::AlreadyDone(done.unwrap_or(load.receipt)));
            }
            Some(_) => {}
            None => {
                table.check_new().await?;
                table.begin().await?;
            }
        }
        let mut writer = TableWriter::new(table, &load.rows.schema(), &run_id)?;
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
            upsert::check_keys(&load.context, table, &files, key, &schema, &export).await?;
        }
        crash_point!("export::merged");
        load.receipt.seconds = began.elapsed().as_secs_f64();
        let commit = DeltaCommit {
            sink: &self.sink,
            context: &load.context,
            mode: &load.mode,
            base: &load.base,
            schema,
            run_id,
            files,
        };
        self.commit(commit, &load.receipt).await?;
        crash_point!("export::committed");
        Ok(Loaded::Committed(load.receipt))
    }

    async fn set(&mut self, receipt: Receipt) -> Result<(), ExportError> {
        let table = &self.sink.table;
        let missing = || TableError::NoTable { table: table.root().to_string() };
        let snapshot = table.snapshot().await?.ok_or_else(missing)?;
        let base = self.sink.progress(Some(&snapshot)).await?;
        let commit = DeltaCommit {
            sink: &self.sink,
            context: &SessionContext::new(),
            mode: &Mode::Append,
            base: &base,
            schema: snapshot.schema,
            run_id: receipt.run_id.clone(),
            files: Vec::new(),
        };
        self.commit(commit, &receipt).await
    }

    async fn release(self: Box<Self>) {
        self.lease.release().await;
    }
}

/// What an export does to the version that it meets.
struct DeltaCommit<'a> {
    sink: &'a DeltaSink,
    context: &'a SessionContext,
    mode: &'a Mode,
    base: &'a State,
    schema: SchemaRef,
    run_id: String,
    files: Vec<DataFile>,
}

impl DeltaCommit<'_> {
    async fn decide(&self, found: Option<&Snapshot>) -> Result<Change, ExportError> {
        let now = self.sink.progress(found).await?;
        if (now.cursor, now.slot) != (self.base.cursor, self.base.slot) {
            return Err(ExportError::Conflict { export: self.sink.export.clone() });
        }
        let mut add = self.files.clone();
        let remove = match (self.mode, found) {
            (Mode::Append, _) | (_, None) => Removal::None,
            (Mode::Overwrite, Some(_)) => Removal::All,
            (Mode::Upsert { key }, Some(found)) => {
                let replaced = upsert::replace(
                    self.context,
                    &self.sink.table,
                    found,
                    &self.files,
                    key,
                    &self.schema,
                    &self.run_id,
                );
                let (kept, removed) = replaced.await?;
                add.extend(kept);
                Removal::Of(removed)
            }
        };
        Ok(Change { add, remove })
    }
}

#[async_trait]
impl Revision for DeltaCommit<'_> {
    async fn change(&mut self, base: Option<&Snapshot>) -> Result<Change, TableError> {
        self.decide(base).await.map_err(|error| match error {
            ExportError::Table(error) => error,
            error => TableError::Revision(Box::new(error)),
        })
    }
}
