//! Files of any format as a table, whatever they hold.
//!
//! Not DataFusion's listing table: that one caches what a folder holds, knows formats by one extension and reads CSV files by the
//! place of their columns. Here a table is the files that [`discover`] finds when it is opened, and columns go by name.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::type_coercion::binary::type_union_coercion;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use datafusion::prelude::SessionContext;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::engine::input::{ScanOptions, open_files, scan_groups};
use crate::engine::{
    ColumnNames, Compression, EngineError, FileFormat, FoundFile, InputPart, PartLimits, Reading, SessionFile, Source,
    discover,
};
use crate::storage::{Location, Storage};

/// Files of which the size is asked at once.
const ASKED_AT_ONCE: usize = 16;

/// Files as one table: the columns of all, null where a file lacks one.
///
/// The files are those that were there when the table was opened. A query reads the columns and, in Parquet, the row groups and
/// pages that it needs.
pub struct FilesTable {
    files: Vec<Arc<SessionFile>>,
    schema: SchemaRef,
}

impl FilesTable {
    /// Finds the files of a target (a file, a folder, a pattern or a URL) and reads their schemas.
    pub async fn open(
        context: &SessionContext,
        storage: &Storage,
        target: &str,
        format: Option<FileFormat>,
    ) -> Result<FilesTable, EngineError> {
        let found = discover(storage, &[target.to_owned()], format, Reading::OnDemand).await?;
        FilesTable::of(context, found, None).await
    }

    /// The table of Parquet files of a known schema, of which there may be none.
    pub async fn of_parquet(
        context: &SessionContext,
        files: Vec<Location>,
        schema: SchemaRef,
    ) -> Result<FilesTable, EngineError> {
        let found = async |location: Location| -> Result<FoundFile, EngineError> {
            let meta = location.head().await?;
            Ok(FoundFile { location, meta, format: FileFormat::Parquet, compression: Compression::None })
        };
        let found = stream::iter(files).map(found).buffered(ASKED_AT_ONCE).try_collect().await?;
        FilesTable::of(context, found, Some(schema)).await
    }

    async fn of(
        context: &SessionContext,
        found: Vec<FoundFile>,
        schema: Option<SchemaRef>,
    ) -> Result<FilesTable, EngineError> {
        let sources = found.into_iter().map(Box::new).map(Source::File).collect();
        let mut files = open_files(context, sources, PartLimits::default()).await?;
        files.iter_mut().for_each(with_unseen_as_text);
        let files: Vec<Arc<SessionFile>> = files.into_iter().map(Arc::new).collect();
        let schema = match schema {
            Some(schema) => schema,
            None => Arc::new(merged(&files)?),
        };
        Ok(FilesTable { files, schema })
    }
}

/// A column of a text file of which the first rows show nothing is read as text: later ones may hold something.
fn with_unseen_as_text(file: &mut SessionFile) {
    if file.format().is_text() {
        let field = |field: &Arc<Field>| match field.data_type() {
            DataType::Null => field.as_ref().clone().with_data_type(DataType::Utf8),
            _ => field.as_ref().clone(),
        };
        file.schema = Arc::new(Schema::new(file.schema.fields().iter().map(field).collect::<Vec<_>>()));
    }
}

/// The columns of all files, in the order of their first appearance; a column of different types has one that holds them all.
fn merged(files: &[Arc<SessionFile>]) -> Result<Schema, EngineError> {
    let mut fields: Vec<(Field, String)> = Vec::new();
    for file in files {
        for field in file.schema.fields() {
            let Some((known, first_file)) = fields.iter_mut().find(|(known, _)| known.name() == field.name()) else {
                fields.push((field.as_ref().clone().with_nullable(true), file.name()));
                continue;
            };
            let (first, second) = (known.data_type().clone(), field.data_type().clone());
            if first == second || second == DataType::Null {
                continue;
            }
            match type_union_coercion(&first, &second) {
                Some(union) => *known = known.clone().with_data_type(union),
                None => {
                    let (column, first_file) = (field.name().clone(), first_file.clone());
                    return Err(EngineError::TypesDiffer {
                        column,
                        first_file,
                        first,
                        second_file: file.name(),
                        second,
                    });
                }
            }
        }
    }
    Ok(Schema::new(fields.into_iter().map(|(field, _)| field).collect::<Vec<_>>()))
}

impl std::fmt::Debug for FilesTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilesTable").field("files", &self.files.len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for FilesTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(projection) => Arc::new(self.schema.project(projection)?),
            None => Arc::clone(&self.schema),
        };
        let partitions = session.config().target_partitions().max(1);
        let scan = |alike: &[Arc<SessionFile>]| {
            let parts: Vec<InputPart> = alike.iter().map(InputPart::whole).collect();
            let groups: Vec<&[InputPart]> = parts.chunks(parts.len().div_ceil(partitions)).collect();
            let names = schema.fields().iter().map(|field| field.name().as_str());
            // Nobody has said that no value of a CSV file holds a line break.
            let options = ScanOptions { batch_size: session.config().batch_size(), csv_newlines: true };
            let plan = scan_groups(&groups, &ColumnNames::default(), names, options)?;
            as_columns_of(&schema, plan)
        };
        let mut plans = self.files.chunk_by(|a, b| a.is_read_like(b)).map(scan).collect::<Result<Vec<_>>>()?;
        match plans.pop() {
            None => Ok(Arc::new(EmptyExec::new(schema))),
            Some(only) if plans.is_empty() => Ok(only),
            last => UnionExec::try_new(plans.into_iter().chain(last).collect()),
        }
    }
}

/// The columns of a schema by name, in its order and types; those that the plan lacks are null.
fn as_columns_of(schema: &Schema, plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let found = plan.schema();
    let same = |(ours, theirs): (&Arc<Field>, &Arc<Field>)| {
        ours.name() == theirs.name() && ours.data_type() == theirs.data_type()
    };
    if found.fields().len() == schema.fields().len() && schema.fields().iter().zip(found.fields()).all(same) {
        return Ok(plan);
    }
    let expr = |field: &Arc<Field>| {
        let expr: Arc<dyn PhysicalExpr> = match found.index_of(field.name()) {
            Err(_) => Arc::new(Literal::new(ScalarValue::try_from(field.data_type())?)),
            Ok(index) => {
                let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), index));
                if found.field(index).data_type() == field.data_type() {
                    column
                } else {
                    Arc::new(CastExpr::new(column, field.data_type().clone(), None))
                }
            }
        };
        Ok(ProjectionExpr { expr, alias: field.name().clone() })
    };
    let exprs = schema.fields().iter().map(expr).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(ProjectionExec::try_new(exprs, plan)?))
}
