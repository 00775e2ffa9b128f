//! Smallest and largest values of pages and chunks, and how they are stored as statistics.

use parquet::data_type::ByteArray;
use parquet::file::statistics::{Statistics, ValueStatistics};

use super::keys::KeyPage;

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

/// The numbers of the smallest and the largest value of a dictionary, of those that have an order.
#[derive(Default)]
pub(super) struct Ends(Option<(u32, u32)>);

impl Ends {
    /// Takes in the value of another number. `value` gives those that have an order by their numbers.
    pub(super) fn add<V: PartialOrd>(&mut self, number: u32, value: impl Fn(u32) -> Option<V>) {
        let Some(new) = value(number) else { return };
        let (min, max) = self.0.get_or_insert((number, number));
        if Some(&new) < value(*min).as_ref() {
            *min = number;
        }
        if Some(&new) > value(*max).as_ref() {
            *max = number;
        }
    }

    /// The smallest and the largest value of a page, of a dictionary of `values` values. They are mostly those of all: then no
    /// others are compared.
    pub(super) fn in_page<V: PartialOrd>(
        &self,
        page: &KeyPage,
        values: usize,
        value: impl Fn(u32) -> Option<V>,
    ) -> Option<(V, V)> {
        let (min, max) = self.0.filter(|(min, max)| page.contains(*min) && page.contains(*max)).or_else(|| {
            let mut ends = Ends::default();
            page.distinct(values).for_each(|number| ends.add(number, &value));
            ends.0
        })?;
        value(min).zip(value(max))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::operators::row_group::keys::Numbering;

    /// Items that are their own numbers.
    struct Known;

    impl Numbering<u32> for Known {
        fn find(&self, item: u32) -> u32 {
            item
        }

        fn find_or_add(&mut self, item: u32) -> u32 {
            item
        }
    }

    #[test]
    fn the_ends_of_a_page_are_those_of_its_own_values() {
        let values = [5.0, f64::NAN, -1.0, 9.0, 2.0];
        let value = |number: u32| Some(values[number as usize]).filter(|value| !value.is_nan());
        let mut ends = Ends::default();
        assert_eq!(ends.in_page(&KeyPage::with_capacity(0), 0, value), None);
        (0..5).for_each(|number| ends.add(number, value));
        let of = |keys: &[u32]| {
            let mut page = KeyPage::with_capacity(0);
            page.extend(keys, &mut Known);
            ends.in_page(&page, values.len(), value)
        };
        assert_eq!(of(&[0, 1, 2, 3, 4]), Some((-1.0, 9.0)));
        assert_eq!(of(&[0, 1, 4, 3]), Some((2.0, 9.0)));
        assert_eq!(of(&[2, 0]), Some((-1.0, 5.0)));
        assert_eq!(of(&[1, 1]), None);
        assert_eq!(of(&[]), None);
    }

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
