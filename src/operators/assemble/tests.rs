//! What assembling promises, row by row; whole inputs are assembled in the tests of `engine::input::long`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Int64Array, LargeStringArray, StringArray, StringViewArray, UInt8Array,
};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{Int32Type, Int64Type, UInt8Type, UInt32Type};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::physical_expr::expressions::col;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlanProperties as _;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::test::exec::{BlockingExec, MockExec, assert_strong_count_converges_to_zero};
use datafusion::prelude::SessionConfig;
use futures::{FutureExt as _, StreamExt as _};

use super::*;
use crate::instrument::Instrument;
use crate::operators::StageExec;
use crate::scoring::decode_long_fault;

/// A rank row: session, part, item, mode, rank; and a note, which is an attribute of the session.
type Row<'a> = (Option<i64>, Option<&'a str>, Option<i64>, Option<&'a str>, Option<i64>, &'a str);

fn row<'a>(session: i64, part: &'a str, item: i64, mode: &'a str, rank: i64) -> Row<'a> {
    (Some(session), Some(part), Some(item), Some(mode), Some(rank), "")
}

fn batch(rows: &[Row<'_>]) -> RecordBatch {
    let sessions: Int64Array = rows.iter().map(|row| row.0).collect();
    let parts: StringArray = rows.iter().map(|row| row.1).collect();
    let items: Int64Array = rows.iter().map(|row| row.2).collect();
    let modes: StringArray = rows.iter().map(|row| row.3).collect();
    let ranks: Int64Array = rows.iter().map(|row| row.4).collect();
    let notes = StringArray::from_iter_values(rows.iter().map(|row| row.5));
    let columns: [(&str, ArrayRef, bool); 6] = [
        ("part", Arc::new(parts), true),
        ("session_id", Arc::new(sessions), true),
        ("item", Arc::new(items), true),
        ("mode", Arc::new(modes), true),
        ("rank", Arc::new(ranks), true),
        ("note", Arc::new(notes), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn memory(batches: Vec<RecordBatch>) -> Arc<dyn ExecutionPlan> {
    let schema = batches[0].schema();
    MemorySourceConfig::try_new_exec(&[batches], schema, None).unwrap()
}

fn shape() -> SheetShape {
    SheetShape::of(&Instrument::klsi4())
}

fn columns() -> RankColumns {
    let [part, item, mode, rank] = ["part", "item", "mode", "rank"].map(str::to_owned);
    RankColumns { part, item, mode, rank }
}

fn from_rows(input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Arc::new(AssembleExec::from_rows(input, "session_id", columns(), shape()).unwrap())
}

fn context(batch_size: usize) -> Arc<TaskContext> {
    Arc::new(TaskContext::default().with_session_config(SessionConfig::new().with_batch_size(batch_size)))
}

async fn batches_of(plan: Arc<dyn ExecutionPlan>, batch_size: usize) -> Vec<RecordBatch> {
    plan.execute(0, context(batch_size)).unwrap().try_collect().await.unwrap()
}

/// Everything that assembling says of a session, as text: id, note, ranks that are present, fault.
async fn sessions(plan: Arc<dyn ExecutionPlan>, batch_size: usize) -> Vec<String> {
    let plan: Arc<dyn ExecutionPlan> = Arc::new(StageExec::try_new(plan, Arc::new(UnfoldStage::new(shape()))).unwrap());
    let batches = batches_of(Arc::clone(&plan), batch_size).await;
    let all = concat_batches(&plan.schema(), &batches).unwrap();
    (0..all.num_rows()).map(|row| describe(&all, row)).collect()
}

fn describe(batch: &RecordBatch, row: usize) -> String {
    let text = |name: &str| {
        let column = cast(batch.column_by_name(name).unwrap(), &DataType::Utf8).unwrap();
        let column = column.as_string::<i32>();
        if column.is_null(row) { "null".to_owned() } else { column.value(row).to_owned() }
    };
    let mut said = vec![text("session_id"), text("note")];
    for name in shape().wide_columns() {
        let ranks = batch.column_by_name(&name).unwrap().as_primitive::<UInt8Type>();
        if ranks.is_valid(row) {
            said.push(format!("{name}={}", ranks.value(row)));
        }
    }
    let faults = batch.column_by_name(LONG_FAULT).unwrap().as_primitive::<UInt32Type>();
    if faults.is_valid(row) {
        said.push(decode_long_fault(faults.value(row)).unwrap().to_string());
    }
    said.retain(|text| !text.is_empty());
    said.join(" ")
}

#[tokio::test]
async fn adjacent_rows_of_a_session_become_one_with_the_first_rows_other_columns() {
    let rows = [
        (Some(7), Some("style"), Some(1), Some("CE"), Some(4), "first"),
        (Some(7), Some("context"), Some(8), Some("AE"), Some(1), "second"),
        (Some(3), Some("style"), Some(12), Some("ac"), Some(2), "other"),
    ];
    let plan = from_rows(memory(vec![batch(&rows)]));
    assert_eq!(sessions(plan, 10).await, ["7 first q01_ce=4 ctx08_ae=1", "3 other q12_ac=2"]);
}

#[tokio::test]
async fn where_batches_end_makes_no_difference() {
    let rows: Vec<Row<'_>> = (0..40)
        .map(|n| {
            row([5, 5, 5, 9, 9, 1, 1, 1, 1, 5][n / 4], "style", 1 + n as i64 % 10, ["CE", "RO", "AC", "AE"][n % 4], 3)
        })
        .collect();
    let whole = batch(&rows);
    let expected = sessions(from_rows(memory(vec![whole.clone()])), 100).await;
    assert_eq!(expected.len(), 4);
    for input_rows in [1, 2, 3, 7, 12, 39] {
        for batch_size in [1, 2, 3] {
            let pieces: Vec<RecordBatch> =
                (0..40).step_by(input_rows).map(|from| whole.slice(from, input_rows.min(40 - from))).collect();
            let plan = from_rows(memory(pieces));
            assert_eq!(sessions(plan, batch_size).await, expected, "{input_rows} rows a batch, {batch_size} out");
        }
    }
}

#[tokio::test]
async fn empty_batches_and_an_empty_input_give_nothing() {
    let empty = batch(&[]);
    assert!(sessions(from_rows(memory(vec![empty.clone()])), 4).await.is_empty());
    let one = batch(&[row(1, "style", 1, "CE", 1)]);
    let two = batch(&[row(1, "style", 1, "RO", 2)]);
    let plan = from_rows(memory(vec![empty.clone(), one, empty.clone(), two, empty]));
    assert_eq!(sessions(plan, 4).await, ["1 q01_ce=1 q01_ro=2"]);
}

#[tokio::test]
async fn output_batches_are_full_whatever_the_input_batches_are() {
    let rows: Vec<Row<'_>> = (0..25).map(|session| row(session, "style", 1, "CE", 1)).collect();
    let whole = batch(&rows);
    let input = (0..25).step_by(5).map(|from| whole.slice(from, 5)).collect();
    let sizes: Vec<usize> = batches_of(from_rows(memory(input)), 8).await.iter().map(RecordBatch::num_rows).collect();
    assert_eq!(sizes, [8, 8, 8, 1]);
}

#[tokio::test]
async fn ranks_that_are_none_are_told_apart() {
    let rows = [
        (Some(1), Some("style"), Some(2), Some("CE"), None, ""),
        (Some(1), Some("style"), Some(2), Some("RO"), Some(5), ""),
        (Some(1), Some("style"), Some(2), Some("AC"), Some(-1), ""),
        (Some(1), Some("style"), Some(2), Some("AE"), Some(4), ""),
        // The null above is a row, so this is the second rank of its slot.
        (Some(2), Some("style"), Some(2), Some("CE"), None, ""),
        (Some(2), Some("style"), Some(2), Some("CE"), Some(1), ""),
    ];
    let plan = from_rows(memory(vec![batch(&rows)]));
    assert_eq!(sessions(plan, 10).await, ["1 q02_ro=0 q02_ac=0 q02_ae=4", "2 CE is ranked more than once in item q02"]);
}

#[tokio::test]
async fn rows_that_belong_to_no_item_or_mode_are_faults_of_their_session() {
    let rows = [
        (Some(1), Some("styles"), Some(1), Some("CE"), Some(1), ""),
        (Some(2), Some("style"), Some(13), Some("CE"), Some(1), ""),
        (Some(3), Some("context"), Some(9), Some("CE"), Some(1), ""),
        (Some(4), Some("context"), Some(0), Some("CE"), Some(1), ""),
        (Some(5), None, Some(1), Some("CE"), Some(1), ""),
        (Some(6), Some("style"), None, Some("CE"), Some(1), ""),
        (Some(7), Some("style"), Some(9), Some("XX"), Some(1), ""),
        (Some(8), Some("context"), Some(2), None, Some(1), ""),
        (Some(9), Some("style"), Some(1 << 40), Some("CE"), Some(1), ""),
        (Some(10), Some("Style"), Some(1), Some("aE"), Some(2), ""),
    ];
    let said = sessions(from_rows(memory(vec![batch(&rows)])), 20).await;
    let nowhere = "a row names a part or an item that the instrument does not have";
    for session in [1, 2, 3, 4, 5, 6, 9] {
        assert_eq!(said[session - 1], format!("{session} {nowhere}"));
    }
    assert_eq!(said[6], "7 a row of item q09 names a mode other than CE, RO, AC or AE");
    assert_eq!(said[7], "8 a row of item ctx02 names a mode other than CE, RO, AC or AE");
    assert_eq!(said[9], "10 q01_ae=2");
}

#[tokio::test]
async fn of_several_faults_the_first_in_checking_order_is_kept_whatever_order_rows_have() {
    let duplicate = [row(1, "style", 4, "CE", 1), row(1, "style", 4, "CE", 2)];
    let later_duplicate = [row(1, "style", 5, "CE", 1), row(1, "style", 5, "CE", 1)];
    let mode = [row(1, "style", 4, "ZZ", 1)];
    let item = [row(1, "style", 40, "CE", 1)];
    let first_of = async |rows: Vec<Row<'_>>| {
        let there = sessions(from_rows(memory(vec![batch(&rows)])), 10).await;
        let back: Vec<Row<'_>> = rows.into_iter().rev().collect();
        let back = sessions(from_rows(memory(vec![batch(&back)])), 10).await;
        let fault = |said: &[String]| said[0].rsplit_once("= ").map_or(said[0].clone(), |(_, fault)| fault.to_owned());
        let strip = |said: String| said.split(' ').filter(|word| !word.contains('=')).collect::<Vec<_>>().join(" ");
        assert_eq!(strip(fault(&there)), strip(fault(&back)));
        strip(fault(&there))
    };
    assert_eq!(
        first_of([&later_duplicate[..], &duplicate].concat()).await,
        "1 CE is ranked more than once in item q04"
    );
    assert_eq!(
        first_of([&duplicate[..], &mode].concat()).await,
        "1 a row of item q04 names a mode other than CE, RO, AC or AE"
    );
    assert_eq!(
        first_of([&mode[..], &duplicate, &item].concat()).await,
        "1 a row names a part or an item that the instrument does not have"
    );
}

#[tokio::test]
async fn rows_without_an_id_are_one_session() {
    let none = |item| (None, Some("style"), Some(item), Some("CE"), Some(1), "");
    let plan = from_rows(memory(vec![batch(&[none(1), none(2)]), batch(&[none(3), row(1, "style", 1, "CE", 1)])]));
    assert_eq!(sessions(plan, 10).await, ["null q01_ce=1 q02_ce=1 q03_ce=1", "1 q01_ce=1"]);
}

#[tokio::test]
async fn ids_and_attributes_may_be_strings_in_any_encoding() {
    let texts = [Some("a"), Some("a"), Some("b"), None, Some("a")];
    let dictionary: DictionaryArray<Int32Type> = texts.into_iter().collect();
    let encodings: [ArrayRef; 4] = [
        Arc::new(StringArray::from_iter(texts)),
        Arc::new(LargeStringArray::from_iter(texts)),
        Arc::new(StringViewArray::from_iter(texts)),
        Arc::new(dictionary),
    ];
    for ids in encodings {
        let modes = StringViewArray::from_iter_values(["CE", "RO", "CE", "CE", "AC"]);
        let ranks = StringArray::from_iter_values(["1", " 2 ", "x", "4", ""]);
        let columns: [(&str, ArrayRef, bool); 6] = [
            ("session_id", Arc::clone(&ids), true),
            ("note", Arc::clone(&ids), true),
            ("part", Arc::new(StringArray::from_iter_values(["style"; 5])), true),
            ("item", Arc::new(UInt8Array::from_iter_values([1; 5])), true),
            ("mode", Arc::new(modes), true),
            ("rank", Arc::new(ranks), true),
        ];
        let rows = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let input = vec![rows.slice(0, 1), rows.slice(1, 3), rows.slice(4, 1)];
        let said = sessions(from_rows(memory(input)), 2).await;
        assert_eq!(said, ["a a q01_ce=1 q01_ro=2", "b b q01_ce=0", "null null q01_ce=4", "a a"], "{}", ids.data_type());
    }
}

#[tokio::test]
async fn a_note_kept_as_a_view_does_not_keep_the_text_of_the_rows_that_are_gone() {
    let long = "a text too long to be kept in a view itself, of which each row has its own copy";
    let notes = StringViewArray::from_iter_values((0..800).map(|row| format!("{long} {row}")));
    let columns: [(&str, ArrayRef, bool); 6] = [
        ("session_id", Arc::new(Int64Array::from_iter_values((0..800).map(|row| row / 80))), true),
        ("note", Arc::new(notes), true),
        ("part", Arc::new(StringArray::from_iter_values(["style"; 800])), true),
        ("item", Arc::new(UInt8Array::from_iter_values([1; 800])), true),
        ("mode", Arc::new(StringArray::from_iter_values(["CE"; 800])), true),
        ("rank", Arc::new(UInt8Array::from_iter_values([1; 800])), true),
    ];
    let rows = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let assembled = batches_of(from_rows(memory(vec![rows])), 100).await;
    assert_eq!(assembled.iter().map(RecordBatch::num_rows).sum::<usize>(), 10);
    let bytes: usize =
        assembled.iter().map(|batch| batch.column_by_name("note").unwrap().get_buffer_memory_size()).sum();
    assert!(bytes < 4_000, "{bytes} bytes for ten notes");
}

#[tokio::test]
async fn sheets_of_one_session_become_one_and_a_rank_in_two_of_them_is_a_duplicate() {
    let rows = [
        (Some(1), Some("style"), Some(1), Some("CE"), Some(4), "a"),
        (Some(2), Some("style"), Some(1), Some("CE"), Some(3), "b"),
        (Some(1), Some("style"), Some(1), Some("RO"), Some(2), "c"),
        (Some(2), Some("style"), Some(1), Some("CE"), Some(1), "d"),
        (Some(2), Some("style"), Some(1), Some("??"), Some(1), "e"),
    ];
    let sheets = batches_of(from_rows(memory(vec![batch(&rows)])), 10).await;
    let whole = concat_batches(&sheets[0].schema(), &sheets).unwrap();
    // Sorted by session, those of one in the order of their rows.
    let sorted = take_rows(&whole, &[0, 2, 1, 3]);
    let plan = AssembleExec::from_sheets(memory(vec![sorted.slice(0, 1), sorted.slice(1, 3)]), "session_id", shape());
    assert_eq!(
        sessions(Arc::new(plan.unwrap()), 1).await,
        ["1 a q01_ce=4 q01_ro=2", "2 b q01_ce=3 a row of item q01 names a mode other than CE, RO, AC or AE"]
    );
    assert_eq!(sheets[0].column_by_name("session_id").unwrap().as_primitive::<Int64Type>().values(), &[1, 2, 1, 2]);
}

fn take_rows(batch: &RecordBatch, rows: &[u32]) -> RecordBatch {
    arrow::compute::take_record_batch(batch, &arrow::array::UInt32Array::from(rows.to_vec())).unwrap()
}

#[test]
fn an_input_without_a_column_or_with_one_of_another_type_is_refused() {
    let rows = batch(&[row(1, "style", 1, "CE", 1)]);
    let refused = |rows: RecordBatch, key: &str| {
        AssembleExec::from_rows(memory(vec![rows]), key, columns(), shape()).unwrap_err().strip_backtrace()
    };
    let error = refused(rows.clone(), "id");
    assert!(error.contains("AssembleExec needs the column 'id', which the input does not have"), "{error}");
    let error = refused(rows.project(&[0, 1, 2, 3]).unwrap(), "session_id");
    assert!(error.contains("AssembleExec needs the column 'rank'"), "{error}");
    let swapped = RankColumns { part: "item".to_owned(), item: "part".to_owned(), ..columns() };
    let error = AssembleExec::from_rows(memory(vec![rows.clone()]), "session_id", swapped, shape());
    let error = error.unwrap_err().strip_backtrace();
    assert!(error.contains("cannot read the column 'item' of type Int64"), "{error}");
    let error = AssembleExec::from_sheets(memory(vec![rows]), "session_id", shape()).unwrap_err().strip_backtrace();
    assert!(error.contains("AssembleExec needs the column 'rank_sheet'"), "{error}");
}

#[test]
fn the_order_of_the_input_is_the_order_of_the_output() {
    let input = memory(vec![batch(&[row(1, "style", 1, "CE", 1)])]);
    let by_id = |schema: &Schema| {
        LexOrdering::new([PhysicalSortExpr::new_default(col("session_id", schema).unwrap())]).unwrap()
    };
    let sorted = Arc::new(SortExec::new(by_id(&input.schema()), input));
    let plan = from_rows(sorted);
    assert!(plan.equivalence_properties().ordering_satisfy(by_id(&plan.schema())).unwrap());
    assert_eq!(plan.output_partitioning().partition_count(), 1);
}

#[tokio::test]
async fn an_error_of_the_input_is_passed_on_after_what_was_complete() {
    let good = batch(&[row(1, "style", 1, "CE", 1), row(2, "style", 1, "CE", 1)]);
    let schema = good.schema();
    let failed = Err(DataFusionError::Execution("the disk is gone".to_owned()));
    let input = Arc::new(MockExec::new(vec![Ok(good), failed], schema));
    let mut stream = from_rows(input).execute(0, context(1)).unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().num_rows(), 1);
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_stream_that_is_dropped_midway_lets_go_of_its_input() {
    let blocking = Arc::new(BlockingExec::new(batch(&[]).schema(), 1));
    let refs = blocking.refs();
    let plan = from_rows(blocking);
    let mut stream = plan.execute(0, context(1)).unwrap();
    assert!(stream.next().now_or_never().is_none());
    drop(stream);
    drop(plan);
    assert_strong_count_converges_to_zero(refs).await;
}

#[test]
fn a_plan_shows_what_is_assembled() {
    let rows = from_rows(memory(vec![batch(&[])]));
    let sheets = AssembleExec::from_sheets(Arc::clone(&rows), "session_id", shape()).unwrap();
    let shown = datafusion::physical_plan::displayable(&sheets).indent(false).to_string();
    assert!(shown.starts_with("AssembleExec: sheets by session_id\n  AssembleExec: rows by session_id\n"), "{shown}");
}
