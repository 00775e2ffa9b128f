//! When an export is due: cron slots in a time zone.
//!
//! A slot is a time on the wall clock of the zone, and each runs once: where the clock is put back and shows a time twice, at
//! the first; where it is put forward past a slot, at the first instant after the gap. Slots that fall on one instant are one.

use chrono::{DateTime, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::{GapInfo, Tz};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use crate::export::ExportError;

/// No wall clock has been put back by more.
const LONGEST_FOLD: TimeDelta = TimeDelta::days(1);

/// A cron expression in a time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: Tz,
}

impl Schedule {
    /// Parses a cron expression of five fields (minute, hour, day of month, month, day of week) and the name of a zone of the
    /// IANA database. An expression that no date fulfils is refused.
    pub fn new(expression: &str, zone: &str) -> Result<Self, ExportError> {
        let refused = |reason: String| ExportError::Schedule { expression: expression.to_owned(), reason };
        let fields = expression.split_whitespace().count();
        if fields != 5 && !expression.starts_with('@') {
            return Err(refused(format!("a cron expression has five fields, as in \"0 3 * * *\"; this has {fields}")));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(expression).map_err(|error| refused(error.to_string()))?;
        let zone: Tz = zone.parse().map_err(|_| ExportError::TimeZone { zone: zone.to_owned() })?;
        let schedule = Self { cron, zone };
        match schedule.after(DateTime::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(refused("no date fulfils it".to_owned())),
        }
    }

    /// The zone in which the expression is read.
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The first slot after an instant; `None` beyond the calendar.
    pub fn after(&self, instant: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // The wall clock never shows a slot that lies ahead as past: what it shows a second time has run at the first.
        let mut wall = instant.with_timezone(&self.zone).naive_local();
        let mut inclusive = true;
        loop {
            wall = self.cron.find_next_occurrence(&wall, inclusive).ok()?;
            inclusive = false;
            match self.instant_of(wall) {
                Some(slot) if slot > instant => return Some(slot),
                _ => {}
            }
        }
    }

    /// The last slot at or before an instant; `None` before the calendar.
    pub fn last_until(&self, instant: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // A slot that the wall clock showed before it was put back lies ahead on it now.
        let shown = instant.with_timezone(&self.zone).naive_local();
        let mut wall = shown.checked_add_signed(LONGEST_FOLD)?;
        let mut inclusive = true;
        loop {
            wall = self.cron.find_previous_occurrence(&wall, inclusive).ok()?;
            inclusive = false;
            match self.instant_of(wall) {
                Some(slot) if slot <= instant => return Some(slot),
                _ => {}
            }
        }
    }

    /// The slots after one instant and up to another, in order. Memory: one entry a slot.
    pub fn between(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let next = |slot: &DateTime<Utc>| self.after(*slot);
        std::iter::successors(self.after(after), next).take_while(|slot| *slot <= until).collect()
    }

    /// When the wall clock first shows a time, or would have shown it. `None` at the ends of the calendar.
    fn instant_of(&self, wall: NaiveDateTime) -> Option<DateTime<Utc>> {
        let instant = match self.zone.from_local_datetime(&wall).earliest() {
            Some(instant) => instant,
            None => GapInfo::new(&wall, &self.zone)?.end?,
        };
        Some(instant.with_timezone(&Utc))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc)
    }

    fn slots(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::new(expression, zone).unwrap();
        let slots = std::iter::successors(schedule.after(at(after)), |slot| schedule.after(*slot));
        slots.take(count).map(|slot| slot.with_timezone(&schedule.zone()).to_rfc3339()).collect()
    }

    #[test]
    fn a_slot_follows_the_wall_clock_of_its_zone() {
        assert_eq!(
            slots("0 3 * * *", "Europe/Berlin", "2024-03-30T12:00:00Z", 2),
            ["2024-03-31T03:00:00+02:00", "2024-04-01T03:00:00+02:00"]
        );
    }

    #[test]
    fn a_slot_in_a_gap_runs_at_the_first_instant_after_it() {
        assert_eq!(
            slots("30 2 * * *", "Europe/Berlin", "2024-03-30T12:00:00Z", 2),
            ["2024-03-31T03:00:00+02:00", "2024-04-01T02:30:00+02:00"]
        );
        // Lord Howe puts its clock forward by half an hour.
        assert_eq!(
            slots("15 2 * * *", "Australia/Lord_Howe", "2024-10-05T10:00:00Z", 2),
            ["2024-10-06T02:30:00+11:00", "2024-10-07T02:15:00+11:00"]
        );
        // Samoa went without the whole of 30 December 2011.
        assert_eq!(
            slots("0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", 3),
            ["2011-12-29T12:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"]
        );
    }

    #[test]
    fn a_slot_in_a_fold_runs_once_at_the_first_of_its_two_instants() {
        assert_eq!(
            slots("30 2 * * *", "Europe/Berlin", "2024-10-26T12:00:00Z", 2),
            ["2024-10-27T02:30:00+02:00", "2024-10-28T02:30:00+01:00"]
        );
        assert_eq!(
            slots("45 1 * * *", "Australia/Lord_Howe", "2024-04-06T00:00:00Z", 2),
            ["2024-04-07T01:45:00+11:00", "2024-04-08T01:45:00+10:30"]
        );
    }

    #[test]
    fn slots_that_fall_on_one_instant_are_one() {
        assert_eq!(
            slots("0,20,40 2,3 * * *", "Europe/Berlin", "2024-03-31T00:50:00Z", 3),
            ["2024-03-31T03:00:00+02:00", "2024-03-31T03:20:00+02:00", "2024-03-31T03:40:00+02:00"]
        );
    }

    #[test]
    fn the_last_slot_is_found_backwards_as_the_next_is_forwards() {
        let schedule = Schedule::new("30 2 * * *", "Europe/Berlin").unwrap();
        assert_eq!(schedule.last_until(at("2024-03-31T01:00:00Z")), Some(at("2024-03-31T01:00:00Z")));
        assert_eq!(schedule.last_until(at("2024-03-31T00:59:59Z")), Some(at("2024-03-30T01:30:00Z")));
        // The second 02:30 of the night is no slot.
        assert_eq!(schedule.last_until(at("2024-10-27T01:30:00Z")), Some(at("2024-10-27T00:30:00Z")));
    }

    #[test]
    fn the_last_slot_is_found_though_the_clock_was_put_back_behind_it() {
        // At the second 02:10 of the night the first 02:30 is 40 minutes ago.
        let berlin = Schedule::new("30 2 * * *", "Europe/Berlin").unwrap();
        assert_eq!(berlin.last_until(at("2024-10-27T01:10:00Z")), Some(at("2024-10-27T00:30:00Z")));
        assert_eq!(berlin.last_until(at("2024-10-27T00:29:59Z")), Some(at("2024-10-26T00:30:00Z")));
        // Casey put its clock back by three hours, from 02:00 to 23:00 of the day before.
        let casey = Schedule::new("0 1 * * *", "Antarctica/Casey").unwrap();
        assert_eq!(casey.last_until(at("2010-03-04T15:30:00Z")), Some(at("2010-03-04T14:00:00Z")));
    }

    #[test]
    fn slots_between_two_instants_leave_out_the_first_and_hold_the_second() {
        let schedule = Schedule::new("0 * * * *", "UTC").unwrap();
        assert_eq!(
            schedule.between(at("2024-01-01T01:00:00Z"), at("2024-01-01T03:00:00Z")),
            [at("2024-01-01T02:00:00Z"), at("2024-01-01T03:00:00Z")]
        );
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_the_reason() {
        let refused = |expression, zone| Schedule::new(expression, zone).unwrap_err().to_string();
        assert_eq!(
            refused("0 0 3 * * *", "UTC"),
            "the schedule \"0 0 3 * * *\" cannot be used: a cron expression has five fields, as in \"0 3 * * *\"; this has 6"
        );
        assert_eq!(refused("0 0 30 2 *", "UTC"), "the schedule \"0 0 30 2 *\" cannot be used: no date fulfils it");
        assert!(refused("0 25 * * *", "UTC").contains("cannot be used"));
        assert!(refused("0 3 * * *", "Europe/Berlyn").contains("Europe/Berlin"));
    }
}
