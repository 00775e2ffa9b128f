//! A table that stages are applied to, and its cells as plain values.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema};

use crate::model::result::documented_type;
use crate::scoring::{PercentileInputs, Percentiles, Stage, check_inputs};

/// One cell of a table, in a form that compares exactly.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    /// By its bits: equal means equal to the last one.
    Float(u64),
    Text(String),
    List(Vec<String>),
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Int(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Float(value.to_bits())
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::Text(value.to_owned())
    }
}

impl<const N: usize> From<[&str; N]> for Value {
    fn from(value: [&str; N]) -> Value {
        Value::List(value.map(str::to_owned).to_vec())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

/// Values of one column.
pub(super) fn values<T: Into<Value>>(cells: impl IntoIterator<Item = T>) -> Vec<Value> {
    cells.into_iter().map(Into::into).collect()
}

/// Named columns of one length.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    columns: BTreeMap<String, ArrayRef>,
}

impl Table {
    pub(super) fn new(columns: impl IntoIterator<Item = (String, ArrayRef)>) -> Table {
        Table { columns: columns.into_iter().collect() }
    }

    pub(super) fn with(mut self, name: &str, column: impl Array + 'static) -> Table {
        self.columns.insert(name.to_owned(), Arc::new(column));
        self
    }

    pub(super) fn get(&self, name: &str) -> &ArrayRef {
        self.columns.get(name).unwrap_or_else(|| panic!("no column '{name}' in {:?}", self.columns.keys()))
    }

    /// Adds a stage's columns, having checked that they are what the stage declares.
    pub(super) fn apply(self, stage: &dyn Stage) -> Table {
        let reads: Vec<_> = stage.reads();
        check_inputs(stage.name(), &reads, &stage.adds(), &self.schema()).expect("the stage can read the table");
        let input: Vec<ArrayRef> = reads.iter().map(|read| Arc::clone(self.get(&read.name))).collect();
        let added = stage.evaluate(&input).expect("the stage succeeds");
        self.extend(stage.adds(), added)
    }

    pub(super) fn apply_percentiles(self, kernel: &Percentiles, inputs: PercentileInputs<'_>) -> Table {
        let reads = kernel.reads();
        check_inputs(Percentiles::NAME, &reads, &kernel.adds(), &self.schema()).expect("the stage can read the table");
        let input: Vec<ArrayRef> = reads.iter().map(|read| Arc::clone(self.get(&read.name))).collect();
        let added = kernel.evaluate(&input, inputs).expect("the stage succeeds");
        self.extend(kernel.adds(), added)
    }

    fn schema(&self) -> Schema {
        let field = |(name, column): (&String, &ArrayRef)| Field::new(name, column.data_type().clone(), true);
        Schema::new(self.columns.iter().map(field).collect::<Vec<_>>())
    }

    fn extend(mut self, fields: Vec<arrow::datatypes::FieldRef>, added: Vec<ArrayRef>) -> Table {
        let rows = self.columns.values().next().expect("a table has columns").len();
        assert_eq!(fields.len(), added.len());
        for (field, column) in fields.iter().zip(added) {
            assert_eq!(column.data_type(), field.data_type(), "type of {}", field.name());
            assert_eq!(column.len(), rows, "length of {}", field.name());
            assert!(field.is_nullable() || column.null_count() == 0, "nulls of {}", field.name());
            column.to_data().validate_full().unwrap_or_else(|error| panic!("{}: {error}", field.name()));
            self.columns.insert(field.name().clone(), column);
        }
        self
    }

    /// Rows of the table, as a slice of every column.
    pub(super) fn slice(&self, offset: usize, rows: usize) -> Table {
        Table::new(self.columns.iter().map(|(name, column)| (name.clone(), column.slice(offset, rows))))
    }

    /// The cells of a column, seen through its documented type.
    pub(super) fn read(&self, name: &str) -> Vec<Value> {
        let column = self.get(name);
        let column = cast(column, &documented_type(column.data_type())).unwrap();
        (0..column.len()).map(|row| if column.is_null(row) { Value::Null } else { cell(&column, row) }).collect()
    }
}

fn cell(column: &ArrayRef, row: usize) -> Value {
    match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            Value::List(
                items.as_string::<i32>().iter().map(|item| item.expect("no null in a list").to_owned()).collect(),
            )
        }
        integer => {
            assert!(integer.is_integer(), "{integer}");
            cast(&column.slice(row, 1), &DataType::Int64).unwrap().as_primitive::<Int64Type>().value(0).into()
        }
    }
}
