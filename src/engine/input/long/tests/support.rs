//! Inputs of the long layout, and what comes of them.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt8Array, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{Int64Type, UInt8Type, UInt32Type};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt as _;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_pcg::Pcg64Mcg;
use tempfile::TempDir;

use super::super::*;
use crate::engine::{EngineOptions, InputPart, Reading, SessionInput, Source, Sources, discover, session_context};
use crate::generate::{SessionGenerator, SessionOptions};
use crate::model::result::documented_type;
use crate::model::{FaultCode, Mode};
use crate::norms::{NormStore, NormStoreOptions};
use crate::scoring::decode_long_fault;
use crate::storage::{Storage, StorageOptions};

/// A folder of session files, and how they are read.
pub(super) struct Input {
    pub(super) folder: TempDir,
    pub(super) ranks: Vec<String>,
    pub(super) attributes: Vec<String>,
    pub(super) options: InputOptions,
    pub(super) engine: EngineOptions,
}

impl Input {
    pub(super) fn new() -> Self {
        let engine = EngineOptions { threads: 2, ..EngineOptions::default() };
        Input {
            folder: TempDir::new().unwrap(),
            ranks: vec![],
            attributes: vec![],
            options: InputOptions::default(),
            engine,
        }
    }

    pub(super) fn ranks(mut self, name: &str, rows: &RecordBatch) -> Self {
        self.ranks.push(self.write(name, rows));
        self
    }

    pub(super) fn attributes(mut self, name: &str, rows: &RecordBatch) -> Self {
        self.attributes.push(self.write(name, rows));
        self
    }

    pub(super) fn passing(mut self, columns: &[&str]) -> Self {
        self.options.passed = columns.iter().map(|&name| name.to_owned()).collect();
        self
    }

    pub(super) fn write(&self, name: &str, rows: &RecordBatch) -> String {
        let path = self.folder.path().join(name);
        write_file(File::create(&path).unwrap(), name, rows);
        path.display().to_string()
    }

    pub(super) async fn open(&self) -> Result<(SessionContext, SessionInput), EngineError> {
        let storage = Storage::new(StorageOptions::default(), []).unwrap();
        let instrument = Instrument::klsi4();
        let norms = NormStore::new(vec![], instrument.raw_ranges(), NormStoreOptions::default());
        let context = session_context(self.engine, &storage, Arc::new(norms)).unwrap();
        let found = async |names: &[String]| {
            let found = discover(&storage, names, None, Reading::Everything).await.unwrap();
            found.into_iter().map(Box::new).map(Source::File).collect::<Vec<_>>()
        };
        let sources = Sources { sessions: found(&self.ranks).await, attributes: found(&self.attributes).await };
        let input = SessionInput::open(&context, sources, &instrument, self.options.clone()).await?;
        Ok((context, input))
    }

    pub(super) async fn refused(&self) -> String {
        self.open().await.err().unwrap().to_string()
    }

    pub(super) async fn plan(&self) -> (Arc<dyn ExecutionPlan>, Arc<TaskContext>) {
        let (context, input) = self.open().await.unwrap();
        let part: [InputPart; 1] = input.parts().try_into().unwrap();
        let needed: Vec<String> = input.columns.columns.iter().map(|(name, _)| name.clone()).collect();
        (input.scan(&context, &part[0], &needed).unwrap(), context.task_ctx())
    }

    /// All canonical columns of the sessions.
    pub(super) async fn sessions(&self) -> RecordBatch {
        let (plan, context) = self.plan().await;
        collect(&plan, context).await
    }
}

pub(super) async fn collect(plan: &Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> RecordBatch {
    let batches: Vec<RecordBatch> = plan.execute(0, context).unwrap().try_collect().await.unwrap();
    concat_batches(&plan.schema(), &batches).unwrap()
}

pub(super) fn write_file(file: File, name: &str, rows: &RecordBatch) {
    // Text formats have no dictionaries.
    let plain = || {
        let schema = rows.schema();
        let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| {
            (field.name().clone(), cast(column, &documented_type(field.data_type())).unwrap(), true)
        });
        RecordBatch::try_from_iter_with_nullable(columns.collect::<Vec<_>>()).unwrap()
    };
    match name.rsplit('.').next().unwrap() {
        "parquet" => {
            let properties = WriterProperties::builder().set_max_row_group_row_count(Some(1_000)).build();
            let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
            writer.write(rows).unwrap();
            writer.close().unwrap();
        }
        "csv" => arrow::csv::Writer::new(file).write(&plain()).unwrap(),
        "ndjson" => {
            let mut writer = arrow::json::LineDelimitedWriter::new(file);
            writer.write(&plain()).unwrap();
            writer.finish().unwrap();
        }
        "arrow" => {
            let mut writer = arrow::ipc::writer::FileWriter::try_new(file, &rows.schema()).unwrap();
            writer.write(rows).unwrap();
            writer.finish().unwrap();
        }
        other => panic!("{other} is no format of these tests"),
    }
}

/// A session of the wide layout: its ranks by slot; `None` for a row with a null rank.
pub(super) type Ranks = Vec<Option<u8>>;

/// A rank row: session, slot, rank.
pub(super) type Row = (i64, usize, Option<u8>);

pub(super) fn rank_rows(rows: &[Row]) -> RecordBatch {
    let shape = SheetShape::of(&Instrument::klsi4());
    let names: Vec<String> = shape.wide_columns().collect();
    let part = |&(_, slot, _): &Row| if names[slot].starts_with('q') { "style" } else { "context" };
    let item = |&(_, slot, _): &Row| if slot < 48 { slot / 4 + 1 } else { (slot - 48) / 4 + 1 } as i64;
    let mode = |&(_, slot, _): &Row| Mode::ALL[slot % 4].code();
    let columns: [(&str, ArrayRef, bool); 5] = [
        ("session_id", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))), true),
        ("part", Arc::new(StringArray::from_iter_values(rows.iter().map(part))), true),
        ("item", Arc::new(Int64Array::from_iter_values(rows.iter().map(item))), true),
        ("mode", Arc::new(StringArray::from_iter_values(rows.iter().map(mode))), true),
        ("rank", Arc::new(UInt8Array::from_iter(rows.iter().map(|row| row.2))), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// All rows of a session whose ranks are as good as any.
pub(super) fn whole_session(id: i64) -> Vec<Row> {
    (0..80).map(|slot| (id, slot, Some(1 + (slot as u8 + slot as u8 / 4 + id as u8) % 4))).collect()
}

pub(super) fn table(ids: &[Option<i64>], names: &[&str]) -> RecordBatch {
    let columns: [(&str, ArrayRef, bool); 2] = [
        ("session_id", Arc::new(Int64Array::from_iter(ids.iter().copied())), true),
        ("team", Arc::new(StringArray::from_iter_values(names)), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

pub(super) fn ids(sessions: &RecordBatch) -> Vec<Option<i64>> {
    sessions.column_by_name("session_id").unwrap().as_primitive::<Int64Type>().iter().collect()
}

pub(super) fn texts(sessions: &RecordBatch, name: &str) -> Vec<Option<String>> {
    let column = cast(sessions.column_by_name(name).unwrap(), &DataType::Utf8).unwrap();
    column.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

pub(super) fn ranks(sessions: &RecordBatch) -> Vec<Ranks> {
    let columns: Vec<&UInt8Array> = SheetShape::of(&Instrument::klsi4())
        .wide_columns()
        .map(|name| sessions.column_by_name(&name).unwrap().as_primitive::<UInt8Type>())
        .collect();
    (0..sessions.num_rows())
        .map(|row| columns.iter().map(|column| column.is_valid(row).then(|| column.value(row))).collect())
        .collect()
}

pub(super) fn faults(sessions: &RecordBatch) -> Vec<Option<FaultCode>> {
    let faults = sessions.column_by_name(LONG_FAULT).unwrap().as_primitive::<UInt32Type>();
    faults.iter().map(|fault| fault.map(|fault| decode_long_fault(fault).unwrap().code)).collect()
}

pub(super) fn shuffled<T: Clone>(items: &[T], seed: u64) -> Vec<T> {
    let mut items = items.to_vec();
    items.shuffle(&mut Pcg64Mcg::seed_from_u64(seed));
    items
}

pub(super) fn generated(options: &SessionOptions, attributes: bool) -> RecordBatch {
    let generator = SessionGenerator::new(options.clone()).unwrap();
    let generator = if attributes { generator.attributes() } else { generator };
    let batches: Vec<RecordBatch> = generator.batches().collect::<Result<_, _>>().unwrap();
    concat_batches(&generator.schema(), &batches).unwrap()
}

pub(super) fn shuffled_rows(batch: &RecordBatch, seed: u64) -> RecordBatch {
    let order = shuffled(&(0..batch.num_rows() as u32).collect::<Vec<_>>(), seed);
    take_record_batch(batch, &UInt32Array::from(order)).unwrap()
}
