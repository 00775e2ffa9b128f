//! `normstream score … --to FOLDER`: runs into tables.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use indicatif::{HumanBytes, HumanCount};

use crate::cli::score::{Explain, ScoreArgs, print};
use crate::config::{Config, ProgressStyle};
use crate::engine::PartLimits;
use crate::error::Error;
use crate::model::FaultCode;
use crate::norms::NormStore;
use crate::run::{
    Duplicates, Hold, Receipt, Reprocess, RunPlan, RunReport, ScoreJob, Standing, TableRun, WriteMode, WriteOptions,
};
use crate::storage::Storage;
use crate::table::Table;
use crate::telemetry::{ProgressReporter, print_line, summary};

/// A part of a table is as large as so many parts of a file: each becomes a file of its own.
const PARTS_OF_A_FILE: u64 = 4;

/// What is for tables alone.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for a folder, which is a table")]
pub(super) struct IntoTableArgs {
    /// What happens to rows that are there [default: append].
    #[arg(long, value_enum, conflicts_with = "overwrite")]
    mode: Option<ModeArg>,
    /// With --mode replace-sessions: what is done if the input has a session_id more than once.
    #[arg(long, value_enum, default_value_t = DuplicatesArg::Fail)]
    duplicates: DuplicatesArg,
    /// Print the plan and what there is of the run already; score and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Also write the sessions that cannot be scored to a table of their own, with all columns of their file, error_code and
    /// error.
    #[arg(long, value_name = "FOLDER")]
    failures_to: Option<String>,
    /// Which parts of a run that is done already are done again.
    #[arg(long, value_enum, default_value_t = ReprocessArg::None)]
    reprocess: ReprocessArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeArg {
    /// They stay, and the new ones are added.
    Append,
    /// They give way to the new ones, all at once.
    Overwrite,
    /// Those of the sessions that are scored give way, and all others stay: for scoring again.
    ReplaceSessions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DuplicatesArg {
    /// The run ends before the commit.
    Fail,
    /// The row with the latest completed_at stays.
    Last,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReprocessArg {
    /// None.
    None,
    /// Those with sessions that failed.
    Failed,
    /// All.
    Completed,
}

impl IntoTableArgs {
    /// Refuses what means nothing for a file.
    pub(super) fn refuse_for_files(&self) -> Result<(), Error> {
        let given = [
            ("--mode", self.mode.is_some()),
            ("--duplicates", self.duplicates != DuplicatesArg::Fail),
            ("--failures-to", self.failures_to.is_some()),
            ("--dry-run", self.dry_run),
            ("--reprocess", self.reprocess != ReprocessArg::None),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((option, _)) => Err(Error::Usage(format!(
                "{option} is for tables, and --to names a file: name a folder, as in results/"
            ))),
            None => Ok(()),
        }
    }

    async fn write_options(&self, overwrite: bool, table: &Table) -> Result<WriteOptions, Error> {
        let mode = match self.mode {
            Some(ModeArg::Overwrite) => WriteMode::Overwrite,
            None if overwrite => WriteMode::Overwrite,
            Some(ModeArg::ReplaceSessions) => WriteMode::ReplaceSessions,
            Some(ModeArg::Append) | None => WriteMode::Append,
        };
        let duplicates = match self.duplicates {
            DuplicatesArg::Fail => Duplicates::Fail,
            DuplicatesArg::Last => Duplicates::Last,
        };
        if duplicates != Duplicates::Fail && mode != WriteMode::ReplaceSessions {
            return Err(Error::Usage(
                "--duplicates is for --mode replace-sessions: other modes keep every row".to_owned(),
            ));
        }
        let failures_to = match &self.failures_to {
            Some(folder) => {
                let folder = table.storage().open(folder)?;
                let there = Table::open(table.storage(), &folder).await?;
                Some(there.unwrap_or_else(|| Table::new(table.storage(), &folder, table.format())))
            }
            None => None,
        };
        Ok(WriteOptions { mode, duplicates, failures_to })
    }
}

/// Scoring into a table.
pub(super) struct IntoTable<'a> {
    pub(super) args: &'a ScoreArgs,
    pub(super) config: &'a Config,
    pub(super) norms: &'a Arc<NormStore>,
    pub(super) hold: Hold,
}

impl IntoTable<'_> {
    /// Plans the run, does what is left of it, and tells. `None` after a dry run.
    pub(super) async fn run(&self, mut job: ScoreJob, table: Table) -> Result<Option<RunReport>, Error> {
        if self.args.explain == Some(Explain::Analyze) {
            return Err(Error::Usage("--explain analyze is for a file: its parts go through one plan".to_owned()));
        }
        let limits = job.input.options.part_limits;
        let limits =
            PartLimits { rows: PARTS_OF_A_FILE * limits.rows, text_bytes: PARTS_OF_A_FILE * limits.text_bytes };
        Arc::make_mut(&mut job.input).options.part_limits = limits;
        let write = self.args.table.write_options(self.args.overwrite, &table).await?;
        let run = TableRun::plan(job, table, &write).await?;
        let standing = run.standing().await?;
        if self.args.table.dry_run {
            print(&described(&run))?;
            print(&standing_text(&run, &standing))?;
            return Ok(None);
        }
        let reprocess = match self.args.table.reprocess {
            ReprocessArg::None => Reprocess::None,
            ReprocessArg::Failed => Reprocess::Failed,
            ReprocessArg::Completed => Reprocess::Completed,
        };
        let style = self.config.settings.progress;
        let tell = |text: &str| {
            if !text.is_empty() && !matches!(style, ProgressStyle::Off | ProgressStyle::Json) {
                print_line(text.trim_end());
            }
        };
        tell(&headline(&run));
        tell(&standing_text(&run, &standing));
        let progress = Arc::new(run.job().progress());
        let reporter = ProgressReporter::start(style, &progress, Some(self.norms));
        let result = run.execute(reprocess, &progress, &self.hold).await?;
        let report = report_of(&result.receipt, self.norms, run.table().storage());
        let words = if result.was_done {
            already_done(&result.receipt)
        } else {
            format!("{}\n{}", summary(&report), committed(&run, &result.receipt))
        };
        reporter.finish(&result.receipt, &words);
        Ok(Some(report))
    }
}

/// The plan in one line.
fn headline(run: &TableRun) -> String {
    let plan = run.as_plan();
    let sessions = plan.sessions().map(|count| format!("{} sessions, ", HumanCount(count))).unwrap_or_default();
    format!(
        "run {}: {} ({sessions}{}) in {}, {} to the {} table {}",
        run.id().short(),
        counted(plan.inputs.len(), "file"),
        HumanBytes(plan.bytes()),
        counted(plan.parts.len(), "part"),
        plan.options.mode.name(),
        plan.format,
        run.table().root(),
    )
}

/// How many of a thing, in words.
fn counted(count: usize, thing: &str) -> String {
    format!("{} {thing}{}", HumanCount(count as u64), if count == 1 { "" } else { "s" })
}

/// The whole plan as `--dry-run` prints it.
fn described(run: &TableRun) -> String {
    let plan = run.as_plan();
    let mut text = format!("{}\n", headline(run));
    let RunPlan { options, .. } = plan;
    let norms = if plan.norms.is_empty() { "the published table".to_owned() } else { plan.norms.join(", ") };
    text.push_str(&format!("run id      {}\n", run.id()));
    text.push_str(&format!("instrument  {} ({})\n", plan.instrument, &plan.instrument_digest[..16]));
    text.push_str(&format!("norms       {norms} ({})\n", &plan.norms_digest[..16]));
    text.push_str(&format!("chain       {} ({})\n", options.chain, options.chain_scope));
    text.push_str(&format!("on error    {}\n", options.on_error));
    let columns: Vec<String> = plan.columns.iter().map(|column| format!("{} {}", column.name, column.r#type)).collect();
    text.push_str(&format!("columns     {}\n", columns.join(", ")));
    for (number, input) in plan.inputs.iter().enumerate() {
        let parts = plan.parts.iter().filter(|part| part.input == number).count();
        let (size, version) = (HumanBytes(input.size), &input.version);
        text.push_str(&format!("input       {} ({size}, version {version}, {})\n", input.url, counted(parts, "part")));
    }
    for input in &plan.attributes {
        text.push_str(&format!("attributes  {} ({}, version {})\n", input.url, HumanBytes(input.size), input.version));
    }
    text
}

fn standing_text(run: &TableRun, standing: &Standing) -> String {
    match standing {
        Standing::New { instead_of: None } => String::new(),
        Standing::New { instead_of: Some((earlier, changes)) } => format!(
            "this is a new run: run {} was begun and not finished, and since then {}\n",
            earlier.short(),
            changes.join("; ")
        ),
        Standing::Begun { parts } => {
            format!("going on with this run: {parts} of its {} parts are written\n", run.as_plan().parts.len())
        }
        Standing::Committed { .. } => "this run is in the table already\n".to_owned(),
    }
}

fn already_done(receipt: &Receipt) -> String {
    format!(
        "already done: {} sessions were committed at {} ({} scored, {} failed)",
        HumanCount(receipt.sessions),
        receipt.committed_at,
        HumanCount(receipt.scored),
        HumanCount(receipt.failed),
    )
}

fn committed(run: &TableRun, receipt: &Receipt) -> String {
    let version = receipt.version.map(|version| format!(" as version {version}")).unwrap_or_default();
    format!(
        "committed to {}{version}: {} rows in {}, {}",
        run.table().root(),
        HumanCount(receipt.rows),
        counted(receipt.files as usize, "file"),
        HumanBytes(receipt.bytes_written),
    )
}

/// A receipt in the form in which every job of `score` is reported.
fn report_of(receipt: &Receipt, norms: &NormStore, storage: &Storage) -> RunReport {
    let code = |code: FaultCode| Some((code.as_str(), *receipt.failed_by_code.get(code.as_str())?));
    RunReport {
        sessions: receipt.sessions,
        scored: receipt.scored,
        failed: receipt.failed,
        failed_by_code: FaultCode::ALL.into_iter().filter_map(code).collect(),
        rows_written: receipt.rows,
        seconds: receipt.seconds,
        sessions_per_second: receipt.sessions as f64 / receipt.seconds.max(1e-6),
        bytes_read: receipt.bytes_read,
        bytes_written: receipt.bytes_written,
        peak_memory_bytes: receipt.peak_memory_bytes,
        norm_cache: norms.stats(),
        storage: storage.status(),
    }
}
