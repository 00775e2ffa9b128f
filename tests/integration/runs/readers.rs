//! What other programs read from our tables. Python with `deltalake`, `polars`, `pyarrow` and `duckdb` from PyPI.

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::tempdir;

use super::{FORMATS, rows, score_into};
use crate::support::{floats, golden, integers, normstream};

/// Whether Python has a module. On a build server it must be there.
fn has(module: &str) -> bool {
    let found = Command::new("python3").args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "python3 with {module} is needed for this test");
        println!("skipped: python3 with {module} is not installed");
    }
    found
}

/// What a Python program prints.
fn python(program: &str, table: &Path) -> String {
    // The threads of some libraries end the interpreter with an abort when they outlive it: it leaves without waiting for them.
    let program = format!("{program}\nimport os, sys; sys.stdout.flush(); os._exit(0)");
    let output = Command::new("python3").args(["-c", &program]).arg(table).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Rows, sum of ids, sum of known intensities, sum of known percentiles (in tenths) and how many are flagged, as we read them.
fn expected(table: &Path) -> String {
    let rows = rows(table);
    let sum = |name: &str| integers(&rows, name).into_iter().flatten().sum::<i64>();
    let percentiles: f64 = floats(&rows, "lfi_percentile").into_iter().flatten().sum();
    format!("{} {} {} {:.0}", rows.num_rows(), sum("session_id"), sum("intensity"), percentiles * 10.0)
}

/// The same figures out of an Arrow table `t`.
const FIGURES: &str = "
import pyarrow.compute as pc
def figures(t):
    s = lambda name: pc.sum(t[name]).as_py()
    print(t.num_rows, s('session_id'), s('intensity'), format(s('lfi_percentile') * 10, '.0f'))
    assert str(t.schema.field('completed_at').type).startswith('timestamp[us, tz='), t.schema
    assert 'list' in str(t.schema.field('flags').type), t.schema
";

fn table_with_two_commits(format: &str, name: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempdir().unwrap();
    let table = folder.path().join(name);
    let more = folder.path().join("more.csv");
    score_into(&table, format).arg("--norms").arg(golden("demo_groups.csv")).assert().success();
    let words = ["generate", "sessions", "--rows", "700", "--first-session-id", "5001", "--to"];
    normstream().args(words).arg(&more).assert().success();
    let mut command = normstream();
    command.arg("score").arg(&more).arg("--to").arg(&table).assert().success();
    (folder, table)
}

#[test]
fn the_python_reader_of_delta_agrees_and_sees_statistics_and_the_lowest_protocol() {
    if !has("deltalake") || !has("pyarrow") {
        return;
    }
    let (_folder, table) = table_with_two_commits("delta", "my table");
    let program = format!(
        "{FIGURES}
import sys, deltalake
dt = deltalake.DeltaTable(sys.argv[1])
import pyarrow as pa
figures(dt.to_pyarrow_table())
p = dt.protocol()
print(p.min_reader_version, p.min_writer_version, dt.version())
a = pa.table(dt.get_add_actions(flatten=True)).to_pydict()
print(sorted(a['num_records']), min(a['min.session_id']), max(a['max.session_id']), max(a['null_count.session_id']))
h = dt.history()[0]
print(h['runId'] != '', h['sessions'], h['failed'], h['operation'])
"
    );
    let printed = python(&program, &table);
    assert_eq!(printed, format!("{}\n1 2 1\n[700, 2000] 1 5700 0\nTrue 700 0 WRITE", expected(&table)));
}

#[test]
fn polars_reads_delta_and_agrees() {
    if !has("polars") || !has("deltalake") {
        return;
    }
    // Polars 2.1 does not find the files of a table whose name holds a space.
    let (_folder, table) = table_with_two_commits("delta", "table");
    let program = format!(
        "{FIGURES}
import sys, polars as pl
t = pl.scan_delta(sys.argv[1]).collect()
print(t.height, t['session_id'].sum(), t['intensity'].cast(pl.Int64).sum(), format(t['lfi_percentile'].sum() * 10, '.0f'))
"
    );
    assert_eq!(python(&program, &table), expected(&table));
}

#[test]
fn plain_readers_of_the_parquet_format_agree() {
    for (module, read) in [
        ("pyarrow", "import pyarrow.dataset as ds\nfigures(ds.dataset(sys.argv[1], format='parquet').to_table())"),
        ("duckdb", "import duckdb\nfigures(duckdb.sql(f\"select * from '{sys.argv[1]}/*.parquet'\").to_arrow_table())"),
    ] {
        if !has(module) || !has("pyarrow") {
            continue;
        }
        let (_folder, table) = table_with_two_commits("parquet", "my table");
        // A run that was stopped has left files that no reader may see.
        let mut stopped = score_into(&table, "parquet");
        let stopped = stopped.args(["--mode", "overwrite"]).env("FAILPOINTS", "run-scored=return").assert();
        assert_eq!(stopped.get_output().status.code(), None, "stopped by itself");
        assert_eq!(python(&format!("{FIGURES}\nimport sys\n{read}"), &table), expected(&table), "{module}");
    }
}

#[test]
fn both_formats_have_the_same_rows() {
    let tables = FORMATS.map(|format| table_with_two_commits(format, "table"));
    assert_eq!(expected(&tables[0].1), expected(&tables[1].1));
}
