//! [`RankScanExec`]: rank columns of a Parquet file, read as bytes beside the scan of its other columns.
//!
//! Ranks are nine tenths of a session's values. In a file they are dictionary keys of two or three bits, and the library's reader
//! makes an array of wide integers of each column, a value at a time, that scoring then narrows again. Here keys become bytes
//! through a table, four of them at once. Everything else is left to the library: headers and decompression of pages, and all
//! columns that are not ranks. So is a column of ranks in an encoding that is rare for it, see [`is_byte_column`].

mod chunk;
mod keys;
mod runs;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, NullBufferBuilder, RecordBatch, UInt8Array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileScanConfig, ParquetFileReaderFactory};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, Metric, MetricValue, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};
use futures::TryStreamExt as _;
use futures::future::try_join;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use chunk::{PageDecompressor, RankChunk};
use keys::UNPACKED_BEYOND;

const NAME: &str = "RankScanExec";

/// Whether the column at place `leaf` of a file can be read as bytes: whole numbers that are not nested, plain or through a
/// dictionary, in every row group.
pub fn is_byte_column(metadata: &ParquetMetaData, leaf: usize) -> bool {
    metadata.row_groups().iter().all(|row_group| chunk::is_readable(row_group.column(leaf)))
}

/// Adds columns of small whole numbers to a scan of other columns of the same Parquet files: `UInt8`, a number from 0 to 100 as
/// itself, any other one as 255.
///
/// Invariants:
/// 1. The scan gives the rows of the row groups that it is to read in their order, from the first, and leaves none out. So filters
///    stay above, files are read by the partition that they are assigned to, and the scan is no child: no optimizer sees it.
/// 2. The output is every column of the scan at its own index, then the added ones.
///
/// Memory: of one row group the chunks of the added columns as they are stored and a page of each; and a batch.
#[derive(Debug, Clone)]
pub struct RankScanExec {
    scan: Arc<dyn ExecutionPlan>,
    columns: Vec<String>,
    readers: Arc<dyn ParquetFileReaderFactory>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl RankScanExec {
    /// Adds `columns` to a scan of files that `readers` opens.
    ///
    /// Fails if `scan` is not a scan of files.
    pub fn try_new(
        scan: Arc<dyn ExecutionPlan>,
        columns: Vec<String>,
        readers: Arc<dyn ParquetFileReaderFactory>,
    ) -> Result<Self> {
        scanned(&scan)?;
        let added = columns.iter().map(|name| Arc::new(Field::new(name, DataType::UInt8, true)));
        let fields: Vec<FieldRef> = scan.schema().fields().iter().cloned().chain(added).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, scan.schema().metadata().clone()));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            scan.properties().output_partitioning().clone(),
            scan.properties().emission_type,
            scan.properties().boundedness,
        );
        let properties = Arc::new(properties.with_scheduling_type(scan.properties().scheduling_type));
        Ok(RankScanExec { scan, columns, readers, properties, metrics: ExecutionPlanMetricsSet::new() })
    }
}

/// The files that a scan reads.
fn scanned(scan: &Arc<dyn ExecutionPlan>) -> Result<&FileScanConfig> {
    let scan = scan.downcast_ref::<DataSourceExec>().and_then(|scan| scan.data_source().downcast_ref());
    scan.ok_or_else(|| DataFusionError::Internal(format!("{NAME} adds to a scan of files")))
}

impl DisplayAs for RankScanExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match t {
            DisplayFormatType::Default => write!(f, "{NAME}: columns={}, ", self.columns.len())?,
            DisplayFormatType::Verbose => write!(f, "{NAME}: columns=[{}], ", self.columns.join(", "))?,
            DisplayFormatType::TreeRender => return writeln!(f, "columns={}", self.columns.len()),
        }
        self.scan.fmt_as(t, f)
    }
}

impl ExecutionPlan for RankScanExec {
    fn name(&self) -> &str {
        NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { Err(DataFusionError::Internal(format!("{NAME} has no inputs"))) }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], of: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let scan = self.scan.statistics_from_inputs(&[], of)?;
        let mut columns = scan.column_statistics.clone();
        columns.resize_with(self.schema().fields().len(), ColumnStatistics::new_unknown);
        let total_byte_size = Precision::Absent;
        Ok(Arc::new(Statistics { num_rows: scan.num_rows, total_byte_size, column_statistics: columns }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if context.session_config().options().execution.enable_file_stream_work_stealing {
            let setting = "datafusion.execution.enable_file_stream_work_stealing";
            return Err(DataFusionError::Configuration(format!("{NAME} needs {setting} to be off")));
        }
        let files = scanned(&self.scan)?.file_groups.get(partition);
        let ranks = RankFiles {
            plan: self.clone(),
            partition,
            files: files.iter().flat_map(|group| group.files()).cloned().collect(),
            file: None,
            row_group: RowGroup { rows: 0, chunks: Vec::new() },
            decompressor: PageDecompressor::new()?,
        };
        let scan = self.scan.execute(partition, context)?;
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let state = (scan, ranks, baseline, self.schema());
        let stream = futures::stream::try_unfold(state, |(mut scan, mut ranks, baseline, schema)| async move {
            // Nobody waits for the ranks of a row group after its other columns: both are fetched at once.
            let (batch, ()) = try_join(scan.try_next(), ranks.open_next(&baseline)).await?;
            let Some(batch) = batch else { return Ok(None) };
            let added = ranks.read(batch.num_rows(), &baseline).await?;
            let columns = batch.columns().iter().cloned().chain(added).collect();
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
            baseline.record_output(batch.num_rows());
            Ok(Some((batch, (scan, ranks, baseline, schema))))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        let mut metrics = self.metrics.clone_inner();
        // The rows that the scan gives are those that come out here.
        let is_own = |metric: &&Arc<Metric>| {
            !matches!(
                metric.value(),
                MetricValue::OutputRows(_) | MetricValue::OutputBytes(_) | MetricValue::OutputBatches(_)
            )
        };
        let scan = self.scan.metrics().unwrap_or_default();
        scan.iter().filter(is_own).for_each(|metric| metrics.push(Arc::clone(metric)));
        Some(metrics)
    }
}

/// The rank columns of the files of one partition.
struct RankFiles {
    plan: RankScanExec,
    partition: usize,
    /// Files that are still to be opened.
    files: VecDeque<PartitionedFile>,
    file: Option<RankFile>,
    row_group: RowGroup,
    decompressor: PageDecompressor,
}

/// A file at work, and its row groups that are still to be opened.
struct RankFile {
    reader: Box<dyn AsyncFileReader + Send>,
    metadata: Arc<ParquetMetaData>,
    row_groups: VecDeque<usize>,
    /// The places of the columns.
    leaves: Vec<usize>,
}

/// What is left of a row group.
struct RowGroup {
    rows: usize,
    chunks: Vec<RankChunk>,
}

impl RankFiles {
    /// The columns of the next `rows` rows.
    async fn read(&mut self, rows: usize, baseline: &BaselineMetrics) -> Result<Vec<ArrayRef>> {
        let empty = || (Vec::with_capacity(rows + UNPACKED_BEYOND), NullBufferBuilder::new(rows));
        let mut columns: Vec<_> = self.plan.columns.iter().map(|_| empty()).collect();
        let mut left = rows;
        while left > 0 {
            self.open_next(baseline).await?;
            if self.row_group.rows == 0 {
                return Err(DataFusionError::Internal(format!("the scan of {NAME} has more rows than its files")));
            }
            let _timer = baseline.elapsed_compute().timer();
            let rows = left.min(self.row_group.rows);
            for (chunk, (values, valid)) in self.row_group.chunks.iter_mut().zip(&mut columns) {
                chunk.read(rows, &mut self.decompressor, values, valid)?;
            }
            self.row_group.rows -= rows;
            left -= rows;
        }
        let array = |(values, mut valid): (Vec<u8>, NullBufferBuilder)| {
            Arc::new(UInt8Array::new(values.into(), valid.finish())) as ArrayRef
        };
        Ok(columns.into_iter().map(array).collect())
    }

    /// Goes on to the next row group, if nothing is left of this one and there is another.
    async fn open_next(&mut self, baseline: &BaselineMetrics) -> Result<()> {
        while self.row_group.rows == 0 {
            self.row_group.chunks.clear();
            if let Some(file) = &mut self.file
                && let Some(index) = file.row_groups.pop_front()
            {
                self.row_group = file.open_row_group(index, baseline).await?;
                continue;
            }
            let Some(file) = self.files.pop_front() else { return Ok(()) };
            self.file = Some(self.open(file).await?);
        }
        Ok(())
    }

    async fn open(&mut self, file: PartitionedFile) -> Result<RankFile> {
        let range = file.range.clone();
        let hint = file.metadata_size_hint;
        let mut reader = self.plan.readers.create_reader(self.partition, file, hint, &self.plan.metrics)?;
        let metadata = reader.get_metadata(None).await?;
        let columns = metadata.file_metadata().schema_descr().columns();
        let leaf = |name: &String| {
            let leaf = columns.iter().position(|column| column.path().parts() == std::slice::from_ref(name));
            leaf.filter(|leaf| is_byte_column(&metadata, *leaf))
                .ok_or_else(|| DataFusionError::Internal(format!("{NAME} cannot read the column {name}")))
        };
        let leaves = self.plan.columns.iter().map(leaf).collect::<Result<_>>()?;
        // As the scan chooses: a row group belongs to the range in which its first column begins.
        let belongs = |index: &usize| {
            let start = metadata.row_group(*index).column(0).byte_range().0 as i64;
            range.as_ref().is_none_or(|range| (range.start..range.end).contains(&start))
        };
        let row_groups = (0..metadata.num_row_groups()).filter(belongs).collect();
        Ok(RankFile { reader, metadata, row_groups, leaves })
    }
}

impl RankFile {
    async fn open_row_group(&mut self, index: usize, baseline: &BaselineMetrics) -> Result<RowGroup, ParquetError> {
        let row_group = self.metadata.row_group(index);
        let rows = row_group.num_rows() as usize;
        let columns = || self.leaves.iter().map(|leaf| row_group.column(*leaf));
        let range = |(start, length): (u64, u64)| start..start + length;
        let ranges = columns().map(|column| range(column.byte_range())).collect();
        let bytes = self.reader.get_byte_ranges(ranges).await?;
        let _timer = baseline.elapsed_compute().timer();
        let chunks = columns().zip(bytes).map(|(column, bytes)| RankChunk::new(column, rows, bytes));
        Ok(RowGroup { rows, chunks: chunks.collect::<Result<_, _>>()? })
    }
}
