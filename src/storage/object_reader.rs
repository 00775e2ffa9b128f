//! Reads one object of known size by ranges, as the Parquet library wants it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, try_join_all};
use futures::{FutureExt, TryFutureExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{FooterTail, ParquetMetaData, ParquetMetaDataReader};

/// How much of a file's end is fetched at first where nothing else is asked for.
const TAIL: u64 = 64 << 10;

/// How much is fetched with one request of a footer that is longer than what is fetched at first.
const BLOCK: u64 = 1 << 20;

/// An object of known size, read by ranges. Several ranges are one call to the store, which joins those that are near.
#[derive(Debug, Clone)]
pub(crate) struct ObjectReader {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) path: Path,
    pub(crate) size: u64,
}

impl ObjectReader {
    /// A reader of an object of `store`.
    pub(crate) fn new(store: &Arc<dyn ObjectStore>, meta: &ObjectMeta) -> ObjectReader {
        ObjectReader { store: Arc::clone(store), path: meta.location.clone(), size: meta.size }
    }

    /// The footer as it is encoded in the file, without its length and magic number. One request, or more when it is longer than
    /// `tail`.
    pub(crate) async fn footer(&self, tail: u64) -> Result<Bytes> {
        let blocks = self.footer_blocks(tail).await?;
        Ok(if let [block] = blocks.as_slice() { block.clone() } else { blocks.concat().into() })
    }

    /// The same in blocks of at most a mebibyte. Memory of which much is given back at once makes glibc keep as much for good.
    pub(crate) async fn footer_blocks(&self, tail: u64) -> Result<Vec<Bytes>> {
        let too_few = || ParquetError::EOF(format!("{} bytes are too few for a Parquet file", self.size));
        if self.size < FOOTER_SIZE as u64 {
            return Err(too_few());
        }
        let start = self.size.saturating_sub(tail);
        let tail = self.range(start..self.size).await?;
        let end = tail.len().checked_sub(FOOTER_SIZE).ok_or_else(too_few)?;
        let length = FooterTail::try_from(&tail[end..])?.metadata_length();
        if let Some(begin) = end.checked_sub(length) {
            return Ok(vec![tail.slice(begin..end)]);
        }
        let Some(begin) = self.size.checked_sub((length + FOOTER_SIZE) as u64) else {
            return Err(ParquetError::EOF(format!("the footer is said to be longer than the file: {length} bytes")));
        };
        let end = self.size - FOOTER_SIZE as u64;
        let blocks = (begin..end).step_by(BLOCK as usize).map(|at| self.range(at..end.min(at + BLOCK)));
        try_join_all(blocks).await
    }

    async fn range(&self, range: Range<u64>) -> Result<Bytes> {
        self.store.get_range(&self.path, range).await.map_err(external)
    }
}

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        self.range(range).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        async move { self.store.get_ranges(&self.path, &ranges).map_err(external).await }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            let metadata = ParquetMetaDataReader::new()
                .with_arrow_reader_options(options)
                .with_prefetch_hint(Some(TAIL as usize))
                .load_and_finish(self, size)
                .await?;
            Ok(Arc::new(metadata))
        }
        .boxed()
    }
}
