//! Targets that cannot be written, and stores that lose answers.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures::FutureExt;
use normstream::storage::{Storage, StorageOptions};
use normstream::table::Table;
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::tempdir;

use super::{FORMATS, file_bytes, in_runtime, rows, score_file_into, score_into, snapshot};
use crate::support::http_server::{Reply, Response, Server, forward};
use crate::support::s3_server::S3Server;
use crate::support::{golden, normstream};

/// A small file system of its own in memory; `None`, with a printed reason, where mounting is not allowed.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn tmpfs(size: &str) -> Option<Mounted> {
        let folder = tempdir().unwrap();
        let words = ["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"];
        let mounted = Command::new("mount").args(words).arg(folder.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Mounted(folder));
        }
        println!("skipped: this process may not mount a file system");
        None
    }

    fn make_read_only(&self) {
        let words = ["-o", "remount,ro"];
        assert!(Command::new("mount").args(words).arg(self.0.path()).status().unwrap().success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_a_clear_error_and_leaves_the_table_as_it_was() {
    for format in FORMATS {
        let Some(disk) = Mounted::tmpfs("700k") else { return };
        let table = disk.0.path().join("table");
        score_into(&table, format).assert().success();
        let before = file_bytes(&table);
        let folder = tempdir().unwrap();
        let large = folder.path().join("large.parquet");
        let words = ["generate", "sessions", "--rows", "40000", "--first-session-id", "10001", "--to"];
        normstream().args(words).arg(&large).assert().success();
        for mode in ["append", "overwrite", "replace-sessions"] {
            let mut command = score_file_into(&large, &table, format);
            command.args(["--mode", mode]).assert().failure().stderr(contains("No space left on device"));
            assert!(file_bytes(&table) == before, "{format} {mode}");
            assert_eq!(snapshot(&table).unwrap().version, 0, "{format} {mode}");
        }
    }
}

#[test]
fn a_target_that_cannot_be_written_is_a_clear_error_and_leaves_the_table_as_it_was() {
    for format in FORMATS {
        let Some(disk) = Mounted::tmpfs("4m") else { return };
        let table = disk.0.path().join("table");
        score_into(&table, format).assert().success();
        let before = file_bytes(&table);
        disk.make_read_only();
        let mut command = score_into(&table, format);
        command.args(["--mode", "overwrite"]).assert().failure().stderr(contains("Read-only file system"));
        let new = disk.0.path().join("new");
        score_into(&new, format).assert().failure().stderr(contains("Read-only file system"));
        assert!(file_bytes(&table) == before, "{format}");
        assert_eq!(rows(&table).num_rows(), 2_000, "{format}");
    }
}

#[test]
fn a_table_of_other_columns_or_with_a_broken_log_is_refused_before_any_work() {
    for (format, log) in [("delta", "_delta_log"), ("parquet", "_normstream/log")] {
        let folder = tempdir().unwrap();
        let table = folder.path().join("table");
        score_into(&table, format).args(["--select", "session_id,ok"]).assert().success();
        for mode in ["append", "overwrite"] {
            let mut command = score_into(&table, format);
            let refusal = contains("has other columns: it has not user_id").and(contains("choose another folder"));
            command.args(["--mode", mode]).assert().code(2).stderr(refusal);
        }
        assert_eq!(snapshot(&table).unwrap().version, 0, "{format}");
        let entry = table.join(log).join("00000000000000000000.json");
        fs::write(&entry, "{ broken").unwrap();
        let before: Vec<_> = list(&table);
        let refusal = contains("the log of the table").and(contains("cannot be read"));
        score_into(&table, format).assert().code(2).stderr(refusal);
        assert_eq!(list(&table), before, "{format}");
        assert_eq!(fs::read_to_string(&entry).unwrap(), "{ broken", "{format}");
    }
}

fn list(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.display().to_string());
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    found.sort();
    found
}

/// What happens to the answer of a request that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The connection ends before the request is passed on.
    ResetBefore,
    /// It ends after.
    ResetAfter,
    /// 500 in the place of the answer.
    InternalErrorAfter,
    /// 503 in the place of the answer: the store says that it did nothing, and did.
    UnavailableAfter,
    /// 500, and the request is not passed on.
    InternalErrorBefore,
}

const FAULTS: [Fault; 5] = [
    Fault::ResetBefore,
    Fault::ResetAfter,
    Fault::InternalErrorAfter,
    Fault::UnavailableAfter,
    Fault::InternalErrorBefore,
];

/// A proxy that does a fault to the `nth` request that changes something, and counts those.
fn proxy(upstream: std::net::SocketAddr, nth: usize, fault: Fault) -> (Server, Arc<AtomicUsize>) {
    let changes = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&changes);
    let server = Server::start(Arc::new(move |request, _| {
        let is_change = request.method == "PUT" || request.method == "DELETE" || request.method == "POST";
        let hit = is_change && counter.fetch_add(1, SeqCst) + 1 == nth;
        async move {
            match (hit, fault) {
                (true, Fault::ResetBefore) => return Reply::Reset,
                (true, Fault::InternalErrorBefore) => return Response::new(500).into(),
                _ => {}
            }
            let Ok(response) = forward(upstream, &request).await else { return Response::new(502).into() };
            match (hit, fault) {
                (true, Fault::ResetAfter) => Reply::Reset,
                (true, Fault::InternalErrorAfter) => Response::new(500).into(),
                (true, Fault::UnavailableAfter) => Response::new(503).with("retry-after", 0).into(),
                _ => response.into(),
            }
        }
        .boxed()
    }));
    (server, changes)
}

/// A configuration file that reaches a server.
pub fn configured(folder: &Path, endpoint: &str) -> std::path::PathBuf {
    let path = folder.join("normstream.toml");
    let keys = S3Server::settings(endpoint);
    let keys: String = keys.iter().map(|(key, value)| format!("{key} = \"{value}\"\n")).collect();
    fs::write(&path, format!("[storage.\"s3://bucket\"]\n{keys}")).unwrap();
    path
}

#[test]
fn whatever_answer_of_a_store_is_lost_the_run_ends_right_or_can_be_repeated() {
    let Some(server) = S3Server::start() else { return };
    let folder = tempdir().unwrap();
    let input = folder.path().join("sessions.csv");
    normstream().args(["generate", "sessions", "--rows", "40", "--to"]).arg(&input).assert().success();
    let kinds = FORMATS.into_iter().flat_map(|format| FAULTS.map(|fault| (format, fault)));
    let (server, input) = (&server, input.as_path());
    let ended: Vec<Ended> = std::thread::scope(|scope| {
        // Most of their time is waiting for another attempt.
        let at_once: Vec<_> = kinds
            .map(|(format, fault)| scope.spawn(move || every_request_meets(fault, format, server, input)))
            .collect();
        at_once.into_iter().map(|kind| kind.join().unwrap()).collect()
    });
    let right_away: usize = ended.iter().map(|ended| ended.right_away).sum();
    let after_repeating: usize = ended.iter().map(|ended| ended.after_repeating).sum();
    println!("{right_away} ended right, {after_repeating} when they were repeated");
}

/// How runs ended.
struct Ended {
    right_away: usize,
    after_repeating: usize,
}

/// A run for each of its requests that change something, which meets the fault; until a run has no more such requests.
fn every_request_meets(fault: Fault, format: &str, server: &S3Server, input: &Path) -> Ended {
    let folder = tempdir().unwrap();
    let mut ended = Ended { right_away: 0, after_repeating: 0 };
    for nth in 1.. {
        let table = format!("s3://bucket/{format}-{fault:?}-{nth}");
        let (proxy, changes) = proxy(server.address, nth, fault);
        let config = configured(folder.path(), &proxy.url());
        let score = || {
            let mut command = normstream();
            command.arg("score").arg(input).args(["--to", &table, "--format", format]);
            command.arg("--config").arg(&config).output().unwrap()
        };
        let first = score();
        let said = String::from_utf8_lossy(&first.stderr).into_owned();
        match first.status.code() {
            Some(0) => ended.right_away += 1,
            Some(75) => {
                ended.after_repeating += 1;
                let second = score();
                let said = String::from_utf8_lossy(&second.stderr).into_owned();
                assert!(second.status.success(), "{format} {fault:?} {nth}: {said}");
            }
            code => panic!("{format} {fault:?} {nth}: {code:?} {said}"),
        }
        assert_eq!(seen(&server.url(), &table), (0, Some(40)), "{format} {fault:?} {nth}: {said}");
        if changes.load(SeqCst) < nth {
            // There was no such request any more: all of them had their fault.
            assert!(nth > 4, "{format} {fault:?}: {nth}");
            break;
        }
    }
    ended
}

/// The version of a table at a server, and its rows, of files that are there.
pub fn seen(endpoint: &str, table: &str) -> (u64, Option<u64>) {
    let section = S3Server::settings(endpoint).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    in_runtime(async {
        let options =
            StorageOptions { stores: [("s3://bucket".to_owned(), section)].into(), ..StorageOptions::default() };
        let storage = Storage::new(options, []).unwrap();
        let root = storage.open(table).unwrap();
        let snapshot = Table::open(&storage, &root).await.unwrap().unwrap().snapshot().await.unwrap().unwrap();
        for (file, place) in snapshot.files.iter().zip(snapshot.live_files().await.unwrap()) {
            assert_eq!(place.head().await.unwrap().size, file.size, "{table}: a committed file is whole");
        }
        (snapshot.version, snapshot.rows())
    })
}

#[test]
fn a_table_in_an_s3_store_is_written_resumed_and_read_like_one_on_disk() {
    let Some(server) = S3Server::start() else { return };
    let folder = tempdir().unwrap();
    let config = configured(folder.path(), &server.url());
    for format in FORMATS {
        let table = format!("s3://bucket/my results/{format}");
        let score = || {
            let mut command = normstream();
            command.arg("score").arg(golden("sessions.parquet")).args(["--to", &table, "--format", format]);
            command.arg("--config").arg(&config);
            command
        };
        let stopped = score().env("FAILPOINTS", "part-recorded=return").assert();
        assert_eq!(stopped.get_output().status.code(), None, "{format}: stopped by itself");
        score().assert().success().stderr(contains("going on with this run: 1 of its 1 parts are written"));
        score().assert().success().stderr(contains("already done"));
        assert_eq!(seen(&server.url(), &table), (0, Some(2_000)), "{format}");
        let mut runs = normstream();
        runs.args(["runs", "list", &table, "--config"]).arg(&config);
        runs.assert().success().stdout(contains("committed").and(contains("2,000")));
    }
}
