//! Queries that need more memory than they may have.

use std::fs;

use tempfile::tempdir;

use super::{sql, stdout};

/// What is less than half of the rows of these queries.
const LITTLE: [&str; 4] = ["--memory-limit", "32MiB", "--threads", "2"];

#[test]
fn a_narrow_table_sorted_by_several_columns_spills_and_comes_out_in_order() {
    let folder = tempdir().unwrap();
    let sorted = "SELECT value FROM generate_series(1, 3000000) ORDER BY value % 1000003 DESC, value";
    sql(folder.path(), &LITTLE).args(["-c", sorted, "-o", "rows.csv"]).assert().success();
    let rows = fs::read_to_string(folder.path().join("rows.csv")).unwrap();
    let values: Vec<u64> = rows.lines().skip(1).map(|line| line.parse().unwrap()).collect();
    assert_eq!(values.len(), 3_000_000);
    assert_eq!(values[..4], [1_000_002, 2_000_005, 1_000_001, 2_000_004]);
    assert!(values.is_sorted_by_key(|value| (std::cmp::Reverse(value % 1_000_003), *value)));
    let analyzed = format!("EXPLAIN ANALYZE {sorted}");
    let plan = stdout(folder.path(), &[&LITTLE[..], &["-c", &analyzed]].concat());
    let sort = plan.lines().find(|line| line.contains("SortExec")).unwrap_or_else(|| panic!("{plan}"));
    assert!(sort.contains("spill_count=") && !sort.contains("spill_count=0"), "{sort}");
}

#[test]
fn groups_and_windows_beyond_memory_are_counted_right() {
    let folder = tempdir().unwrap();
    let asked = |query: &str| stdout(folder.path(), &[&LITTLE[..], &["-c", query, "--format", "csv"]].concat());
    let groups = "SELECT count(*) AS groups, max(n) AS most FROM (
        SELECT value % 1500000 AS key, count(*) AS n FROM generate_series(1, 3000000) GROUP BY value % 1500000)";
    assert_eq!(asked(groups), "groups,most\n1500000,2\n");
    let windows = "SELECT count(*) AS rows, sum(step) AS steps FROM (
        SELECT value - lag(value) OVER (PARTITION BY value % 7 ORDER BY value) AS step
        FROM generate_series(1, 2000000))";
    assert_eq!(asked(windows), "rows,steps\n2000000,13999951\n");
}
