//! Turns the groups of a chain into arrays, so that a lookup is an index.

use std::sync::Arc;

use crate::model::PerScale;
use crate::model::norm::{ChainScope, GroupId, GroupNorms, PUBLISHED_ID, PublishedScale, ResolvedChain, ResolvedScale};

/// Resolves a chain: `groups` are those that exist, most specific first; `published` has an answer for every raw score.
pub(crate) fn resolve(
    scope: ChainScope,
    groups: Vec<(GroupId, Arc<GroupNorms>)>,
    published: &PerScale<PublishedScale>,
) -> ResolvedChain {
    let mut scales = PerScale::from_fn(|scale| {
        let PublishedScale { lowest, percentiles } = published[scale].clone();
        let groups = vec![PUBLISHED_ID; percentiles.len()].into_boxed_slice();
        ResolvedScale { lowest, percentiles, groups }
    });
    match scope {
        ChainScope::PerSession => ResolvedChain::PerSession { groups, published: scales },
        ChainScope::PerScale => {
            // From the least specific group to the most specific one, each overwriting what those behind it said.
            for (id, norms) in groups.iter().rev() {
                for (scale, held) in norms.scales.iter() {
                    let answers = &mut scales[scale];
                    for (index, percentile) in held.percentiles.iter().enumerate() {
                        let raw = i64::from(held.lowest) + index as i64;
                        let target = usize::try_from(raw - i64::from(answers.lowest)).ok();
                        if let Some(target) = target.filter(|target| *target < answers.percentiles.len())
                            && !percentile.is_nan()
                        {
                            answers.percentiles[target] = *percentile;
                            answers.groups[target] = *id;
                        }
                    }
                }
            }
            ResolvedChain::PerScale(scales)
        }
    }
}

/// Heap and own size of a resolved chain, in bytes; groups that it shares with the group cache count too, since the chain
/// keeps them alive.
pub(crate) fn chain_bytes(chain: &ResolvedChain) -> usize {
    let scales = |scales: &PerScale<ResolvedScale>| -> usize {
        scales.0.iter().map(|scale| size_of_val(&*scale.percentiles) + size_of_val(&*scale.groups)).sum()
    };
    size_of::<ResolvedChain>()
        + match chain {
            ResolvedChain::PerScale(arrays) => scales(arrays),
            ResolvedChain::PerSession { groups, published } => {
                scales(published)
                    + groups.iter().map(|(_, norms)| size_of::<(GroupId, usize)>() + norms.bytes()).sum::<usize>()
            }
        }
}
