//! Validation: every layout's ranks become ranking codes, and a session with a fault gets its first one named.
//!
//! Faults are looked for in checking order: style items, then contexts; within an item missing ranks, then ranks out of range,
//! each in the order CE, RO, AC, AE, then a repeated rank. In the long layout, where the rows themselves can be wrong, a row that
//! belongs to no item comes before all items, and an item's unknown modes and duplicates before what they leave missing.
//!
//! The whole batch is brought to bytes and then to codes without looking at faults; only the item that has a session's first
//! fault is looked at again, cell by cell, to name it.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayBuilder, ArrayRef, BooleanArray, StringArray, StringBuilder, UInt8Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, FieldRef, UInt32Type};

use crate::instrument::Instrument;
use crate::model::result::{ERROR, ERROR_CODE, ERROR_STAGE, OK};
use crate::model::session::{self, Part, packed_column, wide_column};
use crate::model::{Fault, FaultCode, Layout, Mode, permutation};
use crate::scoring::cells::{bytes_of, is_missing};
use crate::scoring::stage::{internal_field, result_fields, values};
use crate::scoring::style::dictionary;
use crate::scoring::{INVALID_CODE, Read, ScoringError, Stage, code_column};

/// Adds the ranking code of every item, `ok`, `error_stage`, `error_code` and `error`.
#[derive(Debug, Clone)]
pub struct Validate {
    layout: Layout,
    items: Vec<(Part, usize)>,
    stage_names: ArrayRef,
    fault_names: ArrayRef,
}

/// Long layout: the column in which assembling a session from its rows leaves a fault of the rows themselves, as
/// [`encode_long_fault`] writes it. `UInt32`, null for a session without one.
pub const LONG_FAULT: &str = "long_fault";

const NAME: &str = "validate";

/// The fault of a row that belongs to no item, and of a [`LONG_FAULT`] that nobody can read.
const NOWHERE: Fault = Fault { code: FaultCode::UnknownItem, item: None, mode: None };

impl Validate {
    /// Validates sessions of one layout. Sessions of the long layout come assembled: wide columns and [`LONG_FAULT`].
    pub fn new(instrument: &Arc<Instrument>, layout: Layout) -> Self {
        Validate {
            layout,
            items: session::items(instrument.style_items, instrument.contexts.len()).collect(),
            stage_names: Arc::new(StringArray::from(vec![NAME])),
            fault_names: Arc::new(StringArray::from(FaultCode::ALL.map(FaultCode::as_str).to_vec())),
        }
    }

    /// Validates the items of one part alone: a session is judged by these, and has codes for these.
    pub fn part(self, part: Part) -> Self {
        Validate { items: self.items.into_iter().filter(|(of, _)| *of == part).collect(), ..self }
    }

    /// How many input columns an item has.
    fn width(&self) -> usize {
        match self.layout {
            Layout::Packed => 1,
            Layout::Wide | Layout::Long => Mode::ALL.len(),
        }
    }

    /// The codes of every item.
    fn codes(&self, columns: &[ArrayRef]) -> Result<Vec<Vec<u8>>, ScoringError> {
        match self.layout {
            Layout::Packed => columns.iter().map(packed_codes).collect(),
            Layout::Wide | Layout::Long => columns.chunks_exact(self.width()).map(wide_codes).collect(),
        }
    }

    /// The first fault of a row: that of its rows in the long layout, or that of its first invalid item.
    fn first_fault(
        &self,
        row: usize,
        columns: &[ArrayRef],
        codes: &[Vec<u8>],
        long_fault: Option<Fault>,
    ) -> Result<Option<Fault>, ScoringError> {
        let invalid = codes.iter().position(|codes| codes[row] == INVALID_CODE);
        if let Some(fault) = long_fault {
            let belongs_nowhere = fault.code == FaultCode::UnknownItem;
            // Places are ordered as they are checked.
            if belongs_nowhere || invalid.is_none_or(|index| fault.item <= Some(self.items[index])) {
                return Ok(Some(fault));
            }
        }
        invalid.map(|index| self.fault_of_item(index, row, columns)).transpose()
    }

    /// The fault of an invalid item.
    fn fault_of_item(&self, index: usize, row: usize, columns: &[ArrayRef]) -> Result<Fault, ScoringError> {
        let (valid, modes) = match self.layout {
            Layout::Packed => (0..permutation::COUNT, [None; 4]),
            Layout::Wide | Layout::Long => (1..5, Mode::ALL.map(Some)),
        };
        let fault = |code, mode| Fault { code, item: Some(self.items[index]), mode };
        let cells = columns[index * self.width()..].iter().take(self.width()).map(|column| column.slice(row, 1));
        let mut first_out_of_range = None;
        for (cell, mode) in cells.zip(modes) {
            if is_missing(&cell)? {
                return Ok(fault(FaultCode::MissingRank, mode));
            }
            if !valid.contains(&bytes_of(&cell)?[0]) {
                first_out_of_range.get_or_insert(fault(FaultCode::RankOutOfRange, mode));
            }
        }
        Ok(first_out_of_range.unwrap_or(fault(FaultCode::NotAPermutation, None)))
    }
}

impl Stage for Validate {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reads(&self) -> Vec<Read> {
        let items = self.items.iter();
        match self.layout {
            Layout::Packed => items.map(|&(part, item)| Read::integers(packed_column(part, item))).collect(),
            Layout::Wide | Layout::Long => {
                let ranks =
                    items.flat_map(|&(part, item)| Mode::ALL.map(|mode| Read::integers(wide_column(part, item, mode))));
                let faults = (self.layout == Layout::Long).then(|| Read::exactly(LONG_FAULT, DataType::UInt32));
                ranks.chain(faults).collect()
            }
        }
    }

    fn adds(&self) -> Vec<FieldRef> {
        let codes = self.items.iter().map(|&(part, item)| internal_field(code_column(part, item), DataType::UInt8));
        codes.chain(result_fields([OK, ERROR_STAGE, ERROR_CODE, ERROR])).collect()
    }

    fn evaluate(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>, ScoringError> {
        let (ranks, long_faults) = columns.split_at(self.items.len() * self.width());
        let long_faults = long_faults.first();
        let codes = self.codes(ranks)?;

        let rows = ranks[0].len();
        // Codes are below 24, so that a row's greatest one tells whether all are valid.
        let mut greatest = vec![0u8; rows];
        for codes in &codes {
            for (greatest, &code) in greatest.iter_mut().zip(codes) {
                *greatest = code.max(*greatest);
            }
        }
        let mut faulty = BooleanBuffer::collect_bool(rows, |row| greatest[row] == INVALID_CODE);
        if let Some(faults) = long_faults {
            faulty = &faulty | &BooleanBuffer::collect_bool(rows, |row| faults.is_valid(row));
        }

        let mut fault_codes = vec![0u8; rows];
        let mut errors = StringBuilder::with_capacity(rows, 0);
        for row in faulty.set_indices() {
            let long_fault = long_faults
                .filter(|faults| faults.is_valid(row))
                .map(|faults| decode_long_fault(values::<UInt32Type>(faults)[row]).unwrap_or(NOWHERE));
            errors.append_nulls(row - errors.len());
            if let Some(fault) = self.first_fault(row, ranks, &codes, long_fault)? {
                fault_codes[row] = fault.code as u8;
                // Writing to a builder cannot fail; the empty value ends what was written.
                let _ = write!(errors, "{fault}");
            }
            errors.append_value("");
        }
        errors.append_nulls(rows - errors.len());

        let ok = BooleanArray::new(!&faulty, None);
        let faulty = NullBuffer::new(faulty);
        let mut added: Vec<ArrayRef> =
            codes.into_iter().map(|codes| Arc::new(UInt8Array::from(codes)) as ArrayRef).collect();
        added.push(Arc::new(ok));
        added.push(dictionary(vec![0; rows], Some(&faulty), &self.stage_names)?);
        added.push(dictionary(fault_codes, Some(&faulty), &self.fault_names)?);
        added.push(Arc::new(errors.finish()));
        Ok(added)
    }
}

/// The codes of one item from its four rank columns.
fn wide_codes(columns: &[ArrayRef]) -> Result<Vec<u8>, ScoringError> {
    let ranks: Vec<_> = columns.iter().map(bytes_of).collect::<Result<_, _>>()?;
    let pairs = |a: usize, b: usize| ranks[a].iter().zip(ranks[b].iter());
    Ok(pairs(0, 1).zip(pairs(2, 3)).map(|((&ce, &ro), (&ac, &ae))| wide_code(ce, ro, ac, ae)).collect())
}

/// What [`permutation::code_of`] gives, in steps of bytes without branches or arrays, so that a loop over it is vectorised.
fn wide_code(ce: u8, ro: u8, ac: u8, ae: u8) -> u8 {
    let (first, second) = (ce.wrapping_sub(1), ro.wrapping_sub(1));
    let in_range = first | second | ac.wrapping_sub(1) | ae.wrapping_sub(1) < 4;
    // Of all multisets of four numbers from 1 to 4 only {1, 2, 3, 4} has both this sum and this exclusive or.
    let distinct = (ce.wrapping_add(ro).wrapping_add(ac).wrapping_add(ae) == 10) & (ce ^ ro ^ ac ^ ae == 4);
    let second = second.wrapping_sub(u8::from(ro > ce));
    let code = first.wrapping_mul(3).wrapping_add(second).wrapping_mul(2).wrapping_add(u8::from(ac > ae));
    if in_range & distinct { code } else { INVALID_CODE }
}

/// The codes of one item from its packed column.
fn packed_codes(column: &ArrayRef) -> Result<Vec<u8>, ScoringError> {
    let code = |&byte: &u8| if byte < permutation::COUNT { byte } else { INVALID_CODE };
    Ok(bytes_of(column)?.iter().map(code).collect())
}

/// Writes a fault of rows as one integer, so that a lesser integer is an earlier fault in checking order: rows of no item, then
/// items, and of one item unknown modes before duplicates. An item number above 255 is not kept.
pub fn encode_long_fault(fault: &Fault) -> u32 {
    let belongs = u32::from(fault.code != FaultCode::UnknownItem);
    let place = match fault.item {
        Some((part, item @ ..=255)) => 1 + ((part as u32) << 8) + item as u32,
        _ => 0,
    };
    // Unknown modes come before duplicates, against the order of `FaultCode`.
    let kind = match fault.code {
        FaultCode::UnknownMode => 0,
        other => 1 + other as u32,
    };
    belongs << 31 | place << 8 | kind << 4 | fault.mode.map_or(0, |mode| 1 + mode as u32)
}

/// Reads what [`encode_long_fault`] wrote; `None` for an integer that it does not write.
pub fn decode_long_fault(encoded: u32) -> Option<Fault> {
    let item = match (encoded & !(1 << 31)) >> 8 {
        0 => None,
        place @ 1..=256 => Some((Part::Style, place as usize - 1)),
        place => Some((Part::Context, place as usize - 257)),
    };
    let code = match (encoded >> 4) & 0xf {
        0 => FaultCode::UnknownMode,
        kind => *FaultCode::ALL.get(kind as usize - 1)?,
    };
    let mode = match encoded & 0xf {
        0 => None,
        mode => Some(*Mode::ALL.get(mode as usize - 1)?),
    };
    let fault = Fault { code, item, mode };
    (encode_long_fault(&fault) == encoded).then_some(fault)
}
