//! Rows that give way: in a run that replaces sessions, those of the same sessions in the table, and those that the run has twice.
//!
//! ```text
//!  session_id, place of new files ─┐
//!                                  ├─▶ one sort that spills ─▶ a bit for each row that goes ─▶ files written anew
//!  session_id, place of old files ─┘
//! ```
//!
//! A table has no marks on single rows: a file that loses rows is written anew without them, under a name of its own, and takes
//! the place of the old one in the same commit. Files that lose nothing stay as they are.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt64Array};
use arrow::compute::{SortOptions, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType, UInt64Type};
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
const SORT_SHARE: usize = 8;
const LEAST_FOR_SORT: usize = 16 << 20;

const PLACE: &str = "place";

/// Where a row is: a new row before an old one, then by candidate and by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u64);

impl Place {
    const IS_OLD: u64 = 1 << 63;
    /// Enough for a file of a trillion rows.
    const ROW_BITS: u32 = 40;
    const MOST_FILES: usize = 1 << (63 - Self::ROW_BITS);

    /// The place of the first row of a candidate.
    fn of(candidate: usize, is_new: bool) -> Self {
        Place(if is_new { 0 } else { Self::IS_OLD } | (candidate as u64) << Self::ROW_BITS)
    }

    fn is_new(self) -> bool {
        self.0 & Self::IS_OLD == 0
    }

    fn candidate(self) -> usize {
        ((self.0 & !Self::IS_OLD) >> Self::ROW_BITS) as usize
    }

    fn row(self) -> u64 {
        self.0 & ((1 << Self::ROW_BITS) - 1)
    }
}

/// Finds the rows that go, of each candidate in turn.
///
/// Memory: a bit for each row, and an eighth of the limit for the sort, so that a run that replaces needs little more than one
/// that appends.
pub(super) async fn rows_that_go(
    job: &ScoreJob,
    table: &SchemaRef,
    candidates: &[Candidate],
    duplicates: Duplicates,
) -> Result<Vec<Gone>, RunError> {
    let mut gone = vec![Gone::default(); candidates.len()];
    let Some(plan) = sorted(table, candidates, duplicates)? else { return Ok(gone) };
    let memory = match job.context.runtime_env().memory_pool.memory_limit() {
        MemoryLimit::Finite(limit) => with_memory(&job.context, (limit / SORT_SHARE).max(LEAST_FOR_SORT).min(limit)),
        _ => job.context.task_ctx(),
    };
    let mut batches = plan.execute(0, memory)?;
    let id_type = plan.schema().field(0).data_type().clone();
    let converter = RowConverter::new(vec![SortField::new(id_type)])?;
    let mut session: Option<Session> = None;
    while let Some(batch) = batches.try_next().await? {
        let ids = converter.convert_columns(&batch.columns()[..1])?;
        let places = batch.column(1).as_primitive::<UInt64Type>();
        let times = batch.columns().get(2).map(|times| times.as_primitive::<TimestampMicrosecondType>());
        for at in 0..batch.num_rows() {
            let place = Place(places.value(at));
            let time = times.filter(|times| times.is_valid(at)).map(|times| times.value(at));
            let row = place.is_new().then_some((time, place));
            let Some(session) = session.as_mut().filter(|session| session.id.row() == ids.row(at)) else {
                session = Some(Session { id: ids.row(at).owned(), stays: row });
                continue;
            };
            // New rows of a session come before old ones.
            let goes = match (session.stays, row) {
                (None, _) => continue,
                (Some(_), None) => place,
                (Some(_), Some(_)) if duplicates == Duplicates::Fail => {
                    return Err(duplicate(&batch.column(0).slice(at, 1))?);
                }
                (Some(stays), Some(new)) => {
                    session.stays = Some(stays.max(new));
                    stays.min(new).1
                }
            };
            gone[goes.candidate()].add(goes.row());
        }
    }
    Ok(gone)
}

/// The session that is looked at, and of its new rows the one that stays: the latest, and of several of one time the last.
struct Session {
    id: OwnedRow,
    stays: Option<(Option<i64>, Place)>,
}

fn duplicate(id: &ArrayRef) -> Result<RunError, RunError> {
    let id = arrow::compute::cast(id, &DataType::Utf8)?;
    Ok(RunError::DuplicateSession { session_id: id.as_string::<i32>().value(0).to_owned() })
}

/// The id and the place of all rows with an id, by both; `None` if there are no files. Where the latest of several is to stay, the
/// time of new rows too.
fn sorted(
    table: &SchemaRef,
    candidates: &[Candidate],
    duplicates: Duplicates,
) -> Result<Option<Arc<dyn ExecutionPlan>>, RunError> {
    if candidates.is_empty() {
        return Ok(None);
    }
    if candidates.len() > Place::MOST_FILES {
        return Err(DataFusionError::ResourcesExhausted(format!("{} files are too many", candidates.len())).into());
    }
    let mut fields = vec![
        Field::new(SESSION_ID, table.field_with_name(SESSION_ID)?.data_type().clone(), true),
        Field::new(PLACE, DataType::UInt64, false),
    ];
    if duplicates == Duplicates::Last {
        fields.push(Field::new(COMPLETED_AT, timestamp_type(), true));
    }
    let schema = Arc::new(Schema::new(fields));
    let ids = Ids { candidates: candidates.to_vec(), table: Arc::clone(table), schema: Arc::clone(&schema) };
    let scan = StreamingTableExec::try_new(Arc::clone(&schema), vec![Arc::new(ids)], None, [], false, None)?;
    let by = |name: &str| {
        Ok::<_, DataFusionError>(PhysicalSortExpr { expr: col(name, &schema)?, options: SortOptions::default() })
    };
    let order = LexOrdering::new([by(SESSION_ID)?, by(PLACE)?]);
    let order = order.ok_or_else(|| DataFusionError::Internal("a sort by nothing".to_owned()))?;
    Ok(Some(Arc::new(SortExec::new(order, Arc::new(scan)))))
}

/// The ids and places of files, one after the other; rows without an id are left out.
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
    let mut columns = vec![table.index_of(SESSION_ID)?];
    // Of old rows no time is asked, and a table may have been selected without it.
    let wants_time = schema.index_of(COMPLETED_AT).is_ok() && candidate.is_new;
    columns.extend(table.index_of(COMPLETED_AT).ok().filter(|_| wants_time));
    let batches = read(context, candidate, table, &columns)?;
    let Place(mut place) = Place::of(number, candidate.is_new);
    Ok(batches.map(move |batch| {
        let batch = batch?;
        let next = place + batch.num_rows() as u64;
        let mut columns: Vec<ArrayRef> =
            vec![Arc::clone(batch.column(0)), Arc::new(UInt64Array::from_iter_values(place..next))];
        place = next;
        if let Ok(field) = schema.field_with_name(COMPLETED_AT) {
            columns.push(match batch.num_columns() {
                1 => arrow::array::new_null_array(field.data_type(), batch.num_rows()),
                _ => Arc::clone(batch.column(1)),
            });
        }
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
