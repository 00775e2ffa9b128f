//! `normstream schedule`: run exports at their times, or tell the times.

use std::sync::Arc;

use chrono::Utc;
use clap::{Args, Subcommand, ValueEnum};
use tokio::sync::watch;

use crate::cli::export::{columns, fail, open};
use crate::cli::score::print;
use crate::cli::signals;
use crate::config::Config;
use crate::error::Error;
use crate::export::schedule::{Event, Scheduler};
use crate::export::{ExportJob, time_text};
use crate::telemetry::print_line;

/// Run exports at their times.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ScheduleArgs {
    #[command(subcommand)]
    command: ScheduleCommand,
}

const EXAMPLES: &str = "\
Examples:
  normstream schedule next -n 5
  normstream schedule run --log json        in a systemd unit or a container: prints a line when it is ready; SIGTERM
                                            begins no more exports and waits for those that run
  normstream schedule run --once            from cron or a CronJob: runs what is due and exits

Any number of schedulers may run the same exports: each slot runs once.";

#[derive(Debug, Subcommand)]
enum ScheduleCommand {
    /// Run exports as their slots come, until SIGTERM or Ctrl-C.
    Run(RunArgs),
    /// Print the slots that come.
    Next(NextArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Names of exports; all that have a schedule unless given.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Run what is due now, and exit. Where another process has the lease of an export, wait up to a minute for it to end.
    #[arg(long)]
    once: bool,
    /// How to write what happens, on stderr.
    #[arg(long, value_enum, default_value = "text")]
    log: LogFormat,
}

#[derive(Debug, Args)]
struct NextArgs {
    /// Names of exports; all that have a schedule unless given.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// How many slots of each export.
    #[arg(short, long = "count", default_value_t = 10, value_name = "N")]
    number: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// A sentence a line.
    Text,
    /// A JSON object a line.
    Json,
}

pub(super) async fn schedule(args: ScheduleArgs, config: Config) -> Result<(), Error> {
    match args.command {
        ScheduleCommand::Next(args) => next(&scheduled(config.exports(&args.names)?)?, args.number),
        ScheduleCommand::Run(args) => run(args, config).await,
    }
}

fn scheduled(jobs: Vec<ExportJob>) -> Result<Vec<ExportJob>, Error> {
    let jobs: Vec<ExportJob> = jobs.into_iter().filter(|job| job.schedule.is_some()).collect();
    if jobs.is_empty() {
        return Err(Error::Usage("no export has a schedule: add schedule = \"0 3 * * *\" to one".to_owned()));
    }
    Ok(jobs)
}

fn next(jobs: &[ExportJob], number: usize) -> Result<(), Error> {
    let now = Utc::now();
    let mut slots = Vec::new();
    for job in jobs {
        let Some(schedule) = &job.schedule else { continue };
        let coming = std::iter::successors(schedule.after(now), |slot| schedule.after(*slot)).take(number);
        slots.extend(coming.map(|slot| (slot, job.name.clone(), slot.with_timezone(&schedule.zone()).to_rfc3339())));
    }
    slots.sort();
    let rows: Vec<[String; 3]> = slots.into_iter().map(|(slot, name, local)| [time_text(&slot), local, name]).collect();
    print(&columns(&rows))
}

async fn run(args: RunArgs, config: Config) -> Result<(), Error> {
    let (exporter, jobs) = open(&config, &args.names).await?;
    let jobs = scheduled(jobs)?;
    let exports = jobs.len();
    let log = args.log;
    let tell = Arc::new(move |event: Event| match log {
        LogFormat::Text => print_line(&format!("{} {event}", time_text(&now_to_the_second()))),
        LogFormat::Json => {
            let mut value = serde_json::json!(event);
            if let Some(fields) = value.as_object_mut() {
                fields.insert("time".to_owned(), time_text(&now_to_the_second()).into());
            }
            print_line(&value.to_string());
        }
    });
    let scheduler = Scheduler::new(exporter, jobs, tell);
    if args.once {
        return tokio::select! {
            failures = scheduler.run_once() => fail(failures, exports),
            signal = signals::received() => Err(signal),
        };
    }
    let (stop, stopped) = watch::channel(false);
    let running = scheduler.run(stopped);
    tokio::pin!(running);
    tokio::select! {
        () = &mut running => return Ok(()),
        _ = signals::received() => {}
    }
    stop.send_replace(true);
    // A second signal does not wait.
    tokio::select! {
        () = running => Ok(()),
        signal = signals::received() => Err(signal),
    }
}

fn now_to_the_second() -> chrono::DateTime<Utc> {
    use chrono::DurationRound;
    let now = Utc::now();
    now.duration_trunc(chrono::TimeDelta::seconds(1)).unwrap_or(now)
}
