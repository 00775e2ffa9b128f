//! Learning styles: the 3×3 grid of ACCE and AERO windows (Guide, appendix 1), and the nearest other window.

use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, StringArray, UInt8Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{FieldRef, Int16Type, UInt8Type};

use crate::instrument::{Instrument, StyleId};
use crate::model::Scale;
use crate::model::norm::RawRange;
use crate::model::result::{ACCE, AERO, BACKUP_STYLE, OK, STYLE};
use crate::scoring::stage::{nulls_of, result_fields, values};
use crate::scoring::{Read, ScoringError, Stage};

/// Adds `style` and `backup_style`.
#[derive(Debug, Clone)]
pub struct Style {
    acce: RawRange,
    aero: RawRange,
    /// Style and backup style of every pair of scores, ACCE major.
    grid: Arc<[(StyleId, StyleId)]>,
    names: ArrayRef,
}

impl Style {
    /// The styles of an instrument.
    pub fn new(instrument: &Arc<Instrument>) -> Self {
        let (acce, aero) = (instrument.raw_range(Scale::Acce), instrument.raw_range(Scale::Aero));
        let grid = Arc::clone(instrument.style_grid());
        Style { acce, aero, grid, names: Arc::new(StringArray::from(instrument.style_names.clone())) }
    }
}

impl Stage for Style {
    fn name(&self) -> &'static str {
        "style"
    }

    fn reads(&self) -> Vec<Read> {
        [OK, ACCE, AERO].map(Read::result).to_vec()
    }

    fn adds(&self) -> Vec<FieldRef> {
        result_fields([STYLE, BACKUP_STYLE])
    }

    fn evaluate(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>, ScoringError> {
        let nulls = nulls_of(&columns[0]);
        let (acce, aero) = (values::<Int16Type>(&columns[1]), values::<Int16Type>(&columns[2]));
        let width = self.aero.highest - self.aero.lowest + 1;
        let (styles, backups): (Vec<StyleId>, Vec<StyleId>) = acce
            .iter()
            .zip(aero)
            .map(|(&acce, &aero)| {
                // A null slot may hold scores outside the grid: any style will do for it.
                let cell = (i32::from(acce) - self.acce.lowest) * width + (i32::from(aero) - self.aero.lowest);
                self.grid.get(cell as usize).copied().unwrap_or_default()
            })
            .unzip();
        let column = |keys| dictionary(keys, nulls.as_ref(), &self.names);
        Ok(vec![column(styles)?, column(backups)?])
    }
}

/// A dictionary column from keys that index `names`.
pub(super) fn dictionary(
    keys: Vec<u8>,
    nulls: Option<&NullBuffer>,
    names: &ArrayRef,
) -> Result<ArrayRef, ScoringError> {
    let keys = UInt8Array::new(keys.into(), nulls.cloned());
    Ok(Arc::new(DictionaryArray::<UInt8Type>::try_new(keys, Arc::clone(names))?))
}
