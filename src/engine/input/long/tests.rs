//! Whole inputs of the long layout: files in, sessions out.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::Int64Type;
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt as _;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_pcg::Pcg64Mcg;

use super::*;
use crate::engine::{ColumnNames, EngineOptions, PartLimits, Scoring};
use crate::generate::SessionOptions;
use crate::model::FaultCode;
use crate::model::result::{documented_type, timestamp_type};
use crate::norms::Chain;
use support::*;

#[tokio::test]
async fn sessions_come_out_in_the_order_of_their_first_rows() {
    let rows = [whole_session(30), whole_session(10), whole_session(20)].concat();
    let sessions = Input::new().ranks("ranks.parquet", &rank_rows(&rows)).sessions().await;
    assert_eq!(ids(&sessions), [Some(30), Some(10), Some(20)]);
    assert_eq!(faults(&sessions), [None; 3]);
    let expected: Vec<Ranks> = [30, 10, 20].map(|id| whole_session(id).into_iter().map(|row| row.2).collect()).to_vec();
    assert_eq!(ranks(&sessions), expected);
}

#[tokio::test]
async fn a_session_may_lie_in_several_files_of_several_formats() {
    let rows: Vec<Row> = shuffled(&[whole_session(3), whole_session(1), whole_session(2)].concat(), 5);
    let piece = |from: usize, to: usize| rank_rows(&rows[from..to]);
    let input = Input::new()
        .ranks("a.ndjson", &piece(0, 50))
        .ranks("b.parquet", &piece(50, 100))
        .ranks("c.arrow", &piece(100, 150))
        .ranks("d.csv", &piece(150, 240));
    let sessions = input.sessions().await;
    let mut first: Vec<i64> = Vec::new();
    rows.iter().for_each(|row| {
        if !first.contains(&row.0) {
            first.push(row.0);
        }
    });
    assert_eq!(ids(&sessions), first.iter().map(|&id| Some(id)).collect::<Vec<_>>());
    assert_eq!(faults(&sessions), [None; 3]);
    let expected: Vec<Ranks> =
        first.iter().map(|&id| whole_session(id).into_iter().map(|row| row.2).collect()).collect();
    assert_eq!(ranks(&sessions), expected);
}

#[tokio::test]
async fn a_table_of_attributes_gives_the_order_and_sessions_without_it_follow() {
    let rows = [whole_session(9), whole_session(1), whole_session(8), whole_session(2)].concat();
    for name in ["table.parquet", "table.csv", "table.ndjson", "table.arrow"] {
        let attributes = table(&[Some(2), Some(5), Some(1)], &["two", "five", "one"]);
        let input = Input::new().ranks("ranks.csv", &rank_rows(&rows)).attributes(name, &attributes).passing(&["team"]);
        let sessions = input.sessions().await;
        assert_eq!(ids(&sessions), [Some(2), Some(5), Some(1), Some(9), Some(8)], "{name}");
        let team = |name: &str| Some(name.to_owned());
        assert_eq!(texts(&sessions, "team"), [team("two"), team("five"), team("one"), None, None], "{name}");
        // A session of the table that has no rows has no ranks.
        assert_eq!(ranks(&sessions)[1], vec![None; 80]);
        assert_eq!(ranks(&sessions)[2], whole_session(1).into_iter().map(|row| row.2).collect::<Ranks>());
        assert_eq!(faults(&sessions), [None; 5]);
    }
}

#[tokio::test]
async fn each_of_two_rows_of_the_table_with_one_id_gets_the_ranks() {
    let attributes = table(&[Some(4), Some(3), Some(4)], &["a", "b", "c"]);
    let rows = [whole_session(3), whole_session(4)].concat();
    let input = Input::new().ranks("r.parquet", &rank_rows(&rows)).attributes("t.csv", &attributes).passing(&["team"]);
    let sessions = input.sessions().await;
    assert_eq!(ids(&sessions), [Some(4), Some(3), Some(4)]);
    assert_eq!(texts(&sessions, "team").concat_texts(), "a b c");
    assert_eq!(ranks(&sessions)[0], ranks(&sessions)[2]);
}

/// Texts in one line, for a short comparison.
trait ConcatTexts {
    fn concat_texts(&self) -> String;
}

impl ConcatTexts for Vec<Option<String>> {
    fn concat_texts(&self) -> String {
        self.iter().map(|text| text.as_deref().unwrap_or("-")).collect::<Vec<_>>().join(" ")
    }
}

#[tokio::test]
async fn ids_that_are_null_are_one_session_of_ranks_and_match_nothing() {
    let rows = "session_id,part,item,mode,rank\n,style,1,CE,4\n7,style,1,CE,3\n\" \",style,1,RO,2\n";
    let input = Input::new();
    std::fs::write(input.folder.path().join("ranks.csv"), rows).unwrap();
    let path = input.folder.path().join("ranks.csv").display().to_string();
    let attributes = table(&[None, Some(7), None], &["x", "y", "z"]);
    let input = Input { ranks: vec![path], ..input }.attributes("t.parquet", &attributes).passing(&["team"]);
    let sessions = input.sessions().await;
    assert_eq!(texts(&sessions, "session_id").concat_texts(), "- 7 - -");
    assert_eq!(texts(&sessions, "team").concat_texts(), "x y z -");
    let given: Vec<Vec<u8>> = ranks(&sessions).iter().map(|ranks| ranks.iter().flatten().copied().collect()).collect();
    assert_eq!(given, [vec![], vec![3], vec![], vec![4, 2]]);
}

#[tokio::test]
async fn ids_of_one_table_may_be_numbers_and_of_the_other_text() {
    let rows = rank_rows(&[(7, 0, Some(1)), (12, 0, Some(2))]);
    let names: [(&str, ArrayRef, bool); 2] = [
        ("session_id", Arc::new(StringArray::from(vec!["12", "x-1", "7"])), true),
        ("team", Arc::new(StringArray::from(vec!["twelve", "x", "seven"])), true),
    ];
    let attributes = RecordBatch::try_from_iter_with_nullable(names).unwrap();
    let input = Input::new().ranks("r.parquet", &rows).attributes("t.parquet", &attributes).passing(&["team"]);
    let (_, opened) = input.open().await.unwrap();
    assert_eq!(opened.columns.data_type("session_id"), Some(&DataType::Utf8));
    let sessions = input.sessions().await;
    assert_eq!(texts(&sessions, "session_id").concat_texts(), "12 x-1 7");
    assert_eq!(ranks(&sessions).iter().map(|ranks| ranks[0]).collect::<Vec<_>>(), [Some(2), None, Some(1)]);
}

#[tokio::test]
async fn attributes_may_stand_on_the_rows_and_the_first_row_counts() {
    let rows = [(1, 0, Some(4)), (1, 1, Some(3)), (2, 0, Some(1)), (1, 2, Some(2))];
    let mut columns: Vec<(String, ArrayRef, bool)> = Vec::new();
    let batch = rank_rows(&rows);
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        columns.push((field.name().replace("session_id", "sid"), Arc::clone(column), true));
    }
    columns.push(("country".into(), Arc::new(StringArray::from(vec![Some("Spain"), Some("Peru"), None, None])), true));
    columns.push(("respondent".into(), Arc::new(Int64Array::from(vec![11, 12, 21, 13])), true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let mut input = Input::new().ranks("ranks.parquet", &batch);
    input.options.names = ColumnNames(BTreeMap::from([
        ("session_id".to_owned(), "sid".to_owned()),
        ("user_id".to_owned(), "respondent".to_owned()),
    ]));
    input.options.attributes = vec!["country".to_owned(), "gender".to_owned()];
    let sessions = input.sessions().await;
    assert_eq!(ids(&sessions), [Some(1), Some(2)]);
    assert_eq!(texts(&sessions, "user_id").concat_texts(), "11 21");
    assert_eq!(texts(&sessions, "country").concat_texts(), "Spain -");
    assert_eq!(*sessions.column_by_name("completed_at").unwrap().data_type(), timestamp_type());
    assert!(sessions.column_by_name("gender").is_none());
}

#[tokio::test]
async fn a_column_that_both_tables_have_is_the_attributes_and_others_come_from_the_rows() {
    let rows = rank_rows(&[(1, 0, Some(4)), (2, 0, Some(3))]);
    let mut columns: Vec<(String, ArrayRef, bool)> = Vec::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        columns.push((field.name().clone(), Arc::clone(column), true));
    }
    columns.push(("team".into(), Arc::new(StringArray::from(vec!["row 1", "row 2"])), true));
    columns.push(("room".into(), Arc::new(StringArray::from(vec!["r1", "r2"])), true));
    let rows = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let input = Input::new()
        .ranks("ranks.arrow", &rows)
        .attributes("table.csv", &table(&[Some(1)], &["table"]))
        .passing(&["team", "room"]);
    let sessions = input.sessions().await;
    assert_eq!(texts(&sessions, "team").concat_texts(), "table -");
    assert_eq!(texts(&sessions, "room").concat_texts(), "r1 r2");
}

#[tokio::test]
async fn faults_of_rows_travel_with_their_session() {
    let text = "session_id,part,item,mode,rank\n\
        1,style,1,CE,4\n2,style,1,CE,4\n1,style,1,CE,4\n2,style,13,CE,1\n3,context,1,XX,1\n4,style,1,CE,five\n4,style,1,RO,\n";
    let input = Input::new();
    let path = input.folder.path().join("ranks.csv");
    std::fs::write(&path, text).unwrap();
    let sessions = Input { ranks: vec![path.display().to_string()], ..input }.sessions().await;
    let expected = [Some(FaultCode::DuplicateRank), Some(FaultCode::UnknownItem), Some(FaultCode::UnknownMode), None];
    assert_eq!(faults(&sessions), expected);
    assert_eq!(ranks(&sessions)[3][..3], [Some(0), None, None]);
}

#[tokio::test]
async fn what_does_not_fit_together_is_refused() {
    let rows = rank_rows(&whole_session(1));
    let attributes = table(&[Some(1)], &["a"]);
    let base = || Input::new().ranks("ranks.parquet", &rows).attributes("table.parquet", &attributes);

    let error = base().passing(&["room"]).refused().await;
    assert!(error.starts_with("neither ") && error.ends_with("table.parquet has a column 'room'"), "{error}");
    let error = base().passing(&["rank"]).refused().await;
    assert_eq!(error, "--pass rank: in the long layout 'rank' has a value for each rank, not one for the session");
    let error = Input::new().ranks("ranks.parquet", &rows).passing(&["room"]).refused().await;
    assert!(error.ends_with("ranks.parquet has no column 'room'"), "{error}");

    let without_id = attributes.project(&[1]).unwrap();
    let input = Input::new().ranks("ranks.parquet", &rows).attributes("table.parquet", &without_id);
    let error = input.refused().await;
    assert!(error.ends_with("table.parquet has no column 'session_id', which the long layout needs"), "{error}");
    let input = Input::new().ranks("ranks.parquet", &rows.project(&[0, 2, 3, 4]).unwrap());
    let error = input.refused().await;
    assert!(error.ends_with("ranks.parquet has no column 'part', which the long layout needs"), "{error}");

    let wide = generated(&SessionOptions { rows: 3, ..SessionOptions::default() }, false);
    let error = Input::new().ranks("wide.parquet", &wide).attributes("table.parquet", &attributes).refused().await;
    assert!(error.contains("wide.parquet is wide, and only the long layout"), "{error}");
}

#[tokio::test]
async fn the_number_of_sessions_is_not_known_but_the_size_is() {
    let rows = rank_rows(&whole_session(1));
    let input = Input::new().ranks("ranks.parquet", &rows).attributes("t.csv", &table(&[Some(1)], &["a"]));
    let (_, opened) = input.open().await.unwrap();
    let on_disk: u64 =
        ["ranks.parquet", "t.csv"].iter().map(|name| input.folder.path().join(name).metadata().unwrap().len()).sum();
    assert_eq!((opened.layout, opened.sessions(), opened.bytes()), (Layout::Long, None, on_disk));
    let parts = opened.parts();
    assert_eq!((parts.len(), parts[0].rows, parts[0].bytes()), (1, None, on_disk));
}

#[tokio::test]
async fn an_input_without_rows_is_no_sessions_or_those_of_the_table() {
    let none = rank_rows(&[]);
    let sessions = Input::new().ranks("none.parquet", &none).sessions().await;
    assert_eq!(sessions.num_rows(), 0);
    let input = Input::new().ranks("none.parquet", &none).attributes("t.csv", &table(&[Some(1)], &["a"]));
    let sessions = input.sessions().await;
    assert_eq!((ids(&sessions), ranks(&sessions)), (vec![Some(1)], vec![vec![None; 80]]));
}

/// What scoring says of generated sessions of a layout, all result columns.
async fn scored(input: Input, layout: Layout) -> RecordBatch {
    let mut input = input;
    input.options.attributes = ["education_level", "country", "gender", "date_of_birth"].map(str::to_owned).to_vec();
    let (context, opened) = input.open().await.unwrap();
    assert_eq!(opened.layout, layout);
    let instrument = Instrument::klsi4();
    let chain = Chain::from_templates(instrument.chain.iter().map(String::as_str)).unwrap();
    let scoring = Scoring { instrument, chain, layout };
    let wanted = Scoring::output_columns(&[]).unwrap();
    let needed = scoring.needed_columns(&opened.columns.schema(), &wanted);
    let mut all = Vec::new();
    for part in opened.parts() {
        let plan = scoring.plan(opened.scan(&context, &part, &needed).unwrap(), &wanted).unwrap();
        all.push(collect(&plan, context.task_ctx()).await);
    }
    concat_batches(&all[0].schema(), &all).unwrap()
}

#[tokio::test]
async fn long_sessions_score_as_wide_ones_do_however_their_rows_lie() {
    let options = SessionOptions { rows: 700, bad_fraction: 0.0, ..SessionOptions::default() };
    let long = SessionOptions { layout: Layout::Long, ..options.clone() };
    let wide = scored(Input::new().ranks("wide.parquet", &generated(&options, false)), Layout::Wide).await;
    let rows = shuffled_rows(&generated(&long, false), 1);
    let input = Input::new()
        .ranks("r1.parquet", &rows.slice(0, 30_000))
        .ranks("r2.arrow", &rows.slice(30_000, rows.num_rows() - 30_000))
        .attributes("attributes.parquet", &generated(&long, true));
    let mut input = input;
    input.engine.batch_size = 100;
    input.options.part_limits = PartLimits { rows: 5_000, ..PartLimits::default() };
    let long = scored(input, Layout::Long).await;
    assert_eq!(long.num_rows(), 700);
    let names: Vec<String> = wide.schema().fields().iter().map(|field| field.name().clone()).collect();
    for name in names {
        let plain = |batch: &RecordBatch| {
            let column = batch.column_by_name(&name).unwrap();
            cast(column, &documented_type(column.data_type())).unwrap()
        };
        assert_eq!(&plain(&long), &plain(&wide), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn wide_sessions_turned_long_and_shuffled_are_assembled_again(
        sessions in prop::collection::vec(prop::collection::vec(0u8..=8, 80), 1..12),
        seed in any::<u64>(),
        files in 1usize..4,
        batch_size in 1usize..200,
        threads in 1usize..4,
    ) {
        // 1..=4 are ranks; 0 and 5 are out of range; 6 is a row with null; 7 and 8 are no row.
        let mut rows: Vec<Row> = Vec::new();
        for (id, marks) in sessions.iter().enumerate() {
            for (slot, &mark) in marks.iter().enumerate().filter(|(_, mark)| **mark < 7) {
                rows.push((id as i64, slot, Some(mark).filter(|&mark| mark < 6)));
            }
        }
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        // Now sorted, now in blocks, now scattered.
        match seed % 3 {
            0 => {}
            1 => {
                let mut blocks: Vec<Vec<Row>> = rows.chunks(13).map(<[Row]>::to_vec).collect();
                blocks.shuffle(&mut random);
                rows = blocks.concat();
            }
            _ => rows.shuffle(&mut random),
        }
        let mut first: Vec<i64> = Vec::new();
        for row in &rows {
            if !first.contains(&row.0) {
                first.push(row.0);
            }
        }
        let expected: Vec<Ranks> = first.iter().map(|&id| {
            let rank = |&mark: &u8| match mark { 1..=4 => Some(mark), 0 | 5 => Some(0), _ => None };
            sessions[id as usize].iter().map(rank).collect()
        }).collect();

        let mut input = Input::new();
        let mut from = 0;
        for file in 0..files {
            let to = if file + 1 == files { rows.len() } else { random.random_range(from..=rows.len()) };
            input = input.ranks(&format!("{file}.arrow"), &rank_rows(&rows[from..to]));
            from = to;
        }
        input.engine = EngineOptions { batch_size, threads, ..EngineOptions::default() };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let assembled = runtime.block_on(input.sessions());
        prop_assert_eq!(ids(&assembled), first.into_iter().map(Some).collect::<Vec<_>>());
        prop_assert_eq!(ranks(&assembled), expected);
        prop_assert!(faults(&assembled).iter().all(Option::is_none));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_whose_rows_all_lie_apart_are_assembled_within_a_small_memory_limit() {
    let sessions = 20_000_u64;
    let options = SessionOptions { rows: sessions, layout: Layout::Long, ..SessionOptions::default() };
    // Every row lies alone: the worst that can happen.
    let rows = shuffled_rows(&generated(&options, false), 3);
    let table = shuffled_rows(&generated(&options, true), 4);
    let mut input = Input::new().ranks("ranks.parquet", &rows).attributes("table.parquet", &table);
    input.engine.memory_limit = 16 << 20;
    let (plan, context) = input.plan().await;
    let assembled = collect(&plan, context).await;
    assert_eq!(assembled.num_rows() as u64, sessions);
    assert_eq!(ids(&assembled), table.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>());
    assert!(faults(&assembled).iter().all(Option::is_none));
    assert!(ranks(&assembled).iter().all(|ranks| ranks.iter().all(Option::is_some)));
    assert!(spills(&plan) > 0, "nothing was spilled: the limit is not small");
}

/// How often the operators of a plan have spilled.
fn spills(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let own = plan.metrics().and_then(|metrics| metrics.spill_count()).unwrap_or(0);
    own + plan.children().into_iter().map(spills).sum::<usize>()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_is_dropped_midway_gives_its_memory_back() {
    let options = SessionOptions { rows: 2_000, layout: Layout::Long, ..SessionOptions::default() };
    let rows = shuffled_rows(&generated(&options, false), 3);
    let mut input = Input::new().ranks("ranks.parquet", &rows).attributes("t.parquet", &generated(&options, true));
    input.engine.batch_size = 100;
    let (plan, context) = input.plan().await;
    let mut stream = plan.execute(0, Arc::clone(&context)).unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().num_rows(), 100);
    drop(stream);
    let pool = Arc::clone(&context.runtime_env().memory_pool);
    for _ in 0..100 {
        if pool.reserved() == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(pool.reserved(), 0);
}

#[tokio::test]
async fn a_plan_shows_how_sessions_are_assembled() {
    let rows = rank_rows(&whole_session(1));
    let input = Input::new()
        .ranks("a.parquet", &rows)
        .ranks("b.parquet", &rows)
        .ranks("c.csv", &rows)
        .attributes("t.csv", &table(&[Some(1)], &["a"]));
    let (plan, _) = input.plan().await;
    let shown = datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string();
    let operators: Vec<&str> = shown.lines().map(|line| line.trim_start().split([':', ' ']).next().unwrap()).collect();
    assert_eq!(
        operators,
        [
            "ProjectionExec",
            "UnfoldExec",
            "SortExec",
            "ProjectionExec",
            "SortMergeJoinExec",
            "OwnMemoryExec",
            "SortExec",
            "SequenceExec",
            "ProjectionExec",
            "PositionExec",
            "DataSourceExec",
            "AssembleExec",
            "SortPreservingMergeExec",
            "OwnMemoryExec",
            "SortExec",
            "SequenceExec",
            "ProjectionExec",
            "AssembleExec",
            "PositionExec",
            "DataSourceExec",
            "ProjectionExec",
            "AssembleExec",
            "PositionExec",
            "DataSourceExec",
        ]
    );
}
