//! Finding one session in an input of any size.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, Scalar, StringArray};
use arrow::compute::kernels::cmp::eq;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use serde_json::Value;

use crate::engine::{InputPart, Scoring, Source};
use crate::model::Layout;
use crate::model::session::SESSION_ID;
use crate::run::RunError;
use crate::run::explain::ExplainJob;
use crate::run::explain::report::{ReadReport, StageReport};

/// A session of an input.
#[derive(Debug, Clone)]
pub struct FoundSession {
    /// Its row, with every column that scoring reads.
    pub columns: RecordBatch,
    /// The file it stands in.
    pub file: String,
    /// The file's layout.
    pub layout: Layout,
    /// How many sessions of the input have its id; this is the first of them.
    pub same_id: u64,
}

impl FoundSession {
    /// What was read, as the first report of an explanation.
    pub fn report(&self) -> StageReport {
        let id = self.columns.column_by_name(SESSION_ID);
        let session_id = match id.map(|id| (id.data_type(), id)) {
            Some((DataType::Int64, id)) => Value::from(id.as_primitive::<Int64Type>().value(0)),
            Some((DataType::Utf8, id)) => Value::from(id.as_string::<i32>().value(0)),
            _ => Value::Null,
        };
        StageReport::Read(ReadReport {
            session_id,
            file: self.file.clone(),
            layout: self.layout.name(),
            same_id: self.same_id,
        })
    }
}

impl ExplainJob {
    /// Finds the first session of an id, and counts the others.
    ///
    /// Reads the ids of the whole input, then the part that holds the session up to its row; standard input, which can be read
    /// once, with all columns in one pass. Memory: one batch.
    pub async fn find(&self, session_id: &str) -> Result<FoundSession, RunError> {
        let wanted = self.wanted(session_id)?;
        let mut first: Option<(FoundRow, InputPart)> = None;
        let (mut same_id, mut sessions) = (0, 0);
        for part in self.input.parts() {
            let once = matches!(part.file.source, Source::Stdin(_));
            let mut batches =
                if once { self.scan_sessions(&part)? } else { self.scan(&part, &[SESSION_ID.to_owned()])? };
            while let Some(batch) = batches.try_next().await.map_err(|error| self.input.failed(&part, error))? {
                sessions += batch.num_rows() as u64;
                let (row, count) = rows_of(&batch, &wanted)?;
                same_id += count;
                if let (None, Some(row)) = (&first, row) {
                    let row = if once { FoundRow::Read(batch.slice(row, 1)) } else { FoundRow::InPart };
                    first = Some((row, part.clone()));
                }
            }
        }
        let not_found =
            || RunError::NoSuchSession { session_id: session_id.to_owned(), input: self.input_name(), sessions };
        let (row, part) = first.ok_or_else(not_found)?;
        let columns = match row {
            FoundRow::Read(columns) => columns,
            FoundRow::InPart => self.first_in(&part, &wanted).await?.ok_or_else(not_found)?,
        };
        Ok(FoundSession { columns, file: part.file.name(), layout: self.input.layout, same_id })
    }

    /// The first session of an id in a part, with every column that scoring reads.
    async fn first_in(&self, part: &InputPart, wanted: &Scalar<ArrayRef>) -> Result<Option<RecordBatch>, RunError> {
        let mut batches = self.scan_sessions(part)?;
        while let Some(batch) = batches.try_next().await.map_err(|error| self.input.failed(part, error))? {
            if let (Some(row), _) = rows_of(&batch, wanted)? {
                return Ok(Some(batch.slice(row, 1)));
            }
        }
        Ok(None)
    }

    fn scan_sessions(&self, part: &InputPart) -> Result<SendableRecordBatchStream, RunError> {
        let results = Scoring::output_columns(&[])?;
        self.scan(part, &self.scoring.needed_columns(&self.input.columns.schema(), &results))
    }

    fn scan(&self, part: &InputPart, columns: &[String]) -> Result<SendableRecordBatchStream, RunError> {
        let plan = self.input.scan(&self.context, part, columns)?;
        Ok(plan.execute(0, self.context.task_ctx())?)
    }

    /// The id as a value of the type that ids have in this input.
    fn wanted(&self, session_id: &str) -> Result<Scalar<ArrayRef>, RunError> {
        let id: ArrayRef = match self.input.columns.data_type(SESSION_ID) {
            Some(DataType::Int64) => {
                let id: i64 = session_id.parse().map_err(|_| RunError::SessionIdNotAnInteger {
                    session_id: session_id.to_owned(),
                    input: self.input_name(),
                })?;
                Arc::new(Int64Array::from(vec![id]))
            }
            _ => Arc::new(StringArray::from(vec![session_id])),
        };
        Ok(Scalar::new(id))
    }

    fn input_name(&self) -> String {
        match self.input.files.as_slice() {
            [file] => file.name(),
            files => format!("{} files", files.len()),
        }
    }
}

/// Where the first session of an id is.
enum FoundRow {
    /// Read along with its id.
    Read(RecordBatch),
    /// Somewhere in its part.
    InPart,
}

/// The first row of a batch that has an id, and how many have it.
fn rows_of(batch: &RecordBatch, wanted: &Scalar<ArrayRef>) -> Result<(Option<usize>, u64), DataFusionError> {
    let ids = batch.column(batch.schema_ref().index_of(SESSION_ID)?);
    let same = eq(ids, wanted)?;
    let first = same.iter().position(|same| same == Some(true));
    Ok((first, same.true_count() as u64))
}
