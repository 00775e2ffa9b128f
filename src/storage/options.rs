//! What can be set about storage, with defaults and ranges. Where a value comes from (file, environment, flag) is not
//! known here.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::storage::{Result, StorageError};

/// Everything that can be set about storage.
#[derive(Clone, PartialEq, Default)]
pub struct StorageOptions {
    /// The pool each store gets.
    pub pool: PoolOptions,
    /// How requests that fail are repeated.
    pub retry: RetryOptions,
    /// How large objects are written.
    pub upload: UploadOptions,
    /// Settings of single stores: `"s3://bucket"` to keys as `object_store` names them (`endpoint`, `region`, …). Stronger
    /// than the environment. An unknown key is an error.
    pub stores: BTreeMap<String, BTreeMap<String, String>>,
    /// Whether a redirect may lead to a loopback, link-local or private address.
    pub allow_private_redirects: bool,
}

/// How many requests a store is asked at once, and how connections are kept: the terms of database pools.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolOptions {
    /// Requests in flight kept as steady capacity, and idle connections kept: 1 to 50.
    pub size: usize,
    /// Burst above `size`, used only while steady permits are exhausted: 0 to 100.
    pub max_overflow: usize,
    /// Longest wait for a permit: 1 s to 300 s.
    pub timeout: Duration,
    /// Age at which connections are dropped and the client rebuilt: at least 300 s.
    pub recycle: Duration,
    /// Whether a store is checked: after being idle for long before real work, and when it is new along with its first.
    pub pre_ping: bool,
    /// Whether capacity is fixed, or follows latency and throttling.
    pub mode: PoolMode,
}

/// How the capacity of a pool is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PoolMode {
    /// `size + max_overflow`, always.
    #[default]
    Fixed,
    /// Between 1 and `size + max_overflow`: halved by throttling, raised by success.
    Adaptive,
}

/// How requests that fail are repeated: exponential backoff with jitter, never before `Retry-After`.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryOptions {
    /// Repetitions of one request: 0 to 100.
    pub max_retries: usize,
    /// Time after which nothing is repeated any more, waits included: 1 s to 3600 s.
    pub timeout: Duration,
    /// The first wait: 1 ms to 60 s.
    pub initial_backoff: Duration,
    /// The longest wait, unless the server asks for more: 1 ms to 300 s.
    pub max_backoff: Duration,
}

/// How large objects are written. Memory of one upload: `part_size × (parts_in_flight + 1)`.
#[derive(Debug, Clone, PartialEq)]
pub struct UploadOptions {
    /// Bytes of a part of a multipart upload: 5 MiB to 1 GiB.
    pub part_size: usize,
    /// Parts on their way at once: 1 to 64.
    pub parts_in_flight: usize,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            size: 5,
            max_overflow: 10,
            timeout: Duration::from_secs(30),
            recycle: Duration::from_secs(3600),
            pre_ping: true,
            mode: PoolMode::Fixed,
        }
    }
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            max_retries: 10,
            timeout: Duration::from_secs(180),
            initial_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(15),
        }
    }
}

impl Default for UploadOptions {
    fn default() -> Self {
        Self { part_size: 10 * 1024 * 1024, parts_in_flight: 4 }
    }
}

impl PoolOptions {
    /// The most requests in flight: `size + max_overflow`.
    pub fn capacity(&self) -> usize {
        self.size + self.max_overflow
    }
}

impl StorageOptions {
    /// The options themselves, if every value lies in its range.
    pub fn validate(self) -> Result<Self> {
        let StorageOptions { pool, retry, upload, .. } = &self;
        let seconds = Duration::from_secs;
        in_range("pool_size", pool.size, 1..=50)?;
        in_range("pool_max_overflow", pool.max_overflow, 0..=100)?;
        in_time("pool_timeout", pool.timeout, seconds(1), seconds(300))?;
        in_time("pool_recycle", pool.recycle, seconds(300), Duration::MAX)?;
        in_range("retry_max_retries", retry.max_retries, 0..=100)?;
        in_time("retry_timeout", retry.timeout, seconds(1), seconds(3600))?;
        in_time("retry_initial_backoff", retry.initial_backoff, Duration::from_millis(1), seconds(60))?;
        in_time("retry_max_backoff", retry.max_backoff, Duration::from_millis(1), seconds(300))?;
        in_range("upload_part_size", upload.part_size, 5 * 1024 * 1024..=1024 * 1024 * 1024)?;
        in_range("upload_parts_in_flight", upload.parts_in_flight, 1..=64)?;
        Ok(self)
    }
}

/// Shows which keys a store has, never their values: they may be secret.
impl fmt::Debug for StorageOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stores: BTreeMap<_, Vec<_>> =
            self.stores.iter().map(|(name, keys)| (name, keys.keys().collect())).collect();
        f.debug_struct("StorageOptions")
            .field("pool", &self.pool)
            .field("retry", &self.retry)
            .field("upload", &self.upload)
            .field("stores", &stores)
            .field("allow_private_redirects", &self.allow_private_redirects)
            .finish()
    }
}

fn in_range(option: &'static str, value: usize, range: std::ops::RangeInclusive<usize>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let range = format!("{} to {}", range.start(), range.end());
    Err(StorageError::OptionOutOfRange { option, value: value.to_string(), range })
}

fn in_time(option: &'static str, value: Duration, least: Duration, most: Duration) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let least = humantime::format_duration(least);
    let range = match most {
        Duration::MAX => format!("at least {least}"),
        most => format!("{least} to {}", humantime::format_duration(most)),
    };
    Err(StorageError::OptionOutOfRange { option, value: humantime::format_duration(value).to_string(), range })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_documentation_and_valid() {
        let options = StorageOptions::default().validate().unwrap();
        assert_eq!((options.pool.size, options.pool.max_overflow), (5, 10));
        assert_eq!(options.pool.timeout, Duration::from_secs(30));
        assert_eq!(options.pool.recycle, Duration::from_secs(3600));
        assert!(options.pool.pre_ping);
        assert_eq!(options.pool.mode, PoolMode::Fixed);
    }

    #[test]
    fn a_value_out_of_range_is_refused_by_name_value_and_range() {
        let refused = |change: fn(&mut PoolOptions)| {
            let mut options = StorageOptions::default();
            change(&mut options.pool);
            options.validate().unwrap_err().to_string()
        };
        assert_eq!(refused(|pool| pool.size = 0), "pool_size is 0: it must be 1 to 50");
        assert_eq!(refused(|pool| pool.size = 51), "pool_size is 51: it must be 1 to 50");
        assert_eq!(refused(|pool| pool.max_overflow = 101), "pool_max_overflow is 101: it must be 0 to 100");
        assert_eq!(refused(|pool| pool.timeout = Duration::ZERO), "pool_timeout is 0s: it must be 1s to 5m");
        assert_eq!(
            refused(|pool| pool.recycle = Duration::from_secs(299)),
            "pool_recycle is 4m 59s: it must be at least 5m"
        );
    }

    #[test]
    fn printing_the_options_shows_the_keys_of_a_store_and_not_their_values() {
        let keys = BTreeMap::from([("secret_access_key".to_owned(), "canary-secret".to_owned())]);
        let options = StorageOptions { stores: [("s3://b".to_owned(), keys)].into(), ..Default::default() };
        let printed = format!("{options:?}");
        assert!(printed.contains("secret_access_key"), "{printed}");
        assert!(!printed.contains("canary-secret"), "{printed}");
    }
}
