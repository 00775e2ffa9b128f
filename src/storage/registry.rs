//! The one place where stores are made and shared.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object_store::ObjectStore;
use url::Url;

use crate::storage::client::{self, Section};
use crate::storage::target::{Target, store_url};
use crate::storage::{Location, PoolStatus, Result, Scheme, StorageError, StorageOptions, Upload, Written};

/// All stores of a process. Cheap to clone; every clone shares the same clients.
///
/// 1. One scheme and authority has one client and one pool, made on first use. Its credentials come from the options and
///    the environment given to [`Storage::new`], so they are part of that identity.
/// 2. Nothing here reads the process environment.
/// 3. Neither `Debug` nor an error shows a credential.
#[derive(Clone)]
pub struct Storage(Arc<Shared>);

struct Shared {
    options: StorageOptions,
    sections: BTreeMap<String, Section>,
    environment: Vec<(String, String)>,
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl Storage {
    /// Checks `options`; opens nothing. `environment` is the process environment, or a part of it.
    pub fn new(options: StorageOptions, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let options = options.validate()?;
        let mut sections = BTreeMap::new();
        for (store, section) in &options.stores {
            let target = Target::parse(store)?;
            client::check_keys(store, target.scheme, section)?;
            sections.insert(client::name_of(&target.store_url), section.clone());
        }
        let environment = environment.into_iter().collect();
        Ok(Self(Arc::new(Shared { options, sections, environment, stores: Mutex::default() })))
    }

    /// The options this was made with.
    pub fn options(&self) -> &StorageOptions {
        &self.0.options
    }

    /// Where `target` is: a local path (relative to the current folder, or absolute) or a URL. Makes no request.
    pub fn open(&self, target: &str) -> Result<Location> {
        let parsed = Target::parse(target)?;
        let store = self.store(parsed.scheme, &parsed.store_url)?;
        Ok(Location::new(store, parsed, target.to_owned()))
    }

    /// The store of a URL, made on first use. Only its scheme and authority count. Makes no request.
    pub fn store_for(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let scheme = Scheme::of(url.scheme()).ok_or_else(|| StorageError::UnsupportedScheme {
            target: client::name_of(url),
            scheme: url.scheme().to_owned(),
        })?;
        self.store(scheme, &store_url(url))
    }

    /// Starts writing `at`. Nothing is visible there before [`Upload::commit`], and nothing ever is if the upload is
    /// dropped, aborted or fails.
    ///
    /// Without `overwrite` an existing object is an error, now or at the commit: of two uploads of one object one wins.
    /// This is atomic on local disks, in memory and for objects of one part; for larger remote objects the store is asked
    /// again right before the commit, as none of them can complete parts conditionally.
    pub async fn upload(&self, at: &Location, overwrite: bool) -> Result<Upload> {
        Upload::start(at, overwrite, &self.0.options.upload).await
    }

    /// Writes `content` whole: [`Storage::upload`], one write, commit.
    pub async fn write(&self, at: &Location, content: impl Into<Bytes>, overwrite: bool) -> Result<Written> {
        let mut upload = self.upload(at, overwrite).await?;
        upload.write(content.into()).await?;
        upload.commit().await
    }

    /// The pools that exist, by name.
    pub fn status(&self) -> Vec<PoolStatus> {
        let stores = self.0.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = &self.0.options.pool;
        let mut status: Vec<PoolStatus> = stores
            .keys()
            .map(|store| PoolStatus { store: store.clone(), size: pool.size, max_overflow: pool.max_overflow })
            .collect();
        status.sort_by(|a, b| a.store.cmp(&b.store));
        status
    }

    fn store(&self, scheme: Scheme, store_url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let name = client::name_of(store_url);
        let mut stores = self.0.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(&name) {
            return Ok(Arc::clone(store));
        }
        let none = Section::new();
        let section = self.0.sections.get(&name).unwrap_or(&none);
        let store = client::build(scheme, store_url, section, &self.0.environment)?;
        stores.insert(name, Arc::clone(&store));
        Ok(store)
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("options", &self.0.options).finish_non_exhaustive()
    }
}
