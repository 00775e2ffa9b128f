//! Reading ahead: while a row group of a Parquet file is decoded and scored, the bytes of the next one are on their way.

use std::fmt;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::runtime::SpawnedTask;
use datafusion::datasource::listing::{FileRange, PartitionedFile};
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ParquetMetaData;

use crate::storage::Scheme;

/// Opens files as another factory does, and reads ahead in them.
///
/// The first row group of a file is read when it is asked for. The columns that are asked for then are fetched of every row group
/// after it while the one before is worked on. Memory: for each file at work, the bytes of these columns in one row group.
/// Requests need permits of the store's pool like all others.
pub(super) struct ReadAhead(Arc<dyn ParquetFileReaderFactory>);

impl ReadAhead {
    /// What opens files of a store: from disk there is nothing to wait for, and nothing is read ahead.
    pub(super) fn of(scheme: Scheme, readers: Arc<dyn ParquetFileReaderFactory>) -> Arc<dyn ParquetFileReaderFactory> {
        if scheme.is_remote() { Arc::new(Self(readers)) } else { readers }
    }
}

impl fmt::Debug for ReadAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadAhead").field(&self.0).finish()
    }
}

impl ParquetFileReaderFactory for ReadAhead {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::error::Result<Box<dyn AsyncFileReader + Send>> {
        let range = file.range.clone();
        let reader = self.0.create_reader(partition, file, metadata_size_hint, metrics)?;
        Ok(Box::new(AheadReader { reader: Reader::Here(reader), range, metadata: None }))
    }
}

type BoxReader = Box<dyn AsyncFileReader + Send>;

/// A reader of one file, and what it reads ahead.
struct AheadReader {
    reader: Reader,
    /// Only row groups whose first column begins here are read.
    range: Option<FileRange>,
    metadata: Option<Arc<ParquetMetaData>>,
}

enum Reader {
    Here(BoxReader),
    /// Away, to fetch these ranges. Dropped, it stops.
    Ahead(Vec<Range<u64>>, SpawnedTask<(BoxReader, Result<Vec<Bytes>>)>),
    /// The task that had it panicked.
    Lost,
}

impl AheadReader {
    /// The reader; with what it brought if that is `ranges`.
    async fn back(&mut self, ranges: &[Range<u64>]) -> Result<(&mut BoxReader, Option<Vec<Bytes>>)> {
        let mut brought = None;
        self.reader = match mem::replace(&mut self.reader, Reader::Lost) {
            Reader::Ahead(fetched, task) => {
                let (reader, bytes) = task.join().await.map_err(|error| ParquetError::External(Box::new(error)))?;
                if fetched == ranges {
                    brought = Some(bytes);
                }
                Reader::Here(reader)
            }
            other => other,
        };
        match &mut self.reader {
            Reader::Here(reader) => Ok((reader, brought.transpose()?)),
            Reader::Ahead(..) | Reader::Lost => Err(ParquetError::General("a read ahead was lost".to_owned())),
        }
    }

    /// Sends the reader ahead for the columns of `ranges` in the row group after theirs.
    fn send_ahead(&mut self, ranges: &[Range<u64>]) {
        let Some(next) =
            self.metadata.as_deref().and_then(|metadata| next_ranges(metadata, self.range.as_ref(), ranges))
        else {
            return;
        };
        self.reader = match mem::replace(&mut self.reader, Reader::Lost) {
            Reader::Here(mut reader) => {
                let wanted = next.clone();
                let task = SpawnedTask::spawn(async move {
                    let bytes = reader.get_byte_ranges(wanted).await;
                    (reader, bytes)
                });
                Reader::Ahead(next, task)
            }
            other => other,
        };
    }
}

/// The chunks of the same columns in the next row group of the part, if `ranges` are whole chunks of one row group.
fn next_ranges(metadata: &ParquetMetaData, part: Option<&FileRange>, ranges: &[Range<u64>]) -> Option<Vec<Range<u64>>> {
    let chunk = |row_group: usize, leaf: usize| {
        let (start, length) = metadata.row_group(row_group).column(leaf).byte_range();
        start..start + length
    };
    let first = ranges.first()?;
    let groups = metadata.row_groups();
    let starts = |row_group: usize| chunk(row_group, 0).start;
    let row_group = (0..groups.len()).rev().find(|&row_group| starts(row_group) <= first.start)?;
    let next = Some(row_group + 1).filter(|next| *next < groups.len())?;
    let begins_in_part = |part: &FileRange| (part.start..part.end).contains(&(starts(next) as i64));
    if !part.is_none_or(begins_in_part) {
        return None;
    }
    let leaves = 0..groups[row_group].num_columns();
    let leaf = |range: &Range<u64>| leaves.clone().find(|&leaf| chunk(row_group, leaf) == *range);
    ranges.iter().map(|range| Some(chunk(next, leaf(range)?))).collect()
}

impl AsyncFileReader for AheadReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move {
            let (reader, _) = self.back(&[]).await?;
            reader.get_bytes(range).await
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        async move {
            let (reader, brought) = self.back(&ranges).await?;
            let bytes = match brought {
                Some(bytes) => bytes,
                None => reader.get_byte_ranges(ranges.clone()).await?,
            };
            self.send_ahead(&ranges);
            Ok(bytes)
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move {
            let (reader, _) = self.back(&[]).await?;
            let metadata = reader.get_metadata(options).await?;
            self.metadata = Some(Arc::clone(&metadata));
            Ok(metadata)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use arrow::array::{Int32Array, RecordBatch};
    use parquet::arrow::ArrowWriter;
    use parquet::file::metadata::ParquetMetaDataReader;
    use parquet::file::properties::WriterProperties;

    use super::*;

    /// Reads a file in memory, and remembers which ranges it was asked for.
    struct Fake {
        file: Bytes,
        asked: Arc<Mutex<Vec<Vec<Range<u64>>>>>,
    }

    impl AsyncFileReader for Fake {
        fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
            async move { Ok(self.file.slice(range.start as usize..range.end as usize)) }.boxed()
        }

        fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
            self.asked.lock().unwrap().push(ranges.clone());
            let bytes = |range: &Range<u64>| self.file.slice(range.start as usize..range.end as usize);
            let bytes = ranges.iter().map(bytes).collect();
            async move { Ok(bytes) }.boxed()
        }

        fn get_metadata<'a>(
            &'a mut self,
            _: Option<&'a ArrowReaderOptions>,
        ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
            async move { Ok(Arc::new(ParquetMetaDataReader::new().parse_and_finish(&self.file)?)) }.boxed()
        }
    }

    /// A file of three columns and four row groups.
    fn file() -> Bytes {
        let column = |from: i32| Arc::new(Int32Array::from_iter_values(from..from + 40)) as _;
        let batch = RecordBatch::try_from_iter([("a", column(0)), ("b", column(100)), ("c", column(200))]).unwrap();
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(10)).build();
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        file.into()
    }

    struct Test {
        reader: AheadReader,
        metadata: Arc<ParquetMetaData>,
        asked: Arc<Mutex<Vec<Vec<Range<u64>>>>>,
    }

    impl Test {
        async fn new(part: Option<FileRange>) -> Self {
            let asked = Arc::default();
            let fake = Fake { file: file(), asked: Arc::clone(&asked) };
            let mut reader = AheadReader { reader: Reader::Here(Box::new(fake)), range: part, metadata: None };
            let metadata = reader.get_metadata(None).await.unwrap();
            Self { reader, metadata, asked }
        }

        /// The chunks of the first and the last column.
        fn ranges(&self, row_group: usize) -> Vec<Range<u64>> {
            let columns = [0, 2].map(|leaf| self.metadata.row_group(row_group).column(leaf).byte_range());
            columns.map(|(start, length)| start..start + length).to_vec()
        }

        /// Reads a row group, lets what goes on behind it go on, and gives how often the file was asked.
        async fn read(&mut self, row_group: usize) -> usize {
            let ranges = self.ranges(row_group);
            let bytes = self.reader.get_byte_ranges(ranges.clone()).await.unwrap();
            let file = file();
            for (range, bytes) in ranges.iter().zip(&bytes) {
                assert_eq!(*bytes, file.slice(range.start as usize..range.end as usize));
            }
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            self.asked.lock().unwrap().len()
        }
    }

    #[tokio::test]
    async fn while_a_row_group_is_worked_on_the_same_columns_of_the_next_are_fetched_once() {
        let mut test = Test::new(None).await;
        assert_eq!(test.read(0).await, 2);
        assert_eq!(test.read(1).await, 3);
        assert_eq!(test.read(2).await, 4);
        assert_eq!(test.read(3).await, 4, "there is no row group after the last");
        let expected: Vec<_> = (0..4).map(|row_group| test.ranges(row_group)).collect();
        assert_eq!(*test.asked.lock().unwrap(), expected);
    }

    #[tokio::test]
    async fn nothing_beyond_the_part_is_fetched() {
        let whole = Test::new(None).await;
        let end = whole.ranges(2)[0].start as i64;
        let mut test = Test::new(Some(FileRange { start: 0, end })).await;
        assert_eq!(test.read(0).await, 2);
        assert_eq!(test.read(1).await, 2);
    }

    #[tokio::test]
    async fn whoever_asks_for_something_else_gets_that() {
        let mut test = Test::new(None).await;
        assert_eq!(test.read(0).await, 2);
        assert_eq!(test.read(2).await, 4, "what was fetched is not what is wanted");
        let half: Range<u64> = test.ranges(1)[0].start..test.ranges(1)[0].start + 3;
        let bytes = test.reader.get_byte_ranges(vec![half.clone()]).await.unwrap();
        assert_eq!(bytes, [file().slice(half.start as usize..half.end as usize)]);
        assert_eq!(test.reader.get_bytes(half).await.unwrap().len(), 3);
    }
}
