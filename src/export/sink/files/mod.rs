//! Files as a target: Parquet as a folder, with Hive partitions; CSV, NDJSON and Arrow as one file, or one an export.
//!
//! The log beside them is the ledger: `_normstream/TABLE/EXPORT`. An export writes its files unseen, notes their names, makes
//! them visible, and commits with one entry of the log. Of very many files some are noted and made visible while others are still
//! written. Files that were noted and not committed are removed by whoever has the lease next. A reader that must not see an
//! export that is just becoming visible reads the files that the log names.

mod encode;
mod partition;
mod sort;

use std::time::{Duration, Instant};

use arrow::datatypes::Schema;
use async_trait::async_trait;
use datafusion::error::DataFusionError;
use futures::StreamExt;

use crate::engine::{EngineError, FileFormat};
use crate::export::sink::log::{Event, LogLease, StoreLog};
use crate::export::sink::{Lease, Load, Loaded, Sink, State};
use crate::export::{ExportError, ExportJob, Mode, Receipt, Slice};
use crate::storage::{Location, Storage, StorageError};

use encode::FileWriter;
use partition::Partitions;

/// A folder of files, or one file, as the target of one export.
#[derive(Clone)]
pub(super) struct FileSink {
    storage: Storage,
    target: String,
    export: String,
    format: FileFormat,
    /// The folder that the files of the table are in.
    folder: Location,
    /// The one file that an overwriting export of text or Arrow replaces.
    single: Option<Location>,
    log: StoreLog,
}

impl FileSink {
    pub(super) fn new(job: &ExportJob, format: FileFormat, storage: &Storage) -> Result<Self, ExportError> {
        let refused =
            |reason| ExportError::Mode { target: job.target.name.clone(), mode: job.mode.to_string(), reason };
        if matches!(job.mode, Mode::Upsert { .. }) {
            return Err(refused("files have no keys; use PostgreSQL or Delta, or the mode append"));
        }
        if format != FileFormat::Parquet && !job.partition_by.is_empty() {
            return Err(refused("partition_by is for Parquet and Delta"));
        }
        let root = storage.open(&job.target.url)?;
        let folder = root.child(&format!("{}/", job.table));
        let single = (format != FileFormat::Parquet && job.mode == Mode::Overwrite)
            .then(|| root.child(&format!("{}.{}", job.table, format.name())));
        let log = root.child(&format!("_normstream/{}/{}/", job.table, job.name));
        Ok(Self {
            storage: storage.clone(),
            target: job.target.name.clone(),
            export: job.name.clone(),
            format,
            folder,
            single,
            log: StoreLog::new(storage, log, &job.target.name),
        })
    }

    /// Where the files are, for a person.
    fn place(&self) -> String {
        self.single.as_ref().unwrap_or(&self.folder).to_string()
    }

    /// Removes a file of ours that must not be there; one that is gone already is none.
    async fn remove(&self, file: &str) -> Result<(), ExportError> {
        match self.folder.child(file).delete().await {
            Ok(()) | Err(StorageError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn state(&self) -> Result<State, ExportError> {
        let newest = self.log.newest().await?;
        let (cursor, slot) = newest.as_ref().map_or((None, None), |(_, entry)| (entry.cursor, entry.slot));
        let last = self.log.commits(newest, |_| false).await?.pop().and_then(receipt_of);
        Ok(State { cursor, slot, last })
    }

    async fn history(&self, most: usize) -> Result<Vec<Receipt>, ExportError> {
        let mut left = most;
        let newest = self.log.newest().await?;
        let commits = self.log.commits(newest, |_| {
            left = left.saturating_sub(1);
            left > 0
        });
        Ok(commits.await?.into_iter().filter_map(receipt_of).collect())
    }

    async fn describe(&self, schema: &Schema, mode: &Mode) -> Result<String, ExportError> {
        let what = if *mode == Mode::Overwrite { "replaces" } else { "adds to" };
        Ok(format!("{what} {} ({}, {} columns)", self.place(), self.format.name(), schema.fields().len()))
    }

    async fn lease(&self, patience: Duration) -> Result<Option<Box<dyn Lease>>, ExportError> {
        let Some(lease) = self.log.lease(patience).await? else { return Ok(None) };
        let lease = FileLease { sink: self.clone(), lease };
        lease.recover().await?;
        Ok(Some(Box::new(lease)))
    }
}

fn receipt_of(event: Event) -> Option<Receipt> {
    match event {
        Event::Commit { receipt, .. } | Event::Set { receipt } => Some(receipt),
        Event::Lease | Event::Begin { .. } | Event::Release => None,
    }
}

/// Whether a run may have been committed long ago. All others are told apart by the cursor, the slot or the time too, and can
/// only be the newest that has been committed.
fn is_window(receipt: &Receipt) -> bool {
    receipt.cursor.is_none() && receipt.slot.is_none() && receipt.slice != Slice::Everything.to_string()
}

struct FileLease {
    sink: FileSink,
    lease: LogLease,
}

impl FileLease {
    /// Removes what processes before this one have noted and not committed, and what their commits replaced.
    async fn recover(&self) -> Result<(), ExportError> {
        let (commit, noted) = self.lease.left_behind().await?;
        let replaced = match commit {
            Some(Event::Commit { replaced, .. }) => replaced,
            _ => Vec::new(),
        };
        let unfinished = noted.into_iter().filter_map(|event| match event {
            Event::Begin { files } => Some(files),
            _ => None,
        });
        for file in unfinished.flatten().chain(replaced) {
            self.sink.remove(&file).await?;
        }
        self.lease.prune().await;
        Ok(())
    }

    /// The files that are exported now: those of all commits since one that replaced what was before.
    async fn files(&self) -> Result<Vec<String>, ExportError> {
        let newest = self.sink.log.newest().await?;
        let commits = self.sink.log.commits(newest, |event| match event {
            Event::Commit { receipt, .. } => receipt.mode != Mode::Overwrite.to_string(),
            _ => true,
        });
        let files = commits.await?.into_iter().flat_map(|event| match event {
            Event::Commit { files, .. } => files,
            _ => Vec::new(),
        });
        Ok(files.collect())
    }

    /// The commit of a run, if it is one of the last `most`.
    async fn find(&self, run_id: &str, most: usize) -> Result<Option<Receipt>, ExportError> {
        let mut left = most;
        let newest = self.sink.log.newest().await?;
        let is_it = |event: &Event| matches!(event, Event::Commit { receipt, .. } if receipt.run_id == run_id);
        let commits = self.sink.log.commits(newest, |event| {
            left = left.saturating_sub(usize::from(matches!(event, Event::Commit { .. })));
            left > 0 && !is_it(event)
        });
        Ok(commits.await?.into_iter().filter(is_it).find_map(receipt_of))
    }

    fn conflict(&self) -> ExportError {
        ExportError::Conflict { export: self.sink.export.clone() }
    }

    /// Writes all rows into files and makes these visible. `published` gets their names, in the case of an error those so far.
    async fn write(&self, load: Load, receipt: &mut Receipt, published: &mut Vec<String>) -> Result<(), ExportError> {
        let export = &self.sink.export;
        let failed = |error: DataFusionError| ExportError::Query {
            export: export.clone(),
            source: Box::new(EngineError::from(error).into()),
        };
        let partitions = Partitions::new(&load.rows.schema(), &load.partition_by, &self.sink.target)?;
        let mut files = encode::Files::new(
            self.sink.storage.clone(),
            self.sink.folder.clone(),
            self.sink.single.clone(),
            self.sink.format,
            partitions.file_schema(),
            &receipt.run_id,
        );
        let mut rows = partitions.sorted(load.rows, &load.context).map_err(failed)?;
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(failed)?;
            receipt.rows += batch.num_rows() as u64;
            for (folder, rows) in partitions.split(&batch)? {
                files.write(&folder, &rows).await?;
                if let Some(many) = files.take_many() {
                    self.publish(many, receipt, published).await?;
                }
            }
            crash_point!("export::copying");
        }
        let (export, rows, min_rows) = (export.clone(), receipt.rows, load.min_rows);
        if rows < min_rows {
            return Err(ExportError::TooFewRows { export, rows, min_rows });
        }
        let files = files.finish().await?;
        crash_point!("export::staged");
        self.publish(files, receipt, published).await
    }

    /// Makes files visible, noted before so that they go if no commit follows.
    async fn publish(
        &self,
        files: Vec<FileWriter>,
        receipt: &mut Receipt,
        published: &mut Vec<String>,
    ) -> Result<(), ExportError> {
        let names: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
        // A file that is replaced in place was there before, and nobody may remove it.
        let noted = if self.sink.single.is_none() { names.clone() } else { Vec::new() };
        if !self.lease.append(Event::Begin { files: noted }).await? {
            return Err(self.conflict());
        }
        published.extend(names);
        for file in files {
            receipt.bytes += file.commit().await?;
        }
        Ok(())
    }

    /// Removes files that must not be there, as far as that can be done now.
    async fn remove_all(&self, files: &[String]) {
        for file in files {
            if let Err(error) = self.sink.remove(file).await {
                tracing::warn!(%error, "a file that must go is still there; the next export removes it");
            }
        }
    }

    /// Commits, and finds out whether it did if the store does not say.
    async fn commit(&self, event: Event, receipt: &Receipt) -> Result<(), ExportError> {
        match self.lease.append(event).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.conflict()),
            Err(error) => match self.find(&receipt.run_id, usize::MAX).await {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err(error),
                Err(_) => Err(ExportError::Unknown {
                    export: self.sink.export.clone(),
                    run_id: receipt.run_id.clone(),
                    target: self.sink.target.clone(),
                }),
            },
        }
    }
}

#[async_trait]
impl Lease for FileLease {
    async fn state(&mut self) -> Result<State, ExportError> {
        let (cursor, slot) = self.lease.state().await;
        Ok(State { cursor, slot, last: None })
    }

    async fn load(&mut self, load: Load) -> Result<Loaded, ExportError> {
        let began = Instant::now();
        crash_point!("export::leased");
        let mut receipt = load.receipt.clone();
        let most = if is_window(&receipt) { usize::MAX } else { 1 };
        if let Some(done) = self.find(&receipt.run_id, most).await? {
            return Ok(Loaded::AlreadyDone(done));
        }
        let replaces = load.mode == Mode::Overwrite && self.sink.single.is_none();
        let replaced = if replaces { self.files().await? } else { Vec::new() };
        let mut files = Vec::new();
        if let Err(error) = self.write(load, &mut receipt, &mut files).await {
            self.remove_all(&files).await;
            return Err(error);
        }
        crash_point!("export::merged");
        receipt.seconds = began.elapsed().as_secs_f64();
        let event = Event::Commit { receipt: receipt.clone(), files: files.clone(), replaced: replaced.clone() };
        match self.commit(event, &receipt).await {
            Ok(()) => {}
            Err(error @ ExportError::Conflict { .. }) => {
                self.remove_all(&files).await;
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        crash_point!("export::committed");
        self.remove_all(&replaced).await;
        Ok(Loaded::Committed(receipt))
    }

    async fn set(&mut self, receipt: Receipt) -> Result<(), ExportError> {
        let event = Event::Set { receipt };
        if self.lease.append(event).await? { Ok(()) } else { Err(self.conflict()) }
    }

    async fn release(self: Box<Self>) {
        self.lease.release().await;
    }
}
