//! Signals that end the program. The work is dropped, and with it whatever it has half written.

use crate::error::{Error, exit};

/// Waits for Ctrl-C or SIGTERM.
pub(super) async fn received() -> Error {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            return tokio::select! {
                _ = terminate.recv() => Error::Interrupted { signal: "SIGTERM", code: exit::TERMINATED },
                error = interrupted() => error,
            };
        }
    }
    interrupted().await
}

async fn interrupted() -> Error {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler the system's own ends the program.
        std::future::pending::<()>().await;
    }
    Error::Interrupted { signal: "Ctrl-C", code: exit::INTERRUPTED }
}
