//! `norm_table(raw)`: the percentile of each raw score among those of a group, the building block of norm tables.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, StructArray, UInt64Array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type, UInt64Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Documentation, Signature, Volatility};

use crate::engine::functions::FunctionInfo;

pub(super) const INFO: FunctionInfo = FunctionInfo {
    name: "norm_table",
    syntax: "norm_table(raw integer) -> list of {raw_score, frequency, percentile}",
    description: "Aggregate: each raw score with how often it occurs and the percentage of scores up to and with it, ascending. \
                  unnest() makes rows of it.",
};

/// Memory: an entry for each distinct raw score.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct NormTable {
    signature: Signature,
}

impl NormTable {
    pub(super) fn new() -> Self {
        NormTable { signature: Signature::exact(vec![DataType::Int64], Volatility::Immutable) }
    }
}

fn row_fields() -> Fields {
    Fields::from(vec![
        Field::new("raw_score", DataType::Int64, false),
        Field::new("frequency", DataType::UInt64, false),
        Field::new("percentile", DataType::Float64, false),
    ])
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

impl AggregateUDFImpl for NormTable {
    fn name(&self) -> &str {
        INFO.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(list_of(DataType::Struct(row_fields())))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field = |suffix: &str, item| Arc::new(Field::new(format!("{}[{suffix}]", args.name), list_of(item), true));
        Ok(vec![field("raw_scores", DataType::Int64), field("frequencies", DataType::UInt64)])
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Frequencies::default()))
    }

    fn documentation(&self) -> Option<&Documentation> {
        static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| INFO.documentation());
        Some(&DOCUMENTATION)
    }
}

/// How often each raw score occurred.
#[derive(Debug, Default)]
struct Frequencies(BTreeMap<i64, u64>);

impl Accumulator for Frequencies {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for raw in values[0].as_primitive::<Int64Type>().iter().flatten() {
            *self.0.entry(raw).or_default() += 1;
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (raws, frequencies) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        for (raws, frequencies) in raws.iter().zip(frequencies.iter()) {
            let (Some(raws), Some(frequencies)) = (raws, frequencies) else { continue };
            let pairs =
                raws.as_primitive::<Int64Type>().values().iter().zip(frequencies.as_primitive::<UInt64Type>().values());
            for (raw, frequency) in pairs {
                *self.0.entry(*raw).or_default() += frequency;
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let raws: ArrayRef = Arc::new(Int64Array::from_iter_values(self.0.keys().copied()));
        let frequencies: ArrayRef = Arc::new(UInt64Array::from_iter_values(self.0.values().copied()));
        Ok(vec![list(raws)?, list(frequencies)?])
    }

    /// The percentile is 100 · cumulative frequency / all, one division of integers each.
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let all: u64 = self.0.values().sum();
        let mut below = 0;
        let percentiles = self.0.values().map(|frequency| {
            below += frequency;
            100.0 * below as f64 / all as f64
        });
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(self.0.keys().copied())),
            Arc::new(UInt64Array::from_iter_values(self.0.values().copied())),
            Arc::new(Float64Array::from_iter_values(percentiles)),
        ];
        list(Arc::new(StructArray::try_new(row_fields(), columns, None)?))
    }

    fn size(&self) -> usize {
        // A node of the tree holds up to eleven entries, and is half full at least.
        size_of::<Self>() + 2 * self.0.len() * size_of::<(i64, u64)>()
    }
}

/// One list of all items.
fn list(items: ArrayRef) -> Result<ScalarValue> {
    let field = Arc::new(Field::new_list_field(items.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths([items.len()]);
    let list = ListArray::try_new(field, offsets, items, None).map_err(DataFusionError::from)?;
    Ok(ScalarValue::List(Arc::new(list)))
}
