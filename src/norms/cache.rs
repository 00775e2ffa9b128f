//! The groups that a norm store keeps: bounded by number and by bytes, each loaded once however many ask.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::{Cache, GuardResult, PlaceholderGuard};
use quick_cache::{DefaultHashBuilder, Equivalent, Lifecycle, Weighter};

use crate::norms::error::NormError;
use crate::norms::source::GroupName;
use crate::norms::stats::Counters;
use crate::norms::store::FoundGroup;
use crate::tasks::let_go_of_last_task;

/// What is kept of a group: `None` if no source has it.
type Held = Option<Arc<FoundGroup>>;

/// What an entry needs beside its norms: its key, its names, and the cache's own record of it.
const ENTRY_BYTES: usize = 256;
/// About what a group of all scales needs: with the bytes that are allowed, it says how many groups to expect.
const USUAL_BYTES: usize = 1_536;

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

    /// The group, if it is in memory.
    pub(crate) fn get(&self, name: GroupName<'_>) -> Option<Held> {
        let held = self.groups.get(&name)?;
        self.counters.add_hits(1);
        Some(held)
    }

    /// The groups in their order, from memory or from `load`, which is asked for each once however many ask. After a failure the
    /// next who asks tries again.
    pub(crate) async fn get_or_load<'a, F>(
        &self,
        names: &[GroupName<'a>],
        load: impl Fn(Vec<GroupName<'a>>) -> F,
    ) -> Result<Vec<Held>, NormError>
    where
        F: Future<Output = Result<Vec<Held>, NormError>>,
    {
        // Whoever loads waits for nobody who loads: two that have each begun what the other needs would wait for ever.
        let mut all: Vec<Option<Held>> = Vec::with_capacity(names.len());
        let (mut missing, mut places) = (Vec::new(), Vec::new());
        for name in names {
            let mut held = self.get(*name);
            if held.is_none() {
                match self.groups.get_value_or_guard(&GroupKey::from(*name), Some(Duration::ZERO)) {
                    GuardResult::Value(value) => held = Some(value),
                    GuardResult::Guard(place) => {
                        missing.push(*name);
                        places.push((all.len(), place));
                    }
                    GuardResult::Timeout => {}
                }
            }
            all.push(held);
        }
        if !missing.is_empty() {
            for ((index, place), held) in places.into_iter().zip(load(missing).await?) {
                self.keep(place, &held);
                all[index] = Some(held);
            }
            let_go_of_last_task();
        }
        let mut found = Vec::with_capacity(names.len());
        for (held, name) in all.into_iter().zip(names) {
            found.push(match held {
                Some(held) => held,
                None => self.wait_or_load(*name, &load).await?,
            });
        }
        Ok(found)
    }

    /// A group that another task is loading; if that fails, it is loaded here.
    async fn wait_or_load<'a, F>(
        &self,
        name: GroupName<'a>,
        load: impl Fn(Vec<GroupName<'a>>) -> F,
    ) -> Result<Held, NormError>
    where
        F: Future<Output = Result<Vec<Held>, NormError>>,
    {
        match self.groups.get_value_or_guard_async(&GroupKey::from(name)).await {
            Ok(held) => {
                self.counters.add_hits(1);
                Ok(held)
            }
            Err(place) => {
                let held = load(vec![name]).await?.pop().flatten();
                self.keep(place, &held);
                Ok(held)
            }
        }
    }

    fn keep(&self, place: Place<'_>, held: &Held) {
        self.counters.group_added(entry_bytes(held) as u64);
        // Refused only if the entry is removed meanwhile, which nobody does.
        let _ = place.insert(held.clone());
    }
}

/// The place of a group that is being loaded; dropped without it, the next who asks loads.
type Place<'a> = PlaceholderGuard<'a, GroupKey, Held, Weigh, DefaultHashBuilder, Evictions>;

/// A group in a version, as it is kept: both names in one piece of memory. Hashes as its [`GroupName`] does, so that a lookup in
/// memory allocates nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct GroupKey {
    names: Box<str>,
    /// Where the group ends and the version begins.
    end: usize,
}

impl GroupKey {
    fn name(&self) -> GroupName<'_> {
        let (group, version) = self.names.split_at(self.end);
        GroupName { group, version }
    }
}

impl From<GroupName<'_>> for GroupKey {
    fn from(name: GroupName<'_>) -> Self {
        GroupKey { names: [name.group, name.version].concat().into(), end: name.group.len() }
    }
}

impl Hash for GroupKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl Equivalent<GroupKey> for GroupName<'_> {
    fn equivalent(&self, key: &GroupKey) -> bool {
        *self == key.name()
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
