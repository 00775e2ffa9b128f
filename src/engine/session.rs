//! The DataFusion session that plans run in: memory pool, spill folder, stores, batch size.

use std::num::NonZeroUsize;
use std::sync::Arc;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::ObjectStore;
use url::Url;

use crate::engine::memory_pool::SpillingPool;
use crate::norms::NormStore;
use crate::operators::NormContext;
use crate::storage::Storage;

/// What a session may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// Rows of a record batch.
    pub batch_size: usize,
    /// How many partitions a query is cut into.
    pub threads: usize,
    /// Bytes that sorts, joins and aggregates may hold before they spill.
    pub memory_limit: usize,
    /// Bytes that may be spilled to the system's temporary folder.
    pub spill_limit: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            batch_size: 8_192,
            threads: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            memory_limit: 512 << 20,
            spill_limit: 100 << 30,
        }
    }
}

/// How many bytes a sort sets aside for merging what it spilled, if the memory limit allows.
const MOST_MERGE_MEMORY: usize = 10 << 20;

/// A session whose stores are those of `storage` and whose percentiles come from `norms`, for plans that are put together without
/// SQL: it knows no function by name. To register them all takes longer than to score a small file.
pub fn session_context(options: EngineOptions, storage: &Storage, norms: Arc<NormStore>) -> Result<SessionContext> {
    Ok(SessionContext::new_with_state(session_state(options, storage, norms)?.build()))
}

/// The same for SQL, with all that DataFusion knows by name.
pub fn sql_context(options: EngineOptions, storage: &Storage, norms: Arc<NormStore>) -> Result<SessionContext> {
    let state = session_state(options, storage, norms)?.with_default_features();
    Ok(SessionContext::new_with_state(state.build()))
}

fn session_state(options: EngineOptions, storage: &Storage, norms: Arc<NormStore>) -> Result<SessionStateBuilder> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(SpillingPool::new(options.memory_limit)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_max_temp_directory_size(options.spill_limit))
        .with_object_store_registry(Arc::new(Stores(storage.clone())))
        // The footer cache tells files apart by path, size and time alone: it would take an object of one store for another's.
        .with_metadata_cache_limit(0)
        // The listing cache has no expiry: it would hide files that were added since.
        .with_object_list_cache_limit(0)
        .build_arc()?;
    let mut config = SessionConfig::new().with_batch_size(options.batch_size).with_target_partitions(options.threads);
    let execution = &mut config.options_mut().execution;
    // A part's plan is executed partition by partition; stealing would give one partition the rows of all.
    execution.enable_file_stream_work_stealing = false;
    execution.collect_statistics = false;
    execution.parquet.schema_force_view_types = false;
    // Every sort sets this much aside for merging, and a plan may have several.
    execution.sort_spill_reservation_bytes = merge_memory(options.memory_limit);
    Ok(SessionStateBuilder::new().with_config(NormContext::install(config, norms)).with_runtime_env(runtime))
}

/// A context in which a plan has a memory pool of `bytes` to itself.
pub fn with_memory(context: &SessionContext, bytes: usize) -> Arc<TaskContext> {
    let memory_pool = Arc::new(SpillingPool::new(bytes));
    let runtime = RuntimeEnv { memory_pool, ..RuntimeEnv::clone(&context.runtime_env()) };
    let mut config = context.copied_config();
    config.options_mut().execution.sort_spill_reservation_bytes = merge_memory(bytes);
    Arc::new(TaskContext::from(context).with_session_config(config).with_runtime(Arc::new(runtime)))
}

/// What a sort sets aside for merging at a memory limit.
fn merge_memory(limit: usize) -> usize {
    (limit / 16).min(MOST_MERGE_MEMORY)
}

/// The stores of [`Storage`], as DataFusion looks them up.
#[derive(Debug)]
struct Stores(Storage);

impl ObjectStoreRegistry for Stores {
    /// Stores come from [`Storage`] alone: a store that something else registers is not used.
    fn register_store(&self, url: &Url, _: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.0.store_for(url).ok()
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        self.0.store_for(url).map_err(|error| DataFusionError::External(Box::new(error)))
    }
}
