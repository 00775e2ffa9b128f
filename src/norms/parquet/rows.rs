//! Decoded norm rows: typed columns of a batch, and the dense arrays made of one group's rows.

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
        let keys = |row| (self.group.key(row), self.version.key(row));
        (start + 1..self.len()).find(|row| keys(*row) != keys(start)).unwrap_or(self.len())
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

/// The rows of one group in one version, collected in any order.
#[derive(Debug, Default)]
pub(crate) struct GroupRows {
    scales: PerScale<Vec<(i32, f64)>>,
}

impl GroupRows {
    /// Takes a row of the group.
    pub(crate) fn push(&mut self, columns: &NormColumns, row: usize) -> Result<(), Damage> {
        let (scale, raw, percentile) = columns.values(row)?;
        if !(0.0..=100.0).contains(&percentile) {
            return Err(Damage::Percentile { scale, raw, percentile });
        }
        self.scales[scale].push((raw, percentile));
        Ok(())
    }

    /// Takes the rows of the same group that were collected elsewhere.
    pub(crate) fn append(&mut self, other: GroupRows) {
        for (rows, more) in self.scales.0.iter_mut().zip(other.scales.0) {
            match rows.is_empty() {
                true => *rows = more,
                false => rows.extend(more),
            }
        }
    }

    /// The dense arrays, or `None` when there was no row.
    pub(crate) fn finish(mut self) -> Result<Option<GroupNorms>, Damage> {
        if self.scales.0.iter().all(Vec::is_empty) {
            return Ok(None);
        }
        let mut norms = GroupNorms::default();
        for scale in Scale::ALL {
            norms.scales[scale] = dense(scale, &mut self.scales[scale])?;
        }
        Ok(Some(norms))
    }
}

fn dense(scale: Scale, rows: &mut [(i32, f64)]) -> Result<DenseNorms, Damage> {
    rows.sort_unstable_by_key(|(raw, _)| *raw);
    let (Some(&(lowest, _)), Some(&(highest, _))) = (rows.first(), rows.last()) else {
        return Ok(DenseNorms::default());
    };
    let span = i64::from(highest) - i64::from(lowest) + 1;
    if span > MAX_SPAN {
        return Err(Damage::Span { scale, lowest, highest });
    }
    let mut percentiles = vec![f64::NAN; span as usize].into_boxed_slice();
    for (raw, percentile) in rows {
        let slot = &mut percentiles[(*raw - lowest) as usize];
        if !slot.is_nan() {
            return Err(Damage::Duplicate { scale, raw: *raw });
        }
        *slot = *percentile;
    }
    Ok(DenseNorms { lowest, percentiles })
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
            collected.push(&columns, row)?;
        }
        collected.finish()
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
