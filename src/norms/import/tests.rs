#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::{Float64Array, Int64Array, StringArray};
use arrow::datatypes::DataType;
use parquet::arrow::ArrowWriter;
use parquet::file::reader::{FileReader, SerializedFileReader};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::instrument::Instrument;
use crate::norms::import::parse::keys_of_hundredth;
use crate::norms::source::load_one;
use crate::norms::{NormSource, ParquetNorms, open_norms};
use crate::storage::StorageOptions;

fn storage() -> Storage {
    Storage::new(StorageOptions::default(), []).unwrap()
}

/// A folder with tables to import, and one to import to.
struct Workspace {
    root: TempDir,
    storage: Storage,
}

impl Workspace {
    fn new() -> Self {
        Workspace { root: TempDir::new().unwrap(), storage: storage() }
    }

    fn path(&self, name: &str) -> String {
        self.root.path().join(name).display().to_string()
    }

    fn file(&self, name: &str, content: &str) -> String {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn parquet(&self, name: &str, batch: &RecordBatch) -> String {
        let file = std::fs::File::create(self.path(name)).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        self.path(name)
    }

    fn norms(&self) -> Location {
        self.storage.open(&self.path("norms")).unwrap()
    }

    fn written(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path("norms")) else { return Vec::new() };
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    async fn import(&self, paths: &[&str], options: ImportOptions) -> Result<ImportReport, NormError> {
        let inputs = paths.iter().map(|path| self.storage.open(path).unwrap()).collect();
        import(&self.storage, inputs, &self.norms(), options).await
    }

    async fn open(&self) -> ParquetNorms {
        ParquetNorms::open(&self.norms(), 100).await.unwrap()
    }
}

fn options() -> ImportOptions {
    ImportOptions::new(Instrument::klsi4().norm_ranges())
}

fn faults(error: NormError) -> Vec<String> {
    let NormError::Faults(report) = error else { panic!("{error:?}") };
    assert_eq!(report.total, report.faults.len() as u64);
    let name = |file: &str| Path::new(file).file_name().unwrap().to_str().unwrap().to_owned();
    report.faults.iter().map(|fault| format!("{}:{}: {}", name(&fault.file), fault.line, fault.cause)).collect()
}

type Rows = BTreeMap<(String, String, Scale, i32), f64>;

fn csv_rows(text: &str) -> Rows {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let scale = Scale::from_code(fields[2]).unwrap();
        ((fields[0].to_owned(), fields[1].to_owned(), scale, fields[3].parse().unwrap()), fields[4].parse().unwrap())
    };
    text.lines().skip(1).map(parse).collect()
}

/// Every row that a source answers, group by group, by way of its listing.
async fn loaded_rows(source: &dyn NormSource) -> Rows {
    let listed: Vec<_> = source.groups().try_collect().await.unwrap();
    let mut rows = Rows::new();
    for summary in &listed {
        let norms = load_one(source, &summary.group, &summary.version).await.unwrap().unwrap();
        let before = rows.len();
        for (scale, held) in norms.scales.iter() {
            for (index, percentile) in held.percentiles.iter().enumerate().filter(|(_, value)| !value.is_nan()) {
                let raw = held.lowest + index as i32;
                rows.insert((summary.group.clone(), summary.version.clone(), scale, raw), *percentile);
            }
        }
        assert_eq!((rows.len() - before) as u64, summary.rows, "{summary:?}");
    }
    rows
}

#[tokio::test]
async fn imported_groups_answer_exactly_what_the_csv_says() {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/demo_groups.csv");
    let expected = csv_rows(&std::fs::read_to_string(demo).unwrap());
    assert_eq!(expected.len(), 2_019);
    let workspace = Workspace::new();
    let report = workspace.import(&[demo], options()).await.unwrap();
    assert_eq!(workspace.written(), ["default.parquet"]);
    assert_eq!((report.tables.len(), report.rows(), report.tables[0].groups), (1, 2_019, 10));
    let norms = workspace.open().await;
    assert_eq!(norms.rows(), 2_019);
    assert_eq!(loaded_rows(&norms).await, expected);
    assert_eq!(load_one(&norms, "AGE:<19", "2026").await.unwrap(), None);
    assert_eq!(load_one(&norms, "AGE:<1", "default").await.unwrap(), None);
    assert_eq!(load_one(&norms, "ZZZ", "default").await.unwrap(), None);
    let validated = validate(&norms, &options().ranges, 10).await.unwrap();
    assert_eq!((validated[0].rows, validated[0].digest_checked), (2_019, true));

    let temporary = open_norms(&workspace.storage, demo, options()).await.unwrap();
    assert_eq!(loaded_rows(temporary.as_ref()).await, expected);
    assert_eq!(temporary.description(), format!("norm table {demo} (2019 rows)"));
    assert_eq!(temporary.digest(), norms.digest(), "the same rows, imported twice");
}

#[tokio::test]
async fn every_fault_of_every_file_is_told_with_its_line_and_nothing_is_written() {
    let workspace = Workspace::new();
    let rows = workspace.file(
        "rows.csv",
        "norm_group,norm_version,scale,raw_score,percentile,frequency\n\
         Total,default,CE,12,5,10\n\
         Total,default,CE,11,5,10\n\
         Total,default,CE,10,70,10\n\
         Total,default,XY,12,5,10\n\
         Total,default,CE,13,100.5,10\n\
         Total,default,CE,14,high,10\n\
         Total,default,CE,15,NaN,10\n\
         Total,default,CE,12.5,5,10\n\
         Total,default,CE,,5,-1\n\
         ,default,CE,16,5,10\n\
         A|B,default,CE,16,5,10\n\
         Total,../x,CE,16,5,10\n\
         Total,default,CE,16\n\
         \n\
         \"Total\n\",default,CE,16,5,10\n\
         Total,default,CE,49,5,10\n\
         published,default,CE,16,5,10\n",
    );
    let columns = workspace.file("columns.csv", "norm_group,scale,raw\nTotal,CE,12\n");
    let order = workspace.file(
        "order.csv",
        "norm_group,scale,raw_score,percentile\nTotal,RO,21,20\nTotal,RO,20,30\nTotal,RO,22,25\nTotal,CE,12,5\n",
    );
    let error = workspace.import(&[&rows, &columns, &order], options()).await.unwrap_err();
    assert_eq!(
        faults(error),
        [
            "rows.csv:4: the raw score 10 of CE is not from 11 to 48".to_owned(),
            "rows.csv:5: 'XY' is not a scale: CE, RO, AC, AE, ACCE, AERO or LFI".to_owned(),
            "rows.csv:6: the percentile 100.5 is not from 0 to 100".to_owned(),
            "rows.csv:7: the percentile 'high' is not a number".to_owned(),
            "rows.csv:8: the percentile 'NaN' is not a number".to_owned(),
            "rows.csv:9: the raw score '12.5' is not a whole number".to_owned(),
            "rows.csv:10: the frequency '-1' is not a whole number from 0".to_owned(),
            "rows.csv:10: 'raw_score' is empty".to_owned(),
            "rows.csv:11: 'norm_group' is empty".to_owned(),
            "rows.csv:12: 'norm_group' is 'A|B': it can't hold a '|', which separates group and version in a token"
                .to_owned(),
            "rows.csv:13: the version '../x' can't name a file: use letters, digits, '.', '_', '-' or blanks, and no \
             '.' in front"
                .to_owned(),
            "rows.csv:14: the row has 4 fields, the header 6".to_owned(),
            "rows.csv:18: the raw score 49 of CE is not from 11 to 48".to_owned(),
            "rows.csv:19: 'norm_group' is 'published': results call the published table so, and a group needs another name"
                .to_owned(),
            "columns.csv:1: the column 'raw_score' is missing".to_owned(),
            "columns.csv:1: the column 'percentile' is missing".to_owned(),
            "order.csv:2: RO 21 of Total has the percentile 20, below the 30 of 20".to_owned(),
            "order.csv:4: RO 22 of Total has the percentile 25, below the 30 of 20".to_owned(),
            format!("order.csv:5: CE 12 of Total stands already in {rows}:2"),
        ]
    );
    assert_eq!(workspace.written(), [""; 0]);
}

#[tokio::test]
async fn faults_beyond_the_bound_are_counted() {
    let workspace = Workspace::new();
    let rows: String = (0..100).map(|_| "Total,XY,12,5\n").collect();
    let file = workspace.file("rows.csv", &format!("norm_group,scale,raw_score,percentile\n{rows}"));
    let error = workspace.import(&[&file], ImportOptions { max_faults: 3, ..options() }).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("100 faults in the norm tables:\n"), "{text}");
    assert!(text.ends_with("\n  and 97 more"), "{text}");
    assert_eq!(text.lines().count(), 5);
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn a_version_is_written_once_and_never_edited() {
    let workspace = Workspace::new();
    let file = workspace.file("rows.csv", "norm_group,norm_version,scale,raw_score,percentile\nTotal,2026,CE,12,5\n");
    workspace.import(&[&file], options()).await.unwrap();
    let error = workspace.import(&[&file], options()).await.unwrap_err();
    assert!(matches!(&error, NormError::VersionExists { version, .. } if version == "2026"), "{error}");
    assert_eq!(workspace.written(), ["2026.parquet"]);
    let renamed = ImportOptions { norm_version: Some("2026.1".to_owned()), ..options() };
    workspace.import(&[&file], renamed).await.unwrap();
    assert_eq!(workspace.written(), ["2026.1.parquet", "2026.parquet"]);
    let norms = workspace.open().await;
    for version in ["2026", "2026.1"] {
        let group = load_one(&norms, "Total", version).await.unwrap().unwrap();
        assert_eq!(group.scales[Scale::Ce].exact(12), Some(5.0), "{version}");
    }
    let bad = ImportOptions { norm_version: Some("a/b".to_owned()), ..options() };
    assert!(matches!(workspace.import(&[&file], bad).await, Err(NormError::Version { .. })));
}

#[tokio::test]
async fn two_imports_of_one_version_at_once_give_one_table() {
    let workspace = Workspace::new();
    let file = workspace.file("rows.csv", "norm_group,scale,raw_score,percentile\nTotal,CE,12,5\n");
    let files = [file.as_str()];
    let (one, other) = tokio::join!(workspace.import(&files, options()), workspace.import(&files, options()));
    assert_eq!(usize::from(one.is_ok()) + usize::from(other.is_ok()), 1, "{one:?} {other:?}");
    assert_eq!(workspace.written(), ["default.parquet"], "and nothing is left behind");
}

#[tokio::test]
async fn versions_go_to_files_of_their_own() {
    let workspace = Workspace::new();
    let file = workspace.file(
        "rows.csv",
        "norm_group,norm_version,scale,raw_score,percentile\n\
         Total,2026,CE,12,6\nTotal,,CE,12,5\nSpain,2026,CE,12,7\nTotal,default,CE,13,8\n",
    );
    let report = workspace.import(&[&file], options()).await.unwrap();
    let summary: Vec<_> = report.tables.iter().map(|t| (t.version.as_str(), t.groups, t.rows)).collect();
    assert_eq!(summary, [("2026", 2, 2), ("default", 1, 2)], "no version is the version 'default'");
    let listed: Vec<_> = workspace.open().await.groups().try_collect().await.unwrap();
    let listed: Vec<_> = listed.iter().map(|s| (s.group.as_str(), s.version.as_str(), s.rows)).collect();
    assert_eq!(listed, [("Spain", "2026", 1), ("Total", "2026", 1), ("Total", "default", 2)]);
}

#[tokio::test]
async fn lfi_in_hundredths_answers_every_exact_key_that_rounds_to_it() {
    let range = Instrument::klsi4().raw_range(Scale::Lfi);
    let mut keys = Vec::new();
    for hundredth in 0..=100 {
        for key in keys_of_hundredth(hundredth, range) {
            let rounded = (f64::from(key * 100) / 320.0 + 0.5).floor() as i32;
            assert_eq!(rounded, hundredth, "key {key}");
            keys.push(key);
        }
    }
    assert_eq!(keys, (0..=320).step_by(2).collect::<Vec<_>>(), "each key is answered by exactly one hundredth");
    assert_eq!(keys_of_hundredth(53, range), [168, 170], "52.5 rounds up");

    let workspace = Workspace::new();
    let file = workspace.file(
        "rows.csv",
        "norm_group,scale,raw_score,percentile\nTotal,LFI,53,40\nTotal,LFI,54,41\nTotal,LFI,101,90\n",
    );
    let hundredths = || ImportOptions { lfi_unit: LfiUnit::Hundredths, ..options() };
    let error = workspace.import(&[&file], hundredths()).await.unwrap_err();
    assert_eq!(faults(error), ["rows.csv:4: the raw score 101 of LFI is not from 0 to 100"]);
    let file = workspace.file("rows.csv", "norm_group,scale,raw_score,percentile\nTotal,LFI,53,40\nTotal,LFI,54,41\n");
    workspace.import(&[&file], hundredths()).await.unwrap();
    let total = load_one(&workspace.open().await, "Total", "default").await.unwrap().unwrap();
    let lfi = &total.scales[Scale::Lfi];
    let answers = [166, 168, 169, 170, 172, 174].map(|key| lfi.exact(key));
    assert_eq!(answers, [None, Some(40.0), None, Some(40.0), Some(41.0), Some(41.0)]);
}

#[tokio::test]
async fn a_duplicate_in_hundredths_is_told_once() {
    let workspace = Workspace::new();
    let file = workspace.file("rows.csv", "norm_group,scale,raw_score,percentile\nTotal,LFI,53,40\nTotal,LFI,53,41\n");
    let hundredths = ImportOptions { lfi_unit: LfiUnit::Hundredths, ..options() };
    let faults = faults(workspace.import(&[&file], hundredths).await.unwrap_err());
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].starts_with("rows.csv:3: LFI 168 of Total stands already in "), "{faults:?}");
}

#[tokio::test]
async fn parquet_is_imported_like_csv_whatever_its_types() {
    let workspace = Workspace::new();
    let groups = arrow::compute::cast(
        &StringArray::from(vec!["Total", "Total", "Spain"]),
        &DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
    );
    let batch = RecordBatch::try_from_iter([
        ("percentile", Arc::new(Float64Array::from(vec![0.1 + 0.2, 50.0, 7.25])) as _),
        ("raw_score", Arc::new(Int64Array::from(vec![12, 13, 12])) as _),
        ("scale", Arc::new(StringArray::from(vec!["CE", "CE", "ce"])) as _),
        ("norm_group", groups.unwrap()),
    ])
    .unwrap();
    let path = workspace.parquet("rows.parquet", &batch);
    workspace.import(&[&path], options()).await.unwrap();
    let norms = workspace.open().await;
    let total = load_one(&norms, "Total", "default").await.unwrap().unwrap();
    assert_eq!(total.scales[Scale::Ce].exact(12), Some(0.1 + 0.2), "to the last bit");
    assert_eq!(load_one(&norms, "Spain", "default").await.unwrap().unwrap().scales[Scale::Ce].exact(12), Some(7.25));

    let faulty = RecordBatch::try_from_iter([
        ("percentile", Arc::new(Float64Array::from(vec![Some(5.0), None])) as _),
        ("raw_score", Arc::new(Int64Array::from(vec![12, 13])) as _),
        ("scale", Arc::new(StringArray::from(vec!["CE", "CE"])) as _),
        ("norm_group", Arc::new(StringArray::from(vec!["Total", "Total"])) as _),
    ])
    .unwrap();
    let path = workspace.parquet("rows.parquet", &faulty);
    let other = ImportOptions { norm_version: Some("2026".to_owned()), ..options() };
    assert_eq!(faults(workspace.import(&[&path], other).await.unwrap_err()), ["rows.parquet:2: 'percentile' is empty"]);
}

#[tokio::test]
async fn a_table_larger_than_the_memory_is_sorted_through_the_disk() {
    let workspace = Workspace::new();
    let ranges = options().ranges;
    let mut text = String::from("norm_group,scale,raw_score,percentile\n");
    let mut rows = 0;
    // Backwards, so that every row is out of place.
    for group in (0..400).rev() {
        for (scale, range) in ranges.iter() {
            for raw in (range.lowest..=range.highest).rev().step_by(2) {
                let percentile = 100 * (raw - range.lowest) / (range.highest - range.lowest);
                text.push_str(&format!("GROUP:{group:04},{scale},{raw},{percentile}\n"));
                rows += 1;
            }
        }
    }
    let file = workspace.file("rows.csv", &text);
    let report = workspace
        .import(&[&file], ImportOptions { memory_limit: 4 << 20, chunk_rows: 100, ..options() })
        .await
        .unwrap();
    assert_eq!((report.rows(), report.tables[0].groups), (rows, 400));
    let norms = workspace.open().await;
    let validated = validate(&norms, &ranges, 10).await.unwrap();
    assert_eq!(validated[0].rows, rows);
    let group = load_one(&norms, "GROUP:0123", "default").await.unwrap().unwrap();
    assert_eq!(group.scales[Scale::Ce].exact(48), Some(100.0));

    let parquet = SerializedFileReader::new(std::fs::File::open(workspace.path("norms/default.parquet")).unwrap());
    let metadata = parquet.unwrap().metadata().clone();
    assert_eq!(metadata.num_row_groups() as u64, rows.div_ceil(16_400));
    assert_eq!(metadata.row_group(0).num_rows(), 16_400, "whole pages of 100 rows");
    let sorting = metadata.row_group(0).sorting_columns().unwrap();
    assert_eq!(sorting.iter().map(|column| column.column_idx).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_table_without_rows_is_not_imported() {
    let workspace = Workspace::new();
    let file = workspace.file("rows.csv", "norm_group,scale,raw_score,percentile\n");
    assert!(matches!(workspace.import(&[&file], options()).await, Err(NormError::NoRows { .. })));
    let empty = workspace.file("empty.csv", "");
    let error = workspace.import(&[&empty], options()).await.unwrap_err();
    assert_eq!(faults(error)[0], "empty.csv:1: the column 'norm_group' is missing");
    let text = workspace.file("rows.txt", "");
    assert!(matches!(workspace.import(&[&text], options()).await, Err(NormError::NotATable { .. })));
    assert!(matches!(open_norms(&workspace.storage, &text, options()).await, Err(NormError::NotATable { .. })));
    let missing = workspace.import(&[&workspace.path("none.csv")], options()).await.unwrap_err();
    assert!(missing.to_string().ends_with("none.csv does not exist"), "{missing}");
}

#[tokio::test]
async fn any_store_is_a_target_and_holds_a_version_once() {
    let workspace = Workspace::new();
    let file = workspace.file("rows.csv", "norm_group,scale,raw_score,percentile\nTotal,CE,12,5\n");
    let folder = workspace.storage.open("memory:///tables/norms").unwrap();
    let inputs = || vec![workspace.storage.open(&file).unwrap()];
    let report = import(&workspace.storage, inputs(), &folder, options()).await.unwrap();
    assert_eq!(report.tables[0].location, "memory:///tables/norms/default.parquet");
    let again = import(&workspace.storage, inputs(), &folder, options()).await;
    assert!(matches!(again, Err(NormError::VersionExists { .. })), "{again:?}");
    let norms = open_norms(&workspace.storage, "memory:///tables/norms", options()).await.unwrap();
    assert_eq!(
        load_one(norms.as_ref(), "Total", "default").await.unwrap().unwrap().scales[Scale::Ce].exact(12),
        Some(5.0)
    );
}

#[tokio::test]
async fn the_digest_follows_the_rows_and_not_their_order() {
    let digest = async |rows: &str| {
        let workspace = Workspace::new();
        let file = workspace.file("rows.csv", &format!("norm_group,scale,raw_score,percentile\n{rows}"));
        workspace.import(&[&file], options()).await.unwrap();
        workspace.open().await.digest()
    };
    let base = digest("Total,CE,12,5\nTotal,CE,13,6\nTotal,CE,14,7\n").await;
    assert_eq!(digest("Total,CE,14,7\nTotal,CE,13,6.0\nTotal,CE,12,5\n").await, base);
    assert_ne!(digest("Total,CE,12,5\nTotal,CE,13,6.5\nTotal,CE,14,7\n").await, base, "same bounds, same size");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_imported_is_what_is_loaded(
        groups in prop::collection::btree_map("[A-Z]{1,3}:[ -+.-z]{1,90}", prop::collection::btree_set((0..7usize, 0..200i32), 1..300), 1..6),
        chunk_rows in 1..200usize,
    ) {
        let ranges = options().ranges;
        let mut expected = Rows::new();
        for (group, rows) in &groups {
            for (scale, place) in rows {
                let (scale, range) = (Scale::ALL[*scale], ranges[Scale::ALL[*scale]]);
                let raw = range.lowest + place % (range.highest - range.lowest + 1);
                let percentile = f64::from(raw - range.lowest) / 7.0;
                expected.insert((group.clone(), "default".to_owned(), scale, raw), percentile);
            }
        }
        let workspace = Workspace::new();
        let mut writer = csv::Writer::from_path(workspace.path("rows.csv")).unwrap();
        writer.write_record(["percentile", "norm_group", "scale", "raw_score"]).unwrap();
        for ((group, _, scale, raw), percentile) in expected.iter().rev() {
            writer.write_record([&percentile.to_string(), group, scale.code(), &raw.to_string()]).unwrap();
        }
        writer.flush().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let file = workspace.path("rows.csv");
            let options = ImportOptions { chunk_rows, ..options() };
            workspace.import(&[&file], options.clone()).await.unwrap();
            let norms = workspace.open().await;
            assert_eq!(loaded_rows(&norms).await, expected);
            validate(&norms, &options.ranges, 1).await.unwrap();
        });
    }
}
