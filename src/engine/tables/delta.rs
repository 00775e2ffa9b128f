//! Delta tables, read by `deltalake`'s own reader: it skips files by their statistics.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;

use crate::engine::EngineError;
use crate::table::Table;

/// A Delta table at a version, or at its latest. What is committed later is not seen.
pub(super) async fn delta_rows(
    context: &SessionContext,
    table: &Table,
    version: Option<u64>,
) -> Result<Arc<dyn TableProvider>, EngineError> {
    let delta = table.delta(version).await?;
    let provider = delta.table_provider().with_session(Arc::new(context.state())).build().await;
    Ok(Arc::new(provider?))
}
