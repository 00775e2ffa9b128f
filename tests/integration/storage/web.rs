//! Reading from web servers: retries, `Retry-After`, redirects, silence, change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use normstream::storage::{HttpFailure, PoolOptions, RetryOptions, Storage, StorageError, StorageOptions};

use crate::support::http_server::{Reply, Request, Response, Server, serve_file};
use crate::support::static_files::StaticFiles;
use crate::support::{normstream, tls_front};

/// A server that gives `reply` to the `n`th request.
fn server(reply: impl Fn(Request, usize) -> Reply + Send + Sync + 'static) -> Server {
    let reply = Arc::new(reply);
    Server::start(Arc::new(move |request, number| {
        let reply = Arc::clone(&reply);
        async move { reply(request, number) }.boxed()
    }))
}

/// Storage without pings, so that the requests at a server are those of the test.
fn storage(change: impl FnOnce(&mut StorageOptions)) -> Storage {
    let retry = RetryOptions {
        max_retries: 3,
        timeout: Duration::from_secs(10),
        initial_backoff: Duration::from_millis(5),
        max_backoff: Duration::from_millis(20),
    };
    let pool = PoolOptions { pre_ping: false, ..PoolOptions::default() };
    let mut options = StorageOptions { pool, retry, ..StorageOptions::default() };
    change(&mut options);
    Storage::new(options, []).unwrap()
}

fn failure(error: StorageError) -> HttpFailure {
    match error {
        StorageError::Http { source, .. } => *source,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_busy_server_is_asked_again_and_not_before_the_time_it_names() {
    let busy = server(|request, number| match number {
        0 => Response::new(503).with("retry-after", 1).into(),
        1 => Response::new(429).into(),
        2 => Reply::Reset,
        _ => serve_file(&request, b"at last", "\"1\"").into(),
    });
    let storage = storage(|_| {});
    let started = Instant::now();
    let at = storage.open(&format!("{}/a", busy.url())).unwrap();
    assert_eq!(at.read().await.unwrap(), "at last");
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!((busy.requests(), storage.status()[0].retries), (4, 3));
}

#[tokio::test]
async fn retries_end_after_their_number_and_before_their_time() {
    let down = server(|_, _| Response::new(503).into());
    let at = storage(|_| {}).open(&format!("{}/a", down.url())).unwrap();
    let error = at.read().await.unwrap_err();
    assert!(error.is_retryable());
    let text = error.to_string();
    assert!(text.ends_with("the last one because the server answered 503 Service Unavailable"), "{text}");
    assert!(matches!(failure(error), HttpFailure::GivenUp { retries: 3, .. }));
    assert_eq!(down.requests(), 4);

    let patient = server(|_, _| Response::new(503).with("retry-after", 3600).into());
    let started = Instant::now();
    let at = storage(|_| {}).open(&format!("{}/a", patient.url())).unwrap();
    assert!(matches!(failure(at.read().await.unwrap_err()), HttpFailure::GivenUp { retries: 0, .. }));
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn what_will_not_get_better_is_not_tried_again() {
    for (status, expected) in [(404, "does not exist"), (403, "access denied"), (401, "access denied")] {
        let server = server(move |_, _| Response::new(status).into());
        let at = storage(|_| {}).open(&format!("{}/a", server.url())).unwrap();
        let error = at.read().await.unwrap_err();
        assert!(error.to_string().contains(expected) && !error.is_retryable(), "{error}");
        assert_eq!(server.requests(), 1);
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up_and_asked_again() {
    let content: Vec<u8> = (0..100_000_u32).map(|byte| (byte % 251) as u8).collect();
    let served = content.clone();
    let moody = server(move |request, number| match number {
        0 => Reply::Silence,
        1 => Reply::Truncated(serve_file(&request, &served, "\"1\""), 60_000),
        _ => serve_file(&request, &served, "\"1\"").into(),
    });
    let storage = storage(|options| {
        let section = [("timeout".to_owned(), "300ms".to_owned())].into();
        options.stores = [(moody.url(), section)].into();
    });
    let at = storage.open(&format!("{}/a", moody.url())).unwrap();
    assert!(at.read().await.unwrap() == content);
    assert_eq!((moody.requests(), storage.status()[0].retries), (3, 2));
}

#[tokio::test]
async fn a_body_whose_object_changes_is_an_error_with_both_tags() {
    let changing = server(|request, number| match number {
        0 => Reply::Truncated(serve_file(&request, &[7; 1000], "\"first\""), 500),
        _ => serve_file(&request, &[8; 1000], "\"second\"").into(),
    });
    let at = storage(|_| {}).open(&format!("{}/a", changing.url())).unwrap();
    let error = at.read().await.unwrap_err().to_string();
    assert!(error.contains("/a changed while it was read: its ETag was \"first\", now it is \"second\""), "{error}");
}

#[tokio::test]
async fn a_redirect_to_the_same_server_is_followed_and_one_into_the_private_network_is_not() {
    let web = StaticFiles::start(Duration::ZERO);
    web.put("/file", "content");
    let elsewhere = web.server.url();
    let redirecting = server(move |request, _| match request.target.as_str() {
        "/here" => Response::new(302).with("location", "/file").into(),
        "/file" => serve_file(&request, b"here", "\"1\"").into(),
        "/there" => Response::new(307).with("location", format!("{elsewhere}/file")).into(),
        "/metadata" => Response::new(302).with("location", "http://169.254.169.254/latest/meta-data").into(),
        "/name" => Response::new(301).with("location", "http://localhost:1/x").into(),
        _ => Response::new(302).with("location", request.target).into(),
    });
    let read = async |allow: bool, name: &str| {
        let storage = storage(|options| options.allow_private_redirects = allow);
        storage.open(&format!("{}/{name}", redirecting.url())).unwrap().read().await
    };
    assert_eq!(read(false, "here").await.unwrap(), "here");
    for name in ["there", "metadata", "name"] {
        let error = read(false, name).await.unwrap_err();
        assert!(!error.is_retryable());
        assert!(matches!(failure(error), HttpFailure::RedirectRefused { .. }), "{name}");
    }
    assert_eq!(read(true, "there").await.unwrap(), "content");
    assert!(matches!(failure(read(false, "circle").await.unwrap_err()), HttpFailure::TooManyRedirects));
    assert_eq!(web.server.requests(), 1);
}

#[tokio::test]
async fn credentials_are_sent_to_the_server_they_are_for_and_to_no_other() {
    let seen = |request: &Request| request.header("authorization").unwrap_or("none").to_owned();
    let other = server(move |request, _| serve_file(&request, seen(&request).as_bytes(), "\"1\"").into());
    let elsewhere = other.url();
    let own = server(move |request, _| match request.target.as_str() {
        "/away" => Response::new(302).with("location", format!("{elsewhere}/x")).into(),
        _ => serve_file(&request, seen(&request).as_bytes(), "\"1\"").into(),
    });
    let storage = storage(|options| {
        options.allow_private_redirects = true;
        let section = [("authorization".to_owned(), "Bearer token".to_owned())].into();
        options.stores = [(own.url(), section)].into();
    });
    let read = async |name: &str| storage.open(&format!("{}/{name}", own.url())).unwrap().read().await.unwrap();
    assert_eq!(read("own").await, "Bearer token");
    assert_eq!(read("away").await, "none");
}

#[tokio::test]
async fn a_store_is_pinged_before_its_first_use_and_a_missing_file_is_an_answer() {
    let web = StaticFiles::start(Duration::ZERO);
    web.put("/a", "content");
    let storage = Storage::new(StorageOptions::default(), []).unwrap();
    let at = storage.open(&format!("{}/a", web.server.url())).unwrap();
    let reads = (0..8).map(|_| at.read());
    for read in futures::future::join_all(reads).await {
        assert_eq!(read.unwrap(), "content");
    }
    let status = &storage.status()[0];
    assert_eq!((status.pings, status.ping_failures, status.recycles), (1, 0, 0));
    assert_eq!(web.server.requests(), 9);
}

#[tokio::test]
async fn a_proxy_of_the_environment_is_used_and_gets_the_credentials_that_are_for_it() {
    let proxy = server(|request, _| {
        let seen = format!("{} {}", request.target, request.header("proxy-authorization").unwrap_or("none"));
        serve_file(&request, seen.as_bytes(), "\"1\"").into()
    });
    let direct = StaticFiles::start(Duration::ZERO);
    direct.put("/a", "direct");
    let environment = |more: &[(&str, &str)]| {
        let proxy = format!("http://me:secret@{}", proxy.address);
        let all = [("HTTP_PROXY", proxy.as_str())].into_iter().chain(more.iter().copied());
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
    };
    let pool = PoolOptions { pre_ping: false, ..PoolOptions::default() };
    let read = async |environment: Vec<(String, String)>, url: &str| {
        let storage = Storage::new(StorageOptions { pool: pool.clone(), ..StorageOptions::default() }, environment);
        storage.unwrap().open(url).unwrap().read().await.unwrap()
    };
    assert_eq!(read(environment(&[]), "http://nowhere.invalid/a").await, "http://nowhere.invalid/a Basic bWU6c2VjcmV0");
    let url = format!("{}/a", direct.server.url());
    assert_eq!(read(environment(&[("no_proxy", "127.0.0.0/8")]), &url).await, "direct");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_trusted_certificate_is_refused_at_once_unless_that_is_allowed() {
    let web = StaticFiles::start(Duration::ZERO);
    web.put("/a", "content");
    let port = tls_front::start(web.server.address).await;
    let url = format!("https://localhost:{port}");
    let started = Instant::now();
    let error = storage(|_| {}).open(&format!("{url}/a")).unwrap().read().await.unwrap_err();
    assert!(!error.is_retryable() && started.elapsed() < Duration::from_secs(1), "{error}");
    assert!(matches!(failure(error), HttpFailure::Untrusted { .. }));

    let trusting = storage(|options| {
        let section = [("allow_invalid_certificates".to_owned(), "true".to_owned())].into();
        options.stores = [(url.clone(), section)].into();
    });
    assert_eq!(trusting.open(&format!("{url}/a")).unwrap().read().await.unwrap(), "content");

    let status = |certificates: &std::path::Path| {
        let mut command = normstream();
        command.env("SSL_CERT_FILE", certificates).args(["storage", "status", &format!("{url}/a")]);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = status(&tls_front::certificate());
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(" answered in "), "{text}");
}
