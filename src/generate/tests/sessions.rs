//! Generated sessions: what holds for every seed, and how layouts, faults and distributions relate.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU64;

use arrow::array::Array;
use arrow::datatypes::{Date32Type, Int16Type};

use super::*;
use crate::model::Mode;
use crate::model::permutation::code_of;
use crate::model::session::wide_column;

/// A session's ranks by item: `None` for null.
type Ranks = BTreeMap<Item, [Option<u8>; 4]>;

fn wide_ranks(batch: &RecordBatch) -> Vec<Ranks> {
    let mut all = vec![Ranks::new(); batch.num_rows()];
    for (part, item) in items(12, 8) {
        let columns = Mode::ALL.map(|mode| bytes(batch, &wide_column(part, item, mode)));
        for (row, ranks) in all.iter_mut().enumerate() {
            ranks.insert((part, item), std::array::from_fn(|mode| columns[mode][row]));
        }
    }
    all
}

/// The rows of each session of the long layout: item, mode and rank.
fn long_rows(batch: &RecordBatch) -> BTreeMap<i64, Vec<(Item, String, Option<u8>)>> {
    let mut all: BTreeMap<i64, Vec<_>> = BTreeMap::new();
    let parts = strings(batch, "part");
    let numbers = column(batch, "item").as_primitive::<Int16Type>();
    let modes = strings(batch, "mode");
    let ranks = bytes(batch, "rank");
    for (row, id) in integers(batch, "session_id").into_iter().enumerate() {
        let part = if parts[row].as_deref() == Some("style") { Part::Style } else { Part::Context };
        let item = (part, numbers.value(row) as usize);
        all.entry(id).or_default().push((item, modes[row].clone().unwrap(), ranks[row]));
    }
    all
}

fn is_permutation(ranks: &[Option<u8>; 4]) -> bool {
    code_of(ranks.map(Option::unwrap_or_default)).is_some()
}

/// What a wide item has wrong, by the code that scoring gives it.
fn wide_fault(ranks: &[Option<u8>; 4]) -> Option<&'static str> {
    if ranks.contains(&None) {
        Some("missing_rank")
    } else if ranks.iter().flatten().any(|rank| !(1..=4).contains(rank)) {
        Some("rank_out_of_range")
    } else if !is_permutation(ranks) {
        Some("not_a_permutation")
    } else {
        None
    }
}

#[test]
fn a_seed_gives_the_same_sessions_always_and_another_seed_others() {
    let of_seed = |seed| sessions(SessionOptions { seed, bad_fraction: 0.1, ..options(500, Layout::Wide) });
    assert_eq!(of_seed(7), of_seed(7));
    assert_ne!(of_seed(7), of_seed(8));
}

#[test]
fn the_first_sessions_of_seed_1_never_change() {
    let batch = sessions(options(3, Layout::Packed));
    let codes: Vec<Vec<_>> =
        packed_codes(&batch).iter().map(|codes| codes.values().map(|code| code.unwrap()).collect()).collect();
    assert_eq!(
        codes,
        [
            [14, 20, 12, 14, 20, 12, 13, 18, 13, 20, 6, 18, 16, 20, 17, 19, 18, 6, 12, 19],
            [0, 11, 6, 8, 8, 8, 4, 6, 2, 4, 0, 10, 1, 2, 3, 6, 12, 2, 0, 2],
            [13, 12, 14, 8, 11, 2, 7, 12, 6, 4, 2, 4, 19, 14, 17, 4, 0, 18, 9, 16],
        ]
    );
    assert_eq!(integers(&batch, "user_id"), [1, 2, 3]);
}

#[test]
fn a_file_begins_with_every_shorter_file_of_its_seed() {
    for layout in [Layout::Wide, Layout::Packed, Layout::Long] {
        let of_rows = |rows| sessions(SessionOptions { bad_fraction: 0.2, ..options(rows, layout) });
        let (short, long) = (of_rows(300), of_rows(9_000));
        assert_eq!(short, long.slice(0, short.num_rows()), "{layout}");
    }
}

#[test]
fn a_file_that_goes_on_from_a_later_id_is_the_rest_of_the_whole() {
    let base = SessionOptions { bad_fraction: 0.2, ..options(1_000, Layout::Wide) };
    let rest = sessions(SessionOptions { first_session_id: 401, rows: 600, ..base.clone() });
    assert_eq!(sessions(base).slice(400, 600), rest);
}

#[test]
fn batch_size_and_order_of_generation_change_nothing() {
    for layout in [Layout::Wide, Layout::Packed, Layout::Long] {
        let base = SessionOptions { bad_fraction: 0.2, ..options(1_000, layout) };
        let small = generator(SessionOptions { batch_rows: NonZeroUsize::new(333).unwrap(), ..base.clone() });
        let mut backwards: Vec<_> = (0..small.batch_count()).rev().map(|index| small.batch(index).unwrap()).collect();
        backwards.reverse();
        assert_eq!(concat_batches(&small.schema(), &backwards).unwrap(), sessions(base), "{layout}");
    }
}

#[test]
fn batches_have_the_rows_asked_for_and_none_follow_the_last() {
    let wide = generator(options(20_000, Layout::Wide));
    let rows: Vec<_> = wide.batches().map(|batch| batch.unwrap().num_rows()).collect();
    assert_eq!(rows, [8192, 8192, 3616]);
    assert_eq!(wide.batch(3).unwrap().num_rows(), 0);
    assert_eq!(wide.batch(u64::MAX).unwrap().num_rows(), 0);

    let long = generator(options(250, Layout::Long));
    let rows: Vec<_> = long.batches().map(|batch| batch.unwrap().num_rows()).collect();
    assert_eq!(rows, [102 * 80, 102 * 80, 46 * 80]);

    assert_eq!(generator(options(0, Layout::Wide)).batch_count(), 0);
}

#[test]
fn good_sessions_are_the_same_in_every_layout() {
    let wide = wide_ranks(&sessions(options(2_000, Layout::Wide)));
    let packed = packed_codes(&sessions(options(2_000, Layout::Packed)));
    let long = long_rows(&sessions(options(2_000, Layout::Long)));
    for (row, ranks) in wide.iter().enumerate() {
        let unpacked: Ranks =
            packed[row].iter().map(|(item, code)| (*item, RANKS[usize::from(code.unwrap())].map(Some))).collect();
        assert_eq!(*ranks, unpacked);
        let rows = ranks.iter().flat_map(|(&item, ranks)| {
            Mode::ALL.into_iter().zip(*ranks).map(move |(mode, rank)| (item, mode.code().to_owned(), rank))
        });
        assert_eq!(long[&(row as i64 + 1)], rows.collect::<Vec<_>>());
    }
}

#[test]
fn attributes_are_the_same_in_every_layout() {
    let attributes = |layout| {
        let options = SessionOptions { team_id: true, countries: 20, bad_fraction: 0.1, ..options(5_000, layout) };
        generator(options)
    };
    let of_long = whole(&attributes(Layout::Long).attributes());
    for layout in [Layout::Wide, Layout::Packed] {
        let table = whole(&attributes(layout));
        let leading: Vec<_> = (0..of_long.num_columns()).collect();
        assert_eq!(table.project(&leading).unwrap(), of_long, "{layout}");
    }
    let schema = of_long.schema();
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(
        names,
        ["session_id", "user_id", "completed_at", "education_level", "country", "date_of_birth", "gender", "team_id"]
    );
}

#[test]
fn bad_sessions_are_bad_in_every_layout_and_in_one_item_only() {
    let of_layout = |layout| sessions(SessionOptions { bad_fraction: 0.3, ..options(3_000, layout) });
    let good = wide_ranks(&sessions(options(3_000, Layout::Wide)));
    let wide = wide_ranks(&of_layout(Layout::Wide));
    let packed = packed_codes(&of_layout(Layout::Packed));
    let long = long_rows(&of_layout(Layout::Long));
    let mut bad = 0;
    for (row, ranks) in wide.iter().enumerate() {
        let spoilt: Vec<Item> =
            ranks.iter().filter(|(_, ranks)| wide_fault(ranks).is_some()).map(|(item, _)| *item).collect();
        let out_of_code: Vec<Item> =
            packed[row].iter().filter(|(_, code)| code.is_none_or(|code| code >= 24)).map(|(item, _)| *item).collect();
        assert_eq!(spoilt, out_of_code);
        assert!(spoilt.len() <= 1);
        let complete: Vec<_> = good[row]
            .iter()
            .flat_map(|(&item, ranks)| {
                Mode::ALL.into_iter().zip(*ranks).map(move |(mode, rank)| (item, mode.code().to_owned(), rank))
            })
            .collect();
        let rows = &long[&(row as i64 + 1)];
        assert_eq!(*rows == complete, spoilt.is_empty());
        // Items that are not spoilt are as they would be in a session without a fault.
        for (item, ranks) in ranks.iter().filter(|(item, _)| !spoilt.contains(item)) {
            assert_eq!(ranks, &good[row][item]);
        }
        bad += spoilt.len();
    }
    assert!((800..1_000).contains(&bad), "{bad} of 3000 sessions are bad");
}

#[test]
fn as_many_sessions_are_bad_as_the_fraction_says() {
    let bad = |bad_fraction: f64| {
        let batch = sessions(SessionOptions { bad_fraction, ..options(50_000, Layout::Packed) });
        let invalid =
            |codes: &&BTreeMap<Item, Option<u8>>| codes.values().any(|code| code.is_none_or(|code| code > 23));
        packed_codes(&batch).iter().filter(invalid).count() as f64
    };
    assert_eq!(bad(0.0), 0.0);
    assert_eq!(bad(1.0), 50_000.0);
    for fraction in [0.001_f64, 0.028, 0.5] {
        let (mean, deviation) = (50_000.0 * fraction, (50_000.0 * fraction * (1.0 - fraction)).sqrt());
        assert!((bad(fraction) - mean).abs() < 4.0 * deviation, "{fraction}: {} bad", bad(fraction));
    }
}

#[test]
fn each_fault_of_each_layout_occurs_in_style_items_and_in_contexts() {
    let of_layout = |layout| sessions(SessionOptions { bad_fraction: 1.0, ..options(3_000, layout) });
    let parts = |part: &str, names: &[&str]| names.iter().map(|name| format!("{part}: {name}")).collect::<Vec<_>>();
    let both = |names: &[&str]| [parts("context", names), parts("style", names)].concat().into_iter().collect();

    let mut wide = BTreeSet::new();
    let mut wide_values = BTreeSet::new();
    for ranks in wide_ranks(&of_layout(Layout::Wide)) {
        for ((part, _), ranks) in &ranks {
            wide.extend(wide_fault(ranks).map(|fault| format!("{}: {fault}", part.name())));
            wide_values.extend(ranks);
        }
    }
    assert_eq!(wide, both(&["missing_rank", "not_a_permutation", "rank_out_of_range"]));
    assert_eq!(wide_values, BTreeSet::from([None, Some(0), Some(1), Some(2), Some(3), Some(4), Some(5), Some(7)]));

    let mut packed = BTreeSet::new();
    for codes in packed_codes(&of_layout(Layout::Packed)) {
        packed.extend(codes.into_values().filter(|code| code.is_none_or(|code| code > 23)));
    }
    assert_eq!(packed, BTreeSet::from([None, Some(24), Some(29), Some(31), Some(255)]));

    let mut long = BTreeSet::new();
    for rows in long_rows(&of_layout(Layout::Long)).into_values() {
        let mut by_item: BTreeMap<Item, HashMap<String, Vec<Option<u8>>>> = BTreeMap::new();
        for (item, mode, rank) in rows {
            by_item.entry(item).or_default().entry(mode).or_default().push(rank);
        }
        for ((part, item), modes) in by_item {
            let ranks = Mode::ALL.map(|mode| modes.get(mode.code()).map(|ranks| ranks[0]));
            let fault = if item > if part == Part::Style { 12 } else { 8 } {
                Some("unknown_item")
            } else if modes.contains_key("XX") {
                Some("unknown_mode")
            } else if modes.values().any(|ranks| ranks.len() > 1) {
                Some("duplicate_rank")
            } else if ranks.contains(&None) {
                Some("absent_row")
            } else {
                wide_fault(&ranks.map(Option::unwrap))
            };
            long.extend(fault.map(|fault| format!("{}: {fault}", part.name())));
        }
    }
    let faults = [
        "absent_row",
        "duplicate_rank",
        "missing_rank",
        "not_a_permutation",
        "rank_out_of_range",
        "unknown_item",
        "unknown_mode",
    ];
    assert_eq!(long, both(&faults));
}

#[test]
fn raw_scores_have_the_means_and_deviations_aimed_at() {
    for seed in [1, 2] {
        let scores = raw_scores(&sessions(SessionOptions { seed, ..options(50_000, Layout::Packed) }));
        for (scale, aim) in AIMS.iter() {
            let (mean, deviation) = mean_and_deviation(scores.iter().map(|scores| scores[scale]));
            assert!((mean - aim.mean).abs() < 0.03 * aim.deviation, "{scale}: mean {mean}");
            assert!((deviation / aim.deviation - 1.0).abs() < 0.03, "{scale}: deviation {deviation}");
        }
    }
}

#[test]
fn attributes_shift_the_means_as_groups_differ() {
    let batch = sessions(options(50_000, Layout::Packed));
    let scores = raw_scores(&batch);
    let mean = |attribute: &str, value: &str, scale: Scale| {
        let values = strings(&batch, attribute);
        let members = scores.iter().zip(values).filter(|(_, group)| group.as_deref() == Some(value));
        let (mean, _) = mean_and_deviation(members.map(|(scores, _)| scores[scale]).collect::<Vec<_>>().into_iter());
        mean
    };
    let difference = |attribute, one, other, scale| mean(attribute, one, scale) - mean(attribute, other, scale);
    let women_less_men = difference("gender", "Female", "Male", Scale::Acce);
    assert!((-5.2..-4.0).contains(&women_less_men), "ACCE of women less men: {women_less_men}");
    let schooling = difference("education_level", "Doctoral Degree", "Secondary School", Scale::Acce);
    assert!((2.8..4.4).contains(&schooling), "ACCE of doctors less pupils: {schooling}");
}

#[test]
fn respondents_come_back_with_the_same_attributes() {
    let batch = sessions(options(20_000, Layout::Packed));
    let users = integers(&batch, "user_id");
    let education = strings(&batch, "education_level");
    let country = strings(&batch, "country");
    let gender = strings(&batch, "gender");
    let born = column(&batch, "date_of_birth").as_primitive::<Date32Type>();
    let mut seen = HashMap::new();
    for (row, &user) in users.iter().enumerate() {
        let respondent = (&education[row], &country[row], &gender[row], born.is_valid(row).then(|| born.value(row)));
        assert_eq!(*seen.entry(user).or_insert(respondent), respondent, "user {user}");
    }
    assert!((9_800..10_200).contains(&seen.len()), "{} respondents", seen.len());

    let fixed = Respondents::Fixed(NonZeroU64::new(50).unwrap());
    let few = sessions(SessionOptions { respondents: fixed, ..options(2_000, Layout::Packed) });
    let users: BTreeSet<_> = integers(&few, "user_id").into_iter().collect();
    assert_eq!(users, (1..=50).collect());
}

#[test]
fn a_respondents_sessions_resemble_each_other() {
    let batch = sessions(options(50_000, Layout::Packed));
    let mut by_user: HashMap<i64, Vec<f64>> = HashMap::new();
    for (user, scores) in integers(&batch, "user_id").into_iter().zip(raw_scores(&batch)) {
        by_user.entry(user).or_default().push(scores[Scale::Acce]);
    }
    let pairs: Vec<_> =
        by_user.values().filter(|scores| scores.len() > 1).map(|scores| (scores[0], scores[1])).collect();
    let (x, dx) = mean_and_deviation(pairs.iter().map(|pair| pair.0));
    let (y, dy) = mean_and_deviation(pairs.iter().map(|pair| pair.1));
    let covariance = pairs.iter().map(|pair| (pair.0 - x) * (pair.1 - y)).sum::<f64>() / pairs.len() as f64;
    let correlation = covariance / (dx * dy);
    assert!((0.5..0.75).contains(&correlation), "test-retest correlation of ACCE: {correlation}");
}

#[test]
fn attributes_are_null_and_spread_as_in_the_golden_file() {
    let batch = sessions(options(50_000, Layout::Packed));
    let share = |name: &str, value: Option<&str>| {
        let matching = strings(&batch, name).iter().filter(|found| found.as_deref() == value).count();
        matching as f64 / 50_000.0
    };
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 0.012, "{found} is not near {expected}");
    near(share("education_level", None), 0.05);
    near(share("education_level", Some("University Degree")), 0.465);
    near(share("education_level", Some("Primary School")), 0.02);
    near(share("country", None), 0.05);
    near(share("country", Some("Canada")), 0.95 / 12.0);
    near(share("gender", None), 0.025);
    near(share("gender", Some("Female")), 0.54);
    near(column(&batch, "date_of_birth").null_count() as f64 / 50_000.0, 0.05);
    let distinct = |name: &str| strings(&batch, name).into_iter().flatten().collect::<BTreeSet<_>>().len();
    assert_eq!((distinct("education_level"), distinct("country"), distinct("gender")), (5, 12, 4));
    let born = column(&batch, "date_of_birth").as_primitive::<Date32Type>();
    let (first, last) = (born.iter().flatten().min().unwrap(), born.iter().flatten().max().unwrap());
    // 1950-01-01 is day -7305, 2009-12-31 day 14609.
    assert!((-7305..-7200).contains(&first) && (14_500..=14_609).contains(&last), "{first} to {last}");
}

#[test]
fn sessions_go_through_all_synthetic_countries_and_the_named_ones() {
    let batch = sessions(SessionOptions { countries: 300, ..options(20_000, Layout::Packed) });
    let countries: BTreeSet<_> = strings(&batch, "country").into_iter().flatten().collect();
    assert_eq!(countries.len(), 312);
    assert!(countries.contains("Country 0001") && countries.contains("Country 0300") && countries.contains("Spain"));
}

#[test]
fn teams_are_eight_respondents() {
    let fixed = Respondents::Fixed(NonZeroU64::new(80).unwrap());
    let batch = sessions(SessionOptions { team_id: true, respondents: fixed, ..options(2_000, Layout::Packed) });
    let mut teams: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
    for (team, user) in integers(&batch, "team_id").into_iter().zip(integers(&batch, "user_id")) {
        teams.entry(team).or_default().insert(user);
    }
    assert_eq!(teams.len(), 10);
    assert_eq!(teams[&1], (1..=8).collect());
    assert!(teams.values().all(|users| users.len() == 8));
}

#[test]
fn options_out_of_bounds_are_refused() {
    let refused = |options| SessionGenerator::new(options).unwrap_err();
    let base = options(10, Layout::Wide);
    let error = refused(SessionOptions { bad_fraction: 1.5, ..base.clone() });
    assert_eq!(error, GenerateError::BadFraction { bad_fraction: 1.5 });
    assert_eq!(error.to_string(), "the fraction of bad sessions is 1.5: give a number from 0 to 1");
    let nan = refused(SessionOptions { bad_fraction: f64::NAN, ..base.clone() });
    assert!(matches!(nan, GenerateError::BadFraction { .. }));
    let zero = refused(SessionOptions { first_session_id: 0, ..base.clone() });
    assert_eq!(zero, GenerateError::SessionIds { first: 0, rows: 10 });
    let past = refused(SessionOptions { first_session_id: i64::MAX as u64, ..base });
    assert_eq!(past, GenerateError::SessionIds { first: i64::MAX as u64, rows: 10 });
}
