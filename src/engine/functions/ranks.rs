//! `pack_ranks(ce, ro, ac, ae)` and `unpack_ranks(code)`: the codes of the packed layout.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, ListBuilder, UInt8Array, UInt8Builder};
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::engine::functions::{FunctionInfo, columns, result};
use crate::model::permutation::{RANKS, code_of};

pub(super) const PACK_RANKS: FunctionInfo = FunctionInfo {
    name: "pack_ranks",
    syntax: "pack_ranks(ce integer, ro integer, ac integer, ae integer) -> integer",
    description: "The code, 0 to 23, of a ranking in the packed layout; null if the ranks are no ranking.",
};

pub(super) const UNPACK_RANKS: FunctionInfo = FunctionInfo {
    name: "unpack_ranks",
    syntax: "unpack_ranks(code integer) -> list of integers",
    description: "The ranks of a code of the packed layout, in the order CE, RO, AC, AE; null if there is no such code.",
};

/// The codes of four columns of ranks; `None` where they are no ranking.
pub(super) fn codes_of_ranks(args: &ScalarFunctionArgs) -> Result<Vec<Option<u8>>> {
    let [ce, ro, ac, ae] = columns(args, [&DataType::Int64; 4])?;
    let ranks = [&ce, &ro, &ac, &ae].map(|column| column.as_primitive::<Int64Type>());
    let rank = |mode: usize, row: usize| {
        let column = ranks[mode];
        column.is_valid(row).then(|| u8::try_from(column.value(row)).ok()).flatten()
    };
    let code = |row| code_of([rank(0, row)?, rank(1, row)?, rank(2, row)?, rank(3, row)?]);
    Ok((0..ce.len()).map(code).collect())
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct PackRanks {
    signature: Signature,
}

impl PackRanks {
    pub(super) fn new() -> Self {
        PackRanks { signature: Signature::exact(vec![DataType::Int64; 4], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for PackRanks {
    fn name(&self) -> &str {
        PACK_RANKS.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::UInt8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let codes: UInt8Array = codes_of_ranks(&args)?.into_iter().collect();
        result(&args, Arc::new(codes))
    }

    fn documentation(&self) -> Option<&Documentation> {
        static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| PACK_RANKS.documentation());
        Some(&DOCUMENTATION)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct UnpackRanks {
    signature: Signature,
}

impl UnpackRanks {
    pub(super) fn new() -> Self {
        UnpackRanks { signature: Signature::exact(vec![DataType::Int64], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for UnpackRanks {
    fn name(&self) -> &str {
        UNPACK_RANKS.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new_list_field(DataType::UInt8, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [codes] = columns(&args, [&DataType::Int64])?;
        let codes = codes.as_primitive::<Int64Type>();
        let mut ranks = ListBuilder::with_capacity(UInt8Builder::with_capacity(4 * codes.len()), codes.len());
        for code in codes {
            match code.and_then(|code| RANKS.get(usize::try_from(code).ok()?)) {
                Some(ranking) => {
                    ranks.values().append_slice(ranking);
                    ranks.append(true);
                }
                None => ranks.append(false),
            }
        }
        result(&args, Arc::new(ranks.finish()))
    }

    fn documentation(&self) -> Option<&Documentation> {
        static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| UNPACK_RANKS.documentation());
        Some(&DOCUMENTATION)
    }
}
