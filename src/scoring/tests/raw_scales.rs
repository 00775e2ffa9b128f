//! Raw scales and combinations, by explicit codes and by other scoring keys.

use std::sync::Arc;

use arrow::array::{BooleanArray, Int16Array, UInt8Array};

use crate::instrument::Instrument;
use crate::model::permutation::code_of;
use crate::model::session::Part;
use crate::scoring::tests::table::{Table, Value, values};
use crate::scoring::{Combinations, INVALID_CODE, RawScales, Style, code_column};

/// The code columns of sessions, each given by the ranks of its style items; `None` is an item that is not a ranking.
pub(super) fn style_items(items: usize, sessions: &[Vec<Option<[u8; 4]>>]) -> Table {
    let ok = sessions.iter().map(|ranks| Some(ranks.iter().all(Option::is_some)));
    let table = Table::default().with("ok", ok.collect::<BooleanArray>());
    (0..items).fold(table, |table, item| {
        let code = |ranks: &Vec<Option<[u8; 4]>>| ranks[item].map_or(INVALID_CODE, |ranks| code_of(ranks).unwrap());
        let codes = UInt8Array::from_iter_values(sessions.iter().map(code));
        table.with(&code_column(Part::Style, item + 1), codes)
    })
}

/// KLSI 4.0 with another scoring key.
fn instrument_with_key(ce: &str, ro: &str, ac: &str, ae: &str) -> Arc<Instrument> {
    let source = Instrument::klsi4().source().to_owned();
    let all = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]";
    let keyed = [("ce", ce), ("ro", ro), ("ac", ac), ("ae", ae)].into_iter().fold(source, |source, (mode, items)| {
        let (before, after) = (format!("{mode} = {all}"), format!("{mode} = {items}"));
        assert!(source.contains(&before));
        source.replace(&before, &after)
    });
    Arc::new(Instrument::parse(&keyed, "test").unwrap())
}

const RAW: [&str; 4] = ["ce_raw", "ro_raw", "ac_raw", "ae_raw"];

#[test]
fn a_raw_score_sums_the_ranks_of_its_mode() {
    let mut mixed = vec![Some([1, 2, 3, 4]); 12];
    mixed[3] = Some([4, 1, 2, 3]);
    mixed[11] = Some([3, 4, 2, 1]);
    let sessions = [vec![Some([1, 2, 3, 4]); 12], vec![Some([4, 3, 2, 1]); 12], mixed];
    let table = style_items(12, &sessions).apply(&RawScales::new(&Instrument::klsi4()));
    assert_eq!(RAW.map(|name| table.read(name)[0].clone()).to_vec(), values([12, 24, 36, 48]));
    assert_eq!(RAW.map(|name| table.read(name)[1].clone()).to_vec(), values([48, 36, 24, 12]));
    assert_eq!(
        RAW.map(|name| table.read(name)[2].clone()).to_vec(),
        values([10 + 4 + 3, 20 + 1 + 4, 30 + 2 + 2, 40 + 3 + 1])
    );
}

#[test]
fn a_scoring_key_counts_only_its_items() {
    let instrument = instrument_with_key("[1]", "[1, 2]", "[2, 12]", "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]");
    let mut ranks = vec![Some([1, 2, 3, 4]); 12];
    ranks[0] = Some([4, 3, 2, 1]);
    ranks[11] = Some([1, 3, 4, 2]);
    let table = style_items(12, &[ranks]).apply(&RawScales::new(&instrument));
    assert_eq!(RAW.map(|name| table.read(name)[0].clone()).to_vec(), values([4, 3 + 2, 3 + 4, 1 + 10 * 4]));
}

#[test]
fn a_session_that_failed_validation_has_no_scores() {
    let mut spoilt = vec![Some([1, 2, 3, 4]); 12];
    spoilt[6] = None;
    let table = style_items(12, &[vec![Some([1, 2, 3, 4]); 12], spoilt, vec![None; 12]]);
    let table = table.apply(&RawScales::new(&Instrument::klsi4())).apply(&Combinations::new(&Instrument::klsi4()));
    assert_eq!(table.read("ce_raw"), values([Some(12), None, None]));
    assert_eq!(table.read("ae_raw"), values([Some(48), None, None]));
    assert_eq!(table.read("acce"), values([Some(24), None, None]));
    assert_eq!(table.read("intensity"), values([Some(48), None, None]));
}

#[test]
fn a_lopsided_key_has_its_own_range_of_styles() {
    let all = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]";
    let instrument = instrument_with_key("[1]", all, all, "[1]");
    let table = style_items(12, &[vec![None; 12], vec![Some([1, 2, 3, 4]); 12]]).apply(&RawScales::new(&instrument));
    let table = table.apply(&Combinations::new(&instrument)).apply(&Style::new(&instrument));
    assert_eq!(table.read("acce"), values([None, Some(35)]));
    assert_eq!(table.read("aero"), values([None, Some(-20)]));
    assert_eq!(table.read("style"), values([None, Some("analyzing")]));
}

#[test]
fn what_a_null_slot_holds_does_not_matter() {
    let raw = |any: i16| Int16Array::new(vec![any, 30].into(), Some(vec![false, true].into()));
    let table = Table::default().with("ok", BooleanArray::from(vec![false, true]));
    let slots = [i16::MIN, i16::MAX, -1, 0];
    let table = RAW.iter().zip(slots).fold(table, |table, (name, any)| table.with(name, raw(any)));
    let table = table.apply(&Combinations::new(&Instrument::klsi4())).apply(&Style::new(&Instrument::klsi4()));
    assert_eq!(table.read("acce"), values([None, Some(0)]));
    assert_eq!(table.read("balance_acce"), values([None, Some(9)]));
    assert_eq!(table.read("style"), values([None, Some("imagining")]));
}

#[test]
fn combinations_follow_the_guide() {
    // CE 17, RO 25, AC 34, AE 44.
    let mut ranks = vec![Some([1, 2, 3, 4]); 12];
    ranks[3] = Some([4, 1, 2, 3]);
    ranks[11] = Some([3, 4, 2, 1]);
    let instrument = Instrument::klsi4();
    let table = style_items(12, &[ranks]).apply(&RawScales::new(&instrument)).apply(&Combinations::new(&instrument));
    let expected = [
        ("acce", 17),
        ("aero", 19),
        ("assimilation_accommodation", -2),
        ("converging_diverging", 36),
        ("balance_acce", 8),
        ("balance_aero", 13),
        ("intensity", 36),
    ];
    for (name, score) in expected {
        assert_eq!(table.read(name), values([score]), "{name}");
    }
}

#[test]
fn balance_and_intensity_are_distances() {
    let instrument = Instrument::klsi4();
    let table = style_items(12, &[vec![Some([4, 3, 2, 1]); 12]]);
    let table = table.apply(&RawScales::new(&instrument)).apply(&Combinations::new(&instrument));
    let read = |name| table.read(name).remove(0);
    assert_eq!([read("acce"), read("aero")].to_vec(), values([-24, -24]));
    assert_eq!([read("balance_acce"), read("balance_aero")].to_vec(), values([33, 30]));
    assert_eq!(read("intensity"), Value::Int(48));
}
