//! How a respondent ranks: Thurstone's law of comparative judgment, in integers.
//!
//! Each of an item's four options has a utility: what the respondent prefers, which is the same over the items of a part, and
//! noise, which is not. The options' ranks are the order of their utilities. What a respondent prefers is the mean of all,
//! the shift that the respondent's attributes make, and six traits: one per mode, and one per dialectic (AC against CE, AE against RO), most of
//! which is stable over a respondent's sessions. Contexts follow the same preference more loosely.
//!
//! The constants were found by matching simulated raw scores to the aims in [the module's table](super).

use crate::generate::random::{NormalTable, Stream, UNIT};
use crate::generate::respondent::{Shift, TRAITS};

/// Items of one session: twelve style items, then eight contexts.
pub(super) const STYLE_ITEMS: usize = 12;
pub(super) const CONTEXTS: usize = 8;
pub(super) const ITEMS: usize = STYLE_ITEMS + CONTEXTS;

// In 1/1024 of the noise's standard deviation; CE, RO, AC, AE.
const MEAN: [i32; 4] = [-643, -46, 224, 464];
const MODE_TRAIT: [i32; 4] = [645, 619, 525, 385];
const GRASPING_TRAIT: i32 = 160;
const TRANSFORMING_TRAIT: i32 = 237;
/// What a tenth of a raw-score point is worth.
const TENTH: i32 = 10;
/// How much of the preference is left in contexts, in 128ths.
const CONTEXT_PART: i32 = 89;
/// Stable and momentary part of a trait, in 1024ths: 70 % and 30 % of its variance.
const STABLE: i32 = 857;
const MOMENTARY: i32 = 561;

/// What a respondent prefers in one session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Preference {
    style: [i32; 4],
    context: [i32; 4],
}

impl Preference {
    /// The preference that a shift, the respondent's stable traits and the session's momentary ones amount to.
    #[inline]
    pub(super) fn new(normal: &NormalTable, shift: Shift, stable: [u8; TRAITS], momentary: [u8; TRAITS]) -> Self {
        let mut traits = [0; TRAITS];
        for (index, value) in traits.iter_mut().enumerate() {
            *value = (normal.deviate(stable[index]) * STABLE + normal.deviate(momentary[index]) * MOMENTARY) / UNIT;
        }
        let [ce, ro, ac, ae, grasping, transforming] = traits;
        let (grasping, transforming) = (grasping * GRASPING_TRAIT, transforming * TRANSFORMING_TRAIT);
        let deviation = [
            (ce * MODE_TRAIT[0] - grasping) / UNIT,
            (ro * MODE_TRAIT[1] - transforming) / UNIT,
            (ac * MODE_TRAIT[2] + grasping) / UNIT,
            (ae * MODE_TRAIT[3] + transforming) / UNIT,
        ];
        let mut style = MEAN;
        for (mode, utility) in style.iter_mut().enumerate() {
            *utility += shift[mode] * TENTH + deviation[mode];
        }
        Preference { style, context: style.map(|utility| utility * CONTEXT_PART / 128) }
    }

    /// Ranks the items of a session: each item's permutation code, in the order of [`ITEMS`].
    #[inline]
    pub(super) fn rank(&self, normal: &NormalTable, stream: &mut Stream) -> [u8; ITEMS] {
        let mut codes = [0; ITEMS];
        // One draw is noise for two items, and a part has an even number of them.
        for (pair, codes) in codes.chunks_exact_mut(2).enumerate() {
            let utilities = if pair < STYLE_ITEMS / 2 { &self.style } else { &self.context };
            let [a, b, c, d, e, f, g, h] = stream.bytes();
            codes[0] = code(normal, utilities, [a, b, c, d]);
            codes[1] = code(normal, utilities, [e, f, g, h]);
        }
        codes
    }
}

/// The permutation code of four noisy utilities: how many of the later modes each mode beats are its Lehmer digits. Of two equal
/// utilities the earlier mode's counts as lower.
#[inline]
fn code(normal: &NormalTable, utilities: &[i32; 4], noise: [u8; 4]) -> u8 {
    let [ce, ro, ac, ae] = std::array::from_fn(|mode| utilities[mode] + normal.deviate(noise[mode]));
    let beaten_by_ce = u8::from(ce > ro) + u8::from(ce > ac) + u8::from(ce > ae);
    let beaten_by_ro = u8::from(ro > ac) + u8::from(ro > ae);
    beaten_by_ce * 6 + beaten_by_ro * 2 + u8::from(ac > ae)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::permutation::{RANKS, code_of};

    #[test]
    fn the_code_is_the_order_of_the_utilities() {
        let normal = NormalTable::shared();
        for ranks in RANKS {
            let utilities = ranks.map(|rank| i32::from(rank) * 100);
            assert_eq!(Some(code(normal, &utilities, [128; 4])), code_of(ranks), "{ranks:?}");
        }
        assert_eq!(code(normal, &[7; 4], [3; 4]), 0, "ties rank in the order of the modes");
    }

    #[test]
    fn noise_decides_between_equal_utilities() {
        let normal = NormalTable::shared();
        assert_eq!(Some(code(normal, &[0; 4], [200, 100, 250, 10])), code_of([3, 2, 4, 1]));
    }
}
