//! Columns of floating-point numbers, of which most have few distinct ones: a small hash table gives each its key, or, where they
//! arrive as dictionary keys, each that is new.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use parquet::basic::Encoding;
use parquet::schema::types::ColumnDescPtr;

use super::bounds::FloatBounds;
use super::chunk::{ChunkWriter, DictionaryPage, PageCodec, PageSummary};
use super::column::{ColumnEncoder, Encoded};
use super::error::{Result, RowGroupError};
use super::keys::KeyPage;
use super::levels::Validity;
use super::renumber::Renumbering;

/// With more distinct numbers than this the rest of the row group is written plain.
const MAX_DISTINCT: usize = 1 << 15;

/// A column of `Float64`, or of dictionaries of it. Numbers are told apart by their bits, so that NaN and −0 come back as they
/// were.
pub(super) struct Float64Column {
    validity: Validity,
    values: Values,
    renumbering: Renumbering,
    /// Whether a page is made of keys.
    has_keys: bool,
    chunk: ChunkWriter<f64>,
}

/// The numbers of the page at work.
enum Values {
    Keys(KeyPage, FloatDictionary),
    /// As they are, once the dictionary has overflowed; with the dictionary of the pages before.
    Plain(Vec<f64>, Vec<f64>),
}

impl Float64Column {
    pub(super) fn new(column: ColumnDescPtr) -> Self {
        Self {
            validity: Validity::new(),
            values: Values::Keys(KeyPage::default(), FloatDictionary::new()),
            renumbering: Renumbering::default(),
            has_keys: false,
            chunk: ChunkWriter::new(column),
        }
    }

    fn append_run(&mut self, run: &[f64]) {
        match &mut self.values {
            Values::Keys(page, dictionary) => {
                page.extend(run, |value| dictionary.key(*value));
            }
            Values::Plain(page, _) => page.extend_from_slice(run),
        }
    }
}

impl ColumnEncoder for Float64Column {
    fn append(&mut self, array: &ArrayRef) -> Result<()> {
        let nulls = array.logical_nulls();
        self.validity.append(array.len(), nulls.as_ref());
        let is_dictionary = matches!(array.data_type(), DataType::Dictionary(_, _));
        if let (true, Values::Keys(page, dictionary)) = (is_dictionary, &mut self.values) {
            let number = |values: &ArrayRef, key| dictionary.key(values.as_primitive::<Float64Type>().value(key));
            self.renumbering.append(array, 0..array.len(), nulls.as_ref(), page, number);
            return Ok(());
        }
        let failed = |source| RowGroupError::Arrow { column: self.chunk.column_path(), source };
        let values = cast(array, &DataType::Float64).map_err(failed)?;
        let values = values.as_primitive::<Float64Type>().values();
        match nulls.filter(|nulls| nulls.null_count() > 0) {
            None => self.append_run(values),
            Some(nulls) => nulls.valid_slices().for_each(|(from, to)| self.append_run(&values[from..to])),
        }
        Ok(())
    }

    fn finish_page(&mut self, codec: &mut PageCodec) -> Result<()> {
        let (rows, values) = (self.validity.rows(), self.validity.values());
        codec.body.clear();
        self.validity.finish_page(self.chunk.max_definition_level(), &mut codec.body);
        if let Values::Keys(page, dictionary) = &mut self.values
            && dictionary.values.len() > MAX_DISTINCT
        {
            // The page that overfills the dictionary is written plain, and what it added is taken out again.
            let plain = page.iter().map(|key| dictionary.values[key]).collect();
            dictionary.values.truncate(dictionary.before_page);
            self.values = Values::Plain(plain, std::mem::take(&mut dictionary.values));
        }
        let mut bounds = FloatBounds::default();
        let encoding = match &mut self.values {
            Values::Keys(page, dictionary) => {
                bounds.extend(dictionary.in_page(page));
                page.finish_page(dictionary.values.len(), &mut codec.body);
                dictionary.before_page = dictionary.values.len();
                self.has_keys = true;
                Encoding::RLE_DICTIONARY
            }
            Values::Plain(page, _) => {
                bounds.extend(page.iter().copied());
                put_plain(page, &mut codec.body);
                page.clear();
                Encoding::PLAIN
            }
        };
        self.chunk.add_page(PageSummary { rows, levels: rows, values, bounds: bounds.get(), encoding }, codec)
    }

    fn buffered_bytes(&self) -> usize {
        let values = match &self.values {
            Values::Keys(page, dictionary) => page.buffered_bytes() + dictionary.buffered_bytes(),
            Values::Plain(page, dictionary) => 8 * (page.capacity() + dictionary.capacity()),
        };
        let validity = self.validity.buffered_bytes();
        values + validity + self.renumbering.buffered_bytes() + self.chunk.buffered_bytes()
    }

    fn finish(self: Box<Self>, codec: &mut PageCodec) -> Result<Vec<Encoded>> {
        let dictionary = match &self.values {
            Values::Keys(_, dictionary) => &dictionary.values,
            Values::Plain(_, dictionary) => dictionary,
        };
        let page = self.has_keys.then(|| {
            let mut body = Vec::with_capacity(8 * dictionary.len());
            put_plain(dictionary, &mut body);
            DictionaryPage { values: dictionary.len(), body }
        });
        let chunk = self.chunk.finish(page, codec)?;
        Ok(vec![Encoded::Own(chunk)])
    }
}

fn put_plain(values: &[f64], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

/// The distinct numbers of a column in one row group, in order of first appearance, found by open addressing.
struct FloatDictionary {
    /// Keys by hash, [`VACANT`] where there is none. The length is a power of two, sparsely filled: a first guess that is
    /// almost always right costs less than a small table.
    slots: Vec<u16>,
    values: Vec<f64>,
    /// How many values there were before the page at work.
    before_page: usize,
    /// By key: whether a page has it. Kept for its capacity.
    seen: Vec<bool>,
}

const VACANT: u16 = u16::MAX;
/// Slots per value at least.
const SPARSITY: usize = 8;

impl FloatDictionary {
    fn new() -> Self {
        Self { slots: vec![VACANT; 64 * SPARSITY], values: Vec::new(), before_page: 0, seen: Vec::new() }
    }

    fn key(&mut self, value: f64) -> u32 {
        let bits = value.to_bits();
        let mask = self.slots.len() - 1;
        let mut place = hash(bits) & mask;
        loop {
            let key = self.slots[place];
            if key == VACANT {
                return self.insert(value, place);
            }
            if self.values[usize::from(key)].to_bits() == bits {
                return key.into();
            }
            place = (place + 1) & mask;
        }
    }

    /// The distinct numbers of a page.
    fn in_page(&mut self, page: &KeyPage) -> impl Iterator<Item = f64> {
        self.seen.clear();
        self.seen.resize(self.values.len(), false);
        page.mark(&mut self.seen);
        self.values.iter().zip(&self.seen).filter(|(_, seen)| **seen).map(|(value, _)| *value)
    }

    fn buffered_bytes(&self) -> usize {
        size_of::<u16>() * self.slots.capacity() + size_of::<f64>() * self.values.capacity() + self.seen.capacity()
    }

    /// Gives a new number its key. Keys past [`MAX_DISTINCT`] are handed out too, so that the page can be written plain.
    #[cold]
    fn insert(&mut self, value: f64, place: usize) -> u32 {
        let key = self.values.len();
        self.values.push(value);
        if key < MAX_DISTINCT {
            self.slots[place] = key as u16;
            if SPARSITY * self.values.len() > self.slots.len() {
                self.grow();
            }
        }
        key as u32
    }

    fn grow(&mut self) {
        let length = 2 * self.slots.len();
        self.slots = vec![VACANT; length];
        for (key, value) in self.values.iter().enumerate() {
            let mut place = hash(value.to_bits()) & (length - 1);
            while self.slots[place] != VACANT {
                place = (place + 1) & (length - 1);
            }
            self.slots[place] = key as u16;
        }
    }
}

/// Both halves of a wide product, so that every bit of a number takes part.
fn hash(bits: u64) -> usize {
    let product = u128::from(bits) * 0x9e37_79b9_7f4a_7c15;
    (product as u64 ^ (product >> 64) as u64) as usize
}
