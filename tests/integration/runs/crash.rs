//! Runs that are stopped at every point, and go on.

use assert_cmd::cargo::cargo_bin;
use tempfile::tempdir;

use super::crash_loop::CrashLoop;
use super::{FORMATS, file_bytes, rows, score_into, snapshot};

/// Every point at which a run can be made to stop.
const POINTS: [&str; 7] =
    ["run-planned", "part-written", "part-recorded", "run-scored", "run-committed", "run-published", "run-receipted"];

#[test]
fn stopped_at_any_point_a_run_shows_all_or_nothing_and_ends_like_an_undisturbed_one() {
    for format in FORMATS {
        let folder = tempdir().unwrap();
        let undisturbed = folder.path().join("undisturbed");
        score_into(&undisturbed, format).assert().success();
        for point in POINTS {
            let table = folder.path().join(point);
            let stopped = score_into(&table, format).env("FAILPOINTS", format!("{point}=return")).assert();
            assert_eq!(stopped.get_output().status.code(), None, "{format} {point}: ended by its own hand");
            let is_committed = ["run-committed", "run-published", "run-receipted"].contains(&point);
            match snapshot(&table) {
                Some(_) => {
                    assert!(is_committed, "{format} {point}");
                    assert!(file_bytes(&table) == file_bytes(&undisturbed), "{format} {point}");
                }
                None => assert!(!is_committed, "{format} {point}"),
            }
            let resumed = score_into(&table, format).assert().success();
            let said = String::from_utf8_lossy(&resumed.get_output().stderr).into_owned();
            assert!(
                said.contains(if is_committed { "already done" } else { "going on with this run" }),
                "{point}: {said}"
            );
            assert!(file_bytes(&table) == file_bytes(&undisturbed), "{format} {point}");
            assert_eq!(snapshot(&table).unwrap().version, 0, "{format} {point}");
        }
    }
}

#[test]
fn a_run_with_a_table_of_failures_goes_on_wherever_it_was_stopped() {
    for format in FORMATS {
        let folder = tempdir().unwrap();
        let score = |table: &str| {
            let mut command = score_into(&folder.path().join(table), format);
            command.arg("--failures-to").arg(folder.path().join(format!("{table}-failed")));
            command
        };
        score("undisturbed").assert().success();
        let expected = rows(&folder.path().join("undisturbed-failed"));
        assert!(expected.num_rows() > 0, "{format}");
        for point in ["part-written", "run-scored", "run-committed", "run-published"] {
            let stopped = score(point).env("FAILPOINTS", format!("{point}=return")).assert();
            assert_eq!(stopped.get_output().status.code(), None, "{format} {point}: ended by its own hand");
            let failed = folder.path().join(format!("{point}-failed"));
            assert!(snapshot(&failed).is_none(), "{format} {point}: the failures are committed after the results");
            score(point).assert().success();
            assert!(rows(&failed) == expected, "{format} {point}");
            assert_eq!(snapshot(&failed).unwrap().version, 0, "{format} {point}");
        }
    }
}

#[test]
fn thirty_kills_lose_no_row_double_none_and_leave_every_table_readable() {
    let folder = tempdir().unwrap();
    let summary = CrashLoop::new(&cargo_bin("normstream"), folder.path(), 1).run(30);
    println!("{summary:#?}");
    assert!(summary.is_clean(), "{summary:#?}");
    assert!(summary.saw_old > 0 && summary.saw_new > 0, "{summary:#?}");
}

#[test]
fn a_point_that_is_told_nothing_to_do_is_an_error() {
    let folder = tempdir().unwrap();
    let table = folder.path().join("table");
    for (points, named) in
        [("run-planned", "FAILPOINTS: run-planned: "), ("a=off;b=explode", "FAILPOINTS: b=explode: ")]
    {
        let refused = score_into(&table, "parquet").env("FAILPOINTS", points).assert().code(2);
        let said = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
        assert!(said.contains(named), "{said}");
        assert!(!table.exists());
    }
}
