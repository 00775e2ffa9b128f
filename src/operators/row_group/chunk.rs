//! One column chunk: its compressed pages, and what the footer says of them.

use bytes::Bytes;
use parquet::basic::{BoundaryOrder, Compression, Encoding, PageType, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriteSpec, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;
use zstd::bulk::Compressor;
use zstd::zstd_safe::compress_bound;

use super::bounds::Bound;
use super::error::{Result, RowGroupError};
use super::pieces::Pieces;

/// Compresses pages. One per row group: its tables are allocated once.
pub(super) struct PageCodec {
    level: i32,
    zstd: Compressor<'static>,
    /// The page being put together, kept for its capacity.
    pub(super) body: Vec<u8>,
    /// The page last compressed, kept for its capacity too.
    compressed: Vec<u8>,
}

impl PageCodec {
    pub(super) fn try_new(level: i32) -> Result<Self> {
        let zstd = Compressor::new(level).map_err(RowGroupError::Compress)?;
        Ok(Self { level, zstd, body: Vec::new(), compressed: Vec::new() })
    }

    fn compression(&self) -> Result<Compression> {
        ZstdLevel::try_new(self.level).map(Compression::ZSTD).map_err(RowGroupError::Encode)
    }

    /// Compresses the page.
    fn compress(&mut self) -> Result<()> {
        self.compressed.clear();
        self.compressed.reserve(compress_bound(self.body.len()));
        self.zstd.compress_to_buffer(&self.body, &mut self.compressed).map_err(RowGroupError::Compress)?;
        Ok(())
    }
}

/// What a data page holds.
pub(super) struct PageSummary<T> {
    pub(super) rows: usize,
    /// Levels: values, nulls and empty lists.
    pub(super) levels: usize,
    /// Values that are stored.
    pub(super) values: usize,
    /// The smallest and largest value; `None` if there is none that has an order.
    pub(super) bounds: Option<(T, T)>,
    pub(super) encoding: Encoding,
}

/// The dictionary page of a chunk.
pub(super) struct DictionaryPage {
    pub(super) values: usize,
    /// The values, plain.
    pub(super) body: Vec<u8>,
}

/// An encoded column chunk, and what the row group writer wants to know of it.
pub(super) struct EncodedChunk {
    pub(super) bytes: Pieces,
    pub(super) close: ColumnCloseResult,
}

/// A column chunk being written: data pages first, the dictionary when all of it is known.
pub(super) struct ChunkWriter<T> {
    column: ColumnDescPtr,
    pages: TrackedWrite<Pieces>,
    /// Whether pages are compressed, which the first one decides; `None` before.
    compressed: Option<bool>,
    uncompressed: usize,
    summaries: Vec<WrittenPage<T>>,
}

struct WrittenPage<T> {
    summary: PageSummary<T>,
    offset: u64,
    compressed: usize,
}

impl<T: Bound> ChunkWriter<T> {
    pub(super) fn new(column: ColumnDescPtr) -> Self {
        Self {
            column,
            pages: TrackedWrite::new(Pieces::default()),
            compressed: None,
            uncompressed: 0,
            summaries: Vec::new(),
        }
    }

    /// The levels of a null, of an empty list and so on end below this one, that of a value.
    pub(super) fn max_definition_level(&self) -> u32 {
        self.column.max_def_level().unsigned_abs().into()
    }

    pub(super) fn column_path(&self) -> String {
        self.column.path().string()
    }

    /// Appends a data page of levels and values as they stand in `codec.body`.
    pub(super) fn add_page(&mut self, summary: PageSummary<T>, codec: &mut PageCodec) -> Result<()> {
        let PageSummary { levels, encoding, .. } = summary;
        let spec = self.write(codec, |buf| Page::DataPage {
            buf,
            num_values: levels as u32,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        })?;
        self.summaries.push(WrittenPage { summary, offset: spec.offset, compressed: spec.compressed_size });
        Ok(())
    }

    /// Compresses the page in `codec.body` if the chunk is stored compressed, and says whether it is. Packed keys of scores and
    /// percentiles, identifiers and times leave little to compress: a column chunk whose first page would not become an eighth shorter
    /// is stored as it is, which saves the time of all its pages.
    fn compress(&mut self, codec: &mut PageCodec) -> Result<bool> {
        if self.compressed == Some(false) {
            return Ok(false);
        }
        codec.compress()?;
        Ok(*self.compressed.get_or_insert(8 * codec.compressed.len() <= 7 * codec.body.len()))
    }

    /// Writes what stands in `codec.body` as a page.
    fn write(&mut self, codec: &mut PageCodec, page: impl FnOnce(Bytes) -> Page) -> Result<PageWriteSpec> {
        let uncompressed = codec.body.len();
        let stored = if self.compress(codec)? { &mut codec.compressed } else { &mut codec.body };
        if uncompressed.max(stored.len()) > i32::MAX as usize {
            return Err(RowGroupError::PageTooLarge { column: self.column_path(), bytes: uncompressed });
        }
        // Lent to the page and taken back, so that the page writer has no copy of its own.
        let lent = Bytes::from(std::mem::take(stored));
        let page = CompressedPage::new(page(lent.clone()), uncompressed);
        let spec = SerializedPageWriter::new(&mut self.pages).write_page(page).map_err(RowGroupError::Encode)?;
        *stored = lent.into();
        self.uncompressed += spec.uncompressed_size;
        Ok(spec)
    }

    /// Ends the chunk. Every page of it that has keys needs `dictionary`.
    pub(super) fn finish(mut self, dictionary: Option<DictionaryPage>, codec: &mut PageCodec) -> Result<EncodedChunk> {
        let mut encoding_stats = Vec::new();
        let mut dictionary_offset = None;
        // Data pages are ready before the dictionary is, and in the file they follow it.
        let data = std::mem::replace(&mut self.pages, TrackedWrite::new(Pieces::default()));
        if let Some(DictionaryPage { values, body }) = dictionary {
            codec.body = body;
            self.write(codec, |buf| Page::DictionaryPage {
                buf,
                num_values: values as u32,
                encoding: Encoding::PLAIN,
                is_sorted: false,
            })?;
            dictionary_offset = Some(0);
            encoding_stats.push((PageType::DICTIONARY_PAGE, Encoding::PLAIN));
        }
        encoding_stats.extend(self.summaries.iter().map(|page| (PageType::DATA_PAGE, page.summary.encoding)));
        let shift = self.pages.bytes_written();
        let total = shift + data.bytes_written();
        let mut bytes = self.pages.into_inner().map_err(RowGroupError::Encode)?;
        bytes.append(data.into_inner().map_err(RowGroupError::Encode)?);

        let index = index_pages(&self.column, &self.summaries, shift);
        let rows = self.summaries.iter().map(|page| page.summary.rows).sum::<usize>();
        let levels = self.summaries.iter().map(|page| page.summary.levels).sum::<usize>();
        let mut encodings = vec![Encoding::RLE];
        encodings.extend(encoding_stats.iter().map(|(_, encoding)| *encoding));
        let compression =
            if self.compressed == Some(false) { Compression::UNCOMPRESSED } else { codec.compression()? };
        let metadata = ColumnChunkMetaData::builder(self.column)
            .set_compression(compression)
            .set_encodings(encodings)
            .set_page_encoding_stats(count_encodings(encoding_stats))
            .set_total_compressed_size(total as i64)
            .set_total_uncompressed_size(self.uncompressed as i64)
            .set_num_values(levels as i64)
            .set_dictionary_page_offset(dictionary_offset)
            .set_data_page_offset(shift as i64)
            .set_statistics(index.statistics)
            .build()
            .map_err(RowGroupError::Encode)?;
        let column_index = index.columns.map(ColumnIndexBuilder::build).transpose().map_err(RowGroupError::Encode)?;
        let close = ColumnCloseResult {
            bytes_written: total as u64,
            rows_written: rows as u64,
            metadata,
            bloom_filter: None,
            column_index,
            offset_index: Some(index.offsets.build()),
        };
        Ok(EncodedChunk { bytes, close })
    }
}

struct ChunkIndex {
    statistics: parquet::file::statistics::Statistics,
    /// `None` if a page has values and no bounds: the format knows no page of NaN alone.
    columns: Option<ColumnIndexBuilder>,
    offsets: OffsetIndexBuilder,
}

fn index_pages<T: Bound>(column: &ColumnDescPtr, pages: &[WrittenPage<T>], shift: usize) -> ChunkIndex {
    let mut columns = ColumnIndexBuilder::new(column.physical_type());
    let mut offsets = OffsetIndexBuilder::new();
    let mut nulls = 0;
    for WrittenPage { summary, offset, compressed } in pages {
        let page_nulls = summary.levels - summary.values;
        let (min, max) = summary.bounds.as_ref().map(|(min, max)| (min.lower(), max.upper())).unwrap_or_default();
        columns.append(summary.values == 0, min, max, page_nulls as i64);
        if summary.values > 0 && summary.bounds.is_none() {
            columns.to_invalid();
        }
        offsets.append_row_count(summary.rows as i64);
        offsets.append_offset_and_size((*offset as usize + shift) as i64, *compressed as i32);
        nulls += page_nulls as u64;
    }

    let bounds = || pages.iter().filter_map(|page| page.summary.bounds.as_ref());
    columns.set_boundary_order(boundary_order(bounds().collect()));
    let min = bounds().map(|(min, _)| min).reduce(|a, b| if b < a { b } else { a });
    let max = bounds().map(|(_, max)| max).reduce(|a, b| if b > a { b } else { a });
    ChunkIndex { statistics: T::statistics(min.zip(max), nulls), columns: columns.valid().then_some(columns), offsets }
}

fn boundary_order<T: PartialOrd>(bounds: Vec<&(T, T)>) -> BoundaryOrder {
    if bounds.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1) {
        BoundaryOrder::ASCENDING
    } else if bounds.is_sorted_by(|a, b| a.0 >= b.0 && a.1 >= b.1) {
        BoundaryOrder::DESCENDING
    } else {
        BoundaryOrder::UNORDERED
    }
}

/// Joins neighbours of one kind, as the footer lists them.
fn count_encodings(pages: Vec<(PageType, Encoding)>) -> Vec<PageEncodingStats> {
    pages
        .chunk_by(|a, b| a == b)
        .map(|same| PageEncodingStats { page_type: same[0].0, encoding: same[0].1, count: same.len() as i32 })
        .collect()
}
