//! Every byte normstream reads or writes goes through here: targets are opened, clients shared, files written whole.
//!
//! A [`Storage`] is made once per process from [`StorageOptions`] and the environment, and gives a [`Location`] for a
//! local path, `file://`, `s3://`, `gs://`, `az://`, `abfss://`, `http(s)://` (read only) or `memory://`. Sessions, norms
//! and results of one store share one pooled client. An [`Upload`] becomes visible whole when it is committed, or never.
//!
//! Not here: tables, and what the files mean.

mod adaptive;
mod ahead;
mod body;
mod client;
mod client_settings;
mod connections;
mod creation;
mod dial;
mod error;
mod health;
mod http;
mod listing;
mod local_upload;
mod location;
mod metric;
mod object_reader;
mod options;
mod pinned;
mod pins;
mod pool;
mod pooled_store;
mod redirect;
mod registry;
mod retry;
mod status;
mod target;
mod tls;
mod upload;

pub(crate) use ahead::{Ahead, is_same};
pub use creation::Creation;
pub use error::{Result, StorageError};
pub use http::HttpFailure;
pub(crate) use local_upload::is_temporary;
pub use location::Location;
pub use metric::{Kind as MetricKind, METRICS, describe_metrics};
pub(crate) use object_reader::ObjectReader;
pub use options::{PoolMode, PoolOptions, RetryOptions, StorageOptions, UploadOptions};
pub use pinned::Pinned;
pub use registry::Storage;
pub use status::{Histogram, Operation, PoolStatus};
pub use target::Scheme;
pub use upload::{Upload, Written};
