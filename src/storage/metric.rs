//! The metrics of storage: their names, once. Every one has the label `store`, such as `s3://bucket`.

use metrics::Unit;

/// What a metric measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Grows and shrinks.
    Gauge,
    /// Durations in seconds.
    Histogram,
}

macro_rules! metrics {
    ($($constant:ident $kind:ident $name:literal $help:literal)*) => {
        $(#[doc = $help] pub(crate) const $constant: &str = $name;)*

        /// All metrics: name, kind, and what they count.
        pub const METRICS: &[(&str, Kind, &str)] = &[$(($constant, Kind::$kind, $help)),*];
    };
}

metrics! {
    CHECKED_OUT Gauge "normstream_storage_pool_checked_out" "Requests in flight, bodies being read among them."
    WAITING Gauge "normstream_storage_pool_waiting" "Those waiting for a permit."
    WAIT_SECONDS Histogram "normstream_storage_pool_wait_seconds" "How long permits were waited for."
    CAPACITY Gauge "normstream_storage_pool_capacity" "Requests that may be in flight."
    TIMEOUTS Counter "normstream_storage_pool_timeouts_total" "Waits for a permit that ended in an error."
    PARKED Counter "normstream_storage_pool_parked_total" "Bodies nobody was reading whose permit a waiter got."
    CONNECTIONS Gauge "normstream_storage_connections" "Connections open."
    CONNECTIONS_OPENED Counter "normstream_storage_connections_opened_total" "Connections opened."
    RECYCLES Counter "normstream_storage_pool_recycles_total" "Connections dropped for age, or because a ping failed."
    PINGS Counter "normstream_storage_pings_total" "Checks of a store that was new or had been idle."
    PING_FAILURES Counter "normstream_storage_ping_failures_total" "Checks that got no answer."
    REQUESTS Counter "normstream_storage_requests_total" "Requests begun; the label `operation` says for what."
    REQUEST_SECONDS Histogram "normstream_storage_request_seconds" "From having a permit to the head of the answer, retries included."
    BYTES_IN Counter "normstream_storage_bytes_in_total" "Bytes of objects received."
    BYTES_OUT Counter "normstream_storage_bytes_out_total" "Bytes of objects sent."
    RETRIES Counter "normstream_storage_retries_total" "Requests sent again, bodies resumed among them."
}

/// Tells the recorder that listens what the metrics are. Without one it does nothing.
pub fn describe_metrics() {
    for &(name, kind, help) in METRICS {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, help),
            Kind::Gauge => metrics::describe_gauge!(name, help),
            Kind::Histogram => metrics::describe_histogram!(name, Unit::Seconds, help),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, with_local_recorder};

    use super::*;
    use crate::storage::Operation;
    use crate::storage::status::Meter;

    /// Remembers which metrics were described and which were used.
    #[derive(Default)]
    struct Names {
        described: Mutex<BTreeSet<String>>,
        used: Mutex<BTreeSet<(String, Kind)>>,
    }

    impl Names {
        fn describe(&self, name: KeyName) {
            self.described.lock().unwrap().insert(name.as_str().to_owned());
        }

        fn used(&self, key: &Key, kind: Kind) {
            assert!(key.labels().any(|label| label.key() == "store" && label.value() == "s3://b"), "{key}");
            self.used.lock().unwrap().insert((key.name().to_owned(), kind));
        }
    }

    impl Recorder for Names {
        fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
            self.describe(name);
        }

        fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
            self.describe(name);
        }

        fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
            self.describe(name);
        }

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            self.used(key, Kind::Counter);
            Counter::noop()
        }

        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            self.used(key, Kind::Gauge);
            Gauge::noop()
        }

        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            self.used(key, Kind::Histogram);
            Histogram::noop()
        }
    }

    #[test]
    fn the_readme_lists_every_metric() {
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
        for (name, kind, help) in METRICS {
            let kind = format!("{kind:?}").to_lowercase();
            let help = help.trim_end_matches('.');
            let row = format!("| `{name}` | {kind}: {}{} |", help[..1].to_lowercase(), &help[1..]);
            assert!(readme.contains(&row), "{row}");
        }
    }

    #[test]
    fn what_is_recorded_and_described_is_what_the_table_lists() {
        let names = Names::default();
        with_local_recorder(&names, || {
            describe_metrics();
            let meter = Meter::new("s3://b".into());
            let moment = std::time::Duration::from_millis(1);
            meter.capacity(15);
            meter.check_out();
            meter.check_in();
            meter.begin_wait();
            meter.end_wait(moment);
            meter.timeout();
            meter.opened();
            meter.closed();
            meter.recycle();
            meter.ping(false);
            meter.park();
            meter.request(Operation::Get);
            meter.latency(moment);
            meter.bytes_in(1);
            meter.bytes_out(1);
            meter.retry();
        });
        let listed: BTreeSet<(String, Kind)> =
            METRICS.iter().map(|(name, kind, _)| ((*name).to_owned(), *kind)).collect();
        assert_eq!(*names.used.lock().unwrap(), listed);
        let described: BTreeSet<String> = listed.into_iter().map(|(name, _)| name).collect();
        assert_eq!(*names.described.lock().unwrap(), described);
    }
}
