#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn edited(from: &str, to: &str) -> String {
    assert!(KLSI4.contains(from), "{from}");
    KLSI4.replacen(from, to, 1)
}

fn problems(text: &str) -> Vec<String> {
    match Instrument::parse(text, "test") {
        Err(InstrumentError::Invalid { problems, .. }) => problems.iter().map(Problem::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_built_in_instrument_is_valid() {
    let klsi = Instrument::parse(KLSI4, "klsi-4.0").unwrap();
    assert_eq!(klsi.id, "klsi-4.0");
    assert_eq!((klsi.style_items, klsi.contexts.len()), (12, 8));
    assert_eq!(klsi.lfi_denominator(), 320);
    assert_eq!(klsi.raw_range(Scale::Ce), RawRange { lowest: 12, highest: 48 });
    assert_eq!(klsi.raw_range(Scale::Aero), RawRange { lowest: -36, highest: 36 });
    assert_eq!(klsi.digest(), Instrument::klsi4().digest());
}

#[test]
fn the_style_grid_is_the_published_one() {
    let klsi = Instrument::klsi4();
    let expected = [
        (5, 0, "imagining"),
        (5, 1, "experiencing"),
        (5, 12, "initiating"),
        (6, 0, "reflecting"),
        (14, 11, "balancing"),
        (14, 12, "acting"),
        (15, 0, "analyzing"),
        (15, 11, "thinking"),
        (15, 12, "deciding"),
    ];
    for (acce, aero, style) in expected {
        assert_eq!(klsi.style_names[klsi.style_of(acce, aero) as usize], style, "ACCE {acce}, AERO {aero}");
    }
}

#[test]
fn the_backup_style_is_the_nearest_other_window_and_ties_go_by_name() {
    let klsi = Instrument::klsi4();
    let backup = |acce, aero| klsi.style_names[klsi.backup_style_of(acce, aero) as usize].as_str();
    assert_eq!(backup(17, -23), "reflecting", "ACCE 17 is 3 above the middle, AERO far below");
    assert_eq!(backup(6, 6), "experiencing", "one step from the lower ACCE window");
    assert_eq!(backup(10, 1), "reflecting", "one step from the lower AERO window");
    assert_eq!(backup(6, 1), "experiencing", "experiencing and reflecting are both one step away");
}

#[test]
fn every_pair_of_scores_has_a_style_and_another_backup_style() {
    let klsi = Instrument::klsi4();
    for acce in -36..=36 {
        for aero in -36..=36 {
            let (own, backup) = (klsi.style_of(acce, aero), klsi.backup_style_of(acce, aero));
            assert!(own < 9 && backup < 9 && own != backup, "ACCE {acce}, AERO {aero}");
        }
    }
}

#[test]
fn ages_fall_into_the_published_bands() {
    let klsi = Instrument::klsi4();
    let band = |years| klsi.age_bands[klsi.age_band_of(years)].name.as_str();
    assert_eq!([band(0), band(18), band(19), band(24), band(25)], ["<19", "<19", "19-24", "19-24", "25-34"]);
    assert_eq!([band(64), band(65), band(120)], ["55-64", ">64", ">64"]);
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let error = Instrument::parse(&edited("acce = 9", "acce = 9\nmedian = 1"), "my.toml").unwrap_err();
    let text = error.to_string();
    assert!(text.contains("my.toml") && text.contains("unknown field `median`"), "{text}");
}

#[test]
fn a_key_that_names_a_missing_item_is_refused_by_name() {
    assert_eq!(problems(&edited("ce = [1, 2", "ce = [13, 2")), ["items.key.ce: names item 13; the items are 1 to 12"]);
    assert_eq!(problems(&edited("ce = [1, 2", "ce = [2, 2")), ["items.key.ce: names an item more than once"]);
}

#[test]
fn a_ranking_without_a_region_is_named() {
    assert_eq!(
        problems(&edited("\"4312\", \"4213\"", "\"4312\"")),
        ["flexibility.regions: no style has the ranking 4213"]
    );
}

#[test]
fn all_problems_are_listed_at_once() {
    let text = edited("acce_middle = [6, 14]", "acce_middle = [14, 6]").replacen("0.05", "1.5", 1);
    assert_eq!(
        problems(&text),
        ["styles.acce_middle: must ascend, is 14 to 6", "flags.low_w_below: must be from 0 to 1, is 1.5"]
    );
}
