//! The file form of an instrument: what `klsi4.toml` and a user's own definition hold, before validation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Definition {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) items: Items,
    pub(super) medians: Medians,
    pub(super) styles: Styles,
    pub(super) flexibility: Flexibility,
    pub(super) flags: Flags,
    pub(super) norms: Norms,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Items {
    pub(super) count: usize,
    pub(super) key: Key,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    pub(super) ce: Vec<usize>,
    pub(super) ro: Vec<usize>,
    pub(super) ac: Vec<usize>,
    pub(super) ae: Vec<usize>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Medians {
    pub(super) acce: i16,
    pub(super) aero: i16,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Styles {
    pub(super) acce_middle: [i16; 2],
    pub(super) aero_middle: [i16; 2],
    pub(super) grid: [[String; 3]; 3],
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flexibility {
    pub(super) contexts: Vec<String>,
    pub(super) tertiles: [f64; 2],
    pub(super) regions: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flags {
    pub(super) low_w_below: f64,
    pub(super) high_w_above: f64,
    pub(super) repeated_pattern_at: usize,
    pub(super) excessive_truncation_at: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Norms {
    pub(super) chain: Vec<String>,
    pub(super) age_bands: Vec<AgeBandDefinition>,
    pub(super) published_range: PublishedRange,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AgeBandDefinition {
    pub(super) from: u16,
    pub(super) name: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishedRange {
    pub(super) ce: [i32; 2],
    pub(super) ro: [i32; 2],
    pub(super) ac: [i32; 2],
    pub(super) ae: [i32; 2],
    pub(super) acce: [i32; 2],
    pub(super) aero: [i32; 2],
}
