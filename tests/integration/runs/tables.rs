//! What a run into a table does, says and leaves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::tempdir;

use super::{FORMATS, file_bytes, rows, score_file_into, score_into, snapshot};
use crate::support::{golden, integers, normstream, read_parquet};

#[test]
fn a_table_has_the_rows_that_a_file_would_have_and_says_so_in_its_receipt() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("out.parquet");
    normstream().arg("score").arg(golden("sessions.parquet")).arg("--to").arg(&file).assert().success();
    for format in FORMATS {
        let table = folder.path().join(format);
        score_into(&table, format)
            .assert()
            .success()
            .stderr(contains("append to the").and(contains("committed to")).and(contains("2,000 rows in 1 file,")));
        let (expected, found) = (read_parquet(&file), rows(&table));
        assert_eq!(found.num_rows(), 2_000, "{format}");
        assert_eq!(found.columns(), expected.columns(), "{format}");
        let run = fs::read_dir(table.join("_normstream/runs")).unwrap().next().unwrap().unwrap().path();
        let receipt: serde_json::Value = serde_json::from_slice(&fs::read(run.join("1/run.json")).unwrap()).unwrap();
        assert_eq!(
            (&receipt["sessions"], &receipt["scored"], &receipt["failed"]),
            (&2_000.into(), &1_944.into(), &56.into())
        );
        assert_eq!(receipt["failed_by_code"]["missing_rank"], 17);
        assert_eq!((&receipt["version"], &receipt["attempt"]), (&0.into(), &1.into()));
    }
}

#[test]
fn the_same_command_again_is_already_done() {
    for format in FORMATS {
        let folder = tempdir().unwrap();
        let table = folder.path().join("table");
        score_into(&table, format).assert().success();
        score_into(&table, format).assert().success().stderr(contains("already done: 2,000 sessions"));
        assert_eq!(snapshot(&table).unwrap().version, 0, "{format}");
        assert_eq!(rows(&table).num_rows(), 2_000, "{format}");
    }
}

#[test]
fn a_run_done_again_takes_the_place_of_itself() {
    for format in FORMATS {
        let folder = tempdir().unwrap();
        let table = folder.path().join("table");
        score_into(&table, format).assert().success();
        for (attempt, which) in [(2, "completed"), (3, "failed")] {
            let mut command = score_into(&table, format);
            command.args(["--reprocess", which]).assert().success().stderr(contains("committed to"));
            let name = snapshot(&table).unwrap().files[0].path.clone();
            assert!(name.ends_with(&format!("-{attempt}.parquet")), "{format} {which}: {name}");
            assert_eq!(rows(&table).num_rows(), 2_000, "{format} {which}");
        }
        score_into(&table, format).assert().success().stderr(contains("already done"));
        assert_eq!(snapshot(&table).unwrap().version, 2, "{format}");
    }
}

#[test]
fn other_sessions_are_added_and_the_same_ones_are_refused() {
    for format in FORMATS {
        let folder = tempdir().unwrap();
        let (table, more) = (folder.path().join("table"), folder.path().join("more.parquet"));
        let generate = ["generate", "sessions", "--rows", "500", "--first-session-id", "900001", "--to"];
        normstream().args(generate).arg(&more).assert().success();
        score_into(&table, format).assert().success();
        score_file_into(&more, &table, format).assert().success();
        assert_eq!(rows(&table).num_rows(), 2_500, "{format}");

        let with_norms = |mode: &[&str]| {
            let mut command = score_into(&table, format);
            command.arg("--norms").arg(golden("demo_groups.csv")).args(mode).assert()
        };
        let refusal = contains("are in it already, from run").and(contains("nothing was committed"));
        with_norms(&[]).code(2).stderr(refusal);
        assert_eq!(rows(&table).num_rows(), 2_500, "{format}");
        with_norms(&["--mode", "overwrite"]).success();
        assert_eq!(rows(&table).num_rows(), 2_000, "{format}");
        let ids = integers(&rows(&table), "session_id");
        assert!(ids.iter().all(|id| id.unwrap() <= 2_000), "{format}");
    }
}

#[test]
fn a_dry_run_prints_the_plan_and_writes_nothing() {
    let folder = tempdir().unwrap();
    let table = folder.path().join("table");
    let output = score_into(&table, "delta").arg("--dry-run").assert().success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    for line in
        ["run id      ", "instrument  klsi-4.0 (", "norms       the published table (", "columns     session_id Int64,"]
    {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(text.contains("2,000 sessions") && text.contains("sessions.parquet ("), "{text}");
    assert!(!table.exists());
    score_into(&table, "delta").assert().success();
    score_into(&table, "delta")
        .arg("--dry-run")
        .assert()
        .success()
        .stdout(contains("this run is in the table already"));
}

#[test]
fn parts_are_equal_to_the_byte_at_any_number_of_threads_and_any_batch_size() {
    let folder = tempdir().unwrap();
    let input = folder.path().join("sessions.parquet");
    let generate = ["generate", "sessions", "--rows", "20000", "--bad-fraction", "0.02", "--to"];
    normstream().args(generate).arg(&input).assert().success();
    let csv = folder.path().join("sessions.csv");
    normstream().args(["generate", "sessions", "--rows", "20000", "--to"]).arg(&csv).assert().success();
    for (kind, input) in [("parquet", input), ("csv", csv)] {
        let mut expected = None;
        for (number, (threads, batch_size)) in [(1, 8192), (2, 8192), (8, 8192), (2, 100), (3, 1777)].iter().enumerate()
        {
            let table = folder.path().join(format!("{kind}-{number}"));
            let (threads, batch_size) = (threads.to_string(), batch_size.to_string());
            let mut command = score_file_into(&input, &table, "parquet");
            command.env("NORMSTREAM_PART_ROWS", "1024").args(["--threads", &threads, "--batch-size", &batch_size]);
            command.arg("--norms").arg(golden("demo_groups.csv")).assert().success();
            let files = file_bytes(&table);
            match &expected {
                None => expected = Some(files),
                Some(expected) => assert!(files == *expected, "{threads} threads, {batch_size} rows a batch"),
            }
        }
    }
}

#[test]
fn the_format_of_a_folder_is_that_of_its_table_and_delta_for_a_new_one() {
    let folder = tempdir().unwrap();
    let score = |table: &str| {
        let mut command = normstream();
        command.current_dir(folder.path()).arg("score").arg(golden("sessions.parquet")).args(["--to", table]);
        command
    };
    score("new").assert().success();
    assert!(folder.path().join("new/_delta_log/00000000000000000000.json").exists());
    score("plain").args(["--format", "parquet"]).assert().success();
    score("plain").assert().success().stderr(contains("already done"));
    score("plain").args(["--format", "delta"]).assert().code(2).stderr(contains("is a parquet table, not a delta one"));
    fs::create_dir(folder.path().join("photos")).unwrap();
    fs::write(folder.path().join("photos/cat.jpg"), "cat").unwrap();
    score("photos").assert().code(2).stderr(contains("is not a table, and holds 'cat.jpg'"));
    score("photos/cat.jpg/").assert().code(2).stderr(contains("photos/cat.jpg/ is a file, and a table is a folder"));
    score("photos/cat.jpg/new/").assert().code(2).stderr(contains("Not a directory"));
    score("out.csv").args(["--mode", "append"]).assert().code(2).stderr(contains("--mode is for tables"));
    score("new").args(["--format", "csv"]).assert().code(2).stderr(contains("choose --format delta or parquet"));
}

#[test]
fn columns_of_types_that_tables_do_not_have_are_converted_or_named() {
    let folder = tempdir().unwrap();
    let input = folder.path().join("sessions.parquet");
    normstream().args(["generate", "sessions", "--rows", "100", "--teams", "--to"]).arg(&input).assert().success();
    for format in FORMATS {
        let table = folder.path().join(format);
        let passed = ["--pass", "team_id", "--pass", "q01_ce", "--pass", "date_of_birth"];
        score_file_into(&input, &table, format).args(passed).assert().success();
        let schema = snapshot(&table).unwrap().schema;
        let type_of = |name: &str| schema.field_with_name(name).unwrap().data_type().to_string();
        assert_eq!(type_of("q01_ce"), "Int16", "{format}");
        assert_eq!(type_of("completed_at"), "Timestamp(µs, \"UTC\")", "{format}");
        assert_eq!(rows(&table).num_rows(), 100, "{format}");
    }
}

#[test]
fn sessions_that_are_scored_again_take_the_place_of_themselves_and_others_stay() {
    for format in FORMATS {
        let folder = tempdir().unwrap();
        let table = folder.path().join("table");
        let generate = |name: &str, first: u64, rows: u64| {
            let file = folder.path().join(name);
            let words = ["generate", "sessions", "--seed", "7", "--first-session-id", &first.to_string(), "--rows"];
            normstream().args(words).arg(rows.to_string()).arg("--to").arg(&file).assert().success();
            file
        };
        let (first, overlapping) = (generate("first.parquet", 1, 300), generate("second.parquet", 201, 200));
        let far = generate("far.parquet", 9_001, 50);
        score_file_into(&first, &table, format).assert().success();
        score_file_into(&far, &table, format).assert().success();
        let far_file = snapshot(&table).unwrap().files.iter().find(|file| file.rows == Some(50)).unwrap().clone();
        let replace = || {
            let mut command = score_file_into(&overlapping, &table, format);
            command.args(["--mode", "replace-sessions", "--norms"]).arg(golden("demo_groups.csv"));
            command
        };
        replace().assert().success();
        let mut ids: Vec<i64> = integers(&rows(&table), "session_id").into_iter().flatten().collect();
        ids.sort_unstable();
        assert_eq!(ids, (1..=400).chain(9_001..=9_050).collect::<Vec<_>>(), "{format}");
        let files = snapshot(&table).unwrap().files;
        assert!(files.contains(&far_file), "{format}: a file without such sessions stays as it is");
        assert_eq!(
            files.iter().map(|file| file.rows.unwrap()).collect::<std::collections::BTreeSet<_>>(),
            [50, 200].into()
        );
        replace().assert().success().stderr(contains("already done"));
        replace().args(["--reprocess", "completed"]).assert().success();
        assert_eq!(rows(&table).num_rows(), 450, "{format}");
    }
}

#[test]
fn a_run_whose_sessions_were_replaced_in_part_is_not_appended_again() {
    for format in FORMATS {
        let folder = tempdir().unwrap();
        let table = folder.path().join("table");
        let (first, corrected) = (generated(folder.path(), 1, 300, "0"), generated(folder.path(), 201, 200, "0"));
        score_file_into(&first, &table, format).assert().success();
        let replace = |input: &Path, more: &[&str]| {
            let mut command = score_file_into(input, &table, format);
            command.args(["--mode", "replace-sessions"]).args(more).assert().success();
        };
        replace(&corrected, &[]);
        let refusal = contains("has put its results in the place of some of this run's")
            .and(contains("give --mode replace-sessions"))
            .and(contains("nothing was committed"));
        score_file_into(&first, &table, format).args(["--reprocess", "completed"]).assert().code(2).stderr(refusal);
        assert_eq!(ids(&table), (1..=400).collect::<Vec<_>>(), "{format}");
        // As it says.
        replace(&first, &[]);
        replace(&corrected, &["--reprocess", "completed"]);
        assert_eq!(ids(&table), (1..=400).collect::<Vec<_>>(), "{format}");
    }
}

#[test]
fn a_run_of_which_another_has_replaced_a_whole_file_is_not_appended_again() {
    for format in FORMATS {
        let folder = tempdir().unwrap();
        let table = folder.path().join("table");
        let (kept, replaced) = (generated(folder.path(), 1, 100, "0"), generated(folder.path(), 201, 50, "0"));
        let corrected = generated(folder.path(), 151, 200, "0");
        let append = || {
            let mut command = score_file_into(&kept, &table, format);
            command.arg(&replaced);
            command
        };
        append().assert().success();
        score_file_into(&corrected, &table, format).args(["--mode", "replace-sessions"]).assert().success();
        let expected: Vec<i64> = (1..=100).chain(151..=350).collect();
        assert_eq!(ids(&table), expected, "{format}");
        let refusal = contains("has put its results in the place of some of this run's");
        append().args(["--reprocess", "completed"]).assert().code(2).stderr(refusal);
        assert_eq!(ids(&table), expected, "{format}");
    }
}

#[test]
fn parts_that_an_overwrite_has_dropped_are_scored_again_with_those_that_have_failures() {
    for format in FORMATS {
        let folder = tempdir().unwrap();
        let table = folder.path().join("table");
        let (good, bad) = (generated(folder.path(), 1, 100, "0"), generated(folder.path(), 1_001, 100, "0.2"));
        let other = generated(folder.path(), 9_001, 50, "0");
        let overwrite = || {
            let mut command = score_file_into(&other, &table, format);
            command.args(["--mode", "overwrite", "--reprocess", "completed"]).assert().success();
        };
        let score = |reprocess: &str| {
            let mut command = Command::new(cargo_bin("normstream"));
            command.arg("score").args([&good, &bad]).arg("--to").arg(&table).args(["--format", format]);
            command.args(["--reprocess", reprocess]).stderr(Stdio::piped());
            command
        };
        let all: Vec<i64> = (1..=100).chain(1_001..=1_100).chain(9_001..=9_050).collect();
        assert!(score("none").output().unwrap().status.success(), "{format}");
        overwrite();
        assert_eq!(ids(&table), (9_001..=9_050).collect::<Vec<_>>(), "{format}");
        assert!(score("failed").output().unwrap().status.success(), "{format}");
        assert_eq!(ids(&table), all, "{format}");

        // Dropped between the scoring and the commit.
        let slow = score("failed").env("FAILPOINTS", "run-scored=sleep(6000)").spawn().unwrap();
        let is_scored = || {
            let mut runs = fs::read_dir(table.join("_normstream/runs")).unwrap().flatten();
            runs.any(|run| run.path().join("3/00001.json").exists())
        };
        while !is_scored() {
            std::thread::sleep(Duration::from_millis(20));
        }
        overwrite();
        let output = slow.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(75), "{format}: {said}");
        assert!(said.contains("have moved or gone"), "{format}: {said}");
        assert_eq!(ids(&table), (9_001..=9_050).collect::<Vec<_>>(), "{format}");
        assert!(score("failed").output().unwrap().status.success(), "{format}");
        assert_eq!(ids(&table), all, "{format}");
    }
}

/// A file of sessions with ids from a first one on, a fraction of which cannot be scored.
fn generated(folder: &Path, first: u64, rows: u64, bad_fraction: &str) -> PathBuf {
    let file = folder.join(format!("{first}.parquet"));
    let (first, rows) = (first.to_string(), rows.to_string());
    let words = ["generate", "sessions", "--first-session-id", &first, "--rows", &rows, "--bad-fraction", bad_fraction];
    normstream().args(words).arg("--to").arg(&file).assert().success();
    file
}

/// The session ids of a table, in order.
fn ids(table: &Path) -> Vec<i64> {
    let mut ids: Vec<i64> = integers(&rows(table), "session_id").into_iter().flatten().collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_session_that_comes_twice_ends_a_replacing_run_or_its_latest_row_stays() {
    for format in FORMATS {
        let folder = tempdir().unwrap();
        let table = folder.path().join("table");
        let input = golden("sessions.parquet");
        let replace = |more: &[&str]| {
            let mut command = normstream();
            command.arg("score").arg(&input).arg(&input).arg("--to").arg(&table);
            command.args(["--format", format, "--mode", "replace-sessions"]).args(more);
            command.assert()
        };
        replace(&[]).code(2).stderr(contains("the input has the session_id 1 more than once"));
        assert!(snapshot(&table).is_none(), "{format}");
        replace(&["--duplicates", "last"]).success();
        let rows = rows(&table);
        assert_eq!(rows.num_rows(), 2_000, "{format}");
        let distinct: std::collections::BTreeSet<_> = integers(&rows, "session_id").into_iter().collect();
        assert_eq!(distinct.len(), 2_000, "{format}");
    }
}

#[test]
fn failed_sessions_get_a_table_of_their_own_with_all_their_columns_and_what_is_wrong() {
    let folder = tempdir().unwrap();
    let input = folder.path().join("sessions.csv");
    let words = ["generate", "sessions", "--rows", "300", "--bad-fraction", "0.2", "--teams", "--to"];
    normstream().args(words).arg(&input).assert().success();
    for format in FORMATS {
        let (table, failures) = (folder.path().join(format), folder.path().join(format!("{format}-failed")));
        let mut command = score_file_into(&input, &table, format);
        command.arg("--failures-to").arg(&failures).args(["--on-error", "drop"]).assert().success();
        let (scored, failed) = (rows(&table), rows(&failures));
        assert_eq!(scored.num_rows() + failed.num_rows(), 300, "{format}");
        assert!((30..=90).contains(&failed.num_rows()), "{format}");
        let schema = failed.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let header = fs::read_to_string(&input).unwrap().lines().next().unwrap().to_owned();
        let expected: Vec<&str> = header.split(',').chain(["error_code", "error"]).collect();
        assert_eq!(names, expected, "{format}");
        assert!(crate::support::strings(&failed, "error_code").iter().all(Option::is_some), "{format}");
        let ids: std::collections::BTreeSet<_> = integers(&scored, "session_id").into_iter().collect();
        assert!(integers(&failed, "session_id").iter().all(|id| !ids.contains(id)), "{format}");
        let mut command = score_file_into(&input, &table, format);
        let again = command.arg("--failures-to").arg(&failures).args(["--on-error", "drop"]).assert().success();
        again.stderr(contains("already done"));
        assert_eq!(snapshot(&failures).unwrap().version, 0, "{format}");
    }
    let mut command = score_file_into(&input, &folder.path().join("one"), "delta");
    let refusal = contains("--failures-to and --to are both");
    command.arg("--failures-to").arg(folder.path().join("one")).assert().code(2).stderr(refusal);
}
