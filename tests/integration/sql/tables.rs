//! Results that are tables with a log: what is live, what was, and the runs that wrote them.

use std::path::Path;

use tempfile::tempdir;

use super::{normstream, sessions, sql, stdout};
use crate::support::s3_server::S3Server;

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
        assert!(message.contains("has no version 9: the latest is 1"), "{message}");
    }
}

#[test]
fn runs_and_their_failures_are_tables() {
    for format in ["delta", "parquet"] {
        runs_and_failures_of(format);
    }
}

fn runs_and_failures_of(format: &str) {
    let folder = tempdir().unwrap();
    two_runs(folder.path(), format);
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

#[test]
fn a_table_in_a_bucket_is_read_as_it_is_and_as_it_was() {
    let Some(server) = S3Server::start() else { return };
    let folder = tempdir().unwrap();
    let settings = S3Server::settings(&server.url());
    let settings: String = settings.iter().map(|(key, value)| format!("{key} = {value:?}\n")).collect();
    let config = format!("[storage.\"s3://bucket\"]\n{settings}");
    std::fs::write(folder.path().join("normstream.toml"), config).unwrap();
    sessions(folder.path(), 200);
    let few = [
        "generate",
        "sessions",
        "--rows",
        "50",
        "--bad-fraction",
        "0.2",
        "--teams",
        "--progress",
        "off",
        "--to",
        "few.parquet",
    ];
    normstream().current_dir(folder.path()).args(few).assert().success();
    for format in ["delta", "parquet"] {
        let (results, failed) = (format!("s3://bucket/{format}/"), format!("s3://bucket/{format}-failed/"));
        for (input, mode) in [("sessions.parquet", "append"), ("few.parquet", "overwrite")] {
            let score = ["score", input, "--to", &results, "--format", format, "--mode", mode, "--progress", "off"];
            let score = normstream().current_dir(folder.path()).args(score).args(["--failures-to", &failed]).assert();
            score.success();
        }
        let ask = |query: &str| stdout(folder.path(), &["--results", &results, "-c", query, "--format", "csv"]);
        assert_eq!(ask("SELECT count(*) AS n FROM results"), "n\n50\n", "{format}");
        let first = "SELECT count(*) AS n FROM results_at(0)";
        if format == "delta" {
            assert_eq!(ask(first), "n\n200\n");
        } else {
            let gone = sql(folder.path(), &["--results", &results, "-c", first]).assert().code(2);
            let message = String::from_utf8_lossy(&gone.get_output().stderr).into_owned();
            let said = "version 0 of s3://bucket/parquet/ cannot be read any more: a later version dropped";
            assert!(message.contains(said), "{message}");
        }
        let runs = "SELECT version, mode, sessions FROM runs ORDER BY version";
        assert_eq!(ask(runs), "version,mode,sessions\n0,append,200\n1,overwrite,50\n", "{format}");
        let failures =
            "SELECT count(*) = (SELECT count(*) FROM failed_sessions) AS all_there, count(*) > 0 AS some FROM failures";
        assert_eq!(ask(failures), "all_there,some\ntrue,true\n", "{format}");
    }
}
