//! What integration tests share: running the program, and reading what it wrote.

pub mod azure_server;
pub mod faulty_proxy;
pub mod http_server;
pub mod jobs;
pub mod postgres;
pub mod s3_server;
pub mod static_files;
pub mod tls_front;

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use assert_cmd::Command;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// The program, in an empty environment as far as it is concerned.
pub fn normstream() -> Command {
    let mut command = Command::cargo_bin("normstream").unwrap();
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("NORMSTREAM_")) {
        command.env_remove(key);
    }
    command.env("NO_COLOR", "1");
    command
}

/// A golden file.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A whole Parquet file.
pub fn read_parquet(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let schema = reader.schema().clone();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

/// A column by name.
pub fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name} in {:?}", batch.schema()))
}

/// A column of integers of any width.
pub fn integers(batch: &RecordBatch, name: &str) -> Vec<Option<i64>> {
    let column = cast(column(batch, name), &DataType::Int64).unwrap();
    column.as_primitive::<Int64Type>().iter().collect()
}

/// A column of strings.
pub fn strings(batch: &RecordBatch, name: &str) -> Vec<Option<String>> {
    let column = cast(column(batch, name), &DataType::Utf8).unwrap();
    column.as_string::<i32>().iter().map(|value| value.map(str::to_owned)).collect()
}

/// A column of floats.
pub fn floats(batch: &RecordBatch, name: &str) -> Vec<Option<f64>> {
    column(batch, name).as_primitive::<Float64Type>().iter().collect()
}

/// A column of booleans.
pub fn booleans(batch: &RecordBatch, name: &str) -> Vec<Option<bool>> {
    column(batch, name).as_boolean().iter().collect()
}

/// A column of lists of strings.
pub fn lists(batch: &RecordBatch, name: &str) -> Vec<Option<Vec<String>>> {
    let lists = column(batch, name).as_list::<i32>();
    let list = |row: usize| {
        let items = cast(&lists.value(row), &DataType::Utf8).unwrap();
        items.as_string::<i32>().iter().map(|item| item.unwrap().to_owned()).collect()
    };
    (0..lists.len()).map(|row| lists.is_valid(row).then(|| list(row))).collect()
}
