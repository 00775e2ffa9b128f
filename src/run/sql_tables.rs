//! The tables `runs` and `failures` of SQL: what the runs of a table have left.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::error::ArrowError;

use crate::engine::ResultsTable;
use crate::engine::query::{FAILURES, RUNS, SqlSession};
use crate::model::result::timestamp_type;
use crate::run::{RunError, RunState, RunSummary, runs_of};
use crate::storage::Storage;

/// Adds `runs`, and `failures` if a run has written a table of failed sessions, where results are a table that runs have
/// written to. Of several tables of failures, that of the last run is taken.
pub async fn add_run_tables(session: &SqlSession, storage: &Storage, results: &str) -> Result<(), RunError> {
    let Some(table) = ResultsTable::new(storage, results).table().await? else { return Ok(()) };
    let runs = runs_of(&table).await?;
    session.add_batch(RUNS, table_of(&runs)?)?;
    if let Some(failures) = runs.iter().rev().find_map(|run| run.plan.plan.options.failures_to.as_deref()) {
        session.add_table(FAILURES, failures).await?;
    }
    Ok(())
}

/// A row for each run, by the time when it was begun. What only a receipt tells is null while a run is unfinished.
fn table_of(runs: &[RunSummary]) -> Result<RecordBatch, ArrowError> {
    let texts = |value: &dyn Fn(&RunSummary) -> Option<String>| -> ArrayRef {
        Arc::new(runs.iter().map(value).collect::<StringArray>())
    };
    let counts = |value: &dyn Fn(&RunSummary) -> Option<u64>| -> ArrayRef {
        Arc::new(runs.iter().map(|run| value(run).map(|count| count as i64)).collect::<Int64Array>())
    };
    let times = |value: &dyn Fn(&RunSummary) -> Option<String>| cast(&texts(value), &timestamp_type());
    let receipt = |run: &RunSummary| run.receipt.clone();
    let state = |run: &RunSummary| match run.state {
        RunState::Committed => "committed",
        RunState::Unfinished => "unfinished",
    };
    let seconds = runs.iter().map(|run| run.receipt.as_ref().map(|receipt| receipt.seconds));
    RecordBatch::try_from_iter([
        ("run", texts(&|run| Some(run.run.to_string()))),
        ("state", texts(&|run| Some(state(run).to_owned()))),
        ("attempt", counts(&|run| u64::try_from(run.attempt).ok())),
        ("version", counts(&|run| receipt(run)?.version)),
        ("mode", texts(&|run| Some(run.plan.plan.options.mode.name().to_owned()))),
        ("begun_at", times(&|run| Some(run.plan.begun_at.clone()))?),
        ("committed_at", times(&|run| Some(receipt(run)?.committed_at))?),
        ("seconds", Arc::new(seconds.collect::<Float64Array>())),
        ("sessions", counts(&|run| Some(receipt(run)?.sessions))),
        ("scored", counts(&|run| Some(receipt(run)?.scored))),
        ("failed", counts(&|run| Some(receipt(run)?.failed))),
        ("rows", counts(&|run| Some(receipt(run)?.rows))),
        ("files", counts(&|run| Some(receipt(run)?.files))),
        ("bytes_read", counts(&|run| Some(receipt(run)?.bytes_read))),
        ("bytes_written", counts(&|run| Some(receipt(run)?.bytes_written))),
        ("parts", counts(&|run| Some(run.plan.plan.parts.len() as u64))),
        ("parts_written", counts(&|run| Some(run.parts_written as u64))),
        ("inputs", counts(&|run| Some(run.plan.plan.inputs.len() as u64))),
        ("instrument", texts(&|run| Some(run.plan.plan.instrument.clone()))),
        ("norms", texts(&|run| Some(run.plan.plan.norms.join(", ")))),
        ("norms_digest", texts(&|run| Some(run.plan.plan.norms_digest.clone()))),
        ("chain", texts(&|run| Some(run.plan.plan.options.chain.clone()))),
        ("program", texts(&|run| Some(run.plan.plan.tool.clone()))),
    ])
}
