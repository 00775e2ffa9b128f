//! `normstream storage`: whether a store answers, and how its pool is used; the flags of pools.

use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::cli::score::print;
use crate::config::{Config, Flags, PoolSizing};
use crate::error::Error;
use crate::storage::{Histogram, PoolStatus, Storage, StorageError};

/// How many requests a store is asked at once. Shown by --help alone: every command has them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connections to object stores")]
pub(super) struct PoolArgs {
    /// Requests in flight kept as steady capacity, for each store: 1 to 50 [default: 5].
    #[arg(long, global = true, hide_short_help = true, display_order = 901, value_name = "N")]
    pool_size: Option<usize>,
    /// Requests in flight beyond that in bursts: 0 to 100 [default: 10].
    #[arg(long, global = true, hide_short_help = true, display_order = 902, value_name = "N")]
    pool_max_overflow: Option<usize>,
    /// Longest wait for a free connection: 1 to 300 [default: 30].
    #[arg(long, global = true, hide_short_help = true, display_order = 903, value_name = "SECONDS")]
    pool_timeout: Option<u64>,
    /// Age at which connections are renewed: at least 300 [default: 3600].
    #[arg(long, global = true, hide_short_help = true, display_order = 904, value_name = "SECONDS")]
    pool_recycle: Option<u64>,
    /// Whether a store that is new or was idle for long is checked before it is used [default: true].
    #[arg(long, global = true, hide_short_help = true, display_order = 905, value_name = "BOOL")]
    pool_pre_ping: Option<bool>,
    /// Whether capacity is as configured, or follows latency and throttling below that [default: fixed].
    #[arg(long, global = true, hide_short_help = true, display_order = 906, value_enum)]
    pool_mode: Option<PoolSizing>,
}

impl PoolArgs {
    /// The settings that were given.
    pub(super) fn flags(&self, flags: Flags) -> Flags {
        flags
            .set("pool_size", self.pool_size)
            .set("pool_max_overflow", self.pool_max_overflow)
            .set("pool_timeout", self.pool_timeout)
            .set("pool_recycle", self.pool_recycle)
            .set("pool_pre_ping", self.pool_pre_ping)
            .set("pool_mode", self.pool_mode)
    }
}

/// Look at object stores.
#[derive(Debug, Args)]
pub(super) struct StorageArgs {
    #[command(subcommand)]
    command: StorageCommand,
}

#[derive(Debug, Subcommand)]
enum StorageCommand {
    /// Ask a store for an object, and show the answer and the state of the pool.
    Status(StatusArgs),
}

#[derive(Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
struct StatusArgs {
    /// An object, a bucket or a server: s3://bucket/file, gs://bucket, az://container, https://host/file.
    #[arg(value_name = "URL")]
    url: String,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

const STATUS_EXAMPLES: &str = "\
Examples:
  normstream storage status s3://bucket/sessions.parquet
  normstream storage status https://example.com/data/ --format json | jq .ping_seconds

One request is sent, without retries. That the object does not exist is an answer, too.
Exit codes: 0 the store answered; 2 it refused, or its settings are wrong; 75 it gave no answer.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// What `normstream storage status` prints as JSON.
#[derive(Debug, Serialize)]
struct StoreStatus {
    /// What was asked for.
    url: String,
    /// How long the answer took; null if there was none.
    ping_seconds: Option<f64>,
    /// Why there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    ping_error: Option<String>,
    /// The store's pool; null for local files, which need none.
    pool: Option<PoolStatus>,
}

pub(super) async fn storage(args: StorageArgs, config: Config) -> Result<(), Error> {
    let StorageCommand::Status(args) = args.command;
    let storage = Storage::new(config.settings.storage_options(), Config::environment())?;
    let location = storage.open(&args.url)?;
    let ping = storage.ping(&location).await;
    let status = StoreStatus {
        url: args.url,
        ping_seconds: ping.as_ref().ok().map(Duration::as_secs_f64),
        ping_error: ping.as_ref().err().map(StorageError::to_string),
        pool: storage.status().pop(),
    };
    print(&match args.format {
        Format::Text => text(&status),
        Format::Json => {
            let json = serde_json::to_string_pretty(&status);
            let failed =
                |error: serde_json::Error| Error::Write { what: "the status".to_owned(), source: error.into() };
            json.map_err(failed)? + "\n"
        }
    })?;
    ping.map(drop).map_err(Error::from)
}

fn text(status: &StoreStatus) -> String {
    let mut lines = vec![match status.ping_seconds {
        Some(seconds) => ("ping", format!("{} answered in {}", status.url, milliseconds(seconds))),
        None => ("ping", format!("{} did not answer", status.url)),
    }];
    match &status.pool {
        None => lines.push(("pool", "none: local files are opened directly".to_owned())),
        Some(pool) => lines.extend(pool_lines(pool)),
    }
    lines.into_iter().map(|(name, value)| format!("{name:12} {value}\n")).collect()
}

fn pool_lines(pool: &PoolStatus) -> Vec<(&'static str, String)> {
    let requests: Vec<String> = pool.requests.iter().map(|(operation, count)| format!("{operation} {count}")).collect();
    let PoolStatus { size, max_overflow, capacity, idle, checked_out, overflow, waiting, .. } = pool;
    vec![
        ("pool", format!("{}: size {size}, overflow up to {max_overflow}, {capacity} at once now", pool.store)),
        ("in flight", format!("{checked_out}, {overflow} of them overflow; {idle} idle, {waiting} waiting")),
        ("waits", format!("{} ({} timed out){}", pool.waits, pool.timeouts, durations(&pool.wait_seconds))),
        (
            "connections",
            format!("{} open, {} opened, {} recycled", pool.connections, pool.connections_opened, pool.recycles),
        ),
        ("pings", format!("{}, {} without an answer", pool.pings, pool.ping_failures)),
        ("requests", if requests.is_empty() { "none".to_owned() } else { requests.join(", ") }),
        ("latency", format!("{} answers{}", pool.latency_seconds.count, durations(&pool.latency_seconds))),
        ("retries", pool.retries.to_string()),
        ("bytes", format!("{} in, {} out", ByteSize(pool.bytes_in), ByteSize(pool.bytes_out))),
    ]
}

fn durations(histogram: &Histogram) -> String {
    match histogram.count {
        0 => String::new(),
        _ => format!(
            ", {} on average, 95 % within {}",
            milliseconds(histogram.mean()),
            milliseconds(histogram.quantile(0.95))
        ),
    }
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}
