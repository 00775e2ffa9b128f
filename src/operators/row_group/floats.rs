//! Columns of floating-point numbers, of which most have few distinct ones: a hash table gives each its key, or, where they arrive as
//! dictionary keys, each that is new.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use parquet::basic::Encoding;
use parquet::schema::types::ColumnDescPtr;

use crate::model::distinct_floats::DistinctFloats;

use super::bounds::{Ends, FloatBounds};
use super::chunk::{ChunkWriter, DictionaryPage, PageCodec, PageSummary};
use super::column::{ColumnEncoder, Encoded};
use super::error::{Result, RowGroupError};
use super::keys::{KeyPage, Numbering, UNSEEN};
use super::levels::Validity;
use super::renumber::Renumbering;
use super::valid_runs::ValidRuns;

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
    pub(super) fn new(column: ColumnDescPtr, page_rows: usize) -> Self {
        Self {
            validity: Validity::new(),
            values: Values::Keys(KeyPage::with_capacity(page_rows), FloatDictionary::default()),
            renumbering: Renumbering::default(),
            has_keys: false,
            chunk: ChunkWriter::new(column),
        }
    }

    fn append_run(&mut self, run: &[f64]) {
        match &mut self.values {
            Values::Keys(page, dictionary) => page.extend(run, dictionary),
            Values::Plain(page, _) => page.extend_from_slice(run),
        }
    }
}

impl ColumnEncoder for Float64Column {
    fn append(&mut self, array: &ArrayRef, runs: &mut ValidRuns) -> Result<()> {
        let nulls = array.logical_nulls();
        self.validity.append(array.len(), nulls.as_ref());
        let runs = runs.of(nulls.as_ref(), array.len());
        let is_dictionary = matches!(array.data_type(), DataType::Dictionary(_, _));
        if let (true, Values::Keys(page, dictionary)) = (is_dictionary, &mut self.values) {
            self.renumbering.append(array, runs.iter().cloned(), page, |values, key| {
                dictionary.find_or_add(values.as_primitive::<Float64Type>().value(key))
            });
            return Ok(());
        }
        let failed = |source| RowGroupError::Arrow { column: self.chunk.column_path(), source };
        let values = cast(array, &DataType::Float64).map_err(failed)?;
        let values = values.as_primitive::<Float64Type>().values();
        runs.iter().for_each(|run| self.append_run(&values[run.clone()]));
        Ok(())
    }

    fn finish_page(&mut self, codec: &mut PageCodec) -> Result<()> {
        let (rows, values) = (self.validity.rows(), self.validity.values());
        codec.body.clear();
        self.validity.finish_page(self.chunk.max_definition_level(), &mut codec.body);
        if let Values::Keys(page, dictionary) = &mut self.values
            && dictionary.distinct.values().len() > MAX_DISTINCT
        {
            // The page that overfills the dictionary is written plain, and what it added is left out.
            let values = dictionary.distinct.values();
            let plain = page.iter().map(|key| values[key]).collect();
            self.values = Values::Plain(plain, values[..dictionary.before_page].to_vec());
        }
        let mut bounds = FloatBounds::default();
        let encoding = match &mut self.values {
            Values::Keys(page, dictionary) => {
                let values = dictionary.distinct.values();
                if let Some((min, max)) = dictionary.ends.in_page(page, values.len(), not_nan(values)) {
                    bounds.extend([min, max]);
                }
                page.finish_page(values.len(), &mut codec.body);
                dictionary.before_page = values.len();
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

    fn finish(self: Box<Self>, codec: &mut PageCodec) -> Result<Vec<Encoded>> {
        let dictionary = match &self.values {
            Values::Keys(_, dictionary) => dictionary.distinct.values(),
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

/// The distinct numbers of a column in one row group, in order of first appearance.
#[derive(Default)]
struct FloatDictionary {
    distinct: DistinctFloats,
    ends: Ends,
    /// How many there were before the page at work.
    before_page: usize,
}

impl Numbering<f64> for FloatDictionary {
    fn find(&self, value: f64) -> u32 {
        self.distinct.find(value).unwrap_or(UNSEEN)
    }

    fn find_or_add(&mut self, value: f64) -> u32 {
        if let Some(key) = self.distinct.find(value) {
            return key;
        }
        let key = self.distinct.add(value);
        self.ends.add(key, not_nan(self.distinct.values()));
        key
    }
}

/// The numbers that have an order, by their keys.
fn not_nan(values: &[f64]) -> impl Fn(u32) -> Option<f64> {
    |key| Some(values[key as usize]).filter(|value| !value.is_nan())
}
