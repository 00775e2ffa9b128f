//! Binary COPY, as exports use it, against multi-row INSERT of the same rows. Also the measurement of `examples/export_rate.rs`.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Rows of one INSERT.
const ROWS: u64 = 1_000;

/// What is exported: columns as results have them, made up.
const QUERY: &str = "SELECT value AS session_id, value % 100000 AS user_id, arrow_cast(value % 36, 'Int16') AS ce_raw, \
    arrow_cast(value % 37, 'Int16') AS ro_raw, arrow_cast(value % 35, 'Int16') AS ac_raw, \
    arrow_cast(value % 38, 'Int16') AS ae_raw, value % 1000 / 10.0 AS ce_percentile, value % 997 / 9.97 AS lfi_percentile, \
    'analyzing' AS style, value % 2 = 0 AS ok FROM generate_series(1, :rows)";

/// What both ways must leave: asked of the table `scores`.
pub const SUMS: &str = "SELECT count(*), sum(session_id), sum(ce_raw), round(sum(lfi_percentile)::numeric, 2), \
    count(*) FILTER (WHERE ok) FROM scores";

/// Seconds of `normstream export run` into the table `scores`, the start of the program among them.
pub fn export(program: &Path, url: &str, rows: u64) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let query = QUERY.replace(":rows", &rows.to_string());
    let settings = format!(
        "[targets.dw]\nurl = \"{url}\"\n[exports.scores]\nquery = \"{query}\"\ntarget = \"dw\"\ntable = \"scores\"\n"
    );
    std::fs::write(folder.path().join("normstream.toml"), settings).unwrap();
    let started = Instant::now();
    let output = Command::new(program).args(["export", "run"]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    started.elapsed().as_secs_f64()
}

/// Seconds of INSERT statements of [`ROWS`] rows each in one transaction, over one connection, as loaders without COPY do it.
pub async fn insert(url: &str, rows: u64) -> f64 {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let started = Instant::now();
    let table = "CREATE TABLE scores (session_id bigint, user_id bigint, ce_raw smallint, ro_raw smallint, ac_raw smallint, \
                 ae_raw smallint, ce_percentile double precision, lfi_percentile double precision, style text, ok boolean)";
    client.batch_execute(&format!("BEGIN; {table}")).await.unwrap();
    let mut sql = String::new();
    for first in (1..=rows).step_by(ROWS as usize) {
        sql.clear();
        sql.push_str("INSERT INTO scores VALUES ");
        for n in first..(first + ROWS).min(rows + 1) {
            let comma = if n == first { "" } else { "," };
            let (user, ce, ro, ac, ae) = (n % 100_000, n % 36, n % 37, n % 35, n % 38);
            let (ce_percentile, lfi) = ((n % 1_000) as f64 / 10.0, (n % 997) as f64 / 9.97);
            let ok = n % 2 == 0;
            write!(sql, "{comma}({n},{user},{ce},{ro},{ac},{ae},{ce_percentile},{lfi},'analyzing',{ok})").unwrap();
        }
        client.batch_execute(&sql).await.unwrap();
    }
    client.batch_execute("COMMIT").await.unwrap();
    started.elapsed().as_secs_f64()
}

#[cfg(test)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ways_bring_the_same_rows_and_copy_is_the_faster_one() {
    use crate::support::postgres::Cluster;

    const ROWS: u64 = 200_000;
    let Some(server) = Cluster::shared() else { return };
    let urls = [server.database(), server.database()];
    let copied = export(&assert_cmd::cargo::cargo_bin("normstream"), &urls[0], ROWS);
    let inserted = insert(&urls[1], ROWS).await;
    let [sums, other_sums] = urls.map(|url| server.ask(&url, SUMS));
    assert_eq!(sums, other_sums);
    assert!(sums.starts_with("200000|20000100000|"), "{sums}");
    println!("{ROWS} rows: export {copied:.2} s, INSERT {inserted:.2} s");
    // The whole of the difference takes more rows to show, and a machine of its own; see the example.
    assert!(copied < inserted, "export {copied:.2} s, INSERT {inserted:.2} s");
}
