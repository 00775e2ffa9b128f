//! Session files: found, identified, and read as one canonical set of columns.
//!
//! [`discover`] turns what the user wrote into files; [`SessionInput::open`] reads their schemas, settles the layout and the
//! canonical columns, and cuts the files into [`InputPart`]s; [`SessionInput::scan`] gives the plan that reads one part. In the long
//! layout that plan assembles sessions from their rows (module `long`).

mod canonical;
mod discover;
mod footer;
mod format;
mod long;
mod open;
mod part;
mod read_ahead;
mod scan;
mod stdin;
mod text;

pub use canonical::{CanonicalColumns, ColumnNames, detect_layout};
pub use discover::{FoundFile, Reading, discover};
pub use format::{Compression, FileFormat, compression_of_name, format_of_name};
pub(in crate::engine) use open::open_files;
pub use open::{InputOptions, SessionFile, SessionInput, Source, Sources};
pub use part::{InputPart, PartLimits};
pub(in crate::engine) use scan::{ScanOptions, scan_groups};
pub use stdin::{STDIN, StdinInput, StdinStream};
