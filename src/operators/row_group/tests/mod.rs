//! Rows of all kinds of columns, ways to deliver them, and what readers should see.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cases;
mod laws;
mod metadata;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, Float64Array, Int16Array, Int64Array, ListArray,
    PrimitiveArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::concat_batches;
use arrow::datatypes::{
    ArrowDictionaryKeyType, ArrowNativeType, DataType, Field, Float64Type, Int32Type, Schema, SchemaRef, UInt8Type,
    UInt16Type, UInt32Type,
};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader};
use proptest::prelude::*;

use super::*;
use crate::model::result::{documented_schema, percentile_type, timestamp_type};

const WORDS: [&str; 12] = [
    "acting",
    "analyzing",
    "balancing",
    "deciding",
    "experiencing",
    "imagining",
    "initiating",
    "reflecting",
    "thinking",
    "",
    "élan",
    "a norm group with a name so long that its bound must be cut: AGE:25-34|EDU:University",
];

/// A session as the columns below hold it: one value of each kind of column.
#[derive(Debug, Clone)]
struct Row {
    id: i64,
    time: Option<i64>,
    ok: bool,
    flag: Option<bool>,
    style: Option<usize>,
    group: Option<usize>,
    tier: Option<usize>,
    country: Option<usize>,
    score: Option<i16>,
    percentile: Option<f64>,
    error: Option<String>,
    contexts: Option<Vec<Option<usize>>>,
    regular: Vec<usize>,
}

fn word() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..3_usize, 1 => 0..WORDS.len()]
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => (0..40_i32).prop_map(|tenth| f64::from(tenth) / 10.0),
        1 => prop::sample::select(vec![f64::NAN, -f64::NAN, 0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::MIN, f64::MAX]),
        1 => any::<f64>(),
    ]
}

fn row() -> impl Strategy<Value = Row> {
    let maybe = prop::option::weighted::<prop::strategy::BoxedStrategy<usize>>;
    let scalars = (any::<i64>(), prop::option::of(any::<i64>()), any::<bool>(), prop::option::of(any::<bool>()));
    let words = [
        maybe(0.8, word().boxed()),
        maybe(0.9, word().boxed()),
        maybe(0.2, word().boxed()),
        maybe(0.9, word().boxed()),
    ];
    let score = prop::option::weighted(0.9, prop_oneof![9 => 12..49_i16, 1 => any::<i16>()]);
    let contexts = prop::option::weighted(0.8, prop::collection::vec(prop::option::weighted(0.9, word()), 0..4));
    let rest = (score, prop::option::weighted(0.9, number()), prop::option::weighted(0.1, "\\PC{0,80}"), contexts);
    (scalars, words, rest, prop::collection::vec(word(), 2)).prop_map(
        |((id, time, ok, flag), [style, group, tier, country], (score, percentile, error, contexts), regular)| Row {
            id,
            time,
            ok,
            flag,
            style,
            group,
            tier,
            country,
            score,
            percentile,
            error,
            contexts,
            regular,
        },
    )
}

/// Rows of which some columns may be null throughout, or never null.
fn rows(max: usize) -> impl Strategy<Value = Vec<Row>> {
    (prop::collection::vec(row(), 0..max), prop::collection::vec(0..6_u8, 9)).prop_map(|(mut rows, regime)| {
        fn apply<T>(regime: u8, value: &mut Option<T>, always: T) {
            match regime {
                0 => *value = None,
                1 => *value = Some(value.take().unwrap_or(always)),
                _ => {}
            }
        }
        for row in &mut rows {
            apply(regime[0], &mut row.time, 0);
            apply(regime[1], &mut row.flag, true);
            apply(regime[2], &mut row.style, 1);
            apply(regime[3], &mut row.group, 2);
            apply(regime[4], &mut row.tier, 0);
            apply(regime[5], &mut row.score, -3);
            apply(regime[6], &mut row.percentile, 0.5);
            apply(regime[7], &mut row.error, String::new());
            apply(regime[8], &mut row.contexts, vec![]);
        }
        rows
    })
}

fn dictionary_of(key: DataType) -> DataType {
    DataType::Dictionary(Box::new(key), Box::new(DataType::Utf8))
}

fn plan_schema() -> SchemaRef {
    let list =
        |item_nullable| DataType::List(Arc::new(Field::new("item", dictionary_of(DataType::UInt8), item_nullable)));
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("time", timestamp_type(), true),
        Field::new("ok", DataType::Boolean, false),
        Field::new("flag", DataType::Boolean, true),
        Field::new("style", dictionary_of(DataType::UInt8), true),
        Field::new("group", dictionary_of(DataType::UInt32), true),
        Field::new("tier", dictionary_of(DataType::Int32), true),
        Field::new("country", dictionary_of(DataType::UInt16), true),
        Field::new("score", DataType::Int16, true),
        Field::new("percentile", DataType::Float64, true),
        Field::new("keyed_percentile", percentile_type(), true),
        Field::new("error", DataType::Utf8, true),
        Field::new("contexts", list(true), true),
        Field::new("regular", list(false), false),
    ]))
}

/// How the rows reach the writer: cut into batches, each with dictionaries of its own.
#[derive(Debug, Clone)]
struct Delivery {
    batch_rows: usize,
    /// Rows of other content before and after, sliced off.
    margin: usize,
    /// Turns the dictionaries; 0 shares one between all batches.
    turn: usize,
}

fn delivery() -> impl Strategy<Value = Delivery> {
    (1..70_usize, 0..9_usize, 0..5_usize).prop_map(|(batch_rows, margin, turn)| Delivery { batch_rows, margin, turn })
}

/// Dictionary arrays of words whose dictionaries hold unused and repeated words and a null.
fn keys<K: ArrowDictionaryKeyType>(words: &[Option<usize>], values: &ArrayRef) -> ArrayRef {
    let turn = values.as_string::<i32>().iter().position(|word| word == Some(WORDS[0])).unwrap();
    let keys = words.iter().enumerate().map(|(row, word)| match word {
        Some(word) => {
            let again = if row % 3 == 0 { WORDS.len() + 1 } else { 0 };
            K::Native::from_usize((word + turn) % WORDS.len() + again)
        }
        // A null, now by the key, now by the dictionary.
        None if row % 2 == 0 => K::Native::from_usize(WORDS.len()),
        None => None,
    });
    let keys = keys.collect::<PrimitiveArray<K>>();
    Arc::new(DictionaryArray::try_new(keys, Arc::clone(values)).unwrap())
}

fn dictionary(turn: usize) -> ArrayRef {
    let turned = (0..WORDS.len()).map(|at| Some(WORDS[(at + WORDS.len() - turn) % WORDS.len()])).collect::<Vec<_>>();
    Arc::new(StringArray::from([turned.clone(), vec![None], turned].concat()))
}

/// Keys of numbers, from the last to the first, with a null now as a key and now as a number.
fn keyed_numbers(numbers: impl DoubleEndedIterator<Item = Option<f64>> + ExactSizeIterator + Clone) -> ArrayRef {
    let rows = numbers.len();
    let values = numbers.clone().rev().collect::<Float64Array>();
    let key =
        |(row, number): (usize, Option<f64>)| (number.is_some() || row % 2 == 0).then_some((rows - 1 - row) as u32);
    let keys = numbers.enumerate().map(key).collect::<PrimitiveArray<UInt32Type>>();
    Arc::new(DictionaryArray::new(keys, Arc::new(values)))
}

/// Keys without null, of which the dictionary has none either.
fn item_keys(words: &[usize]) -> ArrayRef {
    let values = Arc::new(StringArray::from(WORDS.to_vec()));
    let keys = words.iter().map(|word| *word as u8).collect::<PrimitiveArray<UInt8Type>>();
    Arc::new(DictionaryArray::try_new(keys, values).unwrap())
}

fn plan_batch(rows: &[Row], values: &ArrayRef) -> RecordBatch {
    let schema = plan_schema();
    let words = |word: fn(&Row) -> Option<usize>| rows.iter().map(word).collect::<Vec<_>>();
    let list = |column: &str, lengths: Vec<usize>, items: ArrayRef, nulls: Option<NullBuffer>| {
        let DataType::List(item) = schema.field_with_name(column).unwrap().data_type() else { unreachable!() };
        Arc::new(ListArray::new(Arc::clone(item), OffsetBuffer::from_lengths(lengths), items, nulls)) as ArrayRef
    };
    // A null list may span elements, which are no values.
    let contexts = rows.iter().enumerate().map(|(row, r)| match &r.contexts {
        Some(items) => items.clone(),
        None => vec![Some(3); row % 3],
    });
    let contexts = contexts.collect::<Vec<_>>();
    let valid = NullBuffer::from_iter(rows.iter().map(|row| row.contexts.is_some()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| Some(row.id)).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.time).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Arc::new(rows.iter().map(|row| Some(row.ok)).collect::<BooleanArray>()),
        Arc::new(rows.iter().map(|row| row.flag).collect::<BooleanArray>()),
        keys::<UInt8Type>(&words(|row| row.style), values),
        keys::<UInt32Type>(&words(|row| row.group), values),
        keys::<Int32Type>(&words(|row| row.tier), values),
        keys::<UInt16Type>(&words(|row| row.country), values),
        Arc::new(rows.iter().map(|row| row.score).collect::<Int16Array>()),
        Arc::new(rows.iter().map(|row| row.percentile).collect::<Float64Array>()),
        keyed_numbers(rows.iter().map(|row| row.percentile)),
        Arc::new(rows.iter().map(|row| row.error.clone()).collect::<StringArray>()),
        list(
            "contexts",
            contexts.iter().map(Vec::len).collect(),
            keys::<UInt8Type>(&contexts.concat(), values),
            Some(valid),
        ),
        list(
            "regular",
            vec![2; rows.len()],
            item_keys(&rows.iter().flat_map(|r| r.regular.clone()).collect::<Vec<_>>()),
            None,
        ),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}

impl Delivery {
    fn batches(&self, rows: &[Row]) -> Vec<RecordBatch> {
        let shared = dictionary(0);
        let chunks = rows.chunks(self.batch_rows).enumerate().map(|(at, chunk)| {
            let values = if self.turn == 0 { Arc::clone(&shared) } else { dictionary((self.turn * at) % WORDS.len()) };
            let margin = std::iter::repeat_n(&chunk[0], self.margin).cloned().collect::<Vec<_>>();
            let padded = [margin.clone(), chunk.to_vec(), margin].concat();
            plan_batch(&padded, &values).slice(self.margin, chunk.len())
        });
        chunks.collect()
    }
}

/// The rows as readers should see them, built without dictionaries.
fn expected(rows: &[Row]) -> RecordBatch {
    let schema = Arc::new(documented_schema(&plan_schema()));
    let plan = plan_batch(rows, &dictionary(0));
    let columns = plan.columns().iter().zip(schema.fields()).map(|(array, field)| match field.name().as_str() {
        "style" => strings(rows.iter().map(|row| row.style)),
        "keyed_percentile" => Arc::new(rows.iter().map(|row| row.percentile).collect::<Float64Array>()),
        "group" => strings(rows.iter().map(|row| row.group)),
        "tier" => strings(rows.iter().map(|row| row.tier)),
        "country" => strings(rows.iter().map(|row| row.country)),
        "contexts" => {
            let lists = rows.iter().map(|row| row.contexts.clone());
            let lengths = lists.clone().map(|list| list.unwrap_or_default().len());
            let nulls = lists.clone().map(|list| list.is_some()).collect::<NullBuffer>();
            string_lists(field, lengths, strings(lists.flat_map(Option::unwrap_or_default)), Some(nulls))
        }
        "regular" => string_lists(
            field,
            rows.iter().map(|_| 2),
            strings(rows.iter().flat_map(|row| row.regular.clone()).map(Some)),
            None,
        ),
        _ => Arc::clone(array),
    });
    let columns = columns.collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

fn strings(words: impl Iterator<Item = Option<usize>>) -> ArrayRef {
    Arc::new(words.map(|word| word.map(|word| WORDS[word])).collect::<StringArray>())
}

fn string_lists(
    field: &Field,
    lengths: impl Iterator<Item = usize>,
    items: ArrayRef,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    let DataType::List(item) = field.data_type() else { unreachable!() };
    Arc::new(ListArray::new(Arc::clone(item), OffsetBuffer::from_lengths(lengths), items, nulls))
}

fn options(page_rows: usize) -> RowGroupOptions {
    RowGroupOptions { page_rows, ..RowGroupOptions::default() }
}

fn encode(batches: &[RecordBatch], options: &RowGroupOptions) -> EncodedRowGroup {
    let mut encoder = RowGroupEncoder::try_new(&plan_schema(), options).unwrap();
    for batch in batches {
        encoder.write(batch).unwrap();
    }
    assert_eq!(encoder.rows(), batches.iter().map(RecordBatch::num_rows).sum::<usize>());
    encoder.finish().unwrap()
}

fn write(row_groups: &[&[Row]], delivery: &Delivery, options: &RowGroupOptions) -> (Bytes, ParquetMetaData) {
    let mut file = ParquetFile::try_new(Vec::new(), &plan_schema(), options).unwrap();
    for rows in row_groups {
        file.append(encode(&delivery.batches(rows), options)).unwrap();
    }
    let bytes = file.finish().unwrap().into();
    let metadata = metadata_of(&bytes);
    (bytes, metadata)
}

fn metadata_of(file: &Bytes) -> ParquetMetaData {
    let options = ParquetMetaDataOptions::new().with_encoding_stats_as_mask(false);
    let reader = ParquetMetaDataReader::new().with_metadata_options(Some(options));
    reader.with_page_index_policy(PageIndexPolicy::Optional).parse_and_finish(file).unwrap()
}

fn read(file: &Bytes, selection: Option<RowSelection>) -> RecordBatch {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let mut builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options).unwrap();
    if let Some(selection) = selection {
        builder = builder.with_row_selection(selection);
    }
    let schema = Arc::clone(builder.schema());
    let batches = builder.build().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    concat_batches(&schema, &batches).unwrap()
}

/// Floats as their bits, so that NaN equals itself and −0 differs from 0; without metadata.
fn by_bits(batch: &RecordBatch) -> Vec<ArrayRef> {
    let bits = |array: &ArrayRef| match array.data_type() {
        DataType::Float64 => {
            Arc::new(array.as_primitive::<Float64Type>().unary(f64::to_bits) as UInt64Array) as ArrayRef
        }
        _ => Arc::clone(array),
    };
    batch.columns().iter().map(bits).collect()
}
