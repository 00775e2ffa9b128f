//! `results`: the results of scoring as a table, and as they were at a version.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;

use crate::engine::EngineError;
use crate::engine::query::QueryError;
use crate::engine::tables::FilesTable;
use crate::storage::{Scheme, Storage, StorageError};
use crate::table::{Table, TableError, TableFormat};

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
            Some(table) => Ok(rows(context, &table, None).await?),
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
            Some(table) => Ok(rows(context, &table, Some(number)).await?),
            None => Err(none("files have no versions; a table that score has written to has")),
        }
    }

    /// The table with a log, if the target is one. A file is none and read as it is, and a web server lists nothing that could be a log.
    pub async fn table(&self) -> Result<Option<Table>, EngineError> {
        let location = self.storage.open(&self.target)?;
        if location.scheme() == Scheme::Http || (!location.is_folder() && location.exists().await?) {
            return Ok(None);
        }
        Ok(Table::open(&self.storage, &location).await?)
    }
}

/// The rows of a version of a table, or of its latest.
async fn rows(
    context: &SessionContext,
    table: &Table,
    version: Option<u64>,
) -> Result<Arc<dyn TableProvider>, EngineError> {
    match table.format() {
        #[cfg(feature = "delta")]
        TableFormat::Delta => crate::engine::tables::delta::delta_rows(context, table, version).await,
        #[cfg(not(feature = "delta"))]
        TableFormat::Delta => Err(TableError::WithoutDelta { table: table.root().to_string() }.into()),
        TableFormat::Parquet => rows_of_manifest(context, table, version).await,
    }
}

async fn rows_of_manifest(
    context: &SessionContext,
    table: &Table,
    version: Option<u64>,
) -> Result<Arc<dyn TableProvider>, EngineError> {
    let snapshot = match version {
        Some(version) => Some(table.snapshot_at(version).await?),
        None => table.snapshot().await?,
    };
    let Some(snapshot) = snapshot else {
        return Err(EngineError::NoFiles { target: table.root().to_string() });
    };
    let live = snapshot.live_files().await?;
    let table = table.root().to_string();
    match FilesTable::of_parquet(context, live, snapshot.schema).await {
        Ok(rows) => Ok(Arc::new(rows)),
        Err(EngineError::Storage(StorageError::NotFound { target: file })) => Err(EngineError::Table(match version {
            Some(version) => TableError::VersionGone { table, version, file },
            None => TableError::FilesMoved { table },
        })),
        Err(error) => Err(error),
    }
}
