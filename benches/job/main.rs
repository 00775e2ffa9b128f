//! How fast is the whole job beside what reading and writing Parquet cost at all, and beside other engines?
//!
//! `cargo bench --bench job` generates sessions and norms once, runs the release program and stock DataFusion on them in turn,
//! several times, and prints two tables: sessions a second and memory of each case (median, least and greatest), and the goals
//! of the project beside what they came to. Options follow `--`:
//!
//! ```text
//! cargo bench --bench job -- --rows 1000000 --runs 5 --threads 2     the defaults
//! cargo bench --bench job -- --only wide decode rewrite              cases whose names contain one of the words
//! cargo bench --bench job -- --peers                                 DuckDB and Polars too, through benches/peers
//! cargo bench --bench job -- --long                                  memory for a hundred times the rows, too
//! cargo bench --bench job -- --cpu                                   CPU time instead of wall time
//! ```
//!
//! **How to compare.** Absolute figures swing from machine to machine and from hour to hour, so compare ratios between cases of
//! one run, never figures of two runs. To compare two states of the code, build both and give the older program with
//! `--program PATH`: it takes part in the same run under names that begin with `other:`.
//!
//! **What is measured.** Every case is a process of its own, run once unmeasured before, and its time is wall time from start to
//! exit: the program opens its input and norms, and its output is on disk (`fsync`) before it ends. What others left unwritten is
//! written before it begins. Stock DataFusion runs in a child of this bench with as many partitions as threads; what it writes is
//! not synced. A peer's time is what its script reports: without the start of the interpreter and its imports. With `--cpu` a
//! case's time is its CPU time divided by the threads: what it would take if no thread ever waited, which other work on the machine
//! changes little. Memory is the greatest resident size that a process saw itself at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod cases;
mod compare;
mod files;
mod goals;
mod measure;
mod peers;
mod stock;

use std::path::PathBuf;

use clap::Parser;

use cases::Case;
use files::Files;
use measure::Series;

/// What to measure.
#[derive(Debug, Parser)]
#[command(name = "job")]
pub(crate) struct Options {
    /// Sessions of most cases.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// How often each case runs.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Threads of most cases.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Run DuckDB and Polars too.
    #[arg(long)]
    peers: bool,
    /// Measure memory for a hundred times the rows, too.
    #[arg(long)]
    long: bool,
    /// Only cases whose names contain one of these words.
    #[arg(long, num_args = 1..)]
    only: Vec<String>,
    /// Take CPU time divided by the threads for time, for a machine that has other work; latencies and scaling are left out.
    #[arg(long)]
    cpu: bool,
    /// Another build of the program, to run beside this one.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Given by cargo; says nothing here.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    stock: Option<stock::Stock>,
}

fn main() {
    let options = Options::parse();
    if let Some(stock) = &options.stock {
        return stock.run();
    }
    let files = Files::within(options.rows);
    let cases: Vec<Case> = cases::all(&options, &files);
    let mut series: Vec<Series> = cases.iter().map(|case| Series::new(&case.name)).collect();
    for case in &cases {
        eprintln!("preparing {}", case.name);
        case.measure();
    }
    for run in 1..=options.runs {
        for (case, series) in cases.iter().zip(&mut series).filter(|(case, _)| run <= case.most_runs) {
            eprintln!("run {run} of {}: {}", options.runs, case.name);
            measure::settle();
            let figures = case.measure();
            series.add(if options.cpu { figures.by_cpu(options.threads) } else { figures });
        }
    }
    let clock = if options.cpu { "CPU time divided by threads" } else { "wall time" };
    println!("{} sessions, {} runs, {} threads, {clock}\n", options.rows, options.runs, options.threads);
    measure::print_table(&series);
    goals::print_goals(&series);
}
