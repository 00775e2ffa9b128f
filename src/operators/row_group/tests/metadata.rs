//! What statistics and page index say, against values recomputed from the rows.

use arrow::datatypes::ToByteSlice;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::BoundaryOrder;
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, RowGroupMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;
use parquet::file::writer::SerializedFileWriter;

use super::*;

/// The values of a leaf in a range of rows, as the bytes statistics use, ordered; with the number of nulls.
fn leaf_values(rows: &[Row], column: &str) -> (Vec<Vec<u8>>, u64) {
    fn flat(column: impl Iterator<Item = Option<Vec<u8>>>) -> (Vec<Vec<u8>>, u64) {
        let all = column.collect::<Vec<_>>();
        let nulls = all.iter().filter(|value| value.is_none()).count() as u64;
        (all.into_iter().flatten().collect(), nulls)
    }
    fn integers<T: Ord + ToByteSlice>(column: impl Iterator<Item = Option<T>>) -> (Vec<Vec<u8>>, u64) {
        let all = column.collect::<Vec<_>>();
        let nulls = all.iter().filter(|value| value.is_none()).count() as u64;
        let mut values = all.into_iter().flatten().collect::<Vec<_>>();
        values.sort_unstable();
        (values.iter().map(|value| value.to_byte_slice().to_vec()).collect(), nulls)
    }
    let word = |word: usize| WORDS[word].as_bytes().to_vec();
    let (mut values, nulls) = match column {
        "style" => flat(rows.iter().map(|row| row.style.map(word))),
        "group" => flat(rows.iter().map(|row| row.group.map(word))),
        "tier" => flat(rows.iter().map(|row| row.tier.map(word))),
        "country" => flat(rows.iter().map(|row| row.country.map(word))),
        "id" => return integers(rows.iter().map(|row| Some(row.id))),
        "time" => return integers(rows.iter().map(|row| row.time)),
        "score" => return integers(rows.iter().map(|row| row.score.map(i32::from))),
        "ok" => flat(rows.iter().map(|row| Some(vec![u8::from(row.ok)]))),
        "flag" => flat(rows.iter().map(|row| row.flag.map(|flag| vec![u8::from(flag)]))),
        "contexts" => flat(rows.iter().flat_map(|row| match &row.contexts {
            Some(items) if !items.is_empty() => items.iter().map(|item| item.map(word)).collect(),
            _ => vec![None],
        })),
        "regular" => flat(rows.iter().flat_map(|row| row.regular.iter().map(|item| Some(word(*item))))),
        "percentile" | "keyed_percentile" => {
            let mut numbers = rows.iter().filter_map(|row| row.percentile).collect::<Vec<_>>();
            let nulls = rows.len() - numbers.len();
            numbers.retain(|number| !number.is_nan());
            numbers.sort_by(|a, b| a.partial_cmp(b).unwrap());
            let zero = |number: Option<&mut f64>, zero: f64| number.filter(|n| **n == 0.0).map(|n| *n = zero);
            zero(numbers.last_mut(), 0.0);
            if numbers.len() == 1 && numbers[0] == 0.0 {
                numbers.push(0.0);
            }
            zero(numbers.first_mut(), -0.0);
            return (numbers.iter().map(|number| number.to_le_bytes().to_vec()).collect(), nulls as u64);
        }
        _ => unreachable!(),
    };
    values.sort_unstable();
    (values, nulls)
}

/// A long word is the only one whose bounds are cut.
fn assert_bounds(found: (Option<&[u8]>, Option<&[u8]>), values: &[Vec<u8>]) {
    match values {
        [] => assert!(found.0.unwrap_or_default().is_empty() && found.1.unwrap_or_default().is_empty()),
        [first, ..] => {
            let last = values.last().unwrap();
            let (min, max) = (found.0.unwrap(), found.1.unwrap());
            if first.len() <= 64 {
                assert_eq!(min, first)
            } else {
                assert_eq!(min, &first[..64])
            }
            if last.len() <= 64 { assert_eq!(max, last) } else { assert!(max > last.as_slice() && max.len() <= 64) }
        }
    }
}

fn page_bounds(index: &ColumnIndexMetaData, page: usize) -> (Vec<u8>, Vec<u8>) {
    match index {
        ColumnIndexMetaData::BOOLEAN(index) => {
            let byte = |value: Option<&bool>| value.map(|value| vec![u8::from(*value)]).unwrap_or_default();
            (byte(index.min_value(page)), byte(index.max_value(page)))
        }
        ColumnIndexMetaData::INT32(index) => {
            let bytes = |value: Option<&i32>| value.map(|value| value.to_le_bytes().to_vec()).unwrap_or_default();
            (bytes(index.min_value(page)), bytes(index.max_value(page)))
        }
        ColumnIndexMetaData::INT64(index) => {
            let bytes = |value: Option<&i64>| value.map(|value| value.to_le_bytes().to_vec()).unwrap_or_default();
            (bytes(index.min_value(page)), bytes(index.max_value(page)))
        }
        ColumnIndexMetaData::DOUBLE(index) => {
            let bytes = |value: Option<&f64>| value.map(|value| value.to_le_bytes().to_vec()).unwrap_or_default();
            (bytes(index.min_value(page)), bytes(index.max_value(page)))
        }
        ColumnIndexMetaData::BYTE_ARRAY(index) => {
            (index.min_value(page).unwrap_or_default().to_vec(), index.max_value(page).unwrap_or_default().to_vec())
        }
        _ => unreachable!("no such column here"),
    }
}

/// Compares the metadata of a file with its rows.
pub(super) fn assert_metadata(file: &Bytes, row_groups: &[&[Row]], page_rows: usize) {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let metadata = ArrowReaderMetadata::load(file, options).unwrap().metadata().clone();
    let row_groups = row_groups.iter().filter(|rows| !rows.is_empty()).collect::<Vec<_>>();
    assert_eq!(metadata.num_row_groups(), row_groups.len());
    for (at, rows) in row_groups.iter().enumerate() {
        let row_group = metadata.row_group(at);
        assert_eq!(row_group.num_rows() as usize, rows.len());
        assert!(row_group.sorting_columns().is_none());
        for (leaf, chunk) in row_group.columns().iter().enumerate() {
            let column = chunk.column_path().parts()[0].as_str();
            if column == "error" {
                continue;
            }
            let (values, nulls) = leaf_values(rows, column);
            let statistics = chunk.statistics().unwrap();
            assert_eq!(statistics.null_count_opt(), Some(nulls), "{column}");
            assert_bounds((statistics.min_bytes_opt(), statistics.max_bytes_opt()), &values);
            if let Statistics::ByteArray(strings) = statistics {
                assert_eq!(strings.min_is_exact(), values.first().is_some_and(|value| value.len() <= 64));
                assert_eq!(strings.max_is_exact(), values.last().is_some_and(|value| value.len() <= 64));
            }

            let offsets = metadata.offset_index().unwrap()[at][leaf].page_locations();
            let index = &metadata.column_index().unwrap()[at][leaf];
            let pages = rows.chunks(page_rows).map(|page| leaf_values(page, column)).collect::<Vec<_>>();
            assert_eq!(offsets.len(), pages.len());
            assert!(
                offsets
                    .iter()
                    .enumerate()
                    .all(|(page, location)| location.first_row_index as usize == page * page_rows)
            );
            let all_nan = |page: &[Row]| {
                matches!(column, "percentile" | "keyed_percentile")
                    && page.iter().any(|row| row.percentile.is_some())
                    && page.iter().filter_map(|row| row.percentile).all(f64::is_nan)
            };
            if rows.chunks(page_rows).any(all_nan) {
                assert!(matches!(index, ColumnIndexMetaData::NONE));
                continue;
            }
            for (page, (values, nulls)) in pages.iter().enumerate() {
                assert_eq!(index.is_null_page(page), values.is_empty(), "{column}, page {page}");
                assert_eq!(index.null_count(page), Some(*nulls as i64), "{column}, page {page}");
                let (min, max) = page_bounds(index, page);
                assert_bounds((Some(&min), Some(&max)), values);
            }
            let bounds = pages.iter().filter(|(values, _)| !values.is_empty()).count();
            if bounds < 2 {
                assert_eq!(index.get_boundary_order(), Some(BoundaryOrder::ASCENDING));
            }
        }
    }
}

/// The same row groups in a file of the library's writer.
pub(super) fn by_the_library(row_groups: Vec<EncodedRowGroup>, options: &RowGroupOptions) -> Bytes {
    let FileSchema { parquet, properties, .. } = FileSchema::try_new(&plan_schema(), options).unwrap();
    let mut file = SerializedFileWriter::new(Vec::new(), parquet.root_schema_ptr(), properties).unwrap();
    for row_group in row_groups {
        let mut writer = file.next_row_group().unwrap();
        for chunk in row_group.chunks {
            match chunk {
                Encoded::Own(chunk) => writer.append_column(&chunk.bytes, chunk.close).unwrap(),
                Encoded::Stock(chunk) => chunk.append_to_row_group(&mut writer).unwrap(),
            }
        }
        writer.close().unwrap();
    }
    file.into_inner().unwrap().into()
}

/// Row groups, whose page index may lie anywhere.
pub(super) fn without_places_of_the_page_index(metadata: &ParquetMetaData) -> Vec<RowGroupMetaData> {
    let column = |column: &ColumnChunkMetaData| {
        let column = column.clone().into_builder().set_column_index_offset(None).set_offset_index_offset(None);
        column.build().unwrap()
    };
    let row_group = |row_group: &RowGroupMetaData| {
        let columns = row_group.columns().iter().map(column).collect();
        row_group.clone().into_builder().set_column_metadata(columns).build().unwrap()
    };
    metadata.row_groups().iter().map(row_group).collect()
}
