//! Reports of single stages, as values and as text, and their agreement with the plan that scores in bulk.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt8Array};
use datafusion::prelude::{SessionConfig, SessionContext};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::report::PublishedRule;
use super::*;
use crate::instrument::Instrument;
use crate::model::norm::{ChainScope, PUBLISHED};
use crate::model::session::{Part, items, packed_column, wide_column};
use crate::model::{Layout, Mode};
use crate::norms::{ImportOptions, NormStore, NormStoreOptions, StepOutcome, open_norms};
use crate::operators::NormContext;
use crate::scoring::FLAG_NAMES;
use crate::storage::{Storage, StorageOptions};

type Item = [Option<i64>; 4];

const fn ranking(ce: i64, ro: i64, ac: i64, ae: i64) -> Item {
    [Some(ce), Some(ro), Some(ac), Some(ae)]
}

/// Contexts whose rank sums are all 20.
const EVEN: [Item; 8] = {
    let (up, down) = (ranking(1, 2, 3, 4), ranking(4, 3, 2, 1));
    [up, down, up, down, up, down, up, down]
};

/// A test of one session: its ranks, its attributes, and the norms it is scored by.
struct Test {
    items: Vec<Item>,
    attributes: Vec<(&'static str, Option<&'static str>)>,
    layout: Layout,
    chain: &'static str,
    norms: &'static str,
    options: NormStoreOptions,
}

impl Test {
    fn new(style: [Item; 12], contexts: [Item; 8]) -> Self {
        Test {
            items: style.into_iter().chain(contexts).collect(),
            attributes: Vec::new(),
            layout: Layout::Wide,
            chain: "",
            norms: "",
            options: NormStoreOptions::default(),
        }
    }

    /// All learning-style items ranked alike.
    fn alike(style: Item, contexts: [Item; 8]) -> Self {
        Test::new([style; 12], contexts)
    }

    fn attribute(mut self, name: &'static str, value: Option<&'static str>) -> Self {
        self.attributes.push((name, value));
        self
    }

    /// Rows of `norm_group,norm_version,scale,raw_score,percentile`.
    fn norms(mut self, chain: &'static str, norms: &'static str) -> Self {
        (self.chain, self.norms) = (chain, norms);
        self
    }

    fn places() -> impl Iterator<Item = (Part, usize)> {
        items(12, 8)
    }

    fn session(&self) -> RecordBatch {
        let mut columns: Vec<(String, ArrayRef)> =
            vec![("session_id".to_owned(), Arc::new(Int64Array::from(vec![7])) as ArrayRef)];
        for (name, value) in &self.attributes {
            columns.push(((*name).to_owned(), Arc::new(StringArray::from(vec![*value]))));
        }
        for ((part, item), ranks) in Self::places().zip(&self.items) {
            for (mode, rank) in Mode::ALL.into_iter().zip(ranks) {
                columns.push((wide_column(part, item, mode), Arc::new(Int64Array::from(vec![*rank]))));
            }
        }
        RecordBatch::try_from_iter(columns).unwrap()
    }

    async fn reports(self) -> Vec<StageReport> {
        let session = self.session();
        self.reports_of(session).await
    }

    async fn reports_of(self, session: RecordBatch) -> Vec<StageReport> {
        let folder = tempfile::tempdir().unwrap();
        let ranges = Instrument::klsi4().raw_ranges();
        let mut sources = Vec::new();
        if !self.norms.is_empty() {
            let file = folder.path().join("norms.csv").display().to_string();
            let text = format!("norm_group,norm_version,scale,raw_score,percentile\n{}\n", self.norms.trim());
            std::fs::write(&file, text).unwrap();
            sources.push(open_norms(&storage(), &file, ImportOptions::new(ranges)).await.unwrap());
        }
        let store = NormStore::new(sources, ranges, self.options);
        let scoring = scoring(self.chain, self.layout);
        reports(&mut Explanation::new(&scoring, context(store).task_ctx(), session)).await
    }
}

fn storage() -> Storage {
    Storage::new(StorageOptions::default(), []).unwrap()
}

fn scoring(chain: &str, layout: Layout) -> Scoring {
    Scoring { instrument: Instrument::klsi4(), chain: chain.parse().unwrap(), layout }
}

fn context(store: NormStore) -> SessionContext {
    SessionContext::new_with_config(NormContext::install(SessionConfig::new(), Arc::new(store)))
}

async fn reports(explanation: &mut Explanation) -> Vec<StageReport> {
    let mut reports = Vec::new();
    while let Some(report) = explanation.next().await.unwrap() {
        reports.push(report);
    }
    reports
}

/// The lines of the stage that begins with `stage`.
fn text_of(reports: &[StageReport], stage: &str) -> String {
    let texts: Vec<String> = reports.iter().map(ToString::to_string).collect();
    texts.into_iter().find(|text| text.starts_with(stage)).expect("the stage ran")
}

fn percentiles_of(reports: &[StageReport]) -> &PercentilesReport {
    for report in reports {
        if let StageReport::Percentiles(report) = report {
            return report;
        }
    }
    panic!("percentiles were looked up")
}

#[tokio::test]
async fn every_stage_reports_in_the_order_of_the_plan() {
    let reports = Test::alike(ranking(1, 4, 3, 2), EVEN).reports().await;
    let names: Vec<String> = reports
        .iter()
        .map(|report| serde_json::to_value(report).unwrap()["stage"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["validate", "raw_scales", "combinations", "style", "flexibility", "percentiles", "flags"]);
}

#[tokio::test]
async fn raw_scales_show_which_items_sum_to_what() {
    let text = text_of(&Test::alike(ranking(1, 4, 3, 2), EVEN).reports().await, "raw_scales");
    let ro = "  RO = 4 + 4 + 4 + 4 + 4 + 4 + 4 + 4 + 4 + 4 + 4 + 4 = 48  (q01 to q12)";
    assert_eq!(text.lines().nth(2), Some(ro));
}

#[tokio::test]
async fn combinations_show_formula_numbers_and_value() {
    let text = text_of(&Test::alike(ranking(1, 4, 3, 2), EVEN).reports().await, "combinations");
    let expected = "\
combinations: differences of raw scores, and their distance from the medians
  ACCE = AC − CE = 36 − 12 = 24
  AERO = AE − RO = 24 − 48 = −24
  assimilation_accommodation = (AC + RO) − (AE + CE) = (36 + 48) − (24 + 12) = 48
  converging_diverging = (AC + AE) − (CE + RO) = (36 + 24) − (12 + 48) = 0
  balance_acce = |ACCE − 9| = |24 − 9| = 15
  balance_aero = |AERO − 6| = |−24 − 6| = 30
  intensity = |ACCE| + |AERO| = |24| + |−24| = 48
";
    assert_eq!(text, expected);
}

#[tokio::test]
async fn the_backup_style_of_a_tie_is_the_first_by_name_and_says_so() {
    // ACCE = 10 and AERO = 6: the windows below and above the middle one of ACCE are both 5 away.
    let (up, down, steep) = (ranking(1, 2, 3, 4), ranking(4, 3, 2, 1), ranking(1, 2, 4, 3));
    let items = [up, up, up, up, up, up, down, down, down, down, steep, steep];
    let text = text_of(&Test::new(items, EVEN).reports().await, "style");
    let expected = "\
style: balancing, backup experiencing
  ACCE = 10 is in 6..14, AERO = 6 is in 1..11: balancing
  distances        AERO ≤ 0       AERO 1..11        AERO ≥ 12
  ACCE ≤ 5        imagining  11 experiencing   5   initiating  11
  ACCE 6..14     reflecting   6    balancing   0       acting   6
  ACCE ≥ 15       analyzing  11     thinking   5     deciding  11
  nearest other: experiencing, thinking, 5 away; experiencing comes first by name
";
    assert_eq!(text, expected);
}

#[tokio::test]
async fn flexibility_shows_rank_sums_their_squares_and_what_comes_of_them() {
    let contexts = [
        ranking(1, 2, 3, 4),
        ranking(1, 2, 3, 4),
        ranking(4, 3, 2, 1),
        ranking(4, 3, 2, 1),
        ranking(4, 3, 1, 2),
        ranking(4, 3, 1, 2),
        ranking(2, 1, 4, 3),
        ranking(1, 4, 2, 3),
    ];
    let text = text_of(&Test::alike(ranking(1, 4, 3, 2), contexts).reports().await, "flexibility");
    let expected = "\
flexibility: W = 0.01875, LFI = 0.98125
  context                              CE RO AC AE  region
  ctx01 starting something new          1  2  3  4  deciding
  ctx02 influencing someone             1  2  3  4  deciding
  ctx03 getting to know someone         4  3  2  1  imagining
  ctx04 learning in a group             4  3  2  1  imagining
  ctx05 planning something              4  3  1  2  experiencing
  ctx06 analyzing something             4  3  1  2  experiencing
  ctx07 evaluating an opportunity       2  1  4  3  deciding
  ctx08 choosing between alternatives   1  4  2  3  balancing
  R, the rank sums                     21 21 18 20  mean 20
  S = Σ(R − mean)² = (21 − 20)² + (21 − 20)² + (18 − 20)² + (20 − 20)² = 6
  W = S/320 = 6/320 = 0.01875
  LFI = 1 − W = (320 − 6)/320 = 314/320 = 0.98125
";
    assert_eq!(text, expected);
}

#[tokio::test]
async fn each_step_of_the_chain_says_what_came_of_it() {
    let norms = "\
COUNTRY:Spain,default,RO,20,30.5
COUNTRY:Spain,default,CE,12,9.5
GENDER:Female,default,RO,48,97.25";
    let test = Test::alike(ranking(1, 4, 3, 2), EVEN)
        .attribute("country", Some("Spain"))
        .attribute("gender", Some("Female"))
        .attribute("education_level", Some(" "))
        .norms("EDU:{education_level},L:{language},COUNTRY:{country},GENDER:{gender},Total", norms);
    let text = text_of(&test.reports().await, "percentiles");
    let expected = "\
percentiles: for each scale, the first group that holds the raw score answers
  EDU:{education_level} is left out: education_level is null
  L:{language} is left out: language is null
  COUNTRY:{country} is COUNTRY:Spain
  GENDER:{gender} is GENDER:Female
  Total
  CE 12: percentile 9.5 by COUNTRY:Spain
    COUNTRY:Spain  found, used: 9.5
  RO 48: percentile 97.25 by GENDER:Female
    COUNTRY:Spain  found, has no raw score 48
    GENDER:Female  found, used: 97.25
";
    assert!(text.starts_with(expected), "{text}");
    let last_resort = "
    COUNTRY:Spain  found, has no raw score 36
    GENDER:Female  found, has no raw score 36
    Total          not found
    published      used: 84.5, its entry for 36
";
    assert!(text.contains(last_resort), "{text}");
    let truncated = "  ro is truncated: 48 is outside the published 11 to 44\n";
    assert!(text.contains(truncated), "{text}");
    assert!(text.ends_with("  used_fallback: yes, for at least one scale\n"), "{text}");
}

#[tokio::test]
async fn the_published_table_says_which_entry_answers() {
    let reports = Test::alike(ranking(4, 2, 1, 3), [ranking(1, 2, 3, 4); 8]).reports().await;
    let entries: Vec<_> = percentiles_of(&reports)
        .scales
        .iter()
        .map(|scale| (scale.scale, scale.raw, scale.steps.last().unwrap().published_entry.unwrap()))
        .map(|(scale, raw, entry)| (scale, raw, entry.raw_score, entry.rule))
        .collect();
    let expected = [
        ("CE", 48, 44, PublishedRule::NearestLower),
        ("RO", 24, 24, PublishedRule::Exact),
        ("AC", 12, 12, PublishedRule::Exact),
        ("AE", 36, 36, PublishedRule::Exact),
        ("ACCE", -36, -29, PublishedRule::Lowest),
        ("AERO", 12, 12, PublishedRule::Exact),
        // All contexts alike: S is 320, and the table begins at 24.
        ("LFI", 0, 24, PublishedRule::Lowest),
    ];
    assert_eq!(entries, expected);
    let text = text_of(&reports, "percentiles");
    assert!(text.contains("used: 100, its entry for 44, the nearest lower: it has none for 48\n"), "{text}");
    assert!(text.contains("its lowest entry, for −29: −36 is below all\n"), "{text}");
}

#[tokio::test]
async fn a_group_that_lacks_the_version_asked_for_answers_only_if_that_is_allowed() {
    let test = |allow_version_fallback| {
        let mut test = Test::alike(ranking(1, 4, 3, 2), EVEN)
            .attribute("country", Some("Spain"))
            .norms("COUNTRY:{country}|2026", "COUNTRY:Spain,default,CE,12,9.5");
        test.options.allow_version_fallback = allow_version_fallback;
        test
    };
    let text = text_of(&test(true).reports().await, "percentiles");
    let used = "  CE 12: percentile 9.5 by COUNTRY:Spain\n    COUNTRY:Spain|2026  found in version default instead, used: 9.5\n";
    assert!(text.contains(used), "{text}");
    let text = text_of(&test(false).reports().await, "percentiles");
    assert!(text.contains("\n    COUNTRY:Spain|2026  not found\n"), "{text}");
}

#[tokio::test]
async fn per_session_a_group_is_used_for_all_scales_or_for_none() {
    let mut test = Test::alike(ranking(1, 4, 3, 2), EVEN)
        .attribute("country", Some("Spain"))
        .norms("COUNTRY:{country}", "COUNTRY:Spain,default,CE,12,9.5\nCOUNTRY:Spain,default,RO,48,99");
    test.options.scope = ChainScope::PerSession;
    let text = text_of(&test.reports().await, "percentiles");
    let lacks = "found, has 12 as 9.5, but lacks the raw score of ac, ae, acce, aero, lfi\n";
    assert!(text.contains(lacks), "{text}");
    assert!(text.contains("  CE 12: percentile 7.4 by published\n"), "{text}");
}

#[tokio::test]
async fn every_flag_says_what_raised_it() {
    let alike = [ranking(1, 2, 3, 4); 8];
    let even = Test::alike(ranking(4, 2, 1, 3), EVEN);
    let extreme = Test::alike(ranking(4, 2, 1, 3), alike)
        .attribute("country", Some("Spain"))
        .norms("COUNTRY:{country}", "COUNTRY:Spain,default,RO,24,40\nCOUNTRY:Spain,default,AERO,12,70");
    let mut raised = Vec::new();
    for test in [even, extreme] {
        match test.reports().await.pop() {
            Some(StageReport::Flags(flags)) => raised.extend(flags.into_iter().map(|flag| (flag.flag, flag.reason))),
            other => panic!("the last stage raises flags, not {other:?}"),
        }
    }
    raised.dedup();
    let reason = |name: &str| {
        raised
            .iter()
            .find(|(flag, _)| flag == name)
            .map_or_else(|| panic!("{name} is not raised"), |(_, reason)| reason)
    };
    assert_eq!(reason("near_style_boundary"), "AERO = 12 is one of 0, 1, 11, 12");
    assert_eq!(reason("low_w"), "W = 0 is below 0.05");
    assert_eq!(reason("high_w"), "W = 1 is above 0.95");
    let everywhere = "ctx01, ctx02, ctx03, ctx04, ctx05, ctx06, ctx07, ctx08";
    assert_eq!(reason("repeated_context_pattern"), &format!("1234 in 8 contexts ({everywhere}), 6 or more"));
    assert_eq!(reason("mixed_provenance"), "CE, AC, AE, ACCE, LFI by published; RO, AERO by COUNTRY:Spain");
    assert_eq!(reason("excessive_truncation"), "2 of the scales are truncated (ce, acce), 2 or more");
    assert!(FLAG_NAMES.into_iter().all(|flag| !reason(flag).is_empty()), "no flag without a reason");
}

#[tokio::test]
async fn a_refused_session_ends_with_its_ranks_as_the_file_has_them() {
    let mut test = Test::alike(ranking(1, 4, 3, 2), EVEN);
    test.items[2] = [Some(4), None, Some(17), Some(1)];
    test.items[19] = ranking(1, 1, 2, 3);
    let reports = test.reports().await;
    assert_eq!(reports.len(), 1, "no stage follows");
    let failure = Failure {
        error_stage: "validate".to_owned(),
        error_code: "missing_rank".to_owned(),
        error: "the rank of RO in item q03 is missing".to_owned(),
    };
    assert_eq!(reports[0].failure(), Some(&failure));
    let text = reports[0].to_string();
    assert!(text.starts_with("validate: failed, missing_rank\n  item   CE RO AC AE\n  q01     1  4  3  2\n"), "{text}");
    assert!(text.contains("\n  q03     4  – 17  1  no ranking\n"), "{text}");
    assert!(text.contains("\n  ctx08   1  1  2  3  no ranking\n"), "{text}");
    assert!(text.ends_with("  the rank of RO in item q03 is missing\n"), "{text}");
}

#[tokio::test]
async fn a_refused_session_of_the_packed_layout_shows_its_codes() {
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for (part, item) in Test::places() {
        let code = match (part, item) {
            (Part::Style, 5) => None,
            (Part::Context, 1) => Some(57),
            _ => Some(0),
        };
        columns.push((packed_column(part, item), Arc::new(UInt8Array::from(vec![code]))));
    }
    let mut test = Test::alike(ranking(1, 4, 3, 2), EVEN);
    test.layout = Layout::Packed;
    let text = test.reports_of(RecordBatch::try_from_iter(columns).unwrap()).await[0].to_string();
    assert!(text.contains("\n  q04     1  2  3  4\n  q05     code –  no ranking\n"), "{text}");
    assert!(text.contains("\n  ctx01   code 57  no ranking\n"), "{text}");
    assert!(text.ends_with("  item q05 is missing\n"), "{text}");
}

/// Every 40th golden session, as rows.
fn golden_sessions() -> Vec<RecordBatch> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sessions.parquet");
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    let rows = |batch: &RecordBatch| (0..batch.num_rows()).map(|row| batch.slice(row, 1)).collect::<Vec<_>>();
    batches.iter().flat_map(rows).step_by(40).collect()
}

#[tokio::test]
async fn what_is_shown_beside_the_scores_of_the_plan_agrees_with_them() {
    let norms = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/demo_groups.csv");
    let instrument = Instrument::klsi4();
    let ranges = instrument.raw_ranges();
    let mut answers_of_groups = 0;
    for scope in [ChainScope::PerScale, ChainScope::PerSession] {
        let source = open_norms(&storage(), norms, ImportOptions::new(instrument.norm_ranges())).await.unwrap();
        let options = NormStoreOptions { scope, ..NormStoreOptions::default() };
        let context = context(NormStore::new(vec![source], ranges, options));
        let scoring = scoring(&instrument.chain.join(","), Layout::Wide);
        for session in golden_sessions() {
            let mut explanation = Explanation::new(&scoring, context.task_ctx(), session);
            for report in reports(&mut explanation).await {
                match report {
                    StageReport::RawScales(scales) => {
                        for scale in scales {
                            assert_eq!(scale.ranks.iter().map(|&rank| i16::from(rank)).sum::<i16>(), scale.raw);
                        }
                    }
                    StageReport::Style(style) => {
                        let distance = |name: &str| style.grid.iter().find(|cell| cell.style == name).unwrap().distance;
                        assert_eq!(distance(&style.style), 0);
                        let others = style.grid.iter().filter(|cell| cell.style != style.style);
                        assert_eq!(others.map(|cell| cell.distance).min(), Some(distance(&style.backup_style)));
                    }
                    StageReport::Flexibility(report) => {
                        let squares = report.rank_sums.each().map(|sum| (f64::from(*sum) - report.mean).powi(2));
                        assert_eq!(squares.iter().sum::<f64>(), f64::from(report.sum_of_squares));
                        assert_eq!(report.lfi, f64::from(report.lfi_raw) / f64::from(report.denominator));
                    }
                    StageReport::Percentiles(report) => {
                        for scale in report.scales {
                            let (percentile, norm_group) = (scale.percentile, scale.norm_group.clone());
                            answers_of_groups += usize::from(norm_group != PUBLISHED);
                            let last = &scale.steps.last().unwrap().step;
                            assert_eq!(last.outcome, StepOutcome::Used { percentile, norm_group }, "{scale:?}");
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(answers_of_groups > 50, "{answers_of_groups} answers by groups");
}
