//! What generated tables promise; here, how the tests read them back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod norms;
mod sessions;

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Int64Type, UInt8Type};

use super::*;
use crate::model::permutation::RANKS;
use crate::model::session::{Part, items, packed_column};
use crate::model::{Layout, Scale};

fn options(rows: u64, layout: Layout) -> SessionOptions {
    SessionOptions { rows, layout, ..SessionOptions::default() }
}

fn generator(options: SessionOptions) -> SessionGenerator {
    SessionGenerator::new(options).unwrap()
}

fn whole(generator: &SessionGenerator) -> RecordBatch {
    let batches: Vec<_> = generator.batches().collect::<Result<_, _>>().unwrap();
    concat_batches(&generator.schema(), &batches).unwrap()
}

fn sessions(options: SessionOptions) -> RecordBatch {
    whole(&generator(options))
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    batch.column_by_name(name).unwrap()
}

fn bytes(batch: &RecordBatch, name: &str) -> Vec<Option<u8>> {
    column(batch, name).as_primitive::<UInt8Type>().iter().collect()
}

fn integers(batch: &RecordBatch, name: &str) -> Vec<i64> {
    column(batch, name).as_primitive::<Int64Type>().values().to_vec()
}

fn strings(batch: &RecordBatch, name: &str) -> Vec<Option<String>> {
    let strings = cast(column(batch, name), &DataType::Utf8).unwrap();
    strings.as_string::<i32>().iter().map(|value| value.map(str::to_owned)).collect()
}

type Item = (Part, usize);

/// Each session's permutation codes: `None` for null.
fn packed_codes(batch: &RecordBatch) -> Vec<BTreeMap<Item, Option<u8>>> {
    let mut all = vec![BTreeMap::new(); batch.num_rows()];
    for (part, item) in items(12, 8) {
        let codes = bytes(batch, &packed_column(part, item));
        for (session, code) in all.iter_mut().zip(codes) {
            session.insert((part, item), code);
        }
    }
    all
}

/// Every session's raw scores, LFI in 320ths, from a packed table without bad sessions.
fn raw_scores(batch: &RecordBatch) -> Vec<PerScale<f64>> {
    let sums = |codes: &BTreeMap<Item, Option<u8>>, part: Part| {
        let of_part = codes.iter().filter(|((item_part, _), _)| *item_part == part);
        of_part.fold([0i32; 4], |sums, (_, code)| {
            let ranks = RANKS[usize::from(code.unwrap())];
            std::array::from_fn(|mode| sums[mode] + i32::from(ranks[mode]))
        })
    };
    let score = |codes| {
        let [ce, ro, ac, ae] = sums(codes, Part::Style);
        let s: i32 = sums(codes, Part::Context).iter().map(|sum| (sum - 20).pow(2)).sum();
        PerScale([ce, ro, ac, ae, ac - ce, ae - ro, 320 - s].map(f64::from))
    };
    packed_codes(batch).iter().map(score).collect()
}

fn mean_and_deviation(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    (mean, (values.map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt())
}
