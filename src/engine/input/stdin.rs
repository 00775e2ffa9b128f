//! Sessions from standard input: sniffed, decompressed and decoded as they come.
//!
//! CSV and NDJSON stream in constant memory. Parquet and Arrow files need their footer first, so they are spooled to a temporary
//! file and read from there.

use std::fmt;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use tempfile::NamedTempFile;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::engine::EngineError;
use crate::engine::input::format::{Compression, FileFormat};
use crate::engine::input::text::{Head, TextDecoder, TextReader, decompressed};

/// The input that names standard input.
pub const STDIN: &str = "-";

/// How long a stream may pause before what came is worked on.
const PAUSE: Duration = Duration::from_millis(50);

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
    reader: Mutex<Option<TextReader>>,
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

    async fn from_reader(mut reader: TextReader, format: Option<FileFormat>) -> Result<StdinInput, EngineError> {
        let magic = reader.fill_buf().await.map_err(EngineError::Stdin)?;
        let compression = match magic {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            _ => Compression::None,
        };
        reader = decompressed(reader, compression);
        let head = Head::read(&mut reader, Some(PAUSE)).await.map_err(EngineError::Stdin)?;
        let format = format.unwrap_or_else(|| sniff(&head.bytes));
        if !format.is_text() {
            let spooled = spool(head.then(reader)).await.map_err(EngineError::Stdin)?;
            return Ok(StdinInput::Spooled(spooled, format));
        }
        let schema = head.schema(format).map_err(|error| EngineError::Unreadable {
            file: STDIN.to_owned(),
            format: format.name(),
            reason: Box::new(error.into()),
        })?;
        Ok(StdinInput::Stream(StdinStream { format, schema, reader: Mutex::new(Some(head.then(reader))) }))
    }
}

fn sniff(head: &[u8]) -> FileFormat {
    match head {
        _ if head.starts_with(b"PAR1") => FileFormat::Parquet,
        _ if head.starts_with(b"ARROW1") => FileFormat::Arrow,
        _ if head.trim_ascii_start().starts_with(b"{") => FileFormat::Ndjson,
        _ => FileFormat::Csv,
    }
}

async fn spool(mut reader: TextReader) -> std::io::Result<NamedTempFile> {
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
            Some(reader) => {
                let (format, columns) = (self.stdin.format, self.schema.fields().len());
                let batch_size = context.session_config().batch_size().min(format.rows_at_once(columns));
                let all: Vec<usize> = (0..columns).collect();
                TextDecoder::new(format, &self.schema, &all, batch_size, true).map(|decoder| (reader, decoder))
            }
        };
        let batches = futures::stream::try_unfold(Some(state), |state| async move {
            let Some(state) = state else { return Ok(None) };
            let (mut reader, mut decoder) = state?;
            let batch = decoder.next_batch(&mut reader, Some(PAUSE)).await?;
            Ok(batch.map(|batch| (batch, Some(Ok((reader, decoder))))))
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}
