//! What can go wrong with norm tables.

use datafusion::error::DataFusionError;
use parquet::errors::ParquetError;

use crate::model::Scale;
use crate::norms::import::{FaultCause, FaultReport};
use crate::norms::source::GroupName;
use crate::storage::StorageError;

/// Why norms can't be read, imported or listed.
#[derive(Debug, thiserror::Error)]
pub enum NormError {
    /// The store that holds a norm table failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The Parquet reader or writer failed.
    #[error("the norm table {location} is not readable as Parquet")]
    Parquet {
        /// The table.
        location: String,
        /// What the reader said.
        source: ParquetError,
    },
    /// The system failed beside the stores: a thread, a temporary directory.
    #[error("cannot {action} {location}")]
    Io {
        /// What was tried, as in `read`.
        action: &'static str,
        /// The table or directory.
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
        "there are no norm tables (*.parquet) in {location}: write some with `normstream norms import FILE --to {location}`"
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
    /// A group has more distinct percentiles than there are keys for.
    #[error("the norms of '{group}' have more than {most} distinct percentiles: round them, and import them anew")]
    TooManyPercentiles {
        /// The group.
        group: String,
        /// The most that a group can have.
        most: usize,
    },
    /// Sorting the rows failed.
    #[error("sorting the norm rows failed")]
    Sort(#[source] Box<DataFusionError>),
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
    /// A row of a group that import would have refused.
    pub(crate) fn damaged(location: &str, name: GroupName<'_>, reason: Damage) -> NormError {
        NormError::Damaged { location: location.to_owned(), group: name.group.to_owned(), reason }
    }

    /// Whether the same call may succeed later without anything being changed: the store was busy or out of reach.
    pub fn is_retryable(&self) -> bool {
        match self {
            NormError::Storage(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// Names the table in an error of the Parquet reader or writer, and takes the store's own errors out of it.
    pub(crate) fn parquet(location: &str) -> impl Fn(ParquetError) -> NormError + use<> {
        let location = location.to_owned();
        move |error| {
            let cause = match error {
                ParquetError::External(cause) => cause,
                source => return NormError::Parquet { location: location.clone(), source },
            };
            let cause = match cause.downcast::<object_store::Error>() {
                Ok(error) => return StorageError::of_store(location.as_str(), "read it", *error).into(),
                Err(cause) => cause,
            };
            match cause.downcast::<StorageError>() {
                Ok(error) => NormError::Storage(*error),
                Err(cause) => NormError::Parquet { location: location.clone(), source: ParquetError::External(cause) },
            }
        }
    }

    pub(crate) fn io(action: &'static str, location: impl Into<String>) -> impl FnOnce(std::io::Error) -> NormError {
        let location = location.into();
        move |source| NormError::Io { action, location, source }
    }
}
