//! One input row as text to checked norm rows, collected into batches to sort.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow::array::{
    ArrayRef, Float64Builder, Int32Builder, Int64Builder, RecordBatch, StringBuilder, UInt32Builder, UInt64Builder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::model::Scale;
use crate::model::norm::{
    DEFAULT_VERSION, FREQUENCY, NORM_GROUP, NORM_VERSION, PERCENTILE, PUBLISHED, RAW_SCORE, RawRange, SCALE,
};
use crate::norms::import::fault::{FaultCause, FaultLog};
use crate::norms::import::{ImportOptions, LfiUnit};
use crate::norms::token::VERSION_SEPARATOR;

/// Column of the rows to sort: the number of the file that a row came from.
pub(crate) const INPUT: &str = "input";
/// Column of the rows to sort: the line that a row came from.
pub(crate) const LINE: &str = "line";

/// Rows a batch to sort has.
const BATCH_ROWS: usize = 8_192;

/// The rows to sort: norm rows, and where each came from.
pub(crate) static SORT_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new(NORM_VERSION, DataType::Utf8, false),
        Field::new(NORM_GROUP, DataType::Utf8, false),
        Field::new(SCALE, DataType::Utf8, false),
        Field::new(RAW_SCORE, DataType::Int32, false),
        Field::new(INPUT, DataType::UInt32, false),
        Field::new(LINE, DataType::UInt64, false),
        Field::new(PERCENTILE, DataType::Float64, false),
        Field::new(FREQUENCY, DataType::Int64, true),
    ]))
});

/// The fields of one input row; those that the input lacks or leaves empty are empty.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct RowText<'a> {
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    pub(crate) scale: &'a str,
    pub(crate) raw: &'a str,
    pub(crate) percentile: &'a str,
    pub(crate) frequency: &'a str,
}

/// Checks rows and collects the good ones. A row with several faults has all of them reported.
#[derive(Debug)]
pub(crate) struct RowParser {
    options: Arc<ImportOptions>,
    faults: Arc<Mutex<FaultLog>>,
    input: usize,
    file: String,
    versions: StringBuilder,
    groups: StringBuilder,
    scales: StringBuilder,
    raws: Int32Builder,
    inputs: UInt32Builder,
    lines: UInt64Builder,
    percentiles: Float64Builder,
    frequencies: Int64Builder,
}

impl RowParser {
    pub(crate) fn new(options: Arc<ImportOptions>, faults: Arc<Mutex<FaultLog>>, input: usize, file: String) -> Self {
        RowParser {
            options,
            faults,
            input,
            file,
            versions: StringBuilder::new(),
            groups: StringBuilder::new(),
            scales: StringBuilder::new(),
            raws: Int32Builder::new(),
            inputs: UInt32Builder::new(),
            lines: UInt64Builder::new(),
            percentiles: Float64Builder::new(),
            frequencies: Int64Builder::new(),
        }
    }

    pub(crate) fn fault(&self, line: u64, cause: FaultCause) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).add(self.input, &self.file, line, cause);
    }

    /// Takes a row, and gives back a batch when one is full.
    pub(crate) fn push(&mut self, line: u64, row: RowText<'_>) -> Result<Option<RecordBatch>, ArrowError> {
        let version = match &self.options.norm_version {
            Some(version) => version.as_str(),
            None if row.version.trim().is_empty() => DEFAULT_VERSION,
            None => row.version,
        };
        let group = self.check(line, check_group(row.group));
        let named = self.check(line, check_version(version));
        let scale = self.check(line, parse_scale(row.scale));
        let percentile = self.check(line, parse_percentile(row.percentile));
        let frequency = self.check(line, parse_frequency(row.frequency));
        // Without its scale a raw score can't be judged, except that it must be a number.
        let raws = match scale {
            Some(scale) => self.check(line, self.parse_raws(scale, row.raw)),
            None => self.check(line, parse_integer(row.raw)).map(|_| Vec::new()),
        };
        let (Some(()), Some(()), Some(scale), Some(percentile), Some(frequency), Some(raws)) =
            (group, named, scale, percentile, frequency, raws)
        else {
            return Ok(None);
        };
        let version = version.to_owned();
        for raw in raws {
            self.versions.append_value(&version);
            self.groups.append_value(row.group);
            self.scales.append_value(scale.code());
            self.raws.append_value(raw);
            self.inputs.append_value(self.input as u32);
            self.lines.append_value(line);
            self.percentiles.append_value(percentile);
            self.frequencies.append_option(frequency);
        }
        if self.lines.values_slice().len() >= BATCH_ROWS { self.finish() } else { Ok(None) }
    }

    /// The rows collected since the last batch, if any.
    pub(crate) fn finish(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        if self.lines.values_slice().is_empty() {
            return Ok(None);
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.versions.finish()),
            Arc::new(self.groups.finish()),
            Arc::new(self.scales.finish()),
            Arc::new(self.raws.finish()),
            Arc::new(self.inputs.finish()),
            Arc::new(self.lines.finish()),
            Arc::new(self.percentiles.finish()),
            Arc::new(self.frequencies.finish()),
        ];
        RecordBatch::try_new(Arc::clone(&SORT_SCHEMA), columns).map(Some)
    }

    fn check<T>(&self, line: u64, checked: Result<T, FaultCause>) -> Option<T> {
        checked.map_err(|cause| self.fault(line, cause)).ok()
    }

    /// The raw scores that a row stands for: one, or for LFI in hundredths the keys that round to it.
    fn parse_raws(&self, scale: Scale, text: &str) -> Result<Vec<i32>, FaultCause> {
        let raw = parse_integer(text)?;
        let hundredths = scale == Scale::Lfi && self.options.lfi_unit == LfiUnit::Hundredths;
        let possible = if hundredths { RawRange { lowest: 0, highest: 100 } } else { self.options.ranges[scale] };
        match i32::try_from(raw) {
            Ok(raw) if possible.contains(raw) && hundredths => Ok(keys_of_hundredth(raw, self.options.ranges[scale])),
            Ok(raw) if possible.contains(raw) => Ok(vec![raw]),
            _ => Err(FaultCause::RawOutOfRange { scale, raw, range: possible }),
        }
    }
}

/// The exact LFI keys that round half up to a number of hundredths.
///
/// With m contexts a key is 5m² − S, S the sum of squared deviations of the four rank sums from their mean; the highest key
/// is 5m² (320 for eight contexts), and keys are always even, because S is even exactly if m is.
pub(crate) fn keys_of_hundredth(hundredth: i32, range: RawRange) -> Vec<i32> {
    let whole = i64::from(range.highest);
    let rounds_to = |key: i64| (200 * key + whole).div_euclid((2 * whole).max(1));
    (range.lowest..=range.highest)
        .filter(|key| key % 2 == 0 && rounds_to(i64::from(*key)) == i64::from(hundredth))
        .collect()
}

/// A group is named in tokens and in results.
pub(crate) fn check_group(group: &str) -> Result<(), FaultCause> {
    if group.trim().is_empty() {
        return Err(FaultCause::Empty { column: NORM_GROUP });
    }
    if group.contains(VERSION_SEPARATOR) {
        return Err(FaultCause::Separator { column: NORM_GROUP, value: group.to_owned() });
    }
    if group == PUBLISHED {
        return Err(FaultCause::ReservedGroup);
    }
    Ok(())
}

/// A version becomes the name of a file, so it is held to characters that every file system and store takes.
pub(crate) fn check_version(version: &str) -> Result<(), FaultCause> {
    if version.contains(VERSION_SEPARATOR) {
        return Err(FaultCause::Separator { column: NORM_VERSION, value: version.to_owned() });
    }
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ' ');
    let named = !version.trim().is_empty() && version.trim() == version && version.len() <= 100;
    if !named || version.starts_with(['.', '_']) || !version.chars().all(fits) {
        return Err(FaultCause::VersionName { version: version.to_owned() });
    }
    Ok(())
}

fn parse_scale(text: &str) -> Result<Scale, FaultCause> {
    match text.trim() {
        "" => Err(FaultCause::Empty { column: SCALE }),
        code => Scale::from_code(code).ok_or_else(|| FaultCause::UnknownScale { code: code.to_owned() }),
    }
}

fn parse_integer(text: &str) -> Result<i64, FaultCause> {
    match text.trim() {
        "" => Err(FaultCause::Empty { column: RAW_SCORE }),
        number => number.parse().map_err(|_| FaultCause::RawNotANumber { text: number.to_owned() }),
    }
}

fn parse_percentile(text: &str) -> Result<f64, FaultCause> {
    let text = text.trim();
    if text.is_empty() {
        return Err(FaultCause::Empty { column: PERCENTILE });
    }
    match text.parse::<f64>() {
        Ok(percentile) if (0.0..=100.0).contains(&percentile) => Ok(percentile.abs()),
        Ok(percentile) if percentile.is_finite() => Err(FaultCause::PercentileOutOfRange { percentile }),
        _ => Err(FaultCause::PercentileNotANumber { text: text.to_owned() }),
    }
}

fn parse_frequency(text: &str) -> Result<Option<i64>, FaultCause> {
    match text.trim() {
        "" => Ok(None),
        number => match number.parse() {
            Ok(frequency) if frequency >= 0 => Ok(Some(frequency)),
            _ => Err(FaultCause::Frequency { text: number.to_owned() }),
        },
    }
}
