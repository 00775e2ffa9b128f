#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::{self, BoxStream};
use proptest::prelude::*;

use crate::instrument::Instrument;
use crate::model::keyed_norms::KeyedNorms;
use crate::model::norm::{ChainScope, DEFAULT_VERSION, DenseNorms, GroupNorms, PUBLISHED, RawRange};
use crate::model::{PerScale, Scale};
use crate::norms::{
    ChainStep, FoundGroup, GroupName, GroupSummary, GroupToken, NormError, NormSource, NormStore, NormStoreOptions,
    PublishedNorms, StepOutcome,
};
use crate::storage::StorageError;

/// Groups held in memory, with a count of the loads.
#[derive(Debug, Default)]
struct MemorySource {
    groups: HashMap<(String, String), GroupNorms>,
    loads: AtomicUsize,
    delay: Duration,
    /// How many loads fail before one succeeds.
    failures: AtomicUsize,
}

impl MemorySource {
    fn with(mut self, group: &str, version: &str, rows: &[(Scale, i32, f64)]) -> Self {
        let mut norms = GroupNorms::default();
        for scale in Scale::ALL {
            let rows: Vec<_> = rows.iter().filter(|row| row.0 == scale).collect();
            if let (Some(lowest), Some(highest)) =
                (rows.iter().map(|row| row.1).min(), rows.iter().map(|row| row.1).max())
            {
                let mut percentiles = vec![f64::NAN; (highest - lowest + 1) as usize].into_boxed_slice();
                for (_, raw, percentile) in rows {
                    percentiles[(raw - lowest) as usize] = *percentile;
                }
                norms.scales[scale] = DenseNorms { lowest, percentiles };
            }
        }
        self.groups.insert((group.to_owned(), version.to_owned()), norms);
        self
    }

    fn loads(&self) -> usize {
        self.loads.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl NormSource for MemorySource {
    fn description(&self) -> String {
        "groups in memory".to_owned()
    }

    fn digest(&self) -> String {
        format!("{}", self.groups.len())
    }

    async fn load(&self, groups: &[GroupName<'_>]) -> Result<Vec<Option<GroupNorms>>, NormError> {
        self.loads.fetch_add(groups.len(), Ordering::Relaxed);
        tokio::time::sleep(self.delay).await;
        if self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            let source = object_store::Error::Generic { store: "memory", source: "busy".into() };
            return Err(StorageError::of_store("groups in memory", "read it", source).into());
        }
        let held = |name: &GroupName<'_>| self.groups.get(&(name.group.to_owned(), name.version.to_owned())).cloned();
        Ok(groups.iter().map(held).collect())
    }

    fn groups(&self) -> BoxStream<'_, Result<GroupSummary, NormError>> {
        stream::empty().boxed()
    }
}

fn store_of(source: &Arc<MemorySource>, options: NormStoreOptions) -> Arc<NormStore> {
    let source: Arc<dyn NormSource> = Arc::clone(source) as _;
    Arc::new(NormStore::new(vec![source], Instrument::klsi4().raw_ranges(), options))
}

fn store(source: MemorySource) -> Arc<NormStore> {
    store_of(&Arc::new(source), NormStoreOptions::default())
}

fn tokens(texts: &[&str]) -> Vec<GroupToken> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// What the store says of a session: the last step of each scale.
async fn answers(store: &NormStore, chain: &[GroupToken], raws: &PerScale<i32>) -> PerScale<(f64, String)> {
    let explained = store.explain_session(chain, raws).await.unwrap();
    PerScale::from_fn(|scale| match &explained[scale].last().unwrap().outcome {
        StepOutcome::Used { percentile, norm_group } => (*percentile, norm_group.clone()),
        other => panic!("the last step of {scale} answers: {other:?}"),
    })
}

#[tokio::test]
async fn the_most_specific_group_that_holds_the_raw_score_answers() {
    let store = store(MemorySource::default().with("COUNTRY:Spain", DEFAULT_VERSION, &[(Scale::Ce, 20, 40.0)]).with(
        "Total",
        DEFAULT_VERSION,
        &[(Scale::Ce, 20, 50.0), (Scale::Ce, 21, 55.0)],
    ));
    let chain = tokens(&["EDU:None", "COUNTRY:Spain", "Total"]);
    let lookup = async |raw| {
        let answer = store.lookup(&chain, Scale::Ce, raw).await.unwrap();
        (answer.percentile, answer.norm_group().to_owned())
    };
    assert_eq!(lookup(20).await, (40.0, "COUNTRY:Spain".to_owned()));
    assert_eq!(lookup(21).await, (55.0, "Total".to_owned()));
    assert_eq!(lookup(12).await, (7.4, "published".to_owned()));
    assert_eq!(lookup(48).await, (100.0, "published".to_owned()), "the nearest lower published raw score is 44");
}

#[tokio::test]
async fn an_explanation_names_every_step_up_to_the_one_that_answers() {
    let store = store(MemorySource::default().with("COUNTRY:Spain", DEFAULT_VERSION, &[(Scale::Ce, 20, 40.0)]).with(
        "Total",
        DEFAULT_VERSION,
        &[(Scale::Ce, 21, 55.0)],
    ));
    let step = |token: &str, outcome| ChainStep {
        token: token.to_owned(),
        version: (token != PUBLISHED).then(|| DEFAULT_VERSION.to_owned()),
        outcome,
    };
    let used = |percentile, norm_group: &str| StepOutcome::Used { percentile, norm_group: norm_group.to_owned() };
    let chain = tokens(&["EDU:None", "COUNTRY:Spain", "Total"]);
    assert_eq!(
        store.explain(&chain, Scale::Ce, 21).await.unwrap(),
        [
            step("EDU:None", StepOutcome::NoSuchGroup),
            step("COUNTRY:Spain", StepOutcome::NoSuchRawScore),
            step("Total", used(55.0, "Total")),
        ]
    );
    assert_eq!(
        store.explain(&chain[..1], Scale::Ce, 12).await.unwrap(),
        [step("EDU:None", StepOutcome::NoSuchGroup), step("published", used(7.4, "published"))]
    );
}

#[tokio::test]
async fn per_session_an_explanation_says_which_scales_a_group_lacks() {
    let source = MemorySource::default().with("Total", DEFAULT_VERSION, &[(Scale::Ce, 20, 50.0)]);
    let options = NormStoreOptions { scope: ChainScope::PerSession, ..NormStoreOptions::default() };
    let store = store_of(&Arc::new(source), options);
    let raws = PerScale([20, 30, 30, 30, 10, 0, 320]);
    let steps = store.explain_session(&tokens(&["Total"]), &raws).await.unwrap();
    let lacking = vec!["ro", "ac", "ae", "acce", "aero", "lfi"];
    assert_eq!(steps[Scale::Ce][0].outcome, StepOutcome::LacksOtherScales { scales: lacking, percentile: 50.0 });
    assert_eq!(steps[Scale::Ro][0].outcome, StepOutcome::NoSuchRawScore);
    assert!(matches!(&steps[Scale::Ce][1].outcome, StepOutcome::Used { norm_group, .. } if norm_group == PUBLISHED));
}

#[tokio::test]
async fn a_version_falls_back_to_the_default_one_only_when_allowed() {
    let source = Arc::new(MemorySource::default().with("Total", DEFAULT_VERSION, &[(Scale::Ce, 20, 50.0)]).with(
        "Total",
        "2026",
        &[(Scale::Ce, 20, 60.0)],
    ));
    let answer = async |allow_version_fallback, token: &str| {
        let store = store_of(&source, NormStoreOptions { allow_version_fallback, ..NormStoreOptions::default() });
        answers(&store, &tokens(&[token]), &PerScale([20, 30, 30, 30, 10, 0, 320])).await[Scale::Ce].clone()
    };
    assert_eq!(answer(false, "Total|2026").await, (60.0, "Total|2026".to_owned()));
    assert_eq!(answer(false, "Total|default").await, (50.0, "Total".to_owned()));
    assert_eq!(answer(true, "Total|1999").await, (50.0, "Total".to_owned()), "the name says which version answered");
    assert_eq!(answer(false, "Total|1999").await.1, "published");
}

#[tokio::test]
async fn the_first_source_that_has_the_group_answers_for_it() {
    let first = MemorySource::default().with("Total", DEFAULT_VERSION, &[(Scale::Ce, 20, 50.0)]);
    let second = MemorySource::default()
        .with("Total", DEFAULT_VERSION, &[(Scale::Ce, 20, 1.0), (Scale::Ce, 21, 2.0)])
        .with("Other", DEFAULT_VERSION, &[(Scale::Ce, 21, 3.0)]);
    let ranges = Instrument::klsi4().raw_ranges();
    let store = NormStore::new(vec![Arc::new(first), Arc::new(second)], ranges, NormStoreOptions::default());
    let lookup = async |token: &str, raw| store.lookup(&tokens(&[token]), Scale::Ce, raw).await.unwrap();
    assert_eq!(lookup("Total", 20).await.percentile, 50.0);
    assert_eq!(lookup("Total", 21).await.norm_group(), "published", "sources are not merged");
    assert_eq!(lookup("Other", 21).await.percentile, 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_tasks_that_want_one_group_load_it_once() {
    let source = Arc::new(MemorySource {
        delay: Duration::from_millis(20),
        ..MemorySource::default().with("Total", DEFAULT_VERSION, &[(Scale::Ce, 20, 50.0)])
    });
    let store = store_of(&source, NormStoreOptions::default());
    let tasks = (0..64).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.lookup(&tokens(&["Total"]), Scale::Ce, 20).await.unwrap().percentile })
    });
    for percentile in join_all(tasks).await {
        assert_eq!(percentile.unwrap(), 50.0);
    }
    let stats = store.stats();
    assert_eq!((source.loads(), stats.loads, stats.misses, stats.hits), (1, 1, 1, 63));
    assert_eq!(stats.hit_rate, 63.0 / 64.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tasks_that_waited_for_one_group_go_on_at_the_same_time() {
    let source = MemorySource { delay: Duration::from_millis(50), ..MemorySource::default() };
    let store = store(source.with("A", DEFAULT_VERSION, &[(Scale::Ce, 12, 10.0)]));
    let went_on = Arc::new(AtomicUsize::new(0));
    let tasks = (0..2).map(|_| {
        let (store, went_on) = (Arc::clone(&store), Arc::clone(&went_on));
        tokio::spawn(async move {
            store.find_all(&tokens(&["A"])).await.unwrap();
            went_on.fetch_add(1, Ordering::SeqCst);
            // As scoring does: it keeps its thread.
            let started = Instant::now();
            while went_on.load(Ordering::SeqCst) < 2 && started.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(1));
            }
            went_on.load(Ordering::SeqCst)
        })
    });
    for task in join_all(tasks).await {
        assert_eq!(task.unwrap(), 2, "one of them had to wait for the thread of the other");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_that_want_each_others_groups_load_each_once_and_wait_for_no_circle() {
    let mut source = MemorySource { delay: Duration::from_millis(2), ..MemorySource::default() };
    for number in 0..40 {
        source = source.with(&format!("G:{number}"), DEFAULT_VERSION, &[(Scale::Ce, 20, f64::from(number))]);
    }
    let source = Arc::new(source);
    let store = store_of(&source, NormStoreOptions::default());
    let tasks = (0..16).map(|task| {
        let store = Arc::clone(&store);
        // Each begins elsewhere, half of them backwards, and asks for its last group twice.
        let mut numbers: Vec<usize> = (0..40).map(|step| (task * 7 + step) % 40).collect();
        if task % 2 == 1 {
            numbers.reverse();
        }
        numbers.push(numbers[39]);
        tokio::spawn(async move {
            for numbers in numbers.chunks(9) {
                let wanted = numbers.iter().map(|number| GroupToken::new(format!("G:{number}"))).collect::<Vec<_>>();
                let found = store.find_all(&wanted).await.unwrap();
                let percentile = |found: &Option<Arc<FoundGroup>>| found.as_ref()?.norms.percentile(Scale::Ce, 20);
                let percentiles: Vec<Option<f64>> = found.iter().map(percentile).collect();
                assert_eq!(percentiles, numbers.iter().map(|number| Some(*number as f64)).collect::<Vec<_>>());
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    let stats = store.stats();
    assert_eq!((source.loads(), stats.loads, stats.misses, stats.entries), (40, 40, 40, 40));
}

#[tokio::test]
async fn groups_found_together_fall_back_to_the_default_version_one_by_one() {
    let of = |percentile| [(Scale::Ce, 20, percentile)];
    let source = MemorySource::default().with("A", "2026", &of(1.0)).with("A", DEFAULT_VERSION, &of(2.0)).with(
        "B",
        DEFAULT_VERSION,
        &of(3.0),
    );
    let options = NormStoreOptions { allow_version_fallback: true, ..NormStoreOptions::default() };
    let store = store_of(&Arc::new(source), options);
    let found = store.find_all(&tokens(&["A|2026", "B|2026", "C|2026", "A"])).await.unwrap();
    let found: Vec<Option<(&str, Option<f64>)>> = found
        .iter()
        .map(|found| found.as_ref().map(|found| (found.name.as_str(), found.norms.percentile(Scale::Ce, 20))))
        .collect();
    assert_eq!(found, [Some(("A|2026", Some(1.0))), Some(("B", Some(3.0))), None, Some(("A", Some(2.0)))]);
}

/// A group of so many raw scores from 0, each with a percentile of its own from `first` millionths on.
fn distinct(first: usize, rows: usize) -> Vec<(Scale, i32, f64)> {
    (0..rows).map(|row| (Scale::Ce, row as i32, (first + row) as f64 / 1e6)).collect()
}

#[tokio::test]
async fn groups_of_more_distinct_percentiles_than_there_are_keys_answer_all() {
    let rows = 1_000;
    let source = (0..140).fold(MemorySource::default(), |source, group| {
        source.with(&format!("G:{group}"), DEFAULT_VERSION, &distinct(group * rows, rows))
    });
    let store = store(source);
    let names: Vec<String> = (0..140).map(|group| format!("G:{group}")).collect();
    let tokens = tokens(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let found: Vec<_> = store.find_all(&tokens).await.unwrap().into_iter().flatten().collect();
    for (group, found) in found.iter().enumerate() {
        for raw in [0, 1, 500, 999] {
            let expected = (group * rows + raw) as f64 / 1e6;
            assert_eq!(found.norms.percentile(Scale::Ce, raw as i32), Some(expected), "{group} {raw}");
        }
    }
    let changes = found.windows(2).filter(|two| !Arc::ptr_eq(two[0].norms.dictionary(), two[1].norms.dictionary()));
    assert_eq!(changes.count(), 2, "65,535 keys are enough for 65 groups");
}

#[tokio::test]
async fn a_group_of_more_distinct_percentiles_than_there_are_keys_is_an_error_that_names_it() {
    let store = store(MemorySource::default().with("Odd", DEFAULT_VERSION, &distinct(0, 65_536)));
    let error = store.find(&"Odd".parse().unwrap()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the norms of 'Odd' have more than 65535 distinct percentiles: round them, and import them anew"
    );
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn a_group_that_does_not_exist_is_asked_for_once() {
    let source = Arc::new(MemorySource::default());
    let store = store_of(&source, NormStoreOptions::default());
    assert!(store.find(&"EDU:None".parse().unwrap()).await.unwrap().is_none());
    store.lookup(&tokens(&["EDU:None"]), Scale::Ce, 20).await.unwrap();
    store.lookup(&tokens(&["EDU:None", "EDU:Nothing"]), Scale::Ce, 20).await.unwrap();
    assert_eq!(source.loads(), 2, "one for each of the two groups");
}

#[tokio::test]
async fn a_failed_load_is_told_as_retryable_and_tried_again() {
    let source = Arc::new(MemorySource {
        failures: AtomicUsize::new(1),
        ..MemorySource::default().with("Total", DEFAULT_VERSION, &[(Scale::Ce, 20, 50.0)])
    });
    let store = store_of(&source, NormStoreOptions::default());
    let error = store.find(&"Total".parse().unwrap()).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(error.to_string().starts_with("groups in memory: cannot read it"), "{error}");
    let answer = store.lookup(&tokens(&["Total"]), Scale::Ce, 20).await.unwrap();
    assert_eq!(answer.percentile, 50.0);
    assert_eq!(store.stats().entries, 1);
}

#[tokio::test]
async fn the_cache_stays_within_its_bounds_and_answers_stay_right() {
    let mut source = MemorySource::default();
    for number in 0..200 {
        source = source.with(&format!("G:{number}"), DEFAULT_VERSION, &[(Scale::Ce, 20, f64::from(number) / 2.0)]);
    }
    let options = NormStoreOptions { cache_entries: 10, cache_bytes: 100_000, ..NormStoreOptions::default() };
    let store = store_of(&Arc::new(source), options);
    for round in 0..3 {
        for number in 0..200 {
            let chain = tokens(&[&format!("G:{number}")]);
            let answer = answers(&store, &chain, &PerScale([20, 30, 30, 30, 10, 0, 320])).await[Scale::Ce].clone();
            assert_eq!(answer, (f64::from(number) / 2.0, format!("G:{number}")), "round {round}");
        }
    }
    let stats = store.stats();
    assert!(stats.entries <= 10, "{stats:?}");
    assert!(stats.bytes <= 100_000, "{stats:?}");
    assert!(stats.evictions > 500, "{stats:?}");
    assert!(stats.loads > 200, "evicted groups are loaded again: {stats:?}");
}

#[tokio::test]
async fn lookups_in_groups_that_are_held_count_when_told() {
    let store = store(MemorySource::default().with("Total", DEFAULT_VERSION, &[(Scale::Ce, 20, 50.0)]));
    let found = store.find(&"Total".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(found.norms.percentile(Scale::Ce, 20), Some(50.0));
    assert_eq!(store.group_names().value(found.id as usize), "Total");
    store.record_hits(9_999);
    let stats = store.stats();
    assert_eq!((stats.hits, stats.misses, stats.entries), (9_999, 1, 1));
    assert_eq!(stats.hit_rate, 0.9999);
    let json = serde_json::to_value(&stats).unwrap();
    assert_eq!((&json["hits"], &json["loads"]), (&9_999.into(), &1.into()));
    assert!(json["last_load"].as_str().unwrap().ends_with('Z'), "{json}");
}

#[test]
fn the_digest_follows_sources_and_rules_but_not_cache_sizes() {
    let source = Arc::new(MemorySource::default());
    let digest = |options| store_of(&source, options).digest();
    let base = digest(NormStoreOptions::default());
    assert_eq!(base.len(), 64);
    assert_eq!(digest(NormStoreOptions { cache_entries: 1, cache_bytes: 1, ..NormStoreOptions::default() }), base);
    assert_ne!(digest(NormStoreOptions { scope: ChainScope::PerSession, ..NormStoreOptions::default() }), base);
    assert_ne!(digest(NormStoreOptions { allow_version_fallback: true, ..NormStoreOptions::default() }), base);
    let more = Arc::new(MemorySource::default().with("Total", DEFAULT_VERSION, &[(Scale::Ce, 20, 50.0)]));
    assert_ne!(store_of(&more, NormStoreOptions::default()).digest(), base);
}

/// Some rows of one group: a scale, a raw score that it can take, a percentile.
fn any_rows() -> impl Strategy<Value = Vec<(Scale, i32, f64)>> {
    let ranges = Instrument::klsi4().raw_ranges();
    let row = (0..7usize, 0.0..1.0f64, 0..1_000u16).prop_map(move |(scale, place, percentile)| {
        let scale = Scale::ALL[scale];
        (scale, at(ranges[scale], place), f64::from(percentile) / 10.0)
    });
    prop::collection::vec(row, 0..400)
}

fn any_raws() -> impl Strategy<Value = PerScale<i32>> {
    let ranges = Instrument::klsi4().raw_ranges();
    prop::array::uniform7(0.0..1.0f64)
        .prop_map(move |places| PerScale::from_fn(|scale| at(ranges[scale], places[scale as usize])))
}

fn at(range: RawRange, place: f64) -> i32 {
    range.lowest + (f64::from(range.highest - range.lowest + 1) * place) as i32
}

/// The rule as it is written down, a step at a time.
fn step_by_step(groups: &[Arc<KeyedNorms>], scope: ChainScope, raws: &PerScale<i32>) -> PerScale<(f64, String)> {
    let answer = |norms: &KeyedNorms, scale: Scale| norms.percentile(scale, raws[scale]);
    let all = groups.iter().position(|norms| Scale::ALL.into_iter().all(|scale| answer(norms, scale).is_some()));
    PerScale::from_fn(|scale| {
        let chosen = match scope {
            ChainScope::PerScale => groups.iter().position(|norms| answer(norms, scale).is_some()),
            ChainScope::PerSession => all,
        };
        match chosen {
            Some(index) => (answer(&groups[index], scale).unwrap(), format!("G:{index}")),
            None => (PublishedNorms::klsi4().nearest_lower(scale, raws[scale]), PUBLISHED.to_owned()),
        }
    })
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// A store over groups `G:0`, `G:1`, …, and the chain of the first `length` of them.
fn store_and_chain(groups: &[Vec<(Scale, i32, f64)>], scope: ChainScope) -> (Arc<NormStore>, Vec<GroupToken>) {
    let mut source = MemorySource::default();
    for (index, rows) in groups.iter().enumerate() {
        source = source.with(&format!("G:{index}"), DEFAULT_VERSION, rows);
    }
    let chain = (0..groups.len()).map(|index| GroupToken::new(format!("G:{index}"))).collect();
    (store_of(&Arc::new(source), NormStoreOptions { scope, ..NormStoreOptions::default() }), chain)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_store_answers_as_the_rule_does_step_by_step(
        groups in prop::collection::vec(any_rows(), 0..4),
        sessions in prop::collection::vec(any_raws(), 1..20),
        per_session in any::<bool>(),
    ) {
        let scope = if per_session { ChainScope::PerSession } else { ChainScope::PerScale };
        let (store, chain) = store_and_chain(&groups, scope);
        run(async {
            let mut held = Vec::new();
            for token in &chain {
                held.push(Arc::clone(&store.find(token).await.unwrap().unwrap().norms));
            }
            for raws in &sessions {
                assert_eq!(answers(&store, &chain, raws).await, step_by_step(&held, scope, raws));
            }
        });
    }

    #[test]
    fn a_less_specific_group_never_changes_what_a_more_specific_one_answered(
        groups in prop::collection::vec(any_rows(), 1..4),
        sessions in prop::collection::vec(any_raws(), 1..20),
        per_session in any::<bool>(),
    ) {
        let scope = if per_session { ChainScope::PerSession } else { ChainScope::PerScale };
        let (store, chain) = store_and_chain(&groups, scope);
        run(async {
            let shorter = &chain[..chain.len() - 1];
            for raws in &sessions {
                let (before, after) = (answers(&store, shorter, raws).await, answers(&store, &chain, raws).await);
                for (scale, answer) in before.iter() {
                    assert!(answer.1 == PUBLISHED || *answer == after[scale], "{scale}: {answer:?}, {:?}", after[scale]);
                }
            }
        });
    }
}
