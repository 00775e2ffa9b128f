//! normstream re-scores psychometric assessment sessions in bulk: it reads session files of any size from any object store,
//! runs the scoring stages as streaming Arrow operators on DataFusion, looks percentiles up in norm tables that live as Parquet
//! and are loaded lazily, and writes results that become visible all at once.
//!
//! # The way of the data
//!
//! ```text
//!  session files ──▶ engine: discover, read schemas, cut into parts
//!  (any store)          │
//!                       ▼  run: each part, in parallel, bounded memory, results in input order
//!        scan ─▶ ValidateExec ─▶ RawScalesExec ─▶ CombinationsExec ─▶ StyleExec
//!             ─▶ FlexibilityExec ─▶ PercentilesExec ─▶ FlagsExec ─▶ row groups ─▶ target, visible at the commit
//!                                         ▲
//!            norms: Parquet ─▶ one group at a time ─▶ byte-bounded cache
//!
//!  SQL ──▶ engine::query: tables, views of sql/views, functions, score('…') over the same operators ──▶ rows, within a budget
//! ```
//!
//! # Layers
//!
//! Arrows point one way: a module names only those below it. A test reads every `use crate::` line against this table.
//!
//! | module | what it is |
//! |---|---|
//! | [`cli`] | arguments, one file per subcommand |
//! | [`config`], [`error`], [`telemetry`] | settings and their layers, exit codes, progress |
//! | [`export`] | rows of queries into warehouses, on schedules, exactly once |
//! | [`run`] | jobs: into a file in one go, into a table part by part with one commit at the end |
//! | [`engine`] | DataFusion sessions, session files as plans, the plan that scores them; SQL over sessions, norms and results |
//! | [`operators`] | a stage as an operator; the writer of result row groups |
//! | [`norms`], [`table`] | where percentiles come from; which files of a folder are live: Delta logs and manifests |
//! | [`storage`] | where files are read and written |
//! | [`scoring`], [`generate`] | the pure kernels; seeded sessions and norms to try things with |
//! | [`instrument`] | what is scored, as data |
//! | [`model`] | the vocabulary: modes, scales, columns, faults |
//!
//! # Invariants
//!
//! 1. Scores are integers to the last step; floats are outputs only.
//! 2. The output depends on input, norms, instrument and options: not on threads, batch size or what is cached.
//! 3. Sessions in = sessions out, in order. A session that cannot be scored is a row with `ok = false`, never an error and never
//!    left out unasked.
//! 4. A target is whole or not there, whatever stops the program and whenever; a run into a table goes on where it was stopped.
//! 5. `model`, `instrument`, `scoring` and `generate` name nothing heavier than Arrow.
//! 6. Memory is bounded by configuration: nothing grows with the number of sessions.
//!
//! # As a library
//!
//! ```
//! use std::sync::Arc;
//! use arrow::array::{ArrayRef, AsArray, BooleanArray, Int16Array};
//! use arrow::datatypes::UInt8Type;
//! use normstream::instrument::Instrument;
//! use normstream::scoring::{Stage, Style};
//!
//! // A stage is a pure step from columns to columns.
//! let stage = Style::new(&Instrument::klsi4());
//! let ok: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
//! let acce: ArrayRef = Arc::new(Int16Array::from(vec![17]));
//! let aero: ArrayRef = Arc::new(Int16Array::from(vec![-23]));
//! let added = stage.evaluate(&[ok, acce, aero])?;
//! let styles = added[0].as_dictionary::<UInt8Type>();
//! assert_eq!(styles.values().as_string::<i32>().value(styles.key(0).unwrap_or(0)), "analyzing");
//! # Ok::<(), normstream::scoring::ScoringError>(())
//! ```

pub mod cli;
pub mod config;
pub mod engine;
pub mod error;
pub mod export;
pub mod generate;
pub mod instrument;
pub mod model;
pub mod norms;
pub mod operators;
pub mod run;
pub mod scoring;
pub mod storage;
pub mod table;
mod tasks;
pub mod telemetry;
