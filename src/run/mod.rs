//! Runs: input cut into parts, parts scored in parallel, results made visible at once.
//!
//! A [`ScoreJob`] says what is scored and how. Into a file or standard output it [runs](ScoreJob::run) in one go, results in
//! input order. Into a table it is planned as a [`TableRun`], whose parts become files of their own, which one commit makes
//! visible and which any process can go on with after any stop.

mod account;
pub mod clean;
mod encode;
mod error;
mod execute;
pub mod explain;
mod failures;
mod hold;
mod journal;
mod memory;
mod ordered;
mod output;
mod overview;
mod part;
mod part_plans;
mod plan;
mod profile;
mod receipt;
mod replace;
mod report;
mod revision;
mod score;
mod sql_tables;
mod steps;
mod table;
mod verify;

pub use encode::{Encoded, PartEncoder, RowEncoder, list_text};
pub use error::RunError;
pub use execute::{Reprocess, RunResult, Standing, TableRun};
pub use hold::Hold;
pub use journal::{Journal, PartRecord, PlanRecord, known_runs};
pub use memory::peak_memory_bytes;
pub use output::{Output, OutputTarget, ResultFormat, Target};
pub use overview::{RunState, RunSummary, run_called, runs_of};
pub use part_plans::PartPlans;
pub use plan::{
    Duplicates, PlannedColumn, PlannedInput, PlannedOptions, PlannedPart, RunId, RunPlan, WriteMode, WriteOptions,
};
pub use profile::PlanProfile;
pub use receipt::{Receipt, Totals};
pub use report::{Progress, RunReport};
pub use score::{OnError, ScoreJob};
pub use sql_tables::add_run_tables;
pub use table::{BatchTable, TableJob, TableReport};
pub use verify::Verified;
