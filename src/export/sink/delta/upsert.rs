//! Upsert by replacing files: a file that loses rows to new ones of the same key is written anew without them.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::prelude::{DataFrame, SessionContext};

use crate::engine::{EngineError, FilesTable};
use crate::export::ExportError;
use crate::export::sink::delta::write::TableWriter;
use crate::table::{DataFile, Snapshot, Table};

/// Every key of the new files once, and none null.
pub(super) async fn check_keys(
    context: &SessionContext,
    table: &Table,
    files: &[DataFile],
    key: &[String],
    schema: &SchemaRef,
    export: &str,
) -> Result<(), ExportError> {
    let rows = Rows { context, table, schema, export };
    if let Some(missing) = key.iter().find(|key| schema.index_of(key).is_err()) {
        let given = schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
        return Err(ExportError::MissingKey { column: missing.clone(), given });
    }
    let key: Vec<String> = key.iter().map(|key| quote(key)).collect();
    let shown = key.iter().map(|key| format!("coalesce(CAST({key} AS VARCHAR), 'null')"));
    let shown = shown.collect::<Vec<_>>().join(" || ', ' || ");
    let null = key.iter().map(|key| format!("{key} IS NULL")).collect::<Vec<_>>().join(" OR ");
    let by = key.join(", ");
    let new = rows.of(files).await?;
    for (sql, what) in [
        (format!("SELECT {shown} AS key FROM new WHERE {null} LIMIT 1"), "a key that is null"),
        (format!("SELECT {shown} AS key FROM new GROUP BY {by} HAVING count(*) > 1 LIMIT 1"), "a key more than once"),
    ] {
        let bad = rows.ask(&sql, &[("new", &new)]).await?.collect().await.map_err(|error| rows.failed(error))?;
        if let Some(batch) = bad.iter().find(|batch| batch.num_rows() > 0) {
            let keys = cast(batch.column(0), &DataType::Utf8).map_err(|error| rows.failed(error.into()))?;
            let key = keys.as_string::<i32>().value(0).to_owned();
            return Err(ExportError::BadKey { export: export.to_owned(), what, key });
        }
    }
    Ok(())
}

/// The files that take the place of live ones, and the live ones that go.
///
/// Memory: the keys of the new rows or of one live file, as much as the session's joins may hold.
pub(super) async fn replace(
    context: &SessionContext,
    table: &Table,
    base: &Snapshot,
    files: &[DataFile],
    key: &[String],
    schema: &SchemaRef,
    run_id: &str,
) -> Result<(Vec<DataFile>, Vec<String>), ExportError> {
    let (mut kept, mut removed) = (Vec::new(), Vec::new());
    let rows = Rows { context, table, schema, export: "upsert" };
    let new = rows.of(files).await?;
    let same = key.iter().map(|key| format!("new.{0} = old.{0}", quote(key))).collect::<Vec<_>>().join(" AND ");
    for file in &base.files {
        let old = rows.of(std::slice::from_ref(file)).await?;
        let tables = [("new", &new), ("old", &old)];
        let lost = format!("SELECT 1 FROM old WHERE EXISTS (SELECT 1 FROM new WHERE {same}) LIMIT 1");
        let lost = rows.ask(&lost, &tables).await?.collect().await.map_err(|error| rows.failed(error))?;
        if lost.iter().all(|batch| batch.num_rows() == 0) {
            continue;
        }
        let others = format!("SELECT old.* FROM old WHERE NOT EXISTS (SELECT 1 FROM new WHERE {same})");
        let others = rows.ask(&others, &tables).await?;
        let mut others = others.execute_stream().await.map_err(|error| rows.failed(error))?;
        let mut writer = TableWriter::new(table, schema, &format!("{run_id}-kept"))?;
        writer.write_all(&mut others, "upsert").await?;
        kept.extend(writer.finish().await?);
        removed.push(file.path.clone());
    }
    Ok((kept, removed))
}

/// Queries over files of a table.
struct Rows<'a> {
    context: &'a SessionContext,
    table: &'a Table,
    schema: &'a SchemaRef,
    export: &'a str,
}

impl Rows<'_> {
    async fn of(&self, files: &[DataFile]) -> Result<DataFrame, ExportError> {
        let files = self.table.locations(files).await?;
        let files = FilesTable::of_parquet(self.context, files, Arc::clone(self.schema)).await;
        let files = files.map_err(|error| self.engine_failed(error))?;
        self.context.read_table(Arc::new(files)).map_err(|error| self.failed(error))
    }

    /// A query over tables that have names in it alone.
    async fn ask(&self, sql: &str, tables: &[(&str, &DataFrame)]) -> Result<DataFrame, ExportError> {
        let own = SessionContext::new_with_config_rt(self.context.copied_config(), self.context.runtime_env());
        for (name, rows) in tables {
            own.register_table(*name, (*rows).clone().into_view()).map_err(|error| self.failed(error))?;
        }
        own.sql(sql).await.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: DataFusionError) -> ExportError {
        self.engine_failed(error.into())
    }

    fn engine_failed(&self, error: EngineError) -> ExportError {
        ExportError::Query { export: self.export.to_owned(), source: Box::new(error.into()) }
    }
}

fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}
