//! `normstream sql`: statements from the command line, from files or from standard input, and a shell.
//!
//! Not `datafusion-cli` used as a library: it collects the rows of a query before it prints them, puts stores of its own in the
//! place of ours, and brings 48 more crates, a cloud vendor's kit among them. What it would give is small: a line editor
//! (rustyline, behind the feature `shell`) and writers of rows that Arrow has.

mod output;
mod progress;
#[cfg(feature = "shell")]
mod shell;
mod table;

use std::io::{IsTerminal as _, Read as _};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use clap::Args;

use crate::cli::input::{NormArgs, open_chain, open_instrument, open_norm_store};
use crate::cli::sql::output::{Format, RowOutput, RowTarget, TableSize};
use crate::cli::sql::progress::QueryProgress;
use crate::config::{Config, Flags, ProgressStyle};
use crate::engine::STDIN;
use crate::engine::query::{QueryBudget, SqlOptions, SqlSession, SqlStatement};
use crate::error::Error;
use crate::run::add_run_tables;
use crate::storage::Storage;

/// Ask SQL over sessions, norms and results.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SqlArgs {
    /// Run these statements, separated by semicolons. Repeatable.
    #[arg(short = 'c', long = "command", value_name = "SQL", allow_hyphen_values = true)]
    commands: Vec<String>,
    /// Run the statements of a file, or - for standard input; after those of -c. Repeatable.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<String>,
    /// The table `results` and the views over it: a file, folder, pattern, URL or Delta table that score has written.
    #[arg(long, value_name = "URL")]
    results: Option<String>,
    /// A table: a file, folder, pattern, URL or Delta table, as in sessions='in/*.parquet'. Repeatable.
    #[arg(long = "table", value_name = "NAME=URL", value_parser = parse_table)]
    tables: Vec<(String, String)>,
    /// How rows are written [default: what the name of -o says, else table].
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write rows to this file, whole or not at all; - for standard output.
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    output: Option<String>,
    /// Replace the file of -o if it is there.
    #[arg(long, requires = "output")]
    overwrite: bool,
    #[command(flatten)]
    norms: NormArgs,
    /// Stop a statement that takes longer, as in 30s or 5m.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Stop a statement that gives more rows.
    #[arg(long, value_name = "N")]
    max_rows: Option<u64>,
    /// Memory that sorts, joins and aggregates may hold before they spill to disk, as in 256MiB [default: 512MiB].
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<ByteSize>,
    /// Disk that may be spilled to, as in 10GiB [default: 100GiB].
    #[arg(long, value_name = "SIZE")]
    spill_limit: Option<ByteSize>,
    /// Partitions worked on at once [default: as many as the machine has processors].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Rows of a record batch [default: 8192].
    #[arg(long, value_name = "ROWS")]
    batch_size: Option<usize>,
    /// How to show progress [default: auto].
    #[arg(long, value_enum)]
    progress: Option<ProgressStyle>,
    /// Print how long each statement took to standard error.
    #[arg(long)]
    timing: bool,
}

const EXAMPLES: &str = "\
Examples:
  normstream sql                                         a shell; \\? lists its commands
  normstream sql -c \"SELECT style, count(*) FROM score('sessions/*.parquet') GROUP BY style\"
  normstream sql --results results/ -c 'SELECT * FROM style_distribution' --format csv
  normstream sql --results results/ -c 'SELECT * FROM failed_sessions' -o failed.parquet
  normstream sql -c \"SELECT * FROM 'a.csv' JOIN 'b.parquet' USING (session_id)\" --format ndjson | head
  normstream sql --table sessions=in/ -f questions.sql --timeout 5m --memory-limit 1GiB

Tables: results and its views (--results), and if they are a table that score has written to, its runs and their failures;
norms (--norms; the published table is always there), those of --table, and any file by its name in quotes. Functions: score('…'), results_at(version), and what \\df in the shell or SHOW FUNCTIONS lists.

Exit codes: 0 done; 2 wrong SQL, an unknown table or column, an unreadable file, a limit that was hit; 75 temporary failure.";

fn parse_table(text: &str) -> Result<(String, String), String> {
    let is_name = |name: &str| {
        name.chars().all(|c| c.is_alphanumeric() || c == '_') && name.chars().next().is_some_and(|c| !c.is_numeric())
    };
    match text.split_once('=') {
        Some((name, target)) if is_name(name) && !target.is_empty() => Ok((name.to_lowercase(), target.to_owned())),
        _ => Err("give it as NAME=URL, as in sessions=in/; names have letters, digits and _".to_owned()),
    }
}

impl SqlArgs {
    /// The settings that were given.
    pub(super) fn flags(&self) -> Flags {
        self.norms
            .flags(Flags::default())
            .set("memory_limit", self.memory_limit)
            .set("threads", self.threads)
            .set("batch_size", self.batch_size)
            .set("progress", self.progress)
    }

    /// Whether somebody is to be asked for statements, line by line.
    pub(super) fn is_interactive(&self) -> bool {
        self.commands.is_empty() && self.files.is_empty() && std::io::stdin().is_terminal()
    }

    /// The statements of -c, then those of -f; with neither, those of standard input.
    fn statements(&self) -> Result<Vec<SqlStatement>, Error> {
        let mut statements = Vec::new();
        for sql in &self.commands {
            statements.extend(SqlStatement::parse(sql)?);
        }
        let stdin = [STDIN.to_owned()];
        let files = if self.commands.is_empty() && self.files.is_empty() { &stdin[..] } else { &self.files };
        for file in files {
            let read = match file.as_str() {
                STDIN => {
                    let mut text = String::new();
                    std::io::stdin().read_to_string(&mut text).map(|_| text)
                }
                file => std::fs::read_to_string(file),
            };
            let text = read.map_err(|source| Error::Read { what: file.clone(), source })?;
            statements.extend(SqlStatement::parse(&text)?);
        }
        Ok(statements)
    }
}

/// A session over what the arguments name.
async fn open(args: &SqlArgs, config: &Config) -> Result<(SqlSession, Storage), Error> {
    let instrument = open_instrument(&args.norms)?;
    let chain = open_chain(config, &instrument)?;
    let storage = Storage::new(config.settings.storage_options(), Config::environment())?;
    let norms = open_norm_store(&storage, config, &instrument).await?;
    let mut engine = config.settings.engine_options();
    if let Some(limit) = args.spill_limit {
        engine.spill_limit = limit.as_u64();
    }
    let budget = QueryBudget { timeout: args.timeout, max_rows: args.max_rows };
    let options = SqlOptions { engine, budget, instrument, chain, local: true };
    let mut session = SqlSession::open(&storage, norms, options).await?;
    if let Some(results) = args.results.as_ref().or(config.settings.results.as_ref()) {
        session.add_results(results).await?;
        add_run_tables(&session, &storage, results).await?;
    }
    let given = |name: &String| args.tables.iter().any(|(given, _)| given == name);
    let configured = config.settings.tables.iter().filter(|(name, _)| !given(name));
    for (name, target) in args.tables.iter().map(|(name, target)| (name, target)).chain(configured) {
        session.add_table(name, target).await?;
    }
    Ok((session, storage))
}

/// Runs statements one after the other, and writes what they give.
pub(super) async fn sql(args: SqlArgs, config: Config) -> Result<(), Error> {
    let statements = args.statements()?;
    let format = Format::of(args.format, args.output.as_deref())?;
    let (session, storage) = open(&args, &config).await?;
    let mut written = false;
    for statement in &statements {
        let started = Instant::now();
        let mut query = session.run(statement).await?;
        let progress = QueryProgress::start(config.settings.progress, &query.plan);
        if query.schema.fields().is_empty() {
            // A definition or a setting: it is done when its stream has ended.
            while query.next().await?.is_some() {}
        } else {
            let target = RowTarget::open(&storage, args.output.as_deref(), args.overwrite).await?;
            if written && !target.is_stdout() {
                return Err(Error::Usage("-o takes the rows of one statement, and there are several".to_owned()));
            }
            let size = TableSize { rows: table::TABLE_ROWS, width: table::terminal_width() };
            let mut output = RowOutput::new(format, target, &query.schema, size)?;
            while let Some(batch) = query.next().await? {
                progress.clear_before(output.writes_to_terminal());
                if !output.write(&batch).await? {
                    break;
                }
            }
            drop(query);
            output.finish().await?;
            written = true;
        }
        progress.finish();
        if args.timing {
            crate::telemetry::print_line(&format!("{:.3} s", started.elapsed().as_secs_f64()));
        }
    }
    Ok(())
}

/// The interactive shell; not for programs.
pub(super) fn shell(args: SqlArgs, config: Config, runtime: &tokio::runtime::Runtime) -> Result<(), Error> {
    #[cfg(feature = "shell")]
    {
        shell::run(args, config, runtime)
    }
    #[cfg(not(feature = "shell"))]
    {
        let _ = (args, config, runtime);
        Err(Error::Usage("this program was built without its shell: give statements with -c or -f".to_owned()))
    }
}
