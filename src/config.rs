//! Settings and where they come from: defaults, a profile, `normstream.toml`, the environment, the command line.
//!
//! Each layer overrides those before it. This module is the only reader of the environment; other modules take their options
//! resolved.

mod exports;

use std::collections::BTreeMap;
use std::fmt;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use figment::error::Kind;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Provider};
use serde::{Deserialize, Serialize};

use crate::engine::{EngineOptions, PartLimits};
use crate::model::norm::ChainScope;
use crate::norms::NormStoreOptions;
use crate::operators::row_group::RowGroupOptions;
use crate::run::OnError;
use crate::storage::{PoolMode, PoolOptions, RetryOptions, StorageError, StorageOptions, UploadOptions};

pub use exports::{ExportSettings, ModeName, TargetSettings};

/// The name of the configuration file, looked for in the working directory.
pub const CONFIG_FILE: &str = "normstream.toml";
/// The prefix of environment variables: `NORMSTREAM_BATCH_SIZE` sets `batch_size`.
pub const ENV_PREFIX: &str = "NORMSTREAM_";
/// The variable that names another configuration file.
const CONFIG_VARIABLE: &str = "NORMSTREAM_CONFIG";
/// The variable that filters log messages, in the syntax of `tracing_subscriber`.
const LOG_VARIABLE: &str = "NORMSTREAM_LOG";

/// A set of defaults for a kind of machine or load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Twice the requests in flight of the plain defaults.
    Balanced,
    /// Many requests in flight, large batches and caches.
    HighTraffic,
    /// One part at a time, small batches, row groups and caches; of a large object one part on its way.
    MemoryConstrained,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ProgressStyle {
    /// A bar on a terminal, else plain lines.
    Auto,
    /// A bar.
    Bar,
    /// A line every ten seconds.
    Plain,
    /// A JSON object a line, every ten seconds.
    Json,
    /// Nothing, not even the summary.
    Off,
}

/// Which scales fall back together; see [`ChainScope`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Each scale on its own.
    PerScale,
    /// All together.
    PerSession,
}

/// What is done with sessions that cannot be scored; see [`OnError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorPolicy {
    /// Keep them in the output with `ok = false`.
    Keep,
    /// End the run at the first one, writing nothing.
    Fail,
    /// Leave them out of the output; they are still counted.
    Drop,
}

/// How the capacity of storage pools is set; see [`PoolMode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PoolSizing {
    /// As configured.
    Fixed,
    /// Following latency and throttling.
    Adaptive,
}

/// Every setting, resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Rows of a record batch: 1 to 1,048,576.
    pub batch_size: usize,
    /// Parts that are worked on at once: 1 to 1,024.
    pub threads: usize,
    /// Memory that sorts and joins may hold before they spill: at least 16 MiB.
    pub memory_limit: ByteSize,
    /// A set of defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// Rows of a Parquet row group that is written: 1,024 to 16,777,216.
    pub row_group_rows: usize,
    /// Rows of input that a part holds, at least: 1,024 to 16,777,216.
    pub part_rows: u64,
    /// The level of zstd for Parquet: 1 to 22.
    pub zstd_level: i32,
    /// Norm tables: files or folders.
    pub norms: Vec<String>,
    /// The norm chain; the instrument's unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<String>,
    /// Which scales fall back together.
    pub chain_scope: Scope,
    /// Whether a group that lacks a requested version answers with its default one.
    pub allow_version_fallback: bool,
    /// Rows that are decoded at a time when norms are loaded: 1 to 1,000,000.
    pub chunk_rows: usize,
    /// Norm groups that are kept: at least 1.
    pub cache_entries: usize,
    /// Memory for norms: at least 64 KiB.
    pub cache_bytes: ByteSize,
    /// What is done with sessions that cannot be scored.
    pub on_error: ErrorPolicy,
    /// How many sessions may fail before the exit code says so; no limit unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<u64>,
    /// How progress is shown.
    pub progress: ProgressStyle,
    /// Requests in flight kept as steady capacity, for each store: 1 to 50.
    pub pool_size: usize,
    /// Requests in flight beyond that in bursts: 0 to 100.
    pub pool_max_overflow: usize,
    /// Seconds to wait for a free connection: 1 to 300.
    pub pool_timeout: u64,
    /// Seconds after which connections are renewed: at least 300.
    pub pool_recycle: u64,
    /// Whether an idle store is checked before it is used.
    pub pool_pre_ping: bool,
    /// Whether capacity follows latency and throttling.
    pub pool_mode: PoolSizing,
    /// Repetitions of a request that failed, at most: 0 to 100.
    pub retry_max_retries: usize,
    /// Seconds after which no request is repeated any more: 1 to 3,600.
    pub retry_timeout: u64,
    /// Bytes of a part of a large object that is written: 5 MiB to 1 GiB.
    pub upload_part_size: ByteSize,
    /// Parts of one object on their way at once: 1 to 64.
    pub upload_parts_in_flight: usize,
    /// Whether redirects may lead to loopback, link-local or private addresses.
    pub allow_private_redirects: bool,
    /// Settings of single stores, by scheme and authority: `[storage."s3://bucket"]`. Values are secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub storage: BTreeMap<String, BTreeMap<String, String>>,
    /// Where results are: the table `results` of SQL and of exports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<String>,
    /// Other tables of SQL and of exports: names, and where they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tables: BTreeMap<String, String>,
    /// Where exports go: `[targets.NAME]`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: BTreeMap<String, TargetSettings>,
    /// What is exported: `[exports.NAME]`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exports: BTreeMap<String, ExportSettings>,
}

impl Settings {
    /// The defaults under a profile.
    pub fn defaults(profile: Option<Profile>) -> Settings {
        let StorageOptions { pool, retry, upload, .. } = StorageOptions::default();
        let norms = NormStoreOptions::default();
        let engine = EngineOptions::default();
        let row_groups = RowGroupOptions::default();
        let plain = Settings {
            batch_size: engine.batch_size,
            threads: engine.threads,
            memory_limit: ByteSize(engine.memory_limit as u64),
            profile,
            row_group_rows: row_groups.row_group_rows,
            part_rows: PartLimits::default().rows,
            zstd_level: row_groups.zstd_level,
            norms: Vec::new(),
            chain: None,
            chain_scope: Scope::PerScale,
            allow_version_fallback: norms.allow_version_fallback,
            chunk_rows: norms.chunk_rows,
            cache_entries: norms.cache_entries,
            cache_bytes: ByteSize(norms.cache_bytes as u64),
            on_error: ErrorPolicy::Keep,
            max_failures: None,
            progress: ProgressStyle::Auto,
            pool_size: pool.size,
            pool_max_overflow: pool.max_overflow,
            pool_timeout: pool.timeout.as_secs(),
            pool_recycle: pool.recycle.as_secs(),
            pool_pre_ping: pool.pre_ping,
            pool_mode: PoolSizing::Fixed,
            retry_max_retries: retry.max_retries,
            retry_timeout: retry.timeout.as_secs(),
            upload_part_size: ByteSize(upload.part_size as u64),
            upload_parts_in_flight: upload.parts_in_flight,
            allow_private_redirects: false,
            storage: BTreeMap::new(),
            results: None,
            tables: BTreeMap::new(),
            targets: BTreeMap::new(),
            exports: BTreeMap::new(),
        };
        match profile {
            None => plain,
            Some(Profile::Balanced) => Settings { pool_size: 10, pool_max_overflow: 20, ..plain },
            Some(Profile::HighTraffic) => Settings {
                batch_size: 16_384,
                cache_bytes: ByteSize::mib(256),
                cache_entries: 50_000,
                pool_size: 20,
                pool_max_overflow: 30,
                pool_recycle: 1_800,
                ..plain
            },
            Some(Profile::MemoryConstrained) => Settings {
                batch_size: 2_048,
                threads: 1,
                memory_limit: ByteSize::mib(32),
                row_group_rows: 32_768,
                part_rows: 32_768,
                cache_bytes: ByteSize::mib(4),
                cache_entries: 500,
                pool_size: 2,
                pool_max_overflow: 2,
                upload_part_size: ByteSize::mib(5),
                upload_parts_in_flight: 1,
                ..plain
            },
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        in_range("batch_size", self.batch_size as u64, 1, 1 << 20)?;
        in_range("threads", self.threads as u64, 1, 1_024)?;
        in_range("row_group_rows", self.row_group_rows as u64, 1 << 10, 1 << 24)?;
        in_range("part_rows", self.part_rows, 1 << 10, 1 << 24)?;
        in_range("zstd_level", self.zstd_level.max(0) as u64, 1, 22)?;
        in_range("chunk_rows", self.chunk_rows as u64, 1, 1_000_000)?;
        in_range("cache_entries", self.cache_entries as u64, 1, u64::MAX)?;
        at_least("memory_limit", self.memory_limit, ByteSize::mib(16))?;
        at_least("cache_bytes", self.cache_bytes, ByteSize::kib(64))?;
        self.storage_options().validate().map_err(ConfigError::Storage)?;
        Ok(())
    }

    /// What the engine may use.
    pub fn engine_options(&self) -> EngineOptions {
        EngineOptions {
            batch_size: self.batch_size,
            threads: self.threads,
            memory_limit: self.memory_limit.as_u64() as usize,
            ..EngineOptions::default()
        }
    }

    /// How norms are looked up and kept.
    pub fn norm_options(&self) -> NormStoreOptions {
        NormStoreOptions {
            chunk_rows: self.chunk_rows,
            cache_entries: self.cache_entries,
            cache_bytes: self.cache_bytes.as_u64() as usize,
            allow_version_fallback: self.allow_version_fallback,
            scope: match self.chain_scope {
                Scope::PerScale => ChainScope::PerScale,
                Scope::PerSession => ChainScope::PerSession,
            },
        }
    }

    /// How Parquet is written.
    pub fn row_group_options(&self) -> RowGroupOptions {
        RowGroupOptions {
            zstd_level: self.zstd_level,
            row_group_rows: self.row_group_rows,
            ..RowGroupOptions::default()
        }
    }

    /// How input is cut.
    pub fn part_limits(&self) -> PartLimits {
        PartLimits { rows: self.part_rows, ..PartLimits::default() }
    }

    /// What is done with sessions that cannot be scored.
    pub fn on_error(&self) -> OnError {
        match self.on_error {
            ErrorPolicy::Keep => OnError::Keep,
            ErrorPolicy::Fail => OnError::Fail,
            ErrorPolicy::Drop => OnError::Drop,
        }
    }

    /// How stores are reached.
    pub fn storage_options(&self) -> StorageOptions {
        StorageOptions {
            pool: PoolOptions {
                size: self.pool_size,
                max_overflow: self.pool_max_overflow,
                timeout: Duration::from_secs(self.pool_timeout),
                recycle: Duration::from_secs(self.pool_recycle),
                pre_ping: self.pool_pre_ping,
                mode: match self.pool_mode {
                    PoolSizing::Fixed => PoolMode::Fixed,
                    PoolSizing::Adaptive => PoolMode::Adaptive,
                },
            },
            retry: RetryOptions {
                max_retries: self.retry_max_retries,
                timeout: Duration::from_secs(self.retry_timeout),
                ..RetryOptions::default()
            },
            upload: UploadOptions {
                part_size: self.upload_part_size.as_u64() as usize,
                parts_in_flight: self.upload_parts_in_flight,
            },
            stores: self.storage.clone(),
            allow_private_redirects: self.allow_private_redirects,
        }
    }
}

fn in_range(key: &'static str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let range = if most == u64::MAX { format!("at least {least}") } else { format!("from {least} to {most}") };
    Err(ConfigError::OutOfRange { key, value: value.to_string(), range })
}

fn at_least(key: &'static str, value: ByteSize, least: ByteSize) -> Result<(), ConfigError> {
    if value >= least {
        return Ok(());
    }
    Err(ConfigError::OutOfRange { key, value: value.to_string(), range: format!("at least {least}") })
}

/// Why settings are refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file that was asked for is not there.
    #[error("there is no configuration file {path}")]
    NoFile {
        /// The file.
        path: String,
    },
    /// A key that means nothing.
    #[error("unknown setting '{key}' in {origin}{}", hint.as_deref().map(|hint| format!("; did you mean '{hint}'?")).unwrap_or_default())]
    UnknownKey {
        /// The key.
        key: String,
        /// The layer that has it.
        origin: String,
        /// The nearest key that exists.
        hint: Option<String>,
    },
    /// A value of the wrong kind.
    #[error("the setting '{key}' in {origin} cannot be read: {what}")]
    Value {
        /// The key.
        key: String,
        /// The layer that has it.
        origin: String,
        /// What is wrong.
        what: String,
    },
    /// A value out of its range.
    #[error("{key} is {value}: it must be {range}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// Its range.
        range: String,
    },
    /// A setting of storage out of its range.
    #[error(transparent)]
    Storage(StorageError),
    /// A name that the settings do not define.
    #[error("there is no {kind} '{name}'{hint}")]
    UnknownName {
        /// What it should be the name of.
        kind: &'static str,
        /// The name.
        name: String,
        /// What there is instead.
        hint: String,
    },
    /// A value that needs a variable of the environment.
    #[error("{key} needs the environment variable {variable}, which is not set")]
    MissingVariable {
        /// The key.
        key: String,
        /// The variable.
        variable: String,
    },
}

/// The settings of a process, and of each where it came from.
#[derive(Debug, Clone)]
pub struct Config {
    /// The settings.
    pub settings: Settings,
    /// The file that was read, if there is one.
    pub file: Option<PathBuf>,
    figment: Figment,
}

impl Config {
    /// Reads all layers. `flags` are the settings given on the command line; `file` overrides where the file is looked for.
    pub fn load(file: Option<&Path>, flags: Flags) -> Result<Config, ConfigError> {
        let file = match file.map(Path::to_owned).or_else(|| std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from)) {
            Some(path) if !path.is_file() => return Err(ConfigError::NoFile { path: path.display().to_string() }),
            Some(path) => Some(path),
            None => Some(PathBuf::from(CONFIG_FILE)).filter(|path| path.is_file()),
        };
        let mut given = Figment::new();
        if let Some(file) = &file {
            given = given.merge(Toml::file_exact(file));
        }
        let reserved = [CONFIG_VARIABLE, LOG_VARIABLE].map(|name| name.trim_start_matches(ENV_PREFIX).to_lowercase());
        let env =
            Env::prefixed(ENV_PREFIX).filter(move |key| !reserved.iter().any(|reserved| key == reserved.as_str()));
        let given = given.merge(env).merge(flags);
        let profile = given.extract_inner_lossy::<Profile>("profile").ok();
        let figment = Figment::from(Defaults(Settings::defaults(profile))).merge(given);
        let settings: Settings = figment.extract().map_err(|error| refuse(error, &figment))?;
        settings.validate()?;
        Ok(Config { settings, file, figment })
    }

    /// Where a setting came from, as in `normstream.toml`, `environment`, `command line` or `default`.
    pub fn origin(&self, key: &str) -> String {
        self.figment.find_metadata(key).map_or_else(|| "default".to_owned(), origin_of)
    }

    /// Each setting with its value and where it came from. Values of `[storage.…]`, passwords of targets and what webhooks have
    /// behind their host are masked.
    pub fn shown(&self) -> Vec<(String, String, String)> {
        let Ok(Value::Dict(_, values)) = Value::serialize(&self.settings) else { return Vec::new() };
        let mut shown = Vec::new();
        for (key, value) in values {
            let origin = self.origin(&key);
            match (key.as_str(), value) {
                ("storage", Value::Dict(_, stores)) => {
                    for (store, keys) in stores {
                        let Value::Dict(_, keys) = keys else { continue };
                        for secret in keys.into_keys() {
                            let key = format!("storage.\"{store}\".{secret}");
                            shown.push((key, exports::MASK.to_owned(), origin.clone()));
                        }
                    }
                }
                ("targets" | "exports", Value::Dict(_, sections)) => {
                    for (name, keys) in sections {
                        let Value::Dict(_, keys) = keys else { continue };
                        for (inner, value) in keys {
                            let text = exports::shown(&inner, text_of(&value));
                            shown.push((format!("{key}.{name}.{inner}"), text, origin.clone()));
                        }
                    }
                }
                (_, value) => shown.push((key, text_of(&value), origin)),
            }
        }
        shown
    }

    /// The environment, for those who take it resolved: the credentials of stores.
    pub fn environment() -> impl Iterator<Item = (String, String)> {
        std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
    }

    /// The filter of log messages that the environment asks for.
    pub fn log_filter() -> Option<String> {
        std::env::var(LOG_VARIABLE).ok()
    }

    /// Where the user's programs keep what they remember: `XDG_DATA_HOME`, else `.local/share` in the home folder.
    pub fn data_folder() -> Option<PathBuf> {
        let folder = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        folder("XDG_DATA_HOME").or_else(|| Some(folder("HOME")?.join(".local/share")))
    }

    /// Whether the environment asks for output without colour (see no-color.org).
    pub fn no_color() -> bool {
        std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
    }
}

fn origin_of(metadata: &Metadata) -> String {
    match &metadata.source {
        Some(figment::Source::File(path)) => path.file_name().unwrap_or(path.as_os_str()).display().to_string(),
        _ if metadata.name.contains("environment") => "environment".to_owned(),
        _ => metadata.name.to_string(),
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.clone(),
        Value::Array(_, values) => format!("[{}]", values.iter().map(text_of).collect::<Vec<_>>().join(", ")),
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

/// The first problem of an extraction, in our words.
fn refuse(error: figment::Error, figment: &Figment) -> ConfigError {
    let path = error.path.join(".");
    let origin = error.metadata.as_ref().map_or_else(|| "the settings".to_owned(), origin_of);
    match &error.kind {
        Kind::UnknownField(key, known) => {
            let origin = figment.find_metadata(key).map_or(origin, origin_of);
            let near = known.iter().map(|name| (strsim::jaro_winkler(key, name), name));
            let hint = near.filter(|(score, _)| *score > 0.75).max_by(|a, b| a.0.total_cmp(&b.0));
            ConfigError::UnknownKey { key: key.clone(), origin, hint: hint.map(|(_, name)| (*name).to_owned()) }
        }
        Kind::InvalidType(found, expected) => {
            let what = format!("it must be {}, and is the {found}", type_of(expected));
            ConfigError::Value { key: path, origin, what }
        }
        kind => ConfigError::Value { key: path, origin, what: kind.to_string() },
    }
}

/// A type as users call it, by its name in the program.
fn type_of(expected: &str) -> &str {
    match expected {
        "u16" | "u32" | "u64" | "usize" => "a whole number",
        "f64" => "a number",
        "a boolean" => "true or false",
        other => other,
    }
}

/// The first layer.
struct Defaults(Settings);

impl Provider for Defaults {
    fn metadata(&self) -> Metadata {
        Metadata::named("default")
    }

    fn data(&self) -> Result<Map<figment::Profile, Dict>, figment::Error> {
        Serialized::defaults(&self.0).data()
    }
}

/// The last layer: settings given on the command line.
#[derive(Clone, Default)]
pub struct Flags(Dict);

impl Flags {
    /// Adds a setting if it was given.
    pub fn set<T: Serialize>(mut self, key: &str, value: Option<T>) -> Self {
        if let Some(value) = value.and_then(|value| Value::serialize(value).ok()) {
            self.0.insert(key.to_owned(), value);
        }
        self
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Provider for Flags {
    fn metadata(&self) -> Metadata {
        Metadata::named("command line")
    }

    fn data(&self) -> Result<Map<figment::Profile, Dict>, figment::Error> {
        Ok(Map::from([(figment::Profile::Default, self.0.clone())]))
    }
}
