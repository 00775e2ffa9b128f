//! Smallest and largest values of pages and chunks, and how they are stored as statistics.

use parquet::data_type::ByteArray;
use parquet::file::statistics::{Statistics, ValueStatistics};

/// Strings in statistics are cut to this many bytes: a bound need not be a value.
const MAX_STRING_BOUND: usize = 64;

/// A value of a physical type that has an order.
pub(super) trait Bound: PartialOrd + Clone {
    /// A bound not above the value, as the page index stores it.
    fn lower(&self) -> Vec<u8>;
    /// A bound not below the value, as the page index stores it.
    fn upper(&self) -> Vec<u8>;
    /// The statistics of a chunk.
    fn statistics(bounds: Option<(&Self, &Self)>, nulls: u64) -> Statistics;
}

macro_rules! exact_bound {
    ($type:ty, $value:ident => $bytes:expr) => {
        impl Bound for $type {
            fn lower(&self) -> Vec<u8> {
                let $value = *self;
                $bytes
            }

            fn upper(&self) -> Vec<u8> {
                self.lower()
            }

            fn statistics(bounds: Option<(&Self, &Self)>, nulls: u64) -> Statistics {
                let (min, max) = bounds.unzip();
                Statistics::new(min.copied(), max.copied(), None, Some(nulls), false)
            }
        }
    };
}

exact_bound!(bool, value => vec![u8::from(value)]);
exact_bound!(i32, value => value.to_le_bytes().to_vec());
exact_bound!(i64, value => value.to_le_bytes().to_vec());
exact_bound!(f64, value => value.to_le_bytes().to_vec());

impl Bound for ByteArray {
    fn lower(&self) -> Vec<u8> {
        cut_below(self.data()).to_vec()
    }

    fn upper(&self) -> Vec<u8> {
        cut_above(self.data()).unwrap_or_else(|| self.data().to_vec())
    }

    fn statistics(bounds: Option<(&Self, &Self)>, nulls: u64) -> Statistics {
        let (min, max) = bounds.map(|(min, max)| (min.lower(), max.upper())).unzip();
        let exact = |cut: &Option<Vec<u8>>, value: Option<&ByteArray>| cut.as_deref() == value.map(ByteArray::data);
        let (min_exact, max_exact) = (exact(&min, bounds.map(|b| b.0)), exact(&max, bounds.map(|b| b.1)));
        ValueStatistics::new(min.map(ByteArray::from), max.map(ByteArray::from), None, Some(nulls), false)
            .with_min_is_exact(min_exact)
            .with_max_is_exact(max_exact)
            .into()
    }
}

/// The longest prefix of a UTF-8 string within the limit, which sorts not after it.
fn cut_below(value: &[u8]) -> &[u8] {
    match std::str::from_utf8(value) {
        Ok(text) => &value[..text.floor_char_boundary(MAX_STRING_BOUND)],
        Err(_) => value,
    }
}

/// A string within the limit that sorts not before this one: a prefix with its last character that has a successor of the
/// same length replaced by it. `None` if there is none.
fn cut_above(value: &[u8]) -> Option<Vec<u8>> {
    if value.len() <= MAX_STRING_BOUND {
        return Some(value.to_vec());
    }
    let prefix = std::str::from_utf8(cut_below(value)).ok()?;
    prefix.char_indices().rev().find_map(|(at, last)| {
        let next = char::from_u32(u32::from(last) + 1).filter(|next| next.len_utf8() == last.len_utf8())?;
        let mut bound = prefix[..at].to_owned();
        bound.push(next);
        Some(bound.into_bytes())
    })
}

/// The smallest and the largest number of a page, NaN left out.
pub(super) struct FloatBounds {
    min: f64,
    max: f64,
}

impl Default for FloatBounds {
    fn default() -> Self {
        Self { min: f64::INFINITY, max: f64::NEG_INFINITY }
    }
}

impl FloatBounds {
    pub(super) fn extend(&mut self, values: impl IntoIterator<Item = f64>) {
        for value in values {
            // The smaller and the larger of a number and NaN is the number.
            (self.min, self.max) = (self.min.min(value), self.max.max(value));
        }
    }

    /// The bounds, or `None` if there was no number. Zeros as the format wants them: −0 below, +0 above.
    pub(super) fn get(&self) -> Option<(f64, f64)> {
        let Self { min, max } = *self;
        let signed_zero = |bound: f64, zero: f64| if bound == 0.0 { zero } else { bound };
        (min <= max).then(|| (signed_zero(min, -0.0), signed_zero(max, 0.0)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn float_bounds(values: &[f64]) -> Option<(f64, f64)> {
        let mut bounds = FloatBounds::default();
        bounds.extend(values.iter().copied());
        bounds.get()
    }

    #[test]
    fn float_bounds_skip_nan_and_sign_zeros_outwards() {
        assert_eq!(float_bounds(&[f64::NAN; 9]), None);
        assert_eq!(float_bounds(&[]), None);
        assert_eq!(float_bounds(&[f64::NAN, 2.0, -1.5]), Some((-1.5, 2.0)));
        assert_eq!(float_bounds(&[f64::INFINITY; 20]), Some((f64::INFINITY, f64::INFINITY)));
        assert_eq!(float_bounds(&[f64::NEG_INFINITY]), Some((f64::NEG_INFINITY, f64::NEG_INFINITY)));
        let (min, max) = float_bounds(&[0.0, -0.0, 0.0]).unwrap_or_default();
        assert!(min.is_sign_negative() && max.is_sign_positive());
    }

    #[test]
    fn short_strings_are_their_own_bounds() {
        let value = ByteArray::from("balancing");
        assert_eq!((value.lower(), value.upper()), (b"balancing".to_vec(), b"balancing".to_vec()));
    }

    #[test]
    fn a_string_without_a_short_upper_bound_keeps_its_length() {
        let value = ByteArray::from("\u{10ffff}".repeat(20).as_str());
        assert_eq!(value.upper(), value.data());
        assert_eq!(value.lower().len(), 64);
    }

    proptest! {
        #[test]
        fn cut_strings_enclose_the_value(value in "\\PC{0,90}") {
            let value = ByteArray::from(value.as_str());
            prop_assert!(value.lower().as_slice() <= value.data());
            prop_assert!(value.upper().as_slice() >= value.data());
            prop_assert!(std::str::from_utf8(&value.upper()).is_ok());
            prop_assert!(value.lower().len() <= 64);
        }
    }
}
