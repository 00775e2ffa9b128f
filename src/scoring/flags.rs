//! Diagnostic flags; they change no score.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, FieldRef, Float64Type, Int16Type, UInt8Type, UInt16Type, UInt32Type};

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

    /// Which rows have one ranking in at least as many contexts as the instrument says.
    fn repeats_a_pattern(&self, codes: &[&[u8]]) -> Vec<bool> {
        let rows = codes[0].len();
        let wanted = self.thresholds.repeated_pattern_at;
        let mut repeats = vec![false; rows];
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
                *repeats |= usize::from(count) >= wanted;
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
        let w = columns[3].as_dictionary::<UInt16Type>();
        let (w, fractions) = (w.keys().values(), values::<Float64Type>(w.values()));
        let truncated = columns[4].as_list::<i32>().offsets();
        let (groups, codes) = columns[5..].split_at(Scale::ALL.len());
        let codes: Vec<&[u8]> = codes.iter().map(values::<UInt8Type>).collect();
        let truncations: Vec<usize> = truncated.lengths().collect();
        let published = count_published(groups);
        let thresholds = &self.thresholds;

        let mut flags = vec![0u8; columns[0].len()];
        raise(&mut flags, NEAR_STYLE_BOUNDARY, acce, |acce| self.acce.is_border(acce));
        raise(&mut flags, NEAR_STYLE_BOUNDARY, aero, |aero| self.aero.is_border(aero));
        raise(&mut flags, LOW_W, w, |w| fractions[usize::from(w)] < thresholds.low_w_below);
        raise(&mut flags, HIGH_W, w, |w| fractions[usize::from(w)] > thresholds.high_w_above);
        raise(&mut flags, REPEATED_CONTEXT_PATTERN, &self.repeats_a_pattern(&codes), |repeats| repeats);
        raise(&mut flags, MIXED_PROVENANCE, &published, |scales| scales != 0 && usize::from(scales) != groups.len());
        raise(&mut flags, EXCESSIVE_TRUNCATION, &truncations, |scales| scales >= thresholds.excessive_truncation_at);
        if let Some(nulls) = &nulls {
            mask(&mut flags, nulls);
        }
        Ok(vec![list_of_bits(&flags, &self.names, nulls.as_ref())?])
    }
}

/// Sets a flag in the rows whose value calls for it.
fn raise<T: Copy>(flags: &mut [u8], flag: u8, values: &[T], calls_for_it: impl Fn(T) -> bool) {
    for (flags, &value) in flags.iter_mut().zip(values) {
        *flags |= u8::from(calls_for_it(value)) * flag;
    }
}

/// For how many scales the published table answered, by the norm group columns of all scales.
///
/// It has the first key as the percentile stage writes it, but an operator in between may have merged dictionaries.
fn count_published(groups: &[ArrayRef]) -> Vec<u8> {
    let mut counts = vec![0u8; groups[0].len()];
    for groups in groups {
        let groups = groups.as_dictionary::<UInt32Type>();
        let Some(published) = groups.values().as_string::<i32>().iter().position(|name| name == Some(PUBLISHED)) else {
            continue;
        };
        for (count, &key) in counts.iter_mut().zip(groups.keys().values()) {
            *count += u8::from(key == published as u32);
        }
    }
    counts
}
