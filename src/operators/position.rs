//! [`PositionStage`]: numbers rows in the order of the input, so that the order survives sorting and joining.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::datatypes::{DataType, Field, FieldRef};
use async_trait::async_trait;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;

use crate::operators::stage_exec::{PlanStage, StageWorker};
use crate::scoring::Read;

/// The column of a row's position inside a plan: `UInt64`, never null, ascending in the order of the input.
pub const POSITION: &str = "input_position";

/// Bits of a position that number the rows of a piece.
const ROW_BITS: u32 = 40;

/// Adds [`POSITION`]. The partitions of the plan are consecutive pieces of the input, of fewer than 2^40 rows each; so a row's
/// position does not depend on when its piece is read.
#[derive(Debug, Clone)]
pub struct PositionStage {
    first_piece: usize,
    counted: FieldRef,
}

impl PositionStage {
    /// Numbers the rows of pieces of which the first is the piece `first_piece` of the whole input. `counted` is any column.
    pub fn new(first_piece: usize, counted: FieldRef) -> Self {
        PositionStage { first_piece, counted }
    }
}

impl PlanStage for PositionStage {
    fn name(&self) -> &'static str {
        "PositionExec"
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::exactly(self.counted.name(), self.counted.data_type().clone())]
    }

    fn adds(&self) -> Vec<FieldRef> {
        vec![Arc::new(Field::new(POSITION, DataType::UInt64, false))]
    }

    fn start(&self, partition: usize, _: &TaskContext, _: &ExecutionPlanMetricsSet) -> Result<Box<dyn StageWorker>> {
        Ok(Box::new(Positions { next: ((self.first_piece + partition) as u64) << ROW_BITS }))
    }
}

struct Positions {
    next: u64,
}

#[async_trait]
impl StageWorker for Positions {
    async fn evaluate(&mut self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let first = self.next;
        self.next += columns[0].len() as u64;
        Ok(vec![Arc::new(UInt64Array::from_iter_values(first..self.next))])
    }
}
