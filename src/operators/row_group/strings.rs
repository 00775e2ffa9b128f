//! Columns of few distinct strings that arrive as dictionary keys: the keys are renumbered, never the strings hashed.

use std::hash::BuildHasher;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use hashbrown::{DefaultHashBuilder, HashTable};
use parquet::basic::Encoding;
use parquet::data_type::ByteArray;
use parquet::schema::types::ColumnDescPtr;

use super::bounds::Ends;
use super::chunk::{ChunkWriter, DictionaryPage, PageCodec, PageSummary};
use super::column::{ColumnEncoder, Encoded};
use super::error::Result;
use super::keys::KeyPage;
use super::levels::Validity;
use super::renumber::Renumbering;
use super::valid_runs::ValidRuns;

/// The distinct strings of one column in one row group, numbered in order of first appearance, so that the numbers depend
/// on the rows alone and not on the dictionaries they came with.
pub(super) struct StringDictionary {
    distinct: DistinctStrings,
    renumbering: Renumbering,
    /// The numbers of the page.
    page: KeyPage,
}

impl StringDictionary {
    /// An empty one, with room for a page of so many strings.
    pub(super) fn new(page: usize) -> Self {
        Self {
            distinct: DistinctStrings::default(),
            renumbering: Renumbering::default(),
            page: KeyPage::with_capacity(page),
        }
    }

    /// Appends the strings of runs of a dictionary array.
    pub(super) fn append(&mut self, array: &dyn Array, runs: impl IntoIterator<Item = Range<usize>>) {
        let Self { renumbering, page, distinct } = self;
        renumbering.append(array, runs, page, |strings, key| {
            distinct.number(strings.as_string::<i32>().value(key).as_bytes())
        });
    }

    /// The strings of the page.
    pub(super) fn values_in_page(&self) -> usize {
        self.page.len()
    }

    /// Appends the keys of the page to `out`, and starts the next. Gives the first and last string of the page.
    pub(super) fn finish_page(&mut self, out: &mut Vec<u8>) -> Option<(ByteArray, ByteArray)> {
        let DistinctStrings { values, ends, .. } = &self.distinct;
        let bounds = ends.in_page(&self.page, values.len(), |number| Some(values.get(number)));
        self.page.finish_page(values.len(), out);
        bounds.map(|(first, last)| (first.to_vec().into(), last.to_vec().into()))
    }

    /// The dictionary page.
    pub(super) fn into_page(self) -> DictionaryPage {
        DictionaryPage { values: self.distinct.values.len(), body: self.distinct.values.plain }
    }
}

/// Distinct strings and their numbers.
#[derive(Default)]
struct DistinctStrings {
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
    values: Strings,
    ends: Ends,
}

impl DistinctStrings {
    /// The number of a string, the next one if it has none.
    fn number(&mut self, string: &[u8]) -> u32 {
        let hash = self.hasher.hash_one(string);
        if let Some(number) = self.numbers.find(hash, |number| self.values.get(*number) == string) {
            return *number;
        }
        let number = self.values.push(string);
        self.ends.add(number, |number| Some(self.values.get(number)));
        self.numbers.insert_unique(hash, number, |number| self.hasher.hash_one(self.values.get(*number)));
        number
    }
}

/// Strings by number.
#[derive(Default)]
struct Strings {
    /// Each after its length in four bytes: a dictionary page.
    plain: Vec<u8>,
    /// Where each ends in `plain`.
    ends: Vec<usize>,
}

impl Strings {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, number: u32) -> &[u8] {
        let number = number as usize;
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.plain[start + size_of::<u32>()..self.ends[number]]
    }

    /// Gives a string the next number.
    fn push(&mut self, string: &[u8]) -> u32 {
        self.plain.extend_from_slice(&(string.len() as u32).to_le_bytes());
        self.plain.extend_from_slice(string);
        self.ends.push(self.plain.len());
        self.ends.len() as u32 - 1
    }
}

/// A column of `Dictionary(key, Utf8)`, written as strings.
pub(super) struct StringColumn {
    strings: StringDictionary,
    validity: Validity,
    chunk: ChunkWriter<ByteArray>,
}

impl StringColumn {
    pub(super) fn new(column: ColumnDescPtr, page_rows: usize) -> Self {
        Self { strings: StringDictionary::new(page_rows), validity: Validity::new(), chunk: ChunkWriter::new(column) }
    }
}

impl ColumnEncoder for StringColumn {
    fn append(&mut self, array: &ArrayRef, runs: &mut ValidRuns) -> Result<()> {
        let nulls = array.logical_nulls();
        self.validity.append(array.len(), nulls.as_ref());
        self.strings.append(array, runs.of(nulls.as_ref(), array.len()).iter().cloned());
        Ok(())
    }

    fn finish_page(&mut self, codec: &mut PageCodec) -> Result<()> {
        let (rows, values) = (self.validity.rows(), self.validity.values());
        codec.body.clear();
        self.validity.finish_page(self.chunk.max_definition_level(), &mut codec.body);
        let bounds = self.strings.finish_page(&mut codec.body);
        let encoding = Encoding::RLE_DICTIONARY;
        self.chunk.add_page(PageSummary { rows, levels: rows, values, bounds, encoding }, codec)
    }

    fn finish(self: Box<Self>, codec: &mut PageCodec) -> Result<Vec<Encoded>> {
        let chunk = self.chunk.finish(Some(self.strings.into_page()), codec)?;
        Ok(vec![Encoded::Own(chunk)])
    }
}
