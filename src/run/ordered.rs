//! Parts worked on in parallel, and what they give taken in the order of the parts.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::future::maybe_done;
use futures::poll;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use crate::run::RunError;

/// How much a part may give before its turn.
const GIVEN_AHEAD: usize = 2;

/// Where the work on a part leaves what it gives. Clones are the same place.
pub(super) struct PartSink<T> {
    given: mpsc::UnboundedSender<Given<T>>,
    room: Arc<Semaphore>,
}

impl<T> Clone for PartSink<T> {
    fn clone(&self) -> Self {
        PartSink { given: self.given.clone(), room: Arc::clone(&self.room) }
    }
}

/// What a part gave, and the room that it takes until it is taken.
struct Given<T>(What<T>, Option<OwnedSemaphorePermit>);

enum What<T> {
    Made(Result<T, RunError>),
    InTheMaking(JoinHandle<Result<T, RunError>>),
}

impl<T: Send + 'static> PartSink<T> {
    /// Leaves what comes next in this part; waits while there is no room. `false` if nobody will take it: the run has ended,
    /// and the work should.
    pub(super) async fn send(&self, given: T) -> bool {
        self.leave(|| What::Made(Ok(given))).await
    }

    /// Leaves what `make` will give, which runs at the same time as the rest of the work, on any thread; otherwise as
    /// [`PartSink::send`].
    pub(super) async fn send_made_by(&self, make: impl FnOnce() -> Result<T, RunError> + Send + 'static) -> bool {
        self.leave(|| What::InTheMaking(tokio::spawn(async { make() }))).await
    }

    /// Whether anybody will take what is left here.
    pub(super) fn is_open(&self) -> bool {
        !self.given.is_closed()
    }

    async fn leave(&self, what: impl FnOnce() -> What<T>) -> bool {
        // The semaphore is never closed: work whose run has ended is stopped while it waits.
        let Ok(room) = Arc::clone(&self.room).acquire_owned().await else { return false };
        self.is_open() && self.given.send(Given(what(), Some(room))).is_ok()
    }
}

/// Parts at work, at most a number of them at once.
///
/// Work begins in the order of parts, so the part whose turn it is never waits for another; a part ahead of its turn leaves
/// [`GIVEN_AHEAD`] and waits, the one whose turn it is may have as much again in the making as there are threads. Of all parts, at
/// most twice as many as are worked on at once are begun and not taken to their end. Dropped, it stops all work.
pub(super) struct OrderedParts<T, P, B> {
    parts: P,
    begin: B,
    at_once: usize,
    turns: Arc<Semaphore>,
    /// Parts begun and not taken to their end, in order.
    begun: VecDeque<Begun<T>>,
    workers: JoinSet<()>,
}

struct Begun<T> {
    given: mpsc::UnboundedReceiver<Given<T>>,
    room: Arc<Semaphore>,
    has_its_turn: bool,
}

impl<T, P, B, W> OrderedParts<T, P, B>
where
    T: Send + 'static,
    P: Iterator,
    B: FnMut(P::Item, PartSink<T>) -> Result<W, RunError>,
    W: Future<Output = Result<(), RunError>> + Send + 'static,
{
    /// `begin` makes the work on a part: a future that leaves all the part gives in its sink. `at_once` is at least 1.
    pub(super) fn new(at_once: usize, parts: P, begin: B) -> Self {
        let at_once = at_once.max(1);
        OrderedParts {
            parts,
            begin,
            at_once,
            turns: Arc::new(Semaphore::new(at_once)),
            begun: VecDeque::new(),
            workers: JoinSet::new(),
        }
    }

    /// What comes next; `None` after the last part. An error of a part comes in its turn; after one, drop this.
    pub(super) async fn next(&mut self) -> Result<Option<T>, RunError> {
        loop {
            while self.begun.len() < 2 * self.at_once
                && let Some(part) = self.parts.next()
            {
                self.begin(part).await?;
            }
            let Some(first) = self.begun.front_mut() else { break };
            if !std::mem::replace(&mut first.has_its_turn, true) {
                first.room.add_permits(self.at_once);
            }
            match first.given.recv().await {
                Some(Given(What::Made(given), _room)) => return given.map(Some),
                Some(Given(What::InTheMaking(given), _room)) => {
                    return given.await.map_err(|_| RunError::Worker)?.map(Some);
                }
                None => self.begun.pop_front(),
            };
            // A worker that panicked closed its channel early: the part may be incomplete.
            while let Some(ended) = self.workers.try_join_next() {
                ended.map_err(|_| RunError::Worker)?;
            }
        }
        while let Some(ended) = self.workers.join_next().await {
            ended.map_err(|_| RunError::Worker)?;
        }
        Ok(None)
    }

    async fn begin(&mut self, part: P::Item) -> Result<(), RunError> {
        let (sender, given) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(GIVEN_AHEAD));
        let errors = sender.clone();
        let work = (self.begin)(part, PartSink { given: sender, room: Arc::clone(&room) })?;
        // The semaphore is fair to those who wait, and waiting begins with the first poll. That is here and not in the new task:
        // tasks may be polled in any order, and a later part could hold a permit while it waits for an earlier one without.
        let mut turn = Box::pin(maybe_done(Arc::clone(&self.turns).acquire_owned()));
        let _ = poll!(turn.as_mut());
        self.workers.spawn(async move {
            turn.as_mut().await;
            let _permit = turn.as_mut().take_output();
            if let Err(error) = work.await {
                // The receiver is gone only when the run has ended already.
                let _ = errors.send(Given(What::Made(Err(error)), None));
            }
        });
        self.begun.push_back(Begun { given, room, has_its_turn: false });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// Takes everything that parts of `lengths` give, each number being part and place.
    async fn take_all(at_once: usize, lengths: &[usize], pause: fn(usize) -> Duration) -> Vec<(usize, usize)> {
        let parts = lengths.iter().copied().enumerate();
        let mut given = OrderedParts::new(at_once, parts, |(part, length), sink: PartSink<(usize, usize)>| {
            Ok(async move {
                for place in 0..length {
                    tokio::time::sleep(pause(part)).await;
                    sink.send((part, place)).await;
                }
                Ok(())
            })
        });
        let mut taken = Vec::new();
        while let Some(given) = given.next().await.unwrap() {
            taken.push(given);
        }
        taken
    }

    fn expected(lengths: &[usize]) -> Vec<(usize, usize)> {
        let parts = lengths.iter().enumerate();
        parts.flat_map(|(part, &length)| (0..length).map(move |place| (part, place))).collect()
    }

    #[tokio::test]
    async fn what_parts_give_comes_in_the_order_of_parts_whichever_is_quicker() {
        let lengths = [3, 0, 5, 1, 9];
        let slow_first = |part| Duration::from_millis(5 - part as u64);
        assert_eq!(take_all(3, &lengths, slow_first).await, expected(&lengths));
        assert_eq!(take_all(1, &[], slow_first).await, []);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn parts_that_give_more_than_may_wait_never_block_those_before_them() {
        let lengths = [20; 60];
        for at_once in [1, 2, 3] {
            let all = take_all(at_once, &lengths, |_| Duration::ZERO);
            let taken = tokio::time::timeout(Duration::from_secs(30), all).await.unwrap();
            assert_eq!(taken, expected(&lengths));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn what_is_made_at_the_same_time_comes_in_order_too() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut given = OrderedParts::new(3, 0..5, |part, sink: PartSink<(usize, usize)>| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            Ok(async move {
                for place in 0..20 {
                    let (now, most) = (Arc::clone(&now), Arc::clone(&most));
                    sink.send_made_by(move || {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(1));
                        now.fetch_sub(1, Ordering::SeqCst);
                        Ok((part, place))
                    })
                    .await;
                }
                Ok(())
            })
        });
        let mut taken = Vec::new();
        while let Some(given) = given.next().await.unwrap() {
            taken.push(given);
        }
        assert_eq!(taken, expected(&[20; 5]));
        assert!(most.load(Ordering::SeqCst) > 1, "one after the other");
    }

    #[tokio::test]
    async fn an_error_or_a_panic_in_the_making_comes_in_its_place() {
        for panics in [false, true] {
            let mut given = OrderedParts::new(1, 0..1, |_, sink: PartSink<usize>| {
                Ok(async move {
                    sink.send_made_by(|| Ok(1)).await;
                    sink.send_made_by(move || if panics { panic!("on purpose") } else { Err(RunError::BrokenPipe) })
                        .await;
                    Ok(())
                })
            });
            assert_eq!(given.next().await.unwrap(), Some(1));
            match given.next().await {
                Err(RunError::Worker) => assert!(panics),
                Err(RunError::BrokenPipe) => assert!(!panics),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_part_ahead_of_its_turn_gives_a_little_and_waits() {
        let begun = Arc::new(AtomicUsize::new(0));
        let release = Arc::new(Semaphore::new(0));
        let mut given = OrderedParts::new(2, 0..2, |part, sink: PartSink<usize>| {
            let (begun, release) = (Arc::clone(&begun), Arc::clone(&release));
            Ok(async move {
                if part == 0 {
                    release.acquire().await.unwrap().forget();
                }
                for _ in 0..100 {
                    begun.fetch_add(part, Ordering::SeqCst);
                    sink.send(part).await;
                }
                Ok(())
            })
        });
        let first = tokio::time::timeout(Duration::from_millis(20), given.next()).await;
        assert!(first.is_err(), "the first part gives nothing yet");
        assert_eq!(begun.load(Ordering::SeqCst), GIVEN_AHEAD + 1, "the last one waits for room");
        release.add_permits(1);
        let mut count = 0;
        while given.next().await.unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, 200);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_more_parts_are_worked_on_at_once_than_allowed() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut given = OrderedParts::new(3, 0..40, |part, sink: PartSink<usize>| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            Ok(async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(1)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                sink.send(part).await;
                Ok(())
            })
        });
        while given.next().await.unwrap().is_some() {}
        assert_eq!(most.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn an_error_comes_after_what_its_part_and_those_before_gave() {
        let mut given = OrderedParts::new(2, 0..9, |part, sink: PartSink<usize>| {
            Ok(async move {
                sink.send(part).await;
                if part == 1 { Err(RunError::BrokenPipe) } else { Ok(()) }
            })
        });
        assert_eq!(given.next().await.unwrap(), Some(0));
        assert_eq!(given.next().await.unwrap(), Some(1));
        assert!(matches!(given.next().await, Err(RunError::BrokenPipe)));
    }

    #[tokio::test]
    async fn a_panic_ends_the_run_with_an_error() {
        let mut given = OrderedParts::new(2, 0..9, |part, sink: PartSink<usize>| {
            Ok(async move {
                assert_ne!(part, 3, "a panic on purpose");
                sink.send(part).await;
                Ok(())
            })
        });
        let mut taken = 0;
        let ended = loop {
            match given.next().await {
                Ok(Some(_)) => taken += 1,
                ended => break ended,
            }
        };
        assert!(matches!(ended, Err(RunError::Worker)));
        assert!(taken < 9);
    }

    #[tokio::test]
    async fn dropped_it_stops_the_work() {
        let ended = Arc::new(AtomicUsize::new(0));
        let mut given = OrderedParts::new(2, 0..9, |part, sink: PartSink<usize>| {
            let ended = Arc::clone(&ended);
            Ok(async move {
                while sink.send(part).await {}
                ended.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
        });
        assert_eq!(given.next().await.unwrap(), Some(0));
        drop(given);
        tokio::time::sleep(Duration::from_millis(20)).await;
        // No work went on to another part, and none is left that could.
        assert_eq!(Arc::strong_count(&ended), 1);
    }
}
