//! Group norms straight from CSV: imported to a temporary directory, so that they too are never held as a whole.

use async_trait::async_trait;
use futures::stream::BoxStream;
use tempfile::TempDir;

use crate::model::norm::GroupNorms;
use crate::norms::error::NormError;
use crate::norms::import::{ImportOptions, ImportReport, import};
use crate::norms::parquet::ParquetNorms;
use crate::norms::source::{GroupName, GroupSummary, NormSource};
use crate::storage::{Location, Storage};

/// Norms imported to a temporary directory, which is removed when this is dropped.
///
/// The digest is that of the imported tables: the same rows give the same digest, in whatever order the CSV holds them.
#[derive(Debug)]
pub struct TemporaryNorms {
    description: String,
    norms: ParquetNorms,
    report: ImportReport,
    _directory: TempDir,
}

impl TemporaryNorms {
    /// Imports tables as [`import`] does, to a temporary directory of the system's.
    pub async fn import(
        storage: &Storage,
        inputs: Vec<Location>,
        options: ImportOptions,
    ) -> Result<TemporaryNorms, NormError> {
        let directory =
            TempDir::with_prefix("normstream-norms-").map_err(NormError::io("create", "a temporary directory"))?;
        let names: Vec<String> = inputs.iter().map(ToString::to_string).collect();
        let chunk_rows = options.chunk_rows;
        let folder = storage.open(&directory.path().display().to_string())?;
        let report = import(storage, inputs, &folder, options).await?;
        let norms = ParquetNorms::open(&folder, chunk_rows).await?;
        let description = format!("norm table {} ({} rows)", names.join(", "), norms.rows());
        Ok(TemporaryNorms { description, norms, report, _directory: directory })
    }

    /// What was imported.
    pub fn report(&self) -> &ImportReport {
        &self.report
    }
}

#[async_trait]
impl NormSource for TemporaryNorms {
    fn description(&self) -> String {
        self.description.clone()
    }

    fn digest(&self) -> String {
        self.norms.digest()
    }

    async fn load(&self, groups: &[GroupName<'_>]) -> Result<Vec<Option<GroupNorms>>, NormError> {
        self.norms.load(groups).await
    }

    fn files(&self) -> Vec<String> {
        self.norms.files()
    }

    fn groups(&self) -> BoxStream<'_, Result<GroupSummary, NormError>> {
        self.norms.groups()
    }
}
