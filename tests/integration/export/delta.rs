//! Delta tables as targets, and results in versions as the source.

use std::path::Path;
use std::sync::Arc;

use normstream::export::schedule::SystemClock;
use normstream::export::{Cursor, ExportJob, Exporter, Incremental, Mode, Outcome, Request, TargetFormat, Targets};
use normstream::storage::{Storage, StorageOptions};

use super::files::python;
use super::{export, job, refused, source};
use crate::support::normstream;

fn into(folder: &Path, sql: &str, mode: Mode) -> ExportJob {
    let mut job = job(folder.to_str().unwrap(), sql);
    job.target.format = TargetFormat::Delta;
    job.mode = mode;
    job
}

/// What the Python library reads: the version, the number of rows, and the rows as `id state`, in order.
fn read(table: &Path) -> Option<String> {
    let program = "import deltalake, sys; t = deltalake.DeltaTable(sys.argv[1]); a = t.to_pyarrow_table()
print(t.version(), a.num_rows, ' '.join(sorted(f\"{i}{s}\" for i, s in zip(a['id'].to_pylist(), a['state'].to_pylist()))))";
    python(program, &[table])
}

fn rows(state: &str, first: u32, last: u32) -> String {
    format!("SELECT value AS id, '{state}' AS state FROM generate_series({first}, {last})")
}

#[tokio::test]
async fn a_delta_table_is_appended_to_upserted_and_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("scores");
    let agrees = |expected: &str| {
        if let Some(found) = read(&table) {
            assert_eq!(found, expected);
        }
    };
    let receipt = export(&into(folder.path(), &rows("a", 1, 2), Mode::Append)).await;
    assert_eq!(receipt.rows, 2);
    agrees("0 2 1a 2a");
    export(&into(folder.path(), &rows("b", 3, 5), Mode::Append)).await;
    agrees("1 5 1a 2a 3b 4b 5b");
    let key = Mode::Upsert { key: vec!["id".to_owned()] };
    export(&into(folder.path(), &rows("c", 5, 6), key.clone())).await;
    agrees("2 6 1a 2a 3b 4b 5c 6c");
    let twice = into(folder.path(), "SELECT 7 AS id, 'x' AS state UNION ALL SELECT 7, 'y'", key);
    assert_eq!(refused(&twice).await, "nightly gives a key more than once (7); upsert needs one row a key");
    let other = into(folder.path(), "SELECT 1 AS id, 2 AS state", Mode::Append);
    assert!(refused(&other).await.contains("state is Utf8 there and Int64 here"), "{}", refused(&other).await);
    let occupied = tempfile::tempdir().unwrap();
    std::fs::create_dir(occupied.path().join("scores")).unwrap();
    std::fs::write(occupied.path().join("scores/notes.txt"), "mine").unwrap();
    let error = refused(&into(occupied.path(), &rows("a", 1, 1), Mode::Append)).await;
    assert!(error.contains("is not a table, and holds 'notes.txt'"), "{error}");
    export(&into(folder.path(), &rows("d", 1, 1), Mode::Overwrite)).await;
    agrees("3 1 1d");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_versions_of_results_are_exported_once() {
    let folder = tempfile::tempdir().unwrap();
    let score = |seed: &str, name: &str, mode: &str| {
        let sessions = folder.path().join(format!("{name}.parquet"));
        let generate = ["generate", "sessions", "--rows", "500", "--seed", seed, "--to", sessions.to_str().unwrap()];
        normstream().args(generate).assert().success();
        let results = folder.path().join("results");
        let to = ["--to", results.to_str().unwrap(), "--format", "delta", "--mode", mode];
        normstream().arg("score").arg(&sessions).args(to).assert().success();
    };
    score("1", "one", "append");
    let storage = Storage::new(StorageOptions::default(), []).unwrap();
    let results = folder.path().join("results").display().to_string();
    let exporter = Exporter {
        source: source(&storage, Some(results)),
        targets: Arc::new(Targets::new(storage)),
        clock: Arc::new(SystemClock),
    };
    let mut job = into(&folder.path().join("lake"), include_str!("../../../sql/exports/scores.sql"), Mode::Append);
    job.incremental = Incremental::Version;
    let run = |job: ExportJob| {
        let exporter = exporter.clone();
        async move { exporter.run(&job, Request::default()).await }
    };
    let Outcome::Committed(first) = run(job.clone()).await.unwrap() else { panic!() };
    assert_eq!((first.rows, first.cursor), (500, Some(Cursor::Version(0))));
    assert_eq!(run(job.clone()).await.unwrap(), Outcome::NothingNew { cursor: "version 0".to_owned() });
    score("2", "two", "append");
    let Outcome::Committed(second) = run(job.clone()).await.unwrap() else { panic!() };
    assert_eq!((second.rows, second.slice.as_str()), (500, "versions after 0 up to 1"));
    assert_eq!(exporter.state(&job).await.unwrap().cursor, Some(Cursor::Version(1)));
    let count = "import deltalake, sys; print(deltalake.DeltaTable(sys.argv[1]).to_pyarrow_table().num_rows)";
    if let Some(count) = python(count, &[&folder.path().join("lake/scores")]) {
        assert_eq!(count, "1000");
    }
    // A version that replaces what was exported is not appended.
    score("3", "three", "overwrite");
    let error = run(job.clone()).await.unwrap_err().to_string();
    assert!(error.contains("replaces rows that have been exported before, which append would double"), "{error}");
    let Outcome::Committed(full) = exporter.run(&job, Request { full: true, ..Request::default() }).await.unwrap()
    else {
        panic!()
    };
    assert_eq!((full.rows, full.mode.as_str()), (500, "overwrite"));
}
