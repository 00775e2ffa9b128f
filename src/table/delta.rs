//! The log of Delta tables, through `deltalake`.
//!
//! The library repeats a commit that met another one by itself, up to 15 times, and decides then by rules of its own whether the
//! two go together; it repeats the making of a table too, as one more version with another schema. Here nothing is repeated:
//! an attempt is for one number, with no retries, and what is to be done when the number is taken is decided in
//! [`Table::commit`](crate::table::Table::commit) on the version that took it. Entries are put through
//! [`Storage::create`](crate::storage::Storage::create), which is durable on local disks and tells a lost answer from a refusal.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TableReference, TransactionError};
use deltalake::kernel::{Action, Add, StructType, Transaction as DeltaTransaction, Version};
use deltalake::logstore::{CommitOrBytes, LogStore, LogStoreConfig, LogStoreRef, StorageConfig, default_logstore};
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::{DeltaResult, DeltaTable, DeltaTableError};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::storage::{Creation, Location, Storage, StorageError};
use crate::table::commit::{Attempt, SettledChange, Transaction};
use crate::table::{DELTA_LOG, DataFile, Log, Snapshot, Table, TableError, inside};

/// Reads the log up to the newest version, or to the one asked for.
pub(super) async fn load(table: &Table, version: Option<u64>) -> Result<Option<DeltaTable>, TableError> {
    let unreadable = |error: DeltaTableError| failed(table, error);
    let mut delta = DeltaTable::new(log_store(table));
    // Asked first: the library takes a folder without a log for a broken one.
    if !delta.verify_deltatable_existence().await.map_err(unreadable)? {
        return Ok(None);
    }
    match version {
        None => delta.load().await.map_err(unreadable)?,
        Some(version) => match delta.get_latest_version().await.map_err(unreadable)? {
            newest if newest < version => return Ok(None),
            _ => delta.load_version(version).await.map_err(unreadable)?,
        },
    }
    Ok(Some(delta))
}

/// The number of the newest version.
pub(super) async fn newest(table: &Table) -> Result<Option<u64>, TableError> {
    Ok(load(table, None).await?.and_then(|delta| delta.version()))
}

/// Fails if a file of the version that was read lies outside the table.
pub(super) async fn check_paths(table: &Table, delta: &DeltaTable) -> Result<(), TableError> {
    let unreadable = |error: DeltaTableError| failed(table, error);
    let state = delta.snapshot().map_err(unreadable)?;
    let store = delta.log_store();
    let mut views = state.snapshot().file_views(store.as_ref(), None);
    while let Some(view) = views.try_next().await.map_err(unreadable)? {
        inside(table, &view.path())?;
    }
    Ok(())
}

/// Reads the newest version, or the one asked for.
pub(super) async fn snapshot(table: &Table, version: Option<u64>) -> Result<Option<Snapshot>, TableError> {
    let Some(delta) = load(table, version).await? else { return Ok(None) };
    let unreadable = |error: DeltaTableError| failed(table, error);
    let state = delta.snapshot().map_err(unreadable)?;
    let unsupported =
        |what: String| TableError::Unsupported { table: table.root.to_string(), what, verb: "read or write" };
    if let Some(column) = state.metadata().partition_columns().first() {
        return Err(unsupported(format!("partitions by {column}")));
    }
    let store = delta.log_store();
    let views: Vec<_> = state.snapshot().file_views(store.as_ref(), None).try_collect().await.map_err(unreadable)?;
    let mut files = Vec::with_capacity(views.len());
    for view in views {
        let path = inside(table, &view.path())?;
        if view.deletion_vector_descriptor().is_some() {
            return Err(unsupported(format!("deletion vectors, as for {path},")));
        }
        files.push(DataFile {
            path,
            size: u64::try_from(view.size()).unwrap_or_default(),
            rows: view.num_records().map(|rows| rows as u64),
            statistics: view.stats().map(|text| text.to_string()),
        });
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    let schema = state.snapshot().arrow_schema();
    let version = state.version();
    Ok(Some(Snapshot { table: table.clone(), version, schema, files, log: Log::Delta(Box::new(delta)) }))
}

/// The last number that an application has committed, as of the version that was read.
pub(super) async fn transaction(table: &Table, delta: &DeltaTable, app_id: &str) -> Result<Option<i64>, TableError> {
    let found = async { delta.snapshot()?.transaction_version(delta.log_store().as_ref(), app_id).await };
    found.await.map_err(|error| failed(table, error))
}

/// The keys that the last entries up to this version have beside those of the format, the newest first.
pub(super) async fn history(
    table: &Table,
    delta: &DeltaTable,
    most: usize,
) -> Result<Vec<Map<String, Value>>, TableError> {
    let entries = delta.history(Some(most)).map_ok(|commit| commit.info.into_iter().collect());
    entries.try_collect().await.map_err(|error| failed(table, error))
}

fn failed(table: &Table, error: DeltaTableError) -> TableError {
    TableError::Log { table: table.root.to_string(), what: first_line(&error), source: Some(Box::new(error)) }
}

fn first_line(error: &DeltaTableError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Puts the entry after `base`, or the first one of a new table.
pub(super) async fn attempt(
    table: &Table,
    transaction: &Transaction,
    schema: &SchemaRef,
    base: Option<&Snapshot>,
    change: SettledChange,
) -> Attempt {
    let mut info = transaction.info.clone();
    if change.remove.is_empty() {
        // So that writers of other makes need not take us for a reader of the table.
        info.insert("isBlindAppend".to_owned(), true.into());
    }
    let numbers = transaction.marks.iter().chain([(&transaction.app_id, &transaction.number)]);
    let properties = CommitProperties::default()
        .with_max_retries(0)
        .with_application_transactions(numbers.map(|(name, number)| DeltaTransaction::new(name, *number)).collect())
        .with_metadata(info);
    let done = match base {
        Some(Snapshot { log: Log::Delta(delta), .. }) => next_version(delta, properties, change).await,
        _ => first_version(table, schema, properties, change).await,
    };
    match done {
        Ok(()) => Attempt::Done,
        Err(error) => judge(error),
    }
}

async fn next_version(delta: &DeltaTable, properties: CommitProperties, change: SettledChange) -> DeltaResult<()> {
    let state = delta.snapshot()?;
    let store = delta.log_store();
    let mut actions: Vec<Action> = Vec::new();
    if !change.remove.is_empty() {
        let mut views = state.snapshot().file_views(store.as_ref(), None);
        while let Some(view) = views.try_next().await? {
            if change.remove.contains(view.path().as_ref()) {
                actions.push(Action::Remove(view.remove_action(true)));
            }
        }
    }
    let mode = if change.replaces_all { SaveMode::Overwrite } else { SaveMode::Append };
    actions.extend(change.add.into_iter().map(|file| Action::Add(add(file))));
    let operation = DeltaOperation::Write { mode, partition_by: None, predicate: None };
    let base = state.snapshot() as &dyn TableReference;
    let prepared = CommitBuilder::from(properties).with_actions(actions).build(Some(base), store, operation);
    let committed = prepared.into_prepared_commit_future().await?.await?;
    // What follows is upkeep of the log: checkpoints. The commit stands whether it succeeds or not.
    if let Err(error) = committed.await {
        tracing::warn!(%error, "the upkeep of a Delta log failed; it is tried again with the next commit");
    }
    Ok(())
}

async fn first_version(
    table: &Table,
    schema: &SchemaRef,
    properties: CommitProperties,
    change: SettledChange,
) -> DeltaResult<()> {
    let columns: StructType = schema.as_ref().try_into_kernel()?;
    DeltaTable::new(log_store(table))
        .create()
        .with_columns(columns.fields().cloned())
        .with_actions(change.add.into_iter().map(|file| Action::Add(add(file))))
        .with_commit_properties(properties)
        .await?;
    Ok(())
}

fn add(file: DataFile) -> Add {
    Add {
        path: file.path,
        size: i64::try_from(file.size).unwrap_or(i64::MAX),
        modification_time: chrono::Utc::now().timestamp_millis(),
        data_change: true,
        partition_values: HashMap::new(),
        stats: file.statistics,
        ..Default::default()
    }
}

/// What an error of the library says of the entry that was to be put.
fn judge(error: DeltaTableError) -> Attempt {
    if let DeltaTableError::Transaction { source: TransactionError::LogStoreError { source, .. } } = error {
        return match source.downcast::<StorageError>() {
            Ok(error) => Attempt::failed(*error),
            Err(source) => Attempt::Unknown(source),
        };
    }
    match error {
        DeltaTableError::VersionAlreadyExists(_) => Attempt::Taken,
        DeltaTableError::Transaction { source } => match source {
            TransactionError::MaxCommitAttempts(_) | TransactionError::VersionAlreadyExists(_) => Attempt::Taken,
            TransactionError::CommitConflict(_) => Attempt::Taken,
            source @ TransactionError::ObjectStore { .. } => Attempt::Unknown(Box::new(source)),
            // Found before anything was sent.
            source => Attempt::Refused(Box::new(source)),
        },
        error @ (DeltaTableError::CommitValidation { .. }
        | DeltaTableError::SchemaMismatch { .. }
        | DeltaTableError::Arrow { .. }
        | DeltaTableError::SerializeLogJson { .. }) => Attempt::Refused(Box::new(error)),
        // The library's word for a table that exists already. Were it something else, the next look at the log would tell.
        DeltaTableError::GenericError { .. } => Attempt::Taken,
        error => Attempt::Unknown(Box::new(error)),
    }
}

fn log_store(table: &Table) -> LogStoreRef {
    let root = &table.root;
    let folder = if root.is_folder() { root.clone() } else { root.child("/") };
    let inside = Arc::new(PrefixStore::new(Arc::clone(&root.store), root.path.clone()));
    let library = default_logstore(inside, Arc::clone(&root.store), &folder.url(), &StorageConfig::default());
    Arc::new(OurLogStore { library, storage: table.storage.clone(), root: folder })
}

/// The library's log over our stores, with our own way of putting an entry.
#[derive(Debug)]
struct OurLogStore {
    library: LogStoreRef,
    storage: Storage,
    root: Location,
}

#[async_trait]
impl LogStore for OurLogStore {
    fn name(&self) -> String {
        // The library gives an entry's bytes, rather than a temporary file of them, to stores of this name.
        self.library.name()
    }

    async fn read_commit_entry(&self, version: Version) -> DeltaResult<Option<Bytes>> {
        self.library.read_commit_entry(version).await
    }

    async fn write_commit_entry(
        &self,
        version: Version,
        entry: CommitOrBytes,
        _operation: Uuid,
    ) -> Result<(), TransactionError> {
        let CommitOrBytes::LogBytes(bytes) = entry else {
            let msg = "an entry came as a temporary file".to_owned();
            return Err(TransactionError::LogStoreError { msg: msg.clone(), source: msg.into() });
        };
        let at = self.root.child(DELTA_LOG).child(&format!("{version:020}.json"));
        let failed =
            |error: StorageError| TransactionError::LogStoreError { msg: error.to_string(), source: Box::new(error) };
        match self.storage.create(&at, bytes).await {
            Ok(Creation::Created(_)) => Ok(()),
            Ok(Creation::Exists) => Err(TransactionError::VersionAlreadyExists(version)),
            Ok(Creation::Unknown(error)) | Err(error) => Err(failed(error)),
        }
    }

    async fn abort_commit_entry(
        &self,
        version: Version,
        entry: CommitOrBytes,
        operation: Uuid,
    ) -> Result<(), TransactionError> {
        self.library.abort_commit_entry(version, entry, operation).await
    }

    async fn get_latest_version(&self, start: Version) -> DeltaResult<Version> {
        self.library.get_latest_version(start).await
    }

    fn object_store(&self, operation: Option<Uuid>) -> Arc<dyn ObjectStore> {
        self.library.object_store(operation)
    }

    fn root_object_store(&self, operation: Option<Uuid>) -> Arc<dyn ObjectStore> {
        self.library.root_object_store(operation)
    }

    fn log_path(&self) -> &Path {
        self.library.log_path()
    }

    fn config(&self) -> &LogStoreConfig {
        self.library.config()
    }
}
