//! The laws of the pool, against a model that is a number and a queue.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, yield_now};

use super::*;

fn options(size: usize, max_overflow: usize, timeout: Duration) -> PoolOptions {
    PoolOptions { size, max_overflow, timeout, ..PoolOptions::default() }
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_spare_permit_is_one_of_the_steady_ones_and_not_the_last() {
    let pool = Pool::new("store", options(3, 3, LONG));
    let one = pool.acquire().await.unwrap();
    let spare = pool.spare().unwrap();
    assert!(pool.spare().is_none(), "the last is for those who cannot do without, and so is the burst");
    drop(one);
    let again = pool.spare().unwrap();
    assert_eq!(pool.status().checked_out, 2);
    drop((spare, again));
    assert_eq!(pool.status().checked_out, 0);
}

/// What happens to a pool. Numbers pick one of those that are there.
#[derive(Debug, Clone)]
enum Event {
    Ask,
    Release(usize),
    GiveUp(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Ask),
        2 => any::<usize>().prop_map(Event::Release),
        1 => any::<usize>().prop_map(Event::GiveUp),
    ]
}

/// Those who ask for permits of one pool, and the model of who should have one.
struct Askers {
    pool: Arc<Pool>,
    asked: usize,
    tasks: BTreeMap<usize, AbortHandle>,
    serve: mpsc::UnboundedSender<(usize, Permit)>,
    served: mpsc::UnboundedReceiver<(usize, Permit)>,
    permits: BTreeMap<usize, Permit>,
    model_holding: Vec<usize>,
    model_waiting: VecDeque<usize>,
}

impl Askers {
    fn new(pool: Arc<Pool>) -> Self {
        let (serve, served) = mpsc::unbounded_channel();
        Self {
            pool,
            asked: 0,
            tasks: BTreeMap::new(),
            serve,
            served,
            permits: BTreeMap::new(),
            model_holding: Vec::new(),
            model_waiting: VecDeque::new(),
        }
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Ask => {
                let (id, pool, serve) = (self.asked, Arc::clone(&self.pool), self.serve.clone());
                self.asked += 1;
                let task = tokio::spawn(async move {
                    let permit = pool.acquire().await.unwrap();
                    serve.send((id, permit)).unwrap();
                });
                self.tasks.insert(id, task.abort_handle());
                self.model_waiting.push_back(id);
            }
            Event::Release(pick) if !self.model_holding.is_empty() => {
                let id = self.model_holding.remove(pick % self.model_holding.len());
                drop(self.permits.remove(&id).unwrap());
            }
            Event::GiveUp(pick) if !self.model_waiting.is_empty() => {
                let id = self.model_waiting.remove(pick % self.model_waiting.len()).unwrap();
                self.tasks[&id].abort();
            }
            Event::Release(_) | Event::GiveUp(_) => {}
        }
        while self.model_holding.len() < self.pool.capacity() {
            let Some(id) = self.model_waiting.pop_front() else { break };
            self.model_holding.push(id);
        }
    }

    async fn settle(&mut self) {
        for _ in 0..8 {
            yield_now().await;
        }
        while let Ok((id, permit)) = self.served.try_recv() {
            self.permits.insert(id, permit);
        }
    }
}

fn in_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn permits_are_bounded_served_in_order_and_come_back_when_dropped(
        size in 1_usize..4,
        overflow in 0_usize..4,
        events in prop::collection::vec(event(), 1..60),
    ) {
        in_runtime(async {
            let mut askers = Askers::new(Pool::new("memory://", options(size, overflow, LONG)));
            for event in &events {
                askers.happen(event);
                askers.settle().await;
                let holding: Vec<usize> = askers.permits.keys().copied().collect();
                let mut expected = askers.model_holding.clone();
                expected.sort_unstable();
                prop_assert_eq!(&holding, &expected, "after {:?}", event);
                let status = askers.pool.status();
                prop_assert_eq!(status.checked_out, expected.len());
                prop_assert!(status.checked_out <= size + overflow);
                prop_assert_eq!(status.idle, size.saturating_sub(expected.len()));
                prop_assert_eq!(status.overflow, expected.len().saturating_sub(size));
                prop_assert_eq!(status.waiting, askers.model_waiting.len());
            }
            Ok(())
        })?;
    }

    #[test]
    fn an_adaptive_pool_never_lets_out_more_than_it_allows_at_the_moment(
        size in 1_usize..6,
        overflow in 0_usize..6,
        events in prop::collection::vec((event(), any::<Option<bool>>()), 1..80),
    ) {
        in_runtime(async {
            let adaptive = PoolOptions { mode: PoolMode::Adaptive, ..options(size, overflow, LONG) };
            let mut askers = Askers::new(Pool::new("memory://", adaptive));
            for (event, signal) in &events {
                match signal {
                    Some(true) => askers.pool.throttled(),
                    Some(false) => askers.pool.answered(Duration::from_millis(1)),
                    None => {}
                }
                let before = askers.permits.len();
                askers.happen(event);
                askers.settle().await;
                let (held, allowed) = (askers.permits.len(), askers.pool.capacity());
                prop_assert!((1..=size + overflow).contains(&allowed));
                // Those that were out when the capacity fell stay out; no new ones join them.
                prop_assert!(held <= allowed.max(before), "{held} of {allowed}, {before} before");
                askers.model_holding = askers.permits.keys().copied().collect();
                askers.model_waiting.retain(|id| !askers.permits.contains_key(id));
                prop_assert!(held >= allowed || askers.model_waiting.is_empty(), "a free permit while one waits");
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_wait_ends_with_an_error_within_a_tenth_of_the_timeout_whenever_it_began() {
    let timeout = Duration::from_secs(1);
    let pool = Pool::new("s3://bucket", options(1, 0, timeout));
    let _held = pool.acquire().await.unwrap();
    let waits = (0..10).map(|waiter| {
        let pool = Arc::clone(&pool);
        async move {
            tokio::time::sleep(Duration::from_millis(37 * waiter)).await;
            let started = Instant::now();
            let Err(error) = pool.acquire().await else { panic!("there was no permit") };
            (started.elapsed(), error.to_string())
        }
    });
    for (waited, error) in futures::future::join_all(waits).await {
        assert!(waited >= timeout && waited <= timeout.mul_f64(1.1), "{waited:?}");
        assert!(error.starts_with("s3://bucket: no free connection after 1"), "{error}");
        assert!(error.contains("(capacity 1, ") && error.contains(" waiting); raise pool_size"), "{error}");
    }
    let status = pool.status();
    assert_eq!((status.timeouts, status.waits, status.waiting), (10, 10, 0));
    assert!((status.wait_seconds.sum - 10.0).abs() < 1.0);
}

#[tokio::test]
async fn a_waiter_gets_the_permit_of_a_holder_that_does_nothing_with_it() {
    struct Idler(Mutex<Option<Permit>>, Instant);
    impl Holder for Idler {
        fn release_if_idle_since(&self, before: Instant) -> bool {
            self.1 <= before && lock(&self.0).take().is_some()
        }
    }

    let pool = Pool::new("memory://", options(1, 0, LONG));
    let permit = pool.acquire().await.unwrap();
    let idler: Arc<dyn Holder> = Arc::new(Idler(Mutex::new(Some(permit)), Instant::now()));
    let _holding = pool.hold(Arc::downgrade(&idler));
    let started = Instant::now();
    let _second = pool.acquire().await.unwrap();
    assert!(started.elapsed() >= IDLE - Duration::from_millis(5), "{:?}", started.elapsed());
    assert_eq!(pool.status().parked, 1);
}
