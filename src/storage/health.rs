//! Checks a store that was idle for long before real work meets a dead connection, and one that is new along with its first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures::future::join;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::storage::http::Wire;
use crate::storage::pool::Pool;

/// After so long without a request a connection may have been dropped by something in between, silently.
const IDLE_FOR_LONG: Duration = Duration::from_secs(60);
/// How long a living store may take to answer a ping.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// When a store was last used that never was.
const NEVER: u64 = 0;
/// Asked for by pings; nobody expects it to exist.
pub(crate) const NAME: &str = ".normstream-ping";

/// Marks a request as a ping: it is sent once, whatever comes of it, and told when an answer arrives.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ping(Arc<AtomicBool>);

impl Ping {
    /// Somebody is there, who may have said no.
    pub(crate) fn answered(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether somebody was there.
    pub(crate) fn is_answered(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// A HEAD of something, marked as this ping.
    pub(crate) fn request(&self) -> GetOptions {
        let mut options = GetOptions { head: true, ..GetOptions::default() };
        options.extensions.insert(self.clone());
        options
    }
}

/// When a store was last in use, and whether that is too long ago.
///
/// A ping never fails the request it goes before: when it gets no answer, no connection of before is used any more, and the request
/// goes over a new one, with its own retries.
pub(crate) struct Health {
    pool: Arc<Pool>,
    wire: Arc<Wire>,
    started: Instant,
    /// Milliseconds after `started`, plus one; or [`NEVER`].
    last_used: AtomicU64,
    pinging: Mutex<()>,
}

impl Health {
    pub(crate) fn new(pool: Arc<Pool>, wire: Arc<Wire>) -> Self {
        Self { pool, wire, started: Instant::now(), last_used: AtomicU64::new(0), pinging: Mutex::const_new(()) }
    }

    /// Does `request`, for which there is a permit, with the check that is due.
    ///
    /// A store that was idle for long is pinged before: by one of those who ask, while the others wait. One that is new has no
    /// connection that could be dead: it is pinged beside its first requests, and their answers wait for that.
    pub(crate) async fn checked<T>(&self, store: &dyn ObjectStore, request: impl Future<Output = T>) -> T {
        if self.is_idle_for_long() {
            let _one = self.pinging.lock().await;
            if self.is_idle_for_long() {
                self.ping_twice(store).await;
            }
        }
        let first = self.pinging.try_lock().ok().filter(|_| self.last_used.load(Relaxed) == NEVER);
        self.touch();
        let Some(first) = first else {
            let done = request.await;
            let _one = self.pinging.lock().await;
            return done;
        };
        let Some(permit) = self.pool.at_once() else {
            self.ping_twice(store).await;
            drop(first);
            return request.await;
        };
        let ping = async {
            self.ping_twice(store).await;
            drop((first, permit));
        };
        join(request, ping).await.0
    }

    /// Pings `store`, and if it gives no answer, once more over a new connection.
    async fn ping_twice(&self, store: &dyn ObjectStore) {
        if !self.ping(store).await {
            self.wire.distrust();
            self.ping(store).await;
        }
    }

    /// Whether `store` gives any answer at all.
    async fn ping(&self, store: &dyn ObjectStore) -> bool {
        let ping = Ping::default();
        // What the answer is does not matter.
        let _ = timeout(PATIENCE, store.get_opts(&Path::from(NAME), ping.request())).await;
        let alive = ping.is_answered();
        self.pool.meter.ping(alive);
        tracing::debug!(store = self.pool.name(), alive, "ping");
        alive
    }

    fn is_idle_for_long(&self) -> bool {
        match self.last_used.load(Relaxed) {
            NEVER => false,
            used => self.started.elapsed().saturating_sub(Duration::from_millis(used)) >= IDLE_FOR_LONG,
        }
    }

    fn touch(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.last_used.store(now + 1, Relaxed);
    }
}
