//! What does a percentile cost, and what do norms of 500,000 rows cost before anything is asked of them?
//!
//! `cargo bench --bench norms` first prints what opening costs in memory and the hit rate of a million sessions over 1,400
//! groups, then measures: a warm lookup (at most 100 ns), a cold one on local disk (at most 1 ms), warm lookups by 8 tasks at
//! once, and opening. With `NORMS=FOLDER` before it, it opens the imported tables in that folder too, each time anew (at most
//! 50 ms for a hundred million rows: `normstream generate norms --groups 280000`). Compare with an earlier state by `-- --save-baseline NAME` there and `-- --baseline NAME` here.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::cell::Cell;
use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use normstream::instrument::Instrument;
use normstream::model::Scale;
use normstream::model::norm::GroupNorms;
use normstream::norms::{
    GroupName, GroupToken, ImportOptions, NormSource, NormStore, NormStoreOptions, ParquetNorms, import,
};
use normstream::storage::{Location, Storage, StorageOptions};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const GROUPS: usize = 1_400;
/// Raw scores that a group holds: 357 of the 615 possible ones, so that the table has 499,800 rows.
const ROWS_PER_GROUP: usize = 357;
const SESSIONS: usize = 1_000_000;
const TASKS: usize = 8;

/// An imported table of half a million rows.
struct Table {
    directory: TempDir,
    storage: Storage,
}

impl Table {
    fn new(runtime: &Runtime) -> Table {
        let directory = TempDir::new().unwrap();
        let csv = directory.path().join("norms.csv");
        let mut file = std::io::BufWriter::new(std::fs::File::create(&csv).unwrap());
        writeln!(file, "norm_group,scale,raw_score,percentile").unwrap();
        let raws: Vec<(Scale, i32)> = Instrument::klsi4()
            .raw_ranges()
            .iter()
            .flat_map(|(scale, range)| (range.lowest..=range.highest).map(move |raw| (scale, raw)))
            .filter(|(scale, raw)| *scale != Scale::Lfi || raw % 2 == 0)
            .take(ROWS_PER_GROUP)
            .collect();
        for group in 0..GROUPS {
            let (mut scale_before, mut percentile) = (None, 0.0);
            for (scale, raw) in &raws {
                percentile = if scale_before == Some(*scale) { percentile + 0.5 } else { (group % 10) as f64 };
                scale_before = Some(*scale);
                writeln!(file, "{},{scale},{raw},{percentile}", group_name(group)).unwrap();
            }
        }
        file.into_inner().unwrap();
        let table = Table { directory, storage: Storage::new(StorageOptions::default(), []).unwrap() };
        let csv = table.storage.open(csv.to_str().unwrap()).unwrap();
        let options = ImportOptions::new(Instrument::klsi4().norm_ranges());
        let report = runtime.block_on(import(&table.storage, vec![csv], &table.place(), options)).unwrap();
        println!("table: {} groups, {} rows, {} bytes", GROUPS, report.rows(), report.tables[0].bytes);
        table
    }

    fn place(&self) -> Location {
        self.storage.open(self.directory.path().join("norms").to_str().unwrap()).unwrap()
    }
}

async fn load_one(source: &ParquetNorms, group: &str) -> GroupNorms {
    let name = GroupName { group, version: "default" };
    source.load(&[name]).await.unwrap().pop().flatten().unwrap()
}

fn group_name(number: usize) -> String {
    format!("COUNTRY:Region {number:04}")
}

/// The chain of a session of one group, as long as the default one.
fn chain(number: usize) -> Vec<GroupToken> {
    let others = ["EDU:Bachelor's Degree", "AGE:25-34", "GENDER:Female", "Total"];
    let mut tokens: Vec<GroupToken> = others.map(GroupToken::new).to_vec();
    tokens.insert(1, GroupToken::new(group_name(number % GROUPS)));
    tokens
}

async fn open(at: &Location) -> NormStore {
    let source = ParquetNorms::open(at, 100).await.unwrap();
    NormStore::new(vec![Arc::new(source)], Instrument::klsi4().raw_ranges(), NormStoreOptions::default())
}

fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// What opening the table and looking up a few groups adds to the process.
fn report_memory(runtime: &Runtime, at: &Location) {
    let published = NormStore::new(Vec::new(), Instrument::klsi4().raw_ranges(), NormStoreOptions::default());
    let before = resident_kib();
    let started = Instant::now();
    let store = runtime.block_on(open(at));
    let took = started.elapsed();
    let opened = resident_kib();
    runtime.block_on(async {
        for session in 0..1_000 {
            black_box(store.lookup(&chain(session % 8), Scale::Ce, 20).await.unwrap());
        }
    });
    println!(
        "open: {:.2} ms; resident memory +{} KiB opened, +{} KiB after 1,000 sessions of 8 groups",
        took.as_secs_f64() * 1e3,
        opened - before,
        resident_kib() - before
    );
    println!("stats: {}", serde_json::to_string(&store.stats()).unwrap());
    drop(published);
}

/// A million sessions whose groups are spread evenly over the table.
fn report_hit_rate(runtime: &Runtime, at: &Location) {
    let store = runtime.block_on(open(at));
    let chains: Vec<Vec<GroupToken>> = (0..GROUPS).map(chain).collect();
    let mut random = Pcg64Mcg::seed_from_u64(7);
    let started = Instant::now();
    runtime.block_on(async {
        for _ in 0..SESSIONS {
            let tokens = &chains[random.random_range(0..GROUPS)];
            black_box(store.lookup(tokens, Scale::Ce, 20).await.unwrap());
        }
    });
    let stats = store.stats();
    println!(
        "hit rate: {:.3} % of {} lookups by {SESSIONS} sessions over {GROUPS} groups, {:.2} s",
        stats.hit_rate * 100.0,
        stats.hits + stats.misses,
        started.elapsed().as_secs_f64()
    );
    println!("stats: {}", serde_json::to_string(&stats).unwrap());
}

fn norms(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let table = Table::new(&runtime);
    let place = table.place();
    report_memory(&runtime, &place);
    report_hit_rate(&runtime, &place);

    let mut group = criterion.benchmark_group("norms");
    group.bench_function("open, 500,000 rows", |bencher| bencher.to_async(&runtime).iter(|| open(&place)));

    if let Some(folder) = std::env::var_os("NORMS") {
        let place = table.storage.open(folder.to_str().unwrap()).unwrap();
        let rows = runtime.block_on(ParquetNorms::open(&place, 100)).unwrap().rows();
        group.bench_function(format!("open, {rows} rows"), |bencher| {
            bencher.to_async(&runtime).iter(|| open(&place));
        });
    }

    let store = Arc::new(runtime.block_on(open(&place)));
    let tokens: Vec<GroupToken> = (0..64).map(|number| GroupToken::new(group_name(number))).collect();
    let asked = Cell::new(0);
    let next = || asked.replace(asked.get() + 1);
    group.bench_function("warm lookup: the group by its token, then an index", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            let token = &tokens[next() % tokens.len()];
            store.find(token).await.unwrap().unwrap().norms.percentile(Scale::Ce, 20)
        });
    });
    group.bench_function("warm lookup: percentile and provenance of a chain whose first group answers", |bencher| {
        let chains: Vec<[GroupToken; 1]> = tokens.iter().map(|token| [token.clone()]).collect();
        bencher.to_async(&runtime).iter(|| async {
            let chain = &chains[next() % chains.len()];
            let answer = store.lookup(chain, Scale::Ce, 20).await.unwrap();
            black_box(answer.norm_group().len());
            answer.percentile
        });
    });
    let held = runtime.block_on(store.find(&tokens[0])).unwrap().unwrap();
    group.bench_function("warm lookup: an index into a group that is held, as in bulk", |bencher| {
        bencher.iter(|| held.norms.percentile(Scale::Ce, black_box(20)));
    });

    let source = runtime.block_on(ParquetNorms::open(&place, 100)).unwrap();
    group.bench_function("cold lookup: load a group, page index known", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            let number = next() * 37 % 44;
            load_one(&source, &group_name(number)).await
        });
    });
    group.bench_function("cold lookup: load a group, nothing known", |bencher| {
        bencher.to_async(&runtime).iter_custom(|iterations| {
            let place = place.clone();
            async move {
                let mut loading = Duration::ZERO;
                for _ in 0..iterations {
                    let source = ParquetNorms::open(&place, 100).await.unwrap();
                    let started = Instant::now();
                    black_box(load_one(&source, &group_name(700)).await);
                    loading += started.elapsed();
                }
                loading
            }
        });
    });

    let names: Vec<String> = (0..GROUPS).map(group_name).collect();
    let all: Vec<GroupName<'_>> = names.iter().map(|group| GroupName { group, version: "default" }).collect();
    group.sample_size(20);
    group.bench_function("cold lookup: load all groups together", |bencher| {
        bencher.to_async(&runtime).iter(|| async { source.load(&all).await.unwrap().len() });
    });
    group.sample_size(100);

    group.throughput(Throughput::Elements((TASKS * 10_000) as u64));
    group.bench_function("warm lookups of 8 tasks at once", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            let tasks = (0..TASKS).map(|task| {
                let (store, token) = (Arc::clone(&store), tokens[task].clone());
                tokio::spawn(async move {
                    let mut found = 0;
                    for _ in 0..10_000 {
                        found += usize::from(store.find(&token).await.unwrap().is_some());
                    }
                    found
                })
            });
            futures::future::join_all(tasks).await
        });
    });
    group.finish();
}

criterion_group!(benches, norms);
criterion_main!(benches);
