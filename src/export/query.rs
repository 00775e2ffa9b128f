//! The query of an export: its parameters, and the rows of a slice.

use chrono::{DateTime, Utc};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::export::{ExportError, ExportJob, Incremental, Slice};

/// The values of a query's parameters: times in UTC with microseconds, and a whole number.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters {
    /// `:from`: the first time of the slice. Before the first export it is the beginning of year 1.
    pub from: DateTime<Utc>,
    /// `:to`: the first time after the slice; without slices in time the same as `:run_at`.
    pub to: DateTime<Utc>,
    /// `:run_at`: the slot that the export runs for, else the time of the run.
    pub run_at: DateTime<Utc>,
    /// `:last_version`: the last version that has been exported, null before the first export.
    pub last_version: Option<u64>,
}

impl Parameters {
    /// The parameters of a slice.
    pub fn new(slice: &Slice, run_at: DateTime<Utc>) -> Self {
        let beginning = chrono::NaiveDate::from_ymd_opt(1, 1, 1).unwrap_or_default().and_time(chrono::NaiveTime::MIN);
        let (from, to) = match slice {
            Slice::Times { from, to } => (*from, *to),
            Slice::Everything | Slice::Versions { .. } => (None, run_at),
        };
        let last_version = match slice {
            Slice::Versions { after, .. } => *after,
            Slice::Everything | Slice::Times { .. } => None,
        };
        Self { from: from.unwrap_or(beginning.and_utc()), to, run_at, last_version }
    }

    /// By name, as values that a plan takes.
    pub fn values(&self) -> Vec<(String, ScalarValue)> {
        let time =
            |time: DateTime<Utc>| ScalarValue::TimestampMicrosecond(Some(time.timestamp_micros()), Some("UTC".into()));
        let version = self.last_version.and_then(|version| i64::try_from(version).ok());
        vec![
            ("from".to_owned(), time(self.from)),
            ("to".to_owned(), time(self.to)),
            ("run_at".to_owned(), time(self.run_at)),
            ("last_version".to_owned(), ScalarValue::Int64(version)),
        ]
    }
}

/// The query of a slice: the job's own, or the part of it that lies in the slice where the query leaves that to us.
pub(super) fn text_of(job: &ExportJob, slice: &Slice) -> Result<String, ExportError> {
    let own = job.sql.trim().trim_end_matches(';');
    let Slice::Times { .. } = slice else { return Ok(own.to_owned()) };
    if uses(own, "from") && uses(own, "to") {
        return Ok(own.to_owned());
    }
    match &job.incremental {
        Incremental::Column(column) => {
            let column = format!("\"{}\"", column.replace('"', "\"\""));
            Ok(format!("SELECT * FROM (\n{own}\n) AS export WHERE {column} >= :from AND {column} < :to"))
        }
        Incremental::Version | Incremental::None => Err(ExportError::NoTimeSlices { export: job.name.clone() }),
    }
}

/// Whether a query has a parameter, as `:name` or `$name`.
fn uses(sql: &str, parameter: &str) -> bool {
    // What is no SQL has no parameters; the planner will say what is wrong with it.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else { return false };
    tokens.iter().zip(tokens.iter().skip(1)).any(|pair| match pair {
        (Token::Colon, Token::Word(word)) => word.value.eq_ignore_ascii_case(parameter),
        (Token::Placeholder(name), _) => name.strip_prefix('$') == Some(parameter),
        _ => false,
    }) || matches!(tokens.last(), Some(Token::Placeholder(name)) if name.strip_prefix('$') == Some(parameter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_in_the_query_and_not_in_its_strings_comments_and_casts() {
        assert!(uses("SELECT * FROM results WHERE completed_at >= :from", "from"));
        assert!(uses("SELECT $from", "from"));
        assert!(!uses("SELECT ':from', a::from -- :from", "from"));
    }
}
