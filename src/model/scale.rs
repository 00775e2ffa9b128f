//! The seven scales that have norms, and arrays with one entry per scale.

use std::fmt;
use std::ops::{Index, IndexMut};

use crate::model::Mode;

/// A scale with norms. The order of the variants is the order of result columns and of `truncated_scales`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scale {
    /// Raw score of Concrete Experience.
    Ce,
    /// Raw score of Reflective Observation.
    Ro,
    /// Raw score of Abstract Conceptualization.
    Ac,
    /// Raw score of Active Experimentation.
    Ae,
    /// AC − CE.
    Acce,
    /// AE − RO.
    Aero,
    /// Learning flexibility, keyed by the integer 320·LFI.
    Lfi,
}

impl Scale {
    /// All scales, in result order.
    pub const ALL: [Scale; 7] = [Scale::Ce, Scale::Ro, Scale::Ac, Scale::Ae, Scale::Acce, Scale::Aero, Scale::Lfi];

    /// The code used in norm tables.
    pub const fn code(self) -> &'static str {
        match self {
            Scale::Ce => "CE",
            Scale::Ro => "RO",
            Scale::Ac => "AC",
            Scale::Ae => "AE",
            Scale::Acce => "ACCE",
            Scale::Aero => "AERO",
            Scale::Lfi => "LFI",
        }
    }

    /// The name in result columns and in `truncated_scales`: `ce`, …, `lfi`.
    pub const fn name(self) -> &'static str {
        match self {
            Scale::Ce => "ce",
            Scale::Ro => "ro",
            Scale::Ac => "ac",
            Scale::Ae => "ae",
            Scale::Acce => "acce",
            Scale::Aero => "aero",
            Scale::Lfi => "lfi",
        }
    }

    /// The scale of a code, in either case; `None` for anything else.
    pub fn from_code(code: &str) -> Option<Scale> {
        Scale::ALL.into_iter().find(|scale| scale.code().eq_ignore_ascii_case(code))
    }
}

impl From<Mode> for Scale {
    fn from(mode: Mode) -> Scale {
        match mode {
            Mode::Ce => Scale::Ce,
            Mode::Ro => Scale::Ro,
            Mode::Ac => Scale::Ac,
            Mode::Ae => Scale::Ae,
        }
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// One `T` for each scale, indexed by [`Scale`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PerScale<T>(pub [T; 7]);

impl<T> PerScale<T> {
    /// Builds each entry from its scale.
    pub fn from_fn(mut f: impl FnMut(Scale) -> T) -> Self {
        PerScale(Scale::ALL.map(&mut f))
    }

    /// The entries with their scales, in result order.
    pub fn iter(&self) -> impl Iterator<Item = (Scale, &T)> {
        Scale::ALL.into_iter().zip(&self.0)
    }
}

impl<T> Index<Scale> for PerScale<T> {
    type Output = T;

    fn index(&self, scale: Scale) -> &T {
        &self.0[scale as usize]
    }
}

impl<T> IndexMut<Scale> for PerScale<T> {
    fn index_mut(&mut self, scale: Scale) -> &mut T {
        &mut self.0[scale as usize]
    }
}
