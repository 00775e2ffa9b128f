//! The `normstream` program: parse, start, report the error and its exit code; nothing else.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // In builds for tests: the points at which they stop the program. Otherwise nothing is there to be stopped at.
    let _points = fail::has_failpoints().then(fail::FailScenario::setup);
    normstream::cli::main(normstream::cli::Args::parse())
}
