//! Reading from and writing to an S3-compatible server.

use std::process::{Command, Stdio};
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use bytes::Bytes;
use normstream::storage::{Location, Storage, StorageError, StorageOptions, UploadOptions, Written};

use crate::support::http_server::{Request, forward};
use crate::support::s3_server::S3Server;

fn storage(server: &S3Server) -> Storage {
    let section = S3Server::settings(&server.url()).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let upload = UploadOptions { part_size: 5 * 1024 * 1024, parts_in_flight: 3 };
    let stores = [("s3://bucket".to_owned(), section)].into();
    Storage::new(StorageOptions { upload, stores, ..StorageOptions::default() }, []).unwrap()
}

async fn upload(storage: &Storage, at: &Location, bytes: &[u8], overwrite: bool) -> Result<Written, StorageError> {
    let mut upload = storage.upload(at, overwrite).await?;
    for chunk in bytes.chunks(1_000_003) {
        upload.write(Bytes::copy_from_slice(chunk)).await?;
    }
    upload.commit().await
}

/// Multipart uploads that were begun and neither completed nor aborted.
async fn unfinished(server: &S3Server) -> usize {
    let headers = [("host".to_owned(), server.address.to_string())].into();
    let request = Request { method: "GET".to_owned(), target: "/bucket?uploads".to_owned(), headers, body: Vec::new() };
    let response = forward(server.address, &request).await.unwrap();
    assert_eq!(response.status, 200);
    String::from_utf8(response.body).unwrap().matches("<UploadId>").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_one_and_of_several_parts_appear_at_the_commit_and_are_read_back() {
    let Some(server) = S3Server::start() else { return };
    let storage = storage(&server);
    let content: Vec<u8> = (0..12_000_000_u32).map(|byte| (byte % 251) as u8).collect();
    for (name, length) in [("small", 10), ("empty", 0), ("several parts", content.len())] {
        let at = storage.open(&format!("s3://bucket/results/{name}")).unwrap();
        let mut started = storage.upload(&at, false).await.unwrap();
        started.write(Bytes::copy_from_slice(&content[..length])).await.unwrap();
        assert!(!at.exists().await.unwrap(), "{name} is not visible before the commit");
        let written = started.commit().await.unwrap();
        let head = at.head().await.unwrap();
        assert_eq!((written.size, written.e_tag), (length as u64, head.e_tag));
        assert!(at.read().await.unwrap() == content[..length], "{name}");
        let again = upload(&storage, &at, b"x", false).await;
        assert!(matches!(again, Err(StorageError::AlreadyExists { .. })), "{again:?}");
        upload(&storage, &at, &content[..length], true).await.unwrap();
    }
    let files = storage.open("s3://bucket/results/").unwrap().list_files().await.unwrap();
    let names: Vec<&str> = files.iter().map(|file| file.location.as_ref()).collect();
    assert_eq!(names, ["results/empty", "results/several parts", "results/small"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_aborted_or_dropped_leaves_neither_an_object_nor_parts() {
    let Some(server) = S3Server::start() else { return };
    let storage = storage(&server);
    let at = storage.open("s3://bucket/gone").unwrap();
    for abort in [true, false] {
        let mut started = storage.upload(&at, true).await.unwrap();
        started.write(vec![1; 11_000_000].into()).await.unwrap();
        assert_eq!(unfinished(&server).await, 1);
        if abort {
            started.abort().await;
        } else {
            drop(started);
            for _ in 0..100 {
                if unfinished(&server).await == 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        assert_eq!(unfinished(&server).await, 0);
        assert!(!at.exists().await.unwrap());
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_stopped_in_the_middle_of_an_object_leaves_no_parts() {
    let Some(server) = S3Server::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let settings = S3Server::settings(&server.url());
    let settings: String = settings.iter().map(|(key, value)| format!("{key} = {value:?}\n")).collect();
    let config = format!("upload_part_size = \"5MiB\"\n[storage.\"s3://bucket\"]\n{settings}");
    std::fs::write(folder.path().join("normstream.toml"), config).unwrap();
    let mut program = Command::new(cargo_bin("normstream"))
        .args(["generate", "sessions", "--rows", "1000000000", "--to", "s3://bucket/endless.csv"])
        .current_dir(folder.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while unfinished(&server).await == 0 {
        assert!(program.try_wait().unwrap().is_none(), "it ended before its first part");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(Command::new("kill").args(["-TERM", &program.id().to_string()]).status().unwrap().success());
    assert_eq!(program.wait().unwrap().code(), Some(143));
    assert_eq!(unfinished(&server).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_uploads_that_may_not_overwrite_one_wins() {
    let Some(server) = S3Server::start() else { return };
    let storage = storage(&server);
    for (name, length) in [("small", 100), ("large", 11_000_000)] {
        let at = storage.open(&format!("s3://bucket/{name}")).unwrap();
        let mut first = storage.upload(&at, false).await.unwrap();
        let mut second = storage.upload(&at, false).await.unwrap();
        first.write(vec![1; length].into()).await.unwrap();
        second.write(vec![2; length].into()).await.unwrap();
        first.commit().await.unwrap();
        let error = second.commit().await.unwrap_err();
        assert!(matches!(error, StorageError::AlreadyExists { .. }), "{error}");
        assert!(at.read().await.unwrap().iter().all(|byte| *byte == 1));
    }
    assert_eq!(unfinished(&server).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_from_the_environment_and_the_section_is_stronger() {
    let Some(server) = S3Server::start() else { return };
    let environment = |endpoint: &str| {
        [
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "b"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
    };
    let storage = Storage::new(StorageOptions::default(), environment(&server.url())).unwrap();
    let at = storage.open("s3://bucket/x").unwrap();
    storage.write(&at, "content", false).await.unwrap();
    assert!(storage.ping(&at).await.unwrap().as_secs() < 5);

    let section = [("endpoint".to_owned(), server.url())].into();
    let stores = [("s3://bucket".to_owned(), section)].into();
    let options = StorageOptions { stores, ..StorageOptions::default() };
    let storage = Storage::new(options, environment("http://127.0.0.1:1")).unwrap();
    assert_eq!(storage.open("s3://bucket/x").unwrap().read().await.unwrap(), "content");
}
