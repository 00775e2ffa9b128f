//! Decoded norm rows: typed columns of a batch, and the dense arrays made of one group's rows.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int32Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int32Type};
use arrow::error::ArrowError;

use crate::model::norm::{DenseNorms, GroupNorms, NORM_GROUP, NORM_VERSION, PERCENTILE, RAW_SCORE, SCALE};
use crate::model::{PerScale, Scale};
use crate::norms::error::Damage;
use crate::norms::source::GroupName;

/// The most raw scores that one scale of a group may span; far more than any instrument has. Bounds a dense array whatever
/// a file says.
const MAX_SPAN: i64 = 1 << 16;

/// The columns of a norm table by name, as the types of the norm schema whatever the file stores.
pub(crate) struct NormColumns {
    pub(crate) group: TextColumn,
    pub(crate) version: TextColumn,
    scale: TextColumn,
    /// The scale of each value of `scale`.
    scales: Vec<Option<Scale>>,
    raw: Int32Array,
    percentile: Float64Array,
}

/// A column of text in which few values repeat: the values, and which of them a row holds.
pub(crate) struct TextColumn {
    keys: Int32Array,
    values: StringArray,
}

impl TextColumn {
    /// How a reader of Parquet is best asked for text: as it lies in the file.
    pub(crate) fn data_type() -> DataType {
        DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
    }

    /// A column by name, whatever type of text the file stores.
    pub(crate) fn of(batch: &RecordBatch, name: &str) -> Result<TextColumn, ArrowError> {
        let column = column(batch, name, &TextColumn::data_type())?;
        let column = column.as_dictionary::<Int32Type>();
        Ok(TextColumn { keys: column.keys().clone(), values: column.values().as_string::<i32>().clone() })
    }

    fn key(&self, row: usize) -> Option<usize> {
        self.keys.is_valid(row).then(|| self.keys.value(row) as usize)
    }

    /// The end of the rows from `start` on, and before `end`, that are known to hold the same.
    fn end_of_run(&self, start: usize, end: usize) -> usize {
        let key = self.key(start);
        match self.keys.null_count() {
            0 => start + self.keys.values()[start..end].iter().take_while(|next| Some(**next as usize) == key).count(),
            _ => (start..end).find(|row| self.key(*row) != key).unwrap_or(end),
        }
    }

    /// The text of a row; `None` if it is null.
    pub(crate) fn value(&self, row: usize) -> Option<&str> {
        Some(self.values.value(self.key(row)?))
    }
}

impl NormColumns {
    pub(crate) fn of(batch: &RecordBatch) -> Result<NormColumns, ArrowError> {
        let scale = TextColumn::of(batch, SCALE)?;
        Ok(NormColumns {
            group: TextColumn::of(batch, NORM_GROUP)?,
            version: TextColumn::of(batch, NORM_VERSION)?,
            scales: scale.values.iter().map(|code| Scale::from_code(code?)).collect(),
            scale,
            raw: column(batch, RAW_SCORE, &DataType::Int32)?.as_primitive::<Int32Type>().clone(),
            percentile: column(batch, PERCENTILE, &DataType::Float64)?.as_primitive::<Float64Type>().clone(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.raw.len()
    }

    /// The group and the version of a row; `None` if either is null, which no one asks for.
    pub(crate) fn name(&self, row: usize) -> Option<GroupName<'_>> {
        Some(GroupName { group: self.group.value(row)?, version: self.version.value(row)? })
    }

    /// The end of the rows from `start` on that are known to have its group and version.
    pub(crate) fn end_of_name(&self, start: usize) -> usize {
        self.version.end_of_run(start, self.group.end_of_run(start, self.len()))
    }

    /// The scale of rows that have the same, their raw scores, and their percentiles.
    fn values_of(&self, rows: Range<usize>) -> Result<(Scale, &[i32], &[f64]), Damage> {
        let (scale, ..) = self.values(rows.start)?;
        let lacks = |array: &dyn Array| array.null_count() > 0 && rows.clone().any(|row| array.is_null(row));
        if lacks(&self.raw) || lacks(&self.percentile) {
            return Err(Damage::Null);
        }
        Ok((scale, &self.raw.values()[rows.clone()], &self.percentile.values()[rows]))
    }

    /// Scale, raw score and percentile of a row.
    pub(crate) fn values(&self, row: usize) -> Result<(Scale, i32, f64), Damage> {
        let Some(scale) = self.scale.key(row).filter(|_| self.raw.is_valid(row) && self.percentile.is_valid(row))
        else {
            return Err(Damage::Null);
        };
        let unknown = || Damage::UnknownScale { code: self.scale.values.value(scale).to_owned() };
        Ok((self.scales[scale].ok_or_else(unknown)?, self.raw.value(row), self.percentile.value(row)))
    }
}

fn column(batch: &RecordBatch, name: &str, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let array =
        batch.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(format!("the column '{name}' is missing")))?;
    if array.data_type() == to { Ok(Arc::clone(array)) } else { cast(array, to) }
}

/// The rows of one group in one version, collected in any order; in order of the raw scores it is quickest.
#[derive(Debug, Default)]
pub(crate) struct GroupRows {
    scales: PerScale<ScaleRows>,
}

/// The percentiles of one scale from its lowest raw score on; NaN where there was no row yet.
#[derive(Debug, Default)]
struct ScaleRows {
    lowest: i32,
    percentiles: Vec<f64>,
}

impl GroupRows {
    /// Takes rows of the group.
    pub(crate) fn extend(&mut self, columns: &NormColumns, rows: Range<usize>) -> Result<(), Damage> {
        let mut start = rows.start;
        while start < rows.end {
            // Rows of one scale follow each other.
            let end = columns.scale.end_of_run(start, rows.end);
            let (scale, raws, percentiles) = columns.values_of(start..end)?;
            if let Some(wrong) = percentiles.iter().position(|percentile| !(0.0..=100.0).contains(percentile)) {
                return Err(Damage::Percentile { scale, raw: raws[wrong], percentile: percentiles[wrong] });
            }
            self.scales[scale].extend(scale, raws, percentiles)?;
            start = end;
        }
        Ok(())
    }

    /// Takes the rows of the same group that were collected elsewhere.
    pub(crate) fn append(&mut self, other: GroupRows) -> Result<(), Damage> {
        for (scale, rows) in Scale::ALL.into_iter().zip(other.scales.0) {
            self.scales[scale].append(scale, rows)?;
        }
        Ok(())
    }

    /// The dense arrays, or `None` when there was no row.
    pub(crate) fn finish(self) -> Option<GroupNorms> {
        if self.scales.0.iter().all(|rows| rows.percentiles.is_empty()) {
            return None;
        }
        let mut norms = GroupNorms::default();
        for (scale, rows) in Scale::ALL.into_iter().zip(self.scales.0) {
            norms.scales[scale] = DenseNorms { lowest: rows.lowest, percentiles: rows.percentiles.into_boxed_slice() };
        }
        Some(norms)
    }
}

impl ScaleRows {
    fn extend(&mut self, scale: Scale, raws: &[i32], percentiles: &[f64]) -> Result<(), Damage> {
        let Some(&first) = raws.first() else { return Ok(()) };
        let end = i64::from(self.lowest) + self.percentiles.len() as i64;
        let follows = self.percentiles.is_empty() || i64::from(first) == end;
        let consecutive = || raws.iter().enumerate().all(|(place, raw)| raw.wrapping_sub(first) == place as i32);
        if follows && self.percentiles.len() + raws.len() <= MAX_SPAN as usize && consecutive() {
            if self.percentiles.is_empty() {
                self.lowest = first;
            }
            self.percentiles.extend_from_slice(percentiles);
            return Ok(());
        }
        raws.iter().zip(percentiles).try_for_each(|(raw, percentile)| self.put(scale, *raw, *percentile))
    }

    fn append(&mut self, scale: Scale, other: ScaleRows) -> Result<(), Damage> {
        if self.percentiles.is_empty() {
            *self = other;
            return Ok(());
        }
        let rows = other.percentiles.iter().enumerate().filter(|(_, percentile)| !percentile.is_nan());
        rows.into_iter().try_for_each(|(place, percentile)| self.put(scale, other.lowest + place as i32, *percentile))
    }

    fn put(&mut self, scale: Scale, raw: i32, percentile: f64) -> Result<(), Damage> {
        if self.percentiles.is_empty() {
            self.lowest = raw;
        }
        let place = i64::from(raw) - i64::from(self.lowest);
        let length = self.percentiles.len() as i64;
        if length.max(place + 1) - place.min(0) > MAX_SPAN {
            let highest = (i64::from(self.lowest) + length - 1) as i32;
            return Err(Damage::Span { scale, lowest: raw.min(self.lowest), highest: raw.max(highest) });
        }
        if place < 0 {
            self.percentiles.splice(..0, std::iter::repeat_n(f64::NAN, -place as usize));
            self.lowest = raw;
        } else if place >= length {
            self.percentiles.resize(place as usize + 1, f64::NAN);
        }
        let slot = &mut self.percentiles[place.max(0) as usize];
        if !slot.is_nan() {
            return Err(Damage::Duplicate { scale, raw });
        }
        *slot = percentile;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::norm::NORM_SCHEMA;
    use arrow::array::{Int64Array, new_null_array};

    fn batch(rows: &[(&str, &str, &str, i32, f64)]) -> NormColumns {
        let strings = |pick: fn(&(&str, &str, &str, i32, f64)) -> String| {
            Arc::new(StringArray::from_iter_values(rows.iter().map(pick)))
        };
        let batch = RecordBatch::try_new(
            Arc::clone(&NORM_SCHEMA),
            vec![
                strings(|row| row.0.to_owned()),
                strings(|row| row.1.to_owned()),
                strings(|row| row.2.to_owned()),
                Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.3))),
                Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.4))),
                new_null_array(&DataType::Int64, rows.len()),
            ],
        );
        NormColumns::of(&batch.unwrap()).unwrap()
    }

    fn group(rows: &[(&str, &str, &str, i32, f64)]) -> Result<Option<GroupNorms>, Damage> {
        let (mut collected, columns) = (GroupRows::default(), batch(rows));
        let total = GroupName { group: "Total", version: "default" };
        for row in (0..columns.len()).filter(|row| columns.name(*row) == Some(total)) {
            collected.extend(&columns, row..row + 1)?;
        }
        Ok(collected.finish())
    }

    #[test]
    fn rows_of_one_group_become_dense_arrays_with_gaps() {
        let norms = group(&[
            ("Total", "default", "CE", 14, 30.0),
            ("Total", "default", "CE", 12, 10.0),
            ("Total", "2026", "CE", 13, 99.0),
            ("Other", "default", "CE", 13, 99.0),
            ("Total", "default", "ACCE", -3, 5.5),
        ]);
        let norms = norms.unwrap().unwrap();
        let ce = &norms.scales[Scale::Ce];
        assert_eq!((ce.lowest, ce.exact(12), ce.exact(13), ce.exact(14)), (12, Some(10.0), None, Some(30.0)));
        assert_eq!(norms.scales[Scale::Acce].exact(-3), Some(5.5));
        assert_eq!(norms.scales[Scale::Lfi], DenseNorms::default());
        assert_eq!(group(&[("Other", "default", "CE", 12, 1.0)]), Ok(None));
    }

    #[test]
    fn rows_in_any_order_are_the_same_arrays() {
        let row = |scale, raw: i32| ("Total", "default", scale, raw, f64::from(raw));
        let columns =
            batch(&[row("CE", 12), row("CE", 13), row("RO", 15), row("CE", 17), row("CE", 16), row("CE", 11)]);
        let (mut whole, mut elsewhere) = (GroupRows::default(), GroupRows::default());
        whole.extend(&columns, 0..3).unwrap();
        elsewhere.extend(&columns, 3..6).unwrap();
        whole.append(elsewhere).unwrap();
        let norms = whole.finish().unwrap();
        let values = |scale| (norms.scales[scale].lowest, norms.scales[scale].percentiles.to_vec());
        let (lowest, ce) = values(Scale::Ce);
        assert_eq!((lowest, &ce[..3], &ce[5..]), (11, &[11.0, 12.0, 13.0][..], &[16.0, 17.0][..]));
        assert!(ce[3].is_nan() && ce[4].is_nan());
        assert_eq!(values(Scale::Ro), (15, vec![15.0]));

        let (mut whole, mut twice) = (GroupRows::default(), GroupRows::default());
        whole.extend(&columns, 0..2).unwrap();
        twice.extend(&columns, 1..2).unwrap();
        assert_eq!(whole.append(twice), Err(Damage::Duplicate { scale: Scale::Ce, raw: 13 }));
    }

    #[test]
    fn rows_that_import_would_refuse_are_damage() {
        let row = |scale, raw, percentile| ("Total", "default", scale, raw, percentile);
        assert_eq!(
            group(&[row("CE", 12, 10.0), row("CE", 12, 10.0)]),
            Err(Damage::Duplicate { scale: Scale::Ce, raw: 12 })
        );
        assert_eq!(
            group(&[row("CE", 12, 100.5)]),
            Err(Damage::Percentile { scale: Scale::Ce, raw: 12, percentile: 100.5 })
        );
        assert!(matches!(group(&[row("CE", 12, f64::NAN)]), Err(Damage::Percentile { .. })));
        assert_eq!(group(&[row("XY", 12, 1.0)]), Err(Damage::UnknownScale { code: "XY".into() }));
        assert_eq!(
            group(&[row("CE", i32::MIN, 1.0), row("CE", i32::MAX, 2.0)]),
            Err(Damage::Span { scale: Scale::Ce, lowest: i32::MIN, highest: i32::MAX })
        );
    }

    #[test]
    fn columns_of_other_integer_and_string_types_are_read_alike() {
        let batch = RecordBatch::try_from_iter([
            ("raw_score", Arc::new(Int64Array::from(vec![12])) as _),
            ("norm_group", cast(&StringArray::from(vec!["Total"]), &DataType::LargeUtf8).unwrap()),
            ("norm_version", cast(&StringArray::from(vec!["default"]), &DataType::Utf8View).unwrap()),
            ("scale", Arc::new(StringArray::from(vec!["CE"])) as _),
            ("percentile", Arc::new(Int64Array::from(vec![7])) as _),
        ]);
        let columns = NormColumns::of(&batch.unwrap()).unwrap();
        assert_eq!(columns.name(0), Some(GroupName { group: "Total", version: "default" }));
        assert_eq!(columns.values(0), Ok((Scale::Ce, 12, 7.0)));
    }
}
