//! Combination scores: differences of raw scores, and their distance from the medians (Guide, p. 45–48).

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{FieldRef, Int16Type};

use crate::instrument::Instrument;
use crate::model::Mode;
use crate::model::result::{
    ACCE, AERO, ASSIMILATION_ACCOMMODATION, BALANCE_ACCE, BALANCE_AERO, CONVERGING_DIVERGING, INTENSITY, OK, raw_column,
};
use crate::scoring::stage::{nulls_of, primitive, result_fields, values};
use crate::scoring::{Read, ScoringError, Stage};

/// Adds `acce`, `aero`, `assimilation_accommodation`, `converging_diverging`, `balance_acce`, `balance_aero`, `intensity`.
#[derive(Debug, Clone)]
pub struct Combinations {
    median_acce: i16,
    median_aero: i16,
}

impl Combinations {
    /// Combination scores with an instrument's medians.
    pub fn new(instrument: &Arc<Instrument>) -> Self {
        Combinations { median_acce: instrument.median_acce, median_aero: instrument.median_aero }
    }
}

impl Stage for Combinations {
    fn name(&self) -> &'static str {
        "combinations"
    }

    fn reads(&self) -> Vec<Read> {
        std::iter::once(OK.to_owned()).chain(Mode::ALL.map(raw_column)).map(Read::result).collect()
    }

    fn adds(&self) -> Vec<FieldRef> {
        result_fields([
            ACCE,
            AERO,
            ASSIMILATION_ACCOMMODATION,
            CONVERGING_DIVERGING,
            BALANCE_ACCE,
            BALANCE_AERO,
            INTENSITY,
        ])
    }

    fn evaluate(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>, ScoringError> {
        let nulls = nulls_of(&columns[0]);
        let [ce, ro, ac, ae] = Mode::ALL.map(|mode| values::<Int16Type>(&columns[1 + mode as usize]));
        // Wrapping, as a null slot may hold anything; valid scores are far from the ends of an i16.
        let acce = combine(ac, ce, i16::wrapping_sub);
        let aero = combine(ae, ro, i16::wrapping_sub);
        // (AC+RO) − (AE+CE) and (AC+AE) − (CE+RO), regrouped around the two differences above.
        let assimilation = combine(&acce, &aero, i16::wrapping_sub);
        let converging = combine(&acce, &aero, i16::wrapping_add);
        let distance = |score: &i16, median| score.wrapping_sub(median).wrapping_abs();
        let balance_acce = acce.iter().map(|acce| distance(acce, self.median_acce)).collect();
        let balance_aero = aero.iter().map(|aero| distance(aero, self.median_aero)).collect();
        let intensity = combine(&acce, &aero, |acce, aero| acce.wrapping_abs().wrapping_add(aero.wrapping_abs()));
        let added = [acce, aero, assimilation, converging, balance_acce, balance_aero, intensity];
        Ok(added.map(|scores| primitive::<Int16Type>(scores, nulls.as_ref())).to_vec())
    }
}

fn combine(left: &[i16], right: &[i16], f: impl Fn(i16, i16) -> i16) -> Vec<i16> {
    left.iter().zip(right).map(|(&left, &right)| f(left, right)).collect()
}
