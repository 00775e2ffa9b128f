//! Operators: stages as streaming DataFusion plans, sessions assembled from rows, and the writer of result files.
//!
//! [`StageExec`] puts one step of scoring into a plan: record batches in, the same batches with more columns out, in the same
//! order and partitions. Its work is described by a [`PlanStage`]; the pure stages of [`crate::scoring`] are wrapped by
//! [`PureStage`], and [`PercentilesStage`] is the one that has to fetch something (norms) before its kernel can run.
//!
//! [`RankScanExec`] reads the ranks of Parquet files as bytes, beside the library's scan of their other columns.
//!
//! `encoded_footer` cuts the footers of Parquet files at their row groups, for those who read them and those who write them.
//!
//! [`AssembleExec`] makes sessions of the long layout's rows. Around it, [`PositionStage`] remembers where rows stood,
//! [`SequenceExec`] reads many files a few at a time, [`OwnMemoryExec`] keeps sorts from starving each other, and [`UnfoldStage`]
//! gives an assembled session the columns that scoring reads. [`SealedExec`] keeps such a plan as it was built inside a query.

mod assemble;
mod attributes;
mod encoded_footer;
mod norm_lookup;
mod own_memory;
mod percentile_keys;
mod percentiles;
mod position;
mod rank_scan;
pub mod row_group;
mod sealed;
mod sequence;
mod session_chain;
mod stage_exec;

pub use assemble::{AssembleExec, RANK_SHEET, RankColumns, SheetShape, UnfoldStage};
pub(crate) use encoded_footer::{EncodedFooter, RowGroupCodec};
pub use norm_lookup::NormContext;
pub use own_memory::OwnMemoryExec;
pub use percentiles::PercentilesStage;
pub use position::{POSITION, PositionStage};
pub use rank_scan::{RankScanExec, is_byte_column};
pub use sealed::SealedExec;
pub use sequence::SequenceExec;
pub use session_chain::{ChainEntry, session_chain};
pub use stage_exec::{PlanStage, PureStage, StageExec, StageWorker};
