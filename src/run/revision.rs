//! What a run changes in its table, decided on the version that it meets.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use arrow::datatypes::SchemaRef;
use serde_json::Value;

use crate::model::session::SESSION_ID;
use crate::run::journal::{Journal, known_runs};
use crate::run::plan::{PlannedInput, RunId, RunPlan, WriteMode};
use crate::run::replace::{Candidate, rows_that_go, without};
use crate::run::{RunError, ScoreJob};
use crate::storage::StorageError;
use crate::table::{Change, DataFile, Removal, Revision, Snapshot, Table, TableError};

/// What stands, in the name of a file that was written anew, before the run that has taken rows out of it.
const WITHOUT: &str = "-without-";

/// The change of a run whose files are written.
///
/// Files of an earlier attempt of the same run go, unless they are the same. Appending sessions that another run has put into
/// the table is refused: they would be there twice. So is appending a run again that another one has taken rows out of.
pub(super) struct RunRevision<'a> {
    pub(super) table: &'a Table,
    pub(super) run: &'a RunId,
    pub(super) plan: &'a RunPlan,
    pub(super) job: &'a ScoreJob,
    /// What is in the files.
    pub(super) schema: &'a SchemaRef,
    pub(super) files: Vec<DataFile>,
    pub(super) earlier: EarlierAttempt,
    /// Plans of other runs, by the name of their files; none where there is no plan.
    pub(super) others: BTreeMap<String, Option<RunPlan>>,
}

/// What became of the files of the attempt before.
#[derive(Debug, Default)]
pub(super) struct EarlierAttempt {
    /// The paths of those that stay. They must be live in the version that is changed: what a table has dropped may be deleted at
    /// any time.
    pub(super) kept: BTreeSet<String>,
    /// Whether some were not live any more when this attempt began.
    pub(super) lost_files: bool,
}

impl RunRevision<'_> {
    /// Sessions of the run take the place of the same ones of a version; all other rows stay.
    async fn replace_sessions(&self, base: Option<&Snapshot>) -> Result<Change, TableError> {
        let live = base.map(|base| base.files.as_slice()).unwrap_or_default();
        let (own, others): (Vec<&DataFile>, Vec<&DataFile>) =
            live.iter().partition(|file| run_of(&file.path) == Some(self.run.short()));
        let new: Vec<_> = self.files.iter().map(ids_of).collect();
        let others: Vec<DataFile> =
            others.into_iter().filter(|file| may_share_ids(ids_of(file), &new)).cloned().collect();
        let mut candidates = Vec::new();
        for (files, is_new) in [(&self.files, true), (&others, false)] {
            let places = self.table.locations(files).await?;
            candidates.extend(files.iter().cloned().zip(places).map(|(file, at)| Candidate { file, at, is_new }));
        }
        let own = own.into_iter().map(|file| file.path.clone()).collect();
        match self.replace(&candidates, own, base.map_or(0, |base| base.version)).await {
            Ok(change) => Ok(change),
            Err(_) if any_gone(&candidates).await => {
                Err(TableError::FilesMoved { table: self.table.root().to_string() })
            }
            Err(error) => Err(TableError::Revision(Box::new(error))),
        }
    }

    /// Writes those of the candidates anew that lose rows. `removed` are files that give way in any case.
    async fn replace(
        &self,
        candidates: &[Candidate],
        mut removed: Vec<String>,
        version: u64,
    ) -> Result<Change, RunError> {
        let gone = rows_that_go(self.job, self.schema, candidates, self.plan.options.duplicates).await?;
        let mut change = Change::default();
        for (candidate, gone) in candidates.iter().zip(&gone) {
            let path = &candidate.file.path;
            if gone.rows == 0 {
                if candidate.is_new {
                    change.add.push(candidate.file.clone());
                }
                continue;
            }
            let stem = path.trim_end_matches(".parquet");
            let stem = stem.split(WITHOUT).next().unwrap_or(stem);
            let name = match candidate.is_new {
                true => format!("{stem}-once.parquet"),
                false => format!("{stem}{WITHOUT}{}-{version}.parquet", self.run.short()),
            };
            let kept = without(self.job, self.table, candidate, gone, &name, self.schema).await?;
            change.add.extend(kept);
            if !candidate.is_new {
                removed.push(path.clone());
            }
        }
        change.remove = if removed.is_empty() { Removal::None } else { Removal::Of(removed) };
        Ok(change)
    }

    /// Fails if a file of an earlier attempt that stays is not live in a version.
    fn check_kept(&self, base: Option<&Snapshot>) -> Result<(), TableError> {
        let live = base.map(|base| base.files.as_slice()).unwrap_or_default();
        let live: BTreeSet<&String> = live.iter().map(|file| &file.path).collect();
        let mut kept = self.files.iter().map(|file| &file.path).filter(|path| self.earlier.kept.contains(*path));
        match kept.all(|path| live.contains(path)) {
            true => Ok(()),
            false => Err(TableError::FilesMoved { table: self.table.root().to_string() }),
        }
    }

    /// Fails if another run has taken rows out of the files of an earlier attempt in a version, or may have taken all rows of one.
    fn check_whole(&self, base: &Snapshot) -> Result<(), TableError> {
        let mut own = base.files.iter().map(|file| &file.path).filter(|path| run_of(path) == Some(self.run.short()));
        let replaced = own.find_map(|path| run_of(path.split_once(WITHOUT)?.1));
        let replaces = |run: &&str| {
            let plan = self.others.get(*run).and_then(Option::as_ref);
            plan.is_some_and(|plan| plan.options.mode == WriteMode::ReplaceSessions)
        };
        let mut live = base.files.iter().filter_map(|file| run_of(&file.path)).filter(|_| self.earlier.lost_files);
        let Some(other) = replaced.or_else(|| live.find(replaces)) else { return Ok(()) };
        Err(TableError::Conflict {
            table: self.table.root().to_string(),
            what: format!(
                "run {other} has put its results in the place of some of this run's, and their sessions would be there twice: give \
                 --mode replace-sessions, and then do run {other} again with --reprocess completed, or give --mode overwrite"
            ),
        })
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

/// Whether a file is not where it was: moved up by whoever committed it, or removed by whoever dropped it since.
async fn any_gone(candidates: &[Candidate]) -> bool {
    for candidate in candidates {
        if matches!(candidate.at.head().await, Err(StorageError::NotFound { .. })) {
            return true;
        }
    }
    false
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
        self.check_kept(base)?;
        let add = self.files.clone();
        match (self.plan.options.mode, base) {
            (WriteMode::ReplaceSessions, base) => self.replace_sessions(base).await,
            (WriteMode::Overwrite, _) => Ok(Change { add, remove: Removal::All }),
            (WriteMode::Append, None) => Ok(Change { add, remove: Removal::None }),
            (WriteMode::Append, Some(base)) => {
                self.check_inputs(base).await?;
                self.check_whole(base)?;
                Ok(Change { add, remove: earlier_files(self.run, base) })
            }
        }
    }
}

/// Files of a run, in the place of those of its earlier attempts and beside all others.
pub(super) struct OwnFiles<'a> {
    pub(super) run: &'a RunId,
    pub(super) files: Vec<DataFile>,
}

#[async_trait]
impl Revision for OwnFiles<'_> {
    async fn change(&mut self, base: Option<&Snapshot>) -> Result<Change, TableError> {
        let remove = base.map_or(Removal::None, |base| earlier_files(self.run, base));
        Ok(Change { add: self.files.clone(), remove })
    }
}

/// What earlier attempts of a run have put into a version.
fn earlier_files(run: &RunId, base: &Snapshot) -> Removal {
    let earlier = base.files.iter().filter(|file| run_of(&file.path) == Some(run.short()));
    let earlier: Vec<String> = earlier.map(|file| file.path.clone()).collect();
    if earlier.is_empty() { Removal::None } else { Removal::Of(earlier) }
}

/// The least and the greatest id of a file's sessions; none where its statistics do not tell.
fn ids_of(file: &DataFile) -> Option<(i64, i64)> {
    let statistics: Value = serde_json::from_str(file.statistics.as_deref()?).ok()?;
    let bound = |side: &str| statistics.get(side)?.get(SESSION_ID)?.as_i64();
    Some((bound("minValues")?, bound("maxValues")?))
}

/// Whether a file with such ids may have a session that new files have.
fn may_share_ids(ids: Option<(i64, i64)>, new: &[Option<(i64, i64)>]) -> bool {
    let Some((least, greatest)) = ids else { return true };
    new.iter().any(|new| new.is_none_or(|(low, high)| low <= greatest && least <= high))
}
