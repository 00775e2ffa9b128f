//! Columns of small integers: a table over the range of the values gives each its key.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::Int16Type;
use parquet::basic::Encoding;
use parquet::schema::types::ColumnDescPtr;

use super::chunk::{ChunkWriter, DictionaryPage, PageCodec, PageSummary};
use super::column::{ColumnEncoder, Encoded};
use super::error::Result;
use super::keys::{KeyPage, Numbering, UNSEEN};
use super::levels::Validity;
use super::valid_runs::ValidRuns;

/// A column of `Int16`.
pub(super) struct Int16Column {
    validity: Validity,
    dictionary: ShortDictionary,
    page: KeyPage,
    /// The smallest and largest value of the page.
    bounds: Option<(i16, i16)>,
    chunk: ChunkWriter<i32>,
}

impl Int16Column {
    pub(super) fn new(column: ColumnDescPtr, page_rows: usize) -> Self {
        Self {
            validity: Validity::new(),
            dictionary: ShortDictionary::default(),
            page: KeyPage::with_capacity(page_rows),
            bounds: None,
            chunk: ChunkWriter::new(column),
        }
    }

    fn append_run(&mut self, run: &[i16]) {
        let Some(first) = run.first() else { return };
        let (min, max) = run.iter().fold((*first, *first), |(min, max), value| (min.min(*value), max.max(*value)));
        self.bounds = Some(self.bounds.map_or((min, max), |(low, high)| (low.min(min), high.max(max))));
        self.dictionary.cover(min, max);
        self.page.extend(run, &mut self.dictionary);
    }
}

impl ColumnEncoder for Int16Column {
    fn append(&mut self, array: &ArrayRef, runs: &mut ValidRuns) -> Result<()> {
        let values = array.as_primitive::<Int16Type>().values();
        self.validity.append(array.len(), array.nulls());
        runs.of(array.nulls(), array.len()).iter().for_each(|run| self.append_run(&values[run.clone()]));
        Ok(())
    }

    fn finish_page(&mut self, codec: &mut PageCodec) -> Result<()> {
        let (rows, values) = (self.validity.rows(), self.validity.values());
        codec.body.clear();
        self.validity.finish_page(self.chunk.max_definition_level(), &mut codec.body);
        self.page.finish_page(self.dictionary.values.len(), &mut codec.body);
        let bounds = self.bounds.take().map(|(min, max)| (min.into(), max.into()));
        let encoding = Encoding::RLE_DICTIONARY;
        self.chunk.add_page(PageSummary { rows, levels: rows, values, bounds, encoding }, codec)
    }

    fn finish(self: Box<Self>, codec: &mut PageCodec) -> Result<Vec<Encoded>> {
        let values = &self.dictionary.values;
        let body = values.iter().flat_map(|value| i32::from(*value).to_le_bytes()).collect();
        let dictionary = DictionaryPage { values: values.len(), body };
        let chunk = self.chunk.finish(Some(dictionary), codec)?;
        Ok(vec![Encoded::Own(chunk)])
    }
}

/// The distinct values of a column in one row group, numbered in order of first appearance.
#[derive(Default)]
struct ShortDictionary {
    /// Value − `lowest` to number, or [`UNSEEN`]; as long as the range of the values met.
    numbers: Vec<u32>,
    lowest: i16,
    values: Vec<i16>,
}

/// Of values that the table covers.
impl Numbering<i16> for ShortDictionary {
    fn find(&self, value: i16) -> u32 {
        self.numbers[self.place(value)]
    }

    fn find_or_add(&mut self, value: i16) -> u32 {
        let place = self.place(value);
        if self.numbers[place] == UNSEEN {
            self.numbers[place] = self.values.len() as u32;
            self.values.push(value);
        }
        self.numbers[place]
    }
}

impl ShortDictionary {
    fn place(&self, value: i16) -> usize {
        usize::from(value.wrapping_sub(self.lowest) as u16)
    }

    /// Extends the table to values from `min` to `max`.
    fn cover(&mut self, min: i16, max: i16) {
        if self.numbers.is_empty() {
            self.lowest = min;
        }
        if min < self.lowest {
            let missing = usize::from(self.lowest.abs_diff(min));
            self.numbers.splice(..0, std::iter::repeat_n(UNSEEN, missing));
            self.lowest = min;
        }
        if max >= self.lowest {
            let length = usize::from(max.abs_diff(self.lowest)) + 1;
            self.numbers.resize(length.max(self.numbers.len()), UNSEEN);
        }
    }
}
