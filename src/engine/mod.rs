//! The engine: sessions of DataFusion, session files as plans, and the plan that scores them.

mod error;
mod input;
mod scoring_plan;
mod session;

pub use error::EngineError;
pub use input::{
    CanonicalColumns, ColumnNames, Compression, FileFormat, FoundFile, InputOptions, InputPart, PartLimits, STDIN,
    SessionFile, SessionInput, Source, Sources, StdinInput, StdinStream, compression_of_name, detect_layout, discover,
    format_of_name,
};
pub use scoring_plan::{Scoring, unknown_output};
pub use session::{EngineOptions, session_context};
