//! What the line editor asks: is the statement complete, and what could come next?

use rustyline::completion::{Completer, Pair};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper, Highlighter, Hinter};

use crate::cli::sql::shell::completion::Names;

/// Completion and validation for one line; names are those of the session when the prompt was shown.
#[derive(Helper, Hinter, Highlighter)]
pub(super) struct ShellHelper {
    names: Names,
}

impl ShellHelper {
    pub(super) fn new(names: Names) -> Self {
        ShellHelper { names }
    }
}

impl Completer for ShellHelper {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, words) = self.names.complete(&line[..at]);
        let pair = |word: String| Pair { display: word.clone(), replacement: word };
        Ok((start, words.into_iter().map(pair).collect()))
    }
}

impl Validator for ShellHelper {
    /// Enter goes on with the next line until the statement ends.
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if is_complete(context.input()) { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

/// Whether a text is a command, nothing at all, or statements the last of which ends in a semicolon.
pub(super) fn is_complete(text: &str) -> bool {
    let trimmed = text.trim();
    if trimmed.is_empty() || trimmed.starts_with('\\') || matches!(trimmed, "exit" | "quit" | "help") {
        return true;
    }
    let mut last = None;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\'' | '"' => {
                // A doubled quote ends a string and begins one: the same.
                if !rest.by_ref().any(|next| next == c) {
                    return false;
                }
                last = Some(c);
            }
            '-' if rest.peek() == Some(&'-') => {
                let _ = rest.by_ref().find(|next| *next == '\n');
            }
            c if c.is_whitespace() => {}
            c => last = Some(c),
        }
    }
    last == Some(';')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_ends_at_its_semicolon() {
        for complete in ["", "  ", "\\d", "SELECT 1;", "SELECT 1 ; -- done", "SELECT ';' ;", "SELECT 'it''s';", "quit"]
        {
            assert!(is_complete(complete), "{complete}");
        }
        for open in ["SELECT 1", "SELECT ';'", "SELECT 'a;", "SELECT 1 -- ;", "SELECT \";"] {
            assert!(!is_complete(open), "{open}");
        }
    }
}
