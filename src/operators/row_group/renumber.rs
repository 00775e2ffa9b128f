//! From the keys of dictionary arrays to numbers in the dictionary of a row group: keys are renumbered, values not looked at again.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, DictionaryArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowDictionaryKeyType, ArrowNativeType, DataType, Int32Type, UInt8Type, UInt16Type, UInt32Type,
};

use super::keys::{BLOCK, KeyPage, UNSEEN};

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
    /// Appends the numbers of a range of a dictionary array to a page, but for those that are null by `nulls`, which covers the
    /// array. `number` is asked once for each value that is met, by the values and its place among them.
    pub(super) fn append(
        &mut self,
        array: &dyn Array,
        range: Range<usize>,
        nulls: Option<&NullBuffer>,
        page: &mut KeyPage,
        number: impl FnMut(&ArrayRef, usize) -> u32,
    ) {
        // The type of a batch is checked before its columns get here.
        let DataType::Dictionary(key, _) = array.data_type() else { return };
        match key.as_ref() {
            DataType::UInt8 => self.append_keys::<UInt8Type>(array.as_dictionary(), range, nulls, page, number),
            DataType::UInt16 => self.append_keys::<UInt16Type>(array.as_dictionary(), range, nulls, page, number),
            DataType::UInt32 => self.append_keys::<UInt32Type>(array.as_dictionary(), range, nulls, page, number),
            _ => self.append_keys::<Int32Type>(array.as_dictionary(), range, nulls, page, number),
        }
    }

    fn append_keys<K: ArrowDictionaryKeyType>(
        &mut self,
        array: &DictionaryArray<K>,
        range: Range<usize>,
        nulls: Option<&NullBuffer>,
        page: &mut KeyPage,
        mut number: impl FnMut(&ArrayRef, usize) -> u32,
    ) {
        let values = array.values();
        if !self.source.as_ref().is_some_and(|source| Arc::ptr_eq(source, values)) {
            self.source = Some(Arc::clone(values));
            self.numbers.clear();
            self.numbers.resize(values.len(), UNSEEN);
        }
        let mut number = |key| number(values, key);
        let keys = &array.keys().values()[range.clone()];
        match nulls.filter(|nulls| nulls.null_count() > 0) {
            None => self.append_run::<K>(keys, page, &mut number),
            Some(nulls) => {
                let nulls = nulls.slice(range.start, range.len());
                nulls.valid_slices().for_each(|(from, to)| self.append_run::<K>(&keys[from..to], page, &mut number));
            }
        }
    }

    fn append_run<K: ArrowPrimitiveType>(
        &mut self,
        keys: &[K::Native],
        page: &mut KeyPage,
        number: &mut dyn FnMut(usize) -> u32,
    ) {
        for keys in keys.chunks(BLOCK) {
            if !page.extend(keys, |key| self.numbers[key.as_usize()]) {
                for key in keys {
                    let slot = &mut self.numbers[key.as_usize()];
                    if *slot == UNSEEN {
                        *slot = number(key.as_usize());
                    }
                }
                page.extend(keys, |key| self.numbers[key.as_usize()]);
            }
        }
    }

    pub(super) fn buffered_bytes(&self) -> usize {
        size_of::<u32>() * self.numbers.capacity()
    }
}
