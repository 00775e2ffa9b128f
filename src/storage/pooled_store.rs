//! An [`ObjectStore`] whose every request needs a permit of a [`Pool`]. Sends nothing itself, and repeats nothing but the
//! reading of bodies.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    RenameOptions, Result, UploadPart, coalesce_ranges,
};
use tokio::time::Instant;

use crate::storage::ahead::Spare;
use crate::storage::body::Body;
use crate::storage::health::{Health, Ping};
use crate::storage::listing::Listing;
use crate::storage::pool::{Permit, Pool};
use crate::storage::{Operation, RetryOptions, Scheme, StorageError};

/// Objects removed side by side where a store removes them one by one.
const SINGLE_DELETES: usize = 10;

/// A store behind a pool.
///
/// A permit is held from before a request until its answer is read to the end or dropped. What `object_store` makes of one
/// call (ranges, parts, pages, bulk deletes) is counted by the request: no call has more requests in flight than it has
/// permits. A local file that is opened is handed out as it is, without a permit.
#[derive(Clone)]
pub(crate) struct PooledStore {
    inner: Arc<dyn ObjectStore>,
    pool: Arc<Pool>,
    retry: RetryOptions,
    scheme: Scheme,
    health: Option<Arc<Health>>,
}

impl PooledStore {
    /// `health` is checked before requests where it is given.
    pub(crate) fn new(
        inner: Arc<dyn ObjectStore>,
        scheme: Scheme,
        pool: Arc<Pool>,
        retry: RetryOptions,
        health: Option<Arc<Health>>,
    ) -> Self {
        Self { inner, pool, retry, scheme, health }
    }

    /// Does `request`, which is about `location`, once there is a permit, and returns the permit with its result.
    async fn with_permit<T>(
        &self,
        operation: Operation,
        location: Option<&Path>,
        request: impl Future<Output = Result<T>>,
    ) -> Result<(T, Permit)> {
        let permit = self.pool.acquire().await?;
        Ok((self.request(operation, location, request).await?, permit))
    }

    /// Does `request`, for which there is a permit.
    async fn request<T>(
        &self,
        operation: Operation,
        location: Option<&Path>,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let timed = async {
            let started = Instant::now();
            let done = request.await;
            self.pool.meter.latency(started.elapsed());
            done
        };
        let done = self.checked(operation, timed).await;
        done.map_err(|error| StorageError::named(&self.target(location), operation.verb(), error))
    }

    /// Does `request` with the check of the store that is due.
    async fn checked<T>(&self, operation: Operation, request: impl Future<Output = T>) -> T {
        self.pool.meter.request(operation);
        match &self.health {
            Some(health) => health.checked(self.inner.as_ref(), request).await,
            None => request.await,
        }
    }

    /// Does `request`, which is a check of the store and needs none before it.
    async fn ping(
        &self,
        location: &Path,
        ping: &Ping,
        request: impl Future<Output = Result<GetResult>>,
    ) -> Result<GetResult> {
        let _permit = self.pool.acquire().await?;
        let answer = request.await;
        self.pool.meter.ping(answer.is_ok() || ping.is_answered());
        answer.map_err(|error| StorageError::named(&self.target(Some(location)), Operation::Head.verb(), error))
    }

    /// How `location`, or else the store, is named in errors.
    fn target(&self, location: Option<&Path>) -> String {
        let name = self.pool.name();
        location.map_or_else(|| name.to_owned(), |location| format!("{name}/{location}"))
    }

    /// A permit for a page of a listing.
    async fn page_permit(&self) -> Result<Permit> {
        let permit = self.pool.acquire().await?;
        self.checked(Operation::List, async {}).await;
        Ok(permit)
    }

    /// A listing whose errors name its prefix, and whose ETags are those of the objects.
    fn named_pages(
        &self,
        prefix: Option<&Path>,
        pages: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (target, scheme) = (self.target(prefix), self.scheme);
        pages
            .map_ok(move |object| listed(scheme, object))
            .map_err(move |error| StorageError::named(&target, Operation::List.verb(), error))
            .boxed()
    }

    /// Objects a single request can remove.
    fn bulk_delete(&self) -> Option<usize> {
        match self.scheme {
            Scheme::S3 => Some(1000),
            Scheme::Azure => Some(256),
            Scheme::Gcs | Scheme::Http | Scheme::Local | Scheme::Memory => None,
        }
    }

    /// Removes `locations` with one permit.
    async fn delete_together(self, locations: Vec<Result<Path>>) -> Vec<Result<Path>> {
        let delete = async { Ok(self.inner.delete_stream(stream::iter(locations).boxed()).collect().await) };
        match self.with_permit(Operation::Delete, None, delete).await {
            Ok((deleted, _permit)) => deleted,
            Err(error) => vec![Err(error)],
        }
    }

    /// The bytes of `range`. `version` is the ETag the first range of the object had; another one is an error.
    async fn range_of(&self, location: &Path, range: Range<u64>, version: &Version) -> Result<Bytes> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let result = self.get_opts(location, options).await?;
        version.check(self.pool.name(), &result.meta)?;
        result.bytes().await
    }
}

/// An entry of a listing, with the ETag that an answer about the object has: listings of Azure leave the quotes out.
fn listed(scheme: Scheme, mut object: ObjectMeta) -> ObjectMeta {
    if scheme == Scheme::Azure {
        object.e_tag = object.e_tag.map(|tag| if tag.contains('"') { tag } else { format!("\"{tag}\"") });
    }
    object
}

/// The ETag of the first of several answers about one object.
#[derive(Default)]
struct Version(Mutex<Option<Option<String>>>);

impl Version {
    fn check(&self, store: &str, meta: &ObjectMeta) -> Result<()> {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = first.get_or_insert_with(|| meta.e_tag.clone());
        if *expected == meta.e_tag {
            return Ok(());
        }
        let target = format!("{store}/{}", meta.location);
        Err(StorageError::Changed { target, expected: expected.clone(), found: meta.e_tag.clone() }.into())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for PooledStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let bytes = payload.content_length();
        let put = self.inner.put_opts(location, payload, opts);
        let (written, _permit) = self.with_permit(Operation::Put, Some(location), put).await?;
        self.pool.meter.bytes_out(bytes);
        Ok(written)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let start = self.inner.put_multipart_opts(location, opts);
        let (upload, _permit) = self.with_permit(Operation::Multipart, Some(location), start).await?;
        Ok(Box::new(PooledUpload { upload, location: location.clone(), store: self.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { Operation::Head } else { Operation::Get };
        let get = self.inner.get_opts(location, options.clone());
        if let Some(ping) = options.extensions.get::<Ping>() {
            return self.ping(location, ping, get).await;
        }
        let permit = match options.extensions.get::<Spare>() {
            Some(spare) => self.pool.spare().ok_or_else(|| spare.refused())?,
            None => self.pool.acquire().await?,
        };
        let mut result = self.request(operation, Some(location), get).await?;
        if options.head || matches!(result.payload, GetResultPayload::File(..)) {
            return Ok(result);
        }
        let can_seek = self.scheme != Scheme::Http || options.range.is_some();
        result.payload = GetResultPayload::Stream(Body::stream(
            Arc::clone(&self.inner),
            Arc::clone(&self.pool),
            &self.retry,
            options,
            &mut result,
            permit,
            can_seek,
        ));
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let version = Version::default();
        coalesce_ranges(ranges, |range| self.range_of(location, range, &version), OBJECT_STORE_COALESCE_DEFAULT).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        // Every step runs to its end before anything is handed out: no permit waits for the reader, and none is held while
        // `locations`, which may be a listing of this very store, wants one.
        match self.bulk_delete() {
            Some(most) => locations
                .chunks(most)
                .then(move |chunk| store.clone().delete_together(chunk))
                .flat_map(stream::iter)
                .boxed(),
            None => locations
                .ready_chunks(SINGLE_DELETES)
                .then(move |chunk| {
                    join_all(chunk.into_iter().map(|location| store.clone().delete_together(vec![location])))
                })
                .flat_map(|deleted| stream::iter(deleted.into_iter().flatten()))
                .boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let pages = self.named_pages(prefix, self.inner.list(prefix));
        let store = self.clone();
        Listing::new(pages, move || {
            let store = store.clone();
            async move { store.page_permit().await }
        })
        .into_stream()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let pages = self.named_pages(prefix, self.inner.list_with_offset(prefix, offset));
        let store = self.clone();
        Listing::new(pages, move || {
            let store = store.clone();
            async move { store.page_permit().await }
        })
        .into_stream()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let list = self.inner.list_with_delimiter(prefix);
        let (mut found, _permit) = self.with_permit(Operation::List, prefix, list).await?;
        found.objects = found.objects.into_iter().map(|object| listed(self.scheme, object)).collect();
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let copy = self.inner.copy_opts(from, to, options);
        self.with_permit(Operation::Copy, Some(from), copy).await.map(drop)
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let rename = self.inner.rename_opts(from, to, options);
        self.with_permit(Operation::Rename, Some(from), rename).await.map(drop)
    }
}

impl fmt::Display for PooledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pooled({})", self.pool.name())
    }
}

impl fmt::Debug for PooledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledStore").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// A multipart upload, each request of which needs a permit.
struct PooledUpload {
    upload: Box<dyn MultipartUpload>,
    location: Path,
    store: PooledStore,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MultipartUpload for PooledUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, location, bytes) = (self.store.clone(), self.location.clone(), data.content_length());
        let part = self.upload.put_part(data);
        Box::pin(async move {
            store.with_permit(Operation::Multipart, Some(&location), part).await?;
            store.pool.meter.bytes_out(bytes);
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let complete = self.upload.complete();
        Ok(self.store.with_permit(Operation::Multipart, Some(&self.location), complete).await?.0)
    }

    async fn abort(&mut self) -> Result<()> {
        let abort = self.upload.abort();
        self.store.with_permit(Operation::Multipart, Some(&self.location), abort).await.map(drop)
    }
}

impl fmt::Debug for PooledUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledUpload").field("store", &self.store).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
