//! Permits: who may have a request in flight at one store, in which order, and for how long one waits.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::storage::adaptive::Limiter;
use crate::storage::status::Meter;
use crate::storage::{PoolMode, PoolOptions, PoolStatus, Result, StorageError};

/// How often a waiter looks for permits that nobody is using.
const LOOK_FOR_IDLE: Duration = Duration::from_millis(50);
/// How long a permit must have been idle to be taken away.
const IDLE: Duration = Duration::from_millis(200);

/// The permits of one store.
///
/// 1. Never are more than `size + max_overflow` permits out; fewer where the pool is adaptive and the store is slow.
/// 2. Whoever waits is served in the order of asking, and waits no longer than `timeout`.
/// 3. A permit comes back when it is dropped.
/// 4. A permit whose holder does nothing with it ([`Holder`]) goes to those who wait, so holding one while asking for
///    another, of this pool or of a second one, ends in no deadlock.
pub(crate) struct Pool {
    name: Arc<str>,
    options: PoolOptions,
    semaphore: Arc<Semaphore>,
    capacity: Mutex<Capacity>,
    holders: Mutex<Holders>,
    started: Instant,
    pub(crate) meter: Meter,
}

struct Capacity {
    /// Permits that exist, out or not.
    issued: usize,
    /// Permits that should exist.
    wanted: usize,
    limiter: Option<Limiter>,
}

#[derive(Default)]
struct Holders {
    next: u64,
    by_id: HashMap<u64, Weak<dyn Holder>>,
}

/// Something that holds a permit over time and can do without it.
pub(crate) trait Holder: Send + Sync {
    /// Gives the permit back if it has been unused since `before`, or longer; says whether it did.
    fn release_if_idle_since(&self, before: Instant) -> bool;
}

/// The right to have one request in flight.
pub(crate) struct Permit {
    pool: Arc<Pool>,
    permit: Option<OwnedSemaphorePermit>,
}

/// Keeps a [`Holder`] known to its pool.
pub(crate) struct Holding {
    pool: Arc<Pool>,
    id: u64,
}

impl Pool {
    pub(crate) fn new(name: &str, options: PoolOptions) -> Arc<Self> {
        let limiter = match options.mode {
            PoolMode::Fixed => None,
            PoolMode::Adaptive => Some(Limiter::new(options.size, options.capacity())),
        };
        let issued = limiter.as_ref().map_or(options.capacity(), Limiter::capacity);
        let meter = Meter::new(name.into());
        meter.capacity(issued);
        Arc::new(Self {
            name: name.into(),
            semaphore: Arc::new(Semaphore::new(issued)),
            capacity: Mutex::new(Capacity { issued, wanted: issued, limiter }),
            holders: Mutex::default(),
            started: Instant::now(),
            options,
            meter,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn options(&self) -> &PoolOptions {
        &self.options
    }

    /// A permit, after those who asked before.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Result<Permit> {
        if let Some(permit) = self.at_once() {
            return Ok(permit);
        }
        let waiting = Waiting::new(self);
        let deadline = waiting.since + self.options.timeout;
        let acquire = Arc::clone(&self.semaphore).acquire_owned();
        tokio::pin!(acquire);
        loop {
            let now = Instant::now();
            tokio::select! {
                biased;
                Ok(permit) = &mut acquire => return Ok(self.permit(permit)),
                () = sleep_until(deadline.min(now + LOOK_FOR_IDLE)) => {}
            }
            if Instant::now() >= deadline {
                self.meter.timeout();
                return Err(StorageError::PoolTimeout {
                    store: self.name.to_string(),
                    waited: waiting.since.elapsed(),
                    waiters: self.meter.waiting(),
                    capacity: self.capacity(),
                });
            }
            self.release_idle_holders();
        }
    }

    /// A permit for something that can be done without: one of the steady ones, but not the last that is free.
    pub(crate) fn spare(self: &Arc<Self>) -> Option<Permit> {
        if self.meter.checked_out() + 1 >= self.options.size {
            return None;
        }
        self.at_once()
    }

    /// A permit that is free. There are such only while nobody waits: this jumps no queue.
    pub(crate) fn at_once(self: &Arc<Self>) -> Option<Permit> {
        let permit = Arc::clone(&self.semaphore).try_acquire_owned().ok()?;
        Some(self.permit(permit))
    }

    /// Makes `holder` known until the result is dropped.
    pub(crate) fn hold(self: &Arc<Self>, holder: Weak<dyn Holder>) -> Holding {
        let mut holders = lock(&self.holders);
        let id = holders.next;
        holders.next += 1;
        holders.by_id.insert(id, holder);
        Holding { pool: Arc::clone(self), id }
    }

    /// The store asked for less.
    pub(crate) fn throttled(&self) {
        self.adapt(|limiter, now, _| limiter.throttled(now));
    }

    /// The store answered a read in `latency`.
    pub(crate) fn answered(&self, latency: Duration) {
        self.adapt(|limiter, now, used_up| limiter.answered(latency, used_up, now));
    }

    /// Permits that may be out.
    pub(crate) fn capacity(&self) -> usize {
        lock(&self.capacity).wanted
    }

    pub(crate) fn status(&self) -> PoolStatus {
        self.meter.snapshot(self.options.size, self.options.max_overflow, self.capacity())
    }

    fn permit(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Permit {
        self.meter.check_out();
        Permit { pool: Arc::clone(self), permit: Some(permit) }
    }

    fn adapt(&self, change: impl FnOnce(&mut Limiter, Duration, bool)) {
        let mut capacity = lock(&self.capacity);
        let used_up = self.semaphore.available_permits() == 0;
        let Some(limiter) = &mut capacity.limiter else { return };
        change(limiter, self.started.elapsed(), used_up);
        let wanted = limiter.capacity();
        if wanted == capacity.wanted {
            return;
        }
        capacity.wanted = wanted;
        self.meter.capacity(wanted);
        if wanted > capacity.issued {
            self.semaphore.add_permits(wanted - capacity.issued);
            capacity.issued = wanted;
        } else {
            // Those that are out are withdrawn as they come back.
            capacity.issued -= self.semaphore.forget_permits(capacity.issued - wanted);
        }
    }

    /// Takes unused permits from their holders, at most one for each waiter.
    fn release_idle_holders(&self) {
        let Some(before) = Instant::now().checked_sub(IDLE) else { return };
        // Holders are not called under the lock: releasing one drops its stream.
        let holders: Vec<_> = lock(&self.holders).by_id.values().filter_map(Weak::upgrade).collect();
        let mut wanted = self.meter.waiting();
        for holder in holders {
            if wanted == 0 {
                return;
            }
            if holder.release_if_idle_since(before) {
                self.meter.park();
                wanted -= 1;
            }
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", &self.name).field("options", &self.options).finish_non_exhaustive()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        self.pool.meter.check_in();
        let mut capacity = lock(&self.pool.capacity);
        if capacity.issued > capacity.wanted {
            capacity.issued -= 1;
            permit.forget();
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        lock(&self.pool.holders).by_id.remove(&self.id);
    }
}

/// Counts a waiter for as long as it waits, however that ends.
struct Waiting<'a> {
    pool: &'a Pool,
    since: Instant,
}

impl<'a> Waiting<'a> {
    fn new(pool: &'a Pool) -> Self {
        pool.meter.begin_wait();
        Self { pool, since: Instant::now() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pool.meter.end_wait(self.since.elapsed());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
