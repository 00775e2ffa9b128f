//! Validation, by explicit cells.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int8Array, Int64Array, StringArray, UInt8Array, UInt32Array};
use proptest::prelude::*;

use crate::instrument::Instrument;
use crate::model::session::{Part, items};
use crate::model::{Fault, FaultCode, Layout, Mode};
use crate::scoring::tests::columns::Form;
use crate::scoring::tests::session::{CONTEXTS, STYLE_ITEMS, Session};
use crate::scoring::tests::table::{Table, Value, values};
use crate::scoring::{LONG_FAULT, Validate, code_column, decode_long_fault, encode_long_fault};

const ITEMS: usize = STYLE_ITEMS + CONTEXTS;

/// One valid session a row, as `Int8` columns.
fn valid(layout: Layout, rows: usize) -> Table {
    let session = match layout {
        Layout::Packed => Session::of_packed_codes(&[7; ITEMS]),
        Layout::Wide | Layout::Long => Session::of_codes(&[7; ITEMS]),
    };
    Form { types: vec![arrow::datatypes::DataType::Int8], offset: 0 }.table(layout, &vec![session; rows])
}

fn validated(layout: Layout, table: Table) -> Table {
    table.apply(&Validate::new(&Instrument::klsi4(), layout))
}

/// The fault of a session that is valid but for some columns.
fn wide_fault<const N: usize>(columns: [(&str, ArrayRef); N]) -> (Value, Value) {
    let table = columns.into_iter().fold(valid(Layout::Wide, 1), |table, (name, column)| table.with(name, column));
    let table = validated(Layout::Wide, table);
    (table.read("error_code").remove(0), table.read("error").remove(0))
}

fn ints(cells: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(Int64Array::from_iter(cells))
}

#[test]
fn a_valid_session_is_ok_and_has_no_error() {
    let table = validated(Layout::Wide, valid(Layout::Wide, 2));
    assert_eq!(table.read("ok"), values([true, true]));
    for name in ["error_stage", "error_code", "error"] {
        assert_eq!(table.read(name), [Value::Null, Value::Null], "{name}");
    }
    for (part, item) in items(STYLE_ITEMS, CONTEXTS) {
        assert_eq!(table.read(&code_column(part, item)), values([7, 7]));
    }
}

#[test]
fn a_null_rank_is_missing() {
    let fault = wide_fault([("q03_ac", ints([None]))]);
    assert_eq!(fault, ("missing_rank".into(), "the rank of AC in item q03 is missing".into()));
}

#[test]
fn ranks_below_one_and_above_four_are_out_of_range() {
    for rank in [0, 5, -1, 255, 256 + 1, 65_536 + 2, (1 << 32) + 3, i64::MIN, i64::MAX] {
        let fault = wide_fault([("ctx08_ae", ints([Some(rank)]))]);
        let error = "the rank of AE in item ctx08 is not a whole number from 1 to 4";
        assert_eq!(fault, ("rank_out_of_range".into(), error.into()), "{rank}");
    }
}

#[test]
fn four_ranks_that_repeat_one_are_not_a_permutation() {
    // Code 7 ranks 2143: with another CE, AC stays the second 4 or AE the second 3.
    for rank in [1, 3, 4] {
        let fault = wide_fault([("q12_ce", ints([Some(rank)]))]);
        assert_eq!(fault, ("not_a_permutation".into(), "the ranks of item q12 are not 1, 2, 3 and 4 once each".into()));
    }
}

#[test]
fn within_an_item_missing_comes_before_out_of_range_before_not_a_permutation() {
    let code = |columns| wide_fault(columns).0;
    assert_eq!(code([("q01_ce", ints([Some(9)])), ("q01_ae", ints([None]))]), "missing_rank".into());
    assert_eq!(code([("q01_ce", ints([Some(1)])), ("q01_ae", ints([Some(0)]))]), "rank_out_of_range".into());
}

#[test]
fn the_first_item_with_a_fault_is_reported_and_style_items_come_before_contexts() {
    let fault = wide_fault([("ctx01_ce", ints([None])), ("q12_ce", ints([Some(9)]))]);
    assert_eq!(fault.1, "the rank of CE in item q12 is not a whole number from 1 to 4".into());
    let fault = wide_fault([("q02_ae", ints([None])), ("q10_ce", ints([None]))]);
    assert_eq!(fault.1, "the rank of AE in item q02 is missing".into());
    let fault = wide_fault([("q02_ae", ints([None])), ("q02_ro", ints([None]))]);
    assert_eq!(fault.1, "the rank of RO in item q02 is missing".into());
}

#[test]
fn a_faulty_session_leaves_its_neighbours_alone() {
    let table = valid(Layout::Wide, 3).with("q05_ro", ints([Some(1), Some(4), Some(1)]));
    let table = validated(Layout::Wide, table);
    assert_eq!(table.read("ok"), values([true, false, true]));
    assert_eq!(table.read("error_stage"), values([None, Some("validate"), None]));
    assert_eq!(table.read("error_code"), values([None, Some("not_a_permutation"), None]));
    assert_eq!(table.read("q05_code"), values([7, 255, 7]));
    assert_eq!(table.read("q04_code"), values([7, 7, 7]));
}

#[test]
fn the_slot_of_a_null_does_not_count_even_if_it_holds_a_rank() {
    let ranks = Int64Array::new(vec![1, 1].into(), Some(vec![true, false].into()));
    let table = validated(Layout::Wide, valid(Layout::Wide, 2).with("q01_ro", ranks));
    assert_eq!(table.read("error_code"), values([None, Some("missing_rank")]));
}

#[test]
fn a_slice_is_read_from_its_own_offset() {
    let longer = UInt8Array::from(vec![Some(9), None, Some(1), None, Some(1), Some(9)]);
    let table = valid(Layout::Wide, 3).with("q01_ro", Arc::new(longer.slice(2, 3)) as ArrayRef);
    let table = validated(Layout::Wide, table);
    assert_eq!(table.read("error_code"), values([None, Some("missing_rank"), None]));
}

#[test]
fn whole_floats_are_ranks_and_nan_is_missing() {
    let codes = |cells: Vec<f64>| {
        let table = valid(Layout::Wide, cells.len()).with("q01_ro", Float64Array::from(cells));
        validated(Layout::Wide, table).read("error_code")
    };
    assert_eq!(codes(vec![1.0, f64::NAN]), values([None, Some("missing_rank")]));
    let out_of_range = [1.5, 257.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, 1e300];
    assert_eq!(codes(out_of_range.to_vec()), values([Some("rank_out_of_range"); 6]));
}

#[test]
fn text_is_trimmed_and_may_be_a_float_and_blank_text_is_missing() {
    let cells = ["1", " 1 ", "1.0", "", " ", "1.5", "one", "257", "-1", "99999999999999999999999999999999999999999999"];
    let table = valid(Layout::Wide, cells.len()).with("q01_ro", StringArray::from(cells.to_vec()));
    let (missing, out_of_range) = (Some("missing_rank"), Some("rank_out_of_range"));
    let expected = values([None, None, None, missing, missing].into_iter().chain([out_of_range; 5]));
    assert_eq!(validated(Layout::Wide, table).read("error_code"), expected);
}

#[test]
fn packed_codes_run_from_0_to_23() {
    let column = Int8Array::from(vec![Some(0), Some(23), Some(24), Some(-1), None]);
    let table = validated(Layout::Packed, valid(Layout::Packed, 5).with("ctx02", column));
    assert_eq!(table.read("ctx02_code"), values([0, 23, 255, 255, 255]));
    let (missing, out_of_range) = (Some("missing_rank"), Some("rank_out_of_range"));
    assert_eq!(table.read("error_code"), values([None, None, out_of_range, out_of_range, missing]));
    assert_eq!(table.read("error")[2], "the code of item ctx02 is not from 0 to 23".into());
    assert_eq!(table.read("error")[4], "item ctx02 is missing".into());
}

#[test]
fn what_text_means_does_not_depend_on_who_reads_it() {
    let cells = ["-0", "+7", "007", "23", "24", "+", "-"];
    let table = valid(Layout::Packed, cells.len()).with("q01", StringArray::from(cells.to_vec()));
    let table = validated(Layout::Packed, table);
    assert_eq!(table.read("q01_code"), values([0, 7, 7, 23, 255, 255, 255]));
    assert_eq!(table.read("ok"), values([true, true, true, true, false, false, false]));
    assert_eq!(table.read("error_code")[4..], values([Some("rank_out_of_range"); 3]));
}

/// What is reported of a valid session whose rows had these faults, of which assembling keeps the least.
fn long_error(faults: &[Fault]) -> (Value, Value) {
    let column = UInt32Array::from(vec![faults.iter().map(encode_long_fault).min()]);
    let table = validated(Layout::Long, valid(Layout::Long, 1).with(LONG_FAULT, column));
    assert_eq!(table.read("ok"), values([faults.is_empty()]));
    (table.read("error_code").remove(0), table.read("error").remove(0))
}

#[test]
fn faults_of_long_rows_are_reported() {
    let q02 = Some((Part::Style, 2));
    let unknown_mode = Fault { code: FaultCode::UnknownMode, item: q02, mode: None };
    let duplicate = Fault { code: FaultCode::DuplicateRank, item: q02, mode: Some(Mode::Ro) };
    let nowhere = Fault { code: FaultCode::UnknownItem, item: None, mode: None };
    let no_such_item = Fault { code: FaultCode::UnknownItem, item: Some((Part::Style, 13)), mode: None };
    assert_eq!(long_error(&[]), (Value::Null, Value::Null));
    assert_eq!(long_error(&[duplicate]), ("duplicate_rank".into(), "RO is ranked more than once in item q02".into()));
    assert_eq!(long_error(&[duplicate, unknown_mode]).0, "unknown_mode".into());
    assert_eq!(long_error(&[duplicate, no_such_item]), ("unknown_item".into(), "item q13 does not exist".into()));
    assert_eq!(long_error(&[no_such_item, nowhere]).1, nowhere.to_string().as_str().into());
}

#[test]
fn a_rank_missing_in_an_earlier_item_comes_before_a_fault_of_long_rows() {
    let duplicate = Fault { code: FaultCode::DuplicateRank, item: Some((Part::Style, 2)), mode: Some(Mode::Ro) };
    let table = valid(Layout::Long, 2)
        .with(LONG_FAULT, UInt32Array::from(vec![encode_long_fault(&duplicate); 2]))
        .with("q01_ae", ints([None, Some(3)]))
        .with("q02_ce", ints([None, None]));
    let table = validated(Layout::Long, table);
    assert_eq!(table.read("error_code"), values(["missing_rank", "duplicate_rank"]));
}

fn any_fault() -> impl Strategy<Value = Fault> {
    let part = prop::sample::select(vec![Part::Style, Part::Context]);
    let mode = prop::option::of(prop::sample::select(Mode::ALL.to_vec()));
    let code = prop::sample::select(FaultCode::ALL.to_vec());
    (code, prop::option::of((part, 0usize..256)), mode).prop_map(|(code, item, mode)| Fault { code, item, mode })
}

proptest! {
    #[test]
    fn a_long_fault_survives_its_encoding(fault in any_fault()) {
        prop_assert_eq!(decode_long_fault(encode_long_fault(&fault)), Some(fault));
    }

    #[test]
    fn an_earlier_item_has_the_lesser_encoding(a in any_fault(), b in any_fault()) {
        let unknown = FaultCode::UnknownItem;
        prop_assume!(a.code != unknown && b.code != unknown && a.item < b.item);
        prop_assert!(encode_long_fault(&a) < encode_long_fault(&b));
    }

    #[test]
    fn a_row_of_no_item_comes_before_every_item(a in any_fault(), b in any_fault()) {
        prop_assume!(b.code != FaultCode::UnknownItem);
        let unknown = Fault { code: FaultCode::UnknownItem, ..a };
        prop_assert!(encode_long_fault(&unknown) < encode_long_fault(&b));
    }

    #[test]
    fn no_integer_breaks_decoding(encoded: u32) {
        if let Some(fault) = decode_long_fault(encoded) {
            prop_assert_eq!(encode_long_fault(&fault), encoded);
        }
    }
}
