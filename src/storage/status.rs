//! What a pool has done so far, as plain numbers.

/// One store's pool at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolStatus {
    /// Scheme and authority: `s3://bucket`.
    pub store: String,
    /// Steady capacity.
    pub size: usize,
    /// Burst above it.
    pub max_overflow: usize,
}
