//! Formats, files, several statements.

use std::fs;

use tempfile::tempdir;

use super::{sessions, sql, stdout};
use crate::support::{integers, read_parquet, strings};

const ROWS: &str = "SELECT * FROM (VALUES (1, 'a', ['x', 'y']), (2, NULL, NULL)) t(n, text, list)";

#[test]
fn rows_are_written_in_each_format_of_text() {
    let folder = tempdir().unwrap();
    let written = |format: &str| stdout(folder.path(), &["-c", ROWS, "--format", format]);
    assert_eq!(written("csv"), "n,text,list\n1,a,x;y\n2,,\n");
    assert_eq!(written("tsv"), "n\ttext\tlist\n1\ta\tx;y\n2\t\t\n");
    let (first, second) = (r#"{"n":1,"text":"a","list":["x","y"]}"#, r#"{"n":2,"text":null,"list":null}"#);
    assert_eq!(written("ndjson"), format!("{first}\n{second}\n"));
    assert_eq!(written("json"), format!("[{first},{second}]\n"));
    insta::assert_snapshot!(written("table"), @r"
    +---+------+--------+
    | n | text | list   |
    +---+------+--------+
    | 1 | a    | [x, y] |
    | 2 |      |        |
    +---+------+--------+
    (2 rows)
    ");
}

#[test]
fn no_rows_are_a_head_and_an_empty_list() {
    let folder = tempdir().unwrap();
    let written = |format: &str| stdout(folder.path(), &["-c", "SELECT 1 AS n WHERE false", "--format", format]);
    assert_eq!(written("csv"), "n\n");
    assert_eq!(written("json"), "[]\n");
    assert_eq!(written("ndjson"), "");
}

#[test]
fn the_name_of_a_file_says_its_format() {
    let folder = tempdir().unwrap();
    for name in ["rows.parquet", "rows.arrow", "rows.csv", "rows.ndjson"] {
        sql(folder.path(), &["-c", ROWS, "-o", name]).assert().success().stdout("");
        let question = format!("SELECT sum(n) AS n FROM '{name}'");
        assert_eq!(stdout(folder.path(), &["-c", &question, "--format", "csv"]), "n\n3\n", "{name}");
    }
    let rows = read_parquet(&folder.path().join("rows.parquet"));
    assert_eq!(integers(&rows, "n"), [Some(1), Some(2)]);
    assert_eq!(strings(&rows, "text"), [Some("a".to_owned()), None]);
}

#[test]
fn a_file_is_whole_or_not_there_and_not_replaced_unasked() {
    let folder = tempdir().unwrap();
    let failing = "SELECT 1 / (value - 90000) AS n FROM generate_series(0, 100000)";
    sql(folder.path(), &["-c", failing, "-o", "rows.csv"]).assert().code(2);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    sql(folder.path(), &["-c", "SELECT 1 AS n", "-o", "rows.csv"]).assert().success();
    let again = sql(folder.path(), &["-c", "SELECT 2 AS n", "-o", "rows.csv"]).assert().code(2);
    assert!(String::from_utf8_lossy(&again.get_output().stderr).contains("rows.csv exists: give --overwrite"));
    sql(folder.path(), &["-c", "SELECT 3 AS n", "-o", "rows.csv", "--overwrite"]).assert().success();
    assert_eq!(fs::read_to_string(folder.path().join("rows.csv")).unwrap(), "n\n3\n");
}

#[test]
fn statements_run_in_order_over_one_session() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("questions.sql"), "-- a view\nCREATE VIEW two AS SELECT 2 AS n;\nSELECT * FROM two;")
        .unwrap();
    let written = stdout(folder.path(), &["-f", "questions.sql", "-c", "SELECT 1 AS n", "--format", "csv"]);
    assert_eq!(written, "n\n1\nn\n2\n");
    let piped = sql(folder.path(), &["--format", "csv"]).write_stdin("SELECT 7 AS n;").output().unwrap();
    assert_eq!(String::from_utf8(piped.stdout).unwrap(), "n\n7\n");
}

#[test]
fn a_long_table_is_cut_with_a_note() {
    let folder = tempdir().unwrap();
    let written = stdout(folder.path(), &["-c", "SELECT value FROM generate_series(1, 100000000)"]);
    assert_eq!(written.lines().count(), 1_005);
    assert!(
        written.ends_with("(the first 1000 rows; there are more, all of them with --format csv, ndjson or parquet)\n")
    );
}

#[test]
fn scored_rows_are_those_that_score_writes() {
    let folder = tempdir().unwrap();
    sessions(folder.path(), 500);
    let score = ["score", "sessions.parquet", "--to", "results.csv", "--progress", "off"];
    super::normstream().current_dir(folder.path()).args(score).assert().success();
    let question = "SELECT * FROM score('sessions.parquet') ORDER BY session_id";
    let written = stdout(folder.path(), &["-c", question, "--format", "csv"]);
    assert!(written == fs::read_to_string(folder.path().join("results.csv")).unwrap());
}
