//! Writing a table whose batches can be made in any order: made and encoded at once on many threads, written in order.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use serde::Serialize;

use crate::engine::FileFormat;
use crate::operators::row_group::RowGroupOptions;
use crate::run::encode::{Encoded, PartEncoder};
use crate::run::ordered::{OrderedParts, PartSink};
use crate::run::output::Output;
use crate::run::{OutputTarget, Progress, RunError, peak_memory_bytes};
use crate::storage::Storage;

/// A table of batches, any of which can be made without the others, from any thread.
pub trait BatchTable: Send + Sync + 'static {
    /// The schema of every batch. Dictionaries are written as their values.
    fn schema(&self) -> SchemaRef;

    /// How many batches there are.
    fn batch_count(&self) -> u64;

    /// The batch of an index below the count.
    fn batch(&self, index: u64) -> Result<RecordBatch, ArrowError>;
}

/// A job: which table, written how.
///
/// What is written depends on the table, the format and `row_groups` alone, not on the number of threads.
#[derive(Debug, Clone)]
pub struct TableJob<T> {
    /// The table.
    pub table: Arc<T>,
    /// About how many rows a batch has. A Parquet row group is as many batches as hold [`RowGroupOptions::row_group_rows`].
    pub batch_rows: usize,
    /// How many parts are worked on at once.
    pub threads: usize,
    /// How Parquet is encoded.
    pub row_groups: RowGroupOptions,
}

/// What writing a table did.
#[derive(Debug, Clone, Serialize)]
pub struct TableReport {
    /// Rows written.
    pub rows: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Wall time from the first batch to the commit.
    pub seconds: f64,
    /// The process's greatest resident size, where the system tells.
    pub peak_memory_bytes: Option<u64>,
}

impl<T: BatchTable> TableJob<T> {
    /// Writes the table and makes it visible. `progress` moves from nothing to what it expects, evenly over the batches.
    ///
    /// Memory: for each of [`TableJob::threads`] parts a batch and, for Parquet, one row group being encoded, and as many encoded
    /// ones again that wait for their turn; for Parquet also the footer. Dropped, it stops at once and leaves no target.
    pub async fn run(
        &self,
        storage: &Storage,
        target: OutputTarget,
        overwrite: bool,
        progress: &Arc<Progress>,
    ) -> Result<TableReport, RunError> {
        let (format, schema) = (target.format(), self.table.schema());
        let mut output = Output::new(storage.clone(), target, overwrite, Arc::clone(&schema), self.row_groups.clone());
        let batches = self.table.batch_count();
        let per_part = self.batches_per_part(format);
        // A part is one row group, whether or not its last batch reaches the number of rows.
        let row_groups = RowGroupOptions { row_group_rows: usize::MAX, ..self.row_groups.clone() };
        let parts = (0..batches.div_ceil(per_part)).map(|part| part * per_part..batches.min((part + 1) * per_part));
        let mut encoded = OrderedParts::new(self.threads, parts, |part, sink| {
            let table = Arc::clone(&self.table);
            let progress = Arc::clone(progress);
            let mut encoder = PartEncoder::new(format, &schema, &row_groups);
            Ok(async move {
                for index in part {
                    if !leave(encoder.encode(&table.batch(index)?)?, &sink).await {
                        return Ok(());
                    }
                    progress.add_share(index, batches);
                    // Making and encoding never wait; whoever shows progress wants to run too.
                    tokio::task::yield_now().await;
                }
                leave(encoder.finish()?, &sink).await;
                Ok(())
            })
        });
        while let Some(encoded) = encoded.next().await? {
            output.write(encoded).await?;
        }
        let (bytes_written, rows) = output.commit().await?;
        Ok(TableReport { rows, bytes_written, seconds: progress.seconds(), peak_memory_bytes: peak_memory_bytes() })
    }

    /// In Parquet a part is a row group; elsewhere batches are written as they are, and a batch is enough.
    fn batches_per_part(&self, format: FileFormat) -> u64 {
        match format {
            FileFormat::Parquet => self.row_groups.row_group_rows.div_ceil(self.batch_rows.max(1)).max(1) as u64,
            FileFormat::Csv | FileFormat::Ndjson | FileFormat::Arrow => 1,
        }
    }
}

async fn leave(encoded: Option<Encoded>, sink: &PartSink<Encoded>) -> bool {
    match encoded {
        Some(encoded) => sink.send(encoded).await,
        None => true,
    }
}
