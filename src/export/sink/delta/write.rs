//! Rows into Parquet files of a table, which nobody reads before they are committed.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::engine::EngineError;
use crate::export::ExportError;
use crate::export::sink::delta::nullable;
use crate::run::RunError;
use crate::storage::Upload;
use crate::table::{DataFile, Table, statistics, table_schema};

/// A file is closed when it has this many bytes.
const FILE_BYTES: u64 = 256 << 20;
/// A row group is closed when it takes this much memory.
const GROUP_BYTES: usize = 64 << 20;

/// Writes the files of one export.
pub(super) struct TableWriter<'a> {
    table: &'a Table,
    schema: SchemaRef,
    name: String,
    open: Option<(String, ArrowWriter<Vec<u8>>, Upload)>,
    files: Vec<DataFile>,
    rows: u64,
}

impl<'a> TableWriter<'a> {
    /// Files whose names begin with `name`; rows of another schema are cast to what tables have.
    pub(super) fn new(table: &'a Table, rows: &Schema, name: &str) -> Result<Self, ExportError> {
        let schema = Arc::new(nullable(&table_schema(rows)?));
        // Another process may be at the same run and think that it has the lease: no file is written twice.
        let name = format!("{name}-{:08x}", rand::random::<u32>());
        Ok(Self { table, schema, name, open: None, files: Vec::new(), rows: 0 })
    }

    /// The columns that are written.
    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Rows so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Writes all rows. Memory: a batch and one row group as it is encoded.
    pub(super) async fn write_all(
        &mut self,
        rows: &mut SendableRecordBatchStream,
        export: &str,
    ) -> Result<(), ExportError> {
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(|error| ExportError::Query {
                export: export.to_owned(),
                source: Box::new(EngineError::from(error).into()),
            })?;
            if batch.num_rows() > 0 {
                self.write(&batch).await?;
            }
            crash_point!("export::copying");
        }
        Ok(())
    }

    async fn write(&mut self, batch: &RecordBatch) -> Result<(), ExportError> {
        self.rows += batch.num_rows() as u64;
        let exact = CastOptions { safe: false, ..CastOptions::default() };
        let columns = batch.columns().iter().zip(self.schema.fields());
        let columns = columns.map(|(column, field)| cast_with_options(column, field.data_type(), &exact));
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(encode_failed)?;
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(encode_failed)?;
        let (name, mut writer, mut upload) = match self.open.take() {
            Some(open) => open,
            None => self.begin().await?,
        };
        writer.write(&batch).map_err(parquet_failed)?;
        if writer.in_progress_size() > GROUP_BYTES {
            writer.flush().map_err(parquet_failed)?;
        }
        let bytes = std::mem::take(writer.inner_mut());
        if !bytes.is_empty() {
            upload.write(bytes.into()).await?;
        }
        let full = upload.size() >= FILE_BYTES;
        self.open = Some((name, writer, upload));
        if full { self.close().await } else { Ok(()) }
    }

    async fn begin(&mut self) -> Result<(String, ArrowWriter<Vec<u8>>, Upload), ExportError> {
        let name = format!("{}-{:05}.parquet", self.name, self.files.len());
        let compression = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(compression).build();
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&self.schema), Some(properties));
        let upload = self.table.storage().upload(&self.table.location_of_new(&name), false).await?;
        Ok((name, writer.map_err(parquet_failed)?, upload))
    }

    async fn close(&mut self) -> Result<(), ExportError> {
        let Some((name, mut writer, mut upload)) = self.open.take() else { return Ok(()) };
        let footer = writer.finish().map_err(parquet_failed)?;
        upload.write(std::mem::take(writer.inner_mut()).into()).await?;
        let written = upload.commit().await?;
        self.files.push(DataFile {
            path: name,
            size: written.size,
            rows: u64::try_from(footer.file_metadata().num_rows()).ok(),
            statistics: Some(statistics(&self.schema, footer.file_metadata().schema_descr(), footer.row_groups())),
        });
        Ok(())
    }

    /// Ends the files.
    pub(super) async fn finish(mut self) -> Result<Vec<DataFile>, ExportError> {
        self.close().await?;
        Ok(self.files)
    }
}

fn encode_failed(source: arrow::error::ArrowError) -> ExportError {
    RunError::Encode { format: "parquet", source }.into()
}

fn parquet_failed(error: ParquetError) -> ExportError {
    encode_failed(error.into())
}
