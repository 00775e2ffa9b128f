//! Single lookups and why they came out so, step by step. In bulk, the percentile kernel looks sessions up in the groups that
//! [`NormStore::find`] gives.

use std::sync::Arc;

use serde::Serialize;

use crate::model::keyed_norms::KeyedNorms;
use crate::model::norm::{ChainScope, PUBLISHED};
use crate::model::{PerScale, Scale};
use crate::norms::error::NormError;
use crate::norms::store::{FoundGroup, NormStore};
use crate::norms::token::GroupToken;

/// The answer of one lookup.
#[derive(Debug, Clone, PartialEq)]
pub struct NormAnswer {
    /// The percentile, 0 to 100.
    pub percentile: f64,
    /// The group that gave it; `None` for the published table.
    pub group: Option<Arc<FoundGroup>>,
}

impl NormAnswer {
    /// Who gave it: `GROUP`, `GROUP|VERSION` or `published`.
    pub fn norm_group(&self) -> &str {
        self.group.as_ref().map_or(PUBLISHED, |found| &found.name)
    }
}

/// One step of a chain that was tried for one raw score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChainStep {
    /// The token, or `published` for the last resort.
    pub token: String,
    /// The version that was looked into, which is not the one asked for when versions fall back; none for `published`.
    pub version: Option<String>,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: StepOutcome,
}

/// What came of a step. The last step of every chain is [`StepOutcome::Used`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum StepOutcome {
    /// The step gave the answer.
    Used {
        /// The percentile.
        percentile: f64,
        /// The provenance that goes into the result.
        norm_group: String,
    },
    /// No source has the group in that version.
    NoSuchGroup,
    /// The group has no row of exactly this raw score.
    NoSuchRawScore,
    /// The group has this raw score but not those of other scales, and the chain's scope is per session.
    LacksOtherScales {
        /// The names of the scales whose raw score it lacks.
        scales: Vec<&'static str>,
        /// The percentile that it would have given.
        percentile: f64,
    },
}

impl NormStore {
    /// The percentile of one raw score by the per-scale rule, whatever the store's scope is.
    pub async fn lookup(&self, tokens: &[GroupToken], scale: Scale, raw: i32) -> Result<NormAnswer, NormError> {
        for token in tokens {
            if let Some(found) = self.find(token).await?
                && let Some(percentile) = found.norms.percentile(scale, raw)
            {
                return Ok(NormAnswer { percentile, group: Some(found) });
            }
        }
        Ok(NormAnswer { percentile: self.published_percentile(scale, raw), group: None })
    }

    /// Every step that [`lookup`](Self::lookup) tries, up to the one that answers.
    pub async fn explain(&self, tokens: &[GroupToken], scale: Scale, raw: i32) -> Result<Vec<ChainStep>, NormError> {
        self.steps(tokens, scale, raw, |_| Vec::new()).await
    }

    /// Every step that is tried for a session, for each scale, by the rule of the store's scope.
    pub async fn explain_session(
        &self,
        tokens: &[GroupToken],
        raws: &PerScale<i32>,
    ) -> Result<PerScale<Vec<ChainStep>>, NormError> {
        let per_session = self.options().scope == ChainScope::PerSession;
        let mut scales = PerScale::default();
        for (scale, raw) in raws.iter() {
            let lacking = |norms: &KeyedNorms| {
                let lacks = |scale: &Scale| per_session && norms.key(*scale, raws[*scale]).is_none();
                Scale::ALL.into_iter().filter(lacks).map(Scale::name).collect()
            };
            scales[scale] = self.steps(tokens, scale, *raw, lacking).await?;
        }
        Ok(scales)
    }

    async fn steps(
        &self,
        tokens: &[GroupToken],
        scale: Scale,
        raw: i32,
        lacking: impl Fn(&KeyedNorms) -> Vec<&'static str>,
    ) -> Result<Vec<ChainStep>, NormError> {
        let mut steps = Vec::with_capacity(tokens.len() + 1);
        for token in tokens {
            let found = self.find(token).await?;
            let version = found.as_ref().map_or_else(|| token.version(), |found| &found.version).to_owned();
            let outcome = match &found {
                None => StepOutcome::NoSuchGroup,
                Some(found) => match found.norms.percentile(scale, raw) {
                    None => StepOutcome::NoSuchRawScore,
                    Some(percentile) => match lacking(&found.norms) {
                        scales if scales.is_empty() => StepOutcome::Used { percentile, norm_group: found.name.clone() },
                        scales => StepOutcome::LacksOtherScales { scales, percentile },
                    },
                },
            };
            let used = matches!(outcome, StepOutcome::Used { .. });
            steps.push(ChainStep { token: token.to_string(), version: Some(version), outcome });
            if used {
                return Ok(steps);
            }
        }
        let percentile = self.published_percentile(scale, raw);
        let outcome = StepOutcome::Used { percentile, norm_group: PUBLISHED.to_owned() };
        steps.push(ChainStep { token: PUBLISHED.to_owned(), version: None, outcome });
        Ok(steps)
    }
}
