//! Parts: the units in which input is read, scored and written. They depend on the files alone, never on the machine.

use std::ops::Range;
use std::sync::Arc;

use crate::engine::input::footer::{ParquetPart, PartFooter};
use crate::engine::input::open::SessionFile;

/// How large a part may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartLimits {
    /// Rows of a Parquet part: whole row groups are added until there are this many. Long layout: rows read at a time.
    pub rows: u64,
    /// Bytes of a part of an uncompressed text file.
    pub text_bytes: u64,
}

impl Default for PartLimits {
    fn default() -> Self {
        PartLimits { rows: 131_072, text_bytes: 16 << 20 }
    }
}

/// A part: a whole file, or a byte range of one that holds whole row groups or begins and ends within lines. In the long layout,
/// where the rows of a session may lie anywhere, the whole input is one part.
#[derive(Debug, Clone)]
pub struct InputPart {
    /// The file; in the long layout the first of all.
    pub file: Arc<SessionFile>,
    /// The range; `None` for a whole file.
    pub range: Option<(u64, u64)>,
    /// How many sessions it holds, where the file says so.
    pub rows: Option<u64>,
    bytes: u64,
    /// What the scan of a Parquet part needs of the file's footer.
    pub(super) footer: Option<PartFooter>,
}

impl InputPart {
    /// A whole file as one part.
    pub fn whole(file: &Arc<SessionFile>) -> Self {
        InputPart { file: Arc::clone(file), range: None, rows: file.rows(), bytes: file.size(), footer: None }
    }

    /// Whole row groups of a Parquet file.
    pub(super) fn of_row_groups(file: &Arc<SessionFile>, part: &ParquetPart) -> Self {
        let lines = Self::of_lines(file, part.range);
        InputPart { rows: Some(part.rows), footer: Some(part.footer.clone()), ..lines }
    }

    /// The lines of a text file that begin in a byte range.
    pub(super) fn of_lines(file: &Arc<SessionFile>, range: (u64, u64)) -> Self {
        InputPart { file: Arc::clone(file), range: Some(range), rows: None, bytes: range.1 - range.0, footer: None }
    }

    /// An input of the long layout, of which `file` is the first and `bytes` the size of all.
    pub(super) fn assembled(file: &Arc<SessionFile>, bytes: u64) -> Self {
        InputPart { file: Arc::clone(file), range: None, rows: None, bytes, footer: None }
    }

    /// How many bytes of input the part covers.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// A row group, as parts are cut from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowGroup {
    /// Where its first column begins in the file.
    pub(super) start: u64,
    /// How many rows it has.
    pub(super) rows: u64,
}

/// Row groups that lie together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowGroups {
    /// Which of the file's.
    pub(super) indexes: Range<usize>,
    /// The bytes that hold them.
    pub(super) range: (u64, u64),
    /// How many rows they have.
    pub(super) rows: u64,
}

/// Cuts a Parquet file between row groups.
pub(super) fn cut_row_groups(row_groups: &[RowGroup], size: u64, limits: PartLimits) -> Vec<RowGroups> {
    let mut parts = Vec::new();
    let (mut from, mut rows) = (0, 0);
    for (index, group) in row_groups.iter().enumerate() {
        rows += group.rows;
        let next = index + 1;
        if rows >= limits.rows || next == row_groups.len() {
            let end = row_groups.get(next).map_or(size, |next| next.start);
            parts.push(RowGroups { indexes: from..next, range: (row_groups[from].start, end), rows });
            (from, rows) = (next, 0);
        }
    }
    parts
}

/// Cuts a text file at even distances; a reader of a range takes the lines that begin in it.
///
/// The parts are alike, and as a rule a multiple of four, so that two or four threads end at the same time.
pub(super) fn cut_lines(size: u64, limits: PartLimits) -> Vec<(u64, u64)> {
    let least = size.div_ceil(limits.text_bytes);
    let parts = if least > 2 { least.next_multiple_of(4) } else { least };
    let distance = size.div_ceil(parts.max(1)).max(1);
    (0..size.div_ceil(distance)).map(|part| (part * distance, size.min((part + 1) * distance))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PartLimits = PartLimits { rows: 100, text_bytes: 10 };

    #[test]
    fn a_part_takes_whole_row_groups_until_it_has_rows_enough() {
        let groups = [(4, 60), (50, 60), (90, 10), (95, 150), (200, 1)].map(|(start, rows)| RowGroup { start, rows });
        let parts = cut_row_groups(&groups, 300, LIMITS);
        let part = |indexes, range, rows| RowGroups { indexes, range, rows };
        assert_eq!(parts, [part(0..2, (4, 90), 120), part(2..4, (90, 200), 160), part(4..5, (200, 300), 1)]);
    }

    #[test]
    fn a_file_without_row_groups_has_no_parts() {
        assert_eq!(cut_row_groups(&[], 300, LIMITS), []);
    }

    #[test]
    fn text_is_cut_at_even_distances_to_its_end() {
        assert_eq!(cut_lines(25, LIMITS), [(0, 7), (7, 14), (14, 21), (21, 25)]);
        assert_eq!(cut_lines(11, LIMITS), [(0, 6), (6, 11)]);
        assert_eq!(cut_lines(10, LIMITS), [(0, 10)]);
        assert_eq!(cut_lines(0, LIMITS), []);
    }
}
