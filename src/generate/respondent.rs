//! Who answers: the attributes of a generated respondent, and how they shift preferences.
//!
//! Value sets and shares of missing values are those of the golden session file in `tests/golden`.

use crate::generate::random::{Stream, scale_below};

/// The levels of education.
pub(super) const EDUCATION_LEVELS: [&str; 5] =
    ["Primary School", "Secondary School", "University Degree", "Master's Degree", "Doctoral Degree"];
/// The genders.
pub(super) const GENDERS: [&str; 4] = ["Female", "Male", "Other", "Prefer not to say"];
/// The age bands of norm groups, youngest first.
pub(super) const AGE_BANDS: [&str; 7] = ["<19", "19-24", "25-34", "35-44", "45-54", "55-64", ">64"];
/// The countries by name; synthetic ones follow, see [`country`].
pub(super) const COUNTRIES: [&str; 12] = [
    "Australia",
    "Brazil",
    "Canada",
    "France",
    "Germany",
    "India",
    "Indonesia",
    "Japan",
    "Spain",
    "Thailand",
    "UK",
    "USA",
];

/// The name of a country: the first twelve are real, the rest are `Country 0001`, `Country 0002`, ….
pub(super) fn country(index: usize) -> String {
    match COUNTRIES.get(index) {
        Some(name) => (*name).to_owned(),
        None => format!("Country {:04}", index - COUNTRIES.len() + 1),
    }
}

/// A shift of the mean raw scores of CE, RO, AC and AE, in tenths of a point. The four add up to about 0, as ranks must.
pub(super) type Shift = [i32; 4];

// Differences of the medians of the demonstration norm groups from the mean of their attribute, weighted as drawn below and
// centred over the modes. Those groups lack three values: 25-34 lies between its neighbours, >64 is as 55-64, and Secondary
// School and University Degree lie at one and two thirds of the way from Primary School to Master's Degree.
const AGE_SHIFTS: [Shift; 7] = [
    [14, -5, -37, 28],
    [-5, 5, -11, 10],
    [-3, 2, -3, 4],
    [-2, -1, 4, -1],
    [-3, -3, 7, -2],
    [3, 0, 6, -8],
    [3, 0, 6, -8],
];
const EDUCATION_SHIFTS: [Shift; 5] =
    [[3, 11, -31, 16], [2, 6, -16, 8], [1, 1, -1, 0], [-1, -5, 14, -9], [-5, -7, 13, -1]];
const GENDER_SHIFTS: [Shift; 4] = [[7, 2, -13, 3], [-10, -2, 16, -5], [0; 4], [0; 4]];

/// The shift of a level of education, by its index.
pub(super) fn education_shift(index: usize) -> Shift {
    EDUCATION_SHIFTS[index]
}

/// The shift of a gender, by its index.
pub(super) fn gender_shift(index: usize) -> Shift {
    GENDER_SHIFTS[index]
}

/// The shift of an age band, by its index.
pub(super) fn age_shift(index: usize) -> Shift {
    AGE_SHIFTS[index]
}

// Shares in 200ths; what is left over is null.
const EDUCATION_SHARES: [u32; 5] = [4, 35, 93, 37, 21];
const GENDER_SHARES: [u32; 4] = [108, 82, 3, 2];
const COUNTRY_NULL: u32 = 10;
const DATE_OF_BIRTH_NULL: u32 = 10;

/// Days since 1970-01-01 of the first date of birth, 1950-01-01, and how many follow, to 2009-12-31.
const FIRST_BIRTH: i32 = -7305;
const BIRTH_DAYS: u32 = 21_915;

/// How many latent traits a respondent has: one per mode and one per dialectic.
pub(super) const TRAITS: usize = 6;

/// A respondent. Strings are indexes into the value sets above; `None` is a value not given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Respondent {
    pub(super) education: Option<u8>,
    /// See [`country`].
    pub(super) country: Option<u32>,
    /// Days since 1970-01-01.
    pub(super) date_of_birth: Option<i32>,
    pub(super) gender: Option<u8>,
    /// What is stable in the respondent's preferences, as bytes for the normal table.
    pub(super) traits: [u8; TRAITS],
}

impl Respondent {
    /// Draws a respondent. Half of the countries are among `synthetic_countries`, if there are any.
    #[inline]
    pub(super) fn draw(stream: &mut Stream, synthetic_countries: u32) -> Self {
        let [education, gender] = stream.halves();
        let [country_null, country] = stream.halves();
        let [born_null, born] = stream.halves();
        let [a, b, c, d, e, f, _, side] = stream.bytes();
        let country = match side % 2 {
            1 if synthetic_countries > 0 => COUNTRIES.len() as u32 + scale_below(country, synthetic_countries),
            _ => scale_below(country, COUNTRIES.len() as u32),
        };
        let date_of_birth = FIRST_BIRTH + scale_below(born, BIRTH_DAYS) as i32;
        Respondent {
            education: choose(education, &EDUCATION_SHARES),
            country: (scale_below(country_null, 200) >= COUNTRY_NULL).then_some(country),
            date_of_birth: (scale_below(born_null, 200) >= DATE_OF_BIRTH_NULL).then_some(date_of_birth),
            gender: choose(gender, &GENDER_SHARES),
            traits: [a, b, c, d, e, f],
        }
    }

    /// How the respondent's mean raw scores on a day (since 1970-01-01) differ from everybody's: the sum of the attributes' shifts.
    #[inline]
    pub(super) fn shift(&self, day: i32) -> Shift {
        let mut sum = [0; 4];
        let mut add = |shift: Shift| sum.iter_mut().zip(shift).for_each(|(total, part)| *total += part);
        if let Some(education) = self.education {
            add(education_shift(usize::from(education)));
        }
        if let Some(gender) = self.gender {
            add(gender_shift(usize::from(gender)));
        }
        if let Some(born) = self.date_of_birth {
            // Near enough for a shift: years of 365¼ days.
            let years = (day - born) * 4 / 1461;
            add(age_shift([19, 25, 35, 45, 55, 65].iter().filter(|&&from| years >= from).count()));
        }
        sum
    }
}

/// Chooses an index by its share in 200ths, or none.
#[inline]
fn choose(bits: u32, shares: &[u32]) -> Option<u8> {
    let mut rest = scale_below(bits, 200);
    for (index, &share) in shares.iter().enumerate() {
        if rest < share {
            return Some(index as u8);
        }
        rest -= share;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifts_cancel_out_over_the_modes() {
        for shift in AGE_SHIFTS.iter().chain(&EDUCATION_SHIFTS).chain(&GENDER_SHIFTS) {
            assert!(shift.iter().sum::<i32>().abs() <= 1, "{shift:?}");
        }
    }

    #[test]
    fn a_choice_follows_the_shares_and_leaves_the_rest_null() {
        let at = |share: u64| choose(((share << 32) / 200 + 1) as u32, &EDUCATION_SHARES);
        assert_eq!([at(0), at(3), at(4), at(38), at(39)], [Some(0), Some(0), Some(1), Some(1), Some(2)]);
        assert_eq!([at(189), at(190), at(199)], [Some(4), None, None]);
    }

    #[test]
    fn shifts_add_up_and_age_counts_on_the_day() {
        let respondent = Respondent {
            education: Some(0),
            country: None,
            date_of_birth: Some(0),
            gender: Some(1),
            traits: [0; TRAITS],
        };
        let years = |years: i32| respondent.shift(years * 1461 / 4 + 1);
        assert_eq!(years(18), [3 - 10 + 14, 11 - 2 - 5, -31 + 16 - 37, 16 - 5 + 28]);
        assert_eq!(years(19), [3 - 10 - 5, 11 - 2 + 5, -31 + 16 - 11, 16 - 5 + 10]);
        assert_eq!(years(70), [3 - 10 + 3, 11 - 2, -31 + 16 + 6, 16 - 5 - 8]);
    }
}
