//! The files of `tests/slt`: SQL and what it gives, run over a folder of small data.
//!
//! `$data` in a file is that folder. It holds `results.parquet` (the rows of `results.sql`, which is the table `results`) and
//! `sessions.parquet` (a hundred generated sessions, one in ten spoilt; the same in `packed.parquet`). Where a test asks for another result, it is in the file.

use std::path::Path;
use std::sync::Arc;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use normstream::engine::EngineOptions;
use normstream::engine::query::{QueryBudget, QueryError, SqlOptions, SqlSession};
use normstream::instrument::Instrument;
use normstream::norms::{Chain, NormStore, NormStoreOptions};
use normstream::storage::{Storage, StorageOptions};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use tempfile::TempDir;

use super::support::normstream;

/// The folder that `$data` stands for.
fn data() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt/results.sql");
    let file = |name: &str| folder.path().join(name).display().to_string();
    normstream().args(["sql", "-o", &file("results.parquet"), "-f"]).arg(results).assert().success();
    let generate = ["generate", "sessions", "--rows", "100", "--seed", "7", "--bad-fraction", "0.1", "--teams"];
    normstream().args(generate).args(["--progress", "off", "--to", &file("sessions.parquet")]).assert().success();
    let packed = ["--layout", "packed", "--progress", "off", "--to", &file("packed.parquet")];
    normstream().args(generate).args(packed).assert().success();
    folder
}

async fn session(folder: &Path) -> SqlSession {
    let storage = Storage::new(StorageOptions::default(), []).unwrap();
    let instrument = Instrument::klsi4();
    let norms = Arc::new(NormStore::new(Vec::new(), instrument.raw_ranges(), NormStoreOptions::default()));
    let options = SqlOptions {
        engine: EngineOptions { threads: 2, ..EngineOptions::default() },
        budget: QueryBudget::default(),
        chain: Chain::from_templates(instrument.chain.iter().map(String::as_str)).unwrap(),
        instrument,
        local: true,
    };
    let mut session = SqlSession::open(&storage, norms, options).await.unwrap();
    session.add_results(&folder.join("results.parquet").display().to_string()).await.unwrap();
    session
}

/// One file's session.
struct Database {
    session: SqlSession,
    folder: String,
}

#[async_trait]
impl AsyncDB for Database {
    type Error = QueryError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, QueryError> {
        let mut query = self.session.query(&sql.replace("$data", &self.folder)).await?;
        let types = vec![DefaultColumnType::Any; query.schema.fields().len()];
        let mut rows = Vec::new();
        let options = FormatOptions::default().with_null("NULL");
        while let Some(batch) = query.next().await? {
            let columns: Vec<ArrayFormatter<'_>> =
                batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
            for row in 0..batch.num_rows() {
                rows.push(columns.iter().map(|column| self.text(&column.value(row).to_string())).collect());
            }
        }
        if types.is_empty() {
            return Ok(DBOutput::StatementComplete(0));
        }
        // A plan is a row for each of its lines.
        let is_plan = query.schema.fields().iter().map(|field| field.name().as_str()).eq(["plan_type", "plan"]);
        if is_plan {
            let lines = |row: &Vec<String>| row[1].lines().map(|line| vec![line.trim().to_owned()]).collect::<Vec<_>>();
            return Ok(DBOutput::Rows {
                types: vec![DefaultColumnType::Any],
                rows: rows.iter().flat_map(lines).collect(),
            });
        }
        Ok(DBOutput::Rows { types, rows })
    }

    async fn shutdown(&mut self) {}
}

impl Database {
    fn text(&self, value: &str) -> String {
        let inside = self.folder.trim_start_matches('/');
        let value = value.replace(&self.folder, "$data").replace(inside, "$data");
        if value.is_empty() { "(empty)".to_owned() } else { value }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_file_gives_what_it_says() {
    let folder = data();
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    assert!(files.len() >= 10, "{files:?}");
    let mut failures = Vec::new();
    for file in files {
        let path = folder.path().to_owned();
        let mut runner = Runner::new(|| {
            let path = path.clone();
            async move { Ok(Database { session: session(&path).await, folder: path.display().to_string() }) }
        });
        if let Err(error) = runner.run_file_async(&file).await {
            failures.push(error.display(false).to_string());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
