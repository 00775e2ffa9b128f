//! What the norm store counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

/// Figures of a [`NormStore`](crate::norms::NormStore) since it was made.
///
/// A *lookup* is a question for a group: of a session, or of whoever asks for the group. It is a *hit* when memory answers, even
/// if the answer is that the group does not exist or another task is just loading it, and a *miss* when the asker has to load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NormStats {
    /// Lookups that memory answered.
    pub hits: u64,
    /// Lookups that loaded.
    pub misses: u64,
    /// `hits / (hits + misses)`; 1 when nothing was asked yet.
    pub hit_rate: f64,
    /// Groups that a source was asked for, in vain or not.
    pub loads: u64,
    /// Groups that gave way to others.
    pub evictions: u64,
    /// Bytes of the groups held.
    pub bytes: u64,
    /// Groups held, those known not to exist among them.
    pub entries: u64,
    /// When the last load ended, in UTC as RFC 3339.
    #[serde(serialize_with = "rfc3339")]
    pub last_load: Option<SystemTime>,
    /// How long all loads took together, in seconds.
    pub load_seconds: f64,
}

fn rfc3339<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(&humantime::format_rfc3339_millis(*time)),
        None => serializer.serialize_none(),
    }
}

/// The counters behind [`NormStats`]; relaxed, since none orders anything.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    loads: AtomicU64,
    load_nanos: AtomicU64,
    last_load_millis: AtomicU64,
    group_evictions: AtomicU64,
    group_bytes: AtomicU64,
    group_entries: AtomicU64,
}

impl Counters {
    pub(crate) fn add_hits(&self, hits: u64) {
        self.hits.fetch_add(hits, Ordering::Relaxed);
    }

    pub(crate) fn add_misses(&self, misses: u64) {
        self.misses.fetch_add(misses, Ordering::Relaxed);
    }

    pub(crate) fn add_loads(&self, loads: u64, took: Duration) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.loads.fetch_add(loads, Ordering::Relaxed);
        self.load_nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        self.last_load_millis.store(now.as_millis() as u64, Ordering::Relaxed);
    }

    pub(crate) fn group_added(&self, bytes: u64) {
        self.group_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.group_entries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn group_evicted(&self, bytes: u64) {
        self.group_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.group_entries.fetch_sub(1, Ordering::Relaxed);
        self.group_evictions.fetch_add(1, Ordering::Relaxed);
    }

    /// The figures.
    pub(crate) fn stats(&self) -> NormStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (hits, misses, millis) = (read(&self.hits), read(&self.misses), read(&self.last_load_millis));
        NormStats {
            hits,
            misses,
            hit_rate: if hits + misses == 0 { 1.0 } else { hits as f64 / (hits + misses) as f64 },
            loads: read(&self.loads),
            evictions: read(&self.group_evictions),
            bytes: read(&self.group_bytes),
            entries: read(&self.group_entries),
            last_load: (millis > 0).then(|| UNIX_EPOCH + Duration::from_millis(millis)),
            load_seconds: read(&self.load_nanos) as f64 / 1e9,
        }
    }
}
