//! Why a query is refused or fails, said with a hint and the place in its text.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use humantime::format_duration;

use crate::engine::near::nearest;
use crate::engine::{EngineError, with_causes};

/// A place in the text of a query, shown as the line with a mark below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The line's text.
    pub text: String,
}

impl Place {
    /// A place in a text; `None` if the text has no such line.
    pub(super) fn new(text: &str, line: usize, column: usize) -> Option<Place> {
        let found = text.lines().nth(line.checked_sub(1)?)?;
        Some(Place { line, column: column.max(1), text: found.to_owned() })
    }

    /// Where something stands in a text for the first time.
    fn of(text: &str, part: &str) -> Option<Place> {
        let before = &text[..text.find(part)?];
        let column = before.lines().last().filter(|_| !before.ends_with('\n')).map_or(0, |line| line.chars().count());
        Place::new(text, before.matches('\n').count() + 1, column + 1)
    }

    /// Where a name stands in a text for the first time, as a word of its own.
    fn of_word(text: &str, word: &str) -> Option<Place> {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let word = word.to_lowercase();
        text.lines().enumerate().find_map(|(line, line_text)| {
            let lower = line_text.to_lowercase();
            let at = lower.match_indices(&word).map(|(at, _)| at).find(|&at| {
                let before = lower[..at].chars().next_back();
                let after = lower[at + word.len()..].chars().next();
                !before.is_some_and(is_part) && !after.is_some_and(is_part)
            })?;
            Place::new(text, line + 1, lower[..at].chars().count() + 1)
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = " ".repeat(self.column - 1);
        write!(f, "\n  line {}, column {}:\n  {}\n  {mark}^", self.line, self.column, self.text)
    }
}

/// An error of a query.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The text is no SQL.
    #[error("wrong SQL: {message}{}", shown(place))]
    Syntax {
        /// What the parser said.
        message: String,
        /// Where.
        place: Option<Place>,
    },
    /// A table that does not exist.
    #[error("there is no table '{name}'{}{}", advice(hint), shown(place))]
    UnknownTable {
        /// Its name.
        name: String,
        /// What may have been meant, or what is missing.
        hint: Option<String>,
        /// Where.
        place: Option<Place>,
    },
    /// A column that does not exist.
    #[error("there is no column '{name}'{}{}", advice(hint), shown(place))]
    UnknownColumn {
        /// Its name.
        name: String,
        /// What may have been meant.
        hint: Option<String>,
        /// Where.
        place: Option<Place>,
    },
    /// A function that does not exist.
    #[error("there is no function '{name}'{}{}", advice(hint), shown(place))]
    UnknownFunction {
        /// Its name.
        name: String,
        /// What may have been meant.
        hint: Option<String>,
        /// Where.
        place: Option<Place>,
    },
    /// Files that a statement names cannot be read.
    #[error("{}{}{}", with_causes(cause.as_ref()), advice(hint), shown(place))]
    Files {
        /// Why.
        cause: Box<EngineError>,
        /// What may have been meant.
        hint: Option<String>,
        /// Where.
        place: Option<Place>,
    },
    /// An argument that a table function cannot take.
    #[error("{function}(): {what}")]
    Argument {
        /// The function.
        function: String,
        /// What is wrong.
        what: String,
    },
    /// A statement that is not for here.
    #[error("{what} is not possible here: {instead}")]
    Refused {
        /// The kind of statement.
        what: String,
        /// What to do instead.
        instead: &'static str,
    },
    /// The statement cannot be planned for another reason.
    #[error("{message}{}", shown(place))]
    Plan {
        /// What the planner said.
        message: String,
        /// Where.
        place: Option<Place>,
    },
    /// The query took too long.
    #[error("the query was stopped after {}: raise --timeout, or ask for less", format_duration(*limit))]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// The query gives too many rows.
    #[error("the query gives more than {limit} rows: add a LIMIT, or raise --max-rows")]
    TooManyRows {
        /// The limit.
        limit: u64,
    },
    /// The query needs more memory than it may use.
    #[error("the query needs more memory than {limit}: raise --memory-limit, or lower --threads ({message})")]
    OutOfMemory {
        /// The limit.
        limit: ByteSize,
        /// What the pool said.
        message: String,
    },
    /// The query spills more to disk than it may.
    #[error("the query spills more than {limit} to disk: raise --spill-limit or --memory-limit")]
    OutOfSpill {
        /// The limit.
        limit: ByteSize,
    },
    /// A view that is wrong: of these that come with the program, a test opens all.
    #[error("the view {view} cannot be made")]
    View {
        /// Its name.
        view: String,
        /// Why.
        source: Box<QueryError>,
    },
    /// A name that cannot be given to a table.
    #[error("--table {name}: {what}")]
    TableName {
        /// The name.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Results that have no versions, or what is no version.
    #[error("{target} has no version {version}: {what}")]
    NoVersion {
        /// The results.
        target: String,
        /// The version.
        version: String,
        /// Why.
        what: String,
    },
    /// Files cannot be read, or the plan fails while it runs.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

fn shown(place: &Option<Place>) -> String {
    place.as_ref().map(Place::to_string).unwrap_or_default()
}

fn advice(hint: &Option<String>) -> String {
    hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default()
}

/// The names that hints are taken from.
pub(super) struct KnownNames {
    pub(super) tables: Vec<String>,
    pub(super) functions: Vec<String>,
    /// Views and tables that could be there but are not, with what they need.
    pub(super) missing: Vec<(String, String)>,
}

impl QueryError {
    /// The error for a table that is not among the known ones.
    pub fn unknown_table<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> QueryError {
        QueryError::UnknownTable { name: name.to_owned(), hint: nearest(name, known).map(did_you_mean), place: None }
    }

    /// Whether the same query may succeed when it is tried again.
    pub fn is_retryable(&self) -> bool {
        match self {
            QueryError::Engine(error) => error.is_retryable(),
            QueryError::Files { cause, .. } => cause.is_retryable(),
            _ => false,
        }
    }

    /// The same error with the place of a target in the text of its statement and, if nothing is there, the name of a file beside
    /// it that is nearly called that.
    pub(super) fn of_target(self, target: &str, text: &str) -> QueryError {
        let QueryError::Engine(cause) = self else { return self };
        let hint = match &cause {
            EngineError::NoFiles { .. } => near_file(target).map(did_you_mean),
            _ => None,
        };
        QueryError::Files { cause: Box::new(cause), hint, place: Place::of(text, target) }
    }

    /// What DataFusion's parser or planner said about a statement of `text`.
    pub(super) fn of_planning(error: DataFusionError, text: &str, known: &KnownNames) -> QueryError {
        let span = error.diagnostic().and_then(|diagnostic| diagnostic.span);
        let place = span.and_then(|span| Place::new(text, span.start.line as usize, span.start.column as usize));
        let near = |name: &str| place.clone().or_else(|| Place::of_word(text, name));
        match error.find_root() {
            DataFusionError::SQL(error, _) => QueryError::of_parsing(&error.to_string(), text),
            DataFusionError::SchemaError(error, _) => match error.as_ref() {
                SchemaError::FieldNotFound { field, valid_fields } => {
                    let place = near(&field.name);
                    let hint = nearest_column(field, valid_fields);
                    QueryError::UnknownColumn { name: field.flat_name(), hint, place }
                }
                other => QueryError::Plan { message: other.to_string(), place },
            },
            DataFusionError::Plan(message) => {
                let first_line = message.lines().next().unwrap_or_default();
                let quoted = first_line.split('\'').nth(1).unwrap_or_default();
                if first_line.starts_with("table '") && first_line.ends_with("not found") {
                    let name = quoted.trim_start_matches("datafusion.public.").to_owned();
                    let place = near(&name);
                    QueryError::UnknownTable { hint: known.table_hint(&name), name, place }
                } else if first_line.contains("unction '") && first_line.contains("nvalid")
                    || first_line.contains("table function")
                {
                    let name = quoted.to_owned();
                    let place = near(&name);
                    let hint = nearest(&name, known.functions.iter().map(String::as_str));
                    QueryError::UnknownFunction { hint: hint.map(did_you_mean), name, place }
                } else {
                    QueryError::Plan { message: message.clone(), place }
                }
            }
            DataFusionError::External(_) | DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => {
                QueryError::Engine(error.into())
            }
            root => QueryError::Plan { message: root.strip_backtrace(), place },
        }
    }

    /// What the parser said, which ends in the place if it knows one.
    pub(super) fn of_parsing(message: &str, text: &str) -> QueryError {
        let message = message.trim_start_matches("sql parser error: ");
        let (message, place) = match message.rsplit_once(" at Line: ") {
            Some((message, at)) => {
                let mut numbers = at.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok());
                let place = numbers.next().zip(numbers.next());
                (message, place.and_then(|(line, column)| Place::new(text, line, column)))
            }
            None => (message, None),
        };
        QueryError::Syntax { message: message.to_owned(), place }
    }

    /// What went wrong while a query ran within these limits.
    pub fn of_execution(error: DataFusionError, memory: usize, spill: u64) -> QueryError {
        if let Some(ours) = find_ours(&error) {
            return ours;
        }
        match error.find_root() {
            root if root.to_string().contains("disk space during the spilling") => {
                QueryError::OutOfSpill { limit: ByteSize(spill) }
            }
            DataFusionError::ResourcesExhausted(message) => {
                let message = message.lines().next().unwrap_or_default().to_owned();
                QueryError::OutOfMemory { limit: ByteSize(memory as u64), message }
            }
            _ => QueryError::Engine(error.into()),
        }
    }
}

/// The limit of ours that an error stands for.
fn find_ours(error: &DataFusionError) -> Option<QueryError> {
    let DataFusionError::External(inner) = error.find_root() else { return None };
    match inner.downcast_ref::<QueryError>()? {
        QueryError::TimedOut { limit } => Some(QueryError::TimedOut { limit: *limit }),
        QueryError::TooManyRows { limit } => Some(QueryError::TooManyRows { limit: *limit }),
        _ => None,
    }
}

fn did_you_mean(name: String) -> String {
    format!("did you mean '{name}'?")
}

/// The file in the folder of a local path whose name is nearest to the path's.
fn near_file(target: &str) -> Option<String> {
    let path = std::path::Path::new(target);
    let name = path.file_name()?.to_str()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = std::fs::read_dir(folder.unwrap_or(std::path::Path::new("."))).ok()?;
    let names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let near = nearest(name, names.iter().map(String::as_str))?;
    Some(folder.map_or(near.clone(), |folder| folder.join(&near).display().to_string()))
}

fn nearest_column(field: &Column, valid: &[Column]) -> Option<String> {
    let near = nearest(&field.name, valid.iter().map(|column| column.name.as_str()));
    near.map(did_you_mean).or_else(|| {
        let mut names: Vec<&str> = valid.iter().map(|column| column.name.as_str()).collect();
        names.dedup();
        let shown = names.iter().take(12).copied().collect::<Vec<_>>().join(", ");
        let more = if names.len() > 12 { ", …" } else { "" };
        (!names.is_empty()).then(|| format!("there are {shown}{more}"))
    })
}

impl KnownNames {
    fn table_hint(&self, name: &str) -> Option<String> {
        if let Some((_, needs)) = self.missing.iter().find(|(missing, _)| missing == name) {
            return Some(needs.clone());
        }
        if let Some(near) = nearest(name, self.tables.iter().map(String::as_str)) {
            return Some(did_you_mean(near));
        }
        let near_missing = nearest(name, self.missing.iter().map(|(missing, _)| missing.as_str()));
        let needs = near_missing.and_then(|near| self.missing.iter().find(|(missing, _)| *missing == near));
        needs.map(|(near, needs)| format!("did you mean '{near}'? {needs}")).or_else(|| {
            let tables = self.tables.join(", ");
            (!self.tables.is_empty()).then(|| format!("there are {tables}"))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_place_is_shown_as_its_line_with_a_mark() {
        let place = Place::new("SELECT a\nFROM b", 2, 6).unwrap();
        assert_eq!(place.to_string(), "\n  line 2, column 6:\n  FROM b\n       ^");
        assert_eq!(Place::new("SELECT", 3, 1), None);
    }

    #[test]
    fn a_name_is_found_as_a_word_and_not_within_one() {
        let place = Place::of_word("SELECT backup_style,\n  Style FROM t", "style").unwrap();
        assert_eq!((place.line, place.column), (2, 3));
        assert_eq!(Place::of_word("SELECT styles", "style"), None);
    }

    #[test]
    fn a_parser_message_gives_its_place() {
        let error = QueryError::of_parsing(
            "sql parser error: Expected: an expression, found: FROM at Line: 1, Column: 8",
            "SELECT FROM t",
        );
        let QueryError::Syntax { message, place: Some(place) } = error else { panic!("{error:?}") };
        assert_eq!((message.as_str(), place.line, place.column), ("Expected: an expression, found: FROM", 1, 8));
    }
}
