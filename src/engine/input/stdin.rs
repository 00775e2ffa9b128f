//! Sessions from standard input: sniffed, decompressed and decoded as they come.
//!
//! CSV and NDJSON stream in constant memory. Parquet and Arrow files need their footer first, so they are spooled to a temporary
//! file and read from there.

use std::fmt;
use std::io::{Cursor, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::csv::reader::Format as CsvSchema;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json::reader::infer_json_schema;
use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use tempfile::NamedTempFile;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::engine::EngineError;
use crate::engine::input::format::FileFormat;

/// The input that names standard input.
pub const STDIN: &str = "-";

/// How much of the stream shows its schema.
const HEAD: usize = 256 << 10;
/// How long a stream may pause before what came is worked on.
const PAUSE: Duration = Duration::from_millis(50);

type Reader = Box<dyn AsyncBufRead + Send + Unpin>;

/// What standard input turned out to be.
#[derive(Debug)]
pub enum StdinInput {
    /// Text, decoded as it comes.
    Stream(StdinStream),
    /// A binary file, spooled; it lives as long as this value.
    Spooled(NamedTempFile, FileFormat),
}

/// A stream of sessions that can be read once.
pub struct StdinStream {
    /// CSV or NDJSON.
    pub(super) format: FileFormat,
    /// The schema that its first rows show.
    pub(super) schema: SchemaRef,
    reader: Mutex<Option<Reader>>,
}

impl fmt::Debug for StdinStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdinStream").field("format", &self.format).finish_non_exhaustive()
    }
}

impl StdinInput {
    /// Looks at the first bytes of standard input. `format` overrides what they show.
    pub async fn open(format: Option<FileFormat>) -> Result<StdinInput, EngineError> {
        Self::from_reader(Box::new(BufReader::with_capacity(64 << 10, tokio::io::stdin())), format).await
    }

    async fn from_reader(mut reader: Reader, format: Option<FileFormat>) -> Result<StdinInput, EngineError> {
        let magic = reader.fill_buf().await.map_err(EngineError::Stdin)?;
        let gzip = magic.starts_with(&[0x1f, 0x8b]);
        let zstd = magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
        // Compressed files put one after the other are one: so are what they hold.
        if gzip {
            let mut decoder = GzipDecoder::new(reader);
            decoder.multiple_members(true);
            reader = Box::new(BufReader::new(decoder));
        } else if zstd {
            let mut decoder = ZstdDecoder::new(reader);
            decoder.multiple_members(true);
            reader = Box::new(BufReader::new(decoder));
        }
        let (head, ended) = read_head(&mut reader).await.map_err(EngineError::Stdin)?;
        let format = format.unwrap_or_else(|| sniff(&head));
        let reader: Reader = Box::new(BufReader::new(AsyncReadExt::chain(Cursor::new(head.clone()), reader)));
        if !format.is_text() {
            return Ok(StdinInput::Spooled(spool(reader).await.map_err(EngineError::Stdin)?, format));
        }
        let schema = infer_schema(format, if ended { &head } else { whole_lines(&head) }).map_err(|error| {
            EngineError::Unreadable { file: STDIN.to_owned(), format: format.name(), reason: Box::new(error.into()) }
        })?;
        Ok(StdinInput::Stream(StdinStream { format, schema, reader: Mutex::new(Some(reader)) }))
    }
}

/// The first bytes of the stream: as many as show a schema, or those that came before it paused or ended; and whether it ended.
async fn read_head(reader: &mut Reader) -> std::io::Result<(Vec<u8>, bool)> {
    let mut head = Vec::new();
    while head.len() < HEAD {
        let has_record = head.iter().filter(|&&byte| byte == b'\n').count() >= 2;
        let next = reader.fill_buf();
        let chunk = if has_record {
            match tokio::time::timeout(PAUSE, next).await {
                Ok(chunk) => chunk?,
                Err(_) => break,
            }
        } else {
            next.await?
        };
        if chunk.is_empty() {
            return Ok((head, true));
        }
        head.extend_from_slice(chunk);
        let read = chunk.len();
        reader.consume(read);
    }
    Ok((head, false))
}

/// `head` without the line that is cut off at its end.
fn whole_lines(head: &[u8]) -> &[u8] {
    head.iter().rposition(|&byte| byte == b'\n').map_or(head, |last| &head[..=last])
}

fn sniff(head: &[u8]) -> FileFormat {
    match head {
        _ if head.starts_with(b"PAR1") => FileFormat::Parquet,
        _ if head.starts_with(b"ARROW1") => FileFormat::Arrow,
        _ if head.trim_ascii_start().starts_with(b"{") => FileFormat::Ndjson,
        _ => FileFormat::Csv,
    }
}

async fn spool(mut reader: Reader) -> std::io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new()?;
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            file.flush()?;
            return Ok(file);
        }
        file.write_all(chunk)?;
        let read = chunk.len();
        reader.consume(read);
    }
}

/// The schema that lines show.
fn infer_schema(format: FileFormat, lines: &[u8]) -> Result<SchemaRef, ArrowError> {
    let schema = match format {
        FileFormat::Csv => CsvSchema::default().with_header(true).infer_schema(Cursor::new(lines), None)?.0,
        _ => infer_json_schema(Cursor::new(lines), None)?.0,
    };
    Ok(Arc::new(schema))
}

impl StdinStream {
    /// The plan that reads the stream, which can be executed once, as the columns of `projection` of `schema`.
    pub(super) fn scan(self: &Arc<Self>, schema: &SchemaRef, projection: &[usize]) -> Result<Arc<dyn ExecutionPlan>> {
        let partition = StdinPartition { stdin: Arc::clone(self), schema: Arc::clone(schema) };
        let projection = projection.to_vec();
        let exec = StreamingTableExec::try_new(
            Arc::clone(schema),
            vec![Arc::new(partition)],
            Some(&projection),
            [],
            false,
            None,
        )?;
        Ok(Arc::new(exec))
    }
}

#[derive(Debug)]
struct StdinPartition {
    stdin: Arc<StdinStream>,
    schema: SchemaRef,
}

impl PartitionStream for StdinPartition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let reader = self.stdin.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        let state = match reader {
            None => Err(DataFusionError::Execution("standard input can be read only once".to_owned())),
            Some(reader) => Decoder::new(self.stdin.format, &self.schema, context.session_config().batch_size())
                .map(|decoder| (reader, decoder)),
        };
        let batches = futures::stream::try_unfold(Some(state), |state| async move {
            let Some(state) = state else { return Ok(None) };
            let (mut reader, mut decoder) = state?;
            let batch = decoder.next_batch(&mut reader).await?;
            Ok(batch.map(|batch| (batch, Some(Ok((reader, decoder))))))
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

enum Decoder {
    Csv(Box<arrow::csv::reader::Decoder>),
    Json(arrow::json::reader::Decoder),
}

impl Decoder {
    fn new(format: FileFormat, schema: &SchemaRef, batch_size: usize) -> Result<Decoder> {
        let schema = Arc::clone(schema);
        let batch_size = batch_size.min(format.rows_at_once(schema.fields().len()));
        Ok(match format {
            FileFormat::Csv => {
                let builder = arrow::csv::ReaderBuilder::new(schema).with_header(true).with_batch_size(batch_size);
                Decoder::Csv(Box::new(builder.build_decoder()))
            }
            _ => Decoder::Json(arrow::json::ReaderBuilder::new(schema).with_batch_size(batch_size).build_decoder()?),
        })
    }

    /// The next rows: a full batch, or what came before the stream paused or ended; `None` after its end.
    async fn next_batch(&mut self, reader: &mut Reader) -> Result<Option<RecordBatch>> {
        loop {
            let chunk = match tokio::time::timeout(PAUSE, reader.fill_buf()).await {
                Ok(chunk) => chunk.map_err(DataFusionError::IoError)?,
                Err(_) if self.has_whole_rows() => return Ok(self.flush()?),
                Err(_) => reader.fill_buf().await.map_err(DataFusionError::IoError)?,
            };
            let ended = chunk.is_empty();
            let decoded = match self {
                Decoder::Csv(decoder) => decoder.decode(chunk)?,
                Decoder::Json(decoder) => decoder.decode(chunk)?,
            };
            let full = decoded < chunk.len();
            reader.consume(decoded);
            if full || ended {
                let batch = self.flush()?;
                if batch.is_some() || ended {
                    return Ok(batch);
                }
            }
        }
    }

    /// Whether rows are decoded and none is half decoded. A CSV decoder cannot tell, so it waits for a full batch.
    fn has_whole_rows(&self) -> bool {
        match self {
            Decoder::Csv(_) => false,
            Decoder::Json(decoder) => !decoder.is_empty() && !decoder.has_partial_record(),
        }
    }

    fn flush(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        match self {
            Decoder::Csv(decoder) => decoder.flush(),
            Decoder::Json(decoder) => decoder.flush(),
        }
    }
}
