//! The tables of SQL: files, results and their versions, norms.

mod files;
mod norms;
mod results;

#[cfg(feature = "delta")]
mod delta;

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;

pub use files::FilesTable;
pub(super) use norms::norms_table;
pub use results::ResultsTable;

use crate::engine::query::QueryError;
use crate::storage::Storage;

/// A target as a table: a Delta table, or files.
pub(super) async fn open_table(
    context: &SessionContext,
    storage: &Storage,
    target: &str,
) -> Result<Arc<dyn TableProvider>, QueryError> {
    ResultsTable::new(storage, target).latest(context).await
}
