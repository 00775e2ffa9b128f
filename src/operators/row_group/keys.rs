//! The dictionary keys of a page: the numbers that its values have in the row group's dictionary, and what numbers them.

use super::hybrid::{bit_width, put_values};

/// The number of a value that the row group has not met.
pub(super) const UNSEEN: u32 = u32::MAX;

/// How many items are looked at together.
const BLOCK: usize = 512;

/// What numbers items: the dictionary of a row group.
pub(super) trait Numbering<T> {
    /// The number of an item, below 2³¹, or [`UNSEEN`] if it has none.
    fn find(&self, item: T) -> u32;
    /// The number of an item, the next one if it has none.
    fn find_or_add(&mut self, item: T) -> u32;
}

/// Keys in the order of the page.
pub(super) struct KeyPage {
    keys: Keys,
    /// The numbers of the items at work.
    block: Box<[u32; BLOCK]>,
}

/// Bytes as long as all fit: most columns have fewer than 256 distinct values, and a page of bytes stays in the cache.
enum Keys {
    Narrow(Vec<u8>),
    Wide(Vec<u32>),
}

impl KeyPage {
    /// An empty page with room for so many keys.
    pub(super) fn with_capacity(keys: usize) -> Self {
        KeyPage { keys: Keys::Narrow(Vec::with_capacity(keys)), block: Box::new([0; BLOCK]) }
    }

    pub(super) fn len(&self) -> usize {
        match &self.keys {
            Keys::Narrow(page) => page.len(),
            Keys::Wide(page) => page.len(),
        }
    }

    /// Appends the number of each item.
    pub(super) fn extend<T: Copy>(&mut self, items: &[T], numbering: &mut impl Numbering<T>) {
        for items in items.chunks(BLOCK) {
            // Nearly all have been met: all are looked up in a tight loop, and those without a number gone through after it.
            let numbers = &mut self.block[..items.len()];
            for (number, item) in numbers.iter_mut().zip(items) {
                *number = numbering.find(*item);
            }
            if bits_of(numbers) > i32::MAX as u32 {
                for (number, item) in numbers.iter_mut().zip(items).filter(|(number, _)| **number == UNSEEN) {
                    *number = numbering.find_or_add(*item);
                }
            }
            self.keys.append(numbers);
        }
    }

    /// Whether a value of the page has this number.
    pub(super) fn contains(&self, number: u32) -> bool {
        fn contains<T: Copy + PartialEq>(keys: &[T], key: T) -> bool {
            // Without a branch inside a block.
            keys.chunks(BLOCK).any(|block| block.iter().fold(false, |any, other| any | (*other == key)))
        }
        match &self.keys {
            Keys::Narrow(page) => u8::try_from(number).is_ok_and(|key| contains(page, key)),
            Keys::Wide(page) => contains(page, number),
        }
    }

    /// The numbers below `values` that the page has, each once.
    pub(super) fn distinct(&self, values: usize) -> impl Iterator<Item = u32> {
        let mut met = vec![false; values];
        self.iter().for_each(|key| met[key] = true);
        (0..).zip(met).filter(|(_, met)| *met).map(|(number, _)| number)
    }

    /// The keys, to be looked up.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        let (narrow, wide) = match &self.keys {
            Keys::Narrow(page) => (page.as_slice(), [].as_slice()),
            Keys::Wide(page) => ([].as_slice(), page.as_slice()),
        };
        narrow.iter().map(|key| usize::from(*key)).chain(wide.iter().map(|key| *key as usize))
    }

    /// Appends the values part of a page to `out`, the width and then the keys below `values`, and empties the page.
    pub(super) fn finish_page(&mut self, values: usize, out: &mut Vec<u8>) {
        let width = bit_width(values.saturating_sub(1));
        out.push(width as u8);
        match &mut self.keys {
            Keys::Narrow(page) => {
                put_values(page, width, out);
                page.clear();
            }
            Keys::Wide(page) => {
                put_values(page, width, out);
                page.clear();
            }
        }
    }
}

impl Keys {
    fn append(&mut self, numbers: &[u32]) {
        if let Keys::Narrow(page) = self
            && bits_of(numbers) > u8::MAX.into()
        {
            let mut wide = Vec::with_capacity(page.capacity());
            wide.extend(page.iter().copied().map(u32::from));
            *self = Keys::Wide(wide);
        }
        match self {
            Keys::Narrow(page) => page.extend(numbers.iter().map(|number| *number as u8)),
            Keys::Wide(page) => page.extend_from_slice(numbers),
        }
    }
}

/// The bits that any number has.
fn bits_of(numbers: &[u32]) -> u32 {
    numbers.iter().fold(0, |bits, number| bits | number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers items in the order in which they are met.
    #[derive(Default)]
    struct Met(Vec<u32>);

    impl Numbering<u32> for Met {
        fn find(&self, item: u32) -> u32 {
            self.0.iter().position(|met| *met == item).map_or(UNSEEN, |number| number as u32)
        }

        fn find_or_add(&mut self, item: u32) -> u32 {
            if self.find(item) == UNSEEN {
                self.0.push(item);
            }
            self.find(item)
        }
    }

    fn page_of(items: &[u32]) -> (KeyPage, Met) {
        let (mut page, mut met) = (KeyPage::with_capacity(0), Met::default());
        page.extend(items, &mut met);
        (page, met)
    }

    #[test]
    fn items_are_numbered_in_the_order_of_first_appearance_over_many_blocks() {
        let items: Vec<u32> = (0..3 * BLOCK as u32).map(|n| 7 * (n / 5) % 1000).collect();
        let (page, met) = page_of(&items);
        let mut distinct = items.clone();
        let mut before = std::collections::HashSet::new();
        distinct.retain(|item| before.insert(*item));
        assert_eq!(met.0, distinct);
        assert!(matches!(page.keys, Keys::Wide(_)));
        assert_eq!(page.iter().map(|number| met.0[number]).collect::<Vec<_>>(), items);
    }

    #[test]
    fn a_page_that_has_room_does_not_grow() {
        for values in [256, 257] {
            let (mut page, mut met) = (KeyPage::with_capacity(600), Met::default());
            page.extend(&(0..600).map(|n| n % values).collect::<Vec<_>>(), &mut met);
            let room = match page.keys {
                Keys::Narrow(page) => page.capacity(),
                Keys::Wide(page) => page.capacity(),
            };
            assert_eq!(room, 600, "{values} values");
        }
    }

    #[test]
    fn a_page_is_of_bytes_up_to_256_values() {
        let items: Vec<u32> = (0..256).collect();
        assert!(matches!(page_of(&items).0.keys, Keys::Narrow(page) if page.len() == 256 && page[255] == 255));
        let items: Vec<u32> = (0..257).collect();
        assert!(matches!(page_of(&items).0.keys, Keys::Wide(page) if page.len() == 257 && page[256] == 256));
    }
}
