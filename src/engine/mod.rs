//! The engine: sessions of DataFusion, session files as plans, the plan that scores them, and SQL over all of it.

mod error;
pub mod functions;
mod input;
mod memory_pool;
mod near;
pub mod query;
mod score_table;
mod scoring_plan;
mod session;
mod tables;

pub use error::{EngineError, with_causes};
pub use input::{
    CanonicalColumns, ColumnNames, Compression, FileFormat, FoundFile, InputOptions, InputPart, PartLimits, Reading,
    STDIN, SessionFile, SessionInput, Source, Sources, StdinInput, StdinStream, compression_of_name, detect_layout,
    discover, format_of_name,
};
pub use score_table::{ALL_COLUMNS, ScoreRequest, ScoreTable};
pub use scoring_plan::{Scoring, chain_columns, unknown_output};
pub use session::{EngineOptions, session_context, sql_context, with_memory};
pub use tables::{FilesTable, ResultsTable};
