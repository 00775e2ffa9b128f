//! What can go wrong with norm tables.

use std::sync::Arc;

use datafusion::error::DataFusionError;
use parquet::errors::ParquetError;

use crate::model::Scale;
use crate::norms::import::{FaultCause, FaultReport};

/// Why norms can't be read, imported or listed.
#[derive(Debug, thiserror::Error)]
pub enum NormError {
    /// The store that holds a norm table failed.
    #[error("cannot read the norm table {location}")]
    Store {
        /// The table.
        location: String,
        /// What the store said.
        source: object_store::Error,
    },
    /// The Parquet reader or writer failed.
    #[error("the norm table {location} is not readable as Parquet")]
    Parquet {
        /// The table.
        location: String,
        /// What the reader said.
        source: ParquetError,
    },
    /// A local file or directory can't be read or written.
    #[error("cannot {action} {location}")]
    Io {
        /// What was tried, as in `write`.
        action: &'static str,
        /// The file or directory.
        location: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A path is neither a directory nor a `.parquet` or `.csv` file.
    #[error(
        "{location} is not a norm table: give a .csv or .parquet file, or a directory that `normstream norms import` wrote"
    )]
    NotATable {
        /// The path.
        location: String,
    },
    /// A directory without norm tables.
    #[error(
        "{location} holds no norm tables (*.parquet): write some with `normstream norms import FILE --to {location}`"
    )]
    NoTables {
        /// The directory.
        location: String,
    },
    /// A Parquet file on which lookups can't be bounded.
    #[error(
        "{location} was not written by `norms import`: {reason}; run `normstream norms import {location} --to DIR` and use DIR"
    )]
    NotImported {
        /// The file.
        location: String,
        /// What it lacks.
        reason: NotImported,
    },
    /// A table holds a row that import would have refused.
    #[error("the norms of '{group}' in {location} are damaged: {reason}; check with `normstream norms validate`")]
    Damaged {
        /// The table.
        location: String,
        /// The group.
        group: String,
        /// What is wrong.
        reason: Damage,
    },
    /// The target already holds norms of this version.
    #[error(
        "{location} exists: norms of version '{version}' are never edited in place; import under another --norm-version"
    )]
    VersionExists {
        /// The version.
        version: String,
        /// The file that holds it.
        location: String,
    },
    /// The tables to import have faults; nothing was written.
    #[error(transparent)]
    Faults(FaultReport),
    /// A version that can't name a table.
    #[error("{cause}")]
    Version {
        /// The version.
        version: String,
        /// What is wrong with it.
        cause: FaultCause,
    },
    /// Tables to import without a single row.
    #[error("there is no row in {location}: nothing was imported")]
    NoRows {
        /// The tables.
        location: String,
    },
    /// Sorting the rows failed.
    #[error("sorting the norm rows failed")]
    Sort(#[source] Box<DataFusionError>),
    /// A failed load that several callers waited for.
    #[error(transparent)]
    Shared(Arc<NormError>),
}

/// What a Parquet file lacks to be looked up in place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotImported {
    /// A column is missing.
    #[error("it has no column '{column}'")]
    MissingColumn {
        /// The column.
        column: &'static str,
    },
    /// A column is not of a type that can hold its values.
    #[error("its column '{column}' is not {expected}")]
    WrongType {
        /// The column.
        column: &'static str,
        /// The kind of values needed.
        expected: &'static str,
    },
    /// A row group does not say which groups it holds.
    #[error("it has no statistics of 'norm_group'")]
    NoStatistics,
    /// Row groups overlap.
    #[error("it is not sorted by 'norm_group'")]
    Unsorted,
    /// Row groups too large to be read whole, and no index of their pages.
    #[error("it has no page index and row groups of {rows} rows")]
    NoPageIndex {
        /// Rows of the largest row group.
        rows: i64,
    },
}

/// What can be wrong with rows of an imported table.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Damage {
    /// A null, or a number that is none.
    #[error("a row lacks its scale, raw score or percentile")]
    Null,
    /// A scale code that does not exist.
    #[error("'{code}' is not a scale")]
    UnknownScale {
        /// The code.
        code: String,
    },
    /// Not a percentile.
    #[error("{scale} {raw} has the percentile {percentile}, which is not from 0 to 100")]
    Percentile {
        /// The scale.
        scale: Scale,
        /// The raw score.
        raw: i32,
        /// The value.
        percentile: f64,
    },
    /// A raw score stands twice.
    #[error("{scale} {raw} stands twice")]
    Duplicate {
        /// The scale.
        scale: Scale,
        /// The raw score.
        raw: i32,
    },
    /// Raw scores so far apart that no instrument can have them.
    #[error("the raw scores of {scale} span {lowest} to {highest}")]
    Span {
        /// The scale.
        scale: Scale,
        /// The lowest raw score.
        lowest: i32,
        /// The highest raw score.
        highest: i32,
    },
}

impl NormError {
    /// Whether the same call may succeed later without anything being changed: the store was busy or out of reach.
    pub fn is_retryable(&self) -> bool {
        match self {
            NormError::Store { source, .. } => is_transient(source),
            NormError::Parquet { source: ParquetError::External(cause), .. } => {
                cause.downcast_ref::<object_store::Error>().is_some_and(is_transient)
            }
            NormError::Shared(error) => error.is_retryable(),
            _ => false,
        }
    }

    pub(crate) fn store(location: impl Into<String>) -> impl FnOnce(object_store::Error) -> NormError {
        let location = location.into();
        move |source| NormError::Store { location, source }
    }

    pub(crate) fn parquet(location: &str) -> impl Fn(ParquetError) -> NormError + use<> {
        let location = location.to_owned();
        move |source| NormError::Parquet { location: location.clone(), source }
    }

    pub(crate) fn io(action: &'static str, location: impl Into<String>) -> impl FnOnce(std::io::Error) -> NormError {
        let location = location.into();
        move |source| NormError::Io { action, location, source }
    }
}

impl From<Arc<NormError>> for NormError {
    fn from(error: Arc<NormError>) -> Self {
        Arc::try_unwrap(error).unwrap_or_else(NormError::Shared)
    }
}

/// Errors of a store that are about the request rather than about the moment are final; the rest is worth a retry.
fn is_transient(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::Generic { .. } | object_store::Error::JoinError { .. })
}
