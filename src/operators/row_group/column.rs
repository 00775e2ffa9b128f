//! What all column encoders have in common, and which one a column gets.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::arrow_writer::ArrowColumnChunk;
use parquet::schema::types::ColumnDescPtr;

use super::RowGroupOptions;
use super::booleans::BooleanColumn;
use super::chunk::{EncodedChunk, PageCodec};
use super::error::Result;
use super::floats::Float64Column;
use super::integers::Int64Column;
use super::lists::StringListColumn;
use super::renumber::is_key_type;
use super::schema::FileSchema;
use super::shorts::Int16Column;
use super::stock::{self, StockColumn};
use super::strings::StringColumn;
use super::valid_runs::ValidRuns;

/// Encodes one column of one row group.
///
/// The row group calls `append` with arrays of the column's plan type, never across the end of a page, then `finish_page` at
/// the end of each page that has a row, and `finish` at last. All columns share `runs`, which finds runs of rows without nulls once.
pub(super) trait ColumnEncoder: Send {
    fn append(&mut self, array: &ArrayRef, runs: &mut ValidRuns) -> Result<()>;
    fn finish_page(&mut self, codec: &mut PageCodec) -> Result<()>;
    fn finish(self: Box<Self>, codec: &mut PageCodec) -> Result<Vec<Encoded>>;
}

/// An encoded column chunk: ours, or one of the Parquet library's column writers.
pub(super) enum Encoded {
    Own(EncodedChunk),
    Stock(ArrowColumnChunk),
}

fn is_dictionary_of(values: &DataType, data_type: &DataType) -> bool {
    matches!(data_type, DataType::Dictionary(key, value) if is_key_type(key) && **value == *values)
}

/// Values and keys of a page have room from the start, for this many rows at most: a page that grows is copied several times and may end
/// twice as large as it needs.
const ROOM: usize = 1 << 16;

/// An encoder for each column of a plan.
pub(super) fn encoders(
    plan: &Schema,
    file: &FileSchema,
    options: &RowGroupOptions,
) -> Result<Vec<Box<dyn ColumnEncoder>>> {
    let page_rows = options.page_rows.min(options.row_group_rows).min(ROOM);
    let documented = file.documented.fields();
    let own = plan.fields().iter().zip(documented).enumerate().map(|(root, (field, documented))| {
        // Levels follow the file, which may allow nulls where the plan has none.
        let field = field.as_ref().clone().with_nullable(documented.is_nullable());
        encoder(&field, file.leaves(root), page_rows)
    });
    let own = own.collect::<Vec<_>>();
    let stock = documented.iter().zip(&own).filter(|(_, own)| own.is_none()).map(|(field, _)| Arc::clone(field));
    let mut writers = stock::writers(stock.collect(), &file.properties)?;
    let encoders = own.into_iter().enumerate().map(|(root, own)| {
        own.unwrap_or_else(|| {
            let leaves = writers.drain(..file.leaves(root).len()).collect();
            Box::new(StockColumn::new(Arc::clone(&documented[root]), leaves))
        })
    });
    Ok(encoders.collect())
}

/// The encoder of ours that columns of this plan type have, if any.
fn encoder(field: &Field, leaves: &[ColumnDescPtr], page_rows: usize) -> Option<Box<dyn ColumnEncoder>> {
    let column = Arc::clone(leaves.first()?);
    Some(match field.data_type() {
        DataType::Boolean => Box::new(BooleanColumn::new(column)),
        DataType::Int16 => Box::new(Int16Column::new(column, page_rows)),
        DataType::Int64
        | DataType::Timestamp(TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond, _) => {
            Box::new(Int64Column::new(column, page_rows))
        }
        DataType::Float64 => Box::new(Float64Column::new(column, page_rows)),
        DataType::List(item) if is_dictionary_of(&DataType::Utf8, item.data_type()) => {
            Box::new(StringListColumn::new(field, column, page_rows))
        }
        other if is_dictionary_of(&DataType::Utf8, other) => Box::new(StringColumn::new(column, page_rows)),
        other if is_dictionary_of(&DataType::Float64, other) => Box::new(Float64Column::new(column, page_rows)),
        _ => return None,
    })
}

impl Encoded {
    /// The bytes of the chunk in the file.
    pub(super) fn bytes(&self) -> usize {
        let close = match self {
            Encoded::Own(chunk) => &chunk.close,
            Encoded::Stock(chunk) => chunk.close(),
        };
        close.bytes_written as usize
    }
}
