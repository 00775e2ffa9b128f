//! Slots over simulated years, and two schedulers on one target.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;
use normstream::export::schedule::{Clock, Event, Schedule, Scheduler};
use normstream::export::{Outcome, Overlap};
use tokio::sync::watch;

use super::{at, exporter_at, job};
use crate::support::postgres::Cluster;

/// A step of real time that meets every slot and every change of a clock in these zones.
const STEP: i64 = 5;

/// What a zone's wall clock shows at each step of real time, in minutes since the epoch as if it were UTC.
fn shown(zone: Tz, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<(DateTime<Utc>, i64)> {
    let steps = std::iter::successors(Some(from), |now| Some(*now + TimeDelta::minutes(STEP)));
    let wall = |now: &DateTime<Utc>| now.with_timezone(&zone).naive_local().and_utc().timestamp() / 60;
    steps.take_while(|now| *now <= to).map(|now| (now, wall(&now))).collect()
}

/// When slots fall due, the other way round from how they are found: real time goes on step by step, and a slot is due when
/// the wall clock shows it, or has gone past it, for the first time.
fn reckoned(shown: &[(DateTime<Utc>, i64)], minutes_of_day: &[i64]) -> Vec<DateTime<Utc>> {
    let mut furthest = shown[0].1;
    let mut due = Vec::new();
    for (now, wall) in &shown[1..] {
        let mut passed = furthest + 1..=*wall;
        if passed.any(|minute| minutes_of_day.contains(&minute.rem_euclid(24 * 60))) {
            due.push(*now);
        }
        furthest = furthest.max(*wall);
    }
    due
}

#[test]
fn ten_years_of_slots_in_five_zones_agree_with_an_independent_reckoning() {
    let zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Sao_Paulo"];
    // Within the hours at which clocks are put forward or back in these zones, and outside them.
    let schedules: [(&str, &[i64]); 4] = [
        ("0 3 * * *", &[180]),
        ("15,45 0-2 * * *", &[15, 45, 75, 105, 135, 165]),
        ("30 2 * * *", &[150]),
        ("10 14 * * *", &[850]),
    ];
    let (from, to) = (at("2015-01-01"), at("2025-01-01"));
    for zone in zones {
        let shown = shown(zone.parse().unwrap(), from, to);
        for (expression, minutes) in schedules {
            let schedule = Schedule::new(expression, zone).unwrap();
            let slots = schedule.between(from, to);
            assert_eq!(slots, reckoned(&shown, minutes), "{zone} {expression}");
            assert!(slots.windows(2).all(|pair| pair[0] < pair[1]), "{zone} {expression}");
            for pair in slots.windows(2).step_by(7) {
                assert_eq!(schedule.last_until(pair[1] - TimeDelta::seconds(1)), Some(pair[0]), "{zone} {expression}");
            }
        }
    }
}

#[test]
fn days_of_months_and_weeks_are_those_of_the_calendar() {
    let slots = |expression: &str| {
        let schedule = Schedule::new(expression, "Europe/Berlin").unwrap();
        schedule.between(at("2024-01-01"), at("2026-01-01")).len()
    };
    let days = |wanted: fn(NaiveDate) -> bool| {
        let first = NaiveDate::from_ymd_opt(2024, 1, 1).unwrap();
        first.iter_days().take(731).filter(|day| wanted(*day)).count()
    };
    use chrono::Datelike;
    assert_eq!(slots("0 3 * * 1-5"), days(|day| day.weekday().number_from_monday() <= 5));
    assert_eq!(slots("0 3 29 2 *"), 1);
    assert_eq!(slots("0 3 1 */3 *"), 8);
    // As cron has it: of a day of the month and a day of the week either will do.
    assert_eq!(slots("0 3 13 * 5"), days(|day| day.day() == 13 || day.weekday() == chrono::Weekday::Fri));
}

/// A clock that goes when it is told to.
#[derive(Debug)]
pub struct HandClock {
    time: watch::Sender<DateTime<Utc>>,
    sleepers: AtomicUsize,
}

impl HandClock {
    pub fn at(time: DateTime<Utc>) -> Arc<Self> {
        Arc::new(Self { time: watch::Sender::new(time), sleepers: AtomicUsize::new(0) })
    }

    pub fn set(&self, time: DateTime<Utc>) {
        self.time.send_replace(time);
    }
}

#[async_trait]
impl Clock for HandClock {
    fn now(&self) -> DateTime<Utc> {
        *self.time.borrow()
    }

    async fn sleep_until(&self, instant: DateTime<Utc>) {
        self.sleepers.fetch_add(1, SeqCst);
        let _ = self.time.subscribe().wait_for(|now| *now >= instant).await;
        self.sleepers.fetch_sub(1, SeqCst);
    }
}

/// Schedulers of one export on one clock, and what they tell.
struct Schedulers {
    clock: Arc<HandClock>,
    stop: watch::Sender<bool>,
    told: Arc<Mutex<Vec<Event>>>,
    running: Vec<tokio::task::JoinHandle<()>>,
}

impl Schedulers {
    fn start(count: usize, now: DateTime<Utc>, job: &normstream::export::ExportJob) -> Self {
        let clock = HandClock::at(now);
        let stop = watch::Sender::new(false);
        let told = Arc::new(Mutex::new(Vec::new()));
        let running = (0..count).map(|_| {
            let events = Arc::clone(&told);
            let tell = Arc::new(move |event| events.lock().unwrap().push(event));
            let scheduler = Scheduler::new(exporter_at(Arc::clone(&clock) as Arc<dyn Clock>), vec![job.clone()], tell);
            let stopped = stop.subscribe();
            tokio::spawn(async move { scheduler.run(stopped).await })
        });
        let running = running.collect();
        Self { clock, stop, told, running }
    }

    /// Waits until a slot has been committed, and all schedulers wait for the next.
    async fn ran(&self, slot: DateTime<Utc>) {
        let committed = |event: &Event| matches!(event, Event::Finished { slot: of, outcome: Outcome::Committed(_), .. } if *of == slot);
        let started = std::time::Instant::now();
        while !self.told.lock().unwrap().iter().any(committed) || self.clock.sleepers.load(SeqCst) < self.running.len()
        {
            assert!(started.elapsed().as_secs() < 30, "{slot}: {:?}", self.told.lock().unwrap().last());
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    async fn stop(self) -> Vec<Event> {
        self.stop.send_replace(true);
        for running in self.running {
            running.await.unwrap();
        }
        Arc::into_inner(self.told).unwrap().into_inner().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_schedulers_on_one_target_run_each_of_200_slots_once() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    let mut job = job(&url, "SELECT :run_at AS slot");
    job.schedule = Some(Schedule::new("*/15 * * * *", "Australia/Lord_Howe").unwrap());
    let start = at("2024-04-06T12:00:00Z");
    let slots = job.schedule.as_ref().unwrap().between(start, start + TimeDelta::days(4));
    let slots = &slots[..200];
    let mut outcomes = BTreeMap::new();
    for (overlap, part) in [(Overlap::Skip, &slots[..100]), (Overlap::Queue, &slots[100..])] {
        job.overlap = overlap;
        let first = part[0] - TimeDelta::minutes(1);
        // The slot before the first is due at once to an export that never ran, and done to one that did.
        let schedulers = Schedulers::start(2, first, &job);
        if overlap == Overlap::Skip {
            schedulers.ran(start).await;
        }
        for slot in part {
            schedulers.clock.set(*slot);
            schedulers.ran(*slot).await;
        }
        for event in schedulers.stop().await {
            let kind = match event {
                Event::Finished { outcome: Outcome::Committed(_), .. } => "committed",
                Event::Finished { .. } => "done before",
                Event::Skipped { .. } => "skipped",
                Event::Failed { error, .. } => panic!("{error}"),
                _ => continue,
            };
            *outcomes.entry(kind).or_insert(0) += 1;
        }
    }
    assert_eq!(outcomes["committed"], 201);
    assert_eq!(
        server
            .ask(&url, "SELECT count(*), count(DISTINCT slot), min(slot) FROM scores")
            .split('|')
            .take(2)
            .collect::<Vec<_>>(),
        ["201", "201"]
    );
    let expected = slots.iter().map(|slot| slot.timestamp()).sum::<i64>();
    let got = server.ask(
        &url,
        &format!(
            "SELECT sum(extract(epoch FROM slot))::bigint FROM scores WHERE slot <> to_timestamp({})",
            start.timestamp()
        ),
    );
    assert_eq!(got, expected.to_string());
    assert_eq!(server.ask(&url, "SELECT count(*), count(DISTINCT slot) FROM normstream_exports"), "201|201");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jump_of_the_clock_runs_nothing_twice() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    let mut job = job(&url, "SELECT :run_at AS slot");
    job.schedule = Some(Schedule::new("0 * * * *", "UTC").unwrap());
    let schedulers = Schedulers::start(1, at("2024-01-01T02:59:00Z"), &job);
    let hour = |hour| at("2024-01-01").with_hour(hour).unwrap();
    schedulers.ran(hour(2)).await;
    schedulers.clock.set(hour(3));
    schedulers.ran(hour(3)).await;
    // Back by two hours, and forth over three slots of which the last is caught up.
    schedulers.clock.set(hour(1));
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    schedulers.clock.set(hour(3));
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    schedulers.clock.set(at("2024-01-01T06:30:00Z"));
    schedulers.ran(hour(6)).await;
    schedulers.stop().await;
    let slots = "SELECT string_agg(to_char(slot AT TIME ZONE 'UTC', 'HH24'), ' ' ORDER BY slot) FROM scores";
    assert_eq!(server.ask(&url, slots), "02 03 06");
}
