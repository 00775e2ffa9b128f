//! Validation of imported tables: what import checked, checked again on what is there now.

use std::cmp::Ordering;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::model::PerScale;
use crate::model::norm::{FREQUENCY, RAW_SCORE, RawRange};
use crate::norms::error::{Damage, NormError};
use crate::norms::import::fault::{FaultCause, FaultLog};
use crate::norms::import::parse::check_group;
use crate::norms::import::series::{SeriesCheck, SortedRow};
use crate::norms::import::write::digest_row;
use crate::norms::parquet::ParquetNorms;
use crate::norms::parquet::rows::NormColumns;
use crate::norms::source::hex;

/// What validation found in one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ValidatedTable {
    /// The file.
    pub location: String,
    /// How many rows it holds.
    pub rows: u64,
    /// Whether its rows were compared with the digest that import left in the footer.
    pub digest_checked: bool,
}

/// Reads every row of opened tables and checks what import checks, and besides that rows are in order and are those that
/// were written. Streams: memory for one batch, and for `max_faults` faults.
///
/// # Errors
/// [`NormError::Faults`] with each fault by file and row; failures of reading.
pub async fn validate(
    norms: &ParquetNorms,
    ranges: &PerScale<RawRange>,
    max_faults: usize,
) -> Result<Vec<ValidatedTable>, NormError> {
    let mut faults = FaultLog::new(max_faults);
    let mut tables = Vec::new();
    for number in 0..norms.locations().count() {
        tables.push(validate_table(norms, number, ranges, &mut faults).await?);
    }
    match faults.report() {
        Some(report) => Err(NormError::Faults(report)),
        None => Ok(tables),
    }
}

async fn validate_table(
    norms: &ParquetNorms,
    number: usize,
    ranges: &PerScale<RawRange>,
    faults: &mut FaultLog,
) -> Result<ValidatedTable, NormError> {
    let location = norms.locations().nth(number).unwrap_or_default().to_owned();
    let footer_digest = norms.rows_digest(number);
    // A table that says which rows it was written with is named by its version.
    let expected = footer_digest.as_ref().and(version_of(&location));
    let (mut digest, mut series, mut row, mut before) = (Sha256::new(), SeriesCheck::default(), 0, None);
    let mut batches = norms.batches(number).boxed();
    while let Some(batch) = batches.try_next().await? {
        let parquet =
            |error: arrow::error::ArrowError| NormError::Parquet { location: location.clone(), source: error.into() };
        let columns = NormColumns::of(&batch).map_err(parquet)?;
        let frequencies = match batch.column_by_name(FREQUENCY) {
            Some(column) => Some(cast(column, &DataType::Int64).map_err(parquet)?.as_primitive::<Int64Type>().clone()),
            None => None,
        };
        for index in 0..columns.len() {
            row += 1;
            let mut fault = |cause| faults.add(number, &location, row, cause);
            let (scale, raw, percentile) = match columns.values(index) {
                Ok(values) => values,
                Err(Damage::UnknownScale { code }) => {
                    fault(FaultCause::UnknownScale { code });
                    continue;
                }
                Err(_) => {
                    fault(FaultCause::Empty { column: RAW_SCORE });
                    continue;
                }
            };
            let current = SortedRow {
                version: columns.version.value(index).unwrap_or_default(),
                group: columns.group.value(index).unwrap_or_default(),
                scale,
                raw,
                percentile,
                frequency: frequencies
                    .as_ref()
                    .filter(|column| column.is_valid(index))
                    .map(|column| column.value(index)),
                origin: (number, row),
            };
            digest_row(&mut digest, &current);
            let key = (current.group.to_owned(), current.version.to_owned(), scale.code(), raw);
            if before.as_ref().is_some_and(|before: &(String, String, &str, i32)| before.cmp(&key) == Ordering::Greater)
            {
                fault(FaultCause::Order);
            }
            if let Err(cause) = check_group(current.group) {
                fault(cause);
            }
            if let Some(expected) = expected.filter(|expected| *expected != current.version) {
                fault(FaultCause::OtherVersion { version: current.version.to_owned(), expected: expected.to_owned() });
            }
            if !ranges[scale].contains(raw) {
                fault(FaultCause::RawOutOfRange { scale, raw: i64::from(raw), range: ranges[scale] });
            }
            if !(0.0..=100.0).contains(&percentile) {
                fault(FaultCause::PercentileOutOfRange { percentile });
            }
            if let Some(cause) = series.check(&current, |(_, row)| format!("{location}:{row}")) {
                fault(cause);
            }
            before = Some(key);
        }
    }
    if footer_digest.as_ref().is_some_and(|written| *written != hex(&digest.finalize())) {
        faults.add(number, &location, 1, FaultCause::Changed);
    }
    Ok(ValidatedTable { location, rows: row, digest_checked: footer_digest.is_some() })
}

/// The version that the name of an imported table says.
fn version_of(location: &str) -> Option<&str> {
    location.rsplit(['/', '\\']).next()?.strip_suffix(".parquet")
}
