//! The groups that a norm store keeps: bounded by number and by bytes, each loaded once however many ask.

use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Equivalent, Lifecycle, Weighter};

use crate::norms::error::NormError;
use crate::norms::stats::Counters;
use crate::norms::store::FoundGroup;

/// What is kept of a group: `None` if no source has it.
type Held = Option<Arc<FoundGroup>>;

/// What an entry needs beside its norms: its key, its names, and the cache's own record of it.
const ENTRY_BYTES: usize = 256;
/// About what a group of all scales needs: with the bytes that are allowed, it says how many groups to expect.
const USUAL_BYTES: usize = 5 << 10;

/// Groups by name and version. Those that are asked for most stay.
#[derive(Debug)]
pub(crate) struct GroupCache {
    groups: Cache<GroupKey, Held, Weigh, DefaultHashBuilder, Evictions>,
    counters: Arc<Counters>,
}

impl GroupCache {
    /// An empty cache of two bounds. It keeps both: no entry weighs less than its share of the bytes.
    pub(crate) fn new(most_entries: usize, most_bytes: usize, counters: Arc<Counters>) -> Self {
        let most_entries = most_entries.max(1);
        let weigh = Weigh { least: most_bytes.div_ceil(most_entries) as u64 };
        let expected = most_entries.min(most_bytes / USUAL_BYTES);
        let evictions = Evictions(Arc::clone(&counters));
        let groups = Cache::with(expected, most_bytes as u64, weigh, DefaultHashBuilder::default(), evictions);
        GroupCache { groups, counters }
    }

    /// The group, from memory or from `load`, which runs once however many ask. After a failure the next who asks tries again.
    pub(crate) async fn get_or_load<F>(&self, name: GroupName<'_>, load: impl FnOnce() -> F) -> Result<Held, NormError>
    where
        F: Future<Output = Result<Held, NormError>>,
    {
        if let Some(held) = self.groups.get(&name) {
            self.counters.add_hits(1);
            return Ok(held);
        }
        let key = GroupKey { group: name.group.into(), version: name.version.into() };
        match self.groups.get_value_or_guard_async(&key).await {
            Ok(held) => {
                self.counters.add_hits(1);
                Ok(held)
            }
            Err(place) => {
                self.counters.add_miss();
                let held = load().await?;
                self.counters.group_added(entry_bytes(&held) as u64);
                // Refused only if the entry is removed meanwhile, which nobody does.
                let _ = place.insert(held.clone());
                Ok(held)
            }
        }
    }
}

/// A group in a version, as it is asked for.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct GroupName<'a> {
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
}

/// A group in a version, as it is kept. Hashes as its [`GroupName`] does, so that a lookup in memory allocates nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct GroupKey {
    group: Box<str>,
    version: Box<str>,
}

impl Equivalent<GroupKey> for GroupName<'_> {
    fn equivalent(&self, key: &GroupKey) -> bool {
        *self.group == *key.group && *self.version == *key.version
    }
}

/// The bytes of an entry, but at least its share of all.
#[derive(Debug, Clone)]
struct Weigh {
    least: u64,
}

impl Weighter<GroupKey, Held> for Weigh {
    fn weight(&self, _: &GroupKey, held: &Held) -> u64 {
        self.least.max(entry_bytes(held) as u64)
    }
}

/// Counts what gives way, and what is too large to be kept.
#[derive(Debug, Clone)]
struct Evictions(Arc<Counters>);

impl Lifecycle<GroupKey, Held> for Evictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: GroupKey, held: Held) {
        self.0.group_evicted(entry_bytes(&held) as u64);
    }
}

fn entry_bytes(held: &Held) -> usize {
    ENTRY_BYTES + held.as_ref().map_or(0, |found| found.norms.bytes())
}
