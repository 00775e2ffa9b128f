//! normstream re-scores psychometric assessment sessions in bulk.

pub mod generate;
pub mod instrument;
pub mod model;
pub mod scoring;
pub mod storage;
