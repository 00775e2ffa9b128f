//! Raw scores: for each mode, the sum of its ranks over the items of its scoring key (Guide, p. 44).

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef, Int16Type, UInt8Type};

use crate::instrument::Instrument;
use crate::model::session::Part;
use crate::model::{Mode, permutation, result};
use crate::scoring::stage::{nulls_of, primitive, result_fields, values};
use crate::scoring::{Read, ScoringError, Stage, code_column};

/// Adds `ce_raw` … `ae_raw`.
#[derive(Debug, Clone)]
pub struct RawScales {
    /// For each item of any key: its index and its contribution table.
    items: Vec<(usize, RankTable)>,
    style_items: usize,
}

impl RawScales {
    /// The raw scores of an instrument's scoring key.
    pub fn new(instrument: &Arc<Instrument>) -> Self {
        let items = (0..instrument.style_items)
            .map(|item| (item, rank_table(Mode::ALL.map(|mode| instrument.key[mode as usize].contains(&item)))))
            .filter(|(_, table)| table.iter().any(|&ranks| ranks != 0))
            .collect();
        RawScales { items, style_items: instrument.style_items }
    }
}

impl Stage for RawScales {
    fn name(&self) -> &'static str {
        "raw_scales"
    }

    fn reads(&self) -> Vec<Read> {
        let codes = (1..=self.style_items).map(|item| Read::exactly(code_column(Part::Style, item), DataType::UInt8));
        std::iter::once(Read::result(result::OK)).chain(codes).collect()
    }

    fn adds(&self) -> Vec<FieldRef> {
        result_fields(Mode::ALL.map(result::raw_column).iter().map(String::as_str))
    }

    fn evaluate(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>, ScoringError> {
        let nulls = nulls_of(&columns[0]);
        let codes: Vec<(&[u8], &RankTable)> =
            self.items.iter().map(|(item, table)| (values::<UInt8Type>(&columns[1 + item]), table)).collect();
        let sums = rank_sums(columns[0].len(), &codes);
        let raw = |mode: Mode| {
            let shift = 8 * mode as u32;
            let scores = sums.iter().map(|sums| i16::from((sums >> shift) as u8)).collect();
            primitive::<Int16Type>(scores, nulls.as_ref())
        };
        Ok(Mode::ALL.map(raw).to_vec())
    }
}

/// What an item of each code adds to the four rank sums: one byte per mode, CE lowest.
///
/// A table is as long as a byte is wide, so that no lookup needs a bounds check. A code that is no ranking counts as four
/// ones: its session is null anyway, and its sums stay within the range that later lookups cover.
pub(super) type RankTable = [u32; 256];

/// The table of an item that counts for the given modes.
pub(super) fn rank_table(counts: [bool; 4]) -> RankTable {
    let mut table = [0; 256];
    for (code, entry) in table.iter_mut().enumerate() {
        let ranks = permutation::RANKS.get(code).copied().unwrap_or([1; 4]);
        for mode in 0..4 {
            *entry |= (u32::from(ranks[mode]) * u32::from(counts[mode])) << (8 * mode);
        }
    }
    table
}

/// The rank sums of each row: one byte per mode, CE lowest. No sum exceeds a byte, as an instrument has at most 60 items.
pub(super) fn rank_sums(rows: usize, codes: &[(&[u8], &RankTable)]) -> Vec<u32> {
    /// As many rows as keep their sums in the first cache level while the items pass over them.
    const BLOCK: usize = 1024;
    let mut sums = vec![0u32; rows];
    for (block, sums) in sums.chunks_mut(BLOCK).enumerate() {
        for (codes, table) in codes {
            let codes = &codes[block * BLOCK..][..sums.len()];
            for (sum, &code) in sums.iter_mut().zip(codes) {
                *sum += table[usize::from(code)];
            }
        }
    }
    sums
}
