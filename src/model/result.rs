//! The result schema: which columns a scored session has, in which order, with which documented types.
//!
//! Inside a plan, columns with few distinct strings or numbers travel as dictionaries (see [`column_type`]); what is written and what SQL
//! sees are the documented types of [`documented_type`].

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};

use crate::model::session::{COMPLETED_AT, SESSION_ID, USER_ID};
use crate::model::{Mode, Scale};

pub const OK: &str = "ok";
pub const ERROR_STAGE: &str = "error_stage";
pub const ERROR_CODE: &str = "error_code";
pub const ERROR: &str = "error";
pub const ACCE: &str = "acce";
pub const AERO: &str = "aero";
pub const ASSIMILATION_ACCOMMODATION: &str = "assimilation_accommodation";
pub const CONVERGING_DIVERGING: &str = "converging_diverging";
pub const BALANCE_ACCE: &str = "balance_acce";
pub const BALANCE_AERO: &str = "balance_aero";
pub const STYLE: &str = "style";
pub const BACKUP_STYLE: &str = "backup_style";
pub const INTENSITY: &str = "intensity";
pub const KENDALL_W: &str = "kendall_w";
pub const LFI: &str = "lfi";
pub const FLEXIBILITY_LEVEL: &str = "flexibility_level";
pub const CONTEXT_STYLES: &str = "context_styles";
pub const USED_FALLBACK: &str = "used_fallback";
pub const TRUNCATED_SCALES: &str = "truncated_scales";
pub const FLAGS: &str = "flags";

/// The raw score column of a mode: `ce_raw` … `ae_raw`.
pub fn raw_column(mode: Mode) -> String {
    format!("{}_raw", mode.suffix())
}

/// The percentile column of a scale: `ce_percentile` … `lfi_percentile`.
pub fn percentile_column(scale: Scale) -> String {
    format!("{}_percentile", scale.name())
}

/// The provenance column of a scale: `ce_norm_group` … `lfi_norm_group`.
pub fn norm_group_column(scale: Scale) -> String {
    format!("{}_norm_group", scale.name())
}

/// The names of all result columns, in output order, without passed-through columns.
pub fn columns() -> Vec<String> {
    let fixed = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    [
        fixed(&[SESSION_ID, USER_ID, COMPLETED_AT, OK, ERROR_STAGE, ERROR_CODE, ERROR]),
        Mode::ALL.map(raw_column).to_vec(),
        fixed(&[ACCE, AERO, ASSIMILATION_ACCOMMODATION, CONVERGING_DIVERGING, BALANCE_ACCE, BALANCE_AERO]),
        fixed(&[STYLE, BACKUP_STYLE, INTENSITY, KENDALL_W, LFI, FLEXIBILITY_LEVEL, CONTEXT_STYLES]),
        Scale::ALL.map(percentile_column).to_vec(),
        Scale::ALL.map(norm_group_column).to_vec(),
        fixed(&[USED_FALLBACK, TRUNCATED_SCALES, FLAGS]),
    ]
    .concat()
}

/// The type of timestamps in results: microseconds, UTC.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// A string column with few distinct values, as it travels inside a plan: keys, and each string once.
pub fn dictionary_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::UInt8), Box::new(DataType::Utf8))
}

/// The same for norm groups, of which there may be more than 256.
pub fn norm_group_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8))
}

/// The percentiles of sessions, as they travel inside a plan: keys, and each percentile once.
pub fn percentile_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Float64))
}

/// The same for W and LFI, which are fractions of one denominator: the key is the numerator.
pub fn fraction_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Float64))
}

/// A list of strings with few distinct values, as it travels inside a plan.
pub fn dictionary_list_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(dictionary_type(), true)))
}

/// The type that a scored column has inside a plan, or `None` for a name that is not a scored column.
///
/// `session_id`, `user_id` and `completed_at` come from the input and are not listed.
pub fn column_type(name: &str) -> Option<DataType> {
    Some(match name {
        OK | USED_FALLBACK => DataType::Boolean,
        ERROR_STAGE | ERROR_CODE | STYLE | BACKUP_STYLE | FLEXIBILITY_LEVEL => dictionary_type(),
        ERROR => DataType::Utf8,
        ACCE | AERO | ASSIMILATION_ACCOMMODATION | CONVERGING_DIVERGING => DataType::Int16,
        BALANCE_ACCE | BALANCE_AERO | INTENSITY => DataType::Int16,
        KENDALL_W | LFI => fraction_type(),
        CONTEXT_STYLES | TRUNCATED_SCALES | FLAGS => dictionary_list_type(),
        _ if Mode::ALL.into_iter().any(|mode| raw_column(mode) == name) => DataType::Int16,
        _ if Scale::ALL.into_iter().any(|scale| percentile_column(scale) == name) => percentile_type(),
        _ if Scale::ALL.into_iter().any(|scale| norm_group_column(scale) == name) => norm_group_type(),
        _ => return None,
    })
}

/// The field of a scored column inside a plan. Only `ok` is never null.
pub fn column_field(name: &str) -> Option<FieldRef> {
    column_type(name).map(|data_type| Arc::new(Field::new(name, data_type, name != OK)))
}

/// The type under which a column is written and seen in SQL: dictionaries become their values, everything else stays.
pub fn documented_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, value) => documented_type(value),
        DataType::List(field) => {
            let item = documented_type(field.data_type());
            DataType::List(Arc::new(field.as_ref().clone().with_data_type(item)))
        }
        other => other.clone(),
    }
}

/// The schema under which a plan's rows are written: each field with its documented type, and nullable whether or not the
/// input was, so that results of different inputs go together. Only `ok` is never null.
pub fn documented_schema(schema: &Schema) -> Schema {
    let fields = schema.fields().iter().map(|field| {
        let data_type = documented_type(field.data_type());
        field.as_ref().clone().with_data_type(data_type).with_nullable(field.name() != OK)
    });
    Schema::new(fields.collect::<Vec<_>>())
}
