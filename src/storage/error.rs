//! What can go wrong with a store: one variant per cause, saying what happened, to which target, and what to do.

use std::error::Error;
use std::io;
use std::ops::Range;
use std::time::Duration;

use crate::storage::HttpFailure;

/// A result of storage.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;

/// Why something could not be read or written. No variant carries credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// An option has a value outside its range.
    #[error("{option} is {value}: it must be {range}")]
    OptionOutOfRange { option: &'static str, value: String, range: String },

    /// A store's section has a key that means nothing to this kind of store.
    #[error("[storage.\"{store}\"] has the unknown key {key}{}", did_you_mean(nearest))]
    UnknownKey { store: String, key: String, nearest: Option<String> },

    /// A store's section has a value that cannot be used. It is not repeated: it may be secret.
    #[error("[storage.\"{store}\"] has a value of {key} that cannot be used")]
    UnreadableKey { store: String, key: &'static str },

    /// A name such as `ftp://host/file`.
    #[error(
        "{target}: {scheme}:// is not supported; use a local path, file://, s3://, gs://, az://, abfss://, http://, \
         https:// or memory://"
    )]
    UnsupportedScheme { target: String, scheme: String },

    /// A name no store could hold.
    #[error("{target}: {reason}")]
    InvalidTarget { target: String, reason: String },

    /// A URL with a password, a token or a query. The URL is not repeated: it may be secret.
    #[error(
        "a {scheme}:// URL for {host} carries credentials or a query: put credentials into [storage.\"{scheme}://{host}\"] \
         or the environment, and give the URL without them"
    )]
    CredentialsInUrl { scheme: String, host: String },

    /// An endpoint without TLS that nobody allowed.
    #[error(
        "{store}: its endpoint is plain http://, which sends data and signatures unprotected; use https://, or set \
         allow_http = \"true\" in [storage.\"{store}\"]"
    )]
    PlainHttp { store: String },

    /// The settings of a store do not make a client.
    #[error("{store}: no client can be made from its settings: {source}")]
    Client { store: String, source: Box<object_store::Error> },

    /// There is no such object.
    #[error("{target} does not exist")]
    NotFound { target: String },

    /// There is one already, and it may not be replaced.
    #[error("{target} exists already; remove it, choose another name, or allow overwriting")]
    AlreadyExists { target: String },

    /// The store does not let us.
    #[error("{target}: access denied while trying to {operation}; check the credentials and their rights: {source}")]
    Denied { target: String, operation: &'static str, source: Box<object_store::Error> },

    /// A store that can only be read.
    #[error("{target} cannot be written: {scheme}:// is read only here")]
    ReadOnly { target: String, scheme: &'static str },

    /// The operating system refused.
    #[error("{target}: cannot {operation}: {source}")]
    Io { target: String, operation: &'static str, source: io::Error },

    /// Any other answer of a store.
    #[error("{target}: cannot {operation}: {source}")]
    Store { target: String, operation: &'static str, source: Box<object_store::Error> },

    /// The object is not the one it was when reading began.
    #[error(
        "{target} changed while it was read: its ETag was {}, now it is {}; run again once nobody writes it any more",
        tag(expected),
        tag(found)
    )]
    Changed { target: String, expected: Option<String>, found: Option<String> },

    /// A body with too few or too many bytes that could not be read on.
    #[error("{target}: {what} (bytes {} to {} are missing)", missing.start, missing.end)]
    BrokenBody { target: String, what: &'static str, missing: Range<u64> },

    /// No usable answer over HTTP.
    #[error("{target}: cannot {operation}: {source}")]
    Http { target: String, operation: &'static str, source: Box<HttpFailure> },

    /// The blocking thread of a local write died.
    #[error("{target}: writing stopped: {source}")]
    Interrupted { target: String, source: tokio::task::JoinError },

    /// A write whose answer got lost: it may have been done, or not. Nothing was undone.
    #[error(
        "{target}: it is not known whether it was written: {reason}; look at what is there before writing it again"
    )]
    OutcomeUnknown { target: String, reason: String },

    /// An upload went on after one of its writes had failed or had been cancelled.
    #[error("{target}: this upload has failed before; start it anew")]
    UploadBroken { target: String },

    /// No permit within the time allowed.
    #[error(
        "{store}: no free connection after {waited:?} (capacity {capacity}, {waiters} waiting); raise pool_size, \
         pool_max_overflow or pool_timeout, or run fewer things at once"
    )]
    PoolTimeout { store: String, waited: Duration, waiters: usize, capacity: usize },
}

impl StorageError {
    /// Names `target` and `operation` in an error of `object_store`, and takes the errors of our own out of it.
    pub fn of_store(target: impl Into<String>, operation: &'static str, error: object_store::Error) -> Self {
        let target = target.into();
        match HttpFailure::find(&error) {
            Some(HttpFailure::AnswerLost { reason }) => {
                return Self::OutcomeUnknown { target, reason: reason.clone() };
            }
            Some(failure) => return Self::Http { target, operation, source: Box::new(failure.clone()) },
            None => {}
        }
        match error {
            object_store::Error::Generic { source, store } => match source.downcast::<StorageError>() {
                Ok(own) => *own,
                Err(source) => {
                    let refused = causes(source.as_ref()).find_map(|cause| cause.downcast_ref::<io::Error>());
                    match refused.map(io::Error::kind) {
                        Some(kind) if store == FILE_SYSTEM => {
                            Self::Io { target, operation, source: io::Error::new(kind, source) }
                        }
                        _ => {
                            let source = Box::new(object_store::Error::Generic { source, store });
                            Self::Store { target, operation, source }
                        }
                    }
                }
            },
            object_store::Error::NotFound { .. } => Self::NotFound { target },
            object_store::Error::AlreadyExists { .. } => Self::AlreadyExists { target },
            error @ (object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }) => {
                Self::Denied { target, operation, source: Box::new(error) }
            }
            error => Self::Store { target, operation, source: Box::new(error) },
        }
    }

    /// `error`, as one of ours if it is of no kind that callers of a store tell apart: so it names its target and says whether
    /// a retry may help, wherever it ends up.
    pub(crate) fn named(target: &str, operation: &'static str, error: object_store::Error) -> object_store::Error {
        match error {
            object_store::Error::Generic { .. } => Self::of_store(target, operation, error).into(),
            error => error,
        }
    }

    /// The storage error at or below `error`, however deep other crates have wrapped it.
    pub fn find<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e StorageError> {
        causes(error).find_map(|cause| cause.downcast_ref())
    }

    /// Whether doing the same again later may succeed, with nothing changed by hand.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::PoolTimeout { .. } | Self::Interrupted { .. } | Self::UploadBroken { .. } => true,
            Self::BrokenBody { .. } | Self::OutcomeUnknown { .. } => true,
            Self::Http { source, .. } => {
                matches!(**source, HttpFailure::GivenUp { .. } | HttpFailure::Silent(_))
            }
            Self::Store { source, .. } => {
                matches!(**source, object_store::Error::Generic { .. } | object_store::Error::JoinError { .. })
            }
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::Interrupted
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::WouldBlock
                    | io::ErrorKind::ResourceBusy
                    | io::ErrorKind::StaleNetworkFileHandle
            ),
            _ => false,
        }
    }
}

/// What the store of the local disk calls itself in its errors.
const FILE_SYSTEM: &str = "LocalFileSystem";

/// An error and those below it.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    // An io::Error that carries another error does not name it as its source.
    let below = |&error: &&'e (dyn Error + 'static)| match error.downcast_ref::<io::Error>().and_then(|io| io.get_ref())
    {
        Some(carried) => Some(carried as &(dyn Error + 'static)),
        None => error.source(),
    };
    std::iter::successors(Some(error), below)
}

/// How our errors travel through code that only knows `object_store`; [`StorageError::find`] finds them again.
impl From<StorageError> for object_store::Error {
    fn from(error: StorageError) -> Self {
        object_store::Error::Generic { store: "normstream", source: Box::new(error) }
    }
}

fn tag(tag: &Option<String>) -> &str {
    tag.as_deref().unwrap_or("none")
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|key| format!("; did you mean {key}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed_out() -> StorageError {
        StorageError::PoolTimeout {
            store: "s3://b".to_owned(),
            waited: Duration::from_secs(30),
            waiters: 7,
            capacity: 15,
        }
    }

    #[test]
    fn our_own_error_is_found_again_below_those_of_other_crates() {
        let wrapped = io::Error::other(object_store::Error::from(timed_out()));
        let found = StorageError::find(&wrapped);
        assert!(matches!(found, Some(StorageError::PoolTimeout { waiters: 7, .. })), "{found:?}");
        let own = StorageError::of_store("s3://b/x", "read it", timed_out().into());
        assert!(matches!(own, StorageError::PoolTimeout { .. }), "{own}");
    }

    #[test]
    fn what_the_disk_refuses_is_retryable_if_it_passes_by_itself() {
        let refused = |store, kind| {
            let source = Box::new(io::Error::from(kind));
            StorageError::of_store("/data/in", "list it", object_store::Error::Generic { store, source })
        };
        for (kind, retryable) in [
            (io::ErrorKind::NotADirectory, false),
            (io::ErrorKind::PermissionDenied, false),
            (io::ErrorKind::ReadOnlyFilesystem, false),
            (io::ErrorKind::ResourceBusy, true),
            (io::ErrorKind::TimedOut, true),
        ] {
            let error = refused(FILE_SYSTEM, kind);
            assert_eq!(error.to_string(), format!("/data/in: cannot list it: {kind}"));
            assert_eq!(error.is_retryable(), retryable, "{kind}");
            assert!(refused("S3", kind).is_retryable(), "what a connection met");
        }
    }

    #[test]
    fn a_wait_that_was_too_long_names_pool_waiters_and_setting() {
        assert_eq!(
            timed_out().to_string(),
            "s3://b: no free connection after 30s (capacity 15, 7 waiting); raise pool_size, pool_max_overflow or \
             pool_timeout, or run fewer things at once"
        );
        assert!(timed_out().is_retryable());
    }
}
