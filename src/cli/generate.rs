//! `normstream generate`: sessions and norm tables to try things with. What they are like is said in [`crate::generate`].

use std::num::NonZeroU64;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use clap::{Args, Subcommand};

use crate::config::{Config, Flags, ProgressStyle};
use crate::engine::{FileFormat, STDIN};
use crate::error::Error;
use crate::generate::{NAMED_GROUPS, NormGenerator, NormOptions, Respondents, SessionGenerator, SessionOptions};
use crate::model::Layout;
use crate::run::{BatchTable, OutputTarget, Progress, ResultFormat, TableJob, Target};
use crate::storage::Storage;
use crate::telemetry::{ProgressReporter, table_summary};

/// Generate sessions or norm tables to try things with.
#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    #[command(subcommand)]
    command: GenerateCommand,
}

#[derive(Debug, Subcommand)]
enum GenerateCommand {
    /// Generate sessions.
    ///
    /// Raw scores spread as those of the published norms; age, education and gender shift them a little. The figures are
    /// plausible, not evidence about anybody. The same options give the same bytes.
    Sessions(SessionsArgs),
    /// Generate a norm table.
    ///
    /// Groups of the same population as the generated sessions: by level of education, country, age band and gender. CSV can be
    /// given to `normstream score --norms` as it is; other formats are for import. The same options give the same bytes.
    Norms(NormsArgs),
}

/// What is written where, and how.
#[derive(Debug, Args)]
struct OutputArgs {
    /// Where to write: a file, a folder, a URL, or - for standard output (NDJSON).
    #[arg(long, value_name = "FILE")]
    to: String,
    /// Format, where the name does not say it: parquet, csv, ndjson or arrow.
    #[arg(long, value_name = "FORMAT")]
    format: Option<FileFormat>,
    /// Replace what is there.
    #[arg(long)]
    overwrite: bool,
    /// Parts made and encoded at once [default: as many as the machine has processors].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// How to show progress [default: auto].
    #[arg(long, value_enum)]
    progress: Option<ProgressStyle>,
}

#[derive(Debug, Args)]
#[command(after_help = SESSIONS_EXAMPLES)]
struct SessionsArgs {
    /// How many sessions.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    rows: u64,
    /// Another seed gives other sessions.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Layout: wide, packed or long.
    #[arg(long, default_value_t = Layout::Wide, value_name = "LAYOUT")]
    layout: Layout,
    /// Long layout: where the per-session columns go, one row a session.
    #[arg(long, value_name = "FILE")]
    attributes: Option<String>,
    /// The share of sessions that have a fault, from 0 to 1.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    bad_fraction: f64,
    /// How many respondents the sessions are of [default: about half as many as sessions].
    #[arg(long, value_name = "N")]
    respondents: Option<NonZeroU64>,
    /// How many synthetic countries there are beside the twelve named ones: half of the respondents are from these.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1_000_000), value_name = "N")]
    countries: u32,
    /// Add a column team_id: teams of eight respondents.
    #[arg(long)]
    teams: bool,
    /// The session_id of the first session; the others follow it one by one.
    #[arg(long, default_value_t = 1, value_name = "ID")]
    first_session_id: u64,
    #[command(flatten)]
    output: OutputArgs,
}

const SESSIONS_EXAMPLES: &str = "\
Examples:
  normstream generate sessions --rows 1000000 --bad-fraction 0.01 --to sessions.parquet
  normstream generate sessions --layout packed --to packed.csv
  normstream generate sessions --layout long --attributes sessions.parquet --to ranks.parquet
  normstream generate sessions --rows 5 --to -
  normstream generate sessions --rows 1000 --first-session-id 1000001 --to more.parquet";

#[derive(Debug, Args)]
#[command(after_help = NORMS_EXAMPLES)]
struct NormsArgs {
    /// How many groups: 5 levels of education, 12 countries, 7 age bands and 4 genders, then synthetic countries.
    #[arg(long, default_value_t = NAMED_GROUPS as u32, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    #[arg(value_name = "N")]
    groups: u32,
    /// Another seed gives other norms.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    #[command(flatten)]
    output: OutputArgs,
}

const NORMS_EXAMPLES: &str = "\
Examples:
  normstream generate norms --to norms.csv
  normstream generate norms --groups 1400 --to norms.parquet

With --groups 1400 there are 1372 synthetic countries; sessions of all of them:
  normstream generate sessions --countries 1372 --to sessions.parquet";

impl GenerateArgs {
    /// The settings that were given.
    pub(super) fn flags(&self) -> Flags {
        let output = match &self.command {
            GenerateCommand::Sessions(args) => &args.output,
            GenerateCommand::Norms(args) => &args.output,
        };
        Flags::default().set("threads", output.threads).set("progress", output.progress)
    }
}

/// Generates sessions or norms.
pub(super) async fn generate(args: GenerateArgs, config: Config) -> Result<(), Error> {
    match args.command {
        GenerateCommand::Sessions(args) => generate_sessions(args, &config).await,
        GenerateCommand::Norms(args) => generate_norms(args, &config).await,
    }
}

async fn generate_sessions(args: SessionsArgs, config: &Config) -> Result<(), Error> {
    let options = SessionOptions {
        rows: args.rows,
        seed: args.seed,
        layout: args.layout,
        bad_fraction: args.bad_fraction,
        respondents: args.respondents.map_or(Respondents::Growing, Respondents::Fixed),
        countries: args.countries,
        team_id: args.teams,
        first_session_id: args.first_session_id,
        ..SessionOptions::default()
    };
    let batch_rows = options.batch_rows.get();
    let sessions = SessionGenerator::new(options).map_err(|error| Error::Usage(error.to_string()))?;
    if args.attributes.is_some() && args.layout != Layout::Long {
        let layout = args.layout;
        return Err(Error::Usage(format!(
            "--attributes is for --layout long: the {layout} layout has the per-session columns beside the ranks"
        )));
    }
    let writer = TableWriter::new(config, args.output.overwrite)?;
    let ranks = writer.target(&args.output.to, args.output.format).await?;
    if let Some(name) = &args.attributes {
        let attributes = writer.target(name, None).await?;
        if same_place(&attributes, &ranks) {
            return Err(Error::Usage(format!("--attributes and --to are both {name}: give each its own")));
        }
        writer.write(sessions.attributes(), batch_rows, ("sessions", args.rows), attributes, name).await?;
    }
    writer.write(sessions, batch_rows, ("sessions", args.rows), ranks, &args.output.to).await
}

async fn generate_norms(args: NormsArgs, config: &Config) -> Result<(), Error> {
    let options = NormOptions { groups: args.groups as usize, seed: args.seed, ..NormOptions::default() };
    let batch_rows = options.batch_rows.get();
    let writer = TableWriter::new(config, args.output.overwrite)?;
    let target = writer.target(&args.output.to, args.output.format).await?;
    let groups = ("groups", args.groups.into());
    writer.write(NormGenerator::new(options), batch_rows, groups, target, &args.output.to).await
}

/// Whether two targets would be written to one place.
fn same_place(one: &OutputTarget, other: &OutputTarget) -> bool {
    let url = |target: &OutputTarget| match target {
        OutputTarget::Stdout(_) => None,
        OutputTarget::File(location, _) => Some(location.url()),
    };
    url(one) == url(other)
}

/// Writes generated tables, and tells how it goes.
struct TableWriter<'a> {
    config: &'a Config,
    storage: Storage,
    overwrite: bool,
}

impl<'a> TableWriter<'a> {
    fn new(config: &'a Config, overwrite: bool) -> Result<Self, Error> {
        let storage = Storage::new(config.settings.storage_options(), Config::environment())?;
        Ok(TableWriter { config, storage, overwrite })
    }

    /// A target that may be written: of a folder, a Parquet file in it.
    async fn target(&self, name: &str, format: Option<FileFormat>) -> Result<OutputTarget, Error> {
        let target = match Target::new(&self.storage, name, format.map(ResultFormat::File))? {
            Target::Output(target) => target,
            Target::Table(folder, _) => OutputTarget::File(folder.child("part-00000.parquet"), FileFormat::Parquet),
        };
        target.check(self.overwrite).await?;
        Ok(target)
    }

    /// Writes a table of so many counted things.
    async fn write(
        &self,
        table: impl BatchTable,
        batch_rows: usize,
        (counted, expected): (&'static str, u64),
        target: OutputTarget,
        name: &str,
    ) -> Result<(), Error> {
        let settings = &self.config.settings;
        let job = TableJob {
            table: Arc::new(table),
            batch_rows,
            threads: settings.threads,
            row_groups: settings.row_group_options(),
        };
        let progress = Arc::new(Progress::of_table(counted, expected));
        let reporter = ProgressReporter::start(settings.progress, &progress, None);
        let report = job.run(&self.storage, target, self.overwrite, &progress).await?;
        let name = if name == STDIN { "standard output" } else { name };
        reporter.finish(&report, &table_summary(&progress, &report, name));
        Ok(())
    }
}

impl BatchTable for SessionGenerator {
    fn schema(&self) -> SchemaRef {
        SessionGenerator::schema(self)
    }

    fn batch_count(&self) -> u64 {
        SessionGenerator::batch_count(self)
    }

    fn batch(&self, index: u64) -> Result<RecordBatch, ArrowError> {
        SessionGenerator::batch(self, index)
    }
}

impl BatchTable for NormGenerator {
    fn schema(&self) -> SchemaRef {
        NormGenerator::schema(self)
    }

    fn batch_count(&self) -> u64 {
        NormGenerator::batch_count(self) as u64
    }

    fn batch(&self, index: u64) -> Result<RecordBatch, ArrowError> {
        NormGenerator::batch(self, index as usize)
    }
}
