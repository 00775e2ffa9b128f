//! The columns of one session by name, with the types that stages give them.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int16Type, UInt8Type};
use datafusion::error::Result;

/// The first row of a batch. Asking for a column that is not there is an error of the plan.
#[derive(Clone, Copy)]
pub(super) struct Row<'a>(pub(super) &'a RecordBatch);

impl Row<'_> {
    fn column(&self, name: &str) -> Result<&ArrayRef> {
        Ok(self.0.column(self.0.schema_ref().index_of(name)?))
    }

    /// A score.
    pub(super) fn score(&self, name: &str) -> Result<i16> {
        Ok(self.column(name)?.as_primitive::<Int16Type>().value(0))
    }

    /// A ranking code.
    pub(super) fn code(&self, name: &str) -> Result<u8> {
        Ok(self.column(name)?.as_primitive::<UInt8Type>().value(0))
    }

    pub(super) fn float(&self, name: &str) -> Result<f64> {
        Ok(cast(&self.column(name)?.slice(0, 1), &DataType::Float64)?.as_primitive::<Float64Type>().value(0))
    }

    pub(super) fn boolean(&self, name: &str) -> Result<bool> {
        Ok(self.column(name)?.as_boolean().value(0))
    }

    /// A value of any type as text; `None` for a null.
    pub(super) fn cell(&self, name: &str) -> Result<Option<String>> {
        let text = cast(&self.column(name)?.slice(0, 1), &DataType::Utf8)?;
        let text = text.as_string::<i32>();
        Ok(text.is_valid(0).then(|| text.value(0).to_owned()))
    }

    /// A text; a null is empty.
    pub(super) fn text(&self, name: &str) -> Result<String> {
        Ok(self.cell(name)?.unwrap_or_default())
    }

    /// A list of texts.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>> {
        let items = cast(&self.column(name)?.as_list::<i32>().value(0), &DataType::Utf8)?;
        Ok(items.as_string::<i32>().iter().flatten().map(str::to_owned).collect())
    }
}
