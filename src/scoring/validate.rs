//! Validation: every layout's ranks become ranking codes, and a session with a fault gets its first one named.
//!
//! Faults are looked for in checking order: style items, then contexts; within an item missing ranks, then ranks out of range,
//! each in the order CE, RO, AC, AE, then a repeated rank. In the long layout, where the rows themselves can be wrong, a row that
//! belongs to no item comes before all items, and an item's unknown modes and duplicates before what they leave missing.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, StringArray, StringBuilder, UInt8Array, UInt8Builder,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, FieldRef, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use crate::instrument::Instrument;
use crate::model::result::{ERROR, ERROR_CODE, ERROR_STAGE, OK};
use crate::model::session::{self, Part, packed_column, wide_column};
use crate::model::{Fault, FaultCode, Layout, Mode, permutation};
use crate::scoring::stage::{internal_field, result_fields};
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

    /// How many input columns an item has.
    fn width(&self) -> usize {
        match self.layout {
            Layout::Packed => 1,
            Layout::Wide | Layout::Long => Mode::ALL.len(),
        }
    }

    /// The codes of every item.
    fn codes(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>, ScoringError> {
        match self.layout {
            Layout::Packed => columns.iter().map(packed_codes).collect(),
            Layout::Wide | Layout::Long => {
                let mut ranks: [Vec<u8>; 4] = Default::default();
                columns.chunks_exact(self.width()).map(|item| wide_codes(item, &mut ranks)).collect()
            }
        }
    }

    /// The first fault of a row that has one.
    fn first_fault(&self, row: usize, columns: &[ArrayRef], long_faults: Option<&ArrayRef>) -> Option<Fault> {
        let long_fault = long_faults
            .filter(|faults| faults.is_valid(row))
            .and_then(|faults| decode_long_fault(faults.as_primitive::<UInt32Type>().value(row)));
        if let Some(fault) = long_fault.filter(|fault| fault.item.is_none()) {
            return Some(fault);
        }
        for (&place, ranks) in self.items.iter().zip(columns.chunks_exact(self.width())) {
            if let Some(fault) = long_fault.filter(|fault| fault.item == Some(place)) {
                return Some(fault);
            }
            let fault = match self.layout {
                Layout::Packed => fault_of_code(&ranks[0], row),
                Layout::Wide | Layout::Long => fault_of_ranks(ranks, row),
            };
            if let Some((code, mode)) = fault {
                return Some(Fault { code, item: Some(place), mode });
            }
        }
        None
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
        let rows = ranks[0].len();
        let codes = self.codes(ranks)?;

        let mut faulty = vec![false; rows];
        for codes in &codes {
            for (faulty, &code) in faulty.iter_mut().zip(&**codes.as_primitive::<UInt8Type>().values()) {
                *faulty |= code == INVALID_CODE;
            }
        }
        if let Some(faults) = long_faults {
            for (row, faulty) in faulty.iter_mut().enumerate() {
                *faulty |= faults.is_valid(row);
            }
        }

        let mut stages = UInt8Builder::with_capacity(rows);
        let mut fault_codes = UInt8Builder::with_capacity(rows);
        let mut errors = StringBuilder::with_capacity(rows, 0);
        if faulty.contains(&true) {
            for (row, &faulty) in faulty.iter().enumerate() {
                let fault = if faulty { self.first_fault(row, ranks, long_faults) } else { None };
                stages.append_option(fault.map(|_| 0));
                fault_codes.append_option(fault.map(|fault| fault.code as u8));
                errors.append_option(fault.map(|fault| fault.to_string()));
            }
        } else {
            stages.append_nulls(rows);
            fault_codes.append_nulls(rows);
            errors.append_nulls(rows);
        }
        let dictionary = |mut keys: UInt8Builder, names: &ArrayRef| {
            DictionaryArray::<UInt8Type>::try_new(keys.finish(), Arc::clone(names))
        };
        let ok = BooleanArray::new(BooleanBuffer::collect_bool(rows, |row| !faulty[row]), None);
        let mut added = codes;
        added.push(Arc::new(ok));
        added.push(Arc::new(dictionary(stages, &self.stage_names)?));
        added.push(Arc::new(dictionary(fault_codes, &self.fault_names)?));
        added.push(Arc::new(errors.finish()));
        Ok(added)
    }
}

/// Packed codes as they come, with anything that is no code replaced by [`INVALID_CODE`].
fn packed_codes(column: &ArrayRef) -> Result<ArrayRef, ScoringError> {
    let mut codes = Vec::new();
    narrow(column, 0..=permutation::COUNT - 1, INVALID_CODE, &mut codes)?;
    Ok(Arc::new(UInt8Array::from(codes)))
}

/// The codes of one item from its four rank columns. `ranks` is scratch space.
fn wide_codes(columns: &[ArrayRef], ranks: &mut [Vec<u8>; 4]) -> Result<ArrayRef, ScoringError> {
    for (column, ranks) in columns.iter().zip(ranks.iter_mut()) {
        narrow(column, 1..=4, 0, ranks)?;
    }
    let [ce, ro, ac, ae] = ranks;
    let codes: Vec<u8> = ce
        .iter()
        .zip(ro.iter())
        .zip(ac.iter().zip(ae.iter()))
        .map(|((&ce, &ro), (&ac, &ae))| {
            // Four ranks in 0..=4 are a permutation of 1..=4 exactly when they sum to 10 and their squares to 30. Written
            // without branches, so that the loop is vectorised; the index is that of `permutation::code_of`.
            let sum = ce + ro + ac + ae;
            let squares = ce * ce + ro * ro + ac * ac + ae * ae;
            let code = ce
                .wrapping_sub(1)
                .wrapping_mul(6)
                .wrapping_add(ro.wrapping_sub(1).wrapping_sub(u8::from(ro > ce)).wrapping_mul(2))
                .wrapping_add(u8::from(ac > ae));
            if sum == 10 && squares == 30 { code } else { INVALID_CODE }
        })
        .collect();
    Ok(Arc::new(UInt8Array::from(codes)))
}

/// Copies a column of integers into bytes; a value outside `range`, a null, and text that is no integer become `invalid`.
fn narrow(
    column: &ArrayRef,
    range: std::ops::RangeInclusive<u8>,
    invalid: u8,
    bytes: &mut Vec<u8>,
) -> Result<(), ScoringError> {
    macro_rules! narrow_integers {
        ($type:ty) => {{
            let (lowest, highest) = (*range.start() as _, *range.end() as _);
            let (lowest, highest): (<$type as ArrowPrimitiveType>::Native, <$type as ArrowPrimitiveType>::Native) =
                (lowest, highest);
            let values = column.as_primitive::<$type>().values();
            bytes.extend(values.iter().map(
                |&value| {
                    if lowest <= value && value <= highest { value as u8 } else { invalid }
                },
            ));
        }};
    }
    bytes.clear();
    match column.data_type() {
        DataType::Int8 => narrow_integers!(Int8Type),
        DataType::Int16 => narrow_integers!(Int16Type),
        DataType::Int32 => narrow_integers!(Int32Type),
        DataType::Int64 => narrow_integers!(Int64Type),
        DataType::UInt8 => narrow_integers!(UInt8Type),
        DataType::UInt16 => narrow_integers!(UInt16Type),
        DataType::UInt32 => narrow_integers!(UInt32Type),
        DataType::UInt64 => narrow_integers!(UInt64Type),
        // A column of integers with gaps often reaches a file as floats.
        DataType::Float32 | DataType::Float64 => {
            let floats = cast(column, &DataType::Float64)?;
            bytes.extend(floats.as_primitive::<Float64Type>().values().iter().map(|&value| {
                let number = value as u8;
                if f64::from(number) == value && range.contains(&number) { number } else { invalid }
            }));
        }
        _ => {
            let text = cast(column, &DataType::Utf8View)?;
            bytes.extend(text.as_string_view().iter().map(|value| {
                let number = value.and_then(|text| text.trim().parse::<u8>().ok());
                number.filter(|number| range.contains(number)).unwrap_or(invalid)
            }));
            return Ok(());
        }
    }
    if let Some(nulls) = column.nulls().filter(|nulls| nulls.null_count() > 0) {
        for (byte, valid) in bytes.iter_mut().zip(nulls) {
            if !valid {
                *byte = invalid;
            }
        }
    }
    Ok(())
}

/// What one cell of a rank column holds, read on the slow path of a faulty session.
enum Cell {
    Missing,
    Number(i128),
    NotANumber,
}

fn cell(column: &ArrayRef, row: usize) -> Cell {
    if column.is_null(row) {
        return Cell::Missing;
    }
    let text = |text: &str| match text.trim() {
        "" => Cell::Missing,
        text => text.parse().map_or(Cell::NotANumber, Cell::Number),
    };
    let float = |value: f64| match value {
        _ if value.is_nan() => Cell::Missing,
        _ if value.fract() == 0.0 => Cell::Number(value as i128),
        _ => Cell::NotANumber,
    };
    match column.data_type() {
        DataType::Int8 => Cell::Number(column.as_primitive::<Int8Type>().value(row).into()),
        DataType::Int16 => Cell::Number(column.as_primitive::<Int16Type>().value(row).into()),
        DataType::Int32 => Cell::Number(column.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Cell::Number(column.as_primitive::<Int64Type>().value(row).into()),
        DataType::UInt8 => Cell::Number(column.as_primitive::<UInt8Type>().value(row).into()),
        DataType::UInt16 => Cell::Number(column.as_primitive::<UInt16Type>().value(row).into()),
        DataType::UInt32 => Cell::Number(column.as_primitive::<UInt32Type>().value(row).into()),
        DataType::UInt64 => Cell::Number(column.as_primitive::<UInt64Type>().value(row).into()),
        DataType::Float32 => float(column.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => text(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text(column.as_string::<i64>().value(row)),
        DataType::Utf8View => text(column.as_string_view().value(row)),
        _ => Cell::NotANumber,
    }
}

fn fault_of_code(column: &ArrayRef, row: usize) -> Option<(FaultCode, Option<Mode>)> {
    match cell(column, row) {
        Cell::Missing => Some((FaultCode::MissingRank, None)),
        Cell::Number(code) if (0..i128::from(permutation::COUNT)).contains(&code) => None,
        Cell::Number(_) | Cell::NotANumber => Some((FaultCode::RankOutOfRange, None)),
    }
}

fn fault_of_ranks(columns: &[ArrayRef], row: usize) -> Option<(FaultCode, Option<Mode>)> {
    let cells = [0, 1, 2, 3].map(|mode| cell(&columns[mode], row));
    let first = |wanted: fn(&Cell) -> bool| Mode::ALL.into_iter().find(|&mode| wanted(&cells[mode as usize]));
    if let Some(mode) = first(|cell| matches!(cell, Cell::Missing)) {
        return Some((FaultCode::MissingRank, Some(mode)));
    }
    if let Some(mode) = first(|cell| !matches!(cell, Cell::Number(1..=4))) {
        return Some((FaultCode::RankOutOfRange, Some(mode)));
    }
    let rank = |cell: &Cell| if let Cell::Number(rank) = cell { *rank as u8 } else { 0 };
    let ranks = cells.each_ref().map(rank);
    permutation::code_of(ranks).is_none().then_some((FaultCode::NotAPermutation, None))
}

/// Writes a fault of rows as one integer, so that a lesser integer is an earlier fault in checking order.
pub fn encode_long_fault(fault: &Fault) -> u32 {
    let place = match fault.item {
        None => 0,
        Some((part, item)) => 1 + ((part as u32) << 8) + item as u32,
    };
    // Unknown modes come before duplicates, against the order of `FaultCode`.
    let kind = match fault.code {
        FaultCode::UnknownMode => 0,
        other => 1 + other as u32,
    };
    place << 8 | kind << 4 | fault.mode.map_or(0, |mode| 1 + mode as u32)
}

/// Reads what [`encode_long_fault`] wrote; `None` for an integer that it does not write.
pub fn decode_long_fault(encoded: u32) -> Option<Fault> {
    let item = match encoded >> 8 {
        0 => None,
        place => {
            let part = if (place - 1) >> 8 == 0 { Part::Style } else { Part::Context };
            Some((part, ((place - 1) & 0xff) as usize))
        }
    };
    let code = match (encoded >> 4) & 0xf {
        0 => FaultCode::UnknownMode,
        kind => *FaultCode::ALL.get(kind as usize - 1)?,
    };
    let mode = match encoded & 0xf {
        0 => None,
        mode => Some(*Mode::ALL.get(mode as usize - 1)?),
    };
    Some(Fault { code, item, mode })
}
