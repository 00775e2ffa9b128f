//! Columns without an encoder of ours: the Parquet library's column writers, fed so that their pages do not depend on how
//! rows were split into batches.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::{cast, concat};
use arrow::datatypes::{FieldRef, Schema};
use arrow::error::ArrowError;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::file::properties::WriterPropertiesPtr;
use parquet::file::writer::SerializedFileWriter;

use super::chunk::PageCodec;
use super::column::{ColumnEncoder, Encoded};
use super::error::{Result, RowGroupError};
use super::valid_runs::ValidRuns;

/// The library's column writers of `fields`, leaf by leaf.
///
/// The library hands them out for a whole file, so that one is opened that nobody reads.
pub(super) fn writers(fields: Vec<FieldRef>, properties: &WriterPropertiesPtr) -> Result<VecDeque<ArrowColumnWriter>> {
    let schema = Arc::new(Schema::new(fields));
    let parquet = ArrowSchemaConverter::new().convert(&schema).map_err(RowGroupError::Encode)?;
    let file = SerializedFileWriter::new(io::sink(), parquet.root_schema_ptr(), Arc::clone(properties))
        .map_err(RowGroupError::Encode)?;
    let writers = ArrowRowGroupWriterFactory::new(&file, schema).create_column_writers(0);
    Ok(writers.map_err(RowGroupError::Encode)?.into())
}

/// A column of any type that Arrow can write as Parquet.
pub(super) struct StockColumn {
    /// The column with its documented type.
    field: FieldRef,
    /// One per leaf.
    writers: Vec<ArrowColumnWriter>,
    /// The rows of the page.
    page: Vec<ArrayRef>,
}

impl StockColumn {
    pub(super) fn new(field: FieldRef, writers: Vec<ArrowColumnWriter>) -> Self {
        Self { field, writers, page: Vec::new() }
    }

    fn join_page(&mut self) -> Result<ArrayRef, ArrowError> {
        let page = match self.page.as_slice() {
            [array] => Arc::clone(array),
            arrays => concat(&arrays.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
        };
        self.page.clear();
        if page.data_type() == self.field.data_type() { Ok(page) } else { cast(&page, self.field.data_type()) }
    }
}

impl ColumnEncoder for StockColumn {
    fn append(&mut self, array: &ArrayRef, _runs: &mut ValidRuns) -> Result<()> {
        self.page.push(Arc::clone(array));
        Ok(())
    }

    fn finish_page(&mut self, _codec: &mut PageCodec) -> Result<()> {
        let page =
            self.join_page().map_err(|source| RowGroupError::Arrow { column: self.field.name().clone(), source })?;
        let leaves = compute_leaves(&self.field, &page).map_err(RowGroupError::Encode)?;
        for (writer, leaf) in self.writers.iter_mut().zip(&leaves) {
            writer.write(leaf).map_err(RowGroupError::Encode)?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>, _codec: &mut PageCodec) -> Result<Vec<Encoded>> {
        let chunks = self.writers.into_iter().map(|writer| writer.close().map(Encoded::Stock));
        chunks.collect::<Result<_, _>>().map_err(RowGroupError::Encode)
    }
}
