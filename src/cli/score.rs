//! `normstream score`: the main job.

use std::sync::Arc;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use datafusion::physical_plan::displayable;

use crate::cli::input::{NormArgs, Opened, SessionArgs};
use crate::cli::into_table::{IntoTable, IntoTableArgs};
use crate::config::{Config, ErrorPolicy, Flags, ProgressStyle};
use crate::engine::{InputPart, STDIN, Scoring, unknown_output};
use crate::error::Error;
use crate::run::{Hold, OutputTarget, PartPlans, ResultFormat, RunReport, ScoreJob, Target};
use crate::table::Table;
use crate::telemetry::{ProgressReporter, summary};

/// Score session files.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ScoreArgs {
    #[command(flatten)]
    sessions: SessionArgs,
    /// Where results go: a folder (a table), a file, a URL of one of them, or - for standard output (NDJSON).
    #[arg(long, value_name = "OUT", required_unless_present = "explain")]
    to: Option<String>,
    /// Format of the results, where the name does not say it: parquet, csv, ndjson or arrow for a file; delta or parquet for a
    /// folder [default for a folder: what it is, or delta].
    #[arg(long, value_name = "FORMAT")]
    format: Option<ResultFormat>,
    /// Replace what is there; for a table the same as --mode overwrite.
    #[arg(long)]
    pub(super) overwrite: bool,
    #[command(flatten)]
    pub(super) table: IntoTableArgs,
    #[command(flatten)]
    norms: NormArgs,
    /// A column of the input that the results pass through. Repeatable.
    #[arg(long = "pass", value_name = "COLUMN")]
    passed: Vec<String>,
    /// Only these columns of the results, in this order; what they do not need is neither read nor computed.
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    select: Vec<String>,
    /// What to do with sessions that cannot be scored [default: keep].
    #[arg(long, value_enum)]
    on_error: Option<ErrorPolicy>,
    /// End with exit code 1 if more sessions than this cannot be scored.
    #[arg(long, value_name = "N")]
    max_failures: Option<u64>,
    /// Rows of a record batch [default: 8192].
    #[arg(long, value_name = "ROWS")]
    batch_size: Option<usize>,
    /// Parts worked on at once [default: as many as the machine has processors].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Memory that sorts and joins may hold before they spill, as in 256MiB [default: 512MiB].
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<ByteSize>,
    /// How to show progress [default: auto].
    #[arg(long, value_enum)]
    progress: Option<ProgressStyle>,
    /// Write the run's figures as JSON to this file, or - for standard output.
    #[arg(long, value_name = "FILE")]
    stats: Option<String>,
    /// Print the plan; with `analyze`, score and then print the plan with what each operator measured.
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "plan")]
    pub(super) explain: Option<Explain>,
}

const EXAMPLES: &str = "\
Examples:
  normstream score sessions.parquet --to results.parquet
  normstream score sessions/ --to results/ --norms norms.csv --pass team_id
  normstream score 's3://in/2024/*.parquet' --to s3://out/results/ --mode overwrite --dry-run
  normstream score 'in/*.csv.gz' --to out.ndjson --column user_id=respondent --max-failures 100
  normstream score ranks.parquet --attributes sessions.csv --to results.arrow
  normstream score sessions.parquet --to - --select session_id,style | head
  normstream score sessions.parquet --explain";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Explain {
    /// The plan alone; nothing is scored.
    Plan,
    /// The plan with figures, after scoring.
    Analyze,
}

impl ScoreArgs {
    /// The settings that were given.
    pub(super) fn flags(&self) -> Flags {
        self.norms
            .flags(Flags::default())
            .set("on_error", self.on_error)
            .set("max_failures", self.max_failures)
            .set("batch_size", self.batch_size)
            .set("threads", self.threads)
            .set("memory_limit", self.memory_limit)
            .set("progress", self.progress)
    }
}

/// Scores sessions.
///
/// `hold` is held while a table is committed.
pub(super) async fn score(args: ScoreArgs, config: Config, hold: Hold) -> Result<(), Error> {
    let columns = output_columns(&args)?;
    let opened = Opened::new(&config, &args.sessions, &args.norms, &args.passed).await?;
    let job = ScoreJob {
        context: opened.context.clone(),
        input: Arc::clone(&opened.input),
        scoring: opened.scoring.clone(),
        columns,
        on_error: config.settings.on_error(),
        threads: config.settings.threads,
        row_groups: config.settings.row_group_options(),
        plans: PartPlans::default(),
    };
    let Some(to) = args.to.as_deref().filter(|_| args.explain != Some(Explain::Plan)) else {
        return explain_plan(&job);
    };
    let report = match Target::new(&opened.storage, to, args.format)? {
        Target::Table(folder, format) => {
            let table = Table::open_or_new(&opened.storage, &folder, format).await?;
            let into = IntoTable { args: &args, config: &config, norms: &opened.norms, hold };
            match into.run(job, table).await? {
                Some(report) => report,
                None => return Ok(()),
            }
        }
        Target::Output(target) => into_output(&args, &config, &opened, &job, target).await?,
    };
    if let Some(file) = &args.stats {
        write_stats(file, &report)?;
    }
    match config.settings.max_failures {
        Some(most) if report.failed > most => Err(Error::Failures(format!(
            "{} sessions failed, more than the {most} that --max-failures allows; the results are written",
            report.failed
        ))),
        _ => Ok(()),
    }
}

/// Scores into a file or to standard output.
async fn into_output(
    args: &ScoreArgs,
    config: &Config,
    opened: &Opened,
    job: &ScoreJob,
    target: OutputTarget,
) -> Result<RunReport, Error> {
    args.table.refuse_for_files()?;
    if matches!(target, OutputTarget::Stdout(_)) && args.stats.as_deref() == Some(STDIN) {
        return Err(Error::Usage("--to - and --stats - cannot both go to standard output".to_owned()));
    }
    target.check(args.overwrite).await?;
    let progress = Arc::new(job.progress());
    let reporter = ProgressReporter::start(config.settings.progress, &progress, Some(&opened.norms));
    let (report, profile) = job.run(&opened.storage, target, args.overwrite, &progress).await?;
    reporter.finish(&report, &summary(&report));
    if args.explain == Some(Explain::Analyze) {
        crate::telemetry::print_line(profile.to_string().trim_end());
    }
    Ok(report)
}

/// The output's columns: all results and the passed ones, or those selected of them.
fn output_columns(args: &ScoreArgs) -> Result<Vec<String>, Error> {
    let all = Scoring::output_columns(&args.passed)?;
    match args.select.iter().find(|column| !all.contains(column)) {
        Some(unknown) => Err(unknown_output(unknown, &all).into()),
        None if args.select.is_empty() => Ok(all),
        None => Ok(args.select.clone()),
    }
}

fn explain_plan(job: &ScoreJob) -> Result<(), Error> {
    let parts = job.input.parts();
    let part = parts.first().cloned().unwrap_or_else(|| InputPart::whole(&job.input.files[0]));
    let plan = job.plan(&part)?;
    let head = format!("{} parts of {} files; the plan of the first:\n", parts.len(), job.input.files.len());
    print(&format!("{head}{}", displayable(plan.as_ref()).indent(false)))
}

fn write_stats(file: &str, report: &RunReport) -> Result<(), Error> {
    let failed = |source| Error::Write { what: file.to_owned(), source };
    let text = serde_json::to_string_pretty(report).map_err(|error| failed(error.into()))?;
    if file == STDIN { print(&format!("{text}\n")) } else { std::fs::write(file, text + "\n").map_err(failed) }
}

/// Prints to standard output.
pub(super) fn print(text: &str) -> Result<(), Error> {
    use std::io::{ErrorKind, Write};
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(crate::run::RunError::BrokenPipe.into()),
        result => result.map_err(|source| Error::Write { what: "to standard output".to_owned(), source }),
    }
}
