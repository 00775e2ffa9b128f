//! Reports as text, for people: a heading line a stage, what it found below.

use std::fmt::{self, Display, Formatter, Result};

use crate::model::Mode;
use crate::norms::StepOutcome;
use crate::run::explain::report::{
    AsFound, ChainLinkReport, CombinationReport, FlagReport, FlexibilityReport, ItemReport, PercentilesReport,
    PublishedEntry, PublishedRule, RawScaleReport, ReadReport, ScaleReport, StageReport, StepReport, StyleReport,
    ValidateReport,
};
use crate::run::explain::stages::signed;

/// Stands for a null.
const NULL: &str = "–";

/// Several lines, the last one ended too.
impl Display for StageReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            StageReport::Read(report) => read(report, f),
            StageReport::Validate(report) => validate(report, f),
            StageReport::RawScales(scales) => raw_scales(scales, f),
            StageReport::Combinations(scores) => combinations(scores, f),
            StageReport::Style(report) => style(report, f),
            StageReport::Flexibility(report) => flexibility(report, f),
            StageReport::Percentiles(report) => percentiles(report, f),
            StageReport::Flags(flags) => raised(flags, f),
        }
    }
}

fn read(report: &ReadReport, f: &mut Formatter<'_>) -> Result {
    let id = report.session_id.as_str().map_or_else(|| report.session_id.to_string(), str::to_owned);
    writeln!(f, "read: session {id} of {}, {} layout", report.file, report.layout)?;
    match report.same_id {
        0 | 1 => Ok(()),
        several => writeln!(f, "  {several} sessions have this id; this is the first of them"),
    }
}

fn validate(report: &ValidateReport, f: &mut Formatter<'_>) -> Result {
    match &report.failure {
        None => writeln!(f, "validate: every item ranks 1, 2, 3 and 4 once each")?,
        Some(failure) => writeln!(f, "{}: failed, {}", failure.error_stage, failure.error_code)?,
    }
    writeln!(f, "  {:6}{}", "item", modes())?;
    for item in &report.items {
        writeln!(f, "  {:6}{}", item.item, item_ranks(item))?;
    }
    match &report.failure {
        None => Ok(()),
        Some(failure) => writeln!(f, "  {}", failure.error),
    }
}

fn item_ranks(item: &ItemReport) -> String {
    let text = |cell: &Option<String>| cell.as_deref().map_or_else(|| NULL.to_owned(), str::to_owned);
    match (&item.ranks, &item.found) {
        (Some(ranks), _) => columns(ranks.each()),
        (None, Some(AsFound::Ranks(ranks))) => format!("{}  no ranking", columns(ranks.each().map(text).each_ref())),
        (None, Some(AsFound::Code(code))) => format!("  code {}  no ranking", text(code)),
        (None, None) => "  no ranking".to_owned(),
    }
}

/// The heading of four columns, one for each mode.
fn modes() -> String {
    columns(Mode::ALL.map(Mode::code).each_ref())
}

fn columns<T: Display>(values: [&T; 4]) -> String {
    values.map(|value| format!(" {:>2}", value.to_string())).concat()
}

fn raw_scales(scales: &[RawScaleReport], f: &mut Formatter<'_>) -> Result {
    writeln!(f, "raw_scales: each mode's ranks over the items of its scoring key")?;
    for scale in scales {
        let ranks = joined(&scale.ranks, " + ");
        writeln!(f, "  {} = {ranks} = {}  ({})", scale.scale, scale.raw, run_of(&scale.items))?;
    }
    Ok(())
}

/// Names in a row: the first and the last of more than two that follow each other, else all.
fn run_of(items: &[String]) -> String {
    let number = |item: &String| item.trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().ok();
    let follow = items.windows(2).all(|pair| number(&pair[0]).map(|first| first + 1) == number(&pair[1]));
    match items {
        [first, .., last] if follow && items.len() > 2 => format!("{first} to {last}"),
        items => items.join(", "),
    }
}

fn joined<T: Display>(values: &[T], separator: &str) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(separator)
}

fn combinations(scores: &[CombinationReport], f: &mut Formatter<'_>) -> Result {
    writeln!(f, "combinations: differences of raw scores, and their distance from the medians")?;
    for CombinationReport { score, formula, numbers, value } in scores {
        // ACCE and AERO are known by their capitals; the other scores have no name but their column's.
        let name = if score.len() == 4 { score.to_uppercase() } else { (*score).to_owned() };
        writeln!(f, "  {name} = {formula} = {numbers} = {}", signed(*value))?;
    }
    Ok(())
}

fn style(report: &StyleReport, f: &mut Formatter<'_>) -> Result {
    let StyleReport { acce, aero, style, backup_style, grid } = report;
    writeln!(f, "style: {style}, backup {backup_style}")?;
    let own = grid.iter().find(|cell| cell.style == *style);
    if let Some(own) = own {
        writeln!(
            f,
            "  ACCE = {} is in {}, AERO = {} is in {}: {style}",
            signed(*acce),
            own.acce,
            signed(*aero),
            own.aero
        )?;
    }
    let cell = |name: &str, distance: &str| format!("{name:>13} {distance:>3}");
    let heading: String = grid.iter().take(3).map(|column| cell(&format!("AERO {}", column.aero), "")).collect();
    writeln!(f, "  {:12}{}", "distances", heading.trim_end())?;
    for row in grid.chunks(3) {
        let cells: String = row.iter().map(|of| cell(&of.style, &of.distance.to_string())).collect();
        let acce = row.first().map_or("", |cell| &cell.acce);
        writeln!(f, "  {:12}{cells}", format!("ACCE {acce}"))?;
    }
    let nearest = grid.iter().find(|cell| cell.style == *backup_style).map_or(0, |cell| cell.distance);
    let mut tied: Vec<&str> = grid.iter().filter(|cell| cell.distance == nearest).map(|cell| &*cell.style).collect();
    tied.sort_unstable();
    match tied.as_slice() {
        [_, _, ..] => {
            writeln!(f, "  nearest other: {}, {nearest} away; {backup_style} comes first by name", tied.join(", "))
        }
        _ => writeln!(f, "  nearest other: {backup_style}, {nearest} away"),
    }
}

fn flexibility(report: &FlexibilityReport, f: &mut Formatter<'_>) -> Result {
    let FlexibilityReport { contexts, rank_sums, mean, sum_of_squares: s, denominator, kendall_w, lfi, lfi_raw } =
        report;
    writeln!(f, "flexibility: W = {kendall_w}, LFI = {lfi}")?;
    let name = |item: &str, context: &str| format!("{item} {context}");
    let width = contexts.iter().map(|of| name(&of.item, &of.context).chars().count()).max().unwrap_or_default();
    writeln!(f, "  {:width$} {}  region", "context", modes())?;
    for of in contexts {
        writeln!(f, "  {:width$} {}  {}", name(&of.item, &of.context), columns(of.ranks.each()), of.region)?;
    }
    writeln!(f, "  {:width$} {}  mean {mean}", "R, the rank sums", columns(rank_sums.each()))?;
    let squares = rank_sums.each().map(|sum| format!("({sum} − {mean})²"));
    writeln!(f, "  S = Σ(R − mean)² = {} = {s}", squares.join(" + "))?;
    writeln!(f, "  W = S/{denominator} = {s}/{denominator} = {kendall_w}")?;
    writeln!(f, "  LFI = 1 − W = ({denominator} − {s})/{denominator} = {lfi_raw}/{denominator} = {lfi}")
}

fn percentiles(report: &PercentilesReport, f: &mut Formatter<'_>) -> Result {
    let rule = match report.chain_scope {
        "per-session" => "the first group that holds all seven raw scores answers for all scales",
        _ => "for each scale, the first group that holds the raw score answers",
    };
    writeln!(f, "percentiles: {rule}")?;
    for ChainLinkReport { template, token, missing } in &report.chain {
        match token {
            Some(token) if token == template => writeln!(f, "  {template}")?,
            Some(token) => writeln!(f, "  {template} is {token}")?,
            None => writeln!(f, "  {template} is left out: {} is null", missing.join(", "))?,
        }
    }
    for ScaleReport { scale, raw, percentile, norm_group, steps } in &report.scales {
        // The raw score by which norms know LFI is its numerator.
        let name = if *scale == "LFI" { "LFI numerator" } else { scale };
        writeln!(f, "  {name} {}: percentile {percentile} by {norm_group}", signed(*raw))?;
        let width = steps.iter().map(|of| of.step.token.chars().count()).max().unwrap_or_default();
        for step in steps {
            writeln!(f, "    {:width$}  {}", step.step.token, outcome(step, *raw))?;
        }
    }
    for truncated in &report.truncated_scales {
        let [lowest, highest] = truncated.range.map(signed);
        let raw = signed(truncated.raw);
        writeln!(f, "  {} is truncated: {raw} is outside the published {lowest} to {highest}", truncated.scale)?;
    }
    let [low, high] = report.tertiles;
    let lfi = report.scales.last().map_or(0.0, |scale| scale.percentile);
    let comparison = match lfi {
        lfi if lfi < low => format!("{lfi} < {low}"),
        lfi if lfi <= high => format!("{low} ≤ {lfi} ≤ {high}"),
        lfi => format!("{lfi} > {high}"),
    };
    writeln!(f, "  flexibility_level: {}, {comparison}", report.flexibility_level)?;
    let fallback = if report.used_fallback { "yes, for at least one scale" } else { "no" };
    writeln!(f, "  used_fallback: {fallback}")
}

/// What came of a step, in words.
fn outcome(StepReport { step, published_entry }: &StepReport, raw: i16) -> String {
    let raw = signed(raw);
    let asked_for = step.token.split_once('|').map_or("default", |(_, version)| version);
    let version = match step.version.as_deref() {
        Some(version) if version != asked_for => format!(" in version {version} instead"),
        _ => String::new(),
    };
    match &step.outcome {
        StepOutcome::NoSuchGroup => "not found".to_owned(),
        StepOutcome::NoSuchRawScore => format!("found{version}, has no raw score {raw}"),
        StepOutcome::LacksOtherScales { scales, percentile } => {
            format!("found{version}, has {raw} as {percentile}, but lacks the raw score of {}", scales.join(", "))
        }
        StepOutcome::Used { percentile, .. } => match published_entry {
            None => format!("found{version}, used: {percentile}"),
            Some(entry) => format!("used: {percentile}, {}", ByEntry(entry, &raw)),
        },
    }
}

/// How an entry of the published table answers for a raw score.
struct ByEntry<'a>(&'a PublishedEntry, &'a str);

impl Display for ByEntry<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ByEntry(PublishedEntry { raw_score, rule }, raw) = self;
        let entry = signed(*raw_score);
        match rule {
            PublishedRule::Exact => write!(f, "its entry for {raw}"),
            PublishedRule::NearestLower => write!(f, "its entry for {entry}, the nearest lower: it has none for {raw}"),
            PublishedRule::Lowest => write!(f, "its lowest entry, for {entry}: {raw} is below all"),
        }
    }
}

fn raised(flags: &[FlagReport], f: &mut Formatter<'_>) -> Result {
    if flags.is_empty() {
        return writeln!(f, "flags: none");
    }
    writeln!(f, "flags: {}", joined(&flags.iter().map(|flag| &flag.flag).collect::<Vec<_>>(), ", "))?;
    flags.iter().try_for_each(|FlagReport { flag, reason }| writeln!(f, "  {flag}: {reason}"))
}
