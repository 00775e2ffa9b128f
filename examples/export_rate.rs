//! How fast rows reach PostgreSQL: an export, and multi-row INSERT of the same rows beside it.
//!
//! ```sh
//! cargo run --release --example export_rate -- 5000000
//! ```
//!
//! It starts a server of its own in a temporary folder and prints rows a second of both and their ratio, three times.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, unreachable_pub, dead_code)]

#[path = "../tests/integration/support/postgres.rs"]
mod postgres;

use std::fmt::Write;
use std::process::Command;
use std::time::Instant;

use postgres::Cluster;

/// Rows of one INSERT.
const ROWS: u64 = 1_000;

/// What is exported: the columns of a score, made up.
const QUERY: &str = "SELECT value AS session_id, value % 100000 AS user_id, arrow_cast(value % 36, 'Int16') AS ce_raw, \
    arrow_cast(value % 37, 'Int16') AS ro_raw, arrow_cast(value % 35, 'Int16') AS ac_raw, \
    arrow_cast(value % 38, 'Int16') AS ae_raw, value % 1000 / 10.0 AS ce_percentile, value % 997 / 9.97 AS lfi_percentile, \
    'analyzing' AS style, value % 2 = 0 AS ok FROM generate_series(1, :rows)";

fn main() {
    let rows: u64 = std::env::args().nth(1).map_or(5_000_000, |rows| rows.parse().expect("a number of rows"));
    let server = Cluster::start().expect("PostgreSQL");
    let program = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("normstream");
    assert!(program.is_file(), "build the program first: cargo build --release");
    for _ in 0..3 {
        let url = server.database();
        let copied = rows as f64 / export(&program, &url, rows);
        assert_eq!(server.ask(&url, "SELECT count(*), sum(session_id) FROM scores"), sums(rows));
        let url = server.database();
        let inserted = rows as f64 / insert(&server, &url, rows);
        assert_eq!(server.ask(&url, "SELECT count(*), sum(session_id) FROM scores"), sums(rows));
        println!("{rows} rows: export {copied:.0}/s, INSERT {inserted:.0}/s, {:.1} times", copied / inserted);
    }
}

fn sums(rows: u64) -> String {
    format!("{rows}|{}", rows * (rows + 1) / 2)
}

/// Seconds of `normstream export run`, the start of the program among them.
fn export(program: &std::path::Path, url: &str, rows: u64) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let query = QUERY.replace(":rows", &rows.to_string());
    let settings = format!(
        "[targets.dw]\nurl = \"{url}\"\n[exports.scores]\nquery = \"{query}\"\ntarget = \"dw\"\ntable = \"scores\"\n"
    );
    std::fs::write(folder.path().join("normstream.toml"), settings).unwrap();
    let started = Instant::now();
    let status = Command::new(program).args(["export", "run"]).current_dir(folder.path()).status().unwrap();
    assert!(status.success());
    started.elapsed().as_secs_f64()
}

/// Seconds of INSERT statements of [`ROWS`] rows each in one transaction, over one connection, as loaders without COPY do it.
fn insert(server: &Cluster, url: &str, rows: u64) -> f64 {
    server.ask(
        url,
        "CREATE TABLE scores (session_id bigint, user_id bigint, ce_raw smallint, ro_raw smallint, ac_raw smallint, \
         ae_raw smallint, ce_percentile double precision, lfi_percentile double precision, style text, ok boolean)",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let started = Instant::now();
        client.batch_execute("BEGIN").await.unwrap();
        let mut sql = String::new();
        for first in (1..=rows).step_by(ROWS as usize) {
            sql.clear();
            sql.push_str("INSERT INTO scores VALUES ");
            for n in first..(first + ROWS).min(rows + 1) {
                let comma = if n == first { "" } else { "," };
                let (ce, lfi) = ((n % 1_000) as f64 / 10.0, (n % 997) as f64 / 9.97);
                write!(
                    sql,
                    "{comma}({n},{},{},{},{},{},{ce},{lfi},'analyzing',{})",
                    n % 100_000,
                    n % 36,
                    n % 37,
                    n % 35,
                    n % 38,
                    n % 2 == 0
                )
                .unwrap();
            }
            client.batch_execute(&sql).await.unwrap();
        }
        client.batch_execute("COMMIT").await.unwrap();
        started.elapsed().as_secs_f64()
    })
}
