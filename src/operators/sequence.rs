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
