//! Sessions as the columns of a file: any type, null slots that hold valid-looking values, slices of longer arrays.

use std::sync::Arc;

use arrow::array::{ArrayRef, PrimitiveArray, StringArray, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use proptest::prelude::*;

use crate::model::session::{items, packed_column, wide_column};
use crate::model::{Layout, Mode};
use crate::scoring::tests::session::{CONTEXTS, Entry, STYLE_ITEMS, Session};
use crate::scoring::tests::table::Table;
use crate::scoring::{LONG_FAULT, encode_long_fault};

/// Every type that a rank column may have.
pub(super) const TYPES: [DataType; 13] = [
    DataType::Int8,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::UInt8,
    DataType::UInt16,
    DataType::UInt32,
    DataType::UInt64,
    DataType::Float32,
    DataType::Float64,
    DataType::Utf8,
    DataType::LargeUtf8,
    DataType::Utf8View,
];

/// The types of the rank columns of one file, one after the other; and how many rows of a longer array precede each column.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub(super) types: Vec<DataType>,
    pub(super) offset: usize,
}

/// A file whose columns are all of one type, or each of its own.
pub(super) fn form() -> impl Strategy<Value = Form> {
    let one = prop::sample::select(TYPES.to_vec()).prop_map(|data_type| vec![data_type]);
    let own = prop::collection::vec(prop::sample::select(TYPES.to_vec()), 1..20);
    (prop_oneof![2 => one, 1 => own], 0usize..11).prop_map(|(types, offset)| Form { types, offset })
}

/// What a column of a type makes of an entry: one that it cannot express is missing.
fn expressed(entry: Entry, data_type: &DataType) -> Entry {
    let text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let float = matches!(data_type, DataType::Float32 | DataType::Float64);
    let fits = |number: i64| match data_type {
        DataType::Int8 => i8::try_from(number).is_ok(),
        DataType::Int16 => i16::try_from(number).is_ok(),
        DataType::Int32 => i32::try_from(number).is_ok(),
        DataType::UInt8 => u8::try_from(number).is_ok(),
        DataType::UInt16 => u16::try_from(number).is_ok(),
        DataType::UInt32 => u32::try_from(number).is_ok(),
        DataType::UInt64 => number >= 0,
        _ => true,
    };
    match entry {
        Entry::Unreadable if text || float => entry,
        Entry::Number(number) if fits(number) => entry,
        _ => Entry::Missing,
    }
}

impl Form {
    fn type_of(&self, column: usize) -> &DataType {
        &self.types[column % self.types.len()]
    }

    /// The sessions as this file can express them.
    pub(super) fn express(&self, sessions: &[Session]) -> Vec<Session> {
        let express = |session: &Session| {
            let mut session = session.clone();
            for (column, entry) in session.items.iter_mut().flatten().enumerate() {
                *entry = expressed(*entry, self.type_of(column));
            }
            session
        };
        sessions.iter().map(express).collect()
    }

    /// The columns of expressible sessions.
    pub(super) fn table(&self, layout: Layout, sessions: &[Session]) -> Table {
        let places = items(STYLE_ITEMS, CONTEXTS);
        let names: Vec<String> = match layout {
            Layout::Packed => places.map(|(part, item)| packed_column(part, item)).collect(),
            Layout::Wide | Layout::Long => {
                places.flat_map(|(part, item)| Mode::ALL.map(|mode| wide_column(part, item, mode))).collect()
            }
        };
        let rows: Vec<Vec<Entry>> = sessions.iter().map(|session| session.items.concat()).collect();
        let table = Table::new(names.into_iter().enumerate().map(|(column, name)| {
            let entries = rows.iter().map(|row| row[column]);
            let before = std::iter::repeat_n(Entry::Number(3), self.offset);
            let after = std::iter::repeat_n(Entry::Missing, 2);
            let longer: Vec<Entry> = before.chain(entries).chain(after).collect();
            (name, column_of(&longer, self.type_of(column)).slice(self.offset, rows.len()))
        }));
        if layout != Layout::Long {
            return table;
        }
        let earliest = |session: &Session| session.row_faults.iter().map(encode_long_fault).min();
        table.with(LONG_FAULT, sessions.iter().map(earliest).collect::<UInt32Array>())
    }
}

/// A column of a type from expressible entries.
pub(super) fn column_of(entries: &[Entry], data_type: &DataType) -> ArrayRef {
    match data_type {
        DataType::Int8 => primitive_of::<Int8Type>(entries, |number| number as i8),
        DataType::Int16 => primitive_of::<Int16Type>(entries, |number| number as i16),
        DataType::Int32 => primitive_of::<Int32Type>(entries, |number| number as i32),
        DataType::Int64 => primitive_of::<Int64Type>(entries, |number| number),
        DataType::UInt8 => primitive_of::<UInt8Type>(entries, |number| number as u8),
        DataType::UInt16 => primitive_of::<UInt16Type>(entries, |number| number as u16),
        DataType::UInt32 => primitive_of::<UInt32Type>(entries, |number| number as u32),
        DataType::UInt64 => primitive_of::<UInt64Type>(entries, |number| number as u64),
        DataType::Float32 => primitive_of::<Float32Type>(entries, |number| float_of(number) as f32),
        DataType::Float64 => primitive_of::<Float64Type>(entries, float_of),
        text => {
            let strings: StringArray = entries.iter().enumerate().map(|(row, entry)| text_of(row, *entry)).collect();
            cast(&strings, text).unwrap()
        }
    }
}

/// Stands for what is no whole number in `primitive_of`.
const UNREADABLE: i64 = i64::MAX;

fn float_of(number: i64) -> f64 {
    if number == UNREADABLE { 2.5 } else { number as f64 }
}

/// A primitive column whose null slots hold 1 to 4.
fn primitive_of<T: ArrowPrimitiveType>(entries: &[Entry], native: impl Fn(i64) -> T::Native) -> ArrayRef {
    let number = |(row, entry): (usize, &Entry)| match *entry {
        Entry::Number(number) => native(number),
        Entry::Missing => native(1 + row as i64 % 4),
        Entry::Unreadable => native(UNREADABLE),
    };
    let numbers: Vec<T::Native> = entries.iter().enumerate().map(number).collect();
    let nulls = NullBuffer::from_iter(entries.iter().map(|entry| *entry != Entry::Missing));
    Arc::new(PrimitiveArray::<T>::new(numbers.into(), Some(nulls)))
}

/// An entry as files write it; spaces around a number do not matter, and blank text is missing.
fn text_of(row: usize, entry: Entry) -> Option<String> {
    match entry {
        Entry::Missing => [None, Some(String::new()), Some("  ".to_owned())][row % 3].clone(),
        Entry::Number(number) => Some([format!("{number}"), format!(" {number}\t")][row % 2].clone()),
        Entry::Unreadable => Some(["2.5", "four", "-", "0x3"][row % 4].to_owned()),
    }
}
