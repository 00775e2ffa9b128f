//! normstream re-scores psychometric assessment sessions in bulk.

pub mod cli;
pub mod config;
pub mod engine;
pub mod error;
pub mod generate;
pub mod instrument;
pub mod model;
pub mod norms;
pub mod operators;
pub mod run;
pub mod scoring;
pub mod storage;
pub mod telemetry;
