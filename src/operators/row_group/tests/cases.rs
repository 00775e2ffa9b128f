//! Single columns at the limits of their encoders, and what is refused.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Float64Array, Int16Array, Int64Array, RecordBatch, StringArray,
    StructArray,
};
use arrow::datatypes::{DataType, Field, Fields, Int16Type, Int64Type, Schema, UInt8Type, UInt32Type, UInt64Type};
use parquet::basic::{Encoding, PageType};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::page_index::column_index::ColumnIndexMetaData;

use super::*;

/// Writes one column, as one row group, and reads it back.
pub(super) fn written(array: ArrayRef, page_rows: usize) -> (ArrayRef, ParquetMetaData) {
    let batch = RecordBatch::try_from_iter_with_nullable([("column", array, true)]).unwrap();
    let options = options(page_rows);
    let mut encoder = RowGroupEncoder::try_new(&batch.schema(), &options).unwrap();
    encoder.write(&batch).unwrap();
    let mut file = ParquetFile::try_new(Vec::new(), &batch.schema(), &options).unwrap();
    file.append(encoder.finish().unwrap()).unwrap();
    let bytes = file.finish().unwrap().into();
    (by_bits(&read(&bytes, None)).remove(0), metadata_of(&bytes))
}

fn encodings(metadata: &ParquetMetaData) -> Vec<(PageType, Encoding, i32)> {
    let stats = metadata.row_group(0).column(0).page_encoding_stats().unwrap();
    stats.iter().map(|pages| (pages.page_type, pages.encoding, pages.count)).collect()
}

#[test]
fn a_column_of_more_than_256_strings_keeps_its_keys() {
    let words = (0..3000).map(|row| format!("word {}", row * row % 1999)).collect::<Vec<_>>();
    let keys = words.iter().map(String::as_str).collect::<DictionaryArray<UInt32Type>>();
    let (found, metadata) = written(Arc::new(keys), 700);
    assert_eq!(found.as_string::<i32>(), &StringArray::from(words));
    assert_eq!(
        encodings(&metadata),
        [(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1), (PageType::DATA_PAGE, Encoding::RLE_DICTIONARY, 5)]
    );
}

#[test]
fn a_column_of_all_small_integers_keeps_its_keys() {
    let values = Int16Array::from_iter_values((0..=u16::MAX).rev().map(|value| value as i16));
    let (found, metadata) = written(Arc::new(values.clone()), 5000);
    assert_eq!(found.as_primitive::<Int16Type>(), &values);
    let statistics = metadata.row_group(0).column(0).statistics().unwrap();
    assert_eq!(statistics.min_bytes_opt(), Some(i32::from(i16::MIN).to_le_bytes().as_slice()));
    assert_eq!(statistics.max_bytes_opt(), Some(i32::from(i16::MAX).to_le_bytes().as_slice()));
}

#[test]
fn too_many_distinct_numbers_are_written_plain_from_the_page_that_shows_it() {
    let numbers =
        Float64Array::from_iter_values((0..90_000).map(|row| f64::from(if row < 1000 { row % 7 } else { row })));
    let (found, metadata) = written(Arc::new(numbers.clone()), 20_000);
    assert_eq!(found.as_ref(), &numbers.unary::<_, UInt64Type>(f64::to_bits) as &dyn Array);
    assert_eq!(
        encodings(&metadata),
        [
            (PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1),
            (PageType::DATA_PAGE, Encoding::RLE_DICTIONARY, 1),
            (PageType::DATA_PAGE, Encoding::PLAIN, 4),
        ]
    );
}

#[test]
fn numbers_are_written_alike_whether_they_come_as_they_are_or_by_key() {
    let few: Vec<f64> = (0..50_000).map(|row| f64::from(row % 700) / 7.0).chain([-0.0, 0.0, f64::NAN]).collect();
    let many: Vec<f64> = (0..90_000).map(|row| f64::from(if row < 25_000 { row % 7 } else { row })).collect();
    for numbers in [few, many] {
        let plain: ArrayRef = Arc::new(Float64Array::from(numbers.clone()));
        let half = numbers.len() / 2;
        let keyed =
            [&numbers[..half], &numbers[half..]].map(|numbers| keyed_numbers(numbers.iter().copied().map(Some)));
        let [plain, keyed] = [vec![plain], keyed.to_vec()].map(|arrays| {
            let field = Field::new("number", arrays[0].data_type().clone(), true);
            let schema = Arc::new(Schema::new(vec![field]));
            let mut encoder = RowGroupEncoder::try_new(&schema, &options(20_000)).unwrap();
            for array in arrays {
                encoder.write(&RecordBatch::try_new(Arc::clone(&schema), vec![array]).unwrap()).unwrap();
            }
            let mut file = ParquetFile::try_new(Vec::new(), &schema, &options(20_000)).unwrap();
            file.append(encoder.finish().unwrap()).unwrap();
            file.finish().unwrap()
        });
        assert_eq!(plain, keyed);
    }
}

#[test]
fn numbers_distinct_from_the_first_page_on_have_no_dictionary() {
    let numbers = Float64Array::from_iter_values((0..80_000).map(f64::from));
    let (found, metadata) = written(Arc::new(numbers.clone()), 80_000);
    assert_eq!(found.as_ref(), &numbers.unary::<_, UInt64Type>(f64::to_bits) as &dyn Array);
    assert_eq!(encodings(&metadata), [(PageType::DATA_PAGE, Encoding::PLAIN, 1)]);
}

#[test]
fn a_row_group_without_rows_is_left_out() {
    let (file, metadata) = write(&[&[], &[]], &Delivery { batch_rows: 1, margin: 0, turn: 0 }, &options(10));
    assert_eq!(metadata.num_row_groups(), 0);
    assert_eq!(read(&file, None).num_rows(), 0);
}

#[test]
fn columns_of_other_types_go_through_the_library_writer() {
    let fields = Fields::from(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]);
    let a: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
    let b: ArrayRef = Arc::new(StringArray::from(vec![None, Some("x"), Some("y")]));
    let pair = Arc::new(StructArray::new(fields, vec![a, b], None)) as ArrayRef;
    let values = Arc::new(Int64Array::from(vec![70, 80])) as ArrayRef;
    let keys = DictionaryArray::<UInt8Type>::new(vec![1, 0, 1].into(), values);
    let style = Arc::new(["acting", "acting", "thinking"].into_iter().collect::<DictionaryArray<UInt8Type>>());
    let batch =
        RecordBatch::try_from_iter([("pair", pair), ("number", Arc::new(keys) as _), ("style", style as _)]).unwrap();

    let mut encoder = RowGroupEncoder::try_new(&batch.schema(), &options(2)).unwrap();
    encoder.write(&batch).unwrap();
    let row_group = encoder.finish().unwrap();
    let bytes = row_group.bytes();
    let mut file = ParquetFile::try_new(Vec::new(), &batch.schema(), &options(2)).unwrap();
    let before = file.bytes_written();
    file.append(row_group).unwrap();
    assert_eq!(file.bytes_written() - before, bytes);
    let found = read(&file.finish().unwrap().into(), None);
    assert_eq!(found.column(0), batch.column(0));
    assert_eq!(found.column(1).as_ref(), &Int64Array::from(vec![80, 70, 80]) as &dyn Array);
    assert_eq!(found.column(2).as_ref(), &StringArray::from(vec!["acting", "acting", "thinking"]) as &dyn Array);
}

#[test]
fn a_file_of_more_row_groups_than_memory_is_for_says_of_each_what_it_is() {
    const ROW_GROUPS: i64 = 3_000;
    let numbers =
        |factor: i64| Arc::new(Int64Array::from_iter_values((0..ROW_GROUPS).map(|row| row * factor))) as ArrayRef;
    let columns = [("one", numbers(1)), ("many", numbers(1 << 40)), ("back", numbers(-7))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut file = ParquetFile::try_new(Vec::new(), &batch.schema(), &options(2)).unwrap();
    for row in 0..ROW_GROUPS as usize {
        let mut encoder = RowGroupEncoder::try_new(&batch.schema(), &options(2)).unwrap();
        encoder.write(&batch.slice(row, 1)).unwrap();
        file.append(encoder.finish().unwrap()).unwrap();
    }
    let bytes = file.finish().unwrap().into();
    assert_eq!(read(&bytes, None).columns(), batch.columns());
    let metadata = metadata_of(&bytes);
    assert_eq!(metadata.num_row_groups(), ROW_GROUPS as usize);
    let (columns, offsets) = (metadata.column_index().unwrap(), metadata.offset_index().unwrap());
    for (number, row_group) in metadata.row_groups().iter().enumerate() {
        for (column, chunk) in row_group.columns().iter().enumerate() {
            let page = offsets[number][column].page_locations()[0].offset;
            assert_eq!(page, chunk.data_page_offset(), "row group {number}");
            let ColumnIndexMetaData::INT64(index) = &columns[number][column] else { panic!("no index of numbers") };
            let value = batch.column(column).as_primitive::<Int64Type>().value(number);
            assert_eq!((index.min_value(0), index.max_value(0)), (Some(&value), Some(&value)), "row group {number}");
        }
    }
}

#[test]
fn batches_of_another_schema_are_refused() {
    let schema = plan_schema();
    let mut encoder = RowGroupEncoder::try_new(&schema, &RowGroupOptions::default()).unwrap();
    let ids = Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    let narrow = RecordBatch::try_from_iter([("id", Arc::clone(&ids))]).unwrap();
    assert!(matches!(encoder.write(&narrow), Err(RowGroupError::ColumnCount { expected: 14, found: 1 })));

    let one = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
    let mut encoder = RowGroupEncoder::try_new(&one, &RowGroupOptions::default()).unwrap();
    let text = RecordBatch::try_from_iter([("id", Arc::new(StringArray::from(vec!["1"])) as _)]).unwrap();
    assert!(matches!(encoder.write(&text), Err(RowGroupError::ColumnType { column, .. }) if column == "id"));
    let nulls = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![None])) as _)]).unwrap();
    assert!(matches!(encoder.write(&nulls), Err(RowGroupError::UnexpectedNull { column }) if column == "id"));

    let mut file = ParquetFile::try_new(Vec::new(), &schema, &RowGroupOptions::default()).unwrap();
    let mut encoder = RowGroupEncoder::try_new(&one, &RowGroupOptions::default()).unwrap();
    encoder.write(&RecordBatch::try_new(one, vec![ids]).unwrap()).unwrap();
    let error = file.append(encoder.finish().unwrap());
    assert!(matches!(error, Err(RowGroupError::ForeignRowGroup { expected: 14, found: 1 })));
}

#[test]
fn options_out_of_range_are_refused() {
    let try_new = |options| RowGroupEncoder::try_new(&plan_schema(), &options).map(drop);
    let no_rows = try_new(RowGroupOptions { page_rows: 0, ..RowGroupOptions::default() });
    assert!(matches!(no_rows, Err(RowGroupError::Option { option: "page_rows", .. })));
    let level = try_new(RowGroupOptions { zstd_level: 23, ..RowGroupOptions::default() });
    assert!(matches!(level, Err(RowGroupError::Option { option: "zstd_level", .. })));
}

/// A sink that is full after some bytes.
struct Full(usize);

impl std::io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_sink_that_fails_is_a_retryable_error() {
    let ids = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from_iter_values(0..100)) as ArrayRef)]).unwrap();
    let options = RowGroupOptions::default();
    let mut encoder = RowGroupEncoder::try_new(&ids.schema(), &options).unwrap();
    encoder.write(&ids).unwrap();
    let mut file = ParquetFile::try_new(Full(10), &ids.schema(), &options).unwrap();
    let error = file.append(encoder.finish().unwrap()).and_then(|_| file.finish().map(drop)).unwrap_err();
    assert!(error.is_retryable(), "{error}");
}
