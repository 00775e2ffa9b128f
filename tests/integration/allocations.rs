//! Nothing on the way of a session allocates memory for each of them: only for a batch, a page or a row group.
//!
//! Counted by an allocator that knows its thread: tests beside this one are not counted.

use std::collections::HashMap;
use std::sync::Arc;

use allocation_counter::measure;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{FieldRef, Schema};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::prelude::SessionConfig;
use futures::executor::block_on;
use normstream::engine::Scoring;
use normstream::generate::{SessionGenerator, SessionOptions};
use normstream::instrument::Instrument;
use normstream::model::{Layout, result};
use normstream::norms::{Chain, NormStore, NormStoreOptions};
use normstream::operators::NormContext;
use normstream::operators::row_group::{RowGroupEncoder, RowGroupOptions};

const FEW: usize = 1_024;
const MANY: usize = 16 * FEW;
/// A vector that grows allocates once more each time the rows double; a stage or a column has a handful of such.
const GROWTH: u64 = 40;

/// Allocations of each stage of one batch once it is warm, and the scored batch.
fn stages(layout: Layout, rows: usize) -> (Vec<(&'static str, u64)>, RecordBatch) {
    let instrument = Instrument::klsi4();
    let options =
        SessionOptions { rows: rows as u64, layout, batch_rows: rows.try_into().unwrap(), ..Default::default() };
    let sessions = SessionGenerator::new(options).unwrap().batches().next().unwrap().unwrap();
    let store = Arc::new(NormStore::new(Vec::new(), instrument.raw_ranges(), NormStoreOptions::default()));
    let context = TaskContext::default().with_session_config(NormContext::install(SessionConfig::new(), store));
    let chain = Chain::from_templates(instrument.chain.iter().map(String::as_str)).unwrap();
    let scoring = Scoring { instrument, chain, layout };

    let schema = sessions.schema();
    let fields = schema.fields().iter().cloned();
    let mut columns: HashMap<String, (FieldRef, ArrayRef)> = fields
        .zip(sessions.columns().iter().cloned())
        .map(|(field, column)| (field.name().clone(), (field, column)))
        .collect();
    let mut counted = Vec::new();
    for stage in scoring.stages(&schema) {
        let reads: Vec<ArrayRef> = stage.reads().iter().map(|read| Arc::clone(&columns[&read.name].1)).collect();
        let mut worker = stage.start(0, &context, &ExecutionPlanMetricsSet::new()).unwrap();
        // The first batch loads norms and numbers attributes.
        let added = block_on(worker.evaluate(&reads)).unwrap();
        let allocations = measure(|| drop(block_on(worker.evaluate(&reads)).unwrap()));
        counted.push((stage.name(), allocations.count_total));
        columns
            .extend(stage.adds().into_iter().zip(added).map(|(field, column)| (field.name().clone(), (field, column))));
    }
    let (fields, arrays): (Vec<FieldRef>, Vec<ArrayRef>) =
        result::columns().iter().map(|name| columns[name].clone()).unzip();
    (counted, RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap())
}

/// Allocations of writing a batch a second time, after the first has grown what a row group keeps.
fn encoding(batch: &RecordBatch) -> u64 {
    let mut encoder = RowGroupEncoder::try_new(batch.schema_ref(), &RowGroupOptions::default()).unwrap();
    encoder.write(batch).unwrap();
    measure(|| encoder.write(batch).unwrap()).count_total
}

#[test]
fn no_stage_allocates_for_each_session() {
    for layout in [Layout::Wide, Layout::Packed] {
        let (few, _) = stages(layout, FEW);
        let (many, _) = stages(layout, MANY);
        assert_eq!(few.len(), 7);
        for ((stage, few), (_, many)) in few.into_iter().zip(many) {
            assert!(few > 0, "{stage} makes columns");
            assert!(
                many <= few + GROWTH,
                "{layout}: {stage} allocates {few} times for {FEW} sessions, {many} for {MANY}"
            );
        }
    }
}

#[test]
fn the_result_writer_does_not_allocate_for_each_session() {
    let (_, few) = stages(Layout::Wide, FEW);
    let (_, many) = stages(Layout::Wide, MANY);
    let (few, many) = (encoding(&few), encoding(&many));
    let columns = result::columns().len() as u64;
    assert!(many <= few + GROWTH * columns, "{few} allocations for {FEW} sessions, {many} for {MANY}");
}
