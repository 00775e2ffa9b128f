//! Others read what was exported, and find what PostgreSQL has of the same export.

use std::path::Path;

use crate::support::normstream;
use crate::support::postgres::Cluster;

use super::files::python_file;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/support/read_exports.py");

/// What the script computes, as PostgreSQL says it.
const SUMS: &str = "SELECT count(*), sum(session_id), sum(ce_raw), count(lfi_percentile), sum(round(lfi * 1e9)::bigint),
    md5(string_agg(concat_ws('|', session_id, user_id, acce, aero, style, (extract(epoch FROM completed_at) * 1000000)::bigint), ','
                   ORDER BY session_id))
    FROM pg";

/// The query of the examples; its path holds where a configuration is elsewhere.
const QUERY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sql/exports/scores.sql");

#[test]
fn readers_of_files_and_delta_agree_with_psql_on_counts_and_checksums() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| normstream().args(arguments).current_dir(folder.path()).assert().success();
    run(&["generate", "sessions", "--rows", "3000", "--bad-fraction", "0.01", "--to", "sessions.parquet"]);
    run(&["score", "sessions.parquet", "--to", "results/"]);
    let mut settings = format!("results = \"results/\"\n[targets.pg]\nurl = \"{url}\"\n");
    for format in ["delta", "parquet", "csv", "ndjson", "arrow"] {
        settings += &format!("[targets.{format}]\nurl = \"out\"\nformat = \"{format}\"\n");
    }
    for target in ["pg", "delta", "parquet", "csv", "ndjson", "arrow"] {
        settings += &format!(
            "[exports.{target}]\nquery = \"{QUERY}\"\ntarget = \"{target}\"\ntable = \"{target}\"\nmode = \"overwrite\"\n"
        );
    }
    std::fs::write(folder.path().join("normstream.toml"), settings).unwrap();
    run(&["export", "run"]);
    let expected = server.ask(&url, SUMS);
    assert!(expected.starts_with("2965|"), "{expected}");
    let Some(answers) = python_file(Path::new(SCRIPT), &[&folder.path().join("out")]) else { return };
    assert_eq!(answers.lines().count(), 8, "{answers}");
    for answer in answers.lines() {
        let (reader, found) = answer.split_once(": ").unwrap();
        assert_eq!(found, expected, "{reader}");
    }
}
