//! Whether two Parquet files of results say the same.

use std::fs::File;
use std::path::Path;

use arrow::array::{Array, ArrayRef, RecordBatch, make_comparator};
use arrow::compute::{SortOptions, cast, concat_batches};
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// How `theirs` differs from `ours`: columns by name and order, their types, and the first row in which values differ.
pub(crate) fn differences(ours: &Path, theirs: &Path) -> Vec<String> {
    let (ours, theirs) = (read(ours), read(theirs));
    let names = |batch: &RecordBatch| {
        batch.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(", ")
    };
    if names(&ours) != names(&theirs) {
        return vec![format!("its columns are {}", names(&theirs))];
    }
    if ours.num_rows() != theirs.num_rows() {
        return vec![format!("it has {} rows and not {}", theirs.num_rows(), ours.num_rows())];
    }
    let schema = ours.schema();
    let columns = schema.fields().iter().zip(ours.columns().iter().zip(theirs.columns()));
    columns.filter_map(|(field, (ours, theirs))| difference(field.name(), ours, theirs)).collect()
}

fn difference(name: &str, ours: &ArrayRef, theirs: &ArrayRef) -> Option<String> {
    let numeric = |data_type: &DataType| (data_type.is_integer(), data_type.primitive_width());
    if numeric(ours.data_type()) != numeric(theirs.data_type()) {
        return Some(format!("{name} is {} and not {}", theirs.data_type(), ours.data_type()));
    }
    let theirs = match cast(theirs, ours.data_type()) {
        Ok(theirs) => theirs,
        Err(error) => return Some(format!("{name}: {error}")),
    };
    let compare = make_comparator(ours, &theirs, SortOptions::default()).expect("columns of one type compare");
    let row = (0..ours.len()).find(|&row| compare(row, row).is_ne())?;
    Some(format!("{name} in row {row} is {:?} and not {:?}", theirs.slice(row, 1), ours.slice(row, 1)))
}

fn read(path: &Path) -> RecordBatch {
    let file = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let schema = file.schema().clone();
    let batches: Vec<RecordBatch> = file.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}
