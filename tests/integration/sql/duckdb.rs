//! Every view gives what DuckDB, from PyPI, gives for the same query over the same Parquet.

use std::process::{Command, Stdio};

use tempfile::tempdir;

use super::{sessions, sql};

/// Runs each view's query in DuckDB over `results.parquet`, and compares its rows with those that the program wrote.
const COMPARE: &str = r#"
import json, math, duckdb
con = duckdb.connect()
con.execute("SET TimeZone='UTC'")
con.execute("CREATE VIEW results AS SELECT * FROM 'results.parquet'")
views = {view["table_name"]: view["definition"] for view in map(json.loads, open("views.ndjson"))}

def plain(value):
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value

def key(row):
    return [(value is None, str(type(value)), round(value, 6) if isinstance(value, float) else value) for value in row]

def same(a, b):
    if isinstance(a, float) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    return a == b

for name, definition in views.items():
    ours = con.execute(f"SELECT * FROM '{name}.parquet'")
    columns = [column[0] for column in ours.description]
    ours = sorted(([plain(value) for value in row] for row in ours.fetchall()), key=key)
    theirs = con.execute(definition)
    assert [column[0] for column in theirs.description] == columns, (name, columns)
    theirs = sorted(([plain(value) for value in row] for row in theirs.fetchall()), key=key)
    assert len(ours) == len(theirs), (name, len(ours), len(theirs))
    for a, b in zip(ours, theirs):
        assert all(same(x, y) or same(y, x) for x, y in zip(a, b)), (name, a, b)
    print(name, len(ours))
"#;

#[test]
fn every_view_agrees_with_duckdb() {
    let has_duckdb = Command::new("python3").args(["-c", "import duckdb"]).stderr(Stdio::null()).status();
    if !has_duckdb.is_ok_and(|status| status.success()) {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "python3 with duckdb is needed for this test");
        println!("skipped: python3 with duckdb is not installed");
        return;
    }
    let folder = tempdir().unwrap();
    sessions(folder.path(), 3_000);
    let norms = ["generate", "norms", "--groups", "12", "--seed", "7", "--progress", "off", "--to", "norms.csv"];
    super::normstream().current_dir(folder.path()).args(norms).assert().success();
    // A repeated session, so that there are duplicates to find.
    let twice =
        "SELECT * FROM 'sessions.parquet' UNION ALL (SELECT * FROM 'sessions.parquet' ORDER BY session_id LIMIT 40)";
    sql(folder.path(), &["-c", twice, "-o", "twice.parquet"]).assert().success();
    let pass = ["--pass", "country", "--pass", "gender", "--pass", "team_id", "--norms", "norms.csv"];
    let score = ["score", "twice.parquet", "--to", "results.parquet", "--progress", "off"];
    super::normstream().current_dir(folder.path()).args(score).args(pass).assert().success();
    let results = ["--results", "results.parquet"];
    let views = "SELECT table_name, definition FROM information_schema.views WHERE table_schema = 'public' AND definition IS NOT NULL";
    sql(folder.path(), &[&results[..], &["-c", views, "-o", "views.ndjson"]].concat()).assert().success();
    let mut names: Vec<String> = Vec::new();
    for line in std::fs::read_to_string(folder.path().join("views.ndjson")).unwrap().lines() {
        let name = line.split('"').nth(3).unwrap().to_owned();
        let query = format!("SELECT * FROM {name}");
        sql(folder.path(), &[&results[..], &["-c", &query, "-o", &format!("{name}.parquet")]].concat())
            .assert()
            .success();
        names.push(name);
    }
    assert_eq!(names.len(), 10, "{names:?}");
    let compared = Command::new("python3").args(["-c", COMPARE]).current_dir(folder.path()).output().unwrap();
    let (report, errors) = (String::from_utf8_lossy(&compared.stdout), String::from_utf8_lossy(&compared.stderr));
    assert!(compared.status.success(), "{report}\n{errors}");
    for name in names {
        let line = report.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        let rows: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(rows > 0, "{line}");
    }
}
