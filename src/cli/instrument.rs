//! `normstream instrument`: look at an instrument definition, or check one.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::score::print;
use crate::error::Error;
use crate::instrument::Instrument;
use crate::model::Scale;
use crate::norms::Chain;

/// Show or check an instrument definition.
#[derive(Debug, Args)]
pub(super) struct InstrumentArgs {
    #[command(subcommand)]
    command: InstrumentCommand,
}

#[derive(Debug, Subcommand)]
enum InstrumentCommand {
    /// Print a definition: the built-in klsi-4.0, or the file given. A copy of it is a start for your own.
    Show {
        /// A definition file.
        file: Option<PathBuf>,
    },
    /// Check a definition and list everything that is wrong with it.
    Validate {
        /// The definition file.
        file: PathBuf,
    },
}

pub(super) fn instrument(args: InstrumentArgs) -> Result<(), Error> {
    match args.command {
        InstrumentCommand::Show { file: None } => print(Instrument::klsi4().source()),
        InstrumentCommand::Show { file: Some(file) } => print(Instrument::read(&file)?.source()),
        InstrumentCommand::Validate { file } => {
            let instrument = Instrument::read(&file)?;
            Chain::from_templates(instrument.chain.iter().map(String::as_str))?;
            let ranges = Scale::ALL.map(|scale| {
                let range = instrument.raw_range(scale);
                format!("{scale} {} to {}", range.lowest, range.highest)
            });
            print(&format!(
                "{} is valid: {} ({}), {} items, {} contexts; raw scores {}\n",
                file.display(),
                instrument.id,
                instrument.title,
                instrument.style_items,
                instrument.contexts.len(),
                ranges.join(", "),
            ))
        }
    }
}
