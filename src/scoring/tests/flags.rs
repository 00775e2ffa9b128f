//! Flags, by explicit scores.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int16Array, ListBuilder, StringArray, StringDictionaryBuilder, UInt32Array,
};
use arrow::datatypes::{UInt8Type, UInt16Type, UInt32Type};

use crate::instrument::Instrument;
use crate::model::Scale;
use crate::model::result::norm_group_column;
use crate::scoring::tests::flexibility::contexts;
use crate::scoring::tests::table::{Table, Value};
use crate::scoring::{FLAG_NAMES, Flags};

/// One session without a flag; each test changes what it is about.
#[derive(Clone)]
struct Session {
    acce: i16,
    aero: i16,
    w: f64,
    codes: Vec<u8>,
    groups: [&'static str; 7],
    truncated: usize,
}

fn plain() -> Session {
    let codes = vec![0, 1, 2, 3, 4, 5, 6, 7];
    Session { acce: 10, aero: 6, w: 0.5, codes, groups: ["Total"; 7], truncated: 0 }
}

fn table(sessions: &[Session], dictionary: &[&str]) -> Table {
    let codes: Vec<_> = sessions.iter().map(|session| session.codes.clone()).collect();
    let mut truncated = ListBuilder::new(StringDictionaryBuilder::<UInt8Type>::new());
    for session in sessions {
        truncated.append_value(Scale::ALL[..session.truncated].iter().map(|scale| Some(scale.name())));
    }
    let w = Float64Array::from_iter_values(sessions.iter().map(|session| session.w));
    let table = contexts(&codes)
        .with("acce", Int16Array::from_iter_values(sessions.iter().map(|session| session.acce)))
        .with("aero", Int16Array::from_iter_values(sessions.iter().map(|session| session.aero)))
        .with("kendall_w", DictionaryArray::<UInt16Type>::new((0..sessions.len() as u16).collect(), Arc::new(w)))
        .with("truncated_scales", truncated.finish());
    let names: ArrayRef = Arc::new(StringArray::from(dictionary.to_vec()));
    Scale::ALL.into_iter().fold(table, |table, scale| {
        let key = |session: &Session| {
            let name = session.groups[scale as usize];
            dictionary.iter().position(|known| *known == name).unwrap() as u32
        };
        let keys = UInt32Array::from_iter_values(sessions.iter().map(key));
        table.with(&norm_group_column(scale), DictionaryArray::<UInt32Type>::new(keys, Arc::clone(&names)))
    })
}

const DICTIONARY: [&str; 3] = ["published", "EDU:a", "Total"];

fn flags_of(instrument: &Arc<Instrument>, sessions: &[Session]) -> Vec<Value> {
    table(sessions, &DICTIONARY).apply(&Flags::new(instrument)).read("flags")
}

fn flags(session: Session) -> Vec<String> {
    match flags_of(&Instrument::klsi4(), &[session]).remove(0) {
        Value::List(flags) => flags,
        other => panic!("{other:?}"),
    }
}

const NONE: [&str; 0] = [];

#[test]
fn an_ordinary_session_has_no_flag() {
    assert_eq!(flags(plain()), NONE);
}

#[test]
fn scores_beside_a_window_border_are_near_it_and_no_others() {
    for acce in -36..=36 {
        let expected = [5, 6, 14, 15].contains(&acce);
        assert_eq!(flags(Session { acce, ..plain() }).contains(&"near_style_boundary".to_owned()), expected, "{acce}");
    }
    for aero in -36..=36 {
        let expected = [0, 1, 11, 12].contains(&aero);
        assert_eq!(flags(Session { aero, ..plain() }).contains(&"near_style_boundary".to_owned()), expected, "{aero}");
    }
}

#[test]
fn w_is_low_below_and_high_above_its_thresholds_but_not_at_them() {
    let of_s = |s: i16| flags(Session { w: f64::from(s) / 320.0, ..plain() });
    assert_eq!(of_s(14), ["low_w"]);
    assert_eq!(of_s(16), NONE);
    assert_eq!(of_s(304), NONE);
    assert_eq!(of_s(306), ["high_w"]);
}

#[test]
fn a_ranking_of_six_contexts_repeats_wherever_it_stands() {
    for (codes, expected) in [
        (vec![9, 9, 9, 9, 9, 9, 1, 2], true),
        (vec![1, 2, 9, 9, 9, 9, 9, 9], true),
        (vec![9, 1, 9, 9, 2, 9, 9, 9], true),
        (vec![9; 8], true),
        (vec![9, 9, 9, 9, 9, 1, 2, 3], false),
        (vec![1, 2, 3, 9, 9, 9, 9, 9], false),
        (vec![1, 1, 1, 1, 9, 9, 9, 9], false),
    ] {
        let found = flags(Session { codes: codes.clone(), ..plain() });
        assert_eq!(found.contains(&"repeated_context_pattern".to_owned()), expected, "{codes:?}");
    }
}

#[test]
fn provenance_is_mixed_when_the_published_table_answered_for_some_scales_only() {
    let mut groups = ["Total", "EDU:a", "Total", "Total", "EDU:a", "Total", "Total"];
    assert_eq!(flags(Session { groups, ..plain() }), NONE);
    groups[6] = "published";
    assert_eq!(flags(Session { groups, ..plain() }), ["mixed_provenance"]);
    assert_eq!(flags(Session { groups: ["published"; 7], ..plain() }), NONE);
}

#[test]
fn the_published_table_is_known_by_its_name_wherever_a_dictionary_has_it() {
    let mut groups = ["Total"; 7];
    groups[0] = "published";
    let sessions = [Session { groups, ..plain() }, plain()];
    let expected = [["mixed_provenance"].into(), NONE.into()];
    for dictionary in [["Total", "published"], ["published", "Total"]] {
        let table = table(&sessions, &dictionary).apply(&Flags::new(&Instrument::klsi4()));
        assert_eq!(table.read("flags"), expected);
    }
    let table = self::table(&[plain()], &["Total"]).apply(&Flags::new(&Instrument::klsi4()));
    assert_eq!(table.read("flags"), [NONE.into()]);
}

#[test]
fn two_truncated_scales_are_excessive() {
    assert_eq!(flags(Session { truncated: 1, ..plain() }), NONE);
    assert_eq!(flags(Session { truncated: 2, ..plain() }), ["excessive_truncation"]);
    assert_eq!(flags(Session { truncated: 6, ..plain() }), ["excessive_truncation"]);
}

#[test]
fn flags_stand_in_one_order() {
    let groups = ["published", "Total", "Total", "Total", "Total", "Total", "Total"];
    let session = Session { acce: 5, w: 0.96, codes: vec![3; 8], groups, truncated: 3, ..plain() };
    let expected =
        ["near_style_boundary", "high_w", "repeated_context_pattern", "mixed_provenance", "excessive_truncation"];
    assert_eq!(flags(session), expected);
    assert_eq!(FLAG_NAMES.len(), 6);
}

#[test]
fn a_session_that_failed_validation_has_no_flags_but_null() {
    let all = Session { acce: 5, w: 1.0, codes: vec![255; 8], groups: ["published"; 7], truncated: 6, ..plain() };
    let sessions = [all.clone(), plain(), all];
    assert_eq!(flags_of(&Instrument::klsi4(), &sessions), [Value::Null, NONE.into(), Value::Null]);
}

#[test]
fn a_slice_of_a_batch_has_the_flags_of_its_rows() {
    let sessions: Vec<_> = (0..20).map(|row| Session { acce: row, truncated: row as usize % 4, ..plain() }).collect();
    let whole = flags_of(&Instrument::klsi4(), &sessions);
    let slice = table(&sessions, &DICTIONARY).slice(3, 11).apply(&Flags::new(&Instrument::klsi4()));
    assert_eq!(slice.read("flags"), whole[3..14]);
}

/// KLSI 4.0 with another threshold.
fn instrument_with(key: &str, before: &str, after: &str) -> Arc<Instrument> {
    let source = Instrument::klsi4().source().to_owned();
    let (before, after) = (format!("{key} = {before}"), format!("{key} = {after}"));
    assert!(source.contains(&before));
    Arc::new(Instrument::parse(&source.replace(&before, &after), "test").unwrap())
}

#[test]
fn every_threshold_of_repetition_is_kept() {
    // Sessions whose most frequent ranking stands in 1 to 8 contexts, at the end.
    let sessions: Vec<_> = (1..=8)
        .map(|times| Session {
            codes: (0..8).map(|at| if at < 8 - times { at as u8 } else { 23 }).collect(),
            ..plain()
        })
        .collect();
    for threshold in 2..=12 {
        let instrument = instrument_with("repeated_pattern_at", "6", &threshold.to_string());
        let expected: Vec<Value> = (1..=8)
            .map(|times| if times >= threshold { ["repeated_context_pattern"].into() } else { NONE.into() })
            .collect();
        assert_eq!(flags_of(&instrument, &sessions), expected, "{threshold}");
    }
}

#[test]
fn every_threshold_of_truncation_is_kept() {
    let sessions: Vec<_> = (0..=6).map(|truncated| Session { truncated, ..plain() }).collect();
    for threshold in 1..=8 {
        let instrument = instrument_with("excessive_truncation_at", "2", &threshold.to_string());
        let expected: Vec<Value> = (0..=6)
            .map(|truncated| if truncated >= threshold { ["excessive_truncation"].into() } else { NONE.into() })
            .collect();
        assert_eq!(flags_of(&instrument, &sessions), expected, "{threshold}");
    }
}
