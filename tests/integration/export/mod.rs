//! Exports into real targets: a PostgreSQL cluster of the test's own, and files read by others.

mod cli;
mod crash;
mod delta;
mod files;
mod postgres;
mod rate;
mod readers;
mod schedule;
mod tls;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use normstream::engine::EngineOptions;
use normstream::engine::query::{QueryBudget, SqlOptions};
use normstream::export::schedule::{Clock, SystemClock};
use normstream::export::{
    CatchUp, ExportError, ExportJob, Exporter, Incremental, Mode, Outcome, Overlap, Receipt, Request, Source,
    SourceOptions, TargetFormat, TargetOptions, Targets,
};
use normstream::instrument::Instrument;
use normstream::norms::{Chain, NormStore, NormStoreOptions};
use normstream::storage::{PoolOptions, Storage, StorageOptions};

/// An export that appends all rows of a query to the table `scores`.
pub fn job(url: &str, sql: &str) -> ExportJob {
    let target = TargetOptions {
        name: "dw".to_owned(),
        url: url.to_owned(),
        format: TargetFormat::Delta,
        pool: PoolOptions::default(),
    };
    ExportJob {
        name: "nightly".to_owned(),
        sql: sql.to_owned(),
        target,
        table: "scores".to_owned(),
        mode: Mode::Append,
        incremental: Incremental::None,
        schedule: None,
        overlap: Overlap::Skip,
        catch_up: CatchUp::Last,
        min_rows: 0,
        retries: 0,
        partition_by: Vec::new(),
        on_success: None,
        on_failure: None,
    }
}

/// Runs exports of whatever a query makes up.
pub fn exporter() -> Exporter {
    exporter_at(Arc::new(SystemClock))
}

pub fn exporter_at(clock: Arc<dyn Clock>) -> Exporter {
    let storage = Storage::new(StorageOptions::default(), []).unwrap();
    Exporter { source: source(&storage, None), targets: Arc::new(Targets::new(storage)), clock }
}

pub fn source(storage: &Storage, results: Option<String>) -> Source {
    let instrument = Instrument::klsi4();
    let norms = Arc::new(NormStore::new(Vec::new(), instrument.raw_ranges(), NormStoreOptions::default()));
    let chain = Chain::from_templates(instrument.chain.iter().map(String::as_str)).unwrap();
    let engine = EngineOptions { threads: 2, ..EngineOptions::default() };
    let sql = SqlOptions { engine, budget: QueryBudget::default(), instrument, chain, local: true };
    Source::new(storage.clone(), SourceOptions { sql, norms, results, tables: Vec::new() })
}

pub fn at(text: &str) -> DateTime<Utc> {
    normstream::export::parse_time(text).unwrap()
}

/// Runs an export that must commit.
pub async fn export(job: &ExportJob) -> Receipt {
    match run(job).await.unwrap() {
        Outcome::Committed(receipt) => receipt,
        other => panic!("{other:?}"),
    }
}

pub async fn run(job: &ExportJob) -> Result<Outcome, ExportError> {
    exporter().run(job, Request::default()).await
}

/// The message of an export that must fail, with its causes.
pub async fn refused(job: &ExportJob) -> String {
    normstream::engine::with_causes(&run(job).await.unwrap_err())
}
