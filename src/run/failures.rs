//! The table of failed sessions: each with all columns that it had in its file, and what is wrong with it.
//!
//! A part with failures is read a second time, with all columns of its file, and the rows that failed are taken from it by their
//! place. So a part without failures costs nothing more, and the columns are those of the input, whatever they are called.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::TryStreamExt;

use crate::engine::{FileFormat, InputPart, SessionInput};
use crate::model::Layout;
use crate::model::result::{ERROR, ERROR_CODE, OK};
use crate::run::encode::PartEncoder;
use crate::run::part::PartFile;
use crate::run::{RunError, ScoreJob};
use crate::table::{DataFile, Table, table_schema};

/// A table of failed sessions, and its columns.
#[derive(Debug, Clone)]
pub(super) struct FailureTable {
    pub(super) table: Table,
    pub(super) schema: SchemaRef,
}

impl FailureTable {
    /// The table for the failed sessions of an input: the columns of all its files, in the order in which they come first, then
    /// `error_code` and `error`.
    pub(super) fn new(table: Table, input: &SessionInput) -> Result<FailureTable, RunError> {
        if input.layout == Layout::Long {
            return Err(RunError::FailuresOfLongLayout);
        }
        let mut fields: Vec<Field> = Vec::new();
        for file in &input.files {
            for field in table_schema(&file.schema)?.fields() {
                if [ERROR_CODE, ERROR].contains(&field.name().as_str()) {
                    return Err(RunError::FailureColumn { column: field.name().clone(), file: file.name() });
                }
                match fields.iter_mut().find(|known| known.name() == field.name()) {
                    None => fields.push(field.as_ref().clone().with_nullable(true)),
                    Some(known) if known.data_type() == field.data_type() => {}
                    // Files that disagree about a type have its text in common.
                    Some(known) => *known = known.clone().with_data_type(DataType::Utf8),
                }
            }
        }
        fields.extend([ERROR_CODE, ERROR].map(|name| Field::new(name, DataType::Utf8, true)));
        Ok(FailureTable { table, schema: Arc::new(Schema::new(fields)) })
    }

    /// Writes the failed sessions of a part as a file.
    ///
    /// Memory: a batch with all columns of the file, and a row group being encoded.
    pub(super) async fn write(
        &self,
        job: &ScoreJob,
        part: &InputPart,
        failures: &Failures,
        name: &str,
    ) -> Result<DataFile, RunError> {
        let plan = job.input.scan_as_it_is(&job.context, part)?;
        let mut batches = plan.execute(0, job.context.task_ctx())?;
        let mut encoder = PartEncoder::new(FileFormat::Parquet, &self.schema, &job.row_groups);
        let mut file = PartFile::begin(&self.table, name, &self.schema, job).await?;
        let (mut row, mut taken) = (0, 0);
        while let Some(batch) = batches.try_next().await.map_err(|error| job.input.failed(part, error))? {
            let failed: BooleanArray = (row..row + batch.num_rows() as u64)
                .map(|row| Some(failures.rows.binary_search(&row).is_ok()))
                .collect();
            row += batch.num_rows() as u64;
            let count = failed.true_count();
            if count == 0 {
                continue;
            }
            let rows = self.rows(&filter_record_batch(&batch, &failed)?, failures, taken..taken + count)?;
            taken += count;
            if let Some(encoded) = encoder.encode(&rows)? {
                file.append(encoded).await?;
            }
        }
        if let Some(encoded) = encoder.finish()? {
            file.append(encoded).await?;
        }
        file.finish(&self.schema, name).await
    }

    fn rows(
        &self,
        found: &RecordBatch,
        failures: &Failures,
        which: std::ops::Range<usize>,
    ) -> Result<RecordBatch, RunError> {
        let of = |texts: &[Option<String>]| {
            Arc::new(StringArray::from_iter(texts[which.clone()].iter().map(Option::as_deref))) as ArrayRef
        };
        let column = |field: &Arc<Field>| match (field.name().as_str(), found.column_by_name(field.name())) {
            (ERROR_CODE, _) => Ok(of(&failures.codes)),
            (ERROR, _) => Ok(of(&failures.errors)),
            (_, Some(column)) => cast(column, field.data_type()),
            (_, None) => Ok(arrow::array::new_null_array(field.data_type(), found.num_rows())),
        };
        let columns = self.schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// The failed sessions of a part: where they are in it, and what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Rows of the part, ascending.
    rows: Vec<u64>,
    codes: Vec<Option<String>>,
    errors: Vec<Option<String>>,
    /// Rows looked at.
    seen: u64,
}

impl Failures {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Takes the failed rows of the next scored batch of the part.
    pub(super) fn add(&mut self, scored: &RecordBatch) -> Result<(), RunError> {
        let column = |name| Ok::<_, RunError>(scored.column(scored.schema().index_of(name)?));
        let ok: &BooleanArray = column(OK)?.as_boolean();
        if ok.false_count() > 0 {
            let failed = arrow::compute::not(ok)?;
            let text =
                |name| Ok::<_, RunError>(cast(&arrow::compute::filter(column(name)?, &failed)?, &DataType::Utf8)?);
            let places = failed.iter().enumerate().filter(|(_, failed)| *failed == Some(true));
            self.rows.extend(places.map(|(place, _)| self.seen + place as u64));
            for (texts, name) in [(&mut self.codes, ERROR_CODE), (&mut self.errors, ERROR)] {
                let column = text(name)?;
                texts.extend(column.as_string::<i32>().iter().map(|text| text.map(str::to_owned)));
            }
        }
        self.seen += scored.num_rows() as u64;
        Ok(())
    }
}
