//! The dictionary keys of a page: the numbers that its values have in the row group's dictionary.

use super::hybrid::{bit_width, put_values};

/// The number of a value that the row group has not met.
pub(super) const UNSEEN: u32 = u32::MAX;

/// How many keys are looked at before what they have shown is used.
pub(super) const BLOCK: usize = 1024;

/// Keys in the order of the page, bytes as long as all fit: most columns have fewer than 256 distinct values, and a page of
/// bytes stays in the cache.
pub(super) enum KeyPage {
    Narrow(Vec<u8>),
    Wide(Vec<u32>),
}

impl Default for KeyPage {
    fn default() -> Self {
        KeyPage::Narrow(Vec::new())
    }
}

impl KeyPage {
    pub(super) fn len(&self) -> usize {
        match self {
            KeyPage::Narrow(page) => page.len(),
            KeyPage::Wide(page) => page.len(),
        }
    }

    pub(super) fn buffered_bytes(&self) -> usize {
        match self {
            KeyPage::Narrow(page) => page.capacity(),
            KeyPage::Wide(page) => 4 * page.capacity(),
        }
    }

    /// Appends the number of each item, if each has one. If the number of any is [`UNSEEN`] nothing is appended, and the
    /// answer is `false`. Other numbers are below 2³¹. `number` may be asked more than once for an item.
    pub(super) fn extend<T>(&mut self, items: &[T], mut number: impl FnMut(&T) -> u32) -> bool {
        let before = self.len();
        let any = match self {
            KeyPage::Narrow(page) => gather(items, page, &mut number, |number| number as u8),
            KeyPage::Wide(page) => gather(items, page, &mut number, |number| number),
        };
        if any > i32::MAX as u32 {
            self.truncate(before);
            return false;
        }
        match self {
            KeyPage::Narrow(page) if any > u8::MAX.into() => {
                *self = KeyPage::Wide(page[..before].iter().copied().map(u32::from).collect());
                self.extend(items, number)
            }
            _ => true,
        }
    }

    fn truncate(&mut self, length: usize) {
        match self {
            KeyPage::Narrow(page) => page.truncate(length),
            KeyPage::Wide(page) => page.truncate(length),
        }
    }

    /// Sets the place of each key of the page in `seen`, which is as long as the dictionary and all false.
    pub(super) fn mark(&self, seen: &mut [bool]) {
        fn mark<T: Copy + Into<u32>>(keys: &[T], seen: &mut [bool]) {
            for block in keys.chunks(BLOCK) {
                block.iter().for_each(|key| seen[(*key).into() as usize] = true);
                // A page of few distinct values has met them all after its first rows.
                if seen.len() < BLOCK && seen.iter().all(|seen| *seen) {
                    return;
                }
            }
        }
        match self {
            KeyPage::Narrow(page) => mark(page, seen),
            KeyPage::Wide(page) => mark(page, seen),
        }
    }

    /// The keys, to be looked up.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        let (narrow, wide) = match self {
            KeyPage::Narrow(page) => (page.as_slice(), [].as_slice()),
            KeyPage::Wide(page) => ([].as_slice(), page.as_slice()),
        };
        narrow.iter().map(|key| usize::from(*key)).chain(wide.iter().map(|key| *key as usize))
    }

    /// Appends the values part of a page to `out`, the width and then the keys below `dictionary`, and empties the page.
    pub(super) fn finish_page(&mut self, dictionary: usize, out: &mut Vec<u8>) {
        let width = bit_width(dictionary.saturating_sub(1));
        out.push(width as u8);
        match self {
            KeyPage::Narrow(page) => put_values(page, width, out),
            KeyPage::Wide(page) => put_values(page, width, out),
        }
        self.truncate(0);
    }
}

/// Appends the number of each item to a page of keys. Gives the bits that any number has.
fn gather<T, K: Copy + Default>(
    items: &[T],
    page: &mut Vec<K>,
    mut number: impl FnMut(&T) -> u32,
    key: impl Fn(u32) -> K,
) -> u32 {
    let start = page.len();
    page.resize(start + items.len(), K::default());
    let mut any = 0;
    for (slot, item) in page[start..].iter_mut().zip(items) {
        let number = number(item);
        any |= number;
        *slot = key(number);
    }
    any
}
