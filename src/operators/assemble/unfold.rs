//! [`UnfoldStage`]: sheets become the rank columns of the wide layout.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt8Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, Field, FieldRef};
use async_trait::async_trait;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;

use crate::operators::assemble::RANK_SHEET;
use crate::operators::assemble::sheet::{ABSENT, NULL, OUT_OF_RANGE, SheetShape, for_each_mark};
use crate::operators::stage_exec::{PlanStage, StageWorker};
use crate::scoring::Read;

/// Adds the columns of the wide layout, `UInt8`, from [`RANK_SHEET`]: null where a rank is null or has no row, 0 where it is out
/// of range. A session without a sheet has no rows.
#[derive(Debug, Clone, Copy)]
pub struct UnfoldStage {
    shape: SheetShape,
}

impl UnfoldStage {
    /// Unfolds sheets of a shape.
    pub fn new(shape: SheetShape) -> Self {
        UnfoldStage { shape }
    }
}

impl PlanStage for UnfoldStage {
    fn name(&self) -> &'static str {
        "UnfoldExec"
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::exactly(RANK_SHEET, DataType::Binary)]
    }

    fn adds(&self) -> Vec<FieldRef> {
        self.shape.wide_columns().map(|name| Arc::new(Field::new(name, DataType::UInt8, true))).collect()
    }

    fn start(&self, _: usize, _: &TaskContext, _: &ExecutionPlanMetricsSet) -> Result<Box<dyn StageWorker>> {
        Ok(Box::new(*self))
    }
}

#[async_trait]
impl StageWorker for UnfoldStage {
    async fn evaluate(&mut self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let sheets = columns[0].as_binary::<i32>();
        let mut marks = vec![vec![ABSENT; sheets.len()]; self.shape.slots()];
        for (row, sheet) in sheets.iter().enumerate() {
            for_each_mark(self.shape, sheet.unwrap_or_default(), |slot, mark| marks[slot][row] = mark);
        }
        Ok(marks.into_iter().map(ranks).collect())
    }
}

fn ranks(mut marks: Vec<u8>) -> ArrayRef {
    let mut nulls = None;
    if marks.iter().any(|mark| !(1..=4).contains(mark)) {
        let present = BooleanBuffer::collect_bool(marks.len(), |row| !matches!(marks[row], ABSENT | NULL));
        nulls = Some(NullBuffer::new(present)).filter(|nulls| nulls.null_count() > 0);
        marks.iter_mut().filter(|mark| **mark == OUT_OF_RANGE).for_each(|mark| *mark = 0);
    }
    Arc::new(UInt8Array::new(marks.into(), nulls))
}
