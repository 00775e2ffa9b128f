//! Keeps a client from opening more connections than it has requests in flight.
//!
//! A permit may go to the next request a moment before the connection of the last one is back in hyper's pool. hyper then
//! begins a new connection at once, whichever comes first serves the request, and the other one stays: 15 requests in flight
//! hold 20 connections. The [`Gate`] in front of the connector waits for a connection that is about to come back, and drops
//! an attempt nobody needs any more.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};
use tower_layer::Layer;
use tower_service::Service;

/// How long a connection may take from the end of an answer until it can serve the next request.
const GRACE: Duration = Duration::from_millis(50);
/// Between looks at whether one is still expected. The request itself does not wait for this: hyper hands it the connection.
const LOOK: Duration = Duration::from_millis(1);

tokio::task_local! {
    /// Set while a request is polled. hyper finishes attempts that lost the race to a free connection in tasks of its own,
    /// in which this is not set.
    static REQUEST: ();
}

/// What is known of one client's connections. Those that were closed while idle are still counted here; that costs a
/// request a wait of [`GRACE`] if it comes right after another, and nothing otherwise.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    in_flight: usize,
    open: usize,
    answered: Option<Instant>,
}

/// A request in flight, until its answer is read.
#[derive(Debug)]
pub(crate) struct Exchange {
    ledger: Arc<Ledger>,
    reusable: bool,
}

impl Ledger {
    /// Counts a request.
    pub(crate) fn begin(self: &Arc<Self>) -> Exchange {
        self.lock().in_flight += 1;
        Exchange { ledger: Arc::clone(self), reusable: false }
    }

    /// Polls a request so that the [`Gate`] knows for whom it connects.
    pub(crate) async fn sending<T>(request: impl Future<Output = T>) -> T {
        REQUEST.scope((), request).await
    }

    /// Whether there is a connection for every request, and one has just become free.
    fn is_one_coming_back(&self) -> bool {
        let state = self.lock();
        state.open >= state.in_flight && state.answered.is_some_and(|at| at.elapsed() < GRACE)
    }

    /// A connection is begun for a request that has none: the others are at most as many as the other requests.
    fn begin_connection(self: &Arc<Self>) -> Connecting {
        let mut state = self.lock();
        state.open = state.open.min(state.in_flight.saturating_sub(1)) + 1;
        Connecting { ledger: Arc::clone(self), done: false }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exchange {
    /// The answer has been read to its end, and the connection can serve another request.
    pub(crate) fn is_over(&mut self) {
        self.reusable = true;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.ledger.lock();
        state.in_flight -= 1;
        if self.reusable {
            state.answered = Some(Instant::now());
        } else {
            state.open = state.open.saturating_sub(1);
        }
    }
}

struct Connecting {
    ledger: Arc<Ledger>,
    done: bool,
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if !self.done {
            let mut state = self.ledger.lock();
            state.open = state.open.saturating_sub(1);
        }
    }
}

/// Puts a [`Gate`] before a connector.
#[derive(Debug, Clone)]
pub(crate) struct GateLayer(pub(crate) Arc<Ledger>);

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, connector: S) -> Gate<S> {
        Gate { connector, ledger: Arc::clone(&self.0) }
    }
}

/// A connector that waits while a connection is about to come back.
#[derive(Debug, Clone)]
pub(crate) struct Gate<S> {
    connector: S,
    ledger: Arc<Ledger>,
}

/// An attempt to connect that nobody waits for any more.
#[derive(Debug, thiserror::Error)]
#[error("another connection became free")]
struct NotNeeded;

impl<S, Destination> Service<Destination> for Gate<S>
where
    S: Service<Destination, Error = Box<dyn std::error::Error + Send + Sync>> + Clone + Send + 'static,
    S::Response: Send,
    S::Future: Send,
    Destination: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, destination: Destination) -> Self::Future {
        // The clone may not be ready; the original is.
        let clone = self.connector.clone();
        let mut connector = std::mem::replace(&mut self.connector, clone);
        let ledger = Arc::clone(&self.ledger);
        async move {
            let patient_until = Instant::now() + GRACE;
            while ledger.is_one_coming_back() && Instant::now() < patient_until {
                sleep(LOOK).await;
                if REQUEST.try_with(|()| ()).is_err() {
                    return Err(NotNeeded.into());
                }
            }
            let mut connecting = ledger.begin_connection();
            let connection = connector.call(destination).await?;
            connecting.done = true;
            Ok(connection)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[derive(Clone, Default)]
    struct Connector(Arc<AtomicUsize>);

    impl Service<()> for Connector {
        type Response = ();
        type Error = Box<dyn std::error::Error + Send + Sync>;
        type Future = std::future::Ready<Result<(), Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            self.0.fetch_add(1, SeqCst);
            std::future::ready(Ok(()))
        }
    }

    fn gate() -> (Arc<Ledger>, Connector, Gate<Connector>) {
        let (ledger, connector) = (Arc::<Ledger>::default(), Connector::default());
        let gate = GateLayer(Arc::clone(&ledger)).layer(connector.clone());
        (ledger, connector, gate)
    }

    #[tokio::test]
    async fn requests_that_have_no_connection_get_one_at_once() {
        let (ledger, connector, mut gate) = gate();
        let _requests = [ledger.begin(), ledger.begin()];
        let started = Instant::now();
        Ledger::sending(gate.call(())).await.unwrap();
        Ledger::sending(gate.call(())).await.unwrap();
        assert!(started.elapsed() < GRACE);
        assert_eq!((connector.0.load(SeqCst), ledger.lock().open), (2, 2));
    }

    #[tokio::test]
    async fn no_connection_is_begun_while_one_is_coming_back_unless_it_does_not() {
        let (ledger, connector, mut gate) = gate();
        let mut first = ledger.begin();
        Ledger::sending(gate.call(())).await.unwrap();
        first.is_over();
        drop(first);
        let _second = ledger.begin();
        // hyper found the connection, and finishes the attempt elsewhere.
        let lost = gate.call(()).await.unwrap_err();
        assert!(lost.is::<NotNeeded>());
        assert_eq!(connector.0.load(SeqCst), 1);
        // It does not come back.
        let started = Instant::now();
        Ledger::sending(gate.call(())).await.unwrap();
        assert!(started.elapsed() < GRACE + Duration::from_millis(30));
        assert_eq!((connector.0.load(SeqCst), ledger.lock().open), (2, 1));
    }

    #[tokio::test]
    async fn a_connection_whose_answer_was_not_read_to_its_end_is_not_expected_back() {
        let (ledger, connector, mut gate) = gate();
        let first = ledger.begin();
        Ledger::sending(gate.call(())).await.unwrap();
        drop(first);
        let _second = ledger.begin();
        let started = Instant::now();
        Ledger::sending(gate.call(())).await.unwrap();
        assert!(started.elapsed() < GRACE);
        assert_eq!((connector.0.load(SeqCst), ledger.lock().open), (2, 1));
    }
}
