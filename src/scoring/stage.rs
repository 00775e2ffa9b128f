//! What a stage is: columns read, columns added, one pure method.

use std::fmt;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, FieldRef, Schema};
use arrow::error::ArrowError;

use crate::model::result;

/// A column that a stage reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The column's name.
    pub name: String,
    /// The types it may have.
    pub accepts: Accepts,
}

/// The types that a stage accepts in a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepts {
    /// Exactly this type: a column that another stage added.
    Exactly(DataType),
    /// An integer of any width, or a float or text that holds one: a rank or a ranking code as a file has it.
    Integers,
}

impl Read {
    /// A scored column, which has the type that [`result::column_type`] states.
    pub fn result(name: impl Into<String>) -> Read {
        let name = name.into();
        let data_type = result::column_type(&name).unwrap_or(DataType::Null);
        Read { name, accepts: Accepts::Exactly(data_type) }
    }

    /// A column that must have exactly this type.
    pub fn exactly(name: impl Into<String>, data_type: DataType) -> Read {
        Read { name: name.into(), accepts: Accepts::Exactly(data_type) }
    }

    /// A column of ranks or codes as a file has it.
    pub fn integers(name: impl Into<String>) -> Read {
        Read { name: name.into(), accepts: Accepts::Integers }
    }
}

impl Accepts {
    /// Whether a column of this type can be read.
    pub fn includes(&self, data_type: &DataType) -> bool {
        match self {
            Accepts::Exactly(expected) => expected == data_type,
            Accepts::Integers => {
                data_type.is_integer()
                    || matches!(data_type, DataType::Float32 | DataType::Float64)
                    || matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
            }
        }
    }
}

impl fmt::Display for Accepts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Accepts::Exactly(data_type) => write!(f, "{data_type}"),
            Accepts::Integers => f.write_str("an integer"),
        }
    }
}

/// Why a stage cannot work on its input. These are faults of a plan or of a file's schema, never of one session.
#[derive(Debug, thiserror::Error)]
pub enum ScoringError {
    /// The input has no column of this name.
    #[error("{stage} needs the column '{column}', which the input does not have")]
    MissingColumn {
        /// The stage that reads it.
        stage: &'static str,
        /// The missing column.
        column: String,
    },
    /// A column has a type that the stage cannot read.
    #[error("{stage} cannot read the column '{column}' of type {found}: it must be {expected}")]
    ColumnType {
        /// The stage that reads it.
        stage: &'static str,
        /// The column.
        column: String,
        /// The type it has.
        found: DataType,
        /// The type it must have.
        expected: Accepts,
    },
    /// A column that a stage adds exists already.
    #[error("{stage} adds the column '{column}', which the input has already: rename it with --column")]
    ColumnExists {
        /// The stage that adds it.
        stage: &'static str,
        /// The column.
        column: String,
    },
    /// An array could not be built.
    #[error("an array could not be built")]
    Arrow(#[from] ArrowError),
}

/// A scoring stage: one pure step from columns to columns.
pub trait Stage: fmt::Debug + Send + Sync {
    /// The stage's name, as it stands in plans and in `error_stage`.
    fn name(&self) -> &'static str;

    /// The columns that [`evaluate`](Stage::evaluate) takes, in its order. There is at least one.
    fn reads(&self) -> Vec<Read>;

    /// The columns that [`evaluate`](Stage::evaluate) returns, in its order.
    fn adds(&self) -> Vec<FieldRef>;

    /// Computes the added columns. The arrays are of one length, which is that of every returned array.
    fn evaluate(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>, ScoringError>;
}

/// Checks that a schema has the columns that a stage reads and not those it adds; returns the indices of the former.
pub fn check_inputs(
    stage: &'static str,
    reads: &[Read],
    adds: &[FieldRef],
    input: &Schema,
) -> Result<Vec<usize>, ScoringError> {
    if let Some(field) = adds.iter().find(|field| input.column_with_name(field.name()).is_some()) {
        return Err(ScoringError::ColumnExists { stage, column: field.name().clone() });
    }
    let index = |read: &Read| {
        let Some((index, field)) = input.column_with_name(&read.name) else {
            return Err(ScoringError::MissingColumn { stage, column: read.name.clone() });
        };
        let found = field.data_type();
        if !read.accepts.includes(found) {
            let (column, found, expected) = (read.name.clone(), found.clone(), read.accepts.clone());
            return Err(ScoringError::ColumnType { stage, column, found, expected });
        }
        Ok(index)
    };
    reads.iter().map(index).collect()
}

/// The field of a column that lives inside a plan only.
pub(super) fn internal_field(name: String, data_type: DataType) -> FieldRef {
    Field::new(name, data_type, true).into()
}

/// The fields of scored columns.
pub(super) fn result_fields<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<FieldRef> {
    names.into_iter().filter_map(result::column_field).collect()
}

/// The nulls of every score column: the sessions that are not `ok`. `None` when all are.
pub(super) fn nulls_of(ok: &ArrayRef) -> Option<NullBuffer> {
    let nulls = NullBuffer::new(ok.as_boolean().values().clone());
    (nulls.null_count() > 0).then_some(nulls)
}

/// The values of a primitive column, null slots included.
pub(super) fn values<T: ArrowPrimitiveType>(column: &ArrayRef) -> &[T::Native] {
    column.as_primitive::<T>().values()
}

/// A primitive column from its values and the shared nulls.
pub(super) fn primitive<T: ArrowPrimitiveType>(values: Vec<T::Native>, nulls: Option<&NullBuffer>) -> ArrayRef {
    std::sync::Arc::new(PrimitiveArray::<T>::new(values.into(), nulls.cloned()))
}
