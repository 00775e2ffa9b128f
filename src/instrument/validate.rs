//! Turns a definition into an [`Instrument`], or lists everything that is wrong with it.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use crate::instrument::definition::Definition;
use crate::instrument::{AgeBand, FlagThresholds, Instrument, Problem, StyleId, Window};
use crate::model::norm::RawRange;
use crate::model::{Mode, PerScale, Scale, permutation};

/// How many style items a session may have: a raw score of so many items still fits a byte.
const MOST_ITEMS: usize = 60;
/// How many contexts: a rank sum of so many still fits a byte, and their sum of squares an i16.
const MOST_CONTEXTS: usize = 60;

pub(super) fn validate(definition: &Definition, source: &str) -> Result<Instrument, Vec<Problem>> {
    let mut problems = Problems::default();
    let style_items = definition.items.count;
    problems.require("items.count", (1..=MOST_ITEMS).contains(&style_items), || {
        format!("must be from 1 to {MOST_ITEMS}, is {style_items}")
    });
    let key = scoring_key(definition, &mut problems);
    let style_names = style_names(definition, &mut problems);
    let acce_window = window("styles.acce_middle", definition.styles.acce_middle, &mut problems);
    let aero_window = window("styles.aero_middle", definition.styles.aero_middle, &mut problems);
    let contexts = &definition.flexibility.contexts;
    problems.require("flexibility.contexts", (2..=MOST_CONTEXTS).contains(&contexts.len()), || {
        format!("must name 2 to {MOST_CONTEXTS} contexts, names {}", contexts.len())
    });
    let regions = regions(definition, &style_names, &mut problems);
    let [low, high] = definition.flexibility.tertiles;
    problems.require("flexibility.tertiles", 0.0 < low && low < high && high < 100.0, || {
        format!("must be two ascending percentiles between 0 and 100, are {low} and {high}")
    });
    flags(definition, &mut problems);
    let chain = &definition.norms.chain;
    problems.require("norms.chain", chain.iter().all(|template| !template.trim().is_empty()), || {
        "must not hold an empty template".to_owned()
    });
    age_bands(definition, &mut problems);
    let published_range = published_range(definition, &mut problems);
    if !problems.0.is_empty() {
        return Err(problems.0);
    }
    let grid = definition.styles.grid.each_ref().map(|row| row.each_ref().map(|name| style_id(&style_names, name)));
    Ok(Instrument {
        id: definition.id.clone(),
        title: definition.title.clone(),
        style_items,
        key,
        median_acce: definition.medians.acce,
        median_aero: definition.medians.aero,
        acce_window,
        aero_window,
        grid: grid.map(|row| row.map(Option::unwrap_or_default)),
        style_names,
        contexts: contexts.clone(),
        regions,
        tertiles: definition.flexibility.tertiles,
        flags: FlagThresholds {
            low_w_below: definition.flags.low_w_below,
            high_w_above: definition.flags.high_w_above,
            repeated_pattern_at: definition.flags.repeated_pattern_at,
            excessive_truncation_at: definition.flags.excessive_truncation_at,
        },
        chain: chain.clone(),
        age_bands: definition
            .norms
            .age_bands
            .iter()
            .map(|band| AgeBand { from: band.from, name: band.name.clone() })
            .collect(),
        published_range,
        source: source.to_owned(),
        style_grid: OnceLock::new(),
    })
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn require(&mut self, key: &str, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Problem { key: key.to_owned(), what: what() });
        }
    }
}

fn style_id(names: &[String], name: &str) -> Option<StyleId> {
    names.iter().position(|known| known == name).map(|index| index as StyleId)
}

fn scoring_key(definition: &Definition, problems: &mut Problems) -> [Vec<usize>; 4] {
    let key = &definition.items.key;
    Mode::ALL.map(|mode| {
        let items = match mode {
            Mode::Ce => &key.ce,
            Mode::Ro => &key.ro,
            Mode::Ac => &key.ac,
            Mode::Ae => &key.ae,
        };
        let name = format!("items.key.{}", mode.suffix());
        problems.require(&name, !items.is_empty(), || "must name at least one item".to_owned());
        for item in items {
            problems.require(&name, (1..=definition.items.count).contains(item), || {
                format!("names item {item}; the items are 1 to {}", definition.items.count)
            });
        }
        let distinct = items.iter().collect::<BTreeSet<_>>().len();
        problems.require(&name, distinct == items.len(), || "names an item more than once".to_owned());
        items.iter().map(|item| item.saturating_sub(1)).collect()
    })
}

fn style_names(definition: &Definition, problems: &mut Problems) -> Vec<String> {
    let names: BTreeSet<&String> = definition.styles.grid.iter().flatten().collect();
    problems.require("styles.grid", names.len() == 9, || "must name nine different styles".to_owned());
    problems.require("styles.grid", names.iter().all(|name| !name.trim().is_empty()), || {
        "must not hold an empty name".to_owned()
    });
    names.into_iter().cloned().collect()
}

fn window(key: &str, [lowest, highest]: [i16; 2], problems: &mut Problems) -> Window {
    problems.require(key, lowest <= highest, || format!("must ascend, is {lowest} to {highest}"));
    problems.require(key, lowest > i16::MIN && highest < i16::MAX, || "leaves no outer windows".to_owned());
    Window { lowest, highest }
}

fn regions(definition: &Definition, style_names: &[String], problems: &mut Problems) -> [StyleId; 24] {
    let mut regions = [None; permutation::COUNT as usize];
    for (style, rankings) in &definition.flexibility.regions {
        let key = format!("flexibility.regions.{style}");
        let id = style_id(style_names, style);
        problems.require(&key, id.is_some(), || "is not a style of styles.grid".to_owned());
        for ranking in rankings {
            match code_of_digits(ranking) {
                None => problems.require(&key, false, || format!("'{ranking}' does not rank 1, 2, 3 and 4 once each")),
                Some(code) => {
                    let slot = &mut regions[code as usize];
                    problems.require(&key, slot.is_none(), || format!("'{ranking}' has a region already"));
                    *slot = id.or(Some(0));
                }
            }
        }
    }
    for (code, region) in regions.iter().enumerate() {
        problems.require("flexibility.regions", region.is_some(), || {
            let digits: String = permutation::RANKS[code].iter().map(u8::to_string).collect();
            format!("no style has the ranking {digits}")
        });
    }
    regions.map(Option::unwrap_or_default)
}

fn code_of_digits(ranking: &str) -> Option<u8> {
    let ranks: [u8; 4] = ranking.as_bytes().try_into().ok()?;
    permutation::code_of(ranks.map(|digit| digit.wrapping_sub(b'0')))
}

fn flags(definition: &Definition, problems: &mut Problems) {
    let flags = &definition.flags;
    let (low, high) = (flags.low_w_below, flags.high_w_above);
    problems.require("flags.low_w_below", (0.0..=1.0).contains(&low), || format!("must be from 0 to 1, is {low}"));
    problems.require("flags.high_w_above", (0.0..=1.0).contains(&high), || format!("must be from 0 to 1, is {high}"));
    problems.require("flags.repeated_pattern_at", flags.repeated_pattern_at >= 2, || "must be at least 2".to_owned());
    problems.require("flags.excessive_truncation_at", flags.excessive_truncation_at >= 1, || {
        "must be at least 1".to_owned()
    });
}

fn age_bands(definition: &Definition, problems: &mut Problems) {
    let bands = &definition.norms.age_bands;
    problems.require("norms.age_bands", bands.first().is_some_and(|band| band.from == 0), || {
        "the first band must begin at 0".to_owned()
    });
    problems
        .require("norms.age_bands", bands.is_sorted_by(|a, b| a.from < b.from), || "must ascend by `from`".to_owned());
    problems.require("norms.age_bands", bands.len() <= usize::from(u8::MAX), || "must be fewer than 256".to_owned());
}

fn published_range(definition: &Definition, problems: &mut Problems) -> PerScale<Option<RawRange>> {
    let ranges = &definition.norms.published_range;
    PerScale::from_fn(|scale| {
        let [lowest, highest] = match scale {
            Scale::Ce => ranges.ce,
            Scale::Ro => ranges.ro,
            Scale::Ac => ranges.ac,
            Scale::Ae => ranges.ae,
            Scale::Acce => ranges.acce,
            Scale::Aero => ranges.aero,
            Scale::Lfi => return None,
        };
        problems.require(&format!("norms.published_range.{}", scale.name()), lowest <= highest, || {
            format!("must ascend, is {lowest} to {highest}")
        });
        Some(RawRange { lowest, highest })
    })
}
