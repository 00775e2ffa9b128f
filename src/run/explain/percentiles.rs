//! The report of the percentile stage: which steps of the norm chain were tried, and which one answered.

use arrow::array::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;

use crate::engine::Scoring;
use crate::model::norm::{ChainScope, PUBLISHED};
use crate::model::result::{
    ACCE, AERO, FLEXIBILITY_LEVEL, TRUNCATED_SCALES, USED_FALLBACK, norm_group_column, percentile_column,
};
use crate::model::{PerScale, Scale};
use crate::norms::{ChainStep, GroupToken, PublishedNorms};
use crate::operators::{NormContext, session_chain};
use crate::run::explain::report::{
    ChainLinkReport, PercentilesReport, PublishedEntry, PublishedRule, ScaleReport, StepReport, TruncationReport,
};
use crate::run::explain::row::Row;
use crate::scoring::LFI_KEY;

/// `session` is the row as it was read, from which the chain is filled; `row` has the stage's columns.
pub(super) async fn report(
    scoring: &Scoring,
    context: &TaskContext,
    session: &RecordBatch,
    row: Row<'_>,
) -> Result<PercentilesReport> {
    let store = NormContext::of(context)?;
    let entries = session_chain(&scoring.chain, &scoring.instrument, session)?;
    let tokens: Vec<GroupToken> = entries.iter().filter_map(|entry| entry.token.clone()).collect();
    let mut raws = PerScale::<i32>::default();
    for scale in Scale::ALL {
        raws[scale] = row.score(&raw_score_column(scale))?.into();
    }
    let steps = store.explain_session(&tokens, &raws).await;
    let steps = steps.map_err(|error| DataFusionError::External(Box::new(error)))?;
    let scale = |(scale, steps): (Scale, Vec<ChainStep>)| {
        let step = |step: ChainStep| {
            let published = step.token == PUBLISHED && step.version.is_none();
            let published_entry = published.then(|| published_entry(store.published(), scale, raws[scale]));
            StepReport { step, published_entry }
        };
        Ok(ScaleReport {
            scale: scale.code(),
            raw: row.score(&raw_score_column(scale))?,
            percentile: row.float(&percentile_column(scale))?,
            norm_group: row.text(&norm_group_column(scale))?,
            steps: steps.into_iter().map(step).collect(),
        })
    };
    let chain = entries.into_iter().map(|entry| ChainLinkReport {
        template: entry.template,
        token: entry.token.map(|token| token.to_string()),
        missing: entry.missing,
    });
    Ok(PercentilesReport {
        chain_scope: match store.options().scope {
            ChainScope::PerScale => "per-scale",
            ChainScope::PerSession => "per-session",
        },
        chain: chain.collect(),
        scales: Scale::ALL.into_iter().zip(steps.0).map(scale).collect::<Result<_>>()?,
        used_fallback: row.boolean(USED_FALLBACK)?,
        truncated_scales: truncations(scoring, row)?,
        flexibility_level: row.text(FLEXIBILITY_LEVEL)?,
        tertiles: scoring.instrument.tertiles,
    })
}

/// The column with the raw score that a scale's norms are looked up by.
fn raw_score_column(scale: Scale) -> String {
    match scale {
        Scale::Ce | Scale::Ro | Scale::Ac | Scale::Ae => format!("{}_raw", scale.name()),
        Scale::Acce => ACCE.to_owned(),
        Scale::Aero => AERO.to_owned(),
        Scale::Lfi => LFI_KEY.to_owned(),
    }
}

/// The entry of the published table that answers for a raw score.
fn published_entry(published: &PublishedNorms, scale: Scale, raw: i32) -> PublishedEntry {
    let range = published.range(scale);
    if raw < range.lowest {
        return PublishedEntry { raw_score: range.lowest, rule: PublishedRule::Lowest };
    }
    let has_entry = |raw: &i32| published.exact(scale, *raw).is_some();
    let raw_score = (range.lowest..=raw.min(range.highest)).rev().find(has_entry).unwrap_or(range.lowest);
    let rule = if raw_score == raw { PublishedRule::Exact } else { PublishedRule::NearestLower };
    PublishedEntry { raw_score, rule }
}

fn truncations(scoring: &Scoring, row: Row<'_>) -> Result<Vec<TruncationReport>> {
    let truncation = |name: String| {
        let scale = Scale::from_code(&name);
        let range = scale.and_then(|scale| scoring.instrument.published_range[scale]).unwrap_or_default();
        let raw = scale.map_or(Ok(0), |scale| row.score(&raw_score_column(scale)))?;
        Ok(TruncationReport { scale: name, raw, range: [range.lowest, range.highest] })
    };
    row.texts(TRUNCATED_SCALES)?.into_iter().map(truncation).collect()
}
