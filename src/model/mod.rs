//! The vocabulary of the project: modes, scales, session columns, norm columns, faults and the result schema.
//!
//! Names and types, and how norms are held in memory. What the names mean for one instrument is in [`crate::instrument`]; how
//! values come about is in [`crate::scoring`]. Nothing here names anything heavier than Arrow.

pub(crate) mod distinct_floats;
mod fault;
pub mod keyed_norms;
mod layout;
mod mode;
pub mod norm;
pub mod permutation;
pub mod result;
mod scale;
pub mod session;

pub use fault::{Fault, FaultCode};
pub use layout::Layout;
pub use mode::Mode;
pub use scale::{PerScale, Scale};
