//! `kendall_w(rankings)` and `lfi(rankings)`: agreement of several rankings, and what is missing to it.
//!
//! With rank sums R over m rankings of n = 4 modes and S = Σ(R − 5m/2)², W = S / 5m², and LFI = 1 − W (Legendre 2005). S stays an
//! integer to the last step, here four times S for an odd m.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray};
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::engine::functions::{FunctionInfo, columns, result};
use crate::model::permutation::{RANKS, code_of};

pub(super) const KENDALL_W: FunctionInfo = FunctionInfo {
    name: "kendall_w",
    syntax: "kendall_w(rankings list) -> float",
    description: "Kendall's W of rankings of the four modes, given as codes of the packed layout or as lists of four ranks; \
                  null if one of them is no ranking.",
};

pub(super) const LFI: FunctionInfo = FunctionInfo {
    name: "lfi",
    syntax: "lfi(rankings list) -> float",
    description: "Learning flexibility, 1 − W, of the rankings of learning contexts; see kendall_w.",
};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Flexibility {
    is_lfi: bool,
    signature: Signature,
}

impl Flexibility {
    pub(super) fn kendall_w() -> Self {
        Flexibility { is_lfi: false, signature: Signature::user_defined(Volatility::Immutable) }
    }

    pub(super) fn lfi() -> Self {
        Flexibility { is_lfi: true, ..Flexibility::kendall_w() }
    }
}

/// A list of integers.
fn codes_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)))
}

/// A list of lists of integers.
fn rankings_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(codes_type(), true)))
}

fn item_type(list: &DataType) -> Option<&DataType> {
    match list {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => Some(item.data_type()),
        _ => None,
    }
}

impl ScalarUDFImpl for Flexibility {
    fn name(&self) -> &str {
        if self.is_lfi { LFI.name } else { KENDALL_W.name }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let wrong =
            || DataFusionError::Plan(format!("{} takes one list of codes or of lists of four ranks", self.name()));
        let [list] = types else { return Err(wrong()) };
        match item_type(list) {
            Some(item) if item.is_integer() || *item == DataType::Null => Ok(vec![codes_type()]),
            Some(item) if item_type(item).is_some_and(|rank| rank.is_integer()) => Ok(vec![rankings_type()]),
            None if *list == DataType::Null => Ok(vec![codes_type()]),
            _ => Err(wrong()),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_codes = args.arg_fields.first().is_some_and(|field| *field.data_type() == codes_type());
        let list_type = if is_codes { codes_type() } else { rankings_type() };
        let [lists] = columns(&args, [&list_type])?;
        let lists = lists.as_list::<i32>();
        let rankings = rankings_of(lists, is_codes);
        let value = |row: usize| {
            let (from, to) = (lists.value_offsets()[row] as usize, lists.value_offsets()[row + 1] as usize);
            if lists.is_null(row) || from == to {
                return None;
            }
            let mut sums = [0i64; 4];
            for ranking in &rankings[from..to] {
                for (sum, rank) in sums.iter_mut().zip((*ranking)?) {
                    *sum += i64::from(rank);
                }
            }
            let contexts = (to - from) as i64;
            let four_s: i64 = sums.iter().map(|sum| (2 * sum - 5 * contexts).pow(2)).sum();
            let most = 20 * contexts * contexts;
            let numerator = if self.is_lfi { most - four_s } else { four_s };
            Some(numerator as f64 / most as f64)
        };
        let values: Float64Array = (0..lists.len()).map(value).collect();
        result(&args, Arc::new(values))
    }

    fn documentation(&self) -> Option<&Documentation> {
        static DOCUMENTATION: LazyLock<[Documentation; 2]> =
            LazyLock::new(|| [KENDALL_W, LFI].map(|info| info.documentation()));
        Some(&DOCUMENTATION[usize::from(self.is_lfi)])
    }
}

/// The ranks of each item of all lists, `None` where an item is no ranking.
fn rankings_of(lists: &ListArray, is_codes: bool) -> Vec<Option<[u8; 4]>> {
    let items: &ArrayRef = lists.values();
    if is_codes {
        let codes = items.as_primitive::<Int64Type>();
        return codes.iter().map(|code| RANKS.get(usize::try_from(code?).ok()?).copied()).collect();
    }
    let items = items.as_list::<i32>();
    let ranks: &Int64Array = items.values().as_primitive();
    let rank = |at: usize| ranks.is_valid(at).then(|| u8::try_from(ranks.value(at)).ok()).flatten();
    let ranking = |item: usize| {
        let (from, to) = (items.value_offsets()[item] as usize, items.value_offsets()[item + 1] as usize);
        if items.is_null(item) || to - from != 4 {
            return None;
        }
        let ranking = [rank(from)?, rank(from + 1)?, rank(from + 2)?, rank(from + 3)?];
        code_of(ranking).map(|_| ranking)
    };
    (0..items.len()).map(ranking).collect()
}
