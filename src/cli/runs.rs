//! `normstream runs`: what has been scored into a table, and what was left on the way.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{HumanBytes, HumanCount};

use crate::cli::input::{NormArgs, Opened};
use crate::cli::score::print;
use crate::config::{Config, Flags};
use crate::error::Error;
use crate::run::{
    OnError, PartPlans, RunError, RunState, RunSummary, ScoreJob, TableRun, WriteOptions, clean, run_called, runs_of,
};
use crate::storage::Storage;
use crate::table::{Table, TableError};

/// List, show, verify and clean the runs of a table.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RunsArgs {
    #[command(subcommand)]
    command: RunsCommand,
}

const EXAMPLES: &str = "\
Examples:
  normstream runs list results/
  normstream runs show results/ 3f9c --json
  normstream runs verify results/ 3f9c --norms norms/ --all
  normstream runs clean results/ --older-than 7d --dry-run";

#[derive(Debug, Subcommand)]
enum RunsCommand {
    /// List the runs of a table, the first one first.
    List {
        /// The table's folder, or its URL.
        table: String,
        /// Print a JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show what a run was and did.
    Show {
        /// The table's folder, or its URL.
        table: String,
        /// The run's id, or the beginning of it [default: the last run].
        run: Option<String>,
        /// Print the receipt, or the plan of a run without one, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Score parts of a committed run again and compare them with what it wrote, bit for bit. Exit code 1 if they differ.
    Verify {
        /// The table's folder, or its URL.
        table: String,
        /// The run's id, or the beginning of it [default: the last run].
        run: Option<String>,
        /// All parts, not a tenth of them.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        norms: NormArgs,
    },
    /// Remove what unfinished runs and killed processes have left; nothing that a commit ever named.
    Clean {
        /// The table's folder, or its URL.
        table: String,
        /// Leave what was worked on within this time alone.
        #[arg(long, default_value = "7d", value_parser = humantime::parse_duration, value_name = "TIME")]
        older_than: Duration,
        /// Say what would be removed, and remove nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

impl RunsArgs {
    /// The settings that were given.
    pub(super) fn flags(&self) -> Flags {
        match &self.command {
            RunsCommand::Verify { norms, .. } => norms.flags(Flags::default()),
            _ => Flags::default(),
        }
    }
}

/// Does what is asked about a table's runs.
pub(super) async fn runs(args: RunsArgs, config: Config) -> Result<(), Error> {
    let storage = Storage::new(config.settings.storage_options(), Config::environment())?;
    match args.command {
        RunsCommand::List { table, json } => list(&open(&storage, &table).await?, json).await,
        RunsCommand::Show { table, run, json } => {
            let table = open(&storage, &table).await?;
            show(&find(&table, run.as_deref()).await?, json)
        }
        RunsCommand::Verify { table, run, all, norms } => {
            let table = open(&storage, &table).await?;
            let run = find(&table, run.as_deref()).await?;
            verify(&config, storage, table, &run, all, &norms).await
        }
        RunsCommand::Clean { table, older_than, dry_run } => {
            // What is cleaned may be the beginning of a table that never came to be.
            let root = storage.open(&table)?;
            let table = Table::open_or_new(&storage, &root, None).await?;
            clean_table(&table, older_than, dry_run).await
        }
    }
}

async fn open(storage: &Storage, name: &str) -> Result<Table, Error> {
    let root = storage.open(name)?;
    match Table::open(storage, &root).await? {
        Some(table) => Ok(table),
        None => Err(TableError::NoTable { table: root.to_string() }.into()),
    }
}

async fn find(table: &Table, run: Option<&str>) -> Result<RunSummary, Error> {
    match run {
        Some(beginning) => Ok(run_called(table, beginning).await?),
        None => runs_of(table).await?.pop().ok_or_else(|| {
            let table = table.root().to_string();
            RunError::NoSuchRun { table, run: "at all".to_owned(), known: Vec::new() }.into()
        }),
    }
}

async fn list(table: &Table, json: bool) -> Result<(), Error> {
    let runs = runs_of(table).await?;
    if json {
        let lines = runs.iter().map(|run| serde_json::to_string(run).map(|line| line + "\n"));
        return print(&lines.collect::<Result<String, _>>().map_err(unprintable)?);
    }
    let mut text =
        format!("{:16}  {:10}  {:16}  {:>12}  {:>8}  {:20}\n", "run", "state", "mode", "sessions", "failed", "begun");
    for run in &runs {
        let count = |pick: fn(&crate::run::Receipt) -> u64| {
            run.receipt.as_ref().map_or_else(String::new, |receipt| HumanCount(pick(receipt)).to_string())
        };
        text.push_str(&format!(
            "{:16}  {:10}  {:16}  {:>12}  {:>8}  {:20}\n",
            run.run.short(),
            state(run),
            run.plan.plan.options.mode.name(),
            count(|receipt| receipt.sessions),
            count(|receipt| receipt.failed),
            &run.plan.begun_at[..run.plan.begun_at.len().min(19)],
        ));
    }
    print(&text)
}

fn state(run: &RunSummary) -> &'static str {
    match run.state {
        RunState::Committed => "committed",
        RunState::Unfinished => "unfinished",
    }
}

fn unprintable(error: serde_json::Error) -> Error {
    Error::Write { what: "JSON".to_owned(), source: error.into() }
}

fn show(run: &RunSummary, json: bool) -> Result<(), Error> {
    if json {
        let text = match &run.receipt {
            Some(receipt) => serde_json::to_string_pretty(receipt),
            None => serde_json::to_string_pretty(&run.plan),
        };
        return print(&(text.map_err(unprintable)? + "\n"));
    }
    let plan = &run.plan.plan;
    let mut text = format!("run id      {}\nstate       {}\n", run.run, state(run));
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:10}  {value}\n"));
    line("begun", run.plan.begun_at.clone());
    line("tool", plan.tool.clone());
    line("mode", format!("{} ({})", plan.options.mode.name(), plan.format));
    line("instrument", format!("{} ({})", plan.instrument, plan.instrument_digest));
    line("norms", format!("{} ({})", plan.norms.join(", "), plan.norms_digest));
    line("chain", format!("{} ({})", plan.options.chain, plan.options.chain_scope));
    line("inputs", format!("{} files, {}", plan.inputs.len(), HumanBytes(plan.bytes())));
    line("parts", format!("{} of {} written", run.parts_written, plan.parts.len()));
    if let Some(receipt) = &run.receipt {
        line("committed", receipt.committed_at.clone());
        line("attempt", receipt.attempt.to_string());
        line("version", receipt.version.map_or_else(|| "not known".to_owned(), |version| version.to_string()));
        line(
            "sessions",
            format!(
                "{}: {} scored, {} failed",
                HumanCount(receipt.sessions),
                HumanCount(receipt.scored),
                HumanCount(receipt.failed)
            ),
        );
        for (code, count) in &receipt.failed_by_code {
            line("", format!("{code} {}", HumanCount(*count)));
        }
        line(
            "written",
            format!(
                "{} rows in {} files, {}",
                HumanCount(receipt.rows),
                HumanCount(receipt.files),
                HumanBytes(receipt.bytes_written)
            ),
        );
        line("seconds", format!("{:.2}, {} parts from before", receipt.seconds, receipt.parts_resumed));
    }
    print(&text)
}

async fn verify(
    config: &Config,
    storage: Storage,
    table: Table,
    run: &RunSummary,
    all: bool,
    norms: &NormArgs,
) -> Result<(), Error> {
    let plan = &run.plan.plan;
    if run.state == RunState::Unfinished {
        return Err(Error::Usage(format!("run {} is not committed: there is nothing to verify yet", run.run.short())));
    }
    let opened = Opened::of_plan(config, norms, storage, plan).await?;
    let mut row_groups = config.settings.row_group_options();
    row_groups.row_group_rows = plan.options.row_group_rows;
    row_groups.zstd_level = plan.options.zstd_level;
    let job = ScoreJob {
        context: opened.context.clone(),
        input: Arc::clone(&opened.input),
        scoring: opened.scoring.clone(),
        columns: plan.columns.iter().map(|column| column.name.clone()).collect(),
        on_error: match plan.options.on_error.as_str() {
            "drop" => OnError::Drop,
            "fail" => OnError::Fail,
            _ => OnError::Keep,
        },
        threads: config.settings.threads,
        row_groups,
        plans: PartPlans::default(),
    };
    let write = WriteOptions {
        mode: plan.options.mode,
        duplicates: plan.options.duplicates,
        failures_to: match &plan.options.failures_to {
            Some(url) => Some(open(table.storage(), url).await?),
            None => None,
        },
    };
    let again = TableRun::plan(job, table, &write).await?;
    let progress = Arc::new(again.job().progress());
    let verified = again.verify(run, if all { 1 } else { 10 }, &progress).await?;
    let mut text = format!("{} of {} parts scored again and equal, bit for bit\n", verified.equal, plan.parts.len());
    for file in &verified.gone {
        text.push_str(&format!("{file} is not there any more: later runs took its place\n"));
    }
    for file in &verified.different {
        text.push_str(&format!("{file} is DIFFERENT from what scoring gives now\n"));
    }
    print(&text)?;
    match verified.different.len() {
        0 => Ok(()),
        count => Err(Error::Failures(format!("{count} files of run {} are different", run.run.short()))),
    }
}

async fn clean_table(table: &Table, age: Duration, dry_run: bool) -> Result<(), Error> {
    let leftovers = clean::leftovers(table, age).await?;
    let mut text = String::new();
    for leftover in &leftovers {
        let removed = !dry_run && clean::remove(table, leftover, age).await?;
        let what = match (dry_run, removed) {
            (true, _) => "would be removed",
            (false, true) => "removed",
            (false, false) => "left: it is worked on again",
        };
        text.push_str(&format!(
            "run {}: {} files, {}, last worked on {}: {what}\n",
            leftover.run.short(),
            leftover.files,
            HumanBytes(leftover.bytes),
            leftover.last_worked_at.format("%Y-%m-%d %H:%M:%S UTC"),
        ));
    }
    for file in clean::temporary_files(table, age).await? {
        if !dry_run {
            clean::remove_temporary(table, &file).await?;
        }
        let (size, written) = (HumanBytes(file.size), file.last_modified.format("%Y-%m-%d %H:%M:%S UTC"));
        let what = if dry_run { "would be removed" } else { "removed" };
        let name = table.root().at(file.location);
        text.push_str(&format!("{name}: {size}, last written to {written}: {what}\n"));
    }
    if text.is_empty() {
        text.push_str("nothing to remove\n");
    }
    print(&text)
}
