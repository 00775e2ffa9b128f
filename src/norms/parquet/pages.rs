//! The page directory of one row group: which pages can hold a group, and where they are.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use bytes::Bytes;
use object_store::ObjectStore;
use parquet::DecodeResult;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{
    FileMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataBuilder, ParquetMetaDataPushDecoder,
    RowGroupMetaData,
};
use parquet::file::page_index::column_index::ColumnIndexMetaData;

use crate::norms::parquet::rows::TextColumn;
use crate::storage::ObjectReader;

/// The metadata of one row group alone, with the page index of that row group: what a reader needs to fetch a few pages.
///
/// The page index of a whole file grows with the file (80 bytes a page and more), so the store never holds that; it decodes
/// the index of a row group when a group in it is asked for, and keeps a bounded number of them.
#[derive(Debug)]
pub(crate) struct PageDirectory {
    /// Metadata of a file that consists of this row group.
    pub(crate) reader: ArrowReaderMetadata,
    group_column: usize,
    rows: usize,
}

impl PageDirectory {
    /// Reads the page index of a row group with one call to the store; without any call if the file has none.
    pub(crate) async fn read(
        object: &ObjectReader,
        file: &FileMetaData,
        row_group: &RowGroupMetaData,
        group_column: usize,
    ) -> Result<PageDirectory> {
        let rows = usize::try_from(row_group.num_rows())?;
        let mut metadata = single(file, row_group, group_column)?;
        let column_index = range(&metadata, |c| (c.column_index_offset(), c.column_index_length()));
        let offset_index = range(&metadata, |c| (c.offset_index_offset(), c.offset_index_length()));
        if let Some(offset_index) = offset_index {
            let wanted: Vec<Range<u64>> = column_index.clone().into_iter().chain([offset_index.clone()]).collect();
            let mut fetched = object
                .store
                .get_ranges(&object.path, &wanted)
                .await
                .map_err(|error| ParquetError::External(Box::new(error)))?;
            let decode = |metadata, columns, offsets, range: Range<u64>, bytes| {
                let mut decoder = ParquetMetaDataPushDecoder::try_new_with_metadata(object.size, metadata)?
                    .with_column_index_policy(columns)
                    .with_offset_index_policy(offsets);
                decoder.push_range(range, bytes)?;
                finished(decoder.try_decode()?)
            };
            let offsets: Bytes = fetched.pop().unwrap_or_default();
            if let (Some(range), Some(bytes)) = (column_index, fetched.pop()) {
                metadata = decode(metadata, PageIndexPolicy::Optional, PageIndexPolicy::Skip, range, bytes)?;
            }
            metadata = decode(metadata, PageIndexPolicy::Skip, PageIndexPolicy::Optional, offset_index, offsets)?;
        }
        // The Arrow schema in the footer is left alone: it costs more to parse than the pages cost to read.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = Arc::new(metadata);
        let found = ArrowReaderMetadata::try_new(Arc::clone(&metadata), options.clone())?;
        let reader = ArrowReaderMetadata::try_new(metadata, options.with_schema(with_text_as_keys(found.schema())))?;
        Ok(PageDirectory { reader, group_column, rows })
    }

    /// The rows of the pages that may hold any of `groups`, which are in order: all rows without a page index, `None` when no page
    /// can hold one.
    ///
    /// Bounds may be truncated, so a page may turn out not to hold a group; a page that holds one is never left out.
    pub(crate) fn rows_of(&self, groups: &[&str]) -> Option<RowSelection> {
        let metadata = self.reader.metadata();
        let bounds = metadata.column_index().and_then(|rows| rows.first()?.get(self.group_column));
        let pages = metadata.offset_index().and_then(|rows| rows.first()?.get(self.group_column));
        let (Some(ColumnIndexMetaData::BYTE_ARRAY(bounds)), Some(pages)) = (bounds, pages) else {
            return Some(RowSelection::from_consecutive_ranges(std::iter::once(0..self.rows), self.rows));
        };
        let starts: Vec<usize> =
            pages.page_locations().iter().map(|page| usize::try_from(page.first_row_index).unwrap_or(0)).collect();
        let mut selected: Vec<Range<usize>> = Vec::new();
        for (page, start) in starts.iter().enumerate() {
            let (Some(lowest), Some(highest)) = (bounds.min_value(page), bounds.max_value(page)) else { continue };
            let first = groups.partition_point(|group| group.as_bytes() < lowest);
            if groups.get(first).is_some_and(|group| group.as_bytes() <= highest) {
                selected.push(*start..starts.get(page + 1).copied().unwrap_or(self.rows));
            }
        }
        (!selected.is_empty()).then(|| RowSelection::from_consecutive_ranges(selected.into_iter(), self.rows))
    }

    /// What the directory needs in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.reader.metadata().memory_size()
    }
}

/// A schema in which text is not copied for each row.
fn with_text_as_keys(schema: &Schema) -> SchemaRef {
    let field = |field: &FieldRef| match field.data_type() {
        DataType::Utf8 => Arc::new(field.as_ref().clone().with_data_type(TextColumn::data_type())),
        _ => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// The metadata of one row group as a file of its own. Only the key column keeps its column index.
fn single(file: &FileMetaData, row_group: &RowGroupMetaData, group_column: usize) -> Result<ParquetMetaData> {
    let mut columns = row_group.columns().to_vec();
    for (index, column) in columns.iter_mut().enumerate() {
        let mut builder = column.clone().into_builder().clear_statistics();
        if index != group_column {
            builder = builder.set_column_index_offset(None).set_column_index_length(None);
        }
        *column = builder.build()?;
    }
    let row_group = row_group.clone().into_builder().set_column_metadata(columns).set_sorting_columns(None).build()?;
    let file = FileMetaData::new(
        file.version(),
        row_group.num_rows(),
        file.created_by().map(str::to_owned),
        None,
        file.schema_descr_ptr(),
        file.column_orders().cloned(),
    );
    Ok(ParquetMetaDataBuilder::new(file).add_row_group(row_group).build())
}

/// The bytes that cover one kind of index of all columns, if any column has it.
fn range(
    metadata: &ParquetMetaData,
    place: impl Fn(&parquet::file::metadata::ColumnChunkMetaData) -> (Option<i64>, Option<i32>),
) -> Option<Range<u64>> {
    let places = metadata.row_group(0).columns().iter().filter_map(|column| {
        let (offset, length) = place(column);
        let start = u64::try_from(offset?).ok()?;
        Some(start..start + u64::try_from(length?).ok()?)
    });
    places.reduce(|all, one| all.start.min(one.start)..all.end.max(one.end))
}

fn finished(result: DecodeResult<ParquetMetaData>) -> Result<ParquetMetaData> {
    match result {
        DecodeResult::Data(metadata) => Ok(metadata),
        DecodeResult::NeedsData(_) | DecodeResult::Finished => {
            Err(ParquetError::General("the page index lies outside the place that the footer names".to_owned()))
        }
    }
}
