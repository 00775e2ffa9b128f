//! All integration tests, in one binary: each test binary links DataFusion again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, unreachable_pub)]

mod allocations;
mod architecture;
mod demo;
mod explain;
mod export;
mod generate;
mod golden;
mod memory;
mod norms;
mod readers;
mod readme;
mod runs;
mod score;
mod signals;
mod slt;
mod sql;
mod storage;
mod support;
mod table;
mod text;
