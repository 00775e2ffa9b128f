//! A place in a store, and what can be read there. Writing is [`Storage::upload`](crate::storage::Storage::upload).

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::{Path, PathPart};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use url::Url;

use crate::storage::target::Target;
use crate::storage::{Result, Scheme, StorageError};

/// An object or a folder of a store. `Display` gives the target as it was written.
#[derive(Clone)]
pub struct Location {
    /// The pooled store.
    pub store: Arc<dyn ObjectStore>,
    /// Scheme and authority with the path `/`: what [`Storage::store_for`](crate::storage::Storage::store_for) finds the store by,
    /// and so the key DataFusion knows it under. That of a pinned location is its own.
    pub store_url: Url,
    /// The path in the store; the root is empty.
    pub path: Path,
    scheme: Scheme,
    is_folder: bool,
    written: String,
}

impl Location {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, target: Target, written: String) -> Self {
        let Target { scheme, store_url, path, is_folder } = target;
        Self { store, store_url, path, scheme, is_folder, written }
    }

    /// Reads through `view` from now on, which is found by `url`.
    pub(crate) fn read_through(&mut self, view: Arc<dyn ObjectStore>, url: Url) {
        self.store = view;
        self.store_url = url;
    }

    /// The kind of store.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether the target was written with a final slash, and so names a folder.
    pub fn is_folder(&self) -> bool {
        self.is_folder
    }

    /// The absolute path on disk, for local locations.
    pub fn file_path(&self) -> Option<PathBuf> {
        (self.scheme == Scheme::Local).then(|| PathBuf::from(format!("/{}", self.path)))
    }

    /// The whole URL, path encoded.
    pub fn url(&self) -> Url {
        let mut url = self.store_url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(self.path.parts());
            if self.is_folder {
                segments.push("");
            }
        }
        url
    }

    /// What is called `name` in this folder; `name` may hold slashes. What no path may hold (`..`, control characters) is
    /// percent-encoded, so a child is never outside its folder.
    pub fn child(&self, name: &str) -> Self {
        let parts = name.split('/').filter(|part| !part.is_empty());
        let path = parts.fold(self.path.clone(), |path, part| {
            path.join(PathPart::parse(part).unwrap_or_else(|_| PathPart::from(part)))
        });
        let written = format!("{}/{}", self.written.trim_end_matches('/'), name.trim_matches('/'));
        Self { path, written, is_folder: name.ends_with('/'), ..self.clone() }
    }

    /// The same store at `path`, as [`Location::list_files`] gives it.
    pub fn at(&self, path: Path) -> Self {
        let mut at = Self { path, is_folder: false, ..self.clone() };
        at.written = match at.file_path() {
            Some(file) => file.display().to_string(),
            None => format!("{}/{}", self.store_url.as_str().trim_end_matches('/'), at.path),
        };
        at
    }

    /// Size, modification time and ETag of the object.
    pub async fn head(&self) -> Result<ObjectMeta> {
        self.store.head(&self.path).await.map_err(|error| self.error("look at it", error))
    }

    /// The same and the last `most` bytes of the object, if the store gives both at once.
    pub(crate) async fn head_with_tail(&self, most: u64) -> Result<(ObjectMeta, Bytes)> {
        let options = GetOptions { range: Some(GetRange::Suffix(most)), ..GetOptions::default() };
        let read = async {
            let answer = self.store.get_opts(&self.path, options).await?;
            Ok((answer.meta.clone(), answer.bytes().await?))
        };
        match read.await.map_err(|error| self.error("look at it", error)) {
            // No end of an empty object is one, and some stores only count from the beginning.
            Err(StorageError::Store { .. }) => Ok((self.head().await?, Bytes::new())),
            answer => answer,
        }
    }

    /// Whether there is an object here. A folder is not one.
    pub async fn exists(&self) -> Result<bool> {
        match self.head().await {
            Ok(_) => Ok(true),
            Err(StorageError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The object here, or all objects of the folder here; see [`Location::list_folder`]. Empty if there is neither.
    pub async fn list_files(&self) -> Result<Vec<ObjectMeta>> {
        if self.may_be_object() {
            match self.head().await {
                Ok(object) => return Ok(vec![object]),
                Err(StorageError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.list_folder().await
    }

    /// Whether the target can be the name of an object.
    pub(crate) fn may_be_object(&self) -> bool {
        !self.is_folder && !self.path.is_root()
    }

    /// All objects of the folder here, at any depth, by path.
    ///
    /// Left out are objects with a dot in front of their name or of a folder below this one (unfinished uploads of ours
    /// among them), and the empty objects with which some stores mark folders. Memory: one entry an object.
    pub async fn list_folder(&self) -> Result<Vec<ObjectMeta>> {
        let prefix = (!self.path.is_root()).then_some(&self.path);
        let hidden = |object: &ObjectMeta| {
            object.location.prefix_match(&self.path).into_iter().flatten().any(|part| part.as_ref().starts_with('.'))
        };
        let mut objects: Vec<ObjectMeta> = self
            .store
            .list(prefix)
            .try_filter(|object| {
                let marker = object.size == 0 && object.location == self.path;
                std::future::ready(!marker && !hidden(object))
            })
            .try_collect()
            .await
            .map_err(|error| self.error("list it", error))?;
        objects.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(objects)
    }

    /// The whole object, in memory.
    pub async fn read(&self) -> Result<Bytes> {
        let read = async { self.store.get(&self.path).await?.bytes().await };
        read.await.map_err(|error| self.error("read it", error))
    }

    /// The bytes of `range`, in memory.
    pub async fn read_range(&self, range: Range<u64>) -> Result<Bytes> {
        self.store.get_range(&self.path, range).await.map_err(|error| self.error("read it", error))
    }

    /// The whole object as a stream of chunks. With `e_tag`, only that version of it.
    pub async fn stream(&self, e_tag: Option<String>) -> Result<BoxStream<'static, Result<Bytes>>> {
        let options = GetOptions { if_match: e_tag, ..GetOptions::default() };
        let object = self.store.get_opts(&self.path, options).await.map_err(|error| self.error("read it", error))?;
        let written = self.written.clone();
        Ok(object.into_stream().map_err(move |error| StorageError::of_store(written.clone(), "read it", error)).boxed())
    }

    /// Removes the object. One that is not there is an error on some stores and none on others.
    pub async fn delete(&self) -> Result<()> {
        self.store.delete(&self.path).await.map_err(|error| self.error("delete it", error))
    }

    /// Names this target in an error of its store.
    pub(crate) fn error(&self, operation: &'static str, error: object_store::Error) -> StorageError {
        StorageError::of_store(self.written.as_str(), operation, error)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Location").field("store", &self.store_url.as_str()).field("path", &self.path.as_ref()).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::storage::{Storage, StorageOptions};

    fn storage() -> Storage {
        Storage::new(StorageOptions::default(), []).unwrap()
    }

    async fn names(location: &Location) -> Vec<String> {
        location.list_files().await.unwrap().iter().map(|object| object.location.to_string()).collect()
    }

    #[tokio::test]
    async fn a_folder_lists_its_files_at_any_depth_by_path_and_without_hidden_ones() {
        let storage = storage();
        let folder = storage.open("memory:///in").unwrap();
        for name in ["b/2.csv", "a.csv", "b/1.csv", ".hidden.csv", "b/.part/x.csv"] {
            storage.write(&folder.child(name), "x", false).await.unwrap();
        }
        storage.write(&storage.open("memory:///inside.csv").unwrap(), "x", false).await.unwrap();
        assert_eq!(names(&folder).await, ["in/a.csv", "in/b/1.csv", "in/b/2.csv"]);
        assert_eq!(names(&folder.child("a.csv")).await, ["in/a.csv"]);
        assert!(names(&folder.child("none")).await.is_empty());
    }

    #[tokio::test]
    async fn a_local_folder_lists_the_same_way_and_names_may_hold_spaces_and_percent_signs() {
        let folder = tempfile::tempdir().unwrap();
        let storage = storage();
        let place = storage.open(folder.path().join("my data").to_str().unwrap()).unwrap();
        for name in ["b/100% sure.csv", "a b.csv", ".x"] {
            storage.write(&place.child(name), "1,2\n", false).await.unwrap();
        }
        let files = place.list_files().await.unwrap();
        let read: Vec<String> = files.iter().map(|file| place.at(file.location.clone()).to_string()).collect();
        let path = |name: &str| place.file_path().unwrap().join(name).display().to_string();
        assert_eq!(read, [path("a b.csv"), path("b/100% sure.csv")]);
        assert_eq!(place.at(files[1].location.clone()).read().await.unwrap(), "1,2\n");
        assert_eq!(storage.open(&path("a b.csv")).unwrap().read_range(1..3).await.unwrap(), ",2");
    }

    #[tokio::test]
    async fn a_location_prints_as_it_was_written_and_knows_its_url() {
        let storage = storage();
        let location = storage.open("memory:///my folder/").unwrap();
        assert_eq!(location.to_string(), "memory:///my folder/");
        assert_eq!(location.url().as_str(), "memory:///my%20folder/");
        assert_eq!(location.child("a b").to_string(), "memory:///my folder/a b");
        assert_eq!(location.child("a b").url().as_str(), "memory:///my%20folder/a%20b");
    }

    #[tokio::test]
    async fn what_is_missing_is_named_as_it_was_written() {
        let error = storage().open("no such/file.csv").unwrap().read().await.unwrap_err();
        assert_eq!(error.to_string(), "no such/file.csv does not exist");
        assert!(!error.is_retryable());
    }

    #[tokio::test]
    async fn a_pinned_location_is_read_in_its_version_by_whoever_finds_its_store() {
        let storage = storage();
        let folder = tempfile::tempdir().unwrap();
        for target in [folder.path().join("a.csv").to_str().unwrap(), "memory:///a.csv"] {
            let mut at = storage.open(target).unwrap();
            storage.write(&at, "first", false).await.unwrap();
            let meta = at.head().await.unwrap();
            let written = at.clone();
            storage.pin([(&mut at, &meta)]);
            assert_eq!((at.to_string(), at.scheme()), (written.to_string(), written.scheme()));
            let found = storage.store_for(&at.store_url).unwrap();
            assert!(Arc::ptr_eq(&found, &at.store) && !Arc::ptr_eq(&found, &written.store));
            assert_eq!(at.read().await.unwrap(), "first");

            storage.write(&written, "something else", true).await.unwrap();
            let error = at.read().await.unwrap_err();
            assert!(matches!(error, StorageError::Changed { expected: Some(_), found: Some(_), .. }), "{error}");
            assert!(found.get_range(&at.path, 0..2).await.is_err());
            assert_eq!(written.read().await.unwrap(), "something else");
            let url = at.store_url.clone();
            drop((at, found));
            assert!(Arc::ptr_eq(&storage.store_for(&url).unwrap(), &written.store), "nobody uses the view any more");
        }
    }

    #[test]
    fn one_store_is_one_client() {
        let storage = storage();
        let one = storage.open("memory:///a").unwrap();
        let two = storage.open("memory:///b/c").unwrap();
        assert!(Arc::ptr_eq(&one.store, &two.store));
        assert!(Arc::ptr_eq(&one.store, &storage.store_for(&two.store_url).unwrap()));
        let other = storage.open("/tmp").unwrap();
        assert!(!Arc::ptr_eq(&one.store, &other.store));
    }
}
