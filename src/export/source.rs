//! Where exports read: SQL over results and the tables of the configuration.

use std::sync::Arc;

use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::SessionContext;

use crate::engine::EngineError;
use crate::export::query::Parameters;
use crate::export::{ExportError, ExportJob, Mode, Slice};

/// Tables to export from.
#[derive(Clone)]
pub struct Source {
    context: Arc<SessionContext>,
}

impl Source {
    /// The tables of a session.
    pub fn new(context: SessionContext) -> Self {
        Self { context: Arc::new(context) }
    }

    /// The newest version of the results.
    pub async fn version(&self, export: &str) -> Result<u64, ExportError> {
        Err(ExportError::NoVersions { export: export.to_owned(), reason: "there are no results".to_owned() })
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
        let failed =
            |error| ExportError::Query { export: job.name.clone(), source: Box::new(EngineError::Plan(error)) };
        let frame = self.context.sql(sql).await.map_err(failed)?;
        let frame = frame.with_param_values(parameters.values()).map_err(failed)?;
        frame.execute_stream().await.map_err(failed)
    }
}
