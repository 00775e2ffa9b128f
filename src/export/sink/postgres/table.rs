//! The table that is exported to: its name, what it has to become, and the statements that bring it there.

use std::fmt;

use arrow::datatypes::Schema;

use crate::export::sink::postgres::Session;
use crate::export::sink::postgres::column::Column;
use crate::export::{ExportError, Mode};

const STAGING: &str = "pg_temp.normstream_staging";
pub(super) const DROP_STAGING: &str = "DROP TABLE IF EXISTS pg_temp.normstream_staging";

/// The name of a table, unquoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableName {
    pub(super) schema: Option<String>,
    pub(super) name: String,
}

impl TableName {
    /// Understands `table` and `schema.table`, either part in double quotes if it holds a dot. Case counts.
    pub(super) fn parse(text: &str) -> Result<Self, ExportError> {
        let refused = |reason| ExportError::TableName { table: text.to_owned(), reason };
        let (mut parts, mut part, mut quoted) = (Vec::new(), String::new(), false);
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '"' if quoted && letters.peek() == Some(&'"') => {
                    letters.next();
                    part.push('"');
                }
                '"' => quoted = !quoted,
                '.' if !quoted => parts.push(std::mem::take(&mut part)),
                '\0' => return Err(refused("it holds a NUL character")),
                letter => part.push(letter),
            }
        }
        parts.push(part);
        if quoted {
            return Err(refused("a double quote is not closed"));
        }
        if parts.iter().any(String::is_empty) {
            return Err(refused("a part of it is empty"));
        }
        if parts.iter().any(|part| part.len() > 63) {
            return Err(refused("PostgreSQL cuts names after 63 bytes"));
        }
        match <[String; 2]>::try_from(parts) {
            Ok([schema, name]) => Ok(Self { schema: Some(schema), name }),
            Err(mut parts) => match (parts.pop(), parts.is_empty()) {
                (Some(name), true) => Ok(Self { schema: None, name }),
                _ => Err(refused("it has more than two parts; write TABLE or SCHEMA.TABLE")),
            },
        }
    }

    /// As it stands in SQL.
    pub(super) fn quoted(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quote(schema), quote(&self.name)),
            None => quote(&self.name),
        }
    }
}

/// An identifier as it stands in SQL.
pub(super) fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// How the table comes to hold the query's columns.
#[derive(Debug)]
enum Change {
    Create,
    Add(Vec<usize>),
}

/// What a load does to the table.
#[derive(Debug)]
pub(super) struct TablePlan {
    table: TableName,
    pub(super) columns: Vec<Column>,
    change: Change,
    key: Vec<String>,
}

impl TablePlan {
    /// Compares the query's columns with those of the table. Refuses changes of types, and what upsert cannot go by.
    pub(super) async fn new(session: &Session, schema: &Schema, mode: &Mode) -> Result<Self, ExportError> {
        let table = session.table.clone();
        let column = |field: &std::sync::Arc<arrow::datatypes::Field>| {
            Column::new(field).ok_or_else(|| ExportError::UnsupportedType {
                target: session.pool.name().to_owned(),
                column: field.name().clone(),
                data_type: field.data_type().clone(),
            })
        };
        let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
        let key = match mode {
            Mode::Upsert { key } => key.clone(),
            Mode::Append | Mode::Overwrite => Vec::new(),
        };
        if let Some(missing) = key.iter().find(|key| !columns.iter().any(|column| column.name == **key)) {
            let given = columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(ExportError::MissingKey { column: missing.clone(), given });
        }
        let mut plan = TablePlan { table, columns, change: Change::Create, key };
        let found = plan.found(session).await?;
        if !found.is_empty() {
            plan.change = Change::Add(plan.missing(&found)?);
            if !plan.key.is_empty() && !plan.key_is_unique(session).await? {
                return Err(ExportError::KeyNotUnique { table: plan.table.quoted(), key: list(&plan.key) });
            }
        }
        Ok(plan)
    }

    /// Whether there is no table yet.
    pub(super) fn creates(&self) -> bool {
        matches!(self.change, Change::Create)
    }

    async fn found(&self, session: &Session) -> Result<Vec<Found>, ExportError> {
        const SQL: &str = "SELECT attname::text, format_type(atttypid, atttypmod),
                attnotnull AND NOT atthasdef AND attidentity = '' AND attgenerated = ''
            FROM pg_attribute
            WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
        let rows = session.client().query(SQL, &[&self.table.quoted()]).await;
        let rows = rows.map_err(|source| session.pool.error("look at the table", source))?;
        Ok(rows.iter().map(|row| Found { name: row.get(0), sql: row.get(1), must_be_given: row.get(2) }).collect())
    }

    /// The columns that the table lacks.
    fn missing(&self, found: &[Found]) -> Result<Vec<usize>, ExportError> {
        let mut missing = Vec::new();
        for (index, column) in self.columns.iter().enumerate() {
            match found.iter().find(|found| found.name == column.name) {
                None => missing.push(index),
                Some(found) if column.fits(&found.sql) => {}
                Some(found) => {
                    return Err(ExportError::TypeChanged {
                        table: self.table.quoted(),
                        column: column.name.clone(),
                        found: found.sql.clone(),
                        given: column.sql.clone(),
                    });
                }
            }
        }
        let given = |found: &&Found| self.columns.iter().any(|column| column.name == found.name);
        match found.iter().find(|found| found.must_be_given && !given(found)) {
            Some(found) => Err(ExportError::MissingColumn { table: self.table.quoted(), column: found.name.clone() }),
            None => Ok(missing),
        }
    }

    /// Whether a unique index has just the columns of the key.
    async fn key_is_unique(&self, session: &Session) -> Result<bool, ExportError> {
        const SQL: &str = "SELECT EXISTS (
            SELECT 1 FROM pg_index i
            WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
              AND $2::text[] = (
                SELECT array_agg(a.attname::text ORDER BY a.attname::text COLLATE \"C\")
                FROM unnest(i.indkey) WITH ORDINALITY AS k (attnum, position)
                LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                WHERE k.position <= i.indnkeyatts))";
        let mut key = self.key.clone();
        key.sort();
        let row = session.client().query_one(SQL, &[&self.table.quoted(), &key]).await;
        Ok(row.map_err(|source| session.pool.error("look at the indexes", source))?.get(0))
    }

    /// The names of all columns, as they stand in SQL.
    pub(super) fn column_list(&self) -> String {
        self.columns.iter().map(|column| quote(&column.name)).collect::<Vec<_>>().join(", ")
    }

    /// Makes the staging table anew; it is the connection's own and goes with it.
    pub(super) fn staging(&self) -> String {
        let columns = self.columns.iter().map(|column| format!("{} {}", quote(&column.name), column.sql));
        let columns = columns.collect::<Vec<_>>().join(", ");
        format!("{DROP_STAGING}; CREATE TEMPORARY TABLE normstream_staging ({columns})")
    }

    /// Brings encoded rows into the staging table.
    pub(super) fn copy(&self) -> String {
        format!("COPY {STAGING} ({}) FROM STDIN (FORMAT binary)", self.column_list())
    }

    /// Queries for a key that is null and for one that stands in the staged rows twice; each gives one row, or none.
    pub(super) fn bad_keys(&self, key: &[String]) -> [(String, &'static str); 2] {
        let shown = key.iter().map(|key| format!("coalesce({}::text, 'null')", quote(key)));
        let shown = shown.collect::<Vec<_>>().join(" || ', ' || ");
        let null = key.iter().map(|key| format!("{} IS NULL", quote(key))).collect::<Vec<_>>().join(" OR ");
        [
            (format!("SELECT {shown} FROM {STAGING} WHERE {null} LIMIT 1"), "a key that is null"),
            (
                format!("SELECT {shown} FROM {STAGING} GROUP BY {} HAVING count(*) > 1 LIMIT 1", list(key)),
                "a key more than once",
            ),
        ]
    }

    /// The statements that bring the staged rows into the table, in order, each with what it is for.
    pub(super) fn merge(&self, mode: &Mode) -> Vec<(&'static str, String)> {
        let table = self.table.quoted();
        let mut statements = Vec::new();
        match &self.change {
            Change::Create => {
                let mut columns: Vec<String> =
                    self.columns.iter().map(|column| format!("{} {}", quote(&column.name), column.sql)).collect();
                if !self.key.is_empty() {
                    columns.push(format!("PRIMARY KEY ({})", list(&self.key)));
                }
                statements.push(("create the table", format!("CREATE TABLE {table} ({})", columns.join(", "))));
            }
            Change::Add(missing) if !missing.is_empty() => {
                let added = missing.iter().map(|index| &self.columns[*index]);
                let added = added.map(|column| format!("ADD COLUMN {} {}", quote(&column.name), column.sql));
                let added = added.collect::<Vec<_>>().join(", ");
                statements.push(("add columns", format!("ALTER TABLE {table} {added}")));
            }
            Change::Add(_) => {}
        }
        let columns = self.column_list();
        let insert = format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM {STAGING}");
        match mode {
            Mode::Append => statements.push(("append the rows", insert)),
            // Not TRUNCATE: that keeps readers waiting, and empties the table for those who began before the commit.
            Mode::Overwrite => {
                statements.push(("delete the old rows", format!("DELETE FROM {table}")));
                statements.push(("insert the new rows", insert));
            }
            Mode::Upsert { key } => {
                let others = self.columns.iter().map(|column| &column.name).filter(|name| !key.contains(name));
                let updates: Vec<String> = others.map(|name| format!("{0} = EXCLUDED.{0}", quote(name))).collect();
                let action = match updates.is_empty() {
                    true => "NOTHING".to_owned(),
                    false => format!("UPDATE SET {}", updates.join(", ")),
                };
                statements.push(("upsert the rows", format!("{insert} ON CONFLICT ({}) DO {action}", list(key))));
            }
        }
        statements
    }
}

impl fmt::Display for TablePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table.quoted();
        match &self.change {
            Change::Create => {
                write!(f, "creates {table} with {} columns", self.columns.len())?;
                if self.key.is_empty() { Ok(()) } else { write!(f, " and the primary key ({})", list(&self.key)) }
            }
            Change::Add(missing) if missing.is_empty() => write!(f, "{table} has all {} columns", self.columns.len()),
            Change::Add(missing) => {
                let added = missing.iter().map(|index| &self.columns[*index]);
                let added = added.map(|column| format!("{} {}", quote(&column.name), column.sql));
                write!(f, "adds to {table}: {}", added.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// A column of the table that is there.
struct Found {
    name: String,
    sql: String,
    /// Whether a row without a value for it is refused.
    must_be_given: bool,
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_read_as_sql_writes_them_and_written_quoted() {
        let quoted = |text| TableName::parse(text).unwrap().quoted();
        assert_eq!(quoted("scores"), "\"scores\"");
        assert_eq!(quoted("dw.Scores"), "\"dw\".\"Scores\"");
        assert_eq!(quoted("\"odd.name\""), "\"odd.name\"");
        assert_eq!(quoted("dw.\"a\"\"b; DROP TABLE x\""), "\"dw\".\"a\"\"b; DROP TABLE x\"");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for (text, reason) in [
            ("", "a part of it is empty"),
            ("a.", "a part of it is empty"),
            ("a.b.c", "it has more than two parts; write TABLE or SCHEMA.TABLE"),
            ("\"a", "a double quote is not closed"),
        ] {
            let error = TableName::parse(text).unwrap_err().to_string();
            assert_eq!(error, format!("'{text}' is not the name of a table: {reason}"));
        }
        assert!(TableName::parse(&"n".repeat(64)).is_err());
    }
}
