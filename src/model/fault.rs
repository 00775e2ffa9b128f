//! What can be wrong with a session, as stable codes and as a sentence.

use std::fmt;

use crate::model::Mode;
use crate::model::session::{Part, packed_column};

/// A stable code for a fault, as it stands in `error_code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultCode {
    /// A rank is null, or its row is absent.
    MissingRank,
    /// A rank is outside 1..=4, or a packed code above 23.
    RankOutOfRange,
    /// The four ranks of an item repeat one.
    NotAPermutation,
    /// Long layout: two rows rank the same mode of one item.
    DuplicateRank,
    /// Long layout: a row names a mode that does not exist.
    UnknownMode,
    /// Long layout: a row names a part or an item that does not exist.
    UnknownItem,
}

impl FaultCode {
    /// All codes, in the order in which they are tabulated.
    pub const ALL: [FaultCode; 6] = [
        FaultCode::MissingRank,
        FaultCode::RankOutOfRange,
        FaultCode::NotAPermutation,
        FaultCode::DuplicateRank,
        FaultCode::UnknownMode,
        FaultCode::UnknownItem,
    ];

    /// The code as it stands in `error_code`.
    pub const fn as_str(self) -> &'static str {
        match self {
            FaultCode::MissingRank => "missing_rank",
            FaultCode::RankOutOfRange => "rank_out_of_range",
            FaultCode::NotAPermutation => "not_a_permutation",
            FaultCode::DuplicateRank => "duplicate_rank",
            FaultCode::UnknownMode => "unknown_mode",
            FaultCode::UnknownItem => "unknown_item",
        }
    }
}

impl fmt::Display for FaultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The first fault of a session: a code, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fault {
    /// What is wrong.
    pub code: FaultCode,
    /// The item, from 1, or `None` when the row belongs to no item.
    pub item: Option<(Part, usize)>,
    /// The mode, where the fault is one rank's.
    pub mode: Option<Mode>,
}

/// One sentence that names the item, fit for the `error` column.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((part, item)) = self.item else {
            return f.write_str("a row names a part or an item that the instrument does not have");
        };
        let place = packed_column(part, item);
        match (self.code, self.mode) {
            (FaultCode::MissingRank, Some(mode)) => write!(f, "the rank of {mode} in item {place} is missing"),
            (FaultCode::MissingRank, None) => write!(f, "item {place} is missing"),
            (FaultCode::RankOutOfRange, Some(mode)) => {
                write!(f, "the rank of {mode} in item {place} is not a whole number from 1 to 4")
            }
            (FaultCode::RankOutOfRange, None) => write!(f, "the code of item {place} is not from 0 to 23"),
            (FaultCode::NotAPermutation, _) => write!(f, "the ranks of item {place} are not 1, 2, 3 and 4 once each"),
            (FaultCode::DuplicateRank, Some(mode)) => write!(f, "{mode} is ranked more than once in item {place}"),
            (FaultCode::DuplicateRank, None) => write!(f, "a mode is ranked more than once in item {place}"),
            (FaultCode::UnknownMode, _) => write!(f, "a row of item {place} names a mode other than CE, RO, AC or AE"),
            (FaultCode::UnknownItem, _) => write!(f, "item {place} does not exist"),
        }
    }
}
