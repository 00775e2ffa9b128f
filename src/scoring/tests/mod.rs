//! Tests of the kernels: each stage by explicit values, laws over their whole domain, and all stages chained over random
//! batches against a row-at-a-time reference.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agreement;
mod columns;
mod flags;
mod flexibility;
mod laws;
mod norms;
mod percentiles;
mod raw_scales;
mod reference;
mod session;
mod style;
mod table;
mod validate;
