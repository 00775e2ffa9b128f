//! Signals that reach a run while it commits: the table is the old one or the new one, and the same command ends the run.
#![cfg(unix)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::sleep;
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use futures::FutureExt;
use tempfile::tempdir;

use super::faults::{configured, seen};
use super::{FORMATS, file_bytes, score_into, snapshot};
use crate::support::golden;
use crate::support::http_server::{Reply, Server, forward};
use crate::support::s3_server::S3Server;

/// How soon a signal must end a run, whatever it does.
const SOON: Duration = Duration::from_secs(10);

fn score(table: &str, format: &str) -> Command {
    let mut command = Command::new(cargo_bin("normstream"));
    command.arg("score").arg(golden("sessions.parquet")).args(["--to", table, "--format", format]);
    command.stderr(Stdio::null());
    command
}

/// Sends a signal and waits for the end: the exit code, and how long it took.
fn end_by(signal: &str, mut child: Child) -> (Option<i32>, Duration) {
    let sent = Instant::now();
    let words = [format!("-{signal}"), child.id().to_string()];
    assert!(Command::new("kill").args(words).status().unwrap().success());
    (child.wait().unwrap().code(), sent.elapsed())
}

/// Waits until a run has written and recorded its only part, and so begins its commit.
fn wait_for_the_commit(table: &Path) {
    let started = Instant::now();
    let runs = table.join("_normstream/runs");
    let recorded = || std::fs::read_dir(&runs).into_iter().flatten().any(|run| run.unwrap().path().join("1").exists());
    while !recorded() {
        assert!(started.elapsed() < Duration::from_secs(60), "the run does not come to its commit");
        sleep(Duration::from_millis(20));
    }
    sleep(Duration::from_millis(500));
}

#[test]
fn a_signal_during_a_commit_lets_it_finish_and_the_same_command_tells_that_it_did() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    std::thread::scope(|scope| {
        for format in FORMATS {
            scope.spawn(move || signals_during_commits(folder, format));
        }
    });
}

fn signals_during_commits(folder: &Path, format: &str) {
    let undisturbed = folder.join(format!("{format}-undisturbed"));
    score_into(&undisturbed, format).assert().success();
    // Before the entry of the log is put, and after.
    for (point, signal, code) in [("commit-decided", "TERM", 143), ("run-committed", "INT", 130)] {
        let table = folder.join(format!("{format}-{point}"));
        let mut command = score(table.to_str().unwrap(), format);
        let child = command.env("FAILPOINTS", format!("{point}=sleep(3000)")).spawn().unwrap();
        wait_for_the_commit(&table);
        assert_eq!(snapshot(&table).is_some(), point == "run-committed", "{format} {point}");
        let (ended, took) = end_by(signal, child);
        assert_eq!(ended, Some(code), "{format} {point}");
        assert!(took < SOON, "{format} {point}: {took:?}");
        assert!(file_bytes(&table) == file_bytes(&undisturbed), "{format} {point}: the commit is finished");
        let again = score_into(&table, format).assert().success();
        let said = String::from_utf8_lossy(&again.get_output().stderr).into_owned();
        assert!(said.contains("already done"), "{format} {point}: {said}");
        assert!(file_bytes(&table) == file_bytes(&undisturbed), "{format} {point}");
        assert_eq!(snapshot(&table).unwrap().version, 0, "{format} {point}");
    }
}

/// A store that says nothing to the request that puts an entry of a log, having passed it on or not; it tells when.
fn silent_at_the_commit(upstream: std::net::SocketAddr, passes_on: bool) -> (Server, std::sync::mpsc::Receiver<()>) {
    let (tell, told) = channel();
    let server = Server::start(Arc::new(move |request, _| {
        let is_commit = request.method == "PUT"
            && ["_delta_log/", "_normstream/log/"].iter().any(|log| request.target.contains(log));
        let tell = tell.clone();
        async move {
            if is_commit && !passes_on {
                tell.send(()).unwrap();
                return Reply::Silence;
            }
            let response = forward(upstream, &request).await.unwrap();
            if is_commit {
                tell.send(()).unwrap();
                return Reply::Silence;
            }
            response.into()
        }
        .boxed()
    }));
    (server, told)
}

#[test]
fn a_commit_that_a_store_does_not_answer_is_given_up_and_the_same_command_finds_out() {
    let Some(server) = S3Server::start() else { return };
    let case = &|format: &str, passes_on: bool| {
        let folder = tempdir().unwrap();
        let (silent, told) = silent_at_the_commit(server.address, passes_on);
        let config = configured(folder.path(), &silent.url());
        let table = format!("s3://bucket/{format}-{passes_on}");
        let child = score(&table, format).arg("--config").arg(&config).spawn().unwrap();
        told.recv_timeout(Duration::from_secs(60)).unwrap();
        let (ended, took) = end_by("TERM", child);
        assert_eq!(ended, Some(143), "{format} {passes_on}");
        assert!(took < SOON, "{format} {passes_on}: {took:?}");
        // The store answers again.
        let config = configured(folder.path(), &server.url());
        let again = score(&table, format).arg("--config").arg(&config).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&again.stderr).into_owned();
        assert!(again.status.success(), "{format} {passes_on}: {said}");
        let found = if passes_on { "already done" } else { "going on with this run: 1 of its 1 parts are written" };
        assert!(said.contains(found), "{format} {passes_on}: {said}");
        assert_eq!(seen(&server.url(), &table), (0, Some(2_000)), "{format} {passes_on}");
    };
    std::thread::scope(|scope| {
        for (format, passes_on) in FORMATS.into_iter().flat_map(|format| [(format, false), (format, true)]) {
            scope.spawn(move || case(format, passes_on));
        }
    });
}
