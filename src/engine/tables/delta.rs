//! Delta tables, read through our own stores.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use deltalake::{DeltaTableBuilder, DeltaTableError};

use crate::engine::EngineError;
use crate::engine::query::QueryError;
use crate::storage::Storage;

/// A Delta table at a version, or at its latest. The table is a snapshot: what is committed later is not seen.
pub(super) async fn delta_table(
    context: &SessionContext,
    storage: &Storage,
    target: &str,
    version: Option<u64>,
) -> Result<Arc<dyn TableProvider>, QueryError> {
    let location = storage.open(target).map_err(EngineError::from)?;
    let mut url = location.url();
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    let failed = |error: DeltaTableError| EngineError::Plan(DataFusionError::External(Box::new(error)));
    let builder = DeltaTableBuilder::from_url(url.clone()).map_err(failed)?;
    let mut table = builder.with_storage_backend(Arc::clone(&location.store), url).load().await.map_err(failed)?;
    if let Some(version) = version {
        let latest = table.version().unwrap_or_default();
        let none =
            |what: String| QueryError::NoVersion { target: target.to_owned(), version: version.to_string(), what };
        if version > latest {
            return Err(none(format!("the latest is {latest}")));
        }
        table.load_version(version).await.map_err(|error| none(error.to_string()))?;
    }
    let provider = table.table_provider().with_session(Arc::new(context.state())).build().await;
    Ok(Arc::new(provider.map_err(EngineError::from)?))
}
