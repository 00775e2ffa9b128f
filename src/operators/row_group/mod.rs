//! The Parquet writer of results: row groups encoded in memory, from dictionary keys where a plan has them, and put into a
//! file in order.
//!
//! ```text
//! batches ─▶ RowGroupEncoder ─▶ EncodedRowGroup ─┐  (as many at once as there are threads)
//! batches ─▶ RowGroupEncoder ─▶ EncodedRowGroup ─┴▶ ParquetFile ─▶ W: Write
//! ```
//!
//! Inside a plan a column of few distinct values is a dictionary ([`column_type`](crate::model::result::column_type)); the
//! file has its documented type ([`documented_schema`](crate::model::result::documented_schema)), so that every reader sees
//! plain values. The library's writer hashes each value again to find a key that the plan already holds. Here keys, of
//! strings and of floating-point numbers, are renumbered through a table and packed. So are small integers and floating-point
//! numbers of few distinct values that come as they are; booleans are copied as bits. Columns of all other types go through the
//! library's column writers into the same row group.
//!
//! What a file has: format version 1 pages of a fixed number of rows, at the same rows in every column with an encoder of ours,
//! compressed with zstd where that makes a column chunk an eighth shorter; dictionary pages of the values used in the row group
//! alone; statistics per chunk; column and offset index; the documented Arrow schema as `ARROW:schema`. What it has not: bloom
//! filters, sorting columns (readers take the order of one row group for that of the file).
//!
//! This module knows no DataFusion, no store and no scoring.

mod booleans;
mod bounds;
mod chunk;
mod column;
mod error;
mod file;
mod floats;
mod hybrid;
mod integers;
mod keys;
mod levels;
mod lists;
mod pieces;
mod renumber;
mod schema;
mod shorts;
mod spool;
mod stock;
mod strings;
#[cfg(test)]
mod tests;
mod valid_runs;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use chunk::PageCodec;
use column::{ColumnEncoder, Encoded, encoders};
pub use error::{Result, RowGroupError};
pub use file::{FileEnd, ParquetFile};
use schema::FileSchema;
use valid_runs::ValidRuns;

/// How row groups are encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowGroupOptions {
    /// The level of zstd, 1..=22.
    pub zstd_level: i32,
    /// The rows after which a writer of many row groups should begin the next. An encoder takes more if it is given more.
    pub row_group_rows: usize,
    /// The rows of a data page: what a reader with a page index can skip.
    pub page_rows: usize,
    /// What the file says of its writer.
    pub created_by: String,
}

impl Default for RowGroupOptions {
    fn default() -> Self {
        Self {
            zstd_level: 1,
            row_group_rows: 128 * 1024,
            page_rows: 20_000,
            created_by: concat!("normstream ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Encodes one row group in memory.
///
/// Row groups are independent: many can be encoded at once, on different threads. The bytes depend on the rows and the
/// options alone, not on how rows are split into batches nor on the dictionaries they come with.
///
/// Memory: the encoded pages, room for one page of each column from the start, a page being written, and for columns without an
/// encoder of ours the arrays of a page. Dictionary columns are fastest if batches share one dictionary array (the same `Arc`).
pub struct RowGroupEncoder {
    schema: SchemaRef,
    columns: Vec<Box<dyn ColumnEncoder>>,
    runs: ValidRuns,
    codec: PageCodec,
    page_rows: usize,
    rows: usize,
    /// Rows of the page at work.
    pending: usize,
}

impl RowGroupEncoder {
    /// An encoder for batches of a plan's schema. Fails if an option is out of range or if Parquet has no type for a column.
    pub fn try_new(schema: &SchemaRef, options: &RowGroupOptions) -> Result<Self> {
        if options.page_rows == 0 {
            return Err(RowGroupError::Option { option: "page_rows", value: 0, expected: "at least 1" });
        }
        let columns = encoders(schema, &FileSchema::try_new(schema, options)?, options)?;
        Ok(Self {
            schema: Arc::clone(schema),
            columns,
            runs: ValidRuns::default(),
            codec: PageCodec::try_new(options.zstd_level)?,
            page_rows: options.page_rows,
            rows: 0,
            pending: 0,
        })
    }

    /// Appends the rows of a batch, whose columns have the types of the encoder's schema.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.check(batch)?;
        let mut from = 0;
        while from < batch.num_rows() {
            let rows = (batch.num_rows() - from).min(self.page_rows - self.pending);
            for (column, array) in self.columns.iter_mut().zip(batch.columns()) {
                if rows == array.len() {
                    column.append(array, &mut self.runs)?;
                } else {
                    column.append(&array.slice(from, rows), &mut self.runs)?;
                }
            }
            from += rows;
            self.rows += rows;
            self.pending += rows;
            if self.pending == self.page_rows {
                self.finish_page()?;
            }
        }
        Ok(())
    }

    /// The rows written so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Ends the row group.
    pub fn finish(mut self) -> Result<EncodedRowGroup> {
        if self.pending > 0 {
            self.finish_page()?;
        }
        let mut chunks = Vec::with_capacity(self.columns.len());
        if self.rows > 0 {
            for column in self.columns {
                chunks.extend(column.finish(&mut self.codec)?);
            }
        }
        let bytes = chunks.iter().map(Encoded::bytes).sum();
        Ok(EncodedRowGroup { rows: self.rows, bytes, chunks })
    }

    fn finish_page(&mut self) -> Result<()> {
        self.pending = 0;
        self.columns.iter_mut().try_for_each(|column| column.finish_page(&mut self.codec))
    }

    fn check(&self, batch: &RecordBatch) -> Result<()> {
        let (expected, found) = (self.schema.fields().len(), batch.num_columns());
        if expected != found {
            return Err(RowGroupError::ColumnCount { expected, found });
        }
        let same = Arc::ptr_eq(&self.schema, batch.schema_ref());
        for (field, array) in self.schema.fields().iter().zip(batch.columns()) {
            if !same && field.data_type() != array.data_type() {
                let (expected, found) = (field.data_type().clone(), array.data_type().clone());
                return Err(RowGroupError::ColumnType { column: field.name().clone(), expected, found });
            }
            if !field.is_nullable() && array.logical_null_count() > 0 {
                return Err(RowGroupError::UnexpectedNull { column: field.name().clone() });
            }
        }
        Ok(())
    }
}

/// A row group that has been encoded: column chunks in the order of the file.
pub struct EncodedRowGroup {
    rows: usize,
    bytes: usize,
    chunks: Vec<Encoded>,
}

impl EncodedRowGroup {
    /// Its rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Its bytes in the file.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
