//! `normstream demo`: three commands run one after the other, and a look at what they leave.
//!
//! The demo is nothing but the commands it prints: each is parsed and run as if it had been typed. What it adds is the tables at
//! the end, which are SQL over the results.

use std::path::Path;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::util::pretty::pretty_format_batches;
use clap::{Args, Parser};
use datafusion::error::Result as PlanResult;
use datafusion::prelude::{ParquetReadOptions, SessionContext};

use crate::cli::score::print;
use crate::config::{Config, ProgressStyle};
use crate::engine::{EngineError, sql_context};
use crate::error::Error;
use crate::instrument::Instrument;
use crate::model::result::{norm_group_column, percentile_column};
use crate::model::{Mode, Scale};
use crate::norms::NormStore;
use crate::storage::Storage;
use crate::telemetry::print_line;

/// Generate sessions and norms, score them, and show the result.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DemoArgs {
    /// How many sessions.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    rows: u64,
    /// The local folder for sessions, norms and results; those of an earlier demo are replaced.
    #[arg(long, default_value = "normstream-demo", value_name = "DIR")]
    to: String,
}

const EXAMPLES: &str = "\
Examples:
  normstream demo
  normstream demo --rows 1000000 --to /tmp/demo";

/// The share of generated sessions that have a fault.
const BAD_FRACTION: &str = "0.015";

/// Runs the demo. `config_file` is the one that was asked for on the command line.
pub(super) fn demo(args: DemoArgs, config: &Config, config_file: Option<&Path>) -> Result<(), Error> {
    if args.to.starts_with('-') || args.to.contains("://") {
        return Err(Error::Usage(format!("the demo needs a local folder, which '{}' is not", args.to)));
    }
    let files = Files::within(&args.to);
    for mut command in files.commands(args.rows) {
        if let Some(file) = config_file {
            command.extend(["--config".to_owned(), file.display().to_string()]);
        }
        if !matches!(config.settings.progress, ProgressStyle::Off | ProgressStyle::Json) {
            print_line(&format!("$ {}", as_typed(&command)));
        }
        // The commands are ours: clap has nothing to refuse in them but a name it takes for a flag.
        let parsed = super::Args::try_parse_from(&command).map_err(|error| Error::Usage(error.to_string()))?;
        super::run(parsed)?;
    }
    super::block_on(config.settings.threads, async { print(&files.show(config).await?) })
}

/// The files of a demo.
struct Files {
    sessions: String,
    norms: String,
    results: String,
    folder: String,
}

impl Files {
    fn within(folder: &str) -> Self {
        let folder = match folder.trim_end_matches('/') {
            "" => "/",
            folder => folder,
        };
        let file = |name: &str| Path::new(folder).join(name).display().to_string();
        Files {
            sessions: file("sessions.parquet"),
            norms: file("norms.csv"),
            results: file("results.parquet"),
            folder: folder.to_owned(),
        }
    }

    /// What the demo runs.
    fn commands(&self, rows: u64) -> [Vec<String>; 3] {
        let Files { sessions, norms, results, .. } = self;
        let rows = rows.to_string();
        let command = |words: &[&str]| ["normstream"].iter().chain(words).map(|word| (*word).to_owned()).collect();
        [
            command(&[
                "generate",
                "sessions",
                "--rows",
                &rows,
                "--bad-fraction",
                BAD_FRACTION,
                "--teams",
                "--overwrite",
                "--to",
                sessions,
            ]),
            command(&["generate", "norms", "--overwrite", "--to", norms]),
            command(&[
                "score",
                sessions,
                "--norms",
                norms,
                "--pass",
                "team_id",
                "--on-error",
                "keep",
                "--overwrite",
                "--to",
                results,
            ]),
        ]
    }

    /// The tables, the files and what to try next.
    async fn show(&self, config: &Config) -> Result<String, Error> {
        let context = self.open_results(config).await?;
        let mut text = String::new();
        for (title, sql) in [
            ("Learning styles of the scored sessions", STYLES.to_owned()),
            ("Some sessions: their percentiles, and the norm groups that gave them", sample()),
            ("Where the percentiles of all seven scales come from", norm_sources()),
            ("Sessions that cannot be scored: they stay in the results, with ok = false", FAILURES.to_owned()),
        ] {
            let table = table(&context, &sql).await.map_err(EngineError::from)?;
            text.push_str(&format!("{title}\n{table}\n\n"));
        }
        text.push_str(&format!("Files\n  {}\n  {}\n  {}\n", self.sessions, self.norms, self.results));
        text.push_str("\nTry next\n");
        let session = mixed_session(&context).await.map_err(EngineError::from)?;
        for (what, command) in self.suggestions(session) {
            text.push_str(&format!("  # {what}\n  {command}\n"));
        }
        Ok(text)
    }

    /// A session in which the results are the table `results`.
    async fn open_results(&self, config: &Config) -> Result<SessionContext, Error> {
        let storage = Storage::new(config.settings.storage_options(), Config::environment())?;
        let no_norms = NormStore::new(Vec::new(), Instrument::klsi4().raw_ranges(), config.settings.norm_options());
        let context =
            sql_context(config.settings.engine_options(), &storage, Arc::new(no_norms)).map_err(EngineError::from)?;
        let results = storage.open(&self.results)?.url();
        let options = ParquetReadOptions::default();
        context.register_parquet("results", results.as_str(), options).await.map_err(EngineError::from)?;
        Ok(context)
    }

    /// Commands that run as they are written, in the folder where the demo ran; `session` is one to explain.
    fn suggestions(&self, session: Option<i64>) -> Vec<(&'static str, String)> {
        let [sessions, norms, results] = [&self.sessions, &self.norms, &self.results].map(|file| quoted(file));
        let file = |name: &str| quoted(&Path::new(&self.folder).join(name).display().to_string());
        let explain = session.map(|session| {
            let command = format!("normstream explain {sessions} --session {session} --norms {norms}");
            ("one session, stage by stage, with every step of its norm chain", command)
        });
        let others = [
            (
                "some columns of the results, as lines of JSON",
                format!(
                    "normstream score {sessions} --norms {norms} --select session_id,style,lfi_percentile --to - | head -3"
                ),
            ),
            (
                "the published norms alone, to CSV",
                format!("normstream score {sessions} --overwrite --to {}", file("published.csv")),
            ),
            (
                "another norm chain",
                format!(
                    "normstream score {sessions} --norms {norms} --chain 'COUNTRY:{{country}},GENDER:{{gender}},Total' \
                     --overwrite --to {}",
                    file("by-country.parquet")
                ),
            ),
            (
                "what each step of the plan did, and how long it took",
                format!("normstream score {sessions} --norms {norms} --explain analyze --overwrite --to {results}"),
            ),
        ];
        explain.into_iter().chain(others).collect()
    }
}

/// What a query gives, as a table of text.
async fn table(context: &SessionContext, sql: &str) -> PlanResult<String> {
    let rows = context.sql(sql).await?.collect().await?;
    if rows.iter().all(|batch| batch.num_rows() == 0) {
        return Ok("none".to_owned());
    }
    Ok(pretty_format_batches(&rows)?.to_string())
}

/// A scored session, if there is one: the first to whose modes several norm groups answered, else the first.
async fn mixed_session(context: &SessionContext) -> PlanResult<Option<i64>> {
    let [first, others @ ..] = Mode::ALL.map(|mode| norm_group_column(mode.into()));
    let same = others.map(|column| format!("{first} = {column}")).join(" AND ");
    let sql = format!("SELECT session_id FROM results WHERE ok ORDER BY {same}, session_id LIMIT 1");
    let rows = context.sql(&sql).await?.collect().await?;
    Ok(rows.iter().find(|batch| batch.num_rows() > 0).map(|batch| batch.column(0).as_primitive::<Int64Type>().value(0)))
}

const STYLES: &str = "\
SELECT style,
       lpad(CAST(count(*) AS varchar), 8) AS sessions,
       lpad(CAST(CAST(100.0 * count(*) / sum(count(*)) OVER () AS decimal(4, 1)) AS varchar) || ' %', 7) AS share
FROM results WHERE ok
GROUP BY style
ORDER BY count(*) DESC, style";

/// The first session of each norm group that answered for CE, so that several groups are seen.
fn sample() -> String {
    let percentiles = Mode::ALL.map(|mode| {
        let column = percentile_column(mode.into());
        format!("lpad(CAST({column} AS varchar), 5) AS {}", mode.suffix())
    });
    let groups = Mode::ALL.map(|mode| norm_group_column(mode.into()));
    format!(
        "\
SELECT session_id, style, backup_style, {},
       array_to_string(array_distinct([{}]), ', ') AS norm_groups
FROM results
WHERE session_id IN (SELECT min(session_id) FROM results WHERE ok GROUP BY ce_norm_group)
ORDER BY session_id
LIMIT 8",
        percentiles.join(", "),
        groups.join(", "),
    )
}

const FAILURES: &str = "\
SELECT error_code,
       lpad(CAST(count(*) AS varchar), 8) AS sessions,
       min(session_id) AS first_session,
       first_value(error ORDER BY session_id) AS its_error
FROM results WHERE NOT ok
GROUP BY error_code
ORDER BY count(*) DESC, error_code";

/// How often each kind of norm group answered.
fn norm_sources() -> String {
    let columns = Scale::ALL.map(norm_group_column).join(", ");
    format!(
        "\
SELECT source,
       lpad(CAST(count(DISTINCT norm_group) AS varchar), 6) AS groups,
       lpad(CAST(count(*) AS varchar), 11) AS percentiles,
       lpad(CAST(CAST(100.0 * count(*) / sum(count(*)) OVER () AS decimal(5, 2)) AS varchar) || ' %', 8) AS share
FROM (SELECT norm_group, split_part(norm_group, ':', 1) AS source
      FROM (SELECT unnest([{columns}]) AS norm_group FROM results WHERE ok))
GROUP BY source
ORDER BY count(*) DESC, source"
    )
}

/// A command as it is typed in a shell.
fn as_typed(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it for one.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:=+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_take_them_apart() {
        assert_eq!(quoted("demo/sessions.parquet"), "demo/sessions.parquet");
        assert_eq!(quoted("my demo"), "'my demo'");
        assert_eq!(quoted("it's [1]"), r"'it'\''s [1]'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn files_lie_in_the_folder_however_it_is_written() {
        for folder in ["demo", "demo/", "demo//"] {
            assert_eq!(Files::within(folder).norms, "demo/norms.csv");
        }
        assert_eq!(Files::within("/").norms, "/norms.csv");
        assert_eq!(Files::within("./a b").results, "./a b/results.parquet");
    }

    #[test]
    fn every_command_of_the_demo_is_one_that_the_program_has() {
        for command in Files::within("a b").commands(7) {
            assert!(super::super::Args::try_parse_from(&command).is_ok(), "{}", as_typed(&command));
        }
    }
}
