//! Exports: rows of a query into a warehouse, on a schedule, exactly once.
//!
//! ```text
//!  Scheduler ── slot ──▶ Exporter ── lease, state ──▶ Sink         (PostgreSQL, Delta, files)
//!                           │
//!                           ▼  slice = what is new since the state
//!                        Source ── query ──▶ rows ──▶ Lease::load ──▶ one commit: rows, cursor, run id, slot
//! ```
//!
//! # Invariants
//!
//! 1. How far an export has come is kept at its target, and moves in the commit that brings the rows. There is no other state:
//!    wherever a process dies, the next one finds rows and cursor together, or neither.
//! 2. A commit is made only from the state that its slice was cut from. Of two processes that export the same slice one commits.
//! 3. A slot of the schedule is noted in the same commit, and not run again.
//! 4. Outcomes are three: committed, not committed, unknown. Unknown is looked up at the target until it is known; if that
//!    cannot be, the error says so, and running again is safe.
//! 5. Rows stream: memory does not grow with their number.

/// A place where tests end the process without running a destructor, as `kill -9` does.
macro_rules! crash_point {
    ($name:literal) => {
        fail::fail_point!($name, |_| std::process::abort())
    };
}

mod error;
mod hooks;
mod job;
mod query;
mod receipt;
mod run;
pub mod schedule;
mod sink;
mod slice;
mod source;

pub use error::ExportError;
pub use hooks::Hook;
pub use job::{CatchUp, ExportJob, Incremental, Mode, Overlap};
pub use query::Parameters;
pub use receipt::Receipt;
pub use run::{Exporter, Outcome, Plan, Request};
pub use sink::{PoolState, Sink, State, TargetFormat, TargetOptions, Targets};
pub use slice::{Cursor, Slice, parse_time, time_text};
pub use source::{Source, SourceOptions, SourceRows};
