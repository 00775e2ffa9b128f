//! `results`: the results of scoring as a table, and as they were at a version.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;

use crate::engine::EngineError;
use crate::engine::query::QueryError;
use crate::engine::tables::FilesTable;
use crate::storage::{Scheme, Storage};
use crate::table::{Table, TableFormat};

/// Where results are: a table with a log (Delta, or manifests of ours), of which only the live files are read, or files and
/// folders of any format.
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

    /// The results as they are now. What is committed later is not seen.
    pub async fn latest(&self, context: &SessionContext) -> Result<Arc<dyn TableProvider>, QueryError> {
        match self.table().await? {
            Some(table) => self.of_table(context, &table, None).await,
            None => Ok(Arc::new(FilesTable::open(context, &self.storage, &self.target, None).await?)),
        }
    }

    /// The results as they were at a version, which only a table with a log has.
    pub async fn at(&self, context: &SessionContext, version: &str) -> Result<Arc<dyn TableProvider>, QueryError> {
        let none = |what: &str| QueryError::NoVersion {
            target: self.target.clone(),
            version: version.to_owned(),
            what: what.to_owned(),
        };
        let number: u64 = version.parse().map_err(|_| none("versions are whole numbers from 0"))?;
        match self.table().await? {
            Some(table) => self.of_table(context, &table, Some(number)).await,
            None => Err(none("files have no versions; a table that score has written to has")),
        }
    }

    /// The table with a log, if the target is one. A file is none, and a web server lists nothing that could be a log.
    pub async fn table(&self) -> Result<Option<Table>, EngineError> {
        let location = self.storage.open(&self.target)?;
        if location.scheme() == Scheme::Http || (!location.is_folder() && location.exists().await?) {
            return Ok(None);
        }
        Ok(Table::open(&self.storage, &location).await?)
    }

    async fn of_table(
        &self,
        context: &SessionContext,
        table: &Table,
        version: Option<u64>,
    ) -> Result<Arc<dyn TableProvider>, QueryError> {
        if table.format() == TableFormat::Delta {
            return self.delta(context, version).await;
        }
        let snapshot = match version {
            Some(version) => Some(table.snapshot_at(version).await.map_err(EngineError::from)?),
            None => table.snapshot().await.map_err(EngineError::from)?,
        };
        let Some(snapshot) = snapshot else {
            return Err(EngineError::NoFiles { target: self.target.clone() }.into());
        };
        let live = snapshot.live_files().await.map_err(EngineError::from)?;
        Ok(Arc::new(FilesTable::of_parquet(context, live, snapshot.schema).await?))
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
        Err(EngineError::from(crate::table::TableError::WithoutDelta { table: self.target.clone() }).into())
    }
}
