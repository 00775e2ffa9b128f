//! The columns of a norm table: `norm_group, norm_version, scale, raw_score, percentile[, frequency]`.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

/// Name of the column that holds the group token, such as `COUNTRY:Spain`.
pub const NORM_GROUP: &str = "norm_group";
/// Name of the column that holds the version of a group's norms.
pub const NORM_VERSION: &str = "norm_version";
/// Name of the column that holds the scale code.
pub const SCALE: &str = "scale";
/// Name of the column that holds the raw score (for LFI: 320·LFI).
pub const RAW_SCORE: &str = "raw_score";
/// Name of the column that holds the percentile, 0..=100.
pub const PERCENTILE: &str = "percentile";
/// Name of the optional column that holds how many respondents had the raw score.
pub const FREQUENCY: &str = "frequency";

/// The version of a norm group when a token names none.
pub const DEFAULT_VERSION: &str = "default";
/// The provenance of a percentile that the published table answered.
pub const PUBLISHED: &str = "published";

/// The schema of imported norm tables, in file order.
pub static NORM_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new(NORM_GROUP, DataType::Utf8, false),
        Field::new(NORM_VERSION, DataType::Utf8, false),
        Field::new(SCALE, DataType::Utf8, false),
        Field::new(RAW_SCORE, DataType::Int32, false),
        Field::new(PERCENTILE, DataType::Float64, false),
        Field::new(FREQUENCY, DataType::Int64, true),
    ]))
});
