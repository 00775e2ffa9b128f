//! The memory of a session's queries: what may spill is held back so that what it spills can be merged.
//!
//! DataFusion's fair pool lets sorts fill the whole limit before they spill. To spill, a sort merges its batches, and merging needs the
//! sort keys of all of them in row form, memory that cannot be spilled and is not there any more: a sort by two columns of a
//! narrow table then fails instead of spilling, now and then at one limit and always at another.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use datafusion::common::resources_datafusion_err;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, human_readable_size,
};

/// The part of the limit that what spills may hold. A batch of numbers sorted by all its columns has keys of three times its own
/// size; at two fifths, they fit beside it and beside all others that wait.
const SPILLABLE: (usize, usize) = (2, 5);

/// A pool of `limit` bytes.
///
/// 1. Consumers that can spill hold at most two fifths of it together, each an equal share.
/// 2. The others take what is free, first come, first served.
#[derive(Debug)]
pub(super) struct SpillingPool {
    limit: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    /// How many consumers can spill.
    spillers: usize,
    /// Their bytes.
    spillable: usize,
    /// The bytes of the others.
    unspillable: usize,
}

impl SpillingPool {
    pub(super) fn new(limit: usize) -> Self {
        SpillingPool { limit, used: Mutex::default() }
    }

    fn with_used<T>(&self, change: impl FnOnce(&mut Used) -> T) -> T {
        // Every change of the counts is whole, whatever happens to the thread.
        change(&mut self.used.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Used {
    fn of(&mut self, consumer: &MemoryConsumer) -> &mut usize {
        if consumer.can_spill() { &mut self.spillable } else { &mut self.unspillable }
    }

    /// What a consumer may hold at most that holds `held` now.
    fn most(&self, limit: usize, consumer: &MemoryConsumer, held: usize) -> usize {
        if consumer.can_spill() {
            let (part, whole) = SPILLABLE;
            let spillable = (limit / whole * part).min(limit.saturating_sub(self.unspillable));
            spillable / NonZeroUsize::new(self.spillers).unwrap_or(NonZeroUsize::MIN)
        } else {
            held + limit.saturating_sub(self.spillable + self.unspillable)
        }
    }
}

impl MemoryPool for SpillingPool {
    fn name(&self) -> &str {
        "spilling"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.with_used(|used| used.spillers += usize::from(consumer.can_spill()));
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.with_used(|used| used.spillers = used.spillers.saturating_sub(usize::from(consumer.can_spill())));
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.with_used(|used| *used.of(reservation.consumer()) += additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.with_used(|used| *used.of(reservation.consumer()) -= shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let (consumer, held) = (reservation.consumer(), reservation.size());
        self.with_used(|used| {
            let most = used.most(self.limit, consumer, held);
            if held + additional > most {
                return Err(resources_datafusion_err!(
                    "{} holds {} and asks for {} more; it may hold {}",
                    consumer.name(),
                    human_readable_size(held),
                    human_readable_size(additional),
                    human_readable_size(most)
                ));
            }
            *used.of(consumer) += additional;
            Ok(())
        })
    }

    fn reserved(&self) -> usize {
        self.with_used(|used| used.spillable + used.unspillable)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

impl fmt::Display for SpillingPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(limit: {})", self.name(), human_readable_size(self.limit))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_spills_shares_two_fifths_and_the_rest_is_for_what_does_not() {
        let pool: Arc<dyn MemoryPool> = Arc::new(SpillingPool::new(1_000));
        let sort = MemoryConsumer::new("sort").with_can_spill(true).register(&pool);
        sort.try_grow(400).unwrap();
        assert!(sort.try_grow(1).is_err(), "two fifths are held");
        let other = MemoryConsumer::new("other sort").with_can_spill(true).register(&pool);
        assert!(other.try_grow(201).is_err(), "the share of one of two is 200");
        other.try_grow(200).unwrap();
        let merge = MemoryConsumer::new("merge").register(&pool);
        merge.try_grow(400).unwrap();
        let error = merge.try_grow(1).unwrap_err().strip_backtrace();
        assert_eq!(error, "Resources exhausted: merge holds 400.0 B and asks for 1.0 B more; it may hold 400.0 B");
        sort.free();
        merge.try_grow(400).unwrap();
        assert_eq!(pool.reserved(), 1_000);
        drop((sort, other, merge));
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn the_share_of_what_spills_ends_where_the_rest_begins() {
        let pool: Arc<dyn MemoryPool> = Arc::new(SpillingPool::new(1_000));
        let table = MemoryConsumer::new("hash table").register(&pool);
        table.try_grow(900).unwrap();
        let sort = MemoryConsumer::new("sort").with_can_spill(true).register(&pool);
        assert!(sort.try_grow(101).is_err());
        sort.try_grow(100).unwrap();
    }
}
