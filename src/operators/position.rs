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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::{AsArray, Int8Array, RecordBatch};
    use arrow::datatypes::{Schema, UInt64Type};
    use datafusion::datasource::memory::MemorySourceConfig;
    use datafusion::physical_plan::ExecutionPlan as _;
    use futures::TryStreamExt as _;

    use super::*;
    use crate::operators::StageExec;

    #[tokio::test]
    async fn positions_ascend_over_batches_partitions_and_pieces() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int8, false)]));
        let batch =
            |rows: usize| RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int8Array::from(vec![0; rows]))]);
        let partitions = [vec![batch(2).unwrap(), batch(1).unwrap()], vec![batch(2).unwrap()]];
        let input = MemorySourceConfig::try_new_exec(&partitions, Arc::clone(&schema), None).unwrap();
        let stage = PositionStage::new(5, Arc::clone(&schema.fields()[0]));
        let plan = StageExec::try_new(input, Arc::new(stage)).unwrap();
        let mut positions = Vec::new();
        for partition in 0..2 {
            let batches: Vec<RecordBatch> =
                plan.execute(partition, Arc::default()).unwrap().try_collect().await.unwrap();
            for batch in batches {
                positions.extend(batch.column(1).as_primitive::<UInt64Type>().values().to_vec());
            }
        }
        assert_eq!(positions, [5 << 40, (5 << 40) + 1, (5 << 40) + 2, 6 << 40, (6 << 40) + 1]);
    }
}
