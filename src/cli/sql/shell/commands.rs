//! What the shell does that is not SQL: `\d`, `\dv`, `\df`, `\timing`, `\format`, `\q`.

use std::fmt::Write as _;

use arrow::datatypes::DataType;
use clap::ValueEnum as _;

use crate::cli::score::print;
use crate::cli::sql::output::Format;
use crate::cli::sql::shell::Shell;
use crate::engine::functions::FUNCTIONS;
use crate::engine::query::{QueryError, View};
use crate::error::Error;
use crate::model::result::documented_type;
use crate::telemetry::print_line;

/// Each command, what it takes, and what it does.
pub(super) const COMMANDS: &[(&str, &str, &str)] = &[
    ("\\?", "", "this list"),
    ("\\d", "[NAME]", "the tables and views, or the columns of one"),
    ("\\dv", "[NAME]", "the views over results and what a row of each is, or the text of one"),
    ("\\df", "[NAME]", "the functions of this program, or what one does"),
    ("\\timing", "", "switch the time of each statement on or off"),
    ("\\format", "[FORMAT]", "how rows are shown: table, csv, tsv, json or ndjson"),
    ("\\q", "", "quit; so does Ctrl-D"),
];

/// A command of the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Tables,
    Table(String),
    Views,
    View(String),
    Functions,
    Function(String),
    Timing,
    Format(Option<Format>),
    Quit,
}

impl Command {
    /// The command that a text is, or what is wrong with it; `None` for SQL.
    pub(super) fn parse(text: &str) -> Option<Result<Command, String>> {
        let text = text.trim().trim_end_matches(';').trim_end();
        match text {
            "help" => return Some(Ok(Command::Help)),
            "exit" | "quit" => return Some(Ok(Command::Quit)),
            _ if !text.starts_with('\\') => return None,
            _ => {}
        }
        let (name, argument) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let argument = Some(argument.trim()).filter(|argument| !argument.is_empty());
        Some(Ok(match (name, argument.map(str::to_owned)) {
            ("\\?" | "\\h" | "\\help", _) => Command::Help,
            ("\\d" | "\\dt", None) => Command::Tables,
            ("\\d" | "\\dt", Some(name)) => Command::Table(name),
            ("\\dv", None) => Command::Views,
            ("\\dv", Some(name)) => Command::View(name),
            ("\\df", None) => Command::Functions,
            ("\\df", Some(name)) => Command::Function(name),
            ("\\timing", _) => Command::Timing,
            ("\\format", None) => Command::Format(None),
            ("\\format", Some(name)) => match Format::from_str(&name, true) {
                Ok(format @ (Format::Arrow | Format::Parquet)) => {
                    let _ = format;
                    return Some(Err(format!("{name} is not for a terminal: write it with normstream sql -o FILE")));
                }
                Ok(format) => Command::Format(Some(format)),
                Err(_) => return Some(Err(format!("'{name}' is not a format: table, csv, tsv, json or ndjson"))),
            },
            ("\\q" | "\\quit", _) => Command::Quit,
            _ => return Some(Err(format!("there is no command {name}: \\? lists them"))),
        }))
    }
}

impl Shell {
    /// Does what a command says. `false` to end.
    pub(super) async fn command(&mut self, command: Command) -> Result<bool, Error> {
        match command {
            Command::Quit => return Ok(false),
            Command::Help => print(&help())?,
            Command::Tables => print(&self.tables().await)?,
            Command::Table(name) => print(&self.columns(&name).await?)?,
            Command::Views => print(&self.views())?,
            Command::View(name) => match View::all().into_iter().find(|view| view.name == name) {
                Some(view) => print(view.text)?,
                None => return Err(unknown(&name, View::all().iter().map(|view| view.name))),
            },
            Command::Functions => {
                let width = FUNCTIONS.iter().map(|function| function.name.len()).max().unwrap_or(0);
                let line = |function: &crate::engine::functions::FunctionInfo| {
                    format!("  {:width$}  {}\n", function.name, function.description)
                };
                print(&FUNCTIONS.iter().map(line).collect::<String>())?;
            }
            Command::Function(name) => match FUNCTIONS.iter().find(|function| function.name == name) {
                Some(function) => print(&format!("{}\n  {}\n", function.syntax, function.description))?,
                None => return Err(unknown(&name, FUNCTIONS.iter().map(|function| function.name))),
            },
            Command::Timing => {
                self.is_timed = !self.is_timed;
                print_line(if self.is_timed { "timing is on" } else { "timing is off" });
            }
            Command::Format(format) => {
                self.format = format.unwrap_or(self.format);
                let name = self.format.to_possible_value().map(|value| value.get_name().to_owned());
                print_line(&format!("rows are shown as {}", name.unwrap_or_default()));
            }
        }
        Ok(true)
    }

    async fn tables(&self) -> String {
        let tables = self.session.tables();
        let width = tables.iter().map(String::len).max().unwrap_or(0);
        let mut text = String::new();
        for name in &tables {
            let Some(table) = self.session.table(name).await else { continue };
            let kind = if table.get_table_definition().is_some() { "view" } else { "table" };
            let _ = writeln!(text, "  {name:width$}  {kind:5}  {} columns", table.schema().fields().len());
        }
        text
    }

    async fn columns(&self, name: &str) -> Result<String, Error> {
        let Some(table) = self.session.table(name).await else {
            let tables = self.session.tables();
            return Err(unknown(name, tables.iter().map(String::as_str)));
        };
        let schema = table.schema();
        let width = schema.fields().iter().map(|field| field.name().len()).max().unwrap_or(0);
        let line = |field: &std::sync::Arc<arrow::datatypes::Field>| {
            format!("  {:width$}  {}\n", field.name(), type_name(field.data_type()))
        };
        Ok(schema.fields().iter().map(line).collect())
    }

    fn views(&self) -> String {
        let views = View::all();
        let width = views.iter().map(|view| view.name.len()).max().unwrap_or(0);
        let tables = self.session.tables();
        let mut text = String::new();
        for view in &views {
            let is_there = tables.iter().any(|name| name == view.name);
            let lacking = self.session.lacking_views().iter().find(|(name, _)| name == view.name);
            let note = match (is_there, lacking) {
                (true, _) => String::new(),
                (false, Some(_)) if view.needs.is_empty() => " (needs whole results)".to_owned(),
                (false, Some(_)) => format!(" (needs {})", view.needs.join(", ")),
                (false, None) => " (needs --results)".to_owned(),
            };
            let _ = writeln!(text, "  {:width$}  {}{note}\n  {:width$}  {}", view.name, view.summary, "", view.grain);
        }
        text
    }
}

fn help() -> String {
    let width = COMMANDS.iter().map(|(name, takes, _)| name.len() + takes.len() + 1).max().unwrap_or(0);
    let line = |(name, takes, does): &(&str, &str, &str)| format!("  {:width$}  {does}\n", format!("{name} {takes}"));
    let commands: String = COMMANDS.iter().map(line).collect();
    format!(
        "{commands}Statements end in a semicolon. Tab completes, the arrows go through the history, Ctrl-C stops a statement.\n"
    )
}

/// A type as SQL calls it.
fn type_name(data_type: &DataType) -> String {
    match documented_type(data_type) {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Int8 | DataType::UInt8 => "tinyint".to_owned(),
        DataType::Int16 | DataType::UInt16 => "smallint".to_owned(),
        DataType::Int32 | DataType::UInt32 => "integer".to_owned(),
        DataType::Int64 | DataType::UInt64 => "bigint".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Timestamp(_, zone) => {
            if zone.is_some() { "timestamp with time zone" } else { "timestamp" }.to_owned()
        }
        DataType::List(item) | DataType::LargeList(item) => format!("list of {}", type_name(item.data_type())),
        other => other.to_string(),
    }
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    QueryError::unknown_table(name, known).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_with_and_without_an_argument() {
        let read = |text: &str| Command::parse(text);
        assert_eq!(read("\\d"), Some(Ok(Command::Tables)));
        assert_eq!(read(" \\d results ;"), Some(Ok(Command::Table("results".to_owned()))));
        assert_eq!(read("\\format CSV"), Some(Ok(Command::Format(Some(Format::Csv)))));
        assert_eq!(read("quit"), Some(Ok(Command::Quit)));
        assert_eq!(read("SELECT 1;"), None);
        assert_eq!(read("\\x"), Some(Err("there is no command \\x: \\? lists them".to_owned())));
        assert!(matches!(read("\\format parquet"), Some(Err(_))));
    }

    #[test]
    fn types_have_the_names_of_sql() {
        assert_eq!(type_name(&crate::model::result::dictionary_list_type()), "list of text");
        assert_eq!(type_name(&crate::model::result::timestamp_type()), "timestamp with time zone");
    }
}
