//! Upsert by replacing files: a file that loses rows to new ones of the same key is written anew without them.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::SchemaRef;
use datafusion::prelude::{DataFrame, SessionContext};

use crate::engine::{EngineError, FilesTable};
use crate::export::ExportError;
use crate::export::sink::delta::places;
use crate::export::sink::delta::write::TableWriter;
use crate::export::source::found;
use crate::table::{DataFile, Snapshot, Table};

/// Every key of the new files once, and none null.
pub(super) async fn check_keys(
    context: &SessionContext,
    table: &Table,
    files: &[DataFile],
    key: &[String],
    export: &str,
) -> Result<(), ExportError> {
    if files.is_empty() {
        return Ok(());
    }
    let rows = Rows { context, table, export };
    let new = rows.of(files).await?;
    let given = new.schema().field_names();
    if let Some(missing) = key.iter().find(|key| !new.schema().has_column_with_unqualified_name(key)) {
        return Err(ExportError::MissingKey { column: missing.clone(), given: given.join(", ") });
    }
    let shown = key.iter().map(|key| format!("coalesce(CAST({} AS VARCHAR), 'null')", quote(key)));
    let shown = shown.collect::<Vec<_>>().join(" || ', ' || ");
    let null = key.iter().map(|key| format!("{} IS NULL", quote(key))).collect::<Vec<_>>().join(" OR ");
    let by = key.iter().map(|key| quote(key)).collect::<Vec<_>>().join(", ");
    for (sql, what) in [
        (format!("SELECT {shown} AS key FROM new WHERE {null} LIMIT 1"), "a key that is null"),
        (format!("SELECT {shown} AS key FROM new GROUP BY {by} HAVING count(*) > 1 LIMIT 1"), "a key more than once"),
    ] {
        let bad = rows.ask(&sql, &[("new", &new)]).await?;
        let batches = bad.collect().await.map_err(|error| rows.failed(error))?;
        if let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) {
            let keys = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8);
            let keys = keys.map_err(|error| rows.failed(error.into()))?;
            let key = keys.as_string::<i32>().value(0).to_owned();
            return Err(ExportError::BadKey { export: export.to_owned(), what, key });
        }
    }
    Ok(())
}

/// The files that take the place of live ones, and the live ones that go.
///
/// Memory: the keys of the new files, as much as the session's sorts may hold before they spill.
pub(super) async fn replace(
    context: &SessionContext,
    table: &Table,
    base: &Snapshot,
    files: &[DataFile],
    key: &[String],
    run_id: &str,
    schema: &SchemaRef,
) -> Result<(Vec<DataFile>, Vec<String>), ExportError> {
    let (mut kept, mut removed) = (Vec::new(), Vec::new());
    if files.is_empty() {
        return Ok((kept, removed));
    }
    let rows = Rows { context, table, export: "upsert" };
    let new = rows.of(files).await?;
    let same = key.iter().map(|key| format!("new.{0} = old.{0}", quote(key))).collect::<Vec<_>>().join(" AND ");
    for (index, file) in base.files.iter().enumerate() {
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
        let mut writer = TableWriter::new(table, schema, &format!("{run_id}-kept-{}-{index:05}", base.version))?;
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
    export: &'a str,
}

impl Rows<'_> {
    async fn of(&self, files: &[DataFile]) -> Result<DataFrame, ExportError> {
        let found = found(places(self.table, files).await?).await?;
        let files = FilesTable::of(self.context, found).await;
        let files = files.map_err(|error| self.engine_failed(error))?;
        self.context.read_table(Arc::new(files)).map_err(|error| self.failed(error))
    }

    /// A query over tables that have names in it alone.
    async fn ask(&self, sql: &str, tables: &[(&str, &DataFrame)]) -> Result<DataFrame, ExportError> {
        let config = self.context.copied_config();
        let own = SessionContext::new_with_config_rt(config, self.context.runtime_env());
        for (name, rows) in tables {
            own.register_table(*name, (*rows).clone().into_view()).map_err(|error| self.failed(error))?;
        }
        own.sql(sql).await.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: datafusion::error::DataFusionError) -> ExportError {
        self.engine_failed(error.into())
    }

    fn engine_failed(&self, error: EngineError) -> ExportError {
        ExportError::Query { export: self.export.to_owned(), source: Box::new(error.into()) }
    }
}

fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}
