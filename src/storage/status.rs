//! What a pool has done so far: counters while it works, plain numbers for those who ask, and the same under Prometheus
//! names through the `metrics` facade (which costs next to nothing while nobody listens).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use serde::{Serialize, Serializer};

use crate::storage::metric;

/// One store's pool at one moment. Serialised as `--stats` and `normstream storage status` print it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolStatus {
    /// Scheme and authority: `s3://bucket`.
    pub store: String,
    /// Steady capacity.
    pub size: usize,
    /// Burst above it.
    pub max_overflow: usize,
    /// Requests that may be in flight now: `size + max_overflow`, or less in adaptive mode.
    pub capacity: usize,
    /// Requests in flight, bodies being read among them.
    pub checked_out: usize,
    /// Steady capacity not in use.
    pub idle: usize,
    /// Requests in flight above `size`.
    pub overflow: usize,
    /// Those waiting for a permit now.
    pub waiting: usize,
    /// Permits that had to be waited for, in vain or not.
    pub waits: u64,
    /// How long these waits were.
    pub wait_seconds: Histogram,
    /// Waits that ended in an error.
    pub timeouts: u64,
    /// Connections open now, those about to be opened or closed among them.
    pub connections: usize,
    /// Connections opened so far.
    pub connections_opened: u64,
    /// Connections dropped for age, or because a ping failed after they were opened.
    pub recycles: u64,
    /// Checks of a store that was new or had been idle.
    pub pings: u64,
    /// Checks that got no answer.
    pub ping_failures: u64,
    /// Bodies nobody was reading whose permit a waiter got; they go on where they stopped.
    pub parked: u64,
    /// Requests begun, by operation.
    #[serde(serialize_with = "as_map")]
    pub requests: Vec<(Operation, u64)>,
    /// Bytes of objects received.
    pub bytes_in: u64,
    /// Bytes of objects sent.
    pub bytes_out: u64,
    /// Requests sent again, bodies resumed among them.
    pub retries: u64,
    /// From having a permit to the head of the answer, retries included.
    pub latency_seconds: Histogram,
}

fn as_map<S: Serializer>(requests: &[(Operation, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    requests
        .iter()
        .map(|(operation, count)| (operation.as_str(), count))
        .collect::<BTreeMap<_, _>>()
        .serialize(serializer)
}

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Get,
    Head,
    Put,
    /// Everything about multipart uploads: start, part, complete, abort.
    Multipart,
    List,
    Delete,
    Copy,
    Rename,
}

impl Operation {
    const ALL: [Operation; 8] =
        [Self::Get, Self::Head, Self::Put, Self::Multipart, Self::List, Self::Delete, Self::Copy, Self::Rename];

    /// The value of the metrics' label `operation`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Head => "head",
            Self::Put => "put",
            Self::Multipart => "multipart",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Copy => "copy",
            Self::Rename => "rename",
        }
    }
}

impl Operation {
    /// What could not be done, in errors.
    pub(crate) const fn verb(self) -> &'static str {
        match self {
            Self::Get => "read it",
            Self::Head => "look at it",
            Self::Put | Self::Multipart => "write it",
            Self::List => "list it",
            Self::Delete => "delete it",
            Self::Copy => "copy it",
            Self::Rename => "rename it",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Durations by size class.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// How many durations were at most so many seconds, and longer than the bound before. The last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// All durations.
    pub count: u64,
    /// Their sum in seconds.
    pub sum: f64,
}

impl Histogram {
    /// The mean in seconds; 0 of nothing.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }

    /// A bound in seconds that a share of `q` (0 to 1) of the durations does not exceed; 0 of nothing.
    pub fn quantile(&self, q: f64) -> f64 {
        let wanted = (q * self.count as f64).ceil() as u64;
        let mut seen = 0;
        for (bound, count) in &self.buckets {
            seen += count;
            if seen >= wanted && seen > 0 {
                return *bound;
            }
        }
        0.0
    }
}

/// Buckets as Prometheus has them: how many durations were at most `le` seconds.
impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Bucket {
            le: String,
            count: u64,
        }
        #[derive(Serialize)]
        struct Buckets {
            count: u64,
            sum: f64,
            buckets: Vec<Bucket>,
        }
        let mut seen = 0;
        let buckets = self.buckets.iter().map(|(bound, count)| {
            seen += count;
            Bucket { le: if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() }, count: seen }
        });
        Buckets { count: self.count, sum: self.sum, buckets: buckets.collect() }.serialize(serializer)
    }
}

/// Upper bounds of the size classes in seconds.
const BOUNDS: [f64; 16] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, f64::INFINITY];

#[derive(Debug, Default)]
struct Durations {
    buckets: [AtomicU64; BOUNDS.len()],
    nanoseconds: AtomicU64,
}

impl Durations {
    fn record(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let class = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len() - 1);
        self.buckets[class].fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn snapshot(&self) -> Histogram {
        let buckets: Vec<(f64, u64)> =
            BOUNDS.iter().zip(&self.buckets).map(|(bound, count)| (*bound, count.load(Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Histogram { buckets, count, sum: self.nanoseconds.load(Relaxed) as f64 * 1e-9 }
    }
}

/// The counters of one pool.
#[derive(Debug)]
pub(crate) struct Meter {
    store: Arc<str>,
    checked_out: AtomicUsize,
    waiting: AtomicUsize,
    wait_seconds: Durations,
    timeouts: AtomicU64,
    connections: AtomicUsize,
    connections_opened: AtomicU64,
    recycles: AtomicU64,
    pings: AtomicU64,
    ping_failures: AtomicU64,
    parked: AtomicU64,
    requests: [AtomicU64; Operation::ALL.len()],
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    retries: AtomicU64,
    latency_seconds: Durations,
}

impl Meter {
    pub(crate) fn new(store: Arc<str>) -> Self {
        Self {
            store,
            checked_out: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            wait_seconds: Durations::default(),
            timeouts: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            connections_opened: AtomicU64::new(0),
            recycles: AtomicU64::new(0),
            pings: AtomicU64::new(0),
            ping_failures: AtomicU64::new(0),
            parked: AtomicU64::new(0),
            requests: Default::default(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            latency_seconds: Durations::default(),
        }
    }

    pub(crate) fn checked_out(&self) -> usize {
        self.checked_out.load(Relaxed)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    pub(crate) fn check_out(&self) {
        let now = self.checked_out.fetch_add(1, Relaxed) + 1;
        gauge!(metric::CHECKED_OUT, "store" => Arc::clone(&self.store)).set(now as f64);
    }

    pub(crate) fn check_in(&self) {
        let now = self.checked_out.fetch_sub(1, Relaxed) - 1;
        gauge!(metric::CHECKED_OUT, "store" => Arc::clone(&self.store)).set(now as f64);
    }

    pub(crate) fn begin_wait(&self) {
        let now = self.waiting.fetch_add(1, Relaxed) + 1;
        gauge!(metric::WAITING, "store" => Arc::clone(&self.store)).set(now as f64);
    }

    pub(crate) fn end_wait(&self, waited: Duration) {
        let now = self.waiting.fetch_sub(1, Relaxed) - 1;
        self.wait_seconds.record(waited);
        gauge!(metric::WAITING, "store" => Arc::clone(&self.store)).set(now as f64);
        histogram!(metric::WAIT_SECONDS, "store" => Arc::clone(&self.store)).record(waited);
    }

    pub(crate) fn capacity(&self, capacity: usize) {
        gauge!(metric::CAPACITY, "store" => Arc::clone(&self.store)).set(capacity as f64);
    }

    pub(crate) fn timeout(&self) {
        self.timeouts.fetch_add(1, Relaxed);
        counter!(metric::TIMEOUTS, "store" => Arc::clone(&self.store)).increment(1);
    }

    pub(crate) fn opened(&self) {
        let now = self.connections.fetch_add(1, Relaxed) + 1;
        self.connections_opened.fetch_add(1, Relaxed);
        gauge!(metric::CONNECTIONS, "store" => Arc::clone(&self.store)).set(now as f64);
        counter!(metric::CONNECTIONS_OPENED, "store" => Arc::clone(&self.store)).increment(1);
    }

    pub(crate) fn closed(&self) {
        let now = self.connections.fetch_sub(1, Relaxed) - 1;
        gauge!(metric::CONNECTIONS, "store" => Arc::clone(&self.store)).set(now as f64);
    }

    pub(crate) fn recycle(&self) {
        self.recycles.fetch_add(1, Relaxed);
        counter!(metric::RECYCLES, "store" => Arc::clone(&self.store)).increment(1);
    }

    pub(crate) fn ping(&self, alive: bool) {
        self.pings.fetch_add(1, Relaxed);
        counter!(metric::PINGS, "store" => Arc::clone(&self.store)).increment(1);
        if !alive {
            self.ping_failures.fetch_add(1, Relaxed);
            counter!(metric::PING_FAILURES, "store" => Arc::clone(&self.store)).increment(1);
        }
    }

    pub(crate) fn park(&self) {
        self.parked.fetch_add(1, Relaxed);
        counter!(metric::PARKED, "store" => Arc::clone(&self.store)).increment(1);
    }

    pub(crate) fn request(&self, operation: Operation) {
        self.requests[operation as usize].fetch_add(1, Relaxed);
        let labels = [("store", self.store.to_string()), ("operation", operation.as_str().to_owned())];
        counter!(metric::REQUESTS, &labels).increment(1);
    }

    pub(crate) fn latency(&self, latency: Duration) {
        self.latency_seconds.record(latency);
        histogram!(metric::REQUEST_SECONDS, "store" => Arc::clone(&self.store)).record(latency);
    }

    pub(crate) fn bytes_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
        counter!(metric::BYTES_IN, "store" => Arc::clone(&self.store)).increment(bytes as u64);
    }

    pub(crate) fn bytes_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Relaxed);
        counter!(metric::BYTES_OUT, "store" => Arc::clone(&self.store)).increment(bytes as u64);
    }

    pub(crate) fn retry(&self) {
        self.retries.fetch_add(1, Relaxed);
        counter!(metric::RETRIES, "store" => Arc::clone(&self.store)).increment(1);
    }

    /// The counters with the sizes that only the pool knows.
    pub(crate) fn snapshot(&self, size: usize, max_overflow: usize, capacity: usize) -> PoolStatus {
        let checked_out = self.checked_out();
        let wait_seconds = self.wait_seconds.snapshot();
        PoolStatus {
            store: self.store.to_string(),
            size,
            max_overflow,
            capacity,
            checked_out,
            idle: size.saturating_sub(checked_out),
            overflow: checked_out.saturating_sub(size),
            waiting: self.waiting(),
            waits: wait_seconds.count,
            wait_seconds,
            timeouts: self.timeouts.load(Relaxed),
            connections: self.connections.load(Relaxed),
            connections_opened: self.connections_opened.load(Relaxed),
            recycles: self.recycles.load(Relaxed),
            pings: self.pings.load(Relaxed),
            ping_failures: self.ping_failures.load(Relaxed),
            parked: self.parked.load(Relaxed),
            requests: Operation::ALL
                .into_iter()
                .zip(&self.requests)
                .map(|(operation, count)| (operation, count.load(Relaxed)))
                .filter(|(_, count)| *count > 0)
                .collect(),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            retries: self.retries.load(Relaxed),
            latency_seconds: self.latency_seconds.snapshot(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_gives_count_mean_and_quantiles() {
        let durations = Durations::default();
        assert_eq!(durations.snapshot().quantile(0.5), 0.0);
        assert_eq!(durations.snapshot().mean(), 0.0);
        for milliseconds in [1, 1, 1, 30, 90_000] {
            durations.record(Duration::from_millis(milliseconds));
        }
        let histogram = durations.snapshot();
        assert_eq!(histogram.count, 5);
        assert_eq!((histogram.quantile(0.5), histogram.quantile(0.8)), (0.001, 0.05));
        assert_eq!(histogram.quantile(1.0), f64::INFINITY);
        assert!((histogram.sum - 90.033).abs() < 1e-6);
    }

    #[test]
    fn what_is_in_flight_is_split_into_steady_and_overflow() {
        let meter = Meter::new("s3://b".into());
        for _ in 0..3 {
            meter.check_out();
        }
        let status = meter.snapshot(5, 10, 15);
        assert_eq!((status.checked_out, status.idle, status.overflow), (3, 2, 0));
        let status = meter.snapshot(2, 10, 12);
        assert_eq!((status.checked_out, status.idle, status.overflow), (3, 0, 1));
        meter.request(Operation::Get);
        assert_eq!(meter.snapshot(2, 10, 12).requests, [(Operation::Get, 1)]);
    }
}
