//! Runs into tables: planned, scored part by part, committed once, resumable at every point between.
//!
//! ```text
//!  plan ─▶ plan.json ─▶ each part: score ─▶ file ─▶ entry of the journal ─▶ … all parts ─▶ one commit ─▶ publish ─▶ receipt
//!             ▲                     │
//!             └── the same command, after whatever stopped it, goes on with the parts that have no entry
//! ```
//!
//! 1. A file is durable before its entry is put, and all entries are there before the commit.
//! 2. The commit is the only thing that makes rows visible, and it is made once: the table remembers the run.
//! 3. Nothing is deleted here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use fail::fail_point;
use futures::{StreamExt, TryStreamExt, stream};

use crate::engine::InputPart;
use crate::model::session::SESSION_ID;
use crate::operators::NormContext;
use crate::run::failures::FailureTable;
use crate::run::hold::Hold;
use crate::run::journal::{Journal, PartRecord, PlanRecord, known_runs};
use crate::run::part::{PartJob, TableColumns};
use crate::run::plan::{RunId, RunPlan, WriteMode, WriteOptions};
use crate::run::receipt::{Receipt, Totals};
use crate::run::report::Progress;
use crate::run::revision::{EarlierAttempt, OwnFiles, RunRevision};
use crate::run::{RunError, ScoreJob, peak_memory_bytes};
use crate::storage::StorageError;
use crate::table::{Outcome, Overwrite, Table, TableError, Transaction, difference};

/// Which parts of a run that is committed are done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reprocess {
    /// None: a committed run is done.
    #[default]
    None,
    /// Those with sessions that failed.
    Failed,
    /// All.
    Completed,
}

/// A run, planned for a table: what is to be done, and by what it is known.
///
/// Invariant: the parts of the plan are those of the job, in order.
pub struct TableRun {
    id: RunId,
    plan: RunPlan,
    job: Arc<ScoreJob>,
    parts: Vec<InputPart>,
    table: Table,
    columns: TableColumns,
    failures: Option<FailureTable>,
    journal: Journal,
}

/// What there is of a run already.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// Nothing.
    New {
        /// The last run of the table over an input of the same name that did not come to its end, and what is different now.
        instead_of: Option<(RunId, Vec<String>)>,
    },
    /// Parts of it.
    Begun {
        /// How many parts are written.
        parts: usize,
    },
    /// It is in the table.
    Committed {
        /// Its last attempt.
        attempt: i64,
        /// What it did; none if the receipt could not be left.
        receipt: Option<Box<Receipt>>,
    },
}

/// What executing a run came to.
#[derive(Debug, Clone, PartialEq)]
pub struct RunResult {
    /// What it did.
    pub receipt: Receipt,
    /// Whether it was done before, by another process or an earlier one.
    pub was_done: bool,
}

impl TableRun {
    /// Plans a job for a table, which may exist or not. Reads the table's log, no sessions; writes nothing.
    pub async fn plan(job: ScoreJob, table: Table, write: &WriteOptions) -> Result<TableRun, RunError> {
        let columns = TableColumns::new(job.output_schema()?.as_ref())?;
        if write.mode == WriteMode::ReplaceSessions && columns.written.index_of(SESSION_ID).is_err() {
            return Err(RunError::ReplaceWithoutId);
        }
        check_table(&table, &columns.written).await?;
        let failures = match &write.failures_to {
            Some(failures) if failures.root().url() == table.root().url() => {
                return Err(RunError::SameTable { table: table.root().to_string() });
            }
            Some(failures) => {
                let failures = FailureTable::new(failures.clone(), &job.input)?;
                check_table(&failures.table, &failures.schema).await?;
                Some(failures)
            }
            None => None,
        };
        let plan = RunPlan::new(&job, table.format(), write)?;
        let id = plan.id();
        let journal = Journal::new(&table, &id);
        let parts = job.input.parts();
        Ok(TableRun { id, plan, job: Arc::new(job), parts, table, columns, failures, journal })
    }

    /// The id.
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// The plan.
    pub fn as_plan(&self) -> &RunPlan {
        &self.plan
    }

    /// The table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The job.
    pub fn job(&self) -> &ScoreJob {
        &self.job
    }

    /// What there is of the run already. Writes nothing.
    pub async fn standing(&self) -> Result<Standing, RunError> {
        if let Some(attempt) = self.committed().await? {
            let receipt = self.journal.receipt(attempt).await?.map(Box::new);
            return Ok(Standing::Committed { attempt, receipt });
        }
        if self.journal.plan().await?.is_some() {
            return Ok(Standing::Begun { parts: self.journal.entries(1).await?.len() });
        }
        let urls: BTreeSet<&str> = self.plan.inputs.iter().map(|input| input.url.as_str()).collect();
        let mut last: Option<PlanRecord> = None;
        for run in known_runs(&self.table).await? {
            let journal = Journal::new(&self.table, &run);
            let Some(record) = journal.plan().await? else { continue };
            let is_kin = record.plan.inputs.iter().any(|input| urls.contains(input.url.as_str()));
            let is_last = last.as_ref().is_none_or(|last| last.begun_at < record.begun_at);
            if is_kin && is_last && journal.receipt(1).await?.is_none() {
                last = Some(record);
            }
        }
        let changes = |record: PlanRecord| (record.run.clone(), self.plan.changes_since(&record.plan));
        Ok(Standing::New { instead_of: last.map(changes) })
    }

    /// The last attempt that is committed.
    async fn committed(&self) -> Result<Option<i64>, RunError> {
        match self.table.snapshot().await? {
            Some(snapshot) => Ok(snapshot.transaction(&self.id.app_id()).await?),
            None => Ok(None),
        }
    }

    /// Does what is left to do of the run, and commits it.
    ///
    /// Memory: for each of [`ScoreJob::threads`] parts that of one part (a batch, a row group being encoded, an upload's
    /// buffers), and the records of all parts. Dropped, it stops at once: what is recorded stays, and the next call goes on.
    /// While it commits, `hold` is held.
    pub async fn execute(
        &self,
        reprocess: Reprocess,
        progress: &Arc<Progress>,
        hold: &Hold,
    ) -> Result<RunResult, RunError> {
        let committed = self.committed().await?;
        let (attempt, kept, lost_files) = match (committed, reprocess) {
            (Some(attempt), Reprocess::None) => return self.done_before(attempt, progress).await,
            (Some(attempt), again) => {
                let mut kept = self.journal.entries(attempt).await?;
                if again == Reprocess::Failed
                    && kept.values().filter(|record| record.failed() == 0).count() == self.parts.len()
                {
                    return self.done_before(attempt, progress).await;
                }
                let lost_files = self.drop_dead_files(&mut kept).await?;
                kept.retain(|_, record| again == Reprocess::Failed && record.failed() == 0);
                (attempt + 1, kept, lost_files)
            }
            (None, _) => (1, BTreeMap::new(), false),
        };
        self.journal.enter().await?;
        let plan = self.journal.begin(&self.plan).await?;
        if let Some(failures) = &self.failures {
            failures.table.begin().await?;
        }
        fail_point!("run-planned", |_| std::process::abort());
        let kept_files = kept.values().filter_map(|record| Some(record.file.as_ref()?.path.clone())).collect();
        let earlier = EarlierAttempt { kept: kept_files, lost_files };
        let (records, resumed) = self.score(attempt, kept, progress).await?;
        fail_point!("run-scored", |_| std::process::abort());
        let holding = hold.take().await;
        self.journal.check_kept(&plan).await?;
        let result = self.finish(attempt, &plan, records, earlier, resumed, progress).await;
        drop(holding);
        result
    }

    /// The records of all parts, of which those without an entry are scored now; and how many were there.
    async fn score(
        &self,
        attempt: i64,
        kept: BTreeMap<usize, PartRecord>,
        progress: &Arc<Progress>,
    ) -> Result<(Vec<PartRecord>, usize), RunError> {
        let mut records = kept;
        records.extend(self.journal.entries(attempt).await?);
        self.drop_lost_files(&mut records).await?;
        for record in records.values() {
            progress.add_resumed(record, self.parts[record.part].bytes());
        }
        let resumed = records.len();
        let missing: Vec<usize> = (0..self.parts.len()).filter(|part| !records.contains_key(part)).collect();
        let work = stream::iter(missing).map(|number| {
            let job = self.part_job(number, attempt, &self.table, progress);
            let journal = self.journal.clone();
            // A task of its own, so that parts are scored on as many threads; ended with this future.
            let mut task = tokio::task::JoinSet::new();
            task.spawn(async move {
                let record = job.run().await?;
                fail_point!("part-written", |_| std::process::abort());
                let record = journal.record(attempt, record).await?;
                fail_point!("part-recorded", |_| std::process::abort());
                Ok::<_, RunError>(record)
            });
            async move { task.join_next().await.and_then(Result::ok).ok_or(RunError::Worker)? }
        });
        let new: Vec<PartRecord> = work.buffer_unordered(self.job.threads.max(1)).try_collect().await?;
        records.extend(new.into_iter().map(|record| (record.part, record)));
        Ok((records.into_values().collect(), resumed))
    }

    /// The work on a part, whose file is put where a table has its new files.
    pub(super) fn part_job(&self, number: usize, attempt: i64, into: &Table, progress: &Arc<Progress>) -> PartJob {
        PartJob {
            number,
            part: self.parts[number].clone(),
            job: Arc::clone(&self.job),
            table: into.clone(),
            columns: self.columns.clone(),
            name: self.file_name(number, attempt),
            failures: self.failures.clone(),
            progress: Arc::clone(progress),
        }
    }

    /// What is recorded of an attempt.
    pub(super) async fn records(&self, attempt: i64) -> Result<BTreeMap<usize, PartRecord>, RunError> {
        self.journal.entries(attempt).await
    }

    /// Forgets records of an earlier attempt whose file is not live any more, so that its part is done again: another run has
    /// taken its place, or rows out of it. Returns whether there were any.
    async fn drop_dead_files(&self, records: &mut BTreeMap<usize, PartRecord>) -> Result<bool, RunError> {
        let before = records.len();
        let files = self.table.snapshot().await?.map(|snapshot| snapshot.files).unwrap_or_default();
        let live: BTreeSet<String> = files.into_iter().map(|file| file.path).collect();
        records.retain(|_, record| record.file.iter().all(|file| live.contains(&file.path)));
        Ok(records.len() < before)
    }

    /// Forgets records whose file is not there any more, so that its part is done again.
    async fn drop_lost_files(&self, records: &mut BTreeMap<usize, PartRecord>) -> Result<(), RunError> {
        if records.is_empty() {
            return Ok(());
        }
        let files = files_of(&self.table).await?;
        records.retain(|_, record| record.file.iter().all(|file| files.contains(&(file.path.clone(), file.size))));
        if let Some(FailureTable { table, .. }) = &self.failures {
            let files = files_of(table).await?;
            records
                .retain(|_, record| record.failures.iter().all(|file| files.contains(&(file.path.clone(), file.size))));
        }
        Ok(())
    }

    /// The name of a part's file. It tells the run, so that it stands for the same bytes wherever it is met.
    fn file_name(&self, part: usize, attempt: i64) -> String {
        match attempt {
            1 => format!("{}-{part:05}.parquet", self.id.short()),
            attempt => format!("{}-{part:05}-{attempt}.parquet", self.id.short()),
        }
    }

    /// Commits what is scored, and leaves the receipt.
    async fn finish(
        &self,
        attempt: i64,
        plan: &PlanRecord,
        records: Vec<PartRecord>,
        earlier: EarlierAttempt,
        parts_resumed: usize,
        progress: &Arc<Progress>,
    ) -> Result<RunResult, RunError> {
        let totals = Totals::of(&records);
        let files = records.iter().filter_map(|record| record.file.clone()).collect();
        let info = totals.commit_info(plan, attempt);
        let transaction = Transaction { app_id: self.id.app_id(), number: attempt, marks: BTreeMap::new(), info };
        let mut revision = RunRevision {
            table: &self.table,
            run: &self.id,
            plan: &self.plan,
            job: &self.job,
            schema: &self.columns.written,
            files,
            earlier,
            others: BTreeMap::new(),
        };
        let outcome = self.table.commit(&transaction, &self.columns.written, &mut revision).await?;
        fail_point!("run-committed", |_| std::process::abort());
        self.table.publish().await?;
        fail_point!("run-published", |_| std::process::abort());
        if let Some(FailureTable { table, schema }) = &self.failures {
            // Two tables have no commit in common. The run has no receipt before both are there, and goes on until then.
            let files: Vec<_> = records.iter().filter_map(|record| record.failures.clone()).collect();
            match self.plan.options.mode {
                WriteMode::Overwrite => table.commit(&transaction, schema, &mut Overwrite(files)).await?,
                WriteMode::Append | WriteMode::ReplaceSessions => {
                    table.commit(&transaction, schema, &mut OwnFiles { run: &self.id, files }).await?
                }
            };
            table.publish().await?;
        }
        let version = match outcome {
            Outcome::Committed { version } => version,
            Outcome::CommittedBefore => None,
        };
        let norms = NormContext::of(&self.job.context.task_ctx())?.stats();
        let receipt = Receipt {
            run: self.id.clone(),
            attempt,
            version,
            sessions: totals.sessions,
            scored: totals.sessions - totals.failed(),
            failed: totals.failed(),
            rows: totals.rows,
            files: totals.files,
            bytes_written: totals.bytes_written,
            bytes_read: totals.bytes_read,
            failed_by_code: totals.failed_by_code,
            begun_at: plan.begun_at.clone(),
            committed_at: chrono::Utc::now().to_rfc3339(),
            seconds: progress.seconds(),
            part_seconds: totals.seconds,
            parts_resumed,
            peak_memory_bytes: peak_memory_bytes(),
            norm_cache: serde_json::to_value(norms).unwrap_or_default(),
            plan: self.plan.clone(),
        };
        let receipt = self.journal.file_receipt(receipt).await?;
        fail_point!("run-receipted", |_| std::process::abort());
        Ok(RunResult { receipt, was_done: outcome == Outcome::CommittedBefore })
    }

    /// The result of a run that is in the table. What may be missing after its commit is made up for.
    async fn done_before(&self, attempt: i64, progress: &Arc<Progress>) -> Result<RunResult, RunError> {
        self.table.publish().await?;
        let receipt = match self.journal.receipt(attempt).await? {
            Some(receipt) => receipt,
            None => {
                let plan = self.journal.begin(&self.plan).await?;
                let records: Vec<PartRecord> = self.journal.entries(attempt).await?.into_values().collect();
                let resumed = records.len();
                return self.finish(attempt, &plan, records, EarlierAttempt::default(), resumed, progress).await;
            }
        };
        Ok(RunResult { receipt, was_done: true })
    }
}

/// Fails if a table cannot take rows of a schema, or if a folder is no place for a new one.
async fn check_table(table: &Table, schema: &SchemaRef) -> Result<(), RunError> {
    let Some(snapshot) = table.snapshot().await? else { return Ok(table.check_new().await?) };
    match difference(&snapshot.schema, schema) {
        Some(difference) => Err(TableError::Schema { table: table.root().to_string(), difference }.into()),
        None => Ok(()),
    }
}

/// The names and sizes of the files that a table's folder has, live or not.
async fn files_of(table: &Table) -> Result<BTreeSet<(String, u64)>, RunError> {
    let mut files = BTreeSet::new();
    for folder in [table.root().clone(), table.location_of_new("")] {
        let listed = folder.store.list_with_delimiter(Some(&folder.path)).await;
        let listed = listed.map_err(|error| StorageError::of_store(folder.to_string(), "list it", error))?;
        let named = |object: object_store::ObjectMeta| Some((object.location.filename()?.to_owned(), object.size));
        files.extend(listed.objects.into_iter().filter_map(named));
    }
    Ok(files)
}
