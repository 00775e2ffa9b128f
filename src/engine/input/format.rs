//! File formats of session files, and how a name tells them.

use std::fmt;
use std::str::FromStr;

/// The format of a session file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileFormat {
    /// Apache Parquet.
    Parquet,
    /// Comma-separated values with a header line.
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// Arrow IPC file.
    Arrow,
}

impl FileFormat {
    /// All formats.
    pub const ALL: [FileFormat; 4] = [FileFormat::Parquet, FileFormat::Csv, FileFormat::Ndjson, FileFormat::Arrow];

    /// The name used on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            FileFormat::Parquet => "parquet",
            FileFormat::Csv => "csv",
            FileFormat::Ndjson => "ndjson",
            FileFormat::Arrow => "arrow",
        }
    }

    fn of_extension(extension: &str) -> Option<FileFormat> {
        Some(match extension.to_ascii_lowercase().as_str() {
            "parquet" | "pq" => FileFormat::Parquet,
            "csv" => FileFormat::Csv,
            "ndjson" | "jsonl" | "json" => FileFormat::Ndjson,
            "arrow" | "ipc" | "feather" => FileFormat::Arrow,
            _ => return None,
        })
    }

    /// Whether the format is text, which may be compressed as a whole and cut at any line.
    pub const fn is_text(self) -> bool {
        matches!(self, FileFormat::Csv | FileFormat::Ndjson)
    }

    /// How many rows of so many columns are decoded at once at most.
    ///
    /// Lines are taken apart into cells first, and then each column collects its own from all of them: they should still be in the
    /// processor's cache by then.
    pub(super) fn rows_at_once(self, columns: usize) -> usize {
        let cells = match self {
            FileFormat::Csv => 350_000,
            FileFormat::Ndjson => 100_000,
            FileFormat::Parquet | FileFormat::Arrow => return usize::MAX,
        };
        (cells / columns.max(1)).max(1)
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FileFormat {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        FileFormat::of_extension(s).ok_or_else(|| format!("'{s}' is not a format: parquet, csv, ndjson or arrow"))
    }
}

/// Compression of a text file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// None.
    #[default]
    None,
    /// `.gz`.
    Gzip,
    /// `.zst`.
    Zstd,
}

/// What a file's name says about it: `sessions.csv.gz` is CSV in gzip. `None` for a name without a known extension.
///
/// ```
/// use normstream::engine::{Compression, FileFormat, format_of_name};
/// assert_eq!(format_of_name("2024/sessions.csv.gz"), Some((FileFormat::Csv, Compression::Gzip)));
/// assert_eq!(format_of_name("sessions.parquet"), Some((FileFormat::Parquet, Compression::None)));
/// assert_eq!(format_of_name("README"), None);
/// ```
pub fn format_of_name(name: &str) -> Option<(FileFormat, Compression)> {
    let (stem, compression) = compression_of_name(name);
    let format = FileFormat::of_extension(stem.rsplit_once('.')?.1)?;
    (format.is_text() || compression == Compression::None).then_some((format, compression))
}

/// A file's name without the extension of its compression, and the compression.
pub fn compression_of_name(name: &str) -> (&str, Compression) {
    let lower = name.to_ascii_lowercase();
    for (extension, compression) in [(".gz", Compression::Gzip), (".zst", Compression::Zstd)] {
        if lower.ends_with(extension) {
            return (&name[..name.len() - extension.len()], compression);
        }
    }
    (name, Compression::None)
}
