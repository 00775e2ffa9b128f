//! Writes a local file whole: a hidden temporary name in the same folder, fsync, rename, fsync of the folder.
//!
//! What is written goes to the disk while more of it is made, so that little is left for the fsync at the end.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tempfile::NamedTempFile;
use tokio::task::JoinHandle;

use crate::storage::{Location, Result, StorageError};

/// Bytes gathered before the operating system is asked to write.
const BUFFER: usize = 256 * 1024;

/// Bytes that may be written before the disk is told to take them.
const WRITE_BACK: usize = 4 << 20;

/// How temporary names begin and end.
const TEMPORARY: (&str, &str) = (".normstream-", ".part");

/// Whether a file has a temporary name of ours: a process that is killed leaves it behind.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.starts_with(TEMPORARY.0) && name.ends_with(TEMPORARY.1)
}

/// A file that has only a temporary name yet. Dropping it removes it.
pub(crate) struct LocalUpload {
    file: BufWriter<NamedTempFile>,
    /// Bytes written since the last write-back began.
    dirty: usize,
    write_back: Option<JoinHandle<io::Result<()>>>,
    target: PathBuf,
    overwrite: bool,
}

impl LocalUpload {
    /// Creates the parent folders and the temporary file.
    pub(crate) async fn start(at: &Location, path: PathBuf, overwrite: bool) -> Result<Self> {
        blocking(at, "create a file", move || {
            let target = through_links(path)?;
            match fs::metadata(&target) {
                Ok(found) if !found.is_file() => {
                    return Err(io::Error::other("something that is not a regular file has this name"));
                }
                Ok(_) if !overwrite => return Err(io::ErrorKind::AlreadyExists.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            let folder = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
            create_folders(folder)?;
            let mut builder = tempfile::Builder::new();
            builder.prefix(TEMPORARY.0).suffix(TEMPORARY.1);
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                // What a file of the user's own program would get; the umask narrows it.
                builder.permissions(Permissions::from_mode(0o666));
            }
            let file = BufWriter::with_capacity(BUFFER, builder.tempfile_in(folder)?);
            Ok(Self { file, dirty: 0, write_back: None, target, overwrite })
        })
        .await
    }

    /// Appends `bytes`. A failed or cancelled write takes the file with it.
    pub(crate) async fn write(mut self, at: &Location, bytes: Bytes) -> Result<Self> {
        self.dirty += bytes.len();
        let mut written = blocking(at, "write it", move || {
            self.file.write_all(&bytes)?;
            Ok(self)
        })
        .await?;
        let is_idle = written.write_back.as_ref().is_none_or(JoinHandle::is_finished);
        if written.dirty >= WRITE_BACK && is_idle {
            written.written_back(at).await?;
            written.begin_write_back(at)?;
        }
        Ok(written)
    }

    fn begin_write_back(&mut self, at: &Location) -> Result<()> {
        let failed = |source| StorageError::Io { target: at.to_string(), operation: "write it", source };
        let file = self.file.get_ref().as_file().try_clone().map_err(failed)?;
        self.dirty = 0;
        self.write_back = Some(tokio::task::spawn_blocking(move || file.sync_data()));
        Ok(())
    }

    /// The end of the write-back that goes on, if any. Its error is told to nobody else: the fsync at the end would succeed.
    async fn written_back(&mut self, at: &Location) -> Result<()> {
        match self.write_back.take() {
            Some(write_back) => ended(at, "write it", write_back.await),
            None => Ok(()),
        }
    }

    /// Gives the file its name, durably.
    pub(crate) async fn commit(mut self, at: &Location) -> Result<()> {
        self.written_back(at).await?;
        let unknown = |reason: String| StorageError::OutcomeUnknown { target: at.to_string(), reason };
        let named = blocking(at, "finish it", move || {
            let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.as_file().sync_all()?;
            let named = match self.overwrite {
                true => file.persist(&self.target),
                false => file.persist_noclobber(&self.target),
            };
            named.map_err(|failed| failed.error)?;
            Ok(self.target.parent().map_or(Ok(()), sync_folder))
        });
        match named.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(unknown(format!("its name may not outlast a power failure: {error}"))),
            Err(StorageError::Interrupted { source, .. }) => Err(unknown(source.to_string())),
            Err(error) => Err(error),
        }
    }
}

/// Runs `work` where blocking is allowed; to the end, even if the caller is cancelled.
async fn blocking<T: Send + 'static>(
    at: &Location,
    operation: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    ended(at, operation, tokio::task::spawn_blocking(work).await)
}

fn ended<T>(
    at: &Location,
    operation: &'static str,
    end: std::result::Result<io::Result<T>, tokio::task::JoinError>,
) -> Result<T> {
    match end {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(source)) if source.kind() == io::ErrorKind::AlreadyExists => {
            Err(StorageError::AlreadyExists { target: at.to_string() })
        }
        Ok(Err(source)) => Err(StorageError::Io { target: at.to_string(), operation, source }),
        Err(source) => Err(StorageError::Interrupted { target: at.to_string(), source }),
    }
}

/// The file `path` leads to, so that a link keeps being one.
fn through_links(path: PathBuf) -> io::Result<PathBuf> {
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_symlink() && path.exists() => path.canonicalize(),
        _ => Ok(path),
    }
}

/// Creates `folder` and what is missing above it, each name durable in its parent.
fn create_folders(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
    fs::create_dir_all(folder)?;
    missing.into_iter().rev().filter_map(Path::parent).try_for_each(sync_folder)
}

/// Makes the names in `folder` durable, where the file system knows such a thing.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}
