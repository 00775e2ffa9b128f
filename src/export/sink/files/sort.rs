//! Sorts rows so that those of one folder come together, spilling to disk.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::expressions::Column;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use crate::engine::query::QueryError;

/// The rows by the values of these columns, null first; rows that agree in all of them keep their order.
///
/// A last column is added: the number of the row. Memory: what sorts of the session may hold.
pub(super) fn sorted(
    rows: SendableRecordBatchStream,
    by: &[usize],
    context: &SessionContext,
) -> Result<SendableRecordBatchStream, DataFusionError> {
    let rows = numbered(rows);
    let schema = rows.schema();
    // The engine's sort leaves open in which order rows come that are equal: no two of these are.
    let columns = by.iter().copied().chain([schema.fields().len() - 1]);
    let keys = columns.map(|index| {
        let column = Column::new(schema.field(index).name(), index);
        PhysicalSortExpr::new(Arc::new(column), SortOptions::default())
    });
    let order = LexOrdering::new(keys).ok_or_else(|| DataFusionError::Internal("a sort without keys".to_owned()))?;
    let rows = Arc::new(Rows { schema: Arc::clone(&schema), rows: Mutex::new(Some(rows)) });
    let input = StreamingTableExec::try_new(Arc::clone(&schema), vec![rows], None, [], false, None)?;
    let sorted = SortExec::new(order, Arc::new(input)).execute(0, context.task_ctx())?;
    let runtime = context.runtime_env();
    let sorted = sorted.map(move |batch| batch.map_err(|error| told(error, &runtime)));
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, sorted)))
}

/// The rows with their numbers in a last column.
fn numbered(rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
    let given = rows.schema();
    let mut fields = given.fields().to_vec();
    fields.push(Arc::new(Field::new("number", DataType::UInt64, false)));
    let schema = Arc::new(Schema::new_with_metadata(fields, given.metadata().clone()));
    let (numbered, mut next) = (Arc::clone(&schema), 0);
    let rows = rows.map(move |batch| {
        let batch = batch?;
        let first = next;
        next += batch.num_rows() as u64;
        let numbers: ArrayRef = Arc::new(UInt64Array::from_iter_values(first..next));
        let columns = batch.columns().iter().cloned().chain([numbers]).collect();
        Ok(RecordBatch::try_new(Arc::clone(&numbered), columns)?)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// An error of the sort in words for a user; those of the rows themselves have them.
fn told(error: DataFusionError, runtime: &RuntimeEnv) -> DataFusionError {
    if matches!(error.find_root(), DataFusionError::External(_)) {
        return error;
    }
    let memory = match runtime.memory_pool.memory_limit() {
        MemoryLimit::Finite(bytes) => bytes,
        _ => usize::MAX,
    };
    let spill = runtime.disk_manager.max_temp_directory_size();
    DataFusionError::External(Box::new(QueryError::of_execution(error, memory, spill)))
}

/// Rows as the input of a plan, which can be executed once.
struct Rows {
    schema: SchemaRef,
    rows: Mutex<Option<SendableRecordBatchStream>>,
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).take();
        rows.unwrap_or_else(|| {
            let again = DataFusionError::Internal("rows can be sorted only once".to_owned());
            let failed = futures::stream::iter([Err(again)]);
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), failed))
        })
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("schema", &self.schema).finish_non_exhaustive()
    }
}
