//! Rows that give way: in a run that replaces sessions, those of the same sessions in the table, and those that the run has twice.
//!
//! ```text
//!  session_id, completed_at of new files ─┐
//!                                         ├─▶ one sort that spills ─▶ a bit for each row that goes ─▶ files written anew
//!  session_id               of old files ─┘
//! ```
//!
//! A table has no marks on single rows: a file that loses rows is written anew without them, under a name of its own, and takes
//! the place of the old one in the same commit. Files that lose nothing stay as they are.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt8Array, UInt64Array};
use arrow::compute::{SortOptions, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt8Type, UInt64Type};
use arrow::row::{OwnedRow, RowConverter, SortField};
use chrono::DateTime;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::col;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;

use crate::engine::{FileFormat, with_memory};
use crate::model::result::timestamp_type;
use crate::model::session::{COMPLETED_AT, SESSION_ID};
use crate::run::encode::PartEncoder;
use crate::run::part::PartFile;
use crate::run::plan::Duplicates;
use crate::run::{RunError, ScoreJob};
use crate::storage::Location;
use crate::table::{DataFile, Table};

/// A file whose rows are looked at.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) file: DataFile,
    pub(super) at: Location,
    /// Whether it is one of the run, or was in the table before.
    pub(super) is_new: bool,
}

/// Which rows of a file go.
#[derive(Debug, Clone, Default)]
pub(super) struct Gone {
    bits: Vec<u64>,
    pub(super) rows: u64,
}

impl Gone {
    fn add(&mut self, row: u64) {
        let word = (row / 64) as usize;
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        self.rows += u64::from(!self.has(row));
        self.bits[word] |= 1 << (row % 64);
    }

    fn has(&self, row: u64) -> bool {
        self.bits.get((row / 64) as usize).is_some_and(|word| word & (1 << (row % 64)) != 0)
    }
}

/// One part in so many of the memory limit is for the sort, and at least [`LEAST_FOR_SORT`] bytes of it.
const SORT_SHARE: usize = 4;
const LEAST_FOR_SORT: usize = 16 << 20;

const IS_NEW: &str = "is_new";
const FILE: &str = "file";
const ROW: &str = "row";

/// Finds the rows that go, of each candidate in turn.
///
/// Memory: a bit for each row, and a quarter of the limit for the sort, so that a run that replaces needs little more than one
/// that appends.
pub(super) async fn rows_that_go(
    job: &ScoreJob,
    table: &SchemaRef,
    candidates: &[Candidate],
    duplicates: Duplicates,
) -> Result<Vec<Gone>, RunError> {
    let mut gone = vec![Gone::default(); candidates.len()];
    let Some(plan) = sorted(table, candidates)? else { return Ok(gone) };
    let memory = match job.context.runtime_env().memory_pool.memory_limit() {
        MemoryLimit::Finite(limit) => with_memory(&job.context, (limit / SORT_SHARE).max(LEAST_FOR_SORT).min(limit)),
        _ => job.context.task_ctx(),
    };
    let mut batches = plan.execute(0, memory)?;
    let id_type = plan.schema().field(0).data_type().clone();
    let converter = RowConverter::new(vec![SortField::new(id_type)])?;
    let mut last: Option<Last> = None;
    while let Some(batch) = batches.try_next().await? {
        let ids = converter.convert_columns(&batch.columns()[..1])?;
        let is_new = batch.column(1).as_primitive::<UInt8Type>();
        let (files, rows) =
            (batch.column(3).as_primitive::<UInt64Type>(), batch.column(4).as_primitive::<UInt64Type>());
        for place in 0..batch.num_rows() {
            let (file, row) = (files.value(place) as usize, rows.value(place));
            let of_same = last.as_ref().filter(|last| last.id.row() == ids.row(place));
            match (of_same, is_new.value(place) == 1) {
                // New rows of a session come before old ones, the one that stays last.
                (Some(Last { new: Some((file, row)), .. }), true) => {
                    if duplicates == Duplicates::Fail {
                        return Err(duplicate(&batch.column(0).slice(place, 1))?);
                    }
                    gone[*file].add(*row);
                }
                (Some(Last { new: Some(_), .. }), false) => gone[file].add(row),
                _ => {}
            }
            let new = match (of_same, is_new.value(place) == 1) {
                (_, true) => Some((file, row)),
                (Some(last), false) => last.new,
                (None, false) => None,
            };
            match &mut last {
                Some(last) if last.id.row() == ids.row(place) => last.new = new,
                last => *last = Some(Last { id: ids.row(place).owned(), new }),
            }
        }
    }
    Ok(gone)
}

/// The last session looked at, and its last new row: a file and a row of it.
struct Last {
    id: OwnedRow,
    new: Option<(usize, u64)>,
}

fn duplicate(id: &ArrayRef) -> Result<RunError, RunError> {
    let id = arrow::compute::cast(id, &DataType::Utf8)?;
    Ok(RunError::DuplicateSession { session_id: id.as_string::<i32>().value(0).to_owned() })
}

/// All rows with an id, by id, new ones before old ones, then by time and place; `None` if there are no files.
fn sorted(table: &SchemaRef, candidates: &[Candidate]) -> Result<Option<Arc<dyn ExecutionPlan>>, RunError> {
    if candidates.is_empty() {
        return Ok(None);
    }
    let schema = Arc::new(Schema::new(vec![
        Field::new(SESSION_ID, table.field_with_name(SESSION_ID)?.data_type().clone(), true),
        Field::new(IS_NEW, DataType::UInt8, false),
        Field::new(COMPLETED_AT, timestamp_type(), true),
        Field::new(FILE, DataType::UInt64, false),
        Field::new(ROW, DataType::UInt64, false),
    ]));
    let ids = Ids { candidates: candidates.to_vec(), table: Arc::clone(table), schema: Arc::clone(&schema) };
    let scan = StreamingTableExec::try_new(Arc::clone(&schema), vec![Arc::new(ids)], None, [], false, None)?;
    let by = |name: &str, descending| {
        let options = SortOptions { descending, nulls_first: true };
        Ok::<_, DataFusionError>(PhysicalSortExpr { expr: col(name, &schema)?, options })
    };
    let order =
        [by(SESSION_ID, false)?, by(IS_NEW, true)?, by(COMPLETED_AT, false)?, by(FILE, false)?, by(ROW, false)?];
    let order = LexOrdering::new(order).ok_or_else(|| DataFusionError::Internal("a sort by nothing".to_owned()))?;
    Ok(Some(Arc::new(SortExec::new(order, Arc::new(scan)))))
}

/// The ids and times of files, one after the other; rows without an id are left out.
#[derive(Debug)]
struct Ids {
    candidates: Vec<Candidate>,
    table: SchemaRef,
    schema: SchemaRef,
}

impl PartitionStream for Ids {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (table, schema) = (Arc::clone(&self.table), Arc::clone(&self.schema));
        // One file is open at a time.
        let files = stream::iter(self.candidates.clone().into_iter().enumerate());
        let batches = files
            .map(move |(number, file)| ids_of(Arc::clone(&context), number, &file, &table, Arc::clone(&schema)))
            .try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

fn ids_of(
    context: Arc<TaskContext>,
    number: usize,
    candidate: &Candidate,
    table: &SchemaRef,
    schema: SchemaRef,
) -> DataFusionResult<impl Stream<Item = DataFusionResult<RecordBatch>> + Send + use<>> {
    let is_new = u8::from(candidate.is_new);
    let mut columns = vec![table.index_of(SESSION_ID)?];
    // Of old rows no time is asked, and a table may have been selected without it.
    columns.extend(table.index_of(COMPLETED_AT).ok().filter(|_| candidate.is_new));
    let batches = read(context, candidate, table, &columns)?;
    let mut row = 0;
    Ok(batches.map(move |batch| {
        let batch = batch?;
        let count = batch.num_rows() as u64;
        let columns: Vec<ArrayRef> = vec![
            Arc::clone(batch.column(0)),
            Arc::new(UInt8Array::from_value(is_new, batch.num_rows())),
            match batch.num_columns() {
                1 => arrow::array::new_null_array(schema.field(2).data_type(), batch.num_rows()),
                _ => Arc::clone(batch.column(1)),
            },
            Arc::new(UInt64Array::from_value(number as u64, batch.num_rows())),
            Arc::new(UInt64Array::from_iter_values(row..row + count)),
        ];
        row += count;
        let all = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        Ok(filter_record_batch(&all, &arrow::compute::is_not_null(all.column(0))?)?)
    }))
}

/// A file's batches, in its order: columns of the table's schema.
fn read(
    context: Arc<TaskContext>,
    candidate: &Candidate,
    schema: &SchemaRef,
    columns: &[usize],
) -> DataFusionResult<SendableRecordBatchStream> {
    let Candidate { file, at, .. } = candidate;
    let (location, size) = (at.path.clone(), file.size);
    let meta = ObjectMeta { location, last_modified: DateTime::UNIX_EPOCH, size, e_tag: None, version: None };
    let source = ParquetSource::new(Arc::clone(schema)).with_metadata_size_hint(64 << 10);
    let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(&at.store_url)?, Arc::new(source))
        .with_file_groups(vec![FileGroup::new(vec![PartitionedFile::new_from_meta(meta)])])
        .with_projection_indices(Some(columns.to_vec()))?
        .with_preserve_order(true)
        .build();
    DataSourceExec::from_data_source(config).execute(0, context)
}

/// Writes a file anew without the rows that go; `None` if none would be left.
///
/// Memory: a batch, and a row group being encoded.
pub(super) async fn without(
    job: &ScoreJob,
    table: &Table,
    candidate: &Candidate,
    gone: &Gone,
    name: &str,
    schema: &SchemaRef,
) -> Result<Option<DataFile>, RunError> {
    if candidate.file.rows == Some(gone.rows) {
        return Ok(None);
    }
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let mut batches = read(job.context.task_ctx(), candidate, schema, &all)?;
    let mut encoder = PartEncoder::new(FileFormat::Parquet, schema, &job.row_groups);
    let mut file = PartFile::begin(table, name, schema, job).await?;
    let mut row = 0;
    while let Some(batch) = batches.try_next().await? {
        let kept: BooleanArray = (row..row + batch.num_rows() as u64).map(|row| Some(!gone.has(row))).collect();
        row += batch.num_rows() as u64;
        let kept = filter_record_batch(&batch, &kept)?;
        if let Some(encoded) = encoder.encode(&kept)? {
            file.append(encoded).await?;
        }
    }
    if let Some(encoded) = encoder.finish()? {
        file.append(encoded).await?;
    }
    Ok(Some(file.finish(schema, name).await?))
}
