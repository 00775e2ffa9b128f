//! Writes one object whole: visible at the commit, or never.

use std::collections::VecDeque;
use std::fmt;
use std::sync::LazyLock;

use bytes::Bytes;
use object_store::{MultipartUpload, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::storage::local_upload::LocalUpload;
use crate::storage::{Location, Result, Scheme, StorageError, UploadOptions};

/// The multipart uploads of this process that are neither completed nor aborted. Of the process, as an upload may be dropped by
/// whoever is stopped last, when nobody has its storage any more.
static UNFINISHED: LazyLock<watch::Sender<usize>> = LazyLock::new(|| watch::Sender::new(0));

/// An object being written; see [`Storage::upload`](crate::storage::Storage::upload).
///
/// Dropped without [`Upload::commit`] it leaves nothing visible: the temporary file is removed, or the multipart upload
/// is aborted in the background; [`Upload::all_ended`] waits for that. After a failed or cancelled [`Upload::write`] it can only
/// be aborted or dropped.
pub struct Upload {
    at: Location,
    size: u64,
    state: State,
}

enum State {
    Local(LocalUpload),
    Remote(RemoteUpload),
    Broken,
}

/// What a commit made visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the object.
    pub size: u64,
    /// The version written, where the store tells.
    pub e_tag: Option<String>,
}

impl Upload {
    pub(crate) async fn start(at: &Location, overwrite: bool, options: &UploadOptions) -> Result<Self> {
        let target = at.to_string();
        if at.is_folder() || at.path.is_root() {
            return Err(StorageError::InvalidTarget {
                target,
                reason: "a file cannot be written to a folder".to_owned(),
            });
        }
        if at.scheme() == Scheme::Http {
            return Err(StorageError::ReadOnly { target, scheme: "http" });
        }
        let state = match at.file_path() {
            Some(path) => State::Local(LocalUpload::start(at, path, overwrite).await?),
            None => {
                if !overwrite && at.exists().await? {
                    return Err(StorageError::AlreadyExists { target });
                }
                State::Remote(RemoteUpload::new(overwrite, options.clone()))
            }
        };
        Ok(Self { at: at.clone(), size: 0, state })
    }

    /// Where this writes to.
    pub fn location(&self) -> &Location {
        &self.at
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends `bytes`. Returns when they are buffered or on their way; waits while too many parts are.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let length = bytes.len() as u64;
        // Until the write is known to be whole there is no state to go on from.
        self.state = match std::mem::replace(&mut self.state, State::Broken) {
            State::Local(file) => State::Local(file.write(&self.at, bytes).await?),
            State::Remote(mut parts) => match parts.write(&self.at, bytes).await {
                Ok(()) => State::Remote(parts),
                Err(error) => {
                    parts.abort(&self.at).await;
                    return Err(error);
                }
            },
            State::Broken => return Err(self.broken()),
        };
        self.size += length;
        Ok(())
    }

    /// Makes the object visible and durable. On an error nothing is visible, but for [`StorageError::OutcomeUnknown`].
    pub async fn commit(mut self) -> Result<Written> {
        let e_tag = match std::mem::replace(&mut self.state, State::Broken) {
            State::Local(file) => {
                file.commit(&self.at).await?;
                let found = self.at.head().await;
                found.map_err(|error| unknown(&self.at, error))?.e_tag
            }
            State::Remote(mut parts) => match parts.commit(&self.at).await {
                Ok(written) => written.e_tag,
                Err(error) => {
                    parts.abort(&self.at).await;
                    return Err(error);
                }
            },
            State::Broken => return Err(self.broken()),
        };
        Ok(Written { size: self.size, e_tag })
    }

    /// Gives up; waits until what was written is removed.
    pub async fn abort(mut self) {
        if let State::Remote(mut parts) = std::mem::replace(&mut self.state, State::Broken) {
            parts.abort(&self.at).await;
        }
    }

    /// Waits until no upload of this process has parts in a store that are not an object. Whoever ends the runtime waits for this
    /// first, and not for ever: what is not aborted then stays in its bucket.
    pub async fn all_ended() {
        // The sender is never dropped.
        let _ = UNFINISHED.subscribe().wait_for(|unfinished| *unfinished == 0).await;
    }

    fn broken(&self) -> StorageError {
        StorageError::UploadBroken { target: self.at.to_string() }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("at", &self.at).field("size", &self.size).finish_non_exhaustive()
    }
}

/// Parts of equal size, a bounded number of them on their way; a single put if there is only one.
struct RemoteUpload {
    overwrite: bool,
    options: UploadOptions,
    buffer: VecDeque<Bytes>,
    buffered: usize,
    in_flight: JoinSet<object_store::Result<()>>,
    multipart: Option<Multipart>,
}

/// Parts in a store that are not an object yet; counted in [`UNFINISHED`] as long as it lives.
struct Multipart(Box<dyn MultipartUpload>);

impl RemoteUpload {
    fn new(overwrite: bool, options: UploadOptions) -> Self {
        Self { overwrite, options, buffer: VecDeque::new(), buffered: 0, in_flight: JoinSet::new(), multipart: None }
    }

    async fn write(&mut self, at: &Location, bytes: Bytes) -> Result<()> {
        self.buffered += bytes.len();
        self.buffer.push_back(bytes);
        // One byte more than a part is needed before the object is known to have several.
        while self.buffered > self.options.part_size {
            self.send_part(at, self.options.part_size).await?;
        }
        Ok(())
    }

    async fn commit(&mut self, at: &Location) -> Result<PutResult> {
        if self.multipart.is_none() {
            let mode = if self.overwrite { PutMode::Overwrite } else { PutMode::Create };
            let whole = self.take(self.buffered);
            let put = at.store.put_opts(&at.path, whole, PutOptions::from(mode)).await;
            return put.map_err(|error| at.error("write it", error));
        }
        self.send_part(at, self.buffered).await?;
        while let Some(part) = self.in_flight.join_next().await {
            sent(at, part)?;
        }
        if !self.overwrite && at.exists().await? {
            return Err(StorageError::AlreadyExists { target: at.to_string() });
        }
        let Some(multipart) = &mut self.multipart else {
            return Err(StorageError::UploadBroken { target: at.to_string() });
        };
        // Completing is repeated when an answer is lost, and the second answer may be that there is nothing to complete.
        let written = multipart.0.complete().await.map_err(|error| match at.error("finish it", error) {
            surely_not @ (StorageError::Denied { .. } | StorageError::PoolTimeout { .. }) => surely_not,
            error => unknown(at, error),
        })?;
        self.multipart = None;
        Ok(written)
    }

    async fn send_part(&mut self, at: &Location, length: usize) -> Result<()> {
        while self.in_flight.len() >= self.options.parts_in_flight {
            if let Some(part) = self.in_flight.join_next().await {
                sent(at, part)?;
            }
        }
        let part = self.take(length);
        let multipart = match &mut self.multipart {
            Some(multipart) => multipart,
            none => {
                let started = at.store.put_multipart_opts(&at.path, PutMultipartOptions::default()).await;
                none.insert(Multipart::new(started.map_err(|error| at.error("start writing it", error))?))
            }
        };
        self.in_flight.spawn(multipart.0.put_part(part));
        Ok(())
    }

    /// The first `length` bytes of the buffer, without copying them.
    fn take(&mut self, length: usize) -> PutPayload {
        let mut missing = length;
        let mut chunks = Vec::new();
        while missing > 0 {
            let Some(mut chunk) = self.buffer.pop_front() else { break };
            if chunk.len() > missing {
                self.buffer.push_front(chunk.split_off(missing));
            }
            missing -= chunk.len();
            chunks.push(chunk);
        }
        self.buffered -= length - missing;
        chunks.into_iter().collect()
    }

    /// Stops the parts on their way, and has the store forget those that arrived. Cancelled, it is done again by the drop.
    async fn abort(&mut self, at: &Location) {
        self.in_flight.shutdown().await;
        if let Some(multipart) = &mut self.multipart {
            multipart.abort(&at.to_string()).await;
        }
        self.multipart = None;
    }
}

impl Drop for RemoteUpload {
    fn drop(&mut self) {
        self.in_flight.abort_all();
        let Some(mut multipart) = self.multipart.take() else { return };
        let mut in_flight = std::mem::take(&mut self.in_flight);
        let abort = async move {
            // A part that arrives after the abort may stay.
            in_flight.shutdown().await;
            multipart.abort("a dropped upload").await;
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(abort)),
            Err(_) => tracing::warn!(
                "a multipart upload was dropped outside the runtime and is left to the store's lifecycle rule"
            ),
        }
    }
}

impl Multipart {
    fn new(upload: Box<dyn MultipartUpload>) -> Self {
        UNFINISHED.send_modify(|unfinished| *unfinished += 1);
        Self(upload)
    }

    async fn abort(&mut self, target: &str) {
        if let Err(error) = self.0.abort().await {
            tracing::warn!(%target, %error, "a multipart upload could not be aborted and is left to the store's lifecycle rule");
        }
    }
}

impl Drop for Multipart {
    fn drop(&mut self) {
        UNFINISHED.send_modify(|unfinished| *unfinished -= 1);
    }
}

fn unknown(at: &Location, error: StorageError) -> StorageError {
    StorageError::OutcomeUnknown { target: at.to_string(), reason: error.to_string() }
}

fn sent(at: &Location, part: Result<object_store::Result<()>, tokio::task::JoinError>) -> Result<()> {
    match part {
        Ok(sent) => sent.map_err(|error| at.error("write a part of it", error)),
        Err(source) => Err(StorageError::Interrupted { target: at.to_string(), source }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::pending;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::time::Duration;

    use async_trait::async_trait;
    use object_store::UploadPart;
    use tokio::runtime::Builder;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::storage::{Storage, StorageOptions};

    fn storage() -> Storage {
        Storage::new(StorageOptions::default(), []).unwrap()
    }

    fn entries(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_local_file_appears_at_the_commit_whole_and_with_its_folders() {
        let root = tempfile::tempdir().unwrap();
        let storage = storage();
        let folder = root.path().join("new/folder");
        let at = storage.open(folder.join("a b.csv").to_str().unwrap()).unwrap();
        let mut upload = storage.upload(&at, false).await.unwrap();
        upload.write(Bytes::from_static(b"one,")).await.unwrap();
        upload.write(Bytes::from_static(b"two")).await.unwrap();
        assert!(!at.exists().await.unwrap());
        assert!(storage.open(folder.to_str().unwrap()).unwrap().list_files().await.unwrap().is_empty());
        assert_eq!(entries(&folder).len(), 1, "the temporary file");
        let written = upload.commit().await.unwrap();
        assert_eq!(written, Written { size: 7, e_tag: at.head().await.unwrap().e_tag });
        assert_eq!(entries(&folder), ["a b.csv"]);
        assert_eq!(at.read().await.unwrap(), "one,two");
    }

    #[tokio::test]
    async fn a_dropped_or_aborted_local_upload_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let storage = storage();
        let at = storage.open(root.path().join("x").to_str().unwrap()).unwrap();
        for abort in [true, false] {
            let mut upload = storage.upload(&at, false).await.unwrap();
            upload.write(Bytes::from_static(b"gone")).await.unwrap();
            assert_eq!(entries(root.path()).len(), 1);
            if abort {
                upload.abort().await
            } else {
                drop(upload)
            }
            assert!(entries(root.path()).is_empty());
        }
    }

    #[tokio::test]
    async fn of_two_uploads_that_may_not_overwrite_the_second_to_commit_fails() {
        let root = tempfile::tempdir().unwrap();
        let storage = storage();
        for target in [root.path().join("x").to_str().unwrap(), "memory:///x"] {
            let at = storage.open(target).unwrap();
            let mut first = storage.upload(&at, false).await.unwrap();
            let mut second = storage.upload(&at, false).await.unwrap();
            first.write(Bytes::from_static(b"first")).await.unwrap();
            second.write(Bytes::from_static(b"second")).await.unwrap();
            first.commit().await.unwrap();
            let error = second.commit().await.unwrap_err();
            assert!(matches!(error, StorageError::AlreadyExists { .. }), "{error}");
            assert_eq!(at.read().await.unwrap(), "first");
            let error = storage.upload(&at, false).await.unwrap_err();
            assert!(matches!(error, StorageError::AlreadyExists { .. }), "{error}");
            storage.write(&at, "third", true).await.unwrap();
            assert_eq!(at.read().await.unwrap(), "third");
        }
        assert_eq!(entries(root.path()), ["x"]);
    }

    #[tokio::test]
    async fn an_object_of_several_parts_arrives_in_order_and_an_empty_one_empty() {
        let part_size = 5 * 1024 * 1024;
        let options = UploadOptions { part_size, parts_in_flight: 2 };
        let storage = Storage::new(StorageOptions { upload: options, ..Default::default() }, []).unwrap();
        let content: Vec<u8> = (0..3 * part_size as u32 + 17).map(|byte| (byte % 251) as u8).collect();
        for (length, overwrite) in [(0, true), (part_size, false), (part_size + 1, true), (content.len(), false)] {
            let at = storage.open(&format!("memory:///{length}")).unwrap();
            let mut upload = storage.upload(&at, overwrite).await.unwrap();
            for chunk in content[..length].chunks(700_001) {
                upload.write(Bytes::copy_from_slice(chunk)).await.unwrap();
            }
            assert_eq!(upload.commit().await.unwrap().size, length as u64);
            assert!(at.read().await.unwrap() == content[..length], "{length} bytes");
        }
    }

    /// A multipart upload that takes a while to be aborted, and then says that it was.
    #[derive(Debug)]
    struct SlowAbort(Arc<AtomicBool>);

    #[async_trait]
    impl MultipartUpload for SlowAbort {
        fn put_part(&mut self, _: PutPayload) -> UploadPart {
            Box::pin(pending())
        }

        async fn complete(&mut self) -> object_store::Result<PutResult> {
            pending().await
        }

        async fn abort(&mut self) -> object_store::Result<()> {
            sleep(Duration::from_millis(50)).await;
            self.0.store(true, SeqCst);
            Ok(())
        }
    }

    #[test]
    fn an_upload_of_a_worker_that_is_stopped_is_aborted_before_all_have_ended() {
        let aborted = Arc::new(AtomicBool::new(false));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        runtime.block_on(async {
            let mut multipart = Multipart::new(Box::new(SlowAbort(Arc::clone(&aborted))));
            let mut upload = RemoteUpload::new(true, UploadOptions::default());
            upload.in_flight.spawn(multipart.0.put_part(PutPayload::default()));
            upload.multipart = Some(multipart);
            let mut workers = JoinSet::new();
            workers.spawn(async move {
                let _upload = upload;
                pending::<()>().await;
            });
        });
        runtime.block_on(async { timeout(Duration::from_secs(30), Upload::all_ended()).await }).unwrap();
        runtime.shutdown_background();
        assert!(aborted.load(SeqCst));
    }

    #[tokio::test]
    async fn overwriting_through_a_link_keeps_the_link_and_a_device_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let storage = storage();
        std::fs::write(root.path().join("file"), "old").unwrap();
        std::os::unix::fs::symlink("file", root.path().join("link")).unwrap();
        let at = storage.open(root.path().join("link").to_str().unwrap()).unwrap();
        storage.write(&at, "new", true).await.unwrap();
        assert_eq!(std::fs::read_to_string(root.path().join("file")).unwrap(), "new");
        assert!(root.path().join("link").is_symlink());
        let error = storage.upload(&storage.open("/dev/null").unwrap(), true).await.unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }

    #[tokio::test]
    async fn a_web_server_and_a_folder_cannot_be_written() {
        let storage = storage();
        let web = storage.open("http://localhost/a").unwrap();
        assert!(matches!(storage.upload(&web, true).await, Err(StorageError::ReadOnly { .. })));
        let folder = storage.open("memory:///a/").unwrap();
        assert!(matches!(storage.upload(&folder, true).await, Err(StorageError::InvalidTarget { .. })));
    }
}
