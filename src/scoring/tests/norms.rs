//! Norms for tests: as rows of a file, which the reference reads, and as the dense arrays that the kernel indexes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, StringArray};
use arrow::datatypes::Float64Type;
use proptest::prelude::*;

use crate::instrument::Instrument;
use crate::model::keyed_norms::{ChainGroup, KeyedNorms, PercentileDictionary};
use crate::model::norm::{ChainScope, DenseNorms, GroupId, GroupNorms, PUBLISHED, PUBLISHED_ID, RawRange};
use crate::model::{PerScale, Scale};
use crate::scoring::tests::reference::NormRows;
use crate::scoring::tests::table::Table;
use crate::scoring::{ChainLink, NO_GROUP, PercentileInputs, Percentiles};

type Rows = BTreeMap<(Scale, i64), f64>;

/// A raw score of a scale and its percentile.
pub(super) type NormRow = (Scale, i64, f64);

/// The rows of a norm table, each chain's group names, and what the kernel needs of both.
pub(super) struct Norms {
    pub(super) rows: NormRows,
    published: KeyedNorms,
    /// Every group by name; the id of the group at `index` is `index + 1`. Its keys are of a dictionary of its own, and begin where
    /// that of its percentiles lies in `percentiles`.
    groups: Vec<(String, ChainGroup)>,
    percentiles: ArrayRef,
}

impl Norms {
    pub(super) fn new(rows: NormRows) -> Norms {
        let ranges = Instrument::klsi4().raw_ranges();
        let published =
            GroupNorms { scales: PerScale::from_fn(|scale| published_scale(&rows.published[&scale], ranges[scale])) };
        let mut percentiles = Vec::new();
        let mut keyed = |norms: &GroupNorms| {
            let dictionary: Arc<PercentileDictionary> = Arc::default();
            let norms = KeyedNorms::try_new(norms, &dictionary).expect("there is room");
            let first_key = percentiles.len() as u32;
            percentiles.extend_from_slice(dictionary.array().as_primitive::<Float64Type>().values());
            (first_key, norms)
        };
        let (_, published) = keyed(&published);
        let group = |(at, (name, rows)): (usize, (&String, &Rows))| {
            let (first_key, norms) = keyed(&dense(rows));
            (name.clone(), ChainGroup { id: at as GroupId + 1, first_key, norms: Arc::new(norms) })
        };
        let groups = rows.groups.iter().enumerate().map(group).collect();
        Norms { rows, published, groups, percentiles: Arc::new(Float64Array::from(percentiles)) }
    }

    /// Norms of groups named in full; the published table says 50 to everything.
    pub(super) fn of_groups(groups: &[(&str, &[NormRow])]) -> Norms {
        let rows = |rows: &[NormRow]| rows.iter().map(|&(scale, raw, p)| ((scale, raw), p)).collect();
        let published = Scale::ALL.into_iter().map(|scale| (scale, BTreeMap::from([(0, 50.0)])));
        Norms::new(NormRows {
            groups: groups.iter().map(|(name, norms)| ((*name).to_owned(), rows(norms))).collect(),
            published: published.collect(),
        })
    }

    /// Applies the percentile stage; a session's chain has one entry per link, `None` where its attribute is null.
    pub(super) fn apply(&self, table: Table, chains: &[Vec<Option<String>>], scope: ChainScope) -> Table {
        let links = chains.first().map_or(0, Vec::len);
        let id = |name: &str| self.groups.iter().position(|(known, _)| known == name);
        // The groups of a link in the order in which its rows first name them, with or without norms.
        let links: Vec<_> = (0..links)
            .map(|link| {
                let mut names: Vec<&str> = Vec::new();
                let of_row = chains.iter().map(|chain| match &chain[link] {
                    None => NO_GROUP,
                    Some(name) => match names.iter().position(|known| known == name) {
                        Some(index) => index as u32,
                        None => {
                            names.push(name);
                            names.len() as u32 - 1
                        }
                    },
                });
                let group_of_row: Vec<u32> = of_row.collect();
                let norms = |name: &&str| id(name).map(|at| self.groups[at].1.clone());
                (names.iter().map(norms).collect::<Vec<_>>(), group_of_row)
            })
            .collect();
        let chain: Vec<ChainLink<'_>> =
            links.iter().map(|(groups, group_of_row)| ChainLink { groups, group_of_row }).collect();
        let names = std::iter::once(PUBLISHED).chain(self.groups.iter().map(|(name, _)| name.as_str()));
        let group_names: ArrayRef = Arc::new(StringArray::from_iter_values(names));
        assert_eq!(PUBLISHED_ID, 0);
        let (published, percentiles) = (&self.published, &self.percentiles);
        let inputs = PercentileInputs { chain: &chain, scope, published, percentiles, group_names: &group_names };
        table.apply_percentiles(&Percentiles::new(&Instrument::klsi4()), inputs)
    }
}

fn dense(rows: &Rows) -> GroupNorms {
    let scales = PerScale::from_fn(|scale| {
        let own: BTreeMap<i64, f64> =
            rows.iter().filter(|((s, _), _)| *s == scale).map(|((_, r), p)| (*r, *p)).collect();
        let (Some(first), Some(last)) = (own.keys().next(), own.keys().next_back()) else {
            return DenseNorms::default();
        };
        let percentiles = (*first..=*last).map(|raw| own.get(&raw).copied().unwrap_or(f64::NAN)).collect();
        DenseNorms { lowest: *first as i32, percentiles }
    });
    GroupNorms { scales }
}

fn published_scale(rows: &BTreeMap<i64, f64>, range: RawRange) -> DenseNorms {
    let answer = |raw: i32| {
        let lower = rows.iter().rev().find(|(entry, _)| **entry <= i64::from(raw));
        *lower.or(rows.iter().next()).expect("a published scale has entries").1
    };
    DenseNorms { lowest: range.lowest, percentiles: (range.lowest..=range.highest).map(answer).collect() }
}

/// Names that sessions may carry; the last has no norms.
pub(super) const NAMES: [&str; 7] = ["EDU:a", "EDU:b", "COUNTRY:a", "COUNTRY:b", "AGE:a", "Total", "EDU:unknown"];

/// Random norms: each group holds all, some or none of the raw scores of a scale; percentiles lie often on a tertile.
pub(super) fn norm_rows() -> impl Strategy<Value = NormRows> {
    let group = || (any::<u64>(), prop::array::uniform7(0u64..=4));
    (prop::array::uniform6(group()), any::<u64>()).prop_map(|(groups, published)| NormRows {
        groups: NAMES
            .iter()
            .zip(groups)
            .map(|(name, (seed, quarters))| ((*name).to_owned(), rows(seed, quarters)))
            .collect(),
        published: Scale::ALL
            .into_iter()
            .map(|scale| {
                let rows = rows(published, [2; 7]).into_iter().filter(|((of, _), _)| *of == scale);
                let held = rows.map(|((_, raw), percentile)| (raw, percentile));
                (scale, held.chain([(if scale == Scale::Lfi { 40 } else { 20 }, 12.5)]).collect())
            })
            .collect(),
    })
}

/// Rows that hold about so many quarters of each scale's raw scores.
fn rows(seed: u64, quarters: [u64; 7]) -> Rows {
    let ranges = Instrument::klsi4().raw_ranges();
    let mut rows = Rows::new();
    for (scale, quarters) in Scale::ALL.into_iter().zip(quarters) {
        for raw in ranges[scale].lowest..=ranges[scale].highest {
            let dice = mix(seed ^ mix((scale as u64) << 32 ^ raw as u64));
            if dice % 4 < quarters {
                let percentile = match dice >> 8 & 7 {
                    0 => 33.34,
                    1 => 66.67,
                    _ => (dice >> 16 & 0x3ff) as f64 / 10.24,
                };
                rows.insert((scale, i64::from(raw)), percentile);
            }
        }
    }
    rows
}

/// The finaliser of SplitMix64.
fn mix(seed: u64) -> u64 {
    let z = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// The chain of one session: EDU, COUNTRY, AGE, Total, each of which may be absent.
pub(super) fn chain() -> impl Strategy<Value = Vec<Option<String>>> {
    let link = |names: &[&'static str]| {
        prop::option::weighted(0.7, prop::sample::select(names.to_vec()).prop_map(str::to_owned))
    };
    let [edu_a, edu_b, country_a, country_b, age, total, unknown] = NAMES;
    (link(&[edu_a, edu_b, unknown]), link(&[country_a, country_b]), link(&[age]), link(&[total]))
        .prop_map(|(edu, country, age, total)| vec![edu, country, age, total])
}
