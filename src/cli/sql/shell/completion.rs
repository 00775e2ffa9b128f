//! What the next word may be.

use crate::cli::sql::shell::commands::COMMANDS;
use crate::engine::functions::FUNCTIONS;
use crate::engine::query::SqlSession;

/// Words of SQL that are worth completing.
const KEYWORDS: &[&str] = &[
    "ALL",
    "AND",
    "ANALYZE",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COUNT",
    "CREATE",
    "CROSS",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "FALSE",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "IN",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "IS",
    "JOIN",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "RIGHT",
    "ROWS",
    "SELECT",
    "SET",
    "SHOW",
    "TABLE",
    "TABLES",
    "THEN",
    "TRUE",
    "UNION",
    "USING",
    "VALUES",
    "VIEW",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
];

/// The names that a session knows.
#[derive(Debug, Default, Clone)]
pub(super) struct Names {
    tables: Vec<String>,
    /// Tables, columns, functions and keywords, sorted.
    words: Vec<String>,
}

impl Names {
    /// The names of a session as it is now.
    pub(super) async fn of(session: &SqlSession) -> Names {
        let tables = session.tables();
        let mut columns: Vec<String> = Vec::new();
        for table in &tables {
            if let Some(table) = session.table(table).await {
                columns.extend(table.schema().fields().iter().map(|field| field.name().clone()));
            }
        }
        let state = session.context().state();
        let functions = state.scalar_functions().keys().chain(state.aggregate_functions().keys());
        let functions: Vec<String> = functions.chain(state.window_functions().keys()).cloned().collect();
        Names::new(tables, columns.into_iter().chain(functions))
    }

    fn new(tables: Vec<String>, others: impl IntoIterator<Item = String>) -> Names {
        let ours = FUNCTIONS.iter().map(|function| function.name.to_owned());
        let keywords = KEYWORDS.iter().map(|keyword| (*keyword).to_owned());
        let mut words: Vec<String> = tables.iter().cloned().chain(others).chain(ours).chain(keywords).collect();
        words.sort_by_key(|word| word.to_lowercase());
        words.dedup();
        Names { tables, words }
    }

    /// Where the word at the end of a text begins, and what it may become.
    pub(super) fn complete(&self, text: &str) -> (usize, Vec<String>) {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let start = text.char_indices().rev().take_while(|(_, c)| is_part(*c)).last().map_or(text.len(), |(at, _)| at);
        if let Some(command) = text.strip_prefix('\\') {
            if !command.contains(' ') {
                let commands = COMMANDS.iter().map(|(name, ..)| (*name).to_owned());
                return (0, commands.filter(|name| name.starts_with(text)).collect());
            }
            return (start, starting_with(&self.tables, &text[start..]));
        }
        if start == text.len() {
            return (start, Vec::new());
        }
        (start, starting_with(&self.words, &text[start..]))
    }
}

/// The words that go on from a beginning, whatever its case; keywords in the case it has.
fn starting_with(words: &[String], beginning: &str) -> Vec<String> {
    let lower = beginning.to_lowercase();
    let is_lower = !beginning.is_empty() && !beginning.chars().any(char::is_uppercase);
    let found = words.iter().filter(|word| word.to_lowercase().starts_with(&lower));
    let in_case =
        |word: &String| if is_lower && KEYWORDS.contains(&word.as_str()) { word.to_lowercase() } else { word.clone() };
    found.map(in_case).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new(vec!["results".to_owned()], ["style".to_owned(), "backup_style".to_owned()])
    }

    #[test]
    fn words_are_completed_whatever_their_case() {
        assert_eq!(names().complete("SELECT sty"), (7, vec!["style".to_owned()]));
        assert_eq!(names().complete("SELECT * FROM RES"), (14, vec!["results".to_owned(), "results_at".to_owned()]));
        assert_eq!(names().complete("sel"), (0, vec!["select".to_owned()]));
        assert_eq!(names().complete("SEL"), (0, vec!["SELECT".to_owned()]));
        assert_eq!(names().complete("SELECT "), (7, vec![]));
    }

    #[test]
    fn commands_are_completed_and_then_tables() {
        assert_eq!(names().complete("\\tim"), (0, vec!["\\timing".to_owned()]));
        assert_eq!(names().complete("\\d re"), (3, vec!["results".to_owned()]));
    }
}
