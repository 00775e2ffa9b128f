//! Batches into files that become visible when they are committed.

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter as IpcWriter, IpcWriteOptions};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::engine::FileFormat;
use crate::export::ExportError;
use crate::model::result::documented_schema;
use crate::operators::row_group::RowGroupOptions;
use crate::run::{Encoded, PartEncoder, RunError};
use crate::storage::{Location, Storage, Upload};

/// How many ended files wait to become visible together. Each holds a descriptor, or for a remote store up to a part in memory.
const WAITING_FILES: usize = 64;
/// How many bytes of a row group are held.
const HELD_BYTES: usize = 64 << 20;
/// A file is closed when it has this many bytes.
const FILE_BYTES: u64 = 256 << 20;

/// The files of one export, one of them open. Rows that come folder by folder make few files.
pub(super) struct Files {
    storage: Storage,
    root: Location,
    single: Option<Location>,
    format: FileFormat,
    schema: SchemaRef,
    /// What the names of the files begin with.
    prefix: String,
    /// The folder that is written to, and its file.
    open: Option<(String, FileWriter)>,
    ended: Vec<FileWriter>,
    begun: usize,
}

impl Files {
    pub(super) fn new(
        storage: Storage,
        root: Location,
        single: Option<Location>,
        format: FileFormat,
        schema: SchemaRef,
        run_id: &str,
    ) -> Self {
        // Another process may be at the same run and think that it has the lease: no file is written twice.
        let prefix = format!("{run_id}-{:08x}", rand::random::<u32>());
        Self { storage, root, single, format, schema, prefix, open: None, ended: Vec::new(), begun: 0 }
    }

    /// Appends rows to the file of a folder, relative to the root.
    pub(super) async fn write(&mut self, folder: &str, rows: &RecordBatch) -> Result<(), ExportError> {
        if self.open.as_ref().is_some_and(|(open, _)| open != folder) {
            self.end().await?;
        }
        let mut file = match self.open.take() {
            Some((_, file)) => file,
            None => self.begin(folder).await?,
        };
        file.write(rows).await?;
        if file.held() > HELD_BYTES {
            file.flush().await?;
        }
        let is_full = file.upload.size() >= FILE_BYTES && self.single.is_none();
        self.open = Some((folder.to_owned(), file));
        if is_full { self.end().await } else { Ok(()) }
    }

    /// The ended files, once there are so many that they cannot wait for the others.
    pub(super) fn take_many(&mut self) -> Option<Vec<FileWriter>> {
        (self.ended.len() >= WAITING_FILES).then(|| std::mem::take(&mut self.ended))
    }

    async fn begin(&mut self, folder: &str) -> Result<FileWriter, ExportError> {
        let name = format!("{folder}{}-{:05}.{}", self.prefix, self.begun, self.format.name());
        self.begun += 1;
        let (at, overwrite) = match &self.single {
            Some(single) => (single.clone(), true),
            None => (self.root.child(&name), false),
        };
        let upload = self.storage.upload(&at, overwrite).await?;
        FileWriter::new(name, upload, self.format, &self.schema).await
    }

    async fn end(&mut self) -> Result<(), ExportError> {
        if let Some((_, mut file)) = self.open.take() {
            file.close().await?;
            self.ended.push(file);
        }
        Ok(())
    }

    /// Ends all files that were not taken; none of them is visible yet. An export without rows is a file without rows.
    pub(super) async fn finish(mut self) -> Result<Vec<FileWriter>, ExportError> {
        if self.begun == 0 {
            let file = self.begin("").await?;
            self.open = Some((String::new(), file));
        }
        self.end().await?;
        Ok(self.ended)
    }
}

/// A file that nobody sees before it is committed.
pub(super) struct FileWriter {
    /// Its path below the table's folder.
    pub(super) name: String,
    upload: Upload,
    encoder: Encoder,
    format: FileFormat,
}

enum Encoder {
    Parquet(Box<ArrowWriter<Vec<u8>>>),
    Text(PartEncoder),
    Arrow(Box<IpcWriter<Vec<u8>>>, PartEncoder),
    Closed,
}

impl FileWriter {
    async fn new(name: String, upload: Upload, format: FileFormat, schema: &SchemaRef) -> Result<Self, ExportError> {
        let documented = std::sync::Arc::new(documented_schema(schema));
        let part = || PartEncoder::new(format, schema, &RowGroupOptions::default());
        let failed = |source| RunError::Encode { format: format.name(), source };
        let mut head = Bytes::new();
        let encoder = match format {
            FileFormat::Parquet => {
                let compression = Compression::ZSTD(ZstdLevel::default());
                let properties = WriterProperties::builder().set_compression(compression).build();
                let writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties));
                Encoder::Parquet(Box::new(writer.map_err(|error| failed(error.into()))?))
            }
            FileFormat::Csv => {
                head = header(schema).map_err(failed)?;
                Encoder::Text(part())
            }
            FileFormat::Ndjson => Encoder::Text(part()),
            FileFormat::Arrow => {
                let zstd = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD));
                let writer = zstd.and_then(|zstd| IpcWriter::try_new_with_options(Vec::new(), &documented, zstd));
                Encoder::Arrow(Box::new(writer.map_err(failed)?), part())
            }
        };
        let mut file = Self { name, upload, encoder, format };
        file.send(head).await?;
        Ok(file)
    }

    async fn write(&mut self, rows: &RecordBatch) -> Result<(), ExportError> {
        let failed = |source| RunError::Encode { format: self.format.name(), source };
        let bytes = match &mut self.encoder {
            Encoder::Parquet(writer) => {
                writer.write(rows).map_err(|error| failed(error.into()))?;
                std::mem::take(writer.inner_mut()).into()
            }
            Encoder::Text(part) => match part.encode(rows)? {
                Some(Encoded::Text(text, _)) => text,
                _ => Bytes::new(),
            },
            Encoder::Arrow(writer, part) => {
                if let Some(Encoded::Batch(batch)) = part.encode(rows)? {
                    writer.write(&batch).map_err(failed)?;
                }
                std::mem::take(writer.get_mut()).into()
            }
            Encoder::Closed => Bytes::new(),
        };
        self.send(bytes).await
    }

    /// Bytes of a row group that is not written yet.
    fn held(&self) -> usize {
        match &self.encoder {
            Encoder::Parquet(writer) => writer.memory_size(),
            _ => 0,
        }
    }

    async fn flush(&mut self) -> Result<(), ExportError> {
        let Encoder::Parquet(writer) = &mut self.encoder else { return Ok(()) };
        writer.flush().map_err(|error| RunError::Encode { format: self.format.name(), source: error.into() })?;
        let bytes = std::mem::take(writer.inner_mut());
        self.send(bytes.into()).await
    }

    async fn close(&mut self) -> Result<(), ExportError> {
        let failed = |source| RunError::Encode { format: self.format.name(), source };
        let bytes = match std::mem::replace(&mut self.encoder, Encoder::Closed) {
            Encoder::Parquet(writer) => writer.into_inner().map_err(|error| failed(error.into()))?,
            Encoder::Arrow(mut writer, _) => {
                writer.finish().map_err(failed)?;
                std::mem::take(writer.get_mut())
            }
            Encoder::Text(_) | Encoder::Closed => Vec::new(),
        };
        self.send(bytes.into()).await
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), ExportError> {
        if bytes.is_empty() { Ok(()) } else { Ok(self.upload.write(bytes).await?) }
    }

    /// Makes the file visible and returns its bytes.
    pub(super) async fn commit(self) -> Result<u64, ExportError> {
        Ok(self.upload.commit().await?.size)
    }
}

/// The first line of a CSV file.
fn header(schema: &Schema) -> Result<Bytes, arrow::error::ArrowError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = |error: String| arrow::error::ArrowError::CsvError(error);
    writer.write_record(schema.fields().iter().map(|field| field.name())).map_err(|error| failed(error.to_string()))?;
    Ok(writer.into_inner().map_err(|error| failed(error.to_string()))?.into())
}
