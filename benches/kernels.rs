//! What does each scoring kernel cost a session, on one core, on batches as they flow through a plan?
//!
//! `cargo bench --bench kernels` prints elements per second: an element is a session. Goals: `raw_scales` at least 200 million,
//! `validate wide u8` and `raw_scales` together 60 million, `percentiles` 20 million (seven lookups through a chain of five
//! links, 1,400 groups). Compare two commits with `--save-baseline before` and `--baseline before`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::type_complexity)]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, UInt8Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use normstream::instrument::Instrument;
use normstream::model::keyed_norms::{ChainGroup, KeyedNorms, PercentileDictionary};
use normstream::model::norm::{ChainScope, DenseNorms, GroupId, GroupNorms, PUBLISHED};
use normstream::model::permutation::{COUNT, RANKS};
use normstream::model::session::{items, packed_column, wide_column};
use normstream::model::{Layout, Mode, PerScale};
use normstream::scoring::{
    ChainLink, Combinations, Flags, Flexibility, NO_GROUP, PercentileInputs, Percentiles, RawScales, Stage, Style,
    Validate,
};

/// Sessions of a batch: DataFusion's default.
const ROWS: usize = 8192;
/// Groups that each link of a chain can name: 1,400 in all. The chain of KLSI 4.0 begins with levels of education; the other
/// begins with the many countries, whose norms do not fit the nearer caches.
const EDUCATION_FIRST: [usize; 5] = [7, 1_382, 7, 3, 1];
const COUNTRIES_FIRST: [usize; 5] = [1_382, 7, 7, 3, 1];

type Columns = HashMap<String, ArrayRef>;

/// SplitMix64: seeded, so that every run scores the same sessions.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % bound as u64) as usize
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

/// Valid sessions, packed. A respondent ranks every other item as usual and the rest at random, which spreads the scores.
fn packed_sessions(instrument: &Instrument) -> Columns {
    let mut random = Random(1);
    let usual: Vec<usize> = (0..ROWS).map(|_| random.below(COUNT.into())).collect();
    let places = items(instrument.style_items, instrument.contexts.len());
    let column = |(part, item)| {
        let codes = usual.iter().map(|&usual| if random.one_in(2) { usual } else { random.below(COUNT.into()) } as u8);
        (packed_column(part, item), Arc::new(UInt8Array::from_iter_values(codes)) as ArrayRef)
    };
    places.map(column).collect()
}

/// The same sessions, wide.
fn wide_sessions(instrument: &Instrument, packed: &Columns, data_type: &DataType) -> Columns {
    let mut columns = Columns::new();
    for (part, item) in items(instrument.style_items, instrument.contexts.len()) {
        let codes = cast(&packed[&packed_column(part, item)], &DataType::UInt8).unwrap();
        let codes = codes.as_any().downcast_ref::<UInt8Array>().unwrap().values().clone();
        for mode in Mode::ALL {
            let ranks = UInt8Array::from_iter_values(codes.iter().map(|&code| RANKS[usize::from(code)][mode as usize]));
            columns.insert(wide_column(part, item, mode), cast(&ranks, data_type).unwrap());
        }
    }
    columns
}

fn inputs(stage: &dyn Stage, columns: &Columns) -> Vec<ArrayRef> {
    stage.reads().iter().map(|read| Arc::clone(&columns[&read.name])).collect()
}

/// Adds a stage's columns.
fn apply(stage: &dyn Stage, columns: &mut Columns) {
    let added = stage.evaluate(&inputs(stage, columns)).unwrap();
    columns.extend(stage.adds().iter().map(|field| field.name().clone()).zip(added));
}

/// Norms that are warm: every group loaded, each row's groups known.
struct Norms {
    links: Vec<(Vec<Option<ChainGroup>>, Vec<u32>)>,
    published: KeyedNorms,
    percentiles: ArrayRef,
    names: ArrayRef,
}

impl Norms {
    /// A group lacks one raw score in fifty, and one attribute in ten is null.
    fn new(instrument: &Instrument, groups: [usize; 5]) -> Norms {
        let mut random = Random(2);
        let ranges = instrument.raw_ranges();
        let mut names = vec![PUBLISHED.to_owned()];
        let percentiles = |holes: bool, random: &mut Random, raw: std::ops::RangeInclusive<i32>| {
            raw.map(|_| if holes && random.one_in(50) { f64::NAN } else { random.below(1000) as f64 / 10.0 }).collect()
        };
        let dictionary: Arc<PercentileDictionary> = Arc::default();
        let keyed = |holes: bool, random: &mut Random| {
            let scales = PerScale::from_fn(|scale| {
                let range = ranges[scale];
                let percentiles = percentiles(holes, random, range.lowest..=range.highest);
                DenseNorms { lowest: range.lowest, percentiles }
            });
            KeyedNorms::try_new(&GroupNorms { scales }, &dictionary).unwrap()
        };
        let published = keyed(false, &mut random);
        let links = groups
            .into_iter()
            .map(|groups| {
                let group = |_| {
                    names.push(format!("GROUP:{}", names.len()));
                    let norms = Arc::new(keyed(true, &mut random));
                    Some(ChainGroup { id: names.len() as GroupId - 1, first_key: 0, norms })
                };
                let held: Vec<_> = (0..groups).map(group).collect();
                let of_row = |_| if random.one_in(10) { NO_GROUP } else { random.below(groups) as u32 };
                (held, (0..ROWS).map(of_row).collect())
            })
            .collect();
        let percentiles = dictionary.array();
        Norms { links, published, percentiles, names: Arc::new(StringArray::from(names)) }
    }

    fn chain(&self) -> Vec<ChainLink<'_>> {
        self.links.iter().map(|(groups, group_of_row)| ChainLink { groups, group_of_row }).collect()
    }
}

fn kernels(criterion: &mut Criterion) {
    let instrument = Instrument::klsi4();
    let packed = packed_sessions(&instrument);
    let mut group = criterion.benchmark_group("kernels");
    group.throughput(Throughput::Elements(ROWS as u64));

    for data_type in [DataType::UInt8, DataType::Int8, DataType::Int32, DataType::Int64] {
        let stage = Validate::new(&instrument, Layout::Wide);
        let columns = inputs(&stage, &wide_sessions(&instrument, &packed, &data_type));
        group.bench_function(format!("validate wide {data_type}"), |b| b.iter(|| stage.evaluate(black_box(&columns))));
    }
    let validate = Validate::new(&instrument, Layout::Packed);
    let mut columns = packed;
    let stages: [&dyn Stage; 5] = [
        &validate,
        &RawScales::new(&instrument),
        &Combinations::new(&instrument),
        &Style::new(&instrument),
        &Flexibility::new(&instrument),
    ];
    for stage in stages {
        let input = inputs(stage, &columns);
        let name = if stage.name() == "validate" { "validate packed" } else { stage.name() };
        group.bench_function(name, |b| b.iter(|| stage.evaluate(black_box(&input))));
        apply(stage, &mut columns);
    }

    let kernel = Percentiles::new(&instrument);
    let input: Vec<ArrayRef> = kernel.reads().iter().map(|read| Arc::clone(&columns[&read.name])).collect();
    for (name, groups, scope) in [
        ("percentiles", EDUCATION_FIRST, ChainScope::PerScale),
        ("percentiles, per session", EDUCATION_FIRST, ChainScope::PerSession),
        ("percentiles, countries first", COUNTRIES_FIRST, ChainScope::PerScale),
    ] {
        let norms = Norms::new(&instrument, groups);
        let chain = norms.chain();
        let Norms { published, percentiles, names: group_names, .. } = &norms;
        let inputs = PercentileInputs { chain: &chain, scope, published, percentiles, group_names };
        group.bench_function(name, |b| b.iter(|| kernel.evaluate(black_box(&input), inputs)));
        let added = kernel.evaluate(&input, inputs).unwrap();
        columns.extend(kernel.adds().iter().map(|field| field.name().clone()).zip(added));
    }

    let flags = Flags::new(&instrument);
    let input = inputs(&flags, &columns);
    group.bench_function("flags", |b| b.iter(|| flags.evaluate(black_box(&input))));
    group.finish();
}

criterion_group!(benches, kernels);
criterion_main!(benches);
