//! A statement at work beside whoever writes its rows.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::ExecutionPlan;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};

use crate::engine::EngineError;
use crate::engine::query::{QueryError, SqlSession, SqlStatement};

/// Batches that may wait to be written.
const AHEAD: usize = 2;

/// A statement that runs as a task of its own: rows are made while others are written, and whoever waits for them can stop
/// waiting at any time. Dropped, it stops the work.
pub(super) struct Running {
    pub(super) schema: SchemaRef,
    pub(super) plan: Arc<dyn ExecutionPlan>,
    rows: mpsc::Receiver<Result<RecordBatch, QueryError>>,
    task: Option<JoinHandle<()>>,
}

/// Stops a task when it is dropped.
struct Stop<T>(JoinHandle<T>);

impl<T> Drop for Stop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Running {
    /// Plans a statement and begins it.
    pub(super) async fn start(session: &Arc<SqlSession>, statement: &SqlStatement) -> Result<Running, QueryError> {
        let (session, statement) = (Arc::clone(session), statement.clone());
        let mut planning = Stop(tokio::spawn(async move { session.run(&statement).await }));
        let mut query = (&mut planning.0).await.map_err(lost)??;
        let (schema, plan) = (Arc::clone(&query.schema), Arc::clone(&query.plan));
        let (sender, rows) = mpsc::channel(AHEAD);
        let task = tokio::spawn(async move {
            while let Some(next) = query.next().await.transpose() {
                let is_last = next.is_err();
                // Nobody wants the rows any more: the query is dropped, and its work with it.
                if sender.send(next).await.is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Running { schema, plan, rows, task: Some(task) })
    }

    /// The next rows.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>, QueryError> {
        if let Some(next) = self.rows.recv().await {
            return next.map(Some);
        }
        match self.task.take() {
            Some(task) => task.await.map(|()| None).map_err(lost),
            None => Ok(None),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// A task that panicked; the panic's message is on stderr.
fn lost(_: JoinError) -> QueryError {
    EngineError::from(DataFusionError::Internal("a worker of the query ended unexpectedly".to_owned())).into()
}
