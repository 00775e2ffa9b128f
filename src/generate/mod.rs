//! Generated sessions and norm tables: as many as wanted, the same for the same seed, in bounded memory.
//!
//! For demonstrations, tests and benches. This is where batches come from, not where they go: nothing here reads or writes. The
//! figures are plausible, not evidence about anybody.
//!
//! # What sessions are like
//!
//! Ranks follow Thurstone's law of comparative judgment, calibrated to the published norms (frequencies of
//! the published table's raw scores, N = 10,423). There the raw scores of the modes add up to 106.91, for they sum eleven items;
//! twelve items always sum to 120. So the aim for a mode is its published mean plus a quarter of the difference, 3.2725, which
//! keeps the published means of ACCE and AERO, and the published standard deviations. The sample is the million sessions of
//! [`SessionOptions::default`]; mean, and standard deviation in brackets:
//!
//! | scale   | published     | aim           | sample        |
//! |---------|---------------|---------------|---------------|
//! | CE      |  19.84 (6.47) |  23.11 (6.47) |  23.10 (6.47) |
//! | RO      |  26.22 (7.02) |  29.49 (7.02) |  29.49 (7.02) |
//! | AC      |  29.00 (6.66) |  32.27 (6.66) |  32.29 (6.65) |
//! | AE      |  31.85 (5.93) |  35.12 (5.93) |  35.11 (5.95) |
//! | ACCE    |  9.16 (10.87) |  9.16 (10.87) |  9.19 (10.98) |
//! | AERO    |  5.62 (10.92) |  5.62 (10.92) |  5.62 (10.86) |
//! | 320·LFI |  232.8 (54.1) |  232.8 (54.1) |  232.6 (54.2) |
//!
//! Age, level of education and gender shift the means by up to four points, as demonstration norm groups differ. Generated norm
//! tables describe the same population, so that group percentiles of generated sessions spread over 0 to 100.

mod norms;
mod preference;
mod random;
mod respondent;
mod sessions;
mod spoil;
mod tables;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;

pub use norms::{NAMED_GROUPS, NormGenerator, NormOptions};
pub use sessions::{Respondents, SessionGenerator, SessionOptions};

use crate::model::PerScale;

/// Rows of a batch when the options do not say.
const BATCH_ROWS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(8191);

/// Mean and standard deviation of a scale's raw score; for LFI, of 320·LFI.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Aim {
    mean: f64,
    deviation: f64,
}

/// What generated sessions aim at; the module's table says why.
const AIMS: PerScale<Aim> = PerScale([
    Aim { mean: 23.11, deviation: 6.47 },
    Aim { mean: 29.49, deviation: 7.02 },
    Aim { mean: 32.27, deviation: 6.66 },
    Aim { mean: 35.12, deviation: 5.93 },
    Aim { mean: 9.16, deviation: 10.87 },
    Aim { mean: 5.62, deviation: 10.92 },
    Aim { mean: 232.8, deviation: 54.1 },
]);

/// Why a generator was refused. None is worth a retry with the same options.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum GenerateError {
    /// The share of bad sessions is not a share.
    #[error("the fraction of bad sessions is {bad_fraction}: give a number from 0 to 1")]
    BadFraction {
        /// What was given.
        bad_fraction: f64,
    },
    /// The session ids would begin at 0, or pass the largest 64-bit integer.
    #[error("{rows} session ids from {first} do not fit: begin at 1 or more, and end below 9223372036854775807")]
    SessionIds {
        /// The first id.
        first: u64,
        /// How many.
        rows: u64,
    },
}
