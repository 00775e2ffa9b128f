//! `normstream norms`: import norm tables, see what is in them, check them, ask them.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use futures::StreamExt;
use serde::Serialize;

use crate::cli::score::print;
use crate::config::{Config, Flags};
use crate::error::Error;
use crate::instrument::Instrument;
use crate::model::Scale;
use crate::norms::{
    ChainStep, GroupName, GroupSummary, GroupToken, ImportOptions, LfiUnit, NormError, NormSource, NormStore,
    ParquetNorms, PublishedNorms, StepOutcome, TemporaryNorms, import, open_norms, validate,
};
use crate::storage::Storage;

/// Import, list, check and query norm tables.
#[derive(Debug, Args)]
pub(super) struct NormsArgs {
    #[command(subcommand)]
    command: NormsCommand,
}

#[derive(Debug, Subcommand)]
enum NormsCommand {
    /// Import norm tables, CSV or Parquet, into a folder that lookups can search.
    Import(ImportArgs),
    /// List groups and versions, and what they hold.
    List(ListArgs),
    /// Print the norms of one group as CSV.
    Show(ShowArgs),
    /// Check tables row by row, and list every fault with its line.
    Validate(ValidateArgs),
    /// Look one raw score up, and show each step of the chain.
    Lookup(LookupArgs),
}

#[derive(Debug, Args)]
#[command(after_help = IMPORT_EXAMPLES)]
struct ImportArgs {
    /// Norm tables with the columns norm_group, scale, raw_score and percentile, and if wanted norm_version and frequency.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// The folder; each version becomes a file VERSION.parquet in it, which is never edited again.
    #[arg(long, value_name = "DIR")]
    to: String,
    /// The version of all rows [default: each row's own, else 'default'].
    #[arg(long, value_name = "V")]
    norm_version: Option<String>,
    /// The unit of LFI raw scores: 320ths (the exact keys) or hundredths.
    #[arg(long, default_value_t = LfiUnit::default(), value_name = "UNIT")]
    lfi_unit: LfiUnit,
    #[command(flatten)]
    instrument: InstrumentArg,
}

const IMPORT_EXAMPLES: &str = "\
Examples:
  normstream norms import norms.csv --to norms
  normstream norms import spain-2026.csv italy-2026.parquet --to norms --norm-version 2026
  normstream norms import s3://bucket/raw/norms.csv --to s3://bucket/norms --lfi-unit hundredths

With a fault in any row nothing is imported; all faults are listed. Exit codes: 0 imported; 2 faults, a version that
exists, or a wrong command; 75 temporary failure.";

#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
struct ListArgs {
    #[command(flatten)]
    tables: TableArgs,
    /// How to print: text, or ndjson with one group a line.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

const LIST_EXAMPLES: &str = "\
Examples:
  normstream norms list norms
  normstream norms list norms --format ndjson | jq -r .group";

#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
struct ShowArgs {
    #[command(flatten)]
    tables: TableArgs,
    /// The group, as GROUP or GROUP|VERSION.
    #[arg(long, value_name = "GROUP")]
    group: GroupToken,
    /// Only this scale.
    #[arg(long, value_parser = parse_scale, value_name = "SCALE")]
    scale: Option<Scale>,
}

const SHOW_EXAMPLES: &str = "\
Examples:
  normstream norms show norms --group 'COUNTRY:Spain|2026'
  normstream norms show --group 'Total|klsi4-2013' --scale LFI     the published norms of learning flexibility";

#[derive(Debug, Args)]
#[command(after_help = VALIDATE_EXAMPLES)]
struct ValidateArgs {
    /// Imported tables or folders of them, or CSV files that are to be imported.
    #[arg(required = true, value_name = "FILE|DIR")]
    tables: Vec<String>,
    #[command(flatten)]
    instrument: InstrumentArg,
}

const VALIDATE_EXAMPLES: &str = "\
Examples:
  normstream norms validate norms
  normstream norms validate new-norms.csv

Exit codes: 0 no fault; 1 faults; 2 a table cannot be read, or a wrong command.";

#[derive(Debug, Args)]
#[command(after_help = LOOKUP_EXAMPLES)]
struct LookupArgs {
    /// A group of the chain, most specific first, as GROUP or GROUP|VERSION. Repeatable; the published table comes last.
    #[arg(long = "group", required = true, value_name = "GROUP")]
    groups: Vec<GroupToken>,
    /// The scale: CE, RO, AC, AE, ACCE, AERO or LFI.
    #[arg(long, value_parser = parse_scale, value_name = "SCALE")]
    scale: Scale,
    /// The raw score; for LFI 320·LFI.
    #[arg(long, allow_negative_numbers = true, value_name = "N")]
    raw: i32,
    /// Norm tables as in `normstream score` [default: those of the settings].
    #[arg(long, value_name = "FILE|DIR")]
    norms: Vec<String>,
    /// A group without the version asked for answers with its default version.
    #[arg(long)]
    allow_version_fallback: bool,
    /// How to print: text, or ndjson with one step a line.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    instrument: InstrumentArg,
}

const LOOKUP_EXAMPLES: &str = "\
Examples:
  normstream norms lookup --norms norms --group 'COUNTRY:Spain' --scale CE --raw 25
  normstream norms lookup --norms norms --group 'COUNTRY:Spain|2026' --group Total --scale ACCE --raw -7 --format ndjson";

/// Which tables to look into.
#[derive(Debug, Args)]
struct TableArgs {
    /// Norm tables: imported folders or files, or CSV [default: those of the settings, and the published table].
    #[arg(value_name = "FILE|DIR")]
    tables: Vec<String>,
}

#[derive(Debug, Args)]
struct InstrumentArg {
    /// The instrument whose scales the norms are for [default: klsi-4.0].
    #[arg(long = "instrument", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl InstrumentArg {
    fn open(&self) -> Result<Arc<Instrument>, Error> {
        Ok(match &self.file {
            Some(file) => Arc::new(Instrument::read(file)?),
            None => Instrument::klsi4(),
        })
    }
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For reading.
    Text,
    /// For programs.
    Ndjson,
}

fn parse_scale(text: &str) -> Result<Scale, String> {
    Scale::from_code(text).ok_or_else(|| format!("'{text}' is not a scale: CE, RO, AC, AE, ACCE, AERO or LFI"))
}

impl NormsArgs {
    /// The settings that were given.
    pub(super) fn flags(&self) -> Flags {
        match &self.command {
            NormsCommand::Lookup(args) => Flags::default()
                .set("norms", (!args.norms.is_empty()).then_some(&args.norms))
                .set("allow_version_fallback", args.allow_version_fallback.then_some(true)),
            _ => Flags::default(),
        }
    }
}

/// Runs a subcommand of `norms`.
pub(super) async fn norms(args: NormsArgs, config: Config) -> Result<(), Error> {
    let storage = Storage::new(config.settings.storage_options(), Config::environment())?;
    match args.command {
        NormsCommand::Import(args) => import_tables(args, &config, &storage).await,
        NormsCommand::List(args) => list(args, &config, &storage).await,
        NormsCommand::Show(args) => show(args, &config, &storage).await,
        NormsCommand::Validate(args) => validate_tables(args, &config, &storage).await,
        NormsCommand::Lookup(args) => lookup(args, &config, &storage).await,
    }
}

fn import_options(config: &Config, instrument: &Instrument) -> ImportOptions {
    ImportOptions { chunk_rows: config.settings.chunk_rows, ..ImportOptions::new(instrument.norm_ranges()) }
}

async fn import_tables(args: ImportArgs, config: &Config, storage: &Storage) -> Result<(), Error> {
    let options = ImportOptions {
        norm_version: args.norm_version,
        lfi_unit: args.lfi_unit,
        ..import_options(config, &*args.instrument.open()?)
    };
    let inputs = args.files.iter().map(|file| storage.open(file)).collect::<Result<Vec<_>, _>>()?;
    let report = import(storage, inputs, &storage.open(&args.to)?, options).await?;
    let lines = report.tables.iter().map(|table| {
        let (groups, rows, bytes) = (table.groups, table.rows, table.bytes);
        format!("{}: version {}, {groups} groups, {rows} rows, {bytes} bytes\n", table.location, table.version)
    });
    print(&lines.collect::<String>())
}

/// The tables that were named, else those of the settings and the published one.
async fn open_tables(args: &TableArgs, config: &Config, storage: &Storage) -> Result<Vec<Arc<dyn NormSource>>, Error> {
    let named = if args.tables.is_empty() { &config.settings.norms } else { &args.tables };
    let mut sources: Vec<Arc<dyn NormSource>> = Vec::with_capacity(named.len() + 1);
    for target in named {
        sources.push(open_norms(storage, target, import_options(config, &Instrument::klsi4())).await?);
    }
    if args.tables.is_empty() {
        sources.push(PublishedNorms::klsi4());
    }
    Ok(sources)
}

/// Text on its way to standard output, which goes out in pieces of some kilobytes.
#[derive(Default)]
struct Printer(String);

impl Printer {
    fn line(&mut self, line: &str) -> Result<(), Error> {
        self.0.push_str(line);
        self.0.push('\n');
        if self.0.len() > 1 << 15 { self.flush() } else { Ok(()) }
    }

    fn json(&mut self, value: &impl Serialize) -> Result<(), Error> {
        let failed =
            |error: serde_json::Error| Error::Write { what: "a line of JSON".to_owned(), source: error.into() };
        self.line(&serde_json::to_string(value).map_err(failed)?)
    }

    fn flush(&mut self) -> Result<(), Error> {
        print(&std::mem::take(&mut self.0))
    }
}

#[derive(Serialize)]
struct ListedGroup<'a> {
    table: &'a str,
    #[serde(flatten)]
    group: &'a GroupSummary,
}

async fn list(args: ListArgs, config: &Config, storage: &Storage) -> Result<(), Error> {
    let mut out = Printer::default();
    for (number, source) in open_tables(&args.tables, config, storage).await?.iter().enumerate() {
        let table = source.description();
        if args.format == Format::Text {
            let gap = if number == 0 { "" } else { "\n" };
            out.line(&format!("{gap}{table}"))?;
            out.line(&format!("{:>8}  {:<12}  {:<28}  group", "rows", "version", "scales"))?;
        }
        let mut groups = source.groups();
        while let Some(group) = groups.next().await {
            let group = group?;
            match args.format {
                Format::Ndjson => out.json(&ListedGroup { table: &table, group: &group })?,
                Format::Text => {
                    let scales = group.scales.iter().map(|scale| scale.code()).collect::<Vec<_>>().join(" ");
                    out.line(&format!("{:>8}  {:<12}  {scales:<28}  {}", group.rows, group.version, group.group))?;
                }
            }
        }
    }
    out.flush()
}

async fn show(args: ShowArgs, config: &Config, storage: &Storage) -> Result<(), Error> {
    let (group, version) = (args.group.group.as_str(), args.group.version());
    for source in open_tables(&args.tables, config, storage).await? {
        let Some(norms) = source.load(&[GroupName { group, version }]).await?.pop().flatten() else { continue };
        let mut out = Printer::default();
        out.line("norm_group,norm_version,scale,raw_score,percentile")?;
        for (scale, held) in norms.scales.iter().filter(|(scale, _)| args.scale.is_none_or(|only| only == *scale)) {
            for (raw, percentile) in (held.lowest..).zip(&held.percentiles) {
                if !percentile.is_nan() {
                    out.line(&format!("{},{},{scale},{raw},{percentile}", quoted(group), quoted(version)))?;
                }
            }
        }
        return out.flush();
    }
    Err(Error::Usage(format!(
        "no table has the group '{group}' in the version '{version}'; see `normstream norms list`"
    )))
}

/// A CSV field, in quotes if it needs them.
fn quoted(field: &str) -> String {
    if field.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

async fn validate_tables(args: ValidateArgs, config: &Config, storage: &Storage) -> Result<(), Error> {
    let instrument = args.instrument.open()?;
    let options = import_options(config, &instrument);
    let mut faults = Vec::new();
    for target in &args.tables {
        let at = storage.open(target)?;
        let found = if at.path.extension() == Some("csv") {
            let imported = TemporaryNorms::import(storage, vec![at], options.clone()).await;
            imported.map(|norms| vec![format!("{target}: {} rows, can be imported\n", norms.report().rows())])
        } else {
            let norms = ParquetNorms::open(&at, options.chunk_rows).await?;
            let tables = validate(&norms, &options.ranges, options.max_faults).await;
            let line = |digest_checked| if digest_checked { "as they were imported" } else { "no fault" };
            tables.map(|tables| {
                let lines = tables.iter();
                lines
                    .map(|table| format!("{}: {} rows, {}\n", table.location, table.rows, line(table.digest_checked)))
                    .collect()
            })
        };
        match found {
            Ok(lines) => print(&lines.concat())?,
            Err(NormError::Faults(report)) => faults.push(report.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Error::Failures(faults.join("\n"))) }
}

async fn lookup(args: LookupArgs, config: &Config, storage: &Storage) -> Result<(), Error> {
    let instrument = args.instrument.open()?;
    let (scale, raw, range) = (args.scale, args.raw, instrument.norm_ranges()[args.scale]);
    if !range.contains(raw) {
        let (lowest, highest) = (range.lowest, range.highest);
        return Err(Error::Usage(format!("no session has the raw score {raw} of {scale}: {lowest} to {highest}")));
    }
    let mut sources = Vec::with_capacity(config.settings.norms.len());
    for target in &config.settings.norms {
        sources.push(open_norms(storage, target, import_options(config, &instrument)).await?);
    }
    let store = NormStore::new(sources, instrument.raw_ranges(), config.settings.norm_options());
    let steps = store.explain(&args.groups, scale, raw).await?;
    let mut out = Printer::default();
    for step in &steps {
        match args.format {
            Format::Ndjson => out.json(step)?,
            Format::Text => out.line(&in_words(step, scale, raw))?,
        }
    }
    out.flush()
}

fn in_words(step: &ChainStep, scale: Scale, raw: i32) -> String {
    let token = &step.token;
    match &step.outcome {
        StepOutcome::NoSuchGroup => format!("{token}: no table has this group in this version"),
        StepOutcome::NoSuchRawScore => format!("{token}: has no row for {scale} {raw}"),
        StepOutcome::LacksOtherScales { scales, .. } => format!("{token}: lacks {}", scales.join(", ")),
        StepOutcome::Used { percentile, norm_group } if norm_group == token => {
            format!("{token}: {scale} {raw} has the percentile {percentile}")
        }
        StepOutcome::Used { percentile, norm_group } => {
            format!("{token}: {scale} {raw} has the percentile {percentile}, by {norm_group}")
        }
    }
}
