//! The columns of a session: attributes, and the rank columns of the wide and packed layouts.

use crate::model::Mode;

/// Identifies the session; an integer or a string. The only attribute that must be present.
pub const SESSION_ID: &str = "session_id";
/// Identifies the respondent.
pub const USER_ID: &str = "user_id";
/// When the session ended; UTC unless the type carries a zone.
pub const COMPLETED_AT: &str = "completed_at";
/// When the session began; stands in for `completed_at` when an age is reckoned.
pub const STARTED_AT: &str = "started_at";
/// The respondent's date of birth: an input of `age_band`, never an output unless passed through by name.
pub const DATE_OF_BIRTH: &str = "date_of_birth";
/// The respondent's age band; wins over `date_of_birth`.
pub const AGE_BAND: &str = "age_band";
/// The respondent's gender.
pub const GENDER: &str = "gender";
/// The respondent's level of education.
pub const EDUCATION_LEVEL: &str = "education_level";
/// The respondent's country.
pub const COUNTRY: &str = "country";

/// Columns of the long layout beside `session_id`: which list of items a rank belongs to (`style` or `context`).
pub const PART: &str = "part";
/// Long layout: the item's number within its part, from 1.
pub const ITEM: &str = "item";
/// Long layout: the code of the mode that was ranked.
pub const MODE: &str = "mode";
/// Long layout: the rank, 1..=4.
pub const RANK: &str = "rank";

/// The two lists of items of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The learning-style items, which give the raw scores.
    Style,
    /// The learning contexts, which give flexibility.
    Context,
}

impl Part {
    /// The name of the part in the long layout.
    pub const fn name(self) -> &'static str {
        match self {
            Part::Style => "style",
            Part::Context => "context",
        }
    }

    /// The prefix of the part's columns, as in `q01` and `ctx01`.
    pub const fn prefix(self) -> &'static str {
        match self {
            Part::Style => "q",
            Part::Context => "ctx",
        }
    }
}

/// The packed column of an item, as in `q01` and `ctx08`. `item` counts from 1.
pub fn packed_column(part: Part, item: usize) -> String {
    format!("{}{item:02}", part.prefix())
}

/// The wide column of one rank, as in `q01_ce`. `item` counts from 1.
pub fn wide_column(part: Part, item: usize, mode: Mode) -> String {
    format!("{}{item:02}_{}", part.prefix(), mode.suffix())
}

/// The items of a session in checking order: style items, then contexts, each counted from 1.
pub fn items(style_items: usize, contexts: usize) -> impl Iterator<Item = (Part, usize)> + Clone {
    (1..=style_items).map(|item| (Part::Style, item)).chain((1..=contexts).map(|item| (Part::Context, item)))
}
