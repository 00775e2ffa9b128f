//! One column chunk of ranks, read as bytes.

use std::sync::Arc;

use arrow::array::NullBufferBuilder;
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Type};
use parquet::column::page::{Page, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use zstd::bulk::Decompressor;
use zstd::zstd_safe::get_frame_content_size;

use super::keys::Dictionary;
use super::runs::{Piece, Runs};

/// The byte of a null, and of every number that is not from 0 to [`GREATEST`].
const NO_NUMBER: u8 = u8::MAX;
/// The greatest number that stands for itself.
const GREATEST: u8 = 100;

/// Whether a column chunk can be read here: whole numbers, at most one level deep, in encodings that writers choose for columns of
/// few values.
pub(super) fn is_readable(chunk: &ColumnChunkMetaData) -> bool {
    let column = chunk.column_descr();
    let nullable = column.max_def_level() > 0;
    let known = |encoding| match encoding {
        Encoding::PLAIN | Encoding::RLE | Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY => true,
        // Some writers name it for the levels that a column without nulls lacks.
        #[expect(deprecated)]
        Encoding::BIT_PACKED => !nullable,
        _ => false,
    };
    matches!(chunk.column_type(), Type::INT32 | Type::INT64)
        && column.max_rep_level() == 0
        && column.max_def_level() <= 1
        && column.path().parts().len() == 1
        && chunk.encodings().all(known)
}

/// Decompresses pages of zstd, for all chunks of a partition.
///
/// The library makes a compressor and a decompressor for each chunk. Each of them asks the processor what it can do, which in a
/// virtual machine takes longer than to decompress a page.
pub(super) struct PageDecompressor(Decompressor<'static>);

impl PageDecompressor {
    pub(super) fn new() -> Result<Self> {
        Ok(PageDecompressor(Decompressor::new()?))
    }

    /// A page that has at most `most` bytes, decompressed. Not every writer leaves its size in it, and one of several frames has
    /// the size of the first.
    pub(super) fn decompress(&mut self, page: &[u8], most: usize) -> Result<Bytes> {
        let size = get_frame_content_size(page).ok().flatten().and_then(|size| usize::try_from(size).ok());
        let of_its_size = size.filter(|size| *size < most).and_then(|size| self.0.decompress(page, size).ok());
        Ok(match of_its_size {
            Some(decompressed) => decompressed.into(),
            None => self.0.decompress(page, most)?.into(),
        })
    }
}

/// Reads the values of a column chunk as bytes: each number from 0 to [`GREATEST`] as itself, any other one as [`NO_NUMBER`].
///
/// Memory: the chunk as it is stored, and one page.
pub(super) struct RankChunk {
    pages: SerializedPageReader<ChunkBytes>,
    /// Where pages come as zstd has them, the most bytes that one can have; others come decompressed by the library.
    zstd: Option<usize>,
    physical: Type,
    nullable: bool,
    dictionary: Option<Box<Dictionary>>,
    page: RankPage,
}

/// What is left of a data page.
struct RankPage {
    rows: usize,
    /// Definition levels; `None` where no value can be null.
    levels: Option<Runs>,
    values: Values,
}

enum Values {
    Keys(Runs),
    Plain(Bytes),
}

impl RankChunk {
    /// A chunk that [`is_readable`], of which `bytes` are all.
    pub(super) fn new(chunk: &ColumnChunkMetaData, rows: usize, bytes: Bytes) -> Result<Self> {
        let source = Arc::new(ChunkBytes { start: chunk.byte_range().0, bytes });
        let is_zstd = matches!(chunk.compression(), Compression::ZSTD(_));
        let as_stored = || chunk.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build();
        let read_as = if is_zstd { &as_stored()? } else { chunk };
        Ok(RankChunk {
            pages: SerializedPageReader::new(source, read_as, rows, None)?,
            zstd: is_zstd.then(|| chunk.uncompressed_size().clamp(0, i32::MAX.into()) as usize),
            physical: chunk.column_type(),
            nullable: chunk.column_descr().max_def_level() > 0,
            dictionary: None,
            page: RankPage { rows: 0, levels: None, values: Values::Plain(Bytes::new()) },
        })
    }

    /// Appends the next `rows` values to `out`, and to `valid` which of them are not null. The byte of a null is [`NO_NUMBER`].
    pub(super) fn read(
        &mut self,
        rows: usize,
        decompressor: &mut PageDecompressor,
        out: &mut Vec<u8>,
        valid: &mut NullBufferBuilder,
    ) -> Result<()> {
        let end = out.len() + rows;
        while out.len() < end {
            if self.page.rows == 0 {
                self.next_page(decompressor)?;
            } else {
                self.read_page(self.page.rows.min(end - out.len()), out, valid)?;
            }
        }
        Ok(())
    }

    fn read_page(&mut self, rows: usize, out: &mut Vec<u8>, valid: &mut NullBufferBuilder) -> Result<()> {
        self.page.rows -= rows;
        let Some(mut levels) = self.page.levels.take() else {
            valid.append_n_non_nulls(rows);
            return self.read_values(rows, out);
        };
        let end = out.len() + rows;
        while out.len() < end {
            match levels.next(end - out.len())? {
                Piece::Repeated { value: 0, count } => {
                    valid.append_n_nulls(count);
                    out.resize(out.len() + count, NO_NUMBER);
                }
                Piece::Repeated { count, .. } => {
                    valid.append_n_non_nulls(count);
                    self.read_values(count, out)?;
                }
                Piece::Packed { groups, skip, count } => {
                    let mut bits = groups.to_vec();
                    bits.resize((skip + count).div_ceil(8), 0);
                    let bits = NullBuffer::new(BooleanBuffer::new(Buffer::from(bits), skip, count));
                    let start = out.len();
                    for (from, to) in bits.valid_slices() {
                        out.resize(start + from, NO_NUMBER);
                        self.read_values(to - from, out)?;
                    }
                    out.resize(start + count, NO_NUMBER);
                    valid.append_buffer(&bits);
                }
            }
        }
        self.page.levels = Some(levels);
        Ok(())
    }

    /// Appends the next `count` stored values.
    fn read_values(&mut self, count: usize, out: &mut Vec<u8>) -> Result<()> {
        match &mut self.page.values {
            Values::Keys(keys) => match &self.dictionary {
                Some(dictionary) => dictionary.append(keys, count, out),
                None => Err(ParquetError::General("a page of keys comes before its dictionary".to_owned())),
            },
            Values::Plain(values) => {
                let size = size_of(self.physical) * count;
                if values.len() < size {
                    return Err(ParquetError::EOF("a page of ranks ends early".to_owned()));
                }
                out.extend(bytes_of(&values.split_to(size), self.physical));
                Ok(())
            }
        }
    }

    fn next_page(&mut self, decompressor: &mut PageDecompressor) -> Result<()> {
        let ends_early = || ParquetError::EOF("a column of ranks ends early".to_owned());
        let mut decompressed = |stored: Bytes| match self.zstd {
            Some(most) if !stored.is_empty() => decompressor.decompress(&stored, most),
            _ => Ok(stored),
        };
        match self.pages.get_next_page()?.ok_or_else(ends_early)? {
            Page::DictionaryPage { buf, .. } => {
                let values = bytes_of(&decompressed(buf)?, self.physical).collect();
                self.dictionary = Some(Box::new(Dictionary::new(values)));
            }
            Page::DataPage { buf, num_values, encoding, def_level_encoding, .. } => {
                let mut buf = decompressed(buf)?;
                let mut levels = Bytes::new();
                if self.nullable {
                    if def_level_encoding != Encoding::RLE {
                        return Err(ParquetError::NYI(format!("levels in {def_level_encoding}")));
                    }
                    let length = take(&mut buf, 4)?;
                    let length = length.iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte));
                    levels = take(&mut buf, length)?;
                }
                self.page = self.page(num_values, levels, buf, encoding)?;
            }
            Page::DataPageV2 {
                mut buf,
                num_values,
                encoding,
                rep_levels_byte_len,
                def_levels_byte_len,
                is_compressed,
                ..
            } => {
                take(&mut buf, rep_levels_byte_len as usize)?;
                let levels = take(&mut buf, def_levels_byte_len as usize)?;
                let values = if is_compressed { decompressed(buf)? } else { buf };
                self.page = self.page(num_values, levels, values, encoding)?;
            }
        }
        Ok(())
    }

    fn page(&self, rows: u32, levels: Bytes, mut values: Bytes, encoding: Encoding) -> Result<RankPage> {
        let values = match encoding {
            Encoding::PLAIN => Values::Plain(values),
            Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY => {
                // A page without a value may be without a width.
                let width = if values.is_empty() { 0 } else { take(&mut values, 1)?[0].into() };
                Values::Keys(Runs::new(values, width)?)
            }
            other => return Err(ParquetError::NYI(format!("ranks in {other}"))),
        };
        let levels = if self.nullable { Some(Runs::new(levels, 1)?) } else { None };
        Ok(RankPage { rows: rows as usize, levels, values })
    }
}

/// The first `count` bytes of `bytes`, which is left with the others.
fn take(bytes: &mut Bytes, count: usize) -> Result<Bytes> {
    if count > bytes.len() {
        return Err(ParquetError::EOF("a page of ranks ends early".to_owned()));
    }
    Ok(bytes.split_to(count))
}

fn size_of(physical: Type) -> usize {
    if physical == Type::INT64 { 8 } else { 4 }
}

/// Plain values as bytes.
fn bytes_of(values: &[u8], physical: Type) -> impl Iterator<Item = u8> {
    values.chunks_exact(size_of(physical)).map(|value| {
        let small = value[1..].iter().all(|byte| *byte == 0) && value[0] <= GREATEST;
        if small { value[0] } else { NO_NUMBER }
    })
}

/// The bytes of one column chunk, at their place in the file.
struct ChunkBytes {
    start: u64,
    bytes: Bytes,
}

impl Length for ChunkBytes {
    fn len(&self) -> u64 {
        self.start + Length::len(&self.bytes)
    }
}

impl ChunkReader for ChunkBytes {
    type T = <Bytes as ChunkReader>::T;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        self.bytes.get_read(start.saturating_sub(self.start))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.bytes.get_bytes(start.saturating_sub(self.start), length)
    }
}
