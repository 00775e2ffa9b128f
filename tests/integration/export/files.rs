//! Files as targets, read by others.

use std::path::{Path, PathBuf};
use std::process::Command;

use assert_cmd::cargo::cargo_bin;
use normstream::engine::FileFormat;
use normstream::export::{Incremental, Mode, Outcome, Request, TargetFormat};

use super::crash::end_leases;
use super::{at, export, exporter, job, refused};
use crate::support::{column, integers, read_parquet};

const ROWS: &str = "SELECT value AS id, CASE value % 3 WHEN 0 THEN 'DE' WHEN 1 THEN 'a/b' END AS country,
        value / 4.0 AS score, make_array('a', 'b') AS flags FROM generate_series(1, 300)";

fn into(folder: &Path, format: FileFormat, mode: Mode) -> normstream::export::ExportJob {
    let mut job = job(folder.to_str().unwrap(), ROWS);
    job.target.format = TargetFormat::Files(format);
    job.mode = mode;
    job
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// What a Python program prints; `None` where it or its libraries are missing outside the build server.
pub fn python(program: &str, arguments: &[&Path]) -> Option<String> {
    // The threads of some libraries end the interpreter with an abort when they outlive it: it leaves without waiting for them.
    let program = format!("{program}\nimport os, sys; sys.stdout.flush(); os._exit(0)");
    answer(Command::new("python3").args(["-c", &program]).args(arguments))
}

/// The same of a program in a file.
pub fn python_file(program: &Path, arguments: &[&Path]) -> Option<String> {
    answer(Command::new("python3").arg(program).args(arguments))
}

fn answer(python: &mut Command) -> Option<String> {
    match python.output().ok() {
        Some(output) if output.status.success() => Some(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
        output => {
            let error = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).unwrap_or_default();
            let missing = error.is_empty() || error.contains("ModuleNotFoundError");
            assert!(missing && std::env::var("CI").as_deref() != Ok("true"), "{error}");
            println!("skipped: python3 with duckdb and pyarrow is not installed");
            None
        }
    }
}

#[tokio::test]
async fn appending_adds_a_file_an_export_and_overwriting_replaces_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = into(folder.path(), FileFormat::Parquet, Mode::Append);
    for _ in 0..2 {
        assert_eq!(export(&job).await.rows, 300);
    }
    let written = files(&folder.path().join("scores"));
    assert_eq!(written.len(), 2);
    let batch = read_parquet(&written[0]);
    assert_eq!(integers(&batch, "id").into_iter().flatten().sum::<i64>(), 45_150);
    assert_eq!(column(&batch, "country").null_count(), 100);
    job.mode = Mode::Overwrite;
    export(&job).await;
    let written = files(&folder.path().join("scores"));
    assert_eq!(written.len(), 1);
    let duckdb = "import duckdb, sys; print(*duckdb.sql(f\"select count(*), sum(id), sum(score) from read_parquet('{sys.argv[1]}/*.parquet')\").fetchall()[0])";
    if let Some(answer) = python(duckdb, &[&folder.path().join("scores")]) {
        assert_eq!(answer, "300 45150 11287.5");
    }
}

#[tokio::test]
async fn partitions_are_folders_as_hive_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = into(folder.path(), FileFormat::Parquet, Mode::Append);
    job.partition_by = vec!["country".to_owned()];
    let receipt = export(&job).await;
    let table = folder.path().join("scores");
    let folders: Vec<String> = files(&table)
        .iter()
        .map(|file| file.parent().unwrap().strip_prefix(&table).unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(folders, ["country=DE", "country=__HIVE_DEFAULT_PARTITION__", "country=a%2Fb"]);
    assert_eq!(receipt.bytes, files(&table).iter().map(|file| file.metadata().unwrap().len()).sum::<u64>());
    let pyarrow = "import pyarrow.dataset as d, sys; t = d.dataset(sys.argv[1], partitioning='hive').to_table(); \
                   print(t.num_rows, sum(t['id'].to_pylist()), sorted({str(c) for c in t['country'].to_pylist()}))";
    if let Some(answer) = python(pyarrow, &[&table]) {
        assert_eq!(answer, "300 45150 ['DE', 'None', 'a/b']");
    }
}

/// Rows whose 400 shards, and those of none, come in turn, the last first.
const SHARDS: &str =
    "SELECT value AS id, nullif(value % 401, 400) AS shard FROM generate_series(0, 20049) ORDER BY id DESC";

/// The ids of every shard, each folder with one file.
fn shards(table: &Path) -> Vec<(String, Vec<i64>)> {
    let shard = |file: &PathBuf| {
        let folder = file.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        (folder, integers(&read_parquet(file), "id").into_iter().flatten().collect())
    };
    visible(table).iter().map(shard).collect()
}

/// Files with a dot in front are unfinished; no reader takes them.
fn visible(folder: &Path) -> Vec<PathBuf> {
    let is_visible = |file: &PathBuf| !file.file_name().unwrap().to_str().unwrap().starts_with('.');
    files(folder).into_iter().filter(is_visible).collect()
}

/// What [`shards`] must give.
fn all_shards() -> Vec<(String, Vec<i64>)> {
    let name = |shard| match shard {
        400 => "shard=__HIVE_DEFAULT_PARTITION__".to_owned(),
        shard => format!("shard={shard}"),
    };
    let mut shards: Vec<_> =
        (0..401).map(|shard| (name(shard), (0..50).rev().map(|row| row * 401 + shard).collect())).collect();
    shards.sort();
    shards
}

#[tokio::test]
async fn each_of_hundreds_of_partitions_is_one_file_with_its_rows_in_the_order_of_the_query() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = into(folder.path(), FileFormat::Parquet, Mode::Overwrite);
    (job.sql, job.partition_by) = (SHARDS.to_owned(), vec!["shard".to_owned()]);
    for _ in 0..2 {
        assert_eq!(export(&job).await.rows, 20_050);
        assert_eq!(files(&folder.path().join("scores")).len(), 401);
        assert_eq!(shards(&folder.path().join("scores")), all_shards());
    }
}

#[tokio::test]
async fn too_few_rows_in_hundreds_of_partitions_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = into(folder.path(), FileFormat::Parquet, Mode::Append);
    (job.sql, job.partition_by, job.min_rows) = (SHARDS.to_owned(), vec!["shard".to_owned()], 20_051);
    assert!(refused(&job).await.contains("fewer than min_rows = 20051"));
    assert_eq!(files(&folder.path().join("scores")), Vec::<PathBuf>::new());
}

#[cfg(unix)]
#[test]
fn hundreds_of_partitions_need_few_descriptors_and_what_a_dead_export_made_visible_goes() {
    let folder = tempfile::tempdir().unwrap();
    let settings = format!(
        "[targets.dw]\nurl = \"out\"\nformat = \"parquet\"\n[exports.nightly]\nquery = \"{SHARDS}\"\ntarget = \"dw\"\n\
         table = \"scores\"\npartition_by = [\"shard\"]\nretries = 0\n"
    );
    std::fs::write(folder.path().join("normstream.toml"), settings).unwrap();
    let run = |failpoints: &str| {
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n 160; exec \"$0\" export run"]).arg(cargo_bin("normstream"));
        limited.env("FAILPOINTS", failpoints).current_dir(folder.path()).output().unwrap()
    };
    let table = folder.path().join("out/scores");
    assert!(!run("export::copying=return").status.success());
    assert!(visible(&table).len() >= 64);
    end_leases(&folder.path().join("out/_normstream/scores/nightly"));
    let output = run("");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(shards(&table), all_shards());
}

#[tokio::test]
async fn an_export_reads_the_newest_commit_alone_and_one_of_a_window_all() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = into(folder.path(), FileFormat::Parquet, Mode::Append);
    job.sql = "SELECT 1 AS id, :from AS since, :to AS until".to_owned();
    job.incremental = Incremental::Column("until".to_owned());
    let window = Request { window: Some((at("2024-01-01"), at("2024-01-02"))), ..Request::default() };
    assert!(matches!(exporter().run(&job, window).await.unwrap(), Outcome::Committed(_)));
    for _ in 0..5 {
        export(&job).await;
    }
    assert!(matches!(exporter().run(&job, window).await.unwrap(), Outcome::AlreadyDone(_)));

    let log = folder.path().join("_normstream/scores/nightly");
    let commits =
        files(&log).into_iter().filter(|entry| std::fs::read_to_string(entry).unwrap().contains("\"commit\""));
    let commits: Vec<PathBuf> = commits.collect();
    assert_eq!(commits.len(), 6);
    for old in &commits[..5] {
        std::fs::write(old, "not read").unwrap();
    }
    export(&job).await;
    let error = exporter().run(&job, window).await.unwrap_err().to_string();
    assert!(error.contains("is not an entry of it"), "{error}");
}

#[tokio::test]
async fn an_overwriting_export_of_text_is_one_file_of_the_tables_name() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let receipt = export(&into(folder.path(), FileFormat::Csv, Mode::Overwrite)).await;
        let text = std::fs::read_to_string(folder.path().join("scores.csv")).unwrap();
        assert_eq!(receipt.bytes, text.len() as u64);
        let lines: Vec<&str> = text.lines().take(3).collect();
        assert_eq!(lines, ["id,country,score,flags", "1,a/b,0.25,a;b", "2,,0.5,a;b"]);
        assert_eq!(text.lines().count(), 301);
    }
    export(&into(folder.path(), FileFormat::Ndjson, Mode::Overwrite)).await;
    export(&into(folder.path(), FileFormat::Arrow, Mode::Overwrite)).await;
    let ndjson = std::fs::read_to_string(folder.path().join("scores.ndjson")).unwrap();
    assert_eq!(ndjson.lines().next(), Some("{\"id\":1,\"country\":\"a/b\",\"score\":0.25,\"flags\":[\"a\",\"b\"]}"));
    let others = "import duckdb, pyarrow.feather, sys; a, n, c = sys.argv[1:]; t = pyarrow.feather.read_table(a)
print(t.num_rows, sum(t['id'].to_pylist()), *duckdb.sql(f\"select count(*), sum(id) from read_json_auto('{n}')\").fetchall()[0], *duckdb.sql(f\"select count(*), sum(id) from read_csv_auto('{c}')\").fetchall()[0])";
    let paths = ["scores.arrow", "scores.ndjson", "scores.csv"].map(|name| folder.path().join(name));
    if let Some(answer) = python(others, &[&paths[0], &paths[1], &paths[2]]) {
        assert_eq!(answer, "300 45150 300 45150 300 45150");
    }
}

#[tokio::test]
async fn what_files_cannot_do_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let upsert = into(folder.path(), FileFormat::Parquet, Mode::Upsert { key: vec!["id".to_owned()] });
    assert!(refused(&upsert).await.starts_with("dw cannot upsert by id: files have no keys"));
    let mut few = into(folder.path(), FileFormat::Csv, Mode::Append);
    few.min_rows = 301;
    assert!(refused(&few).await.contains("fewer than min_rows = 301"));
    few.min_rows = 0;
    few.sql = "SELECT value / (value - 20000) AS n FROM generate_series(1, 30000)".to_owned();
    assert!(refused(&few).await.contains("Divide by zero"));
    let left: Vec<PathBuf> =
        files(folder.path()).into_iter().filter(|file| !file.to_str().unwrap().contains("_normstream")).collect();
    assert!(left.is_empty(), "{left:?}");
}
