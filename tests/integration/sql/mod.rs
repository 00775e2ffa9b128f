//! `normstream sql`: what it writes, what it refuses, and its shell.

mod duckdb;
mod errors;
mod formats;
mod plans;
#[cfg(unix)]
mod shell;
mod spill;
mod tables;

use std::path::Path;

use assert_cmd::Command;

use super::support::normstream;

/// Generates sessions to score.
fn sessions(folder: &Path, rows: u64) {
    let to = folder.join("sessions.parquet");
    let rows = rows.to_string();
    let arguments = ["generate", "sessions", "--rows", &rows, "--seed", "7", "--bad-fraction", "0.05", "--teams"];
    normstream().args(arguments).args(["--progress", "off", "--to"]).arg(to).assert().success();
}

/// `normstream sql` in a folder.
fn sql(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = normstream();
    command.current_dir(folder).arg("sql").args(arguments);
    command
}

/// What it writes to standard output.
fn stdout(folder: &Path, arguments: &[&str]) -> String {
    let output = sql(folder, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
