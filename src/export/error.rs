//! Why an export cannot be done.

use arrow::datatypes::DataType;

use crate::engine::query::QueryError;
use crate::run::RunError;
use crate::storage::StorageError;
use crate::table::TableError;

/// An error of an export. Whichever it is but [`ExportError::Unknown`], nothing was exported and no cursor has moved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A schedule that cannot be used.
    #[error("the schedule \"{expression}\" cannot be used: {reason}")]
    Schedule {
        /// The expression.
        expression: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A zone that does not exist.
    #[error("there is no time zone '{zone}': give a name of the IANA database, as in Europe/Berlin or UTC")]
    TimeZone {
        /// The zone.
        zone: String,
    },
    /// The program was built without what a target needs.
    #[error("the target {target} cannot be used: this build has no {feature} (build with --features {feature})")]
    NotBuiltIn {
        /// The target.
        target: String,
        /// The feature.
        feature: &'static str,
    },
    /// A target's URL that cannot be used.
    #[error("the target {target} cannot be used: {reason}")]
    Target {
        /// The target.
        target: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A table's name that cannot be used.
    #[error("'{table}' is not the name of a table: {reason}")]
    TableName {
        /// The name as it was written.
        table: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A mode that the target does not have.
    #[error("{target} cannot {mode}: {reason}")]
    Mode {
        /// The target.
        target: String,
        /// The mode.
        mode: String,
        /// Why.
        reason: &'static str,
    },
    /// The query cannot be planned or run.
    #[error("the query of {export} failed")]
    Query {
        /// The export.
        export: String,
        /// What the engine said.
        source: Box<QueryError>,
    },
    /// A slice in time was asked for of a query that does not use it.
    #[error("{export} has no slices in time: its query must use :from and :to, or incremental must be column:NAME")]
    NoTimeSlices {
        /// The export.
        export: String,
    },
    /// The query does not give the column that slices go by.
    #[error("{export} is incremental by {column}, but its query neither gives that column nor uses :from and :to")]
    NoSliceColumn {
        /// The export.
        export: String,
        /// The column.
        column: String,
    },
    /// There is nothing to take versions from.
    #[error("{export} is incremental by version, but {reason}")]
    NoVersions {
        /// The export.
        export: String,
        /// What is missing.
        reason: String,
    },
    /// Versions have been rewritten that were exported before.
    #[error(
        "version {version} of {table} replaces rows that have been exported before, which append would double: use mode \
         upsert, or replace everything with --full"
    )]
    Rewritten {
        /// The table of results.
        table: String,
        /// The version.
        version: u64,
    },
    /// Fewer rows than there must be.
    #[error("{export} gives {rows} rows, fewer than min_rows = {min_rows}; nothing was written")]
    TooFewRows {
        /// The export.
        export: String,
        /// The rows.
        rows: u64,
        /// How many there must be.
        min_rows: u64,
    },
    /// A column that the target cannot hold.
    #[error("the column {column} has the type {data_type}, which {target} cannot hold: cast it in the query")]
    UnsupportedType {
        /// The target.
        target: String,
        /// The column.
        column: String,
        /// Its type.
        data_type: DataType,
    },
    /// A column that would have to change its type.
    #[error(
        "{table} has the column {column} as {found}, and the query gives {given}: types are not changed; cast it in the query, \
         or change the table by hand"
    )]
    TypeChanged {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Its type in the table.
        found: String,
        /// Its type in the query.
        given: String,
    },
    /// A column of the table that must have a value, and gets none.
    #[error(
        "{table} has the column {column}, which must not be null and has no default, but the query does not give it"
    )]
    MissingColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// The key of an upsert that the query does not give.
    #[error("upsert goes by the key {column}, which the query does not give; it gives {given}")]
    MissingKey {
        /// The column.
        column: String,
        /// The columns of the query.
        given: String,
    },
    /// The key of an upsert that nothing makes unique.
    #[error("upsert needs a unique index on the key of {table}; make one: CREATE UNIQUE INDEX ON {table} ({key})")]
    KeyNotUnique {
        /// The table, quoted.
        table: String,
        /// The key, quoted.
        key: String,
    },
    /// A key that stands in the rows twice, or is null.
    #[error("{export} gives {what} ({key}); upsert needs one row a key")]
    BadKey {
        /// The export.
        export: String,
        /// What is wrong with it.
        what: &'static str,
        /// The key.
        key: String,
    },
    /// The table is gone, but the ledger says that it was filled.
    #[error(
        "{table} is not there any more, but {cursor} of it had been exported: give --full to export everything again"
    )]
    TableGone {
        /// The table.
        table: String,
        /// How far the export had come.
        cursor: String,
    },
    /// Another process exports at this moment.
    #[error("{export} is being exported by another process; nothing was done")]
    Busy {
        /// The export.
        export: String,
    },
    /// The state at the target is not the one that the work began from.
    #[error("another process has exported {export} in the meantime; nothing was written")]
    Conflict {
        /// The export.
        export: String,
    },
    /// Whether the commit took place is not known.
    #[error(
        "whether {export} was committed (run {run_id}) is not known: the reply of {target} was lost, and it does not answer now; \
         running it again is safe"
    )]
    Unknown {
        /// The export.
        export: String,
        /// The run.
        run_id: String,
        /// The target.
        target: String,
    },
    /// What the target keeps about exports cannot be read.
    #[error("the ledger of {target} cannot be read: {reason}")]
    Ledger {
        /// The target.
        target: String,
        /// What is wrong.
        reason: String,
    },
    /// A database cannot be reached.
    #[error("{target} cannot be reached ({address}): {reason}")]
    Unreachable {
        /// The target.
        target: String,
        /// Host and port.
        address: String,
        /// What happened.
        reason: String,
    },
    /// No free connection within the time allowed.
    #[error(
        "{target}: no free connection after {seconds} s (capacity {capacity}); raise pool_size, pool_max_overflow or pool_timeout, \
         or export fewer things at once"
    )]
    PoolTimeout {
        /// The target.
        target: String,
        /// How long it was waited.
        seconds: u64,
        /// How many connections there may be.
        capacity: usize,
    },
    /// A database refused.
    #[cfg(feature = "postgres")]
    #[error("{target}: cannot {operation}: {}", database_reason(error))]
    Postgres {
        /// The target.
        target: String,
        /// What was to be done.
        operation: &'static str,
        /// What the database said.
        error: Box<tokio_postgres::Error>,
    },
    /// Rows cannot be encoded for a database.
    #[cfg(feature = "postgres")]
    #[error("{target}: rows cannot be encoded")]
    Encode {
        /// The target.
        target: String,
        /// What the encoder said.
        source: Box<pgpq::error::ErrorKind>,
    },
    /// A connection cannot be encrypted as was asked.
    #[error("{target}: TLS cannot be used: {reason}")]
    Tls {
        /// The target.
        target: String,
        /// What is wrong.
        reason: String,
    },
    /// A table cannot be read or written.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A store refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Files cannot be written.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// What a database says, with its hint; else the cause of a lost connection.
#[cfg(feature = "postgres")]
fn database_reason(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    match error.as_db_error() {
        Some(answer) => {
            let more = [answer.detail(), answer.hint()].into_iter().flatten();
            let more: String = more.map(|more| format!(" ({more})")).collect();
            format!("{}{more} [{}]", answer.message(), answer.code().code())
        }
        None => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

impl ExportError {
    /// Whether the same export may succeed when it is tried again.
    pub fn is_retryable(&self) -> bool {
        match self {
            ExportError::Query { source, .. } => source.is_retryable(),
            ExportError::Busy { .. } | ExportError::Conflict { .. } | ExportError::Unknown { .. } => true,
            ExportError::Unreachable { .. } | ExportError::PoolTimeout { .. } => true,
            #[cfg(feature = "postgres")]
            ExportError::Postgres { error, .. } => is_temporary(error),
            ExportError::Table(error) => error.is_retryable(),
            ExportError::Storage(error) => error.is_retryable(),
            ExportError::Run(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// Whether the work was done, but its result is not what was asked for.
    pub fn is_failure_of_data(&self) -> bool {
        matches!(self, ExportError::TooFewRows { .. })
    }
}

/// Lost connections; and of what a database answers: connection, resources, its shutdown, and conflicts of transactions.
#[cfg(feature = "postgres")]
fn is_temporary(error: &tokio_postgres::Error) -> bool {
    let Some(code) = error.code() else { return true };
    let code = code.code();
    ["08", "53", "57P", "58", "40"].iter().any(|class| code.starts_with(class)) || code == "55P03"
}
