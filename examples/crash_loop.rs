//! Kills runs into tables and checks what readers see: `cargo run --example crash_loop -- 1000`.
//!
//! Stops the program at random instants (`kill -9`) and at every point between plan, part, journal, commit and receipt, in both
//! formats and all modes. Prints what it did; ends with exit code 1 if a row was lost or doubled or a table was unreadable.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, unreachable_pub)]

#[path = "../tests/integration/runs/crash_loop.rs"]
mod crash_loop;

use std::process::ExitCode;

use clap::Parser;
use crash_loop::CrashLoop;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let number = |place: usize, default: u64| words.get(place).map_or(Some(default), |word| word.parse().ok());
    let (Some(kills), Some(seed)) = (number(1, 30), number(2, 1)) else {
        // The loop starts this very program as the one to be killed.
        return normstream::cli::main(normstream::cli::Args::parse());
    };
    let folder = tempfile::tempdir().unwrap();
    let summary = CrashLoop::new(&std::env::current_exe().unwrap(), folder.path(), seed).run(kills);
    println!("{summary:#?}");
    if summary.is_clean() {
        return ExitCode::SUCCESS;
    }
    println!("what is left of it: {}", folder.keep().display());
    ExitCode::FAILURE
}
