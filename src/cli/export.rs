//! `normstream export`: plan, run, list and look at exports.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};

use crate::cli::input::{open_chain, open_norm_store};
use crate::cli::score::print;
use crate::config::{Config, Flags};
use crate::engine::query::{QueryBudget, SqlOptions};
use crate::engine::with_causes;
use crate::error::Error;
use crate::export::schedule::SystemClock;
use crate::export::{
    Cursor, ExportError, ExportJob, Exporter, Incremental, Outcome, PoolState, Request, Source, SourceOptions, State,
    Targets, parse_time, time_text,
};
use crate::instrument::Instrument;
use crate::storage::Storage;
use crate::telemetry::print_line;

/// Bring rows of queries to where they are needed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExportArgs {
    #[command(subcommand)]
    command: ExportCommand,
    /// The table `results`: a file, folder, pattern, URL or Delta table that score has written.
    #[arg(long, global = true, value_name = "URL")]
    results: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  normstream export list
  normstream export plan nightly_scores
  normstream export run nightly_scores
  normstream export run nightly_scores --from 2024-05-01 --to 2024-06-01
  normstream export status --format json

Exports and targets are defined in normstream.toml:
  results = \"results/\"
  [targets.dw]
  url = \"postgres://loader:${PGPASSWORD}@dw.example.com/warehouse\"
  [exports.nightly_scores]
  query = \"sql/exports/scores.sql\"
  target = \"dw\"
  table = \"klsi_scores\"
  incremental = \"column:completed_at\"
  schedule = \"0 3 * * *\"
  timezone = \"Europe/Berlin\"";

#[derive(Debug, Subcommand)]
enum ExportCommand {
    /// Print what exports would do; nothing is written.
    Plan(PlanArgs),
    /// Export now.
    Run(RunArgs),
    /// List the exports of the configuration.
    List,
    /// Show how far exports have come, as their targets tell.
    Status(StatusArgs),
    /// Show or set how far an export has come.
    State(StateArgs),
}

/// Which exports, and which of their rows.
#[derive(Debug, Args)]
struct Selection {
    /// Names of exports; all of them unless given.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Only rows from this time on, as in 2024-05-01 or 2024-05-01T03:00:00Z (UTC). The cursor stays where it is.
    #[arg(long, value_parser = parse_time, requires = "to", value_name = "TIME")]
    from: Option<DateTime<Utc>>,
    /// Only rows before this time.
    #[arg(long, value_parser = parse_time, requires = "from", value_name = "TIME")]
    to: Option<DateTime<Utc>>,
    /// Export everything in the place of what is there, and go on from now.
    #[arg(long, conflicts_with = "from")]
    full: bool,
}

impl Selection {
    fn request(&self) -> Result<Request, Error> {
        match (self.from, self.to) {
            (Some(from), Some(to)) if from >= to => {
                Err(Error::Usage(format!("--from {} is not before --to {}", time_text(&from), time_text(&to))))
            }
            (from, to) => Ok(Request { slot: None, window: from.zip(to), full: self.full }),
        }
    }
}

#[derive(Debug, Args)]
struct PlanArgs {
    #[command(flatten)]
    selection: Selection,
    /// How to print it.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    selection: Selection,
    /// Run the queries and count their rows, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// How to print what was done.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// Names of exports; all of them unless given.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, Args)]
struct StateArgs {
    #[command(subcommand)]
    command: StateCommand,
}

#[derive(Debug, Subcommand)]
enum StateCommand {
    /// Print where an export goes on, as JSON.
    Show {
        /// The export.
        name: String,
    },
    /// Set where an export goes on.
    Set {
        /// The export.
        name: String,
        /// It goes on after this version.
        #[arg(long, required_unless_present = "time", conflicts_with = "time")]
        version: Option<u64>,
        /// It goes on from this time.
        #[arg(long, value_parser = parse_time)]
        time: Option<DateTime<Utc>>,
    },
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// One JSON object an export and line.
    Json,
}

impl ExportArgs {
    /// The settings that were given.
    pub(super) fn flags(&self) -> Flags {
        Flags::default().set("results", self.results.as_ref())
    }
}

pub(super) async fn export(args: ExportArgs, config: Config) -> Result<(), Error> {
    match args.command {
        ExportCommand::List => list(&config.exports(&[])?),
        ExportCommand::Plan(args) => {
            let (exporter, jobs) = open(&config, &args.selection.names).await?;
            plan(&exporter, &jobs, args.selection.request()?, false, args.format).await
        }
        ExportCommand::Run(args) if args.dry_run => {
            let (exporter, jobs) = open(&config, &args.selection.names).await?;
            plan(&exporter, &jobs, args.selection.request()?, true, args.format).await
        }
        ExportCommand::Run(args) => {
            let (exporter, jobs) = open(&config, &args.selection.names).await?;
            run(&exporter, &jobs, args.selection.request()?, args.format).await
        }
        ExportCommand::Status(args) => {
            let (exporter, jobs) = open(&config, &args.names).await?;
            status(&exporter, &jobs, args.format).await
        }
        ExportCommand::State(StateArgs { command: StateCommand::Show { name } }) => {
            let (exporter, jobs) = open(&config, &[name]).await?;
            for job in &jobs {
                let state = exporter.state(job).await?;
                let shown = serde_json::json!({ "export": job.name, "cursor": state.cursor, "slot": state.slot.map(|slot| time_text(&slot)) });
                print(&format!("{shown}\n"))?;
            }
            Ok(())
        }
        ExportCommand::State(StateArgs { command: StateCommand::Set { name, version, time } }) => {
            let (exporter, jobs) = open(&config, &[name]).await?;
            for job in &jobs {
                exporter.set(job, cursor_for(job, version, time)?).await?;
            }
            Ok(())
        }
    }
}

/// What exports need: their jobs, the tables that they read, and their targets.
pub(super) async fn open(config: &Config, names: &[String]) -> Result<(Exporter, Vec<ExportJob>), Error> {
    let jobs = config.exports(names)?;
    if jobs.is_empty() {
        return Err(Error::Usage("no exports are defined: add [exports.NAME] to normstream.toml".to_owned()));
    }
    let storage = Storage::new(config.settings.storage_options(), Config::environment())?;
    let source = source(config, &storage).await?;
    let targets = Arc::new(Targets::new(storage));
    Ok((Exporter { source, targets, clock: Arc::new(SystemClock) }, jobs))
}

fn cursor_for(job: &ExportJob, version: Option<u64>, time: Option<DateTime<Utc>>) -> Result<Cursor, Error> {
    match (&job.incremental, version, time) {
        (Incremental::Version, Some(version), _) => Ok(Cursor::Version(version)),
        (Incremental::Column(_), _, Some(time)) => Ok(Cursor::Time(time)),
        (Incremental::None, ..) => Err(Error::Usage(format!("{} is not incremental and has no cursor", job.name))),
        (Incremental::Version, ..) => Err(Error::Usage(format!("{} goes by versions: give --version", job.name))),
        (Incremental::Column(_), ..) => Err(Error::Usage(format!("{} goes by times: give --time", job.name))),
    }
}

fn list(jobs: &[ExportJob]) -> Result<(), Error> {
    let now = Utc::now();
    let mut rows = vec![["export", "target", "table", "mode", "incremental", "next slot"].map(str::to_owned)];
    for job in jobs {
        let next = job.schedule.as_ref().and_then(|schedule| {
            Some(schedule.after(now)?.with_timezone(&schedule.zone()).format("%Y-%m-%d %H:%M %Z").to_string())
        });
        rows.push([
            job.name.clone(),
            job.target.name.clone(),
            job.table.clone(),
            job.mode.to_string(),
            job.incremental.to_string(),
            next.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    print(&columns(&rows))
}

async fn plan(
    exporter: &Exporter,
    jobs: &[ExportJob],
    request: Request,
    count: bool,
    format: Format,
) -> Result<(), Error> {
    for job in jobs {
        let plan = exporter.plan(job, request, count).await?;
        if format == Format::Json {
            print(&format!("{}\n", serde_json::json!(plan)))?;
            continue;
        }
        let mut lines = vec![
            ["export".to_owned(), format!("{} to {}", plan.export, plan.target)],
            ["run".to_owned(), plan.run_id],
            ["rows".to_owned(), plan.slice],
            ["mode".to_owned(), plan.mode],
            ["table".to_owned(), plan.table],
        ];
        let types = plan.columns.iter().map(|(name, data_type)| format!("{name} {data_type}"));
        lines.push(["columns".to_owned(), types.collect::<Vec<_>>().join(", ")]);
        if let Some(rows) = plan.rows {
            lines.push(["count".to_owned(), format!("{rows} rows; nothing was written")]);
        }
        print(&columns(&lines))?;
    }
    Ok(())
}

async fn run(exporter: &Exporter, jobs: &[ExportJob], request: Request, format: Format) -> Result<(), Error> {
    let mut failures = Vec::new();
    for job in jobs {
        match exporter.run(job, request).await {
            Ok(outcome) if format == Format::Json => print(&format!("{}\n", with_name(job, &outcome)))?,
            Ok(outcome) => print_line(&format!("{}: {}", job.name, told(&outcome))),
            Err(error) => failures.push((job.name.clone(), error)),
        }
    }
    fail(failures, jobs.len())
}

/// One failure as it is; several by the worst of them, each told before.
pub(super) fn fail(mut failures: Vec<(String, ExportError)>, of: usize) -> Result<(), Error> {
    if failures.len() > 1 {
        for (name, error) in &failures {
            print_line(&format!("{name}: {}", with_causes(error)));
        }
    }
    // What is wrong for good comes before what may pass, and both before data that is not as asked for.
    failures.sort_by_key(|(_, error)| (error.is_failure_of_data(), error.is_retryable()));
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0).1.into()),
        failed => {
            let (_, worst) = failures.remove(0);
            print_line(&format!("{failed} of {of} exports failed"));
            Err(worst.into())
        }
    }
}

fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Committed(receipt) => format!(
            "{} rows of {} written to {} {} in {:.2} s (run {})",
            receipt.rows, receipt.slice, receipt.target, receipt.table, receipt.seconds, receipt.run_id
        ),
        Outcome::AlreadyDone(receipt) => {
            format!("already done: {} rows of {} (run {})", receipt.rows, receipt.slice, receipt.run_id)
        }
        Outcome::SlotDone => "already done".to_owned(),
        Outcome::NothingNew { cursor } => format!("nothing new after {cursor}"),
    }
}

fn with_name(job: &ExportJob, outcome: &Outcome) -> serde_json::Value {
    let mut value = serde_json::json!(outcome);
    if let Some(fields) = value.as_object_mut() {
        fields.entry("export").or_insert_with(|| job.name.clone().into());
    }
    value
}

async fn status(exporter: &Exporter, jobs: &[ExportJob], format: Format) -> Result<(), Error> {
    let mut rows = vec![["export", "cursor", "last slot", "last export", "rows", "seconds", "pool"].map(str::to_owned)];
    let mut failures = Vec::new();
    for job in jobs {
        let (state, pool) = match look(exporter, job).await {
            Ok(found) => found,
            Err(error) => {
                if format == Format::Json {
                    let shown = serde_json::json!({
                        "export": job.name, "target": job.target.name, "table": job.table, "error": with_causes(&error),
                    });
                    print(&format!("{shown}\n"))?;
                } else {
                    rows.push([&job.name, "failed", "-", "-", "-", "-", "-"].map(str::to_owned));
                }
                failures.push((job.name.clone(), error));
                continue;
            }
        };
        if format == Format::Json {
            let slot = state.slot.map(|slot| time_text(&slot));
            let shown = serde_json::json!({
                "export": job.name, "target": job.target.name, "table": job.table,
                "cursor": state.cursor, "slot": slot, "last": state.last, "pool": pool,
            });
            print(&format!("{shown}\n"))?;
            continue;
        }
        let none = || "-".to_owned();
        let last = state.last.as_ref();
        rows.push([
            job.name.clone(),
            state.cursor.map_or_else(none, |cursor| cursor.to_string()),
            state.slot.map_or_else(none, |slot| time_text(&slot)),
            last.map_or_else(none, |last| time_text(&last.run_at)),
            last.map_or_else(none, |last| last.rows.to_string()),
            last.map_or_else(none, |last| format!("{:.1}", last.seconds)),
            pool.map_or_else(none, |pool| format!("{} of {}+{}", pool.open, pool.size, pool.max_overflow)),
        ]);
    }
    if format == Format::Table {
        print(&columns(&rows))?;
    }
    fail(failures, jobs.len())
}

/// How far an export has come, and the pool of its target.
async fn look(exporter: &Exporter, job: &ExportJob) -> Result<(State, Option<PoolState>), ExportError> {
    let sink = exporter.targets.open(job)?;
    Ok((sink.state().await?, sink.pool_status()))
}

/// Rows of texts in columns of one width.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// The tables that exports read.
async fn source(config: &Config, storage: &Storage) -> Result<Source, Error> {
    let instrument = Instrument::klsi4();
    let norms = open_norm_store(storage, config, &instrument).await?;
    let chain = open_chain(config, &instrument)?;
    let engine = config.settings.engine_options();
    let sql = SqlOptions { engine, budget: QueryBudget::default(), instrument, chain, local: true };
    let results = config.settings.results.clone();
    let tables = config.settings.tables.clone().into_iter().collect();
    Ok(Source::new(storage.clone(), SourceOptions { sql, norms, results, tables }))
}
