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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::array::{AsArray, UInt64Array};
    use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
    use bytes::Bytes;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;
    use crate::storage::StorageOptions;

    /// A table of the numbers from 0, ten a batch, the last batch having fewer.
    struct Numbers(u64);

    impl BatchTable for Numbers {
        fn schema(&self) -> SchemaRef {
            Arc::new(Schema::new(vec![Field::new("number", DataType::UInt64, false)]))
        }

        fn batch_count(&self) -> u64 {
            self.0.div_ceil(10)
        }

        fn batch(&self, index: u64) -> Result<RecordBatch, ArrowError> {
            let numbers = UInt64Array::from_iter_values(10 * index..self.0.min(10 * (index + 1)));
            RecordBatch::try_new(self.schema(), vec![Arc::new(numbers)])
        }
    }

    async fn write(rows: u64, format: FileFormat, threads: usize) -> (Bytes, TableReport, u64) {
        let storage = Storage::new(StorageOptions::default(), []).unwrap();
        let target = storage.open("memory:///numbers").unwrap();
        let row_groups = RowGroupOptions { row_group_rows: 25, ..RowGroupOptions::default() };
        let job = TableJob { table: Arc::new(Numbers(rows)), batch_rows: 10, threads, row_groups };
        let progress = Arc::new(Progress::of_table("hundreds", 7));
        let report = job.run(&storage, OutputTarget::File(target.clone(), format), false, &progress).await.unwrap();
        (target.read().await.unwrap(), report, progress.sessions())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn every_row_is_written_in_order_and_bytes_do_not_depend_on_threads() {
        for format in FileFormat::ALL {
            let (one, report, counted) = write(1_234, format, 1).await;
            assert_eq!((report.rows, report.bytes_written, counted), (1_234, one.len() as u64, 7), "{format}");
            assert!(write(1_234, format, 5).await.0 == one, "{format}");
        }
        let (csv, ..) = write(1_234, FileFormat::Csv, 3).await;
        let expected: String = (0..1_234).map(|number| format!("{number}\n")).collect();
        assert_eq!(csv, format!("number\n{expected}"));
    }

    #[tokio::test]
    async fn a_parquet_row_group_is_as_many_whole_batches_as_hold_its_rows() {
        let (file, ..) = write(74, FileFormat::Parquet, 2).await;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let rows: Vec<i64> = reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
        assert_eq!(rows, [30, 30, 14]);
        let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
        let numbers = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<UInt64Type>().values().to_vec());
        assert!(numbers.eq(0..74));
    }

    #[tokio::test]
    async fn a_table_without_rows_is_a_file_without_rows() {
        let (csv, report, counted) = write(0, FileFormat::Csv, 2).await;
        assert_eq!((csv, report.rows, counted), (Bytes::from("number\n"), 0, 0));
        let (parquet, ..) = write(0, FileFormat::Parquet, 2).await;
        assert_eq!(ParquetRecordBatchReaderBuilder::try_new(parquet).unwrap().metadata().file_metadata().num_rows(), 0);
    }

    /// A table whose second batch cannot be made.
    struct Broken;

    impl BatchTable for Broken {
        fn schema(&self) -> SchemaRef {
            Numbers(0).schema()
        }

        fn batch_count(&self) -> u64 {
            9
        }

        fn batch(&self, index: u64) -> Result<RecordBatch, ArrowError> {
            if index == 1 {
                Err(ArrowError::ComputeError("no such batch".to_owned()))
            } else {
                Numbers(90).batch(index)
            }
        }
    }

    #[tokio::test]
    async fn a_batch_that_cannot_be_made_leaves_no_target() {
        let storage = Storage::new(StorageOptions::default(), []).unwrap();
        let target = storage.open("memory:///broken").unwrap();
        let row_groups = RowGroupOptions::default();
        let job = TableJob { table: Arc::new(Broken), batch_rows: 10, threads: 2, row_groups };
        let progress = Arc::new(Progress::of_table("rows", 90));
        let file = OutputTarget::File(target.clone(), FileFormat::Csv);
        let error = job.run(&storage, file, false, &progress).await.unwrap_err();
        assert!(error.to_string().contains("no such batch"), "{error}");
        assert!(!target.exists().await.unwrap());
    }
}
