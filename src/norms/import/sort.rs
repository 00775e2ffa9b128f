//! Sorts the rows of all inputs in bounded memory, spilling to disk.

use std::sync::Arc;

use arrow::compute::SortOptions;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::expressions::col;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::streaming::StreamingTableExec;
use datafusion::prelude::SessionConfig;

use crate::model::norm::{NORM_GROUP, NORM_VERSION, RAW_SCORE, SCALE};
use crate::norms::error::NormError;
use crate::norms::import::input::InputRows;
use crate::norms::import::parse::{INPUT, LINE, SORT_SCHEMA};

/// The rows by version, group, scale and raw score; rows that agree in all of these by file and line.
pub(crate) fn sorted(rows: InputRows) -> Result<SendableRecordBatchStream, NormError> {
    let memory = rows.options.memory_limit;
    plan(rows, memory).map_err(sort_error)
}

fn plan(rows: InputRows, memory: usize) -> Result<SendableRecordBatchStream, DataFusionError> {
    let input = StreamingTableExec::try_new(Arc::clone(&SORT_SCHEMA), vec![Arc::new(rows)], None, [], false, None)?;
    let mut keys = Vec::new();
    for column in [NORM_VERSION, NORM_GROUP, SCALE, RAW_SCORE, INPUT, LINE] {
        keys.push(PhysicalSortExpr::new(col(column, &SORT_SCHEMA)?, SortOptions::default()));
    }
    let order = LexOrdering::new(keys).ok_or_else(|| DataFusionError::Internal("a sort without keys".to_owned()))?;
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(memory))).build_arc()?;
    // Merging spilled runs needs memory of its own, which must be set aside before the sort fills the rest.
    let config = SessionConfig::new().with_sort_spill_reservation_bytes(memory / 6);
    let context = TaskContext::default().with_session_config(config).with_runtime(runtime);
    SortExec::new(order, Arc::new(input)).execute(0, Arc::new(context))
}

/// An error of reading passes through the sort in a wrapping of the engine's.
pub(crate) fn sort_error(error: DataFusionError) -> NormError {
    match error {
        DataFusionError::External(cause) => match cause.downcast::<NormError>() {
            Ok(error) => *error,
            Err(cause) => NormError::Sort(Box::new(DataFusionError::External(cause))),
        },
        other => NormError::Sort(Box::new(other)),
    }
}
