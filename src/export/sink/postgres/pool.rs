//! The connections of a database: size, overflow, timeout, recycling and pre-ping mean what they mean for object stores.

use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType, Timeouts,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::export::ExportError;
use crate::export::sink::PoolState;
use crate::export::sink::postgres::PostgresOptions;
use crate::storage::PoolOptions;

/// The longest wait for a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A pool of connections. At most `size + max_overflow` are open, at most `size` stay open when they are not used.
pub(in crate::export) struct PostgresPool {
    name: String,
    address: String,
    pool: Pool,
    options: PoolOptions,
}

impl PostgresPool {
    /// Opens nothing.
    pub(in crate::export) fn new(
        name: &str,
        server: PostgresOptions,
        options: PoolOptions,
    ) -> Result<Self, ExportError> {
        let recycling_method = if options.pre_ping { RecyclingMethod::Verified } else { RecyclingMethod::Fast };
        let tls = MakeRustlsConnect::new(server.tls);
        let manager = Manager::from_config(server.config, tls, ManagerConfig { recycling_method });
        let oldest = options.recycle;
        let young =
            Hook::sync_fn(move |_: &mut deadpool_postgres::ClientWrapper, metrics: &deadpool_postgres::Metrics| {
                if metrics.age() < oldest {
                    Ok(())
                } else {
                    Err(HookError::message("the connection is due for renewal"))
                }
            });
        let timeouts =
            Timeouts { wait: Some(options.timeout), create: Some(CONNECT_TIMEOUT), recycle: Some(CONNECT_TIMEOUT) };
        let pool = Pool::builder(manager)
            .max_size(options.capacity())
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .pre_recycle(young)
            .build()
            .map_err(|error| ExportError::Target { target: name.to_owned(), reason: error.to_string() })?;
        Ok(Self { name: name.to_owned(), address: server.address, pool, options })
    }

    /// The target's name.
    pub(in crate::export) fn name(&self) -> &str {
        &self.name
    }

    /// A connection.
    pub(in crate::export) async fn get(&self) -> Result<Object, ExportError> {
        let unreachable = |reason: String| ExportError::Unreachable {
            target: self.name.clone(),
            address: self.address.clone(),
            reason,
        };
        self.pool.get().await.map_err(|error| match error {
            PoolError::Timeout(TimeoutType::Wait) => ExportError::PoolTimeout {
                target: self.name.clone(),
                seconds: self.options.timeout.as_secs(),
                capacity: self.options.capacity(),
            },
            PoolError::Timeout(_) => unreachable(format!("no answer within {CONNECT_TIMEOUT:?}")),
            PoolError::Backend(source) if source.code().is_some() => self.error("connect", source),
            PoolError::Backend(source) => match tls_reason(&source) {
                Some(reason) => ExportError::Tls { target: self.name.clone(), reason },
                None => unreachable(reason_of(&source)),
            },
            other => unreachable(other.to_string()),
        })
    }

    /// Closes unused connections beyond the steady capacity.
    pub(in crate::export) fn trim(&self) {
        let mut excess = self.pool.status().size.saturating_sub(self.options.size);
        self.pool.retain(|_, _| {
            let stays = excess == 0;
            excess = excess.saturating_sub(1);
            stays
        });
    }

    /// The pool at this moment.
    pub(in crate::export) fn state(&self) -> PoolState {
        let status = self.pool.status();
        PoolState {
            size: self.options.size,
            max_overflow: self.options.max_overflow,
            open: status.size,
            checked_out: status.size.saturating_sub(status.available),
            waiting: status.waiting,
        }
    }

    /// Names the target in an error of the database.
    pub(super) fn error(&self, operation: &'static str, source: tokio_postgres::Error) -> ExportError {
        ExportError::Postgres { target: self.name.clone(), operation, error: Box::new(source) }
    }
}

/// Why a connection that was made cannot be encrypted as was asked: a certificate that is not trusted, or a server without TLS.
fn tls_reason(error: &tokio_postgres::Error) -> Option<String> {
    // The library keeps the kind of its errors to itself; this one has no cause.
    if error.to_string().contains("server does not support TLS") || reason_of(error).contains("does not support TLS") {
        return Some("the server has none; give sslmode=prefer or sslmode=disable in the URL to do without".to_owned());
    }
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        let inner = source.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = source.downcast_ref::<rustls::Error>().or_else(|| inner?.downcast_ref());
        if let Some(refused @ rustls::Error::InvalidCertificate(_)) = tls {
            return Some(format!("{refused}; sslrootcert=FILE in the URL names the authority to be trusted"));
        }
        cause = source.source();
    }
    None
}

/// The innermost cause; those above it only say that connecting failed.
fn reason_of(error: &tokio_postgres::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
