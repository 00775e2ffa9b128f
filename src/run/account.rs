//! What is done with scored rows before they are written: counted, failed ones kept, left out or the end of the run.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, UInt8Type};

use crate::model::FaultCode;
use crate::model::result::{ERROR, ERROR_CODE, OK};
use crate::model::session::SESSION_ID;
use crate::run::RunError;
use crate::run::report::Progress;
use crate::run::score::OnError;

/// What rows are counted by, beside the columns of the output.
pub(super) const COUNTED: [&str; 4] = [OK, ERROR_CODE, ERROR, SESSION_ID];

/// Sessions of a part, and how many of them failed with which code.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    pub(super) sessions: u64,
    failed: [u64; FaultCode::ALL.len()],
}

impl Counts {
    /// Sessions that failed, by code; codes that did not occur are left out.
    pub(super) fn failed_by_code(&self) -> BTreeMap<String, u64> {
        let counts = FaultCode::ALL.map(|code| (code.as_str().to_owned(), self.failed[code as usize]));
        counts.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

/// Counts a batch, does with its failed sessions what `on_error` says, and selects the first `columns` columns.
pub(super) fn account_for(
    batch: RecordBatch,
    columns: usize,
    on_error: OnError,
    progress: &Progress,
    counts: &mut Counts,
) -> Result<RecordBatch, RunError> {
    progress.add_sessions(batch.num_rows() as u64);
    counts.sessions += batch.num_rows() as u64;
    let schema = batch.schema();
    let column = |name| Ok::<_, RunError>(batch.column(schema.index_of(name)?));
    let ok: &BooleanArray = column(OK)?.as_boolean();
    let mut kept = batch.clone();
    if ok.false_count() > 0 {
        let codes = column(ERROR_CODE)?.as_dictionary::<UInt8Type>();
        for code in codes.keys().iter().flatten() {
            progress.add_failed(FaultCode::ALL[usize::from(code)]);
            counts.failed[usize::from(code)] += 1;
        }
        match on_error {
            OnError::Keep => {}
            OnError::Drop => kept = filter_record_batch(&batch, ok)?,
            OnError::Fail => return Err(first_failure(&batch, ok)?),
        }
    }
    let output: Vec<usize> = (0..columns).collect();
    Ok(kept.project(&output)?)
}

/// The error that names the first failed session of a batch.
fn first_failure(batch: &RecordBatch, ok: &BooleanArray) -> Result<RunError, RunError> {
    let row = (0..ok.len()).find(|&row| !ok.value(row)).unwrap_or_default();
    let text = |name: &str| {
        let column = batch.column(batch.schema().index_of(name)?).slice(row, 1);
        let text = cast(&column, &DataType::Utf8)?;
        let text = text.as_string::<i32>();
        Ok::<_, RunError>(if text.is_null(0) { "null".to_owned() } else { text.value(0).to_owned() })
    };
    Ok(RunError::SessionFailed {
        code: text(ERROR_CODE)?,
        error: text(ERROR)?,
        place: format!("session_id {}", text(SESSION_ID)?),
    })
}
