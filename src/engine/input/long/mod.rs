//! The long layout: one row per rank, sessions assembled from rows.
//!
//! A session is all rows with one `session_id`, wherever they lie: in any order, in any of the files. Its attributes come from a
//! table of their own, one row per session, or from the session's first row. Rows whose id is null (or blank) cannot be told
//! apart and are one session.
//!
//! With a table of attributes, sessions come out in its order, then those that have only ranks, in the order of their first
//! rows; without one, all in the order of their first rows. A session of the table that has no ranks comes out (and fails with
//! `missing_rank`); a session that is not in the table comes out with null for the table's columns. Two rows of the table with one
//! id are two sessions with the same ranks. A null id of the table belongs to no ranks, and ranks without an id to no row of the
//! table. A column that both have is the table's.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use arrow::datatypes::DataType;

use crate::engine::EngineError;
use crate::engine::input::canonical::{CanonicalColumns, WantedColumns, rank_columns};
use crate::engine::input::open::{InputOptions, SessionFile, settle_columns};
use crate::instrument::Instrument;
use crate::model::Layout;
use crate::model::session::SESSION_ID;
use crate::operators::SheetShape;
use crate::scoring::LONG_FAULT;

/// What a plan of the long layout needs to know beside the files and the canonical columns.
#[derive(Debug, Clone)]
pub(super) struct LongInput {
    shape: SheetShape,
    /// The canonical columns that come from the table of attributes; all others come from the rank rows.
    of_attributes: BTreeSet<String>,
}

impl LongInput {
    /// Settles how files are read, and the columns of the sessions assembled from them: those of one row per session, then the rank
    /// columns of the wide layout and [`LONG_FAULT`].
    pub(super) fn settle(
        files: &mut [SessionFile],
        attributes: &mut [SessionFile],
        instrument: &Instrument,
        options: &InputOptions,
    ) -> Result<(CanonicalColumns, LongInput), EngineError> {
        let names = &options.names;
        let ranks = rank_columns(Layout::Long, instrument);
        if let Some(column) = options.passed.iter().find(|name| ranks.contains(name)) {
            return Err(EngineError::PassedRank { column: column.clone() });
        }
        let wanted: Vec<String> = options.attributes.iter().filter(|name| !ranks.contains(name)).cloned().collect();
        let has = |files: &[SessionFile], name: &str| {
            files.iter().any(|file| file.schema.field_with_name(names.in_file(name)).is_ok())
        };
        let (of_table, of_rows): (Vec<String>, Vec<String>) =
            options.passed.iter().cloned().partition(|name| has(attributes, name));
        if let (Some(table), Some(column)) = (attributes.first(), of_rows.iter().find(|name| !has(files, name))) {
            return Err(EngineError::MissingAttribute {
                column: names.in_file(column).to_owned(),
                ranks: files[0].name(),
                attributes: table.name(),
            });
        }
        let row = WantedColumns { names, layout: Layout::Long, ranks: &ranks, attributes: &wanted, passed: &of_rows };
        // Of NDJSON the first lines need not show all columns: what the rows show is not looked for in a table that does not.
        let of_rows_alone: BTreeSet<&str> =
            row.optional().filter(|name| has(files, name) && !has(attributes, name)).collect();
        let rows = settle_columns(files, row)?;
        let table = settle_columns(attributes, WantedColumns { ranks: &[], passed: &of_table, ..row })?;
        let is_of_table =
            |name: &String| has(attributes, name) && name != SESSION_ID && !of_rows_alone.contains(name.as_str());
        let of_attributes: BTreeSet<String> =
            table.columns.iter().map(|(name, _)| name.clone()).filter(is_of_table).collect();

        let mut columns: Vec<(String, DataType)> = Vec::new();
        let of_session = rows.columns.into_iter().filter(|(name, _)| !ranks.contains(name));
        for (name, of_rows) in of_session.chain(table.columns.iter().cloned()) {
            if columns.iter().any(|(known, _)| *known == name) {
                continue;
            }
            let data_type = match table.data_type(&name) {
                // Ids are compared, so both tables' are of one type.
                Some(of_table) if name == SESSION_ID => {
                    if of_rows == *of_table {
                        of_rows
                    } else {
                        DataType::Utf8
                    }
                }
                Some(of_table) if of_attributes.contains(&name) => of_table.clone(),
                _ => of_rows,
            };
            columns.push((name, data_type));
        }
        let shape = SheetShape::of(instrument);
        columns.extend(shape.wide_columns().map(|name| (name, DataType::UInt8)));
        columns.push((LONG_FAULT.to_owned(), DataType::UInt32));
        Ok((CanonicalColumns { columns }, LongInput { shape, of_attributes }))
    }
}
