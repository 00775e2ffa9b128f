//! The published norms of the KLSI 4.0, built in: the last resort of every norm chain.
//!
//! `klsi4_published.csv` is the table of Kolb & Kolb, *The KLSI 4.0: A Comprehensive Guide* (2013), appendix 1 (raw scale
//! scores, ACCE and AERO) and appendix 7 (learning flexibility, here keyed by 320·LFI). No subgroup is in it.

use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::csv::ReaderBuilder;
use arrow::error::ArrowError;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use sha2::{Digest, Sha256};

use crate::model::norm::{DenseNorms, GroupNorms, NORM_SCHEMA, RawRange};
use crate::model::{PerScale, Scale};
use crate::norms::error::NormError;
use crate::norms::source::{GroupName, GroupSummary, NormSource, hex};

const KLSI4: &str = include_str!("klsi4_published.csv");

/// The group under which the published table can be asked for by name.
const GROUP: &str = "Total";
/// The version under which the published table can be asked for by name.
const VERSION: &str = "klsi4-2013";

/// What the published LFI is keyed in: 5m² for eight contexts.
const LFI_PARTS: i32 = 320;

static PARSED: LazyLock<Arc<PublishedNorms>> = LazyLock::new(|| Arc::new(PublishedNorms::parse(KLSI4)));

/// The published table: per scale the raw scores it holds, ascending, with their percentiles. About 7 KB.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedNorms {
    scales: PerScale<Vec<(i32, f64)>>,
}

impl PublishedNorms {
    /// The table of the KLSI 4.0, parsed once per process.
    pub fn klsi4() -> Arc<PublishedNorms> {
        Arc::clone(&PARSED)
    }

    fn parse(csv: &str) -> PublishedNorms {
        let mut scales = PerScale::<Vec<(i32, f64)>>::default();
        for line in csv.lines().skip(1) {
            let mut fields = line.split(',').skip(2);
            let scale = fields.next().and_then(Scale::from_code);
            let raw = fields.next().and_then(|raw| raw.parse().ok());
            let percentile = fields.nth(1).and_then(|percentile| percentile.parse().ok());
            if let (Some(scale), Some(raw), Some(percentile)) = (scale, raw, percentile) {
                scales[scale].push((raw, percentile));
            }
        }
        for rows in &mut scales.0 {
            rows.sort_unstable_by_key(|(raw, _)| *raw);
        }
        PublishedNorms { scales }
    }

    /// The percentile of exactly this raw score, if the table has a row for it.
    pub fn exact(&self, scale: Scale, raw: i32) -> Option<f64> {
        let rows = &self.scales[scale];
        rows.binary_search_by_key(&raw, |(raw, _)| *raw).ok().map(|index| rows[index].1)
    }

    /// The answer that always exists: the percentile of the nearest lower raw score that the table has, or of its lowest
    /// entry when the raw score is below all.
    pub fn nearest_lower(&self, scale: Scale, raw: i32) -> f64 {
        let rows = &self.scales[scale];
        let above = rows.partition_point(|(held, _)| *held <= raw);
        rows.get(above.saturating_sub(1)).map_or(0.0, |(_, percentile)| *percentile)
    }

    /// The lowest and the highest raw score that the table has for a scale.
    pub fn range(&self, scale: Scale) -> RawRange {
        let rows = &self.scales[scale];
        RawRange { lowest: rows.first().map_or(0, |(raw, _)| *raw), highest: rows.last().map_or(0, |(raw, _)| *raw) }
    }

    /// Whether a raw score lies outside the published range of its scale. LFI is never truncated.
    pub fn is_truncated(&self, scale: Scale, raw: i32) -> bool {
        scale != Scale::Lfi && !self.range(scale).contains(raw)
    }

    /// The answer for a raw score of an instrument whose scale takes the raw scores of `range`.
    ///
    /// LFI is keyed by parts of 5m² for m contexts ([`lfi_denominator`](crate::instrument::Instrument::lfi_denominator)): that of
    /// another number of contexts than the published eight is looked up as the same LFI in their parts.
    pub fn answer(&self, scale: Scale, raw: i32, range: RawRange) -> f64 {
        let raw = match scale {
            Scale::Lfi if range.highest > 0 => {
                (i64::from(raw) * i64::from(LFI_PARTS)).div_euclid(range.highest.into()) as i32
            }
            _ => raw,
        };
        self.nearest_lower(scale, raw)
    }

    /// The answers for every raw score of the given ranges: always one.
    pub fn over(&self, ranges: &PerScale<RawRange>) -> GroupNorms {
        GroupNorms {
            scales: PerScale::from_fn(|scale| {
                let range = ranges[scale];
                let percentiles = (range.lowest..=range.highest).map(|raw| self.answer(scale, raw, range)).collect();
                DenseNorms { lowest: range.lowest, percentiles }
            }),
        }
    }

    /// The table as it is published, with frequencies: the columns of [`NORM_SCHEMA`].
    pub fn table() -> Result<RecordBatch, ArrowError> {
        // In the order of the file: the frequency stands before the percentile.
        let in_file = Arc::new(NORM_SCHEMA.project(&[0, 1, 2, 3, 5, 4])?);
        let mut batches = ReaderBuilder::new(in_file)
            .with_header(true)
            .with_batch_size(KLSI4.lines().count())
            .build(KLSI4.as_bytes())?;
        let Some(batch) = batches.next() else { return Ok(RecordBatch::new_empty(Arc::clone(&NORM_SCHEMA))) };
        batch?.project(&[0, 1, 2, 3, 5, 4])
    }

    /// The rows as the norms of a group.
    fn group(&self) -> GroupNorms {
        GroupNorms {
            scales: PerScale::from_fn(|scale| {
                let RawRange { lowest, highest } = self.range(scale);
                let percentiles = (lowest..=highest).map(|raw| self.exact(scale, raw).unwrap_or(f64::NAN)).collect();
                DenseNorms { lowest, percentiles }
            }),
        }
    }
}

/// The published table by name: one group, `Total`, in the version `klsi4-2013`.
#[async_trait]
impl NormSource for PublishedNorms {
    fn description(&self) -> String {
        "published table of the KLSI 4.0 (built in)".to_owned()
    }

    fn digest(&self) -> String {
        hex(&Sha256::digest(KLSI4))
    }

    async fn load(&self, groups: &[GroupName<'_>]) -> Result<Vec<Option<GroupNorms>>, NormError> {
        let published = GroupName { group: GROUP, version: VERSION };
        Ok(groups.iter().map(|name| (*name == published).then(|| self.group())).collect())
    }

    fn groups(&self) -> BoxStream<'_, Result<GroupSummary, NormError>> {
        let rows = self.scales.0.iter().map(|rows| rows.len() as u64).sum();
        let scales = Scale::ALL.into_iter().filter(|scale| !self.scales[*scale].is_empty()).collect();
        let summary = GroupSummary { group: GROUP.to_owned(), version: VERSION.to_owned(), scales, rows };
        stream::iter([Ok(summary)]).boxed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::norms::source::load_one;

    #[test]
    fn every_row_of_the_guide_is_there() {
        let published = PublishedNorms::klsi4();
        let rows = PerScale::from_fn(|scale| published.scales[scale].len());
        assert_eq!(rows, PerScale([34, 34, 34, 34, 63, 66, 131]));
        assert_eq!(KLSI4.lines().count(), 397, "a header and 396 rows");
        assert_eq!(published.range(Scale::Ce), RawRange { lowest: 11, highest: 44 });
        assert_eq!(published.range(Scale::Acce), RawRange { lowest: -29, highest: 33 });
        assert_eq!(published.range(Scale::Aero), RawRange { lowest: -33, highest: 33 });
        assert_eq!(published.range(Scale::Lfi), RawRange { lowest: 24, highest: 320 });
        let table = PublishedNorms::table().unwrap();
        assert_eq!((table.num_rows(), table.schema()), (396, Arc::clone(&NORM_SCHEMA)));
        for (scale, rows) in published.scales.iter() {
            assert!(
                rows.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1),
                "{scale}: raw scores rise, percentiles never fall"
            );
        }
    }

    #[test]
    fn a_raw_score_without_a_row_takes_the_nearest_lower_one() {
        let published = PublishedNorms::klsi4();
        assert_eq!(published.exact(Scale::Ce, 11), Some(1.9));
        assert_eq!(published.exact(Scale::Ce, 45), None);
        assert_eq!(published.nearest_lower(Scale::Ce, 48), published.exact(Scale::Ce, 44).unwrap());
        assert_eq!(published.nearest_lower(Scale::Lfi, 43), 0.1, "42 is the nearest lower");
        assert_eq!(published.nearest_lower(Scale::Lfi, 0), 0.0, "below all: the lowest entry");
        assert_eq!(published.nearest_lower(Scale::Acce, -36), published.exact(Scale::Acce, -29).unwrap());
    }

    #[test]
    fn lfi_of_another_number_of_contexts_is_looked_up_as_the_same_lfi() {
        let published = PublishedNorms::klsi4();
        let answer = |raw, highest| published.answer(Scale::Lfi, raw, RawRange { lowest: 0, highest });
        for (raw, highest) in [(80, 80), (40, 80), (405, 405), (320, 320), (63, 320)] {
            let of_eight = published.nearest_lower(Scale::Lfi, raw * 320 / highest);
            assert_eq!(answer(raw, highest), of_eight, "{raw} of {highest}");
        }
        assert_eq!(answer(80, 80), 100.0);
        let over = |contexts: i32| PerScale::from_fn(|_| RawRange { lowest: 0, highest: 5 * contexts * contexts });
        let four = published.over(&over(4));
        assert_eq!(four.scales[Scale::Lfi].percentiles[80], 100.0);
    }

    #[test]
    fn truncation_is_about_the_published_range_and_never_about_lfi() {
        let published = PublishedNorms::klsi4();
        assert!(!published.is_truncated(Scale::Ce, 44));
        assert!(published.is_truncated(Scale::Ce, 45));
        assert!(published.is_truncated(Scale::Acce, -30));
        assert!(!published.is_truncated(Scale::Lfi, 0));
    }

    #[tokio::test]
    async fn the_published_table_can_be_asked_for_by_name() {
        let published = PublishedNorms::klsi4();
        let group = load_one(published.as_ref(), "Total", "klsi4-2013").await.unwrap().unwrap();
        assert_eq!(group.scales[Scale::Ce].exact(12), Some(7.4));
        assert_eq!(group.scales[Scale::Lfi].exact(25), None, "a gap stays a gap");
        assert_eq!(load_one(published.as_ref(), "Total", "default").await.unwrap(), None);
    }
}
