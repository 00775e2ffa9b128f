//! Ctrl-C, SIGTERM and a reader that goes away: the program stops, and leaves nothing half written.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use tempfile::tempdir;

use crate::support::golden;

/// Scoring a standard input that does not end.
fn endless(folder: &std::path::Path) -> Child {
    let mut child = Command::new(cargo_bin("normstream"))
        .args(["score", "-", "--input-format", "ndjson", "--to", "out.parquet", "--progress", "off"])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::from("{\"session_id\":1");
    for (part, item) in normstream::model::session::items(12, 8) {
        for (rank, mode) in normstream::model::Mode::ALL.into_iter().enumerate() {
            line.push_str(&format!(",\"{}\":{}", normstream::model::session::wide_column(part, item, mode), rank + 1));
        }
    }
    line.push_str("}\n");
    let stdin = child.stdin.as_mut().unwrap();
    stdin.write_all(line.repeat(100).as_bytes()).unwrap();
    stdin.flush().unwrap();
    child
}

fn stopped_by(signal: &str, code: i32) {
    let folder = tempdir().unwrap();
    let mut child = endless(folder.path());
    sleep(Duration::from_millis(700));
    let sent = Instant::now();
    assert!(Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap().success());
    // The pipe stays open: the program must not wait for its end.
    let _stdin = child.stdin.take();
    assert_eq!(child.wait().unwrap().code(), Some(code));
    assert!(sent.elapsed() < Duration::from_secs(10), "{:?}", sent.elapsed());
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn ctrl_c_stops_the_run_with_code_130_and_leaves_nothing() {
    stopped_by("INT", 130);
}

#[test]
fn sigterm_stops_the_run_with_code_143_and_leaves_nothing() {
    stopped_by("TERM", 143);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child = Command::new(cargo_bin("normstream"))
        .arg("score")
        .args([golden("sessions.parquet"), golden("sessions.parquet"), golden("sessions.parquet")])
        .args(["--to", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"session_id\":1,"), "{line}");
    drop(reader);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
