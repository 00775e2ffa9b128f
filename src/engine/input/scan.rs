//! The plan that reads one part of the input as canonical columns.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{
    ArrowSource, CsvSource, FileGroup, FileScanConfigBuilder, FileSource, JsonSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::functions::expr_fn::{btrim, nullif};
use datafusion::logical_expr::{Expr, case, cast, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::prelude::SessionContext;

use crate::engine::input::canonical::CanonicalColumns;
use crate::engine::input::format::FileFormat;
use crate::engine::input::open::{SessionFile, SessionInput, Source};
use crate::engine::input::part::InputPart;
use crate::model::session::{SESSION_ID, USER_ID};

impl SessionInput {
    /// The plan that reads a part: one partition, rows in file order, the columns of `needed` in its order and with the types
    /// of [`SessionInput::columns`]; ranks have the file's own type.
    ///
    /// The plan is meant to be executed once and as it is: not sent through a physical optimizer, which would cut it again.
    pub fn scan(
        &self,
        context: &SessionContext,
        part: &InputPart,
        needed: &[String],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = &part.file.schema;
        let mut projection: Vec<usize> =
            needed.iter().filter_map(|name| schema.index_of(self.options.names.in_file(name)).ok()).collect();
        projection.sort_unstable();
        projection.dedup();
        let scan = match &part.file.source {
            Source::File(_) => file_scan(context, part, projection)?,
            Source::Stdin(stdin) => stdin.scan(schema, &projection)?,
        };
        let exprs = self.canonical_exprs(context, &part.file, scan.as_ref(), needed)?;
        Ok(Arc::new(ProjectionExec::try_new(exprs, scan)?))
    }

    /// One expression per canonical column: renamed, cast, blank identifiers null, absent ones null throughout.
    fn canonical_exprs(
        &self,
        context: &SessionContext,
        file: &SessionFile,
        scan: &dyn ExecutionPlan,
        needed: &[String],
    ) -> Result<Vec<ProjectionExpr>> {
        let schema = DFSchema::try_from(scan.schema())?;
        let state = context.state();
        let expr = |name: &String| {
            let wanted = column_type(&self.columns, file, self.options.names.in_file(name), name);
            let expr = match file.schema.field_with_name(self.options.names.in_file(name)) {
                Err(_) => lit(ScalarValue::try_from(&wanted)?),
                Ok(field) => {
                    let column = Expr::Column(Column::from_name(field.name()));
                    let typed = if *field.data_type() == wanted { column } else { cast(column, wanted.clone()) };
                    match name.as_str() {
                        SESSION_ID | USER_ID if wanted == DataType::Utf8 => blank_as_null(typed)?,
                        _ => typed,
                    }
                }
            };
            Ok(ProjectionExpr { expr: state.create_physical_expr(expr, &schema)?, alias: name.clone() })
        };
        needed.iter().map(expr).collect()
    }
}

/// Attributes and identifiers have one type in all files; ranks have the file's.
fn column_type(columns: &CanonicalColumns, file: &SessionFile, in_file: &str, name: &str) -> DataType {
    let own = file.schema.field_with_name(in_file).map(|field| field.data_type().clone());
    match (columns.data_type(name), own) {
        (Some(wanted), Ok(own)) if wanted.is_numeric() && own.is_numeric() && name != SESSION_ID && name != USER_ID => {
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

fn file_scan(context: &SessionContext, part: &InputPart, projection: Vec<usize>) -> Result<Arc<dyn ExecutionPlan>> {
    let Source::File(found) = &part.file.source else { unreachable!("only files are scanned as files") };
    let schema = Arc::clone(&part.file.schema);
    let source: Arc<dyn FileSource> = match found.format {
        FileFormat::Parquet => {
            let cache = context.runtime_env().cache_manager.get_file_metadata_cache();
            let readers = CachedParquetFileReaderFactory::new(Arc::clone(&found.location.store), cache);
            let source = ParquetSource::new(Arc::clone(&schema))
                .with_metadata_size_hint(64 << 10)
                .with_parquet_file_reader_factory(Arc::new(readers));
            Arc::new(source)
        }
        FileFormat::Csv => {
            let options = datafusion::config::CsvOptions { has_header: Some(true), ..Default::default() };
            Arc::new(CsvSource::new(Arc::clone(&schema)).with_csv_options(options))
        }
        FileFormat::Ndjson => Arc::new(JsonSource::new(Arc::clone(&schema))),
        FileFormat::Arrow => Arc::new(ArrowSource::new_file_source(Arc::clone(&schema))),
    };
    let mut file = PartitionedFile::new_from_meta(found.meta.clone());
    if let Some((from, to)) = part.range {
        file = file.with_range(from as i64, to as i64);
    }
    if found.format == FileFormat::Parquet {
        file = file.with_arrow_schema(schema);
    }
    let url = ObjectStoreUrl::parse(&found.location.store_url)?;
    let config = FileScanConfigBuilder::new(url, source)
        .with_file_group(FileGroup::new(vec![file]))
        .with_file_compression_type(found.compression.into())
        .with_projection_indices(Some(projection))?
        .with_preserve_order(true)
        .build();
    Ok(DataSourceExec::from_data_source(config))
}
