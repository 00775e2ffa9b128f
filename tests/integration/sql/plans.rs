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
    // Ranks and other columns are scanned by two operators.
    let scanned = |query: &str| -> u64 {
        let measured = stdout(folder.path(), &["-c", &format!("EXPLAIN ANALYZE {query}"), "--threads", "1"]);
        let figures: Vec<&str> = measured.split("bytes_scanned=").skip(1).collect();
        assert!(!figures.is_empty(), "{measured}");
        figures.iter().map(|figure| bytes(figure)).sum()
    };
    let all = scanned("SELECT * FROM score('sessions.parquet')");
    let style = scanned("SELECT style, count(*) FROM score('sessions.parquet') GROUP BY style");
    let count = scanned("SELECT count(*) FROM score('sessions.parquet')");
    assert!(count < all / 50, "{count} of {all}");
    assert!(style < all, "{style} of {all}");
}

/// A number of bytes that a text begins with, as in `2.50 M, `.
fn bytes(text: &str) -> u64 {
    let number: String = text.chars().take_while(|c| !c.is_whitespace() && !",]".contains(*c)).collect();
    let factor = match text[number.len()..].trim_start() {
        unit if unit.starts_with('K') => 1e3,
        unit if unit.starts_with('M') => 1e6,
        _ => 1.0,
    };
    (number.parse::<f64>().unwrap() * factor) as u64
}
