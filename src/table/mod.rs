//! Tables: immutable Parquet files in a folder, and a log of numbered versions that says which of them are live.
//!
//! ```text
//! results/                        Delta                     Parquet with manifests
//! ├── _delta_log/…json            the log                   -
//! ├── _normstream/log/…json       -                         the log: one manifest a version, each complete
//! ├── _normstream/staged/         -                         files that are not committed, or not published yet
//! ├── _normstream/runs/           what runs leave           the same
//! └── *.parquet                   live, old and uncommitted live files alone, but for the moments around a commit
//! ```
//!
//! Who reads a table asks [`Table::open`] for its log and [`Table::snapshot`] for a version: [`Snapshot::live_files`] are the
//! places to read, [`Snapshot::schema`] is what they have in common. Nothing else may be read: in a Delta folder lie files that
//! are not committed, or not any more. A folder of Parquet files may also be read without its log (`duckdb 'results/*.parquet'`): a
//! file is staged under `_normstream` until it is committed, so nothing uncommitted is ever seen; right after a commit the files
//! move up one by one and those they replace go, so for a moment such a reader may see less or more than one version.
//!
//! Who writes a table puts files where [`Table::location_of_new`] says, and then [commits](Table::commit) them: one entry of the
//! log, put if absent at the number after the version it was decided on. Of two writers one gets the number; the other decides
//! again on what is then there. That is all the locking there is, and it is the same for both formats.
//!
//! This module knows no sessions and no runs.

mod commit;
#[cfg(feature = "delta")]
mod delta;
mod error;
mod manifest;
mod schema;
mod statistics;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use commit::{Append, Change, Outcome, Overwrite, Removal, Revision, Transaction};
pub use error::TableError;
pub use schema::{difference, table_schema, table_type};
pub use statistics::statistics;

use crate::storage::{Location, Storage, StorageError};
use manifest::Manifest;

/// The folder of a table for everything of ours that is not data. Readers of tables skip names that begin with `_`.
pub const BOOKKEEPING: &str = "_normstream";
/// Where files of the Parquet format lie until they are committed and published.
pub const STAGED: &str = "_normstream/staged";
/// The log of Delta tables.
pub const DELTA_LOG: &str = "_delta_log";
/// The log of the Parquet format.
const MANIFESTS: &str = "_normstream/log";

/// How a table keeps its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableFormat {
    /// Delta Lake: read by most engines, with versions and statistics.
    Delta,
    /// Parquet files, and manifests of our own.
    Parquet,
}

impl TableFormat {
    /// The name used on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            TableFormat::Delta => "delta",
            TableFormat::Parquet => "parquet",
        }
    }
}

impl Default for TableFormat {
    /// Delta, unless the program is built without it.
    fn default() -> Self {
        if cfg!(feature = "delta") { TableFormat::Delta } else { TableFormat::Parquet }
    }
}

impl fmt::Display for TableFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TableFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "delta" => Ok(TableFormat::Delta),
            "parquet" => Ok(TableFormat::Parquet),
            other => Err(format!("'{other}' is not a format of tables: delta or parquet")),
        }
    }
}

/// A data file of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataFile {
    /// Its path below the table's folder.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its rows, where the log tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// `numRecords`, `minValues`, `maxValues` and `nullCount`, as Delta has them: an object of JSON, kept as its text, which needs a
    /// tenth of the memory.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "json_text")]
    pub statistics: Option<String>,
}

/// Text that is a value of JSON, as that value.
mod json_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    pub(super) fn serialize<S: Serializer>(text: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
        let value = |text: &String| serde_json::from_str::<Value>(text).map_err(serde::ser::Error::custom);
        text.as_ref().map(value).transpose()?.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
        Ok(Option::<Value>::deserialize(deserializer)?.map(|value| value.to_string()))
    }
}

/// A table that exists, or is to be made.
#[derive(Debug, Clone)]
pub struct Table {
    storage: Storage,
    root: Location,
    format: TableFormat,
}

impl Table {
    /// The table at a folder, or `None` if the folder has no log. A local file is an error; in an object store an object and a folder
    /// may have one name.
    pub async fn open(storage: &Storage, root: &Location) -> Result<Option<Table>, TableError> {
        if root.file_path().is_some_and(|path| path.is_file()) {
            return Err(TableError::IsFile { file: root.to_string() });
        }
        let table = |format| Some(Table::new(storage, root, format));
        let delta = holds_anything(&root.child(DELTA_LOG)).await?;
        let manifests = holds_anything(&root.child(MANIFESTS)).await?;
        match (delta, manifests) {
            (true, true) => Err(TableError::TwoLogs { table: root.to_string() }),
            (true, false) => Ok(table(TableFormat::Delta)),
            (false, true) => Ok(table(TableFormat::Parquet)),
            (false, false) => Ok(None),
        }
    }

    /// The table at a folder that is to be written, whether it exists or not. A format must be that of a table that is there.
    pub async fn open_or_new(
        storage: &Storage,
        root: &Location,
        format: Option<TableFormat>,
    ) -> Result<Table, TableError> {
        match (Table::open(storage, root).await?, format) {
            (Some(table), Some(asked)) if table.format != asked => {
                let (found, asked) = (table.format.name(), asked.name());
                Err(TableError::OtherFormat { table: root.to_string(), found, asked })
            }
            (Some(table), _) => Ok(table),
            (None, format) => Ok(Table::new(storage, root, format.unwrap_or_default())),
        }
    }

    /// The table at a folder, whether it exists or not.
    pub fn new(storage: &Storage, root: &Location, format: TableFormat) -> Table {
        Table { storage: storage.clone(), root: root.clone(), format }
    }

    /// The folder.
    pub fn root(&self) -> &Location {
        &self.root
    }

    /// How the log is kept.
    pub fn format(&self) -> TableFormat {
        self.format
    }

    /// The stores.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Fails if the folder of a table that is to be made holds something else. What somebody has left who began to make the
    /// table is nothing else.
    pub async fn check_new(&self) -> Result<(), TableError> {
        let listed = self.root.store.list_with_delimiter(Some(&self.root.path)).await;
        let listed = listed.map_err(|error| self.root.error("list it", error))?;
        let foreign = |path: &Path| path.filename().is_some_and(|name| !name.starts_with(['_', '.']));
        let objects = listed.objects.iter().map(|object| &object.location).filter(|path| **path != self.root.path);
        let Some(file) = objects.chain(&listed.common_prefixes).find(|path| foreign(path)) else { return Ok(()) };
        // Asked after the listing: whoever makes the table leaves its bookkeeping first, and files then.
        if holds_anything(&self.root.child(BOOKKEEPING)).await? {
            return Ok(());
        }
        let file = file.filename().unwrap_or_default().to_owned();
        Err(TableError::Occupied { table: self.root.to_string(), file })
    }

    /// Leaves a mark in the folder, from which on the files in it are known as those of a table that is being made. Whoever
    /// leaves other bookkeeping there before its files needs none.
    pub async fn begin(&self) -> Result<(), TableError> {
        let mark = self.root.child(BOOKKEEPING).child("begun.json");
        let now = format!("{{\"begun_at\": \"{}\"}}\n", chrono::Utc::now().to_rfc3339());
        self.storage.write(&mark, now, true).await?;
        Ok(())
    }

    /// Where a new file is to be written before it is committed. Files are immutable: a name is used once.
    pub fn location_of_new(&self, name: &str) -> Location {
        match self.format {
            TableFormat::Delta => self.root.child(name),
            TableFormat::Parquet => self.root.child(STAGED).child(name),
        }
    }

    /// Where files are now: those of the Parquet format may not be published yet.
    pub async fn locations(&self, files: &[DataFile]) -> Result<Vec<Location>, TableError> {
        let staged = match self.format {
            TableFormat::Delta => BTreeSet::new(),
            TableFormat::Parquet => manifest::staged_names(self).await?,
        };
        let place = |file: &DataFile| match staged.contains(&file.path) {
            true => self.location_of_new(&file.path),
            false => self.root.child(&file.path),
        };
        Ok(files.iter().map(place).collect())
    }

    /// The newest version, or `None` if the table does not exist yet.
    pub async fn snapshot(&self) -> Result<Option<Snapshot>, TableError> {
        self.read(None).await
    }

    /// A version of the past.
    pub async fn snapshot_at(&self, version: u64) -> Result<Snapshot, TableError> {
        match self.read(Some(version)).await? {
            Some(snapshot) => Ok(snapshot),
            None => Err(self.lacks(version).await),
        }
    }

    /// The newest version of a Delta table, or one of the past, as the library has it: for its own reader of rows, which skips
    /// files by their statistics and knows partitions and deletion vectors. Files are checked to be in the folder.
    #[cfg(feature = "delta")]
    pub async fn delta(&self, version: Option<u64>) -> Result<deltalake::DeltaTable, TableError> {
        match (delta::load(self, version).await?, version) {
            (Some(delta), _) => {
                delta::check_paths(self, &delta).await?;
                Ok(delta)
            }
            (None, Some(version)) => Err(self.lacks(version).await),
            (None, None) => Err(TableError::NoTable { table: self.root.to_string() }),
        }
    }

    /// What to say of a version that is not there.
    async fn lacks(&self, version: u64) -> TableError {
        let newest = match self.format {
            #[cfg(feature = "delta")]
            TableFormat::Delta => delta::newest(self).await,
            #[cfg(not(feature = "delta"))]
            TableFormat::Delta => Err(TableError::WithoutDelta { table: self.root.to_string() }),
            TableFormat::Parquet => manifest::newest(self).await,
        };
        let table = self.root.to_string();
        match newest {
            Ok(Some(newest)) => TableError::NoVersion { table, version, newest },
            Ok(None) => TableError::NoTable { table },
            Err(error) => error,
        }
    }

    async fn read(&self, version: Option<u64>) -> Result<Option<Snapshot>, TableError> {
        match self.format {
            #[cfg(feature = "delta")]
            TableFormat::Delta => delta::snapshot(self, version).await,
            #[cfg(not(feature = "delta"))]
            TableFormat::Delta => Err(TableError::WithoutDelta { table: self.root.to_string() }),
            TableFormat::Parquet => manifest::snapshot(self, version).await,
        }
    }

    /// Brings the folder of the Parquet format in line with the newest version: staged files of it move up, and files that it
    /// dropped go. Safe to repeat, from any number of processes. Nothing is to be done for Delta.
    pub async fn publish(&self) -> Result<(), TableError> {
        let mut published = None;
        while self.format == TableFormat::Parquet
            && let Some(Snapshot { version, log: Log::Manifest(manifest), .. }) = self.snapshot().await?
            && published != Some(version)
        {
            manifest::publish(self, &manifest).await?;
            published = Some(version);
        }
        Ok(())
    }
}

async fn holds_anything(folder: &Location) -> Result<bool, TableError> {
    let mut objects = folder.store.list(Some(&folder.path));
    match objects.next().await {
        Some(Ok(_)) => Ok(true),
        None => Ok(false),
        Some(Err(error)) => Err(folder.error("list it", error).into()),
    }
}

/// One version of a table, as it was committed.
#[derive(Debug, Clone)]
pub struct Snapshot {
    table: Table,
    /// Its number; the first is 0.
    pub version: u64,
    /// The columns of its files.
    pub schema: SchemaRef,
    /// Its files, by path.
    pub files: Vec<DataFile>,
    log: Log,
}

#[derive(Debug, Clone)]
enum Log {
    Manifest(Manifest),
    #[cfg(feature = "delta")]
    Delta(Box<deltalake::DeltaTable>),
}

impl Snapshot {
    /// The last number that was committed under a name; see [`Transaction`].
    pub async fn transaction(&self, app_id: &str) -> Result<Option<i64>, TableError> {
        match &self.log {
            Log::Manifest(manifest) => Ok(manifest.transactions.get(app_id).copied()),
            #[cfg(feature = "delta")]
            Log::Delta(delta) => delta::transaction(&self.table, delta, app_id).await,
        }
    }

    /// What the commits of the last versions up to this one say of themselves, this one's first: the keys of
    /// [`Transaction::info`]. At most so many, and as far back as the log still reaches.
    pub async fn history(&self, most: usize) -> Result<Vec<Map<String, Value>>, TableError> {
        match &self.log {
            Log::Manifest(manifest) => manifest::history(&self.table, manifest, most).await,
            #[cfg(feature = "delta")]
            Log::Delta(delta) => delta::history(&self.table, delta, most).await,
        }
    }

    /// The rows of all files, if the log knows those of each.
    pub fn rows(&self) -> Option<u64> {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// Where each file can be read, in the order of [`Snapshot::files`].
    ///
    /// A file of the Parquet format may be published, and so move, after this has been asked: a reader that then finds it
    /// missing asks again.
    pub async fn live_files(&self) -> Result<Vec<Location>, TableError> {
        self.table.locations(&self.files).await
    }
}

/// The path of a file below its table, or an error if it leads out of it.
fn inside(table: &Table, path: &str) -> Result<String, TableError> {
    let leads_out = || TableError::PathLeadsOut { table: table.root.to_string(), path: path.to_owned() };
    // `scheme:` makes a path absolute, wherever it leads.
    if path.is_empty() || path.starts_with('/') || path.contains("://") || path.contains('\\') {
        return Err(leads_out());
    }
    if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(leads_out());
    }
    match Path::parse(path) {
        Ok(parsed) if parsed.as_ref() == path => Ok(path.to_owned()),
        _ => Err(leads_out()),
    }
}

/// Moves an object; that somebody else has moved or removed it is as good.
async fn rename(from: &Location, to: &Location) -> Result<(), TableError> {
    match from.store.rename(&from.path, &to.path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(to.error("move it up", error).into()),
    }
}

/// Removes an object; that it is gone already is as good.
async fn remove(at: &Location) -> Result<(), TableError> {
    match at.delete().await {
        Ok(()) | Err(StorageError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
