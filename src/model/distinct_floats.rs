//! Distinct floating-point numbers and their keys: percentiles in memory, and the dictionaries of columns in files.

/// Distinct numbers, keyed from 0 in the order in which they were added. They are told apart by their bits, so that NaN and −0 are
/// numbers like others.
///
/// Keys are found by open addressing in a table that is sparsely filled: a first guess that is almost always right costs less
/// than a small table.
#[derive(Debug, Clone)]
pub(crate) struct DistinctFloats {
    /// Keys by hash, [`VACANT`] where there is none. The length is a power of two.
    slots: Vec<u16>,
    values: Vec<f64>,
}

const VACANT: u16 = u16::MAX;
/// Slots per value at least.
const SPARSITY: usize = 8;

impl Default for DistinctFloats {
    fn default() -> Self {
        DistinctFloats { slots: vec![VACANT; 64 * SPARSITY], values: Vec::new() }
    }
}

impl DistinctFloats {
    /// The most numbers that are found again.
    pub(crate) const CAPACITY: usize = VACANT as usize;

    /// The key of a number.
    pub(crate) fn find(&self, value: f64) -> Option<u32> {
        self.search(value).ok().map(u32::from)
    }

    /// The key of a number, or else the slot where it belongs.
    fn search(&self, value: f64) -> Result<u16, usize> {
        let bits = value.to_bits();
        let mask = self.slots.len() - 1;
        let mut place = hash(bits) & mask;
        loop {
            let key = self.slots[place];
            if key == VACANT {
                return Err(place);
            }
            if self.values[usize::from(key)].to_bits() == bits {
                return Ok(key);
            }
            place = (place + 1) & mask;
        }
    }

    /// Adds a number that [`find`](Self::find) did not find, and gives its key. Past [`CAPACITY`](Self::CAPACITY) numbers have keys
    /// too, but are not found.
    #[cold]
    pub(crate) fn add(&mut self, value: f64) -> u32 {
        let key = self.values.len();
        if key < Self::CAPACITY {
            if SPARSITY * (key + 1) > self.slots.len() {
                self.grow();
            }
            match self.search(value) {
                Ok(known) => debug_assert!(false, "{value} has key {known}"),
                Err(place) => self.slots[place] = key as u16,
            }
        }
        self.values.push(value);
        key as u32
    }

    fn grow(&mut self) {
        self.slots = vec![VACANT; 2 * self.slots.len()];
        for key in 0..self.values.len() {
            if let Err(place) = self.search(self.values[key]) {
                self.slots[place] = key as u16;
            }
        }
    }

    /// The numbers by their keys.
    pub(crate) fn values(&self) -> &[f64] {
        &self.values
    }
}

/// Both halves of a wide product, so that every bit of a number takes part.
fn hash(bits: u64) -> usize {
    let product = u128::from(bits) * 0x9e37_79b9_7f4a_7c15;
    (product as u64 ^ (product >> 64) as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_apart_by_their_bits_and_found_by_their_keys() {
        let mut numbers = DistinctFloats::default();
        let odd_nan = f64::from_bits(f64::NAN.to_bits() | 1);
        for (key, value) in [0.0, -0.0, f64::NAN, 99.9, odd_nan, f64::INFINITY].into_iter().enumerate() {
            assert_eq!(numbers.find(value), None);
            assert_eq!(numbers.add(value), key as u32);
            assert_eq!(numbers.find(value), Some(key as u32));
        }
        assert_eq!(
            [-0.0, f64::NAN, odd_nan, 99.9, 1.0].map(|value| numbers.find(value)),
            [Some(1), Some(2), Some(4), Some(3), None]
        );
    }

    #[test]
    fn numbers_past_the_capacity_have_keys_and_are_not_found() {
        let mut numbers = DistinctFloats::default();
        let value = |key: usize| key as f64 / 100.0;
        let keys = (0..DistinctFloats::CAPACITY + 2).map(|key| numbers.add(value(key)));
        assert!(keys.eq(0..65_537));
        assert_eq!(
            [0, 1, 9_999, 65_534].map(|key| numbers.find(value(key))),
            [0, 1, 9_999, 65_534].map(|key| Some(key as u32))
        );
        assert_eq!([65_535, 65_536].map(|key| numbers.find(value(key))), [None; 2]);
        assert_eq!(numbers.values()[65_536], 655.36);
    }
}
