//! Removing what runs have left that will never be in their table.
//!
//! Only what surely no commit names is removed: files and bookkeeping of a run whose name the table's log does not have, at
//! which nobody has worked for a long time, and temporary files to which nobody has written for as long. Files that were in the
//! table once are not ours to remove: older versions name them (`VACUUM` of a Delta reader takes those). Whatever is not
//! understood stays.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use object_store::ObjectMeta;

use crate::run::journal::{Journal, known_runs};
use crate::run::revision::run_of;
use crate::run::{RunError, RunId};
use crate::storage::{Location, StorageError, is_temporary};
use crate::table::{STAGED, Table};

/// What a run that was not finished has left.
#[derive(Debug, Clone)]
pub struct Leftover {
    /// The run.
    pub run: RunId,
    /// When anything of it was last written.
    pub last_worked_at: DateTime<Utc>,
    /// Its data files.
    pub files: u64,
    /// The size of all that it has left.
    pub bytes: u64,
    objects: Vec<Location>,
}

/// What unfinished runs have left that nobody has worked at for `age`; nothing is removed.
pub async fn leftovers(table: &Table, age: Duration) -> Result<Vec<Leftover>, RunError> {
    let snapshot = table.snapshot().await?;
    let files = files_by_run(table).await?;
    let mut leftovers = Vec::new();
    for run in known_runs(table).await? {
        if let Some(snapshot) = &snapshot {
            let is_committed = snapshot.transaction(&run.app_id()).await?.is_some();
            // A name that the log has in any way is a doubt.
            if is_committed || snapshot.files.iter().any(|file| file.path.contains(run.short())) {
                continue;
            }
        }
        let own = files.get(run.short()).cloned().unwrap_or_default();
        let Some(leftover) = leftover(table, &run, own).await? else { continue };
        // Of a mark alone nothing can be worked on: a `clean` was stopped right before its end.
        if leftover.objects.is_empty() || is_older(leftover.last_worked_at, age) {
            leftovers.push(leftover);
        }
    }
    Ok(leftovers)
}

/// Removes a leftover. Returns whether it did: not if somebody has begun to work on the run again.
pub async fn remove(table: &Table, leftover: &Leftover, age: Duration) -> Result<bool, RunError> {
    let journal = Journal::new(table, &leftover.run);
    let mark = journal.abandoned();
    table.storage().write(&mark, "{}\n", true).await?;
    // From here on nobody commits the run without having seen the mark; who has begun before is seen now.
    let committed = match table.snapshot().await? {
        Some(snapshot) => snapshot.transaction(&leftover.run.app_id()).await?.is_some(),
        None => false,
    };
    let active = last_change(&journal.folder().child("active.json")).await?;
    let is_active = active.is_some_and(|last| !is_older(last, age) || last > leftover.last_worked_at);
    if committed || is_active {
        mark.delete().await?;
        return Ok(false);
    }
    for object in &leftover.objects {
        delete(object).await?;
    }
    delete(&mark).await?;
    Ok(true)
}

/// Temporary files of processes that were killed, in the folders of a table where new files are put; those that nobody has written to
/// for `age`.
pub async fn temporary_files(table: &Table, age: Duration) -> Result<Vec<ObjectMeta>, RunError> {
    let mut objects = data_folders(table).await?;
    objects
        .retain(|object| object.location.filename().is_some_and(is_temporary) && is_older(object.last_modified, age));
    Ok(objects)
}

/// Removes a temporary file.
pub async fn remove_temporary(table: &Table, file: &ObjectMeta) -> Result<(), RunError> {
    delete(&table.root().at(file.location.clone())).await
}

async fn delete(at: &Location) -> Result<(), RunError> {
    match at.delete().await {
        Ok(()) | Err(StorageError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_older(time: DateTime<Utc>, age: Duration) -> bool {
    // A clock of the store that is ahead of ours makes nothing old.
    Utc::now().signed_duration_since(time).to_std().is_ok_and(|since| since >= age)
}

async fn last_change(at: &Location) -> Result<Option<DateTime<Utc>>, RunError> {
    match at.head().await {
        Ok(meta) => Ok(Some(meta.last_modified)),
        Err(StorageError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What lies in the folders where new files are put.
async fn data_folders(table: &Table) -> Result<Vec<ObjectMeta>, RunError> {
    let mut objects = Vec::new();
    for folder in [table.root().clone(), table.root().child(STAGED)] {
        let listed = folder.store.list_with_delimiter(Some(&folder.path)).await;
        objects.extend(listed.map_err(|error| StorageError::of_store(folder.to_string(), "list it", error))?.objects);
    }
    Ok(objects)
}

/// Data files by the run that their names tell.
async fn files_by_run(table: &Table) -> Result<BTreeMap<String, Vec<ObjectMeta>>, RunError> {
    let mut files: BTreeMap<String, Vec<ObjectMeta>> = BTreeMap::new();
    for object in data_folders(table).await? {
        let run = object.location.filename().and_then(run_of).map(str::to_owned);
        if let Some(run) = run {
            files.entry(run).or_default().push(object);
        }
    }
    Ok(files)
}

async fn leftover(table: &Table, run: &RunId, files: Vec<ObjectMeta>) -> Result<Option<Leftover>, RunError> {
    let journal = Journal::new(table, run);
    let folder = journal.folder();
    let kept: Vec<ObjectMeta> = folder
        .store
        .list(Some(&folder.path))
        .try_collect()
        .await
        .map_err(|error| StorageError::of_store(folder.to_string(), "list it", error))?;
    let mark = journal.abandoned().path;
    let plan = folder.child("plan.json").path;
    let all = files.iter().chain(&kept);
    let work = all.clone().filter(|object| object.location != mark);
    let last_of_work = work.clone().map(|object| object.last_modified).max();
    let Some(last_worked_at) = last_of_work.or(all.clone().map(|object| object.last_modified).max()) else {
        return Ok(None);
    };
    let bytes = all.map(|object| object.size).sum();
    // The plan goes last: as long as it is there, the rest is found again.
    let (plans, others): (Vec<&ObjectMeta>, _) = work.partition(|object| object.location == plan);
    let objects = others.into_iter().chain(plans).map(|object| table.root().at(object.location.clone())).collect();
    Ok(Some(Leftover { run: run.clone(), last_worked_at, files: files.len() as u64, bytes, objects }))
}
