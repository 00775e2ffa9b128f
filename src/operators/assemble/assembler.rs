//! Runs of rows of one session, collapsed batch by batch.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder as _, ArrayRef, AsArray, BinaryBuilder, RecordBatch, UInt32Array, UInt32Builder,
};
use arrow::compute::{concat, concat_batches, partition, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef, UInt32Type};
use datafusion::error::Result;

use crate::operators::assemble::rows::RankRows;
use crate::operators::assemble::sheet::{RankSheet, SheetShape};

/// Where the marks of a row come from; columns by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// Each row is a rank.
    Rows { part: usize, item: usize, mode: usize, rank: usize },
    /// Each row is a sheet.
    Sheets { sheet: usize, fault: usize },
}

/// Collapses the rows of batches: [`push`](Assembler::push) a batch, [`advance`](Assembler::advance) through it, and
/// [`take`](Assembler::take) what is complete, until nothing of it is left.
///
/// Holds one batch of rows, the sessions that are not taken yet (one row each), and one open sheet.
#[derive(Debug)]
pub(super) struct Assembler {
    marks: Marks,
    key: usize,
    kept: Vec<usize>,
    kept_schema: SchemaRef,
    schema: SchemaRef,
    rows: RankRows,
    /// The batch being worked on, and what is left of it.
    current: Option<(RecordBatch, std::vec::IntoIter<Range<usize>>)>,
    /// The key of the last batch's last row.
    last: Option<ArrayRef>,
    /// Whether the next run belongs to the open session.
    goes_on: bool,
    /// Whether there is an open session, which further rows may belong to.
    is_open: bool,
    /// The kept columns of the sessions begun: one row each, the last of them open.
    begun: Vec<RecordBatch>,
    open: RankSheet,
    /// The sheets and faults of the sessions that are complete.
    sheets: BinaryBuilder,
    faults: UInt32Builder,
}

impl Assembler {
    /// An assembler of batches whose columns `kept` come first in `schema`, followed by sheet and fault.
    pub(super) fn new(
        marks: Marks,
        key: usize,
        kept: Vec<usize>,
        shape: SheetShape,
        schema: SchemaRef,
    ) -> Result<Self> {
        let firsts: Vec<usize> = (0..kept.len()).collect();
        Ok(Assembler {
            marks,
            key,
            kept,
            kept_schema: Arc::new(schema.project(&firsts)?),
            schema,
            rows: RankRows::new(shape),
            current: None,
            last: None,
            goes_on: false,
            is_open: false,
            begun: Vec::new(),
            open: RankSheet::new(shape),
            sheets: BinaryBuilder::new(),
            faults: UInt32Builder::new(),
        })
    }

    /// How many sessions are complete.
    pub(super) fn complete(&self) -> usize {
        self.faults.len()
    }

    /// Takes in the next rows. Nothing is left of those before.
    pub(super) fn push(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let keys = batch.column(self.key);
        if let Marks::Rows { part, item, mode, rank } = self.marks {
            self.rows.read(batch.column(part), batch.column(item), batch.column(mode), batch.column(rank))?;
        }
        self.goes_on = match &self.last {
            Some(last) => runs(&concat(&[last.as_ref(), keys.slice(0, 1).as_ref()])?)?.len() == 1,
            None => false,
        };
        let runs = runs(keys)?.into_iter();
        self.current = Some((batch, runs));
        Ok(())
    }

    /// Works on the rows taken in, until they end or `until` sessions are complete.
    pub(super) fn advance(&mut self, until: usize) -> Result<()> {
        let Some((batch, mut runs)) = self.current.take() else { return Ok(()) };
        let mut begins: Vec<u32> = Vec::new();
        while self.complete() < until
            && let Some(run) = runs.next()
        {
            if !std::mem::take(&mut self.goes_on) {
                self.end();
                begins.push(run.start as u32);
                self.is_open = true;
            }
            self.enter(&batch, run);
        }
        if !begins.is_empty() {
            self.begun.push(take_record_batch(&batch.project(&self.kept)?, &UInt32Array::from(begins))?);
        }
        if runs.len() > 0 {
            self.current = Some((batch, runs));
        } else {
            self.last = Some(batch.column(self.key).slice(batch.num_rows() - 1, 1));
        }
        Ok(())
    }

    fn enter(&mut self, batch: &RecordBatch, run: Range<usize>) {
        match self.marks {
            Marks::Rows { .. } => self.rows.enter(run, &mut self.open),
            Marks::Sheets { sheet, fault } => {
                let (sheets, faults) = (batch.column(sheet).as_binary::<i32>(), batch.column(fault));
                let faults = faults.as_primitive::<UInt32Type>();
                for row in run {
                    self.open.add(sheets.value(row));
                    if faults.is_valid(row) {
                        self.open.fail_encoded(faults.value(row));
                    }
                }
            }
        }
    }

    /// Completes the session that the last row belongs to.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.open.finish_into(&mut self.sheets, &mut self.faults);
        }
    }

    /// The complete sessions that were not taken before, in the order of their first rows.
    pub(super) fn take(&mut self) -> Result<RecordBatch> {
        let complete = self.complete();
        let begun = concat_batches(&self.kept_schema, &self.begun)?;
        self.begun.clear();
        if begun.num_rows() > complete {
            // A copy of one row, so that it does not keep the others in memory.
            let open = UInt32Array::from_iter_values(complete as u32..begun.num_rows() as u32);
            self.begun.push(take_record_batch(&begun, &open)?);
        }
        let mut columns: Vec<ArrayRef> = begun.slice(0, complete).columns().iter().map(without_others).collect();
        columns.push(Arc::new(self.sheets.finish()));
        columns.push(Arc::new(self.faults.finish()));
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// The ranges of equal keys; nulls are equal.
fn runs(keys: &ArrayRef) -> Result<Vec<Range<usize>>> {
    if *keys.data_type() == DataType::Null {
        return Ok(std::iter::once(0..keys.len()).collect());
    }
    Ok(partition(std::slice::from_ref(keys))?.ranges())
}

/// Views refer to the text of all rows of their batch: of eighty rows one is kept, so its text is copied.
fn without_others(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => Arc::clone(column),
    }
}
