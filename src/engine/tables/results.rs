//! `results`: the results of scoring as a table, and as they were at a version.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;

use crate::engine::query::QueryError;
use crate::engine::tables::FilesTable;
use crate::storage::Storage;

/// Where results are: a Delta table, or files and folders of any format, Parquet as a rule.
#[derive(Debug, Clone)]
pub struct ResultsTable {
    target: String,
    storage: Storage,
}

impl ResultsTable {
    /// The results at a target; nothing is read yet.
    pub fn new(storage: &Storage, target: &str) -> ResultsTable {
        ResultsTable { target: target.to_owned(), storage: storage.clone() }
    }

    /// The results as they are now.
    pub async fn latest(&self, context: &SessionContext) -> Result<Arc<dyn TableProvider>, QueryError> {
        if self.is_delta().await? {
            return self.delta(context, None).await;
        }
        Ok(Arc::new(FilesTable::open(context, &self.storage, &self.target, None).await?))
    }

    /// The results as they were at a version, which only a table with a history has.
    pub async fn at(&self, context: &SessionContext, version: &str) -> Result<Arc<dyn TableProvider>, QueryError> {
        let none = |what: &str| QueryError::NoVersion {
            target: self.target.clone(),
            version: version.to_owned(),
            what: what.to_owned(),
        };
        let number: u64 = version.parse().map_err(|_| none("versions are whole numbers from 0"))?;
        if !self.is_delta().await? {
            return Err(none("files have no versions; a Delta table has"));
        }
        self.delta(context, Some(number)).await
    }

    /// Whether there is the log of a Delta table.
    async fn is_delta(&self) -> Result<bool, QueryError> {
        is_delta(&self.storage, &self.target).await
    }

    #[cfg(feature = "delta")]
    async fn delta(
        &self,
        context: &SessionContext,
        version: Option<u64>,
    ) -> Result<Arc<dyn TableProvider>, QueryError> {
        crate::engine::tables::delta::delta_table(context, &self.storage, &self.target, version).await
    }

    #[cfg(not(feature = "delta"))]
    async fn delta(&self, _: &SessionContext, _: Option<u64>) -> Result<Arc<dyn TableProvider>, QueryError> {
        Err(QueryError::Refused {
            what: format!("reading the Delta table {}", self.target),
            instead: "this program was built without the feature `delta`",
        })
    }
}

/// Whether a target is the folder of a Delta table.
pub(in crate::engine) async fn is_delta(storage: &Storage, target: &str) -> Result<bool, QueryError> {
    let location = storage.open(target).map_err(crate::engine::EngineError::from)?;
    if location.scheme() == crate::storage::Scheme::Http || location.path.extension().is_some() && !location.is_folder()
    {
        return Ok(false);
    }
    let log = location.child("_delta_log");
    let log = log.list_files().await.map_err(crate::engine::EngineError::from)?;
    Ok(!log.is_empty())
}
