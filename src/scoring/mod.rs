//! The scoring kernels: arrays in, arrays out, one file per stage.
//!
//! A [`Stage`] declares the columns it reads and the columns it adds and has one pure method between them. Nothing here is
//! async, does I/O, reads a clock or knows DataFusion; `crate::operators` puts stages into plans.
//!
//! Scores are integers from the ranks to the last step; a float is only ever an output. All kernels work column by column,
//! allocate per batch and never per row. A session that failed validation is null in every score column: the kernels compute
//! over its slots like over any other and mask them at the end.

mod age;
mod cells;
mod combinations;
mod flags;
mod flexibility;
mod percentiles;
mod raw_scales;
mod stage;
mod style;
mod validate;

#[cfg(test)]
mod tests;

pub use age::{AgeBands, completed_years};
pub(crate) use cells::{bytes_of, is_missing};
pub use combinations::Combinations;
pub use flags::{FLAG_NAMES, Flags};
pub use flexibility::Flexibility;
pub use percentiles::{ChainLink, NO_GROUP, PercentileInputs, Percentiles};
pub use raw_scales::RawScales;
pub use stage::{Accepts, Read, ScoringError, Stage, check_inputs};
pub use style::Style;
pub use validate::{LONG_FAULT, Validate, decode_long_fault, encode_long_fault};

use crate::model::session::{Part, packed_column};

/// The column of an item's validated ranking code inside a plan, as in `q01_code`: `UInt8`, never null,
/// [`INVALID_CODE`] for an item that is not a ranking.
pub fn code_column(part: Part, item: usize) -> String {
    format!("{}_code", packed_column(part, item))
}

/// The code of an item that is not a ranking.
pub const INVALID_CODE: u8 = u8::MAX;

/// The column of the integer 320·LFI inside a plan (see [`crate::instrument::Instrument::lfi_denominator`]): `Int16`.
pub const LFI_KEY: &str = "lfi_key";
