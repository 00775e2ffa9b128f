//! Tables of both formats: commits, races, lost answers, and folders that are not what they seem.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use normstream::storage::{RetryOptions, Storage, StorageOptions};
use normstream::table::{
    Append, Change, DataFile, Outcome, Overwrite, Removal, Revision, Snapshot, Table, TableError, TableFormat,
    Transaction, difference,
};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use url::Url;

const DELTA_LOG: &str = "_delta_log";
const MANIFESTS: &str = "_normstream/log";
const FORMATS: [TableFormat; 2] = [TableFormat::Delta, TableFormat::Parquet];

fn storage() -> Storage {
    let retry = RetryOptions { max_retries: 0, ..RetryOptions::default() };
    Storage::new(StorageOptions { retry, ..StorageOptions::default() }, []).unwrap()
}

fn table(storage: &Storage, format: TableFormat) -> Table {
    Table::new(storage, &storage.open(&format!("memory:///{format}")).unwrap(), format)
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("session_id", DataType::Int64, true),
        Field::new("ok", DataType::Boolean, false),
    ]))
}

fn file(path: &str) -> DataFile {
    let statistics = serde_json::json!({ "numRecords": 3, "minValues": { "session_id": 1 } });
    DataFile { path: path.to_owned(), size: 10, rows: Some(3), statistics: Some(statistics.to_string()) }
}

fn transaction(app_id: &str, number: i64) -> Transaction {
    let info = serde_json::json!({ "runId": app_id }).as_object().unwrap().clone();
    Transaction { app_id: app_id.to_owned(), number, marks: BTreeMap::new(), info }
}

async fn append(table: &Table, app_id: &str, path: &str) -> std::result::Result<Outcome, TableError> {
    table.commit(&transaction(app_id, 1), &schema(), &mut Append(vec![file(path)])).await
}

async fn paths(table: &Table) -> Vec<String> {
    let snapshot = table.snapshot().await.unwrap();
    snapshot.into_iter().flat_map(|snapshot| snapshot.files).map(|file| file.path).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_commit_makes_the_table_and_later_ones_add_to_it_or_take_its_place() {
    for format in FORMATS {
        let storage = storage();
        let table = table(&storage, format);
        assert!(table.snapshot().await.unwrap().is_none(), "{format}");
        assert!(Table::open(&storage, table.root()).await.unwrap().is_none(), "{format}");
        assert_eq!(append(&table, "a", "a.parquet").await.unwrap(), Outcome::Committed { version: Some(0) });
        assert_eq!(append(&table, "b", "b.parquet").await.unwrap(), Outcome::Committed { version: Some(1) });
        assert_eq!(paths(&table).await, ["a.parquet", "b.parquet"], "{format}");

        let done = table.commit(&transaction("c", 1), &schema(), &mut Overwrite(vec![file("c.parquet")])).await;
        assert_eq!(done.unwrap(), Outcome::Committed { version: Some(2) });
        let snapshot = table.snapshot().await.unwrap().unwrap();
        assert_eq!(snapshot.files, [file("c.parquet")], "{format}");
        assert_eq!((snapshot.version, snapshot.rows()), (2, Some(3)), "{format}");
        assert_eq!(snapshot.history(1).await.unwrap()[0]["runId"], "c", "{format}");
        assert_eq!(difference(&snapshot.schema, &schema()), None, "{format}");
        assert_eq!(table.snapshot_at(1).await.unwrap().files.len(), 2, "{format}");
        let missing = table.snapshot_at(9).await.unwrap_err();
        assert!(matches!(missing, TableError::NoVersion { version: 9, .. }), "{format}: {missing}");
        assert_eq!(Table::open(&storage, table.root()).await.unwrap().unwrap().format(), format);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_sets_marks_beside_its_number_and_the_history_tells_of_it() {
    for format in FORMATS {
        let storage = storage();
        let table = table(&storage, format);
        for (run, cursor) in [("a", 7), ("b", 3)] {
            let marks = BTreeMap::from([("cursor".to_owned(), cursor)]);
            let transaction = Transaction { marks, ..transaction(run, 1) };
            table.commit(&transaction, &schema(), &mut Append(vec![file(&format!("{run}.parquet"))])).await.unwrap();
        }
        append(&table, "c", "c.parquet").await.unwrap();
        let snapshot = table.snapshot().await.unwrap().unwrap();
        assert_eq!(snapshot.transaction("cursor").await.unwrap(), Some(3), "{format}");
        assert_eq!(snapshot.transaction("b").await.unwrap(), Some(1), "{format}");
        let runs = snapshot.history(2).await.unwrap();
        let runs: Vec<_> = runs.iter().map(|info| info["runId"].as_str().unwrap()).collect();
        assert_eq!(runs, ["c", "b"], "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_committed_once_and_a_later_number_of_it_again() {
    for format in FORMATS {
        let storage = storage();
        let table = table(&storage, format);
        append(&table, "a", "a.parquet").await.unwrap();
        assert_eq!(append(&table, "a", "a.parquet").await.unwrap(), Outcome::CommittedBefore);
        append(&table, "b", "b.parquet").await.unwrap();
        assert_eq!(append(&table, "a", "other.parquet").await.unwrap(), Outcome::CommittedBefore);
        assert_eq!(paths(&table).await, ["a.parquet", "b.parquet"], "{format}");

        let mut second = Append(vec![file("a2.parquet")]);
        let done = table.commit(&transaction("a", 2), &schema(), &mut second).await.unwrap();
        assert_eq!(done, Outcome::Committed { version: Some(2) }, "{format}");
        let snapshot = table.snapshot().await.unwrap().unwrap();
        assert_eq!(snapshot.transaction("a").await.unwrap(), Some(2), "{format}");
        assert_eq!(snapshot.transaction("c").await.unwrap(), None, "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_commit_at_once_each_gets_a_version_of_its_own() {
    for format in FORMATS {
        let storage = storage();
        let table = table(&storage, format);
        let tasks: Vec<_> = (0..12)
            .map(|number| {
                let table = table.clone();
                tokio::spawn(async move {
                    append(&table, &format!("run{number}"), &format!("{number:02}.parquet")).await.unwrap()
                })
            })
            .collect();
        let mut versions = Vec::new();
        for task in tasks {
            let Outcome::Committed { version: Some(version) } = task.await.unwrap() else { panic!("committed before") };
            versions.push(version);
        }
        versions.sort_unstable();
        assert_eq!(versions, (0..12).collect::<Vec<_>>(), "{format}");
        assert_eq!(paths(&table).await.len(), 12, "{format}");
        assert_eq!(table.snapshot_at(0).await.unwrap().files.len(), 1, "{format}: one of them made the table, once");
    }
}

/// Meets files on the move, so many times, when it decides.
struct OnTheMove(usize);

#[async_trait]
impl Revision for OnTheMove {
    async fn change(&mut self, _: Option<&Snapshot>) -> std::result::Result<Change, TableError> {
        if self.0 > 0 {
            self.0 -= 1;
            return Err(TableError::FilesMoved { table: "t".to_owned() });
        }
        Ok(Change { add: vec![file("a.parquet")], remove: Removal::None })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_meets_files_on_the_move_is_decided_again_and_in_the_end_given_up() {
    for format in FORMATS {
        let storage = storage();
        let table = table(&storage, format);
        let commit =
            async |run: &str, times: usize| table.commit(&transaction(run, 1), &schema(), &mut OnTheMove(times)).await;
        let error = commit("b", usize::MAX).await.unwrap_err();
        assert!(matches!(error, TableError::FilesMoved { .. }), "{format}: {error}");
        assert!(table.snapshot().await.unwrap().is_none(), "{format}");
        assert_eq!(commit("a", 3).await.unwrap(), Outcome::Committed { version: Some(0) }, "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_other_columns_is_left_as_it_is() {
    for format in FORMATS {
        let storage = storage();
        let table = table(&storage, format);
        append(&table, "a", "a.parquet").await.unwrap();
        let other = Arc::new(Schema::new(vec![Field::new("session_id", DataType::Utf8, true)]));
        let mut add = Overwrite(vec![file("b.parquet")]);
        let error = table.commit(&transaction("b", 1), &other, &mut add).await.unwrap_err().to_string();
        assert!(error.contains("has other columns: it has ok, which this would not write; session_id is"), "{error}");
        assert_eq!(paths(&table).await, ["a.parquet"], "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_names_files_elsewhere_is_refused() {
    for trick in ["../x.parquet", "/etc/passwd", "file:///etc/passwd", "s3://other/x", "a/../../x", "a//b", "..%2Fx"] {
        let storage = storage();
        for format in FORMATS {
            let table = table(&storage, format);
            append(&table, "a", "a.parquet").await.unwrap();
            let (entry, text) = match format {
                TableFormat::Parquet => (MANIFESTS, String::new()),
                TableFormat::Delta => (
                    DELTA_LOG,
                    format!(
                        r#"{{"add":{{"path":"{trick}","partitionValues":{{}},"size":1,"modificationTime":0,"dataChange":true}}}}"#
                    ),
                ),
            };
            let folder = table.root().child(entry);
            let text = match format {
                TableFormat::Delta => text,
                TableFormat::Parquet => {
                    let first = folder.child("00000000000000000000.json").read().await.unwrap();
                    let first = String::from_utf8(first.to_vec()).unwrap();
                    first.replace("a.parquet", trick).replace("\"version\": 0", "\"version\": 1")
                }
            };
            storage.write(&folder.child("00000000000000000001.json"), text, false).await.unwrap();
            let read = table.snapshot().await;
            // Delta's paths are percent-encoded; in a manifest it is a name like any other.
            let is_plain = trick.contains('%') && format == TableFormat::Parquet;
            let is_refused = matches!(read, Err(TableError::PathLeadsOut { .. }));
            assert_ne!(is_refused, is_plain, "{format} {trick}: {read:?}");
            storage
                .open(&format!("memory:///{format}/{entry}/00000000000000000001.json"))
                .unwrap()
                .delete()
                .await
                .unwrap();
            storage
                .open(&format!("memory:///{format}/{entry}/00000000000000000000.json"))
                .unwrap()
                .delete()
                .await
                .unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_log_is_an_error_that_names_it_and_nothing_is_written() {
    for (format, folder) in [(TableFormat::Delta, DELTA_LOG), (TableFormat::Parquet, MANIFESTS)] {
        for rubbish in ["not json", "{\"form\":1}", ""] {
            let storage = storage();
            let table = table(&storage, format);
            let at = table.root().child(folder).child("00000000000000000000.json");
            storage.write(&at, rubbish, false).await.unwrap();
            let error = append(&table, "a", "a.parquet").await.unwrap_err();
            assert!(matches!(error, TableError::Log { .. }), "{format} {rubbish:?}: {error:?}");
            assert!(error.to_string().contains(&table.root().to_string()), "{error}");
            assert_eq!(at.read().await.unwrap(), rubbish, "{format}");
            assert_eq!(table.root().list_files().await.unwrap().len(), 1, "{format}");
        }
    }
}

#[tokio::test]
async fn a_folder_of_other_things_is_no_place_for_a_new_table() {
    let storage = storage();
    let table = table(&storage, TableFormat::Parquet);
    table.check_new().await.unwrap();
    storage.write(&table.root().child("_temporary/x"), "x", false).await.unwrap();
    table.check_new().await.unwrap();
    storage.write(&table.root().child("photos/x.jpg"), "x", false).await.unwrap();
    let error = table.check_new().await.unwrap_err().to_string();
    assert!(error.contains("is not a table, and holds 'photos'"), "{error}");
}

#[tokio::test]
async fn files_of_the_parquet_format_are_seen_by_a_plain_listing_only_when_they_are_committed() {
    let storage = storage();
    let table = table(&storage, TableFormat::Parquet);
    let plain = || async {
        let listed = table.root().store.list_with_delimiter(Some(&table.root().path)).await.unwrap();
        listed.objects.iter().map(|object| object.location.filename().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let stage = |name: &'static str| {
        let at = table.location_of_new(name);
        let storage = storage.clone();
        async move { storage.write(&at, name, false).await.unwrap() }
    };
    stage("a.parquet").await;
    assert!(plain().await.is_empty());
    append(&table, "a", "a.parquet").await.unwrap();
    let snapshot = table.snapshot().await.unwrap().unwrap();
    // Before it is published, our readers find it where it is.
    assert_eq!(snapshot.live_files().await.unwrap()[0].read().await.unwrap(), "a.parquet");
    table.publish().await.unwrap();
    assert_eq!(plain().await, ["a.parquet"]);
    assert_eq!(snapshot.live_files().await.unwrap()[0].read().await.unwrap(), "a.parquet");

    stage("b.parquet").await;
    stage("c.parquet").await;
    table.commit(&transaction("b", 1), &schema(), &mut Overwrite(vec![file("b.parquet")])).await.unwrap();
    // Whoever commits next takes over what was left to be done.
    append(&table, "c", "c.parquet").await.unwrap();
    table.publish().await.unwrap();
    table.publish().await.unwrap();
    assert_eq!(plain().await, ["b.parquet", "c.parquet"]);
}

/// What happens to a request that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It fails, and is not done.
    Before,
    /// It is done, and its answer is lost.
    After,
}

/// A store in memory, of whose requests that change something one meets a fault.
#[derive(Debug)]
struct Faulty {
    inner: InMemory,
    fault: Fault,
    /// Requests until the fault.
    left: AtomicUsize,
}

impl Faulty {
    async fn change<T>(&self, change: impl Future<Output = Result<T>>) -> Result<T> {
        let is_next = self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) == Ok(1);
        let lost = || object_store::Error::Generic { store: "faulty", source: "the answer was lost".into() };
        match (is_next, self.fault) {
            (false, _) => change.await,
            (true, Fault::Before) => Err(lost()),
            (true, Fault::After) => {
                change.await?;
                Err(lost())
            }
        }
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({:?})", self.fault)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.change(self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.change(self.inner.copy_opts(from, to, options)).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_answer_is_lost_a_commit_is_made_once() {
    for format in FORMATS {
        for fault in [Fault::Before, Fault::After] {
            for nth in 1..=4 {
                let storage = storage();
                let store = Faulty { inner: InMemory::new(), fault, left: AtomicUsize::new(nth) };
                storage.register(&Url::parse("memory:///").unwrap(), Arc::new(store));
                let table = table(&storage, format);
                for run in ["a", "b", "c"] {
                    // What was refused is tried again, as its user would.
                    while append(&table, run, &format!("{run}.parquet")).await.is_err() {}
                }
                assert_eq!(paths(&table).await, ["a.parquet", "b.parquet", "c.parquet"], "{format} {fault:?} {nth}");
                let version = table.snapshot().await.unwrap().unwrap().version;
                assert_eq!(version, 2, "{format} {fault:?} {nth}");
            }
        }
    }
}
