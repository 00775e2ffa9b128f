//! [`OwnMemoryExec`]: a part of a plan with a memory pool of its own.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryConsumer};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::execution_plan::{CardinalityEffect, ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};
use futures::StreamExt as _;

/// Executes each partition of its input with a memory pool of `bytes`, which it reserves in the pool around it for as long as
/// the partition's stream lives.
///
/// A sort that merges what it spilled takes all the memory it can get, and does not give it back before its end. A sort above or
/// beside it, which needs some at the same time, then fails, however large the pool is. Sorts that each have a pool of their own
/// cannot starve each other. A pool that holds only a few batches is of no use either, so batches are made smaller where it is
/// small: a row for every [`BYTES_PER_ROW`].
#[derive(Debug, Clone)]
pub struct OwnMemoryExec {
    input: Arc<dyn ExecutionPlan>,
    bytes: usize,
}

const NAME: &str = "OwnMemoryExec";

/// How much memory there is for each row of a batch: that of some thirty batches of sessions.
const BYTES_PER_ROW: usize = 4 << 10;

/// A sort sets this fraction of the pool aside for merging: for sorted copies of its batches, and of their keys.
const MERGE_FRACTION: usize = 4;

impl OwnMemoryExec {
    /// Gives each partition of `input` a pool of `bytes`.
    pub fn new(input: Arc<dyn ExecutionPlan>, bytes: usize) -> Self {
        OwnMemoryExec { input, bytes }
    }

    /// The context of a partition.
    fn own(&self, context: &TaskContext) -> TaskContext {
        let runtime = RuntimeEnv {
            memory_pool: Arc::new(FairSpillPool::new(self.bytes)),
            ..RuntimeEnv::clone(&context.runtime_env())
        };
        let batch_size = context.session_config().batch_size().min(self.bytes / BYTES_PER_ROW).max(1);
        let mut config = context.session_config().clone().with_batch_size(batch_size);
        config.options_mut().execution.sort_spill_reservation_bytes = self.bytes / MERGE_FRACTION;
        TaskContext::new(
            context.task_id(),
            context.session_id(),
            config,
            context.scalar_functions().clone(),
            context.higher_order_functions().clone(),
            context.aggregate_functions().clone(),
            context.window_functions().clone(),
            Arc::new(runtime),
        )
    }
}

impl DisplayAs for OwnMemoryExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match t {
            DisplayFormatType::Default | DisplayFormatType::Verbose => write!(f, "{NAME}: bytes={}", self.bytes),
            DisplayFormatType::TreeRender => writeln!(f, "bytes={}", self.bytes),
        }
    }
}

impl ExecutionPlan for OwnMemoryExec {
    fn name(&self) -> &str {
        NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop().filter(|_| children.is_empty()) {
            Some(input) => Ok(Arc::new(OwnMemoryExec::new(input, self.bytes))),
            None => Err(DataFusionError::Internal(format!("{NAME} has one input"))),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let reserved = MemoryConsumer::new(format!("{NAME}[{partition}]")).register(context.memory_pool());
        reserved.try_grow(self.bytes)?;
        let stream = self.input.execute(partition, Arc::new(self.own(&context)))?;
        // The closure owns the reservation, and goes with the stream.
        let stream = stream.map(move |batch| {
            let _held = &reserved;
            batch
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;

    use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
    use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool};
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;
    use datafusion::physical_plan::EmptyRecordBatchStream;
    use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
    use datafusion::prelude::SessionConfig;

    use super::*;

    /// What an executed plan found: the limit of its pool, its batch size, its reservation for merging.
    type Notes = Arc<Mutex<Vec<(Option<usize>, usize, usize)>>>;

    /// A leaf that notes what it was executed with: the pool's limit, the batch size, the merge reservation.
    #[derive(Debug)]
    struct Noting(Notes, SchemaRef);

    impl PartitionStream for Noting {
        fn schema(&self) -> &SchemaRef {
            &self.1
        }

        fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
            let limit = match context.memory_pool().memory_limit() {
                MemoryLimit::Finite(bytes) => Some(bytes),
                _ => None,
            };
            let config = context.session_config();
            let reserved = config.options().execution.sort_spill_reservation_bytes;
            self.0.lock().unwrap().push((limit, config.batch_size(), reserved));
            Box::pin(EmptyRecordBatchStream::new(Arc::clone(&self.1)))
        }
    }

    /// A plan of two partitions with pools of `bytes`, and what its leaf notes.
    fn plan(bytes: usize) -> (OwnMemoryExec, Notes) {
        let noted = Arc::new(Mutex::new(Vec::new()));
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int8, true)]));
        let leaf = || Arc::new(Noting(Arc::clone(&noted), Arc::clone(&schema))) as Arc<dyn PartitionStream>;
        let leaves = StreamingTableExec::try_new(Arc::clone(&schema), vec![leaf(), leaf()], None, [], false, None);
        (OwnMemoryExec::new(Arc::new(leaves.unwrap()), bytes), noted)
    }

    fn context(limit: usize) -> (Arc<TaskContext>, Arc<dyn MemoryPool>) {
        let pool: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(limit));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::clone(&pool)).build_arc().unwrap();
        let config = SessionConfig::new().with_batch_size(8_192);
        (Arc::new(TaskContext::default().with_session_config(config).with_runtime(runtime)), pool)
    }

    #[test]
    fn the_input_sees_a_pool_of_its_own_and_batches_that_fit_it() {
        let (small, noted) = plan(4 << 20);
        let (outer, _) = context(64 << 20);
        small.execute(0, outer).unwrap();
        assert_eq!(*noted.lock().unwrap(), [(Some(4 << 20), 1_024, 1 << 20)]);

        let (large, noted) = plan(256 << 20);
        let (outer, _) = context(512 << 20);
        large.execute(1, outer).unwrap();
        assert_eq!(*noted.lock().unwrap(), [(Some(256 << 20), 8_192, 64 << 20)]);
    }

    #[test]
    fn the_memory_is_taken_from_the_pool_around_it_while_the_stream_lives() {
        let (plan, _) = plan(10);
        let (outer, pool) = context(25);
        let one = plan.execute(0, Arc::clone(&outer)).unwrap();
        let two = plan.execute(1, Arc::clone(&outer)).unwrap();
        assert_eq!(pool.reserved(), 20);
        let Err(error) = plan.execute(0, Arc::clone(&outer)) else { panic!("the pool has no third share") };
        assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{error}");
        drop((one, two));
        assert_eq!(pool.reserved(), 0);
    }
}
