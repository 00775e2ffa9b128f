//! Whatever a writer chooses, the bytes read are those of the library's reader.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use arrow::array::{Array, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{SchemaRef, UInt8Type};
use bytes::Bytes;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::parquet::DefaultParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::physical_plan::common::collect;
use datafusion::prelude::SessionConfig;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use proptest::prelude::*;

use super::keys::{Dictionary, UNPACKED_BEYOND};
use super::runs::Runs;
use super::*;

fn column_of(values: &[Option<i64>], data_type: &DataType) -> ArrayRef {
    let values = Int64Array::from(values.to_vec());
    cast(&values, data_type).unwrap()
}

fn file_of(columns: Vec<(&str, ArrayRef, bool)>, properties: WriterProperties) -> Bytes {
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap().into()
}

fn metadata_of(file: &Bytes) -> ParquetMetaData {
    ParquetMetaDataReader::new().parse_and_finish(file).unwrap()
}

/// The first column of a file of one row group, read `step` rows at a time.
fn read(file: &Bytes, step: usize) -> Result<UInt8Array, ParquetError> {
    let metadata = metadata_of(file);
    let row_group = metadata.row_group(0);
    let (start, length) = row_group.column(0).byte_range();
    let rows = row_group.num_rows() as usize;
    let bytes = file.slice(start as usize..(start + length) as usize);
    let mut decompressor = PageDecompressor::new()?;
    let mut chunk = RankChunk::new(row_group.column(0), rows, bytes)?;
    let (mut values, mut valid) = (Vec::new(), NullBufferBuilder::new(0));
    for from in (0..rows).step_by(step) {
        chunk.read(step.min(rows - from), &mut decompressor, &mut values, &mut valid)?;
    }
    Ok(UInt8Array::new(values.into(), valid.finish()))
}

fn as_bytes(values: &[Option<i64>]) -> UInt8Array {
    let byte = |value: i64| if (0..=100).contains(&value) { value as u8 } else { 255 };
    values.iter().map(|value| value.map(byte)).collect()
}

/// Ranks, mostly; any number that the type holds otherwise.
fn values_of(data_type: &DataType) -> impl Strategy<Value = Vec<Option<i64>>> + use<> {
    let (low, high) = match data_type {
        DataType::UInt8 => (0, u8::MAX.into()),
        DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        DataType::Int32 => (i32::MIN.into(), i32::MAX.into()),
        DataType::UInt32 => (0, u32::MAX.into()),
        DataType::UInt64 => (0, i64::MAX),
        _ => (i64::MIN, i64::MAX),
    };
    let rank = prop::option::weighted(0.9, prop_oneof![30 => 1..=4_i64, 1 => 0..120_i64, 1 => low..=high]);
    // Runs of one value, and of nulls, are stored unlike others.
    let run = (rank, prop_oneof![4 => Just(1_usize), 1 => 1..40_usize]);
    prop::collection::vec(run, 1..400).prop_map(move |runs| {
        let repeat = |(value, count): (Option<i64>, usize)| {
            std::iter::repeat_n(value.map(|value| value.clamp(low, high)), count)
        };
        runs.into_iter().flat_map(repeat).collect()
    })
}

fn column() -> impl Strategy<Value = (DataType, Vec<Option<i64>>)> {
    let types = [DataType::UInt8, DataType::Int8, DataType::Int32, DataType::UInt32, DataType::Int64, DataType::UInt64];
    prop::sample::select(types.to_vec())
        .prop_flat_map(|data_type| values_of(&data_type).prop_map(move |values| (data_type.clone(), values)))
}

fn properties() -> impl Strategy<Value = WriterPropertiesBuilder> {
    let versions = prop::sample::select(vec![WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0]);
    let compressions = prop::sample::select(vec![
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(ZstdLevel::default()),
    ]);
    // A dictionary of few bytes is given up for plain values.
    let dictionaries = prop_oneof![Just(None), Just(Some(1 << 20)), Just(Some(16))];
    (versions, compressions, dictionaries, 1..300_usize).prop_map(|(version, compression, dictionary, page_rows)| {
        WriterProperties::builder()
            .set_writer_version(version)
            .set_compression(compression)
            .set_dictionary_enabled(dictionary.is_some())
            .set_dictionary_page_size_limit(dictionary.unwrap_or(1))
            .set_encoding(parquet::basic::Encoding::PLAIN)
            .set_write_batch_size(16)
            .set_data_page_row_count_limit(page_rows)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_column_of_whole_numbers_reads_as_bytes(
        (data_type, values) in column(), properties in properties(), nullable in any::<bool>(), step in 1..500_usize,
    ) {
        let values = if nullable { values } else { values.into_iter().map(|value| value.or(Some(1))).collect() };
        let column = column_of(&values, &data_type);
        let file = file_of(vec![("q01_ce", column, nullable)], properties.build());
        prop_assert!(is_byte_column(&metadata_of(&file), 0));
        prop_assert_eq!(read(&file, step).unwrap(), as_bytes(&values));
    }

    #[test]
    fn keys_of_every_width_are_read_from_any_place_on(
        width in 1..=8_usize, keys in prop::collection::vec(any::<u8>(), 1..100), skip in 0..20_usize, all in any::<bool>(),
    ) {
        // A run of packed keys, of which the last group may be cut short.
        let keys: Vec<u8> = keys.into_iter().map(|key| key & (u8::MAX >> (8 - width))).collect();
        let mut packed = vec![(keys.len().div_ceil(8) as u8) << 1 | 1];
        packed.resize(1 + (keys.len() * width).div_ceil(8), 0);
        for bit in 0..keys.len() * width {
            packed[1 + bit / 8] |= (keys[bit / width] >> (bit % width) & 1) << (bit % 8);
        }
        if all {
            packed.resize(1 + keys.len().div_ceil(8) * width, 0);
        }
        let value = |key: u8| (7 * usize::from(key) % 101) as u8;
        let dictionary = Dictionary::new((0..1 << width).map(|key| value(key as u8)).collect());
        let mut runs = Runs::new(packed.into(), width).unwrap();
        let (first, rest) = keys.split_at(skip.min(keys.len()));
        let mut out = Vec::with_capacity(keys.len() + UNPACKED_BEYOND);
        let room = out.capacity();
        for part in [first, rest].into_iter().filter(|part| !part.is_empty()) {
            dictionary.append(&mut runs, part.len(), &mut out).unwrap();
        }
        prop_assert_eq!(out.capacity(), room, "it grew");
        prop_assert_eq!(out, keys.into_iter().map(value).collect::<Vec<_>>());
    }

    #[test]
    fn damaged_pages_are_errors_or_other_values_and_never_a_panic(
        keys in prop::collection::vec(any::<u8>(), 0..40), width in 0..=32_usize, values in 0..300_usize, count in 1..600_usize,
    ) {
        let dictionary = Dictionary::new(vec![3; values]);
        let mut out = Vec::new();
        if dictionary.append(&mut Runs::new(keys.into(), width).unwrap(), count, &mut out).is_ok() {
            prop_assert_eq!(out, vec![3; count]);
        }
    }
}

#[test]
fn differences_nested_columns_and_other_types_are_left_to_the_library() {
    let ranks = || column_of(&[Some(1), Some(2)], &DataType::Int32);
    let readable = |column: ArrayRef, properties: WriterPropertiesBuilder| {
        is_byte_column(&metadata_of(&file_of(vec![("q01_ce", column, true)], properties.build())), 0)
    };
    let plain = || WriterProperties::builder();
    assert!(readable(ranks(), plain()));
    let differences = plain().set_dictionary_enabled(false).set_encoding(parquet::basic::Encoding::DELTA_BINARY_PACKED);
    assert!(!readable(ranks(), differences));
    assert!(!readable(cast(&ranks(), &DataType::Float64).unwrap(), plain()));
    assert!(!readable(cast(&ranks(), &DataType::Utf8).unwrap(), plain()));
    let item = Arc::new(Field::new_list_field(DataType::Int32, true));
    assert!(!readable(cast(&ranks(), &DataType::List(item)).unwrap(), plain()));
}

#[test]
fn a_dictionary_of_more_values_than_a_byte_has_is_read() {
    let values: Vec<Option<i64>> = (0..2_000).map(|value| Some(value % 700)).collect();
    let file = file_of(vec![("q01_ce", column_of(&values, &DataType::Int64), false)], WriterProperties::default());
    assert_eq!(read(&file, 64).unwrap(), as_bytes(&values));
}

#[test]
fn a_page_without_its_size_or_of_two_frames_is_decompressed_and_none_is_larger_than_its_chunk() {
    let page = [1, 2, 3, 4].repeat(1_000);
    let with_size = zstd::bulk::compress(&page, 1).unwrap();
    let without_size = zstd::stream::encode_all(page.as_slice(), 1).unwrap();
    assert_eq!(zstd::zstd_safe::get_frame_content_size(&without_size).unwrap(), None);
    let mut decompressor = PageDecompressor::new().unwrap();
    let half = || zstd::bulk::compress(&page[..2_000], 1).unwrap();
    let of_two_frames = [half(), half()].concat();
    for stored in [with_size, without_size, of_two_frames] {
        assert_eq!(decompressor.decompress(&stored, 5_000).unwrap(), page);
        assert!(decompressor.decompress(&stored, 3_999).is_err());
        assert!(decompressor.decompress(&stored[..stored.len() - 1], 5_000).is_err());
    }
}

#[test]
fn a_file_that_is_cut_short_is_an_error() {
    let values: Vec<Option<i64>> = (0..10_000).map(|value| Some(1 + value * 7 % 4)).collect();
    let file = file_of(vec![("q01_ce", column_of(&values, &DataType::Int64), true)], WriterProperties::default());
    let metadata = metadata_of(&file);
    let chunk = metadata.row_group(0).column(0);
    let (start, length) = chunk.byte_range();
    let mut decompressor = PageDecompressor::new().unwrap();
    for kept in 0..length {
        let bytes = file.slice(start as usize..(start + kept) as usize);
        let read = RankChunk::new(chunk, 10_000, bytes).and_then(|mut chunk| {
            chunk.read(10_000, &mut decompressor, &mut Vec::new(), &mut NullBufferBuilder::new(0))
        });
        assert!(read.is_err(), "{kept} of {length} bytes");
    }
}

/// A file of the columns `id`, `a` and `b` in row groups of 1,000 rows, and its store.
async fn stored(rows: i64) -> (Arc<dyn ObjectStore>, PartitionedFile, SchemaRef, ParquetMetaData) {
    let ids: Vec<Option<i64>> = (0..rows).map(Some).collect();
    let a: Vec<Option<i64>> = (0..rows).map(|row| (row % 17 != 0).then_some(1 + row * 7 % 4)).collect();
    let b: Vec<Option<i64>> = (0..rows).map(|row| Some(1 + row / 3 % 4)).collect();
    let columns = vec![
        ("id", column_of(&ids, &DataType::Int64), false),
        ("a", column_of(&a, &DataType::Int32), true),
        ("b", column_of(&b, &DataType::Int64), true),
    ];
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(1_000)).build();
    let file = file_of(columns, properties);
    let metadata = metadata_of(&file);
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let path = object_store::path::Path::from("sessions.parquet");
    store.put(&path, file.into()).await.unwrap();
    let meta = store.head(&path).await.unwrap();
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, false)]);
    (store, PartitionedFile::new_from_meta(meta), Arc::new(schema), metadata)
}

/// Reads `id` by the library and `columns` beside it: id, and the values of each row.
async fn scan(
    groups: Vec<Vec<PartitionedFile>>,
    store: Arc<dyn ObjectStore>,
    schema: SchemaRef,
    columns: &[&str],
) -> Vec<Vec<(i64, Vec<Option<u8>>)>> {
    let readers: Arc<dyn ParquetFileReaderFactory> = Arc::new(DefaultParquetFileReaderFactory::new(store));
    let source = ParquetSource::new(schema).with_parquet_file_reader_factory(Arc::clone(&readers));
    let partitions = groups.len();
    let groups = groups.into_iter().map(FileGroup::new).collect();
    let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
        .with_file_groups(groups)
        .build();
    let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
    let plan = RankScanExec::try_new(DataSourceExec::from_data_source(config), columns, readers).unwrap();
    let mut session = SessionConfig::new().with_batch_size(300);
    session.options_mut().execution.enable_file_stream_work_stealing = false;
    let context = Arc::new(TaskContext::default().with_session_config(session));
    let mut found = Vec::new();
    for partition in 0..partitions {
        let batches = collect(plan.execute(partition, Arc::clone(&context)).unwrap()).await.unwrap();
        let rows = batches.iter().flat_map(|batch| {
            let ids = batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().clone();
            let added: Vec<UInt8Array> =
                batch.columns()[1..].iter().map(|column| column.as_primitive::<UInt8Type>().clone()).collect();
            (0..batch.num_rows()).map(move |row| {
                let values = added.iter().map(|column| column.is_valid(row).then(|| column.value(row))).collect();
                (ids.value(row), values)
            })
        });
        found.push(rows.collect());
    }
    found
}

fn expected(rows: std::ops::Range<i64>) -> Vec<(i64, Vec<Option<u8>>)> {
    let row = |row: i64| {
        let a = (row % 17 != 0).then_some(1 + (row * 7 % 4) as u8);
        (row, vec![Some(1 + (row / 3 % 4) as u8), a])
    };
    rows.map(row).collect()
}

#[tokio::test]
async fn added_columns_stand_beside_the_rows_of_the_scan() {
    let (store, file, schema, _) = stored(3_500).await;
    assert_eq!(scan(vec![vec![file]], store, schema, &["b", "a"]).await, [expected(0..3_500)]);
}

#[tokio::test]
async fn a_range_of_a_file_is_its_row_groups_and_a_partition_may_hold_several() {
    let (store, file, schema, metadata) = stored(3_500).await;
    let start = |index: usize| metadata.row_group(index).column(0).byte_range().0 as i64;
    let end = file.object_meta.size as i64;
    let range = |from, to| file.clone().with_range(from, to);
    let groups = vec![
        vec![range(start(1), start(2))],
        vec![range(0, start(1)), range(start(2), end)],
        vec![range(start(3) + 1, end)],
    ];
    let found = scan(groups, store, schema, &["b", "a"]).await;
    let both = [expected(0..1_000), expected(2_000..3_500)].concat();
    assert_eq!(found, [expected(1_000..2_000), both, vec![]]);
}

#[tokio::test]
async fn a_plan_whose_partitions_take_each_others_files_is_refused() {
    let (store, file, schema, _) = stored(10).await;
    let readers: Arc<dyn ParquetFileReaderFactory> = Arc::new(DefaultParquetFileReaderFactory::new(store));
    let source = ParquetSource::new(schema).with_parquet_file_reader_factory(Arc::clone(&readers));
    let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
        .with_file_group(FileGroup::new(vec![file]))
        .build();
    let plan = RankScanExec::try_new(DataSourceExec::from_data_source(config), vec!["a".to_owned()], readers).unwrap();
    let Err(error) = plan.execute(0, Arc::new(TaskContext::default())) else { panic!("it is not refused") };
    assert!(error.to_string().contains("enable_file_stream_work_stealing"), "{error}");
}
