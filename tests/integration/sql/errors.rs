//! What is wrong is said with its place and a hint, and the exit code is 2.

use std::fs;

use tempfile::tempdir;

use super::{sessions, sql};

/// The message of a command that is refused.
fn refused(folder: &std::path::Path, arguments: &[&str]) -> String {
    let output = sql(folder, arguments).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert_eq!(output.stdout, b"", "{message}");
    message
}

#[test]
fn wrong_sql_is_shown_with_its_place() {
    let folder = tempdir().unwrap();
    insta::assert_snapshot!(refused(folder.path(), &["-c", "SELECT 1,\n  FORM t"]), @"");
    insta::assert_snapshot!(refused(folder.path(), &["-c", "SELEC 1"]), @"");
}

#[test]
fn unknown_names_come_with_near_ones() {
    let folder = tempdir().unwrap();
    sessions(folder.path(), 20);
    let message = refused(folder.path(), &["-c", "SELECT session_id,\n  stlye FROM score('sessions.parquet')"]);
    insta::assert_snapshot!(message, @"");
    insta::assert_snapshot!(refused(folder.path(), &["-c", "SELECT * FROM nroms"]), @"");
    insta::assert_snapshot!(refused(folder.path(), &["-c", "SELECT learning_stile(1, 2)"]), @"");
}

#[test]
fn what_is_missing_for_a_view_is_said() {
    let folder = tempdir().unwrap();
    insta::assert_snapshot!(refused(folder.path(), &["-c", "SELECT * FROM score_summary"]), @"");
    sessions(folder.path(), 20);
    let score = ["score", "sessions.parquet", "--to", "results.parquet", "--progress", "off"];
    super::normstream().current_dir(folder.path()).args(score).assert().success();
    let message = refused(folder.path(), &["--results", "results.parquet", "-c", "SELECT * FROM team_rollup"]);
    insta::assert_snapshot!(message, @"");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("broken.parquet"), "no such thing").unwrap();
    insta::assert_snapshot!(refused(folder.path(), &["-c", "SELECT * FROM 'nothing.parquet'"]), @"");
    insta::assert_snapshot!(refused(folder.path(), &["-c", "SELECT * FROM 'broken.parquet'"]), @"");
    insta::assert_snapshot!(refused(folder.path(), &["--results", "nothing/", "-c", "SELECT 1"]), @"");
    insta::assert_snapshot!(refused(folder.path(), &["-f", "nothing.sql"]), @"");
    insta::assert_snapshot!(refused(folder.path(), &["--table", "a-b=x.csv", "-c", "SELECT 1"]).lines().next().unwrap(), @"");
}

#[test]
fn each_limit_says_which_it_is() {
    let folder = tempdir().unwrap();
    let slow = "SELECT count(*) FROM generate_series(1, 100000) a JOIN generate_series(1, 100000) b ON a.value * b.value % 7 = 9";
    insta::assert_snapshot!(refused(folder.path(), &["--timeout", "300ms", "-c", slow]), @"");
    let many = "SELECT max(value) OVER () FROM generate_series(1, 1000)";
    insta::assert_snapshot!(refused(folder.path(), &["--max-rows", "10", "-c", many, "-o", "rows.csv"]), @"");
    assert!(!folder.path().join("rows.csv").exists());
    let large = "SELECT array_agg(value) FROM generate_series(1, 20000000) GROUP BY value % 3";
    let message =
        refused(folder.path(), &["--memory-limit", "16MiB", "--threads", "1", "-c", large, "-o", "rows.ndjson"]);
    assert!(
        message.starts_with("normstream: the query needs more memory than 16.0 MiB: raise --memory-limit"),
        "{message}"
    );
    let sorted =
        "SELECT value, repeat('x', 100) AS text FROM generate_series(1, 3000000) ORDER BY value % 1000003 DESC";
    let spill = ["--memory-limit", "16MiB", "--spill-limit", "10MiB", "--threads", "1", "-c", sorted, "-o", "rows.csv"];
    insta::assert_snapshot!(refused(folder.path(), &spill), @"");
}
