//! Age bands from a date of birth and the date of a session.

use std::sync::Arc;

use crate::instrument::Instrument;

/// The age bands of an instrument, as a function of dates.
#[derive(Debug, Clone)]
pub struct AgeBands {
    /// The band of each age in completed years; older ages fall into the last.
    band_of_years: Vec<u8>,
}

impl AgeBands {
    /// Tabulates the bands of an instrument.
    pub fn new(instrument: &Arc<Instrument>) -> Self {
        let last = instrument.age_bands.last().map_or(0, |band| band.from);
        AgeBands { band_of_years: (0..=last).map(|years| instrument.age_band_of(years) as u8).collect() }
    }

    /// The index of the band of somebody born on one day at another, both in days since 1970-01-01.
    /// `None` when the birth lies after the day.
    pub fn band(&self, birth: i32, at: i32) -> Option<u8> {
        let years = completed_years(birth, at)?;
        self.band_of_years.get(years as usize).or(self.band_of_years.last()).copied()
    }
}

/// Completed years between two days since 1970-01-01: the birthdays after the birth up to and with the day.
///
/// A birthday on 29 February is completed on 1 March of a common year. `None` when the birth lies after the day.
///
/// ```
/// use normstream::scoring::completed_years;
/// assert_eq!(completed_years(0, 364), Some(0));  // 1970-12-31
/// assert_eq!(completed_years(0, 365), Some(1));  // 1971-01-01
/// assert_eq!(completed_years(1, 0), None);
/// ```
pub fn completed_years(birth: i32, at: i32) -> Option<u32> {
    let (birth_year, birth_day) = year_and_day(birth);
    let (year, day) = year_and_day(at);
    u32::try_from(year - birth_year - i64::from(day < birth_day)).ok()
}

/// The year that a day is in, and its number in that year from 0: for years that begin on 1 March, so that the leap day is the last
/// of its year and all others have the same number in every year. Years are counted from one that is before all days.
///
/// The proleptic Gregorian calendar in quarters of a day, of which a century has 146,097 in the mean, and a year of it 1,461. The
/// last quarter of a day (`| 3`) tells its year, and the second division is a multiplication by 2³² / 1,461, rounded up: C. Neri
/// and L. Schneider, "Euclidean affine functions and their application to calendar algorithms" (2023).
fn year_and_day(days: i32) -> (i64, u32) {
    const DAYS_OF_ERA: i64 = 146_097;
    const QUARTERS_OF_CENTURY: u64 = 146_097;
    const ERAS_BEFORE_ALL_DAYS: i64 = 14_700;
    const RECIPROCAL: u32 = 2_939_745;
    let quarters = 4 * (i64::from(days) + 719_468 + ERAS_BEFORE_ALL_DAYS * DAYS_OF_ERA) as u64 + 3;
    let (century, quarter) = (quarters / QUARTERS_OF_CENTURY, (quarters % QUARTERS_OF_CENTURY) as u32 | 3);
    let years = u64::from(RECIPROCAL) * u64::from(quarter);
    let (year, day) = (years >> 32, years as u32 / RECIPROCAL / 4);
    (100 * century as i64 + year as i64, day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use chrono::{Datelike, NaiveDate};
    use proptest::prelude::*;

    use super::*;

    fn days(year: i32, month: u32, day: u32) -> i32 {
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        (NaiveDate::from_ymd_opt(year, month, day).unwrap() - epoch).num_days() as i32
    }

    #[test]
    fn a_year_is_completed_on_the_birthday() {
        assert_eq!(completed_years(days(2000, 5, 17), days(2024, 5, 16)), Some(23));
        assert_eq!(completed_years(days(2000, 5, 17), days(2024, 5, 17)), Some(24));
    }

    #[test]
    fn a_leap_day_birthday_is_completed_on_the_first_of_march_of_a_common_year() {
        assert_eq!(completed_years(days(2000, 2, 29), days(2023, 2, 28)), Some(22));
        assert_eq!(completed_years(days(2000, 2, 29), days(2023, 3, 1)), Some(23));
        assert_eq!(completed_years(days(2000, 2, 29), days(2024, 2, 29)), Some(24));
    }

    #[test]
    fn years_and_days_follow_each_other_as_in_a_calendar_library() {
        let first = days(1599, 3, 1);
        let (year, _) = year_and_day(first);
        for day in first..first + 146_097 {
            let date = NaiveDate::from_ymd_opt(1599, 3, 1).unwrap() + chrono::Duration::days(i64::from(day - first));
            let began = date.year() - i32::from(date.month() < 3);
            assert_eq!(year_and_day(day), (year + i64::from(began - 1599), (day - days(began, 3, 1)) as u32), "{date}");
        }
    }

    #[test]
    fn nobody_is_younger_than_nought() {
        let bands = AgeBands::new(&Instrument::klsi4());
        assert_eq!(bands.band(days(2024, 1, 2), days(2024, 1, 1)), None);
        assert_eq!(bands.band(days(2024, 1, 2), days(2024, 1, 2)), Some(0));
        assert_eq!(bands.band(days(1850, 1, 2), days(2024, 1, 2)), Some(6));
    }

    proptest! {
        #[test]
        fn completed_years_agree_with_a_calendar_library(birth in -200_000i32..50_000, at in -200_000i32..50_000) {
            let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
            let date = |days: i32| epoch + chrono::Duration::days(i64::from(days));
            let (born, on) = (date(birth), date(at));
            let before_birthday = (on.month(), on.day()) < (born.month(), born.day());
            let expected = on.year() - born.year() - i32::from(before_birthday);
            prop_assert_eq!(completed_years(birth, at), u32::try_from(expected).ok());
        }

        #[test]
        fn every_day_has_an_age(birth in any::<i32>(), at in any::<i32>()) {
            let years = completed_years(birth, at);
            prop_assert_eq!(years.is_some(), at >= birth);
            let estimate = (i64::from(at) - i64::from(birth)) as f64 / 365.2425;
            prop_assert!(years.is_none_or(|years| (f64::from(years) + 0.5 - estimate).abs() < 0.51));
        }
    }
}
