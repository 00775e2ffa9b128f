//! Results that are tables with a log: what is live, what was, and the runs that wrote them.

use std::path::Path;

use tempfile::tempdir;

use super::{normstream, sessions, sql, stdout};

/// Scores `sessions.parquet` and then `more.parquet` into a table of a format.
fn two_runs(folder: &Path, format: &str) {
    sessions(folder, 200);
    let more = [
        "generate",
        "sessions",
        "--rows",
        "100",
        "--seed",
        "8",
        "--first-session-id",
        "201",
        "--bad-fraction",
        "0.1",
        "--teams",
        "--progress",
        "off",
    ];
    normstream().current_dir(folder).args(more).args(["--to", "more.parquet"]).assert().success();
    for input in ["sessions.parquet", "more.parquet"] {
        let score =
            ["score", input, "--to", "results/", "--format", format, "--failures-to", "failed/", "--progress", "off"];
        normstream().current_dir(folder).args(score).assert().success();
    }
}

#[test]
fn a_table_is_read_as_it_is_and_as_it_was() {
    for format in ["delta", "parquet"] {
        let folder = tempdir().unwrap();
        two_runs(folder.path(), format);
        // A file that no version knows is none of the table's.
        std::fs::copy(folder.path().join("sessions.parquet"), folder.path().join("results/stray.parquet")).unwrap();
        let ask = |query: &str| stdout(folder.path(), &["--results", "results/", "-c", query, "--format", "csv"]);
        assert_eq!(ask("SELECT count(*) AS n FROM results"), "n\n300\n", "{format}");
        let first = ask("SELECT min(version) AS v FROM runs");
        let first = first.lines().nth(1).unwrap();
        assert_eq!(ask(&format!("SELECT count(*) AS n FROM results_at({first})")), "n\n200\n", "{format}");
        let since = format!(
            "SELECT count(*) AS n FROM results WHERE session_id NOT IN (SELECT session_id FROM results_at({first}))"
        );
        assert_eq!(ask(&since), "n\n100\n", "{format}");
        let none = sql(folder.path(), &["--results", "results/", "-c", "SELECT * FROM results_at(9)"]).assert().code(2);
        let message = String::from_utf8_lossy(&none.get_output().stderr).into_owned();
        assert!(message.contains("has no version 9"), "{message}");
    }
}

#[test]
fn runs_and_their_failures_are_tables() {
    let folder = tempdir().unwrap();
    two_runs(folder.path(), "delta");
    let ask = |query: &str| stdout(folder.path(), &["--results", "results/", "-c", query, "--format", "csv"]);
    let runs =
        "SELECT state, mode, sessions, failed = sessions - scored AS adds_up, inputs FROM runs ORDER BY committed_at";
    assert_eq!(
        ask(runs),
        "state,mode,sessions,adds_up,inputs\ncommitted,append,200,true,1\ncommitted,append,100,true,1\n"
    );
    // A failed session is there with all its columns.
    let failures = "SELECT count(*) = (SELECT count(*) FROM failed_sessions) AS all_there, count(q01_ce) > 0 AS ranks FROM failures";
    assert_eq!(ask(failures), "all_there,ranks\ntrue,true\n");
    let none = sql(folder.path(), &["-c", "SELECT * FROM runs"]).assert().code(2);
    let message = String::from_utf8_lossy(&none.get_output().stderr).into_owned();
    assert!(message.contains("it is there when --results is a table"), "{message}");
}
