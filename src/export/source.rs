//! Where exports read: SQL over results and the tables of the configuration.

use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;

use crate::engine::EngineOptions;
use crate::engine::query::{QueryError, SqlOptions, SqlSession};
use crate::export::query::Parameters;
use crate::export::{ExportError, ExportJob, Mode, Slice};
use crate::norms::NormStore;
use crate::storage::Storage;

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
        Err(ExportError::NoVersions {
            export: export.to_owned(),
            reason: "versions of results are not exported yet: use incremental = \"column:completed_at\"".to_owned(),
        })
    }

    /// Runs a query over a slice. Rows are computed when the stream is read.
    pub async fn query(
        &self,
        job: &ExportJob,
        sql: &str,
        _slice: &Slice,
        _mode: &Mode,
        parameters: &Parameters,
    ) -> Result<SendableRecordBatchStream, ExportError> {
        let failed = |source| ExportError::Query { export: job.name.clone(), source: Box::new(source) };
        let session = self.session().await.map_err(failed)?;
        let query = session.query_with(sql, &parameters.values()).await.map_err(failed)?;
        Ok(told(query.stream, self.options.sql.engine))
    }

    async fn session(&self) -> Result<SqlSession, QueryError> {
        let SourceOptions { sql, norms, results, tables } = &self.options;
        let mut session = SqlSession::open(&self.storage, Arc::clone(norms), sql.clone()).await?;
        if let Some(results) = results {
            session.add_results(results).await?;
        }
        for (name, target) in tables {
            session.add_table(name, target).await?;
        }
        Ok(session)
    }
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
