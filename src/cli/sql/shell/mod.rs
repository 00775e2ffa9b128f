//! The shell of `normstream sql`: lines edited and kept, statements run, and what is not SQL behind a backslash.

mod commands;
mod completion;
mod editor;

use std::path::PathBuf;
use std::time::Instant;

use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Config as EditorConfig, Editor};
use tokio::runtime::Runtime;

use crate::cli::sql::output::{Format, RowOutput, RowTarget, TableSize};
use crate::cli::sql::progress::QueryProgress;
use crate::cli::sql::shell::commands::Command;
use crate::cli::sql::shell::completion::Names;
use crate::cli::sql::shell::editor::{ShellHelper, is_complete};
use crate::cli::sql::table::terminal_width;
use crate::cli::sql::{SqlArgs, open};
use crate::config::{Config, ProgressStyle};
use crate::engine::query::{SqlSession, SqlStatement};
use crate::engine::with_causes;
use crate::error::Error;
use crate::run::RunError;
use crate::telemetry::print_line;

const PROMPT: &str = "normstream> ";
/// How many lines the history keeps.
const HISTORY: usize = 1_000;
/// How many rows a table shows here.
const ROWS: usize = 100;

/// A session with somebody in front of it.
struct Shell {
    session: SqlSession,
    format: Format,
    is_timed: bool,
    progress: ProgressStyle,
}

/// How a statement ended.
enum Ended {
    Done,
    /// By Ctrl-C.
    Cancelled,
}

/// Reads lines until `\q` or the end of input. An error of a statement is printed and ends nothing.
pub(super) fn run(args: SqlArgs, config: Config, runtime: &Runtime) -> Result<(), Error> {
    let (session, _) = runtime.block_on(open(&args, &config))?;
    let mut shell = Shell {
        session,
        format: args.format.unwrap_or(Format::Table),
        is_timed: args.timing,
        progress: config.settings.progress,
    };
    let mut editor = editor().map_err(no_terminal)?;
    let history = history_file();
    if let Some(history) = &history {
        // The first session has none.
        let _ = editor.load_history(history);
    }
    print_line(&format!("normstream {}: \\? for help, \\q to quit", env!("CARGO_PKG_VERSION")));
    loop {
        let names = runtime.block_on(Names::of(&shell.session));
        editor.set_helper(Some(ShellHelper::new(names)));
        let text = match editor.readline(PROMPT) {
            Ok(text) => text,
            // Ctrl-C at the prompt gives the line up.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(no_terminal(error)),
        };
        if text.trim().is_empty() {
            continue;
        }
        let _ = editor.add_history_entry(text.trim_end());
        match shell.answer(&text, runtime) {
            Ok(true) => {}
            Ok(false) | Err(Error::Run(RunError::BrokenPipe)) => break,
            Err(error) => print_line(&format!("error: {}", with_causes(&error))),
        }
    }
    if let Some(history) = &history {
        let folder = history.parent().map_or(Ok(()), std::fs::create_dir_all);
        if let Err(error) = folder.and_then(|()| editor.save_history(history).map_err(std::io::Error::other)) {
            print_line(&format!("the history could not be kept in {}: {error}", history.display()));
        }
    }
    Ok(())
}

fn editor() -> rustyline::Result<Editor<ShellHelper, DefaultHistory>> {
    let config = EditorConfig::builder()
        .max_history_size(HISTORY)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .build();
    Editor::with_config(config)
}

fn no_terminal(error: ReadlineError) -> Error {
    Error::Read { what: "the terminal".to_owned(), source: std::io::Error::other(error) }
}

fn history_file() -> Option<PathBuf> {
    Some(Config::data_folder()?.join("normstream").join("sql_history"))
}

impl Shell {
    /// Does what a text asks for. `false` to end.
    fn answer(&mut self, text: &str, runtime: &Runtime) -> Result<bool, Error> {
        if let Some(command) = Command::parse(text) {
            let command = command.map_err(Error::Usage)?;
            return runtime.block_on(self.command(command));
        }
        debug_assert!(is_complete(text));
        for statement in SqlStatement::parse(text)? {
            let ended = runtime.block_on(async {
                tokio::select! {
                    ended = self.statement(&statement) => ended,
                    _ = tokio::signal::ctrl_c() => Ok(Ended::Cancelled),
                }
            })?;
            if matches!(ended, Ended::Cancelled) {
                print_line("cancelled");
                break;
            }
        }
        Ok(true)
    }

    async fn statement(&self, statement: &SqlStatement) -> Result<Ended, Error> {
        let started = Instant::now();
        let mut query = self.session.run(statement).await?;
        let progress = QueryProgress::start(self.progress, &query.plan);
        if query.schema.fields().is_empty() {
            while query.next().await?.is_some() {}
        } else {
            let size = TableSize { rows: ROWS, width: terminal_width() };
            let mut output = RowOutput::new(self.format, RowTarget::stdout(), &query.schema, size)?;
            while let Some(batch) = query.next().await? {
                progress.clear_before(output.writes_to_terminal());
                if !output.write(&batch).await? {
                    break;
                }
            }
            drop(query);
            progress.finish();
            output.finish().await?;
        }
        if self.is_timed {
            print_line(&format!("{:.3} s", started.elapsed().as_secs_f64()));
        }
        Ok(Ended::Done)
    }
}
