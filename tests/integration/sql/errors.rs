//! What is wrong is said with its place and a hint, and the exit code is 2.

use std::fs;
use std::path::Path;

use tempfile::tempdir;

use super::{sessions, sql};

/// The message of a command that is refused.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = sql(folder, arguments).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert_eq!(output.stdout, b"", "{message}");
    message.trim_end().strip_prefix("normstream: ").unwrap_or(&message).to_owned()
}

/// A message and the line that it shows with a mark below.
fn at(message: &str, line: usize, column: usize, text: &str) -> String {
    let mark = " ".repeat(column - 1);
    format!("{message}\n  line {line}, column {column}:\n  {text}\n  {mark}^")
}

#[test]
fn wrong_sql_is_shown_with_its_place() {
    let folder = tempdir().unwrap();
    assert_eq!(
        refused(folder.path(), &["-c", "SELEC 1"]),
        at("wrong SQL: Expected: an SQL statement, found: SELEC", 1, 1, "SELEC 1")
    );
    let message = refused(folder.path(), &["-c", "SELECT (1"]);
    assert_eq!(message, "wrong SQL: Expected: ), found: EOF");
}

#[test]
fn unknown_names_come_with_near_ones() {
    let folder = tempdir().unwrap();
    sessions(folder.path(), 20);
    assert_eq!(
        refused(folder.path(), &["-c", "SELECT session_id,\n  stlye FROM score('sessions.parquet')"]),
        at("there is no column 'stlye'; did you mean 'style'?", 2, 3, "  stlye FROM score('sessions.parquet')")
    );
    assert_eq!(
        refused(folder.path(), &["-c", "SELECT * FROM nroms"]),
        at("there is no table 'nroms'; did you mean 'norms'?", 1, 15, "SELECT * FROM nroms")
    );
    assert_eq!(
        refused(folder.path(), &["-c", "SELECT learning_stile(1, 2)"]),
        at(
            "there is no function 'learning_stile'; did you mean 'learning_style'?",
            1,
            8,
            "SELECT learning_stile(1, 2)"
        )
    );
}

#[test]
fn what_is_missing_for_a_view_is_said() {
    let folder = tempdir().unwrap();
    let message = refused(folder.path(), &["-c", "SELECT * FROM score_summary"]);
    assert!(message.starts_with("there is no table 'score_summary'; give --results, a file, folder or"), "{message}");
    sessions(folder.path(), 20);
    let score = ["score", "sessions.parquet", "--to", "results.parquet", "--progress", "off"];
    super::normstream().current_dir(folder.path()).args(score).assert().success();
    let message = refused(folder.path(), &["--results", "results.parquet", "-c", "SELECT * FROM team_rollup"]);
    let needs = "the view of this name needs results with team_id: score with --pass team_id";
    assert_eq!(message, at(&format!("there is no table 'team_rollup'; {needs}"), 1, 15, "SELECT * FROM team_rollup"));
}

#[test]
fn results_of_a_few_columns_have_the_views_that_these_suffice_for() {
    let folder = tempdir().unwrap();
    let some = "SELECT 1 AS session_id, true AS ok, 'acting' AS style";
    sql(folder.path(), &["-c", some, "-o", "results.parquet"]).assert().success();
    let ask = |view: &'static str| ["--results", "results.parquet", "-c", view];
    sql(folder.path(), &ask("SELECT * FROM style_distribution")).assert().success();
    let message = refused(folder.path(), &ask("SELECT * FROM score_summary"));
    assert!(message.contains("the view of this name needs whole results: there is no column 'ce_raw'"), "{message}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("broken.parquet"), "no such thing").unwrap();
    let message = refused(folder.path(), &["-c", "SELECT *\nFROM 'brokn.parquet'"]);
    assert!(message.starts_with("brokn.parquet names no session file"), "{message}");
    assert!(
        message.ends_with("did you mean 'broken.parquet'?\n  line 2, column 7:\n  FROM 'brokn.parquet'\n        ^"),
        "{message}"
    );
    let message = refused(folder.path(), &["-c", "SELECT * FROM 'broken.parquet'"]);
    assert!(message.starts_with("cannot read broken.parquet as parquet: "), "{message}");
    let message = refused(folder.path(), &["--results", "nothing/", "-c", "SELECT 1"]);
    assert!(message.starts_with("nothing/ names no session file"), "{message}");
    let message = refused(folder.path(), &["-f", "nothing.sql"]);
    assert!(message.starts_with("cannot read nothing.sql: No such file or directory"), "{message}");
    let message = refused(folder.path(), &["--table", "a-b=x.csv", "-c", "SELECT 1"]);
    assert!(message.contains("give it as NAME=URL, as in sessions=in/"), "{message}");
}

#[test]
fn each_limit_says_which_it_is() {
    let folder = tempdir().unwrap();
    // One batch of this join keeps a processor for longer than the limit.
    let slow = "SELECT count(*) FROM generate_series(1, 100000) a JOIN generate_series(1, 100000) b ON a.value * b.value % 7 = 9";
    assert_eq!(
        refused(folder.path(), &["--timeout", "300ms", "-c", slow]),
        "the query was stopped after 300ms: raise --timeout, or ask for less"
    );
    let many = "SELECT max(value) OVER () FROM generate_series(1, 1000)";
    assert_eq!(
        refused(folder.path(), &["--max-rows", "10", "-c", many, "-o", "rows.csv"]),
        "the query gives more than 10 rows: add a LIMIT, or raise --max-rows"
    );
    let large = "SELECT array_agg(value) FROM generate_series(1, 5000000) GROUP BY value % 3";
    let message =
        refused(folder.path(), &["--memory-limit", "16MiB", "--threads", "1", "-c", large, "-o", "rows.ndjson"]);
    assert!(message.starts_with("the query needs more memory than 16.0 MiB: raise --memory-limit"), "{message}");
    let sorted =
        "SELECT value, repeat('x', 100) AS text FROM generate_series(1, 3000000) ORDER BY value % 1000003 DESC";
    let spill = ["--memory-limit", "16MiB", "--spill-limit", "10MiB", "--threads", "1", "-c", sorted, "-o", "rows.csv"];
    assert_eq!(
        refused(folder.path(), &spill),
        "the query spills more than 10.0 MiB to disk: raise --spill-limit or --memory-limit"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left of what was not finished");
}
