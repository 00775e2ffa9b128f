//! What does it cost to write one value of each kind of result column, with row groups encoded from keys and with the Parquet
//! library's `ArrowWriter` on the same arrays?
//!
//! A million rows in batches of 8,192, zstd 1, row groups and pages as by default. Before the timings it prints the bytes per
//! value of both. Elements per second are values per second; for the list columns list elements.
//!
//! Run: `cargo bench --bench row_group` (one kind: `-- style`).

#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int16Array, Int64Array, ListArray, PrimitiveArray,
    RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{ArrowDictionaryKeyType, ArrowNativeType, Field, SchemaRef, UInt8Type, UInt32Type};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use normstream::model::permutation;
use normstream::operators::row_group::{ParquetFile, RowGroupEncoder, RowGroupOptions};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

pub const ROWS: usize = 1 << 20;
const BATCH_ROWS: usize = 8192;

/// One column in batches.
pub struct Column {
    pub name: &'static str,
    pub batches: Vec<RecordBatch>,
    /// Rows, or list elements.
    pub values: usize,
}

const STYLES: [&str; 9] = [
    "acting",
    "analyzing",
    "balancing",
    "deciding",
    "experiencing",
    "imagining",
    "initiating",
    "reflecting",
    "thinking",
];
const FLAGS: [&str; 4] = ["near_style_boundary", "low_w", "high_w", "mixed_provenance"];

/// Scores of one session: four raw scores and the regions of the eight contexts.
struct Session {
    raw: [i16; 4],
    regions: [usize; 8],
}

fn session(random: &mut Pcg64Mcg) -> Session {
    let lean = random.random_range(0..24_u8);
    let mut raw = [0; 4];
    for _ in 0..12 {
        let code = if random.random_bool(0.3) { lean } else { random.random_range(0..24) };
        let ranks = permutation::RANKS[usize::from(code)];
        raw.iter_mut().zip(ranks).for_each(|(sum, rank)| *sum += i16::from(rank));
    }
    let regions =
        std::array::from_fn(
            |_| if random.random_bool(0.3) { usize::from(lean) % 9 } else { random.random_range(0..9) },
        );
    Session { raw, regions }
}

fn style(session: &Session) -> usize {
    let window = |score: i16, low: i16, high: i16| if score <= low { 0 } else { 1 + usize::from(score > high) };
    let [ce, ro, ac, ae] = session.raw;
    3 * window(ac - ce, 5, 14) + window(ae - ro, 0, 11)
}

/// One-decimal percentiles that depend on a group and a score.
fn percentile(group: usize, score: i16) -> f64 {
    let logistic = 1.0 / (1.0 + (-(f64::from(score) - 30.0 - (group % 7) as f64) / 5.0).exp());
    (1000.0 * logistic).round() / 10.0
}

fn dictionary<K: ArrowDictionaryKeyType>(keys: impl Iterator<Item = Option<usize>>, values: &ArrayRef) -> ArrayRef {
    let keys = keys.map(|key| key.map(K::Native::usize_as)).collect::<PrimitiveArray<K>>();
    Arc::new(DictionaryArray::new(keys, Arc::clone(values)))
}

fn lists(lengths: impl Iterator<Item = usize>, items: ArrayRef) -> ArrayRef {
    let item = Arc::new(Field::new_list_field(items.data_type().clone(), true));
    Arc::new(ListArray::new(item, OffsetBuffer::from_lengths(lengths), items, None))
}

fn strings(values: impl IntoIterator<Item = impl Into<String>>) -> ArrayRef {
    Arc::new(values.into_iter().map(|value| Some(value.into())).collect::<StringArray>())
}

/// All kinds of columns that results have.
pub fn columns() -> Vec<Column> {
    let mut random = Pcg64Mcg::seed_from_u64(7);
    let sessions = (0..ROWS).map(|_| session(&mut random)).collect::<Vec<_>>();
    let few = (0..ROWS).map(|_| random.random_range(0..20_usize)).collect::<Vec<_>>();
    let many = (0..ROWS).map(|_| random.random_range(0..1400_usize)).collect::<Vec<_>>();
    let faulty = (0..ROWS).map(|_| random.random_bool(0.01)).collect::<Vec<_>>();
    let users = (0..ROWS).map(|_| random.random_range(0..ROWS as i64 / 3)).collect::<Vec<_>>();
    let jitter = (0..ROWS).map(|_| random.random_range(0..60_000_000_i64)).collect::<Vec<_>>();

    let styles = strings(STYLES);
    let flags = strings(FLAGS);
    let codes = strings(["missing_rank", "rank_out_of_range", "not_a_permutation"]);
    let groups = strings((0..1400).map(|group| format!("EDU:Degree {group}|2026")));
    let total = strings(["Total"]);

    type Make<'a> = Box<dyn Fn(std::ops::Range<usize>) -> ArrayRef + 'a>;
    let flags_of = |row: usize| {
        (sessions[row].raw[0] % 9 == 0).then_some(few[row] % 4).into_iter().chain((few[row] == 7).then_some(1))
    };
    let makes: Vec<(&'static str, Make<'_>)> = vec![
        ("style", Box::new(|rows| dictionary::<UInt8Type>(sessions[rows].iter().map(|s| Some(style(s))), &styles))),
        (
            "style 1% null",
            Box::new(|rows| {
                dictionary::<UInt8Type>(rows.map(|row| (!faulty[row]).then(|| style(&sessions[row]))), &styles)
            }),
        ),
        (
            "error code 99% null",
            Box::new(|rows| dictionary::<UInt8Type>(rows.map(|row| faulty[row].then_some(few[row] % 3)), &codes)),
        ),
        ("error code all null", Box::new(|rows| dictionary::<UInt8Type>(rows.map(|_| None), &codes))),
        ("group of 20", Box::new(|rows| dictionary::<UInt32Type>(rows.map(|row| Some(few[row])), &groups))),
        ("group of 1400", Box::new(|rows| dictionary::<UInt32Type>(rows.map(|row| Some(many[row])), &groups))),
        ("group constant", Box::new(|rows| dictionary::<UInt32Type>(rows.map(|_| Some(0)), &total))),
        (
            "context styles",
            Box::new(|rows| {
                let items = sessions[rows.clone()].iter().flat_map(|session| session.regions).map(Some);
                lists(rows.map(|_| 8), dictionary::<UInt8Type>(items, &styles))
            }),
        ),
        (
            "flags",
            Box::new(|rows| {
                let items = rows.clone().flat_map(flags_of).map(Some);
                lists(rows.map(|row| flags_of(row).count()), dictionary::<UInt8Type>(items, &flags))
            }),
        ),
        ("no flags", Box::new(|rows| lists(rows.map(|_| 0), dictionary::<UInt8Type>(std::iter::empty(), &flags)))),
        ("ok", Box::new(|rows| Arc::new(rows.map(|row| Some(!faulty[row])).collect::<BooleanArray>()))),
        ("raw score", Box::new(|rows| Arc::new(Int16Array::from_iter_values(sessions[rows].iter().map(|s| s.raw[0]))))),
        (
            "raw score 1% null",
            Box::new(|rows| {
                Arc::new(rows.map(|row| (!faulty[row]).then(|| sessions[row].raw[0])).collect::<Int16Array>())
            }),
        ),
        (
            "difference",
            Box::new(|rows| Arc::new(Int16Array::from_iter_values(sessions[rows].iter().map(|s| s.raw[2] - s.raw[0])))),
        ),
        (
            "percentile",
            Box::new(|rows| {
                Arc::new(Float64Array::from_iter_values(rows.map(|row| percentile(few[row], sessions[row].raw[0]))))
            }),
        ),
        (
            "percentile 1% null",
            Box::new(|rows| {
                let value = |row: usize| (!faulty[row]).then(|| percentile(few[row], sessions[row].raw[0]));
                Arc::new(rows.map(value).collect::<Float64Array>())
            }),
        ),
        (
            "lfi",
            Box::new(|rows| {
                Arc::new(Float64Array::from_iter_values(
                    rows.map(|row| f64::from(2 * (users[row] % 136) as i32) / 320.0),
                ))
            }),
        ),
        ("session id", Box::new(|rows| Arc::new(Int64Array::from_iter_values(rows.map(|row| 100_000 + row as i64))))),
        ("user id", Box::new(|rows| Arc::new(Int64Array::from_iter_values(rows.map(|row| users[row]))))),
        (
            "completed at",
            Box::new(|rows| {
                let start = 1_700_000_000_000_000;
                let times = rows.map(|row| start + 30_000_000 * row as i64 + jitter[row]);
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
            }),
        ),
        ("session id text", Box::new(|rows| strings(rows.map(|row| format!("session-{:09}", row * 7))))),
        ("country", Box::new(|rows| strings(rows.map(|row| format!("country {}", few[row]))))),
        (
            "error 99% null",
            Box::new(|rows| {
                let sentence = |row: usize| faulty[row].then(|| format!("q{:02}: the rank of AC is missing", few[row]));
                Arc::new(rows.map(sentence).collect::<StringArray>())
            }),
        ),
        ("error all null", Box::new(|rows| Arc::new(StringArray::new_null(rows.len())))),
    ];
    let make_column = |(name, make): (&'static str, Make<'_>)| {
        let ranges = (0..ROWS).step_by(BATCH_ROWS).map(|row| row..(row + BATCH_ROWS).min(ROWS));
        let batches = ranges.map(|rows| RecordBatch::try_from_iter_with_nullable([(name, make(rows), name != "ok")]));
        let values = if name == "context styles" { 8 * ROWS } else { ROWS };
        Column { name, batches: batches.map(|batch| batch.unwrap_or_else(|error| panic!("{error}"))).collect(), values }
    };
    makes.into_iter().map(make_column).collect()
}

impl Column {
    pub fn schema(&self) -> SchemaRef {
        self.batches[0].schema()
    }
}

pub fn write(column: &Column, options: &RowGroupOptions) -> Result<usize, Box<dyn std::error::Error>> {
    let schema = column.schema();
    let mut file = ParquetFile::try_new(Vec::new(), &schema, options)?;
    for row_group in column.batches.chunks(options.row_group_rows / BATCH_ROWS) {
        let mut encoder = RowGroupEncoder::try_new(&schema, options)?;
        for batch in row_group {
            encoder.write(batch)?;
        }
        file.append(encoder.finish()?)?;
    }
    Ok(file.finish()?.len())
}

pub fn write_stock(column: &Column, options: &RowGroupOptions) -> Result<usize, Box<dyn std::error::Error>> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(options.zstd_level)?))
        .set_max_row_group_row_count(Some(options.row_group_rows))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), column.schema(), Some(properties))?;
    for batch in &column.batches {
        writer.write(batch)?;
    }
    Ok(writer.into_inner()?.len())
}

fn bench(criterion: &mut Criterion) {
    let options = RowGroupOptions::default();
    for column in columns() {
        let size = |bytes: Result<usize, _>| bytes.map_or(f64::NAN, |bytes| bytes as f64 / column.values as f64);
        let (ours, stock) = (size(write(&column, &options)), size(write_stock(&column, &options)));
        println!("{}: {ours:.3} bytes a value, library {stock:.3}", column.name);
        let mut group = criterion.benchmark_group(column.name);
        group.sample_size(10).throughput(Throughput::Elements(column.values as u64));
        group.bench_function(BenchmarkId::from_parameter("keys"), |b| {
            b.iter(|| black_box(write(&column, &options).ok()))
        });
        group.bench_function(BenchmarkId::from_parameter("library"), |b| {
            b.iter(|| black_box(write_stock(&column, &options).ok()));
        });
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
