//! Generated norm tables: order, shape, and agreement with generated sessions.

use std::collections::{BTreeSet, HashMap};

use arrow::datatypes::{Float64Type, Int32Type};

use super::*;
use crate::model::norm::NORM_SCHEMA;

fn norms(options: NormOptions) -> RecordBatch {
    let generator = NormGenerator::new(options);
    let batches: Vec<_> = generator.batches().collect::<Result<_, _>>().unwrap();
    concat_batches(&NORM_SCHEMA, &batches).unwrap()
}

/// Key of a norm table's row, in the order of the table.
type NormKey = (String, String, String, i32);

fn norm_rows(batch: &RecordBatch) -> Vec<(NormKey, f64, i64)> {
    let (groups, versions, scales) =
        (strings(batch, "norm_group"), strings(batch, "norm_version"), strings(batch, "scale"));
    let raws = column(batch, "raw_score").as_primitive::<Int32Type>();
    let percentiles = column(batch, "percentile").as_primitive::<Float64Type>();
    let frequencies = integers(batch, "frequency");
    (0..batch.num_rows())
        .map(|row| {
            let text = |column: &[Option<String>]| column[row].clone().unwrap();
            let key = (text(&groups), text(&versions), text(&scales), raws.value(row));
            (key, percentiles.value(row), frequencies[row])
        })
        .collect()
}

#[test]
fn norm_tables_are_sorted_unique_rising_and_end_at_100() {
    let rows = norm_rows(&norms(NormOptions { groups: 300, ..NormOptions::default() }));
    for pair in rows.windows(2) {
        let [(key, percentile, _), (next, next_percentile, _)] = pair else { unreachable!() };
        assert!(key < next, "{key:?} {next:?}");
        if (&key.0, &key.2) == (&next.0, &next.2) {
            assert!(percentile <= next_percentile, "{key:?} {next:?}");
            assert!(next.2 == "LFI" || next.3 == key.3 + 1, "a gap after {key:?}");
        } else {
            assert_eq!(*percentile, 100.0, "{key:?}");
        }
    }
    for (key, percentile, frequency) in &rows {
        assert_eq!(key.1, "default");
        assert!((0.0..=100.0).contains(percentile) && *frequency > 0, "{key:?}");
        assert_eq!(*percentile, format!("{percentile:.1}").parse::<f64>().unwrap(), "{key:?} to one decimal");
        let range = match key.2.as_str() {
            "LFI" => 0..=320,
            "ACCE" | "AERO" => -36..=36,
            _ => 12..=48,
        };
        assert!(range.contains(&key.3) && (key.2 != "LFI" || key.3 % 2 == 0), "{key:?}");
    }
    let scales: BTreeSet<_> = rows.iter().map(|(key, ..)| (&key.0, &key.2)).collect();
    assert_eq!(scales.len(), 300 * 7, "every group has all scales");
}

#[test]
fn groups_are_the_values_of_the_attributes_then_synthetic_countries() {
    let tokens = |groups| {
        let rows = norm_rows(&norms(NormOptions { groups, ..NormOptions::default() }));
        rows.into_iter().map(|(key, ..)| key.0).collect::<BTreeSet<_>>()
    };
    assert_eq!(NAMED_GROUPS, 28);
    let named = tokens(NAMED_GROUPS);
    for token in ["EDU:Primary School", "EDU:Doctoral Degree", "COUNTRY:Spain", "AGE:<19", "AGE:>64", "GENDER:Other"] {
        assert!(named.contains(token), "{token}");
    }
    let more: Vec<_> = tokens(NAMED_GROUPS + 2).difference(&named).cloned().collect();
    assert_eq!(more, ["COUNTRY:Country 0001", "COUNTRY:Country 0002"]);
}

#[test]
fn a_groups_norms_depend_on_seed_and_group_alone() {
    let rows = |groups, seed, batch_rows| {
        let batch_rows = NonZeroUsize::new(batch_rows).unwrap();
        norm_rows(&norms(NormOptions { groups, seed, batch_rows }))
    };
    let of_group = |rows: &[(NormKey, f64, i64)], group: &str| {
        rows.iter().filter(|row| row.0.0 == group).cloned().collect::<Vec<_>>()
    };
    let (few, many) = (rows(40, 1, 8192), rows(200, 1, 1));
    for group in ["AGE:<19", "COUNTRY:Country 0012", "EDU:Master's Degree"] {
        assert_eq!(of_group(&few, group), of_group(&many, group));
        assert!(!of_group(&few, group).is_empty());
    }
    assert_eq!(few, rows(40, 1, 100_000));
    assert_ne!(few, rows(40, 2, 8192));
}

#[test]
fn fourteen_hundred_groups_have_about_half_a_million_rows() {
    let generator = NormGenerator::new(NormOptions { groups: 1_400, ..NormOptions::default() });
    let rows: usize = generator.batches().map(|batch| batch.unwrap().num_rows()).sum();
    assert!((490_000..530_000).contains(&rows), "{rows} rows");
    let largest = generator.batches().map(|batch| batch.unwrap().num_rows()).max().unwrap();
    assert!(largest < 10_000, "{largest} rows in a batch");
}

#[test]
fn some_groups_lack_extreme_scores_and_group_medians_differ() {
    let rows = norm_rows(&norms(NormOptions { groups: 100, ..NormOptions::default() }));
    let of_scale = |scale: &str| rows.iter().filter(move |row| row.0.2 == scale).collect::<Vec<_>>();
    let groups_with = |scale: &str, raw: i32| of_scale(scale).iter().filter(|row| row.0.3 == raw).count();
    assert_eq!(groups_with("AERO", 6), 100);
    let extreme = groups_with("AERO", 33);
    assert!((1..99).contains(&extreme), "{extreme} of 100 groups hold an AERO of 33");
    let medians: BTreeSet<i32> = rows
        .windows(2)
        .filter(|pair| pair[1].0.2 == "ACCE" && pair[0].1 < 50.0 && pair[1].1 >= 50.0)
        .map(|pair| pair[1].0.3)
        .collect();
    assert!(medians.len() >= 4, "medians of ACCE: {medians:?}");
}

#[test]
fn group_percentiles_of_the_sessions_spread_evenly() {
    let table: HashMap<NormKey, f64> =
        norm_rows(&norms(NormOptions::default())).into_iter().map(|(key, percentile, _)| (key, percentile)).collect();
    let batch = sessions(options(20_000, Layout::Packed));
    let education = strings(&batch, "education_level");
    let scores = raw_scores(&batch);
    for scale in Scale::ALL {
        let percentiles = scores.iter().zip(&education).filter_map(|(scores, level)| {
            let group = format!("EDU:{}", level.as_ref()?);
            table.get(&(group, "default".to_owned(), scale.code().to_owned(), scores[scale] as i32)).copied()
        });
        let (mean, deviation) = mean_and_deviation(percentiles);
        assert!((44.0..58.0).contains(&mean), "mean percentile of {scale}: {mean}");
        assert!((25.0..32.0).contains(&deviation), "deviation of the percentiles of {scale}: {deviation}");
    }
}
