//! The columns that tables have: a type for each that every reader of Delta and Parquet takes the same way.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use crate::table::TableError;

/// The type under which a column is kept in a table; `None` if tables have none for it.
///
/// Strings, booleans, signed integers, floats, dates and lists stay. Unsigned integers take the next wider signed type, times of
/// day and zone become UTC microseconds (a time without a zone is taken as UTC), as Delta has no other type at its lowest
/// protocol version.
pub fn table_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Boolean | DataType::Utf8 | DataType::Binary | DataType::Date32 => data_type.clone(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => data_type.clone(),
        DataType::Float32 | DataType::Float64 => data_type.clone(),
        DataType::Decimal128(precision, scale) if *scale >= 0 && u8::try_from(*scale).ok()? <= *precision => {
            data_type.clone()
        }
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(_, _) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Dictionary(_, value) => table_type(value)?,
        DataType::List(field) => {
            let item = table_type(field.data_type())?;
            DataType::List(Arc::new(field.as_ref().clone().with_data_type(item)))
        }
        _ => return None,
    })
}

/// The schema that a table has for rows of this schema: types as [`table_type`] says, no metadata.
pub fn table_schema(schema: &Schema) -> Result<Schema, TableError> {
    let field = |field: &Arc<Field>| {
        let data_type = table_type(field.data_type())
            .ok_or_else(|| TableError::ColumnType { column: field.name().clone(), found: field.data_type().clone() })?;
        Ok(Field::new(field.name(), data_type, field.is_nullable()))
    };
    let fields: Result<Vec<_>, TableError> = schema.fields().iter().map(field).collect();
    Ok(Schema::new(fields?))
}

/// How the columns of a table differ from those that are to be written; `None` if they do not. Names of the fields within
/// lists, and metadata, make no difference.
pub fn difference(table: &Schema, written: &Schema) -> Option<String> {
    let names = |schema: &Schema| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let (there, here) = (names(table), names(written));
    let missing: Vec<&str> = there.iter().filter(|name| !here.contains(name)).map(String::as_str).collect();
    let added: Vec<&str> = here.iter().filter(|name| !there.contains(name)).map(String::as_str).collect();
    let mut differences = Vec::new();
    if !missing.is_empty() {
        differences.push(format!("it has {}, which this would not write", missing.join(", ")));
    }
    if !added.is_empty() {
        differences.push(format!("it has not {}", added.join(", ")));
    }
    for field in table.fields() {
        let Ok(other) = written.field_with_name(field.name()) else { continue };
        if !same_values(field.data_type(), other.data_type()) {
            let (name, there, here) = (field.name(), field.data_type(), other.data_type());
            differences.push(format!("{name} is {there} there and {here} here"));
        } else if !field.is_nullable() && other.is_nullable() {
            differences.push(format!("{} may not be null there", field.name()));
        }
    }
    if differences.is_empty() && there != here {
        differences.push(format!("their order there is {}", there.join(", ")));
    }
    (!differences.is_empty()).then(|| differences.join("; "))
}

fn same_values(one: &DataType, other: &DataType) -> bool {
    match (one, other) {
        (DataType::List(one), DataType::List(other)) => same_values(one.data_type(), other.data_type()),
        _ => table_type(one) == table_type(other),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn schema(fields: &[(&str, DataType)]) -> Schema {
        Schema::new(
            fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn unsigned_integers_widen_and_times_are_utc_microseconds() {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        assert_eq!(table_type(&DataType::UInt8), Some(DataType::Int16));
        assert_eq!(table_type(&DataType::UInt64), Some(DataType::Decimal128(20, 0)));
        assert_eq!(table_type(&DataType::Timestamp(TimeUnit::Nanosecond, None)), Some(utc.clone()));
        assert_eq!(table_type(&DataType::Timestamp(TimeUnit::Second, Some("+02:00".into()))), Some(utc));
        assert_eq!(table_type(&DataType::Time64(TimeUnit::Microsecond)), None);
        let error = table_schema(&schema(&[("at", DataType::Time64(TimeUnit::Microsecond))])).unwrap_err();
        assert!(
            error.to_string().starts_with("the column 'at' is of type Time64(µs), which tables do not have"),
            "{error}"
        );
    }

    #[test]
    fn every_type_of_a_table_is_its_own_and_reads_back_from_its_name() {
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        for data_type in [DataType::Boolean, DataType::Int16, DataType::Decimal128(20, 0), DataType::Date32, list, utc]
        {
            assert_eq!(table_type(&data_type).as_ref(), Some(&data_type));
            assert_eq!(data_type.to_string().parse::<DataType>().unwrap(), data_type);
        }
    }

    #[test]
    fn a_difference_names_the_columns() {
        let table = schema(&[("a", DataType::Int64), ("b", DataType::Utf8)]);
        assert_eq!(difference(&table, &table), None);
        let other = schema(&[("a", DataType::Utf8), ("c", DataType::Utf8)]);
        assert_eq!(
            difference(&table, &other).unwrap(),
            "it has b, which this would not write; it has not c; a is Int64 there and Utf8 here"
        );
        let turned = schema(&[("b", DataType::Utf8), ("a", DataType::Int64)]);
        assert_eq!(difference(&table, &turned).unwrap(), "their order there is a, b");
    }
}
