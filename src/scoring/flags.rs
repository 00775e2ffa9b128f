//! Diagnostic flags; they change no score.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, FieldRef, Float64Type, Int16Type, UInt8Type, UInt32Type};

use crate::instrument::{FlagThresholds, Instrument, Window};
use crate::model::Scale;
use crate::model::norm::PUBLISHED;
use crate::model::result::{ACCE, AERO, FLAGS, KENDALL_W, OK, TRUNCATED_SCALES, norm_group_column};
use crate::model::session::Part;
use crate::scoring::percentiles::{list_of_bits, mask};
use crate::scoring::stage::{nulls_of, result_fields, values};
use crate::scoring::{Read, ScoringError, Stage, code_column};

const NEAR_STYLE_BOUNDARY: u8 = 1 << 0;
const LOW_W: u8 = 1 << 1;
const HIGH_W: u8 = 1 << 2;
const REPEATED_CONTEXT_PATTERN: u8 = 1 << 3;
const MIXED_PROVENANCE: u8 = 1 << 4;
const EXCESSIVE_TRUNCATION: u8 = 1 << 5;

/// The names of the flags, lowest bit first: the order in which a session lists them.
pub const FLAG_NAMES: [&str; 6] =
    ["near_style_boundary", "low_w", "high_w", "repeated_context_pattern", "mixed_provenance", "excessive_truncation"];

/// Adds `flags`.
#[derive(Debug, Clone)]
pub struct Flags {
    thresholds: FlagThresholds,
    acce: Window,
    aero: Window,
    contexts: usize,
    names: ArrayRef,
}

impl Flags {
    /// The flags of an instrument.
    pub fn new(instrument: &Arc<Instrument>) -> Self {
        Flags {
            thresholds: instrument.flags.clone(),
            acce: instrument.acce_window,
            aero: instrument.aero_window,
            contexts: instrument.contexts.len(),
            names: Arc::new(StringArray::from(FLAG_NAMES.to_vec())),
        }
    }

    /// Which rows have one ranking in at least as many contexts as the instrument says, as 0 or 1.
    fn repeats_a_pattern(&self, codes: &[&[u8]]) -> Vec<u8> {
        let rows = codes[0].len();
        let wanted = self.thresholds.repeated_pattern_at;
        let mut repeats = vec![0u8; rows];
        let mut counts = vec![0u8; rows];
        // A ranking that stands in `wanted` contexts stands in one of the first `contexts − wanted + 1`.
        for candidate in codes.iter().take((codes.len() + 1).saturating_sub(wanted)) {
            counts.fill(0);
            for codes in codes {
                for ((count, code), candidate) in counts.iter_mut().zip(*codes).zip(*candidate) {
                    *count += u8::from(code == candidate);
                }
            }
            for (repeats, &count) in repeats.iter_mut().zip(&counts) {
                *repeats |= u8::from(usize::from(count) >= wanted);
            }
        }
        repeats
    }
}

impl Stage for Flags {
    fn name(&self) -> &'static str {
        "flags"
    }

    fn reads(&self) -> Vec<Read> {
        [OK, ACCE, AERO, KENDALL_W, TRUNCATED_SCALES]
            .map(str::to_owned)
            .into_iter()
            .chain(Scale::ALL.map(norm_group_column))
            .map(Read::result)
            .chain((1..=self.contexts).map(|item| Read::exactly(code_column(Part::Context, item), DataType::UInt8)))
            .collect()
    }

    fn adds(&self) -> Vec<FieldRef> {
        result_fields([FLAGS])
    }

    fn evaluate(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>, ScoringError> {
        let nulls = nulls_of(&columns[0]);
        let [acce, aero] = [1, 2].map(|column| values::<Int16Type>(&columns[column]));
        let w = values::<Float64Type>(&columns[3]);
        let truncated = columns[4].as_list::<i32>().offsets();
        let (groups, codes) = columns[5..].split_at(Scale::ALL.len());
        let groups: Vec<(&[u32], Option<u32>)> = groups.iter().map(keys_and_published).collect();
        let codes: Vec<&[u8]> = codes.iter().map(values::<UInt8Type>).collect();

        let mut flags: Vec<u8> =
            self.repeats_a_pattern(&codes).into_iter().map(|repeats| repeats * REPEATED_CONTEXT_PATTERN).collect();
        for (row, flags) in flags.iter_mut().enumerate() {
            let near = self.acce.is_border(acce[row]) || self.aero.is_border(aero[row]);
            let published = groups.iter().filter(|(keys, published)| Some(keys[row]) == *published).count();
            let truncations = (truncated[row + 1] - truncated[row]) as usize;
            *flags |= u8::from(near) * NEAR_STYLE_BOUNDARY;
            *flags |= u8::from(w[row] < self.thresholds.low_w_below) * LOW_W;
            *flags |= u8::from(w[row] > self.thresholds.high_w_above) * HIGH_W;
            *flags |= u8::from(published != 0 && published != groups.len()) * MIXED_PROVENANCE;
            *flags |= u8::from(truncations >= self.thresholds.excessive_truncation_at) * EXCESSIVE_TRUNCATION;
        }
        if let Some(nulls) = &nulls {
            mask(&mut flags, nulls);
        }
        Ok(vec![list_of_bits(&flags, &self.names, nulls.as_ref())?])
    }
}

/// The keys of a norm group column, and the key of the published table if the dictionary has it.
///
/// It is the first key as the percentile stage writes it, but an operator in between may have merged dictionaries.
fn keys_and_published(groups: &ArrayRef) -> (&[u32], Option<u32>) {
    let groups = groups.as_dictionary::<UInt32Type>();
    let published = groups.values().as_string::<i32>().iter().position(|name| name == Some(PUBLISHED));
    (groups.keys().values(), published.map(|key| key as u32))
}
