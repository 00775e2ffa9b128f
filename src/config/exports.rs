//! `[targets.NAME]` and `[exports.NAME]`: from what is written to what [`export`](crate::export) takes.
//!
//! `${NAME}` in the URL of a target or of a webhook, or in the place of a whole hook, is the environment's. It is looked up when
//! an export is made ready and not before, so that other commands do without; what is shown is the text with `${NAME}` in it, and of a
//! webhook the host. In a command it is the shell's, which has the same environment.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::{Config, ConfigError};
use crate::engine::FileFormat;
use crate::export::schedule::Schedule;
use crate::export::{CatchUp, ExportJob, Hook, Incremental, Mode, Overlap, TargetFormat, TargetOptions};

/// What is shown of a secret.
pub(super) const MASK: &str = "********";

/// A place that exports go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSettings {
    /// `postgres://user:${PGPASSWORD}@host/database`, or a folder of any store.
    pub url: String,
    /// What is written into a folder: delta, parquet, csv, ndjson or arrow. Parquet unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Connections kept, for a database; `pool_size` unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_size: Option<usize>,
    /// Connections beyond that; `pool_max_overflow` unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_max_overflow: Option<usize>,
}

/// The modes by name; the key of an upsert stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModeName {
    /// Rows stay.
    #[default]
    Append,
    /// Rows are replaced.
    Overwrite,
    /// Rows with the same key are replaced.
    Upsert,
}

/// An export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportSettings {
    /// A file with the query, relative to the configuration file, or the query itself.
    pub query: String,
    /// The name of a target.
    pub target: String,
    /// The table.
    pub table: String,
    /// What is done with rows that are there.
    #[serde(default)]
    pub mode: ModeName,
    /// The columns that identify a row, for upsert.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    /// Which rows are new: version, column:NAME or none.
    #[serde(default)]
    pub incremental: Incremental,
    /// Cron, five fields. Without it the export runs only by `export run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The zone of the schedule.
    #[serde(default = "utc")]
    pub timezone: String,
    /// What happens when it is due while it runs.
    #[serde(default)]
    pub overlap: Overlap,
    /// What happens with missed slots.
    #[serde(default)]
    pub catch_up: CatchUp,
    /// Fewer rows are an error.
    #[serde(default)]
    pub min_rows: u64,
    /// Attempts after temporary failures.
    #[serde(default = "three")]
    pub retries: u32,
    /// Columns that become folders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition_by: Vec<String>,
    /// A command or a webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_success: Option<String>,
    /// A command or a webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<String>,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn three() -> u32 {
    3
}

impl Config {
    /// The exports of these names, ready to run; all of them if none is named.
    pub fn exports(&self, names: &[String]) -> Result<Vec<ExportJob>, ConfigError> {
        let known = &self.settings.exports;
        if names.is_empty() {
            return known.iter().map(|(name, settings)| self.export(name, settings)).collect();
        }
        let named = names.iter().map(|name| match known.get(name) {
            Some(settings) => self.export(name, settings),
            None => Err(ConfigError::UnknownName { kind: "export", name: name.clone(), hint: nearest(name, known) }),
        });
        named.collect()
    }

    fn export(&self, name: &str, settings: &ExportSettings) -> Result<ExportJob, ConfigError> {
        let refused = |key: &str, what: String| ConfigError::Value {
            key: format!("exports.{name}.{key}"),
            origin: self.origin("exports"),
            what,
        };
        let mode = match (settings.mode, settings.key.is_empty()) {
            (ModeName::Append, true) => Mode::Append,
            (ModeName::Overwrite, true) => Mode::Overwrite,
            (ModeName::Upsert, false) => Mode::Upsert { key: settings.key.clone() },
            (ModeName::Upsert, true) => {
                return Err(refused("key", "upsert needs the columns that identify a row".to_owned()));
            }
            (_, false) => return Err(refused("key", "a key is for the mode upsert".to_owned())),
        };
        let schedule = settings.schedule.as_deref().map(|schedule| Schedule::new(schedule, &settings.timezone));
        let hook = |key: &str, hook: &Option<String>| match hook.clone().map(Hook::new) {
            // A value that is put into a command would be read as a part of it.
            Some(Hook::Command(command)) if !is_reference(&command) => Ok(Some(Hook::Command(command))),
            Some(Hook::Command(text) | Hook::Webhook(text)) => {
                resolve(&text, &format!("exports.{name}.{key}")).map(Hook::new).map(Some)
            }
            None => Ok(None),
        };
        Ok(ExportJob {
            name: name.to_owned(),
            sql: self.query_text(settings).map_err(|what| refused("query", what))?,
            target: self.target(&settings.target)?,
            table: settings.table.clone(),
            mode,
            incremental: settings.incremental.clone(),
            schedule: schedule.transpose().map_err(|error| refused("schedule", error.to_string()))?,
            overlap: settings.overlap,
            catch_up: settings.catch_up,
            min_rows: settings.min_rows,
            retries: settings.retries,
            partition_by: settings.partition_by.clone(),
            on_success: hook("on_success", &settings.on_success)?,
            on_failure: hook("on_failure", &settings.on_failure)?,
        })
    }

    fn target(&self, name: &str) -> Result<TargetOptions, ConfigError> {
        let known = &self.settings.targets;
        let Some(settings) = known.get(name) else {
            return Err(ConfigError::UnknownName { kind: "target", name: name.to_owned(), hint: nearest(name, known) });
        };
        let format = match settings.format.as_deref() {
            Some("delta") => TargetFormat::Delta,
            None => TargetFormat::Files(FileFormat::Parquet),
            Some(format) => {
                let format = format.parse::<FileFormat>().map_err(|what| ConfigError::Value {
                    key: format!("targets.{name}.format"),
                    origin: self.origin("targets"),
                    what: format!("{what}, or delta"),
                })?;
                TargetFormat::Files(format)
            }
        };
        let mut pool = self.settings.storage_options().pool;
        pool.size = settings.pool_size.unwrap_or(pool.size);
        pool.max_overflow = settings.pool_max_overflow.unwrap_or(pool.max_overflow);
        let url = resolve(&settings.url, &format!("targets.{name}.url"))?;
        Ok(TargetOptions { name: name.to_owned(), url, format, pool })
    }

    /// The query itself, or what its file holds.
    fn query_text(&self, settings: &ExportSettings) -> Result<String, String> {
        if settings.query.trim().contains(char::is_whitespace) {
            return Ok(settings.query.clone());
        }
        let folder = self.file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        let file = folder.join(settings.query.trim());
        std::fs::read_to_string(&file).map_err(|error| format!("{} cannot be read: {error}", file.display()))
    }
}

/// A value with the environment's values in the place of `${NAME}`.
///
/// In a URL (after `://`) they are percent-encoded, so that a password may hold any character; a value that is nothing but
/// `${NAME}` is taken as it is.
fn resolve(text: &str, key: &str) -> Result<String, ConfigError> {
    let (mut resolved, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(from) = rest.find("${") {
        let unclosed = || ConfigError::Value {
            key: key.to_owned(),
            origin: "the settings".to_owned(),
            what: "${ without }".to_owned(),
        };
        let to = from + rest[from..].find('}').ok_or_else(unclosed)?;
        let variable = &rest[from + 2..to];
        let value = std::env::var(variable)
            .map_err(|_| ConfigError::MissingVariable { key: key.to_owned(), variable: variable.to_owned() })?;
        resolved.push_str(&rest[..from]);
        if resolved.contains("://") {
            percent_encode(&value, &mut resolved)
        } else {
            resolved.push_str(&value)
        }
        rest = &rest[to + 1..];
    }
    resolved.push_str(rest);
    Ok(resolved)
}

fn percent_encode(value: &str, into: &mut String) {
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => into.push(char::from(byte)),
            byte => into.push_str(&format!("%{byte:02X}")),
        }
    }
}

fn nearest<T>(name: &str, known: &BTreeMap<String, T>) -> String {
    let near = known.keys().map(|known| (strsim::jaro_winkler(name, known), known));
    match near.filter(|(score, _)| *score > 0.75).max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((_, known)) => format!("; did you mean '{known}'?"),
        None if known.is_empty() => "; there are none".to_owned(),
        None => format!("; there are {}", known.keys().cloned().collect::<Vec<_>>().join(", ")),
    }
}

/// A setting as it may be shown.
pub(super) fn shown(key: &str, text: String) -> String {
    match key {
        "url" => masked(&text),
        "on_success" | "on_failure" => match Hook::new(text) {
            Hook::Webhook(url) => host_of(&url),
            Hook::Command(command) => command,
        },
        _ => text,
    }
}

/// A URL with its password masked, wherever that stands. A password from the environment is not in it.
fn masked(url: &str) -> String {
    let Some((scheme, authority, rest)) = split(url) else { return url.to_owned() };
    let login = authority.rsplit_once('@').and_then(|(login, host)| Some((login.split_once(':')?, host)));
    let authority = match login {
        Some(((user, password), host)) => format!("{user}:{}@{host}", hidden(password)),
        None => authority.to_owned(),
    };
    let Some((path, query)) = rest.split_once('?') else { return format!("{scheme}://{authority}{rest}") };
    let parameters = query.split('&').map(|parameter| match parameter.split_once('=') {
        Some(("password", password)) => format!("password={}", hidden(password)),
        _ => parameter.to_owned(),
    });
    format!("{scheme}://{authority}{path}?{}", parameters.collect::<Vec<_>>().join("&"))
}

/// A webhook up to its host: anything behind that may be its token.
fn host_of(url: &str) -> String {
    let Some((scheme, authority, _)) = split(url) else { return MASK.to_owned() };
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}/{MASK}")
}

/// The scheme of a URL, its authority, and what follows.
fn split(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    Some((scheme, authority, rest))
}

fn hidden(password: &str) -> &str {
    if is_reference(password) { password } else { MASK }
}

/// Whether a text is one `${NAME}` and nothing else.
fn is_reference(text: &str) -> bool {
    let variable = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    variable.is_some_and(|name| !name.contains('}'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Flags;

    /// The only export of a configuration, ready to run.
    fn config(text: &str) -> Result<ExportJob, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("normstream.toml");
        std::fs::write(&file, text).unwrap();
        std::fs::write(folder.path().join("scores.sql"), "SELECT 1 AS one").unwrap();
        let config = Config::load(Some(&file), Flags::default())?;
        Ok(config.exports(&[])?.remove(0))
    }

    const PLAIN: &str =
        "[targets.dw]\nurl = \"out\"\n[exports.nightly]\nquery = \"scores.sql\"\ntarget = \"dw\"\ntable = \"t\"\n";

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_one() {
        let error = config(&format!("{PLAIN}shedule = \"0 3 * * *\"\n")).unwrap_err().to_string();
        assert!(error.starts_with("unknown setting 'shedule' in "), "{error}");
        assert!(error.ends_with("did you mean 'schedule'?"), "{error}");
    }

    #[test]
    fn what_is_named_must_exist() {
        let error = config(&PLAIN.replace("target = \"dw\"", "target = \"dv\"")).unwrap_err().to_string();
        assert!(error.starts_with("there is no target 'dv'"), "{error}");
        let error = config(&PLAIN.replace("scores.sql", "none.sql")).unwrap_err().to_string();
        assert!(error.contains("none.sql cannot be read"), "{error}");
        let config = Config::load(None, Flags::default()).unwrap();
        assert_eq!(
            config.exports(&["x".to_owned()]).unwrap_err().to_string(),
            "there is no export 'x'; there are none"
        );
    }

    #[test]
    fn an_upsert_needs_a_key_and_nothing_else_has_one() {
        assert!(
            config(&format!("{PLAIN}mode = \"upsert\"\n")).unwrap_err().to_string().contains("columns that identify")
        );
        assert!(config(&format!("{PLAIN}key = [\"a\"]\n")).is_err());
        assert!(config(&format!("{PLAIN}mode = \"upsert\"\nkey = [\"a\"]\n")).is_ok());
    }

    #[test]
    fn a_variable_that_is_not_set_is_named_with_its_key() {
        let error = config(&PLAIN.replace("\"out\"", "\"postgres://u:${NO_SUCH_SECRET}@h/d\"")).unwrap_err();
        assert_eq!(error.to_string(), "targets.dw.url needs the environment variable NO_SUCH_SECRET, which is not set");
    }

    #[test]
    fn a_secret_in_a_url_may_hold_any_character() {
        let path = std::env::var("PATH").unwrap();
        assert_eq!(resolve("${PATH}", "k").unwrap(), path);
        let url = resolve("postgres://u:${PATH}@h/d", "k").unwrap();
        assert!(!url["postgres://u:".len()..url.len() - "@h/d".len()].contains('/'), "{url}");
    }

    #[test]
    fn a_password_is_masked_and_a_reference_to_one_is_not() {
        assert_eq!(masked("postgres://u:p@h/d"), "postgres://u:********@h/d");
        assert_eq!(masked("postgres://u:${PGPASSWORD}@h/d"), "postgres://u:${PGPASSWORD}@h/d");
        assert_eq!(masked("postgres://u:${A}canary${B}@h/d"), "postgres://u:********@h/d");
        assert_eq!(masked("postgres://h?user=u&password=p%40"), "postgres://h?user=u&password=********");
        assert_eq!(
            masked("postgres://u:p@h/d?password=${PGPASSWORD}&sslmode=require"),
            "postgres://u:********@h/d?password=${PGPASSWORD}&sslmode=require"
        );
        assert_eq!(masked("s3://bucket/x"), "s3://bucket/x");
    }

    #[test]
    fn of_a_webhook_its_host_is_shown_and_of_a_command_all() {
        let shown = |text: &str| shown("on_failure", text.to_owned());
        assert_eq!(shown("https://hooks.example.com/services/canary"), "https://hooks.example.com/********");
        assert_eq!(shown("https://u:canary@hooks.example.com?token=canary"), "https://hooks.example.com/********");
        assert_eq!(shown("mail -s \"$WHAT\" a@b"), "mail -s \"$WHAT\" a@b");
    }

    #[test]
    fn a_variable_in_a_webhook_is_encoded_and_one_in_a_command_is_left_to_the_shell() {
        let path = std::env::var("PATH").unwrap();
        let hooks = "on_success = \"https://h/${PATH}\"\non_failure = \"notify https://h/${PATH} ${NO_SUCH_SECRET}\"\n";
        let job = config(&format!("{PLAIN}{hooks}")).unwrap();
        let Some(Hook::Webhook(url)) = &job.on_success else { panic!("{:?}", job.on_success) };
        assert!(!url["https://h/".len()..].contains('/') && path.contains('/'), "{url}");
        let command = "notify https://h/${PATH} ${NO_SUCH_SECRET}";
        assert_eq!(job.on_failure, Some(Hook::Command(command.to_owned())));
        let whole = config(&format!("{PLAIN}on_failure = \"${{PATH}}\"\n")).unwrap();
        assert_eq!(whole.on_failure, Some(Hook::Command(path)));
    }
}
