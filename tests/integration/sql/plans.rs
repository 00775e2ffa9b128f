//! What a query reads, as EXPLAIN shows it; the prunings themselves are in `tests/slt/explain.slt`.

use tempfile::tempdir;

use super::{sessions, stdout};

#[test]
fn explain_shows_stages_and_analyze_what_they_measured() {
    let folder = tempdir().unwrap();
    sessions(folder.path(), 1_000);
    let query = "SELECT lfi_percentile FROM score('sessions.parquet')";
    let plan = stdout(folder.path(), &["-c", &format!("EXPLAIN {query}")]);
    for stage in ["ValidateExec", "FlexibilityExec", "PercentilesExec", "DataSourceExec"] {
        assert!(plan.contains(stage), "{plan}");
    }
    let measured = stdout(folder.path(), &["-c", &format!("EXPLAIN ANALYZE {query}")]);
    let validate = measured.lines().find(|line| line.contains("ValidateExec")).unwrap();
    assert!(validate.contains("output_rows=1"), "{validate}");
    assert!(measured.contains("norm_lookups="), "{measured}");
}

#[test]
fn a_count_reads_next_to_nothing_of_a_file() {
    let folder = tempdir().unwrap();
    sessions(folder.path(), 20_000);
    let scanned = |query: &str| -> u64 {
        let measured = stdout(folder.path(), &["-c", &format!("EXPLAIN ANALYZE {query}"), "--threads", "1"]);
        let at = measured.find("bytes_scanned=").unwrap_or_else(|| panic!("{measured}"));
        let number: String = measured[at + 14..].chars().take_while(|c| !c.is_whitespace() && *c != ',').collect();
        let unit = measured[at + 14 + number.len()..].trim_start();
        let factor = if unit.starts_with('K') {
            1e3
        } else if unit.starts_with('M') {
            1e6
        } else {
            1.0
        };
        (number.parse::<f64>().unwrap() * factor) as u64
    };
    let all = scanned("SELECT * FROM score('sessions.parquet')");
    let style = scanned("SELECT style, count(*) FROM score('sessions.parquet') GROUP BY style");
    let count = scanned("SELECT count(*) FROM score('sessions.parquet')");
    assert!(count < all / 50, "{count} of {all}");
    assert!(style < all, "{style} of {all}");
}
