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
                Some(bits) if self.values() > 0 && self.nulls > 0 => put_bits(bits.iter().copied(), self.rows(), out),
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
    /// One bit per level, set where a list continues; bits past the last level, of which there is one at least, are set.
    /// Empty while no list continues.
    continues: Vec<u64>,
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
        8 * self.continues.capacity() + self.definition.capacity()
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
        let rows = offsets.len() - 1;
        let spanned = offsets.iter().zip(&offsets[1..]).map(|(start, end)| (end - start) as usize);
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        if nulls.is_none() && item_nulls.is_none() {
            self.append_lengths(rows, spanned, scale);
            return;
        }
        let is_null = |row: usize| nulls.is_some_and(|nulls| nulls.is_null(row));
        let lengths = spanned.enumerate().map(|(row, length)| if is_null(row) { 0 } else { length });
        let mut at = self.levels;
        self.append_lengths(rows, lengths.clone(), scale);
        self.spread_definition();
        for (row, length) in lengths.enumerate() {
            if is_null(row) {
                self.definition[at] = 0;
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

    /// Appends lists of which none is null and no element is.
    fn append_lengths(&mut self, rows: usize, lengths: impl Iterator<Item = usize> + Clone, scale: &DefinitionScale) {
        let (elements, empty) = lengths
            .clone()
            .fold((0, 0), |(elements, empty), length| (elements + length, empty + usize::from(length == 0)));
        let levels = elements + empty;
        let slots = lengths.clone().map(|length| length.max(1));
        if levels > rows || !self.continues.is_empty() {
            self.append_starts(levels, slots);
        }
        if empty == 0 {
            self.append_definition(levels, scale.element);
        } else if elements == 0 {
            self.append_definition(levels, scale.empty);
        } else {
            self.spread_definition();
            self.definition.resize(self.levels + levels, scale.element);
            let mut at = self.levels;
            for length in lengths {
                self.definition[at] = if length == 0 { scale.empty } else { scale.element };
                at += length.max(1);
            }
        }
        self.rows += rows;
        self.levels += levels;
    }

    /// Appends the bits of lists of `slots` levels each, in all `levels`.
    fn append_starts(&mut self, levels: usize, slots: impl Iterator<Item = usize>) {
        const BITS: usize = u64::BITS as usize;
        if self.continues.is_empty() {
            self.continues.resize(self.levels / BITS, 0);
            self.continues.push(!0 << (self.levels % BITS));
        }
        let mut at = self.levels;
        let mut word = self.continues.pop().unwrap_or(!0);
        for slot in slots {
            while self.continues.len() < at / BITS {
                self.continues.push(std::mem::replace(&mut word, !0));
            }
            word &= !(1 << (at % BITS));
            at += slot;
        }
        self.continues.push(word);
        self.continues.resize((self.levels + levels) / BITS + 1, !0);
    }

    fn append_definition(&mut self, count: usize, level: u8) {
        if self.definition.is_empty() {
            if self.levels == 0 {
                self.repeated = level;
            }
            if self.repeated == level {
                return;
            }
            self.spread_definition();
        }
        self.definition.resize(self.levels + count, level);
    }

    /// Makes each definition level so far one that can be set.
    fn spread_definition(&mut self) {
        if self.definition.is_empty() {
            self.definition.resize(self.levels, self.repeated);
        }
    }

    /// Appends the levels of the page to `out` and starts the next page.
    pub(super) fn finish_page(&mut self, scale: &DefinitionScale, out: &mut Vec<u8>) {
        put_section(out, |out| match self.continues.as_slice() {
            [] => put_repeated(0, self.levels, 1, out),
            words => put_bits(words.iter().flat_map(|word| word.to_le_bytes()), self.levels, out),
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
