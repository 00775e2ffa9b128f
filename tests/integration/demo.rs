//! `normstream demo` as its user meets it, to the last command that it suggests.

use std::fs;
use std::path::Path;
use std::process::Command as Process;

use assert_cmd::assert::Assert;
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::{TempDir, tempdir};

use crate::support::{booleans, normstream, read_parquet};

fn demo(folder: &TempDir, words: &[&str]) -> Assert {
    normstream().current_dir(folder.path()).arg("demo").args(words).assert()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn it_shows_styles_percentiles_norm_sources_failures_and_what_to_try_next() {
    let folder = tempdir().unwrap();
    let first = demo(&folder, &["--rows", "2000"]).success();
    let output = first.get_output();
    insta::assert_snapshot!("demo", text(&output.stdout));
    insta::with_settings!({filters => vec![
        (r"\d+\.\d\d s", "[time]"),
        (r"[\d,]+/s", "[rate]"),
        (r"\d+\.\d\d KiB", "[size]"),
    ]}, {
        insta::assert_snapshot!("demo_steps", text(&output.stderr));
    });

    let results = read_parquet(&folder.path().join("normstream-demo/results.parquet"));
    let failed = booleans(&results, "ok").iter().filter(|ok| **ok == Some(false)).count();
    assert_eq!(results.num_rows(), 2_000);
    assert!((20..=40).contains(&failed), "{failed} failed");

    let second = demo(&folder, &["--rows", "2000"]).success();
    assert_eq!(text(&second.get_output().stdout), text(&output.stdout), "again, over its own files");
}

#[test]
fn every_command_that_it_suggests_runs_as_it_is_written() {
    let folder = tempdir().unwrap();
    for place in ["normstream-demo", "it's [my] demo"] {
        let shown = demo(&folder, &["--rows", "300", "--to", place]).success();
        let shown = text(&shown.get_output().stdout);
        let suggested: Vec<&str> = shown.lines().filter(|line| line.starts_with("  normstream ")).collect();
        assert!(suggested.len() >= 5, "{shown}");
        for command in suggested {
            let output = in_shell(&folder, command);
            assert!(output.status.success(), "{command}: {}", text(&output.stderr));
        }
        assert!(folder.path().join(place).join("published.csv").exists());
    }
}

/// Runs a command as a shell takes it, where `normstream` is the program under test.
fn in_shell(folder: &TempDir, command: &str) -> std::process::Output {
    let program = normstream();
    let path = Path::new(program.get_program()).parent().unwrap().display().to_string();
    let path = format!("{path}:{}", std::env::var("PATH").unwrap());
    Process::new("sh").args(["-c", command]).env("PATH", path).current_dir(folder.path()).output().unwrap()
}

#[test]
fn the_steps_it_prints_are_the_commands_it_runs() {
    let folder = tempdir().unwrap();
    let output = demo(&folder, &["--rows", "300"]).success();
    let results = || fs::read(folder.path().join("normstream-demo/results.parquet")).unwrap();
    let expected = results();
    fs::remove_dir_all(folder.path().join("normstream-demo")).unwrap();
    for step in text(&output.get_output().stderr).lines().filter_map(|line| line.strip_prefix("$ ")) {
        let output = in_shell(&folder, step);
        assert!(output.status.success(), "{step}: {}", text(&output.stderr));
    }
    assert!(results() == expected);
}

#[test]
fn it_honours_settings_and_stays_quiet_when_asked() {
    let folder = tempdir().unwrap();
    let settings = folder.path().join("quiet.toml");
    fs::write(&settings, "progress = \"off\"\non_error = \"fail\"\nchain = \"GENDER:{gender}\"\n").unwrap();
    demo(&folder, &["--rows", "300", "--config", settings.to_str().unwrap()])
        .success()
        .stderr("")
        .stdout(contains("GENDER:Female").and(contains("EDU:").not()));
}

#[test]
fn it_needs_a_local_folder_and_a_session() {
    let folder = tempdir().unwrap();
    for place in ["s3://bucket/demo", "-"] {
        demo(&folder, &["--to", place]).code(2).stderr(contains("the demo needs a local folder"));
    }
    demo(&folder, &["--rows", "0"]).code(2).stderr(contains("0 is not in 1.."));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
