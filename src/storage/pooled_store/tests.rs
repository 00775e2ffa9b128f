//! Permits, ranges, parts, pages and interrupted bodies, over a store in memory that fails on command.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use proptest::prelude::*;
use tokio::time::sleep;

use super::*;
use crate::storage::PoolOptions;

/// What the next body does, instead of ending well.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// An error after so many bytes.
    Fail(usize),
    /// The end after so many bytes.
    End(usize),
    /// A byte more than there are.
    Excess,
}

/// A store in memory whose bodies come in chunks of 10 bytes, and which counts the requests in flight.
#[derive(Debug, Clone, Default)]
struct Fake {
    inner: Arc<InMemory>,
    latency: Duration,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    without_e_tags: bool,
    in_flight: Arc<AtomicUsize>,
    most_in_flight: Arc<AtomicUsize>,
}

/// Counts one request for as long as it lives.
struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Fake {
    async fn request(&self) -> InFlight {
        let now = self.in_flight.fetch_add(1, SeqCst) + 1;
        self.most_in_flight.fetch_max(now, SeqCst);
        let request = InFlight(Arc::clone(&self.in_flight));
        sleep(self.latency).await;
        request
    }

    fn most_in_flight(&self) -> usize {
        self.most_in_flight.load(SeqCst)
    }

    fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }
}

impl fmt::Display for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

#[async_trait]
impl ObjectStore for Fake {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let _request = self.request().await;
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let _request = self.request().await;
        let upload = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(FakeUpload { upload, store: self.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let request = self.request().await;
        let head = options.head;
        let mut result = self.inner.get_opts(location, options).await?;
        let (mut meta, range) = (result.meta.clone(), result.range.clone());
        if self.without_e_tags {
            meta.e_tag = None;
        }
        if head {
            return Ok(GetResult { meta, ..result });
        }
        let fault = self.faults.lock().unwrap().pop_front();
        let mut bytes = std::mem::replace(&mut result, empty(&meta, range.clone())).bytes().await?.to_vec();
        match fault {
            Some(Fault::Fail(length) | Fault::End(length)) => bytes.truncate(length),
            Some(Fault::Excess) => bytes.push(b'!'),
            None => {}
        }
        let mut chunks: Vec<Result<Bytes>> = bytes.chunks(10).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        if matches!(fault, Some(Fault::Fail(_))) {
            chunks.push(Err(object_store::Error::Generic { store: "fake", source: "connection reset".into() }));
        }
        let body = stream::iter(chunks).chain(stream::once(async move {
            drop(request);
            Ok(Bytes::new())
        }));
        Ok(GetResult { payload: GetResultPayload::Stream(body.boxed()), ..empty(&meta, range) })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (store, deleted) = (self.clone(), self.inner.delete_stream(locations));
        stream::once(async move {
            let _request = store.request().await;
            stream::iter(deleted.collect::<Vec<_>>().await)
        })
        .flatten()
        .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, entries) = (self.clone(), self.inner.list(prefix));
        stream::once(async move {
            let _request = store.request().await;
            entries
        })
        .flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let _request = self.request().await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let _request = self.request().await;
        self.inner.copy_opts(from, to, options).await
    }
}

fn empty(meta: &ObjectMeta, range: Range<u64>) -> GetResult {
    let payload = GetResultPayload::Stream(stream::empty().boxed());
    GetResult { payload, meta: meta.clone(), range, attributes: Default::default() }
}

#[derive(Debug)]
struct FakeUpload {
    upload: Box<dyn MultipartUpload>,
    store: Fake,
}

#[async_trait]
impl MultipartUpload for FakeUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, store) = (self.upload.put_part(data), self.store.clone());
        Box::pin(async move {
            let _request = store.request().await;
            part.await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.upload.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

const CONTENT: &[u8] = b"0123456789abcdefghijABCDEFGHIJ-----";

/// `fake` with objects `a`, `b` and `c` of [`CONTENT`], behind a pool of `size` permits.
async fn pooled(fake: &Fake, size: usize) -> PooledStore {
    for name in ["a", "b", "c"] {
        fake.inner.put(&name.into(), Bytes::from_static(CONTENT).into()).await.unwrap();
    }
    let options = PoolOptions { size, max_overflow: 0, timeout: Duration::from_secs(5), ..PoolOptions::default() };
    let retry = RetryOptions {
        max_retries: 3,
        initial_backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(2),
        ..RetryOptions::default()
    };
    let pool = Pool::new("memory://", options);
    PooledStore::new(Arc::new(fake.clone()), Scheme::Memory, pool, retry, None)
}

async fn body_of(store: &PooledStore, name: &str) -> BoxStream<'static, Result<Bytes>> {
    store.get(&name.into()).await.unwrap().into_stream()
}

async fn rest(body: BoxStream<'static, Result<Bytes>>) -> Result<Vec<u8>> {
    body.try_fold(Vec::new(), |mut all, bytes| async move {
        all.extend_from_slice(&bytes);
        Ok(all)
    })
    .await
}

#[tokio::test]
async fn a_body_holds_its_permit_until_its_end_or_its_drop() {
    let store = pooled(&Fake::default(), 2).await;
    let mut read = body_of(&store, "a").await;
    let dropped = body_of(&store, "b").await;
    assert_eq!(store.pool.status().checked_out, 2);
    drop(dropped);
    assert_eq!(store.pool.status().checked_out, 1);
    while read.try_next().await.unwrap().is_some() {
        assert_eq!(store.pool.status().checked_out, 1);
    }
    assert_eq!(store.pool.status().checked_out, 0);
    assert_eq!(store.pool.status().bytes_in, CONTENT.len() as u64);
}

/// What happens to bodies. Numbers pick one of those that are there.
#[derive(Debug, Clone)]
enum Event {
    Open,
    Read(usize),
    Drop(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::Open),
        3 => any::<usize>().prop_map(Event::Read),
        2 => any::<usize>().prop_map(Event::Drop),
    ]
}

proptest! {
    #[test]
    fn permits_out_are_bodies_that_are_neither_read_to_their_end_nor_dropped(
        size in 1_usize..5,
        events in prop::collection::vec(event(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let fake = Fake::default();
            let store = pooled(&fake, size).await;
            let mut bodies = Vec::new();
            for event in events {
                match event {
                    Event::Open if bodies.len() < size => bodies.push(body_of(&store, "a").await),
                    Event::Read(pick) if !bodies.is_empty() => {
                        let body = pick % bodies.len();
                        if bodies[body].try_next().await.unwrap().is_none() {
                            drop(bodies.remove(body));
                        }
                    }
                    Event::Drop(pick) if !bodies.is_empty() => drop(bodies.remove(pick % bodies.len())),
                    Event::Open | Event::Read(_) | Event::Drop(_) => {}
                }
                prop_assert_eq!(store.pool.status().checked_out, bodies.len());
            }
            prop_assert!(fake.most_in_flight() <= size);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_task_that_stops_reading_one_body_can_read_another_with_the_only_permit() {
    let store = pooled(&Fake::default(), 1).await;
    let mut first = body_of(&store, "a").await;
    assert_eq!(first.try_next().await.unwrap().unwrap(), "0123456789");
    let mut second = body_of(&store, "b").await;
    assert_eq!(second.try_next().await.unwrap().unwrap(), "0123456789");
    assert_eq!(rest(first).await.unwrap(), CONTENT[10..]);
    assert_eq!(rest(second).await.unwrap(), CONTENT[10..]);
    let status = store.pool.status();
    assert_eq!((status.parked, status.checked_out, status.retries), (2, 0, 0));
}

#[tokio::test]
async fn two_tasks_that_use_two_stores_crosswise_both_end() {
    let (one, two) = (pooled(&Fake::default(), 1).await, pooled(&Fake::default(), 1).await);
    let crosswise = |first: PooledStore, second: PooledStore| async move {
        let mut outer = body_of(&first, "a").await;
        outer.try_next().await.unwrap();
        sleep(Duration::from_millis(20)).await;
        let inner = rest(body_of(&second, "b").await).await.unwrap();
        (rest(outer).await.unwrap().len(), inner.len())
    };
    let both = tokio::join!(crosswise(one.clone(), two.clone()), crosswise(two, one));
    assert_eq!(both, ((CONTENT.len() - 10, CONTENT.len()), (CONTENT.len() - 10, CONTENT.len())));
}

#[tokio::test]
async fn an_azure_listing_has_the_quotes_of_e_tags_that_the_service_leaves_out_and_other_listings_are_as_they_come() {
    let fake = Fake::default();
    fake.inner.put(&"a".into(), Bytes::from_static(CONTENT).into()).await.unwrap();
    let tag = fake.inner.head(&"a".into()).await.unwrap().e_tag.unwrap();
    for (scheme, expected) in [(Scheme::Azure, format!("\"{tag}\"")), (Scheme::S3, tag)] {
        let pool = Pool::new("memory://", PoolOptions::default());
        let store = PooledStore::new(Arc::new(fake.clone()), scheme, pool, RetryOptions::default(), None);
        let listed = store.list(None).try_next().await.unwrap().unwrap();
        assert_eq!(listed.e_tag.as_ref(), Some(&expected), "{scheme:?}");
        let beside = store.list_with_delimiter(None).await.unwrap().objects;
        assert_eq!(beside[0].e_tag.as_ref(), Some(&expected), "{scheme:?}");
    }
}

#[tokio::test]
async fn a_listing_leaves_the_only_permit_to_those_who_read_or_delete_what_it_lists() {
    let fake = Fake { latency: Duration::from_millis(1), ..Fake::default() };
    let store = pooled(&fake, 1).await;
    let mut listing = store.list(None);
    let mut read = Vec::new();
    while let Some(object) = listing.try_next().await.unwrap() {
        read.push(store.get(&object.location).await.unwrap().bytes().await.unwrap().len());
    }
    assert_eq!(read, [CONTENT.len(); 3]);
    let listed = store.list(None).map_ok(|object| object.location).boxed();
    let deleted: Vec<Path> = store.delete_stream(listed).try_collect().await.unwrap();
    assert_eq!(deleted.len(), 3);
    assert!(store.list(None).next().await.is_none());
    let status = store.pool.status();
    assert_eq!((status.parked, status.checked_out, fake.most_in_flight()), (0, 0, 1));
}

#[tokio::test]
async fn a_bulk_delete_passes_errors_on_and_needs_one_permit_for_many() {
    let fake = Fake { latency: Duration::from_millis(1), ..Fake::default() };
    let mut store = pooled(&fake, 1).await;
    store.scheme = Scheme::S3;
    let failed = Err(object_store::Error::Generic { store: "fake", source: "listing failed".into() });
    let locations = stream::iter([Ok(Path::from("a")), failed, Ok(Path::from("b"))]).boxed();
    let deleted: Vec<Result<Path>> = store.delete_stream(locations).collect().await;
    assert_eq!(deleted.iter().filter(|result| result.is_ok()).count(), 2);
    assert_eq!(store.pool.status().requests, [(Operation::Delete, 1)]);
}

#[tokio::test]
async fn every_range_and_every_part_needs_a_permit_of_its_own() {
    let fake = Fake { latency: Duration::from_millis(5), ..Fake::default() };
    let store = pooled(&fake, 3).await;
    let far_apart: Vec<Range<u64>> = (0..8).map(|part| part * 4_000_000..part * 4_000_000 + 5).collect();
    fake.inner.put(&"large".into(), Bytes::from(vec![7; 40_000_000]).into()).await.unwrap();
    let ranges = store.get_ranges(&"large".into(), &far_apart).await.unwrap();
    assert!(ranges.iter().all(|bytes| *bytes == Bytes::from_static(&[7; 5])) && ranges.len() == 8);
    assert_eq!(fake.most_in_flight(), 3);
    assert_eq!(store.pool.status().requests, [(Operation::Get, 8)]);

    let mut upload = store.put_multipart(&"parts".into()).await.unwrap();
    let parts: Vec<UploadPart> = (0_u8..8).map(|part| upload.put_part(vec![part; 3].into())).collect();
    futures::future::try_join_all(parts).await.unwrap();
    upload.complete().await.unwrap();
    let written = store.get(&"parts".into()).await.unwrap().bytes().await.unwrap();
    assert_eq!(written.len(), 24);
    assert_eq!((fake.most_in_flight(), store.pool.status().checked_out), (3, 0));
    assert_eq!(store.pool.status().bytes_out, 24);
}

#[tokio::test]
async fn what_can_be_done_without_is_asked_for_only_with_a_permit_to_spare() {
    let fake = Fake::default();
    let store = pooled(&fake, 3).await;
    let spare = || {
        let mut options = GetOptions::default();
        options.extensions.insert(Spare);
        options
    };
    let body = body_of(&store, "a").await;
    let ahead = store.get_opts(&"b".into(), spare()).await.unwrap();
    assert_eq!(store.pool.status().checked_out, 2);
    let refused = store.get_opts(&"c".into(), spare()).await.map(drop).unwrap_err();
    assert!(refused.to_string().contains("no permit to spare"), "{refused}");
    assert_eq!(ahead.bytes().await.unwrap(), CONTENT);
    drop(body);
    assert_eq!((fake.most_in_flight(), store.pool.status().checked_out), (2, 0));
}

#[tokio::test]
async fn a_body_that_is_cut_short_goes_on_where_it_stopped() {
    for fault in [Fault::Fail(13), Fault::End(13), Fault::Fail(0), Fault::End(0)] {
        let fake = Fake::default();
        let store = pooled(&fake, 1).await;
        fake.faults([fault, fault]);
        assert_eq!(rest(body_of(&store, "a").await).await.unwrap(), CONTENT, "{fault:?}");
        let range = GetOptions { range: Some(GetRange::Bounded(5..30)), ..GetOptions::default() };
        fake.faults([fault]);
        let bytes = store.get_opts(&"a".into(), range).await.unwrap().bytes().await.unwrap();
        assert_eq!(bytes, CONTENT[5..30], "{fault:?}");
        let status = store.pool.status();
        assert_eq!((status.retries, status.checked_out), (3, 0));
        assert_eq!(status.bytes_in, CONTENT.len() as u64 + 25);
    }
}

#[tokio::test]
async fn a_body_is_resumed_a_bounded_number_of_times() {
    let fake = Fake::default();
    let store = pooled(&fake, 1).await;
    fake.faults([Fault::Fail(1); 9]);
    let error = rest(body_of(&store, "a").await).await.unwrap_err();
    assert!(error.to_string().contains("connection reset"), "{error}");
    assert_eq!(fake.faults.lock().unwrap().len(), 5, "one read and three retries");
    assert_eq!(store.pool.status().checked_out, 0);
}

#[tokio::test]
async fn a_body_without_an_e_tag_is_never_short_in_silence() {
    let fake = Fake { without_e_tags: true, ..Fake::default() };
    let store = pooled(&fake, 1).await;
    fake.faults([Fault::End(13)]);
    let error = rest(body_of(&store, "a").await).await.unwrap_err();
    let error = StorageError::of_store("memory:///a", "read it", error);
    assert_eq!(error.to_string(), "memory:///a: the answer ended before its last byte (bytes 13 to 35 are missing)");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_body_with_too_many_bytes_is_an_error() {
    let fake = Fake::default();
    let store = pooled(&fake, 1).await;
    fake.faults([Fault::Excess]);
    let error = rest(body_of(&store, "a").await).await.unwrap_err();
    assert!(error.to_string().contains("more bytes arrived than were asked for"), "{error}");
}

#[tokio::test]
async fn an_object_that_changes_while_it_is_read_is_an_error_with_both_tags() {
    let fake = Fake::default();
    let store = pooled(&fake, 1).await;
    fake.faults([Fault::Fail(13)]);
    let mut body = body_of(&store, "a").await;
    let before = fake.inner.head(&"a".into()).await.unwrap().e_tag.unwrap();
    body.try_next().await.unwrap();
    fake.inner.put(&"a".into(), "another".into()).await.unwrap();
    let after = fake.inner.head(&"a".into()).await.unwrap().e_tag.unwrap();
    let error = rest(body).await.unwrap_err();
    let error = StorageError::of_store("a", "read it", error).to_string();
    assert!(error.contains(&format!("its ETag was {before}, now it is {after}")), "{error}");
    assert!(error.starts_with("memory:///a changed while it was read"), "{error}");

    let mut body = body_of(&store, "b").await;
    body.try_next().await.unwrap();
    let parks_the_other = body_of(&store, "c").await;
    fake.inner.delete(&"b".into()).await.unwrap();
    drop(parks_the_other);
    let error = StorageError::of_store("b", "read it", rest(body).await.unwrap_err());
    assert!(matches!(error, StorageError::Changed { found: None, .. }), "{error}");
}

#[tokio::test]
async fn an_opened_local_file_is_handed_out_as_it_is_and_without_a_permit() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), CONTENT).unwrap();
    let local = object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    let pool = Pool::new("file://", PoolOptions { size: 1, max_overflow: 0, ..PoolOptions::default() });
    let store = PooledStore::new(Arc::new(local), Scheme::Local, pool, RetryOptions::default(), None);
    let opened = store.get(&"a".into()).await.unwrap();
    assert!(matches!(opened.payload, GetResultPayload::File(..)));
    assert_eq!(store.pool.status().checked_out, 0);
    assert_eq!(store.get_ranges(&"a".into(), &[0..3, 10..12]).await.unwrap(), ["012", "ab"]);
}
