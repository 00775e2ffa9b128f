//! One pool under load, seen from the server.

use std::time::{Duration, Instant};

use normstream::storage::{PoolMode, PoolOptions, Storage, StorageOptions};
use object_store::http::HttpBuilder;
use object_store::{ClientOptions, ObjectStoreExt};
use tokio::task::JoinSet;

use crate::support::static_files::StaticFiles;

const LATENCY: Duration = Duration::from_millis(20);
const TASKS: usize = 50;
const READS: usize = 30;

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

/// The same reads by fifteen clients of their own, side by side and without a pool: what the server and this machine allow at
/// the moment. On a machine with nothing else to do it is 15 divided by the latency.
async fn read_with_fifteen_clients(url: &str) -> Duration {
    let started = Instant::now();
    let mut clients = JoinSet::new();
    for client in 0..15 {
        let options = ClientOptions::new().with_allow_http(true);
        let store = HttpBuilder::new().with_url(url).with_client_options(options).build().unwrap();
        clients.spawn(async move {
            for read in (client..TASKS * READS).step_by(15) {
                let from = (read * 1000) as u64;
                assert_eq!(store.get_range(&"file".into(), from..from + 1000).await.unwrap().len(), 1000);
            }
        });
    }
    clients.join_all().await;
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_tasks_share_one_pool_and_all_succeed() {
    let web = StaticFiles::start(LATENCY);
    web.put("/file", content());
    let latency_bound = LATENCY * (TASKS * READS) as u32 / 15;
    let storage = storage(PoolOptions::default());
    let pooled = read_with_many_tasks(&storage, &web.server.url()).await;
    let status = &storage.status()[0];
    assert_eq!((status.timeouts, status.retries, status.checked_out), (0, 0, 0));
    assert!(status.waits > 0);
    // Fifteen at a time, at twenty milliseconds each: nothing can be faster than the pool lets it be.
    assert!(pooled >= latency_bound, "{pooled:?} is less than {latency_bound:?}");
    let (accepted, most_open) = (web.server.accepted(), web.server.most_open());
    drop(storage);
    all_closed(&web).await;
    let separate = read_with_fifteen_clients(&web.server.url()).await;
    println!("{pooled:?} over {accepted} connections, {most_open} at once; fifteen clients {separate:?}");
}

async fn all_closed(web: &StaticFiles) {
    while web.server.open() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
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
