//! How tasks come to threads.

use std::future::ready;

use tokio::runtime::Handle;

/// Lets any thread take the task that this one began or woke last.
///
/// The runtime keeps the last one for the thread itself, whatever it does until then, and no other takes it over. So one with
/// nothing to do comes after it. Outside of a runtime there is nothing to let go of.
pub(crate) fn let_go_of_last_task() {
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(ready(()));
    }
}
