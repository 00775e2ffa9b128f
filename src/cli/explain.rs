//! `normstream explain`: one session, stage by stage.

use clap::{Args, ValueEnum};

use crate::cli::input::{NormArgs, Opened, SessionArgs};
use crate::cli::score::print;
use crate::config::{Config, Flags};
use crate::error::Error;
use crate::run::explain::{ExplainJob, StageReport};

/// Score one session and show every step.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    sessions: SessionArgs,
    /// The session_id of the session. Of several with this id, the first one is explained.
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    session: String,
    /// How to print: text, or ndjson with one {"stage":…,"result":…} a line.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    norms: NormArgs,
}

const EXAMPLES: &str = "\
Examples:
  normstream explain sessions.parquet --session 17
  normstream explain 'in/*.csv.gz' --session A-0042 --norms norms/ --chain 'COUNTRY:{country},Total'
  normstream explain sessions.parquet --session 17 --format ndjson | jq 'select(.stage == \"percentiles\")'

Exit codes: 0 the session was scored; 1 a stage refused it; 2 no session has this id, or the command is wrong.";

/// How stages are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For reading.
    Text,
    /// For programs.
    Ndjson,
}

impl ExplainArgs {
    /// The settings that were given.
    pub(super) fn flags(&self) -> Flags {
        self.norms.flags(Flags::default())
    }
}

/// Prints each stage's report when the stage has finished.
pub(super) async fn explain(args: ExplainArgs, config: Config) -> Result<(), Error> {
    let opened = Opened::new(&config, &args.sessions, &args.norms, &[]).await?;
    let job =
        ExplainJob { context: opened.context.clone(), input: opened.input.clone(), scoring: opened.scoring.clone() };
    let session = job.find(&args.session).await?;
    args.format.print(&session.report())?;
    let mut explanation = job.explain(&session);
    while let Some(report) = explanation.next().await? {
        args.format.print(&report)?;
        if let Some(failure) = report.failure() {
            let (stage, code, error) = (&failure.error_stage, &failure.error_code, &failure.error);
            let session = &args.session;
            return Err(Error::Failures(format!("session {session} cannot be scored: {error} ({stage}, {code})")));
        }
    }
    Ok(())
}

impl Format {
    fn print(self, report: &StageReport) -> Result<(), Error> {
        match self {
            // A blank line between stages; the first report of all is that of reading.
            Format::Text if matches!(report, StageReport::Read(_)) => print(&report.to_string()),
            Format::Text => print(&format!("\n{report}")),
            Format::Ndjson => {
                let failed =
                    |error: serde_json::Error| Error::Write { what: "a report".to_owned(), source: error.into() };
                print(&format!("{}\n", serde_json::to_string(report).map_err(failed)?))
            }
        }
    }
}
