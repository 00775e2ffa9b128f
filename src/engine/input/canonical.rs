//! The canonical columns of sessions: what every file, whatever its format, is read as.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::engine::EngineError;
use crate::instrument::Instrument;
use crate::model::result::{documented_type, timestamp_type};
use crate::model::session::{
    self, COMPLETED_AT, DATE_OF_BIRTH, ITEM, MODE, PART, Part, RANK, SESSION_ID, STARTED_AT, USER_ID, packed_column,
    wide_column,
};
use crate::model::{Layout, Mode};
use crate::scoring::Accepts;

/// The names that columns have in files, where they are not the canonical ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnNames(pub BTreeMap<String, String>);

impl ColumnNames {
    /// The name in the file of a canonical column.
    pub fn in_file<'a>(&'a self, canonical: &'a str) -> &'a str {
        self.0.get(canonical).map_or(canonical, String::as_str)
    }
}

/// The rank columns of a layout, in checking order.
pub(super) fn rank_columns(layout: Layout, instrument: &Instrument) -> Vec<String> {
    let items = session::items(instrument.style_items, instrument.contexts.len());
    match layout {
        Layout::Wide => items.flat_map(|(part, item)| Mode::ALL.map(|mode| wide_column(part, item, mode))).collect(),
        Layout::Packed => items.map(|(part, item)| packed_column(part, item)).collect(),
        Layout::Long => [PART, ITEM, MODE, RANK].map(str::to_owned).to_vec(),
    }
}

/// The layout that a file's columns show.
///
/// The first column of a layout decides, so that a file that lacks one of the others is refused for that column rather than for
/// all.
pub fn detect_layout(schema: &Schema, names: &ColumnNames, file: &str) -> Result<Layout, EngineError> {
    let has = |canonical: &str| schema.index_of(names.in_file(canonical)).is_ok();
    if Mode::ALL.into_iter().any(|mode| has(&wide_column(Part::Style, 1, mode))) {
        Ok(Layout::Wide)
    } else if has(&packed_column(Part::Style, 1)) {
        Ok(Layout::Packed)
    } else if has(RANK) && has(ITEM) {
        Ok(Layout::Long)
    } else {
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let columns = if columns.is_empty() { "none".to_owned() } else { columns.join(", ") };
        Err(EngineError::UnknownLayout { file: file.to_owned(), columns })
    }
}

/// The type under which a text file's column is read, given the type that its first rows suggest.
///
/// Ranks, codes and times are read as text, so that a value that is no integer is one session's fault and not the end of the file,
/// and a blank time is none.
pub(super) fn text_type(canonical: &str, wanted: WantedColumns<'_>, inferred: &DataType) -> DataType {
    let is_passed = wanted.passed.iter().any(|passed| passed == canonical);
    match canonical {
        PART | MODE if wanted.is_rank(canonical) => DataType::Utf8View,
        _ if wanted.is_rank(canonical) => DataType::Utf8,
        SESSION_ID | USER_ID if *inferred == DataType::Int64 => DataType::Int64,
        COMPLETED_AT | STARTED_AT if is_passed => timestamp_type(),
        DATE_OF_BIRTH if is_passed => DataType::Date32,
        COMPLETED_AT | STARTED_AT | DATE_OF_BIRTH => DataType::Utf8,
        SESSION_ID | USER_ID | session::AGE_BAND | session::GENDER | session::EDUCATION_LEVEL | session::COUNTRY => {
            DataType::Utf8
        }
        _ if *inferred == DataType::Null => DataType::Utf8,
        _ => inferred.clone(),
    }
}

/// The columns that a scan gives, in order, with the types they have in every file of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalColumns {
    /// Name and type of each column.
    pub columns: Vec<(String, DataType)>,
}

impl CanonicalColumns {
    /// The columns as a schema.
    pub fn schema(&self) -> Schema {
        Schema::new(
            self.columns.iter().map(|(name, data_type)| Field::new(name, data_type.clone(), true)).collect::<Vec<_>>(),
        )
    }

    /// Adds a column before the ranks.
    pub(super) fn insert(&mut self, name: &str, data_type: DataType, ranks: &[String]) {
        let ranks_begin = self.columns.iter().position(|(column, _)| ranks.contains(column));
        self.columns.insert(ranks_begin.unwrap_or(self.columns.len()), (name.to_owned(), data_type));
    }

    /// The type of a column.
    pub fn data_type(&self, name: &str) -> Option<&DataType> {
        self.columns.iter().find(|(column, _)| column == name).map(|(_, data_type)| data_type)
    }
}

/// The columns that a file is read for, by their canonical names.
#[derive(Debug, Clone, Copy)]
pub(super) struct WantedColumns<'a> {
    /// The names that columns have in files.
    pub(super) names: &'a ColumnNames,
    /// The layout that needs the ranks and the session's id.
    pub(super) layout: Layout,
    /// Columns that every file must have, and that are read in each file's own type.
    pub(super) ranks: &'a [String],
    /// Columns that a file may have.
    pub(super) attributes: &'a [String],
    /// Columns that every file must have, in one type.
    pub(super) passed: &'a [String],
}

impl WantedColumns<'_> {
    fn is_rank(&self, canonical: &str) -> bool {
        self.ranks.iter().any(|rank| rank == canonical)
    }

    /// The columns that scoring can use where a file has them.
    pub(super) fn optional(&self) -> impl Iterator<Item = &str> {
        [USER_ID, COMPLETED_AT].into_iter().chain(self.attributes.iter().map(String::as_str))
    }
}

/// The canonical columns of one file: identifiers, the attributes and passed columns it has or must have, then ranks.
///
/// Identifiers that the file lacks are null columns.
pub(super) fn canonical_columns(
    file: &str,
    schema: &SchemaRef,
    wanted: WantedColumns<'_>,
) -> Result<CanonicalColumns, EngineError> {
    let WantedColumns { names, layout, ranks, attributes, passed } = wanted;
    let field = |canonical: &str| schema.column_with_name(names.in_file(canonical)).map(|(_, field)| field);
    let missing = |canonical: &str, layout| EngineError::MissingColumn {
        file: file.to_owned(),
        column: names.in_file(canonical).to_owned(),
        layout,
    };
    let wrong_type = |canonical: &str, found: &DataType, expected| EngineError::ColumnType {
        file: file.to_owned(),
        column: names.in_file(canonical).to_owned(),
        found: found.clone(),
        expected,
    };
    let mut columns: Vec<(String, DataType)> = Vec::new();

    let id = field(SESSION_ID).ok_or_else(|| missing(SESSION_ID, Some(layout)))?;
    let id_type = identifier_type(id.data_type())
        .ok_or_else(|| wrong_type(SESSION_ID, id.data_type(), "an integer or a string"))?;
    columns.push((SESSION_ID.to_owned(), id_type));
    let user_type = match field(USER_ID) {
        None => DataType::Int64,
        Some(user) => identifier_type(user.data_type())
            .ok_or_else(|| wrong_type(USER_ID, user.data_type(), "an integer or a string"))?,
    };
    columns.push((USER_ID.to_owned(), user_type));
    for time in wanted.optional().filter(|name| matches!(*name, COMPLETED_AT | STARTED_AT | DATE_OF_BIRTH)) {
        // Of a number nobody knows in what unit and since when it counts.
        if let Some(found) = field(time)
            && !is_time(&documented_type(found.data_type()))
        {
            let expected = if time == DATE_OF_BIRTH { "a date" } else { "a timestamp" };
            return Err(wrong_type(time, found.data_type(), expected));
        }
    }
    columns.push((COMPLETED_AT.to_owned(), timestamp_type()));

    for name in passed {
        let field = field(name).ok_or_else(|| missing(name, None))?;
        columns.push((name.clone(), field.data_type().clone()));
    }
    for name in attributes {
        if let Some(field) = field(name)
            && !columns.iter().any(|(known, _)| known == name)
        {
            columns.push((name.clone(), attribute_type(name, field.data_type())));
        }
    }
    for name in ranks {
        let field = field(name).ok_or_else(|| missing(name, Some(layout)))?;
        let (readable, expected) = match name.as_str() {
            PART | MODE => (is_string(&documented_type(field.data_type())), "a string"),
            _ => (Accepts::Integers.includes(field.data_type()), "an integer"),
        };
        if !readable {
            return Err(wrong_type(name, field.data_type(), expected));
        }
        columns.push((name.clone(), field.data_type().clone()));
    }
    Ok(CanonicalColumns { columns })
}

pub(super) fn is_string(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Whether a column can be read as times or dates: it has them, or their text, or nothing at all.
fn is_time(data_type: &DataType) -> bool {
    is_string(data_type)
        || matches!(data_type, DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64 | DataType::Null)
}

/// An identifier is an `Int64` or a `Utf8`, whatever its width or encoding in the file.
fn identifier_type(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Dictionary(_, value) => identifier_type(value),
        DataType::Null => Some(DataType::Int64),
        _ if is_string(data_type) => Some(DataType::Utf8),
        _ if data_type.is_integer() => Some(DataType::Int64),
        _ => None,
    }
}

/// Dates and timestamps are read as such; every other attribute as it comes, since a norm chain takes its text.
pub(super) fn attribute_type(name: &str, data_type: &DataType) -> DataType {
    match name {
        STARTED_AT => timestamp_type(),
        DATE_OF_BIRTH => DataType::Date32,
        _ => data_type.clone(),
    }
}
