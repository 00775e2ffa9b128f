//! How many sessions a second go through the stages alone, and through the stages and the encoder? Run with
//! `cargo bench --bench pipeline`; elements a second are sessions a second on one core.
//!
//! Sessions come from memory, so decoding a file is not part of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::RecordBatch;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use futures::TryStreamExt;
use normstream::engine::Scoring;
use normstream::generate::{SessionGenerator, SessionOptions};
use normstream::instrument::Instrument;
use normstream::model::Layout;
use normstream::norms::{Chain, NormStore, NormStoreOptions};
use normstream::operators::NormContext;
use normstream::operators::row_group::{RowGroupEncoder, RowGroupOptions};
use tokio::runtime::Runtime;

const ROWS: u64 = 131_072;

struct Pipeline {
    sessions: Vec<RecordBatch>,
    scoring: Scoring,
    context: Arc<TaskContext>,
}

impl Pipeline {
    fn new(layout: Layout) -> Self {
        let instrument = Instrument::klsi4();
        let options = SessionOptions { rows: ROWS, layout, bad_fraction: 0.01, ..SessionOptions::default() };
        let generator = SessionGenerator::new(options).unwrap();
        let store = Arc::new(NormStore::new(Vec::new(), instrument.raw_ranges(), NormStoreOptions::default()));
        let config = NormContext::install(SessionConfig::new(), store);
        let chain = Chain::from_templates(instrument.chain.iter().map(String::as_str)).unwrap();
        Pipeline {
            sessions: generator.batches().map(Result::unwrap).collect(),
            scoring: Scoring { instrument, chain, layout },
            context: Arc::new(TaskContext::default().with_session_config(config)),
        }
    }

    fn plan(&self) -> Arc<dyn ExecutionPlan> {
        let schema = self.sessions[0].schema();
        let input = MemorySourceConfig::try_new_exec(std::slice::from_ref(&self.sessions), schema, None).unwrap();
        self.scoring.plan(input, &Scoring::output_columns(&[]).unwrap()).unwrap()
    }

    async fn score(&self) -> usize {
        let mut rows = 0;
        let mut batches = self.plan().execute(0, Arc::clone(&self.context)).unwrap();
        while let Some(batch) = batches.try_next().await.unwrap() {
            rows += black_box(batch).num_rows();
        }
        rows
    }

    async fn score_and_encode(&self) -> usize {
        let plan = self.plan();
        let mut encoder = RowGroupEncoder::try_new(&plan.schema(), &RowGroupOptions::default()).unwrap();
        let mut batches = plan.execute(0, Arc::clone(&self.context)).unwrap();
        while let Some(batch) = batches.try_next().await.unwrap() {
            encoder.write(&batch).unwrap();
        }
        encoder.finish().unwrap().bytes()
    }
}

fn pipeline(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(ROWS)).sample_size(10);
    for layout in [Layout::Wide, Layout::Packed] {
        let pipeline = Pipeline::new(layout);
        group.bench_function(format!("stages/{layout}"), |bencher| {
            bencher.to_async(&runtime).iter(|| pipeline.score());
        });
        group.bench_function(format!("stages and encoding/{layout}"), |bencher| {
            bencher.to_async(&runtime).iter(|| pipeline.score_and_encode());
        });
    }
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
