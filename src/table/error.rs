//! Why a table cannot be read or written.

use std::error::Error;

use arrow::datatypes::DataType;

use crate::storage::StorageError;

/// An error of a table. Unless it is [`TableError::OutcomeUnknown`], the table is as it was.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A store did not do what it was asked.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The log cannot be read.
    #[error("the log of the table {table} cannot be read: {what}")]
    Log {
        /// The table.
        table: String,
        /// What is wrong with it.
        what: String,
        /// What the reader said.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// A folder with both kinds of logs.
    #[error("{table} has both a Delta log and manifests, and is the table of neither: move one of the logs away")]
    TwoLogs {
        /// The table.
        table: String,
    },
    /// The format asked for is not that of the table.
    #[error("{table} is a {found} table, not a {asked} one: leave --format out")]
    OtherFormat {
        /// The table.
        table: String,
        /// Its format.
        found: &'static str,
        /// The format asked for.
        asked: &'static str,
    },
    /// A version that the table does not have.
    #[error("{table} has no version {version}: the latest is {newest}")]
    NoVersion {
        /// The table.
        table: String,
        /// The version.
        version: u64,
        /// The latest version.
        newest: u64,
    },
    /// A version whose files are not there any more.
    #[error(
        "version {version} of {table} cannot be read any more: a later version dropped {file}, and tables of the Parquet format \
         do not keep what they drop, as Delta tables do"
    )]
    VersionGone {
        /// The table.
        table: String,
        /// The version.
        version: u64,
        /// A file of it.
        file: String,
    },
    /// There is no table.
    #[error("{table} is not a table: it has neither a Delta log nor manifests of ours")]
    NoTable {
        /// The folder.
        table: String,
    },
    /// A file where a table should be.
    #[error("{file} is a file, and a table is a folder: name the folder of a table")]
    IsFile {
        /// The file.
        file: String,
    },
    /// A folder in which a table is to be made holds something else.
    #[error("{table} is not a table, and holds '{file}': choose an empty folder, or move what is there away")]
    Occupied {
        /// The folder.
        table: String,
        /// Something in it.
        file: String,
    },
    /// The table has other columns.
    #[error("the table {table} has other columns: {difference}; choose another folder, or write the columns it has")]
    Schema {
        /// The table.
        table: String,
        /// What differs.
        difference: String,
    },
    /// A column that tables have no type for.
    #[error(
        "the column '{column}' is of type {found}, which tables do not have: leave it out, or convert it in the input"
    )]
    ColumnType {
        /// The column.
        column: String,
        /// Its type.
        found: DataType,
    },
    /// The table has something that is not written or read here.
    #[error("the table {table} has {what}, which normstream does not {verb}")]
    Unsupported {
        /// The table.
        table: String,
        /// What it has.
        what: String,
        /// `read` or `write`.
        verb: &'static str,
    },
    /// The log names a file outside the table.
    #[error("the log of the table {table} names the file '{path}', which is not in its folder: it is not read")]
    PathLeadsOut {
        /// The table.
        table: String,
        /// The path.
        path: String,
    },
    /// The program was built without Delta.
    #[error(
        "{table}: this normstream is built without Delta tables; choose --format parquet, or build it with --features delta"
    )]
    WithoutDelta {
        /// The table.
        table: String,
    },
    /// Others committed so often that it was never our turn.
    #[error(
        "{table}: {attempts} attempts to commit met commits of others; nothing was committed, and trying again is safe"
    )]
    Contended {
        /// The table.
        table: String,
        /// How many.
        attempts: u32,
    },
    /// What was decided before cannot be committed any more.
    #[error("{table}: {what}; nothing was committed")]
    Conflict {
        /// The table.
        table: String,
        /// With whom, and what to do.
        what: String,
    },
    /// The commit was refused.
    #[error("{table}: the commit failed, and nothing of it is visible: {source}")]
    NotCommitted {
        /// The table.
        table: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The answer to a commit was lost, and the log could not be read back.
    #[error(
        "{table}: it is not known whether version {version} was committed, and the log cannot be read back: {source}; nothing \
         was deleted, and the same command finds out and goes on"
    )]
    OutcomeUnknown {
        /// The table.
        table: String,
        /// The version that was to be committed.
        version: u64,
        /// What the store said last.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Files of a version were moved up or removed while they were read.
    #[error("{table}: files that were being read have moved or gone, as others write the table: trying again is safe")]
    FilesMoved {
        /// The table.
        table: String,
    },
    /// What was to be committed could not be decided.
    #[error(transparent)]
    Revision(Box<dyn Error + Send + Sync>),
}

impl TableError {
    /// Whether the same work may succeed when it is tried again.
    pub fn is_retryable(&self) -> bool {
        match self {
            TableError::Storage(error) => error.is_retryable(),
            TableError::OutcomeUnknown { .. } | TableError::Contended { .. } | TableError::FilesMoved { .. } => true,
            TableError::NotCommitted { source, .. } => {
                StorageError::find(source.as_ref()).is_some_and(StorageError::is_retryable)
            }
            TableError::Log { source: Some(source), .. } => {
                StorageError::find(source.as_ref()).is_some_and(StorageError::is_retryable)
            }
            _ => false,
        }
    }
}
