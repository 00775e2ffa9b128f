//! [`SequenceExec`]: many pieces of input, few of them at a time.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, FieldRef, Schema};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{
    Boundedness, CardinalityEffect, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties as _, Partitioning, PhysicalExpr,
    PlanProperties,
};
use futures::{StreamExt as _, TryStreamExt as _};

/// Reads the partitions of its inputs one after the other, as fewer partitions.
///
/// The pieces (the partitions of the first input, then those of the second, and so on) are dealt out to the output's partitions
/// in turn. An output partition has one piece open at a time and gives its rows before those of its next piece; a piece is not
/// executed before the one ahead of it has ended. The inputs have the same columns in the same types.
#[derive(Debug, Clone)]
pub struct SequenceExec {
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

const NAME: &str = "SequenceExec";

impl SequenceExec {
    /// Reads the pieces of `inputs` as `partitions` partitions.
    ///
    /// Fails without an input, without a partition, and when the inputs' columns differ in name or type.
    pub fn try_new(inputs: Vec<Arc<dyn ExecutionPlan>>, partitions: usize) -> Result<SequenceExec> {
        let Some(first) = inputs.first().filter(|_| partitions > 0) else {
            return Err(DataFusionError::Internal(format!("{NAME} needs an input and a partition")));
        };
        let mut fields: Vec<FieldRef> = first.schema().fields().to_vec();
        for input in &inputs[1..] {
            let schema = input.schema();
            let same = |(ours, theirs): (&FieldRef, &FieldRef)| {
                ours.name() == theirs.name() && ours.data_type() == theirs.data_type()
            };
            if schema.fields().len() != fields.len() || !fields.iter().zip(schema.fields()).all(same) {
                return Err(DataFusionError::Internal(format!("the inputs of {NAME} have different columns")));
            }
            for (ours, theirs) in fields.iter_mut().zip(schema.fields()) {
                if theirs.is_nullable() && !ours.is_nullable() {
                    *ours = Arc::new(Field::clone(ours).with_nullable(true));
                }
            }
        }
        let boundedness = match inputs.iter().all(|input| input.properties().boundedness == Boundedness::Bounded) {
            true => Boundedness::Bounded,
            false => Boundedness::Unbounded { requires_infinite_memory: false },
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::new(Schema::new(fields))),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            boundedness,
        );
        Ok(SequenceExec { inputs, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() })
    }

    fn partitions(&self) -> usize {
        self.properties.output_partitioning().partition_count()
    }
}

impl DisplayAs for SequenceExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pieces: usize = self.inputs.iter().map(|input| input.output_partitioning().partition_count()).sum();
        match t {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "{NAME}: pieces={pieces}, at_once={}", self.partitions())
            }
            DisplayFormatType::TreeRender => writeln!(f, "pieces={pieces}\nat_once={}", self.partitions()),
        }
    }
}

impl ExecutionPlan for SequenceExec {
    fn name(&self) -> &str {
        NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inputs.iter().collect()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        inputs: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if inputs.len() != self.inputs.len() {
            return Err(DataFusionError::Internal(format!("{NAME} has {} inputs", self.inputs.len())));
        }
        Ok(Arc::new(match options.children_properties {
            ChildrenPropertiesMode::Keep => {
                SequenceExec { inputs, metrics: ExecutionPlanMetricsSet::new(), ..Arc::unwrap_or_clone(self) }
            }
            ChildrenPropertiesMode::Recompute => SequenceExec::try_new(inputs, self.partitions())?,
        }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; self.inputs.len()]
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let pieces = self.inputs.iter().flat_map(|input| {
            (0..input.output_partitioning().partition_count()).map(move |piece| (Arc::clone(input), piece))
        });
        let own: Vec<_> = pieces.skip(partition).step_by(self.partitions()).collect();
        let schema = self.schema();
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let rows = futures::stream::iter(own)
            .map(move |(input, piece)| input.execute(piece, Arc::clone(&context)))
            .try_flatten()
            .map(move |batch| {
                let batch: RecordBatch = batch?.with_schema(Arc::clone(&schema))?;
                baseline.record_output(batch.num_rows());
                Ok(batch)
            });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Int64Type, SchemaRef};
    use datafusion::datasource::memory::MemorySourceConfig;
    use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
    use datafusion::physical_plan::test::exec::{BlockingExec, ErrorExec, assert_strong_count_converges_to_zero};
    use futures::FutureExt as _;

    use super::*;

    fn schema(nullable: bool) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, nullable)]))
    }

    /// Partitions of one row each.
    fn pieces(rows: std::ops::Range<i64>, nullable: bool) -> Arc<dyn ExecutionPlan> {
        let batch = |row| RecordBatch::try_new(schema(nullable), vec![Arc::new(Int64Array::from(vec![row]))]).unwrap();
        let partitions: Vec<_> = rows.map(|row| vec![batch(row)]).collect();
        MemorySourceConfig::try_new_exec(&partitions, schema(nullable), None).unwrap()
    }

    async fn rows(plan: &SequenceExec, partition: usize) -> Vec<i64> {
        let batches: Vec<RecordBatch> = plan.execute(partition, Arc::default()).unwrap().try_collect().await.unwrap();
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    #[tokio::test]
    async fn pieces_are_dealt_out_in_turn_and_read_in_order() {
        let plan =
            SequenceExec::try_new(vec![pieces(0..3, false), pieces(3..4, false), pieces(4..8, false)], 3).unwrap();
        assert_eq!(rows(&plan, 0).await, [0, 3, 6]);
        assert_eq!(rows(&plan, 1).await, [1, 4, 7]);
        assert_eq!(rows(&plan, 2).await, [2, 5]);
        let one = SequenceExec::try_new(vec![pieces(0..3, false), pieces(3..4, false)], 1).unwrap();
        assert_eq!(rows(&one, 0).await, [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn more_partitions_than_pieces_are_empty() {
        let plan = SequenceExec::try_new(vec![pieces(0..1, false)], 2).unwrap();
        assert_eq!((rows(&plan, 0).await, rows(&plan, 1).await), (vec![0], vec![]));
    }

    #[tokio::test]
    async fn a_column_is_nullable_if_it_is_in_one_input() {
        let plan = SequenceExec::try_new(vec![pieces(0..1, false), pieces(1..2, true)], 1).unwrap();
        assert!(plan.schema().field(0).is_nullable());
        assert_eq!(rows(&plan, 0).await, [0, 1]);
    }

    #[test]
    fn inputs_of_other_columns_and_no_inputs_are_refused() {
        let other = Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, false)]));
        let other = MemorySourceConfig::try_new_exec(&[vec![]], other, None).unwrap();
        let error = SequenceExec::try_new(vec![pieces(0..1, false), other], 1).unwrap_err();
        assert!(error.to_string().contains("different columns"), "{error}");
        assert!(SequenceExec::try_new(vec![], 1).is_err());
        assert!(SequenceExec::try_new(vec![pieces(0..1, false)], 0).is_err());
    }

    /// A piece that counts how often it was begun.
    #[derive(Debug)]
    struct Counted(Arc<AtomicUsize>, SchemaRef);

    impl PartitionStream for Counted {
        fn schema(&self) -> &SchemaRef {
            &self.1
        }

        fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
            self.0.fetch_add(1, Ordering::Relaxed);
            let batch = RecordBatch::try_new(schema(false), vec![Arc::new(Int64Array::from(vec![1]))]);
            let batches = futures::stream::iter([batch.map_err(DataFusionError::from)]);
            Box::pin(RecordBatchStreamAdapter::new(schema(false), batches))
        }
    }

    #[tokio::test]
    async fn a_piece_is_not_begun_before_its_turn() {
        let begun = Arc::new(AtomicUsize::new(0));
        let piece = || Arc::new(Counted(Arc::clone(&begun), schema(false))) as Arc<dyn PartitionStream>;
        let input =
            StreamingTableExec::try_new(schema(false), vec![piece(), piece(), piece()], None, [], false, None).unwrap();
        let plan = SequenceExec::try_new(vec![Arc::new(input)], 1).unwrap();
        let mut stream = plan.execute(0, Arc::default()).unwrap();
        assert_eq!(begun.load(Ordering::Relaxed), 0);
        for expected in 1..=3 {
            stream.next().await.unwrap().unwrap();
            assert_eq!(begun.load(Ordering::Relaxed), expected);
        }
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn an_error_ends_the_sequence() {
        let failing = Arc::new(ErrorExec::new());
        let plan = SequenceExec::try_new(vec![failing], 1).unwrap();
        let mut stream = plan.execute(0, Arc::default()).unwrap();
        assert!(stream.next().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_stream_that_is_dropped_midway_lets_go_of_its_piece() {
        let blocking = Arc::new(BlockingExec::new(schema(false), 1));
        let refs = blocking.refs();
        let plan = SequenceExec::try_new(vec![pieces(0..1, false), blocking], 1).unwrap();
        let mut stream = plan.execute(0, Arc::default()).unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap().num_rows(), 1);
        assert!(stream.next().now_or_never().is_none());
        drop(stream);
        drop(plan);
        assert_strong_count_converges_to_zero(refs).await;
    }
}
