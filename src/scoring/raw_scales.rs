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
///
/// Loads are what limits it: codes are loaded for eight rows at once, and a sum once for four items.
pub(super) fn rank_sums(rows: usize, codes: &[(&[u8], &RankTable)]) -> Vec<u32> {
    /// As many rows, in eights, as keep their sums in the first cache level while the items pass over them.
    const BLOCK: usize = 128;
    /// Fills up the last four items.
    const COUNTS_FOR_NOTHING: RankTable = [0; 256];
    let mut sums = vec![0u32; rows];
    let (eights, last) = sums.as_chunks_mut::<8>();
    for (row, sum) in (rows - last.len()..).zip(last) {
        *sum = codes.iter().map(|(codes, table)| table[usize::from(codes[row])]).sum();
    }
    for (block, eights) in eights.chunks_mut(BLOCK).enumerate() {
        for items in codes.chunks(4) {
            let item = |place: usize| {
                let &(codes, table) = items.get(place).unwrap_or(&(items[0].0, &COUNTS_FOR_NOTHING));
                (&codes.as_chunks::<8>().0[block * BLOCK..], table)
            };
            let [a, b, c, d] = [0, 1, 2, 3].map(item);
            // In a function of its own, this loop would have its sums in vectors, and too few registers for all else.
            for ((((sums, a_codes), b_codes), c_codes), d_codes) in
                eights.iter_mut().zip(a.0).zip(b.0).zip(c.0).zip(d.0)
            {
                let codes = [*a_codes, *b_codes, *c_codes, *d_codes].map(u64::from_le_bytes);
                for (row, sum) in sums.iter_mut().enumerate() {
                    let code = |item: usize| usize::from((codes[item] >> (8 * row)) as u8);
                    *sum += a.1[code(0)] + b.1[code(1)] + c.1[code(2)] + d.1[code(3)];
                }
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_rank_sum_is_the_sum_of_what_the_items_of_a_row_add(
            codes in (0..1100_usize).prop_flat_map(|rows| {
                prop::collection::vec(prop::collection::vec(any::<u8>(), rows), 1..14)
            }),
        ) {
            let tables: Vec<RankTable> = (0..codes.len()).map(|item| rank_table([true, item % 2 == 0, item > 4, false])).collect();
            let items: Vec<(&[u8], &RankTable)> = codes.iter().map(Vec::as_slice).zip(&tables).collect();
            let sum = |row: usize| items.iter().map(|(codes, table)| table[usize::from(codes[row])]).sum::<u32>();
            let rows = codes[0].len();
            prop_assert_eq!(rank_sums(rows, &items), (0..rows).map(sum).collect::<Vec<_>>());
        }
    }
}
