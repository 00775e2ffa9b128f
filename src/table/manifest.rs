//! The log of the Parquet format: one manifest a version, complete in itself, put if absent under its number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use fail::fail_point;
use futures::TryStreamExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::storage::{Creation, Location, StorageError};
use crate::table::commit::{Attempt, SettledChange, Transaction};
use crate::table::{DataFile, Log, MANIFESTS, STAGED, Snapshot, Table, TableError, inside, remove, rename};

/// The form of manifests that is written.
const FORM: u32 = 1;

/// A version of a table.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// The form of this file.
    form: u32,
    /// Its number.
    version: u64,
    /// When it was committed.
    committed_at: String,
    /// The last number of every application.
    pub(super) transactions: BTreeMap<String, i64>,
    /// What the commit says of itself.
    pub(super) info: Map<String, Value>,
    columns: Vec<Column>,
    files: Vec<DataFile>,
    /// Files of earlier versions that may still lie in the folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dropped: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Column {
    name: String,
    /// As Arrow writes it.
    r#type: String,
    nullable: bool,
}

/// Reads the newest version, or the one asked for.
pub(super) async fn snapshot(table: &Table, version: Option<u64>) -> Result<Option<Snapshot>, TableError> {
    let version = match version {
        Some(version) => version,
        None => match newest(table).await? {
            Some(version) => version,
            None => return Ok(None),
        },
    };
    let at = place(table, version);
    let bytes = match at.read().await {
        Ok(bytes) => bytes,
        Err(StorageError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let malformed = |what: String| TableError::Log {
        table: table.root.to_string(),
        what: format!("{at} is not a manifest of version {version}: {what}"),
        source: None,
    };
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    if manifest.form != FORM {
        return Err(malformed(format!("its form is {}, and this normstream knows {FORM}", manifest.form)));
    }
    if manifest.version != version {
        return Err(malformed(format!("it says that it is version {}", manifest.version)));
    }
    let field = |column: &Column| match column.r#type.parse::<DataType>() {
        Ok(data_type) => Ok(Field::new(&column.name, data_type, column.nullable)),
        Err(error) => Err(malformed(format!("the column {}: {error}", column.name))),
    };
    let schema = Schema::new(manifest.columns.iter().map(field).collect::<Result<Vec<_>, _>>()?);
    for path in manifest.files.iter().map(|file| &file.path).chain(&manifest.dropped) {
        inside(table, path)?;
    }
    Ok(Some(Snapshot {
        table: table.clone(),
        version,
        schema: Arc::new(schema),
        files: manifest.files.clone(),
        log: Log::Manifest(manifest),
    }))
}

/// What the last versions up to one say of themselves, the newest first.
pub(super) async fn history(
    table: &Table,
    newest: &Manifest,
    most: usize,
) -> Result<Vec<Map<String, Value>>, TableError> {
    let mut found = vec![newest.info.clone()];
    for version in (0..newest.version).rev().take(most.saturating_sub(1)) {
        match snapshot(table, Some(version)).await? {
            Some(Snapshot { log: Log::Manifest(manifest), .. }) => found.push(manifest.info),
            _ => break,
        }
    }
    Ok(found)
}

/// The number of the newest version.
pub(super) async fn newest(table: &Table) -> Result<Option<u64>, TableError> {
    let folder = table.root.child(MANIFESTS);
    let mut newest = None;
    let mut objects = folder.store.list(Some(&folder.path));
    while let Some(object) = objects.try_next().await.map_err(|error| folder.error("list it", error))? {
        let version = object.location.filename().and_then(|name| name.strip_suffix(".json")?.parse::<u64>().ok());
        newest = newest.max(version);
    }
    Ok(newest)
}

fn place(table: &Table, version: u64) -> Location {
    table.root.child(MANIFESTS).child(&format!("{version:020}.json"))
}

/// Puts the manifest after `base`.
pub(super) async fn attempt(
    table: &Table,
    transaction: &Transaction,
    schema: &SchemaRef,
    base: Option<&Snapshot>,
    change: SettledChange,
) -> Attempt {
    let (mut transactions, mut files, mut dropped) = (BTreeMap::new(), Vec::new(), Vec::new());
    if let Some(Snapshot { log: Log::Manifest(before), .. }) = base {
        transactions.clone_from(&before.transactions);
        let (gone, kept): (Vec<_>, Vec<_>) =
            before.files.iter().cloned().partition(|file| change.remove.contains(&file.path));
        files = kept;
        // Those dropped before are named again: whoever dropped them may not have come to removing them.
        dropped = match published_names(table).await {
            Ok(names) => before.dropped.iter().filter(|name| names.contains(*name)).cloned().collect(),
            Err(error) => return Attempt::Refused(Box::new(error)),
        };
        dropped.extend(gone.into_iter().map(|file| file.path));
    }
    transactions.insert(transaction.app_id.clone(), transaction.number);
    transactions.extend(transaction.marks.clone());
    files.extend(change.add);
    files.sort_by(|one, other| one.path.cmp(&other.path));
    let version = base.map_or(0, |base| base.version + 1);
    let column = |field: &Arc<Field>| Column {
        name: field.name().clone(),
        r#type: field.data_type().to_string(),
        nullable: field.is_nullable(),
    };
    let manifest = Manifest {
        form: FORM,
        version,
        committed_at: chrono::Utc::now().to_rfc3339(),
        transactions,
        info: transaction.info.clone(),
        columns: schema.fields().iter().map(column).collect(),
        files,
        dropped,
    };
    let text = match serde_json::to_vec_pretty(&manifest) {
        Ok(text) => text,
        Err(error) => return Attempt::Refused(Box::new(error)),
    };
    match table.storage.create(&place(table, version), text).await {
        Ok(Creation::Created(_)) => Attempt::Done,
        Ok(Creation::Exists) => Attempt::Taken,
        Ok(Creation::Unknown(error)) | Err(error) => Attempt::failed(error),
    }
}

/// The names of the files right in the folder.
async fn published_names(table: &Table) -> Result<BTreeSet<String>, TableError> {
    let folder = &table.root;
    let listed = folder.store.list_with_delimiter(Some(&folder.path)).await;
    let listed = listed.map_err(|error| folder.error("list it", error))?;
    let name = |path: &Path| path.filename().map(str::to_owned);
    Ok(listed.objects.iter().filter_map(|object| name(&object.location)).collect())
}

/// Moves staged files of a committed manifest up, then removes those it dropped.
pub(super) async fn publish(table: &Table, manifest: &Manifest) -> Result<(), TableError> {
    let staged = table.root.child(STAGED);
    let names = staged_names(table).await?;
    for file in manifest.files.iter().filter(|file| names.contains(&file.path)) {
        rename(&staged.child(&file.path), &table.root.child(&file.path)).await?;
        fail_point!("file-published", |_| std::process::abort());
    }
    let live: BTreeSet<&String> = manifest.files.iter().map(|file| &file.path).collect();
    for path in manifest.dropped.iter().filter(|path| !live.contains(path)) {
        // In this order: somebody who still publishes an older version may be about to move the file up.
        remove(&staged.child(path)).await?;
        remove(&table.root.child(path)).await?;
    }
    Ok(())
}

/// The names of the files that are staged.
pub(super) async fn staged_names(table: &Table) -> Result<BTreeSet<String>, TableError> {
    let staged = table.root.child(STAGED);
    let names = staged.store.list(Some(&staged.path));
    let names = names.map_ok(|object| object.location.filename().unwrap_or_default().to_owned());
    names.try_collect().await.map_err(|error| staged.error("list it", error).into())
}
