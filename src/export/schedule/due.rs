//! Which slots are due, given what has been run.

use chrono::{DateTime, TimeDelta, Utc};

use crate::export::CatchUp;
use crate::export::schedule::Schedule;

/// A slot that has passed by so much has been missed; until then it is merely late.
const LATE: TimeDelta = TimeDelta::minutes(5);

/// The slots that are due at `now`, in order.
///
/// `done` is the last slot that has been run; of an export that never ran, the last slot before now counts as the only one
/// that was missed. `passed` is the last slot that this process has dealt with, whatever came of it. A clock that was put back
/// makes nothing due.
pub(super) fn due(
    schedule: &Schedule,
    catch_up: CatchUp,
    done: Option<DateTime<Utc>>,
    passed: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Vec<DateTime<Utc>> {
    let last = schedule.last_until(now).filter(|last| Some(*last) > done.max(passed));
    match (catch_up, last, done.max(passed)) {
        (_, None, _) => Vec::new(),
        (CatchUp::None, Some(last), _) if now - last > LATE => Vec::new(),
        (CatchUp::All, Some(_), Some(before)) => schedule.between(before, now),
        (_, Some(last), _) => vec![last],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::export::slice::parse_time;

    fn at(text: &str) -> DateTime<Utc> {
        parse_time(&format!("2024-01-{text}:00Z")).unwrap()
    }

    fn hours(catch_up: CatchUp, done: Option<&str>, passed: Option<&str>, now: &str) -> Vec<DateTime<Utc>> {
        due(&Schedule::new("0 * * * *", "UTC").unwrap(), catch_up, done.map(at), passed.map(at), at(now))
    }

    #[test]
    fn a_slot_is_due_once() {
        assert_eq!(hours(CatchUp::Last, Some("01T02:00"), None, "01T03:00"), [at("01T03:00")]);
        assert!(hours(CatchUp::Last, Some("01T03:00"), None, "01T03:00").is_empty());
        assert!(hours(CatchUp::Last, Some("01T02:00"), Some("01T03:00"), "01T03:59").is_empty());
    }

    #[test]
    fn missed_slots_are_caught_up_as_asked() {
        let missed = |catch_up| hours(catch_up, Some("01T02:00"), None, "01T05:30");
        assert_eq!(missed(CatchUp::Last), [at("01T05:00")]);
        assert_eq!(missed(CatchUp::All), [at("01T03:00"), at("01T04:00"), at("01T05:00")]);
        assert!(missed(CatchUp::None).is_empty());
        assert_eq!(hours(CatchUp::None, Some("01T02:00"), None, "01T05:04"), [at("01T05:00")]);
    }

    #[test]
    fn an_export_that_never_ran_is_due_at_once() {
        assert_eq!(hours(CatchUp::All, None, None, "01T05:30"), [at("01T05:00")]);
        assert!(hours(CatchUp::None, None, None, "01T05:30").is_empty());
    }

    #[test]
    fn a_clock_that_is_put_back_makes_nothing_due() {
        assert!(hours(CatchUp::All, Some("02T05:00"), None, "01T05:30").is_empty());
        assert!(hours(CatchUp::Last, Some("02T04:00"), Some("02T05:00"), "02T04:30").is_empty());
    }
}
