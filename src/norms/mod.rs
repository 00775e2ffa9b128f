//! Norms: where percentiles come from, looked up lazily and in bounded memory.
//!
//! ```text
//!  CSV, Parquet ──import──▶ VERSION.parquet (sorted, small pages)          published table (built in)
//!                                 │ NormSource::load(groups)                        │
//!                                 ▼                                                │
//!      NormStore: groups by (group, version), bounded, one load however many ask   │
//!                                 │ find_all(tokens): one dense array per scale         │
//!                                 ▼                                                ▼
//!                lookups: the first group of the chain that holds the raw score, else the published table
//! ```
//!
//! A [`Chain`] of templates turns a session's attributes into [`GroupToken`]s, most specific first. [`NormStore::find`] gives
//! the norms of a token, in which a lookup is an index. Nothing here knows sessions, plans or instruments: the raw scores that a
//! scale can take are given to it.
//!
//! Groups, not whole chains, are what is kept: sessions have as many combinations of attributes as there are sessions, but they
//! share few groups, and the first group of a chain answers nearly always.
//!
//! ```
//! use std::sync::Arc;
//! use normstream::instrument::Instrument;
//! use normstream::model::Scale;
//! use normstream::norms::{Chain, ImportOptions, NormStore, NormStoreOptions, open_norms};
//! use normstream::storage::{Storage, StorageOptions};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("norms.csv").display().to_string();
//! std::fs::write(&path, "norm_group,scale,raw_score,percentile\nCOUNTRY:Spain,CE,12,9.5\n")?;
//! let (storage, instrument) = (Storage::new(StorageOptions::default(), [])?, Instrument::klsi4());
//! let source = open_norms(&storage, &path, ImportOptions::new(instrument.norm_ranges())).await?;
//! let store = Arc::new(NormStore::new(vec![source], instrument.raw_ranges(), NormStoreOptions::default()));
//!
//! let chain: Chain = "COUNTRY:{country},Total".parse()?;
//! let tokens = chain.expand(|attribute| (attribute == "country").then_some("Spain"));
//! let held = store.lookup(&tokens, Scale::Ce, 12).await?;
//! assert_eq!((held.percentile, held.norm_group()), (9.5, "COUNTRY:Spain"));
//! let published = store.lookup(&tokens, Scale::Ce, 13).await?;
//! assert_eq!((published.percentile, published.norm_group()), (14.8, "published"));
//!
//! // In bulk: find a group once, then index.
//! let spain = store.find(&tokens[0]).await?.map(|found| found.norms.percentile(Scale::Ce, 12));
//! assert_eq!(spain, Some(Some(9.5)));
//! assert_eq!((store.stats().loads, store.stats().entries), (2, 2), "Spain, and that there is no Total");
//! # Ok(()) }
//! ```

mod cache;
mod error;
mod explain;
pub mod import;
mod names;
mod parquet;
mod published;
mod source;
mod stats;
mod store;
mod template;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

pub use error::{Damage, NormError, NotImported};
pub use explain::{ChainStep, NormAnswer, StepOutcome};
pub use import::{
    FaultCause, FaultReport, ImportOptions, ImportReport, ImportedTable, LfiUnit, NormFault, TemporaryNorms,
    ValidatedTable, import, validate,
};
pub use parquet::ParquetNorms;
pub use published::PublishedNorms;
pub use source::{GroupName, GroupSummary, NormSource};
pub use stats::NormStats;
pub use store::{FoundGroup, NormStore, NormStoreOptions};
pub use template::{Chain, ChainTemplate, TemplateError, TemplateFault};
pub use token::{GroupToken, TokenError};

use crate::storage::Storage;

/// Opens a norm table: a folder of imported tables, one imported `.parquet` file, or a `.csv` file, which is first imported to
/// a temporary directory with the given options (they say nothing to tables imported before, but for `chunk_rows`, the rows
/// decoded at a time).
pub async fn open_norms(
    storage: &Storage,
    target: &str,
    options: ImportOptions,
) -> Result<Arc<dyn NormSource>, NormError> {
    let at = storage.open(target)?;
    if at.path.extension() == Some("csv") {
        return Ok(Arc::new(TemporaryNorms::import(storage, vec![at], options).await?));
    }
    Ok(Arc::new(ParquetNorms::open(&at, options.chunk_rows).await?))
}
