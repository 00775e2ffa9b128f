//! What an explanation reports of each stage. Serialised, a report is `{"stage": …, "result": …}`.

use serde::Serialize;
use serde_json::Value;

use crate::norms::ChainStep;

/// What one stage made of a session.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "stage", content = "result", rename_all = "snake_case")]
pub enum StageReport {
    /// The session was found.
    Read(ReadReport),
    /// Its ranks were checked.
    Validate(ValidateReport),
    /// Its ranks were summed, in the order CE, RO, AC, AE.
    RawScales(Vec<RawScaleReport>),
    /// The sums were combined, in the order of the result columns.
    Combinations(Vec<CombinationReport>),
    /// The style was read off the grid.
    Style(StyleReport),
    /// Its contexts were compared.
    Flexibility(FlexibilityReport),
    /// Its scores were looked up.
    Percentiles(PercentilesReport),
    /// Its flags were raised.
    Flags(Vec<FlagReport>),
}

impl StageReport {
    /// Why the stage refused the session, if it did. No stage follows then.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            StageReport::Validate(report) => report.failure.as_ref(),
            _ => None,
        }
    }
}

/// Where a session was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReadReport {
    /// Its id: a number or a string.
    pub session_id: Value,
    /// The file it stands in.
    pub file: String,
    /// The file's layout.
    pub layout: &'static str,
    /// How many sessions of the input have its id; this is the first of them.
    pub same_id: u64,
}

/// One value for each mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub struct ByMode<T> {
    /// Concrete Experience.
    pub ce: T,
    /// Reflective Observation.
    pub ro: T,
    /// Abstract Conceptualization.
    pub ac: T,
    /// Active Experimentation.
    pub ae: T,
}

impl<T> From<[T; 4]> for ByMode<T> {
    fn from([ce, ro, ac, ae]: [T; 4]) -> Self {
        ByMode { ce, ro, ac, ae }
    }
}

impl<T> ByMode<T> {
    /// The values in the order CE, RO, AC, AE.
    pub fn each(&self) -> [&T; 4] {
        [&self.ce, &self.ro, &self.ac, &self.ae]
    }
}

/// The ranks of a session and whether they can be scored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ValidateReport {
    /// Whether the session goes on.
    pub ok: bool,
    /// Why it does not.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The items in checking order.
    pub items: Vec<ItemReport>,
}

/// Why a stage refused a session, as it stands in the result columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The stage.
    pub error_stage: String,
    /// The stable code.
    pub error_code: String,
    /// The sentence that names the item.
    pub error: String,
}

/// The ranks of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ItemReport {
    /// The item, as in `q01` and `ctx08`.
    pub item: String,
    /// Its ranks; `None` when they are no ranking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ranks: Option<ByMode<u8>>,
    /// What the file has in their place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<AsFound>,
}

/// What a file has for an item that is no ranking. `None` is a null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum AsFound {
    /// Four ranks.
    Ranks(ByMode<Option<String>>),
    /// One packed code.
    Code(Option<String>),
}

/// A raw score: the sum of a mode's ranks over its scoring key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RawScaleReport {
    /// The mode's code.
    pub scale: &'static str,
    /// The items of the scoring key.
    pub items: Vec<String>,
    /// The mode's rank in each of them.
    pub ranks: Vec<u8>,
    /// Their sum.
    pub raw: i16,
}

/// A combination score: formula, numbers, value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CombinationReport {
    /// The result column.
    pub score: &'static str,
    /// The formula, as in `AC − CE`.
    pub formula: String,
    /// The formula with the session's numbers.
    pub numbers: String,
    /// What comes of it.
    pub value: i16,
}

/// The place of a session on the grid of styles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StyleReport {
    /// ACCE, which chooses the row.
    pub acce: i16,
    /// AERO, which chooses the column.
    pub aero: i16,
    /// The style of that cell.
    pub style: String,
    /// The nearest other style.
    pub backup_style: String,
    /// The nine cells, row by row from low to high ACCE, in each from low to high AERO.
    pub grid: Vec<GridCell>,
}

/// One cell of the grid of styles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GridCell {
    /// The cell's style.
    pub style: String,
    /// Its window of ACCE, as in `≤ 5`.
    pub acce: String,
    /// Its window of AERO.
    pub aero: String,
    /// How far the session lies from it (L1); 0 for its own.
    pub distance: i16,
}

/// The flexibility of a session.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlexibilityReport {
    /// The contexts in column order.
    pub contexts: Vec<ContextReport>,
    /// R: the sum of each mode's ranks over the contexts.
    pub rank_sums: ByMode<u16>,
    /// The mean of the four.
    pub mean: f64,
    /// S: the sum of their squared distances from the mean.
    pub sum_of_squares: i16,
    /// The greatest S that so many contexts can have.
    pub denominator: i16,
    /// W = S / denominator.
    pub kendall_w: f64,
    /// LFI = 1 − W.
    pub lfi: f64,
    /// The raw score that norms know LFI by: denominator − S.
    pub lfi_raw: i16,
}

/// One context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContextReport {
    /// The item, as in `ctx01`.
    pub item: String,
    /// The name of the context.
    pub context: String,
    /// Its ranks.
    pub ranks: ByMode<u8>,
    /// The region of that ranking.
    pub region: String,
}

/// The percentiles of a session and how they were found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PercentilesReport {
    /// `per-scale` or `per-session`.
    pub chain_scope: &'static str,
    /// The chain, most specific template first.
    pub chain: Vec<ChainLinkReport>,
    /// The scales in result order.
    pub scales: Vec<ScaleReport>,
    /// Whether the published table answered for any scale.
    pub used_fallback: bool,
    /// The raw scores outside the published range.
    pub truncated_scales: Vec<TruncationReport>,
    /// The level of the LFI percentile.
    pub flexibility_level: String,
    /// The LFI percentiles between which the level is moderate.
    pub tertiles: [f64; 2],
}

/// A template of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainLinkReport {
    /// The template.
    pub template: String,
    /// What it becomes for the session; `None` when it is left out.
    pub token: Option<String>,
    /// The attributes that are null and so leave it out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// The percentile of one scale.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScaleReport {
    /// The scale's code.
    pub scale: &'static str,
    /// Its raw score.
    pub raw: i16,
    /// Its percentile.
    pub percentile: f64,
    /// Who gave it.
    pub norm_group: String,
    /// The steps that were tried, up to the one that answered.
    pub steps: Vec<StepReport>,
}

/// One step of the chain for one scale.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// The token, the version that was looked into, and what came of it.
    #[serde(flatten)]
    pub step: ChainStep,
    /// The entry of the published table that answered; `None` for a group's step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published_entry: Option<PublishedEntry>,
}

/// The entry of the published table that answers for a raw score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PublishedEntry {
    /// The raw score of the entry: the one asked for, else the nearest lower one, else the lowest of all.
    pub raw_score: i32,
    /// Which of the three it is.
    pub rule: PublishedRule,
}

/// Why an entry of the published table answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PublishedRule {
    /// It is the entry of the raw score itself.
    Exact,
    /// The table lacks the raw score; this is the nearest entry below it.
    NearestLower,
    /// The raw score is below all entries; this is the lowest.
    Lowest,
}

/// A raw score outside the published range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TruncationReport {
    /// The scale's name, as in `truncated_scales`.
    pub scale: String,
    /// The raw score.
    pub raw: i16,
    /// The lowest and the highest published raw score.
    pub range: [i32; 2],
}

/// A raised flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlagReport {
    /// The flag.
    pub flag: String,
    /// What raised it, with numbers.
    pub reason: String,
}
