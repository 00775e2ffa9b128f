//! Where the generators' randomness comes from: one short stream of numbers per thing that is drawn, and a normal table.
//!
//! A stream is seeded by the user's seed, a purpose and an index, so anything can be drawn without drawing what precedes it.
//! Everything after the seed is integer arithmetic.

use std::sync::LazyLock;

use rand::Rng;
use rand_pcg::Pcg64Mcg;

/// One standard deviation in the fixed-point unit of [`NormalTable`].
pub(super) const UNIT: i32 = 1024;

/// What the streams of a seed are drawn for; streams of different purposes share nothing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Respondent = 1,
    Session = 2,
    NormGroup = 3,
}

/// All streams of one seed and purpose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams {
    key: u64,
}

impl Streams {
    pub(super) fn new(seed: u64, purpose: Purpose) -> Self {
        Streams { key: mix(mix(seed).wrapping_add(purpose as u64)) }
    }

    /// The stream of one index, from its beginning.
    #[inline]
    pub(super) fn at(self, index: u64) -> Stream {
        let low = mix(self.key ^ mix(index));
        let high = mix(low ^ self.key);
        Stream(Pcg64Mcg::new(u128::from(high) << 64 | u128::from(low)))
    }
}

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub(super) struct Stream(Pcg64Mcg);

impl Stream {
    #[inline]
    pub(super) fn bytes(&mut self) -> [u8; 8] {
        self.0.next_u64().to_le_bytes()
    }

    /// Two independent 32-bit numbers.
    #[inline]
    pub(super) fn halves(&mut self) -> [u32; 2] {
        let bits = self.0.next_u64();
        [bits as u32, (bits >> 32) as u32]
    }

    /// A number below `bound`, which is not 0. Its bias is below `bound`/2⁶⁴.
    #[inline]
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

/// Scales 32 random bits to a number below `bound`, which is not 0. Its bias is below `bound`/2³².
#[inline]
pub(super) fn scale_below(bits: u32, bound: u32) -> u32 {
    ((u64::from(bits) * u64::from(bound)) >> 32) as u32
}

/// The finalizer of SplitMix64 (Steele, Lea & Flood 2014): a bijection in which every output bit depends on every input bit.
#[inline]
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Turns a random byte into a normal deviate: the 256 quantiles (i + ½)/256 of a normal distribution, in [`UNIT`]s, scaled so
/// that their own standard deviation is one.
#[derive(Debug)]
pub(super) struct NormalTable([i16; 256]);

impl NormalTable {
    pub(super) fn shared() -> &'static NormalTable {
        static TABLE: LazyLock<NormalTable> = LazyLock::new(NormalTable::new);
        &TABLE
    }

    #[inline]
    pub(super) fn deviate(&self, byte: u8) -> i32 {
        i32::from(self.0[usize::from(byte)])
    }

    fn new() -> Self {
        // The upper half by adding up the density in small steps; the lower half is its mirror.
        const STEP: f64 = 1.0 / 16384.0;
        let density = |z: f64| (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
        let mut upper = [0.0_f64; 128];
        let (mut z, mut below) = (0.0, 0.5);
        for (i, quantile) in upper.iter_mut().enumerate() {
            let share = (128.5 + i as f64) / 256.0;
            while below < share {
                below += density(z + STEP / 2.0) * STEP;
                z += STEP;
            }
            *quantile = z;
        }
        let deviation = (upper.iter().map(|z| z * z).sum::<f64>() / 128.0).sqrt();
        let mut table = [0; 256];
        for (i, z) in upper.iter().enumerate() {
            let scaled = (z / deviation * f64::from(UNIT)).round() as i16;
            table[128 + i] = scaled;
            table[127 - i] = -scaled;
        }
        NormalTable(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_table_is_symmetric_rising_and_of_unit_deviation() {
        let table = NormalTable::shared().0;
        assert!(table.is_sorted());
        assert_eq!(table.iter().map(|&z| i32::from(z)).sum::<i32>(), 0);
        let squares: f64 = table.iter().map(|&z| f64::from(z) * f64::from(z)).sum();
        assert_eq!((squares / 256.0).sqrt().round(), f64::from(UNIT));
        // Φ⁻¹(511/512) = 2.8856, Φ⁻¹(257/512) = 0.0049, and the quantiles' own deviation is 0.9975.
        assert_eq!((table[255], table[128]), (2962, 5));
    }

    #[test]
    fn streams_differ_by_seed_purpose_and_index() {
        let first = |seed, purpose, index| Streams::new(seed, purpose).at(index).bytes();
        let base = first(1, Purpose::Session, 1);
        assert_eq!(base, first(1, Purpose::Session, 1));
        assert_ne!(base, first(2, Purpose::Session, 1));
        assert_ne!(base, first(1, Purpose::Respondent, 1));
        assert_ne!(base, first(1, Purpose::Session, 2));
    }
}
