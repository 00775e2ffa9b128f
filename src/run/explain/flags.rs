//! The report of the flags stage: what raised each flag.

use std::collections::BTreeMap;

use datafusion::error::Result;

use crate::instrument::{Instrument, Window};
use crate::model::result::{ACCE, AERO, FLAGS, KENDALL_W, TRUNCATED_SCALES, norm_group_column};
use crate::model::session::{Part, packed_column};
use crate::model::{Scale, permutation};
use crate::run::explain::report::FlagReport;
use crate::run::explain::row::Row;
use crate::run::explain::stages::signed;
use crate::scoring::code_column;

pub(super) fn report(instrument: &Instrument, row: Row<'_>) -> Result<Vec<FlagReport>> {
    let thresholds = &instrument.flags;
    let report = |flag: String| {
        let reason = match flag.as_str() {
            "near_style_boundary" => borders(instrument, row)?,
            "low_w" => format!("W = {} is below {}", row.float(KENDALL_W)?, thresholds.low_w_below),
            "high_w" => format!("W = {} is above {}", row.float(KENDALL_W)?, thresholds.high_w_above),
            "repeated_context_pattern" => repeated_pattern(instrument, row)?,
            "mixed_provenance" => provenances(row)?,
            "excessive_truncation" => {
                let scales = row.texts(TRUNCATED_SCALES)?;
                let enough = thresholds.excessive_truncation_at;
                format!("{} of the scales are truncated ({}), {enough} or more", scales.len(), scales.join(", "))
            }
            _ => String::new(),
        };
        Ok(FlagReport { flag, reason })
    };
    row.texts(FLAGS)?.into_iter().map(report).collect()
}

fn borders(instrument: &Instrument, row: Row<'_>) -> Result<String> {
    let border = |name: &str, score: i16, window: Window| {
        let Window { lowest, highest } = window;
        let borders = [lowest - 1, lowest, highest, highest + 1].map(signed).join(", ");
        window.is_border(score).then(|| format!("{name} = {} is one of {borders}", signed(score)))
    };
    let acce = border("ACCE", row.score(ACCE)?, instrument.acce_window);
    let aero = border("AERO", row.score(AERO)?, instrument.aero_window);
    Ok(acce.into_iter().chain(aero).collect::<Vec<_>>().join("; "))
}

/// The most frequent ranking, in the order CE RO AC AE, and the contexts that have it.
fn repeated_pattern(instrument: &Instrument, row: Row<'_>) -> Result<String> {
    let mut contexts = BTreeMap::<u8, Vec<String>>::new();
    for item in 1..=instrument.contexts.len() {
        let code = row.code(&code_column(Part::Context, item))?;
        contexts.entry(code).or_default().push(packed_column(Part::Context, item));
    }
    let most = contexts.into_iter().max_by_key(|(_, contexts)| contexts.len());
    let (code, contexts) = most.unwrap_or_default();
    let ranking: String = permutation::RANKS[usize::from(code)].iter().map(u8::to_string).collect();
    let enough = instrument.flags.repeated_pattern_at;
    Ok(format!("{ranking} in {} contexts ({}), {enough} or more", contexts.len(), contexts.join(", ")))
}

/// Which scales each norm group answered.
fn provenances(row: Row<'_>) -> Result<String> {
    let mut scales_of = Vec::<(String, Vec<&str>)>::new();
    for scale in Scale::ALL {
        let group = row.text(&norm_group_column(scale))?;
        match scales_of.iter_mut().find(|(known, _)| *known == group) {
            Some((_, scales)) => scales.push(scale.code()),
            None => scales_of.push((group, vec![scale.code()])),
        }
    }
    let part = |(group, scales): (String, Vec<&str>)| format!("{} by {group}", scales.join(", "));
    Ok(scales_of.into_iter().map(part).collect::<Vec<_>>().join("; "))
}
