//! Norm tables: their columns, and the dense arrays that lookups index.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::model::PerScale;

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

/// The percentiles of one scale of one group: a dense array from its lowest raw score.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DenseNorms {
    /// The raw score of the first entry.
    pub lowest: i32,
    /// One percentile per raw score; NaN where the group has no row.
    pub percentiles: Box<[f64]>,
}

impl DenseNorms {
    /// The percentile of exactly this raw score, if the group holds it.
    pub fn exact(&self, raw: i32) -> Option<f64> {
        let index = usize::try_from(i64::from(raw) - i64::from(self.lowest)).ok()?;
        self.percentiles.get(index).copied().filter(|percentile| !percentile.is_nan())
    }
}

/// The norms of one group in one version, all scales, as they are loaded. They are kept as
/// [`KeyedNorms`](crate::model::keyed_norms::KeyedNorms).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GroupNorms {
    /// One dense array per scale; empty for a scale that the group lacks.
    pub scales: PerScale<DenseNorms>,
}

/// A number that stands for a norm group within one process; [`PUBLISHED_ID`] is the published table.
pub type GroupId = u32;

/// The [`GroupId`] of the published table.
pub const PUBLISHED_ID: GroupId = 0;

/// Which rule a chain follows when a group lacks a raw score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ChainScope {
    /// Each scale falls back on its own.
    #[default]
    PerScale,
    /// All scales fall back together.
    PerSession,
}

/// The raw scores that a scale can take, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RawRange {
    /// The lowest raw score.
    pub lowest: i32,
    /// The highest raw score.
    pub highest: i32,
}

impl RawRange {
    /// Whether a raw score lies within the range.
    pub const fn contains(self, raw: i32) -> bool {
        self.lowest <= raw && raw <= self.highest
    }
}
