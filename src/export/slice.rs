//! Which rows an export takes, and where the next one goes on.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// How far an export has come. It is kept where the rows are, and moves in the commit that brings them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cursor {
    /// The rows of all versions up to this one have been exported.
    Version(u64),
    /// The rows of all times before this one have been exported.
    Time(#[serde(with = "rfc3339")] DateTime<Utc>),
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cursor::Version(version) => write!(f, "version {version}"),
            Cursor::Time(time) => f.write_str(&time_text(time)),
        }
    }
}

/// The rows of one export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slice {
    /// Whatever the query gives.
    Everything,
    /// Rows of the versions after one (from the beginning if there is none) up to another.
    Versions {
        /// The last version that has been exported.
        after: Option<u64>,
        /// The last version of this slice.
        through: u64,
    },
    /// Rows of the times from one (from the beginning if there is none) to another, which does not belong to it.
    Times {
        /// The first time.
        from: Option<DateTime<Utc>>,
        /// The first time of the next slice.
        to: DateTime<Utc>,
    },
}

impl Slice {
    /// Where the next export goes on after this slice.
    pub fn end(&self) -> Option<Cursor> {
        match self {
            Slice::Everything => None,
            Slice::Versions { through, .. } => Some(Cursor::Version(*through)),
            Slice::Times { to, .. } => Some(Cursor::Time(*to)),
        }
    }

    /// Whether nothing can be in it.
    pub fn is_empty(&self) -> bool {
        match self {
            Slice::Everything => false,
            Slice::Versions { after, through } => after.is_some_and(|after| after >= *through),
            Slice::Times { from, to } => from.is_some_and(|from| from >= *to),
        }
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slice::Everything => f.write_str("everything"),
            Slice::Versions { after: None, through } => write!(f, "versions up to {through}"),
            Slice::Versions { after: Some(after), through } => write!(f, "versions after {after} up to {through}"),
            Slice::Times { from: None, to } => write!(f, "before {}", time_text(to)),
            Slice::Times { from: Some(from), to } => write!(f, "[{}, {})", time_text(from), time_text(to)),
        }
    }
}

/// A time as it is shown and digested: RFC 3339 in UTC, with no more decimals than it has.
pub fn time_text(time: &DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// A time as it is written: RFC 3339, or a date, which is its midnight in UTC.
pub fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    let of_date = || text.parse::<chrono::NaiveDate>().ok()?.and_hms_opt(0, 0, 0).map(|time| time.and_utc());
    match DateTime::parse_from_rfc3339(text) {
        Ok(time) => Ok(time.with_timezone(&Utc)),
        Err(_) => of_date().ok_or_else(|| format!("'{text}' is not a time, as in 2024-05-01 or 2024-05-01T03:00:00Z")),
    }
}

/// Times as text in JSON.
pub(crate) mod rfc3339 {
    use chrono::{DateTime, Utc};
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::{parse_time, time_text};

    pub(crate) fn serialize<S: Serializer>(time: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&time_text(time))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DateTime<Utc>, D::Error> {
        parse_time(&String::deserialize(from)?).map_err(de::Error::custom)
    }

    /// The same where there may be none.
    pub(crate) mod option {
        use super::{DateTime, Deserialize, Deserializer, Serializer, Utc, de, parse_time, time_text};

        pub(crate) fn serialize<S: Serializer>(time: &Option<DateTime<Utc>>, to: S) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => to.serialize_some(&time_text(time)),
                None => to.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<DateTime<Utc>>, D::Error> {
            let text = Option::<String>::deserialize(from)?;
            text.map(|text| parse_time(&text)).transpose().map_err(de::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_slice_says_what_it_holds_and_where_the_next_begins() {
        let day = |text| parse_time(text).unwrap();
        let slice = Slice::Times { from: Some(day("2024-05-01")), to: day("2024-05-02T03:00:00+02:00") };
        assert_eq!(slice.to_string(), "[2024-05-01T00:00:00Z, 2024-05-02T01:00:00Z)");
        assert_eq!(slice.end(), Some(Cursor::Time(day("2024-05-02T01:00:00Z"))));
        assert!(!slice.is_empty());
        assert!(Slice::Versions { after: Some(4), through: 4 }.is_empty());
        assert!(!Slice::Versions { after: None, through: 0 }.is_empty());
        assert_eq!(Slice::Everything.end(), None);
    }

    #[test]
    fn a_cursor_survives_json() {
        for cursor in [Cursor::Version(7), Cursor::Time(parse_time("2024-05-01T03:00:00.25Z").unwrap())] {
            let text = serde_json::to_string(&cursor).unwrap();
            assert_eq!(serde_json::from_str::<Cursor>(&text).unwrap(), cursor, "{text}");
        }
        assert_eq!(serde_json::to_string(&Cursor::Version(7)).unwrap(), r#"{"version":7}"#);
    }
}
