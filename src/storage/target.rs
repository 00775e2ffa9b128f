//! From what a user writes (`sessions/2024`, `s3://bucket/a b.parquet`) to a store and a path in it.

use std::path::{Component, Path as FilePath, PathBuf};

use object_store::path::Path;
use url::Url;

use crate::storage::{Result, StorageError};

/// The kinds of stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// The local file system.
    Local,
    /// Objects in memory, gone with the process.
    Memory,
    /// Amazon S3 and what speaks like it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage and Data Lake.
    Azure,
    /// A web server; read only.
    Http,
}

impl Scheme {
    /// The kind of store behind `scheme://`.
    pub(crate) fn of(scheme: &str) -> Option<Self> {
        match scheme {
            "file" => Some(Self::Local),
            "memory" => Some(Self::Memory),
            "s3" | "s3a" => Some(Self::S3),
            "gs" => Some(Self::Gcs),
            "az" | "abfs" | "abfss" => Some(Self::Azure),
            "http" | "https" => Some(Self::Http),
            _ => None,
        }
    }

    /// The kind of store behind a URL, and which of [`Storage::pin`](crate::storage::Storage::pin)'s views of it is meant, if
    /// one is: `s3+17://bucket` is the 17th.
    pub(crate) fn of_view(scheme: &str) -> Option<(Self, Option<u64>)> {
        match scheme.split_once('+') {
            None => Some((Self::of(scheme)?, None)),
            Some((scheme, view)) => Some((Self::of(scheme)?, Some(view.parse().ok()?))),
        }
    }

    /// Whether the store is another machine.
    pub fn is_remote(self) -> bool {
        !matches!(self, Self::Local | Self::Memory)
    }
}

/// A parsed target.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    /// Scheme and authority, path `/`.
    pub(crate) store_url: Url,
    pub(crate) path: Path,
    /// Whether it was written with a final slash, and so names a folder.
    pub(crate) is_folder: bool,
}

impl Target {
    /// Parses a URL or a local path; a relative one is taken from the current folder. Touches the file system only to
    /// resolve `..`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(invalid("target", "the name is empty"));
        }
        if !text.contains("://") && !text.starts_with("file:") {
            return Self::local(text, FilePath::new(text));
        }
        let scheme = text.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let Some(kind) = Scheme::of(&scheme) else {
            return Err(StorageError::UnsupportedScheme { target: without_secrets(text), scheme });
        };
        let url = Url::parse(text).map_err(|error| invalid(&without_secrets(text), format!("not a URL: {error}")))?;
        if url.password().is_some() || url.query().is_some() || (kind != Scheme::Azure && !url.username().is_empty()) {
            let host = url.host_str().unwrap_or_default().to_owned();
            return Err(StorageError::CredentialsInUrl { scheme, host });
        }
        if url.fragment().is_some() {
            return Err(invalid(text, "it contains #; write it as %23"));
        }
        if kind == Scheme::Local {
            let path = url
                .to_file_path()
                .map_err(|()| invalid(text, "a file URL needs three slashes: file:///folder/file"))?;
            return Self::local(text, &path);
        }
        if kind != Scheme::Memory && url.host_str().is_none_or(str::is_empty) {
            return Err(invalid(text, "the bucket, container or host is missing"));
        }
        let path = Path::from_url_path(url.path()).map_err(|error| invalid(text, error.to_string()))?;
        Ok(Self { scheme: kind, store_url: store_url(&url), path, is_folder: text.ends_with('/') })
    }

    fn local(text: &str, path: &FilePath) -> Result<Self> {
        let path = absolute(path).map_err(|source| StorageError::Io {
            target: text.to_owned(),
            operation: "resolve the path",
            source,
        })?;
        let path = Path::from_absolute_path(&path).map_err(|error| invalid(text, error.to_string()))?;
        let store_url = local_url().ok_or_else(|| invalid(text, "file:/// is not a URL"))?;
        Ok(Self { scheme: Scheme::Local, store_url, path, is_folder: text.ends_with('/') })
    }
}

/// Scheme, container and authority of `url`; `s3a` is `s3`.
pub(crate) fn store_url(url: &Url) -> Url {
    let mut store = url.clone();
    store.set_path("/");
    store.set_query(None);
    store.set_fragment(None);
    let base = match store.scheme().split('+').next().unwrap_or_default() {
        "s3a" => "s3",
        base => base,
    };
    if base == store.scheme() {
        return store;
    }
    // Not `set_scheme`: it does not lead from `http+17` to `http`.
    Url::parse(&format!("{base}{}", &store.as_str()[store.scheme().len()..])).unwrap_or(store)
}

fn local_url() -> Option<Url> {
    Url::parse("file:///").ok()
}

/// The absolute form of `path`. The part up to the last `..` must exist: only the file system knows what it means.
fn absolute(path: &FilePath) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let parts: Vec<Component<'_>> = path.components().collect();
    let Some(last_parent) = parts.iter().rposition(|part| *part == Component::ParentDir) else {
        return Ok(path);
    };
    let (through, rest) = parts.split_at(last_parent + 1);
    let mut resolved = through.iter().collect::<PathBuf>().canonicalize()?;
    resolved.extend(rest);
    Ok(resolved)
}

fn invalid(target: &str, reason: impl Into<String>) -> StorageError {
    StorageError::InvalidTarget { target: target.to_owned(), reason: reason.into() }
}

/// `text` without what stands before an `@` in its authority and after a `?`.
fn without_secrets(text: &str) -> String {
    let text = text.split('?').next().unwrap_or_default();
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parsed(text: &str) -> (Scheme, String, String) {
        let target = Target::parse(text).unwrap();
        (target.scheme, target.store_url.to_string(), target.path.to_string())
    }

    fn refused(text: &str) -> String {
        Target::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn every_scheme_gives_its_store_and_the_path_in_it() {
        let cases = [
            ("s3://bucket/a/b.parquet", Scheme::S3, "s3://bucket/", "a/b.parquet"),
            ("s3a://bucket/a", Scheme::S3, "s3://bucket/", "a"),
            ("gs://bucket/a", Scheme::Gcs, "gs://bucket/", "a"),
            ("az://container/a", Scheme::Azure, "az://container/", "a"),
            (
                "abfss://container@account.dfs.core.windows.net/a",
                Scheme::Azure,
                "abfss://container@account.dfs.core.windows.net/",
                "a",
            ),
            ("https://example.com:8443/a/b", Scheme::Http, "https://example.com:8443/", "a/b"),
            ("memory:///a", Scheme::Memory, "memory:///", "a"),
            ("file:///tmp/a%20b", Scheme::Local, "file:///", "tmp/a b"),
            ("/tmp/a b/100% #1?.csv", Scheme::Local, "file:///", "tmp/a b/100% #1?.csv"),
        ];
        for (text, scheme, store, path) in cases {
            assert_eq!(parsed(text), (scheme, store.to_owned(), path.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_space_may_be_written_as_it_is_or_encoded() {
        assert_eq!(parsed("s3://b/a b.csv"), parsed("s3://b/a%20b.csv"));
    }

    #[test]
    fn a_relative_path_starts_at_the_current_folder() {
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        let (_, _, path) = parsed("Cargo.toml");
        assert_eq!(format!("/{path}"), here.join("Cargo.toml").to_str().unwrap());
        let (_, _, path) = parsed("src/../Cargo.toml");
        assert_eq!(format!("/{path}"), here.join("Cargo.toml").to_str().unwrap());
    }

    #[test]
    fn a_parent_step_through_a_link_goes_where_the_link_leads() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("far/away")).unwrap();
        std::os::unix::fs::symlink(root.join("far/away"), root.join("link")).unwrap();
        let (_, _, path) = parsed(root.join("link/../x").to_str().unwrap());
        assert_eq!(format!("/{path}"), root.join("far/x").to_str().unwrap());
    }

    #[test]
    fn what_is_wrong_is_said_without_repeating_secrets() {
        assert_eq!(
            refused("ftp://me:canary@host/a?sig=canary"),
            "ftp://host/a: ftp:// is not supported; use a local path, file://, s3://, gs://, az://, abfss://, http://, \
             https:// or memory://"
        );
        for text in ["https://me:canary@host/a", "https://host/a?sig=canary", "https://canary@host/a"] {
            let error = refused(text);
            assert!(error.contains("carries credentials") && !error.contains("canary"), "{error}");
        }
        assert_eq!(refused("s3:///a"), "s3:///a: the bucket, container or host is missing");
        assert_eq!(refused("s3://b/a#1"), "s3://b/a#1: it contains #; write it as %23");
        assert_eq!(refused(""), "target: the name is empty");
        assert!(refused("file://folder/a").contains("three slashes"));
    }
}
