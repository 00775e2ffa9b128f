//! Session attributes as small integers: what lets the norm groups of a session be found without a string per row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Date32Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Float64Type, Int32Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;
use hashbrown::HashMap;

use crate::instrument::Instrument;
use crate::model::session::{AGE_BAND, COMPLETED_AT, DATE_OF_BIRTH, STARTED_AT};
use crate::scoring::AgeBands;

/// The number of a null or blank value.
pub(super) const NULL_ID: u32 = 0;

/// So many rows of a partition come before all others: who waits for the first one should not wait for the groups of a whole batch,
/// nor for those of all values of a dictionary.
pub(super) const FIRST_ROWS: usize = 8;

/// The values of one attribute, numbered from 1 in the order of their first appearance.
#[derive(Debug, Default)]
pub(super) struct AttributeValues {
    ids: HashMap<Box<str>, u32>,
    values: Vec<Box<str>>,
    /// The dictionary of the last batch and the numbers of its values: a file's batches share few dictionaries.
    last: Option<(ArrayRef, Vec<u32>)>,
}

impl AttributeValues {
    /// How many values are numbered.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// The value of a number; `None` for [`NULL_ID`].
    pub(super) fn value(&self, id: u32) -> Option<&str> {
        self.values.get((id as usize).checked_sub(1)?).map(AsRef::as_ref)
    }

    /// The number of a value.
    pub(super) fn id(&mut self, value: &str) -> u32 {
        if value.trim().is_empty() {
            return NULL_ID;
        }
        if let Some(&id) = self.ids.get(value) {
            return id;
        }
        self.values.push(value.into());
        let id = self.values.len() as u32;
        self.ids.insert(value.into(), id);
        id
    }

    /// The number of each row's value. A dictionary column costs an index a row, any other column, and the first rows, a hash a row.
    pub(super) fn ids_of(&mut self, column: &ArrayRef) -> Result<Vec<u32>, ArrowError> {
        let dictionary = match column.data_type() {
            DataType::Dictionary(key, _) if **key == DataType::Int32 => Arc::clone(column),
            _ => {
                let text = text_of(column)?;
                cast(&text, &DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)))?
            }
        };
        let dictionary = dictionary.as_dictionary::<Int32Type>();
        let (keys, values) = (dictionary.keys(), dictionary.values());
        // Groups are looked for of each value that has a number.
        if keys.len() <= FIRST_ROWS && keys.len() < values.len() {
            let text = cast(values, &DataType::Utf8)?;
            let text: &StringArray = text.as_string();
            let value = |key: i32| text.is_valid(key as usize).then(|| text.value(key as usize));
            return Ok(keys.iter().map(|key| key.and_then(value).map_or(NULL_ID, |value| self.id(value))).collect());
        }
        let ids = self.ids_of_values(values)?;
        // The key of a null can be any.
        let id = |&key: &i32| ids.get(key as usize).copied().unwrap_or(NULL_ID);
        let mut ids_of_rows: Vec<u32> = keys.values().iter().map(id).collect();
        if let Some(nulls) = keys.nulls() {
            (!nulls.inner()).set_indices().for_each(|row| ids_of_rows[row] = NULL_ID);
        }
        Ok(ids_of_rows)
    }

    fn ids_of_values(&mut self, values: &ArrayRef) -> Result<Vec<u32>, ArrowError> {
        if let Some((last, ids)) = &self.last
            && last.to_data().ptr_eq(&values.to_data())
        {
            return Ok(ids.clone());
        }
        let text = cast(values, &DataType::Utf8)?;
        let text: &StringArray = text.as_string();
        let ids: Vec<u32> = text.iter().map(|value| value.map_or(NULL_ID, |value| self.id(value))).collect();
        self.last = Some((Arc::clone(values), ids.clone()));
        Ok(ids)
    }
}

/// A column as text. Whole floating-point numbers are written as integers, and NaN is null: a column of integers with gaps often
/// reaches a file as such.
fn text_of(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if !column.data_type().is_floating() {
        return cast(column, &DataType::Utf8);
    }
    let numbers = cast(column, &DataType::Float64)?;
    let known = numbers.as_primitive::<Float64Type>().iter().map(|number| number.filter(|number| !number.is_nan()));
    Ok(Arc::new(known.map(|number| number.map(|number| number.to_string())).collect::<StringArray>()))
}

/// One attribute of a norm chain: where its values come from, and their numbers.
#[derive(Debug)]
pub(super) struct Attribute {
    source: Source,
    values: AttributeValues,
}

/// Columns are named by their place among those that the stage reads for its attributes.
#[derive(Debug)]
enum Source {
    /// The input lacks the attribute: it is null for every session.
    Absent,
    Column(usize),
    /// `age_band` where it is given, else reckoned from the date of birth and the day of the session.
    AgeBand {
        given: Option<usize>,
        birth: usize,
        days: Vec<usize>,
        bands: AgeBands,
        names: Vec<String>,
    },
}

impl Attribute {
    /// The columns that may serve as the attribute `name`.
    pub(super) fn candidates(name: &str) -> Vec<&str> {
        match name {
            AGE_BAND => vec![AGE_BAND, DATE_OF_BIRTH, COMPLETED_AT, STARTED_AT],
            other => vec![other],
        }
    }

    /// The attribute `name` from the columns called `columns`.
    pub(super) fn new(name: &str, columns: &[String], instrument: &Arc<Instrument>) -> Self {
        let place = |name: &str| columns.iter().position(|column| column == name);
        let source = match (place(name), place(DATE_OF_BIRTH)) {
            (given, Some(birth)) if name == AGE_BAND => Source::AgeBand {
                given,
                birth,
                days: [COMPLETED_AT, STARTED_AT].into_iter().filter_map(place).collect(),
                bands: AgeBands::new(instrument),
                names: instrument.age_bands.iter().map(|band| band.name.clone()).collect(),
            },
            (Some(column), _) => Source::Column(column),
            (None, _) => Source::Absent,
        };
        Attribute { source, values: AttributeValues::default() }
    }

    /// The values numbered so far.
    pub(super) fn values(&self) -> &AttributeValues {
        &self.values
    }

    /// Begins to number anew.
    pub(super) fn forget(&mut self) {
        self.values = AttributeValues::default();
    }

    /// The number of each row's value; `None` when all are null.
    pub(super) fn ids(&mut self, rows: usize, columns: &[ArrayRef]) -> Result<Option<Vec<u32>>, ArrowError> {
        match &self.source {
            Source::Absent => Ok(None),
            Source::Column(column) => self.values.ids_of(&columns[*column]).map(Some),
            Source::AgeBand { given, birth, days, bands, names } => {
                let mut ids = match given {
                    Some(given) => self.values.ids_of(&columns[*given])?,
                    None => vec![NULL_ID; rows],
                };
                let band_ids: Vec<u32> = names.iter().map(|name| self.values.id(name)).collect();
                let birth = cast(&columns[*birth], &DataType::Date32)?;
                let birth = birth.as_primitive::<Date32Type>();
                let days = days.iter().map(|&day| date_of(&columns[day])).collect::<Result<Vec<_>, _>>()?;
                let days: Vec<&Date32Array> = days.iter().map(|days| days.as_primitive()).collect();
                for (row, id) in ids.iter_mut().enumerate() {
                    if *id == NULL_ID && birth.is_valid(row) {
                        let day = days.iter().find(|days| days.is_valid(row));
                        let band = day.and_then(|days| bands.band(birth.value(row), days.value(row)));
                        *id = band.map_or(NULL_ID, |band| band_ids[usize::from(band)]);
                    }
                }
                Ok(Some(ids))
            }
        }
    }
}

/// The UTC day of a column of dates or timestamps.
fn date_of(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    const DAY: i64 = 86_400;
    // Timestamps count from the epoch in UTC, whatever their zone; a cast to a date takes the zone's local day.
    Ok(match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => whole_days::<TimestampSecondType, DAY>(column),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            whole_days::<TimestampMillisecondType, { DAY * 1_000 }>(column)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            whole_days::<TimestampMicrosecondType, { DAY * 1_000_000 }>(column)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            whole_days::<TimestampNanosecondType, { DAY * 1_000_000_000 }>(column)
        }
        _ => cast(column, &DataType::Date32)?,
    })
}

/// The day of each time, given how many of its units a day has.
fn whole_days<T: ArrowPrimitiveType<Native = i64>, const DAY: i64>(column: &ArrayRef) -> ArrayRef {
    Arc::new(column.as_primitive::<T>().unary::<_, Date32Type>(|time| time.div_euclid(DAY) as i32))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::array::{
        DictionaryArray, Float32Array, Float64Array, Int32Array, TimestampMillisecondArray, TimestampSecondArray,
    };

    use super::*;

    fn ids(values: &mut AttributeValues, keys: &[Option<i32>]) -> Vec<u32> {
        let texts = StringArray::from(vec![Some("Spain"), Some(" "), None, Some("Peru"), Some("Chad")]);
        let column = DictionaryArray::<Int32Type>::new(Int32Array::from(keys.to_vec()), Arc::new(texts));
        values.ids_of(&(Arc::new(column) as ArrayRef)).unwrap()
    }

    #[test]
    fn few_rows_give_numbers_to_their_own_values_and_many_to_all_of_the_dictionary() {
        let mut values = AttributeValues::default();
        assert_eq!(ids(&mut values, &[Some(3), None, Some(1), Some(2)]), [1, NULL_ID, NULL_ID, NULL_ID]);
        assert_eq!(values.len(), 1);
        assert_eq!(ids(&mut values, &[Some(3), Some(0), Some(1), None, Some(2)]), [1, 2, NULL_ID, NULL_ID, NULL_ID]);
        assert_eq!((values.len(), values.value(1), values.value(3)), (3, Some("Peru"), Some("Chad")));
    }

    #[test]
    fn whole_floats_are_the_integers_that_they_were_before_their_column_had_gaps() {
        let mut values = AttributeValues::default();
        let years = Float64Array::from(vec![Some(2026.0), Some(f64::NAN), None, Some(3.5), Some(-0.0), Some(2026.0)]);
        assert_eq!(values.ids_of(&(Arc::new(years) as ArrayRef)).unwrap(), [1, NULL_ID, NULL_ID, 2, 3, 1]);
        assert_eq!([1, 2].map(|id| values.value(id)), [Some("2026"), Some("3.5")]);
        let short: ArrayRef = Arc::new(Float32Array::from(vec![2026.0]));
        assert_eq!(values.ids_of(&short).unwrap(), [1]);
    }

    #[test]
    fn the_key_of_a_null_does_not_count() {
        let column = |keys: Vec<i32>, valid: Vec<bool>, texts: Vec<&str>| -> ArrayRef {
            let keys = Int32Array::new(keys.into(), Some(valid.into()));
            Arc::new(DictionaryArray::<Int32Type>::new(keys, Arc::new(StringArray::from(texts))))
        };
        let mut values = AttributeValues::default();
        let some = column(vec![-1, 1, 99, 0, 0], vec![false, true, false, true, false], vec!["Peru", "Chad"]);
        assert_eq!(values.ids_of(&some).unwrap(), [NULL_ID, 2, NULL_ID, 1, NULL_ID]);
        let none = column(vec![7; FIRST_ROWS + 1], vec![false; FIRST_ROWS + 1], vec![]);
        assert_eq!(values.ids_of(&none).unwrap(), [NULL_ID; FIRST_ROWS + 1]);
    }

    #[test]
    fn the_day_of_a_time_is_that_of_utc_in_every_unit_and_before_1970_too() {
        let seconds =
            TimestampSecondArray::from(vec![Some(-86_401), Some(-1), Some(0), Some(86_399), None, Some(86_400)]);
        let days = Date32Array::from(vec![Some(-2), Some(-1), Some(0), Some(0), None, Some(1)]);
        for zone in [None, Some("+05:30".into())] {
            let times: ArrayRef = Arc::new(seconds.clone().with_timezone_opt(zone.clone()));
            for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
                let times = cast(&times, &DataType::Timestamp(unit, zone.clone())).unwrap();
                assert_eq!(date_of(&times).unwrap().as_ref(), &days as &dyn Array, "{unit:?} {zone:?}");
            }
        }
        let just_before = TimestampMillisecondArray::from(vec![-1]);
        assert_eq!(
            date_of(&(Arc::new(just_before) as ArrayRef)).unwrap().as_ref(),
            &Date32Array::from(vec![-1]) as &dyn Array
        );
    }
}
