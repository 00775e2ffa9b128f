//! The norm store: lazy, bounded, shared. What every percentile is looked up in.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::StringArray;
use moka::future::Cache;
use sha2::{Digest, Sha256};

use crate::model::PerScale;
use crate::model::norm::{ChainScope, DEFAULT_VERSION, GroupId, GroupNorms, PublishedScale, RawRange};
use crate::norms::error::NormError;
use crate::norms::names::GroupNames;
use crate::norms::published::PublishedNorms;
use crate::norms::source::{NormSource, hex};
use crate::norms::stats::{Counters, NormStats};
use crate::norms::token::{GroupToken, provenance};

/// How a [`NormStore`] looks norms up and how much it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormStoreOptions {
    /// Rows decoded at a time when a group is loaded; the page size of imported tables. 1 or more.
    pub chunk_rows: usize,
    /// The most groups kept, those known not to exist among them. 1 or more.
    pub cache_entries: usize,
    /// The most bytes of groups kept.
    pub cache_bytes: usize,
    /// Whether a group that lacks the version asked for answers with its version `default`.
    pub allow_version_fallback: bool,
    /// Whether scales fall back one by one or together.
    pub scope: ChainScope,
}

impl Default for NormStoreOptions {
    fn default() -> Self {
        NormStoreOptions {
            chunk_rows: 100,
            cache_entries: 5_000,
            cache_bytes: 64 << 20,
            allow_version_fallback: false,
            scope: ChainScope::PerScale,
        }
    }
}

/// Norm sources behind a bounded cache of groups.
///
/// 1. Nothing is read before it is asked for, and one group in one version is read by one task however many ask at once.
/// 2. A group that no source holds is remembered like one that is there.
/// 3. The first source that holds a group in a version answers for it; sources are not merged.
/// 4. What every group lacks, the published table answers: a lookup always has a percentile.
/// 5. Answers depend on sources, tokens and raw scores alone, never on what is cached.
///
/// Memory: at most [`NormStoreOptions::cache_bytes`] and the names of the groups that answered. Shared as an `Arc`; every
/// method takes `&self` and may be called from any task.
#[derive(Debug)]
pub struct NormStore {
    sources: Vec<Arc<dyn NormSource>>,
    published: Arc<PublishedNorms>,
    ranges: PerScale<RawRange>,
    options: NormStoreOptions,
    groups: Cache<GroupKey, Option<Arc<GroupNorms>>>,
    /// The published table over the whole range of each scale: what answers when no group does.
    published_scales: PerScale<PublishedScale>,
    names: GroupNames,
    counters: Arc<Counters>,
}

/// A group and its version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct GroupKey {
    group: Box<str>,
    version: Box<str>,
}

/// A group that answered a token, and under which name.
#[derive(Debug, Clone)]
pub struct FoundGroup {
    /// Its number, an index into [`NormStore::group_names`].
    pub id: GroupId,
    /// The version that answered.
    pub version: String,
    /// Its norms.
    pub norms: Arc<GroupNorms>,
}

impl NormStore {
    /// A store over sources, the first of which wins, for an instrument whose scales take the raw scores of `ranges`.
    pub fn new(sources: Vec<Arc<dyn NormSource>>, ranges: PerScale<RawRange>, options: NormStoreOptions) -> Self {
        let published = PublishedNorms::klsi4();
        let published_scales = published.over(&ranges);
        let counters = Arc::new(Counters::default());
        NormStore {
            sources,
            groups: group_cache(&options, Arc::clone(&counters)),
            published,
            published_scales,
            ranges,
            options,
            names: GroupNames::new(),
            counters,
        }
    }

    /// The options that the store was made with.
    pub fn options(&self) -> &NormStoreOptions {
        &self.options
    }

    /// The sources, the first of which wins.
    pub fn sources(&self) -> &[Arc<dyn NormSource>] {
        &self.sources
    }

    /// The published table behind every chain.
    pub fn published(&self) -> &PublishedNorms {
        &self.published
    }

    /// The published table over every raw score that a scale can take.
    pub fn published_scales(&self) -> &PerScale<PublishedScale> {
        &self.published_scales
    }

    /// The raw scores that each scale can take.
    pub fn raw_ranges(&self) -> &PerScale<RawRange> {
        &self.ranges
    }

    /// A hexadecimal digest of everything that answers depend on besides tokens and raw scores: the sources' digests in
    /// order, the published table's, the scope, and whether versions fall back. Cache sizes are not in it.
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        for source in &self.sources {
            hasher.update(source.digest());
            hasher.update([b'\n']);
        }
        hasher.update(self.published.digest());
        hasher.update(format!("\n{:?} {}", self.options.scope, self.options.allow_version_fallback));
        hex(&hasher.finalize())
    }

    /// Counts lookups in groups that the asker holds already; one call a batch is enough.
    pub fn record_hits(&self, lookups: u64) {
        self.counters.add_hits(lookups);
    }

    /// The provenance text of each [`GroupId`] given out so far: `published`, `COUNTRY:Spain`, `COUNTRY:Spain|2026`, …
    ///
    /// Take it after the groups of a batch are found: then every id in them is an index into it. Ids never change their
    /// meaning within one store.
    pub fn group_names(&self) -> Arc<StringArray> {
        self.names.array()
    }

    /// The norms of exactly this group in exactly this version, from memory or from the first source that has it.
    pub async fn group(&self, group: &str, version: &str) -> Result<Option<Arc<GroupNorms>>, NormError> {
        let key = GroupKey { group: group.into(), version: version.into() };
        let entry = self.groups.entry(key).or_try_insert_with(self.load(group, version)).await?;
        if !entry.is_fresh() {
            self.counters.add_hits(1);
        }
        Ok(entry.into_value())
    }

    /// What was counted so far.
    pub fn stats(&self) -> NormStats {
        self.counters.stats()
    }

    /// Waits until the group cache has evicted what is beyond its bounds; it does so in the background otherwise.
    #[cfg(test)]
    pub(crate) async fn settle(&self) {
        self.groups.run_pending_tasks().await;
    }

    /// The group that answers a token: in the version asked for, else, if that is allowed, in the version `default`.
    pub async fn find(&self, token: &GroupToken) -> Result<Option<FoundGroup>, NormError> {
        let asked = token.version();
        let mut version = asked;
        let mut norms = self.group(&token.group, version).await?;
        if norms.is_none() && self.options.allow_version_fallback && asked != DEFAULT_VERSION {
            version = DEFAULT_VERSION;
            norms = self.group(&token.group, version).await?;
        }
        Ok(norms.map(|norms| {
            let id = self.names.id(&provenance(&token.group, version));
            FoundGroup { id, version: version.to_owned(), norms }
        }))
    }

    async fn load(&self, group: &str, version: &str) -> Result<Option<Arc<GroupNorms>>, NormError> {
        self.counters.add_miss();
        let mut loaded = None;
        for source in &self.sources {
            let started = Instant::now();
            let norms = source.load(group, version).await;
            self.counters.add_load(started.elapsed());
            loaded = norms?.map(Arc::new);
            if loaded.is_some() {
                break;
            }
        }
        self.counters.group_added(entry_bytes(&loaded) as u64);
        Ok(loaded)
    }
}

/// Bounded by bytes and by entries at once: no entry weighs less than its share of the bytes.
fn group_cache(options: &NormStoreOptions, counters: Arc<Counters>) -> Cache<GroupKey, Option<Arc<GroupNorms>>> {
    let capacity = options.cache_bytes;
    let least = capacity.div_ceil(options.cache_entries.max(1));
    Cache::builder()
        .max_capacity(capacity as u64)
        .weigher(move |_, norms| u32::try_from(entry_bytes(norms).max(least)).unwrap_or(u32::MAX))
        .eviction_listener(move |_, norms, cause| {
            counters.group_removed(entry_bytes(&norms) as u64, cause.was_evicted());
        })
        .build()
}

/// What an entry of the group cache needs; its key and the cache's own record of it are reckoned at 256 bytes.
fn entry_bytes(norms: &Option<Arc<GroupNorms>>) -> usize {
    256 + norms.as_deref().map_or(0, GroupNorms::bytes)
}
