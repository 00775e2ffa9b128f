//! The `normstream` program: parse, start, report the error and its exit code; nothing else.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    normstream::cli::main(normstream::cli::Args::parse())
}
