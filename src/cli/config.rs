//! `normstream config`: settings and where they come from.

use clap::{Args, Subcommand};

use crate::cli::score::print;
use crate::config::Config;
use crate::error::Error;

/// Show settings and where they come from.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print each setting, its value and the layer it comes from; secrets are masked.
    Show,
}

pub(super) fn config(args: ConfigArgs, config: &Config) -> Result<(), Error> {
    let ConfigCommand::Show = args.command;
    let shown = config.shown();
    let width = |pick: fn(&(String, String, String)) -> &String| {
        shown.iter().map(|row| pick(row).chars().count()).max().unwrap_or(0)
    };
    let (keys, values) = (width(|row| &row.0), width(|row| &row.1));
    let lines = shown.iter().map(|(key, value, origin)| format!("{key:keys$}  {value:values$}  {origin}\n"));
    print(&lines.collect::<String>())
}
