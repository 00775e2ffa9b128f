//! Runs: input cut into parts, parts scored in parallel, results written in input order and made visible at once.

mod encode;
mod error;
pub mod explain;
mod memory;
mod ordered;
mod output;
mod profile;
mod report;
mod score;
mod table;

pub use encode::{Encoded, PartEncoder, list_text};
pub use error::RunError;
pub use memory::peak_memory_bytes;
pub use output::{Output, OutputTarget};
pub use profile::PlanProfile;
pub use report::{Progress, RunReport};
pub use score::{OnError, ScoreJob};
pub use table::{BatchTable, TableJob, TableReport};
