//! Where exports read: SQL over results and the tables of the configuration.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use crate::engine::query::{QueryError, SqlOptions, SqlSession};
use crate::engine::{EngineError, EngineOptions, FilesTable, ResultsTable};
use crate::export::query::Parameters;
use crate::export::{ExportError, ExportJob, Mode, Slice};
use crate::norms::NormStore;
use crate::storage::{Storage, StorageError};
use crate::table::{DataFile, Table, TableError};

/// What queries of exports can name.
#[derive(Clone)]
pub struct SourceOptions {
    /// How queries are run.
    pub sql: SqlOptions,
    /// The norms that `score()` and `percentile()` look up.
    pub norms: Arc<NormStore>,
    /// Where the table `results` is, if there is one.
    pub results: Option<String>,
    /// Other tables: their names, and where they are.
    pub tables: Vec<(String, String)>,
}

/// Tables to export from. Each export opens them anew, and so reads what is there when it runs.
#[derive(Clone)]
pub struct Source {
    storage: Storage,
    options: SourceOptions,
}

impl Source {
    /// Tables in these stores. Reads nothing yet.
    pub fn new(storage: Storage, options: SourceOptions) -> Self {
        Self { storage, options }
    }

    /// The newest version of the results.
    pub async fn version(&self, export: &str) -> Result<u64, ExportError> {
        let table = self.results(export).await?;
        let none =
            || ExportError::NoVersions { export: export.to_owned(), reason: format!("{} is empty", table.root()) };
        Ok(table.snapshot().await?.ok_or_else(none)?.version)
    }

    /// Runs a query over a slice. Rows are computed when the stream is read.
    ///
    /// For a slice of versions the table `results` holds the rows of files that are live in its last version and were not in
    /// the version before the slice.
    pub async fn query(
        &self,
        job: &ExportJob,
        sql: &str,
        slice: &Slice,
        mode: &Mode,
        parameters: &Parameters,
    ) -> Result<SourceRows, ExportError> {
        let failed = |source| ExportError::Query { export: job.name.clone(), source: Box::new(source) };
        let SourceOptions { sql: options, norms, results, tables } = &self.options;
        let session = SqlSession::open(&self.storage, Arc::clone(norms), options.clone()).await;
        let mut session = session.map_err(failed)?;
        match (slice, results) {
            (Slice::Versions { after, through }, _) => {
                let added = self.added(job, session.context(), *after, *through, mode).await?;
                session.add_results_table(added).await.map_err(failed)?;
            }
            (Slice::Everything | Slice::Times { .. }, Some(results)) => {
                session.add_results(results).await.map_err(failed)?;
            }
            (Slice::Everything | Slice::Times { .. }, None) => {}
        }
        for (name, target) in tables {
            session.add_table(name, target).await.map_err(failed)?;
        }
        let query = session.query_with(sql, &parameters.values()).await.map_err(failed)?;
        Ok(SourceRows { stream: told(query.stream, options.engine), context: session.context().clone() })
    }

    /// The table of results.
    async fn results(&self, export: &str) -> Result<Table, ExportError> {
        let none = |reason: String| ExportError::NoVersions { export: export.to_owned(), reason };
        let Some(results) = &self.options.results else {
            return Err(none(
                "there are no results: set results = \"URL\" in normstream.toml, or give --results".to_owned(),
            ));
        };
        let table = ResultsTable::new(&self.storage, results).table().await;
        let table = table.map_err(|source| query_failed(export, source))?;
        table.ok_or_else(|| none(format!("{results} is no table with versions, as score writes into a folder")))
    }

    /// The rows that came with the versions after one, up to another.
    async fn added(
        &self,
        job: &ExportJob,
        context: &SessionContext,
        after: Option<u64>,
        through: u64,
        mode: &Mode,
    ) -> Result<Arc<dyn TableProvider>, ExportError> {
        let table = self.results(&job.name).await?;
        let now = table.snapshot_at(through).await?;
        let before = match after {
            Some(version) => table.snapshot_at(version).await?.files,
            None => Vec::new(),
        };
        let paths = |files: &[DataFile]| files.iter().map(|file| file.path.clone()).collect::<BTreeSet<_>>();
        let (old, live) = (paths(&before), paths(&now.files));
        if *mode == Mode::Append && !old.is_subset(&live) {
            return Err(ExportError::Rewritten { table: table.root().to_string(), version: through });
        }
        let added: Vec<DataFile> = now.files.into_iter().filter(|file| !old.contains(&file.path)).collect();
        match FilesTable::of_parquet(context, table.locations(&added).await?, now.schema).await {
            Ok(added) => Ok(Arc::new(added)),
            // They move up when a run has been committed; the next attempt finds them.
            Err(EngineError::Storage(StorageError::NotFound { .. })) => {
                Err(TableError::FilesMoved { table: table.root().to_string() }.into())
            }
            Err(error) => Err(query_failed(&job.name, error)),
        }
    }
}

fn query_failed(export: &str, source: EngineError) -> ExportError {
    ExportError::Query { export: export.to_owned(), source: Box::new(source.into()) }
}

/// Rows of a query.
pub struct SourceRows {
    /// The rows.
    pub stream: SendableRecordBatchStream,
    /// The session that they are computed in.
    pub context: SessionContext,
}

/// Rows whose errors say what a user needs.
fn told(rows: SendableRecordBatchStream, engine: EngineOptions) -> SendableRecordBatchStream {
    let schema = rows.schema();
    let told = rows.map(move |batch| {
        batch.map_err(|error| {
            let error = QueryError::of_execution(error, engine.memory_limit, engine.spill_limit);
            DataFusionError::External(Box::new(error))
        })
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, told))
}
