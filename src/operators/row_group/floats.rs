//! Columns of floating-point numbers, of which most have few distinct ones: a small hash table gives each its key.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::Float64Type;
use parquet::basic::Encoding;
use parquet::schema::types::ColumnDescPtr;

use super::bounds::float_bounds;
use super::chunk::{ChunkWriter, DictionaryPage, PageCodec, PageSummary};
use super::column::{ColumnEncoder, Encoded, put_keys};
use super::error::Result;
use super::levels::Validity;

/// With more distinct numbers than this the rest of the row group is written plain.
const MAX_DISTINCT: usize = 1 << 15;

/// A column of `Float64`. Numbers are told apart by their bits, so that NaN and −0 come back as they were.
pub(super) struct Float64Column {
    validity: Validity,
    dictionary: FloatDictionary,
    /// The numbers of the page.
    page: Vec<f64>,
    /// Whether a page is made of keys.
    has_keys: bool,
    chunk: ChunkWriter<f64>,
}

impl Float64Column {
    pub(super) fn new(column: ColumnDescPtr) -> Self {
        Self {
            validity: Validity::new(),
            dictionary: FloatDictionary::new(),
            page: Vec::new(),
            has_keys: false,
            chunk: ChunkWriter::new(column),
        }
    }
}

impl ColumnEncoder for Float64Column {
    fn append(&mut self, array: &ArrayRef) -> Result<()> {
        let values = array.as_primitive::<Float64Type>().values();
        self.validity.append(array.len(), array.nulls());
        match array.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => self.page.extend_from_slice(values),
            Some(nulls) => {
                nulls.valid_slices().for_each(|(from, to)| self.page.extend_from_slice(&values[from..to]));
            }
        }
        Ok(())
    }

    fn finish_page(&mut self, codec: &mut PageCodec) -> Result<()> {
        let (rows, values) = (self.validity.rows(), self.validity.values());
        codec.body.clear();
        self.validity.finish_page(self.chunk.max_definition_level(), &mut codec.body);
        let encoding = match self.dictionary.keys(&self.page) {
            Some((keys, distinct)) => {
                put_keys(keys, distinct, &mut codec.body);
                self.has_keys = true;
                Encoding::RLE_DICTIONARY
            }
            None => {
                put_plain(&self.page, &mut codec.body);
                Encoding::PLAIN
            }
        };
        let bounds = float_bounds(&self.page);
        self.page.clear();
        self.chunk.add_page(PageSummary { rows, levels: rows, values, bounds, encoding }, codec)
    }

    fn buffered_bytes(&self) -> usize {
        let page = 8 * self.page.capacity();
        page + self.dictionary.buffered_bytes() + self.validity.buffered_bytes() + self.chunk.buffered_bytes()
    }

    fn finish(self: Box<Self>, codec: &mut PageCodec) -> Result<Vec<Encoded>> {
        let Self { dictionary, has_keys, chunk, .. } = *self;
        let chunk = chunk.finish(has_keys.then(|| dictionary.into_page()), codec)?;
        Ok(vec![Encoded::Own(chunk)])
    }
}

fn put_plain(values: &[f64], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

/// The distinct numbers of a column in one row group, in order of first appearance, found by open addressing.
struct FloatDictionary {
    /// Bits of a number and its key; a key of `VACANT` marks a free slot. The length is a power of two, at most half filled.
    slots: Vec<(u64, u32)>,
    values: Vec<f64>,
    /// The keys of the last page.
    keys: Vec<u32>,
    full: bool,
}

const VACANT: u32 = u32::MAX;

impl FloatDictionary {
    fn new() -> Self {
        Self { slots: vec![(0, VACANT); 256], values: Vec::new(), keys: Vec::new(), full: false }
    }

    /// The keys of a page and the number of all distinct numbers so far, or `None` if it and all later ones are to be written plain. The numbers of a page that overfills
    /// the dictionary are taken out of it again.
    fn keys(&mut self, page: &[f64]) -> Option<(&[u32], usize)> {
        if self.full {
            return None;
        }
        let before = self.values.len();
        self.keys.clear();
        self.keys.reserve(page.len());
        for value in page {
            let key = self.key(value.to_bits());
            self.keys.push(key);
        }
        if self.values.len() > MAX_DISTINCT {
            self.values.truncate(before);
            self.slots = Vec::new();
            self.full = true;
            return None;
        }
        Some((&self.keys, self.values.len()))
    }

    fn key(&mut self, bits: u64) -> u32 {
        let mask = self.slots.len() - 1;
        let mut place = slot(bits) & mask;
        loop {
            let (found, key) = self.slots[place];
            if key == VACANT {
                return self.insert(bits, place);
            }
            if found == bits {
                return key;
            }
            place = (place + 1) & mask;
        }
    }

    #[cold]
    fn insert(&mut self, bits: u64, place: usize) -> u32 {
        let key = self.values.len() as u32;
        self.slots[place] = (bits, key);
        self.values.push(f64::from_bits(bits));
        if 2 * self.values.len() > self.slots.len() {
            let length = 2 * self.slots.len();
            let filled = std::mem::replace(&mut self.slots, vec![(0, VACANT); length]);
            for (bits, key) in filled.into_iter().filter(|(_, key)| *key != VACANT) {
                let mut place = slot(bits) & (length - 1);
                while self.slots[place].1 != VACANT {
                    place = (place + 1) & (length - 1);
                }
                self.slots[place] = (bits, key);
            }
        }
        key
    }

    fn buffered_bytes(&self) -> usize {
        16 * self.slots.capacity() + 8 * self.values.capacity() + 4 * self.keys.capacity()
    }

    fn into_page(self) -> DictionaryPage {
        let mut body = Vec::with_capacity(8 * self.values.len());
        put_plain(&self.values, &mut body);
        DictionaryPage { values: self.values.len(), body }
    }
}

/// Spreads the bits of a number over a table: the high half of a product, where all bits take part.
fn slot(bits: u64) -> usize {
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize
}
