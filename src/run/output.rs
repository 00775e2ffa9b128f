//! Where results go: a table, a file or standard output; and how the latter two are written. A file becomes visible at the
//! commit, whole.

use std::io::{self, ErrorKind, Write};
use std::iter;
use std::str::FromStr;
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
use crate::table::TableFormat;

/// A format of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultFormat {
    /// A file format; for a folder Parquet alone.
    File(FileFormat),
    /// A Delta table.
    Delta,
}

impl FromStr for ResultFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "delta" => Ok(ResultFormat::Delta),
            other => match other.parse() {
                Ok(format) => Ok(ResultFormat::File(format)),
                Err(_) => Err(format!("'{other}' is not a format: delta, parquet, csv, ndjson or arrow")),
            },
        }
    }
}

/// A target, understood: what `--to` and `--format` say together.
#[derive(Debug, Clone)]
pub enum Target {
    /// Something that is written in one go.
    Output(OutputTarget),
    /// The folder of a table, and its format if one was given.
    Table(Location, Option<TableFormat>),
}

impl Target {
    /// Understands a target.
    ///
    /// `-` is standard output, as NDJSON unless a format is given. A name that ends in `/`, an existing local folder, a
    /// name without an extension and no format but Parquet that is no local file, and anything that is to be Delta, is the folder
    /// of a table. Anything else is a file, whose format the extension says unless one is given.
    pub fn new(storage: &Storage, target: &str, format: Option<ResultFormat>) -> Result<Self, RunError> {
        let file_format = match format {
            Some(ResultFormat::Delta) if target == STDIN => return Err(RunError::DeltaToStdout),
            Some(ResultFormat::Delta) => return Ok(Target::Table(storage.open(target)?, Some(TableFormat::Delta))),
            Some(ResultFormat::File(format)) => Some(format),
            None => None,
        };
        if target == STDIN {
            return Ok(Target::Output(OutputTarget::Stdout(file_format.unwrap_or(FileFormat::Ndjson))));
        }
        let location = storage.open(target)?;
        let named = format_of_name(target).filter(|(_, compression)| *compression == Compression::None);
        let has_extension = location.path.extension().is_some();
        let is_folder = location.is_folder()
            || match location.file_path().and_then(|path| path.metadata().ok()) {
                Some(there) => there.is_dir(),
                None => !has_extension && matches!(file_format, None | Some(FileFormat::Parquet)),
            };
        match (is_folder, file_format, named) {
            (true, None, _) => Ok(Target::Table(location, None)),
            (true, Some(FileFormat::Parquet), _) => Ok(Target::Table(location, Some(TableFormat::Parquet))),
            (true, Some(format), _) => Err(RunError::FolderFormat { target: target.to_owned(), format: format.name() }),
            (false, Some(format), _) | (false, None, Some((format, _))) => {
                Ok(Target::Output(OutputTarget::File(location, format)))
            }
            (false, None, None) => Err(RunError::UnknownTargetFormat { target: target.to_owned() }),
        }
    }
}

/// What is written in one go.
#[derive(Debug, Clone)]
pub enum OutputTarget {
    /// Standard output.
    Stdout(FileFormat),
    /// One file.
    File(Location, FileFormat),
}

impl OutputTarget {
    /// The format that is written.
    pub fn format(&self) -> FileFormat {
        match self {
            OutputTarget::Stdout(format) | OutputTarget::File(_, format) => *format,
        }
    }

    /// Fails when the target exists and may not be replaced, before any work is done.
    pub async fn check(&self, overwrite: bool) -> Result<(), RunError> {
        match self {
            OutputTarget::File(location, _) if !overwrite && location.exists().await? => {
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
        Output { storage, target, overwrite, plan_schema, options, current: None, bytes: 0, rows: 0 }
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
        self.current = Some(file);
        Ok(())
    }

    /// Makes everything visible. A result without rows is a file without rows.
    pub async fn commit(mut self) -> Result<(u64, u64), RunError> {
        let OpenFile { writer, mut sink } = self.open_file().await?;
        for bytes in writer.finish()? {
            let bytes = bytes?;
            self.bytes += bytes.len() as u64;
            sink.send(bytes).await?;
        }
        match sink {
            Sink::Upload(upload) => drop(upload.commit().await?),
            Sink::Stdout(mut stdout) => stdout.flush().await.map_err(stdout_error)?,
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
        };
        let (writer, head) = FileEncoder::new(self.target.format(), &self.plan_schema, &self.options)?;
        let mut file = OpenFile { writer, sink };
        file.send(head, &mut self.bytes).await?;
        Ok(file)
    }
}

struct OpenFile {
    writer: FileEncoder,
    sink: Sink,
}

impl OpenFile {
    async fn send(&mut self, blocks: Vec<Bytes>, total: &mut u64) -> Result<(), RunError> {
        for bytes in blocks {
            *total += bytes.len() as u64;
            self.sink.send(bytes).await?;
        }
        Ok(())
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
    fn new(
        format: FileFormat,
        plan_schema: &SchemaRef,
        options: &RowGroupOptions,
    ) -> Result<(Self, Vec<Bytes>), RunError> {
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
            FileFormat::Ndjson => (FileEncoder::Text, Vec::new()),
            FileFormat::Arrow => {
                let options =
                    IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD)).map_err(failed)?;
                let writer = ArrowFileWriter::try_new_with_options(buffer.clone(), &schema, options).map_err(failed)?;
                (FileEncoder::Arrow(Box::new(writer), buffer.clone()), buffer.take())
            }
        })
    }

    fn append(&mut self, encoded: Encoded) -> Result<Vec<Bytes>, RunError> {
        match (self, encoded) {
            (FileEncoder::Parquet(file, buffer), Encoded::RowGroup(row_group)) => {
                file.append(row_group)?;
                Ok(buffer.take())
            }
            (FileEncoder::Text, Encoded::Text(text, _)) => Ok(vec![text]),
            (FileEncoder::Arrow(writer, buffer), Encoded::Batch(batch)) => {
                writer.write(&batch).map_err(arrow_failed)?;
                Ok(buffer.take())
            }
            _ => unreachable!("parts and files are encoded in one format"),
        }
    }

    /// The end of the file, piece by piece.
    fn finish(self) -> Result<Box<dyn Iterator<Item = Result<Bytes, RunError>> + Send>, RunError> {
        match self {
            FileEncoder::Parquet(file, buffer) => {
                let end = file.end()?.map(|piece| Ok(Bytes::from(piece?)));
                Ok(Box::new(buffer.take().into_iter().map(Ok).chain(end)))
            }
            FileEncoder::Text => Ok(Box::new(iter::empty())),
            FileEncoder::Arrow(mut writer, buffer) => {
                writer.finish().map_err(arrow_failed)?;
                Ok(Box::new(buffer.take().into_iter().map(Ok)))
            }
        }
    }
}

fn arrow_failed(source: arrow::error::ArrowError) -> RunError {
    RunError::Encode { format: FileFormat::Arrow.name(), source }
}

/// The size of a block: of one size all, so that one that is given back has room for the next.
const BLOCK: usize = 1 << 20;

/// Bytes that a synchronous writer leaves and an asynchronous sink takes, in blocks.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffer(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffer {
    pub(super) fn take(&self) -> Vec<Bytes> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
            .into_iter()
            .map(Bytes::from)
            .collect()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut block = blocks.pop_if(|block| block.len() < BLOCK).unwrap_or_else(|| Vec::with_capacity(BLOCK));
        let length = bytes.len().min(BLOCK - block.len());
        block.extend_from_slice(&bytes[..length]);
        blocks.push(block);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
