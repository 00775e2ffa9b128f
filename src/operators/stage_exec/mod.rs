//! [`StageExec`]: the operator that carries any stage.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_expr::projection::ProjectionMapping;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::filter_pushdown::{FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, Time};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};
use futures::{Stream, StreamExt as _, TryStreamExt as _};

use crate::scoring::{Read, ScoringError, Stage, check_inputs};

/// A stage as a plan sees it: plain data that can be started for each partition.
pub trait PlanStage: fmt::Debug + Send + Sync {
    /// The operator's name, as in `RawScalesExec`.
    fn name(&self) -> &'static str;

    /// The columns that the worker takes, in its order. There is at least one.
    fn reads(&self) -> Vec<Read>;

    /// The columns that the worker returns, in its order.
    fn adds(&self) -> Vec<FieldRef>;

    /// How many rows of a partition's first batch the worker is given alone, if it is better not to begin with all of them.
    fn first_rows(&self) -> Option<usize> {
        None
    }

    /// Begins the work of one partition. Live things, such as the norm store, are found in the context's session config.
    fn start(
        &self,
        partition: usize,
        context: &TaskContext,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn StageWorker>>;
}

/// The work of one partition, batch after batch.
#[async_trait]
pub trait StageWorker: Send {
    /// Computes the added columns of a batch. May wait for I/O; a worker that is dropped while it waits leaves nothing behind.
    async fn evaluate(&mut self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>>;
}

/// A pure stage of [`crate::scoring`] as a [`PlanStage`].
#[derive(Debug, Clone)]
pub struct PureStage(pub Arc<dyn Stage>);

impl PlanStage for PureStage {
    fn name(&self) -> &'static str {
        match self.0.name() {
            "validate" => "ValidateExec",
            "raw_scales" => "RawScalesExec",
            "combinations" => "CombinationsExec",
            "style" => "StyleExec",
            "flexibility" => "FlexibilityExec",
            "flags" => "FlagsExec",
            other => other,
        }
    }

    fn reads(&self) -> Vec<Read> {
        self.0.reads()
    }

    fn adds(&self) -> Vec<FieldRef> {
        self.0.adds()
    }

    fn start(&self, _: usize, _: &TaskContext, _: &ExecutionPlanMetricsSet) -> Result<Box<dyn StageWorker>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl StageWorker for PureStage {
    async fn evaluate(&mut self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        self.0.evaluate(columns).map_err(external)
    }
}

pub(super) fn external(error: ScoringError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Appends the columns of a stage to its input.
///
/// Invariants:
/// 1. The output is every input column at its own index, then what the stage adds. Selecting and reordering is a projection's
///    work; DataFusion rewrites sorts and filters through an order-keeping operator by column index.
/// 2. One row in, one row out, in the same order and partition.
/// 3. It holds one batch at a time; what a worker keeps beside it is stated there.
#[derive(Debug, Clone)]
pub struct StageExec {
    input: Arc<dyn ExecutionPlan>,
    stage: Arc<dyn PlanStage>,
    /// The input columns that the stage reads, in its order.
    reads: Vec<usize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl StageExec {
    /// Puts a stage on top of a plan.
    ///
    /// Fails when the plan lacks a column that the stage reads, has it in a type that the stage cannot read, or has a column
    /// that the stage adds.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, stage: Arc<dyn PlanStage>) -> Result<Self> {
        let input_schema = input.schema();
        let adds = stage.adds();
        let reads = check_inputs(stage.name(), &stage.reads(), &adds, &input_schema).map_err(external)?;
        let fields: Vec<FieldRef> = input_schema.fields().iter().cloned().chain(adds).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, input_schema.metadata().clone()));
        let input_properties = input.properties();
        let properties = Arc::new(PlanProperties::new(
            extended(input_properties.equivalence_properties(), schema)?,
            input_properties.output_partitioning().clone(),
            input_properties.emission_type,
            input_properties.boundedness,
        ));
        Ok(StageExec { input, stage, reads, properties, metrics: ExecutionPlanMetricsSet::new() })
    }

    /// The stage that the operator carries.
    pub fn stage(&self) -> &Arc<dyn PlanStage> {
        &self.stage
    }
}

/// What is known of the columns of an input, of a schema that begins with these.
fn extended(known: &EquivalenceProperties, schema: SchemaRef) -> Result<EquivalenceProperties> {
    // To carry over that nothing is known of a hundred columns is half of the work of planning a part.
    if known.eq_group().is_empty() && known.oeq_class().is_empty() && known.constraints().is_empty() {
        return Ok(EquivalenceProperties::new(schema));
    }
    let kept: Vec<usize> = (0..known.schema().fields().len()).collect();
    Ok(known.project(&ProjectionMapping::from_indices(&kept, known.schema())?, schema))
}

impl DisplayAs for StageExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let adds = self.stage.adds();
        let adds: Vec<&str> = adds.iter().map(|field| field.name().as_str()).collect();
        match t {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "{}: adds=[{}]", self.stage.name(), adds.join(", "))
            }
            DisplayFormatType::TreeRender => writeln!(f, "adds={}", adds.join(", ")),
        }
    }
}

impl ExecutionPlan for StageExec {
    fn name(&self) -> &str {
        self.stage.name()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
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
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.pop().filter(|_| children.is_empty()) else {
            return Err(DataFusionError::Internal(format!("{} has one input", self.name())));
        };
        Ok(Arc::new(match options.children_properties {
            ChildrenPropertiesMode::Keep => {
                StageExec { input, metrics: ExecutionPlanMetricsSet::new(), ..Arc::unwrap_or_clone(self) }
            }
            ChildrenPropertiesMode::Recompute => StageExec::try_new(input, Arc::clone(&self.stage))?,
        }))
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

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, input: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let [input] = input else {
            return Err(DataFusionError::Internal(format!("{} has one input", self.name())));
        };
        let mut columns = input.column_statistics.clone();
        columns.resize_with(self.properties.eq_properties.schema().fields().len(), ColumnStatistics::new_unknown);
        Ok(Arc::new(Statistics {
            num_rows: input.num_rows,
            total_byte_size: Precision::Absent,
            column_statistics: columns,
        }))
    }

    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        // Filters on input columns pass, those on added columns stay: right because of invariant 1.
        FilterDescription::from_children(parent_filters, &self.children())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let worker = self.stage.start(partition, &context, &self.metrics)?;
        let running = Running {
            worker,
            reads: self.reads.clone(),
            schema: self.schema(),
            output_rows: MetricBuilder::new(&self.metrics).output_rows(partition),
            elapsed: MetricBuilder::new(&self.metrics).elapsed_compute(partition),
        };
        let input = self.input.execute(partition, context)?;
        let input = input.try_filter(|batch| std::future::ready(batch.num_rows() > 0));
        let input = begin_with(self.stage.first_rows(), input);
        let stream = futures::stream::try_unfold((input.boxed(), running), |(mut input, mut running)| async move {
            let Some(batch) = input.try_next().await? else { return Ok(None) };
            let batch = running.append(batch).await?;
            Ok(Some((batch, (input, running))))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The same rows; if the first batch has more than `rows`, these are a batch of their own.
fn begin_with(
    mut rows: Option<usize>,
    input: impl Stream<Item = Result<RecordBatch>>,
) -> impl Stream<Item = Result<RecordBatch>> {
    let cut = move |batch: RecordBatch| {
        let first = rows.take().filter(|rows| *rows < batch.num_rows()).unwrap_or_default();
        let head = (first > 0).then(|| batch.slice(0, first));
        let rest = if first > 0 { batch.slice(first, batch.num_rows() - first) } else { batch };
        futures::stream::iter(head.into_iter().chain([rest]).map(Ok))
    };
    input.map_ok(cut).try_flatten()
}

struct Running {
    worker: Box<dyn StageWorker>,
    reads: Vec<usize>,
    schema: SchemaRef,
    output_rows: Count,
    /// The time of the stage itself, waiting for what it loads included.
    elapsed: Time,
}

impl Running {
    async fn append(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let reads: Vec<ArrayRef> = self.reads.iter().map(|&index| Arc::clone(batch.column(index))).collect();
        let elapsed = self.elapsed.clone();
        let _timer = elapsed.timer();
        let added = self.worker.evaluate(&reads).await?;
        let columns = batch.columns().iter().cloned().chain(added).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        self.output_rows.add(batch.num_rows());
        Ok(batch)
    }
}

#[cfg(test)]
mod tests;
