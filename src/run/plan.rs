//! The plan of a run into a table: everything that its result depends on, and the id that is its hash.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::engine::{InputPart, SessionFile, Source};
use crate::model::norm::ChainScope;
use crate::operators::NormContext;
use crate::run::{OnError, RunError, ScoreJob};
use crate::table::{Table, TableFormat, table_schema};

/// The id of a run: the first half of the SHA-256 of its plan, in hexadecimal.
///
/// Invariant: two runs have one id only if they write the same bytes into the same kind of table in the same mode.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// The id as text, if it can be one.
    pub fn parse(text: &str) -> Option<RunId> {
        let is_id = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        is_id.then(|| RunId(text.to_owned()))
    }

    /// All of it: 32 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The beginning of it, which names files and stands in messages.
    pub fn short(&self) -> &str {
        &self.0[..16]
    }

    /// The name under which the run commits to a table; see [`Transaction`](crate::table::Transaction).
    pub fn app_id(&self) -> String {
        format!("normstream/run/{}", self.0)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a run changes a table that has rows already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WriteMode {
    /// Its rows come to those that are there.
    #[default]
    Append,
    /// Its rows take the place of all that are there.
    Overwrite,
    /// Its rows take the place of those with the same `session_id`; all others stay.
    ReplaceSessions,
}

impl WriteMode {
    /// The name used on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            WriteMode::Append => "append",
            WriteMode::Overwrite => "overwrite",
            WriteMode::ReplaceSessions => "replace-sessions",
        }
    }
}

/// What is done with a `session_id` that a run has more than once. Only [`WriteMode::ReplaceSessions`] looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Duplicates {
    /// The run ends before the commit.
    #[default]
    Fail,
    /// The row with the latest `completed_at` stays; of several, the last one of the input.
    Last,
}

/// An input file, in the version that is scored.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlannedInput {
    /// Where it is.
    pub url: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its ETag, or where the store has none the time of its last change.
    pub version: String,
}

/// A part: what becomes one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPart {
    /// Which of [`RunPlan::inputs`].
    pub input: usize,
    /// The bytes of it, where they are not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<(u64, u64)>,
    /// How many sessions it has, where the file says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u64>,
}

/// A column that is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedColumn {
    /// Its name.
    pub name: String,
    /// Its type, as Arrow writes it.
    pub r#type: String,
}

/// How sessions are scored and written, as far as it changes what is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedOptions {
    /// The layout of the input.
    pub layout: String,
    /// Names that columns have in the input, as `ours=theirs`.
    pub names: Vec<String>,
    /// Whether values of CSV files may hold line breaks.
    pub csv_newlines: bool,
    /// The norm chain.
    pub chain: String,
    /// Whether scales fall back one by one or together.
    pub chain_scope: String,
    /// Whether a group without the version asked for answers with its default version.
    pub allow_version_fallback: bool,
    /// What is done with sessions that cannot be scored.
    pub on_error: String,
    /// How the table is changed.
    pub mode: WriteMode,
    /// What is done with sessions that come more than once.
    pub duplicates: Duplicates,
    /// The table of failed sessions, as a URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures_to: Option<String>,
    /// Rows of a part of a Parquet file, at least.
    pub part_rows: u64,
    /// Bytes of a part of a text file.
    pub part_text_bytes: u64,
    /// Rows of a row group.
    pub row_group_rows: usize,
    /// The level of zstd.
    pub zstd_level: i32,
}

/// Everything that a run's result depends on. Made by [`RunPlan::new`], without reading a session.
///
/// Invariant: equal plans write equal bytes, part by part, on any machine, with any number of threads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPlan {
    /// The program and its version.
    pub tool: String,
    /// The format of the table.
    pub format: TableFormat,
    /// Session files, in order.
    pub inputs: Vec<PlannedInput>,
    /// Files of the long layout's attributes, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<PlannedInput>,
    /// The id of the instrument.
    pub instrument: String,
    /// The digest of its definition.
    pub instrument_digest: String,
    /// Where norms come from, for people.
    pub norms: Vec<String>,
    /// The digest of all that percentiles depend on.
    pub norms_digest: String,
    /// All options.
    pub options: PlannedOptions,
    /// The columns that are written, in order.
    pub columns: Vec<PlannedColumn>,
    /// The parts, in order.
    pub parts: Vec<PlannedPart>,
}

/// What of a run is decided by its target rather than by its sessions.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// How the table is changed.
    pub mode: WriteMode,
    /// What is done with sessions that come more than once.
    pub duplicates: Duplicates,
    /// The table of failed sessions.
    pub failures_to: Option<Table>,
}

impl RunPlan {
    /// The plan of a job for a table of a format.
    pub fn new(job: &ScoreJob, format: TableFormat, write: &WriteOptions) -> Result<RunPlan, RunError> {
        let norms = NormContext::of(&job.context.task_ctx())?;
        let schema = table_schema(job.output_schema()?.as_ref())?;
        let files = &job.input.files;
        let input_of =
            |part: &InputPart| files.iter().position(|file| Arc::ptr_eq(file, &part.file)).unwrap_or_default();
        let part = |part: &InputPart| PlannedPart { input: input_of(part), bytes: part.range, sessions: part.rows };
        let options = &job.input.options;
        Ok(RunPlan {
            tool: job.row_groups.created_by.clone(),
            format,
            inputs: files.iter().map(|file| planned_input(file)).collect(),
            attributes: job.input.attributes.iter().map(|file| planned_input(file)).collect(),
            instrument: job.scoring.instrument.id.clone(),
            instrument_digest: job.scoring.instrument.digest(),
            norms: norms.sources().iter().map(|source| source.description()).collect(),
            norms_digest: norms.digest(),
            options: PlannedOptions {
                layout: job.input.layout.to_string(),
                names: options.names.0.iter().map(|(ours, theirs)| format!("{ours}={theirs}")).collect(),
                csv_newlines: options.csv_newlines,
                chain: job.scoring.chain.to_string(),
                chain_scope: match norms.options().scope {
                    ChainScope::PerScale => "per-scale".to_owned(),
                    ChainScope::PerSession => "per-session".to_owned(),
                },
                allow_version_fallback: norms.options().allow_version_fallback,
                on_error: match job.on_error {
                    OnError::Keep => "keep".to_owned(),
                    OnError::Fail => "fail".to_owned(),
                    OnError::Drop => "drop".to_owned(),
                },
                mode: write.mode,
                duplicates: write.duplicates,
                failures_to: write.failures_to.as_ref().map(|table| table.root().url().into()),
                part_rows: options.part_limits.rows,
                part_text_bytes: options.part_limits.text_bytes,
                row_group_rows: job.row_groups.row_group_rows,
                zstd_level: job.row_groups.zstd_level,
            },
            columns: schema
                .fields()
                .iter()
                .map(|field| PlannedColumn { name: field.name().clone(), r#type: field.data_type().to_string() })
                .collect(),
            parts: job.input.parts().iter().map(part).collect(),
        })
    }

    /// The id of the run.
    pub fn id(&self) -> RunId {
        // Where norms lie makes no difference to what they say.
        let hashed = RunPlan { norms: Vec::new(), ..self.clone() };
        let text = serde_json::to_vec(&hashed).unwrap_or_default();
        RunId(Sha256::digest(text)[..16].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// How many sessions there are, where the files say so.
    pub fn sessions(&self) -> Option<u64> {
        self.parts.iter().map(|part| part.sessions).sum()
    }

    /// The size of all inputs.
    pub fn bytes(&self) -> u64 {
        self.all_inputs().map(|input| input.size).sum()
    }

    fn all_inputs(&self) -> impl Iterator<Item = &PlannedInput> {
        self.inputs.iter().chain(&self.attributes)
    }

    /// What is different from an earlier plan, in words, so that its run is not the same; empty if nothing is.
    pub fn changes_since(&self, earlier: &RunPlan) -> Vec<String> {
        let mut changes = Vec::new();
        for input in self.all_inputs() {
            match earlier.all_inputs().find(|before| before.url == input.url) {
                None => changes.push(format!("{} is new", input.url)),
                Some(before) if before.size != input.size => {
                    changes.push(format!("{} had {} bytes and has {}", input.url, before.size, input.size));
                }
                Some(before) if before.version != input.version => changes.push(format!("{} was changed", input.url)),
                Some(_) => {}
            }
        }
        let gone = earlier.all_inputs().filter(|before| !self.all_inputs().any(|input| input.url == before.url));
        changes.extend(gone.map(|before| format!("{} is not among the input", before.url)));
        if self.norms_digest != earlier.norms_digest {
            changes.push("the norms are others".to_owned());
        }
        if self.instrument_digest != earlier.instrument_digest {
            changes.push(format!("the instrument is {} of another definition", self.instrument));
        }
        if self.tool != earlier.tool {
            changes.push(format!("it was {}", earlier.tool));
        }
        if self.columns != earlier.columns {
            changes.push("the columns are others".to_owned());
        }
        if self.options != earlier.options {
            changes.push("options are others".to_owned());
        }
        if changes.is_empty() && self.parts != earlier.parts {
            changes.push("the parts are others".to_owned());
        }
        changes
    }
}

/// A location's URL without the number that pinning it to a version puts behind the scheme, as in `s3+1://bucket`.
fn plain_url(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => format!("{}://{rest}", scheme.split('+').next().unwrap_or(scheme)),
        None => url.to_owned(),
    }
}

fn planned_input(file: &SessionFile) -> PlannedInput {
    match &file.source {
        Source::File(found) => PlannedInput {
            url: plain_url(found.location.url().as_str()),
            size: found.meta.size,
            version: found.meta.e_tag.clone().unwrap_or_else(|| found.meta.last_modified.to_rfc3339()),
        },
        // A stream is never the same again: a run of one cannot be resumed.
        Source::Stdin(_) => {
            let now = chrono::Utc::now();
            let version = format!("{}-{}", now.format("%Y-%m-%dT%H:%M:%S%.9fZ"), std::process::id());
            PlannedInput { url: file.name(), size: 0, version }
        }
    }
}
