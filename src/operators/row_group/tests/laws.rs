//! What holds for any rows, however they are delivered.

use std::sync::Arc;

use arrow::array::{Array, Int64Array, UInt64Array};
use arrow::compute::take_record_batch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::RowSelection;
use proptest::prelude::*;

use super::cases::written;
use super::metadata::{assert_metadata, by_the_library, without_places_of_the_page_index};
use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_batch_reads_back_as_the_library_writer_gives_it(
        rows in rows(220), cut in 0.0..1.0_f64, delivery in delivery(), page_rows in prop_oneof![1..60_usize, Just(1000)],
    ) {
        let (first, second) = rows.split_at((rows.len() as f64 * cut) as usize);
        let (file, metadata) = write(&[first, second], &delivery, &options(page_rows));
        prop_assert_eq!(metadata.file_metadata().num_rows() as usize, rows.len());
        let found = read(&file, None);
        let expected = expected(&rows);
        prop_assert_eq!(found.schema_ref().fields(), expected.schema_ref().fields());
        prop_assert_eq!(by_bits(&found), by_bits(&expected));

        let mut stock = ArrowWriter::try_new(Vec::new(), expected.schema(), None).unwrap();
        stock.write(&expected).unwrap();
        prop_assert_eq!(by_bits(&read(&stock.into_inner().unwrap().into(), None)), by_bits(&found));
    }

    #[test]
    fn statistics_and_page_index_say_what_pages_hold(
        rows in rows(220), cut in 0.0..1.0_f64, delivery in delivery(), page_rows in 1..60_usize,
    ) {
        let (first, second) = rows.split_at((rows.len() as f64 * cut) as usize);
        let (file, _) = write(&[first, second], &delivery, &options(page_rows));
        assert_metadata(&file, &[first, second], page_rows);
    }

    #[test]
    fn the_footer_says_what_that_of_the_library_writer_says(
        rows in rows(60), row_group_rows in 1..30_usize, delivery in delivery(), page_rows in 1..20_usize,
    ) {
        let options = options(page_rows);
        let (_, found) = write(&rows.chunks(row_group_rows).collect::<Vec<_>>(), &delivery, &options);
        let row_groups = rows.chunks(row_group_rows).map(|rows| encode(&delivery.batches(rows), &options)).collect();
        let expected = metadata_of(&by_the_library(row_groups, &options));
        prop_assert_eq!(found.file_metadata(), expected.file_metadata());
        prop_assert_eq!(without_places_of_the_page_index(&found), without_places_of_the_page_index(&expected));
        prop_assert_eq!(found.column_index(), expected.column_index());
        prop_assert_eq!(found.offset_index(), expected.offset_index());
    }

    #[test]
    fn selected_rows_are_found_through_the_page_index(
        rows in rows(220), cut in 0.0..1.0_f64, picks in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        delivery in delivery(), page_rows in 1..40_usize,
    ) {
        prop_assume!(!rows.is_empty());
        let (first, second) = rows.split_at((rows.len() as f64 * cut) as usize);
        let (file, _) = write(&[first, second], &delivery, &options(page_rows));
        let mut picks = picks.iter().map(|pick| pick.index(rows.len())).collect::<Vec<_>>();
        picks.sort_unstable();
        picks.dedup();
        let ranges = picks.iter().map(|pick| *pick..pick + 1);
        let selection = RowSelection::from_consecutive_ranges(ranges, rows.len());
        let picked = UInt64Array::from_iter_values(picks.iter().map(|pick| *pick as u64));
        let expected = take_record_batch(&expected(&rows), &picked).unwrap();
        prop_assert_eq!(by_bits(&read(&file, Some(selection))), by_bits(&expected));
    }

    #[test]
    fn bytes_depend_on_rows_alone_not_on_batches_or_dictionaries(
        rows in rows(220), one in delivery(), other in delivery(), page_rows in 1..100_usize,
    ) {
        let options = options(page_rows);
        prop_assert_eq!(write(&[&rows], &one, &options).0, write(&[&rows], &other, &options).0);
    }

    #[test]
    fn wide_integers_read_back_from_their_differences(
        steps in prop::collection::vec(prop_oneof![8 => 0..1000_i64, 1 => any::<i64>()], 0..700), page_rows in 1..700_usize,
    ) {
        let values = steps.iter().scan(0_i64, |sum, step| { *sum = sum.wrapping_add(*step); Some(*sum) });
        let values = Int64Array::from_iter_values(values);
        prop_assume!(!values.is_empty());
        let (found, _) = written(Arc::new(values.clone()), page_rows);
        prop_assert_eq!(found.as_ref(), &values as &dyn Array);
    }
}
