//! Columns of lists of few distinct strings, which arrive as dictionary keys.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field};
use parquet::basic::Encoding;
use parquet::data_type::ByteArray;
use parquet::schema::types::ColumnDescPtr;

use super::chunk::{ChunkWriter, PageCodec, PageSummary};
use super::column::{ColumnEncoder, Encoded};
use super::error::{Result, RowGroupError};
use super::levels::{DefinitionScale, ListLevels};
use super::strings::StringDictionary;
use super::valid_runs::ValidRuns;

/// A column of `List<Dictionary(key, Utf8)>`, written as lists of strings.
pub(super) struct StringListColumn {
    strings: StringDictionary,
    levels: ListLevels,
    scale: DefinitionScale,
    chunk: ChunkWriter<ByteArray>,
}

impl StringListColumn {
    pub(super) fn new(field: &Field, column: ColumnDescPtr, page_rows: usize) -> Self {
        let item_nullable = matches!(field.data_type(), DataType::List(item) if item.is_nullable());
        Self {
            strings: StringDictionary::new(page_rows),
            levels: ListLevels::new(),
            scale: DefinitionScale::new(field.is_nullable(), item_nullable),
            chunk: ChunkWriter::new(column),
        }
    }
}

impl ColumnEncoder for StringListColumn {
    fn append(&mut self, array: &ArrayRef, runs: &mut ValidRuns) -> Result<()> {
        let lists = array.as_list::<i32>();
        let (offsets, nulls, items) = (lists.value_offsets(), lists.nulls(), lists.values());
        let item_nulls = items.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        if item_nulls.is_some() && !self.scale.item_nullable() {
            return Err(RowGroupError::UnexpectedNull { column: self.chunk.column_path() });
        }
        let runs = runs.of(nulls, lists.len());
        self.levels.append(offsets, runs, item_nulls.as_ref(), &self.scale);
        let items_of = |lists: &Range<usize>| offsets[lists.start] as usize..offsets[lists.end] as usize;
        match item_nulls {
            None => self.strings.append(items, runs.iter().map(items_of)),
            Some(nulls) => {
                for Range { start, end } in runs.iter().map(items_of) {
                    let nulls = nulls.slice(start, end - start);
                    self.strings.append(items, nulls.valid_slices().map(|(from, to)| start + from..start + to));
                }
            }
        }
        Ok(())
    }

    fn finish_page(&mut self, codec: &mut PageCodec) -> Result<()> {
        let (rows, levels, values) = (self.levels.rows(), self.levels.levels(), self.strings.values_in_page());
        codec.body.clear();
        self.levels.finish_page(&self.scale, &mut codec.body);
        let bounds = self.strings.finish_page(&mut codec.body);
        let encoding = Encoding::RLE_DICTIONARY;
        self.chunk.add_page(PageSummary { rows, levels, values, bounds, encoding }, codec)
    }

    fn finish(self: Box<Self>, codec: &mut PageCodec) -> Result<Vec<Encoded>> {
        let chunk = self.chunk.finish(Some(self.strings.into_page()), codec)?;
        Ok(vec![Encoded::Own(chunk)])
    }
}
