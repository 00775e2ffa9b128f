//! Norms: where percentiles come from, looked up lazily and in bounded memory.
//!
//! ```text
//!  CSV, Parquet ──import──▶ VERSION.parquet (sorted, small pages)          published table (built in)
//!                                 │ NormSource::load(group, version)               │
//!                                 ▼                                                │
//!      NormStore: groups by (group, version), bounded, one load however many ask   │
//!                                 │ resolve(tokens)                                │
//!                                 ▼                                                ▼
//!                resolved chains: one array per scale, the published table filling what no group holds
//! ```
//!
//! A [`Chain`] of templates turns a session's attributes into [`GroupToken`]s, most specific first. [`NormStore::resolve`]
//! turns tokens into a [`ResolvedChain`](crate::model::norm::ResolvedChain), in which a lookup is an index. Nothing here knows
//! sessions, plans or instruments: the raw scores that a scale can take are given to it.
//!
//! ```
//! use std::sync::Arc;
//! use normstream::instrument::Instrument;
//! use normstream::model::{Scale, norm::ResolvedChain};
//! use normstream::norms::{Chain, ImportOptions, NormStore, NormStoreOptions, open_norms};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("norms.csv");
//! std::fs::write(&path, "norm_group,scale,raw_score,percentile\nCOUNTRY:Spain,CE,12,9.5\n")?;
//! let ranges = Instrument::klsi4().raw_ranges();
//! let source = open_norms(&path, ImportOptions::new(ranges)).await?;
//! let store = Arc::new(NormStore::new(vec![source], ranges, NormStoreOptions::default()));
//!
//! let chain: Chain = "COUNTRY:{country},Total".parse()?;
//! let tokens = chain.expand(|attribute| (attribute == "country").then_some("Spain"));
//! let held = store.lookup(&tokens, Scale::Ce, 12).await?;
//! assert_eq!((held.percentile, held.norm_group.as_str()), (9.5, "COUNTRY:Spain"));
//! let published = store.lookup(&tokens, Scale::Ce, 13).await?;
//! assert_eq!((published.percentile, published.norm_group.as_str()), (14.8, "published"));
//!
//! // The bulk path: resolve once, then index.
//! let resolved = store.resolve(&tokens).await?;
//! if let ResolvedChain::PerScale(scales) = resolved.as_ref() {
//!     let ce = &scales[Scale::Ce];
//!     assert_eq!(ce.percentiles[(12 - ce.lowest) as usize], 9.5);
//! }
//! assert_eq!((store.stats().loads, store.stats().entries), (2, 2), "Spain, and that there is no Total");
//! # Ok(()) }
//! ```

mod chains;
mod error;
mod explain;
pub mod import;
mod names;
mod parquet;
mod published;
mod resolve;
mod source;
mod stats;
mod store;
mod template;
#[cfg(test)]
mod tests;
mod token;

use std::path::Path;
use std::sync::Arc;

pub use error::{Damage, NormError, NotImported};
pub use explain::{ChainStep, NormAnswer, StepOutcome};
pub use import::{
    ImportInput, ImportOptions, ImportReport, ImportTarget, ImportedTable, LfiUnit, TemporaryNorms, import, validate,
};
pub use parquet::ParquetNorms;
pub use published::PublishedNorms;
pub use source::{GroupSummary, NormSource};
pub use stats::NormStats;
pub use store::{NormStore, NormStoreOptions};
pub use template::{Chain, ChainTemplate, TemplateError, TemplateFault};
pub use token::{GroupToken, TokenError};

/// Opens a local norm table: a directory of imported tables, one imported `.parquet` file, or a `.csv` file, which is first
/// imported to a temporary directory with the given options (they say nothing to tables imported before, but for
/// `chunk_rows`, the rows decoded at a time).
pub async fn open_norms(path: &Path, options: ImportOptions) -> Result<Arc<dyn NormSource>, NormError> {
    let location = path.display().to_string();
    let metadata = tokio::fs::metadata(path).await.map_err(NormError::io("read", &location))?;
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension {
        _ if metadata.is_dir() => Ok(Arc::new(ParquetNorms::open_local(path, options.chunk_rows).await?)),
        Some("parquet") => Ok(Arc::new(ParquetNorms::open_local(path, options.chunk_rows).await?)),
        Some("csv") => Ok(Arc::new(TemporaryNorms::import(vec![ImportInput::local(path)?], options).await?)),
        _ => Err(NormError::NotATable { location }),
    }
}
