//! The command line: arguments, one file per subcommand, and one match.

mod config;
mod demo;
mod explain;
mod export;
mod generate;
mod input;
mod instrument;
mod into_table;
mod norms;
mod runs;
mod schedule;
mod score;
mod signals;
mod sql;
mod storage;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use crate::config::{Config, Flags};
use crate::engine::with_causes;
use crate::error::Error;
use crate::run::Hold;
use crate::storage::Upload;
use crate::telemetry;

/// Re-score psychometric assessment sessions in bulk.
#[derive(Debug, Parser)]
#[command(name = "normstream", version, about, long_about = None, max_term_width = 110, after_help = AFTER_HELP)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// Read settings from this file instead of ./normstream.toml.
    // Last but for --help in every command, wherever clap would count it.
    #[arg(long, global = true, display_order = 998, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    pool: storage::PoolArgs,
}

const AFTER_HELP: &str = "\
Examples:
  normstream demo                                        generate sessions and norms, score them, look at the result
  normstream score sessions.parquet --to results.parquet
  normstream score 's3://bucket/2024/*.parquet' --to results/ --norms norms/
  cat sessions.ndjson | normstream score - --to - | head

Settings also come from ./normstream.toml and from NORMSTREAM_* variables; see `normstream config show`.

Exit codes: 0 done; 1 done, but sessions failed beyond --max-failures or with --on-error fail; 2 wrong command,
configuration or input; 75 temporary failure, worth a retry; 130 or 143 ended by Ctrl-C or SIGTERM.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Score session files.
    Score(Box<score::ScoreArgs>),
    /// Ask SQL over sessions, norms and results; without -c and -f, a shell.
    Sql(Box<sql::SqlArgs>),
    /// List, show, verify and clean the runs of a table.
    Runs(Box<runs::RunsArgs>),
    /// Score one session and show every step.
    Explain(Box<explain::ExplainArgs>),
    /// Import, list, check and query norm tables.
    Norms(norms::NormsArgs),
    /// Show or check an instrument definition.
    Instrument(instrument::InstrumentArgs),
    /// Generate sessions or norm tables to try things with.
    Generate(generate::GenerateArgs),
    /// Generate sessions and norms, score them, and show the result.
    Demo(demo::DemoArgs),
    /// Look at object stores: whether they answer, how their connections are used.
    Storage(storage::StorageArgs),
    /// Bring rows of queries to where they are needed.
    Export(export::ExportArgs),
    /// Run exports at their times.
    Schedule(schedule::ScheduleArgs),
    /// Show settings and where they come from.
    Config(config::ConfigArgs),
}

/// Runs the program.
pub fn main(args: Args) -> ExitCode {
    telemetry::init_logging();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_silent() {
                telemetry::print_line(&format!("normstream: {}", with_causes(&error)));
            }
            error.exit_code()
        }
    }
}

/// Sets what happens at the points that `FAILPOINTS` names, as `point=actions;…`: so tests stop a run at any of them.
///
/// The points are in every build, so that the program that is tested and measured is the one that is used.
fn set_fail_points() -> Result<(), Error> {
    let points = std::env::var("FAILPOINTS").unwrap_or_default();
    for point in points.split(';').filter(|point| !point.is_empty()) {
        let (name, actions) = point.split_once('=').unwrap_or((point, ""));
        fail::cfg(name, actions).map_err(|wrong| Error::Usage(format!("FAILPOINTS: {point}: {wrong}")))?;
    }
    Ok(())
}

fn run(args: Args) -> Result<(), Error> {
    set_fail_points()?;
    let file = args.config.as_deref();
    let load = |flags: Flags| Config::load(file, args.pool.flags(flags)).map_err(Error::from);
    match args.command {
        Command::Score(args) => {
            let config = load(args.flags())?;
            let hold = Hold::default();
            block_on_held(config.settings.threads, hold.clone(), score::score(*args, config, hold))
        }
        Command::Sql(args) => {
            let config = load(args.flags())?;
            let threads = config.settings.threads + SPARE_WORKERS;
            if !args.is_interactive() {
                return block_on(threads, sql::sql(*args, config));
            }
            // The shell has its own use for Ctrl-C, and what it has stopped must not keep it from ending.
            let runtime = runtime(threads)?;
            let result = sql::shell(*args, config, &runtime);
            wait_for_aborts(&runtime);
            runtime.shutdown_background();
            result
        }
        Command::Runs(args) => {
            let config = load(args.flags())?;
            block_on(config.settings.threads, runs::runs(*args, config))
        }
        Command::Explain(args) => {
            let config = load(args.flags())?;
            block_on(1, explain::explain(*args, config))
        }
        Command::Norms(args) => {
            let config = load(args.flags())?;
            block_on(config.settings.threads, norms::norms(args, config))
        }
        Command::Instrument(args) => instrument::instrument(args),
        Command::Generate(args) => {
            let config = load(args.flags())?;
            block_on(config.settings.threads, generate::generate(args, config))
        }
        Command::Demo(args) => demo::demo(args, &load(Flags::default())?, file),
        Command::Storage(args) => block_on(1, storage::storage(args, load(Flags::default())?)),
        Command::Export(args) => {
            let config = load(args.flags())?;
            block_on(config.settings.threads, export::export(args, config))
        }
        Command::Schedule(args) => {
            let config = load(Flags::default())?;
            block_on_to_the_end(config.settings.threads, schedule::schedule(args, config))
        }
        Command::Config(args) => config::config(args, &load(Flags::default())?),
    }
}

/// Workers of a query beyond its partitions, so that one is free for clocks and signals while the others work without a pause.
const SPARE_WORKERS: usize = 2;

/// How long a signal waits for what cannot be cancelled.
const LAST_WRITE: Duration = Duration::from_secs(1);
/// How long it waits for a commit that has begun.
const LAST_COMMIT: Duration = Duration::from_secs(8);
/// How long the end of a command waits for stores to remove the parts of objects that were given up.
const LAST_ABORT: Duration = Duration::from_secs(5);

/// A runtime with so many workers.
fn runtime(threads: usize) -> Result<Runtime, Error> {
    let built = Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    built.map_err(|source| Error::Write { what: "to a new thread".to_owned(), source })
}

/// Runs a command on a runtime with so many workers, until it ends or a signal ends it.
fn block_on(threads: usize, command: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    block_on_held(threads, Hold::default(), command)
}

/// The same; a signal waits a while for what holds `hold`.
fn block_on_held(threads: usize, hold: Hold, command: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    block_on_to_the_end(threads, async {
        tokio::pin!(command);
        let signal = tokio::select! {
            result = &mut command => return result,
            signal = signals::received() => signal,
        };
        tokio::select! {
            _ = &mut command => {}
            () = hold.released() => {}
            () = tokio::time::sleep(LAST_COMMIT) => {}
        }
        Err(signal)
    })
}

/// Runs a command that heeds signals itself.
fn block_on_to_the_end(threads: usize, command: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let runtime = runtime(threads)?;
    let result = runtime.block_on(command);
    wait_for_aborts(&runtime);
    match result {
        // A write to disk that was under way takes its unfinished file with it, but only when it has ended.
        Err(Error::Interrupted { .. }) => runtime.shutdown_timeout(LAST_WRITE),
        // A read of standard input that nobody waits for any more must not keep the program.
        _ => runtime.shutdown_background(),
    }
    result
}

/// Waits a while until no store has parts of an object that was given up: nobody would remove them after that.
fn wait_for_aborts(runtime: &Runtime) {
    let aborts = async { tokio::time::timeout(LAST_ABORT, Upload::all_ended()).await };
    if runtime.block_on(aborts).is_err() {
        tracing::warn!("parts of objects that were given up are left to their stores' lifecycle rules");
    }
}
