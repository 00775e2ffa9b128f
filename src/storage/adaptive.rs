//! How many requests a pool lets out at once when capacity follows the store: additive increase, multiplicative decrease.
//! Arithmetic only: no clock, no locks, no permits.

use std::time::Duration;

/// What throttling leaves of the capacity.
const AFTER_THROTTLING: f64 = 0.5;
/// What an answer that is much too slow leaves of it.
const AFTER_SLOWNESS: f64 = 0.9;
/// How many times the usual latency is much too slow.
const SLOW: u32 = 4;
/// Latency is compared with the least of this period and the one before.
const PERIOD: Duration = Duration::from_secs(60);
/// After a decrease the answers to requests sent before it say nothing new for this long.
const SETTLING: Duration = Duration::from_millis(200);

/// The capacity of one pool. Times are since any fixed moment, and never go back.
///
/// 1. The capacity is always between 1 and `most`.
/// 2. It grows by one for as many good answers as it is, and only while it is used up.
#[derive(Debug)]
pub(crate) struct Limiter {
    most: f64,
    capacity: f64,
    decreased_at: Option<Duration>,
    period_started: Duration,
    least_before: Option<Duration>,
    least: Option<Duration>,
}

impl Limiter {
    /// Starts with room for `size` requests.
    pub(crate) fn new(size: usize, most: usize) -> Self {
        let (capacity, most) = (size as f64, most as f64);
        Self { most, capacity, decreased_at: None, period_started: Duration::ZERO, least_before: None, least: None }
    }

    /// Requests that may be in flight.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// The store asked for less.
    pub(crate) fn throttled(&mut self, now: Duration) {
        self.decrease(AFTER_THROTTLING, now);
    }

    /// The store answered in `latency`; `used_up` says whether all capacity was in use.
    pub(crate) fn answered(&mut self, latency: Duration, used_up: bool, now: Duration) {
        if now.saturating_sub(self.period_started) >= PERIOD {
            self.period_started = now;
            self.least_before = self.least.take();
        }
        self.least = Some(self.least.map_or(latency, |least| least.min(latency)));
        let usual = self.least_before.into_iter().chain(self.least).min().unwrap_or(latency);
        if latency > usual.saturating_mul(SLOW) + Duration::from_millis(10) {
            self.decrease(AFTER_SLOWNESS, now);
        } else if used_up {
            self.capacity = (self.capacity + 1.0 / self.capacity).min(self.most);
        }
    }

    fn decrease(&mut self, factor: f64, now: Duration) {
        if self.decreased_at.is_some_and(|at| now.saturating_sub(at) < SETTLING) {
            return;
        }
        self.decreased_at = Some(now);
        self.capacity = (self.capacity * factor).max(1.0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAST: Duration = Duration::from_millis(20);

    #[test]
    fn throttling_halves_the_capacity_once_for_all_requests_it_meets() {
        let mut limiter = Limiter::new(12, 15);
        limiter.throttled(Duration::from_secs(1));
        limiter.throttled(Duration::from_millis(1100));
        assert_eq!(limiter.capacity(), 6);
        limiter.throttled(Duration::from_secs(2));
        assert_eq!(limiter.capacity(), 3);
        for second in 3..10 {
            limiter.throttled(Duration::from_secs(second));
        }
        assert_eq!(limiter.capacity(), 1);
    }

    #[test]
    fn good_answers_raise_the_capacity_by_one_a_round_while_it_is_used_up() {
        let mut limiter = Limiter::new(5, 15);
        for _ in 0..100 {
            limiter.answered(FAST, false, Duration::ZERO);
        }
        assert_eq!(limiter.capacity(), 5);
        for _ in 0..6 {
            limiter.answered(FAST, true, Duration::ZERO);
        }
        assert_eq!(limiter.capacity(), 6);
        for _ in 0..1000 {
            limiter.answered(FAST, true, Duration::ZERO);
        }
        assert_eq!(limiter.capacity(), 15);
    }

    #[test]
    fn answers_that_become_much_slower_lower_the_capacity() {
        let mut limiter = Limiter::new(10, 15);
        limiter.answered(FAST, true, Duration::ZERO);
        for second in 1..20 {
            limiter.answered(FAST * 20, true, Duration::from_secs(second));
        }
        assert!(limiter.capacity() <= 2, "{}", limiter.capacity());
    }

    #[test]
    fn what_is_slow_for_two_periods_is_the_usual_latency() {
        let mut limiter = Limiter::new(2, 15);
        limiter.answered(FAST, true, Duration::ZERO);
        for second in (0..240).step_by(2) {
            limiter.answered(FAST * 20, true, Duration::from_secs(second));
        }
        assert!(limiter.capacity() > 5, "{}", limiter.capacity());
    }

    proptest! {
        #[test]
        fn the_capacity_stays_between_one_and_the_most(
            size in 1_usize..=50,
            overflow in 0_usize..=100,
            events in prop::collection::vec((any::<bool>(), 0_u64..5000, any::<bool>(), 0_u64..500), 0..200),
        ) {
            let mut limiter = Limiter::new(size, size + overflow);
            let mut now = Duration::ZERO;
            for (throttled, latency, used_up, step) in events {
                now += Duration::from_millis(step);
                match throttled {
                    true => limiter.throttled(now),
                    false => limiter.answered(Duration::from_millis(latency), used_up, now),
                }
                prop_assert!((1..=size + overflow).contains(&limiter.capacity()));
            }
        }
    }
}
