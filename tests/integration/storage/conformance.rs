//! What every store and every wrapper must do, in one suite: the contract of `ObjectStore` as far as normstream relies on it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use normstream::storage::{Pinned, PoolOptions, Storage, StorageOptions};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, RenameOptions, RenameTargetMode,
};
use tempfile::tempdir;
use url::Url;

use crate::support::azure_server::AzureServer;
use crate::support::s3_server::S3Server;
use crate::support::static_files::StaticFiles;

/// What a store can do beyond the common.
#[derive(Debug, Clone, Copy)]
struct Abilities {
    /// Copy and rename only if there is no target yet.
    conditional_copy: bool,
    /// Put only if the object is still the same.
    update: bool,
    /// Deleting what is not there is an error.
    delete_is_strict: bool,
    /// The last bytes of an object can be asked for without its size.
    suffix: bool,
}

const MEMORY: Abilities = Abilities { conditional_copy: true, update: true, delete_is_strict: false, suffix: true };
const LOCAL: Abilities = Abilities { conditional_copy: true, update: false, delete_is_strict: true, suffix: true };
const AZURE: Abilities = Abilities { conditional_copy: true, update: true, delete_is_strict: true, suffix: false };
const S3: Abilities = Abilities { conditional_copy: false, update: true, delete_is_strict: false, suffix: true };

async fn conforms(store: &dyn ObjectStore, abilities: Abilities) {
    clear(store).await;
    objects_are_read_back_as_they_were_written(store).await;
    ranges_are_those_asked_for(store, abilities).await;
    conditions_are_kept(store, abilities).await;
    listings_have_every_object_once(store).await;
    deletes_delete(store, abilities).await;
    copies_and_renames_keep_the_content(store, abilities).await;
    parts_become_visible_together(store).await;
    clear(store).await;
}

async fn clear(store: &dyn ObjectStore) {
    let all = store.list(None).map_ok(|object| object.location).boxed();
    store.delete_stream(all).try_collect::<Vec<Path>>().await.unwrap();
    assert!(names(store.list(None).try_collect().await.unwrap()).is_empty());
}

fn names(mut objects: Vec<ObjectMeta>) -> Vec<String> {
    objects.sort_by(|a, b| a.location.cmp(&b.location));
    objects.into_iter().map(|object| object.location.to_string()).collect()
}

async fn content(store: &dyn ObjectStore, path: &Path) -> Bytes {
    store.get(path).await.unwrap().bytes().await.unwrap()
}

fn payload(text: &'static str) -> PutPayload {
    PutPayload::from_static(text.as_bytes())
}

async fn objects_are_read_back_as_they_were_written(store: &dyn ObjectStore) {
    let large: Vec<u8> = (0..1_500_000_u32).map(|byte| (byte % 251) as u8).collect();
    for (name, bytes) in [
        ("plain.csv", b"1,2,3".to_vec()),
        ("folder/a b/100% sure; yes.csv", b"4,5,6".to_vec()),
        ("empty", Vec::new()),
        ("large.parquet", large),
    ] {
        let path = Path::parse(name).unwrap();
        let written = store.put(&path, bytes.clone().into()).await.unwrap();
        let head = store.head(&path).await.unwrap();
        assert_eq!((head.size, &head.location, &head.e_tag), (bytes.len() as u64, &path, &written.e_tag));
        let read = store.get(&path).await.unwrap();
        assert_eq!((read.meta.size, read.range.clone(), &read.meta.e_tag), (head.size, 0..head.size, &head.e_tag));
        assert!(read.bytes().await.unwrap() == bytes, "{name}");
        store.put(&path, payload("overwritten")).await.unwrap();
        assert_eq!(content(store, &path).await, "overwritten");
    }
    for missing in [store.get(&"none".into()).await.map(drop), store.head(&"none".into()).await.map(drop)] {
        assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
    }
    assert!(store.get_ranges(&"none".into(), &[0..1, 2..3]).await.is_err());
}

async fn ranges_are_those_asked_for(store: &dyn ObjectStore, abilities: Abilities) {
    let path = Path::from("ranges");
    let large: Vec<u8> = (0..5_000_000_u32).map(|byte| (byte % 241) as u8).collect();
    store.put(&path, large.clone().into()).await.unwrap();
    for (range, expected) in [
        (GetRange::Bounded(3..9), 3..9),
        (GetRange::Bounded(0..1), 0..1),
        (GetRange::Offset(4_999_990), 4_999_990..5_000_000),
        (GetRange::Suffix(5), 4_999_995..5_000_000),
        (GetRange::Bounded(4_999_999..5_000_009), 4_999_999..5_000_000),
    ] {
        let is_suffix = matches!(range, GetRange::Suffix(_));
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        let read = store.get_opts(&path, options).await;
        if is_suffix && !abilities.suffix {
            assert!(matches!(read, Err(Error::NotSupported { .. })), "{read:?}");
            continue;
        }
        let read = read.unwrap();
        assert_eq!((read.range.clone(), read.meta.size), (expected.clone(), 5_000_000));
        let expected = &large[expected.start as usize..expected.end as usize];
        assert!(read.bytes().await.unwrap() == expected);
    }
    let wanted = [0..10, 5..7, 12..30, 2_500_000..2_500_001, 4_999_000..5_000_000, 8..20];
    let ranges = store.get_ranges(&path, &wanted).await.unwrap();
    for (range, bytes) in wanted.iter().zip(&ranges) {
        assert!(*bytes == large[range.start as usize..range.end as usize], "{range:?}");
    }
    assert_eq!(ranges.len(), wanted.len());
    assert!(store.get_ranges(&path, &[]).await.unwrap().is_empty());
    assert!(store.get_range(&path, 6_000_000..6_000_001).await.is_err());
}

async fn conditions_are_kept(store: &dyn ObjectStore, abilities: Abilities) {
    let path = Path::from("conditions");
    let created = store.put_opts(&path, payload("first"), PutMode::Create.into()).await.unwrap();
    let again = store.put_opts(&path, payload("second"), PutMode::Create.into()).await;
    assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
    assert_eq!(content(store, &path).await, "first");

    let e_tag = store.head(&path).await.unwrap().e_tag;
    assert_eq!(created.e_tag, e_tag);
    let on = |if_match: Option<&str>, if_none_match: Option<&str>| GetOptions {
        if_match: if_match.map(str::to_owned),
        if_none_match: if_none_match.map(str::to_owned),
        ..GetOptions::default()
    };
    let same = store.get_opts(&path, on(e_tag.as_deref(), None)).await.unwrap();
    assert_eq!(same.bytes().await.unwrap(), "first");
    let other = store.get_opts(&path, on(Some("\"another\""), None)).await;
    assert!(matches!(other, Err(Error::Precondition { .. })), "{other:?}");
    let unchanged = store.get_opts(&path, on(None, e_tag.as_deref())).await;
    assert!(matches!(unchanged, Err(Error::NotModified { .. })), "{unchanged:?}");

    if abilities.update {
        let update = |version| PutOptions::from(PutMode::Update(version));
        let changed = store.put_opts(&path, payload("second"), update(created.clone().into())).await.unwrap();
        let late = store.put_opts(&path, payload("third"), update(created.into())).await;
        assert!(matches!(late, Err(Error::Precondition { .. })), "{late:?}");
        assert_eq!(store.head(&path).await.unwrap().e_tag, changed.e_tag);
        assert_eq!(content(store, &path).await, "second");
    }
    store.put_opts(&path, payload("last"), PutMode::Overwrite.into()).await.unwrap();
    assert_eq!(content(store, &path).await, "last");
}

async fn listings_have_every_object_once(store: &dyn ObjectStore) {
    clear(store).await;
    for name in ["a/1", "a/2", "a/b/3", "ab/4", "c"] {
        store.put(&name.into(), payload("x")).await.unwrap();
    }
    let list = async |prefix: Option<&str>| {
        let prefix = prefix.map(Path::from);
        names(store.list(prefix.as_ref()).try_collect().await.unwrap())
    };
    assert_eq!(list(None).await, ["a/1", "a/2", "a/b/3", "ab/4", "c"]);
    assert_eq!(list(Some("a")).await, ["a/1", "a/2", "a/b/3"]);
    assert_eq!(list(Some("a/b")).await, ["a/b/3"]);
    assert!(list(Some("none")).await.is_empty());
    let after = store.list_with_offset(None, &"a/2".into()).try_collect().await.unwrap();
    assert_eq!(names(after), ["a/b/3", "ab/4", "c"]);
    let after = store.list_with_offset(Some(&"a".into()), &"a/1".into()).try_collect().await.unwrap();
    assert_eq!(names(after), ["a/2", "a/b/3"]);
    let level = store.list_with_delimiter(Some(&"a".into())).await.unwrap();
    assert_eq!(level.common_prefixes, [Path::from("a/b")]);
    assert_eq!(names(level.objects), ["a/1", "a/2"]);
    let root = store.list_with_delimiter(None).await.unwrap();
    let mut folders = root.common_prefixes;
    folders.sort();
    assert_eq!(folders, [Path::from("a"), Path::from("ab")]);
    assert_eq!(names(root.objects), ["c"]);
    let part: Vec<ObjectMeta> = store.list(None).take(2).try_collect().await.unwrap();
    assert_eq!(part.len(), 2);
}

async fn deletes_delete(store: &dyn ObjectStore, abilities: Abilities) {
    clear(store).await;
    let paths: Vec<Path> = (0..25).map(|number| Path::from(format!("many/{number:02}"))).collect();
    for path in &paths {
        store.put(path, payload("x")).await.unwrap();
    }
    store.delete(&paths[0]).await.unwrap();
    assert!(matches!(store.head(&paths[0]).await, Err(Error::NotFound { .. })));
    if abilities.delete_is_strict {
        assert!(matches!(store.delete(&paths[0]).await, Err(Error::NotFound { .. })));
    }
    let locations = futures::stream::iter(paths.clone().into_iter().skip(1).take(23).map(Ok)).boxed();
    let deleted: Vec<Path> = store.delete_stream(locations).try_collect().await.unwrap();
    assert_eq!(deleted.len(), 23);
    assert_eq!(names(store.list(None).try_collect().await.unwrap()), ["many/24"]);
}

async fn copies_and_renames_keep_the_content(store: &dyn ObjectStore, abilities: Abilities) {
    clear(store).await;
    let (from, to, third) = (Path::from("from"), Path::from("new folder/to"), Path::from("third"));
    store.put(&from, payload("content")).await.unwrap();
    store.copy(&from, &to).await.unwrap();
    assert_eq!((content(store, &from).await, content(store, &to).await), ("content".into(), "content".into()));
    store.rename(&from, &third).await.unwrap();
    assert!(matches!(store.head(&from).await, Err(Error::NotFound { .. })));
    assert_eq!(content(store, &third).await, "content");
    if abilities.conditional_copy {
        store.put(&from, payload("other")).await.unwrap();
        let create = CopyOptions::new().with_mode(CopyMode::Create);
        let refused = store.copy_opts(&from, &to, create).await;
        assert!(matches!(refused, Err(Error::AlreadyExists { .. })), "{refused:?}");
        let create = RenameOptions::new().with_target_mode(RenameTargetMode::Create);
        let refused = store.rename_opts(&from, &to, create).await;
        assert!(matches!(refused, Err(Error::AlreadyExists { .. })), "{refused:?}");
        assert_eq!(content(store, &to).await, "content");
    }
}

async fn parts_become_visible_together(store: &dyn ObjectStore) {
    clear(store).await;
    let path = Path::from("parts/whole");
    let part = |number: u8| PutPayload::from(vec![number; 5 * 1024 * 1024]);
    let mut upload = store.put_multipart(&path).await.unwrap();
    let (first, second, third) = (upload.put_part(part(1)), upload.put_part(part(2)), upload.put_part(payload("end")));
    let (a, b, c) = tokio::join!(third, first, second);
    a.and(b).and(c).unwrap();
    assert!(matches!(store.head(&path).await, Err(Error::NotFound { .. })));
    upload.complete().await.unwrap();
    let whole = content(store, &path).await;
    assert_eq!(whole.len(), 10 * 1024 * 1024 + 3);
    assert!(whole[..5 * 1024 * 1024].iter().all(|byte| *byte == 1) && whole.ends_with(b"\x02end"));

    let path = Path::from("parts/aborted");
    let mut upload = store.put_multipart(&path).await.unwrap();
    upload.put_part(payload("gone")).await.unwrap();
    upload.abort().await.unwrap();
    assert!(matches!(store.head(&path).await, Err(Error::NotFound { .. })));
    assert_eq!(names(store.list(None).try_collect().await.unwrap()), ["parts/whole"]);
}

/// `store` behind a pool of two permits.
fn pooled(store: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    let pool = PoolOptions { size: 1, max_overflow: 1, timeout: Duration::from_secs(10), ..PoolOptions::default() };
    let storage = Storage::new(StorageOptions { pool, ..StorageOptions::default() }, []).unwrap();
    let url = Url::parse("memory:///").unwrap();
    storage.register(&url, store);
    storage.store_for(&url).unwrap()
}

fn pinned(store: Arc<dyn ObjectStore>) -> Pinned {
    Pinned::new(store, "store", &[])
}

#[tokio::test]
async fn memory_conforms() {
    conforms(&InMemory::new(), MEMORY).await;
}

#[tokio::test]
async fn memory_behind_a_pool_conforms() {
    conforms(&pooled(Arc::new(InMemory::new())), MEMORY).await;
}

#[tokio::test]
async fn memory_with_pinned_versions_conforms() {
    conforms(&pinned(pooled(Arc::new(InMemory::new()))), MEMORY).await;
}

#[tokio::test]
async fn the_local_file_system_conforms_bare_pooled_and_pinned() {
    let local = || {
        let folder = tempdir().unwrap();
        let store = LocalFileSystem::new_with_prefix(folder.path()).unwrap().with_automatic_cleanup(true);
        (folder, Arc::new(store))
    };
    let (_folder, store) = local();
    conforms(&store, LOCAL).await;
    let (_folder, store) = local();
    conforms(&pooled(store), LOCAL).await;
    let (_folder, store) = local();
    conforms(&pinned(store), LOCAL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms_bare_and_as_storage_opens_it() {
    let Some(server) = S3Server::start() else { return };
    let bare = AmazonS3Builder::new()
        .with_bucket_name("bucket")
        .with_endpoint(server.url())
        .with_allow_http(true)
        .with_access_key_id("a")
        .with_secret_access_key("b")
        .build()
        .unwrap();
    conforms(&bare, S3).await;

    let section = S3Server::settings(&server.url()).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let pool = PoolOptions { size: 2, max_overflow: 1, ..PoolOptions::default() };
    let stores = [("s3://bucket".to_owned(), section)].into();
    let storage = Storage::new(StorageOptions { pool, stores, ..StorageOptions::default() }, []).unwrap();
    conforms(&storage.open("s3://bucket/").unwrap().store, S3).await;
    let status = &storage.status()[0];
    assert_eq!((status.checked_out, status.waiting, status.timeouts, status.ping_failures), (0, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_conforms_as_storage_opens_it() {
    let Some(server) = AzureServer::start() else { return };
    let section = server.settings().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let pool = PoolOptions { size: 2, max_overflow: 1, ..PoolOptions::default() };
    let stores = [("az://container".to_owned(), section)].into();
    let storage = Storage::new(StorageOptions { pool, stores, ..StorageOptions::default() }, []).unwrap();
    conforms(&storage.open("az://container/").unwrap().store, AZURE).await;
    let status = &storage.status()[0];
    assert_eq!((status.checked_out, status.waiting, status.timeouts, status.ping_failures), (0, 0, 0, 0));
    assert!(status.connections <= 3, "{}", status.connections);
}

#[tokio::test]
async fn a_web_server_conforms_as_far_as_reading_goes() {
    let web = StaticFiles::start(Duration::ZERO);
    let large: Vec<u8> = (0..5_000_000_u32).map(|byte| (byte % 241) as u8).collect();
    web.put("/data/a%20b.csv", "1,2,3");
    web.put("/ranges", large.clone());
    let storage = Storage::new(StorageOptions::default(), []).unwrap();
    let file = storage.open(&format!("{}/data/a b.csv", web.server.url())).unwrap();
    assert_eq!(file.read().await.unwrap(), "1,2,3");
    let head = file.head().await.unwrap();
    assert_eq!(head.size, 5);
    let store = &file.store;
    let matching = GetOptions { if_match: head.e_tag.clone(), ..GetOptions::default() };
    assert_eq!(store.get_opts(&file.path, matching).await.unwrap().bytes().await.unwrap(), "1,2,3");
    let other = GetOptions { if_match: Some("\"x\"".to_owned()), ..GetOptions::default() };
    assert!(matches!(store.get_opts(&file.path, other).await, Err(Error::Precondition { .. })));
    let unchanged = GetOptions { if_none_match: head.e_tag, ..GetOptions::default() };
    assert!(matches!(store.get_opts(&file.path, unchanged).await, Err(Error::NotModified { .. })));
    assert!(matches!(store.head(&"none".into()).await, Err(Error::NotFound { .. })));
    let ranges = store.get_ranges(&"ranges".into(), &[0..10, 5..7, 4_999_000..5_000_000]).await.unwrap();
    assert!(ranges[0] == large[..10] && ranges[1] == large[5..7] && ranges[2] == large[4_999_000..]);
    assert!(content(store, &"ranges".into()).await == large);
}
