//! Footers of Parquet session files: read once, kept part by part, and given back to the scans of the parts.
//!
//! A decoded footer needs some 500 bytes for each column of each row group, which for a file of many sessions is more memory than
//! scoring needs; and a shared cache of footers would have to decode those that it cannot hold once for each part. Encoded, without
//! what a scan does not ask for (statistics, page index, metadata of the writer), and compressed, a part's footer needs less than a tenth of it.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::DefaultParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectStore;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::errors::Result;
use parquet::file::metadata::{
    ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, ParquetStatisticsPolicy, RowGroupMetaData,
};
use parquet::schema::types::{SchemaDescPtr, SchemaDescriptor};
use zstd::bulk::{Compressor, decompress};

use crate::engine::input::discover::FoundFile;
use crate::engine::input::part::{PartLimits, RowGroup, RowGroups, cut_row_groups};
use crate::operators::{EncodedFooter, RowGroupCodec, is_byte_column};
use crate::storage::ObjectReader;

/// The footer of a million sessions has fewer bytes, statistics and all.
pub(super) const TAIL: u64 = 128 << 10;

/// What a file says of itself.
pub(super) struct FileFooter {
    /// Its schema, as the writer of the file had it or as its first rows show.
    pub(super) schema: SchemaRef,
    /// Its parts, in file order.
    pub(super) parts: Vec<ParquetPart>,
    /// The columns of whole numbers that can be read as bytes.
    pub(super) byte_columns: HashSet<String>,
}

/// Whole row groups of a file.
#[derive(Debug)]
pub(super) struct ParquetPart {
    /// The bytes that hold them.
    pub(super) range: (u64, u64),
    /// How many rows they have.
    pub(super) rows: u64,
    /// The footer of a file that has these row groups alone.
    pub(super) footer: PartFooter,
}

/// The footer of a part: its row groups.
#[derive(Clone)]
pub(super) struct PartFooter {
    codec: Arc<RowGroupCodec>,
    rows: u64,
    row_groups: Arc<[CompressedRowGroup]>,
}

/// A row group as footers list it, compressed.
struct CompressedRowGroup {
    bytes: Box<[u8]>,
    /// How long it is when it is not.
    length: usize,
}

impl PartFooter {
    fn decode(&self) -> Result<ParquetMetaData> {
        let row_groups = self.row_groups.iter().map(|CompressedRowGroup { bytes, length }| decompress(bytes, *length));
        let row_groups = row_groups.collect::<io::Result<Vec<_>>>()?;
        self.codec.decode(self.rows as i64, row_groups.len(), &row_groups.concat())
    }
}

impl FileFooter {
    /// What is known of a file that has no footer.
    pub(super) fn of_schema(schema: SchemaRef) -> FileFooter {
        FileFooter { schema, parts: Vec::new(), byte_columns: HashSet::new() }
    }

    /// Reads a file's footer: one request, or if it is long, one more for each mebibyte.
    ///
    /// Memory: the footer as it is stored until it is read, one decoded row group, and what the parts keep.
    pub(super) async fn read(found: &FoundFile, limits: PartLimits) -> Result<FileFooter> {
        let blocks = ObjectReader::new(&found.location.store, &found.meta).footer_blocks(TAIL).await?;
        let footer = EncodedFooter::cut(&blocks)?;
        let metadata = decode(&footer.with(0, 0, &[]), None)?;
        let file = metadata.file_metadata();
        let schema = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata())?;
        let codec = Arc::new(RowGroupCodec::new(file.schema_descr_ptr())?);
        let mut are_bytes = vec![true; file.schema_descr().num_columns()];
        let (mut row_groups, mut compressed) = (Vec::new(), Vec::new());
        let mut compressor = Compressor::new(1)?;
        for row_group in footer.row_groups() {
            let metadata = decode(&footer.with(0, 1, row_group), Some(codec.schema()))?;
            for (leaf, are_bytes) in are_bytes.iter_mut().enumerate() {
                *are_bytes &= is_byte_column(&metadata, leaf);
            }
            row_groups.extend(metadata.row_groups().iter().map(place));
            let encoded = codec.encode(metadata.into_builder().take_row_groups())?;
            compressed.push(CompressedRowGroup { bytes: compressor.compress(&encoded)?.into(), length: encoded.len() });
        }
        let mut compressed = compressed.into_iter();
        let part = |RowGroups { indexes, range, rows }: RowGroups| {
            let row_groups = compressed.by_ref().take(indexes.len()).collect();
            ParquetPart { range, rows, footer: PartFooter { codec: Arc::clone(&codec), rows, row_groups } }
        };
        let parts = cut_row_groups(&row_groups, found.meta.size, limits).into_iter().map(part).collect();
        Ok(FileFooter {
            byte_columns: byte_columns(&schema, codec.schema(), &are_bytes),
            schema: Arc::new(schema),
            parts,
        })
    }
}

/// Decodes a footer without what no scan asks for.
fn decode(encoded: &[u8], schema: Option<&SchemaDescPtr>) -> Result<ParquetMetaData> {
    let mut options = ParquetMetaDataOptions::new()
        .with_column_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
    if let Some(schema) = schema {
        options = options.with_schema(Arc::clone(schema));
    }
    ParquetMetaDataReader::decode_metadata_with_options(encoded, Some(&options))
}

fn byte_columns(schema: &Schema, parquet: &SchemaDescriptor, are_bytes: &[bool]) -> HashSet<String> {
    let leaves = (0..parquet.num_columns()).filter(|leaf| are_bytes[*leaf]);
    let names = leaves.map(|leaf| parquet.column(leaf).name().to_owned());
    names.filter(|name| schema.field_with_name(name).is_ok_and(|field| field.data_type().is_integer())).collect()
}

fn place(group: &RowGroupMetaData) -> RowGroup {
    RowGroup { start: group.columns().first().map_or(0, |column| column.byte_range().0), rows: group.num_rows() as u64 }
}

impl fmt::Debug for PartFooter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartFooter").field("row_groups", &self.row_groups.len()).finish_non_exhaustive()
    }
}

/// Opens files of one store. A file that comes with a [`PartFooter`] is read without its own footer; only the row groups of that
/// part are seen.
///
/// DataFusion's cache of footers is not used: it tells files apart by their path alone, and so takes an object of one store for that
/// of another.
#[derive(Debug)]
pub(super) struct PartReaders(DefaultParquetFileReaderFactory);

impl PartReaders {
    pub(super) fn new(store: &Arc<dyn ObjectStore>) -> PartReaders {
        PartReaders(DefaultParquetFileReaderFactory::new(Arc::clone(store)))
    }
}

impl ParquetFileReaderFactory for PartReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::error::Result<Box<dyn AsyncFileReader + Send>> {
        let footer = file.extension::<PartFooter>().cloned();
        let reader = self.0.create_reader(partition, file, metadata_size_hint, metrics)?;
        Ok(match footer {
            Some(footer) => Box::new(PartReader { reader, footer }),
            None => reader,
        })
    }
}

struct PartReader {
    reader: Box<dyn AsyncFileReader + Send>,
    footer: PartFooter,
}

impl AsyncFileReader for PartReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        self.reader.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        self.reader.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async { self.footer.decode().map(Arc::new) }.boxed()
    }
}
