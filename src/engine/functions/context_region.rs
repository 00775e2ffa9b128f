//! `context_region(ce, ro, ac, ae)`.

use std::sync::LazyLock;

use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::engine::functions::ranks::codes_of_ranks;
use crate::engine::functions::{FunctionInfo, Rules, names, result};

pub(super) const INFO: FunctionInfo = FunctionInfo {
    name: "context_region",
    syntax: "context_region(ce integer, ro integer, ac integer, ae integer) -> text",
    description: "The region of the grid that the ranks of one learning context belong to; null if they are no ranking.",
};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ContextRegion {
    rules: Rules,
    signature: Signature,
}

impl ContextRegion {
    pub(super) fn new(rules: Rules) -> Self {
        ContextRegion { rules, signature: Signature::exact(vec![DataType::Int64; 4], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ContextRegion {
    fn name(&self) -> &str {
        INFO.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let regions = codes_of_ranks(&args)?.into_iter().map(|code| Some(self.rules.regions[usize::from(code?)]));
        let column = names(regions, &self.rules.style_names);
        result(&args, column)
    }

    fn documentation(&self) -> Option<&Documentation> {
        static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| INFO.documentation());
        Some(&DOCUMENTATION)
    }
}
