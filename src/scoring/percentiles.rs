//! Percentiles and their provenance, once the norms that a batch's chains name are at hand.
//!
//! Loading norms is the operator's work. This kernel only indexes dense arrays by integers.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, DictionaryArray, ListArray, StringArray, UInt32Array};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int16Type, UInt32Type};

use crate::instrument::Instrument;
use crate::model::keyed_norms::{ChainGroup, KeyedNorms};
use crate::model::norm::{ChainScope, GroupId, PUBLISHED_ID, RawRange};
use crate::model::result::{
    ACCE, AERO, FLEXIBILITY_LEVEL, OK, TRUNCATED_SCALES, USED_FALLBACK, dictionary_type, norm_group_column,
    percentile_column, raw_column,
};
use crate::model::{Mode, PerScale, Scale};
use crate::scoring::stage::{nulls_of, result_fields, values};
use crate::scoring::style::dictionary;
use crate::scoring::{LFI_KEY, Read, ScoringError};

/// One link of the norm chain over a batch: the group that each row's attributes name.
#[derive(Debug, Clone, Copy)]
pub struct ChainLink<'a> {
    /// The groups that the batch's rows name, each once; `None` for one that has no norms.
    pub groups: &'a [Option<ChainGroup>],
    /// For each row, its group among `groups`; [`NO_GROUP`] for a row whose attribute is null.
    pub group_of_row: &'a [u32],
}

/// Stands in [`ChainLink::group_of_row`] for a row that the link does not apply to.
pub const NO_GROUP: u32 = u32::MAX;

/// What the kernel needs beside the score columns.
#[derive(Debug, Clone, Copy)]
pub struct PercentileInputs<'a> {
    /// The chain, most specific link first.
    pub chain: &'a [ChainLink<'a>],
    /// Whether scales fall back one by one or together.
    pub scope: ChainScope,
    /// The table that answers last: over every raw score that a scale can take.
    pub published: &'a KeyedNorms,
    /// The percentile of every key: of those of the published table as they are, of a group's from its
    /// [`first_key`](ChainGroup::first_key) on.
    pub percentiles: &'a ArrayRef,
    /// The provenance text of every [`GroupId`] that `chain` mentions; the first is the published table's.
    pub group_names: &'a ArrayRef,
}

/// Adds the percentile and norm group of each scale, `flexibility_level`, `used_fallback` and `truncated_scales`.
#[derive(Debug, Clone)]
pub struct Percentiles {
    published_range: PerScale<Option<RawRange>>,
    tertiles: [f64; 2],
    levels: ArrayRef,
    scale_names: ArrayRef,
}

const LOW: u8 = 0;
const MODERATE: u8 = 1;
const HIGH: u8 = 2;

impl Percentiles {
    /// Percentiles with an instrument's tertiles and published ranges.
    pub fn new(instrument: &Arc<Instrument>) -> Self {
        Percentiles {
            published_range: instrument.published_range,
            tertiles: instrument.tertiles,
            levels: Arc::new(StringArray::from(vec!["low", "moderate", "high"])),
            scale_names: Arc::new(StringArray::from(Scale::ALL.map(Scale::name).to_vec())),
        }
    }

    /// The stage's name.
    pub const NAME: &'static str = "percentiles";

    /// The score columns that [`evaluate`](Percentiles::evaluate) takes: `ok`, then the raw score of each scale.
    pub fn reads(&self) -> Vec<Read> {
        let raw = Scale::ALL.map(|scale| match scale {
            Scale::Ce => Read::result(raw_column(Mode::Ce)),
            Scale::Ro => Read::result(raw_column(Mode::Ro)),
            Scale::Ac => Read::result(raw_column(Mode::Ac)),
            Scale::Ae => Read::result(raw_column(Mode::Ae)),
            Scale::Acce => Read::result(ACCE),
            Scale::Aero => Read::result(AERO),
            Scale::Lfi => Read::exactly(LFI_KEY, DataType::Int16),
        });
        std::iter::once(Read::result(OK)).chain(raw).collect()
    }

    /// The columns that [`evaluate`](Percentiles::evaluate) returns.
    pub fn adds(&self) -> Vec<FieldRef> {
        let names = Scale::ALL.map(percentile_column).into_iter().chain(Scale::ALL.map(norm_group_column));
        let names: Vec<String> =
            names.chain([FLEXIBILITY_LEVEL, USED_FALLBACK, TRUNCATED_SCALES].map(str::to_owned)).collect();
        result_fields(names.iter().map(String::as_str))
    }

    /// Looks every session up in its chain.
    pub fn evaluate(&self, columns: &[ArrayRef], inputs: PercentileInputs<'_>) -> Result<Vec<ArrayRef>, ScoringError> {
        let nulls = nulls_of(&columns[0]);
        let raw = PerScale::from_fn(|scale| values::<Int16Type>(&columns[1 + scale as usize]));
        let answers = look_up(&raw, inputs);
        let percentiles = values::<Float64Type>(inputs.percentiles);
        let level = |&key: &u32| match percentiles[key as usize] {
            percentile if percentile < self.tertiles[0] => LOW,
            percentile if percentile <= self.tertiles[1] => MODERATE,
            _ => HIGH,
        };
        let levels = answers.percentiles[Scale::Lfi].iter().map(level).collect();
        let levels = dictionary(levels, nulls.as_ref(), &self.levels)?;
        let used_fallback = used_fallback(&answers.groups, nulls.as_ref());
        let truncated = self.truncated_scales(&raw, nulls.as_ref())?;
        let mut added = Vec::with_capacity(2 * Scale::ALL.len() + 3);
        let columns = answers.percentiles.0.map(|keys| (keys, inputs.percentiles)).into_iter();
        for (keys, values) in columns.chain(answers.groups.0.map(|keys| (keys, inputs.group_names))) {
            let keys = UInt32Array::new(keys.into(), nulls.clone());
            added.push(Arc::new(DictionaryArray::<UInt32Type>::try_new(keys, Arc::clone(values))?) as ArrayRef);
        }
        added.extend([levels, used_fallback, truncated]);
        Ok(added)
    }

    /// The scales whose raw score the published norms do not span, in scale order.
    fn truncated_scales(&self, raw: &PerScale<&[i16]>, nulls: Option<&NullBuffer>) -> Result<ArrayRef, ScoringError> {
        let rows = raw[Scale::Ce].len();
        let mut outside = vec![0u8; rows];
        for (scale, range) in self.published_range.iter() {
            if let Some(range) = range {
                for (outside, &raw) in outside.iter_mut().zip(raw[scale]) {
                    *outside |= u8::from(!range.contains(i32::from(raw))) << scale as u8;
                }
            }
        }
        if let Some(nulls) = nulls {
            mask(&mut outside, nulls);
        }
        list_of_bits(&outside, &self.scale_names, nulls)
    }
}

struct Answers {
    /// Keys of percentiles.
    percentiles: PerScale<Vec<u32>>,
    groups: PerScale<Vec<GroupId>>,
}

/// Answers each scale by the first group of the row's chain that holds its raw score, else by the published table.
///
/// Groups are looked up one after the other rather than merged into one array per combination of attributes: combinations can
/// be as many as sessions, while groups are few enough to stay in the processor's caches, and the first group answers nearly
/// always. So that one is asked scale by scale, in loops without a branch that is hard to foresee; what it leaves open is asked
/// of the whole chain.
fn look_up(raw: &PerScale<&[i16]>, inputs: PercentileInputs<'_>) -> Answers {
    let rows = raw[Scale::Ce].len();
    let mut answers = Answers {
        percentiles: PerScale::from_fn(|_| vec![0; rows]),
        groups: PerScale::from_fn(|_| vec![PUBLISHED_ID; rows]),
    };
    let groups = |row| inputs.chain.iter().filter_map(move |link| link.group(row));
    let first: Vec<Option<&ChainGroup>> = (0..rows).map(|row| groups(row).next()).collect();
    // One bit a scale.
    let mut open = vec![0u8; rows];
    for scale in Scale::ALL {
        let slots = answers.percentiles[scale].iter_mut().zip(&mut answers.groups[scale]).zip(&mut open);
        for (((percentile, group), open), (first, &raw)) in slots.zip(first.iter().zip(raw[scale])) {
            match first.and_then(|first| held(first, scale, raw)) {
                Some(answer) => (*group, *percentile) = answer,
                None => *open |= 1 << scale as u8,
            }
        }
    }
    for row in (0..rows).filter(|&row| open[row] != 0) {
        let held = |group: &ChainGroup, scale| held(group, scale, raw[scale][row]);
        let mut answer = |scale, held: Option<(GroupId, u32)>| {
            // A raw score outside the table, which only an invalid session can have, takes the nearest end.
            let published = || inputs.published.nearest_key(scale, raw[scale][row].into()).unwrap_or_default();
            let published = || (PUBLISHED_ID, published().into());
            (answers.groups[scale][row], answers.percentiles[scale][row]) = held.unwrap_or_else(published);
        };
        match inputs.scope {
            ChainScope::PerScale => {
                for scale in Scale::ALL.into_iter().filter(|&scale| open[row] >> scale as u8 & 1 == 1) {
                    answer(scale, groups(row).find_map(|group| held(group, scale)));
                }
            }
            ChainScope::PerSession => {
                let holds_all = |group: &&ChainGroup| Scale::ALL.iter().all(|&scale| held(group, scale).is_some());
                let holder = groups(row).find(holds_all);
                Scale::ALL.into_iter().for_each(|scale| answer(scale, holder.and_then(|group| held(group, scale))));
            }
        }
    }
    answers
}

/// What a group says of a raw score, if it holds it.
fn held(group: &ChainGroup, scale: Scale, raw: i16) -> Option<(GroupId, u32)> {
    Some((group.id, group.first_key + u32::from(group.norms.key(scale, raw.into())?)))
}

impl<'a> ChainLink<'a> {
    fn group(&self, row: usize) -> Option<&'a ChainGroup> {
        self.groups.get(self.group_of_row[row] as usize)?.as_ref()
    }
}

fn used_fallback(groups: &PerScale<Vec<GroupId>>, nulls: Option<&NullBuffer>) -> ArrayRef {
    let rows = groups[Scale::Ce].len();
    let used = BooleanBuffer::collect_bool(rows, |row| groups.0.iter().any(|groups| groups[row] == PUBLISHED_ID));
    Arc::new(BooleanArray::new(used, nulls.cloned()))
}

/// Sets the bytes of null rows to zero.
pub(super) fn mask(bits: &mut [u8], nulls: &NullBuffer) {
    (!nulls.inner()).set_indices().for_each(|row| bits[row] = 0);
}

/// Lists of dictionary strings from bit sets: the list of a row names its bits, lowest first.
pub(super) fn list_of_bits(
    bits: &[u8],
    names: &ArrayRef,
    nulls: Option<&NullBuffer>,
) -> Result<ArrayRef, ScoringError> {
    let mut offsets = Vec::with_capacity(bits.len() + 1);
    let mut keys = Vec::new();
    offsets.push(0i32);
    for &set in bits {
        let mut rest = set;
        while rest != 0 {
            keys.push(rest.trailing_zeros() as u8);
            rest &= rest - 1;
        }
        offsets.push(keys.len() as i32);
    }
    let item = Arc::new(Field::new_list_field(dictionary_type(), true));
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    Ok(Arc::new(ListArray::try_new(item, offsets, dictionary(keys, None, names)?, nulls.cloned())?))
}
