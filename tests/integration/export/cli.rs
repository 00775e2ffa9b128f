//! The commands: exit codes, what they print, and the scheduler as a process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use predicates::str::contains;
use tempfile::TempDir;

use crate::support::normstream;
use crate::support::postgres::Cluster;

/// A folder with a configuration of one export, `nightly`.
fn folder(url: &str, export: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[targets.dw]\nurl = \"{url}\"\n\n[exports.nightly]\ntarget = \"dw\"\ntable = \"scores\"\nretries = 0\n{export}\n"
    );
    std::fs::write(folder.path().join("normstream.toml"), text).unwrap();
    folder
}

const THREE: &str = "query = \"SELECT value AS n FROM generate_series(1, 3)\"";

fn in_folder(folder: &Path, arguments: &[&str]) -> assert_cmd::assert::Assert {
    normstream().args(arguments).current_dir(folder).assert()
}

#[test]
fn an_export_is_planned_run_and_looked_at() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    let folder = folder(&url, &format!("{THREE}\nschedule = \"0 3 * * *\"\ntimezone = \"Europe/Berlin\""));
    let run = |arguments: &[&str]| in_folder(folder.path(), arguments);
    run(&["export", "list"]).success().stdout(contains("nightly  dw      scores  append  none"));
    run(&["export", "plan"]).success().stdout(contains("creates \"public\".\"scores\" with 1 columns"));
    run(&["export", "run", "--dry-run"]).success().stdout(contains("3 rows; nothing was written"));
    assert_eq!(server.ask(&url, "SELECT to_regclass('scores') IS NULL"), "t");
    run(&["export", "run"]).success().stderr(contains("nightly: 3 rows of everything written to dw scores"));
    let json = run(&["export", "run", "--format", "json"]).success();
    let receipt: serde_json::Value = serde_json::from_slice(&json.get_output().stdout).unwrap();
    assert_eq!((receipt["outcome"].as_str(), receipt["rows"].as_u64()), (Some("committed"), Some(3)));
    let json = run(&["export", "status", "--format", "json"]).success();
    let status: serde_json::Value = serde_json::from_slice(&json.get_output().stdout).unwrap();
    assert_eq!(status["last"]["run_id"], receipt["run_id"]);
    assert_eq!(status["pool"]["max_overflow"], 10);
    run(&["export", "status"]).success().stdout(contains("nightly"));
    assert_eq!(server.ask(&url, "SELECT count(*) FROM scores"), "6");
    let next = run(&["schedule", "next", "-n", "3"]).success();
    let text = String::from_utf8(next.get_output().stdout.clone()).unwrap();
    assert_eq!(
        text.lines().filter(|line| line.contains("T03:00:00+0") && line.ends_with("nightly")).count(),
        3,
        "{text}"
    );
}

#[test]
fn the_cursor_is_shown_and_set() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    let query = "query = \"SELECT arrow_cast(to_timestamp_seconds(value), 'Timestamp(Second, Some(\\\"UTC\\\"))') AS t FROM generate_series(1, 9)\"";
    let folder = folder(&url, &format!("{query}\nincremental = \"column:t\""));
    let run = |arguments: &[&str]| in_folder(folder.path(), arguments);
    run(&["export", "state", "show", "nightly"]).success().stdout(contains("\"cursor\":null"));
    run(&["export", "state", "set", "nightly", "--version", "3"])
        .code(2)
        .stderr(contains("goes by times: give --time"));
    run(&["export", "state", "set", "nightly", "--time", "1970-01-01T00:00:06Z"]).success();
    run(&["export", "state", "show", "nightly"]).success().stdout(contains("{\"time\":\"1970-01-01T00:00:06Z\"}"));
    server.ask(&url, "CREATE TABLE scores (t timestamptz)");
    run(&["export", "run"]).success().stderr(contains("4 rows of [1970-01-01T00:00:06Z, "));
    run(&["export", "run", "--from", "1970-01-01", "--to", "1970-01-01T00:00:03Z"]).success();
    run(&["export", "run", "--from", "1970-01-01", "--to", "1970-01-01T00:00:03Z"])
        .success()
        .stderr(contains("already done"));
    assert_eq!(server.ask(&url, "SELECT count(*) FROM scores"), "6");
}

#[test]
fn each_failure_has_its_name_and_its_exit_code() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    let fails = |url: &str, export: &str, code: i32, message: &str| {
        let folder = folder(url, export);
        in_folder(folder.path(), &["export", "run"]).code(code).stderr(contains(message));
    };
    fails(&url, &format!("{THREE}\nmin_rows = 4"), 1, "nightly gives 3 rows, fewer than min_rows = 4");
    fails(&url, "query = \"SELECT none FROM nowhere\"", 2, "the query of nightly failed");
    let secret = url.replace("postgres@", "postgres:${NO_SUCH_SECRET}@");
    fails(&secret, THREE, 2, "targets.dw.url needs the environment variable NO_SUCH_SECRET, which is not set");
    fails("postgres://u@127.0.0.1:1/x", THREE, 75, "dw cannot be reached (127.0.0.1:1)");
    fails(&url, &format!("{THREE}\nshedule = \"0 3 * * *\""), 2, "did you mean 'schedule'?");
    fails(&url, &format!("{THREE}\nincremental = \"sometimes\""), 2, "version, column:NAME or none");
    assert_eq!(server.ask(&url, "SELECT to_regclass('scores') IS NULL"), "t");
}

#[test]
fn the_status_of_others_is_shown_where_one_target_does_not_answer() {
    let files = tempfile::tempdir().unwrap();
    let folder = folder("postgres://u@127.0.0.1:1/x", THREE);
    let settings = folder.path().join("normstream.toml");
    let more = format!(
        "\n[targets.files]\nurl = \"{}\"\n[exports.weekly]\ntarget = \"files\"\ntable = \"scores\"\n{THREE}\n",
        files.path().display()
    );
    std::fs::write(&settings, std::fs::read_to_string(&settings).unwrap() + &more).unwrap();
    in_folder(folder.path(), &["export", "run", "weekly"]).success();
    let status = in_folder(folder.path(), &["export", "status"]).code(75);
    status.stdout(contains("nightly  failed")).stderr(contains("dw cannot be reached (127.0.0.1:1)"));
    let status = in_folder(folder.path(), &["export", "status", "--format", "json"]).code(75);
    let text = String::from_utf8(status.get_output().stdout.clone()).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["export"], lines[0]["error"].is_string()), (&"nightly".into(), true), "{text}");
    assert_eq!((&lines[1]["export"], &lines[1]["last"]["rows"]), (&"weekly".into(), &3.into()), "{text}");
}

#[test]
fn a_secret_is_not_shown() {
    let hooks = "on_success = \"true\"\non_failure = \"https://hooks.example.com/canary\"";
    let folder = folder("postgres://u:canary@h/d?password=canary", &format!("{THREE}\n{hooks}"));
    in_folder(folder.path(), &["config", "show"])
        .success()
        .stdout(contains("postgres://u:********@h/d?password=********"))
        .stdout(contains("https://hooks.example.com/********"))
        .stdout(predicates::prelude::PredicateBooleanExt::not(contains("canary")));
}

#[test]
fn what_is_due_runs_once_and_hooks_are_told() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    let hooks = "on_success = \"cat >> told.json\"\non_failure = \"cat >> failed.json\"\nschedule = \"* * * * *\"";
    let folder = folder(&url, &format!("{THREE}\n{hooks}"));
    for _ in 0..2 {
        // The second may fall into the next minute, in which it runs again.
        in_folder(folder.path(), &["schedule", "run", "--once", "--log", "json"]).success();
    }
    let slots = server.ask(&url, "SELECT count(DISTINCT slot) FROM normstream_exports");
    let rows = server.ask(&url, "SELECT count(*) FROM scores");
    assert_eq!(rows.parse::<u32>().unwrap(), 3 * slots.parse::<u32>().unwrap());
    let told = std::fs::read_to_string(folder.path().join("told.json")).unwrap();
    assert!(told.starts_with("{\"outcome\":\"committed\",\"run_id\":\""), "{told}");
    assert!(!folder.path().join("failed.json").exists());
}

#[test]
fn a_scheduler_says_that_it_is_ready_and_drains_when_it_is_terminated() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    let folder = folder(&url, &format!("{THREE}\nschedule = \"* * * * *\""));
    let mut child = Command::new(cargo_bin("normstream"))
        .args(["schedule", "run"])
        .current_dir(folder.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut until = |wanted: &str| {
        let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains(wanted));
        assert!(line.is_some(), "{wanted}");
    };
    until("ready: 1 exports; next nightly at ");
    until("done, 3 rows of everything");
    let terminated = Instant::now();
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    until("stopping: ");
    until("stopped");
    assert!(child.wait().unwrap().success());
    assert!(terminated.elapsed() < Duration::from_secs(10));
}
