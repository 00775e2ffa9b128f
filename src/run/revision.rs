//! What a run changes in its table, decided on the version that it meets.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use crate::run::journal::{Journal, known_runs};
use crate::run::plan::{PlannedInput, RunId, RunPlan, WriteMode};
use crate::table::{Change, DataFile, Removal, Revision, Snapshot, Table, TableError};

/// The change of a run whose files are written.
///
/// Files of an earlier attempt of the same run go, unless they are the same. Appending sessions that another run has put into
/// the table is refused: they would be there twice.
pub(super) struct RunRevision<'a> {
    table: &'a Table,
    run: &'a RunId,
    plan: &'a RunPlan,
    files: Vec<DataFile>,
    /// Plans of other runs, by the name of their files; none where there is no plan.
    others: BTreeMap<String, Option<RunPlan>>,
}

impl<'a> RunRevision<'a> {
    pub(super) fn new(table: &'a Table, run: &'a RunId, plan: &'a RunPlan, files: Vec<DataFile>) -> Self {
        RunRevision { table, run, plan, files, others: BTreeMap::new() }
    }

    /// Fails if a run that is live in a version scored one of the inputs.
    async fn check_inputs(&mut self, base: &Snapshot) -> Result<(), TableError> {
        let ours: BTreeSet<(&str, &str)> = self.plan.inputs.iter().map(identity).collect();
        let names: BTreeSet<&str> = base.files.iter().filter_map(|file| run_of(&file.path)).collect();
        if names.iter().any(|name| *name != self.run.short() && !self.others.contains_key(*name)) {
            let revision = |error| TableError::Revision(Box::new(error));
            let known = known_runs(self.table).await.map_err(revision)?;
            for name in &names {
                if self.others.contains_key(*name) {
                    continue;
                }
                let plan = match known.iter().find(|run| run.short() == *name) {
                    Some(run) => Journal::new(self.table, run).plan().await.map_err(revision)?,
                    None => None,
                };
                self.others.insert((*name).to_owned(), plan.map(|record| record.plan));
            }
        }
        for name in names.into_iter().filter(|name| *name != self.run.short()) {
            let Some(Some(other)) = self.others.get(name) else { continue };
            if let Some(input) = other.inputs.iter().find(|input| ours.contains(&identity(input))) {
                return Err(TableError::Conflict {
                    table: self.table.root().to_string(),
                    what: format!(
                        "the sessions of {} are in it already, from run {name}: give --mode replace-sessions to put these \
                         results in their place, or --mode overwrite",
                        input.url
                    ),
                });
            }
        }
        Ok(())
    }
}

fn identity(input: &PlannedInput) -> (&str, &str) {
    (&input.url, &input.version)
}

/// The run that a file's name tells.
pub(super) fn run_of(path: &str) -> Option<&str> {
    let (run, _) = path.split_once('-')?;
    (run.len() == 16 && run.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(run)
}

#[async_trait]
impl Revision for RunRevision<'_> {
    async fn change(&mut self, base: Option<&Snapshot>) -> Result<Change, TableError> {
        let Some(base) = base else { return Ok(Change { add: self.files.clone(), remove: Removal::None }) };
        match self.plan.options.mode {
            WriteMode::Overwrite => Ok(Change { add: self.files.clone(), remove: Removal::All }),
            WriteMode::Append | WriteMode::ReplaceSessions => {
                self.check_inputs(base).await?;
                let earlier = base.files.iter().filter(|file| run_of(&file.path) == Some(self.run.short()));
                let earlier: Vec<String> = earlier.map(|file| file.path.clone()).collect();
                let remove = if earlier.is_empty() { Removal::None } else { Removal::Of(earlier) };
                Ok(Change { add: self.files.clone(), remove })
            }
        }
    }
}
