//! From the keys of dictionary arrays to numbers in the dictionary of a row group: keys are renumbered, values not looked at again.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray};
use arrow::datatypes::{
    ArrowDictionaryKeyType, ArrowNativeType, DataType, Int32Type, UInt8Type, UInt16Type, UInt32Type,
};

use super::keys::{KeyPage, Numbering, UNSEEN};

/// Whether dictionary keys of this type are taken as they are.
pub(super) fn is_key_type(data_type: &DataType) -> bool {
    matches!(data_type, DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::Int32)
}

/// The numbers that the values of a dictionary array have in a row group.
#[derive(Default)]
pub(super) struct Renumbering {
    /// The values that the keys of the last array point to. The array is kept: another one can't take its address.
    source: Option<ArrayRef>,
    /// Key of `source` to number.
    numbers: Vec<u32>,
}

impl Renumbering {
    /// Appends the numbers of runs of a dictionary array to a page. `number` is asked once for each value that is met, by the
    /// values and its place among them.
    pub(super) fn append(
        &mut self,
        array: &dyn Array,
        runs: impl IntoIterator<Item = Range<usize>>,
        page: &mut KeyPage,
        number: impl FnMut(&ArrayRef, usize) -> u32,
    ) {
        // The type of a batch is checked before its columns get here.
        let DataType::Dictionary(key, _) = array.data_type() else { return };
        match key.as_ref() {
            DataType::UInt8 => self.append_keys::<UInt8Type>(array.as_dictionary(), runs, page, number),
            DataType::UInt16 => self.append_keys::<UInt16Type>(array.as_dictionary(), runs, page, number),
            DataType::UInt32 => self.append_keys::<UInt32Type>(array.as_dictionary(), runs, page, number),
            _ => self.append_keys::<Int32Type>(array.as_dictionary(), runs, page, number),
        }
    }

    fn append_keys<K: ArrowDictionaryKeyType>(
        &mut self,
        array: &DictionaryArray<K>,
        runs: impl IntoIterator<Item = Range<usize>>,
        page: &mut KeyPage,
        mut number: impl FnMut(&ArrayRef, usize) -> u32,
    ) {
        let values = array.values();
        if !self.source.as_ref().is_some_and(|source| Arc::ptr_eq(source, values)) {
            self.source = Some(Arc::clone(values));
            self.numbers.clear();
            self.numbers.resize(values.len(), UNSEEN);
        }
        let mut keys = KeyNumbers { numbers: &mut self.numbers, number: &mut |key| number(values, key) };
        for run in runs {
            page.extend(&array.keys().values()[run], &mut keys);
        }
    }
}

/// The numbers of keys, and what gives one to the value of a key that has none.
struct KeyNumbers<'a> {
    numbers: &'a mut [u32],
    number: &'a mut dyn FnMut(usize) -> u32,
}

impl<K: ArrowNativeType> Numbering<K> for KeyNumbers<'_> {
    fn find(&self, key: K) -> u32 {
        self.numbers[key.as_usize()]
    }

    fn find_or_add(&mut self, key: K) -> u32 {
        let slot = &mut self.numbers[key.as_usize()];
        if *slot == UNSEEN {
            *slot = (self.number)(key.as_usize());
        }
        *slot
    }
}
