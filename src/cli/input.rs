//! What the commands that read sessions have in common: which sessions, which norms, which instrument.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use datafusion::prelude::SessionContext;
use tempfile::NamedTempFile;

use crate::config::{Config, Flags, Profile, Scope};
use crate::engine::{
    ColumnNames, FileFormat, InputOptions, PartLimits, Reading, STDIN, Scoring, SessionInput, Source, Sources,
    StdinInput, chain_columns, discover, format_of_name, session_context,
};
use crate::error::Error;
use crate::instrument::Instrument;
use crate::model::Layout;
use crate::norms::{Chain, ImportOptions, NormStore, open_norms};
use crate::run::{PlannedInput, RunPlan};
use crate::storage::Storage;

/// Which sessions to read, and how to understand them.
#[derive(Debug, Args)]
pub(super) struct SessionArgs {
    /// Session files, folders, patterns such as 'in/**/*.parquet', URLs, or - for standard input.
    #[arg(required = true, value_name = "INPUT")]
    pub(super) inputs: Vec<String>,
    /// Format of the input, where names do not say it: parquet, csv, ndjson or arrow.
    #[arg(long, value_name = "FORMAT")]
    pub(super) input_format: Option<FileFormat>,
    /// Layout of the sessions: auto, wide, packed or long.
    #[arg(long, default_value = "auto", value_parser = parse_layout, value_name = "LAYOUT")]
    pub(super) layout: LayoutChoice,
    /// Long layout: the table with the per-session columns, where the ranks' rows do not have them: a file, or anything that
    /// INPUT may be.
    #[arg(long, value_name = "FILE")]
    pub(super) attributes: Option<String>,
    /// A column's name in the files, as in user_id=respondent. Repeatable.
    #[arg(long = "column", value_parser = parse_mapping, value_name = "NAME=THEIRS")]
    pub(super) columns: Vec<(String, String)>,
    /// Values of CSV files may hold line breaks; such files are read in one piece.
    #[arg(long)]
    pub(super) csv_newlines: bool,
}

/// How to look percentiles up.
#[derive(Debug, Args)]
pub(super) struct NormArgs {
    /// Norm tables: a CSV file, an imported Parquet file or a folder of them. Repeatable; the first that has a group wins.
    #[arg(long, value_name = "FILE|DIR")]
    pub(super) norms: Vec<String>,
    /// The norm chain, most specific first [default: the instrument's].
    #[arg(long, value_name = "TEMPLATES")]
    pub(super) chain: Option<String>,
    /// Whether scales fall back to the next group one by one or together.
    #[arg(long, value_enum)]
    pub(super) chain_scope: Option<Scope>,
    /// A group without the version asked for answers with its default version.
    #[arg(long)]
    pub(super) allow_version_fallback: bool,
    /// An instrument definition [default: klsi-4.0].
    #[arg(long, value_name = "FILE")]
    pub(super) instrument: Option<PathBuf>,
    /// A set of defaults.
    #[arg(long, value_enum)]
    pub(super) profile: Option<Profile>,
}

impl NormArgs {
    /// The settings that were given.
    pub(super) fn flags(&self, flags: Flags) -> Flags {
        flags
            .set("norms", (!self.norms.is_empty()).then_some(&self.norms))
            .set("chain", self.chain.as_ref())
            .set("chain_scope", self.chain_scope)
            .set("allow_version_fallback", self.allow_version_fallback.then_some(true))
            .set("profile", self.profile)
    }
}

/// A layout, or whatever the columns show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LayoutChoice {
    /// Told by the columns.
    Auto,
    /// This one.
    Given(Layout),
}

fn parse_layout(text: &str) -> Result<LayoutChoice, String> {
    match text {
        "auto" => Ok(LayoutChoice::Auto),
        text => text
            .parse()
            .map(LayoutChoice::Given)
            .map_err(|_: String| format!("'{text}' is not a layout: auto, wide, packed or long")),
    }
}

fn parse_mapping(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((ours, theirs)) if !ours.is_empty() && !theirs.is_empty() => Ok((ours.to_owned(), theirs.to_owned())),
        _ => Err("give it as NAME=THEIRS, as in user_id=respondent".to_owned()),
    }
}

/// What scoring needs, opened: nothing of the sessions is read yet but their schemas.
pub(super) struct Opened {
    pub(super) storage: Storage,
    pub(super) context: SessionContext,
    pub(super) norms: Arc<NormStore>,
    pub(super) input: Arc<SessionInput>,
    pub(super) scoring: Scoring,
    /// A spooled standard input, which lives as long as the work on it.
    _spooled: Option<NamedTempFile>,
}

impl Opened {
    /// Opens sessions, norms and instrument. `passed` are columns that the output passes through.
    pub(super) async fn new(
        config: &Config,
        sessions: &SessionArgs,
        norms: &NormArgs,
        passed: &[String],
    ) -> Result<Opened, Error> {
        let storage = Storage::new(config.settings.storage_options(), Config::environment())?;
        let mut spooled = None;
        let sources = open_sources(&storage, sessions, &mut spooled).await?;
        let options = InputOptions {
            layout: match sessions.layout {
                LayoutChoice::Auto => None,
                LayoutChoice::Given(layout) => Some(layout),
            },
            names: ColumnNames(sessions.columns.iter().cloned().collect()),
            passed: passed.to_vec(),
            csv_newlines: sessions.csv_newlines,
            part_limits: config.settings.part_limits(),
            ..InputOptions::default()
        };
        Opened::from_sources(config, norms, storage, sources, options, spooled).await
    }

    /// Opens what a run was planned with. Norms and instrument are those of the settings.
    pub(super) async fn of_plan(
        config: &Config,
        norms: &NormArgs,
        storage: Storage,
        plan: &RunPlan,
    ) -> Result<Opened, Error> {
        let urls = |inputs: &[PlannedInput]| inputs.iter().map(|input| input.url.clone()).collect::<Vec<_>>();
        let (mut spooled, format) = (None, None);
        let sources = Sources {
            sessions: open_inputs(&storage, &urls(&plan.inputs), format, &mut spooled).await?,
            attributes: open_inputs(&storage, &urls(&plan.attributes), format, &mut spooled).await?,
        };
        let known = crate::model::result::columns();
        let columns = plan.columns.iter().map(|column| column.name.clone());
        let names = plan.options.names.iter().filter_map(|name| name.split_once('='));
        let options = InputOptions {
            layout: plan.options.layout.parse().ok(),
            names: ColumnNames(names.map(|(ours, theirs)| (ours.to_owned(), theirs.to_owned())).collect()),
            passed: columns.filter(|column| !known.contains(column)).collect(),
            csv_newlines: plan.options.csv_newlines,
            part_limits: PartLimits { rows: plan.options.part_rows, text_bytes: plan.options.part_text_bytes },
            ..InputOptions::default()
        };
        Opened::from_sources(config, norms, storage, sources, options, spooled).await
    }

    async fn from_sources(
        config: &Config,
        norms: &NormArgs,
        storage: Storage,
        sources: Sources,
        options: InputOptions,
        spooled: Option<NamedTempFile>,
    ) -> Result<Opened, Error> {
        let instrument = open_instrument(norms)?;
        let chain = open_chain(config, &instrument)?;
        let norms = open_norm_store(&storage, config, &instrument).await?;
        let context = session_context(config.settings.engine_options(), &storage, Arc::clone(&norms))
            .map_err(crate::engine::EngineError::from)?;
        let options = InputOptions { attributes: chain_columns(&chain), ..options };
        let input = SessionInput::open(&context, sources, &instrument, options).await?;
        let scoring = Scoring { instrument, chain, layout: input.layout };
        Ok(Opened { storage, context, norms, input: Arc::new(input), scoring, _spooled: spooled })
    }
}

/// The instrument that was asked for.
pub(super) fn open_instrument(norms: &NormArgs) -> Result<Arc<Instrument>, Error> {
    Ok(match &norms.instrument {
        Some(file) => Arc::new(Instrument::read(file)?),
        None => Instrument::klsi4(),
    })
}

/// The chain of the settings, else the instrument's.
pub(super) fn open_chain(config: &Config, instrument: &Instrument) -> Result<Chain, Error> {
    Ok(match &config.settings.chain {
        Some(chain) => chain.parse()?,
        None => Chain::from_templates(instrument.chain.iter().map(String::as_str))?,
    })
}

/// The norm store over the tables of the settings.
pub(super) async fn open_norm_store(
    storage: &Storage,
    config: &Config,
    instrument: &Instrument,
) -> Result<Arc<NormStore>, Error> {
    let mut sources = Vec::with_capacity(config.settings.norms.len());
    for target in &config.settings.norms {
        let options =
            ImportOptions { chunk_rows: config.settings.chunk_rows, ..ImportOptions::new(instrument.norm_ranges()) };
        sources.push(open_norms(storage, target, options).await?);
    }
    Ok(Arc::new(NormStore::new(sources, instrument.raw_ranges(), config.settings.norm_options())))
}

/// The session files, and the table of attributes if there is one.
async fn open_sources(
    storage: &Storage,
    sessions: &SessionArgs,
    spooled: &mut Option<NamedTempFile>,
) -> Result<Sources, Error> {
    let attributes = sessions.attributes.as_slice();
    if sessions.inputs.iter().chain(attributes).filter(|input| *input == STDIN).count() > 1 {
        return Err(Error::Usage("- stands for standard input, which can be read only once".to_owned()));
    }
    // --input-format speaks of the sessions; a table of attributes whose name says its format is that.
    let of_attributes = sessions.input_format.filter(|_| attributes.iter().all(|file| format_of_name(file).is_none()));
    Ok(Sources {
        sessions: open_inputs(storage, &sessions.inputs, sessions.input_format, spooled).await?,
        attributes: open_inputs(storage, attributes, of_attributes, spooled).await?,
    })
}

async fn open_inputs(
    storage: &Storage,
    inputs: &[String],
    format: Option<FileFormat>,
    spooled: &mut Option<NamedTempFile>,
) -> Result<Vec<Source>, Error> {
    let mut sources = Vec::new();
    // Files are looked for together, those before and those after standard input.
    for inputs in inputs.chunk_by(|a, b| a != STDIN && b != STDIN) {
        let (inputs, format) = match inputs {
            [stdin] if stdin == STDIN => match StdinInput::open(format).await? {
                StdinInput::Stream(stream) => {
                    sources.push(Source::Stdin(Arc::new(stream)));
                    continue;
                }
                StdinInput::Spooled(file, format) => {
                    let path = file.path().display().to_string();
                    *spooled = Some(file);
                    (vec![path], Some(format))
                }
            },
            files => (files.to_vec(), format),
        };
        let found = discover(storage, &inputs, format, Reading::Everything).await?;
        sources.extend(found.into_iter().map(Box::new).map(Source::File));
    }
    Ok(sources)
}
