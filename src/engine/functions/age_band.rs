//! `age_band(dob, at)`.

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Date32Type};
use datafusion::common::types::{NativeType, logical_date, logical_string};
use datafusion::error::Result;
use datafusion::logical_expr::{
    Coercion, ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignatureClass,
    Volatility,
};

use crate::engine::functions::{FunctionInfo, Rules, columns, names, result};
use crate::scoring::AgeBands;

pub(super) const INFO: FunctionInfo = FunctionInfo {
    name: "age_band",
    syntax: "age_band(dob date, at date) -> text",
    description: "The age band of somebody born on one day at another, in completed years; null if not born yet.",
};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct AgeBand {
    rules: Rules,
    signature: Signature,
}

impl AgeBand {
    pub(super) fn new(rules: Rules) -> Self {
        let date = Coercion::new_implicit(
            TypeSignatureClass::Native(logical_date()),
            vec![TypeSignatureClass::Native(logical_string()), TypeSignatureClass::Timestamp],
            NativeType::Date,
        );
        AgeBand { rules, signature: Signature::coercible(vec![date; 2], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for AgeBand {
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
        let [born, at] = columns(&args, [&DataType::Date32; 2])?;
        let bands = AgeBands::new(&self.rules);
        let days = born.as_primitive::<Date32Type>().iter().zip(at.as_primitive::<Date32Type>());
        let band_names: Vec<String> = self.rules.age_bands.iter().map(|band| band.name.clone()).collect();
        let column = names(days.map(|(born, at)| bands.band(born?, at?)), &band_names);
        result(&args, column)
    }

    fn documentation(&self) -> Option<&Documentation> {
        static DOCUMENTATION: std::sync::LazyLock<Documentation> = std::sync::LazyLock::new(|| INFO.documentation());
        Some(&DOCUMENTATION)
    }
}
