//! What can end the program: is it worth a retry, and which exit code says so?

use std::process::ExitCode;

use crate::config::ConfigError;
use crate::engine::EngineError;
use crate::engine::query::QueryError;
use crate::export::ExportError;
use crate::instrument::InstrumentError;
use crate::norms::{NormError, TemplateError};
use crate::run::RunError;
use crate::storage::StorageError;
use crate::table::TableError;

/// The program's exit codes.
pub mod exit {
    /// Everything asked for was done.
    pub const SUCCESS: u8 = 0;
    /// The work was done, but sessions failed beyond what was allowed; or a validation found faults.
    pub const FAILURES: u8 = 1;
    /// The command, the configuration or the input is wrong; the same command fails again.
    pub const USAGE: u8 = 2;
    /// A temporary failure: the same command may succeed later.
    pub const TEMPORARY: u8 = 75;
    /// Ended by Ctrl-C.
    pub const INTERRUPTED: u8 = 130;
    /// Ended by SIGTERM.
    pub const TERMINATED: u8 = 143;
}

/// An error of the program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An instrument definition is wrong.
    #[error(transparent)]
    Instrument(#[from] InstrumentError),
    /// A norm chain is wrong.
    #[error(transparent)]
    Chain(#[from] TemplateError),
    /// Norms cannot be read or written.
    #[error(transparent)]
    Norms(#[from] NormError),
    /// A store cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Sessions cannot be read or scored.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A table cannot be read or written.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A run failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A query is wrong or failed.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A file of statements cannot be read.
    #[error("cannot read {what}")]
    Read {
        /// What was to be read.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// An export failed.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// Standard output, a report or a temporary file cannot be written.
    #[error("cannot write {what}")]
    Write {
        /// What was to be written.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The command line asks for something that does not fit together.
    #[error("{0}")]
    Usage(String),
    /// The work was done, but something failed beyond what was allowed.
    #[error("{0}")]
    Failures(String),
    /// A signal ended the work.
    #[error("stopped by {signal}; nothing was left half written")]
    Interrupted {
        /// The signal's name.
        signal: &'static str,
        /// The exit code that stands for it.
        code: u8,
    },
}

impl Error {
    /// Whether the same command may succeed when it is given again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Norms(error) => error.is_retryable(),
            Error::Storage(error) => error.is_retryable(),
            Error::Engine(error) => error.is_retryable(),
            Error::Table(error) => error.is_retryable(),
            Error::Run(error) => error.is_retryable(),
            Error::Query(error) => error.is_retryable(),
            Error::Export(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// The exit code that says what happened.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Error::Run(RunError::BrokenPipe) => exit::SUCCESS,
            Error::Run(RunError::SessionFailed { .. }) | Error::Failures(_) => exit::FAILURES,
            Error::Export(error) if error.is_failure_of_data() => exit::FAILURES,
            Error::Interrupted { code, .. } => *code,
            error if error.is_retryable() => exit::TEMPORARY,
            _ => exit::USAGE,
        })
    }

    /// Whether the error is nobody's business: a reader that has seen enough.
    pub fn is_silent(&self) -> bool {
        matches!(self, Error::Run(RunError::BrokenPipe))
    }
}
