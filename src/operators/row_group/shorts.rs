//! Columns of small integers: a table over the range of the values gives each its key.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::Int16Type;
use parquet::basic::Encoding;
use parquet::schema::types::ColumnDescPtr;

use super::chunk::{ChunkWriter, DictionaryPage, PageCodec, PageSummary};
use super::column::{ColumnEncoder, Encoded, put_keys};
use super::error::Result;
use super::levels::Validity;

/// The number of a value that the row group has not met.
const UNSEEN: u32 = u32::MAX;

/// A column of `Int16`. Values are numbered in order of first appearance.
pub(super) struct Int16Column {
    validity: Validity,
    /// Value − `lowest` to number; as long as the range of the values met.
    numbers: Vec<u32>,
    lowest: i16,
    values: Vec<i16>,
    /// The numbers of the page, and its smallest and largest value.
    page: Vec<u32>,
    bounds: Option<(i16, i16)>,
    chunk: ChunkWriter<i32>,
}

impl Int16Column {
    pub(super) fn new(column: ColumnDescPtr) -> Self {
        Self {
            validity: Validity::new(),
            numbers: Vec::new(),
            lowest: 0,
            values: Vec::new(),
            page: Vec::new(),
            bounds: None,
            chunk: ChunkWriter::new(column),
        }
    }

    fn append_run(&mut self, run: &[i16]) {
        let Some(first) = run.first() else { return };
        let (min, max) = run.iter().fold((*first, *first), |(min, max), value| (min.min(*value), max.max(*value)));
        self.bounds = Some(self.bounds.map_or((min, max), |(low, high)| (low.min(min), high.max(max))));
        self.cover(min, max);
        let Self { numbers, lowest, values, page, .. } = self;
        page.extend(run.iter().map(|value| {
            let place = value.wrapping_sub(*lowest) as u16;
            let number = &mut numbers[usize::from(place)];
            if *number == UNSEEN {
                *number = values.len() as u32;
                values.push(*value);
            }
            *number
        }));
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
        let length = usize::from(max.abs_diff(self.lowest)) + 1;
        if max >= self.lowest && length > self.numbers.len() {
            self.numbers.resize(length, UNSEEN);
        }
    }
}

impl ColumnEncoder for Int16Column {
    fn append(&mut self, array: &ArrayRef) -> Result<()> {
        let values = array.as_primitive::<Int16Type>().values();
        self.validity.append(array.len(), array.nulls());
        match array.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => self.append_run(values),
            Some(nulls) => nulls.valid_slices().for_each(|(from, to)| self.append_run(&values[from..to])),
        }
        Ok(())
    }

    fn finish_page(&mut self, codec: &mut PageCodec) -> Result<()> {
        let (rows, values) = (self.validity.rows(), self.validity.values());
        codec.body.clear();
        self.validity.finish_page(self.chunk.max_definition_level(), &mut codec.body);
        put_keys(&self.page, self.values.len(), &mut codec.body);
        self.page.clear();
        let bounds = self.bounds.take().map(|(min, max)| (min.into(), max.into()));
        let encoding = Encoding::RLE_DICTIONARY;
        self.chunk.add_page(PageSummary { rows, levels: rows, values, bounds, encoding }, codec)
    }

    fn buffered_bytes(&self) -> usize {
        let tables = 4 * (self.numbers.capacity() + self.page.capacity()) + 2 * self.values.capacity();
        tables + self.validity.buffered_bytes() + self.chunk.buffered_bytes()
    }

    fn finish(self: Box<Self>, codec: &mut PageCodec) -> Result<Vec<Encoded>> {
        let body = self.values.iter().flat_map(|value| i32::from(*value).to_le_bytes()).collect();
        let chunk = self.chunk.finish(Some(DictionaryPage { values: self.values.len(), body }), codec)?;
        Ok(vec![Encoded::Own(chunk)])
    }
}
