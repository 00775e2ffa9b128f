//! Stages as streaming DataFusion operators, and the writer of result files.
//!
//! [`StageExec`] puts one step of scoring into a plan: record batches in, the same batches with more columns out, in the same
//! order and partitions. Its work is described by a [`PlanStage`]; the pure stages of [`crate::scoring`] are wrapped by
//! [`PureStage`], and [`PercentilesStage`] is the one that has to fetch something (norms) before its kernel can run.

mod attributes;
mod norm_lookup;
mod percentiles;
pub mod row_group;
mod session_chain;
mod stage_exec;

pub use norm_lookup::NormContext;
pub use percentiles::PercentilesStage;
pub use session_chain::{ChainEntry, session_chain};
pub use stage_exec::{PlanStage, PureStage, StageExec, StageWorker};
