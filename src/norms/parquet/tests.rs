#![allow(clippy::unwrap_used)]

use std::fmt;
use std::ops::Range;
use std::sync::Mutex;

use arrow::array::{Float64Array, Int32Array, StringArray};
use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectStore, ObjectStoreExt, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::*;
use crate::instrument::Instrument;
use crate::norms::error::Damage;
use crate::norms::import::{ImportOptions, import};
use crate::norms::source::load_one;
use crate::storage::{Storage, StorageOptions};

/// A store in memory that notes what is read: one list of ranges a call.
#[derive(Debug, Default)]
struct WatchedStore {
    inner: InMemory,
    calls: Mutex<Vec<Vec<Range<u64>>>>,
}

impl WatchedStore {
    fn take_calls(&self) -> Vec<Vec<Range<u64>>> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

impl fmt::Display for WatchedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "watched {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for WatchedStore {
    async fn put_opts(&self, at: &Path, data: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.inner.put_opts(at, data, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let result = self.inner.get_opts(at, options).await?;
        self.calls.lock().unwrap().push(vec![result.range.clone()]);
        Ok(result)
    }

    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.calls.lock().unwrap().push(ranges.to_vec());
        self.inner.get_ranges(at, ranges).await
    }

    fn delete_stream(
        &self,
        places: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(places)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn storage() -> Storage {
    Storage::new(StorageOptions::default(), []).unwrap()
}

/// The folder `norms` of a watched store.
fn folder(store: &Arc<WatchedStore>) -> Location {
    let mut at = storage().open("memory:///norms").unwrap();
    at.store = Arc::clone(store) as _;
    at
}

/// Groups `GROUP:0000` … with one row for each possible raw score; the percentile tells the group and the raw score.
fn percentile(group: usize, raw: i32, range: (i32, i32)) -> f64 {
    f64::from(raw - range.0) / f64::from(range.1 - range.0) * 90.0 + group as f64 / 1_000.0
}

/// A store with an imported table of some groups, 615 rows each.
async fn imported(groups: usize) -> Arc<WatchedStore> {
    let ranges = Instrument::klsi4().raw_ranges();
    let directory = tempfile::tempdir().unwrap();
    let csv = directory.path().join("norms.csv");
    let mut text = String::from("norm_group,scale,raw_score,percentile\n");
    for group in 0..groups {
        for (scale, range) in ranges.iter() {
            for raw in range.lowest..=range.highest {
                let percentile = percentile(group, raw, (range.lowest, range.highest));
                text.push_str(&format!("GROUP:{group:04},{scale},{raw},{percentile}\n"));
            }
        }
    }
    std::fs::write(&csv, text).unwrap();
    let store = Arc::new(WatchedStore::default());
    let csv = storage().open(&csv.display().to_string()).unwrap();
    import(&storage(), vec![csv], &folder(&store), ImportOptions::new(ranges)).await.unwrap();
    store
}

async fn open(store: &Arc<WatchedStore>) -> Result<ParquetNorms, NormError> {
    ParquetNorms::open(&folder(store), 100).await
}

#[tokio::test]
async fn opening_reads_the_footer_and_a_load_reads_a_few_pages_in_two_calls() {
    let store = imported(200).await;
    let size = store.inner.head(&"norms/default.parquet".into()).await.unwrap().size;
    store.take_calls();
    let norms = open(&store).await.unwrap();
    assert_eq!(norms.rows(), 200 * 615);
    let opening = store.take_calls();
    let bytes: u64 = opening.iter().flatten().map(|range| range.end - range.start).sum();
    assert!(opening.len() <= 2 && bytes <= 64 << 10, "{opening:?}");

    // Group 26 lies in the first and in the second row group; the page index of the first is known by then.
    for (group, expected_calls) in [(0, 2), (26, 3), (27, 1), (123, 2), (199, 2)] {
        let held = load_one(&norms, &format!("GROUP:{group:04}"), "default").await.unwrap().unwrap();
        for (scale, range) in Instrument::klsi4().raw_ranges().iter() {
            for raw in range.lowest..=range.highest {
                let expected = percentile(group, raw, (range.lowest, range.highest));
                assert_eq!(held.scales[scale].exact(raw), Some(expected), "{group} {scale} {raw}");
            }
        }
        let calls = store.take_calls();
        assert_eq!(calls.len(), expected_calls, "page index and pages of each row group: {calls:?}");
        let bytes: u64 = calls.iter().flatten().map(|range| range.end - range.start).sum();
        assert!(bytes < size / 10, "group {group}: {bytes} of {size} bytes");
    }

    assert_eq!(load_one(&norms, "GROUP:9999", "default").await.unwrap(), None);
    assert_eq!(load_one(&norms, "GROUP:0030", "2026").await.unwrap(), None);
    assert_eq!(store.take_calls().len(), 0, "statistics tell that neither can be there");
}

#[tokio::test]
async fn groups_that_are_loaded_together_are_read_together() {
    let store = imported(200).await;
    let norms = open(&store).await.unwrap();
    store.take_calls();
    // Backwards, with one that is not there and one in a version that is not there.
    let names: Vec<String> = (0..201).rev().map(|group| format!("GROUP:{group:04}")).collect();
    let mut wanted: Vec<GroupName<'_>> = names.iter().map(|group| GroupName { group, version: "default" }).collect();
    wanted.push(GroupName { group: "GROUP:0007", version: "2026" });
    let loaded = norms.load(&wanted).await.unwrap();
    assert_eq!(loaded.len(), 202);
    assert_eq!((&loaded[0], &loaded[201]), (&None, &None));
    for (norms, group) in loaded[1..201].iter().zip((0..200).rev()) {
        let range = Instrument::klsi4().raw_ranges()[Scale::Ce];
        let expected = percentile(group, range.lowest + 3, (range.lowest, range.highest));
        assert_eq!(norms.as_ref().unwrap().scales[Scale::Ce].exact(range.lowest + 3), Some(expected), "{group}");
    }
    let calls = store.take_calls().len();
    assert_eq!(calls, 16, "the page index and the pages of each of eight row groups");
}

#[derive(Clone)]
struct Table {
    groups: Vec<String>,
    raws: Vec<i32>,
    percentiles: Vec<f64>,
}

impl Table {
    fn of(rows: impl IntoIterator<Item = (String, i32, f64)>) -> Table {
        let mut table = Table { groups: Vec::new(), raws: Vec::new(), percentiles: Vec::new() };
        for (group, raw, percentile) in rows {
            table.groups.push(group);
            table.raws.push(raw);
            table.percentiles.push(percentile);
        }
        table
    }

    fn batch(&self) -> RecordBatch {
        let same = |text: &str| Arc::new(StringArray::from(vec![text; self.raws.len()]));
        RecordBatch::try_from_iter([
            ("scale", same("CE") as _),
            ("percentile", Arc::new(Float64Array::from(self.percentiles.clone())) as _),
            ("raw_score", Arc::new(Int32Array::from(self.raws.clone())) as _),
            ("norm_version", same("default") as _),
            ("norm_group", Arc::new(StringArray::from(self.groups.clone())) as _),
        ])
        .unwrap()
    }

    /// Puts the table into a store the way some other program would write it.
    async fn foreign(&self, properties: WriterProperties) -> Arc<WatchedStore> {
        put(&self.batch(), properties).await
    }
}

async fn put(batch: &RecordBatch, properties: WriterProperties) -> Arc<WatchedStore> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    let store = Arc::new(WatchedStore::default());
    store.inner.put(&"norms/other.parquet".into(), bytes.into()).await.unwrap();
    store
}

fn sorted_table(groups: usize) -> Table {
    Table::of((0..groups).flat_map(|group| (12..=48).map(move |raw| (format!("G:{group:05}"), raw, f64::from(raw)))))
}

#[tokio::test]
async fn a_sorted_table_of_another_writer_without_page_index_works() {
    let properties = WriterProperties::builder()
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(Some(5_000));
    let store = sorted_table(1_000).foreign(properties.build()).await;
    let norms = open(&store).await.unwrap();
    let held = load_one(&norms, "G:00777", "default").await.unwrap().unwrap();
    assert_eq!(held.scales[Scale::Ce].exact(48), Some(48.0));
    assert_eq!(held.scales[Scale::Ce].percentiles.len(), 37);
}

#[tokio::test]
async fn tables_in_which_lookups_cannot_be_bounded_are_refused_with_the_reason() {
    let refused = async |store: Arc<WatchedStore>| match open(&store).await {
        Err(NormError::NotImported { location, reason }) => {
            assert_eq!(location, "memory:///norms/other.parquet");
            reason
        }
        other => panic!("{other:?}"),
    };
    let rows = WriterProperties::builder().set_max_row_group_row_count(Some(100));
    let mut unsorted = sorted_table(20);
    unsorted.groups.reverse();
    assert_eq!(refused(unsorted.foreign(rows.clone().build()).await).await, NotImported::Unsorted);

    let bare = rows.set_statistics_enabled(EnabledStatistics::None).build();
    assert_eq!(refused(sorted_table(20).foreign(bare).await).await, NotImported::NoStatistics);

    let large = WriterProperties::builder()
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(Some(200_000));
    let reason = refused(sorted_table(4_000).foreign(large.build()).await).await;
    assert_eq!(reason, NotImported::NoPageIndex { rows: 148_000 });

    let without = sorted_table(2).batch().project(&[0, 1, 2, 3]).unwrap();
    let reason = refused(put(&without, WriterProperties::default()).await).await;
    assert_eq!(reason, NotImported::MissingColumn { column: "norm_group" });

    let renamed = RecordBatch::try_from_iter([
        ("norm_group", Arc::new(StringArray::from(vec!["G"])) as _),
        ("norm_version", Arc::new(StringArray::from(vec!["default"])) as _),
        ("scale", Arc::new(StringArray::from(vec!["CE"])) as _),
        ("raw_score", Arc::new(StringArray::from(vec!["12"])) as _),
        ("percentile", Arc::new(Float64Array::from(vec![1.0])) as _),
    ]);
    let reason = refused(put(&renamed.unwrap(), WriterProperties::default()).await).await;
    assert_eq!(reason, NotImported::WrongType { column: "raw_score", expected: "a whole number" });
    let error = NormError::NotImported { location: "norms/other.parquet".into(), reason };
    assert_eq!(
        error.to_string(),
        "norms/other.parquet was not written by `norms import`: its column 'raw_score' is not a whole number; run \
         `normstream norms import norms/other.parquet --to DIR` and use DIR"
    );
}

#[tokio::test]
async fn groups_that_only_differ_beyond_the_length_of_truncated_statistics_are_told_apart() {
    let long = |group: usize| format!("{}{group:03}", "COUNTRY:".repeat(20));
    let rows = (0..50).flat_map(|group| (12..=48).map(move |raw| (long(group), raw, group as f64)));
    let properties = WriterProperties::builder()
        .set_data_page_row_count_limit(50)
        .set_write_batch_size(50)
        .set_max_row_group_row_count(Some(300))
        .set_statistics_truncate_length(Some(16))
        .set_column_index_truncate_length(Some(16));
    let store = Table::of(rows).foreign(properties.build()).await;
    let norms = open(&store).await.unwrap();
    for group in [0, 8, 31, 49] {
        let held = load_one(&norms, &long(group), "default").await.unwrap().unwrap();
        assert_eq!(held.scales[Scale::Ce].percentiles.as_ref(), vec![group as f64; 37]);
    }
    assert_eq!(load_one(&norms, &long(50), "default").await.unwrap(), None);
    assert_eq!(load_one(&norms, "COUNTRY:", "default").await.unwrap(), None);
}

#[tokio::test]
async fn damaged_rows_are_errors_of_their_group_alone() {
    let rows = [("A", 12, 1.0), ("B", 12, 1.0), ("B", 12, 2.0), ("C", 12, 200.0), ("published", 12, 3.0)];
    let rows = rows.map(|(group, raw, percentile)| (group.to_owned(), raw, percentile));
    let norms = open(&Table::of(rows).foreign(WriterProperties::default()).await).await.unwrap();
    assert!(load_one(&norms, "A", "default").await.unwrap().is_some());
    let damage = async |group| match load_one(&norms, group, "default").await {
        Err(NormError::Damaged { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(damage("B").await, Damage::Duplicate { scale: Scale::Ce, raw: 12 });
    assert_eq!(damage("C").await, Damage::Percentile { scale: Scale::Ce, raw: 12, percentile: 200.0 });

    let ranges = Instrument::klsi4().raw_ranges();
    let Err(NormError::Faults(report)) = crate::norms::validate(&norms, &ranges, 10).await else { panic!() };
    let found: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "memory:///norms/other.parquet:3: CE 12 of B stands already in memory:///norms/other.parquet:2",
            "memory:///norms/other.parquet:4: the percentile 200 is not from 0 to 100",
            "memory:///norms/other.parquet:5: 'norm_group' is 'published': results call the published table so, and a group \
             needs another name",
        ]
    );
}

#[tokio::test]
async fn what_is_no_table_is_said_to_be_none() {
    let store = Arc::new(WatchedStore::default());
    assert!(matches!(open(&store).await, Err(NormError::NoTables { .. })));
    store.inner.put(&"norms/.hidden.parquet".into(), "x".into()).await.unwrap();
    store.inner.put(&"norms/readme.md".into(), "x".into()).await.unwrap();
    store.inner.put(&"norms/_log/0.parquet".into(), "x".into()).await.unwrap();
    assert!(matches!(open(&store).await, Err(NormError::NoTables { .. })), "hidden and other files are left alone");
    let readme = ParquetNorms::open(&folder(&store).child("readme.md"), 100).await;
    assert!(matches!(readme, Err(NormError::NotATable { .. })), "{readme:?}");
    store.inner.put(&"norms/broken.parquet".into(), "no parquet at all".into()).await.unwrap();
    let error = open(&store).await.unwrap_err();
    let broken = "memory:///norms/broken.parquet";
    assert!(matches!(&error, NormError::Parquet { location, .. } if location == broken), "{error}");
    assert!(!error.is_retryable());
}
