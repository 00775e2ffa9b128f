//! Results are standard Parquet: other libraries read what the program says in NDJSON.

use std::process::Command;

use tempfile::tempdir;

use crate::support::{golden, normstream};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/support/read_results.py");

/// Whether Python has a library; on a build server it must.
fn has(library: &str) -> bool {
    let found = Command::new("python3").args(["-c", &format!("import {library}")]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "python3 with {library} is needed for this test");
    println!("skipped: python3 with {library} is not installed");
    false
}

/// Scores the golden sessions twice and has `library` compare the results.
fn assert_reads_equal(library: &str) {
    if !has(library) {
        return;
    }
    let folder = tempdir().unwrap();
    let [parquet, ndjson] = ["results.parquet", "results.ndjson"].map(|name| folder.path().join(name));
    for target in [&parquet, &ndjson] {
        let mut command = normstream();
        command.arg("score").arg(golden("sessions.parquet")).arg("--norms").arg(golden("demo_groups.csv"));
        command.arg("--to").arg(target).assert().success();
    }
    let output = Command::new("python3").args([SCRIPT, library]).args([&parquet, &ndjson]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "2000 rows of 41 columns are equal, 56 of them not ok");
}

#[test]
fn pyarrow_reads_results_as_they_are() {
    assert_reads_equal("pyarrow");
}

#[test]
fn duckdb_reads_results_as_they_are() {
    assert_reads_equal("duckdb");
}

#[test]
fn polars_reads_results_as_they_are() {
    assert_reads_equal("polars");
}
