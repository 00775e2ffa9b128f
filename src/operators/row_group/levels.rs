//! Definition and repetition levels of a page: which rows are null, and where lists begin.

use std::ops::Range;

use arrow::array::NullBufferBuilder;
use arrow::buffer::NullBuffer;
use arrow::util::bit_iterator::BitSliceIterator;

use super::hybrid::{bit_width, put_bits, put_repeated, put_values, put_words};

/// Appends what `put` writes, preceded by its length in bytes, as levels stand in a data page of version 1.
fn put_section(out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    put(out);
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Which rows of a page of a flat column have a value.
pub(super) struct Validity {
    bits: NullBufferBuilder,
    nulls: usize,
}

impl Validity {
    pub(super) fn new() -> Self {
        Self { bits: NullBufferBuilder::new(0), nulls: 0 }
    }

    /// Appends `rows` rows, of which `nulls` says which are null.
    pub(super) fn append(&mut self, rows: usize, nulls: Option<&NullBuffer>) {
        match nulls.filter(|nulls| nulls.null_count() > 0) {
            None => self.bits.append_n_non_nulls(rows),
            Some(nulls) if nulls.null_count() == rows => self.bits.append_n_nulls(rows),
            Some(nulls) => self.bits.append_buffer(nulls),
        }
        self.nulls += nulls.map_or(0, NullBuffer::null_count);
    }

    pub(super) fn rows(&self) -> usize {
        self.bits.len()
    }

    pub(super) fn values(&self) -> usize {
        self.rows() - self.nulls
    }

    /// Appends the definition levels of the page to `out` and starts the next page. A column that is never null
    /// (`max_level` 0) has none.
    pub(super) fn finish_page(&mut self, max_level: u32, out: &mut Vec<u8>) {
        if max_level > 0 {
            put_section(out, |out| match self.bits.as_slice() {
                Some(bits) if self.values() > 0 && self.nulls > 0 => {
                    put_validity(bits, self.rows(), self.nulls.min(self.values()), out);
                }
                _ => put_repeated(u32::from(self.nulls == 0), self.rows(), 1, out),
            });
        }
        self.bits.finish();
        self.nulls = 0;
    }
}

/// Appends the bits of `rows` rows, of which `rare` differ from all others: as runs, if these are sure to be shorter.
fn put_validity(bits: &[u8], rows: usize, rare: usize, out: &mut Vec<u8>) {
    // A rare one begins two runs at most.
    if (2 * rare + 1) * RUN_BYTES > rows / 8 {
        return put_bits(bits, rows, out);
    }
    let mut at = 0;
    for (from, to) in BitSliceIterator::new(bits, 0, rows) {
        put_repeated(0, from - at, 1, out);
        put_repeated(1, to - from, 1, out);
        at = to;
    }
    put_repeated(0, rows - at, 1, out);
}

/// The bytes of a run of levels in a page of less than a million: its length, and the level.
const RUN_BYTES: usize = 4;

/// What definition levels mean in a column of lists. A null list has level 0.
pub(super) struct DefinitionScale {
    /// The level of an empty list.
    pub(super) empty: u8,
    /// The level of an element that is not null; of a null element it is one less.
    pub(super) element: u8,
}

impl DefinitionScale {
    pub(super) fn new(list_nullable: bool, item_nullable: bool) -> Self {
        let empty = u8::from(list_nullable);
        Self { empty, element: empty + 1 + u8::from(item_nullable) }
    }

    pub(super) fn item_nullable(&self) -> bool {
        self.element > self.empty + 1
    }
}

/// The levels of a page of lists.
pub(super) struct ListLevels {
    /// One bit per level, set where a list continues; bits past the last level, of which there is one at least, are set.
    /// Empty while no list continues.
    continues: Vec<u64>,
    definition: LevelRuns,
    rows: usize,
    levels: usize,
}

impl ListLevels {
    pub(super) fn new() -> Self {
        Self { continues: Vec::new(), definition: LevelRuns::default(), rows: 0, levels: 0 }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn levels(&self) -> usize {
        self.levels
    }

    /// Appends lists. `offsets` delimit them and are one more than they; a list that is in none of the `runs` is null and has no
    /// elements, whatever its offsets say. `item_nulls` says which elements, counted as the offsets count them, are null.
    pub(super) fn append(
        &mut self,
        offsets: &[i32],
        runs: &[Range<usize>],
        item_nulls: Option<&NullBuffer>,
        scale: &DefinitionScale,
    ) {
        let mut at = 0;
        for &Range { start, end } in runs {
            self.append_nulls(start - at);
            self.append_lists(&offsets[start..=end], item_nulls, scale);
            at = end;
        }
        self.append_nulls(offsets.len() - 1 - at);
    }

    fn append_nulls(&mut self, rows: usize) {
        self.append_starts(rows, rows, std::iter::repeat_n(1, rows));
        self.definition.append(0, rows);
    }

    /// Appends lists of which none is null.
    fn append_lists(&mut self, offsets: &[i32], item_nulls: Option<&NullBuffer>, scale: &DefinitionScale) {
        let lengths = offsets.iter().zip(&offsets[1..]).map(|(start, end)| (end - start) as usize);
        let rows = offsets.len() - 1;
        let elements = (offsets[rows] - offsets[0]) as usize;
        let empty = lengths.clone().map(|length| usize::from(length == 0)).sum::<usize>();
        self.append_starts(rows, elements + empty, lengths.clone().map(|length| length.max(1)));
        if item_nulls.is_none() && empty == 0 {
            self.definition.append(scale.element, elements);
            return;
        }
        for (start, length) in offsets.iter().zip(lengths) {
            let start = *start as usize;
            match item_nulls {
                _ if length == 0 => self.definition.append(scale.empty, 1),
                None => self.definition.append(scale.element, length),
                Some(nulls) => (start..start + length)
                    .for_each(|item| self.definition.append(scale.element - u8::from(nulls.is_null(item)), 1)),
            }
        }
    }

    /// Appends where `rows` lists begin, of `slots` levels each, in all `levels`.
    fn append_starts(&mut self, rows: usize, levels: usize, slots: impl Iterator<Item = usize>) {
        const BITS: usize = u64::BITS as usize;
        let first = self.levels;
        self.rows += rows;
        self.levels += levels;
        if self.continues.is_empty() {
            if levels == rows {
                return;
            }
            self.continues.resize(first / BITS, 0);
            self.continues.push(!0 << (first % BITS));
        }
        let mut at = first;
        let mut word = self.continues.pop().unwrap_or(!0);
        for slot in slots {
            while self.continues.len() < at / BITS {
                self.continues.push(std::mem::replace(&mut word, !0));
            }
            word &= !(1 << (at % BITS));
            at += slot;
        }
        self.continues.push(word);
        self.continues.resize(self.levels / BITS + 1, !0);
    }

    /// Appends the levels of the page to `out` and starts the next page.
    pub(super) fn finish_page(&mut self, scale: &DefinitionScale, out: &mut Vec<u8>) {
        put_section(out, |out| match self.continues.as_slice() {
            [] => put_repeated(0, self.levels, 1, out),
            words => put_words(words, self.levels, out),
        });
        put_section(out, |out| self.definition.put(bit_width(scale.element.into()), out));
        self.continues.clear();
        self.definition.runs.clear();
        (self.rows, self.levels) = (0, 0);
    }
}

/// Levels as runs: most pages have few.
#[derive(Default)]
struct LevelRuns {
    /// A level, and how often it is repeated.
    runs: Vec<(u8, usize)>,
}

impl LevelRuns {
    fn append(&mut self, level: u8, count: usize) {
        match self.runs.last_mut() {
            Some((last, length)) if *last == level => *length += count,
            _ if count > 0 => self.runs.push((level, count)),
            _ => {}
        }
    }

    /// Appends the levels to `out`: as runs, if these are sure to be shorter.
    fn put(&self, width: usize, out: &mut Vec<u8>) {
        let levels = self.runs.iter().map(|(_, count)| count).sum::<usize>();
        if self.runs.len() == 1 || self.runs.len() * RUN_BYTES <= levels * width / 8 {
            self.runs.iter().for_each(|(level, count)| put_repeated((*level).into(), *count, width, out));
            return;
        }
        let mut packed = Vec::with_capacity(levels);
        for (level, count) in &self.runs {
            packed.resize(packed.len() + count, *level);
        }
        put_values(&packed, width, out);
    }
}
