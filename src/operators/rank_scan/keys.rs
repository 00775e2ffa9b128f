//! From dictionary keys to the bytes that they stand for.

use parquet::errors::{ParquetError, Result};

use super::runs::{Piece, Runs};

/// The byte of a key that the dictionary does not have. No value becomes this one.
const NO_VALUE: u8 = u8::MAX - 1;

/// Groups of eight are unpacked whole, so for a moment there are at most so many values more than asked for: seven before and seven
/// behind them.
pub(super) const UNPACKED_BEYOND: usize = 7 + 7;

/// The dictionary of a column chunk, each value as a byte.
pub(super) struct Dictionary {
    /// By key.
    values: Vec<u8>,
    /// The same for keys of a byte, those without a value included.
    table: [u8; 256],
    /// By four keys of two bits: the values of the four. Ranks have four values.
    fours: [[u8; 4]; 256],
    /// By two keys of three bits: the values of the two. A column in which some are no ranks has a few values more.
    pairs: [[u8; 2]; 64],
}

impl Dictionary {
    pub(super) fn new(values: Vec<u8>) -> Self {
        let mut table = [NO_VALUE; 256];
        table.iter_mut().zip(&values).for_each(|(byte, value)| *byte = *value);
        let four = |packed: usize| std::array::from_fn(|place| table[packed >> (2 * place) & 3]);
        let pair = |packed: usize| [table[packed & 7], table[packed >> 3]];
        Dictionary { values, table, fours: std::array::from_fn(four), pairs: std::array::from_fn(pair) }
    }

    /// Appends the values of the next `count` keys to `out`.
    pub(super) fn append(&self, keys: &mut Runs, count: usize, out: &mut Vec<u8>) -> Result<()> {
        let before = out.len();
        let end = before + count;
        let width = keys.width();
        while out.len() < end {
            match keys.next(end - out.len())? {
                Piece::Repeated { value, count } => {
                    let value = self.values.get(value as usize).copied().unwrap_or(NO_VALUE);
                    out.resize(out.len() + count, value);
                }
                Piece::Packed { groups, skip, count } => self.append_packed(groups, width, skip, count, out),
            }
        }
        // Looked at to the end, which the compiler makes vectors of.
        if out[before..].iter().fold(false, |any, value| any | (*value == NO_VALUE)) {
            return Err(ParquetError::General("a key of a column of ranks is beyond its dictionary".to_owned()));
        }
        Ok(())
    }

    fn append_packed(&self, groups: &[u8], width: usize, skip: usize, count: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + (skip + count).next_multiple_of(8), 0);
        let (slots, _) = out[start..].as_chunks_mut::<8>();
        match width {
            1 => unpack::<1>(groups, slots, |keys| self.one_by_one::<1>(keys)),
            2 => unpack::<2>(groups, slots, |keys| by_several(&self.fours, keys)),
            3 => unpack::<3>(groups, slots, |keys| by_several(&self.pairs, keys)),
            4 => unpack::<4>(groups, slots, |keys| self.one_by_one::<4>(keys)),
            5 => unpack::<5>(groups, slots, |keys| self.one_by_one::<5>(keys)),
            6 => unpack::<6>(groups, slots, |keys| self.one_by_one::<6>(keys)),
            7 => unpack::<7>(groups, slots, |keys| self.one_by_one::<7>(keys)),
            8 => unpack::<8>(groups, slots, |keys| self.one_by_one::<8>(keys)),
            _ => self.unpack_wide(groups, width, slots),
        }
        if skip > 0 {
            out.copy_within(start + skip.., start);
        }
        out.truncate(start + count);
    }

    /// The values of eight keys of `WIDTH` bits.
    fn one_by_one<const WIDTH: usize>(&self, keys: u64) -> [u8; 8] {
        std::array::from_fn(|place| self.table[(keys >> (place * WIDTH)) as usize & ((1 << WIDTH) - 1)])
    }

    /// The way of dictionaries of more than 256 values, which no column of ranks should have.
    fn unpack_wide(&self, groups: &[u8], width: usize, slots: &mut [[u8; 8]]) {
        let bit = |at: usize| groups.get(at / 8).map_or(0, |byte| usize::from(byte >> (at % 8) & 1));
        for (index, slot) in slots.as_flattened_mut().iter_mut().enumerate() {
            let key = (0..width).fold(0, |key, place| key | bit(index * width + place) << place);
            *slot = self.values.get(key).copied().unwrap_or(NO_VALUE);
        }
    }
}

/// Fills slots from groups of eight keys of `WIDTH` bits, of which `values` gives the values. What a last group lacks is keys of
/// zero.
fn unpack<const WIDTH: usize>(groups: &[u8], slots: &mut [[u8; 8]], values: impl Fn(u64) -> [u8; 8]) {
    let group = |packed: [u8; WIDTH]| {
        let mut keys = [0; 8];
        keys[..WIDTH].copy_from_slice(&packed);
        values(u64::from_le_bytes(keys))
    };
    let (whole, rest) = groups.as_chunks::<WIDTH>();
    slots.iter_mut().zip(whole).for_each(|(slot, packed)| *slot = group(*packed));
    if let Some(slot) = slots.get_mut(whole.len()) {
        let mut packed = [0; WIDTH];
        packed[..rest.len()].copy_from_slice(rest);
        *slot = group(packed);
    }
}

/// The values of eight keys, `AT_ONCE` of them by one look into a table.
fn by_several<const AT_ONCE: usize, const ENTRIES: usize>(table: &[[u8; AT_ONCE]; ENTRIES], keys: u64) -> [u8; 8] {
    let mut values = [0; 8];
    let (slots, _) = values.as_chunks_mut::<AT_ONCE>();
    for (place, slot) in slots.iter_mut().enumerate() {
        *slot = table[(keys >> (place * ENTRIES.ilog2() as usize)) as usize % ENTRIES];
    }
    values
}
