//! The runs of a table: which there are, and how far each has come.

use serde::Serialize;

use crate::run::journal::{Journal, PlanRecord, known_runs};
use crate::run::receipt::Receipt;
use crate::run::{RunError, RunId};
use crate::table::Table;

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// It is in the table, or was: later runs may have taken its place.
    Committed,
    /// It is not, and the same command goes on with it.
    Unfinished,
}

/// What is known of a run.
#[derive(Debug, Clone, Serialize)]
pub struct RunSummary {
    /// The run.
    pub run: RunId,
    /// How far it has come.
    pub state: RunState,
    /// Its last committed attempt, or the first one while there is none.
    pub attempt: i64,
    /// Parts that are written, of that attempt.
    pub parts_written: usize,
    /// Its plan.
    pub plan: PlanRecord,
    /// Its receipt, once it is committed.
    pub receipt: Option<Receipt>,
}

/// The runs that have left a plan in a table's folder, by the time they were begun.
pub async fn runs_of(table: &Table) -> Result<Vec<RunSummary>, RunError> {
    let snapshot = table.snapshot().await?;
    let mut runs = Vec::new();
    for run in known_runs(table).await? {
        let journal = Journal::new(table, &run);
        let Some(plan) = journal.plan().await? else { continue };
        let committed = match &snapshot {
            Some(snapshot) => snapshot.transaction(&run.app_id()).await?,
            None => None,
        };
        let attempt = committed.unwrap_or(1);
        runs.push(RunSummary {
            state: if committed.is_some() { RunState::Committed } else { RunState::Unfinished },
            attempt,
            parts_written: journal.entries(attempt).await?.len(),
            receipt: if committed.is_some() { journal.receipt(attempt).await? } else { None },
            plan,
            run,
        });
    }
    runs.sort_by(|one, other| (&one.plan.begun_at, &one.run).cmp(&(&other.plan.begun_at, &other.run)));
    Ok(runs)
}

/// The run whose id begins with a text.
pub async fn run_called(table: &Table, beginning: &str) -> Result<RunSummary, RunError> {
    let mut runs = runs_of(table).await?;
    let mut fitting = runs.iter().enumerate().filter(|(_, run)| run.run.as_str().starts_with(beginning));
    match (fitting.next(), fitting.next()) {
        (Some((place, _)), None) => Ok(runs.swap_remove(place)),
        _ => Err(RunError::NoSuchRun {
            table: table.root().to_string(),
            run: beginning.to_owned(),
            known: runs.iter().rev().take(10).map(|run| run.run.short().to_owned()).collect(),
        }),
    }
}
