//! What an export is: a query, a target, and how and when one goes to the other. Resolved; where a value came from is not
//! known here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::export::hooks::Hook;
use crate::export::schedule::Schedule;
use crate::export::sink::TargetOptions;

/// An export.
#[derive(Debug, Clone)]
pub struct ExportJob {
    /// Its name in the configuration.
    pub name: String,
    /// The query; its parameters are those of [`Parameters`](crate::export::query::Parameters).
    pub sql: String,
    /// Where the rows go.
    pub target: TargetOptions,
    /// The table of the target, as it was written: `scores`, `dw.scores`, `"odd.name"`.
    pub table: String,
    /// What is done with rows that are there already.
    pub mode: Mode,
    /// Which rows are new since the last export.
    pub incremental: Incremental,
    /// When it runs, for the scheduler.
    pub schedule: Option<Schedule>,
    /// What happens when it is due while it runs already.
    pub overlap: Overlap,
    /// What happens with slots that nobody was there for.
    pub catch_up: CatchUp,
    /// With fewer rows an export fails, and nothing is written.
    pub min_rows: u64,
    /// How often an export is tried again after a temporary failure.
    pub retries: u32,
    /// Columns whose values become folders, for Parquet and Delta targets.
    pub partition_by: Vec<String>,
    /// Told when an export has been done.
    pub on_success: Option<Hook>,
    /// Told when an export has failed for good.
    pub on_failure: Option<Hook>,
}

/// What is done with rows that are there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// They stay.
    Append,
    /// They go, in the same commit.
    Overwrite,
    /// Those with the key of a new row are replaced by it.
    Upsert {
        /// The columns that identify a row.
        key: Vec<String>,
    },
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Append => f.write_str("append"),
            Mode::Overwrite => f.write_str("overwrite"),
            Mode::Upsert { key } => write!(f, "upsert by {}", key.join(", ")),
        }
    }
}

/// Which rows are new since the last export.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Incremental {
    /// Rows of versions of the Delta table `results` that have been added since.
    Version,
    /// Rows whose time in this column of the query is at or after the end of the last slice, and before the run.
    Column(String),
    /// All rows, each time.
    #[default]
    None,
}

impl fmt::Display for Incremental {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Incremental::Version => f.write_str("version"),
            Incremental::Column(column) => write!(f, "column:{column}"),
            Incremental::None => f.write_str("none"),
        }
    }
}

impl FromStr for Incremental {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "version" => Ok(Incremental::Version),
            None if text == "none" => Ok(Incremental::None),
            Some(("column", column)) if !column.is_empty() => Ok(Incremental::Column(column.to_owned())),
            _ => Err(format!("'{text}' is not a way to be incremental: version, column:NAME or none")),
        }
    }
}

impl TryFrom<String> for Incremental {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Incremental> for String {
    fn from(incremental: Incremental) -> String {
        incremental.to_string()
    }
}

/// What happens when an export is due while it runs already, here or elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// The slot is passed over.
    #[default]
    Skip,
    /// It runs afterwards.
    Queue,
}

/// What happens with slots that nobody was there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CatchUp {
    /// The last of them runs.
    #[default]
    Last,
    /// All of them run, in order.
    All,
    /// None of them runs.
    None,
}
