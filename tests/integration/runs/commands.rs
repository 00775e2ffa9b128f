//! `normstream runs`, changed inputs, and signals.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::tempdir;

use super::{FORMATS, file_bytes, rows, score_file_into, score_into, snapshot};
use crate::support::{golden, normstream};

fn runs(words: &[&str], table: &Path) -> assert_cmd::Command {
    let mut command = normstream();
    command.arg("runs").arg(words[0]).arg(table).args(&words[1..]);
    command
}

#[test]
fn runs_are_listed_shown_and_verified() {
    for format in FORMATS {
        let folder = tempdir().unwrap();
        let table = folder.path().join("table");
        let norms = golden("demo_groups.csv");
        score_into(&table, format).arg("--norms").arg(&norms).assert().success();
        runs(&["list"], &table).assert().success().stdout(contains("committed   append").and(contains("2,000")));
        let listed = runs(&["list", "--json"], &table).assert().success().get_output().stdout.clone();
        let listed: serde_json::Value = serde_json::from_slice(&listed).unwrap();
        let id = listed["run"].as_str().unwrap();
        let shown = contains(format!("run id      {id}")).and(contains("2,000: 1,944 scored, 56 failed"));
        runs(&["show", &id[..5]], &table).assert().success().stdout(shown);
        let receipt = runs(&["show", "--json"], &table).assert().success().get_output().stdout.clone();
        let receipt: serde_json::Value = serde_json::from_slice(&receipt).unwrap();
        assert_eq!((&receipt["rows"], &receipt["version"]), (&2_000.into(), &0.into()));
        runs(&["show", "nothing"], &table).assert().code(2).stderr(contains(format!("it has {}", &id[..16])));

        let norms = norms.to_str().unwrap();
        runs(&["verify", "--all", "--norms", norms], &table)
            .assert()
            .success()
            .stdout(contains("1 of 1 parts scored again and equal, bit for bit"));
        let refusal = contains("is not run").or(contains("this is not run")).and(contains("the norms are others"));
        runs(&["verify", "--all"], &table).assert().code(2).stderr(refusal);
        let file = super::live_files(&snapshot(&table).unwrap()).remove(0);
        let mut bytes = fs::read(&file).unwrap();
        bytes[2_000] ^= 1;
        fs::write(&file, bytes).unwrap();
        runs(&["verify", "--all", "--norms", norms], &table).assert().code(1).stdout(contains("is DIFFERENT"));
    }
    let folder = tempdir().unwrap();
    runs(&["list"], folder.path()).assert().code(2).stderr(contains("is not a table"));
    let file = folder.path().join("results.parquet");
    fs::write(&file, "").unwrap();
    runs(&["verify"], &file).assert().code(2).stderr(contains("results.parquet is a file, and a table is a folder"));
}

#[test]
fn only_what_unfinished_runs_left_long_ago_is_cleaned() {
    for format in FORMATS {
        let folder = tempdir().unwrap();
        let table = folder.path().join("table");
        score_into(&table, format).assert().success();
        let before = file_bytes(&table);
        let input = folder.path().join("more.parquet");
        let words = ["generate", "sessions", "--rows", "50", "--first-session-id", "5001", "--to"];
        normstream().args(words).arg(&input).assert().success();
        score_file_into(&input, &table, format).env("FAILPOINTS", "run-scored=return").assert().failure();
        let parquet_files = || walk(&table).into_iter().filter(|name| name.ends_with(".parquet")).count();
        assert_eq!(parquet_files(), 2, "{format}");
        runs(&["clean"], &table).assert().success().stdout("nothing to remove\n");
        let dry = runs(&["clean", "--older-than", "0s", "--dry-run"], &table).assert().success();
        dry.stdout(contains("1 files").and(contains("would be removed")));
        assert_eq!(parquet_files(), 2, "{format}");
        runs(&["clean", "--older-than", "0s"], &table).assert().success().stdout(contains(": removed"));
        assert_eq!(parquet_files(), 1, "{format}");
        assert!(file_bytes(&table) == before, "{format}");
        runs(&["clean", "--older-than", "0s"], &table).assert().success().stdout("nothing to remove\n");
        // What was cleaned away is scored again from the start.
        score_file_into(&input, &table, format).assert().success();
        assert_eq!(rows(&table).num_rows(), 2_050, "{format}");
    }
}

#[test]
fn a_temporary_file_of_a_process_that_was_killed_is_cleaned_once_it_is_old() {
    for format in FORMATS {
        let folder = tempdir().unwrap();
        let table = folder.path().join("table");
        score_into(&table, format).assert().success();
        let before = file_bytes(&table);
        let left = table.join(".normstream-aBcD12.part");
        fs::write(&left, "half of a row group").unwrap();
        fs::write(table.join("notes.part"), "somebody's").unwrap();
        runs(&["clean"], &table).assert().success().stdout("nothing to remove\n");
        let named = contains(".normstream-aBcD12.part: 19 B, last written to");
        let dry = runs(&["clean", "--older-than", "0s", "--dry-run"], &table).assert().success();
        dry.stdout(named.clone().and(contains("would be removed")));
        assert!(left.exists(), "{format}");
        runs(&["clean", "--older-than", "0s"], &table).assert().success().stdout(named.and(contains(": removed")));
        assert!(!left.exists() && table.join("notes.part").exists(), "{format}");
        fs::remove_file(table.join("notes.part")).unwrap();
        assert!(file_bytes(&table) == before, "{format}");
    }
}

/// A file of 50 sessions.
fn fifty_sessions(folder: &Path) -> PathBuf {
    let input = folder.join("fifty.parquet");
    normstream().args(["generate", "sessions", "--rows", "50", "--to"]).arg(&input).assert().success();
    input
}

/// The bookkeeping of the only run of a table.
fn only_run(table: &Path) -> PathBuf {
    fs::read_dir(table.join("_normstream/runs")).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn a_run_that_was_held_up_while_it_was_cleaned_away_commits_nothing() {
    for format in FORMATS {
        let folder = tempdir().unwrap();
        let (table, input) = (folder.path().join("table"), fifty_sessions(folder.path()));
        let mut slow = Command::new(cargo_bin("normstream"));
        slow.arg("score").arg(&input).arg("--to").arg(&table).args(["--format", format]).stderr(Stdio::piped());
        let slow = slow.env("FAILPOINTS", "run-scored=sleep(6000)").spawn().unwrap();
        let is_scored = || {
            let runs = fs::read_dir(table.join("_normstream/runs")).ok()?;
            runs.flatten().find(|run| run.path().join("1/00000.json").exists())
        };
        while is_scored().is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        runs(&["clean", "--older-than", "0s"], &table).assert().success().stdout(contains(": removed"));
        let output = slow.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(75), "{format}: {said}");
        assert!(said.contains("is being removed by `normstream runs clean`"), "{format}: {said}");
        assert!(snapshot(&table).is_none(), "{format}");
        score_file_into(&input, &table, format).assert().success();
        assert_eq!(rows(&table).num_rows(), 50, "{format}");
    }
}

#[test]
fn a_clean_that_was_stopped_can_be_finished_however_often_the_run_is_tried_in_between() {
    let folder = tempdir().unwrap();
    let (table, input) = (folder.path().join("table"), fifty_sessions(folder.path()));
    let refused = || {
        let refusal = contains("is being removed by `normstream runs clean`");
        score_file_into(&input, &table, "delta").assert().code(75).stderr(refusal);
    };
    score_file_into(&input, &table, "delta").env("FAILPOINTS", "run-scored=return").assert().failure();
    let run = only_run(&table);
    let before = fs::read(run.join("active.json")).unwrap();
    fs::write(run.join("abandoned.json"), "{}").unwrap();
    refused();
    assert_eq!(fs::read(run.join("active.json")).unwrap(), before, "nobody works on the run");
    runs(&["clean", "--older-than", "0s"], &table)
        .assert()
        .success()
        .stdout(contains("1 files").and(contains(": removed")));

    // Stopped right before its end it leaves the mark alone, which is no work of anybody, however new it is.
    fs::create_dir_all(&run).unwrap();
    fs::write(run.join("abandoned.json"), "{}").unwrap();
    refused();
    assert_eq!(walk(&run), [run.join("abandoned.json").display().to_string()]);
    runs(&["clean"], &table).assert().success().stdout(contains("0 files").and(contains(": removed")));
    score_file_into(&input, &table, "delta").assert().success();
    assert_eq!(rows(&table).num_rows(), 50);
}

fn walk(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path.display().to_string()) }
    }
    found
}

#[test]
fn an_input_that_changed_makes_a_new_run_which_says_what_is_different() {
    for format in FORMATS {
        let folder = tempdir().unwrap();
        let (table, input) = (folder.path().join("table"), folder.path().join("sessions.csv"));
        let generate = |rows: &str| {
            let words = ["generate", "sessions", "--rows", rows, "--overwrite", "--to"];
            normstream().args(words).arg(&input).assert().success();
        };
        generate("30");
        score_file_into(&input, &table, format).env("FAILPOINTS", "run-scored=return").assert().failure();
        generate("40");
        let says = contains("this is a new run: run").and(contains("sessions.csv had")).and(contains("bytes and has"));
        let mut changed = score_file_into(&input, &table, format);
        changed.arg("--norms").arg(golden("demo_groups.csv"));
        changed.assert().success().stderr(says.and(contains("the norms are others")));
        assert_eq!(rows(&table).num_rows(), 40, "{format}");
    }
}

#[cfg(unix)]
#[test]
fn a_signal_stops_a_run_which_goes_on_where_it_was() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let folder = tempdir().unwrap();
        let table = folder.path().join("table");
        let mut inputs = Vec::new();
        for number in 0..12 {
            let input = folder.path().join(format!("{number}.parquet"));
            let first = (10_000 * number + 1).to_string();
            let words = ["generate", "sessions", "--rows", "3000", "--first-session-id", &first, "--to"];
            normstream().args(words).arg(&input).assert().success();
            inputs.push(input);
        }
        let mut process = Command::new(cargo_bin("normstream"));
        process.arg("score").args(&inputs).arg("--to").arg(&table).args(["--threads", "1"]).stderr(Stdio::null());
        // Slow enough to be stopped in the middle.
        process.env("FAILPOINTS", "part-recorded=sleep(150)");
        let mut process = process.spawn().unwrap();
        let journal = |table: &Path| {
            let runs = fs::read_dir(table.join("_normstream/runs")).ok()?.next()?.ok()?.path();
            Some(fs::read_dir(runs.join("1")).ok()?.count())
        };
        while journal(&table).unwrap_or(0) < 3 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let sent = Instant::now();
        assert!(
            Command::new("kill").args([&format!("-{signal}"), &process.id().to_string()]).status().unwrap().success()
        );
        assert_eq!(process.wait().unwrap().code(), Some(code));
        assert!(sent.elapsed() < Duration::from_secs(10), "{:?}", sent.elapsed());
        assert!(snapshot(&table).is_none());
        let mut again = normstream();
        again.arg("score").args(&inputs).arg("--to").arg(&table);
        again
            .assert()
            .success()
            .stderr(contains("going on with this run:").and(contains("of its 12 parts are written")));
        assert_eq!(rows(&table).num_rows(), 36_000);
    }
}

#[test]
fn a_table_is_read_by_its_log_wherever_a_folder_may_be_given() {
    for format in FORMATS {
        let folder = tempdir().unwrap();
        let (table, input) = (folder.path().join("table"), folder.path().join("more.csv"));
        score_into(&table, format).assert().success();
        let words = ["generate", "sessions", "--rows", "40", "--first-session-id", "5001", "--to"];
        normstream().args(words).arg(&input).assert().success();
        // A run that was stopped, whose files are not in the table.
        score_file_into(&input, &table, format).env("FAILPOINTS", "run-scored=return").assert().failure();
        let mut count = normstream();
        count.args(["sql", "--format", "csv", "-c", "SELECT count(*) AS n FROM results", "--results"]).arg(&table);
        count.assert().success().stdout("n\n2000\n");
    }
}
