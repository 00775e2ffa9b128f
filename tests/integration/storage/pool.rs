//! One pool under load, seen from the server: how many connections it sees, and how much it gets to do.

use std::time::{Duration, Instant};

use normstream::storage::{PoolMode, PoolOptions, Storage, StorageOptions};
use object_store::http::HttpBuilder;
use object_store::{ClientOptions, ObjectStoreExt};
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

/// A server of session files, and as many of them for each job as it says.
struct Jobs {
    web: StaticFiles,
    files: usize,
}

const SESSIONS: usize = 100;
/// Jobs with different files.
const DISTINCT: usize = 5;
/// To find a file, to read its footer, its columns, and its ranks.
const REQUESTS_OF_A_FILE: usize = 4;

impl Jobs {
    fn start(files: usize) -> Jobs {
        let folder = tempdir().unwrap();
        let web = StaticFiles::start(LATENCY);
        web.put("/file", content());
        for number in 0..DISTINCT * files {
            let path = folder.path().join(format!("{number}.parquet"));
            let bytes = jobs::generated_sessions(&path, SESSIONS, number + 1);
            web.put(&format!("/{}/{}.parquet", number / files, number % files), bytes);
        }
        Jobs { web, files }
    }

    fn inputs_of(&self, task: usize) -> Vec<String> {
        (0..self.files).map(|file| format!("{}/{}/{file}.parquet", self.web.server.url(), task % DISTINCT)).collect()
    }

    fn requests(&self) -> usize {
        TASKS * self.files * REQUESTS_OF_A_FILE
    }

    /// Scores the files of every task, all at once over `storage`.
    async fn score_at_once(&self, storage: &Storage) -> Duration {
        let folder = tempdir().unwrap();
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let (storage, inputs) = (storage.clone(), self.inputs_of(task));
            let (target, sessions) = (folder.path().join(format!("{task}.parquet")), self.files * SESSIONS);
            tasks.spawn(async move {
                let report = jobs::score(&storage, &inputs, None, target.to_str().unwrap(), 1).await.unwrap();
                assert_eq!(report.sessions, sessions as u64);
                (task, std::fs::read(target).unwrap())
            });
        }
        let results = tasks.join_all().await;
        let elapsed = started.elapsed();
        // Two tasks that have the same files have the same result.
        for (task, result) in &results {
            let (_, same) = results.iter().find(|(other, _)| other % DISTINCT == task % DISTINCT).unwrap();
            assert!(result == same, "task {task}");
        }
        elapsed
    }

    /// The same jobs, fifteen at a time, each with clients of its own.
    async fn score_separately(&self) -> Duration {
        let started = Instant::now();
        let mut workers = JoinSet::new();
        for worker in 0..PERMITS {
            let inputs: Vec<_> = (worker..TASKS).step_by(PERMITS).map(|task| (task, self.inputs_of(task))).collect();
            workers.spawn(async move {
                let folder = tempdir().unwrap();
                for (task, inputs) in inputs {
                    let target = folder.path().join(format!("{task}.parquet"));
                    let storage = storage(PoolOptions { size: 50, ..PoolOptions::default() });
                    jobs::score(&storage, &inputs, None, target.to_str().unwrap(), 1).await.unwrap();
                }
            });
        }
        workers.join_all().await;
        started.elapsed()
    }
}

/// Has fifty jobs scored over one pool, until they take no longer by a tenth than `limit` says of what the same jobs took without
/// a pool and of what fifteen connections need for their requests.
async fn fifty_scoring_jobs(files: usize, limit: impl Fn(Duration, Duration) -> Duration) {
    let (pooled, unpooled) = (Jobs::start(files), Jobs::start(files));
    let storage = storage(PoolOptions::default());
    let latency = latency_of_one_client(&unpooled.web.server.url()).await;
    let ideal = latency * pooled.requests() as u32 / PERMITS as u32;
    let (took, separate) = best_of_rounds(
        || pooled.score_at_once(&storage),
        || unpooled.score_separately(),
        |took, separate| took.mul_f64(SHARE) <= limit(separate, ideal),
    )
    .await;
    let (status, server) = (&storage.status()[0], &pooled.web.server);
    println!(
        "{took:?} over {} connections, {} at once: {:.3} of the ideal at {latency:?} an answer; each with its own clients \
         {separate:?}; {:?}",
        server.accepted(),
        server.most_open(),
        ideal.as_secs_f64() / took.as_secs_f64(),
        status.requests
    );
    assert_eq!((status.timeouts, status.retries, status.checked_out), (0, 0, 0));
    assert!(server.most_open() <= PERMITS, "{} connections were open at once", server.most_open());
    let made: u64 = status.requests.iter().map(|(_, made)| made).sum();
    assert_eq!(made % pooled.requests() as u64, 0, "the requests of some rounds");
    let limit = limit(separate, ideal);
    assert!(took.mul_f64(SHARE) <= limit, "{took:?} instead of {limit:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_scoring_jobs_share_fifteen_connections_and_lose_no_time_by_it() {
    fifty_scoring_jobs(2, |separate, _| separate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_scoring_jobs_keep_fifteen_connections_busy() {
    // Without optimisation the work takes longer than the requests.
    fifty_scoring_jobs(4, |separate, ideal| if cfg!(debug_assertions) { separate.max(ideal) } else { ideal }).await;
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
