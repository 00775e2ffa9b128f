//! The four learning modes, in the order in which every ranking of the project lists them.

use std::fmt;

/// A learning mode. The order of the variants (CE, RO, AC, AE) is the order of ranks within an item everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Concrete Experience.
    Ce,
    /// Reflective Observation.
    Ro,
    /// Abstract Conceptualization.
    Ac,
    /// Active Experimentation.
    Ae,
}

impl Mode {
    /// All modes, in ranking order.
    pub const ALL: [Mode; 4] = [Mode::Ce, Mode::Ro, Mode::Ac, Mode::Ae];

    /// The code used in norm tables and in the long layout.
    pub const fn code(self) -> &'static str {
        match self {
            Mode::Ce => "CE",
            Mode::Ro => "RO",
            Mode::Ac => "AC",
            Mode::Ae => "AE",
        }
    }

    /// The suffix of a wide column, as in `q01_ce`.
    pub const fn suffix(self) -> &'static str {
        match self {
            Mode::Ce => "ce",
            Mode::Ro => "ro",
            Mode::Ac => "ac",
            Mode::Ae => "ae",
        }
    }

    /// The mode of a code, in either case; `None` for anything else.
    pub fn from_code(code: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.code().eq_ignore_ascii_case(code))
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}
