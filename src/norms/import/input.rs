//! Reads the tables to import, CSV or Parquet, as a stream of checked rows.

use std::io::{BufReader, Read};
use std::sync::{Arc, Mutex};

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use bytes::{Buf, Bytes};
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;

use crate::model::norm::{FREQUENCY, NORM_GROUP, NORM_VERSION, PERCENTILE, RAW_SCORE, SCALE};
use crate::norms::error::NormError;
use crate::norms::import::ImportOptions;
use crate::norms::import::fault::{FaultCause, FaultLog};
use crate::norms::import::parse::{RowParser, RowText, SORT_SCHEMA};
use crate::storage::{Location, ObjectReader, StorageError};

/// The columns of a table to import, and whether it must have them.
const COLUMNS: [(&str, bool); 6] = [
    (NORM_GROUP, true),
    (NORM_VERSION, false),
    (SCALE, true),
    (RAW_SCORE, true),
    (PERCENTILE, true),
    (FREQUENCY, false),
];

/// How a table to import is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    Parquet,
}

/// A table to import.
#[derive(Debug)]
pub(crate) struct ImportInput {
    at: Location,
    format: Format,
    /// What messages call the table.
    pub(crate) location: String,
}

impl ImportInput {
    /// A table, CSV or Parquet by the end of its name.
    pub(crate) fn new(at: Location) -> Result<Self, NormError> {
        let location = at.to_string();
        let format = match at.path.extension() {
            Some("csv") => Format::Csv,
            Some("parquet") => Format::Parquet,
            _ => return Err(NormError::NotATable { location }),
        };
        Ok(ImportInput { at, format, location })
    }
}

/// All tables to import as one stream of rows in the order of files and lines; memory for a few batches.
#[derive(Debug)]
pub(crate) struct InputRows {
    pub(crate) inputs: Arc<[ImportInput]>,
    pub(crate) options: Arc<ImportOptions>,
    pub(crate) faults: Arc<Mutex<FaultLog>>,
}

impl PartitionStream for InputRows {
    fn schema(&self) -> &SchemaRef {
        &SORT_SCHEMA
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut builder = RecordBatchReceiverStreamBuilder::new(Arc::clone(&SORT_SCHEMA), 2);
        let (rows, inputs) = (builder.tx(), Arc::clone(&self.inputs));
        let (options, faults) = (Arc::clone(&self.options), Arc::clone(&self.faults));
        builder.spawn(async move {
            for (number, input) in inputs.iter().enumerate() {
                let parser = RowParser::new(Arc::clone(&options), Arc::clone(&faults), number, input.location.clone());
                let read = match input.format {
                    Format::Csv => read_csv(input, parser, rows.clone()).await,
                    Format::Parquet => read_parquet(input, parser, &rows).await,
                };
                read.map_err(|error| DataFusionError::External(Box::new(error)))?;
            }
            Ok(())
        });
        builder.build()
    }
}

/// Decodes CSV on a blocking thread, which pulls the bytes from the store as it goes.
async fn read_csv(
    input: &ImportInput,
    parser: RowParser,
    rows: Sender<PlanResult<RecordBatch>>,
) -> Result<(), NormError> {
    let chunks = input.at.stream(None).await?;
    let bytes = ObjectBytes { chunks, current: Bytes::new(), runtime: Handle::current() };
    let parse = tokio::task::spawn_blocking(move || parse_csv(BufReader::new(bytes), parser, &rows));
    let failed = |source| NormError::Io { action: "read", location: input.location.clone(), source };
    let error = match parse.await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(panic) => return Err(failed(std::io::Error::other(panic))),
    };
    // Rows of any length and content are taken as they are, so what fails is the reading.
    match error.into_kind() {
        csv::ErrorKind::Io(error) => match error.downcast::<StorageError>() {
            Ok(error) => Err(NormError::Storage(error)),
            Err(error) => Err(failed(error)),
        },
        other => Err(failed(std::io::Error::other(format!("{other:?}")))),
    }
}

fn parse_csv(
    bytes: impl Read,
    mut parser: RowParser,
    rows: &Sender<PlanResult<RecordBatch>>,
) -> Result<(), csv::Error> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let mut record = csv::ByteRecord::new();
    if !reader.read_byte_record(&mut record)? {
        parser.fault(1, FaultCause::MissingColumn { column: NORM_GROUP });
        return Ok(());
    }
    let names: Vec<String> = record
        .iter()
        .map(|name| String::from_utf8_lossy(name).trim_start_matches('\u{feff}').trim().to_owned())
        .collect();
    let places = COLUMNS.map(|(column, _)| names.iter().position(|name| name == column));
    if !has_all_columns(&parser, places.map(|place| place.is_some())) {
        return Ok(());
    }
    while reader.read_byte_record(&mut record)? {
        let line = record.position().map_or(0, csv::Position::line);
        if record.len() != names.len() {
            parser.fault(line, FaultCause::FieldCount { found: record.len(), expected: names.len() });
            continue;
        }
        let mut fields = [""; COLUMNS.len()];
        let mut is_text = true;
        for (field, place) in fields.iter_mut().zip(places) {
            match std::str::from_utf8(place.map_or(&b""[..], |place| &record[place])) {
                Ok(text) => *field = text,
                Err(_) => is_text = false,
            }
        }
        if !is_text {
            parser.fault(line, FaultCause::NotUtf8);
            continue;
        }
        if let Some(batch) = parser.push(line, row(fields)).map_err(std::io::Error::other)?
            && rows.blocking_send(Ok(batch)).is_err()
        {
            return Ok(());
        }
    }
    if let Some(batch) = parser.finish().map_err(std::io::Error::other)? {
        // A receiver that is gone does not want the rows.
        let _ = rows.blocking_send(Ok(batch));
    }
    Ok(())
}

/// Reads Parquet as text too, so that both formats are held to the same rules.
async fn read_parquet(
    input: &ImportInput,
    mut parser: RowParser,
    rows: &Sender<PlanResult<RecordBatch>>,
) -> Result<(), NormError> {
    let parquet = NormError::parquet(&input.location);
    let arrow =
        |error: arrow::error::ArrowError| NormError::Parquet { location: input.location.clone(), source: error.into() };
    let size = input.at.head().await?.size;
    let reader = ObjectReader { store: Arc::clone(&input.at.store), path: input.at.path.clone(), size };
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(&parquet)?;
    let names = COLUMNS.map(|(column, _)| builder.schema().column_with_name(column).map(|_| column));
    if !has_all_columns(&parser, names.map(|name| name.is_some())) {
        return Ok(());
    }
    let projection = ProjectionMask::columns(builder.parquet_schema(), names.into_iter().flatten());
    let mut batches = builder.with_projection(projection).build().map_err(&parquet)?;
    let mut line = 0;
    while let Some(batch) = batches.try_next().await.map_err(&parquet)? {
        let mut columns: [Option<StringArray>; COLUMNS.len()] = Default::default();
        for (column, (name, _)) in columns.iter_mut().zip(COLUMNS) {
            if let Some(array) = batch.column_by_name(name) {
                *column = Some(cast(array, &DataType::Utf8).map_err(arrow)?.as_string::<i32>().clone());
            }
        }
        for index in 0..batch.num_rows() {
            line += 1;
            let fields = columns.each_ref().map(|column| match column {
                Some(column) if column.is_valid(index) => column.value(index),
                _ => "",
            });
            if let Some(batch) = parser.push(line, row(fields)).map_err(arrow)?
                && rows.send(Ok(batch)).await.is_err()
            {
                return Ok(());
            }
        }
    }
    if let Some(batch) = parser.finish().map_err(arrow)? {
        // A receiver that is gone does not want the rows.
        let _ = rows.send(Ok(batch)).await;
    }
    Ok(())
}

fn has_all_columns(parser: &RowParser, present: [bool; COLUMNS.len()]) -> bool {
    let missing = COLUMNS.into_iter().zip(present).filter(|((_, needed), present)| *needed && !present);
    let mut complete = true;
    for ((column, _), _) in missing {
        parser.fault(1, FaultCause::MissingColumn { column });
        complete = false;
    }
    complete
}

fn row(fields: [&str; COLUMNS.len()]) -> RowText<'_> {
    let [group, version, scale, raw, percentile, frequency] = fields;
    RowText { group, version, scale, raw, percentile, frequency }
}

/// The bytes of an object, for a reader on a blocking thread.
struct ObjectBytes {
    chunks: BoxStream<'static, Result<Bytes, StorageError>>,
    current: Bytes,
    runtime: Handle,
}

impl Read for ObjectBytes {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.runtime.block_on(self.chunks.try_next()).map_err(std::io::Error::other)? {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
