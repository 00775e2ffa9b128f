//! Definition and repetition levels of a page: which rows are null, and where lists begin.

use arrow::array::NullBufferBuilder;
use arrow::buffer::NullBuffer;

use super::hybrid::{bit_width, put_bits, put_repeated, put_values};

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

    pub(super) fn buffered_bytes(&self) -> usize {
        self.bits.allocated_size()
    }

    /// Appends the definition levels of the page to `out` and starts the next page. A column that is never null
    /// (`max_level` 0) has none.
    pub(super) fn finish_page(&mut self, max_level: u32, out: &mut Vec<u8>) {
        if max_level > 0 {
            put_section(out, |out| match self.bits.as_slice() {
                Some(bits) if self.values() > 0 && self.nulls > 0 => put_bits(bits, self.rows(), out),
                _ => put_repeated(u32::from(self.nulls == 0), self.rows(), 1, out),
            });
        }
        self.bits.finish();
        self.nulls = 0;
    }
}

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
    /// One bit per level, set where a list continues; bits past the last level are set. Empty while no list continues.
    continues: Vec<u8>,
    /// The definition level of all, while `definition` is empty.
    repeated: u8,
    /// Each definition level, once two differ.
    definition: Vec<u8>,
    rows: usize,
    levels: usize,
}

impl ListLevels {
    pub(super) fn new() -> Self {
        Self { continues: Vec::new(), repeated: 0, definition: Vec::new(), rows: 0, levels: 0 }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn levels(&self) -> usize {
        self.levels
    }

    pub(super) fn buffered_bytes(&self) -> usize {
        self.continues.capacity() + self.definition.capacity()
    }

    /// Appends lists. `offsets` delimit them and are one more than they; a list that is null by `nulls` has no elements,
    /// whatever its offsets say. `item_nulls` says which elements, counted as the offsets count them, are null.
    pub(super) fn append(
        &mut self,
        offsets: &[i32],
        nulls: Option<&NullBuffer>,
        item_nulls: Option<&NullBuffer>,
        scale: &DefinitionScale,
    ) {
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        let rows = offsets.len() - 1;
        let lengths = (0..rows).map(|row| match nulls {
            Some(nulls) if nulls.is_null(row) => 0,
            _ => (offsets[row + 1] - offsets[row]) as usize,
        });
        let (elements, without) = lengths
            .clone()
            .fold((0, 0), |(elements, without), length| (elements + length, without + usize::from(length == 0)));
        let levels = elements + without;
        if levels > rows || !self.continues.is_empty() {
            self.append_starts(levels, lengths.clone().map(|length| length.max(1)));
        }
        if nulls.is_none() && without == rows {
            self.append_definition(rows, scale.empty);
        } else {
            self.append_definition(levels, scale.element);
        }
        if nulls.is_some() || item_nulls.is_some() || (without > 0 && without < rows) {
            self.spread_definition(levels);
            let mut at = self.levels;
            for (row, length) in lengths.enumerate() {
                if length == 0 {
                    let null = nulls.is_some_and(|nulls| nulls.is_null(row));
                    self.definition[at] = if null { 0 } else { scale.empty };
                }
                if let Some(item_nulls) = item_nulls {
                    let first = offsets[row] as usize;
                    for item in (0..length).filter(|item| item_nulls.is_null(first + item)) {
                        self.definition[at + item] = scale.element - 1;
                    }
                }
                at += length.max(1);
            }
        }
        self.rows += rows;
        self.levels += levels;
    }

    fn append_starts(&mut self, levels: usize, lengths: impl Iterator<Item = usize>) {
        let used = self.levels;
        if self.continues.is_empty() {
            self.continues.resize(used / 8, 0);
            self.continues.push(0xff << (used % 8));
        }
        self.continues.resize((used + levels) / 8 + 1, 0xff);
        let mut at = used;
        for length in lengths {
            self.continues[at / 8] &= !(1 << (at % 8));
            at += length;
        }
    }

    fn append_definition(&mut self, count: usize, level: u8) {
        if self.definition.is_empty() {
            if self.levels == 0 {
                self.repeated = level;
            }
            if self.repeated == level {
                return;
            }
            self.definition.resize(self.levels, self.repeated);
        }
        self.definition.resize(self.levels + count, level);
    }

    /// Makes each definition level of the lists being appended, of `count` levels, one that can be set.
    fn spread_definition(&mut self, count: usize) {
        if self.definition.is_empty() {
            self.definition.resize(self.levels + count, self.repeated);
        }
    }

    /// Appends the levels of the page to `out` and starts the next page.
    pub(super) fn finish_page(&mut self, scale: &DefinitionScale, out: &mut Vec<u8>) {
        put_section(out, |out| match self.continues.as_slice() {
            [] => put_repeated(0, self.levels, 1, out),
            bits => put_bits(bits, self.levels, out),
        });
        let width = bit_width(scale.element.into());
        put_section(out, |out| match self.definition.as_slice() {
            [] => put_repeated(self.repeated.into(), self.levels, width, out),
            levels => put_values(levels, width, out),
        });
        self.continues.clear();
        self.definition.clear();
        (self.rows, self.levels) = (0, 0);
    }
}
