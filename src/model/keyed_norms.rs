//! Norms as they are kept in memory: a key of two bytes for each raw score, into a dictionary of percentiles that groups share.
//!
//! Tables give percentiles with a decimal or two, so there are few distinct ones. Keys are a fourth of their size: four times as
//! many groups fit in the memory that a cache may take, and in the processor's caches. What a lookup gives is what a dictionary
//! column of results holds, so no percentile is looked at again until its dictionary is written.

use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::{ArrayRef, Float64Array};

use crate::model::distinct_floats::DistinctFloats;
use crate::model::norm::{DenseNorms, GroupId, GroupNorms};
use crate::model::{PerScale, Scale};

/// Distinct percentiles, numbered from 0 in the order in which they were met. Grows, and never changes what a key means.
#[derive(Debug, Default)]
pub struct PercentileDictionary {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    percentiles: DistinctFloats,
    /// The percentiles as an array, until another is added.
    array: Option<ArrayRef>,
}

/// About what a percentile needs in a dictionary, in bytes.
const PERCENTILE_BYTES: usize = 40;

/// The key of a raw score that a group lacks.
const NO_KEY: u16 = u16::MAX;
const _: () = assert!(PercentileDictionary::CAPACITY <= NO_KEY as usize);

impl PercentileDictionary {
    /// The most percentiles that it holds; keys are below.
    pub const CAPACITY: usize = DistinctFloats::CAPACITY;

    /// The percentile of a key that it gave.
    pub fn get(&self, key: u16) -> Option<f64> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).percentiles.values().get(usize::from(key)).copied()
    }

    /// The percentile of every key given so far; the same array until there is a new one.
    pub fn array(&self) -> ArrayRef {
        if let Some(array) = &self.state.read().unwrap_or_else(PoisonError::into_inner).array {
            return Arc::clone(array);
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let State { percentiles, array, .. } = &mut *state;
        Arc::clone(array.get_or_insert_with(|| Arc::new(Float64Array::from(percentiles.values().to_vec()))))
    }

    /// The keys of percentiles, [`NO_KEY`] for NaN, and how many are new; `None` if there is no room for one.
    fn keys(&self, scales: &PerScale<DenseNorms>) -> Option<(Box<[u16]>, usize)> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let before = state.percentiles.values().len();
        let mut keys = Vec::with_capacity(scales.0.iter().map(|scale| scale.percentiles.len()).sum());
        for scale in &scales.0 {
            for percentile in &scale.percentiles {
                keys.push(state.key(*percentile)?);
            }
        }
        Some((keys.into(), state.percentiles.values().len() - before))
    }
}

impl State {
    fn key(&mut self, percentile: f64) -> Option<u16> {
        if percentile.is_nan() {
            return Some(NO_KEY);
        }
        let key = self.percentiles.find(percentile).or_else(|| self.add(percentile))?;
        u16::try_from(key).ok()
    }

    fn add(&mut self, percentile: f64) -> Option<u32> {
        if self.percentiles.values().len() == PercentileDictionary::CAPACITY {
            return None;
        }
        self.array = None;
        Some(self.percentiles.add(percentile))
    }
}

/// The norms of one group in one version, all scales, as keys into a dictionary.
#[derive(Debug, Default)]
pub struct KeyedNorms {
    dictionary: Arc<PercentileDictionary>,
    scales: PerScale<Span>,
    /// The keys of all scales, one scale after the other.
    keys: Box<[u16]>,
    /// How many percentiles the dictionary did not have before.
    new_percentiles: usize,
}

/// Where the keys of a scale lie.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Span {
    /// The raw score of the first.
    lowest: i32,
    start: u32,
    length: u32,
}

impl Span {
    fn place(self, raw: i32) -> Option<usize> {
        let place = u32::try_from(i64::from(raw) - i64::from(self.lowest)).ok().filter(|place| *place < self.length)?;
        Some((self.start + place) as usize)
    }
}

impl KeyedNorms {
    /// Keys norms by a dictionary; `None` if that has no room for their percentiles.
    pub fn try_new(norms: &GroupNorms, dictionary: &Arc<PercentileDictionary>) -> Option<KeyedNorms> {
        let mut start = 0;
        let scales = PerScale::from_fn(|scale| {
            let DenseNorms { lowest, percentiles } = &norms.scales[scale];
            let span = Span { lowest: *lowest, start, length: percentiles.len() as u32 };
            start += span.length;
            span
        });
        let (keys, new_percentiles) = dictionary.keys(&norms.scales)?;
        Some(KeyedNorms { dictionary: Arc::clone(dictionary), scales, keys, new_percentiles })
    }

    /// The dictionary that keys are of.
    pub fn dictionary(&self) -> &Arc<PercentileDictionary> {
        &self.dictionary
    }

    /// The key of exactly this raw score's percentile, if the group holds it.
    pub fn key(&self, scale: Scale, raw: i32) -> Option<u16> {
        let place = self.scales[scale].place(raw)?;
        self.keys.get(place).copied().filter(|key| *key != NO_KEY)
    }

    /// The key of a raw score's percentile, or of the lowest or highest one's that the scale spans if it lies outside.
    pub fn nearest_key(&self, scale: Scale, raw: i32) -> Option<u16> {
        let Span { lowest, length, .. } = self.scales[scale];
        let highest = i64::from(lowest) + i64::from(length) - 1;
        self.key(scale, i64::from(raw).min(highest).max(lowest.into()) as i32)
    }

    /// The percentile of exactly this raw score, if the group holds it.
    pub fn percentile(&self, scale: Scale, raw: i32) -> Option<f64> {
        self.dictionary.get(self.key(scale, raw)?)
    }

    /// How much memory the norms take, in bytes, with what they added to their dictionary.
    pub fn bytes(&self) -> usize {
        size_of::<KeyedNorms>() + size_of_val(&*self.keys) + PERCENTILE_BYTES * self.new_percentiles
    }
}

/// Norms are equal if their percentiles are, whatever the dictionaries.
impl PartialEq for KeyedNorms {
    fn eq(&self, other: &KeyedNorms) -> bool {
        let percentiles = |norms: &KeyedNorms| -> Vec<Option<f64>> {
            norms.keys.iter().map(|key| norms.dictionary.get(*key)).collect()
        };
        self.scales == other.scales && percentiles(self) == percentiles(other)
    }
}

/// A group of a norm chain: its number and its norms.
#[derive(Debug, Clone)]
pub struct ChainGroup {
    /// Its number.
    pub id: GroupId,
    /// What is added to the keys of its norms where norms of several dictionaries are looked up together.
    pub first_key: u32,
    /// Its norms.
    pub norms: Arc<KeyedNorms>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Float64Type;

    fn norms(lowest: i32, percentiles: &[f64]) -> GroupNorms {
        let mut norms = GroupNorms::default();
        norms.scales[Scale::Ro] = DenseNorms { lowest, percentiles: percentiles.into() };
        norms.scales[Scale::Lfi] = DenseNorms { lowest: -1, percentiles: [7.5, 0.0].into() };
        norms
    }

    #[test]
    fn a_raw_score_has_its_percentile_and_a_gap_has_none() {
        let dictionary = Arc::default();
        let keyed = KeyedNorms::try_new(&norms(12, &[1.5, f64::NAN, 99.9]), &dictionary).unwrap();
        let percentiles = |scale| [-2, -1, 0, 11, 12, 13, 14, 15].map(|raw| keyed.percentile(scale, raw));
        assert_eq!(percentiles(Scale::Ce), [None; 8]);
        assert_eq!(percentiles(Scale::Ro), [None, None, None, None, Some(1.5), None, Some(99.9), None]);
        assert_eq!(percentiles(Scale::Lfi), [None, Some(7.5), Some(0.0), None, None, None, None, None]);
        assert_eq!([i32::MIN, i32::MAX].map(|raw| keyed.percentile(Scale::Ro, raw)), [None; 2]);
    }

    #[test]
    fn the_nearest_key_of_a_raw_score_outside_is_that_of_an_end() {
        let keyed = KeyedNorms::try_new(&norms(12, &[1.5, 50.0, 99.9]), &Arc::default()).unwrap();
        let percentile = |raw| keyed.dictionary().get(keyed.nearest_key(Scale::Ro, raw)?);
        assert_eq!([i32::MIN, 12, 13, 14, i32::MAX].map(percentile), [1.5, 1.5, 50.0, 99.9, 99.9].map(Some));
        assert_eq!(keyed.nearest_key(Scale::Ce, 1), None);
    }

    #[test]
    fn groups_share_keys_and_the_array_is_the_same_until_a_percentile_is_new() {
        let dictionary = Arc::default();
        KeyedNorms::try_new(&norms(12, &[1.5, 50.0]), &dictionary).unwrap();
        let before = dictionary.array();
        KeyedNorms::try_new(&norms(30, &[50.0, 7.5]), &dictionary).unwrap();
        assert!(Arc::ptr_eq(&before, &dictionary.array()));
        KeyedNorms::try_new(&norms(30, &[-0.0]), &dictionary).unwrap();
        let after = dictionary.array();
        assert_eq!(after.as_primitive::<Float64Type>().values(), &[1.5, 50.0, 7.5, 0.0, -0.0]);
        assert!(after.as_primitive::<Float64Type>().value(4).is_sign_negative());
    }

    #[test]
    fn a_percentile_is_counted_where_it_is_new() {
        let dictionary = Arc::default();
        let bytes = |percentiles: &[f64]| KeyedNorms::try_new(&norms(0, percentiles), &dictionary).unwrap().bytes();
        let (first, again, more) = (bytes(&[1.0; 4]), bytes(&[1.0; 4]), bytes(&[1.0, 2.0, 3.0, 1.0]));
        assert_eq!((first - again, more - again), (3 * PERCENTILE_BYTES, 2 * PERCENTILE_BYTES));
    }

    #[test]
    fn norms_that_do_not_fit_are_not_keyed() {
        let dictionary = Arc::default();
        let many: Vec<f64> = (0..PercentileDictionary::CAPACITY - 1).map(|n| n as f64 / 1000.0).collect();
        // 7.5 and 0 are among them.
        let keyed = KeyedNorms::try_new(&norms(0, &many), &dictionary).unwrap();
        assert_eq!(keyed.percentile(Scale::Ro, 65_533), Some(65.533));
        let last = KeyedNorms::try_new(&norms(0, &[70.0]), &dictionary).unwrap();
        assert_eq!(last.key(Scale::Ro, 0), Some(65_534));
        assert_eq!(KeyedNorms::try_new(&norms(0, &[71.0]), &dictionary), None);
        assert_eq!(
            KeyedNorms::try_new(&norms(0, &[70.0, 65.533]), &dictionary).unwrap().percentile(Scale::Ro, 1),
            Some(65.533)
        );
    }

    #[test]
    fn norms_are_equal_by_their_percentiles() {
        let (one, other) = (Arc::default(), Arc::default());
        let keyed = |percentiles: &[f64], dictionary| KeyedNorms::try_new(&norms(0, percentiles), dictionary).unwrap();
        let first = keyed(&[1.0, 2.0, f64::NAN], &one);
        keyed(&[2.0], &other);
        assert_eq!(first, keyed(&[1.0, 2.0, f64::NAN], &other));
        assert_ne!(first, keyed(&[2.0, 1.0, f64::NAN], &other));
    }
}
