//! Where results go: a file, a folder of Parquet files, or standard output. Files become visible at the commit, all at once.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::csv::WriterBuilder as CsvWriterBuilder;
use arrow::datatypes::SchemaRef;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter as ArrowFileWriter, IpcWriteOptions};
use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use crate::engine::{Compression, FileFormat, STDIN, format_of_name};
use crate::operators::row_group::{ParquetFile, RowGroupOptions};
use crate::run::RunError;
use crate::run::encode::{Encoded, written_schema};
use crate::storage::{Location, Storage, Upload};

/// A folder's Parquet files are closed when they have this many bytes.
const FILE_BYTES: u64 = 256 << 20;

/// A target, understood: what `--to` and `--format` say together.
#[derive(Debug, Clone)]
pub enum OutputTarget {
    /// Standard output.
    Stdout(FileFormat),
    /// One file.
    File(Location, FileFormat),
    /// A folder of Parquet files.
    Folder(Location),
}

impl OutputTarget {
    /// Understands a target.
    ///
    /// `-` is standard output, as NDJSON unless a format is given. A name that ends in `/`, an existing local folder, or a
    /// name without an extension and no format but Parquet is a folder. Anything else is a file, whose format the extension
    /// says unless one is given.
    pub fn new(storage: &Storage, target: &str, format: Option<FileFormat>) -> Result<Self, RunError> {
        if target == STDIN {
            return Ok(OutputTarget::Stdout(format.unwrap_or(FileFormat::Ndjson)));
        }
        let location = storage.open(target)?;
        let named = format_of_name(target).filter(|(_, compression)| *compression == Compression::None);
        let has_extension = location.path.extension().is_some();
        let is_folder = location.is_folder()
            || location.file_path().is_some_and(|path| path.is_dir())
            || (!has_extension && matches!(format, None | Some(FileFormat::Parquet)));
        match (is_folder, format, named) {
            (true, None | Some(FileFormat::Parquet), _) => Ok(OutputTarget::Folder(location)),
            (true, Some(format), _) => Err(RunError::FolderFormat { target: target.to_owned(), format: format.name() }),
            (false, Some(format), _) | (false, None, Some((format, _))) => Ok(OutputTarget::File(location, format)),
            (false, None, None) => Err(RunError::UnknownTargetFormat { target: target.to_owned() }),
        }
    }

    /// The format that is written.
    pub fn format(&self) -> FileFormat {
        match self {
            OutputTarget::Stdout(format) | OutputTarget::File(_, format) => *format,
            OutputTarget::Folder(_) => FileFormat::Parquet,
        }
    }

    /// Fails when the target exists and may not be replaced, before any work is done.
    pub async fn check(&self, overwrite: bool) -> Result<(), RunError> {
        let exists = match self {
            OutputTarget::Stdout(_) => false,
            OutputTarget::File(location, _) => location.exists().await?,
            OutputTarget::Folder(location) => !location.list_files().await?.is_empty(),
        };
        match self {
            OutputTarget::File(location, _) | OutputTarget::Folder(location) if exists && !overwrite => {
                Err(RunError::TargetExists { target: location.to_string() })
            }
            _ => Ok(()),
        }
    }
}

/// Results on their way to a target. Dropped without a commit, nothing of them is visible, save what went to standard output.
pub struct Output {
    storage: Storage,
    target: OutputTarget,
    overwrite: bool,
    plan_schema: SchemaRef,
    options: RowGroupOptions,
    /// Files that are complete but not visible yet.
    finished: Vec<Upload>,
    current: Option<OpenFile>,
    bytes: u64,
    rows: u64,
}

impl Output {
    /// An output for rows of a plan's schema.
    pub fn new(
        storage: Storage,
        target: OutputTarget,
        overwrite: bool,
        plan_schema: SchemaRef,
        options: RowGroupOptions,
    ) -> Self {
        Output {
            storage,
            target,
            overwrite,
            plan_schema,
            options,
            finished: Vec::new(),
            current: None,
            bytes: 0,
            rows: 0,
        }
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Rows written so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Appends rows.
    pub async fn write(&mut self, encoded: Encoded) -> Result<(), RunError> {
        self.rows += encoded.rows() as u64;
        let mut file = self.open_file().await?;
        let bytes = file.writer.append(encoded)?;
        file.send(bytes, &mut self.bytes).await?;
        let full = matches!(self.target, OutputTarget::Folder(_)) && file.size() >= FILE_BYTES;
        self.current = Some(file);
        if full { self.close_file().await } else { Ok(()) }
    }

    /// Makes everything visible. A result without rows is a file without rows.
    pub async fn commit(mut self) -> Result<(u64, u64), RunError> {
        if self.current.is_none() && self.finished.is_empty() {
            let file = self.open_file().await?;
            self.current = Some(file);
        }
        self.close_file().await?;
        let replaced = match &self.target {
            OutputTarget::Folder(folder) if self.overwrite => folder.list_files().await?,
            _ => Vec::new(),
        };
        let mut written = Vec::with_capacity(self.finished.len());
        for upload in std::mem::take(&mut self.finished) {
            written.push(upload.location().path.clone());
            upload.commit().await?;
        }
        if let OutputTarget::Folder(folder) = &self.target {
            for old in replaced.into_iter().filter(|old| !written.contains(&old.location)) {
                folder.at(old.location).delete().await?;
            }
        }
        Ok((self.bytes, self.rows))
    }

    async fn open_file(&mut self) -> Result<OpenFile, RunError> {
        if let Some(file) = self.current.take() {
            return Ok(file);
        }
        let sink = match &self.target {
            OutputTarget::Stdout(_) => Sink::Stdout(tokio::io::stdout()),
            OutputTarget::File(location, _) => {
                Sink::Upload(Box::new(self.storage.upload(location, self.overwrite).await?))
            }
            OutputTarget::Folder(folder) => {
                let location = folder.child(&format!("part-{:05}.parquet", self.finished.len()));
                Sink::Upload(Box::new(self.storage.upload(&location, self.overwrite).await?))
            }
        };
        let (writer, head) = FileEncoder::new(self.target.format(), &self.plan_schema, &self.options)?;
        let mut file = OpenFile { writer, sink, sent: 0 };
        file.send(head, &mut self.bytes).await?;
        Ok(file)
    }

    async fn close_file(&mut self) -> Result<(), RunError> {
        let Some(OpenFile { writer, mut sink, .. }) = self.current.take() else { return Ok(()) };
        let tail = writer.finish()?;
        self.bytes += tail.len() as u64;
        sink.send(tail).await?;
        match sink {
            Sink::Upload(upload) => self.finished.push(*upload),
            Sink::Stdout(mut stdout) => stdout.flush().await.map_err(stdout_error)?,
        }
        Ok(())
    }
}

struct OpenFile {
    writer: FileEncoder,
    sink: Sink,
    sent: u64,
}

impl OpenFile {
    fn size(&self) -> u64 {
        self.sent
    }

    async fn send(&mut self, bytes: Bytes, total: &mut u64) -> Result<(), RunError> {
        self.sent += bytes.len() as u64;
        *total += bytes.len() as u64;
        self.sink.send(bytes).await
    }
}

enum Sink {
    Stdout(tokio::io::Stdout),
    Upload(Box<Upload>),
}

impl Sink {
    async fn send(&mut self, bytes: Bytes) -> Result<(), RunError> {
        if bytes.is_empty() {
            return Ok(());
        }
        match self {
            Sink::Upload(upload) => Ok(upload.write(bytes).await?),
            Sink::Stdout(stdout) => {
                stdout.write_all(&bytes).await.map_err(stdout_error)?;
                stdout.flush().await.map_err(stdout_error)
            }
        }
    }
}

fn stdout_error(error: io::Error) -> RunError {
    match error.kind() {
        ErrorKind::BrokenPipe => RunError::BrokenPipe,
        _ => RunError::Stdout(error),
    }
}

/// Turns encoded rows into the bytes of one file, in order.
enum FileEncoder {
    Parquet(Box<ParquetFile<Buffer>>, Buffer),
    Text,
    Arrow(Box<ArrowFileWriter<Buffer>>, Buffer),
}

impl FileEncoder {
    /// A file's encoder, and the bytes that the file begins with.
    fn new(format: FileFormat, plan_schema: &SchemaRef, options: &RowGroupOptions) -> Result<(Self, Bytes), RunError> {
        let schema = written_schema(format, plan_schema);
        let failed = |source| RunError::Encode { format: format.name(), source };
        let buffer = Buffer::default();
        Ok(match format {
            FileFormat::Parquet => {
                let file = ParquetFile::try_new(buffer.clone(), plan_schema, options)?;
                (FileEncoder::Parquet(Box::new(file), buffer.clone()), buffer.take())
            }
            FileFormat::Csv => {
                let empty = RecordBatch::new_empty(Arc::new(schema));
                CsvWriterBuilder::new().with_header(true).build(buffer.clone()).write(&empty).map_err(failed)?;
                (FileEncoder::Text, buffer.take())
            }
            FileFormat::Ndjson => (FileEncoder::Text, Bytes::new()),
            FileFormat::Arrow => {
                let options =
                    IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD)).map_err(failed)?;
                let writer = ArrowFileWriter::try_new_with_options(buffer.clone(), &schema, options).map_err(failed)?;
                (FileEncoder::Arrow(Box::new(writer), buffer.clone()), buffer.take())
            }
        })
    }

    fn append(&mut self, encoded: Encoded) -> Result<Bytes, RunError> {
        match (self, encoded) {
            (FileEncoder::Parquet(file, buffer), Encoded::RowGroup(row_group)) => {
                file.append(row_group)?;
                Ok(buffer.take())
            }
            (FileEncoder::Text, Encoded::Text(text, _)) => Ok(text),
            (FileEncoder::Arrow(writer, buffer), Encoded::Batch(batch)) => {
                writer.write(&batch).map_err(arrow_failed)?;
                Ok(buffer.take())
            }
            _ => unreachable!("parts and files are encoded in one format"),
        }
    }

    fn finish(self) -> Result<Bytes, RunError> {
        match self {
            FileEncoder::Parquet(file, buffer) => {
                file.finish()?;
                Ok(buffer.take())
            }
            FileEncoder::Text => Ok(Bytes::new()),
            FileEncoder::Arrow(mut writer, buffer) => {
                writer.finish().map_err(arrow_failed)?;
                Ok(buffer.take())
            }
        }
    }
}

fn arrow_failed(source: arrow::error::ArrowError) -> RunError {
    RunError::Encode { format: FileFormat::Arrow.name(), source }
}

/// Bytes that a synchronous writer leaves and an asynchronous sink takes.
#[derive(Debug, Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
