//! What a signal waits for: the moments of a run that should not be cut short.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

/// Held while a commit is made, so that whoever would stop the run can let it finish first. Clones are one hold.
#[derive(Debug, Clone, Default)]
pub struct Hold(Arc<Mutex<()>>);

impl Hold {
    /// Holds until the result is dropped.
    pub(super) async fn take(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.0).lock_owned().await
    }

    /// Waits until nothing is held.
    pub async fn released(&self) {
        drop(self.0.lock().await);
    }
}
