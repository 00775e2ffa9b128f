//! The baselines: what stock DataFusion does with the same files, in a process of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use clap::Subcommand;
use datafusion::config::TableParquetOptions;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::error::Result;
use datafusion::prelude::{
    CsvReadOptions, DataFrame, JsonReadOptions, ParquetReadOptions, SessionConfig, SessionContext,
};
use futures::TryStreamExt;
use serde_json::json;
use tokio::task::JoinSet;

use crate::measure::CpuTime;

/// What to do with a file.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Stock {
    /// Read it into batches that nobody keeps.
    Read {
        input: PathBuf,
        threads: usize,
        /// Only these columns.
        columns: Vec<String>,
    },
    /// Read a Parquet file and write it as Parquet, zstd 1.
    Rewrite { input: PathBuf, threads: usize, output: PathBuf },
}

impl Stock {
    /// The command that does this.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this bench is a file"));
        match self {
            Stock::Read { input, threads, columns } => {
                command.arg("read").arg(input).arg(threads.to_string()).args(columns);
            }
            Stock::Rewrite { input, threads, output } => {
                command.arg("rewrite").arg(input).arg(threads.to_string()).arg(output);
            }
        }
        command
    }

    /// Does it, and prints its figures.
    pub(crate) fn run(&self) {
        let threads = match self {
            Stock::Read { threads, .. } | Stock::Rewrite { threads, .. } => *threads,
        };
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(threads).enable_all().build().unwrap();
        let started = Instant::now();
        let (rows, written) = runtime.block_on(self.work(threads)).expect("DataFusion reads what the program reads");
        let seconds = started.elapsed().as_secs_f64();
        let memory = normstream::run::peak_memory_bytes();
        let cpu = CpuTime::now().own;
        println!(
            "{}",
            json!({
                "rows": rows,
                "seconds": seconds,
                "cpu_seconds": cpu,
                "peak_memory_bytes": memory,
                "bytes_written": written,
            })
        );
    }

    async fn work(&self, threads: usize) -> Result<(u64, u64)> {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(threads));
        match self {
            Stock::Read { input, columns, .. } => {
                let mut sessions = open(&context, input).await?;
                if !columns.is_empty() {
                    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
                    sessions = sessions.select_columns(&columns)?;
                }
                let mut readers = JoinSet::new();
                for mut batches in sessions.execute_stream_partitioned().await? {
                    readers.spawn(async move {
                        let mut rows = 0;
                        while let Some(batch) = batches.try_next().await? {
                            rows += batch.num_rows() as u64;
                        }
                        Ok::<_, datafusion::error::DataFusionError>(rows)
                    });
                }
                Ok((readers.join_all().await.into_iter().sum::<Result<u64>>()?, 0))
            }
            Stock::Rewrite { input, output, .. } => {
                let mut options = TableParquetOptions::default();
                options.global.compression = Some("zstd(1)".to_owned());
                let single = DataFrameWriteOptions::new().with_single_file_output(true);
                let sessions = open(&context, input).await?;
                let output = output.display().to_string();
                let counts = sessions.write_parquet(&output, single, Some(options)).await?;
                let rows = datafusion::common::cast::as_uint64_array(counts[0].column(0))?.value(0);
                Ok((rows, std::fs::metadata(&output)?.len()))
            }
        }
    }
}

async fn open(context: &SessionContext, input: &Path) -> Result<DataFrame> {
    let path = input.display().to_string();
    match input.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => context.read_csv(path, CsvReadOptions::new()).await,
        Some("ndjson") => context.read_json(path, JsonReadOptions::default().file_extension(".ndjson")).await,
        _ => context.read_parquet(path, ParquetReadOptions::new()).await,
    }
}
