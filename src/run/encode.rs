//! Encoding results, part by part, so that the encoding of many parts can go on at once.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringBuilder};
use arrow::compute::cast;
use arrow::csv::WriterBuilder as CsvWriterBuilder;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::WriterBuilder as JsonWriterBuilder;
use arrow::json::writer::LineDelimited;
use bytes::Bytes;

use crate::engine::FileFormat;
use crate::model::result::documented_schema;
use crate::operators::row_group::{EncodedRowGroup, RowGroupEncoder, RowGroupOptions};
use crate::run::RunError;

/// About how many bytes a line of text has.
const USUAL_LINE: usize = 1 << 10;

/// Encoded rows, ready to be appended to a file.
pub enum Encoded {
    /// A Parquet row group.
    RowGroup(EncodedRowGroup),
    /// Whole lines of text, and how many rows they are.
    Text(Bytes, usize),
    /// Rows of an Arrow file, in documented types. Such a file is written by one writer.
    Batch(RecordBatch),
}

impl Encoded {
    /// How many rows are encoded.
    pub fn rows(&self) -> usize {
        match self {
            Encoded::RowGroup(row_group) => row_group.rows(),
            Encoded::Text(_, rows) => *rows,
            Encoded::Batch(batch) => batch.num_rows(),
        }
    }
}

/// Encodes the rows of one part. What it gives depends on the rows alone, so files are equal however parts are run.
///
/// Memory: one row group (Parquet) or one batch (others).
pub struct PartEncoder {
    rows: RowEncoder,
    plan_schema: SchemaRef,
    options: RowGroupOptions,
    row_group: Option<RowGroupEncoder>,
}

impl PartEncoder {
    /// An encoder for batches of a plan's schema.
    pub fn new(format: FileFormat, plan_schema: &SchemaRef, options: &RowGroupOptions) -> Self {
        PartEncoder {
            rows: RowEncoder { format, schema: Arc::new(written_schema(format, plan_schema)) },
            plan_schema: Arc::clone(plan_schema),
            options: options.clone(),
            row_group: None,
        }
    }

    /// Where rows are encoded without those before them: what encodes them on any thread, and how many are best encoded at once.
    /// Lines of text a few at a time, so that the first ones are soon on their way. `None` for Parquet.
    pub fn rows(&self) -> Option<(RowEncoder, usize)> {
        match self.rows.format {
            FileFormat::Csv | FileFormat::Ndjson => Some((self.rows.clone(), 1_024)),
            FileFormat::Arrow => Some((self.rows.clone(), usize::MAX)),
            FileFormat::Parquet => None,
        }
    }

    /// Encodes a batch, and returns what is ready to be appended.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Option<Encoded>, RunError> {
        if self.rows.format != FileFormat::Parquet {
            return self.rows.encode(batch).map(Some);
        }
        let mut row_group = match self.row_group.take() {
            Some(row_group) => row_group,
            None => RowGroupEncoder::try_new(&self.plan_schema, &self.options)?,
        };
        row_group.write(batch)?;
        if row_group.rows() >= self.options.row_group_rows {
            return Ok(Some(Encoded::RowGroup(row_group.finish()?)));
        }
        self.row_group = Some(row_group);
        Ok(None)
    }

    /// Returns what is left.
    pub fn finish(&mut self) -> Result<Option<Encoded>, RunError> {
        match self.row_group.take() {
            Some(row_group) if row_group.rows() > 0 => Ok(Some(Encoded::RowGroup(row_group.finish()?))),
            _ => Ok(None),
        }
    }
}

/// Encodes rows in a format in which each stands for itself: all but Parquet.
#[derive(Debug, Clone)]
pub struct RowEncoder {
    format: FileFormat,
    schema: SchemaRef,
}

impl RowEncoder {
    /// Encodes the rows of a batch.
    pub fn encode(&self, batch: &RecordBatch) -> Result<Encoded, RunError> {
        let failed = |source| RunError::Encode { format: self.format.name(), source };
        let batch = self.documented(batch).map_err(failed)?;
        let mut text = Vec::with_capacity(batch.num_rows() * USUAL_LINE);
        match self.format {
            FileFormat::Csv => CsvWriterBuilder::new().with_header(false).build(&mut text).write(&batch),
            FileFormat::Ndjson => {
                let mut writer =
                    JsonWriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut text);
                writer.write(&batch).and_then(|()| writer.finish())
            }
            FileFormat::Arrow | FileFormat::Parquet => return Ok(Encoded::Batch(batch)),
        }
        .map_err(failed)?;
        Ok(Encoded::Text(text.into(), batch.num_rows()))
    }

    /// The batch in the types that are written.
    fn documented(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let column = |(column, field): (&ArrayRef, &Arc<Field>)| match (column.data_type(), field.data_type()) {
            (DataType::List(_), DataType::Utf8) => list_text(column),
            (found, wanted) if found == wanted => Ok(Arc::clone(column)),
            (_, wanted) => cast(column, wanted),
        };
        let columns = batch.columns().iter().zip(self.schema.fields()).map(column);
        RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<Result<Vec<_>, _>>()?)
    }
}

/// The schema that is written: documented types, and in CSV, which has no lists, strings for them.
pub(super) fn written_schema(format: FileFormat, plan_schema: &Schema) -> Schema {
    let schema = documented_schema(plan_schema);
    if format != FileFormat::Csv {
        return schema;
    }
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::List(_) => field.as_ref().clone().with_data_type(DataType::Utf8),
        _ => field.as_ref().clone(),
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// Lists of flat values as strings, joined by `;`: how they stand in CSV. A null list stays null, an empty one becomes an empty
/// string.
pub fn list_text(lists: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let lists = lists.as_list::<i32>();
    let values = cast(lists.values(), &DataType::Utf8)?;
    let values = values.as_string::<i32>();
    let mut text = StringBuilder::with_capacity(lists.len(), 16 * lists.len());
    for row in 0..lists.len() {
        if lists.is_null(row) {
            text.append_null();
            continue;
        }
        let (from, to) = (lists.value_offsets()[row] as usize, lists.value_offsets()[row + 1] as usize);
        for item in from..to {
            if item > from {
                text.write_str(";").map_err(out_of_space)?;
            }
            text.write_str(values.value(item)).map_err(out_of_space)?;
        }
        text.append_value("");
    }
    Ok(Arc::new(text.finish()))
}

fn out_of_space(_: std::fmt::Error) -> ArrowError {
    ArrowError::OffsetOverflowError(i32::MAX as usize)
}
