//! `norms`: the rows of all norm tables, those of the published one last.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::ViewTable;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::lit;
use datafusion::prelude::{DataFrame, SessionContext, col};

use crate::engine::EngineError;
use crate::engine::tables::FilesTable;
use crate::model::norm::{NORM_SCHEMA, PUBLISHED};
use crate::norms::{NormStore, PublishedNorms};
use crate::storage::Storage;

/// The column that says which norm table a row is from: its description, or [`PUBLISHED`].
const SOURCE: &str = "source";

/// The norms that a store looks percentiles up in, as a table: the columns of [`NORM_SCHEMA`], and `source`.
///
/// Nothing is read before a query runs. A group that several tables hold is there several times; scoring takes the first.
pub(in crate::engine) async fn norms_table(
    context: &SessionContext,
    storage: &Storage,
    norms: &NormStore,
) -> Result<Arc<dyn TableProvider>, EngineError> {
    let published = context.read_batch(PublishedNorms::table().map_err(DataFusionError::from)?)?;
    let mut all: Option<DataFrame> = None;
    for source in norms.sources() {
        for file in source.files() {
            let table = Arc::new(FilesTable::open(context, storage, &file, None).await?);
            let rows = labelled(context.read_table(table)?, &source.description())?;
            all = Some(match all {
                Some(all) => all.union(rows)?,
                None => rows,
            });
        }
    }
    let published = labelled(published, PUBLISHED)?;
    let all = match all {
        Some(all) => all.union(published)?,
        None => published,
    };
    Ok(Arc::new(ViewTable::new(all.into_unoptimized_plan(), None)))
}

/// The columns of a norm table in their order, those it lacks null, and where they are from.
fn labelled(rows: DataFrame, source: &str) -> Result<DataFrame, DataFusionError> {
    let has = |name: &str| rows.schema().has_column_with_unqualified_name(name);
    let column = |field: &Arc<arrow::datatypes::Field>| {
        let value = if has(field.name()) { col(field.name()) } else { lit(datafusion::common::ScalarValue::Null) };
        datafusion::logical_expr::cast(value, field.data_type().clone()).alias(field.name())
    };
    let columns: Vec<_> = NORM_SCHEMA.fields().iter().map(column).chain([lit(source).alias(SOURCE)]).collect();
    rows.select(columns)
}
