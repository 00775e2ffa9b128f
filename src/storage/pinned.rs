//! A store that gives objects in the version they had when a run was planned, or an error.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, RenameOptions, Result, coalesce_ranges,
};

use crate::storage::StorageError;
use crate::storage::ahead::{Ahead, is_same};

/// A store in which some objects have a known ETag. Reading one of them gives bytes of that version, or
/// [`StorageError::Changed`] with both tags. Everything else passes through.
///
/// A body that is being read when the object changes is of the old version to its end, or an error. Ranges that were fetched ahead
/// are of the version, and cost no request.
pub struct Pinned {
    inner: Arc<dyn ObjectStore>,
    name: String,
    objects: HashMap<Path, Object>,
    opens_files: bool,
}

/// A version of an object, and what is there of it already.
struct Object {
    e_tag: String,
    meta: ObjectMeta,
    ahead: Ahead,
}

impl Pinned {
    /// Pins objects of `inner` to the versions they were listed with; one without an ETag is not pinned. `name` is the
    /// store's in errors, such as `s3://bucket`.
    pub fn new<'a>(
        inner: Arc<dyn ObjectStore>,
        name: impl Into<String>,
        objects: impl IntoIterator<Item = &'a ObjectMeta>,
    ) -> Self {
        let found = objects.into_iter().map(|meta| (meta, Ahead::default()));
        Self::with_ahead(inner, name, found)
    }

    /// The same, with what is fetched ahead of each object.
    pub(crate) fn with_ahead<'a>(
        inner: Arc<dyn ObjectStore>,
        name: impl Into<String>,
        objects: impl IntoIterator<Item = (&'a ObjectMeta, Ahead)>,
    ) -> Self {
        let object = |(meta, ahead): (&ObjectMeta, Ahead)| {
            let (meta, e_tag) = (meta.clone(), meta.e_tag.clone()?);
            Some((meta.location.clone(), Object { e_tag, meta, ahead }))
        };
        let objects = objects.into_iter().filter_map(object).collect();
        Self { inner, name: name.into(), objects, opens_files: false }
    }

    /// Says that the store is a file system: a file of it is opened once, and all ranges are read from what was opened.
    pub fn of_files(self) -> Self {
        Self { opens_files: true, ..self }
    }

    async fn changed(&self, location: &Path, expected: &str) -> object_store::Error {
        let found = self.inner.head(location).await.ok().and_then(|meta| meta.e_tag);
        self.changed_to(location, expected, found)
    }

    fn changed_to(&self, location: &Path, expected: &str, found: Option<String>) -> object_store::Error {
        StorageError::Changed { target: self.target(location), expected: Some(expected.to_owned()), found }.into()
    }

    fn target(&self, location: &Path) -> String {
        format!("{}/{location}", self.name.trim_end_matches('/'))
    }

    /// One range, for stores that serve each with a request of its own.
    async fn range(&self, location: &Path, range: Range<u64>) -> Result<Bytes> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        self.get_opts(location, options).await?.bytes().await
    }
}

impl Object {
    /// The answer to a request without conditions, if that is for a range that was fetched ahead.
    async fn answer(&self, options: &GetOptions) -> Option<GetResult> {
        let Some(GetRange::Bounded(range)) = &options.range else { return None };
        let tags = options.if_match.is_some() || options.if_none_match.is_some() || options.version.is_some();
        let times = options.if_modified_since.is_some() || options.if_unmodified_since.is_some();
        if options.head || tags || times || range.end > self.meta.size {
            return None;
        }
        let bytes = self.ahead.get(range, &self.e_tag).await?;
        Some(GetResult {
            payload: GetResultPayload::Stream(stream::once(std::future::ready(Ok(bytes))).boxed()),
            meta: self.meta.clone(),
            range: range.clone(),
            attributes: Default::default(),
        })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Pinned {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, mut options: GetOptions) -> Result<GetResult> {
        let Some(object) = self.objects.get(location) else { return self.inner.get_opts(location, options).await };
        if let Some(answer) = object.answer(&options).await {
            return Ok(answer);
        }
        let e_tag = &object.e_tag;
        // A weak tag never matches an If-Match; it is compared below.
        if options.if_match.is_none() && !e_tag.starts_with("W/") {
            options.if_match = Some(e_tag.clone());
        }
        match self.inner.get_opts(location, options).await {
            Ok(result) if !result.meta.e_tag.as_deref().is_some_and(|found| is_same(found, e_tag)) => {
                Err(self.changed_to(location, e_tag, result.meta.e_tag))
            }
            Err(object_store::Error::Precondition { .. }) => Err(self.changed(location, e_tag).await),
            other => other,
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let Some(first) = ranges.first() else { return Ok(Vec::new()) };
        let Some(object) = self.objects.get(location) else { return self.inner.get_ranges(location, ranges).await };
        if !ranges.iter().all(|range| range.start <= range.end && range.end <= object.meta.size) {
            let source =
                io::Error::new(io::ErrorKind::UnexpectedEof, "it is damaged: it says that it goes on after its end");
            return Err(StorageError::Io { target: self.target(location), operation: "read it", source }.into());
        }
        if self.opens_files {
            let options = GetOptions { range: Some(GetRange::Bounded(first.clone())), ..GetOptions::default() };
            if let GetResultPayload::File(file, path) = self.get_opts(location, options).await?.payload {
                return read_ranges(file, path, ranges).await;
            }
        }
        let ahead = join_all(ranges.iter().map(|range| object.ahead.get(range, &object.e_tag))).await;
        let wanted = ranges.iter().zip(&ahead).filter(|(_, ahead)| ahead.is_none());
        let wanted: Vec<Range<u64>> = wanted.map(|(range, _)| range.clone()).collect();
        let fetch = |range| self.range(location, range);
        let mut fetched = coalesce_ranges(&wanted, fetch, OBJECT_STORE_COALESCE_DEFAULT).await?.into_iter();
        Ok(ahead.into_iter().filter_map(|ahead| ahead.or_else(|| fetched.next())).collect())
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

/// A block holds ranges of up to this many bytes together, or one that is larger. One block for a row group would need that much memory
/// in one piece, and the allocator keeps the more for later, the larger the pieces it gets back.
const BLOCK: usize = 256 << 10;

/// Memory that some ranges of a file are read into, one after the other.
struct Block {
    ranges: Vec<Range<u64>>,
    bytes: Vec<u8>,
}

impl Block {
    fn new(ranges: &[Range<u64>]) -> Block {
        Block { ranges: ranges.to_vec(), bytes: vec![0; ranges.iter().map(length).sum()] }
    }

    /// Blocks for all ranges, in order.
    fn all(mut ranges: &[Range<u64>]) -> Vec<Block> {
        let mut blocks = Vec::new();
        while !ranges.is_empty() {
            let mut total = 0;
            let fits = |range: &&Range<u64>| {
                total += length(range);
                total <= BLOCK
            };
            let (these, others) = ranges.split_at(ranges.iter().take_while(fits).count().max(1));
            blocks.push(Block::new(these));
            ranges = others;
        }
        blocks
    }

    fn read(mut self, file: &mut File) -> io::Result<Vec<Bytes>> {
        let mut rest = self.bytes.as_mut_slice();
        for range in &self.ranges {
            let place = rest.split_off_mut(..length(range)).unwrap_or_default();
            file.seek(SeekFrom::Start(range.start))?;
            file.read_exact(place)?;
        }
        let mut bytes = Bytes::from(self.bytes);
        Ok(self.ranges.iter().map(|range| bytes.split_to(length(range))).collect())
    }
}

fn length(range: &Range<u64>) -> usize {
    (range.end - range.start) as usize
}

async fn read_ranges(mut file: File, path: PathBuf, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
    // Memory is taken here, where it is given back later too: a thread that only reads would keep what others gave back.
    let blocks = Block::all(ranges);
    let read = tokio::task::spawn_blocking(move || {
        blocks.into_iter().map(|block| block.read(&mut file)).collect::<io::Result<Vec<_>>>()
    });
    let failed = |source| StorageError::Io { target: path.display().to_string(), operation: "read it", source };
    Ok(read.await?.map_err(failed)?.concat())
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({})", self.inner)
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("inner", &self.inner).field("objects", &self.objects.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;

    use super::*;

    async fn changes_under(inner: Arc<dyn ObjectStore>, opens_files: bool) {
        let path = Path::from("sessions.csv");
        inner.put(&path, "0123456789".into()).await.unwrap();
        let before = inner.head(&path).await.unwrap();
        let pinned = Pinned::new(Arc::clone(&inner), "s3://bucket/", [&before]);
        let pinned = if opens_files { pinned.of_files() } else { pinned };
        assert_eq!(pinned.get(&path).await.unwrap().bytes().await.unwrap(), "0123456789");
        assert_eq!(pinned.get_ranges(&path, &[1..3, 8..10]).await.unwrap(), ["12", "89"]);
        assert_eq!(pinned.get_ranges(&path, std::slice::from_ref(&(4..6))).await.unwrap(), ["45"]);

        inner.put(&path, "something else".into()).await.unwrap();
        let after = inner.head(&path).await.unwrap().e_tag.unwrap();
        let expected = format!(
            "s3://bucket/sessions.csv changed while it was read: its ETag was {}, now it is {after}; run again once nobody \
             writes it any more",
            before.e_tag.unwrap()
        );
        for error in [
            pinned.get(&path).await.map(drop).unwrap_err(),
            pinned.head(&path).await.map(drop).unwrap_err(),
            pinned.get_ranges(&path, &[1..3, 8..10]).await.map(drop).unwrap_err(),
        ] {
            let error = StorageError::find(&error).unwrap();
            assert_eq!(error.to_string(), expected);
        }
        let other = Path::from("other.csv");
        inner.put(&other, "free".into()).await.unwrap();
        inner.put(&other, "to change".into()).await.unwrap();
        assert_eq!(pinned.get_range(&other, 0..2).await.unwrap(), "to");
    }

    #[tokio::test]
    async fn ranges_of_a_file_are_read_in_their_order_whatever_their_lengths() {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..3 * BLOCK as u32).map(|at| (at % 251) as u8).collect();
        std::fs::write(folder.path().join("sessions.parquet"), &bytes).unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
        let path = Path::from("sessions.parquet");
        let meta = store.head(&path).await.unwrap();
        let pinned = Pinned::new(store, "file:///", [&meta]).of_files();
        let block = BLOCK as u64;
        let ranges = [0..1, 1..block, block..block + 1, 5..2 * block + 7, 3 * block - 2..3 * block, 9..9, 40..70];
        let read = pinned.get_ranges(&path, &ranges).await.unwrap();
        let expected =
            ranges.clone().map(|range| Bytes::copy_from_slice(&bytes[range.start as usize..range.end as usize]));
        assert_eq!(read, expected);
        let lengths = Block::all(&ranges).iter().map(|block| block.bytes.len()).collect::<Vec<_>>();
        assert_eq!(lengths, [BLOCK, 1, 2 * BLOCK + 2, 32]);
        #[expect(clippy::reversed_empty_ranges)]
        for damaged in [5..3, 3 * block - 1..3 * block + 1, 0..1 << 50] {
            let error = pinned.get_ranges(&path, &[0..1, damaged]).await.unwrap_err();
            let error = StorageError::find(&error).unwrap();
            assert!(
                error.to_string().ends_with(
                    "sessions.parquet: cannot read it: it is damaged: it says that it goes on after its end"
                )
            );
            assert!(!error.is_retryable());
        }
    }

    #[tokio::test]
    async fn a_pinned_object_that_changes_is_an_error_with_both_tags() {
        changes_under(Arc::new(InMemory::new()), false).await;
        let folder = tempfile::tempdir().unwrap();
        for opens_files in [true, false] {
            let local = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
            changes_under(Arc::new(local), opens_files).await;
        }
    }
}
