//! Many processes, one table.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use arrow::array::RecordBatch;
use assert_cmd::cargo::cargo_bin;
use tempfile::tempdir;

use super::{FORMATS, rows, snapshot};
use crate::support::{integers, normstream};

/// What became of a process of a race.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Committed,
    AlreadyDone,
    Conflict,
}

/// Starts a process for each of `(input, seed of its norms)` at once, and waits for all.
fn race(folder: &Path, format: &str, table: &str, entrants: &[(usize, bool)]) -> Vec<Ended> {
    let start = |(input, with_norms): &(usize, bool)| {
        let mut command = Command::new(cargo_bin("normstream"));
        command.arg("score").arg(format!("{input}.parquet")).args([
            "--to",
            table,
            "--format",
            format,
            "--threads",
            "1",
        ]);
        if *with_norms {
            command.args(["--norms", "norms"]);
        }
        command.current_dir(folder).stderr(Stdio::piped()).spawn().unwrap()
    };
    let processes: Vec<_> = entrants.iter().map(start).collect();
    let ended = |process: std::process::Child| {
        let output = process.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) if said.contains("already done") => Ended::AlreadyDone,
            Some(0) => Ended::Committed,
            Some(2) if said.contains("are in it already, from run") => Ended::Conflict,
            code => panic!("{code:?}: {said}"),
        }
    };
    processes.into_iter().map(ended).collect()
}

/// Whether a round could have happened one process after the other: each input's sessions are there once, put there by one
/// process, and whoever came later with the same sessions was told so.
fn check(folder: &Path, table: &str, inputs: usize, entrants: &[(usize, bool)], ended: &[Ended]) {
    let path = folder.join(table);
    let mut ids: Vec<i64> = integers(&rows(&path), "session_id").into_iter().flatten().collect();
    ids.sort_unstable();
    let expected: Vec<i64> = (0..inputs as i64).flat_map(|input| 1_000 * input + 1..=1_000 * input + 20).collect();
    assert_eq!(ids, expected, "{table}: {ended:?}");
    for input in 0..inputs {
        let of_input: Vec<(bool, Ended)> = entrants
            .iter()
            .zip(ended)
            .filter(|(entrant, _)| entrant.0 == input)
            .map(|(entrant, ended)| (entrant.1, *ended))
            .collect();
        let winners: Vec<bool> =
            of_input.iter().filter(|(_, ended)| *ended == Ended::Committed).map(|(norms, _)| *norms).collect();
        assert_eq!(winners.len(), 1, "{table}, input {input}: {of_input:?}");
        for (norms, ended) in of_input {
            match ended {
                // The same run as the winner's is done; another one over the same sessions is in conflict with it.
                Ended::Committed => {}
                Ended::AlreadyDone => assert_eq!(norms, winners[0], "{table}, input {input}"),
                Ended::Conflict => assert_ne!(norms, winners[0], "{table}, input {input}"),
            }
        }
    }
    assert_eq!(snapshot(&path).unwrap().version as usize, inputs - 1, "{table}: a version for each commit");
}

/// How many rounds of races there are in each format; `ROUNDS` in the environment says otherwise.
fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

#[test]
fn twenty_processes_at_one_table_never_lose_or_double_a_session() {
    let folder = tempdir().unwrap();
    let inputs = 8;
    for input in 0..inputs {
        let first = (1_000 * input + 1).to_string();
        let words = ["generate", "sessions", "--rows", "20", "--first-session-id", &first, "--to"];
        normstream().current_dir(folder.path()).args(words).arg(format!("{input}.parquet")).assert().success();
    }
    let norms = ["generate", "norms", "--groups", "3", "--to", "norms.parquet"];
    normstream().current_dir(folder.path()).args(norms).assert().success();
    let import = ["norms", "import", "norms.parquet", "--to", "norms"];
    normstream().current_dir(folder.path()).args(import).assert().success();
    // Eight inputs for twenty processes: some do the same run, some score the same sessions with other norms.
    let entrants: Vec<(usize, bool)> = (0..20).map(|number| (number % inputs, number % 3 == 0)).collect();
    for round in 0..rounds() {
        for format in FORMATS {
            let table = format!("{format}-{round}");
            let ended = race(folder.path(), format, &table, &entrants);
            check(folder.path(), &table, inputs, &entrants, &ended);
        }
    }
}

#[test]
fn processes_that_replace_sessions_of_one_file_at_once_each_replace_their_own() {
    let folder = tempdir().unwrap();
    let inputs = 6;
    let generate = |file: &str, first: usize, rows: usize| {
        let (first, rows) = (first.to_string(), rows.to_string());
        let words = ["generate", "sessions", "--rows", &rows, "--first-session-id", &first, "--to", file];
        normstream().current_dir(folder.path()).args(words).assert().success();
    };
    generate("all.parquet", 1, 20 * inputs);
    for input in 0..inputs {
        generate(&format!("{input}.parquet"), 20 * input + 1, 20);
    }
    let norms = ["generate", "norms", "--groups", "3", "--to", "norms.parquet"];
    normstream().current_dir(folder.path()).args(norms).assert().success();
    let import = ["norms", "import", "norms.parquet", "--to", "norms"];
    normstream().current_dir(folder.path()).args(import).assert().success();
    let ids = |rows: &RecordBatch| {
        let mut ids: Vec<i64> = integers(rows, "session_id").into_iter().flatten().collect();
        ids.sort_unstable();
        ids
    };
    for round in 0..rounds() {
        for format in FORMATS {
            let table = format!("replaced-{format}-{round}");
            let score = |input: &str| {
                let mut command = Command::new(cargo_bin("normstream"));
                command.args(["score", input, "--to", &table, "--format", format, "--mode", "replace-sessions"]);
                command.args(["--threads", "1"]).current_dir(folder.path()).stderr(Stdio::piped());
                command
            };
            assert!(score("all.parquet").output().unwrap().status.success());
            let before = ids(&rows(&folder.path().join(&table)));
            let start = |input| score(&format!("{input}.parquet")).args(["--norms", "norms"]).spawn().unwrap();
            let processes: Vec<_> = (0..inputs).map(start).collect();
            for process in processes {
                let output = process.wait_with_output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success(), "{table}: {said}");
            }
            let path = folder.path().join(&table);
            assert_eq!(ids(&rows(&path)), before, "{table}: every session once");
            let snapshot = snapshot(&path).unwrap();
            assert_eq!(snapshot.version, inputs as u64, "{table}: a version for each commit");
            let runs: BTreeSet<&str> = snapshot.files.iter().filter_map(|file| file.path.split('-').next()).collect();
            assert_eq!(runs.len(), inputs, "{table}: the first run has no row any more, all others have theirs");
        }
    }
}
