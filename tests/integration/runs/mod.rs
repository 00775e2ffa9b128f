//! Runs into tables, as their user meets them.

mod commands;
mod crash;
pub mod crash_loop;
mod faults;
mod races;
mod readers;
mod signals;
mod tables;

use std::fs;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use assert_cmd::Command;
use normstream::storage::{Storage, StorageOptions};
use normstream::table::{Snapshot, Table};

use crate::support::{golden, normstream, read_parquet};

pub const FORMATS: [&str; 2] = ["delta", "parquet"];

/// Scores the golden sessions into a table, in parts of at least 1,024 sessions.
pub fn score_into(table: &Path, format: &str) -> Command {
    score_file_into(&golden("sessions.parquet"), table, format)
}

/// Scores a file into a table.
pub fn score_file_into(input: &Path, table: &Path, format: &str) -> Command {
    let mut command = normstream();
    command.arg("score").arg(input).arg("--to").arg(table).args(["--format", format]);
    command
}

/// The newest version of a table on disk.
pub fn snapshot(table: &Path) -> Option<Snapshot> {
    in_runtime(async {
        let storage = Storage::new(StorageOptions::default(), []).unwrap();
        let root = storage.open(table.to_str().unwrap()).unwrap();
        Table::open(&storage, &root).await.unwrap()?.snapshot().await.unwrap()
    })
}

/// The files of a version, where they are.
pub fn live_files(snapshot: &Snapshot) -> Vec<std::path::PathBuf> {
    in_runtime(async {
        let files = snapshot.live_files().await.unwrap();
        files.into_iter().map(|file| file.file_path().unwrap()).collect()
    })
}

/// All rows of the newest version, file by file.
pub fn rows(table: &Path) -> RecordBatch {
    let snapshot = snapshot(table).unwrap();
    let batches: Vec<RecordBatch> = live_files(&snapshot).iter().map(|file| read_parquet(file)).collect();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// The names and bytes of the files of the newest version.
pub fn file_bytes(table: &Path) -> Vec<(String, Vec<u8>)> {
    let files = live_files(&snapshot(table).unwrap());
    files.iter().map(|file| (file.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(file).unwrap())).collect()
}

pub fn in_runtime<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(future)
}
