//! Writes one version's table: sorted Parquet made for lookups, visible only when all of the import is known to be good.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, Int32Builder, Int64Builder, RecordBatch, StringBuilder};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::basic::{Compression, Encoding};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use sha2::{Digest, Sha256};

use crate::model::norm::{FREQUENCY, NORM_SCHEMA, PERCENTILE, RAW_SCORE};
use crate::norms::error::NormError;
use crate::norms::import::ImportedTable;
use crate::norms::import::series::SortedRow;
use crate::norms::parquet::ROWS_DIGEST;
use crate::norms::source::hex;
use crate::storage::{Location, Storage, StorageError, Upload};

/// Rows a row group has, about; it is a whole number of pages.
const ROW_GROUP_ROWS: usize = 16_384;

/// The table of a version in a folder.
pub(crate) fn table(folder: &Location, version: &str) -> Location {
    folder.child(&format!("{version}.parquet"))
}

/// An error of writing a version's table; one that is there already has a name of its own.
pub(crate) fn write_error(error: StorageError, version: &str) -> NormError {
    match error {
        StorageError::AlreadyExists { target } => {
            NormError::VersionExists { version: version.to_owned(), location: target }
        }
        error => NormError::Storage(error),
    }
}

/// An upload as the Parquet writer wants it. Completing the file does not commit the upload.
struct TableUpload(Upload);

impl AsyncFileWriter for TableUpload {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), ParquetError>> {
        self.0.write(bytes).map(|written| written.map_err(|error| ParquetError::External(Box::new(error)))).boxed()
    }

    fn complete(&mut self) -> BoxFuture<'_, Result<(), ParquetError>> {
        std::future::ready(Ok(())).boxed()
    }
}

/// A table as it is being written. Memory: the rows of one row group, decoded and encoded, and what an upload buffers.
pub(crate) struct TableWriter {
    version: String,
    location: String,
    writer: AsyncArrowWriter<TableUpload>,
    rows: RowBuffer,
    row_group_rows: usize,
    last_group: Option<String>,
    groups: u64,
    written: u64,
    digest: Sha256,
}

#[derive(Default)]
struct RowBuffer {
    groups: StringBuilder,
    versions: StringBuilder,
    scales: StringBuilder,
    raws: Int32Builder,
    percentiles: Float64Builder,
    frequencies: Int64Builder,
}

impl TableWriter {
    pub(crate) async fn create(
        storage: &Storage,
        folder: &Location,
        version: &str,
        chunk_rows: usize,
    ) -> Result<Self, NormError> {
        let at = table(folder, version);
        let upload = storage.upload(&at, false).await.map_err(|error| write_error(error, version))?;
        let location = at.to_string();
        let schema = Arc::clone(&NORM_SCHEMA);
        let writer = AsyncArrowWriter::try_new(TableUpload(upload), schema, Some(properties(chunk_rows)))
            .map_err(NormError::parquet(&location))?;
        Ok(TableWriter {
            version: version.to_owned(),
            location,
            writer,
            rows: RowBuffer::default(),
            row_group_rows: row_group_rows(chunk_rows),
            last_group: None,
            groups: 0,
            written: 0,
            digest: Sha256::new(),
        })
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Takes the next row in order.
    pub(crate) async fn push(&mut self, row: &SortedRow<'_>) -> Result<(), NormError> {
        if self.last_group.as_deref() != Some(row.group) {
            self.last_group = Some(row.group.to_owned());
            self.groups += 1;
        }
        digest_row(&mut self.digest, row);
        self.rows.groups.append_value(row.group);
        self.rows.versions.append_value(row.version);
        self.rows.scales.append_value(row.scale.code());
        self.rows.raws.append_value(row.raw);
        self.rows.percentiles.append_value(row.percentile);
        self.rows.frequencies.append_option(row.frequency);
        self.written += 1;
        if self.rows.raws.values_slice().len() == self.row_group_rows { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), NormError> {
        let rows = std::mem::take(&mut self.rows);
        let write = async {
            self.writer.write(&rows.batch()?).await?;
            self.writer.flush().await
        };
        write.await.map_err(NormError::parquet(&self.location))
    }

    /// Ends the table; it is complete and visible to nobody.
    pub(crate) async fn finish(mut self) -> Result<StagedTable, NormError> {
        if !self.rows.raws.values_slice().is_empty() {
            self.flush().await?;
        }
        let digest = hex(&self.digest.finalize());
        self.writer.append_key_value_metadata(KeyValue::new(ROWS_DIGEST.to_owned(), digest));
        self.writer.finish().await.map_err(NormError::parquet(&self.location))?;
        let TableUpload(upload) = self.writer.into_inner();
        let table = ImportedTable {
            version: self.version,
            location: self.location,
            groups: self.groups,
            rows: self.written,
            bytes: upload.size(),
        };
        Ok(StagedTable { upload, table })
    }
}

impl RowBuffer {
    fn batch(mut self) -> Result<RecordBatch, ParquetError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.groups.finish()),
            Arc::new(self.versions.finish()),
            Arc::new(self.scales.finish()),
            Arc::new(self.raws.finish()),
            Arc::new(self.percentiles.finish()),
            Arc::new(self.frequencies.finish()),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&NORM_SCHEMA), columns)?)
    }
}

/// Adds a row to the digest of a table's rows.
pub(crate) fn digest_row(digest: &mut Sha256, row: &SortedRow<'_>) {
    for text in [row.group, row.version, row.scale.code()] {
        digest.update(text);
        digest.update([0]);
    }
    digest.update(row.raw.to_le_bytes());
    digest.update(row.percentile.to_le_bytes());
    digest.update(row.frequency.map_or(-1, |frequency| frequency.max(0)).to_le_bytes());
}

/// A complete table that nobody sees. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct StagedTable {
    upload: Upload,
    table: ImportedTable,
}

impl StagedTable {
    /// Makes the table visible under its own name, if nobody else has taken that by now.
    pub(crate) async fn publish(self) -> Result<ImportedTable, NormError> {
        self.upload.commit().await.map_err(|error| write_error(error, &self.table.version))?;
        Ok(self.table)
    }
}

fn row_group_rows(chunk_rows: usize) -> usize {
    ROW_GROUP_ROWS.div_ceil(chunk_rows) * chunk_rows
}

/// Small pages, so that a group costs few rows; bounds of each page for the columns that are searched; no dictionary where
/// values hardly repeat within a page, since a dictionary is read with every page; LZ4, since a page of a few hundred bytes
/// is decoded before Zstandard has set itself up.
fn properties(chunk_rows: usize) -> WriterProperties {
    let path = |name: &str| ColumnPath::from(name);
    WriterProperties::builder()
        .set_max_row_group_row_count(Some(row_group_rows(chunk_rows)))
        .set_data_page_row_count_limit(chunk_rows)
        // The limit of rows is looked at between batches of this size only.
        .set_write_batch_size(chunk_rows)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_column_statistics_enabled(path(PERCENTILE), EnabledStatistics::Chunk)
        .set_column_statistics_enabled(path(FREQUENCY), EnabledStatistics::Chunk)
        .set_column_dictionary_enabled(path(RAW_SCORE), false)
        .set_column_encoding(path(RAW_SCORE), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(path(PERCENTILE), false)
        .set_column_dictionary_enabled(path(FREQUENCY), false)
        .set_compression(Compression::LZ4_RAW)
        .set_sorting_columns(Some(
            (0..4).map(|column_idx| SortingColumn { column_idx, descending: false, nulls_first: false }).collect(),
        ))
        .build()
}
