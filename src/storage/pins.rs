//! The pinned views of stores: a scan that knows its store by URL alone finds the right one by an URL of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use object_store::ObjectStore;
use url::Url;

/// Views by number, as long as somebody uses them.
#[derive(Default)]
pub(crate) struct Pins(Mutex<Views>);

#[derive(Default)]
struct Views {
    next: u64,
    by_number: HashMap<u64, Weak<dyn ObjectStore>>,
}

impl Pins {
    /// The URL by which `view` of the store at `store_url` is found.
    pub(crate) fn add(&self, store_url: &Url, view: &Arc<dyn ObjectStore>) -> Option<Url> {
        let mut views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        views.by_number.retain(|_, view| view.strong_count() > 0);
        let number = views.next;
        let scheme = store_url.scheme();
        let url = Url::parse(&format!("{scheme}+{number}{}", &store_url.as_str()[scheme.len()..])).ok()?;
        views.next += 1;
        views.by_number.insert(number, Arc::downgrade(view));
        Some(url)
    }

    /// The view of this number.
    pub(crate) fn get(&self, number: u64) -> Option<Arc<dyn ObjectStore>> {
        let views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        views.by_number.get(&number).and_then(Weak::upgrade)
    }
}
