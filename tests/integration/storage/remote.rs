//! Reading over a network hides its latency.

use std::time::{Duration, Instant};

use normstream::storage::{Storage, StorageOptions};
use tempfile::tempdir;

use crate::support::jobs;
use crate::support::normstream;
use crate::support::static_files::StaticFiles;

const LATENCY: Duration = Duration::from_millis(20);
/// What reading over HTTP may take of the time that reading from disk takes.
const MOST: f64 = 1.3;
/// How many sessions are read. Opening a file takes some requests one after the other, which a small file cannot hide.
const SESSIONS: usize = 1_000_000;
/// Row groups of the file.
const ROW_GROUPS: usize = 8;

async fn timed(input: &str, target: &std::path::Path) -> Duration {
    let storage = Storage::new(StorageOptions::default(), []).unwrap();
    let _ = std::fs::remove_file(target);
    let started = Instant::now();
    let report = jobs::score(&storage, &[input.to_owned()], None, target.to_str().unwrap(), 2).await.unwrap();
    let elapsed = started.elapsed();
    assert_eq!(report.sessions, SESSIONS as u64);
    elapsed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scoring_over_http_with_latency_takes_little_longer_than_from_disk() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("sessions.parquet");
    let row_groups = SESSIONS.div_ceil(ROW_GROUPS).to_string();
    normstream()
        .env("NORMSTREAM_ROW_GROUP_ROWS", row_groups)
        .args(["generate", "sessions", "--rows", &SESSIONS.to_string(), "--to"])
        .arg(&file)
        .assert()
        .success();
    let web = StaticFiles::start(LATENCY);
    web.put("/sessions.parquet", std::fs::read(&file).unwrap());
    let (from_disk, over_http) = (folder.path().join("disk.parquet"), folder.path().join("http.parquet"));
    let (mut disk, mut http) = (Duration::MAX, Duration::MAX);
    for _ in 0..10 {
        disk = disk.min(timed(file.to_str().unwrap(), &from_disk).await);
        http = http.min(timed(&format!("{}/sessions.parquet", web.server.url()), &over_http).await);
        assert!(std::fs::read(&from_disk).unwrap() == std::fs::read(&over_http).unwrap());
        // A machine that is busy for a moment slows one of the two down.
        if http <= disk.mul_f64(MOST) {
            break;
        }
    }
    let ratio = http.as_secs_f64() / disk.as_secs_f64();
    println!("{SESSIONS} sessions: {disk:?} from disk, {http:?} over HTTP with {LATENCY:?} latency: {ratio:.2} times");
    assert!(ratio <= MOST, "{ratio:.2} times");
}
