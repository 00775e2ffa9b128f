//! Scoring from and to real stores: the same bytes as from and to local files.

use std::path::Path;

use normstream::storage::{PoolOptions, Storage, StorageOptions};
use tempfile::{TempDir, tempdir};

use crate::support::azure_server::AzureServer;
use crate::support::http_server::Server;
use crate::support::jobs;
use crate::support::normstream;
use crate::support::s3_server::S3Server;
use crate::support::static_files::StaticFiles;
use std::time::Duration;

/// Three session files and imported norms in a folder, and the results of scoring them there.
struct Local {
    folder: TempDir,
    results: Vec<u8>,
}

impl Local {
    fn new() -> Self {
        let folder = tempdir().unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        for file in 1..=3 {
            jobs::generated_sessions(&folder.path().join(format!("in/{file}.parquet")), 2000, file);
        }
        let run = |arguments: &[&str]| normstream().current_dir(folder.path()).args(arguments).assert().success();
        run(&["generate", "norms", "--groups", "40", "--to", "norms.csv"]);
        run(&["norms", "import", "norms.csv", "--to", "norms"]);
        run(&["score", "in", "--norms", "norms", "--to", "local.parquet"]);
        let results = std::fs::read(folder.path().join("local.parquet")).unwrap();
        Self { folder, results }
    }

    /// Writes the section of a store into the config.
    fn configure(&self, store: &str, settings: &[(&str, String)]) {
        let settings: String = settings.iter().map(|(key, value)| format!("{key} = {value:?}\n")).collect();
        std::fs::write(self.folder.path().join("normstream.toml"), format!("[storage.{store:?}]\n{settings}")).unwrap();
    }

    /// Runs the program, and gives what it prints.
    fn run(&self, arguments: &[&str]) -> String {
        let output = normstream().current_dir(self.folder.path()).args(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Has the store at `url` hold sessions and norms, and scores from it and to it.
async fn same_as_local(local: &Local, url: &str, settings: Vec<(&str, String)>) {
    let store = url.trim_end_matches("/data").to_owned();
    local.configure(&store, &settings);
    let section = settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let options = StorageOptions { stores: [(store, section)].into(), ..StorageOptions::default() };
    let storage = Storage::new(options, []).unwrap();
    for file in ["in/1.parquet", "in/2.parquet", "in/3.parquet"] {
        let bytes = std::fs::read(local.folder.path().join(file)).unwrap();
        storage.write(&storage.open(&format!("{url}/{file}")).unwrap(), bytes, false).await.unwrap();
    }
    local.run(&["norms", "import", "norms.csv", "--to", &format!("{url}/norms")]);
    let (sessions, norms) = (format!("{url}/in/*.parquet"), format!("{url}/norms"));
    let target = format!("{url}/results/all.parquet");
    let stats = local.run(&["score", &sessions, "--norms", &norms, "--to", &target, "--stats", "-"]);
    let results = storage.open(&target).unwrap().read().await.unwrap();
    assert!(results == local.results, "the results are not those of a local run");
    let named: Vec<String> = (1..=3).map(|file| format!("{url}/in/{file}.parquet")).collect();
    let mut arguments = vec!["score", "--norms", &norms, "--overwrite", "--to", "named.parquet"];
    arguments.extend(named.iter().map(String::as_str));
    local.run(&arguments);
    assert!(std::fs::read(local.folder.path().join("named.parquet")).unwrap() == local.results);
    // Files that are listed and files that are named are the same, and so is the run.
    let table = format!("{url}/table/");
    local.run(&["score", &sessions, "--norms", &norms, "--to", &table]);
    let mut arguments = vec!["score", "--norms", &norms, "--to", &table];
    arguments.extend(named.iter().map(String::as_str));
    local.run(&arguments);
    assert_eq!(local.run(&["runs", "list", &table, "--json"]).lines().count(), 1);
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let pool = &stats["storage"][0];
    assert_eq!(stats["storage"].as_array().unwrap().len(), 1, "one client for sessions, norms and results: {stats}");
    assert!(pool["requests"]["get"].as_u64().unwrap() >= 6, "{pool}");
    assert_eq!((&pool["checked_out"], &pool["retries"], &pool["timeouts"]), (&0.into(), &0.into(), &0.into()));
    assert!(pool["bytes_in"].as_u64().unwrap() > 0 && pool["bytes_out"] == local.results.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn scoring_from_and_to_s3_gives_the_bytes_of_a_local_run() {
    let Some(server) = S3Server::start() else { return };
    same_as_local(&Local::new(), "s3://bucket/data", S3Server::settings(&server.url())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scoring_from_and_to_azure_gives_the_bytes_of_a_local_run() {
    let Some(server) = AzureServer::start() else { return };
    same_as_local(&Local::new(), "az://container/data", server.settings()).await;
}

#[test]
fn scoring_from_a_web_server_gives_the_bytes_of_a_local_run() {
    let local = Local::new();
    let web = StaticFiles::start(Duration::ZERO);
    put_all(&web, local.folder.path(), &["in/1.parquet", "in/2.parquet", "in/3.parquet"]);
    let versions = std::fs::read_dir(local.folder.path().join("norms")).unwrap();
    let versions: Vec<String> =
        versions.map(|entry| format!("norms/{}", entry.unwrap().file_name().into_string().unwrap())).collect();
    put_all(&web, local.folder.path(), &versions.iter().map(String::as_str).collect::<Vec<_>>());
    let url = |file: &str| format!("{}/{file}", web.server.url());
    let inputs = [url("in/1.parquet"), url("in/2.parquet"), url("in/3.parquet")];
    let norms = url(&versions[0]);
    let mut arguments = vec!["score", "--norms", &norms, "--to", "web.parquet"];
    arguments.extend(inputs.iter().map(String::as_str));
    local.run(&arguments);
    assert!(std::fs::read(local.folder.path().join("web.parquet")).unwrap() == local.results);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_file_is_found_and_read_with_one_request() {
    let folder = tempdir().unwrap();
    let web = StaticFiles::start(Duration::ZERO);
    let inputs: Vec<String> = (0..3).map(|file| format!("{}/{file}.parquet", web.server.url())).collect();
    for (file, input) in inputs.iter().enumerate() {
        let content = jobs::generated_sessions(&folder.path().join(format!("{file}.parquet")), 500, file);
        web.put(input.strip_prefix(&web.server.url()).unwrap(), content);
    }
    // One at a time, so that nothing is read ahead.
    let pool = PoolOptions { size: 1, max_overflow: 0, pre_ping: false, ..PoolOptions::default() };
    let storage = Storage::new(StorageOptions { pool, ..StorageOptions::default() }, []).unwrap();
    let target = folder.path().join("scored.parquet");
    let report = jobs::score(&storage, &inputs, None, target.to_str().unwrap(), 2).await.unwrap();
    assert_eq!((report.sessions, web.server.requests()), (1500, 3));
}

#[test]
fn a_file_of_a_web_server_that_is_missing_or_empty_is_said_to_be() {
    let folder = tempdir().unwrap();
    let web = StaticFiles::start(Duration::ZERO);
    web.put("/empty.parquet", "");
    for (file, message) in
        [("missing.parquet", "names no session file"), ("empty.parquet", "0 bytes are too few for a Parquet file")]
    {
        let url = format!("{}/{file}", web.server.url());
        let output =
            normstream().current_dir(folder.path()).args(["score", &url, "--to", "o.parquet"]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(message) && stderr.contains(&url) && stderr.lines().count() == 1, "{stderr}");
        assert_eq!(output.status.code(), Some(2), "{stderr}");
    }
}

fn put_all(web: &StaticFiles, folder: &Path, files: &[&str]) {
    for file in files {
        web.put(&format!("/{file}"), std::fs::read(folder.join(file)).unwrap());
    }
}

#[test]
fn the_status_of_a_store_is_shown_as_text_and_as_json() {
    let web = StaticFiles::start(Duration::ZERO);
    web.put("/file", "content");
    let url = format!("{}/file", web.server.url());
    let text = normstream().args(["storage", "status", &url]).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.starts_with(&format!("ping         {url} answered in ")), "{text}");
    assert!(text.contains("size 5, overflow up to 10, 15 at once now"), "{text}");
    assert!(text.contains("connections  1 open, 1 opened, 0 recycled"), "{text}");
    assert!(text.contains("pings        1, 0 without an answer"), "{text}");

    let flags = ["--pool-size", "3", "--pool-max-overflow", "4", "--pool-mode", "adaptive"];
    let json = normstream().args(["storage", "status", &url, "--format", "json"]).args(flags).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(json["ping_seconds"].as_f64().unwrap() > 0.0, "{json}");
    let pool = &json["pool"];
    assert_eq!((&pool["size"], &pool["max_overflow"], &pool["capacity"]), (&3.into(), &4.into(), &3.into()));
    assert_eq!((&pool["idle"], &pool["pings"], &pool["ping_failures"]), (&3.into(), &1.into(), &0.into()));
    assert_eq!(pool["wait_seconds"]["buckets"].as_array().unwrap().last().unwrap()["le"], "+Inf");

    let nobody = normstream().args(["storage", "status", "http://127.0.0.1:1/file"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(75), "{nobody:?}");
    let refusing = refusing();
    let refused = normstream().args(["storage", "status", &refusing.url()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

fn refusing() -> Server {
    use crate::support::http_server::Response;
    Server::start(std::sync::Arc::new(|_, _| Box::pin(async { Response::new(403).into() })))
}
