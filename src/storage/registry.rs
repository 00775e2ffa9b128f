//! The one place where stores are made and shared.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use tokio::time::{Instant, timeout};
use url::Url;

use crate::storage::client::{self, Section};
use crate::storage::dial::ProxyVariables;
use crate::storage::health::{Health, NAME as PING_NAME, PATIENCE as PING_PATIENCE, Ping};
use crate::storage::http::Wire;
use crate::storage::pins::Pins;
use crate::storage::pool::Pool;
use crate::storage::pooled_store::PooledStore;
use crate::storage::target::{Target, store_url};
use crate::storage::{
    Ahead, Creation, HttpFailure, Location, Pinned, PoolStatus, Result, Scheme, StorageError, StorageOptions, Upload,
    Written,
};

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
    stores: Mutex<HashMap<String, Entry>>,
    pins: Pins,
}

/// A store, and the pool it stands behind if it is another machine.
struct Entry {
    store: Arc<dyn ObjectStore>,
    pool: Option<Arc<Pool>>,
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
        Ok(Self(Arc::new(Shared { options, sections, environment, stores: Mutex::default(), pins: Pins::default() })))
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
    ///
    /// The URL of a pinned location gives the pinned store while anybody has it, and the store itself after that.
    pub fn store_for(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let unsupported =
            || StorageError::UnsupportedScheme { target: client::name_of(url), scheme: url.scheme().to_owned() };
        let (scheme, view) = Scheme::of_view(url.scheme()).ok_or_else(unsupported)?;
        if let Some(pinned) = view.and_then(|number| self.0.pins.get(number)) {
            return Ok(pinned);
        }
        self.store(scheme, &store_url(url))
    }

    /// Binds locations to the versions that their metadata tells: whoever reads one through its store gets this version or
    /// [`StorageError::Changed`]. An object without an ETag is not bound to anything.
    pub fn pin<'a>(&self, found: impl IntoIterator<Item = (&'a mut Location, &'a ObjectMeta)>) {
        self.pin_with_ahead(found.into_iter().map(|(location, meta)| (location, meta, Ahead::default())));
    }

    /// The same, with what is fetched ahead of each object.
    pub(crate) fn pin_with_ahead<'a>(
        &self,
        found: impl IntoIterator<Item = (&'a mut Location, &'a ObjectMeta, Ahead)>,
    ) {
        let mut by_store = BTreeMap::<Url, (Vec<&mut Location>, Vec<(&ObjectMeta, Ahead)>)>::new();
        for (location, meta, ahead) in found {
            let (locations, objects) = by_store.entry(location.store_url.clone()).or_default();
            locations.push(location);
            objects.push((meta, ahead));
        }
        for (store_url, (locations, objects)) in by_store {
            let Some(first) = locations.first() else { continue };
            let pinned = Pinned::with_ahead(Arc::clone(&first.store), client::name_of(&store_url), objects);
            let pinned = if first.scheme() == Scheme::Local { pinned.of_files() } else { pinned };
            let pinned: Arc<dyn ObjectStore> = Arc::new(pinned);
            let Some(url) = self.0.pins.add(&store_url, &pinned) else { continue };
            for location in locations {
                location.read_through(Arc::clone(&pinned), url.clone());
            }
        }
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

    /// Writes `content` whole if nothing is at `at`: put-if-absent. Of all that do this at once, whatever process they are in,
    /// at most one is told [`Creation::Created`].
    ///
    /// One request, whatever the size; so it is for objects of up to some megabytes. An error means that nothing was written.
    pub async fn create(&self, at: &Location, content: impl Into<Bytes>) -> Result<Creation> {
        Creation::of(self, at, content.into()).await
    }

    /// Puts `store` in the place of the one `url` would give, behind a pool like the others. For stores of one's own, and
    /// for tests that put a faulty one underneath.
    pub fn register(&self, url: &Url, store: Arc<dyn ObjectStore>) {
        let name = client::name_of(&store_url(url));
        let pool = Pool::new(&name, self.0.options.pool.clone());
        let scheme = Scheme::of(url.scheme()).unwrap_or(Scheme::Memory);
        let pooled = PooledStore::new(store, scheme, Arc::clone(&pool), self.0.options.retry.clone(), None);
        self.stores().insert(name, Entry { store: Arc::new(pooled), pool: Some(pool) });
    }

    /// Asks the store of `at` once for something, without retries, and says how long the answer took. That the object does
    /// not exist is an answer; that access is denied is an error.
    pub async fn ping(&self, at: &Location) -> Result<Duration> {
        let path = if at.path.is_root() { Path::from(PING_NAME) } else { at.path.clone() };
        let started = Instant::now();
        let head = timeout(PING_PATIENCE, at.store.get_opts(&path, Ping::default().request())).await;
        let elapsed = started.elapsed();
        match head {
            Ok(Ok(_) | Err(object_store::Error::NotFound { .. })) => Ok(elapsed),
            Ok(Err(error)) => Err(at.error("reach it", error)),
            Err(_) => {
                let source = Box::new(HttpFailure::Silent(elapsed));
                Err(StorageError::Http { target: at.to_string(), operation: "reach it", source })
            }
        }
    }

    /// The pools that exist, by name. Local files and memory have none.
    pub fn status(&self) -> Vec<PoolStatus> {
        let mut status: Vec<PoolStatus> =
            self.stores().values().filter_map(|entry| entry.pool.as_ref()).map(|pool| pool.status()).collect();
        status.sort_by(|a, b| a.store.cmp(&b.store));
        status
    }

    fn store(&self, scheme: Scheme, store_url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let name = client::name_of(store_url);
        let mut stores = self.stores();
        if let Some(entry) = stores.get(&name) {
            return Ok(Arc::clone(&entry.store));
        }
        let entry = self.entry(scheme, store_url, &name)?;
        let store = Arc::clone(&entry.store);
        stores.insert(name, entry);
        Ok(store)
    }

    fn entry(&self, scheme: Scheme, store_url: &Url, name: &str) -> Result<Entry> {
        let Shared { options, sections, environment, .. } = &*self.0;
        match scheme {
            // There is nothing to pool, and nothing may be added to the cost of a read.
            Scheme::Local => return Ok(Entry { store: Arc::new(LocalFileSystem::new()), pool: None }),
            Scheme::Memory => return Ok(Entry { store: Arc::new(InMemory::new()), pool: None }),
            Scheme::S3 | Scheme::Gcs | Scheme::Azure | Scheme::Http => {}
        }
        let none = Section::new();
        let section = sections.get(name).unwrap_or(&none);
        let pool = Pool::new(name, options.pool.clone());
        let proxies = ProxyVariables::of(environment);
        let wire = Wire::new(Arc::clone(&pool), options.retry.clone(), options.allow_private_redirects, proxies);
        let inner = client::build(scheme, store_url, section, environment, &wire)?;
        let health = options.pool.pre_ping.then(|| Arc::new(Health::new(Arc::clone(&pool), wire)));
        let store = PooledStore::new(inner, scheme, Arc::clone(&pool), options.retry.clone(), health);
        Ok(Entry { store: Arc::new(store), pool: Some(pool) })
    }

    fn stores(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.0.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("options", &self.0.options).finish_non_exhaustive()
    }
}
