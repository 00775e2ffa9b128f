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
    let failed = |error: DeltaTableError| match (version, error) {
        (Some(version), DeltaTableError::InvalidVersion(_) | DeltaTableError::NotATable(_)) => QueryError::NoVersion {
            target: target.to_owned(),
            version: version.to_string(),
            what: "the table's log does not have it".to_owned(),
        },
        (_, error) => EngineError::Plan(DataFusionError::External(Box::new(error))).into(),
    };
    let mut builder = DeltaTableBuilder::from_url(url.clone())
        .map_err(failed)?
        .with_storage_backend(Arc::clone(&location.store), url);
    if let Some(version) = version {
        builder = builder.with_version(version);
    }
    let table = builder.load().await.map_err(failed)?;
    let provider = table.table_provider().with_session(Arc::new(context.state())).build().await;
    let provider = provider.map_err(EngineError::from)?;
    Ok(Arc::new(provider))
}
