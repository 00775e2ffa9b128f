//! What a query may use: time and rows here, memory and disk through the session's [`EngineOptions`](crate::engine::EngineOptions).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use futures::{Stream, StreamExt as _};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::engine::query::QueryError;

/// The limits of one query. None by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueryBudget {
    /// From the statement's start to its last row.
    pub timeout: Option<Duration>,
    /// Rows that a query may give. One more is an error, and not the end: a result is whole or none.
    pub max_rows: Option<u64>,
}

impl QueryBudget {
    /// When a statement that began at `start` must be done; `None` for no limit, or one beyond what clocks can say.
    pub(super) fn deadline(&self, start: Instant) -> Option<Instant> {
        start.checked_add(self.timeout?)
    }
}

/// A query's rows within its budget. Beyond it, the stream gives an error and ends, and the work of the query is dropped.
pub(super) struct Budgeted {
    schema: SchemaRef,
    rows: Option<SendableRecordBatchStream>,
    budget: QueryBudget,
    given: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Budgeted {
    pub(super) fn new(rows: SendableRecordBatchStream, budget: QueryBudget, start: Instant) -> Self {
        let timer = budget.deadline(start).map(|deadline| Box::pin(sleep_until(deadline)));
        Budgeted { schema: rows.schema(), rows: Some(rows), budget, given: 0, timer }
    }

    fn stop(&mut self, error: QueryError) -> Poll<Option<Result<RecordBatch>>> {
        self.rows = None;
        Poll::Ready(Some(Err(DataFusionError::External(Box::new(error)))))
    }
}

impl Stream for Budgeted {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(rows) = &mut self.rows else { return Poll::Ready(None) };
        let polled = rows.poll_next_unpin(context);
        // Time is looked at even while rows come without a pause.
        let timeout = self.budget.timeout;
        if let (Some(timer), Some(limit)) = (&mut self.timer, timeout)
            && !matches!(polled, Poll::Ready(None))
            && timer.as_mut().poll(context).is_ready()
        {
            return self.stop(QueryError::TimedOut { limit });
        }
        if let Poll::Ready(Some(Ok(batch))) = &polled {
            self.given += batch.num_rows() as u64;
            if let Some(limit) = self.budget.max_rows.filter(|limit| self.given > *limit) {
                return self.stop(QueryError::TooManyRows { limit });
            }
        }
        polled
    }
}

impl RecordBatchStream for Budgeted {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use arrow::array::Int32Array;
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    use super::*;

    /// Ten batches of ten rows, with a pause before each.
    fn rows(pause: Duration) -> SendableRecordBatchStream {
        let schema = Arc::new(Schema::new(vec![Field::new("number", DataType::Int32, false)]));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int32Array::from(vec![7; 10]))]).unwrap();
        let batches = futures::stream::iter(vec![batch; 10]).then(move |batch| async move {
            tokio::time::sleep(pause).await;
            Ok(batch)
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, batches))
    }

    async fn run(pause: Duration, budget: QueryBudget) -> (usize, Option<String>) {
        let mut rows = Budgeted::new(rows(pause), budget, Instant::now());
        let mut given = 0;
        while let Some(batch) = rows.next().await {
            match batch {
                Ok(batch) => given += batch.num_rows(),
                Err(error) => {
                    assert!(rows.next().await.is_none(), "nothing comes after an error");
                    return (given, Some(error.find_root().to_string()));
                }
            }
        }
        (given, None)
    }

    #[tokio::test]
    async fn a_query_within_its_budget_gives_all_rows() {
        let budget = QueryBudget { timeout: Some(Duration::from_secs(60)), max_rows: Some(100) };
        assert_eq!(run(Duration::from_millis(1), budget).await, (100, None));
    }

    #[tokio::test]
    async fn one_row_too_many_is_an_error() {
        let (given, error) = run(Duration::ZERO, QueryBudget { max_rows: Some(99), timeout: None }).await;
        assert_eq!(given, 90);
        assert!(error.unwrap().contains("more than 99 rows"));
    }

    #[tokio::test]
    async fn a_query_that_takes_too_long_is_stopped() {
        let budget = QueryBudget { timeout: Some(Duration::from_millis(50)), max_rows: None };
        let (given, error) = run(Duration::from_secs(1), budget).await;
        assert_eq!(given, 0);
        assert!(error.unwrap().contains("stopped after 50ms"));
    }
}
