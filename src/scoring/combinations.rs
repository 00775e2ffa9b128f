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
        let acce = combine(ac, ce, |ac, ce| ac - ce);
        let aero = combine(ae, ro, |ae, ro| ae - ro);
        // (AC+RO) − (AE+CE) and (AC+AE) − (CE+RO), regrouped around the two differences above.
        let assimilation = combine(&acce, &aero, |acce, aero| acce - aero);
        let converging = combine(&acce, &aero, |acce, aero| acce + aero);
        let balance_acce = acce.iter().map(|acce| (acce - self.median_acce).abs()).collect();
        let balance_aero = aero.iter().map(|aero| (aero - self.median_aero).abs()).collect();
        let intensity = combine(&acce, &aero, |acce, aero| acce.abs() + aero.abs());
        let added = [acce, aero, assimilation, converging, balance_acce, balance_aero, intensity];
        Ok(added.map(|scores| primitive::<Int16Type>(scores, nulls.as_ref())).to_vec())
    }
}

fn combine(left: &[i16], right: &[i16], f: impl Fn(i16, i16) -> i16) -> Vec<i16> {
    left.iter().zip(right).map(|(&left, &right)| f(left, right)).collect()
}
