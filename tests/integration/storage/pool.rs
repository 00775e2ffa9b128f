//! One pool under load, seen from the server: how many connections it sees, and how much it gets to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use normstream::storage::{PoolMode, PoolOptions, Storage, StorageOptions};
use object_store::http::HttpBuilder;
use object_store::{ClientOptions, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use tempfile::tempdir;
use tokio::task::JoinSet;

use crate::support::jobs;
use crate::support::static_files::StaticFiles;

const LATENCY: Duration = Duration::from_millis(20);
const TASKS: usize = 50;
const READS: usize = 10;
/// The permits of the pool that every test of the law uses: the default of 5 and 10.
const PERMITS: usize = 15;
/// What of the ideal throughput has to be reached.
const SHARE: f64 = 0.9;

fn storage(pool: PoolOptions) -> Storage {
    Storage::new(StorageOptions { pool, ..StorageOptions::default() }, []).unwrap()
}

/// Has `TASKS` tasks read ranges of a file `READS` times each, and says how long that took.
async fn read_with_many_tasks(storage: &Storage, url: &str) -> Duration {
    let at = storage.open(&format!("{url}/file")).unwrap();
    at.head().await.unwrap();
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let at = at.clone();
        tasks.spawn(async move {
            for read in 0..READS {
                let from = ((task * READS + read) * 1000) as u64;
                let bytes = at.read_range(from..from + 1000).await.unwrap();
                assert!(bytes.iter().all(|byte| *byte == ((from / 1000) % 251) as u8));
            }
        });
    }
    tasks.join_all().await;
    started.elapsed()
}

/// How long one client waits for an answer when nobody else asks: the server's twenty milliseconds, its timer, and the way.
async fn latency_of_one_client(url: &str) -> Duration {
    const ASKED: u32 = 20;
    let options = ClientOptions::new().with_allow_http(true);
    let store = HttpBuilder::new().with_url(url).with_client_options(options).build().unwrap();
    store.head(&"file".into()).await.unwrap();
    let started = Instant::now();
    for _ in 0..ASKED {
        store.get_range(&"file".into(), 0..1000).await.unwrap();
    }
    started.elapsed() / ASKED
}

/// The shorter times of a few rounds of two things: a machine that is busy for a moment slows one of them down.
async fn best_of_rounds<A: Future<Output = Duration>, B: Future<Output = Duration>>(
    one: impl Fn() -> A,
    other: impl Fn() -> B,
    enough: impl Fn(Duration, Duration) -> bool,
) -> (Duration, Duration) {
    let (mut best, mut best_other) = (Duration::MAX, Duration::MAX);
    for _ in 0..10 {
        best = best.min(one().await);
        best_other = best_other.min(other().await);
        if enough(best, best_other) {
            break;
        }
    }
    (best, best_other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_tasks_share_fifteen_connections_and_lose_no_time_by_it() {
    let (web, unpooled) = (StaticFiles::start(LATENCY), StaticFiles::start(LATENCY));
    web.put("/file", content());
    unpooled.put("/file", content());
    let storage = storage(PoolOptions::default());
    let (url, unpooled_url) = (web.server.url(), unpooled.server.url());
    // As many at a time as there are permits, each for as long as one answer takes.
    let ideal = |latency: Duration| latency * (TASKS * READS) as u32 / PERMITS as u32;
    let (pooled, latency) = best_of_rounds(
        || read_with_many_tasks(&storage, &url),
        || latency_of_one_client(&unpooled_url),
        |pooled, latency| pooled.mul_f64(SHARE) <= ideal(latency),
    )
    .await;
    let status = &storage.status()[0];
    println!(
        "{pooled:?} over {} connections, {} at once: {:.3} of the ideal at {latency:?} an answer",
        web.server.accepted(),
        web.server.most_open(),
        ideal(latency).as_secs_f64() / pooled.as_secs_f64()
    );
    assert_eq!((status.timeouts, status.retries, status.checked_out), (0, 0, 0));
    assert!(status.waits > 0);
    assert!(web.server.most_open() <= PERMITS, "{} connections were open at once", web.server.most_open());
    // Nothing can be faster than the pool lets it be.
    assert!(pooled >= ideal(LATENCY), "{pooled:?} at {LATENCY:?} an answer");
    assert!(pooled.mul_f64(SHARE) <= ideal(latency), "{pooled:?} at {latency:?} an answer");
}

/// A server of session files, one for each job.
struct Jobs {
    web: StaticFiles,
}

const SESSIONS: usize = 16_000;
/// So small that a job is many requests: its file is found, and of each row group columns and ranks are read.
const ROW_GROUP_ROWS: usize = 500;
/// Jobs with different files.
const DISTINCT: usize = 5;

impl Jobs {
    fn start() -> Jobs {
        let folder = tempdir().unwrap();
        let web = StaticFiles::start(LATENCY);
        web.put("/file", content());
        for number in 0..DISTINCT {
            let file = jobs::generated_sessions(&folder.path().join(format!("{number}.parquet")), SESSIONS, number);
            web.put(&format!("/{number}.parquet"), in_row_groups(file, ROW_GROUP_ROWS));
        }
        Jobs { web }
    }

    /// The same on a server of their own.
    fn on_another_server(&self) -> Jobs {
        Jobs { web: self.web.on_another_server(LATENCY) }
    }

    /// Scores the file of a task, and gives what is written.
    async fn score(&self, task: usize, storage: &Storage) -> Vec<u8> {
        let folder = tempdir().unwrap();
        let input = format!("{}/{}.parquet", self.web.server.url(), task % DISTINCT);
        let target = folder.path().join("scored.parquet");
        let report = jobs::score(storage, &[input], None, target.to_str().unwrap(), 1).await.unwrap();
        assert_eq!(report.sessions, SESSIONS as u64);
        std::fs::read(target).unwrap()
    }

    /// Scores the files of all tasks at once over `storage`.
    async fn score_at_once(self: &Arc<Self>, storage: &Storage) -> Duration {
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let (jobs, storage) = (Arc::clone(self), storage.clone());
            tasks.spawn(async move { (task, jobs.score(task, &storage).await) });
        }
        let results = tasks.join_all().await;
        let elapsed = started.elapsed();
        // Two tasks that have the same file have the same result.
        for (task, result) in &results {
            let (_, same) = results.iter().find(|(other, _)| other % DISTINCT == task % DISTINCT).unwrap();
            assert!(result == same, "task {task}");
        }
        elapsed
    }

    /// The same jobs, fifteen at a time, each with a connection of its own.
    async fn score_separately(self: &Arc<Self>) -> Duration {
        let started = Instant::now();
        let mut workers = JoinSet::new();
        for worker in 0..PERMITS {
            let jobs = Arc::clone(self);
            workers.spawn(async move {
                for task in (worker..TASKS).step_by(PERMITS) {
                    let own = PoolOptions { size: 1, max_overflow: 0, ..PoolOptions::default() };
                    jobs.score(task, &storage(own)).await;
                }
            });
        }
        workers.join_all().await;
        started.elapsed()
    }
}

/// The rows of a Parquet file in row groups of `rows`.
fn in_row_groups(file: Vec<u8>, rows: usize) -> Vec<u8> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file)).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows))
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(reader.schema()), Some(properties)).unwrap();
    for batch in reader.build().unwrap() {
        writer.write(&batch.unwrap()).unwrap();
    }
    writer.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_scoring_jobs_share_fifteen_connections_and_keep_them_busy() {
    let pooled = Arc::new(Jobs::start());
    let separate = Arc::new(pooled.on_another_server());
    let storage = storage(PoolOptions::default());
    let latency = latency_of_one_client(&separate.web.server.url()).await;
    let requests = || storage.status().iter().flat_map(|pool| &pool.requests).map(|(_, made)| *made).sum::<u64>();
    let mut best_share = 0.0_f64;
    for _ in 0..10 {
        let before = requests();
        let took = pooled.score_at_once(&storage).await;
        let made = requests() - before;
        // As many at a time as there are permits, each for as long as one answer takes.
        let ideal = latency * made as u32 / PERMITS as u32;
        let separately = separate.score_separately().await;
        let share = ideal.as_secs_f64() / took.as_secs_f64();
        println!(
            "{took:?} for {made} requests over {} connections: {share:.3} of the ideal at {latency:?} an answer; with a \
             connection for each {separately:?}",
            pooled.web.server.most_open()
        );
        // Without optimisation the work takes longer than the requests.
        let share =
            if cfg!(debug_assertions) { share.max(separately.as_secs_f64() / took.as_secs_f64()) } else { share };
        best_share = best_share.max(share);
        if best_share >= SHARE {
            break;
        }
    }
    let status = &storage.status()[0];
    assert_eq!((status.timeouts, status.retries, status.checked_out), (0, 0, 0));
    assert!(status.waits > 0);
    let most_open = pooled.web.server.most_open();
    assert!(most_open <= PERMITS, "{most_open} connections were open at once");
    assert!(best_share >= SHARE, "{best_share:.3} of the ideal");
}

/// A file in which each thousand bytes are alike.
fn content() -> Vec<u8> {
    (0..TASKS * READS * 1000).map(|byte| ((byte / 1000) % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adaptive_pool_grows_into_a_fast_server() {
    let web = StaticFiles::start(Duration::from_millis(2));
    web.put("/file", content());
    let storage = storage(PoolOptions { size: 2, max_overflow: 6, mode: PoolMode::Adaptive, ..PoolOptions::default() });
    storage.open(&format!("{}/file", web.server.url())).unwrap();
    assert_eq!(storage.status()[0].capacity, 2);
    read_with_many_tasks(&storage, &web.server.url()).await;
    let status = &storage.status()[0];
    assert!(status.capacity > 2 && status.capacity <= 8, "{}", status.capacity);
}
