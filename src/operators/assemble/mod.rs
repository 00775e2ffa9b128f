//! [`AssembleExec`]: rows of the long layout become sessions.
//!
//! A session's rows need not lie together, so assembling takes two steps, and both are this operator: adjacent rows of a session
//! become a *sheet* (see [`SheetShape`]); sheets sorted by session become one sheet each. [`UnfoldStage`] then spreads a sheet
//! over the columns of the wide layout. What is wrong with ranks is found by [`Validate`](crate::scoring::Validate); here only
//! faults that the columns could not show are noted: a rank given twice, and rows of unknown items and modes.

mod assembler;
mod rows;
mod sheet;
#[cfg(test)]
mod tests;
mod unfold;

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::projection::ProjectionMapping;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};
use futures::TryStreamExt as _;

use crate::operators::assemble::assembler::{Assembler, Marks};
use crate::operators::assemble::rows::is_text;
use crate::operators::stage_exec::external;
use crate::scoring::{Accepts, LONG_FAULT, ScoringError};

pub use sheet::SheetShape;
pub use unfold::UnfoldStage;

/// The column of a session's ranks inside a plan: `Binary`, as [`AssembleExec`] writes and [`UnfoldStage`] reads it.
pub const RANK_SHEET: &str = "rank_sheet";

/// The names of the columns of a rank row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankColumns {
    /// `style` or `context`, in either case.
    pub part: String,
    /// The item's number within its part, from 1.
    pub item: String,
    /// The code of a mode, in either case.
    pub mode: String,
    /// The rank.
    pub rank: String,
}

/// Collapses adjacent rows of one session into one row.
///
/// Invariants:
/// 1. The output is the columns of a run's first row but those of ranks, at the same order, then [`RANK_SHEET`] and
///    [`LONG_FAULT`]. Rows of one session that do not lie together in one partition become several rows.
/// 2. Rows stay in the order of the runs, in their partition. The result does not depend on where batches end.
/// 3. Null is a session id like any other: there is nothing by which rows without one can be told apart.
/// 4. It holds two batches: one of input, and one of output that is being built.
#[derive(Debug, Clone)]
pub struct AssembleExec {
    input: Arc<dyn ExecutionPlan>,
    /// The name of the session's id.
    key: String,
    kind: Kind,
    shape: SheetShape,
    marks: Marks,
    key_index: usize,
    kept: Vec<usize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// What is assembled.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Rows(RankColumns),
    Sheets,
}

const NAME: &str = "AssembleExec";

impl AssembleExec {
    /// Collapses rank rows whose session is named by the column `key`.
    ///
    /// Fails when the input lacks one of the columns, or has it in a type that cannot be read.
    pub fn from_rows(
        input: Arc<dyn ExecutionPlan>,
        key: &str,
        columns: RankColumns,
        shape: SheetShape,
    ) -> Result<AssembleExec> {
        Self::try_new(input, key, Kind::Rows(columns), shape)
    }

    /// Collapses rows that have sheets already, as [`AssembleExec::from_rows`] gives them.
    ///
    /// The input is sorted by the column `key`, and where the rows of a session have an order, by that too.
    pub fn from_sheets(input: Arc<dyn ExecutionPlan>, key: &str, shape: SheetShape) -> Result<AssembleExec> {
        Self::try_new(input, key, Kind::Sheets, shape)
    }

    fn try_new(input: Arc<dyn ExecutionPlan>, key: &str, kind: Kind, shape: SheetShape) -> Result<AssembleExec> {
        let input_schema = input.schema();
        let key_index = find(&input_schema, key)?;
        let integer = |name: &str| {
            let index = find(&input_schema, name)?;
            let expected = Accepts::Integers;
            if expected.includes(input_schema.field(index).data_type()) {
                Ok(index)
            } else {
                wrong_type(&input_schema, index, expected)
            }
        };
        let text = |name: &str| {
            let index = find(&input_schema, name)?;
            let found = input_schema.field(index).data_type();
            if is_text(found) { Ok(index) } else { wrong_type(&input_schema, index, Accepts::Exactly(DataType::Utf8)) }
        };
        let exactly = |name: &str, data_type: DataType| {
            let index = find(&input_schema, name)?;
            let found = input_schema.field(index).data_type();
            if *found == data_type { Ok(index) } else { wrong_type(&input_schema, index, Accepts::Exactly(data_type)) }
        };
        let marks = match &kind {
            Kind::Rows(columns) => Marks::Rows {
                part: text(&columns.part)?,
                item: integer(&columns.item)?,
                mode: text(&columns.mode)?,
                rank: integer(&columns.rank)?,
            },
            Kind::Sheets => Marks::Sheets {
                sheet: exactly(RANK_SHEET, DataType::Binary)?,
                fault: exactly(LONG_FAULT, DataType::UInt32)?,
            },
        };
        let read = match marks {
            Marks::Rows { part, item, mode, rank } => vec![part, item, mode, rank],
            Marks::Sheets { sheet, fault } => vec![sheet, fault],
        };
        let kept: Vec<usize> = (0..input_schema.fields().len()).filter(|index| !read.contains(index)).collect();
        let added = [Field::new(RANK_SHEET, DataType::Binary, false), Field::new(LONG_FAULT, DataType::UInt32, true)];
        let fields: Vec<FieldRef> =
            kept.iter().map(|&index| Arc::clone(&input_schema.fields()[index])).chain(added.map(Arc::new)).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, input_schema.metadata().clone()));
        // A run's first row stands where the run stood, so the order of kept columns carries over.
        let mapping = ProjectionMapping::from_indices(&kept, &input_schema)?;
        let of_input = input.properties();
        let properties = Arc::new(PlanProperties::new(
            of_input.equivalence_properties().project(&mapping, schema),
            of_input.output_partitioning().project(&mapping, of_input.equivalence_properties()),
            of_input.emission_type,
            of_input.boundedness,
        ));
        Ok(AssembleExec {
            input,
            key: key.to_owned(),
            kind,
            shape,
            marks,
            key_index,
            kept,
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

fn find(schema: &Schema, name: &str) -> Result<usize> {
    let missing = |_| external(ScoringError::MissingColumn { stage: NAME, column: name.to_owned() });
    schema.index_of(name).map_err(missing)
}

fn wrong_type(schema: &Schema, index: usize, expected: Accepts) -> Result<usize> {
    let field = schema.field(index);
    let (column, found) = (field.name().clone(), field.data_type().clone());
    Err(external(ScoringError::ColumnType { stage: NAME, column, found, expected }))
}

impl DisplayAs for AssembleExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.kind == Kind::Sheets { "sheets" } else { "rows" };
        match t {
            DisplayFormatType::Default | DisplayFormatType::Verbose => write!(f, "{NAME}: {what} by {}", self.key),
            DisplayFormatType::TreeRender => writeln!(f, "{what} by {}", self.key),
        }
    }
}

impl ExecutionPlan for AssembleExec {
    fn name(&self) -> &str {
        NAME
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
            return Err(DataFusionError::Internal(format!("{NAME} has one input")));
        };
        Ok(Arc::new(match options.children_properties {
            ChildrenPropertiesMode::Keep => {
                AssembleExec { input, metrics: ExecutionPlanMetricsSet::new(), ..Arc::unwrap_or_clone(self) }
            }
            ChildrenPropertiesMode::Recompute => {
                AssembleExec::try_new(input, &self.key, self.kind.clone(), self.shape)?
            }
        }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        // Rows of a session that are torn apart are not collapsed.
        vec![false]
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::LowerEqual
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let assembler = Assembler::new(self.marks, self.key_index, self.kept.clone(), self.shape, self.schema())?;
        let running = Running {
            batch_size: context.session_config().batch_size(),
            input: Some(self.input.execute(partition, context)?),
            assembler,
            baseline: BaselineMetrics::new(&self.metrics, partition),
        };
        let stream = futures::stream::try_unfold(running, |mut running| async move {
            let batch = running.next().await?;
            Ok(batch.map(|batch| (batch, running)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

struct Running {
    /// `None` after its end.
    input: Option<SendableRecordBatchStream>,
    assembler: Assembler,
    batch_size: usize,
    baseline: BaselineMetrics,
}

impl Running {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let timer = self.baseline.elapsed_compute().timer();
            self.assembler.advance(self.batch_size)?;
            let complete = self.assembler.complete();
            if complete >= self.batch_size || (self.input.is_none() && complete > 0) {
                let batch = self.assembler.take()?;
                self.baseline.record_output(batch.num_rows());
                return Ok(Some(batch));
            }
            drop(timer);
            let Some(input) = &mut self.input else { return Ok(None) };
            let next = input.try_next().await?;
            let _timer = self.baseline.elapsed_compute().timer();
            match next {
                Some(batch) => self.assembler.push(batch)?,
                None => {
                    self.input = None;
                    self.assembler.end();
                }
            }
        }
    }
}
