//! How a file lays a session out.

use std::fmt;
use std::str::FromStr;

/// The three layouts of session files. All score identically.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// One row per session, one integer column per rank: `q01_ce` … `ctx08_ae`.
    Wide,
    /// One row per session, one permutation code per item: `q01` … `ctx08`.
    Packed,
    /// One row per rank: `session_id, part, item, mode, rank`; session attributes beside it or in a second table.
    Long,
}

impl Layout {
    /// The name used on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Layout::Wide => "wide",
            Layout::Packed => "packed",
            Layout::Long => "long",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "wide" => Ok(Layout::Wide),
            "packed" => Ok(Layout::Packed),
            "long" => Ok(Layout::Long),
            other => Err(format!("'{other}' is not a layout: wide, packed or long")),
        }
    }
}
