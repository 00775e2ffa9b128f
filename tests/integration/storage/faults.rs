//! Reads and writes through a proxy that does what networks do: every run ends with the right bytes, or with a clear error
//! and without a target.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use normstream::engine::EngineError;
use normstream::error::Error;
use normstream::run::{RunError, RunReport};
use normstream::storage::{
    Creation, Pinned, PoolOptions, RetryOptions, Storage, StorageError, StorageOptions, UploadOptions,
};
use object_store::ObjectStore;
use tempfile::tempdir;

use crate::support::faulty_proxy::{Fault, FaultyProxy};
use crate::support::http_server::{Server, serve_file};
use crate::support::jobs;
use crate::support::s3_server::S3Server;
use crate::support::static_files::StaticFiles;

const RETRIES: usize = 4;

fn options() -> StorageOptions {
    StorageOptions {
        retry: RetryOptions {
            max_retries: RETRIES,
            timeout: Duration::from_secs(20),
            initial_backoff: Duration::from_millis(1),
            max_backoff: Duration::from_millis(4),
        },
        pool: PoolOptions { size: 2, max_overflow: 2, ..PoolOptions::default() },
        upload: UploadOptions { part_size: 5 * 1024 * 1024, parts_in_flight: 2 },
        ..StorageOptions::default()
    }
}

fn content(file: usize) -> Vec<u8> {
    (0..40_000 + file * 10_000).map(|byte| ((byte * (file + 3)) % 251) as u8).collect()
}

/// The errors a fault may end in: they say which object, and what happened to it.
fn is_clear(error: &StorageError) -> bool {
    matches!(
        error,
        StorageError::Http { .. }
            | StorageError::Changed { .. }
            | StorageError::BrokenBody { .. }
            | StorageError::OutcomeUnknown { .. }
            | StorageError::Store { .. }
    )
}

/// Copies five files of the server, pinned as they are when it begins, into one local file: each first in ranges, then
/// whole.
async fn copy(storage: &Storage, url: &str, target: &str) -> Result<(), StorageError> {
    let mut upload = storage.upload(&storage.open(target)?, false).await?;
    for file in 0..5 {
        let at = storage.open(&format!("{url}/{file}"))?;
        let meta = at.head().await?;
        let name = at.store_url.to_string();
        let pinned = Pinned::new(at.store.clone(), name, [&meta]);
        let third = meta.size / 3;
        let ranges = [0..third, third..2 * third, 2 * third..meta.size];
        let read = pinned.get_ranges(&at.path, &ranges).await;
        for bytes in read.map_err(|error| StorageError::of_store(at.to_string(), "read it", error))? {
            upload.write(bytes).await?;
        }
        upload.write(at.read().await?).await?;
    }
    upload.commit().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_two_hundred_seeds_a_copy_is_right_or_an_error_without_a_target() {
    let web = StaticFiles::start(Duration::ZERO);
    let mut expected = Vec::new();
    for file in 0..5 {
        web.put(&format!("/{file}"), content(file));
        expected.extend(content(file).repeat(2));
    }
    let folder = tempdir().unwrap();
    let (mut right, mut wrong) = (0, BTreeMap::<String, usize>::new());
    let (mut faults, mut retries) = (0, 0);
    for seed in 0..200 {
        // From a good day to a very bad one.
        let probability = [0.02, 0.1, 0.3, 0.6][seed as usize % 4];
        let proxy = FaultyProxy::start(web.server.address, seed, probability, &Fault::ALL);
        let storage = Storage::new(options(), []).unwrap();
        let target = folder.path().join(format!("{seed}"));
        match copy(&storage, &proxy.server.url(), target.to_str().unwrap()).await {
            Ok(()) => {
                assert!(std::fs::read(&target).unwrap() == expected, "seed {seed}");
                right += 1;
            }
            Err(error) => {
                assert!(is_clear(&error), "seed {seed}: {error:?}");
                assert!(!target.exists(), "seed {seed}: {error}");
                *wrong.entry(error.to_string().split(": ").last().unwrap().chars().take(40).collect()).or_default() +=
                    1;
            }
        }
        let status = &storage.status()[0];
        let begun: u64 = status.requests.iter().map(|(_, count)| count).sum();
        assert!(status.retries <= begun * 2 * RETRIES as u64, "seed {seed}: {status:?}");
        assert!(proxy.server.requests() as u64 <= 2 + (begun + status.retries) * 2 * (1 + RETRIES as u64));
        assert_eq!((status.checked_out, status.waiting), (0, 0), "seed {seed}");
        faults += proxy.faults();
        retries += status.retries;
    }
    let leftovers: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(leftovers.len(), right, "nothing but the targets of the runs that succeeded");
    println!("{right} of 200 right after {faults} faults and {retries} retries; errors: {wrong:?}");
    assert!(right > 50 && right < 200, "{right} runs succeeded: the faults are too many or too few to show anything");
    assert!(retries > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_through_faults_are_whole_or_not_there() {
    const WRITING: &[Fault] = &[
        Fault::InternalError,
        Fault::Unavailable,
        Fault::TooMany,
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::Truncated,
    ];
    let Some(server) = S3Server::start() else { return };
    let large: Vec<u8> = (0..11_000_000_u32).map(|byte| (byte % 251) as u8).collect();
    let direct = storage_at(&server.url());
    let (mut right, mut wrong) = (0, 0);
    for seed in 0..40 {
        let proxy = FaultyProxy::start(server.address, seed, 0.25, WRITING);
        let storage = storage_at(&proxy.server.url());
        let name = format!("s3://bucket/{seed}");
        let bytes = if seed % 4 == 0 { &large[..] } else { &large[..1000] };
        let overwrite = seed % 2 == 0;
        let written = storage.write(&storage.open(&name).unwrap(), Bytes::copy_from_slice(bytes), overwrite).await;
        let there = direct.open(&name).unwrap();
        match written {
            Ok(_) => {
                assert!(there.read().await.unwrap() == bytes, "seed {seed}");
                right += 1;
            }
            Err(error) => {
                assert!(is_clear(&error), "seed {seed}: {error:?}");
                // The answer to the last request may be what got lost; but what is there is whole.
                if there.exists().await.unwrap() {
                    assert!(there.read().await.unwrap() == bytes, "seed {seed}: {error}");
                }
                wrong += 1;
            }
        }
    }
    println!("{right} of 40 uploads right, {wrong} failed");
    assert!(right > 20 && right + wrong == 40, "{right} {wrong}");
}

fn storage_at(endpoint: &str) -> Storage {
    let section = S3Server::settings(endpoint).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Storage::new(StorageOptions { stores: [("s3://bucket".to_owned(), section)].into(), ..options() }, []).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_whose_answer_is_lost_is_unknown_and_everything_else_is_certain() {
    let Some(server) = S3Server::start() else { return };
    let direct = storage_at(&server.url());
    let (mut created, mut existing, mut unknown, mut failed) = (0, 0, 0, 0);
    const FAULTS: &[Fault] = &[
        Fault::InternalError,
        Fault::Unavailable,
        Fault::TooMany,
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::Truncated,
    ];
    for seed in 0..60 {
        let proxy = FaultyProxy::start(server.address, seed, 0.4, FAULTS);
        let storage = storage_at(&proxy.server.url());
        let at = storage.open(&format!("s3://bucket/journal/{seed}")).unwrap();
        let there = direct.open(at.to_string().as_str()).unwrap();
        let taken = seed % 3 == 0;
        if taken {
            assert!(matches!(direct.create(&there, "theirs").await.unwrap(), Creation::Created(_)));
        }
        match storage.create(&at, "ours").await {
            Ok(Creation::Created(written)) => {
                assert!(!taken, "seed {seed}");
                assert_eq!(written.e_tag, there.head().await.unwrap().e_tag);
                assert_eq!(there.read().await.unwrap(), "ours");
                created += 1;
            }
            Ok(Creation::Exists) => {
                assert!(taken, "seed {seed}");
                existing += 1;
            }
            Ok(Creation::Unknown(error)) => {
                assert!(error.is_retryable(), "{error}");
                unknown += 1;
            }
            Err(error) => {
                assert!(is_clear(&error), "seed {seed}: {error:?}");
                assert!(taken || !there.exists().await.unwrap(), "seed {seed}: {error}");
                failed += 1;
            }
        }
        if taken {
            assert_eq!(there.read().await.unwrap(), "theirs", "seed {seed}");
        }
    }
    println!("{created} created, {existing} were there, {unknown} unknown, {failed} failed");
    assert!(created > 10 && existing > 5 && unknown > 5, "{created} {existing} {unknown} {failed}");
}

/// The error of storage that ended a job.
fn storage_error(error: &Error) -> Option<&StorageError> {
    match error {
        Error::Storage(error) | Error::Engine(EngineError::Storage(error)) | Error::Run(RunError::Storage(error)) => {
            Some(error)
        }
        Error::Engine(EngineError::Unreadable { reason, .. }) => StorageError::find(reason.as_ref()),
        Error::Engine(EngineError::Plan(error)) | Error::Run(RunError::Engine(EngineError::Plan(error))) => {
            StorageError::find(error)
        }
        _ => None,
    }
}

/// Whether a text does, where DataFusion made one of the error: of those that it meets while it reads a footer.
fn says_what_happened(text: &str) -> bool {
    let ends = ["changed while it was read", "given up after", "are missing", "cannot read it"];
    text.contains(".parquet") && ends.iter().any(|end| text.contains(end))
}

/// How many seeds the scoring run under faults is tried with; 200 takes some minutes.
const SEEDS_VARIABLE: &str = "NORMSTREAM_TEST_FAULT_SEEDS";
const FILES: usize = 20;
const SESSIONS: usize = 10_000;

/// One run: the outcome of scoring all files through a proxy, and what it took.
async fn score_through(proxy: &FaultyProxy, target: &Path) -> (Result<RunReport, Error>, Storage) {
    let storage = Storage::new(options(), []).unwrap();
    let inputs: Vec<String> = (0..FILES).map(|file| format!("{}/{file}.parquet", proxy.server.url())).collect();
    (jobs::score(&storage, &inputs, None, target.to_str().unwrap(), 2).await, storage)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scoring_through_faults_gives_the_right_result_or_an_error_without_a_target() {
    let seeds: u64 = std::env::var(SEEDS_VARIABLE).map_or(8, |seeds| seeds.parse().unwrap());
    let folder = tempdir().unwrap();
    let web = StaticFiles::start(Duration::ZERO);
    for file in 0..FILES {
        let bytes = jobs::generated_sessions(&folder.path().join("sessions.parquet"), SESSIONS, file + 1);
        std::fs::remove_file(folder.path().join("sessions.parquet")).unwrap();
        web.put(&format!("/{file}.parquet"), bytes);
    }
    let expected = folder.path().join("expected.parquet");
    let (calm, _) = score_through(&FaultyProxy::start(web.server.address, 0, 0.0, &Fault::ALL), &expected).await;
    assert_eq!(calm.unwrap().sessions, (FILES * SESSIONS) as u64);
    let expected = std::fs::read(expected).unwrap();
    let (mut right, mut wrong) = (0, BTreeMap::<String, u64>::new());
    let (mut faults, mut retries) = (0, 0);
    for seed in 0..seeds {
        let probability = [0.003, 0.01, 0.05, 0.3][seed as usize % 4];
        let proxy = FaultyProxy::start(web.server.address, seed, probability, &Fault::ALL);
        let target = folder.path().join(format!("{seed}.parquet"));
        let (outcome, storage) = score_through(&proxy, &target).await;
        match outcome {
            Ok(report) => {
                assert_eq!(report.sessions, (FILES * SESSIONS) as u64);
                assert!(std::fs::read(&target).unwrap() == expected, "seed {seed}");
                std::fs::remove_file(&target).unwrap();
                right += 1;
            }
            Err(error) => {
                let cause = storage_error(&error);
                let text = cause.map_or_else(|| error.to_string(), ToString::to_string);
                assert!(cause.map_or_else(|| says_what_happened(&text), is_clear), "seed {seed}: {error:?}");
                assert!(!target.exists(), "seed {seed}: {error}");
                *wrong.entry(text.split(": ").last().unwrap().chars().take(12).collect()).or_default() += 1;
            }
        }
        let status = &storage.status()[0];
        let begun: u64 = status.requests.iter().map(|(_, count)| count).sum();
        assert!(status.retries <= begun * 2 * RETRIES as u64, "seed {seed}: {status:?}");
        assert!(proxy.server.requests() as u64 <= 2 + (begun + status.retries) * 2 * (1 + RETRIES as u64));
        faults += proxy.faults();
        retries += status.retries;
    }
    println!("{right} of {seeds} runs right after {faults} faults and {retries} retries; errors: {wrong:?}");
    let leftovers = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(leftovers, 1, "nothing but the expected result is left");
    assert!(right > 0 && right < seeds, "{right} runs of {seeds}: the faults are too many or too few to show anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_after_it_was_found_is_an_error_with_both_tags_and_no_target() {
    let folder = tempdir().unwrap();
    let parquet = jobs::generated_sessions(&folder.path().join("a.parquet"), 5_000, 1);
    let csv = jobs::generated_sessions(&folder.path().join("a.csv"), 100, 1);
    // The file is found and its schema is read, which are one request or two; then there is another one.
    for (name, content, requests) in [("a.parquet", parquet, 1), ("a.csv", csv, 2)] {
        let server = Server::start(Arc::new(move |request, number| {
            let e_tag = if number < requests { "\"first\"" } else { "\"second\"" };
            let answer = serve_file(&request, &content, e_tag);
            Box::pin(async move { answer.into() })
        }));
        // One at a time, so that nothing is read ahead.
        let pool = PoolOptions { size: 1, max_overflow: 0, pre_ping: false, ..PoolOptions::default() };
        let storage = Storage::new(StorageOptions { pool, ..options() }, []).unwrap();
        let (input, target) = (format!("{}/{name}", server.url()), folder.path().join("out.parquet"));
        let error = jobs::score(&storage, &[input], None, target.to_str().unwrap(), 1).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("/{name} changed while it was read")), "{error:?}");
        assert!(text.contains("its ETag was \"first\", now it is \"second\""), "{text}");
        assert!(!target.exists());
    }
}
