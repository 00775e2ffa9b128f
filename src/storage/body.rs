//! The body of a read: holds its permit while it is read, goes on where it was cut short, and never ends early in silence.

use std::future::poll_fn;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, GetResultPayload, ObjectStore, ObjectStoreExt};
use tokio::time::Instant;

use crate::storage::RetryOptions;
use crate::storage::StorageError;
use crate::storage::pool::{Holder, Holding, Permit, Pool};
use crate::storage::retry::Backoff;

/// The body of one read.
///
/// 1. It yields exactly the bytes of its range, all of one version of the object, or an error.
/// 2. It holds a permit from the request to its last byte, an error or its drop; but while nobody reads it and others wait
///    ([`Pool`], 4) it gives the permit up, and asks for one again when it is read on.
/// 3. Without an ETag it cannot go on after an interruption, and so keeps its permit.
pub(crate) struct Body {
    store: Arc<dyn ObjectStore>,
    pool: Arc<Pool>,
    location: Path,
    options: GetOptions,
    e_tag: Option<String>,
    missing: Range<u64>,
    backoff: Backoff,
    interrupted: Option<Instant>,
    source: Arc<Source>,
    _holding: Option<Holding>,
}

/// Where the bytes come from at the moment; shared with the pool, which may take it away.
struct Source(Mutex<State>);

enum State {
    Open {
        bytes: BoxStream<'static, object_store::Result<Bytes>>,
        _permit: Permit,
        unread_since: Option<Instant>,
    },
    /// Another one needed the permit.
    Parked,
    Closed,
}

enum Event {
    Bytes(Bytes),
    End,
    Failed(object_store::Error),
    Parked,
}

impl Body {
    /// The bytes of `result`, which answers `options` at `location`. `can_seek` says whether the store is known to serve
    /// ranges.
    pub(crate) fn stream(
        store: Arc<dyn ObjectStore>,
        pool: Arc<Pool>,
        retry: &RetryOptions,
        options: GetOptions,
        result: &mut GetResult,
        permit: Permit,
        can_seek: bool,
    ) -> BoxStream<'static, object_store::Result<Bytes>> {
        let empty = GetResultPayload::Stream(stream::empty().boxed());
        let bytes = match std::mem::replace(&mut result.payload, empty) {
            GetResultPayload::Stream(bytes) => bytes,
            file => GetResult {
                payload: file,
                meta: result.meta.clone(),
                range: result.range.clone(),
                attributes: Default::default(),
            }
            .into_stream(),
        };
        let source =
            Arc::new(Source(Mutex::new(State::Open { bytes, _permit: permit, unread_since: Some(Instant::now()) })));
        // A weak tag never matches an If-Match.
        let e_tag = result.meta.e_tag.clone().filter(|tag| !tag.starts_with("W/"));
        let holding = (can_seek && e_tag.is_some()).then(|| {
            let holder: Weak<dyn Holder> = Arc::downgrade(&(Arc::clone(&source) as Arc<dyn Holder>));
            pool.hold(holder)
        });
        let body = Self {
            store,
            pool,
            location: result.meta.location.clone(),
            options,
            e_tag,
            missing: result.range.clone(),
            backoff: Backoff::new(retry),
            interrupted: None,
            source,
            _holding: holding,
        };
        stream::try_unfold(body, Self::next).boxed()
    }

    async fn next(mut self) -> object_store::Result<Option<(Bytes, Self)>> {
        loop {
            match poll_fn(|context| self.source.poll(context)).await {
                Event::Bytes(bytes) if bytes.len() as u64 > self.missing.end - self.missing.start => {
                    self.source.close();
                    return Err(self.broken("more bytes arrived than were asked for"));
                }
                Event::Bytes(bytes) if bytes.is_empty() => {}
                Event::Bytes(bytes) => {
                    self.pool.meter.bytes_in(bytes.len());
                    self.missing.start += bytes.len() as u64;
                    self.interrupted = None;
                    return Ok(Some((bytes, self)));
                }
                Event::End if self.missing.is_empty() => {
                    self.source.close();
                    return Ok(None);
                }
                Event::End => {
                    let short = self.broken("the answer ended before its last byte");
                    self.resume(short).await?;
                }
                Event::Failed(error) => self.resume(error).await?,
                Event::Parked => {
                    let permit = self.pool.acquire().await?;
                    self.open(permit).await?;
                }
            }
        }
    }

    /// Goes on after `error`, or returns it if that is not possible (any more).
    async fn resume(&mut self, error: object_store::Error) -> object_store::Result<()> {
        let permit = self.source.close();
        let since = *self.interrupted.get_or_insert_with(Instant::now);
        let (Some(_), Some(wait)) = (&self.e_tag, self.backoff.next(since.elapsed(), None)) else {
            return Err(StorageError::named(&self.target(), "read it", error));
        };
        let retry = self.backoff.retries();
        tracing::debug!(store = self.pool.name(), object = %self.location, %error, retry, ?wait, "a body was cut short");
        self.pool.meter.retry();
        tokio::time::sleep(wait).await;
        let permit = match permit {
            Some(permit) => permit,
            None => self.pool.acquire().await?,
        };
        self.open(permit).await
    }

    /// Asks for the missing bytes of the same version.
    async fn open(&mut self, permit: Permit) -> object_store::Result<()> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(self.missing.clone())),
            if_match: self.e_tag.clone(),
            if_none_match: None,
            if_modified_since: None,
            if_unmodified_since: None,
            ..self.options.clone()
        };
        let result = match self.store.get_opts(&self.location, options).await {
            Ok(result) => result,
            Err(object_store::Error::Precondition { .. } | object_store::Error::NotFound { .. }) => {
                let found = self.store.head(&self.location).await.ok().and_then(|meta| meta.e_tag);
                return Err(self.changed(found));
            }
            Err(error) => return Err(StorageError::named(&self.target(), "read it", error)),
        };
        if result.meta.e_tag != self.e_tag {
            return Err(self.changed(result.meta.e_tag));
        }
        if result.range != self.missing {
            return Err(self.broken("another range arrived than was asked for"));
        }
        self.source.open(result.into_stream(), permit);
        Ok(())
    }

    fn target(&self) -> String {
        format!("{}/{}", self.pool.name(), self.location)
    }

    fn changed(&self, found: Option<String>) -> object_store::Error {
        StorageError::Changed { target: self.target(), expected: self.e_tag.clone(), found }.into()
    }

    fn broken(&self, what: &'static str) -> object_store::Error {
        StorageError::BrokenBody { target: self.target(), what, missing: self.missing.clone() }.into()
    }
}

impl Source {
    fn poll(&self, context: &mut Context<'_>) -> Poll<Event> {
        let mut state = self.lock();
        let State::Open { bytes, unread_since, .. } = &mut *state else {
            return Poll::Ready(match *state {
                State::Parked => Event::Parked,
                _ => Event::End,
            });
        };
        let polled = bytes.poll_next_unpin(context);
        // While the reader waits for bytes the permit is in use; once it has them, it may take its time.
        *unread_since = polled.is_ready().then(Instant::now);
        polled.map(|next| match next {
            Some(Ok(bytes)) => Event::Bytes(bytes),
            Some(Err(error)) => Event::Failed(error),
            None => Event::End,
        })
    }

    fn open(&self, bytes: BoxStream<'static, object_store::Result<Bytes>>, permit: Permit) {
        *self.lock() = State::Open { bytes, _permit: permit, unread_since: Some(Instant::now()) };
    }

    /// Ends the request; its permit is returned, for whoever wants to ask again.
    fn close(&self) -> Option<Permit> {
        match std::mem::replace(&mut *self.lock(), State::Closed) {
            State::Open { _permit, .. } => Some(_permit),
            State::Parked | State::Closed => None,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder for Source {
    fn release_if_idle_since(&self, before: Instant) -> bool {
        // Locked means that it is being read.
        let Ok(mut state) = self.0.try_lock() else { return false };
        let idle = matches!(&*state, State::Open { unread_since: Some(since), .. } if *since <= before);
        if idle {
            *state = State::Parked;
        }
        idle
    }
}
