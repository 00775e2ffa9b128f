//! The 24 rankings of four options, numbered.
//!
//! An item's four ranks (in the order CE, RO, AC, AE) are a permutation of 1..=4. Its *code* is the permutation's index in
//! lexicographic order: 0 is (1,2,3,4), 1 is (1,2,4,3), …, 23 is (4,3,2,1). The packed layout stores codes, and every layout
//! is brought to codes before it is scored.

/// How many codes there are; valid codes are below it.
pub const COUNT: u8 = 24;

/// The ranks of each code, in the order CE, RO, AC, AE.
pub const RANKS: [[u8; 4]; COUNT as usize] = {
    let mut table = [[0u8; 4]; COUNT as usize];
    let mut code = 0;
    while code < COUNT as usize {
        let mut free = [1u8, 2, 3, 4];
        let mut rest = code;
        let (mut position, mut choices) = (0, 6);
        while position < 4 {
            let pick = rest / choices;
            rest %= choices;
            table[code][position] = free[pick];
            let mut slot = pick;
            while slot < 3 {
                free[slot] = free[slot + 1];
                slot += 1;
            }
            position += 1;
            if position < 3 {
                choices /= 4 - position;
            }
        }
        code += 1;
    }
    table
};

/// The code of a ranking, or `None` when the ranks are not a permutation of 1..=4.
///
/// ```
/// use normstream::model::permutation::{code_of, RANKS};
/// assert_eq!(code_of([1, 2, 4, 3]), Some(1));
/// assert_eq!(code_of([4, 3, 2, 1]), Some(23));
/// assert_eq!(code_of([1, 1, 2, 3]), None);
/// assert_eq!(RANKS[23], [4, 3, 2, 1]);
/// ```
pub const fn code_of(ranks: [u8; 4]) -> Option<u8> {
    let [ce, ro, ac, ae] = ranks;
    let mut seen = 0u8;
    let mut i = 0;
    while i < 4 {
        if ranks[i] < 1 || ranks[i] > 4 {
            return None;
        }
        seen |= 1 << ranks[i];
        i += 1;
    }
    if seen != 0b11110 {
        return None;
    }
    Some((ce - 1) * 6 + (ro - 1 - (ro > ce) as u8) * 2 + (ac > ae) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_lexicographic_order_of_all_permutations() {
        assert_eq!(RANKS[0], [1, 2, 3, 4]);
        assert_eq!(RANKS[1], [1, 2, 4, 3]);
        assert_eq!(RANKS[23], [4, 3, 2, 1]);
        assert!(RANKS.is_sorted(), "{RANKS:?}");
        for (code, ranks) in RANKS.iter().enumerate() {
            assert_eq!(code_of(*ranks), Some(code as u8), "{ranks:?}");
        }
    }

    #[test]
    fn anything_but_a_permutation_has_no_code() {
        let mut permutations = 0;
        for index in 0..6u32.pow(4) {
            let ranks = [index % 6, index / 6 % 6, index / 36 % 6, index / 216].map(|rank| rank as u8);
            let mut sorted = ranks;
            sorted.sort_unstable();
            assert_eq!(code_of(ranks).is_some(), sorted == [1, 2, 3, 4], "{ranks:?}");
            permutations += u32::from(sorted == [1, 2, 3, 4]);
        }
        assert_eq!(permutations, 24);
    }
}
