//! Why a run ends without a result.

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;

use crate::engine::EngineError;
use crate::engine::query::QueryError;
use crate::operators::row_group::RowGroupError;
use crate::storage::StorageError;
use crate::table::TableError;

/// An error of a run. Whichever it is, the target is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Sessions could not be read or scored.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The tables of SQL could not be made.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The target could not be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The table could not be read or committed.
    #[error(transparent)]
    Table(TableError),
    /// Sessions of the long layout have no row of their own.
    #[error(
        "--failures-to is for the wide and the packed layout: in the long layout a session is many rows of its file"
    )]
    FailuresOfLongLayout,
    /// A column of the input has a name that failed sessions need.
    #[error(
        "{file} has a column '{column}', which the table of failed sessions has for what is wrong: rename one of them"
    )]
    FailureColumn {
        /// The column.
        column: String,
        /// The file.
        file: String,
    },
    /// Failed sessions go where the results go.
    #[error("--failures-to and --to are both {table}: give each its own folder")]
    SameTable {
        /// The table.
        table: String,
    },
    /// Sessions cannot be told apart.
    #[error("--mode replace-sessions goes by the column session_id: add it to --select")]
    ReplaceWithoutId,
    /// A run that replaces sessions has one of them twice.
    #[error(
        "the input has the session_id {session_id} more than once, and only one row of it can take the place of another: give \
         --duplicates last to keep the one with the latest completed_at"
    )]
    DuplicateSession {
        /// The session.
        session_id: String,
    },
    /// A file of a run's bookkeeping cannot be read or written.
    #[error("{file} is not what a run leaves: {what}; if nothing needs this run any more, move its folder away")]
    Bookkeeping {
        /// The file.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// A temporary folder could not be made.
    #[error("cannot make a temporary folder")]
    Scratch(#[source] std::io::Error),
    /// A run that is to go on is being removed.
    #[error(
        "run {run} is being removed by `normstream runs clean`: let that end, or run it again, and then repeat this command"
    )]
    BeingCleaned {
        /// The run.
        run: String,
    },
    /// No run of a table has this id.
    #[error("{table} has no run {run}{}", if known.is_empty() { "; it has none".to_owned() } else { format!("; it has {}", known.join(", ")) })]
    NoSuchRun {
        /// The table.
        table: String,
        /// The id, or the beginning of one.
        run: String,
        /// Those that it has, a few of them.
        known: Vec<String>,
    },
    /// What would be scored is not what a run was.
    #[error("this is not run {run} again: {}; give the options that the run was made with", changes.join("; "))]
    NotTheSameRun {
        /// The run.
        run: String,
        /// What is different.
        changes: Vec<String>,
    },
    /// A file has the name of a part of this run, and other bytes.
    #[error(
        "{file} has {found} bytes where this run writes {expected}: something else wrote it; move it away, then run again"
    )]
    OtherFile {
        /// The file.
        file: String,
        /// Its size.
        found: u64,
        /// The size it should have.
        expected: u64,
    },
    /// Rows could not be encoded as Parquet.
    #[error(transparent)]
    Parquet(#[from] RowGroupError),
    /// Rows could not be encoded.
    #[error("the results cannot be written as {format}")]
    Encode {
        /// The format.
        format: &'static str,
        /// What the encoder said.
        source: ArrowError,
    },
    /// Standard output could not be written.
    #[error("cannot write to standard output")]
    Stdout(#[source] std::io::Error),
    /// The reader of standard output has gone: no error for the user.
    #[error("the reader of standard output has gone")]
    BrokenPipe,
    /// The target exists and may not be replaced.
    #[error("{target} exists: give --overwrite to replace it, or another --to")]
    TargetExists {
        /// The target.
        target: String,
    },
    /// The target's name does not say a format.
    #[error("cannot tell from the name of {target} which format to write: give --format parquet, csv, ndjson or arrow")]
    UnknownTargetFormat {
        /// The target.
        target: String,
    },
    /// A table is a folder.
    #[error("--format delta writes a folder, and - is standard output: name a folder, or choose another format")]
    DeltaToStdout,
    /// Only tables are written as a folder of files.
    #[error(
        "{target} is a folder, and {format} is written as one file: name the file, or choose --format delta or parquet"
    )]
    FolderFormat {
        /// The target.
        target: String,
        /// The format asked for.
        format: &'static str,
    },
    /// A session failed and `--on-error fail` was asked for.
    #[error("a session cannot be scored: {error} ({code}, {place}); nothing was written, as --on-error fail asks")]
    SessionFailed {
        /// The session's error code.
        code: String,
        /// The sentence that says what is wrong.
        error: String,
        /// Which session.
        place: String,
    },
    /// The input has no session of this id.
    #[error("no session of {input} has the session_id {session_id}: {sessions} were looked at")]
    NoSuchSession {
        /// The id that was asked for.
        session_id: String,
        /// The input.
        input: String,
        /// How many sessions the input has.
        sessions: u64,
    },
    /// An id that no session of the input can have.
    #[error("the session ids of {input} are integers, and '{session_id}' is none")]
    SessionIdNotAnInteger {
        /// The id that was asked for.
        session_id: String,
        /// The input.
        input: String,
    },
    /// A worker of the run panicked; the panic's message is on stderr.
    #[error("a worker of the run ended unexpectedly")]
    Worker,
}

impl From<TableError> for RunError {
    fn from(error: TableError) -> Self {
        match error {
            // What a run decided within a commit fails as it would outside.
            TableError::Revision(source) => match source.downcast::<RunError>() {
                Ok(own) => *own,
                Err(source) => RunError::Table(TableError::Revision(source)),
            },
            error => RunError::Table(error),
        }
    }
}

impl From<DataFusionError> for RunError {
    fn from(error: DataFusionError) -> Self {
        RunError::Engine(EngineError::Plan(error))
    }
}

impl From<ArrowError> for RunError {
    fn from(error: ArrowError) -> Self {
        DataFusionError::from(error).into()
    }
}

impl RunError {
    /// Whether the same run may succeed when it is tried again.
    pub fn is_retryable(&self) -> bool {
        match self {
            RunError::Engine(error) => error.is_retryable(),
            RunError::Query(error) => error.is_retryable(),
            RunError::Storage(error) => error.is_retryable(),
            RunError::Table(error) => error.is_retryable(),
            RunError::Parquet(error) => error.is_retryable(),
            RunError::BeingCleaned { .. } => true,
            _ => false,
        }
    }
}
