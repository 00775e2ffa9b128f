//! Put-if-absent, and its three outcomes.

use bytes::Bytes;
use object_store::{PutMode, PutOptions};

use crate::storage::{Location, Result, Scheme, Storage, StorageError, Written};

/// What became of a write that was to happen only if nothing was there; see [`Storage::create`].
#[derive(Debug)]
#[must_use = "whether the object is the one that was to be written depends on this"]
pub enum Creation {
    /// It was written, by this call.
    Created(Written),
    /// Something was there already, and is still what it was.
    Exists,
    /// The answer got lost. Whoever asks can read what is there and compare it with what was to be written; nothing may be
    /// removed on this.
    Unknown(StorageError),
}

impl Creation {
    pub(crate) async fn of(storage: &Storage, at: &Location, content: Bytes) -> Result<Self> {
        let created = match at.scheme() {
            Scheme::Local | Scheme::Http => storage.write(at, content, false).await,
            Scheme::Memory | Scheme::S3 | Scheme::Gcs | Scheme::Azure if at.is_folder() => {
                let reason = "a file cannot be written to a folder".to_owned();
                Err(StorageError::InvalidTarget { target: at.to_string(), reason })
            }
            Scheme::Memory | Scheme::S3 | Scheme::Gcs | Scheme::Azure => {
                let size = content.len() as u64;
                let put = at.store.put_opts(&at.path, content.into(), PutOptions::from(PutMode::Create)).await;
                put.map(|put| Written { size, e_tag: put.e_tag }).map_err(|error| at.error("create it", error))
            }
        };
        match created {
            Ok(written) => Ok(Self::Created(written)),
            Err(StorageError::AlreadyExists { .. }) => Ok(Self::Exists),
            Err(error @ StorageError::OutcomeUnknown { .. }) => Ok(Self::Unknown(error)),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::future::join_all;

    use super::*;
    use crate::storage::StorageOptions;

    #[tokio::test]
    async fn of_many_who_create_one_object_at_once_one_does_and_the_others_learn_that_it_exists() {
        let storage = Storage::new(StorageOptions::default(), []).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for target in [folder.path().join("new/entry").to_str().unwrap(), "memory:///new/entry"] {
            let at = storage.open(target).unwrap();
            let outcomes = join_all((0..20).map(|one| storage.create(&at, format!("{one}")))).await;
            let winners: Vec<usize> = outcomes
                .iter()
                .enumerate()
                .filter(|(_, outcome)| matches!(outcome, Ok(Creation::Created(_))))
                .map(|(one, _)| one)
                .collect();
            assert_eq!(winners.len(), 1, "{target}");
            let others = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Creation::Exists))).count();
            assert_eq!(others, 19, "{target}");
            assert_eq!(at.read().await.unwrap(), winners[0].to_string());
        }
    }

    #[tokio::test]
    async fn a_web_server_and_a_folder_are_errors() {
        let storage = Storage::new(StorageOptions::default(), []).unwrap();
        let web = storage.open("http://localhost/a").unwrap();
        assert!(matches!(storage.create(&web, "x").await, Err(StorageError::ReadOnly { .. })));
        for folder in ["memory:///a/", "/tmp/"] {
            let error = storage.create(&storage.open(folder).unwrap(), "x").await.unwrap_err();
            assert!(matches!(error, StorageError::InvalidTarget { .. }), "{error}");
        }
    }
}
