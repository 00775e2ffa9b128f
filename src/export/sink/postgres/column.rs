//! Which type of PostgreSQL holds a column, and which types of an existing table can take it as it is.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};

/// How a column reaches the database.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Column {
    /// Its name.
    pub(super) name: String,
    /// The type it is cast to before it is encoded.
    pub(super) encoded: DataType,
    /// The type in which it is staged, and that it has in a table of ours.
    pub(super) sql: String,
}

impl Column {
    /// `None` for a type that no column can hold.
    pub(super) fn new(field: &Field) -> Option<Column> {
        let (encoded, sql) = column_type(field.data_type())?;
        Some(Column { name: field.name().clone(), encoded, sql })
    }

    /// Whether a column of an existing table takes the values as they are. `found` is as `format_type` gives it.
    pub(super) fn fits(&self, found: &str) -> bool {
        let wider: &[&str] = match self.sql.as_str() {
            "smallint" => &["integer", "bigint", "numeric"],
            "integer" => &["bigint", "numeric"],
            "bigint" => &["numeric"],
            "real" => &["double precision"],
            "text" => &["character varying"],
            _ => &[],
        };
        found == self.sql
            || wider.contains(&found)
            || (self.sql == "text" && found.starts_with("character varying("))
            || holds_decimals(found, &self.sql)
    }
}

/// Whether numbers of one `numeric(precision,scale)` lose nothing in another.
fn holds_decimals(found: &str, given: &str) -> bool {
    let Some((precision, scale)) = decimal(given) else { return false };
    match decimal(found) {
        Some((found_precision, found_scale)) => {
            found_scale >= scale && found_precision - found_scale >= precision - scale
        }
        None => found == "numeric",
    }
}

fn decimal(sql: &str) -> Option<(i32, i32)> {
    let (precision, scale) = sql.strip_prefix("numeric(")?.strip_suffix(')')?.split_once(',')?;
    Some((precision.parse().ok()?, scale.parse().ok()?))
}

fn column_type(data_type: &DataType) -> Option<(DataType, String)> {
    use DataType as T;
    let (encoded, sql) = match data_type {
        T::Boolean => (T::Boolean, "boolean"),
        T::Int8 | T::Int16 | T::UInt8 => (T::Int16, "smallint"),
        T::Int32 | T::UInt16 => (T::Int32, "integer"),
        T::Int64 | T::UInt32 => (T::Int64, "bigint"),
        T::UInt64 => (T::UInt64, "numeric(20,0)"),
        T::Float16 | T::Float32 => (T::Float32, "real"),
        T::Float64 => (T::Float64, "double precision"),
        T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Null => (T::Utf8, "text"),
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => (T::Binary, "bytea"),
        T::Date32 | T::Date64 => (T::Date32, "date"),
        T::Time32(_) | T::Time64(_) => (T::Time64(TimeUnit::Microsecond), "time without time zone"),
        T::Timestamp(_, None) => (T::Timestamp(TimeUnit::Microsecond, None), "timestamp without time zone"),
        T::Timestamp(_, Some(_)) => {
            (T::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), "timestamp with time zone")
        }
        T::Decimal32(precision, scale) | T::Decimal64(precision, scale) | T::Decimal128(precision, scale)
            if *scale >= 0 =>
        {
            return Some((T::Decimal128(*precision, *scale), format!("numeric({precision},{scale})")));
        }
        T::Dictionary(_, value) => return column_type(value),
        T::List(item) | T::LargeList(item) | T::FixedSizeList(item, _) => {
            let (encoded, sql) = column_type(item.data_type()).filter(|(encoded, _)| !encoded.is_nested())?;
            return Some((T::List(Arc::new(Field::new_list_field(encoded, true))), format!("{sql}[]")));
        }
        _ => return None,
    };
    Some((encoded, sql.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn column(data_type: DataType) -> Column {
        Column::new(&Field::new("c", data_type, true)).unwrap()
    }

    #[test]
    fn results_become_the_types_a_person_would_choose() {
        let strings = DataType::Dictionary(Box::new(DataType::UInt8), Box::new(DataType::Utf8));
        assert_eq!(column(strings.clone()).sql, "text");
        assert_eq!(column(DataType::Int16).sql, "smallint");
        assert_eq!(column(DataType::UInt32).sql, "bigint");
        assert_eq!(column(DataType::Float64).sql, "double precision");
        assert_eq!(column(crate::model::result::timestamp_type()).sql, "timestamp with time zone");
        assert_eq!(column(DataType::new_list(strings, true)).sql, "text[]");
        assert_eq!(column(DataType::Decimal128(12, 3)).sql, "numeric(12,3)");
    }

    #[test]
    fn a_wider_column_of_a_table_takes_a_narrower_one_and_never_the_reverse() {
        assert!(column(DataType::Int16).fits("bigint"));
        assert!(!column(DataType::Int64).fits("integer"));
        assert!(column(DataType::Utf8).fits("character varying(40)"));
        assert!(!column(DataType::Utf8).fits("integer"));
        assert!(column(DataType::Decimal128(12, 3)).fits("numeric(14,4)"));
        assert!(!column(DataType::Decimal128(12, 3)).fits("numeric(12,4)"));
        assert!(column(DataType::Decimal128(12, 3)).fits("numeric"));
    }

    #[test]
    fn what_no_column_can_hold_is_none() {
        let pair = DataType::Struct(vec![Field::new("a", DataType::Int8, true)].into());
        assert_eq!(Column::new(&Field::new("c", pair.clone(), true)), None);
        assert_eq!(Column::new(&Field::new("c", DataType::new_list(pair, true), true)), None);
    }
}
