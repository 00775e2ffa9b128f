//! The norm store: lazy, bounded, shared. What every percentile is looked up in.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arrow::array::StringArray;
use sha2::{Digest, Sha256};

use crate::model::keyed_norms::{KeyedNorms, PercentileDictionary};
use crate::model::norm::{ChainScope, DEFAULT_VERSION, GroupId, GroupNorms, RawRange};
use crate::model::{PerScale, Scale};
use crate::norms::cache::GroupCache;
use crate::norms::error::NormError;
use crate::norms::names::GroupNames;
use crate::norms::published::PublishedNorms;
use crate::norms::source::{GroupName, NormSource, hex};
use crate::norms::stats::{Counters, NormStats};
use crate::norms::token::{GroupToken, provenance};

/// Rows of a page of norms unless it is set: about as many as a group has, so that one is in a page or two.
pub(crate) const CHUNK_ROWS: usize = 500;

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
            chunk_rows: CHUNK_ROWS,
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
/// Memory: at most [`NormStoreOptions::cache_bytes`], in which a percentile counts for the group that had it first, and the names of
/// the groups that answered. Shared as an `Arc`; every
/// method takes `&self` and may be called from any task.
#[derive(Debug)]
pub struct NormStore {
    sources: Vec<Arc<dyn NormSource>>,
    published: Arc<PublishedNorms>,
    ranges: PerScale<RawRange>,
    options: NormStoreOptions,
    groups: GroupCache,
    /// The published table over the whole range of each scale: what answers when no group does.
    published_scales: Arc<KeyedNorms>,
    /// What loaded norms are keyed by. A full one gives way to a new one, and goes with the last of its groups.
    dictionary: Mutex<Arc<PercentileDictionary>>,
    names: GroupNames,
    counters: Arc<Counters>,
}

/// A group that answered a token, and under which name.
#[derive(Debug, PartialEq)]
pub struct FoundGroup {
    /// Its number, an index into [`NormStore::group_names`].
    pub id: GroupId,
    /// Its provenance in results: `COUNTRY:Spain`, `COUNTRY:Spain|2026`.
    pub name: String,
    /// The version that answered.
    pub version: String,
    /// Its norms.
    pub norms: Arc<KeyedNorms>,
}

impl NormStore {
    /// A store over sources, the first of which wins, for an instrument whose scales take the raw scores of `ranges`.
    pub fn new(sources: Vec<Arc<dyn NormSource>>, ranges: PerScale<RawRange>, options: NormStoreOptions) -> Self {
        let published = PublishedNorms::klsi4();
        let dictionary = Arc::default();
        // A new dictionary has room for the few hundred percentiles of the table.
        let published_scales = KeyedNorms::try_new(&published.over(&ranges), &dictionary).unwrap_or_default();
        let counters = Arc::new(Counters::default());
        NormStore {
            sources,
            groups: GroupCache::new(options.cache_entries, options.cache_bytes, Arc::clone(&counters)),
            published,
            published_scales: Arc::new(published_scales),
            dictionary: Mutex::new(dictionary),
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

    /// The answer of the published table, which always has one.
    pub fn published_percentile(&self, scale: Scale, raw: i32) -> f64 {
        self.published.answer(scale, raw, self.ranges[scale])
    }

    /// The published table behind every chain.
    pub fn published(&self) -> &PublishedNorms {
        &self.published
    }

    /// The published table over every raw score that a scale can take.
    pub fn published_scales(&self) -> &Arc<KeyedNorms> {
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

    /// What was counted so far.
    pub fn stats(&self) -> NormStats {
        self.counters.stats()
    }

    /// The group that answers a token: in the version asked for, else, if that is allowed, in the version `default`.
    pub async fn find(&self, token: &GroupToken) -> Result<Option<Arc<FoundGroup>>, NormError> {
        let name = token.name();
        if !self.falls_back(name)
            && let Some(held) = self.groups.get(name)
        {
            return Ok(held);
        }
        // Boxed: what waits for a load is large, and would be moved about with every lookup.
        Ok(Box::pin(self.find_all(std::slice::from_ref(token))).await?.pop().flatten())
    }

    /// The groups that answer tokens, in their order, as [`find`](Self::find) says; those that are not in memory are loaded together.
    pub async fn find_all(&self, tokens: &[GroupToken]) -> Result<Vec<Option<Arc<FoundGroup>>>, NormError> {
        let names: Vec<GroupName<'_>> = tokens.iter().map(GroupToken::name).collect();
        let mut found = self.groups.get_or_load(&names, |missing| self.load(missing)).await?;
        let lacks = |place: &usize| found[*place].is_none() && self.falls_back(names[*place]);
        let places: Vec<usize> = (0..names.len()).filter(lacks).collect();
        let others: Vec<GroupName<'_>> =
            places.iter().map(|place| GroupName { version: DEFAULT_VERSION, ..names[*place] }).collect();
        let answers = self.groups.get_or_load(&others, |missing| self.load(missing)).await?;
        for (place, answer) in places.into_iter().zip(answers) {
            found[place] = answer;
        }
        Ok(found)
    }

    /// Whether another version answers for a group that no source has in this one.
    fn falls_back(&self, name: GroupName<'_>) -> bool {
        self.options.allow_version_fallback && name.version != DEFAULT_VERSION
    }

    /// Asks the sources one after the other for what those before lacked.
    async fn load(&self, names: Vec<GroupName<'_>>) -> Result<Vec<Option<Arc<FoundGroup>>>, NormError> {
        self.counters.add_misses(names.len() as u64);
        let mut found = vec![None; names.len()];
        for source in &self.sources {
            let places: Vec<usize> = (0..names.len()).filter(|place| found[*place].is_none()).collect();
            let wanted: Vec<GroupName<'_>> = places.iter().map(|place| names[*place]).collect();
            if wanted.is_empty() {
                break;
            }
            let started = Instant::now();
            let loaded = source.load(&wanted).await;
            self.counters.add_loads(wanted.len() as u64, started.elapsed());
            for ((place, asked), norms) in places.into_iter().zip(wanted).zip(loaded?) {
                let Some(norms) = norms else { continue };
                let norms = Arc::new(self.keyed(asked, &norms)?);
                let name = provenance(asked.group, asked.version);
                let version = asked.version.to_owned();
                found[place] = Some(Arc::new(FoundGroup { id: self.names.id(&name), name, version, norms }));
            }
        }
        Ok(found)
    }

    /// Norms as they are kept.
    fn keyed(&self, name: GroupName<'_>, norms: &GroupNorms) -> Result<KeyedNorms, NormError> {
        let mut dictionary = self.dictionary.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keyed) = KeyedNorms::try_new(norms, &dictionary) {
            return Ok(keyed);
        }
        *dictionary = Arc::default();
        let most = PercentileDictionary::CAPACITY;
        let too_many = || NormError::TooManyPercentiles { group: name.group.to_owned(), most };
        KeyedNorms::try_new(norms, &dictionary).ok_or_else(too_many)
    }
}
