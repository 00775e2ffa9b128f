//! Percentiles, by explicit norms and chains.

use arrow::array::{BooleanArray, Int16Array};

use crate::model::Scale;
use crate::model::norm::ChainScope;
use crate::scoring::tests::norms::Norms;
use crate::scoring::tests::table::{Table, Value, values};

const COLUMNS: [&str; 7] = ["ce_raw", "ro_raw", "ac_raw", "ae_raw", "acce", "aero", "lfi_key"];

/// Raw scores of sessions, in the order of the scales.
fn scores(sessions: &[[i16; 7]]) -> Table {
    let table = Table::default().with("ok", BooleanArray::from(vec![true; sessions.len()]));
    COLUMNS.iter().enumerate().fold(table, |table, (scale, name)| {
        table.with(name, Int16Array::from_iter_values(sessions.iter().map(|session| session[scale])))
    })
}

const TYPICAL: [i16; 7] = [25, 29, 32, 34, 7, 5, 200];

fn chain<const N: usize>(names: [&str; N]) -> Vec<Option<String>> {
    names.map(|name| (!name.is_empty()).then(|| name.to_owned())).to_vec()
}

#[test]
fn the_first_group_that_holds_the_raw_score_answers() {
    let norms = Norms::of_groups(&[
        ("EDU:a", &[(Scale::Ce, 24, 40.0), (Scale::Ce, 26, 44.0)]),
        ("COUNTRY:a", &[(Scale::Ce, 25, 61.5)]),
        ("Total", &[(Scale::Ce, 25, 70.0), (Scale::Ro, 29, 71.0)]),
    ]);
    let chains = [chain(["EDU:a", "COUNTRY:a", "Total"])];
    let table = norms.apply(scores(&[TYPICAL]), &chains, ChainScope::PerScale);
    assert_eq!(table.read("ce_percentile"), values([61.5]));
    assert_eq!(table.read("ce_norm_group"), values(["COUNTRY:a"]));
    assert_eq!(table.read("ro_percentile"), values([71.0]));
    assert_eq!(table.read("ro_norm_group"), values(["Total"]));
    assert_eq!(table.read("ac_percentile"), values([50.0]));
    assert_eq!(table.read("ac_norm_group"), values(["published"]));
    assert_eq!(table.read("used_fallback"), values([true]));
}

#[test]
fn a_null_attribute_and_a_group_without_norms_are_passed_over() {
    let norms = Norms::of_groups(&[("EDU:a", &[(Scale::Ce, 25, 10.0)]), ("Total", &[(Scale::Ce, 25, 20.0)])]);
    let chains = [chain(["EDU:a", "Total"]), chain(["", "Total"]), chain(["EDU:none", "Total"]), chain(["", ""])];
    let table = norms.apply(scores(&[TYPICAL; 4]), &chains, ChainScope::PerScale);
    assert_eq!(table.read("ce_percentile"), values([10.0, 20.0, 20.0, 50.0]));
    assert_eq!(table.read("ce_norm_group"), values(["EDU:a", "Total", "Total", "published"]));
}

#[test]
fn an_empty_chain_leaves_everything_to_the_published_table() {
    let table = Norms::of_groups(&[]).apply(scores(&[TYPICAL]), &[chain([])], ChainScope::PerSession);
    assert_eq!(table.read("lfi_norm_group"), values(["published"]));
    assert_eq!(table.read("used_fallback"), values([true]));
}

/// A group that holds the typical scores of all scales, at percentiles from `first` upwards.
fn whole(first: f64) -> Vec<(Scale, i64, f64)> {
    let raw = TYPICAL.map(i64::from);
    Scale::ALL.into_iter().enumerate().map(|(index, scale)| (scale, raw[index], first + index as f64)).collect()
}

#[test]
fn per_session_the_first_group_that_holds_all_seven_answers_for_all() {
    let (six, seven) = (whole(10.0), whole(80.0));
    let norms = Norms::of_groups(&[("EDU:a", &six[..6]), ("Total", &seven)]);
    let chains = [chain(["EDU:a", "Total"]), chain(["EDU:a", ""])];
    let table = norms.apply(scores(&[TYPICAL; 2]), &chains, ChainScope::PerSession);
    assert_eq!(table.read("ce_norm_group"), values(["Total", "published"]));
    assert_eq!(table.read("ce_percentile"), values([80.0, 50.0]));
    assert_eq!(table.read("lfi_percentile"), values([86.0, 50.0]));
    assert_eq!(table.read("used_fallback"), values([false, true]));

    let table = norms.apply(scores(&[TYPICAL; 2]), &chains, ChainScope::PerScale);
    assert_eq!(table.read("ce_norm_group"), values(["EDU:a", "EDU:a"]));
    assert_eq!(table.read("ce_percentile"), values([10.0, 10.0]));
    assert_eq!(table.read("lfi_norm_group"), values(["Total", "published"]));
}

#[test]
fn a_tertile_belongs_to_the_moderate_level() {
    let percentiles = [0.0, 33.33, 33.34, 50.0, 66.67, 66.68, 100.0];
    let rows: Vec<_> = percentiles.iter().enumerate().map(|(raw, &p)| (Scale::Lfi, raw as i64, p)).collect();
    let sessions: Vec<[i16; 7]> = (0..7).map(|raw| [25, 29, 32, 34, 7, 5, raw]).collect();
    let table = Norms::of_groups(&[("Total", &rows)]).apply(
        scores(&sessions),
        &vec![chain(["Total"]); 7],
        ChainScope::PerScale,
    );
    let expected = ["low", "low", "moderate", "moderate", "moderate", "high", "high"];
    assert_eq!(table.read("flexibility_level"), values(expected));
}

#[test]
fn scales_outside_the_published_range_are_named_in_scale_order_and_lfi_never_is() {
    let sessions = [
        [11, 44, 11, 44, -29, 33, 0],
        [10, 45, 12, 13, 0, 0, 0],
        [48, 12, 12, 48, -36, 36, 320],
        [25, 29, 32, 34, 34, -34, 320],
        [25, 29, 32, 34, 33, -33, 320],
    ];
    let table = Norms::of_groups(&[]).apply(scores(&sessions), &vec![chain([]); 5], ChainScope::PerScale);
    let none: [&str; 0] = [];
    let expected: [Value; 5] =
        [none.into(), ["ce", "ro"].into(), ["ce", "ae", "acce", "aero"].into(), ["acce", "aero"].into(), none.into()];
    assert_eq!(table.read("truncated_scales"), expected);
}

#[test]
fn a_session_that_failed_validation_has_no_percentiles() {
    // Its slots hold scores that no session can have.
    let table =
        scores(&[TYPICAL, [i16::MAX; 7], [i16::MIN; 7]]).with("ok", BooleanArray::from(vec![true, false, false]));
    let rows = whole(10.0);
    for scope in [ChainScope::PerScale, ChainScope::PerSession] {
        let norms = Norms::of_groups(&[("Total", &rows)]);
        let table = norms.apply(table.clone(), &vec![chain(["Total"]); 3], scope);
        assert_eq!(table.read("acce_percentile"), values([Some(14.0), None, None]));
        assert_eq!(table.read("acce_norm_group"), values([Some("Total"), None, None]));
        assert_eq!(table.read("flexibility_level"), values([Some("low"), None, None]));
        assert_eq!(table.read("used_fallback"), values([Some(false), None, None]));
        assert_eq!(table.read("truncated_scales"), [Value::List(Vec::new()), Value::Null, Value::Null]);
    }
}
