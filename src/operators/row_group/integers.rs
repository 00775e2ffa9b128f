//! Columns of wide integers, identifiers and times: the differences of neighbours, packed.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
};
use parquet::basic::Encoding;
use parquet::schema::types::ColumnDescPtr;

use super::chunk::{ChunkWriter, PageCodec, PageSummary};
use super::column::{ColumnEncoder, Encoded};
use super::error::Result;
use super::hybrid::put_varint;
use super::levels::Validity;
use super::valid_runs::ValidRuns;

/// A column of `Int64`, or of timestamps, which are stored alike.
pub(super) struct Int64Column {
    validity: Validity,
    /// The values of the page.
    page: Vec<i64>,
    chunk: ChunkWriter<i64>,
}

impl Int64Column {
    pub(super) fn new(column: ColumnDescPtr, page_rows: usize) -> Self {
        Self { validity: Validity::new(), page: Vec::with_capacity(page_rows), chunk: ChunkWriter::new(column) }
    }
}

fn values(array: &ArrayRef) -> &[i64] {
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Millisecond, _) => array.as_primitive::<TimestampMillisecondType>().values(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => array.as_primitive::<TimestampMicrosecondType>().values(),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => array.as_primitive::<TimestampNanosecondType>().values(),
        _ => array.as_primitive::<Int64Type>().values(),
    }
}

impl ColumnEncoder for Int64Column {
    fn append(&mut self, array: &ArrayRef, runs: &mut ValidRuns) -> Result<()> {
        let values = values(array);
        self.validity.append(array.len(), array.nulls());
        for run in runs.of(array.nulls(), array.len()) {
            self.page.extend_from_slice(&values[run.clone()]);
        }
        Ok(())
    }

    fn finish_page(&mut self, codec: &mut PageCodec) -> Result<()> {
        let (rows, values) = (self.validity.rows(), self.validity.values());
        codec.body.clear();
        self.validity.finish_page(self.chunk.max_definition_level(), &mut codec.body);
        put_deltas(&self.page, &mut codec.body);
        let bounds = self.page.first().map(|first| {
            self.page.iter().fold((*first, *first), |(min, max), value| (min.min(*value), max.max(*value)))
        });
        self.page.clear();
        let encoding = Encoding::DELTA_BINARY_PACKED;
        self.chunk.add_page(PageSummary { rows, levels: rows, values, bounds, encoding }, codec)
    }

    fn finish(self: Box<Self>, codec: &mut PageCodec) -> Result<Vec<Encoded>> {
        let chunk = self.chunk.finish(None, codec)?;
        Ok(vec![Encoded::Own(chunk)])
    }
}

/// Differences are packed in blocks of four miniblocks, each with a width of its own.
const BLOCK: usize = 128;
const MINIBLOCK: usize = 32;

/// Appends `values` as `DELTA_BINARY_PACKED`: the first, then in each block its smallest difference, the widths of its
/// miniblocks, and how far each difference is above the smallest. Differences wrap around.
fn put_deltas(values: &[i64], out: &mut Vec<u8>) {
    put_varint(BLOCK as u64, out);
    put_varint((BLOCK / MINIBLOCK) as u64, out);
    put_varint(values.len() as u64, out);
    put_zigzag(values.first().copied().unwrap_or_default(), out);
    let starts = (0..values.len().saturating_sub(1)).step_by(BLOCK);
    for start in starts {
        let block = &values[start..values.len().min(start + BLOCK + 1)];
        // A last block is filled with zeros to the end of its last miniblock; of those behind it the width alone is stored.
        let mut above = [0_u64; BLOCK];
        let slots = &mut above[..block.len() - 1];
        for (slot, (a, b)) in slots.iter_mut().zip(block.iter().zip(&block[1..])) {
            *slot = b.wrapping_sub(*a) as u64;
        }
        let min = slots.iter().fold(i64::MAX, |min, difference| min.min(*difference as i64));
        slots.iter_mut().for_each(|slot| *slot = slot.wrapping_sub(min as u64));
        put_zigzag(min, out);
        let (miniblocks, _) = above.as_chunks::<MINIBLOCK>();
        let width = |miniblock: &[u64; MINIBLOCK]| {
            u64::BITS - miniblock.iter().fold(0, |any, value| any | value).leading_zeros()
        };
        out.extend(miniblocks.iter().map(|miniblock| width(miniblock) as u8));
        for miniblock in miniblocks.iter().take((block.len() - 1).div_ceil(MINIBLOCK)) {
            put_packed(miniblock, width(miniblock), out);
        }
    }
}

fn put_zigzag(value: i64, out: &mut Vec<u8>) {
    put_varint((value << 1 ^ value >> 63) as u64, out);
}

/// Appends a miniblock at `width` bits a value.
fn put_packed(values: &[u64; MINIBLOCK], width: u32, out: &mut Vec<u8>) {
    let (mut word, mut filled) = (0, 0);
    for value in values {
        word |= value << filled;
        filled += width;
        if filled >= u64::BITS {
            out.extend_from_slice(&word.to_le_bytes());
            filled -= u64::BITS;
            // The bits of the value that did not fit.
            word = value.checked_shr(width - filled).unwrap_or_default();
        }
    }
    if filled > 0 {
        // 32 values fill whole 32-bit words.
        out.extend_from_slice(&(word as u32).to_le_bytes());
    }
}
