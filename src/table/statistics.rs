//! What a log says of a file's columns, from the footer that was written.

use arrow::datatypes::{DataType, Schema};
use chrono::DateTime;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use parquet::schema::types::SchemaDescriptor;
use serde_json::{Map, Value, json};

/// Days from 0001-01-01 to 1970-01-01, as `chrono` counts them.
const EPOCH_DAYS: i32 = 719_163;

/// `numRecords`, `minValues`, `maxValues` and `nullCount` of a file with the columns of `schema`, as Delta has them, in JSON.
///
/// Columns of lists and of floats have no bounds: Parquet leaves NaN out of them, and readers of Delta do not.
pub fn statistics(schema: &Schema, descriptor: &SchemaDescriptor, row_groups: &[RowGroupMetaData]) -> String {
    let (mut least, mut greatest, mut nulls) = (Map::new(), Map::new(), Map::new());
    for leaf in 0..descriptor.num_columns() {
        let column = descriptor.column(leaf);
        let path = column.path().parts();
        let (1, Ok(field)) = (path.len(), schema.field_with_name(&path[0])) else { continue };
        let chunks = row_groups.iter().map(|group| {
            let chunk = group.column(leaf);
            Some((chunk.statistics()?, chunk.num_values()))
        });
        let Some(chunks) = chunks.collect::<Option<Vec<_>>>() else { continue };
        let Some(count) = chunks.iter().map(|(chunk, _)| chunk.null_count_opt()).sum::<Option<u64>>() else { continue };
        nulls.insert(field.name().clone(), count.into());
        // A chunk of nulls alone has no bounds; one of values without bounds leaves the column without.
        let of_values = |(chunk, values): &(&Statistics, i64)| chunk.null_count_opt() != Some(*values as u64);
        let chunks: Vec<&Statistics> = chunks.into_iter().filter(of_values).map(|(chunk, _)| chunk).collect();
        if let Some((low, high)) = bounds(&chunks, field.data_type()) {
            least.insert(field.name().clone(), low);
            greatest.insert(field.name().clone(), high);
        }
    }
    let statistics = json!({
        "numRecords": row_groups.iter().map(RowGroupMetaData::num_rows).sum::<i64>(),
        "minValues": least,
        "maxValues": greatest,
        "nullCount": nulls,
    });
    statistics.to_string()
}

/// The least and the greatest value over chunks of values; `None` if there are none, or if one has no bounds.
fn bounds(chunks: &[&Statistics], data_type: &DataType) -> Option<(Value, Value)> {
    let integers = || {
        let both = chunks.iter().map(|chunk| match chunk {
            Statistics::Int32(values) => Some((i64::from(*values.min_opt()?), i64::from(*values.max_opt()?))),
            Statistics::Int64(values) => Some((*values.min_opt()?, *values.max_opt()?)),
            _ => None,
        });
        let both = both.collect::<Option<Vec<_>>>()?;
        Some((both.iter().map(|(low, _)| *low).min()?, both.iter().map(|(_, high)| *high).max()?))
    };
    match data_type {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            let (low, high) = integers()?;
            Some((low.into(), high.into()))
        }
        DataType::Date32 => {
            let (low, high) = integers()?;
            let date = |days: i64| {
                let days = i32::try_from(days).ok()?.checked_add(EPOCH_DAYS)?;
                Some(Value::from(chrono::NaiveDate::from_num_days_from_ce_opt(days)?.format("%Y-%m-%d").to_string()))
            };
            Some((date(low)?, date(high)?))
        }
        DataType::Timestamp(_, _) => {
            let (low, high) = integers()?;
            // Bounds have milliseconds: a bound above is rounded up.
            let time = |millis: i64| {
                let text = DateTime::from_timestamp_millis(millis)?.format("%Y-%m-%dT%H:%M:%S%.3fZ");
                Some(Value::from(text.to_string()))
            };
            Some((time(low.div_euclid(1000))?, time(high.checked_add(999)?.div_euclid(1000))?))
        }
        DataType::Utf8 => {
            let both = chunks.iter().map(|chunk| match chunk {
                Statistics::ByteArray(values) => Some((
                    std::str::from_utf8(values.min_opt()?.data()).ok()?,
                    std::str::from_utf8(values.max_opt()?.data()).ok()?,
                )),
                _ => None,
            });
            let both = both.collect::<Option<Vec<_>>>()?;
            let low = both.iter().map(|(low, _)| *low).min()?;
            let high = both.iter().map(|(_, high)| *high).max()?;
            Some((low.into(), high.into()))
        }
        _ => None,
    }
}
