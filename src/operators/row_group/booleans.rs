//! Columns of booleans: the bits are taken as they are.

use arrow::array::{Array, ArrayRef, AsArray, BooleanBufferBuilder};
use parquet::basic::Encoding;
use parquet::schema::types::ColumnDescPtr;

use super::chunk::{ChunkWriter, PageCodec, PageSummary};
use super::column::{ColumnEncoder, Encoded};
use super::error::Result;
use super::levels::Validity;
use super::valid_runs::ValidRuns;

/// A column of `Boolean`, one plain bit per value.
pub(super) struct BooleanColumn {
    validity: Validity,
    bits: BooleanBufferBuilder,
    chunk: ChunkWriter<bool>,
}

impl BooleanColumn {
    pub(super) fn new(column: ColumnDescPtr) -> Self {
        Self { validity: Validity::new(), bits: BooleanBufferBuilder::new(0), chunk: ChunkWriter::new(column) }
    }
}

impl ColumnEncoder for BooleanColumn {
    fn append(&mut self, array: &ArrayRef, runs: &mut ValidRuns) -> Result<()> {
        let values = array.as_boolean().values();
        self.validity.append(array.len(), array.nulls());
        for run in runs.of(array.nulls(), array.len()) {
            self.bits.append_packed_range(values.offset() + run.start..values.offset() + run.end, values.values());
        }
        Ok(())
    }

    fn finish_page(&mut self, codec: &mut PageCodec) -> Result<()> {
        let (rows, values) = (self.validity.rows(), self.validity.values());
        codec.body.clear();
        self.validity.finish_page(self.chunk.max_definition_level(), &mut codec.body);
        let bits = self.bits.finish();
        codec.body.extend_from_slice(&bits.values()[..values.div_ceil(8)]);
        let set = bits.count_set_bits();
        let bounds = (values > 0).then_some((set == values, set > 0));
        self.chunk.add_page(PageSummary { rows, levels: rows, values, bounds, encoding: Encoding::PLAIN }, codec)
    }

    fn finish(self: Box<Self>, codec: &mut PageCodec) -> Result<Vec<Encoded>> {
        let chunk = self.chunk.finish(None, codec)?;
        Ok(vec![Encoded::Own(chunk)])
    }
}
