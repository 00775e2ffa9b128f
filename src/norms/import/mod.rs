//! Import: norm tables from CSV or Parquet to sorted Parquet that lookups can search, one file a version.
//!
//! Rows are read as a stream, checked one by one, sorted in bounded memory, checked against their neighbours, and written.
//! A fault anywhere means that nothing is written; all faults of all files are told at once.

mod fault;
mod input;
mod parse;
mod series;
mod sort;
mod temporary;
#[cfg(test)]
mod tests;
mod validate;
mod write;

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, UInt32Type, UInt64Type};
use futures::TryStreamExt;
use serde::Serialize;

pub use fault::{FaultCause, FaultReport, NormFault};
pub use temporary::TemporaryNorms;
pub use validate::{ValidatedTable, validate};

use crate::model::norm::RawRange;
use crate::model::{PerScale, Scale};
use crate::norms::error::NormError;
use crate::norms::store::CHUNK_ROWS;
use crate::storage::{Location, Storage, StorageError};
use fault::FaultLog;
use input::{ImportInput, InputRows};
use series::{SeriesCheck, SortedRow};
use write::{StagedTable, TableWriter, table, write_error};

/// The unit in which a table to import gives the raw scores of LFI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LfiUnit {
    /// 320·LFI: the exact key of the KLSI 4.0 (for m contexts 5m²·LFI).
    #[default]
    ThreeHundredTwentieths,
    /// 100·LFI, rounded half up: a row answers every exact key that rounds to it.
    Hundredths,
}

impl FromStr for LfiUnit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "320ths" => Ok(LfiUnit::ThreeHundredTwentieths),
            "hundredths" => Ok(LfiUnit::Hundredths),
            other => Err(format!("'{other}' is not a unit of LFI: 320ths or hundredths")),
        }
    }
}

impl fmt::Display for LfiUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LfiUnit::ThreeHundredTwentieths => "320ths",
            LfiUnit::Hundredths => "hundredths",
        })
    }
}

/// How norm tables are imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportOptions {
    /// The raw scores that rows may name; others are faults. An instrument tells them as `norm_ranges`: those that its key can
    /// give and those that the published norms span. The highest of LFI is what an LFI of 1 is worth in exact keys.
    pub ranges: PerScale<RawRange>,
    /// The version of all rows, whatever their column says. Without it a row's own version counts, and `default` where it has
    /// none.
    pub norm_version: Option<String>,
    /// The unit of LFI raw scores.
    pub lfi_unit: LfiUnit,
    /// Rows a page has: what a lookup decodes at least. 1 or more.
    pub chunk_rows: usize,
    /// Memory for sorting, in bytes; more rows than fit are spilled to the system's temporary directory.
    pub memory_limit: usize,
    /// How many faults are told; the rest is counted.
    pub max_faults: usize,
}

impl ImportOptions {
    /// The defaults, for rows with raw scores of `ranges`.
    pub fn new(ranges: PerScale<RawRange>) -> Self {
        ImportOptions {
            ranges,
            norm_version: None,
            lfi_unit: LfiUnit::default(),
            chunk_rows: CHUNK_ROWS,
            memory_limit: 64 << 20,
            max_faults: 10_000,
        }
    }
}

/// A table that an import wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportedTable {
    /// The version.
    pub version: String,
    /// The file.
    pub location: String,
    /// How many groups it holds.
    pub groups: u64,
    /// How many rows.
    pub rows: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// What an import did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// The tables written, one a version, by version.
    pub tables: Vec<ImportedTable>,
}

impl ImportReport {
    /// Rows written to all tables; more than were read when LFI came in hundredths.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

/// Imports tables, CSV or Parquet by the end of their names, into a folder: `VERSION.parquet` for each version that the rows
/// name.
///
/// Nothing becomes visible unless every row of every input is good. A version that the folder holds already is an error, also
/// when another import writes it at the same time; with several versions, those published before that stay. Memory: the
/// sort's limit, a few batches, and what an upload buffers.
///
/// # Errors
/// [`NormError::Faults`] with every fault by file and line; [`NormError::VersionExists`]; [`NormError::NoRows`]; failures of
/// reading, sorting and writing.
pub async fn import(
    storage: &Storage,
    inputs: Vec<Location>,
    to: &Location,
    options: ImportOptions,
) -> Result<ImportReport, NormError> {
    let inputs: Arc<[ImportInput]> = inputs.into_iter().map(ImportInput::new).collect::<Result<_, _>>()?;
    if let Some(version) = &options.norm_version {
        parse::check_version(version).map_err(|cause| NormError::Version { version: version.clone(), cause })?;
        let at = table(to, version);
        if at.exists().await? {
            return Err(write_error(StorageError::AlreadyExists { target: at.to_string() }, version));
        }
    }
    let options = Arc::new(ImportOptions { chunk_rows: options.chunk_rows.max(1), ..options });
    let faults = Arc::new(Mutex::new(FaultLog::new(options.max_faults)));
    let mut batches = sort::sorted(InputRows {
        inputs: Arc::clone(&inputs),
        options: Arc::clone(&options),
        faults: Arc::clone(&faults),
    })?;
    let mut tables = Tables::new(storage, to, &inputs, options.chunk_rows, Arc::clone(&faults));
    while let Some(batch) = batches.try_next().await.map_err(sort::sort_error)? {
        tables.take(&batch).await?;
    }
    let staged = tables.finish().await?;
    let faults = std::mem::replace(&mut *faults.lock().unwrap_or_else(PoisonError::into_inner), FaultLog::new(0));
    if let Some(report) = faults.report() {
        return Err(NormError::Faults(report));
    }
    if staged.is_empty() {
        let locations: Vec<&str> = inputs.iter().map(|input| input.location.as_str()).collect();
        return Err(NormError::NoRows { location: locations.join(", ") });
    }
    let mut report = ImportReport { tables: Vec::with_capacity(staged.len()) };
    for table in staged {
        report.tables.push(table.publish().await?);
    }
    Ok(report)
}

/// The tables of an import as its sorted rows come in, one version after another. Once there is a fault no more is written,
/// but rows are still checked.
struct Tables<'a> {
    storage: &'a Storage,
    folder: &'a Location,
    inputs: &'a [ImportInput],
    chunk_rows: usize,
    faults: Arc<Mutex<FaultLog>>,
    series: SeriesCheck,
    writer: Option<TableWriter>,
    staged: Vec<StagedTable>,
}

impl<'a> Tables<'a> {
    fn new(
        storage: &'a Storage,
        folder: &'a Location,
        inputs: &'a [ImportInput],
        chunk_rows: usize,
        faults: Arc<Mutex<FaultLog>>,
    ) -> Self {
        let (series, staged) = (SeriesCheck::default(), Vec::new());
        Tables { storage, folder, inputs, chunk_rows, faults, series, writer: None, staged }
    }

    async fn take(&mut self, batch: &RecordBatch) -> Result<(), NormError> {
        // Sorting has read all input before its first row comes out, so all faults of single rows are known here.
        let mut clean = self.faults.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        for index in 0..batch.num_rows() {
            let Some(row) = sorted_row(batch, index) else { continue };
            let inputs = self.inputs;
            let place = |(input, line): (usize, u64)| format!("{}:{line}", inputs[input].location);
            if let Some(cause) = self.series.check(&row, place) {
                let (input, line) = row.origin;
                let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
                faults.add(input, &inputs[input].location, line, cause);
                clean = false;
            }
            if clean {
                self.write(&row).await?;
            }
        }
        if !clean {
            self.writer = None;
            self.staged.clear();
        }
        Ok(())
    }

    async fn write(&mut self, row: &SortedRow<'_>) -> Result<(), NormError> {
        if self.writer.as_ref().is_none_or(|writer| writer.version() != row.version) {
            let next = TableWriter::create(self.storage, self.folder, row.version, self.chunk_rows).await?;
            if let Some(ended) = self.writer.replace(next) {
                self.staged.push(ended.finish().await?);
            }
        }
        match &mut self.writer {
            Some(writer) => writer.push(row).await,
            None => Ok(()),
        }
    }

    async fn finish(mut self) -> Result<Vec<StagedTable>, NormError> {
        if let Some(ended) = self.writer.take() {
            self.staged.push(ended.finish().await?);
        }
        Ok(self.staged)
    }
}

/// A row of the sorted stream, whose columns are those of the sort schema.
fn sorted_row(batch: &RecordBatch, index: usize) -> Option<SortedRow<'_>> {
    let text = |column: usize| batch.column(column).as_string::<i32>().value(index);
    let frequencies = batch.column(7).as_primitive::<Int64Type>();
    Some(SortedRow {
        version: text(0),
        group: text(1),
        scale: Scale::from_code(text(2))?,
        raw: batch.column(3).as_primitive::<Int32Type>().value(index),
        origin: (
            batch.column(4).as_primitive::<UInt32Type>().value(index) as usize,
            batch.column(5).as_primitive::<UInt64Type>().value(index),
        ),
        percentile: batch.column(6).as_primitive::<Float64Type>().value(index),
        frequency: frequencies.is_valid(index).then(|| frequencies.value(index)),
    })
}
