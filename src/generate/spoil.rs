//! Bad sessions: one fault each, and what it looks like in each layout.

use crate::generate::preference::ITEMS;
use crate::generate::random::Stream;
use crate::model::permutation;

/// What is wrong with a bad session. The last three can only be said in the long layout; elsewhere they are what comes nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defect {
    /// A rank is null. Packed: the code is null.
    MissingRank,
    /// A rank has no row. Wide and packed: as [`Defect::MissingRank`].
    AbsentRow,
    /// A rank is this number, outside 1..=4. Packed: the code is above 23.
    RankOutOfRange(u8),
    /// A mode has the same rank as the next one. Packed, where a repeat has no code: 255.
    RepeatedRank,
    /// A mode is ranked a second time, otherwise. Wide and packed: as [`Defect::RepeatedRank`].
    DuplicateRow,
    /// A further row ranks a mode that does not exist. Wide and packed: as [`Defect::MissingRank`].
    UnknownMode,
    /// A further row ranks an item that does not exist. Wide and packed: as [`Defect::MissingRank`].
    UnknownItem,
}

/// The defects in the proportions in which they are drawn: in a wide file four of ten are missing ranks, three are ranks out of
/// range, three are repeats.
const DEFECTS: [Defect; 10] = [
    Defect::MissingRank,
    Defect::AbsentRow,
    Defect::RankOutOfRange(0),
    Defect::RankOutOfRange(5),
    Defect::RankOutOfRange(7),
    Defect::RepeatedRank,
    Defect::RepeatedRank,
    Defect::DuplicateRow,
    Defect::UnknownMode,
    Defect::UnknownItem,
];

/// The code that stands for a repeat in the packed layout.
const PACKED_REPEAT: u8 = 255;

/// A defect and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spoilt {
    /// The item, counted from 0 over both parts.
    pub(super) item: usize,
    /// The mode, counted from 0.
    pub(super) mode: usize,
    pub(super) defect: Defect,
}

impl Spoilt {
    /// Draws a defect in any item and mode.
    pub(super) fn draw(stream: &mut Stream) -> Self {
        Spoilt {
            item: stream.below(ITEMS as u64) as usize,
            mode: stream.below(4) as usize,
            defect: DEFECTS[stream.below(DEFECTS.len() as u64) as usize],
        }
    }

    /// The rank of the spoilt mode in the wide layout, given the ranks that the item would have.
    pub(super) fn wide_rank(self, ranks: [u8; 4]) -> Option<u8> {
        match self.defect {
            Defect::MissingRank | Defect::AbsentRow | Defect::UnknownMode | Defect::UnknownItem => None,
            Defect::RankOutOfRange(rank) => Some(rank),
            Defect::RepeatedRank | Defect::DuplicateRow => Some(self.other_rank(ranks)),
        }
    }

    /// The spoilt item's code in the packed layout.
    pub(super) fn packed_code(self) -> Option<u8> {
        match self.defect {
            Defect::MissingRank | Defect::AbsentRow | Defect::UnknownMode | Defect::UnknownItem => None,
            Defect::RankOutOfRange(rank) => Some(permutation::COUNT + rank),
            Defect::RepeatedRank | Defect::DuplicateRow => Some(PACKED_REPEAT),
        }
    }

    /// The next mode's rank, which the spoilt mode cannot have as well.
    pub(super) fn other_rank(self, ranks: [u8; 4]) -> u8 {
        ranks[(self.mode + 1) % 4]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::permutation::{RANKS, code_of};

    #[test]
    fn no_defect_leaves_a_valid_item_in_the_wide_or_packed_layout() {
        for defect in DEFECTS {
            for (ranks, mode) in RANKS.into_iter().flat_map(|ranks| (0..4).map(move |mode| (ranks, mode))) {
                let spoilt = Spoilt { item: 0, mode, defect };
                assert!(spoilt.packed_code().is_none_or(|code| code >= permutation::COUNT), "{spoilt:?}");
                if let Some(rank) = spoilt.wide_rank(ranks) {
                    let mut spoilt_ranks = ranks;
                    spoilt_ranks[mode] = rank;
                    assert_eq!(code_of(spoilt_ranks), None, "{spoilt:?} of {ranks:?}");
                }
            }
        }
    }
}
