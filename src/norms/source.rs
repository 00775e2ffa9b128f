//! Where norms come from.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::Serialize;

use crate::model::Scale;
use crate::model::norm::GroupNorms;
use crate::norms::error::NormError;

/// A set of norm groups that are loaded when they are asked for.
///
/// The unit of loading is one (group, version) with all its scales: a chain asks a group for all seven scales of a
/// session, and a group's rows lie together in a sorted table, so seven chunks cost one read. Many groups are loaded together,
/// since those of a batch of sessions lie in few row groups. Implementations hold no norms themselves; what is loaded is cached
/// above, by [`NormStore`](crate::norms::NormStore).
#[async_trait]
pub trait NormSource: Debug + Send + Sync {
    /// What this source is, for messages: `imported norms in norms/ (2 files, 412,000 rows)`.
    fn description(&self) -> String;

    /// A hexadecimal digest that changes whenever any percentile changes. What goes into it is the implementation's to say.
    fn digest(&self) -> String;

    /// The norms of exactly these groups in exactly these versions, in their order; `None` for those of which the source has no
    /// row.
    ///
    /// Needs memory for the rows of these groups, about 16 KB each, and does not wait for other loads.
    async fn load(&self, groups: &[GroupName<'_>]) -> Result<Vec<Option<GroupNorms>>, NormError>;

    /// The Parquet files that hold its rows, as targets of [`Storage::open`](crate::storage::Storage::open), for whoever wants to
    /// read all of them. None for a source that is not files.
    fn files(&self) -> Vec<String> {
        Vec::new()
    }

    /// All groups and versions with what they hold, streamed in the source's own order; nothing is collected.
    fn groups(&self) -> BoxStream<'_, Result<GroupSummary, NormError>>;
}

/// A group in a version, as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupName<'a> {
    /// The group, as in `COUNTRY:Spain`.
    pub group: &'a str,
    /// The version.
    pub version: &'a str,
}

impl Hash for GroupName<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // What ends one name and begins the other need not be hashed: names that differ in that alone hardly ever meet.
        state.write(self.group.as_bytes());
        state.write(self.version.as_bytes());
    }
}

/// What a source holds of one group in one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupSummary {
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
    /// The scales that have rows, in result order.
    #[serde(serialize_with = "scale_codes")]
    pub scales: Vec<Scale>,
    /// How many rows.
    pub rows: u64,
}

fn scale_codes<S: serde::Serializer>(scales: &[Scale], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(scales.iter().map(|scale| scale.code()))
}

/// Bytes as lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One group of a source.
#[cfg(test)]
pub(crate) async fn load_one(
    source: &dyn NormSource,
    group: &str,
    version: &str,
) -> Result<Option<GroupNorms>, NormError> {
    Ok(source.load(&[GroupName { group, version }]).await?.pop().flatten())
}
