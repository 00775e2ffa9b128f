//! The bounded cache of resolved chains: the warm path of every lookup.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::model::norm::ResolvedChain;
use crate::norms::resolve::chain_bytes;
use crate::norms::token::GroupToken;

/// Resolved chains by their tokens, at most `capacity` bytes of them.
///
/// Eviction is second chance: a queue in the order of insertion, from which a chain that was used since it last came to
/// the head goes to the tail once more. So a hit takes a shared lock and sets one flag, nothing else: no queue of accesses,
/// no allocation, no await. That is what keeps a warm lookup below 100 ns, which a general cache does not.
#[derive(Debug)]
pub(crate) struct ChainCache {
    capacity: usize,
    table: RwLock<Table>,
    evictions: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    slots: HashMap<Arc<[GroupToken]>, Slot, foldhash::fast::RandomState>,
    queue: VecDeque<Arc<[GroupToken]>>,
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    chain: Arc<ResolvedChain>,
    bytes: usize,
    used: AtomicBool,
}

impl ChainCache {
    pub(crate) fn new(capacity: usize) -> Self {
        ChainCache { capacity, table: RwLock::default(), evictions: AtomicU64::new(0) }
    }

    pub(crate) fn get(&self, tokens: &[GroupToken]) -> Option<Arc<ResolvedChain>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let slot = table.slots.get(tokens)?;
        // Reading first keeps the cache line shared between threads once the flag is set.
        if !slot.used.load(Ordering::Relaxed) {
            slot.used.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(&slot.chain))
    }

    /// Keeps a chain, evicting others to make room. The chain that is kept is returned: another task's, if that was faster.
    /// A chain larger than the whole cache is not kept.
    pub(crate) fn insert(&self, tokens: &[GroupToken], chain: Arc<ResolvedChain>) -> Arc<ResolvedChain> {
        let bytes = chain_bytes(&chain) + key_bytes(tokens);
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = table.slots.get(tokens) {
            return Arc::clone(&slot.chain);
        }
        if bytes > self.capacity {
            return chain;
        }
        while table.bytes + bytes > self.capacity {
            let Some(oldest) = table.queue.pop_front() else { break };
            let used = table.slots.get(&oldest).is_some_and(|slot| slot.used.swap(false, Ordering::Relaxed));
            if used {
                table.queue.push_back(oldest);
            } else if let Some(slot) = table.slots.remove(&oldest) {
                table.bytes -= slot.bytes;
                self.evictions.fetch_add(1, Ordering::Relaxed);
            }
        }
        let key: Arc<[GroupToken]> = tokens.into();
        table.queue.push_back(Arc::clone(&key));
        table.slots.insert(key, Slot { chain: Arc::clone(&chain), bytes, used: AtomicBool::new(false) });
        table.bytes += bytes;
        chain
    }

    /// Chains held, their bytes, and how many were evicted so far.
    pub(crate) fn figures(&self) -> (u64, u64, u64) {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        (table.slots.len() as u64, table.bytes as u64, self.evictions.load(Ordering::Relaxed))
    }
}

/// What a key and its slot need besides the chain; the key is shared between table and queue.
fn key_bytes(tokens: &[GroupToken]) -> usize {
    let texts: usize =
        tokens.iter().map(|token| token.group.capacity() + token.version.as_ref().map_or(0, String::capacity)).sum();
    size_of_val(tokens) + texts + size_of::<Slot>() + 2 * size_of::<Arc<[GroupToken]>>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::PerScale;
    use crate::model::norm::ResolvedScale;

    fn chain(raw_scores: usize) -> Arc<ResolvedChain> {
        let scale = ResolvedScale {
            lowest: 0,
            percentiles: vec![50.0; raw_scores].into_boxed_slice(),
            groups: vec![0; raw_scores].into_boxed_slice(),
        };
        Arc::new(ResolvedChain::PerScale(PerScale::from_fn(|_| scale.clone())))
    }

    fn tokens(number: usize) -> Vec<GroupToken> {
        vec![GroupToken::new(format!("GROUP:{number:03}")), GroupToken::new("Total")]
    }

    #[test]
    fn chains_beyond_the_capacity_are_evicted_oldest_first_and_used_ones_stay() {
        let bytes = chain_bytes(&chain(100)) + key_bytes(&tokens(0));
        let cache = ChainCache::new(10 * bytes);
        for number in 0..10 {
            cache.insert(&tokens(number), chain(100));
        }
        assert_eq!(cache.figures(), (10, 10 * bytes as u64, 0));
        assert!(cache.get(&tokens(0)).is_some());
        cache.insert(&tokens(10), chain(100));
        assert!(cache.get(&tokens(0)).is_some(), "used since it came in");
        assert!(cache.get(&tokens(1)).is_none(), "the oldest that nobody used");
        assert_eq!(cache.figures(), (10, 10 * bytes as u64, 1));
    }

    #[test]
    fn a_chain_that_is_held_is_not_replaced_and_one_too_large_is_not_held() {
        let cache = ChainCache::new(chain_bytes(&chain(100)) + key_bytes(&tokens(0)));
        let first = cache.insert(&tokens(0), chain(100));
        let second = cache.insert(&tokens(0), chain(100));
        assert!(Arc::ptr_eq(&first, &second));
        cache.insert(&tokens(1), chain(1_000));
        assert!(cache.get(&tokens(1)).is_none());
        assert!(cache.get(&tokens(0)).is_some());
    }
}
