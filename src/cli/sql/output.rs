//! Rows on their way out: encoded batch by batch, to standard output or to a file that is whole or not there.

use std::io::{ErrorKind, Write};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::csv::{Writer as CsvWriter, WriterBuilder as CsvWriterBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter as ArrowWriter, IpcWriteOptions};
use arrow::json::writer::{JsonArray, LineDelimited};
use arrow::json::{Writer as JsonWriter, WriterBuilder as JsonWriterBuilder};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use clap::ValueEnum;
use parquet::arrow::ArrowWriter as ParquetWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tokio::io::AsyncWriteExt as _;

use crate::cli::sql::table::render;
use crate::engine::STDIN;
use crate::error::Error;
use crate::model::result::documented_type;
use crate::run::{RunError, list_text};
use crate::storage::{Storage, Upload};

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A table of text for reading; long ones are cut short, with a note.
    Table,
    /// Comma-separated values with a header; lists are joined by ;.
    Csv,
    /// The same with tabs.
    Tsv,
    /// One JSON array of objects.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// An Arrow IPC file.
    Arrow,
    /// A Parquet file.
    Parquet,
}

impl Format {
    /// The format asked for, else the one that the output's name says, else a table.
    pub(super) fn of(given: Option<Format>, output: Option<&str>) -> Result<Format, Error> {
        let output = output.filter(|output| *output != STDIN);
        match (given, output) {
            (Some(format), _) => Ok(format),
            (None, None) => Ok(Format::Table),
            (None, Some(output)) => {
                let extension = output.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
                Ok(match extension.as_deref() {
                    Some("csv") => Format::Csv,
                    Some("tsv" | "tab") => Format::Tsv,
                    Some("json") => Format::Json,
                    Some("ndjson" | "jsonl") => Format::Ndjson,
                    Some("arrow" | "ipc" | "feather") => Format::Arrow,
                    Some("parquet" | "pq") => Format::Parquet,
                    Some("txt") => Format::Table,
                    _ => {
                        return Err(Error::Usage(format!(
                            "cannot tell from the name of {output} how to write it: give --format"
                        )));
                    }
                })
            }
        }
    }
}

/// How much of a table is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableSize {
    /// Rows; what comes after them is only said to be there.
    pub(super) rows: usize,
    /// Characters in a line; `None` for no limit.
    pub(super) width: Option<usize>,
}

/// Where rows go.
pub(super) enum RowTarget {
    /// Standard output.
    Stdout(tokio::io::Stdout),
    /// A file of any store, visible when it is finished.
    File(Box<Upload>),
}

impl RowTarget {
    /// Standard output for `-` or nothing, else a file, which must not be there unless it may be replaced.
    pub(super) async fn open(storage: &Storage, output: Option<&str>, overwrite: bool) -> Result<RowTarget, Error> {
        match output {
            None | Some(STDIN) => Ok(RowTarget::stdout()),
            Some(output) => {
                let location = storage.open(output)?;
                if !overwrite && location.exists().await? {
                    return Err(Error::Usage(format!(
                        "{output} exists: give --overwrite to replace it, or another name"
                    )));
                }
                Ok(RowTarget::File(Box::new(storage.upload(&location, overwrite).await?)))
            }
        }
    }

    /// Standard output.
    pub(super) fn stdout() -> RowTarget {
        RowTarget::Stdout(tokio::io::stdout())
    }

    pub(super) fn is_stdout(&self) -> bool {
        matches!(self, RowTarget::Stdout(_))
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), Error> {
        match self {
            _ if bytes.is_empty() => Ok(()),
            RowTarget::File(upload) => Ok(upload.write(bytes).await?),
            RowTarget::Stdout(stdout) => {
                let written = async {
                    stdout.write_all(&bytes).await?;
                    stdout.flush().await
                };
                written.await.map_err(|source| match source.kind() {
                    ErrorKind::BrokenPipe => RunError::BrokenPipe.into(),
                    _ => Error::Write { what: "to standard output".to_owned(), source },
                })
            }
        }
    }
}

/// Writes the rows of one query. Memory: a batch of rows as they come and as they are written, a Parquet row group, or what of a
/// table is shown.
pub(super) struct RowOutput {
    target: RowTarget,
    encoder: Encoder,
    /// The types that are written.
    schema: SchemaRef,
    format: Format,
}

enum Encoder {
    Table { rows: Vec<RecordBatch>, shown: usize, is_cut: bool, size: TableSize },
    Csv(Box<CsvWriter<Buffer>>, Buffer),
    Json(Box<JsonWriter<Buffer, JsonArray>>, Buffer),
    Ndjson(Box<JsonWriter<Buffer, LineDelimited>>, Buffer),
    Arrow(Box<ArrowWriter<Buffer>>, Buffer),
    Parquet(Box<ParquetWriter<Buffer>>, Buffer),
}

impl RowOutput {
    /// `size` is how much a table shows on standard output; a file has whole lines.
    pub(super) fn new(
        format: Format,
        target: RowTarget,
        schema: &SchemaRef,
        size: TableSize,
    ) -> Result<RowOutput, Error> {
        let schema = Arc::new(written_schema(format, schema));
        let buffer = Buffer::default();
        let json = || JsonWriterBuilder::new().with_explicit_nulls(true);
        let encoder = match format {
            Format::Table => {
                let size = if target.is_stdout() { size } else { TableSize { width: None, ..size } };
                Encoder::Table { rows: Vec::new(), shown: 0, is_cut: false, size }
            }
            Format::Csv | Format::Tsv => {
                let delimiter = if format == Format::Csv { b',' } else { b'\t' };
                let builder = CsvWriterBuilder::new().with_header(true).with_delimiter(delimiter);
                let mut writer = builder.build(buffer.clone());
                // The header, even if no rows follow.
                writer.write(&RecordBatch::new_empty(Arc::clone(&schema))).map_err(failed)?;
                Encoder::Csv(Box::new(writer), buffer)
            }
            Format::Json => Encoder::Json(Box::new(json().build(buffer.clone())), buffer),
            Format::Ndjson => Encoder::Ndjson(Box::new(json().build(buffer.clone())), buffer),
            Format::Arrow => {
                let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD));
                let options = options.map_err(failed)?;
                let writer = ArrowWriter::try_new_with_options(buffer.clone(), &schema, options).map_err(failed)?;
                Encoder::Arrow(Box::new(writer), buffer)
            }
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
                    .build();
                let writer = ParquetWriter::try_new(buffer.clone(), Arc::clone(&schema), Some(properties));
                Encoder::Parquet(Box::new(writer.map_err(|error| failed(error.into()))?), buffer)
            }
        };
        Ok(RowOutput { target, encoder, schema, format })
    }

    /// Whether what is written may stand on the same terminal as progress.
    pub(super) fn writes_to_terminal(&self) -> bool {
        use std::io::IsTerminal as _;
        self.target.is_stdout() && self.format != Format::Table && std::io::stdout().is_terminal()
    }

    /// Writes rows. `false` when no more are wanted: a table shows only so many.
    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<bool, Error> {
        let batch = written(batch, &self.schema).map_err(failed)?;
        let bytes = match &mut self.encoder {
            Encoder::Table { rows, shown, is_cut, size } => {
                let wanted = (size.rows - *shown).min(batch.num_rows());
                rows.push(batch.slice(0, wanted));
                *shown += wanted;
                *is_cut = wanted < batch.num_rows();
                return Ok(!*is_cut);
            }
            Encoder::Csv(writer, buffer) => writer.write(&batch).map(|()| buffer.take()),
            Encoder::Json(writer, buffer) => writer.write(&batch).map(|()| buffer.take()),
            Encoder::Ndjson(writer, buffer) => writer.write(&batch).map(|()| buffer.take()),
            Encoder::Arrow(writer, buffer) => writer.write(&batch).map(|()| buffer.take()),
            Encoder::Parquet(writer, buffer) => writer.write(&batch).map(|()| buffer.take()).map_err(ArrowError::from),
        };
        self.target.send(bytes.map_err(failed)?).await?;
        Ok(true)
    }

    /// Writes the end, and makes a file visible.
    pub(super) async fn finish(self) -> Result<(), Error> {
        let RowOutput { mut target, encoder, schema, .. } = self;
        let bytes = match encoder {
            Encoder::Table { rows, is_cut, size, .. } => Ok(render(&schema, &rows, is_cut, size.width).into()),
            Encoder::Csv(writer, buffer) => {
                drop(writer);
                Ok(buffer.take())
            }
            Encoder::Json(mut writer, buffer) => writer.finish().map(|()| {
                let mut end = buffer.take().to_vec();
                end.push(b'\n');
                end.into()
            }),
            Encoder::Ndjson(mut writer, buffer) => writer.finish().map(|()| buffer.take()),
            Encoder::Arrow(mut writer, buffer) => writer.finish().map(|()| buffer.take()),
            Encoder::Parquet(writer, buffer) => writer.close().map(|_| buffer.take()).map_err(ArrowError::from),
        };
        target.send(bytes.map_err(failed)?).await?;
        if let RowTarget::File(upload) = target {
            upload.commit().await?;
        }
        Ok(())
    }
}

/// Rows of a Parquet row group.
const ROW_GROUP_ROWS: usize = 131_072;

fn failed(error: ArrowError) -> Error {
    Error::Write { what: "rows".to_owned(), source: std::io::Error::other(error) }
}

/// Dictionaries are written as their values; in comma-separated values what is not flat is text.
fn written_schema(format: Format, schema: &Schema) -> Schema {
    let is_flat = matches!(format, Format::Csv | Format::Tsv);
    let field = |field: &Arc<Field>| {
        let documented = documented_type(field.data_type());
        let written = if is_flat && documented.is_nested() { DataType::Utf8 } else { documented };
        field.as_ref().clone().with_data_type(written)
    };
    Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>())
}

fn written(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let column = |(column, field): (&ArrayRef, &Arc<Field>)| match (column.data_type(), field.data_type()) {
        (found, wanted) if found == wanted => Ok(Arc::clone(column)),
        (DataType::List(item), DataType::Utf8) if !documented_type(item.data_type()).is_nested() => list_text(column),
        (found, DataType::Utf8) if found.is_nested() => text_of(column),
        (_, wanted) => cast(column, wanted),
    };
    let columns = batch.columns().iter().zip(schema.fields()).map(column).collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns)
}

/// Nested values as text.
fn text_of(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options)?;
    let text = |row: usize| column.is_valid(row).then(|| formatter.value(row).try_to_string()).transpose();
    let texts = (0..column.len()).map(text).collect::<Result<StringArray, _>>()?;
    Ok(Arc::new(texts))
}

/// Bytes that a synchronous writer leaves and an asynchronous target takes.
#[derive(Debug, Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
