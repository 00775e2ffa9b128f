//! Rank rows as slots and marks: what a row's part, item, mode and rank say, column by column.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};

use crate::model::session::Part;
use crate::model::{Fault, FaultCode, Mode};
use crate::operators::assemble::sheet::{NULL, OUT_OF_RANGE, RankSheet, SheetShape};
use crate::operators::stage_exec::external;
use crate::scoring::{bytes_of, is_missing};

/// In place of a slot: the row belongs to no item.
const UNKNOWN_ITEM: u16 = u16::MAX;
/// Added to the first slot of an item: the row names no mode.
const UNKNOWN_MODE: u16 = 1 << 15;

/// The parts, as [`codes`] numbers them; any other number is none of them.
const PARTS: [Part; 2] = [Part::Style, Part::Context];

/// The rows of a batch, read. The vectors are kept from batch to batch.
#[derive(Debug)]
pub(super) struct RankRows {
    shape: SheetShape,
    slots: Vec<u16>,
    marks: Vec<u8>,
    parts: Vec<u8>,
    items: Vec<u8>,
    modes: Vec<u8>,
}

impl RankRows {
    pub(super) fn new(shape: SheetShape) -> Self {
        RankRows { shape, slots: vec![], marks: vec![], parts: vec![], items: vec![], modes: vec![] }
    }

    /// Reads the rows of a batch from its columns. Part and mode are strings of any encoding, item and rank integers in any form.
    pub(super) fn read(&mut self, part: &ArrayRef, item: &ArrayRef, mode: &ArrayRef, rank: &ArrayRef) -> Result<()> {
        let part_of = |text: &str| PARTS.iter().position(|part| part.name().eq_ignore_ascii_case(text));
        let mode_of = |text: &str| Mode::from_code(text).map(|mode| mode as usize);
        codes(part, part_of, &mut self.parts)?;
        codes(mode, mode_of, &mut self.modes)?;
        // An instrument has at most 60 items in a part, so no item is out of a byte.
        let most_items = PARTS.map(|part| self.shape.items_of(part) as u8);
        self.items.clear();
        self.items.extend_from_slice(&bytes_of(item).map_err(external)?);
        self.marks.clear();
        let mark = |&rank: &u8| if (1..=4).contains(&rank) { rank } else { OUT_OF_RANGE };
        self.marks.extend(bytes_of(rank).map_err(external)?.iter().map(mark));
        for (row, mark) in self.marks.iter_mut().enumerate().filter(|(_, mark)| **mark == OUT_OF_RANGE) {
            if is_missing(&rank.slice(row, 1)).map_err(external)? {
                *mark = NULL;
            }
        }
        let first_slots = PARTS.map(|part| self.shape.first_slot(part, 1) as u16);
        self.slots.clear();
        self.slots.extend(self.parts.iter().zip(&self.items).zip(&self.modes).map(|((&part, &item), &mode)| {
            let part = usize::from(part);
            if part >= PARTS.len() || item == 0 || item > most_items[part] {
                return UNKNOWN_ITEM;
            }
            let first = first_slots[part] + u16::from(item - 1) * Mode::ALL.len() as u16;
            if usize::from(mode) < Mode::ALL.len() { first + u16::from(mode) } else { first | UNKNOWN_MODE }
        }));
        Ok(())
    }

    /// Enters rows of the batch that was read last into the sheet of their session.
    pub(super) fn enter(&self, rows: std::ops::Range<usize>, sheet: &mut RankSheet) {
        for (&slot, &mark) in self.slots[rows.clone()].iter().zip(&self.marks[rows]) {
            if slot < UNKNOWN_MODE {
                sheet.mark(usize::from(slot), mark);
            } else if slot == UNKNOWN_ITEM {
                sheet.fail(&Fault { code: FaultCode::UnknownItem, item: None, mode: None });
            } else {
                let item = Some(self.shape.item_at(usize::from(slot - UNKNOWN_MODE)));
                sheet.fail(&Fault { code: FaultCode::UnknownMode, item, mode: None });
            }
        }
    }
}

/// A code that is none: the text is null or no name.
const NO_CODE: u8 = u8::MAX;

/// The code of each text of a column, [`NO_CODE`] for a null and a text without one. Blanks around a text do not count.
fn codes(column: &ArrayRef, code_of: impl Fn(&str) -> Option<usize> + Copy, codes: &mut Vec<u8>) -> Result<()> {
    let code = |text: Option<&str>| text.and_then(|text| code_of(text.trim())).map_or(NO_CODE, |code| code as u8);
    codes.clear();
    match column.data_type() {
        DataType::Utf8 => codes.extend(column.as_string::<i32>().iter().map(code)),
        DataType::LargeUtf8 => codes.extend(column.as_string::<i64>().iter().map(code)),
        DataType::Utf8View => codes.extend(column.as_string_view().iter().map(code)),
        DataType::Dictionary(_, _) => {
            let dictionary = column.as_any_dictionary();
            if dictionary.values().is_empty() {
                codes.resize(column.len(), NO_CODE);
                return Ok(());
            }
            let mut of_values = Vec::new();
            self::codes(dictionary.values(), code_of, &mut of_values)?;
            codes.extend(dictionary.normalized_keys().into_iter().map(|key| of_values[key]));
            if let Some(nulls) = column.nulls().filter(|nulls| nulls.null_count() > 0) {
                for (code, valid) in codes.iter_mut().zip(nulls) {
                    if !valid {
                        *code = NO_CODE;
                    }
                }
            }
        }
        other => return Err(DataFusionError::Internal(format!("a column of type {other} is read as names"))),
    }
    Ok(())
}

/// Whether a column can be read as names of parts or modes.
pub(super) fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_text(values),
        other => matches!(other, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use arrow::array::{DictionaryArray, LargeStringArray, StringArray, StringViewArray};
    use arrow::datatypes::Int8Type;

    use super::*;

    #[test]
    fn names_are_read_from_every_encoding_of_strings() {
        let texts = [Some("CE"), Some("ae"), None, Some("XX"), Some(" Ro "), Some("")];
        let dictionary: DictionaryArray<Int8Type> = texts.into_iter().collect();
        let columns: [ArrayRef; 4] = [
            Arc::new(StringArray::from_iter(texts)),
            Arc::new(LargeStringArray::from_iter(texts)),
            Arc::new(StringViewArray::from_iter(texts)),
            Arc::new(dictionary),
        ];
        for column in columns {
            let mut modes = vec![7];
            codes(&column, |text| Mode::from_code(text).map(|mode| mode as usize), &mut modes).unwrap();
            assert_eq!(modes, [0, 3, NO_CODE, NO_CODE, 1, NO_CODE], "{}", column.data_type());
            assert!(is_text(column.data_type()));
        }
    }

    #[test]
    fn a_dictionary_of_nothing_but_nulls_names_nothing() {
        let nulls: DictionaryArray<Int8Type> = [None::<&str>, None].into_iter().collect();
        let mut modes = Vec::new();
        codes(&(Arc::new(nulls) as ArrayRef), |_| Some(0), &mut modes).unwrap();
        assert_eq!(modes, [NO_CODE, NO_CODE]);
    }
}
