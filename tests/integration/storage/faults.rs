//! Reads and writes through a proxy that does what networks do: every run ends with the right bytes, or with a clear error
//! and without a target.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use normstream::storage::{Pinned, PoolOptions, RetryOptions, Storage, StorageError, StorageOptions, UploadOptions};
use object_store::ObjectStore;
use tempfile::tempdir;

use crate::support::faulty_proxy::{Fault, FaultyProxy};
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
