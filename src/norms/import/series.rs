//! What only shows once rows are sorted: duplicates, and percentiles that fall.

use crate::model::Scale;
use crate::norms::import::fault::FaultCause;
use crate::norms::token::provenance;

/// A row in sorted order, with where it came from: the number of its file, and the line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SortedRow<'a> {
    pub(crate) version: &'a str,
    pub(crate) group: &'a str,
    pub(crate) scale: Scale,
    pub(crate) raw: i32,
    pub(crate) percentile: f64,
    pub(crate) frequency: Option<i64>,
    pub(crate) origin: (usize, u64),
}

/// Follows the rows of one (version, group, scale) after another.
#[derive(Debug, Default)]
pub(crate) struct SeriesCheck {
    series: Option<Series>,
}

#[derive(Debug)]
struct Series {
    version: String,
    group: String,
    scale: Scale,
    raw: i32,
    percentile: f64,
    origin: (usize, u64),
    /// The last row that a fault was told of: a row in hundredths stands for several raw scores and is told of once.
    faulty: Option<(usize, u64)>,
}

impl SeriesCheck {
    /// The fault that a row has beside the row before it. `place` names the place of a row.
    pub(crate) fn check(
        &mut self,
        row: &SortedRow<'_>,
        place: impl FnOnce((usize, u64)) -> String,
    ) -> Option<FaultCause> {
        let same = |series: &&mut Series| {
            series.scale == row.scale && series.group == row.group && series.version == row.version
        };
        let Some(series) = self.series.as_mut().filter(same) else {
            self.series = Some(Series {
                version: row.version.to_owned(),
                group: row.group.to_owned(),
                scale: row.scale,
                raw: row.raw,
                percentile: row.percentile,
                origin: row.origin,
                faulty: None,
            });
            return None;
        };
        let group = || provenance(row.group, row.version);
        let fault = if row.raw == series.raw {
            Some(FaultCause::Duplicate { group: group(), scale: row.scale, raw: row.raw, first: place(series.origin) })
        } else if row.percentile < series.percentile {
            Some(FaultCause::PercentileFalls {
                group: group(),
                scale: row.scale,
                raw: row.raw,
                percentile: row.percentile,
                raw_before: series.raw,
                before: series.percentile,
            })
        } else {
            (series.raw, series.percentile, series.origin) = (row.raw, row.percentile, row.origin);
            None
        };
        let told = fault.is_some() && series.faulty == Some(row.origin);
        if fault.is_some() {
            series.faulty = Some(row.origin);
        }
        fault.filter(|_| !told)
    }
}
