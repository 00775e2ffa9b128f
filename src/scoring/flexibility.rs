//! Learning flexibility: Kendall's W of the eight context rankings, LFI = 1 − W, and each context's region (Guide, ch. 6 and
//! appendix 8; Legendre 2005).
//!
//! With rank sums R and S = Σ(R − mean)², W = S / 5m² for m contexts: S/320 for eight. S stays an integer: LFI takes just 136
//! values, and its norms are keyed by 320·LFI = 320 − S.

use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Float64Array, ListArray, StringArray, UInt16Array};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Int16Type, UInt8Type, UInt16Type};

use crate::instrument::{Instrument, StyleId};
use crate::model::result::{CONTEXT_STYLES, KENDALL_W, LFI, OK, dictionary_type};
use crate::model::session::Part;
use crate::scoring::raw_scales::{RankTable, rank_sums, rank_table};
use crate::scoring::stage::{internal_field, nulls_of, primitive, result_fields, values};
use crate::scoring::style::dictionary;
use crate::scoring::{LFI_KEY, Read, ScoringError, Stage, code_column};

/// Adds `kendall_w`, `lfi`, `context_styles` and the internal [`LFI_KEY`].
#[derive(Debug, Clone)]
pub struct Flexibility {
    contexts: usize,
    denominator: i16,
    ranks: Box<RankTable>,
    regions: [StyleId; 256],
    names: ArrayRef,
    /// The fractions of the denominator, 0 to 1.
    fractions: ArrayRef,
}

impl Flexibility {
    /// The flexibility of an instrument's contexts.
    pub fn new(instrument: &Arc<Instrument>) -> Self {
        let denominator = instrument.lfi_denominator();
        let mut regions = [0; 256];
        regions[..instrument.regions.len()].copy_from_slice(&instrument.regions);
        Flexibility {
            contexts: instrument.contexts.len(),
            denominator,
            ranks: Box::new(rank_table([true; 4])),
            regions,
            names: Arc::new(StringArray::from(instrument.style_names.clone())),
            fractions: Arc::new(Float64Array::from_iter_values(
                (0..=denominator).map(|numerator| f64::from(numerator) / f64::from(denominator)),
            )),
        }
    }

    /// S of each row: the sum of squared deviations of the four rank sums from their mean, 5m/2.
    fn sums_of_squares(&self, codes: &[&[u8]]) -> Vec<i16> {
        let tables: Vec<_> = codes.iter().map(|codes| (*codes, &*self.ranks)).collect();
        // Twice the mean is an integer for any number of contexts; so is four times S, which is divided at the end.
        let twice_mean = 5 * self.contexts as i32;
        let square = |sum: u8| (2 * i32::from(sum) - twice_mean).pow(2);
        let s = |sums: &u32| (sums.to_le_bytes().into_iter().map(square).sum::<i32>() / 4) as i16;
        rank_sums(codes[0].len(), &tables).iter().map(s).collect()
    }

    fn context_styles(&self, codes: &[&[u8]], nulls: Option<&NullBuffer>) -> Result<ArrayRef, ScoringError> {
        let rows = codes[0].len();
        let width = codes.len();
        let mut keys = vec![0u8; rows * width];
        for (context, codes) in codes.iter().enumerate() {
            for (row, &code) in keys.chunks_exact_mut(width).zip(*codes) {
                row[context] = self.regions[usize::from(code)];
            }
        }
        // Every row keeps its slots, null ones too, so that offsets stay regular: list encoders go through such lists fastest.
        let offsets = ScalarBuffer::from_iter((0..=rows).map(|row| (row * width) as i32));
        let item = Arc::new(Field::new_list_field(dictionary_type(), true));
        let values = dictionary(keys, None, &self.names)?;
        Ok(Arc::new(ListArray::try_new(item, OffsetBuffer::new(offsets), values, nulls.cloned())?))
    }
}

impl Stage for Flexibility {
    fn name(&self) -> &'static str {
        "flexibility"
    }

    fn reads(&self) -> Vec<Read> {
        let codes = (1..=self.contexts).map(|item| Read::exactly(code_column(Part::Context, item), DataType::UInt8));
        std::iter::once(Read::result(OK)).chain(codes).collect()
    }

    fn adds(&self) -> Vec<FieldRef> {
        let mut fields = result_fields([KENDALL_W, LFI, CONTEXT_STYLES]);
        fields.push(internal_field(LFI_KEY.to_owned(), DataType::Int16));
        fields
    }

    fn evaluate(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>, ScoringError> {
        let nulls = nulls_of(&columns[0]);
        let codes: Vec<&[u8]> = columns[1..].iter().map(values::<UInt8Type>).collect();
        let s = self.sums_of_squares(&codes);
        // A session that failed validation can have an S above the denominator, and a key below zero in its null slot.
        let keys: Vec<i16> = s.iter().map(|&s| self.denominator - s).collect();
        let fractions = |numerators: &[i16]| -> Result<ArrayRef, ScoringError> {
            let numerators = numerators.iter().map(|&numerator| numerator.clamp(0, self.denominator) as u16);
            let numerators = UInt16Array::new(numerators.collect::<Vec<_>>().into(), nulls.clone());
            Ok(Arc::new(DictionaryArray::<UInt16Type>::try_new(numerators, Arc::clone(&self.fractions))?))
        };
        Ok(vec![
            fractions(&s)?,
            fractions(&keys)?,
            self.context_styles(&codes, nulls.as_ref())?,
            primitive::<Int16Type>(keys, nulls.as_ref()),
        ])
    }
}
