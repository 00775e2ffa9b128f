//! A listing that holds a permit exactly while a page of it may be on its way.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use object_store::{ObjectMeta, Result};

use crate::storage::pool::Permit;

/// Entries read ahead at most: a page of most stores.
const PAGE: usize = 1000;

/// A listing in pages. Entries that have arrived wait here, without a permit: whoever does something with each of them may
/// need one himself. Memory: 1000 entries.
pub(crate) struct Listing {
    entries: BoxStream<'static, Result<ObjectMeta>>,
    arrived: VecDeque<Result<ObjectMeta>>,
    ask: Box<dyn FnMut() -> BoxFuture<'static, Result<Permit>> + Send>,
    permit: Option<Permit>,
    ended: bool,
}

impl Listing {
    /// `ask` gives a permit for each page of `entries`.
    pub(crate) fn new<F>(
        entries: BoxStream<'static, Result<ObjectMeta>>,
        mut ask: impl FnMut() -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Permit>> + Send + 'static,
    {
        let ask = Box::new(move || ask().boxed());
        Self { entries, arrived: VecDeque::new(), ask, permit: None, ended: false }
    }

    pub(crate) fn into_stream(self) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::unfold(self, |mut listing| async move { listing.next().await.map(|entry| (entry, listing)) }).boxed()
    }

    async fn next(&mut self) -> Option<Result<ObjectMeta>> {
        if self.arrived.is_empty() && !self.ended {
            if self.permit.is_none() {
                match (self.ask)().await {
                    Ok(permit) => self.permit = Some(permit),
                    Err(error) => {
                        self.ended = true;
                        return Some(Err(error));
                    }
                }
            }
            self.read_page().await;
        }
        self.arrived.pop_front()
    }

    /// Waits for one entry at least, and takes those that are there with it.
    async fn read_page(&mut self) {
        let in_flight = poll_fn(|context| {
            while self.arrived.len() < PAGE {
                match self.entries.poll_next_unpin(context) {
                    Poll::Ready(Some(entry)) => self.arrived.push_back(entry),
                    Poll::Ready(None) => {
                        self.ended = true;
                        return Poll::Ready(false);
                    }
                    // The next page is on its way: the permit stays.
                    Poll::Pending if self.arrived.is_empty() => return Poll::Pending,
                    Poll::Pending => return Poll::Ready(true),
                }
            }
            Poll::Ready(false)
        })
        .await;
        if !in_flight {
            self.permit = None;
        }
    }
}
