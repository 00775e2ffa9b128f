//! Verifying a run: parts of it are scored again, and compared with what it wrote, bit for bit.

use std::sync::Arc;

use tempfile::TempDir;

use crate::run::execute::TableRun;
use crate::run::journal::PartRecord;
use crate::run::part::PartJob;
use crate::run::report::Progress;
use crate::run::{RunError, RunSummary};
use crate::table::{DataFile, Table, TableFormat};

/// What verifying a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Parts that were scored again and are equal.
    pub equal: usize,
    /// Files that are not what scoring gives now.
    pub different: Vec<String>,
    /// Files that are not there any more, or were written anew since by a run that replaced some of their sessions.
    pub gone: Vec<String>,
}

impl TableRun {
    /// Scores parts of a committed run again and compares their files. `every` is 1 for all parts, 10 for every tenth.
    ///
    /// Fails if what would be scored is not what the run was: its inputs, norms or instrument have changed.
    pub async fn verify(&self, of: &RunSummary, every: usize, progress: &Arc<Progress>) -> Result<Verified, RunError> {
        if *self.id() != of.run {
            let changes = self.as_plan().changes_since(&of.plan.plan);
            return Err(RunError::NotTheSameRun { run: of.run.short().to_owned(), changes });
        }
        let scratch = TempDir::new().map_err(RunError::Scratch)?;
        let root = self.table().storage().open(&format!("{}/", scratch.path().display()))?;
        let scratch_table = Table::new(self.table().storage(), &root, TableFormat::Delta);
        let records = self.records(of.attempt).await?;
        let mut verified = Verified::default();
        for record in records.values().step_by(every.max(1)) {
            let job = PartJob { failures: None, ..self.part_job(record.part, of.attempt, &scratch_table, progress) };
            let again = job.run().await?;
            self.compare(record, again, &scratch_table, &mut verified).await?;
        }
        Ok(verified)
    }

    async fn compare(
        &self,
        record: &PartRecord,
        again: PartRecord,
        scratch: &Table,
        verified: &mut Verified,
    ) -> Result<(), RunError> {
        let file = match (&record.file, &again.file) {
            (None, None) => {
                verified.equal += 1;
                return Ok(());
            }
            (Some(file), Some(again)) if file.size == again.size => file,
            (Some(file), _) | (None, Some(file)) => {
                verified.different.push(file.path.clone());
                return Ok(());
            }
        };
        let name = |file: &DataFile| file.path.clone();
        let there = self.table().locations(std::slice::from_ref(file)).await?;
        let there = match there[0].read().await {
            Ok(bytes) => bytes,
            Err(crate::storage::StorageError::NotFound { .. }) => {
                verified.gone.push(name(file));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let made = scratch.location_of_new(&again.file.as_ref().map(name).unwrap_or_default());
        match there == made.read().await? {
            true => verified.equal += 1,
            false => verified.different.push(name(file)),
        }
        made.delete().await?;
        Ok(())
    }
}
