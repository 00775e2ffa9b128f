//! The ranks of one session on their way from rows to columns: a mark per rank, and how marks travel in a column.

use arrow::array::{BinaryBuilder, UInt32Builder};

use crate::instrument::Instrument;
use crate::model::session::{Part, items, wide_column};
use crate::model::{Fault, FaultCode, Mode};
use crate::scoring::encode_long_fault;

/// No row ranks the mode. Marks 1 to 4 are ranks.
pub(super) const ABSENT: u8 = 0;
/// A row ranks the mode, but not with a whole number from 1 to 4.
pub(super) const OUT_OF_RANGE: u8 = 5;
/// A row ranks the mode with null.
pub(super) const NULL: u8 = 6;

/// Which ranks a session has: those of its style items, then those of its contexts, four each. A rank's place among them is its
/// *slot*, in the order of the columns of the wide layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SheetShape {
    style_items: usize,
    contexts: usize,
}

impl SheetShape {
    /// The ranks of an instrument's sessions.
    pub fn of(instrument: &Instrument) -> Self {
        SheetShape { style_items: instrument.style_items, contexts: instrument.contexts.len() }
    }

    /// How many ranks a session has.
    pub fn slots(self) -> usize {
        (self.style_items + self.contexts) * Mode::ALL.len()
    }

    /// The columns of the wide layout, by slot.
    pub fn wide_columns(self) -> impl Iterator<Item = String> {
        items(self.style_items, self.contexts)
            .flat_map(|(part, item)| Mode::ALL.map(|mode| wide_column(part, item, mode)))
    }

    /// How many items a part has.
    pub(super) fn items_of(self, part: Part) -> usize {
        match part {
            Part::Style => self.style_items,
            Part::Context => self.contexts,
        }
    }

    /// The slot of an item's first rank. `item` counts from 1 and is one of the part's.
    pub(super) fn first_slot(self, part: Part, item: usize) -> usize {
        let before = if part == Part::Style { 0 } else { self.style_items };
        (before + item - 1) * Mode::ALL.len()
    }

    /// The item that a slot belongs to.
    pub(super) fn item_at(self, slot: usize) -> (Part, usize) {
        let index = slot / Mode::ALL.len();
        match index.checked_sub(self.style_items) {
            None => (Part::Style, index + 1),
            Some(index) => (Part::Context, index + 1),
        }
    }
}

/// The marks of a session, and the first fault of its rows in checking order.
///
/// Encoded, a sheet is a string of bytes: one mark per slot, or, where fewer than a third of the slots are marked, the marked
/// ones alone, each as the slot (two bytes, little-endian) and its mark. The two differ in length. So a session whose rows lie
/// together costs a byte a rank, and a row that lies alone costs three.
#[derive(Debug)]
pub(super) struct RankSheet {
    shape: SheetShape,
    marks: Vec<u8>,
    /// The slots that are marked.
    marked: Vec<u16>,
    fault: Option<u32>,
    /// Scratch space of encoding.
    bytes: Vec<u8>,
}

/// Bytes of a marked slot in a sheet of few.
const MARKED_SLOT: usize = 3;

impl RankSheet {
    pub(super) fn new(shape: SheetShape) -> Self {
        let marks = vec![ABSENT; shape.slots()];
        RankSheet { shape, marks, marked: Vec::with_capacity(shape.slots()), fault: None, bytes: Vec::new() }
    }

    /// Enters a rank. The first of a slot stays; a further one is a fault.
    pub(super) fn mark(&mut self, slot: usize, mark: u8) {
        let place = &mut self.marks[slot];
        if *place == ABSENT {
            *place = mark;
            self.marked.push(slot as u16);
        } else {
            let mode = Mode::ALL[slot % Mode::ALL.len()];
            let item = Some(self.shape.item_at(slot));
            self.fail(&Fault { code: FaultCode::DuplicateRank, item, mode: Some(mode) });
        }
    }

    /// Enters a fault of a row.
    pub(super) fn fail(&mut self, fault: &Fault) {
        self.fail_encoded(encode_long_fault(fault));
    }

    /// Enters a fault that is encoded: of several, the first in checking order stays.
    pub(super) fn fail_encoded(&mut self, fault: u32) {
        self.fault = Some(self.fault.map_or(fault, |first| first.min(fault)));
    }

    /// Enters everything of another sheet of the same session, given its encoded form.
    pub(super) fn add(&mut self, encoded: &[u8]) {
        for_each_mark(self.shape, encoded, |slot, mark| self.mark(slot, mark));
    }

    /// Appends the sheet to columns of sheets and faults, and begins an empty one.
    pub(super) fn finish_into(&mut self, sheets: &mut BinaryBuilder, faults: &mut UInt32Builder) {
        if self.marked.len() * MARKED_SLOT < self.marks.len() {
            self.bytes.clear();
            for &slot in &self.marked {
                self.bytes.extend_from_slice(&slot.to_le_bytes());
                self.bytes.push(self.marks[usize::from(slot)]);
            }
            sheets.append_value(&self.bytes);
        } else {
            sheets.append_value(&self.marks);
        }
        faults.append_option(self.fault.take());
        for slot in self.marked.drain(..) {
            self.marks[usize::from(slot)] = ABSENT;
        }
    }
}

/// Calls `enter` with every marked slot of an encoded sheet.
pub(super) fn for_each_mark(shape: SheetShape, encoded: &[u8], mut enter: impl FnMut(usize, u8)) {
    if encoded.len() == shape.slots() {
        for (slot, &mark) in encoded.iter().enumerate().filter(|(_, mark)| **mark != ABSENT) {
            enter(slot, mark);
        }
    } else {
        for bytes in encoded.chunks_exact(MARKED_SLOT) {
            enter(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])), bytes[2]);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::Array;

    use super::*;
    use crate::scoring::decode_long_fault;

    fn shape() -> SheetShape {
        SheetShape::of(&Instrument::klsi4())
    }

    /// A sheet with these marks, encoded.
    fn encoded(marks: &[(usize, u8)]) -> Vec<u8> {
        let mut sheet = RankSheet::new(shape());
        let (mut sheets, mut faults) = (BinaryBuilder::new(), UInt32Builder::new());
        marks.iter().for_each(|&(slot, mark)| sheet.mark(slot, mark));
        sheet.finish_into(&mut sheets, &mut faults);
        assert!(faults.finish().is_null(0));
        sheets.finish().value(0).to_vec()
    }

    fn decoded(encoded: &[u8]) -> Vec<(usize, u8)> {
        let mut marks = Vec::new();
        for_each_mark(shape(), encoded, |slot, mark| marks.push((slot, mark)));
        marks.sort_unstable();
        marks
    }

    #[test]
    fn slots_are_the_columns_of_the_wide_layout() {
        let columns: Vec<String> = shape().wide_columns().collect();
        assert_eq!((shape().slots(), columns.len()), (80, 80));
        assert_eq!((columns[0].as_str(), columns[47].as_str()), ("q01_ce", "q12_ae"));
        assert_eq!((columns[48].as_str(), columns[79].as_str()), ("ctx01_ce", "ctx08_ae"));
        for (slot, column) in columns.iter().enumerate() {
            let (part, item) = shape().item_at(slot);
            assert_eq!(shape().first_slot(part, item), slot / 4 * 4);
            assert_eq!(*column, wide_column(part, item, Mode::ALL[slot % 4]));
        }
    }

    #[test]
    fn every_number_of_marks_survives_encoding_and_few_are_short() {
        for count in 0..=80 {
            let marks: Vec<(usize, u8)> = (0..count).map(|slot| (79 - slot, 1 + (slot % 6) as u8)).collect();
            let bytes = encoded(&marks);
            assert_eq!(bytes.len(), if count < 27 { 3 * count } else { 80 });
            let mut expected = marks;
            expected.sort_unstable();
            assert_eq!(decoded(&bytes), expected);
        }
    }

    #[test]
    fn a_finished_sheet_leaves_nothing_in_the_next() {
        let mut sheet = RankSheet::new(shape());
        let (mut sheets, mut faults) = (BinaryBuilder::new(), UInt32Builder::new());
        sheet.mark(3, 4);
        sheet.mark(3, 4);
        sheet.finish_into(&mut sheets, &mut faults);
        sheet.finish_into(&mut sheets, &mut faults);
        let (sheets, faults) = (sheets.finish(), faults.finish());
        assert_eq!((sheets.value(0), sheets.value(1)), (&[3, 0, 4][..], &[][..]));
        assert!(faults.is_valid(0) && faults.is_null(1));
    }

    #[test]
    fn the_first_rank_of_a_slot_stays_and_the_second_is_a_fault() {
        let mut sheet = RankSheet::new(shape());
        sheet.mark(49, 2);
        sheet.add(&[49, 0, 3, 50, 0, NULL]);
        let (mut sheets, mut faults) = (BinaryBuilder::new(), UInt32Builder::new());
        sheet.finish_into(&mut sheets, &mut faults);
        assert_eq!(decoded(sheets.finish().value(0)), [(49, 2), (50, NULL)]);
        let fault = decode_long_fault(faults.finish().value(0)).unwrap();
        assert_eq!(fault.to_string(), "RO is ranked more than once in item ctx01");
    }
}
