//! The plans that read parts of the input as canonical columns.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::{
    ArrowSource, FileGroup, FileScanConfigBuilder, FileSource, ParquetFileReaderFactory, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions::expr_fn::{btrim, nullif};
use datafusion::logical_expr::{Expr, case, cast, lit};
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::prelude::SessionContext;

use crate::engine::input::canonical::{CanonicalColumns, ColumnNames, is_string};
use crate::engine::input::discover::FoundFile;
use crate::engine::input::footer::PartReaders;
use crate::engine::input::format::FileFormat;
use crate::engine::input::open::{SessionFile, SessionInput, Source};
use crate::engine::input::part::InputPart;
use crate::engine::input::read_ahead::ReadAhead;
use crate::engine::input::text::TextSource;
use crate::model::result::documented_type;
use crate::model::session::{COMPLETED_AT, DATE_OF_BIRTH, SESSION_ID, STARTED_AT, USER_ID};
use crate::operators::{RankScanExec, SealedExec};

impl SessionInput {
    /// The plan that reads a part: one partition, rows in file order (long layout: sessions in the order that [`LongInput`] states),
    /// the columns of `needed` in its order and with the types of [`SessionInput::columns`]; ranks have the file's own type.
    ///
    /// The plan is meant to be executed once and as it is: not sent through a physical optimizer, which would cut it again.
    pub fn scan(
        &self,
        context: &SessionContext,
        part: &InputPart,
        needed: &[String],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if let Some(long) = &self.long {
            return long.scan(self, context, needed);
        }
        let columns = needed.iter().map(String::as_str);
        let scan = scan_parts(std::slice::from_ref(part), &self.options.names, columns, self.scan_options(context))?;
        self.canonical(context, &part.file, scan, needed)
    }

    /// The same for scoring, to which a number that is no rank is as good as any other: ranks may be bytes, as [`RankScanExec`]
    /// reads them where a file allows it.
    pub fn scan_to_score(
        &self,
        context: &SessionContext,
        part: &InputPart,
        needed: &[String],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match &self.long {
            Some(long) => long.scan(self, context, needed),
            None => self.canonical(context, &part.file, self.part_to_score(context, part, needed)?, needed),
        }
    }

    /// Whether plans on top of [`SessionInput::scan_to_score`] of parts of two files differ in what reads the files alone.
    pub fn are_scored_alike(&self, file: &SessionFile, other: &SessionFile) -> bool {
        self.long.is_none() && file.is_read_like(other) && file.byte_columns == other.byte_columns
    }

    /// A plan on top of [`SessionInput::scan_to_score`] of a part, for a part of a file that [is scored
    /// alike](SessionInput::are_scored_alike).
    pub fn scan_instead(
        &self,
        context: &SessionContext,
        plan: &Arc<dyn ExecutionPlan>,
        part: &InputPart,
        needed: &[String],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match plan.children().as_slice() {
            [] => self.part_to_score(context, part, needed),
            [input] => {
                let input = self.scan_instead(context, input, part, needed)?;
                let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
                Arc::clone(plan).replace_children(vec![input], options)
            }
            _ => Err(DataFusionError::Internal(format!("{} reads more than one part", plan.name()))),
        }
    }

    /// What reads a part for scoring, as its file has it.
    fn part_to_score(
        &self,
        context: &SessionContext,
        part: &InputPart,
        needed: &[String],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let ranks = self.byte_ranks(std::slice::from_ref(&part.file), needed);
        if ranks.is_empty() {
            let columns = needed.iter().map(String::as_str);
            return scan_parts(std::slice::from_ref(part), &self.options.names, columns, self.scan_options(context));
        }
        self.scan_with_byte_ranks(context, &[std::slice::from_ref(part)], ranks, needed)
    }

    /// The plans that read all sessions for a query, one for each run of files that are alike: the columns of `needed` in its
    /// order, ranks in the files' own types.
    ///
    /// Each is in about so many partitions, and a physical optimizer may cut it anew; in the long layout it is one that no
    /// optimizer touches.
    pub fn scans(
        &self,
        context: &SessionContext,
        partitions: usize,
        needed: &[String],
    ) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
        if let Some(long) = &self.long {
            return Ok(vec![Arc::new(SealedExec::new(long.scan(self, context, needed)?))]);
        }
        let alike = self.files.chunk_by(|a, b| a.is_read_like(b));
        alike.map(|alike| self.scan_alike(context, partitions, alike, needed)).collect()
    }

    /// The same for scoring, with ranks as [`SessionInput::scan_to_score`] reads them.
    pub fn scans_to_score(
        &self,
        context: &SessionContext,
        partitions: usize,
        needed: &[String],
    ) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
        if self.long.is_some() {
            return self.scans(context, partitions, needed);
        }
        let mut plans = Vec::new();
        for alike in self.files.chunk_by(|a, b| a.is_read_like(b)) {
            let ranks = self.byte_ranks(alike, needed);
            let parts: Vec<InputPart> = alike.iter().flat_map(|file| self.parts_of(file)).collect();
            if ranks.is_empty() || parts.is_empty() {
                plans.push(self.scan_alike(context, partitions, alike, needed)?);
                continue;
            }
            let groups: Vec<&[InputPart]> = parts.chunks(parts.len().div_ceil(partitions.max(1))).collect();
            let scan = self.scan_with_byte_ranks(context, &groups, ranks, needed)?;
            plans.push(self.canonical(context, &alike[0], scan, needed)?);
        }
        Ok(plans)
    }

    /// The plan that reads whole files that are alike.
    fn scan_alike(
        &self,
        context: &SessionContext,
        partitions: usize,
        alike: &[Arc<SessionFile>],
        needed: &[String],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let parts: Vec<InputPart> = alike.iter().map(InputPart::whole).collect();
        let groups: Vec<&[InputPart]> = parts.chunks(parts.len().div_ceil(partitions.max(1))).collect();
        let columns = needed.iter().map(String::as_str);
        let scan = scan_groups(&groups, &self.options.names, columns, self.scan_options(context))?;
        self.canonical(context, &alike[0], scan, needed)
    }

    /// The plan that reads groups of parts of files that are alike, a partition for each, the columns `ranks` of the files as bytes.
    fn scan_with_byte_ranks(
        &self,
        context: &SessionContext,
        groups: &[&[InputPart]],
        ranks: BTreeSet<&str>,
        needed: &[String],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let names = &self.options.names;
        let Source::File(found) = &groups[0][0].file.source else {
            return Err(DataFusionError::Internal("the ranks of a stream are read as a file's".to_owned()));
        };
        let others = needed.iter().map(String::as_str).filter(|name| !ranks.contains(names.in_file(name)));
        let scan = scan_groups(groups, names, others, self.scan_options(context))?;
        let ranks = ranks.into_iter().map(str::to_owned).collect();
        Ok(Arc::new(RankScanExec::try_new(scan, ranks, parquet_readers(found))?))
    }

    /// The columns of files that are alike which only scoring reads and which all of them let be read as bytes.
    fn byte_ranks<'a>(&'a self, alike: &[Arc<SessionFile>], needed: &'a [String]) -> BTreeSet<&'a str> {
        let names = &self.options.names;
        let is_byte_rank = |name: &str| alike.iter().all(|file| self.is_read_as_bytes(file, name));
        let (ranks, others): (Vec<&str>, Vec<&str>) =
            needed.iter().map(String::as_str).partition(|name| is_byte_rank(name));
        let read_anyway = |rank: &str| others.iter().any(|name| names.in_file(name) == rank);
        ranks.into_iter().map(|name| names.in_file(name)).filter(|rank| !read_anyway(rank)).collect()
    }

    pub(super) fn scan_options(&self, context: &SessionContext) -> ScanOptions {
        let batch_size = context.state_ref().read().config().batch_size();
        ScanOptions { batch_size, csv_newlines: self.options.csv_newlines }
    }

    /// The columns of `needed`, made of those of a file.
    fn canonical(
        &self,
        context: &SessionContext,
        file: &SessionFile,
        scan: Arc<dyn ExecutionPlan>,
        needed: &[String],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let names = &self.options.names;
        let wanted: Vec<(String, DataType)> =
            needed.iter().map(|name| (name.clone(), column_type(&self.columns, file, names, name))).collect();
        let exprs = canonical_exprs(context, names, file, scan.as_ref(), &wanted)?;
        if is_identity(&exprs, &scan) {
            return Ok(scan);
        }
        Ok(Arc::new(ProjectionExec::try_new(exprs, scan)?))
    }

    /// Whether a column is one of ranks that scoring alone reads, in a file that lets it be read as bytes.
    fn is_read_as_bytes(&self, file: &SessionFile, name: &str) -> bool {
        self.ranks.contains(name)
            && !self.options.passed.iter().any(|passed| passed == name)
            && file.byte_columns.contains(self.options.names.in_file(name))
    }
}

impl SessionInput {
    /// The plan that reads a part with all columns of its file, under the names and in the order that they have there. Rows
    /// are those of [`SessionInput::scan`], in the same order; not for the long layout, where a part has many files.
    pub fn scan_as_it_is(&self, context: &SessionContext, part: &InputPart) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = &part.file.schema;
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        match &part.file.source {
            Source::File(found) => {
                file_scan(found, schema, &[std::slice::from_ref(part)], all, self.scan_options(context))
            }
            Source::Stdin(_) => Err(DataFusionError::Configuration(
                "standard input cannot be read a second time, as --failures-to needs: write it to a file first"
                    .to_owned(),
            )),
        }
    }
}

/// Whether a projection changes nothing.
fn is_identity(exprs: &[ProjectionExpr], plan: &Arc<dyn ExecutionPlan>) -> bool {
    let schema = plan.schema();
    let same = |(index, (expr, field)): (usize, (&ProjectionExpr, &FieldRef))| {
        let column = expr.expr.downcast_ref::<PhysicalColumn>();
        expr.alias == *field.name() && column.is_some_and(|column| column.index() == index)
    };
    exprs.len() == schema.fields().len() && exprs.iter().zip(schema.fields()).enumerate().all(same)
}

/// How files are scanned.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct ScanOptions {
    /// The most rows of a batch.
    pub(in crate::engine) batch_size: usize,
    /// Whether a value of a CSV file may hold a line break, so that nothing may cut it.
    pub(in crate::engine) csv_newlines: bool,
}

/// The plan that reads parts of files that are alike: a partition for each, with those of the columns that the files have.
pub(super) fn scan_parts<'a>(
    parts: &[InputPart],
    names: &ColumnNames,
    columns: impl IntoIterator<Item = &'a str>,
    options: ScanOptions,
) -> Result<Arc<dyn ExecutionPlan>> {
    let groups: Vec<&[InputPart]> = parts.chunks(1).collect();
    scan_groups(&groups, names, columns, options)
}

/// The same with a partition for each group of parts, which are read one after the other.
pub(in crate::engine) fn scan_groups<'a>(
    groups: &[&[InputPart]],
    names: &ColumnNames,
    columns: impl IntoIterator<Item = &'a str>,
    options: ScanOptions,
) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(InputPart { file, .. }) = groups.first().and_then(|parts| parts.first()) else {
        return Err(DataFusionError::Internal("a scan of no parts".to_owned()));
    };
    let mut projection: Vec<usize> =
        columns.into_iter().filter_map(|name| Some(file.schema.column_with_name(names.in_file(name))?.0)).collect();
    projection.sort_unstable();
    projection.dedup();
    match &file.source {
        Source::File(found) => file_scan(found, &file.schema, groups, projection, options),
        Source::Stdin(stdin) => stdin.scan(&file.schema, &projection),
    }
}

/// One expression per wanted column of a plan that has a file's columns: renamed, cast, blank identifiers and times null, columns
/// that the file lacks null throughout.
pub(super) fn canonical_exprs(
    context: &SessionContext,
    names: &ColumnNames,
    file: &SessionFile,
    plan: &dyn ExecutionPlan,
    wanted: &[(String, DataType)],
) -> Result<Vec<ProjectionExpr>> {
    let plan_schema = plan.schema();
    let schema = DFSchema::try_from(Arc::clone(&plan_schema))?;
    let state = context.state_ref();
    let state = state.read();
    let expr = |(name, wanted): &(String, DataType)| {
        let is_text_id = *wanted == DataType::Utf8 && matches!(name.as_str(), SESSION_ID | USER_ID);
        let is_time = matches!(name.as_str(), COMPLETED_AT | STARTED_AT | DATE_OF_BIRTH);
        let expr = match file.schema.column_with_name(names.in_file(name)) {
            None => lit(ScalarValue::try_from(wanted)?),
            Some((_, field)) if field.data_type() == wanted && !is_text_id => {
                let column = PhysicalColumn::new_with_schema(field.name(), &plan_schema)?;
                return Ok(ProjectionExpr { expr: Arc::new(column), alias: name.clone() });
            }
            Some((_, field)) => {
                let column = Expr::Column(Column::from_name(field.name()));
                if is_time && is_string(&documented_type(field.data_type())) {
                    cast(blank_as_null(cast(column, DataType::Utf8))?, wanted.clone())
                } else {
                    let typed = cast_to(column, field.data_type(), wanted);
                    if is_text_id { blank_as_null(typed)? } else { typed }
                }
            }
        };
        Ok(ProjectionExpr { expr: state.create_physical_expr(expr, &schema)?, alias: name.clone() })
    };
    wanted.iter().map(expr).collect()
}

/// A cast of a column. Times without a zone are UTC, and those of a wanted column always are: the same numbers, which a cast
/// between the two would ask a calendar for, row by row.
fn cast_to(column: Expr, found: &DataType, wanted: &DataType) -> Expr {
    let number = match (found, wanted) {
        (DataType::Timestamp(_, None), DataType::Timestamp(unit, Some(_))) => {
            cast(cast(column, DataType::Timestamp(*unit, None)), DataType::Int64)
        }
        _ => column,
    };
    cast(number, wanted.clone())
}

/// Attributes and identifiers have one type in all files; ranks have the file's.
fn column_type(columns: &CanonicalColumns, file: &SessionFile, names: &ColumnNames, name: &str) -> DataType {
    let own = file.schema.column_with_name(names.in_file(name)).map(|(_, field)| field.data_type().clone());
    match (columns.data_type(name), own) {
        (Some(wanted), Some(own))
            if wanted.is_numeric() && own.is_numeric() && name != SESSION_ID && name != USER_ID =>
        {
            own
        }
        (Some(wanted), _) => wanted.clone(),
        (None, own) => own.unwrap_or(DataType::Null),
    }
}

fn blank_as_null(text: Expr) -> Result<Expr> {
    let blank = nullif(btrim(vec![text.clone()]), lit("")).is_null();
    case(blank).when(lit(true), lit(ScalarValue::Utf8(None))).otherwise(text)
}

/// What reads Parquet files of the store of `found`: over a network the next row group ahead.
fn parquet_readers(found: &FoundFile) -> Arc<dyn ParquetFileReaderFactory> {
    ReadAhead::of(found.location.scheme(), Arc::new(PartReaders::new(&found.location.store)))
}

/// Reads groups of parts of files of which `found` is one: all have its format, compression, store and schema.
fn file_scan(
    found: &FoundFile,
    schema: &SchemaRef,
    groups: &[&[InputPart]],
    projection: Vec<usize>,
    options: ScanOptions,
) -> Result<Arc<dyn ExecutionPlan>> {
    let source: Arc<dyn FileSource> = match found.format {
        FileFormat::Parquet => {
            let source = ParquetSource::new(Arc::clone(schema));
            Arc::new(source.with_parquet_file_reader_factory(parquet_readers(found)))
        }
        format @ (FileFormat::Csv | FileFormat::Ndjson) => Arc::new(TextSource::new(
            format,
            found.compression,
            schema,
            options.csv_newlines && format == FileFormat::Csv,
        )),
        FileFormat::Arrow => Arc::new(ArrowSource::new_file_source(Arc::clone(schema))),
    };
    let file = |part: &InputPart| {
        let Source::File(found) = &part.file.source else {
            return Err(DataFusionError::Internal("a stream is scanned as a file".to_owned()));
        };
        let mut file = PartitionedFile::new_from_meta(found.meta.clone());
        if let Some((from, to)) = part.range {
            file = file.with_range(from as i64, to as i64);
        }
        if found.format == FileFormat::Parquet {
            file = file.with_arrow_schema(Arc::clone(schema));
        }
        if let Some(footer) = &part.footer {
            file = file.with_extension(footer.clone());
        }
        Ok(file)
    };
    let group = |parts: &&[InputPart]| Ok(FileGroup::new(parts.iter().map(file).collect::<Result<_>>()?));
    let url = ObjectStoreUrl::parse(&found.location.store_url)?;
    let config = FileScanConfigBuilder::new(url, source)
        .with_file_groups(groups.iter().map(group).collect::<Result<_>>()?)
        .with_projection_indices(Some(projection))?
        .with_preserve_order(true)
        .with_batch_size(Some(options.batch_size.min(found.format.rows_at_once(schema.fields().len()))))
        .build();
    Ok(DataSourceExec::from_data_source(config))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use arrow::datatypes::{Field, Schema, TimeUnit};

    use super::*;
    use crate::model::result::timestamp_type;

    #[test]
    fn times_without_a_zone_are_utc_as_a_cast_would_have_them() {
        let state = SessionContext::new().state();
        for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
            let (found, wanted) = (DataType::Timestamp(unit, None), timestamp_type());
            let times = Int64Array::from(vec![Some(0), Some(-1), None, Some(-1_234_567), Some(1_700_000_000)]);
            let times = arrow::compute::cast(&times, &found).unwrap();
            let sessions = RecordBatch::try_from_iter([("t", times)]).unwrap();
            let schema = DFSchema::try_from(Schema::new(vec![Field::new("t", found.clone(), true)])).unwrap();
            let column = || Expr::Column(Column::from_name("t"));
            let evaluate = |expr: Expr| -> ArrayRef {
                let expr = state.create_physical_expr(expr, &schema).unwrap();
                expr.evaluate(&sessions).unwrap().into_array(sessions.num_rows()).unwrap()
            };
            let by_number = evaluate(cast_to(column(), &found, &wanted));
            assert_eq!(by_number.data_type(), &wanted);
            assert_eq!(&by_number, &evaluate(cast(column(), wanted)), "{unit:?}");
        }
    }
}
