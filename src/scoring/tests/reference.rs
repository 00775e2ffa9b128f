//! A scorer written down from the scoring contract, one session at a time, for KLSI 4.0.
//!
//! It shares names with the kernels and nothing else: no tables, no codes, no instrument.

use std::collections::BTreeMap;

use crate::model::norm::ChainScope;
use crate::model::session::items;
use crate::model::{Fault, FaultCode, Layout, Mode, Scale};
use crate::scoring::tests::session::{CONTEXTS, Entry, STYLE_ITEMS, Session};
use crate::scoring::tests::table::Value;

/// Norms as a file lists them.
#[derive(Debug, Clone, Default)]
pub(super) struct NormRows {
    /// Percentiles of each group by scale and raw score.
    pub(super) groups: BTreeMap<String, BTreeMap<(Scale, i64), f64>>,
    /// The published percentiles of each scale by raw score.
    pub(super) published: BTreeMap<Scale, BTreeMap<i64, f64>>,
}

/// The score columns of one session by name; all null when it has a fault.
pub(super) fn score(
    layout: Layout,
    session: &Session,
    chain: &[String],
    scope: ChainScope,
    norms: &NormRows,
) -> BTreeMap<String, Value> {
    let mut row: BTreeMap<String, Value> = BTreeMap::new();
    match ranks_of(layout, session) {
        Ok(ranks) => score_ranks(&ranks, chain, scope, norms, &mut row),
        Err(fault) => {
            row.insert("ok".into(), false.into());
            row.insert("error_stage".into(), "validate".into());
            row.insert("error_code".into(), fault.code.as_str().into());
            row.insert("error".into(), fault.to_string().as_str().into());
        }
    }
    row
}

/// The ranks of each item, or the first fault in checking order.
fn ranks_of(layout: Layout, session: &Session) -> Result<Vec<[i64; 4]>, Fault> {
    let unknown_items = session.row_faults.iter().filter(|fault| fault.code == FaultCode::UnknownItem);
    if let Some(fault) = unknown_items.min_by_key(|fault| fault.item) {
        return Err(*fault);
    }
    let mut ranks = Vec::new();
    for (place, entries) in items(STYLE_ITEMS, CONTEXTS).zip(&session.items) {
        let fault = |code, mode| Fault { code, item: Some(place), mode };
        let of_place = session.row_faults.iter().filter(|fault| fault.item == Some(place));
        let unknown_first = of_place.min_by_key(|fault| (fault.code != FaultCode::UnknownMode, fault.mode));
        if let Some(fault) = unknown_first {
            return Err(*fault);
        }
        let rank_of = |index: usize| if layout == Layout::Packed { None } else { Some(Mode::ALL[index]) };
        if let Some(missing) = entries.iter().position(|entry| *entry == Entry::Missing) {
            return Err(fault(FaultCode::MissingRank, rank_of(missing)));
        }
        let highest = if layout == Layout::Packed { 23 } else { 4 };
        let lowest = if layout == Layout::Packed { 0 } else { 1 };
        let mut numbers = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            match *entry {
                Entry::Number(number) if lowest <= number && number <= highest => numbers.push(number),
                _ => return Err(fault(FaultCode::RankOutOfRange, rank_of(index))),
            }
        }
        if layout == Layout::Packed {
            ranks.push(permutations()[numbers[0] as usize]);
        } else {
            if (1..=4).any(|rank| !numbers.contains(&rank)) {
                return Err(fault(FaultCode::NotAPermutation, None));
            }
            ranks.push([numbers[0], numbers[1], numbers[2], numbers[3]]);
        }
    }
    Ok(ranks)
}

/// The permutations of 1, 2, 3, 4 in lexicographic order.
fn permutations() -> Vec<[i64; 4]> {
    let all = (0..256).map(|n| [1 + n / 64, 1 + n / 16 % 4, 1 + n / 4 % 4, 1 + n % 4]);
    all.filter(|ranks| (1..=4).all(|rank| ranks.contains(&rank))).collect()
}

fn score_ranks(
    ranks: &[[i64; 4]],
    chain: &[String],
    scope: ChainScope,
    norms: &NormRows,
    row: &mut BTreeMap<String, Value>,
) {
    let mut set = |name: &str, value: Value| row.insert(name.to_owned(), value);
    set("ok", true.into());

    let (style_items, contexts) = ranks.split_at(STYLE_ITEMS);
    let sum = |items: &[[i64; 4]], mode: usize| items.iter().map(|ranks| ranks[mode]).sum::<i64>();
    let [ce, ro, ac, ae] = [0, 1, 2, 3].map(|mode| sum(style_items, mode));
    let (acce, aero) = (ac - ce, ae - ro);
    set("ce_raw", ce.into());
    set("ro_raw", ro.into());
    set("ac_raw", ac.into());
    set("ae_raw", ae.into());
    set("acce", acce.into());
    set("aero", aero.into());
    set("assimilation_accommodation", ((ac + ro) - (ae + ce)).into());
    set("converging_diverging", ((ac + ae) - (ce + ro)).into());
    set("balance_acce", (acce - 9).abs().into());
    set("balance_aero", (aero - 6).abs().into());
    set("intensity", (acce.abs() + aero.abs()).into());
    let style = style_of(acce, aero);
    set("style", style.into());
    set("backup_style", backup_style_of(acce, aero).into());

    let s: i64 = (0..4).map(|mode| (sum(contexts, mode) - 20).pow(2)).sum();
    let w = s as f64 / 320.0;
    set("kendall_w", w.into());
    set("lfi", ((320 - s) as f64 / 320.0).into());
    let regions = contexts.iter().map(|ranks| region_of(*ranks).to_owned());
    set("context_styles", Value::List(regions.collect()));

    let raw = [ce, ro, ac, ae, acce, aero, 320 - s];
    let raw: BTreeMap<Scale, i64> = Scale::ALL.into_iter().zip(raw).collect();
    let held = |group: &&String| norms.groups.get(*group);
    let whole = chain
        .iter()
        .find(|group| held(group).is_some_and(|rows| raw.iter().all(|(&s, &raw)| rows.contains_key(&(s, raw)))));
    let mut published = 0;
    for (&scale, &raw) in &raw {
        let group = match scope {
            ChainScope::PerScale => {
                chain.iter().find(|group| held(group).is_some_and(|rows| rows.contains_key(&(scale, raw))))
            }
            ChainScope::PerSession => whole,
        };
        let (percentile, provenance) = match group {
            Some(group) => (norms.groups[group][&(scale, raw)], group.as_str()),
            None => {
                let rows = &norms.published[&scale];
                let lower_or_lowest = rows.range(..=raw).next_back().or(rows.first_key_value());
                (*lower_or_lowest.expect("every scale is published").1, "published")
            }
        };
        published += i32::from(group.is_none());
        set(&format!("{}_percentile", scale.name()), percentile.into());
        set(&format!("{}_norm_group", scale.name()), provenance.into());
        if scale == Scale::Lfi {
            let level = match percentile {
                _ if percentile < 33.34 => "low",
                _ if percentile <= 66.67 => "moderate",
                _ => "high",
            };
            set("flexibility_level", level.into());
        }
    }
    set("used_fallback", (published > 0).into());

    let outside = |raw: i64, lowest: i64, highest: i64| raw < lowest || raw > highest;
    let truncated = [
        ("ce", outside(ce, 11, 44)),
        ("ro", outside(ro, 11, 44)),
        ("ac", outside(ac, 11, 44)),
        ("ae", outside(ae, 11, 44)),
        ("acce", outside(acce, -29, 33)),
        ("aero", outside(aero, -33, 33)),
    ];
    let truncated = names_of(&truncated);
    let truncations = truncated.len();
    set("truncated_scales", Value::List(truncated));

    let alike = |ranks: &[i64; 4]| contexts.iter().filter(|other| *other == ranks).count();
    let flags = [
        ("near_style_boundary", [5, 6, 14, 15].contains(&acce) || [0, 1, 11, 12].contains(&aero)),
        ("low_w", w < 0.05),
        ("high_w", w > 0.95),
        ("repeated_context_pattern", contexts.iter().any(|ranks| alike(ranks) >= 6)),
        ("mixed_provenance", published > 0 && published < 7),
        ("excessive_truncation", truncations >= 2),
    ];
    set("flags", Value::List(names_of(&flags)));
}

fn names_of(named: &[(&str, bool)]) -> Vec<String> {
    named.iter().filter(|(_, holds)| *holds).map(|(name, _)| (*name).to_owned()).collect()
}

const ANY: i64 = 1_000;

/// Each style's windows of ACCE and AERO, both ends included.
pub(super) const WINDOWS: [(&str, [i64; 2], [i64; 2]); 9] = [
    ("imagining", [-ANY, 5], [-ANY, 0]),
    ("experiencing", [-ANY, 5], [1, 11]),
    ("initiating", [-ANY, 5], [12, ANY]),
    ("reflecting", [6, 14], [-ANY, 0]),
    ("balancing", [6, 14], [1, 11]),
    ("acting", [6, 14], [12, ANY]),
    ("analyzing", [15, ANY], [-ANY, 0]),
    ("thinking", [15, ANY], [1, 11]),
    ("deciding", [15, ANY], [12, ANY]),
];

/// How far a score lies outside a window.
fn distance(score: i64, [lowest, highest]: [i64; 2]) -> i64 {
    (lowest - score).max(score - highest).max(0)
}

pub(super) fn style_of(acce: i64, aero: i64) -> &'static str {
    let inside = |(_, a, b): &&(&str, [i64; 2], [i64; 2])| distance(acce, *a) == 0 && distance(aero, *b) == 0;
    WINDOWS.iter().find(inside).expect("the windows cover the plane").0
}

pub(super) fn backup_style_of(acce: i64, aero: i64) -> &'static str {
    let others = WINDOWS.iter().filter(|(name, ..)| *name != style_of(acce, aero));
    others.map(|(name, a, b)| (distance(acce, *a) + distance(aero, *b), *name)).min().expect("eight others").1
}

pub(super) fn region_of([ce, ro, ac, ae]: [i64; 4]) -> &'static str {
    match ce * 1000 + ro * 100 + ac * 10 + ae {
        4312 | 4213 => "experiencing",
        4321 | 3412 => "imagining",
        3421 | 2431 => "reflecting",
        1432 | 2341 => "analyzing",
        1243 | 1342 => "thinking",
        2143 | 1234 => "deciding",
        2134 | 3124 => "acting",
        4123 | 3214 => "initiating",
        4231 | 4132 | 3241 | 3142 | 1423 | 1324 | 2413 | 2314 => "balancing",
        other => panic!("{other} is not a ranking"),
    }
}
