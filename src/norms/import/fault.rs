//! Faults of norm tables: each with the file and the line it stands on.

use std::fmt;

use crate::model::Scale;
use crate::model::norm::{NORM_GROUP, PUBLISHED, RawRange};

/// One fault of a norm table.
#[derive(Debug, Clone, PartialEq)]
pub struct NormFault {
    /// The file, as it was named.
    pub file: String,
    /// The line of a CSV file, counting the header; the row of a Parquet file, from 1.
    pub line: u64,
    /// What is wrong.
    pub cause: FaultCause,
}

impl fmt::Display for NormFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.cause)
    }
}

/// What can be wrong with a row, or with a whole file (then on line 1).
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FaultCause {
    /// The file lacks a column.
    #[error("the column '{column}' is missing")]
    MissingColumn {
        /// The column.
        column: &'static str,
    },
    /// A row has more or fewer fields than the header.
    #[error("the row has {found} fields, the header {expected}")]
    FieldCount {
        /// Fields of the row.
        found: usize,
        /// Fields of the header.
        expected: usize,
    },
    /// A field is not UTF-8.
    #[error("the row is not text in UTF-8")]
    NotUtf8,
    /// A value that must be there is not.
    #[error("'{column}' is empty")]
    Empty {
        /// The column.
        column: &'static str,
    },
    /// A group or version holds the character that separates them in a token.
    #[error("'{column}' is '{value}': it can't hold a '|', which separates group and version in a token")]
    Separator {
        /// The column.
        column: &'static str,
        /// The value.
        value: String,
    },
    /// A group with the name that results give the published table.
    #[error("'{NORM_GROUP}' is '{PUBLISHED}': results call the published table so, and a group needs another name")]
    ReservedGroup,
    /// A version that can't name a file.
    #[error(
        "the version '{version}' can't name a file: use letters, digits, '.', '_', '-' or blanks, and no '.' in front"
    )]
    VersionName {
        /// The version.
        version: String,
    },
    /// A scale code that does not exist.
    #[error("'{code}' is not a scale: CE, RO, AC, AE, ACCE, AERO or LFI")]
    UnknownScale {
        /// The code.
        code: String,
    },
    /// A raw score that is not a whole number.
    #[error("the raw score '{text}' is not a whole number")]
    RawNotANumber {
        /// The value.
        text: String,
    },
    /// A raw score that no session can have.
    #[error("the raw score {raw} of {scale} is not from {} to {}", range.lowest, range.highest)]
    RawOutOfRange {
        /// The scale.
        scale: Scale,
        /// The raw score.
        raw: i64,
        /// What is possible.
        range: RawRange,
    },
    /// A percentile that is not a number.
    #[error("the percentile '{text}' is not a number")]
    PercentileNotANumber {
        /// The value.
        text: String,
    },
    /// A percentile that is none.
    #[error("the percentile {percentile} is not from 0 to 100")]
    PercentileOutOfRange {
        /// The value.
        percentile: f64,
    },
    /// A frequency that is not a count.
    #[error("the frequency '{text}' is not a whole number from 0")]
    Frequency {
        /// The value.
        text: String,
    },
    /// Two rows for one raw score.
    #[error("{scale} {raw} of {group} stands already in {first}")]
    Duplicate {
        /// The group, with its version.
        group: String,
        /// The scale.
        scale: Scale,
        /// The raw score.
        raw: i32,
        /// The file and line of the first.
        first: String,
    },
    /// A percentile below that of a lower raw score.
    #[error("{scale} {raw} of {group} has the percentile {percentile}, below the {before} of {raw_before}")]
    PercentileFalls {
        /// The group, with its version.
        group: String,
        /// The scale.
        scale: Scale,
        /// The raw score.
        raw: i32,
        /// Its percentile.
        percentile: f64,
        /// The lower raw score.
        raw_before: i32,
        /// Its percentile.
        before: f64,
    },
    /// An imported table whose rows are not in order.
    #[error("the row is not in the order norm_group, norm_version, scale, raw_score")]
    Order,
    /// An imported table that holds rows of another version than its name says.
    #[error("the row has the version '{version}', the file holds '{expected}'")]
    OtherVersion {
        /// The version of the row.
        version: String,
        /// The version that the file's name says.
        expected: String,
    },
    /// An imported table whose rows are not those that were written.
    #[error("the rows are not those that were imported: their digest differs from the one in the footer")]
    Changed,
}

/// All faults of an import or a validation, by file and line.
///
/// Displays one fault a line, under a line that says how many there are.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub struct FaultReport {
    /// The faults, as many as were kept.
    pub faults: Vec<NormFault>,
    /// How many there were.
    pub total: u64,
}

impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} in the norm tables:", self.total, if self.total == 1 { "fault" } else { "faults" })?;
        for fault in &self.faults {
            write!(f, "\n  {fault}")?;
        }
        match self.total - self.faults.len() as u64 {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// Collects faults, keeping a bounded number and counting all.
#[derive(Debug)]
pub(crate) struct FaultLog {
    faults: Vec<(usize, NormFault)>,
    total: u64,
    most: usize,
}

impl FaultLog {
    pub(crate) fn new(most: usize) -> Self {
        FaultLog { faults: Vec::new(), total: 0, most }
    }

    /// Takes a fault of the file with a number; files are reported in that order.
    pub(crate) fn add(&mut self, number: usize, file: &str, line: u64, cause: FaultCause) {
        self.total += 1;
        if self.faults.len() < self.most {
            self.faults.push((number, NormFault { file: file.to_owned(), line, cause }));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The faults in the order of files and lines, if there are any.
    pub(crate) fn report(mut self) -> Option<FaultReport> {
        self.faults.sort_by_key(|(number, fault)| (*number, fault.line));
        let faults = self.faults.into_iter().map(|(_, fault)| fault).collect();
        (self.total > 0).then_some(FaultReport { faults, total: self.total })
    }
}
