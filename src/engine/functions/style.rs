//! `learning_style(acce, aero)` and `backup_style(acce, aero)`.

use std::sync::LazyLock;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::engine::functions::{FunctionInfo, Rules, columns, names, result};

pub(super) const LEARNING_STYLE: FunctionInfo = FunctionInfo {
    name: "learning_style",
    syntax: "learning_style(acce integer, aero integer) -> text",
    description: "The style whose windows hold the two combination scores.",
};

pub(super) const BACKUP_STYLE: FunctionInfo = FunctionInfo {
    name: "backup_style",
    syntax: "backup_style(acce integer, aero integer) -> text",
    description: "The other style whose windows are nearest to the two combination scores; of equally near ones the first by name.",
};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct StyleOf {
    is_backup: bool,
    rules: Rules,
    signature: Signature,
}

impl StyleOf {
    pub(super) fn learning(rules: Rules) -> Self {
        StyleOf {
            is_backup: false,
            rules,
            signature: Signature::exact(vec![DataType::Int64; 2], Volatility::Immutable),
        }
    }

    pub(super) fn backup(rules: Rules) -> Self {
        StyleOf { is_backup: true, ..StyleOf::learning(rules) }
    }
}

impl ScalarUDFImpl for StyleOf {
    fn name(&self) -> &str {
        if self.is_backup { BACKUP_STYLE.name } else { LEARNING_STYLE.name }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [acce, aero] = columns(&args, [&DataType::Int64; 2])?;
        let scores = acce.as_primitive::<Int64Type>().iter().zip(aero.as_primitive::<Int64Type>());
        let style = |(acce, aero): (Option<i64>, Option<i64>)| {
            // Windows are open outwards: what no instrument can give falls into the outermost, as far as 16 bits and a sum go.
            let [acce, aero] = [acce?, aero?].map(|score| score.clamp(-10_000, 10_000) as i16);
            Some(if self.is_backup { self.rules.backup_style_of(acce, aero) } else { self.rules.style_of(acce, aero) })
        };
        let column = names(scores.map(style), &self.rules.style_names);
        result(&args, column)
    }

    fn documentation(&self) -> Option<&Documentation> {
        static DOCUMENTATION: LazyLock<[Documentation; 2]> =
            LazyLock::new(|| [LEARNING_STYLE, BACKUP_STYLE].map(|info| info.documentation()));
        Some(&DOCUMENTATION[usize::from(self.is_backup)])
    }
}
