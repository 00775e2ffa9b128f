//! Hive partitions: rows go into folders named by the values of some columns, and the files have the others.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{cast, partition};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::SessionContext;

use crate::export::ExportError;
use crate::export::sink::files::sort;
use crate::run::RunError;

/// The folder of rows whose value is null, as Hive names it.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// How rows are dealt out to folders.
pub(super) struct Partitions {
    /// The columns that name folders, outermost first.
    folders: Vec<usize>,
    /// The columns that are written.
    files: Vec<usize>,
    names: Vec<String>,
    file_schema: SchemaRef,
}

impl Partitions {
    pub(super) fn new(schema: &Schema, by: &[String], target: &str) -> Result<Self, ExportError> {
        let refused = |reason: String| ExportError::Target { target: target.to_owned(), reason };
        let index = |name: &String| {
            schema
                .index_of(name)
                .map_err(|_| refused(format!("partition_by names {name}, which the query does not give")))
        };
        let folders = by.iter().map(index).collect::<Result<Vec<_>, _>>()?;
        let files: Vec<usize> = (0..schema.fields().len()).filter(|index| !folders.contains(index)).collect();
        if files.is_empty() {
            return Err(refused("partition_by names every column, and none is left to be written".to_owned()));
        }
        let file_schema = Arc::new(schema.project(&files).map_err(encode_failed)?);
        Ok(Self { folders, files, names: by.to_vec(), file_schema })
    }

    /// The columns that are written.
    pub(super) fn file_schema(&self) -> SchemaRef {
        Arc::clone(&self.file_schema)
    }

    /// The rows folder by folder. Within a folder they keep their order.
    pub(super) fn sorted(
        &self,
        rows: SendableRecordBatchStream,
        context: &SessionContext,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        if self.folders.is_empty() { Ok(rows) } else { sort::sorted(rows, &self.folders, context) }
    }

    /// Sorted rows by folder (`country=DE/year=2024/`).
    pub(super) fn split(&self, batch: &RecordBatch) -> Result<Vec<(String, RecordBatch)>, ExportError> {
        if self.folders.is_empty() {
            return Ok(vec![(String::new(), batch.clone())]);
        }
        self.split_by_value(batch).map_err(|error| encode_failed(error).into())
    }

    fn split_by_value(&self, batch: &RecordBatch) -> Result<Vec<(String, RecordBatch)>, ArrowError> {
        let plain = |index: &usize| match batch.column(*index).data_type() {
            DataType::Dictionary(_, value) => cast(batch.column(*index), value),
            _ => Ok(Arc::clone(batch.column(*index))),
        };
        let keys = self.folders.iter().map(plain).collect::<Result<Vec<ArrayRef>, _>>()?;
        let files = batch.project(&self.files)?;
        let ranges = partition(&keys)?.ranges();
        ranges
            .into_iter()
            .map(|range| Ok((self.folder(&keys, range.start)?, files.slice(range.start, range.len()))))
            .collect()
    }

    fn folder(&self, keys: &[ArrayRef], row: usize) -> Result<String, ArrowError> {
        let mut folder = String::new();
        for (name, key) in self.names.iter().zip(keys) {
            let options = FormatOptions::new().with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.6fZ"));
            let value = match key.is_null(row) {
                true => NULL.to_owned(),
                false => escaped(&ArrayFormatter::try_new(key, &options)?.value(row).to_string()),
            };
            let _ = write!(folder, "{}={value}/", escaped(name));
        }
        Ok(folder)
    }
}

/// A name or value as Hive writes it into a path.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\0'..='\x1f'
            | '"'
            | '#'
            | '%'
            | '\''
            | '*'
            | '/'
            | ':'
            | '='
            | '?'
            | '\\'
            | '\x7f'
            | '{'
            | '['
            | ']'
            | '^' => {
                let _ = write!(escaped, "%{:02X}", u32::from(letter));
            }
            letter => escaped.push(letter),
        }
    }
    escaped
}

fn encode_failed(source: ArrowError) -> RunError {
    RunError::Encode { format: "parquet", source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::{AsArray, Int32Array, StringArray};
    use arrow::datatypes::Int32Type;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use futures::StreamExt;

    fn batch(countries: Vec<Option<&str>>, scores: Vec<i32>) -> RecordBatch {
        let countries = StringArray::from(countries);
        RecordBatch::try_from_iter([
            ("country", Arc::new(countries) as ArrayRef),
            ("score", Arc::new(Int32Array::from(scores))),
        ])
        .unwrap()
    }

    #[tokio::test]
    async fn rows_go_into_the_folders_of_their_values_in_order() {
        let batches = [
            batch(vec![Some("DE"), None, Some("a/b"), Some("DE")], vec![4, 2, 3, 1]),
            batch(vec![None, Some("DE")], vec![0, 9]),
        ];
        let schema = batches[0].schema();
        let partitions = Partitions::new(&schema, &["country".to_owned()], "dw").unwrap();
        let rows = Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter(batches.map(Ok))));
        let mut rows = partitions.sorted(rows, &SessionContext::new()).unwrap();
        let mut folders = Vec::new();
        while let Some(batch) = rows.next().await {
            for (folder, rows) in partitions.split(&batch.unwrap()).unwrap() {
                assert_eq!(rows.schema(), partitions.file_schema());
                folders.push((folder, rows.column(0).as_primitive::<Int32Type>().values().to_vec()));
            }
        }
        let folder = |name: &str, scores: &[i32]| (format!("country={name}/"), scores.to_vec());
        assert_eq!(
            folders,
            [folder("__HIVE_DEFAULT_PARTITION__", &[2, 0]), folder("DE", &[4, 1, 9]), folder("a%2Fb", &[3])]
        );
        assert_eq!(partitions.file_schema().fields().len(), 1);
    }

    #[test]
    fn a_column_that_is_not_there_cannot_be_partitioned_by() {
        let batch = RecordBatch::try_from_iter([("a", Arc::new(StringArray::from(vec!["x"])) as ArrayRef)]).unwrap();
        let error = Partitions::new(&batch.schema(), &["b".to_owned()], "dw").err().unwrap().to_string();
        assert_eq!(error, "the target dw cannot be used: partition_by names b, which the query does not give");
        assert!(Partitions::new(&batch.schema(), &["a".to_owned()], "dw").is_err());
    }
}
