//! The goals, and what a run came to.

use crate::cases::*;
use crate::measure::{Series, thousands};

/// What a goal asks of a figure.
enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

/// Prints a line for each goal whose cases were run.
pub(crate) fn print_goals(series: &[Series]) {
    let find = |name: &str| series.iter().find(|series| series.name == name);
    let rate = |name: &str| find(name).map(Series::rate);
    let seconds = |name: &str| find(name).map(Series::seconds);
    let milliseconds = |name: &str| seconds(name).map(|seconds| seconds * 1e3);
    let mebibytes = |name: &str| find(name).map(|series| series.memory() / f64::from(1 << 20));
    // Reading and writing one after the other on the same cores.
    let limit = || Some(1.0 / (1.0 / rate(DECODE)? + 1.0 / rate(REWRITE)?));
    let ratio = |one: Option<f64>, other: Option<f64>| Some(one? / other?);
    use Wanted::{AtLeast, AtMost};
    let goals = [
        ("wide job ÷ stock limit 1/(1/decode + 1/rewrite)", ratio(rate(WIDE), limit()), AtLeast(0.9)),
        ("wide job, sessions/s", rate(WIDE), AtLeast(2e6)),
        ("packed job ÷ wide job", ratio(rate(PACKED), rate(WIDE)), AtLeast(1.5)),
        ("packed job, sessions/s", rate(PACKED), AtLeast(4e6)),
        ("counting styles ÷ decoding their 48 columns", ratio(rate(STYLE), rate(DECODE_STYLE_ITEMS)), AtLeast(0.8)),
        ("counting styles ÷ decoding all 80 rank columns", ratio(rate(STYLE_OF_ALL), rate(DECODE_RANKS)), AtLeast(0.8)),
        ("two threads ÷ one", ratio(rate(WIDE), rate(WIDE_ONE_THREAD)), AtLeast(1.85)),
        ("the same of ten times the rows", ratio(rate(MEMORY_TEN), rate(TEN_ONE_THREAD)), AtLeast(1.85)),
        ("MiB", mebibytes(WIDE), AtMost(200.0)),
        ("MiB, ten times the rows", mebibytes(MEMORY_TEN), AtMost(200.0)),
        ("memory of ten times the rows ÷ once", ratio(mebibytes(MEMORY_TEN), mebibytes(WIDE)), AtMost(1.05)),
        ("memory of a hundred times the rows ÷ once", ratio(mebibytes(MEMORY_HUNDRED), mebibytes(WIDE)), AtMost(1.05)),
        ("MiB, memory-constrained", mebibytes(CONSTRAINED), AtMost(64.0)),
        ("MiB, memory-constrained, ten times the rows", mebibytes(CONSTRAINED_TEN), AtMost(64.0)),
        ("time of the CSV job ÷ reading the CSV", ratio(seconds(FROM_CSV), seconds(READ_CSV)), AtMost(1.2)),
        ("time of the NDJSON job ÷ reading the NDJSON", ratio(seconds(FROM_NDJSON), seconds(READ_NDJSON)), AtMost(1.2)),
        ("to NDJSON, sessions/s", rate(TO_NDJSON), AtLeast(2e5)),
        ("first row, ms", milliseconds(FIRST_ROW), AtMost(30.0)),
        ("the same with published norms alone", milliseconds(FIRST_ROW_PUBLISHED), AtMost(30.0)),
        ("--help, ms", milliseconds(HELP), AtMost(10.0)),
        ("wide job ÷ DuckDB", ratio(rate(WIDE), rate(crate::peers::DUCKDB)), AtLeast(8.0)),
        ("wide job ÷ Polars", ratio(rate(WIDE), rate(crate::peers::POLARS)), AtLeast(22.0)),
        (
            "size of the result ÷ DuckDB's",
            ratio(find(WIDE).map(Series::written), find(crate::peers::DUCKDB).map(Series::written)),
            AtMost(1.0),
        ),
        ("wide job ÷ the other program's", ratio(rate(WIDE), rate(&format!("other: {WIDE}"))), AtLeast(1.0)),
    ];
    println!("\n{:<52} {:>12} {:>12}", "goal", "measured", "wanted");
    for (goal, measured, wanted) in goals {
        let Some(measured) = measured else { continue };
        let (sign, bound, met) = match wanted {
            AtLeast(bound) => ('≥', bound, measured >= bound),
            AtMost(bound) => ('≤', bound, measured <= bound),
        };
        let met = if met { "met" } else { "not met" };
        println!("{goal:<52} {:>12} {:>12} {met}", figure(measured), format!("{sign} {}", figure(bound)));
    }
}

fn figure(number: f64) -> String {
    match number {
        _ if number >= 1e3 => thousands(number),
        _ if number >= 100.0 => format!("{number:.0}"),
        _ => format!("{number:.2}"),
    }
}
