//! What can go wrong while results are encoded and written.

use std::io;

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use thiserror::Error;

/// An error of [`RowGroupEncoder`](super::RowGroupEncoder) or [`ParquetFile`](super::ParquetFile).
///
/// After an error the encoder or the file is spent: drop it, and with it what was written so far.
#[derive(Debug, Error)]
pub enum RowGroupError {
    /// An option is outside its range.
    #[error("`{option}` is {value}; give {expected}")]
    Option { option: &'static str, value: i64, expected: &'static str },
    /// A batch has another number of columns than the schema the encoder was made with.
    #[error(
        "a batch has {found} columns, the row group {expected}; write batches of the schema the encoder was made with"
    )]
    ColumnCount { expected: usize, found: usize },
    /// A column of a batch has another type than the schema the encoder was made with.
    #[error("column `{column}` has type {found} in a batch, {expected} in the row group; cast it before writing")]
    ColumnType { column: String, expected: DataType, found: DataType },
    /// A column that is never null by its schema has a null.
    #[error("column `{column}` is declared never null and has a null; declare it nullable or repair its producer")]
    UnexpectedNull { column: String },
    /// The distinct values, or one page, of a column take more bytes than a Parquet page can hold (2 GiB).
    #[error(
        "a page of column `{column}` would take {bytes} bytes, more than Parquet can hold; write smaller row groups or pages"
    )]
    PageTooLarge { column: String, bytes: usize },
    /// A row group of another schema was appended to a file.
    #[error("a row group of {found} column chunks was appended to a file of {expected}; make both from one schema")]
    ForeignRowGroup { expected: usize, found: usize },
    /// A file has so many row groups that Parquet cannot number them, or say of all of them what a footer says.
    #[error("the file has more row groups than Parquet can hold; write larger row groups, or more files")]
    TooManyRowGroups,
    /// The compressor refused its level or its input.
    #[error("a page could not be compressed")]
    Compress(#[source] io::Error),
    /// Arrow could not cast or join the arrays of a column.
    #[error("the arrays of column `{column}` could not be joined")]
    Arrow { column: String, source: ArrowError },
    /// The Parquet library refused the schema or a column.
    #[error("a column could not be encoded as Parquet")]
    Encode(#[source] ParquetError),
    /// What the footer will say could not be held in a temporary file.
    #[error(
        "what the footer will say of the row groups could not be held in a temporary file in {}; TMPDIR names another folder",
        std::env::temp_dir().display()
    )]
    Spool(#[source] io::Error),
    /// The file could not be written.
    #[error("the Parquet file could not be written")]
    Write(#[source] ParquetError),
}

impl RowGroupError {
    /// Whether writing the same rows again, to a new file, may succeed with nothing changed by hand.
    pub fn is_retryable(&self) -> bool {
        matches!(self, RowGroupError::Write(_))
    }
}

/// The result of this module's operations.
pub type Result<T, E = RowGroupError> = std::result::Result<T, E>;
