//! Kills runs into tables, again and again, and looks at what readers see: the old table or the new one, and in the end the rows
//! of an undisturbed run. Shared by the tests and `cargo run --example crash_loop`.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::row::{RowConverter, SortField};
use normstream::storage::{Storage, StorageOptions};
use normstream::table::{Table, TableError};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

/// The points at which the program stops itself, and how often each is passed in a run.
pub const POINTS: [(&str, u32); 9] = [
    ("run-planned", 1),
    ("part-written", 6),
    ("part-recorded", 6),
    ("run-scored", 1),
    ("commit-decided", 1),
    ("run-committed", 1),
    ("file-published", 6),
    ("run-published", 1),
    ("run-receipted", 1),
];

const FORMATS: [&str; 2] = ["delta", "parquet"];
const MODES: [&str; 3] = ["append", "overwrite", "replace-sessions"];

/// What a loop came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// Runs that were stopped, by how.
    pub kills: BTreeMap<String, u64>,
    /// Runs that came to their end before they could be stopped.
    pub too_late: u64,
    /// Stops after which readers saw the old table.
    pub saw_old: u64,
    /// Stops after which readers saw the new one.
    pub saw_new: u64,
    /// What must not be: tables that could not be read, rows that were missing, rows that were there twice or were others.
    pub unreadable: u64,
    pub lost: u64,
    pub doubled: u64,
}

impl Summary {
    /// Whether nothing went wrong.
    pub fn is_clean(&self) -> bool {
        (self.unreadable, self.lost, self.doubled) == (0, 0, 0)
    }
}

/// The rows of a table: how many, and a hash of them as a multiset, over all columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    pub count: u64,
    pub hash: u64,
}

/// A folder with inputs, and tables to begin from.
pub struct CrashLoop {
    program: PathBuf,
    folder: PathBuf,
    random: Pcg64,
    expected: BTreeMap<(&'static str, &'static str), (Rows, Rows)>,
    undisturbed: Duration,
}

impl CrashLoop {
    /// Makes inputs and tables in an empty folder, and the rows that an undisturbed run of each kind gives.
    pub fn new(program: &Path, folder: &Path, seed: u64) -> Self {
        let mut all = CrashLoop {
            program: program.to_owned(),
            folder: folder.to_owned(),
            random: Pcg64::seed_from_u64(seed),
            expected: BTreeMap::new(),
            undisturbed: Duration::ZERO,
        };
        for number in 0..6 {
            // Sessions 501 to 3500, of which 501 to 1000 are in the table before.
            let first = (501 + 500 * number).to_string();
            let file = format!("new/{number}.parquet");
            all.must(&[
                "generate",
                "sessions",
                "--rows",
                "500",
                "--seed",
                "3",
                "--first-session-id",
                &first,
                "--to",
                &file,
            ]);
        }
        all.must(&[
            "generate",
            "sessions",
            "--rows",
            "1000",
            "--seed",
            "2",
            "--bad-fraction",
            "0.1",
            "--to",
            "old.parquet",
        ]);
        all.must(&["generate", "norms", "--groups", "28", "--to", "norms.csv"]);
        all.must(&["norms", "import", "norms.csv", "--to", "norms"]);
        for format in FORMATS {
            let base = format!("base-{format}");
            all.must(&["score", "old.parquet", "--to", &base, "--format", format]);
            let old = all.rows(&base).unwrap().unwrap();
            for mode in MODES {
                let table = format!("undisturbed-{format}-{mode}");
                all.copy(&base, &table);
                let started = Instant::now();
                assert!(all.score(&table, mode, None).wait().unwrap().success());
                all.undisturbed = all.undisturbed.max(started.elapsed());
                let new = all.rows(&table).unwrap().unwrap();
                all.expected.insert((format, mode), (old, new));
            }
        }
        all
    }

    /// Stops at least so many runs.
    pub fn run(&mut self, kills: u64) -> Summary {
        let mut summary = Summary::default();
        let mut round = 0;
        while summary.kills.values().sum::<u64>() < kills {
            let format = FORMATS[round % 2];
            let mode = MODES[self.random.random_range(0..MODES.len())];
            let table = format!("table-{round}");
            self.copy(&format!("base-{format}"), &table);
            let (old, new) = self.expected[&(format, mode)];
            // One run is stopped up to three times before it may come to its end.
            let stops = self.random.random_range(1..=3);
            for stop in 0..stops {
                let point = (round + stop) % (POINTS.len() + 3);
                match POINTS.get(point) {
                    Some((name, passes)) => {
                        let skipped = self.random.random_range(0..*passes);
                        let status = self.score(&table, mode, Some((name, skipped))).wait().unwrap();
                        count(&mut summary, name, status);
                    }
                    None => {
                        let mut child = self.score(&table, mode, None);
                        let most = self.undisturbed.as_micros() as u64;
                        sleep(Duration::from_micros(self.random.random_range(0..=most)));
                        let _ = child.kill();
                        count(&mut summary, "kill -9", child.wait().unwrap());
                    }
                }
                match self.rows(&table) {
                    Ok(Some(rows)) if rows == old => summary.saw_old += 1,
                    Ok(Some(rows)) if rows == new => summary.saw_new += 1,
                    Ok(Some(rows)) => judge(&mut summary, rows, old),
                    Ok(None) | Err(_) => summary.unreadable += 1,
                }
            }
            assert!(self.score(&table, mode, None).wait().unwrap().success(), "{table} does not come to its end");
            match self.rows(&table) {
                Ok(Some(rows)) if rows == new => {}
                Ok(Some(rows)) => judge(&mut summary, rows, new),
                Ok(None) | Err(_) => summary.unreadable += 1,
            }
            if summary.is_clean() {
                fs::remove_dir_all(self.folder.join(&table)).unwrap();
            }
            round += 1;
        }
        summary
    }

    fn must(&self, words: &[&str]) {
        let output = Command::new(&self.program).args(words).current_dir(&self.folder).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn score(&self, table: &str, mode: &str, point: Option<(&str, u32)>) -> std::process::Child {
        let mut command = Command::new(&self.program);
        command.args(["score", "new", "--norms", "norms", "--threads", "2", "--to", table, "--mode", mode]);
        command.args(["--progress", "off"]).current_dir(&self.folder).stderr(Stdio::null()).env_remove("FAILPOINTS");
        if let Some((name, skipped)) = point {
            command.env("FAILPOINTS", format!("{name}={skipped}*off->return"));
        }
        command.spawn().unwrap()
    }

    fn copy(&self, from: &str, to: &str) {
        let copied = Command::new("cp").args(["-r", from, to]).current_dir(&self.folder).status().unwrap();
        assert!(copied.success());
    }

    /// The rows that a reader of a table sees.
    pub fn rows(&self, table: &str) -> Result<Option<Rows>, TableError> {
        let path = self.folder.join(table);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let files = runtime.block_on(async {
            let storage = Storage::new(StorageOptions::default(), [])?;
            let root = storage.open(path.to_str().unwrap())?;
            let Some(table) = Table::open(&storage, &root).await? else { return Ok(None) };
            let Some(snapshot) = table.snapshot().await? else { return Ok(None) };
            snapshot.live_files().await.map(Some)
        })?;
        let Some(files) = files else { return Ok(None) };
        let mut rows = Rows { count: 0, hash: 0 };
        for file in files {
            let file = File::open(file.file_path().unwrap()).unwrap();
            for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
                add(&mut rows, &batch.unwrap());
            }
        }
        Ok(Some(rows))
    }
}

/// Adds a batch to a multiset: columns by name, rows in any order.
fn add(rows: &mut Rows, batch: &RecordBatch) {
    let fields = batch.schema().fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    let converter = RowConverter::new(fields).unwrap();
    for row in &converter.convert_columns(batch.columns()).unwrap() {
        let mut hasher = DefaultHasher::new();
        row.as_ref().hash(&mut hasher);
        rows.hash = rows.hash.wrapping_add(hasher.finish());
        rows.count += 1;
    }
}

fn count(summary: &mut Summary, how: &str, status: ExitStatus) {
    match status.code() {
        None => *summary.kills.entry(how.to_owned()).or_default() += 1,
        Some(0) => summary.too_late += 1,
        Some(code) => panic!("a run ended with exit code {code}"),
    }
}

fn judge(summary: &mut Summary, found: Rows, expected: Rows) {
    match found.count < expected.count {
        true => summary.lost += expected.count - found.count,
        false => summary.doubled += (found.count - expected.count).max(1),
    }
}
