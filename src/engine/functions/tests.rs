#![allow(clippy::unwrap_used)]
//! Each function against the rules that it stands for, through SQL.

use arrow::util::display::array_value_to_string;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::*;
use crate::model::permutation::RANKS;
use crate::norms::NormStoreOptions;

fn context() -> SessionContext {
    let instrument = Instrument::klsi4();
    let norms = Arc::new(NormStore::new(Vec::new(), instrument.raw_ranges(), NormStoreOptions::default()));
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3));
    register(&context, &instrument, &norms);
    context
}

/// The values of the first column of a query.
async fn values(sql: &str) -> Vec<String> {
    let rows = context().sql(sql).await.unwrap().collect().await.unwrap();
    let text = |batch: &arrow::array::RecordBatch| {
        let column = Arc::clone(batch.column(0));
        (0..batch.num_rows()).map(move |row| array_value_to_string(&column, row).unwrap()).collect::<Vec<_>>()
    };
    rows.iter().flat_map(text).collect()
}

#[tokio::test]
async fn styles_are_those_of_the_grid() {
    assert_eq!(values("SELECT learning_style(17, -23)").await, ["analyzing"]);
    assert_eq!(values("SELECT learning_style(9, 6)").await, ["balancing"]);
    assert_eq!(values("SELECT learning_style(NULL, 6)").await, [""]);
    let instrument = Instrument::klsi4();
    let pairs: Vec<(i16, i16)> = (-36..=36).flat_map(|acce| (-36..=36).map(move |aero| (acce, aero))).collect();
    let expected: Vec<String> = pairs
        .iter()
        .map(|&(acce, aero)| instrument.style_names[usize::from(instrument.backup_style_of(acce, aero))].clone())
        .collect();
    let sql = "SELECT backup_style(a.value, b.value) FROM generate_series(-36, 36) a, generate_series(-36, 36) b
               ORDER BY a.value, b.value";
    assert_eq!(values(sql).await, expected);
}

#[tokio::test]
async fn ranks_are_packed_and_unpacked() {
    for (code, [ce, ro, ac, ae]) in RANKS.iter().enumerate() {
        let sql = format!("SELECT pack_ranks({ce}, {ro}, {ac}, {ae})");
        assert_eq!(values(&sql).await, [code.to_string()]);
        let sql = format!("SELECT unpack_ranks({code})");
        assert_eq!(values(&sql).await, [format!("[{ce}, {ro}, {ac}, {ae}]")]);
    }
    assert_eq!(values("SELECT pack_ranks(1, 1, 2, 3)").await, [""]);
    assert_eq!(values("SELECT pack_ranks(1, 2, 3, 260)").await, [""]);
    assert_eq!(values("SELECT unpack_ranks(24)").await, [""]);
    assert_eq!(values("SELECT unpack_ranks(-1)").await, [""]);
}

#[tokio::test]
async fn regions_are_those_of_the_permutation_table() {
    assert_eq!(values("SELECT context_region(4, 3, 1, 2)").await, ["experiencing"]);
    assert_eq!(values("SELECT context_region(2, 3, 1, 4)").await, ["balancing"]);
    assert_eq!(values("SELECT context_region(2, 3, 1, NULL)").await, [""]);
}

#[tokio::test]
async fn full_agreement_is_a_w_of_one_and_no_flexibility() {
    assert_eq!(values("SELECT kendall_w([5, 5, 5, 5, 5, 5, 5, 5])").await, ["1.0"]);
    assert_eq!(values("SELECT lfi([5, 5, 5, 5, 5, 5, 5, 5])").await, ["0.0"]);
    assert_eq!(values("SELECT kendall_w([0, 23])").await, ["0.0"]);
    // Rank sums 8·(1,2,3,4) but for one ranking reversed: R = (11, 17, 23, 29), S = 2·(9² + 3²) = 180.
    assert_eq!(values("SELECT kendall_w([0, 0, 0, 0, 0, 0, 0, 23])").await, [(180.0f64 / 320.0).to_string()]);
    assert_eq!(values("SELECT lfi([[1,2,3,4], [4,3,2,1]])").await, ["1.0"]);
    for nothing in ["[0, 24]", "[0, NULL]", "[]", "NULL", "[[1,2,3,4], [1,1,2,3]]", "[[1,2,3]]"] {
        assert_eq!(values(&format!("SELECT kendall_w({nothing})")).await, [""], "{nothing}");
    }
}

#[tokio::test]
async fn a_birthday_ends_an_age_band() {
    assert_eq!(values("SELECT age_band('2000-05-17', '2025-05-16')").await, ["19-24"]);
    assert_eq!(values("SELECT age_band(DATE '2000-05-17', DATE '2025-05-17')").await, ["25-34"]);
    assert_eq!(values("SELECT age_band(DATE '2000-05-17', TIMESTAMP '2025-05-17 12:00:00')").await, ["25-34"]);
    assert_eq!(values("SELECT age_band(DATE '2000-05-17', DATE '1999-05-17')").await, [""]);
}

#[tokio::test]
async fn percentiles_come_from_norms() {
    assert_eq!(values("SELECT percentile('CE', 13, 'published')").await, ["14.8"]);
    assert_eq!(values("SELECT percentile('ce', 13, 'COUNTRY:Nowhere')").await, [""]);
    assert_eq!(
        values("SELECT percentile('CE', raw, 'published') FROM (VALUES (11), (NULL), (48)) t(raw)").await,
        ["1.9", "", "100.0"]
    );
    let error = context().sql("SELECT percentile('XX', 13, 'published')").await.unwrap().collect().await.unwrap_err();
    assert!(error.to_string().contains("'XX' is not a scale: CE, RO, AC, AE, ACCE, AERO, LFI"), "{error}");
}

#[tokio::test]
async fn a_norm_table_is_cumulative() {
    let sql = "SELECT norm_table(raw) FROM (VALUES (12), (13), (13), (NULL), (15)) t(raw)";
    assert_eq!(
        values(sql).await,
        [
            "[{raw_score: 12, frequency: 1, percentile: 25.0}, {raw_score: 13, frequency: 2, percentile: 75.0}, {raw_score: 15, frequency: 1, percentile: 100.0}]"
        ]
    );
    let rows = "SELECT r['percentile'] FROM (SELECT unnest(norm_table(value % 10)) AS r FROM generate_series(0, 99999)) ORDER BY 1";
    assert_eq!(values(rows).await, (1..=10).map(|tenth| format!("{:?}", 10.0 * f64::from(tenth))).collect::<Vec<_>>());
}

#[test]
fn functions_are_listed_by_name() {
    assert!(FUNCTIONS.is_sorted_by_key(|info| info.name));
}
