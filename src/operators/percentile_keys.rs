//! Percentiles of several dictionaries as one: what keys of norm groups mean within a batch.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::Float64Type;

use crate::model::keyed_norms::PercentileDictionary;

/// The dictionaries whose keys a worker meets. Mostly there is one, and its keys are taken as they are.
///
/// Memory: with several dictionaries, half a MiB for each.
#[derive(Debug)]
pub(super) struct PercentileKeys {
    /// The first is that of the published table.
    dictionaries: Vec<Arc<PercentileDictionary>>,
    /// The last answer of several, and the arrays it was made of.
    joined: Option<(Vec<ArrayRef>, ArrayRef)>,
}

/// How far the first keys of two dictionaries are apart.
const STRIDE: usize = PercentileDictionary::CAPACITY + 1;

/// What a full dictionary's array and its part of the joined one need, in bytes.
const DICTIONARY_BYTES: usize = 2 * size_of::<f64>() * STRIDE;

impl PercentileKeys {
    pub(super) fn new(published: &Arc<PercentileDictionary>) -> Self {
        PercentileKeys { dictionaries: vec![Arc::clone(published)], joined: None }
    }

    /// Forgets all dictionaries but that of the published table.
    pub(super) fn forget(&mut self) {
        self.dictionaries.truncate(1);
        self.joined = None;
    }

    /// What is added to keys of a dictionary, and the bytes that its arrays need if it is new here.
    pub(super) fn first_key(&mut self, dictionary: &Arc<PercentileDictionary>) -> (u32, usize) {
        let known = self.dictionaries.iter().rposition(|known| Arc::ptr_eq(known, dictionary));
        let (place, bytes) = known.map_or((self.dictionaries.len(), DICTIONARY_BYTES), |place| (place, 0));
        if known.is_none() {
            self.dictionaries.push(Arc::clone(dictionary));
        }
        ((place * STRIDE) as u32, bytes)
    }

    /// The percentile of every key given so far; the same array until there is a new one.
    pub(super) fn array(&mut self) -> ArrayRef {
        if let [only] = self.dictionaries.as_slice() {
            return only.array();
        }
        let arrays: Vec<ArrayRef> = self.dictionaries.iter().map(|dictionary| dictionary.array()).collect();
        if let Some((of, joined)) = &self.joined
            && of.iter().zip(&arrays).all(|(before, now)| Arc::ptr_eq(before, now))
            && of.len() == arrays.len()
        {
            return Arc::clone(joined);
        }
        let mut percentiles = Vec::with_capacity(arrays.len() * STRIDE);
        for (place, array) in arrays.iter().enumerate() {
            percentiles.resize(place * STRIDE, 0.0);
            percentiles.extend_from_slice(array.as_primitive::<Float64Type>().values());
        }
        let joined: ArrayRef = Arc::new(Float64Array::from(percentiles));
        self.joined = Some((arrays, Arc::clone(&joined)));
        joined
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::Scale;
    use crate::model::keyed_norms::KeyedNorms;
    use crate::model::norm::{DenseNorms, GroupNorms};

    fn keyed(percentile: f64, dictionary: &Arc<PercentileDictionary>) -> KeyedNorms {
        let mut norms = GroupNorms::default();
        norms.scales[Scale::Ce] = DenseNorms { lowest: 0, percentiles: [percentile].into() };
        KeyedNorms::try_new(&norms, dictionary).unwrap()
    }

    #[test]
    fn keys_of_several_dictionaries_mean_what_they_meant() {
        let dictionaries: [Arc<PercentileDictionary>; 3] = Default::default();
        let mut percentiles = PercentileKeys::new(&dictionaries[0]);
        let mut percentile = |norms: &KeyedNorms| {
            let key = percentiles.first_key(norms.dictionary()).0 + u32::from(norms.key(Scale::Ce, 0).unwrap());
            percentiles.array().as_primitive::<Float64Type>().value(key as usize)
        };
        let norms = [(0, 10.0), (0, 20.0), (2, 30.0), (1, 20.0), (2, 40.0), (0, 50.0)]
            .map(|(of, percentile)| keyed(percentile, &dictionaries[of]));
        assert_eq!(norms.each_ref().map(&mut percentile), [10.0, 20.0, 30.0, 20.0, 40.0, 50.0]);
    }

    #[test]
    fn the_array_of_several_is_the_same_until_a_percentile_is_new() {
        let dictionaries: [Arc<PercentileDictionary>; 2] = Default::default();
        let mut percentiles = PercentileKeys::new(&dictionaries[0]);
        keyed(1.0, &dictionaries[0]);
        assert!(Arc::ptr_eq(&percentiles.array(), &dictionaries[0].array()));
        assert_eq!(percentiles.first_key(&dictionaries[1]), (65_536, DICTIONARY_BYTES));
        assert_eq!(percentiles.first_key(&dictionaries[1]), (65_536, 0));
        let before = percentiles.array();
        assert!(Arc::ptr_eq(&before, &percentiles.array()));
        keyed(2.0, &dictionaries[0]);
        let after = percentiles.array();
        assert!(!Arc::ptr_eq(&before, &after));
        percentiles.forget();
        assert!(Arc::ptr_eq(&percentiles.array(), &dictionaries[0].array()));
        assert_eq!(percentiles.first_key(&dictionaries[0]), (0, 0));
    }
}
