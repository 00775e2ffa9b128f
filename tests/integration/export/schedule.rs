//! Slots over simulated years, and two schedulers on one target.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;
use normstream::engine::FileFormat;
use normstream::export::schedule::{Clock, Event, Schedule, Scheduler};
use normstream::export::{Cursor, ExportJob, Incremental, Outcome, Overlap, Request, TargetFormat};
use tempfile::TempDir;
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
    fn start(count: usize, now: DateTime<Utc>, job: &ExportJob) -> Self {
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
        self.until(
            |event| matches!(event, Event::Finished { slot: of, outcome: Outcome::Committed(_), .. } if *of == slot),
        )
        .await;
    }

    /// Waits until something has been told, and all schedulers wait.
    async fn until(&self, wanted: impl Fn(&Event) -> bool) {
        let started = std::time::Instant::now();
        while !self.told.lock().unwrap().iter().any(&wanted) || self.clock.sleepers.load(SeqCst) < self.running.len() {
            assert!(started.elapsed().as_secs() < 30, "{:?}", self.told.lock().unwrap().last());
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

/// An hourly export into a folder, whose lease another process has.
struct Held {
    folder: TempDir,
    job: ExportJob,
}

impl Held {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut job = job(folder.path().to_str().unwrap(), "SELECT :run_at AS slot");
        job.target.format = TargetFormat::Files(FileFormat::Parquet);
        job.schedule = Some(Schedule::new("0 * * * *", "UTC").unwrap());
        let held = Self { folder, job };
        held.lease("2100-01-01T00:00:00Z");
        held
    }

    /// The lease, as one that ends at a time.
    fn lease(&self, expires: &str) {
        let log = self.folder.path().join("_normstream/scores/nightly");
        let lease = serde_json::json!({
            "entry": "lease", "owner": "another", "expires": expires, "cursor": null, "slot": null, "last": null,
        });
        std::fs::create_dir_all(&log).unwrap();
        std::fs::write(log.join("00000000000000000000.json"), lease.to_string()).unwrap();
    }

    fn end_lease(&self) {
        self.lease("2000-01-01T00:00:00Z");
    }
}

/// What has been told of slots, in words.
fn words(told: &[Event]) -> Vec<String> {
    let words = told.iter().map(|event| match event {
        Event::Started { .. } => "started".to_owned(),
        Event::Waits { .. } => "waits".to_owned(),
        Event::Finished { outcome: Outcome::Committed(_), .. } => "committed".to_owned(),
        Event::Skipped { reason, .. } => format!("skipped: {reason}"),
        Event::Ready { .. } | Event::Draining { .. } | Event::Stopped => String::new(),
        other => format!("{other:?}"),
    });
    words.filter(|word| !word.is_empty()).collect()
}

#[tokio::test]
async fn a_slot_is_run_when_the_lease_of_a_process_that_died_with_it_has_ended() {
    let held = Held::new();
    let schedulers = Schedulers::start(1, at("2024-01-01T02:10:00Z"), &held.job);
    schedulers.until(|event| matches!(event, Event::Waits { .. })).await;
    held.end_lease();
    schedulers.clock.set(at("2024-01-01T02:11:00Z"));
    schedulers.ran(at("2024-01-01T02:00:00Z")).await;
    assert_eq!(words(&schedulers.stop().await), ["started", "waits", "started", "committed"]);
}

#[tokio::test]
async fn a_slot_is_skipped_if_its_lease_was_renewed() {
    let held = Held::new();
    let schedulers = Schedulers::start(1, at("2024-01-01T02:10:00Z"), &held.job);
    schedulers.until(|event| matches!(event, Event::Waits { .. })).await;
    schedulers.clock.set(at("2024-01-01T02:11:00Z"));
    schedulers.until(|event| matches!(event, Event::Skipped { .. })).await;
    held.end_lease();
    schedulers.clock.set(at("2024-01-01T03:00:00Z"));
    schedulers.ran(at("2024-01-01T03:00:00Z")).await;
    let told = words(&schedulers.stop().await);
    assert_eq!(told, ["started", "waits", "started", "skipped: another process exports it", "started", "committed"]);
}

#[tokio::test]
async fn a_slot_is_skipped_if_another_process_has_done_it_meanwhile() {
    let held = Held::new();
    let schedulers = Schedulers::start(1, at("2024-01-01T02:10:00Z"), &held.job);
    schedulers.until(|event| matches!(event, Event::Waits { .. })).await;
    held.end_lease();
    let clock = Arc::clone(&schedulers.clock) as Arc<dyn Clock>;
    let slot = Request { slot: Some(at("2024-01-01T02:00:00Z")), ..Request::default() };
    exporter_at(clock).run(&held.job, slot).await.unwrap();
    schedulers.clock.set(at("2024-01-01T02:11:00Z"));
    schedulers.until(|event| matches!(event, Event::Skipped { .. })).await;
    let told = words(&schedulers.stop().await);
    assert_eq!(told, ["started", "waits", "skipped: another process has exported it"]);
}

#[tokio::test]
async fn what_is_due_is_run_once_after_the_lease_of_a_process_that_died_with_it() {
    let held = Held::new();
    let clock = HandClock::at(at("2024-01-01T02:10:00Z"));
    let told = Arc::new(Mutex::new(Vec::new()));
    let events = Arc::clone(&told);
    let tell = Arc::new(move |event| events.lock().unwrap().push(event));
    let scheduler = Scheduler::new(exporter_at(Arc::clone(&clock) as Arc<dyn Clock>), vec![held.job.clone()], tell);
    let running = tokio::spawn(async move { scheduler.run_once().await });
    while clock.sleepers.load(SeqCst) == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    held.end_lease();
    clock.set(at("2024-01-01T02:11:00Z"));
    assert!(running.await.unwrap().is_empty());
    assert_eq!(words(&told.lock().unwrap()), ["started", "waits", "started", "committed"]);
}

#[tokio::test]
async fn a_slot_before_an_export_by_hand_is_noted_and_each_row_comes_once() {
    for format in [TargetFormat::Delta, TargetFormat::Files(FileFormat::Parquet)] {
        let folder = tempfile::tempdir().unwrap();
        let rows = "SELECT value AS hour, arrow_cast(to_timestamp_seconds(value * 3600), 'Timestamp(Microsecond, Some(\"UTC\"))') AS t
                    FROM generate_series(0, 47)";
        let mut job = job(folder.path().to_str().unwrap(), rows);
        job.target.format = format;
        job.incremental = Incremental::Column("t".to_owned());
        job.min_rows = 1;
        let run = async |now: &str, slot: Option<&str>| {
            let request = Request { slot: slot.map(at), ..Request::default() };
            match exporter_at(HandClock::at(at(now))).run(&job, request).await {
                Ok(Outcome::Committed(receipt)) => Ok((receipt.rows, receipt.cursor)),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error.to_string()),
            }
        };
        let cursor = |time| Some(Cursor::Time(at(time)));
        assert_eq!(run("1970-01-01T10:00:00Z", None).await, Ok((10, cursor("1970-01-01T10:00:00Z"))));
        let slot = "1970-01-01T03:00:00Z";
        assert_eq!(
            run("1970-01-01T10:01:00Z", Some(slot)).await,
            Ok((0, cursor("1970-01-01T10:00:00Z"))),
            "{format:?}"
        );
        let state = exporter_at(HandClock::at(at(slot))).state(&job).await.unwrap();
        assert_eq!((state.cursor, state.slot), (cursor("1970-01-01T10:00:00Z"), Some(at(slot))), "{format:?}");
        let slot = "1970-01-02T03:00:00Z";
        assert_eq!(run(slot, Some(slot)).await, Ok((17, cursor(slot))), "{format:?}");
        let slot = "1970-01-04T03:00:00Z";
        assert_eq!(run(slot, Some(slot)).await, Ok((21, cursor(slot))), "{format:?}");
        // Rows that are missing are a failure still.
        let slot = "1970-01-05T03:00:00Z";
        let refused = Err("nightly gives 0 rows, fewer than min_rows = 1; nothing was written".to_owned());
        assert_eq!(run(slot, Some(slot)).await, refused, "{format:?}");
    }
}
