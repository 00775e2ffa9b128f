//! When a request is repeated, and after how long. Decisions only: sending is in `http.rs`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime};

use http::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH, RETRY_AFTER};
use http::{Method, StatusCode};
use object_store::client::{HttpErrorKind, HttpRequest};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::storage::RetryOptions;

/// The headers that make a write one on a condition. The last one is Google Cloud's.
const CONDITIONS: [HeaderName; 3] = [IF_NONE_MATCH, IF_MATCH, HeaderName::from_static("x-goog-if-generation-match")];

/// What may be concluded when a request's answer is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeatability {
    /// Sending it twice does what sending it once does.
    Idempotent,
    /// A write on a condition: had the first one arrived, the second would find its condition broken.
    Conditional,
    /// Nothing is known.
    Unsafe,
}

impl Repeatability {
    /// What `request` is. Every POST that `object_store` sends (start and complete a multipart upload, delete many, fetch a
    /// token) may be repeated.
    pub(crate) fn of(request: &HttpRequest) -> Self {
        let conditional = || CONDITIONS.iter().any(|condition| request.headers().contains_key(condition));
        match *request.method() {
            Method::GET | Method::HEAD | Method::OPTIONS => Self::Idempotent,
            Method::PUT | Method::POST | Method::DELETE if conditional() => Self::Conditional,
            Method::PUT | Method::POST | Method::DELETE => Self::Idempotent,
            _ if request.method().as_str() == "PROPFIND" => Self::Idempotent,
            _ => Self::Unsafe,
        }
    }

    /// Whether a request that got `status` may be sent again.
    pub(crate) fn after_status(self, status: StatusCode) -> bool {
        match status {
            // Refused before anything was done.
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::REQUEST_TIMEOUT => true,
            status => status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED && self == Self::Idempotent,
        }
    }

    /// Whether it is unknown if a request that got `status` was done, and stays so: what must not be sent again cannot tell.
    pub(crate) fn is_unknown_after_status(self, status: StatusCode) -> bool {
        let says_nothing = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED;
        self == Self::Conditional && says_nothing && !self.after_status(status)
    }

    /// The same of a request that got no answer.
    pub(crate) fn is_unknown_after_error(self, kind: HttpErrorKind) -> bool {
        self == Self::Conditional && !self.after_error(kind)
    }

    /// Whether a request that got no answer may be sent again.
    pub(crate) fn after_error(self, kind: HttpErrorKind) -> bool {
        match kind {
            HttpErrorKind::Connect => true,
            HttpErrorKind::Request | HttpErrorKind::Timeout | HttpErrorKind::Interrupted => self == Self::Idempotent,
            _ => false,
        }
    }
}

/// Whether the store asks for less: the sign for an adaptive pool.
pub(crate) fn is_throttling(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// How long the server asks to wait: `Retry-After` in seconds or as a date; `None` if it says nothing that can be read.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date: SystemTime = chrono::DateTime::parse_from_rfc2822(value).ok()?.into();
    Some(date.duration_since(now).unwrap_or_default())
}

/// The waits of one request: exponential with jitter, counted, and bounded in time.
#[derive(Debug)]
pub(crate) struct Backoff {
    options: RetryOptions,
    retries: usize,
    random: Pcg64,
}

impl Backoff {
    pub(crate) fn new(options: &RetryOptions) -> Self {
        // Keyed differently for every value: that is all the randomness that is needed to keep clients apart.
        Self::with_seed(options, RandomState::new().build_hasher().finish())
    }

    fn with_seed(options: &RetryOptions, seed: u64) -> Self {
        Self { options: options.clone(), retries: 0, random: Pcg64::seed_from_u64(seed) }
    }

    /// Retries so far.
    pub(crate) fn retries(&self) -> usize {
        self.retries
    }

    /// The wait before the next retry, if there is to be one: between half of the exponential backoff and all of it, and
    /// never less than `asked`. `elapsed` is the time since the request was first sent.
    pub(crate) fn next(&mut self, elapsed: Duration, asked: Option<Duration>) -> Option<Duration> {
        if self.retries >= self.options.max_retries {
            return None;
        }
        let doubled = 2_u32.checked_pow(self.retries.min(31) as u32).unwrap_or(u32::MAX);
        let full = self.options.initial_backoff.saturating_mul(doubled).min(self.options.max_backoff);
        let wait = full.mul_f64(self.random.random_range(0.5..=1.0)).max(asked.unwrap_or_default());
        if elapsed.saturating_add(wait) > self.options.timeout {
            return None;
        }
        self.retries += 1;
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use object_store::client::HttpRequestBody;
    use proptest::prelude::*;

    use super::*;

    fn request(method: &str, header: Option<&'static str>) -> HttpRequest {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method.parse().unwrap();
        *request.uri_mut() = "http://host/object".parse().unwrap();
        if let Some(header) = header {
            request.headers_mut().insert(header, "*".parse().unwrap());
        }
        request
    }

    #[test]
    fn a_conditional_write_is_repeated_only_when_it_was_surely_not_done() {
        let create = Repeatability::of(&request("PUT", Some("if-none-match")));
        assert_eq!(create, Repeatability::Conditional);
        assert!(create.after_status(StatusCode::SERVICE_UNAVAILABLE));
        assert!(create.after_error(HttpErrorKind::Connect));
        assert!(!create.after_status(StatusCode::INTERNAL_SERVER_ERROR));
        assert!(!create.after_error(HttpErrorKind::Interrupted));
        assert!(create.is_unknown_after_status(StatusCode::BAD_GATEWAY));
        assert!(create.is_unknown_after_error(HttpErrorKind::Interrupted));
        for surely in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::PRECONDITION_FAILED, StatusCode::NOT_IMPLEMENTED] {
            assert!(!create.is_unknown_after_status(surely), "{surely}");
        }
        assert!(!create.is_unknown_after_error(HttpErrorKind::Connect));
    }

    #[test]
    fn a_write_is_conditional_in_the_words_of_every_cloud() {
        for condition in ["if-none-match", "if-match", "x-goog-if-generation-match"] {
            assert_eq!(Repeatability::of(&request("PUT", Some(condition))), Repeatability::Conditional, "{condition}");
        }
    }

    #[test]
    fn reads_and_plain_writes_are_repeated_after_a_server_error_but_not_after_a_refusal() {
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE", "PROPFIND"] {
            let kind = Repeatability::of(&request(method, None));
            assert_eq!(kind, Repeatability::Idempotent, "{method}");
            assert!(kind.after_status(StatusCode::BAD_GATEWAY) && kind.after_error(HttpErrorKind::Timeout));
            assert!(!kind.after_status(StatusCode::FORBIDDEN) && !kind.after_status(StatusCode::PRECONDITION_FAILED));
            assert!(!kind.after_error(HttpErrorKind::Unknown));
        }
        assert_eq!(Repeatability::of(&request("GET", Some("if-match"))), Repeatability::Idempotent);
        assert_eq!(Repeatability::of(&request("COPY", None)), Repeatability::Unsafe);
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read =
            |value: &'static str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]), now);
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:07 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    proptest! {
        #[test]
        fn waits_are_bounded_in_number_size_and_time_and_never_shorter_than_asked(
            seed: u64,
            max_retries in 0_usize..20,
            asked in proptest::option::of(0_u64..40),
        ) {
            let options = RetryOptions { max_retries, ..RetryOptions::default() };
            let asked = asked.map(Duration::from_secs);
            let mut backoff = Backoff::with_seed(&options, seed);
            let mut elapsed = Duration::ZERO;
            while let Some(wait) = backoff.next(elapsed, asked) {
                prop_assert!(wait >= asked.unwrap_or_default());
                prop_assert!(wait <= options.max_backoff.max(asked.unwrap_or_default()));
                elapsed += wait;
            }
            prop_assert!(backoff.retries() <= max_retries);
            prop_assert!(elapsed <= options.timeout);
        }
    }
}
