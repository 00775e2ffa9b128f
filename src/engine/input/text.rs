//! Text: CSV and NDJSON, decompressed and decoded as it comes, from a store or from standard input.
//!
//! DataFusion's own sources of these are not used. In NDJSON they end the run at the first value that is not of the type that the
//! first lines show, and cut fractions off in a column that began with integers; to see the schema they hold a file of another
//! machine whole; of one in Zstandard that has many frames they read the first.

use std::io::{self, Cursor};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::csv::reader::Format as CsvSchema;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::reader::infer_json_schema;
use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::projection::{ProjectionOpener, SplitProjection};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_datasource::boundary_stream::AlignedBoundaryStream;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::{GetOptions, GetResult, GetResultPayload, ObjectMeta, ObjectStore};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio_util::io::StreamReader;

use crate::engine::input::format::{Compression, FileFormat};

/// Bytes of text as they come.
pub(super) type TextReader = Box<dyn AsyncBufRead + Send + Unpin>;

/// How much text shows its schema: so many bytes or records, whichever come first.
const HEAD_BYTES: usize = 1 << 20;
const HEAD_RECORDS: usize = 1_000;

/// How much of a local file is read at once.
const READ: usize = 256 << 10;

/// What `reader` holds, decompressed. Compressed files put one after the other are one file.
pub(super) fn decompressed(reader: TextReader, compression: Compression) -> TextReader {
    match compression {
        Compression::None => reader,
        Compression::Gzip => {
            let mut decoder = GzipDecoder::new(reader);
            decoder.multiple_members(true);
            Box::new(BufReader::with_capacity(READ, decoder))
        }
        Compression::Zstd => {
            let mut decoder = ZstdDecoder::new(reader);
            decoder.multiple_members(true);
            Box::new(BufReader::with_capacity(READ, decoder))
        }
    }
}

/// Passes over the byte order mark that some programs begin text with.
async fn skip_mark(reader: &mut TextReader) -> io::Result<()> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    if reader.fill_buf().await?.starts_with(MARK) {
        reader.consume(MARK.len());
    }
    Ok(())
}

/// The first text of a reader.
pub(super) struct Head {
    pub(super) bytes: Vec<u8>,
    /// Whether there is no more.
    ended: bool,
}

impl Head {
    /// Reads as much as shows a schema; of a reader that pauses so long after two lines, those that came before.
    pub(super) async fn read(reader: &mut TextReader, pause: Option<Duration>) -> io::Result<Head> {
        skip_mark(reader).await?;
        let (mut bytes, mut lines) = (Vec::new(), 0);
        while bytes.len() < HEAD_BYTES && lines <= HEAD_RECORDS {
            let Some(chunk) = next_chunk(reader, pause.filter(|_| lines >= 2)).await? else { break };
            if chunk.is_empty() {
                return Ok(Head { bytes, ended: true });
            }
            lines += chunk.iter().filter(|byte| **byte == b'\n').count();
            bytes.extend_from_slice(chunk);
            let read = chunk.len();
            reader.consume(read);
        }
        Ok(Head { bytes, ended: false })
    }

    /// What was read, and then the rest of the reader.
    pub(super) fn then(self, rest: TextReader) -> TextReader {
        Box::new(BufReader::with_capacity(READ, AsyncReadExt::chain(Cursor::new(self.bytes), rest)))
    }

    /// The schema that the first records show.
    pub(super) fn schema(&self, format: FileFormat) -> Result<SchemaRef, ArrowError> {
        let lines = if self.ended { &self.bytes } else { whole_lines(&self.bytes, format) };
        let schema = match format {
            FileFormat::Csv => {
                CsvSchema::default().with_header(true).infer_schema(Cursor::new(lines), Some(HEAD_RECORDS))?.0
            }
            _ => infer_json_schema(Cursor::new(lines), Some(HEAD_RECORDS))?.0,
        };
        Ok(Arc::new(schema))
    }
}

/// `text` without what is cut off at its end. In CSV a line break within quotes ends no line.
fn whole_lines(text: &[u8], format: FileFormat) -> &[u8] {
    let (mut end, mut is_quoted) = (None, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'"' if format == FileFormat::Csv => is_quoted = !is_quoted,
            b'\n' if !is_quoted => end = Some(at + 1),
            _ => {}
        }
    }
    &text[..end.unwrap_or(text.len())]
}

/// The next bytes, none at the end; `None` if there are none for as long as `pause`.
async fn next_chunk(reader: &mut TextReader, pause: Option<Duration>) -> io::Result<Option<&[u8]>> {
    match pause {
        None => reader.fill_buf().await.map(Some),
        Some(pause) => match tokio::time::timeout(pause, reader.fill_buf()).await {
            Ok(chunk) => chunk.map(Some),
            Err(_) => Ok(None),
        },
    }
}

/// The schema that the first records of a file of a store show.
pub(super) async fn read_schema(
    store: &Arc<dyn ObjectStore>,
    file: &ObjectMeta,
    format: FileFormat,
    compression: Compression,
) -> Result<SchemaRef> {
    let whole = store.get_opts(&file.location, GetOptions::default()).await?;
    let mut reader = decompressed(reader_of(whole), compression);
    Ok(Head::read(&mut reader, None).await.map_err(failed)?.schema(format)?)
}

/// The bytes of a file.
fn reader_of(file: GetResult) -> TextReader {
    match file.payload {
        GetResultPayload::File(file, _) => Box::new(BufReader::with_capacity(READ, tokio::fs::File::from_std(file))),
        GetResultPayload::Stream(bytes) => Box::new(StreamReader::new(bytes.map_err(io::Error::from))),
    }
}

/// What a reader met: an error of the store, or of what it read.
fn failed(error: io::Error) -> DataFusionError {
    match error.downcast::<object_store::Error>() {
        Ok(of_store) => of_store.into(),
        Err(of_content) => ArrowError::from(of_content).into(),
    }
}

/// Decodes text in batches of at most a number of rows.
pub(super) struct TextDecoder {
    /// Of the batches.
    schema: SchemaRef,
    lines: Lines,
}

enum Lines {
    Csv(Box<arrow::csv::reader::Decoder>),
    Json(arrow::json::reader::Decoder),
}

impl TextDecoder {
    /// A decoder of text that has the columns of `file` and is to give those of `projection`. CSV begins with a header or goes on
    /// after it.
    pub(super) fn new(
        format: FileFormat,
        file: &SchemaRef,
        projection: &[usize],
        batch_size: usize,
        has_header: bool,
    ) -> Result<TextDecoder> {
        let schema = Arc::new(file.project(projection)?);
        let lines = match format {
            FileFormat::Csv => {
                let builder = arrow::csv::ReaderBuilder::new(Arc::clone(file)).with_projection(projection.to_vec());
                let builder = builder.with_header(has_header).with_batch_size(batch_size);
                Lines::Csv(Box::new(builder.build_decoder()))
            }
            _ => {
                let builder = arrow::json::ReaderBuilder::new(as_written(&schema));
                // Numbers and booleans are taken where text is wanted.
                let builder = builder.with_coerce_primitive(true).with_batch_size(batch_size);
                Lines::Json(builder.build_decoder()?)
            }
        };
        Ok(TextDecoder { schema, lines })
    }

    /// The next rows: a full batch, or what came before the reader ended or, once whole rows are there, paused so long; `None` after
    /// its end.
    pub(super) async fn next_batch(
        &mut self,
        reader: &mut TextReader,
        pause: Option<Duration>,
    ) -> Result<Option<RecordBatch>> {
        loop {
            let pause = pause.filter(|_| self.has_whole_rows());
            let Some(chunk) = next_chunk(reader, pause).await.map_err(failed)? else { return self.flush() };
            let ended = chunk.is_empty();
            let decoded = match &mut self.lines {
                Lines::Csv(decoder) => decoder.decode(chunk)?,
                Lines::Json(decoder) => decoder.decode(chunk)?,
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
        match &self.lines {
            Lines::Csv(_) => false,
            Lines::Json(decoder) => !decoder.is_empty() && !decoder.has_partial_record(),
        }
    }

    fn flush(&mut self) -> Result<Option<RecordBatch>> {
        let batch = match &mut self.lines {
            Lines::Csv(decoder) => return Ok(decoder.flush()?),
            Lines::Json(decoder) => decoder.flush()?,
        };
        let Some(batch) = batch else { return Ok(None) };
        let columns = batch.columns().iter().zip(self.schema.fields()).map(|(column, field)| as_read(column, field));
        // A query that counts asks for no column.
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = columns.collect::<Result<_, _>>()?;
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &rows)?))
    }
}

/// The schema under which NDJSON is decoded: integers as they are written, since the decoder would cut fractions off.
fn as_written(schema: &Schema) -> SchemaRef {
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::Int64 => field.as_ref().clone().with_data_type(DataType::Utf8),
        _ => field.as_ref().clone(),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// A decoded column in the type that it is read as.
fn as_read(column: &ArrayRef, field: &Field) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == field.data_type() {
        return Ok(Arc::clone(column));
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, field.data_type(), &strict)
        .map_err(|error| ArrowError::JsonError(format!("column '{}' is read as integers: {error}", field.name())))
}

/// Reads text files, whole or the lines that begin in a range.
#[derive(Debug, Clone)]
pub(super) struct TextSource {
    format: FileFormat,
    compression: Compression,
    /// Whether a value may hold a line break, so that no file may be cut.
    newlines: bool,
    schema: TableSchema,
    projection: SplitProjection,
    batch_size: usize,
    metrics: ExecutionPlanMetricsSet,
}

impl TextSource {
    pub(super) fn new(format: FileFormat, compression: Compression, schema: &SchemaRef, newlines: bool) -> Self {
        let schema = TableSchema::from(Arc::clone(schema));
        TextSource {
            format,
            compression,
            newlines,
            projection: SplitProjection::unprojected(&schema),
            schema,
            batch_size: 1,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl FileSource for TextSource {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        _: &FileScanConfig,
        _: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let opener = Arc::new(TextOpener { source: self.clone(), store });
        ProjectionOpener::try_new(self.projection.clone(), opener, self.schema.file_schema())
    }

    fn table_schema(&self) -> &TableSchema {
        &self.schema
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Arc::new(TextSource { batch_size, ..self.clone() })
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        let merged = self.projection.source.try_merge(projection)?;
        let projection = SplitProjection::new(self.schema.file_schema(), &merged);
        Ok(Some(Arc::new(TextSource { projection, ..self.clone() })))
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        Some(&self.projection.source)
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        &self.metrics
    }

    fn file_type(&self) -> &str {
        self.format.name()
    }

    fn supports_repartitioning(&self) -> bool {
        self.compression == Compression::None && !self.newlines
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        datafusion::physical_plan::apply_expression_roots(self.projection.source.iter(), f)
    }
}

struct TextOpener {
    source: TextSource,
    store: Arc<dyn ObjectStore>,
}

impl FileOpener for TextOpener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let TextSource { format, compression, schema, projection, batch_size, .. } = &self.source;
        let range = file.range.as_ref().map(|range| (range.start.unsigned_abs(), range.end.unsigned_abs()));
        let is_beginning = range.is_none_or(|(start, _)| start == 0);
        let decoder =
            TextDecoder::new(*format, schema.file_schema(), &projection.file_indices, *batch_size, is_beginning)?;
        let (store, compression, ObjectMeta { location, size, .. }) =
            (Arc::clone(&self.store), *compression, file.object_meta);
        Ok(Box::pin(async move {
            let reader: TextReader = match range {
                None => reader_of(store.get_opts(&location, GetOptions::default()).await?),
                Some((start, end)) => {
                    let lines = AlignedBoundaryStream::new(store, location, start, end, size, b'\n').await?;
                    Box::new(StreamReader::new(lines.map_err(io::Error::from)))
                }
            };
            let mut reader = decompressed(reader, compression);
            if is_beginning {
                skip_mark(&mut reader).await.map_err(failed)?;
            }
            Ok(batches(reader, decoder))
        }))
    }
}

fn batches(reader: TextReader, decoder: TextDecoder) -> BoxStream<'static, Result<RecordBatch>> {
    let next = |(mut reader, mut decoder): (TextReader, TextDecoder)| async move {
        let batch = decoder.next_batch(&mut reader, None).await?;
        Ok(batch.map(|batch| (batch, (reader, decoder))))
    };
    stream::try_unfold((reader, decoder), next).boxed()
}
