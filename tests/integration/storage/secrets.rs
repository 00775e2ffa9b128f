//! Planted secrets must not come out anywhere: errors, debug output, logs at any level, `config show`.

use std::collections::BTreeMap;
use std::fs;

use normstream::storage::{Storage, StorageError, StorageOptions};
use tempfile::tempdir;

use crate::support::http_server::{Response, Server};
use crate::support::s3_server::S3Server;
use crate::support::static_files::StaticFiles;
use crate::support::{golden, normstream};

/// In the name of every planted secret.
const CANARY: &str = "canary";

fn section(endpoint: &str) -> BTreeMap<String, String> {
    [
        ("endpoint", endpoint),
        ("allow_http", "true"),
        ("access_key_id", "canary-key-id"),
        ("secret_access_key", "canary-secret"),
        ("session_token", "canary-token"),
        ("sse_customer_key_base64", "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5LWNhbmE="),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// An S3 server that is busy at first, and then refuses everything with `status`.
fn refusing(status: u16) -> Server {
    Server::start(std::sync::Arc::new(move |_, number| {
        let status = if number == 1 { 503 } else { status };
        Box::pin(async move { Response::new(status).body("<Error><Code>Refused</Code></Error>").into() })
    }))
}

fn assert_clean(text: &str) {
    assert!(!text.contains(CANARY) && !text.contains("Y2FuYXJ5"), "{text}");
}

#[tokio::test]
async fn errors_and_debug_output_hold_no_secret() {
    for status in [400, 403, 404, 500] {
        let server = refusing(status);
        let stores = [
            ("s3://bucket".to_owned(), section(&server.url())),
            (server.url(), [("authorization".to_owned(), "Bearer canary".to_owned())].into()),
        ];
        let mut options = StorageOptions { stores: stores.into(), ..StorageOptions::default() };
        options.retry.max_retries = 1;
        let storage = Storage::new(options, [("AWS_SESSION_TOKEN".to_owned(), "canary-token".to_owned())]).unwrap();
        assert_clean(&format!("{storage:?} {:?}", storage.options()));
        for target in ["s3://bucket/a", &format!("{}/a", server.url())] {
            let at = storage.open(target).unwrap();
            assert_clean(&format!("{at} {at:?} {:?} {}", at.store, at.store));
            // On a web server that has no listings a missing folder is an empty one.
            for error in
                [at.read().await.err(), at.head().await.err(), at.list_files().await.err()].into_iter().flatten()
            {
                assert_clean(&format!("{error} {error:?}"));
                assert_clean(&chain(&error));
            }
        }
    }
    for target in ["https://me:canary@host/x", "https://host/x?sig=canary", "ftp://me:canary@host/x?canary"] {
        let error = Storage::new(StorageOptions::default(), []).unwrap().open(target).unwrap_err();
        assert_clean(&format!("{error} {error:?}"));
    }
}

#[test]
fn values_of_wrong_settings_are_not_repeated() {
    let refused = |key: &str| {
        let stores = [("s3://bucket".to_owned(), BTreeMap::from([(key.to_owned(), "canary".to_owned())]))].into();
        let storage = Storage::new(StorageOptions { stores, ..StorageOptions::default() }, []);
        storage.and_then(|storage| storage.open("s3://bucket/a")).unwrap_err()
    };
    for error in [refused("secret_acess_key"), refused("allow_http"), refused("timeout"), refused("user_agents")] {
        assert_clean(&chain(&error));
    }
}

fn chain(error: &StorageError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(" {error} {error:?}"));
        cause = error.source();
    }
    text
}

#[test]
fn logs_at_any_level_and_shown_settings_hold_no_secret() {
    let server = refusing(403);
    let folder = tempdir().unwrap();
    let settings: String = section(&server.url()).iter().map(|(key, value)| format!("{key} = {value:?}\n")).collect();
    fs::write(folder.path().join("normstream.toml"), format!("[storage.\"s3://bucket\"]\n{settings}")).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = normstream();
        command.current_dir(folder.path()).env("NORMSTREAM_LOG", "trace").env("RUST_BACKTRACE", "1");
        command.env("AWS_SESSION_TOKEN", "canary-token").env("AZURE_STORAGE_ACCOUNT_KEY", "canary");
        let output = command.args(arguments).timeout(std::time::Duration::from_secs(120)).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    };
    let shown = run(&["config", "show"]);
    assert_clean(&shown);
    assert!(shown.contains("secret_access_key"), "{shown}");
    let input = golden("sessions.parquet");
    let scored = run(&["score", input.to_str().unwrap(), "--to", "s3://bucket/out.parquet"]);
    assert_clean(&scored);
    assert!(scored.contains("DEBUG") || scored.contains("TRACE"), "nothing was logged: {scored}");
    let read = run(&["score", "s3://bucket/in.parquet", "--to", "out.parquet"]);
    assert_clean(&read);
    assert!(read.contains("s3://bucket"), "{read}");
}

#[test]
fn plans_and_logs_of_work_that_succeeds_hold_no_secret() {
    let Some(s3) = S3Server::start() else { return };
    let web = StaticFiles::start(std::time::Duration::ZERO);
    web.put("/in.parquet", fs::read(golden("sessions.parquet")).unwrap());
    let folder = tempdir().unwrap();
    let section = |store: &str, settings: &[(&str, String)]| {
        let settings: String = settings.iter().map(|(key, value)| format!("{key} = {value:?}\n")).collect();
        format!("[storage.{store:?}]\n{settings}")
    };
    let bearer = [("authorization", "Bearer canary".to_owned())];
    let config = section("s3://bucket", &S3Server::settings(&s3.url())) + &section(&web.server.url(), &bearer);
    fs::write(folder.path().join("normstream.toml"), config).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = normstream();
        command.current_dir(folder.path()).env("NORMSTREAM_LOG", "trace").env("AWS_SESSION_TOKEN", "canary-token");
        // Proxies have passwords, too; this one is not asked.
        command.env("HTTP_PROXY", "http://me:canary@127.0.0.1:1").env("NO_PROXY", "127.0.0.1");
        let output = command.args(arguments).timeout(std::time::Duration::from_secs(120)).output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}");
        assert_clean(&text);
        text
    };
    let web_input = format!("{}/in.parquet", web.server.url());
    let stored = run(&["score", &web_input, "--to", "s3://bucket/out.parquet"]);
    assert!(stored.contains("TRACE"), "nothing was logged");
    let plan = run(&["score", &web_input, "--explain"]);
    assert!(plan.contains("StageExec") || plan.contains("DataSourceExec"), "{plan}");
    run(&["score", &web_input, "--to", "local.parquet", "--explain", "analyze", "--stats", "-"]);
    run(&["storage", "status", "s3://bucket/out.parquet"]);
    run(&["storage", "status", &web_input, "--format", "json"]);
    let sql = format!("EXPLAIN SELECT count(*) FROM score('{web_input}')");
    run(&["sql", "-c", &sql]);
}
