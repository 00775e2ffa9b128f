//! Cells of the columns that files have: ranks, ranking codes and item numbers as integers of any width, floats or text.

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};

use crate::scoring::ScoringError;
use crate::scoring::stage::values;

/// The byte of a null and of what is no whole number.
const NO_NUMBER: u8 = u8::MAX;

/// A column of numbers as bytes: each number from 0 to 100 as itself; any other one, a null, and what is no whole number as a
/// byte above 100.
pub(crate) fn bytes_of(column: &ArrayRef) -> Result<Cow<'_, [u8]>, ScoringError> {
    fn narrow<T: ArrowPrimitiveType>(column: &ArrayRef, byte: impl Fn(T::Native) -> u8) -> Cow<'_, [u8]> {
        values::<T>(column).iter().map(|&value| byte(value)).collect()
    }
    // Numbers below zero become bytes above 127. Clamping small signed numbers is one instruction for eight of them; 64-bit
    // ones are only compared as unsigned ones fast.
    let bytes = match column.data_type() {
        DataType::UInt8 => Cow::Borrowed(values::<UInt8Type>(column)),
        DataType::UInt16 => narrow::<UInt16Type>(column, |value| value.min(255) as u8),
        DataType::UInt32 => narrow::<UInt32Type>(column, |value| value.min(255) as u8),
        DataType::UInt64 => narrow::<UInt64Type>(column, |value| value.min(255) as u8),
        DataType::Int8 => narrow::<Int8Type>(column, |value| value as u8),
        DataType::Int16 => narrow::<Int16Type>(column, |value| value.clamp(-128, 127) as u8),
        DataType::Int32 => narrow::<Int32Type>(column, |value| value.clamp(-128, 127) as u8),
        DataType::Int64 => narrow::<Int64Type>(column, |value| (value as u64).min(255) as u8),
        // A column of integers with gaps often reaches a file as floats.
        DataType::Float32 | DataType::Float64 => {
            let floats = cast(column, &DataType::Float64)?;
            values::<Float64Type>(&floats).iter().map(|&value| whole(value)).collect()
        }
        DataType::Utf8View => column.as_string_view().iter().map(number).collect(),
        _ => numbers(cast(column, &DataType::Utf8)?.as_string()).into(),
    };
    let Some(nulls) = column.nulls().filter(|nulls| nulls.null_count() > 0) else {
        return Ok(bytes);
    };
    let mut bytes = bytes.into_owned();
    for row in (!nulls.inner()).set_indices() {
        bytes[row] = NO_NUMBER;
    }
    Ok(Cow::Owned(bytes))
}

/// The number that a float is, if it is one of a byte's.
fn whole(value: f64) -> u8 {
    // Where floats are one apart, the last byte of one is that of its number. A cast would do, but not for eight values at once.
    const ONE_APART: f64 = (1_u64 << 52) as f64;
    let byte = (value + ONE_APART).to_bits() as u8;
    if f64::from(byte) == value { byte } else { NO_NUMBER }
}

/// The numbers that texts are.
fn numbers(texts: &StringArray) -> Vec<u8> {
    let offsets = texts.value_offsets();
    let first = offsets[0];
    let differ = offsets.iter().zip(first..).fold(0, |differ, (&offset, expected)| differ | (offset ^ expected));
    if differ != 0 {
        return texts.iter().map(number).collect();
    }
    // One character each, as nearly all ranks are.
    let digits = &texts.value_data()[first as usize..][..texts.len()];
    digits.iter().map(|&digit| if digit.is_ascii_digit() { digit - b'0' } else { NO_NUMBER }).collect()
}

/// The number that a text is.
fn number(text: Option<&str>) -> u8 {
    match text.unwrap_or_default().as_bytes() {
        [digit @ b'0'..=b'9'] => digit - b'0',
        // As floats they may be written too: `3.0` is what becomes of a column of integers that has gaps.
        _ => text.and_then(|text| text.trim().parse().ok()).map_or(NO_NUMBER, whole),
    }
}

/// Whether the only cell of a column is null, blank or not a number.
pub(crate) fn is_missing(cell: &ArrayRef) -> Result<bool, ScoringError> {
    Ok(cell.is_null(0)
        || match cell.data_type() {
            DataType::Float32 | DataType::Float64 => {
                values::<Float64Type>(&cast(cell, &DataType::Float64)?)[0].is_nan()
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                cast(cell, &DataType::Utf8View)?.as_string_view().value(0).trim().is_empty()
            }
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use arrow::array::Float64Array;
    use proptest::prelude::*;

    use super::*;

    fn bytes(column: impl Array + 'static) -> Vec<u8> {
        bytes_of(&(Arc::new(column) as ArrayRef)).unwrap().into_owned()
    }

    #[test]
    fn a_text_of_one_character_is_a_number_exactly_if_it_is_a_digit() {
        assert_eq!(bytes(StringArray::from(vec!["0", "4", "9", "x", " ", "-"])), [0, 4, 9, 255, 255, 255]);
        assert_eq!(bytes(StringArray::from(vec!["1", "2", "3"]).slice(1, 2)), [2, 3]);
        assert_eq!(
            bytes(StringArray::from(vec![" 4 ", "3.0", "03", "+2", "2.5", "1e", "nan", "-1"])),
            [4, 3, 3, 2, 255, 255, 255, 255]
        );
        assert_eq!(bytes(StringArray::from(Vec::<&str>::new())), [0; 0]);
    }

    proptest! {
        #[test]
        fn texts_are_the_same_numbers_one_by_one_and_together(
            texts in prop::collection::vec(prop::option::of("[0-9]|[ x0-9.-]{0,3}"), 0..20),
        ) {
            let one_by_one: Vec<u8> = texts.iter().map(|text| number(text.as_deref())).collect();
            prop_assert_eq!(bytes(StringArray::from(texts)), one_by_one);
        }

        #[test]
        fn a_float_is_a_number_exactly_if_it_is_one_of_a_byte(
            value in prop_oneof![(-300..300_i32).prop_map(f64::from), -2.0..8.0_f64, any::<f64>()],
        ) {
            let expected = if (0.0..=255.0).contains(&value) && value.fract() == 0.0 { value as u8 } else { NO_NUMBER };
            prop_assert_eq!(bytes(Float64Array::from(vec![value])), [expected]);
        }
    }
}
