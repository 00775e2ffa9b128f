//! Generated norm tables: what groups of respondents like those of the generated sessions would have scored.

use std::f64::consts::LN_10;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use crate::generate::random::{NormalTable, Purpose, Stream, Streams, UNIT};
use crate::generate::respondent::{
    AGE_BANDS, COUNTRIES, EDUCATION_LEVELS, GENDERS, Shift, age_shift, country, education_shift, gender_shift,
};
use crate::generate::{AIMS, Aim, BATCH_ROWS};
use crate::model::norm::{DEFAULT_VERSION, NORM_SCHEMA};
use crate::model::{PerScale, Scale};

/// Groups whose values the twelve named countries and the other attributes give; more groups are synthetic countries.
pub const NAMED_GROUPS: usize = EDUCATION_LEVELS.len() + COUNTRIES.len() + AGE_BANDS.len() + GENDERS.len();

/// About how many rows a group has, from which the groups of a batch follow.
const ROWS_PER_GROUP: usize = 360;
/// How far the mean of a group's mode is from what its attribute would give: this deviation, in raw-score points.
const GROUP_DEVIATION: f64 = 0.8;
/// The same for LFI, in 320ths.
const LFI_DEVIATION: f64 = 8.0;
/// The fewest respondents of a group, and the largest have ten times as many.
const FEWEST_RESPONDENTS: f64 = 200.0;
/// The raw scores that twelve items allow a mode.
const MODE_SCORES: RangeInclusive<i32> = 12..=48;
/// The raw scores that they allow ACCE and AERO.
const DIFFERENCE_SCORES: RangeInclusive<i32> = -36..=36;

/// What norm tables to generate. A group's rows depend on `seed` and the group alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormOptions {
    /// How many groups: the first [`NAMED_GROUPS`] are the values of education, country, age band and gender, in this order, the
    /// rest the synthetic countries `COUNTRY:Country 0001`, ….
    pub groups: usize,
    /// Another seed gives other norms.
    pub seed: u64,
    /// About how many rows a batch has: as many as whole groups (about 360 rows each) allow, at least one group.
    pub batch_rows: NonZeroUsize,
}

impl Default for NormOptions {
    fn default() -> Self {
        NormOptions { groups: NAMED_GROUPS, seed: 1, batch_rows: BATCH_ROWS }
    }
}

impl NormOptions {
    /// How many synthetic countries the groups go through: give the sessions as many
    /// ([`SessionOptions::countries`](crate::generate::SessionOptions::countries)), and their chains name every group.
    pub const fn synthetic_countries(&self) -> usize {
        self.groups.saturating_sub(NAMED_GROUPS)
    }
}

/// Generates norm tables as batches of [`NORM_SCHEMA`], sorted by group, version, scale code and raw score, so that their
/// concatenation is a table that an importer need not sort. Every group has all seven scales in the version `default`.
///
/// A scale holds the contiguous raw scores (for LFI: the contiguous attainable ones, in 320ths) that at least one of the group's
/// 200 to 2,000 respondents has, so that small groups lack extreme scores; its percentiles are the cumulative frequencies, to one
/// decimal, which never decrease and end at 100. Memory is that of the group names and of the batches alive.
///
/// ```
/// use normstream::generate::{NormGenerator, NormOptions};
///
/// let generator = NormGenerator::new(NormOptions { groups: 100, ..NormOptions::default() });
/// let rows: usize = generator.batches().map(|batch| batch.map(|batch| batch.num_rows())).sum::<Result<_, _>>()?;
/// assert!((33_000..39_000).contains(&rows));
/// # Ok::<(), arrow::error::ArrowError>(())
/// ```
#[derive(Debug, Clone)]
pub struct NormGenerator {
    seed: u64,
    /// The groups in the order of their tokens.
    groups: Vec<Group>,
    stride: usize,
    lfi_keys: Vec<i32>,
}

impl NormGenerator {
    /// A generator of the norms of the groups that the options ask for.
    pub fn new(options: NormOptions) -> Self {
        let mut groups: Vec<Group> = (0..options.groups).map(Group::new).collect();
        groups.sort_unstable_by(|a, b| a.token.cmp(&b.token));
        let stride = (options.batch_rows.get() / ROWS_PER_GROUP).max(1);
        NormGenerator { seed: options.seed, groups, stride, lfi_keys: lfi_keys() }
    }

    /// The schema of every batch: [`NORM_SCHEMA`].
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&NORM_SCHEMA)
    }

    /// How many batches there are.
    pub fn batch_count(&self) -> usize {
        self.groups.len().div_ceil(self.stride)
    }

    /// The batches in order.
    pub fn batches(&self) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> + use<'_> {
        (0..self.batch_count()).map(|index| self.batch(index))
    }

    /// The batch of an index below [`NormGenerator::batch_count`]; past that, an empty batch.
    ///
    /// # Errors
    /// Only if Arrow refuses the arrays, which would be a mistake in this module.
    pub fn batch(&self, index: usize) -> Result<RecordBatch, ArrowError> {
        let start = index.saturating_mul(self.stride).min(self.groups.len());
        let end = start.saturating_add(self.stride).min(self.groups.len());
        let streams = Streams::new(self.seed, Purpose::NormGroup);
        let mut scales = Scale::ALL;
        scales.sort_unstable_by_key(|scale| scale.code());
        let mut rows = NormRows::default();
        for group in &self.groups[start..end] {
            let population = Population::draw(&mut streams.at(group.number as u64), group.shift);
            for scale in scales {
                for norm in population.norms(scale, &self.lfi_keys) {
                    rows.push(&group.token, scale, norm);
                }
            }
        }
        RecordBatch::try_new(self.schema(), rows.into_columns())
    }
}

/// A norm group: its token, its place in the canonical order, and how its attribute shifts raw scores.
#[derive(Debug, Clone)]
struct Group {
    token: String,
    number: usize,
    shift: Shift,
}

impl Group {
    /// The group of a place in the canonical order: levels of education, named countries, age bands, genders, synthetic countries.
    fn new(number: usize) -> Self {
        let mut index = number;
        let mut within = |values: usize| {
            let found = (index < values).then_some(index);
            index = index.saturating_sub(values);
            found
        };
        let education = within(EDUCATION_LEVELS.len());
        let (token, shift) = if let Some(level) = education {
            (format!("EDU:{}", EDUCATION_LEVELS[level]), education_shift(level))
        } else if let Some(named) = within(COUNTRIES.len()) {
            (format!("COUNTRY:{}", country(named)), [0; 4])
        } else if let Some(band) = within(AGE_BANDS.len()) {
            (format!("AGE:{}", AGE_BANDS[band]), age_shift(band))
        } else if let Some(gender) = within(GENDERS.len()) {
            (format!("GENDER:{}", GENDERS[gender]), gender_shift(gender))
        } else {
            (format!("COUNTRY:{}", country(COUNTRIES.len() + index)), [0; 4])
        };
        Group { token, number, shift }
    }
}

/// One row of a norm table, without its key.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Norm {
    raw: i32,
    percentile: f64,
    frequency: i64,
}

/// What a group's respondents score: how many they are, and mean and standard deviation per scale.
#[derive(Debug, Clone)]
struct Population {
    respondents: f64,
    aims: PerScale<Aim>,
}

impl Population {
    fn draw(stream: &mut Stream, shift: Shift) -> Self {
        let normal = NormalTable::shared();
        let [ce, ro, ac, ae, lfi, ..] = stream.bytes();
        let [size, _] = stream.halves();
        let respondents = FEWEST_RESPONDENTS * (LN_10 * f64::from(size) / f64::from(u32::MAX)).exp();
        let deviate = |byte| f64::from(normal.deviate(byte)) / f64::from(UNIT);
        let [ce, ro, ac, ae] = [(ce, 0), (ro, 1), (ac, 2), (ae, 3)]
            .map(|(byte, mode): (u8, usize)| deviate(byte) * GROUP_DEVIATION + f64::from(shift[mode]) / 10.0);
        let moved = PerScale([ce, ro, ac, ae, ac - ce, ae - ro, deviate(lfi) * LFI_DEVIATION]);
        let aims = PerScale::from_fn(|scale| Aim { mean: AIMS[scale].mean + moved[scale], ..AIMS[scale] });
        Population { respondents, aims }
    }

    /// The norms of a scale, by rising raw score.
    fn norms(&self, scale: Scale, lfi_keys: &[i32]) -> Vec<Norm> {
        let Aim { mean, deviation } = self.aims[scale];
        let normal = |raw: i32| (raw, (-((f64::from(raw) - mean) / deviation).powi(2) / 2.0).exp());
        match scale {
            Scale::Ce | Scale::Ro | Scale::Ac | Scale::Ae => self.frequencies(MODE_SCORES.map(normal)),
            Scale::Acce | Scale::Aero => self.frequencies(DIFFERENCE_SCORES.map(normal)),
            Scale::Lfi => {
                // LFI is skewed: its complement S = 320 − 320·LFI is nearly a gamma variable.
                let (mean, variance) = (320.0 - mean, deviation * deviation);
                let (shape, scale) = (mean * mean / variance, variance / mean);
                let gamma = |key: i32| {
                    let s = f64::from(321 - key);
                    (key, ((shape - 1.0) * s.ln() - s / scale).exp())
                };
                self.frequencies(lfi_keys.iter().copied().map(gamma))
            }
        }
    }

    /// Distributes the respondents over raw scores by weight. Weights rise, then fall, so the scores that somebody has are
    /// contiguous.
    fn frequencies(&self, weights: impl Iterator<Item = (i32, f64)> + Clone) -> Vec<Norm> {
        let total: f64 = weights.clone().map(|(_, weight)| weight).sum();
        let mut norms: Vec<Norm> = weights
            .map(|(raw, weight)| (raw, (weight / total * self.respondents).round() as i64))
            .filter(|&(_, frequency)| frequency > 0)
            .map(|(raw, frequency)| Norm { raw, percentile: 0.0, frequency })
            .collect();
        let respondents: i64 = norms.iter().map(|norm| norm.frequency).sum();
        let mut below = 0;
        for norm in &mut norms {
            below += norm.frequency;
            let tenths = (2_000 * below + respondents) / (2 * respondents);
            norm.percentile = tenths as f64 / 10.0;
        }
        norms
    }
}

/// The values of 320·LFI that eight contexts allow, rising: 320 − S for every S = Σ(R − 20)² of four rank sums.
fn lfi_keys() -> Vec<i32> {
    let deviations = || -12..=12_i32;
    let mut attainable = [false; 321];
    for a in deviations() {
        for b in deviations() {
            for c in deviations() {
                let d = -(a + b + c);
                let s = a * a + b * b + c * c + d * d;
                if deviations().contains(&d) && s <= 320 {
                    attainable[(320 - s) as usize] = true;
                }
            }
        }
    }
    (0..=320).filter(|&key| attainable[key as usize]).collect()
}

/// Rows of a norm table, by column.
#[derive(Debug, Default)]
struct NormRows<'a> {
    groups: Vec<&'a str>,
    scales: Vec<&'static str>,
    raws: Vec<i32>,
    percentiles: Vec<f64>,
    frequencies: Vec<i64>,
}

impl<'a> NormRows<'a> {
    fn push(&mut self, group: &'a str, scale: Scale, norm: Norm) {
        self.groups.push(group);
        self.scales.push(scale.code());
        self.raws.push(norm.raw);
        self.percentiles.push(norm.percentile);
        self.frequencies.push(norm.frequency);
    }

    fn into_columns(self) -> Vec<ArrayRef> {
        let versions = std::iter::repeat_n(DEFAULT_VERSION, self.groups.len());
        vec![
            Arc::new(StringArray::from(self.groups)),
            Arc::new(StringArray::from_iter_values(versions)),
            Arc::new(StringArray::from(self.scales)),
            Arc::new(Int32Array::from(self.raws)),
            Arc::new(Float64Array::from(self.percentiles)),
            Arc::new(Int64Array::from(self.frequencies)),
        ]
    }
}
