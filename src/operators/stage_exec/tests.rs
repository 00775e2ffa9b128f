#![allow(clippy::unwrap_used, clippy::expect_used)]

use arrow::array::{AsArray, Int32Array};
use arrow::datatypes::{DataType, Field, Int32Type};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::physical_plan::displayable;
use datafusion::physical_plan::test::exec::{BlockingExec, MockExec, PanicExec, assert_strong_count_converges_to_zero};
use futures::FutureExt;

use super::*;

/// Adds `double = 2 · number`.
#[derive(Debug)]
struct Double;

impl Stage for Double {
    fn name(&self) -> &'static str {
        "double"
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::exactly("number", DataType::Int32)]
    }

    fn adds(&self) -> Vec<FieldRef> {
        vec![Arc::new(Field::new("double", DataType::Int32, true))]
    }

    fn evaluate(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>, ScoringError> {
        let doubled = columns[0].as_primitive::<Int32Type>().unary::<_, Int32Type>(|number| 2 * number);
        Ok(vec![Arc::new(doubled)])
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("number", DataType::Int32, true)]))
}

fn numbers(values: impl IntoIterator<Item = i32>) -> RecordBatch {
    RecordBatch::try_new(schema(), vec![Arc::new(Int32Array::from_iter_values(values))]).unwrap()
}

fn double(input: Arc<dyn ExecutionPlan>) -> StageExec {
    StageExec::try_new(input, Arc::new(PureStage(Arc::new(Double)))).unwrap()
}

fn memory(partitions: &[Vec<RecordBatch>]) -> Arc<dyn ExecutionPlan> {
    MemorySourceConfig::try_new_exec(partitions, schema(), None).unwrap()
}

async fn collect(plan: &dyn ExecutionPlan, partition: usize) -> Result<Vec<RecordBatch>> {
    plan.execute(partition, Arc::new(TaskContext::default()))?.try_collect().await
}

fn column(batch: &RecordBatch, name: &str) -> Vec<i32> {
    batch.column_by_name(name).unwrap().as_primitive::<Int32Type>().values().to_vec()
}

#[tokio::test]
async fn output_is_every_input_column_at_its_index_then_the_added_ones() {
    let plan = double(memory(&[vec![numbers([1, 2]), numbers([3])]]));
    let schema = plan.schema();
    assert_eq!(schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["number", "double"]);
    let batches = collect(&plan, 0).await.unwrap();
    assert_eq!(batches.iter().map(|batch| column(batch, "number")).collect::<Vec<_>>(), [vec![1, 2], vec![3]]);
    assert_eq!(batches.iter().map(|batch| column(batch, "double")).collect::<Vec<_>>(), [vec![2, 4], vec![6]]);
}

#[tokio::test]
async fn partitions_stay_apart_and_rows_in_order() {
    let plan = double(memory(&[vec![numbers([1])], vec![numbers([10, 9])]]));
    assert_eq!(plan.properties().output_partitioning().partition_count(), 2);
    assert_eq!(column(&collect(&plan, 1).await.unwrap()[0], "double"), [20, 18]);
    assert_eq!(plan.metrics().unwrap().output_rows(), Some(2));
}

#[tokio::test]
async fn empty_batches_are_left_out() {
    let plan = double(memory(&[vec![numbers([]), numbers([4]), numbers([])]]));
    assert_eq!(collect(&plan, 0).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_first_rows_of_a_partition_come_alone_where_a_stage_wants_them() {
    #[derive(Debug)]
    struct DoubleTwo;

    impl PlanStage for DoubleTwo {
        fn name(&self) -> &'static str {
            "double"
        }

        fn reads(&self) -> Vec<Read> {
            Double.reads()
        }

        fn adds(&self) -> Vec<FieldRef> {
            Double.adds()
        }

        fn first_rows(&self) -> Option<usize> {
            Some(2)
        }

        fn start(&self, _: usize, _: &TaskContext, _: &ExecutionPlanMetricsSet) -> Result<Box<dyn StageWorker>> {
            Ok(Box::new(PureStage(Arc::new(Double))))
        }
    }

    let batches = async |input: Vec<RecordBatch>| {
        let plan = StageExec::try_new(memory(&[input]), Arc::new(DoubleTwo)).unwrap();
        let batches = collect(&plan, 0).await.unwrap();
        batches.iter().map(|batch| column(batch, "double")).collect::<Vec<_>>()
    };
    let long = vec![numbers([]), numbers([1, 2, 3, 4]), numbers([5, 6, 7])];
    assert_eq!(batches(long).await, [vec![2, 4], vec![6, 8], vec![10, 12, 14]]);
    assert_eq!(batches(vec![numbers([1, 2]), numbers([3, 4, 5])]).await, [vec![2, 4], vec![6, 8, 10]]);
}

#[test]
fn a_missing_column_is_named_when_the_plan_is_built() {
    let other = Arc::new(Schema::new(vec![Field::new("other", DataType::Int32, true)]));
    let input = MemorySourceConfig::try_new_exec(&[vec![]], other, None).unwrap();
    let error = StageExec::try_new(input, Arc::new(PureStage(Arc::new(Double)))).unwrap_err();
    assert!(error.to_string().contains("double needs the column 'number'"), "{error}");
}

#[test]
fn a_column_of_the_wrong_type_is_named_when_the_plan_is_built() {
    let text = Arc::new(Schema::new(vec![Field::new("number", DataType::Utf8, true)]));
    let input = MemorySourceConfig::try_new_exec(&[vec![]], text, None).unwrap();
    let error = StageExec::try_new(input, Arc::new(PureStage(Arc::new(Double)))).unwrap_err();
    assert!(error.to_string().contains("of type Utf8: it must be Int32"), "{error}");
}

#[test]
fn a_column_that_is_there_already_is_not_added_again() {
    let error =
        StageExec::try_new(Arc::new(double(memory(&[vec![]]))), Arc::new(PureStage(Arc::new(Double)))).unwrap_err();
    assert!(error.to_string().contains("adds the column 'double', which the input has already"), "{error}");
}

#[tokio::test]
async fn an_error_of_the_input_ends_the_stream_after_what_came_before_it() {
    let failing = MockExec::new(vec![Ok(numbers([1])), Err(DataFusionError::Execution("broken".to_owned()))], schema());
    let mut stream = double(Arc::new(failing)).execute(0, Arc::new(TaskContext::default())).unwrap();
    assert_eq!(column(&stream.next().await.unwrap().unwrap(), "double"), [2]);
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("broken"), "{error}");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn dropping_the_stream_drops_the_input() {
    let blocking = Arc::new(BlockingExec::new(schema(), 1));
    let refs = blocking.refs();
    let plan = double(blocking);
    let mut stream = plan.execute(0, Arc::new(TaskContext::default())).unwrap();
    assert!(stream.next().now_or_never().is_none(), "the input never gives anything");
    drop(stream);
    drop(plan);
    assert_strong_count_converges_to_zero(refs).await;
}

#[tokio::test]
#[should_panic(expected = "PanickingStream did panic")]
async fn a_panic_of_the_input_is_not_swallowed() {
    let _ = collect(&double(Arc::new(PanicExec::new(schema(), 1))), 0).await;
}

#[test]
fn the_plan_shows_the_stage_and_what_it_adds() {
    let plan: Arc<dyn ExecutionPlan> = Arc::new(double(memory(&[vec![]])));
    assert!(displayable(plan.as_ref()).indent(false).to_string().starts_with("double: adds=[double]\n"));
}

#[test]
fn other_children_are_taken_with_their_own_properties() {
    let one: Arc<dyn ExecutionPlan> = Arc::new(double(memory(&[vec![]])));
    let recompute = || ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    let two = one.replace_children(vec![memory(&[vec![], vec![], vec![]])], recompute()).unwrap();
    assert_eq!(two.properties().output_partitioning().partition_count(), 3);
    assert!(two.replace_children(vec![], recompute()).is_err());
}
