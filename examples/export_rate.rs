//! How fast rows reach PostgreSQL: an export, and multi-row INSERT of the same rows beside it.
//!
//! ```sh
//! cargo build --release && cargo run --release --example export_rate -- 5000000 5
//! ```
//!
//! It starts a server of its own in a temporary folder, runs both in turn as often as the second argument says (3 times unless
//! given), and prints the rows a second of each, then medians and spreads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, unreachable_pub, dead_code)]

#[path = "../tests/integration/support/postgres.rs"]
mod postgres;
#[path = "../tests/integration/export/rate.rs"]
mod rate;

use postgres::Cluster;

#[tokio::main(worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().expect("a whole number"));
    let (rows, times) = (arguments.next().unwrap_or(5_000_000), arguments.next().unwrap_or(3));
    let server = Cluster::start().expect("PostgreSQL");
    let program = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("normstream");
    assert!(program.is_file(), "build the program first: cargo build --release");
    let (mut exports, mut inserts, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..times {
        let urls = [server.database(), server.database()];
        let exported = rows as f64 / rate::export(&program, &urls[0], rows);
        let inserted = rows as f64 / rate::insert(&urls[1], rows).await;
        let [sums, other_sums] = urls.map(|url| server.ask(&url, rate::SUMS));
        assert_eq!(sums, other_sums);
        println!("{rows} rows: export {exported:.0}/s, INSERT {inserted:.0}/s, {:.1} times", exported / inserted);
        exports.push(exported);
        inserts.push(inserted);
        ratios.push(exported / inserted);
    }
    println!("median (least to most): export {:.0} ({})", median(&mut exports), spread(&exports));
    println!("                        INSERT {:.0} ({})", median(&mut inserts), spread(&inserts));
    println!(
        "                        times {:.1} ({:.1} to {:.1})",
        median(&mut ratios),
        ratios[0],
        ratios[ratios.len() - 1]
    );
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn spread(sorted: &[f64]) -> String {
    format!("{:.0} to {:.0}", sorted[0], sorted[sorted.len() - 1])
}
