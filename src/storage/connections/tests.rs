//! Connections as a server sees them.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures::future::join_all;
use proptest::prelude::*;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::storage::PoolOptions;
use crate::storage::dial::ProxyVariables;
use crate::storage::redirect::Resolver;

/// A server that answers every request with a body of some bytes, and counts connections.
#[derive(Clone)]
struct TestServer(Arc<Counts>);

struct Counts {
    uri: String,
    body: usize,
    /// Requests after which the server closes a connection.
    most_requests: usize,
    open: AtomicUsize,
    most_open: AtomicUsize,
    accepted: AtomicUsize,
}

impl TestServer {
    async fn start(body: usize, most_requests: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self(Arc::new(Counts {
            uri: format!("http://{}/object", listener.local_addr().unwrap()),
            body,
            most_requests,
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
        }));
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.0.accepted.fetch_add(1, SeqCst);
                let open = accepting.0.open.fetch_add(1, SeqCst) + 1;
                accepting.0.most_open.fetch_max(open, SeqCst);
                tokio::spawn(accepting.clone().serve(stream));
            }
        });
        server
    }

    async fn serve(self, mut stream: TcpStream) {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}", self.0.body, "x".repeat(self.0.body));
        let mut request = Vec::new();
        for _ in 0..self.0.most_requests {
            request.clear();
            while !request.ends_with(b"\r\n\r\n") {
                if !matches!(stream.read_buf(&mut request).await, Ok(1..)) {
                    self.0.open.fetch_sub(1, SeqCst);
                    return;
                }
            }
            sleep(Duration::from_millis(1)).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        self.0.open.fetch_sub(1, SeqCst);
    }

    fn request(&self) -> HttpRequest {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = self.0.uri.parse().unwrap();
        request
    }
}

fn connections(size: usize, max_overflow: usize, recycle: Duration) -> Arc<Connections> {
    let pool = Pool::new("http://test", PoolOptions { size, max_overflow, recycle, ..PoolOptions::default() });
    let settings = Settings::of(&object_store::ClientOptions::new().with_allow_http(true)).unwrap();
    let dialer = Dialer::new(settings.clone(), Resolver::any(false), &ProxyVariables::default());
    Arc::new(Connections::new(dialer, settings, pool))
}

const LONG: Duration = Duration::from_secs(3600);

/// Reads so many bytes of an answer, or all of it.
async fn read(connections: &Connections, server: &TestServer, most: usize) -> Result<usize, HttpError> {
    let mut answer = connections.send(server.request(), 0).await?.into_body();
    let mut bytes = 0;
    while bytes < most {
        match std::future::poll_fn(|context| Pin::new(&mut answer).poll_frame(context)).await {
            Some(frame) => bytes += frame?.into_data().map_or(0, |data| data.len()),
            None => break,
        }
    }
    Ok(bytes)
}

#[tokio::test]
async fn one_request_after_another_needs_one_connection() {
    let server = TestServer::start(1000, usize::MAX).await;
    let connections = connections(5, 10, LONG);
    for _ in 0..100 {
        assert_eq!(read(&connections, &server, usize::MAX).await.unwrap(), 1000);
    }
    let status = connections.pool.status();
    assert_eq!((server.0.accepted.load(SeqCst), status.connections, status.connections_opened), (1, 1, 1));
}

#[tokio::test]
async fn a_connection_that_the_server_closes_is_replaced_without_an_error() {
    let server = TestServer::start(10, 3).await;
    let connections = connections(1, 0, LONG);
    for _ in 0..10 {
        assert_eq!(read(&connections, &server, usize::MAX).await.unwrap(), 10);
        // The server's farewell arrives.
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(server.0.accepted.load(SeqCst), 4);
    assert_eq!(server.0.most_open.load(SeqCst), 1);
}

#[tokio::test]
async fn connections_older_than_allowed_are_replaced_and_no_request_under_load_is_lost() {
    let server = TestServer::start(1000, usize::MAX).await;
    let connections = connections(2, 2, Duration::from_millis(10));
    let requests = (0..4).map(|_| async {
        for _ in 0..50 {
            assert_eq!(read(&connections, &server, usize::MAX).await.unwrap(), 1000);
        }
    });
    join_all(requests).await;
    let recycles = connections.pool.status().recycles;
    assert!(recycles >= 8, "{recycles}");
    assert!(server.0.most_open.load(SeqCst) <= 4, "{}", server.0.most_open.load(SeqCst));
}

#[tokio::test]
async fn connections_of_before_a_failed_ping_are_not_used_again() {
    let server = TestServer::start(0, usize::MAX).await;
    let connections = connections(2, 0, LONG);
    for (epoch, accepted) in [(0, 1), (0, 1), (1, 2), (1, 2)] {
        drop(connections.send(server.request(), epoch).await.unwrap());
        assert_eq!(server.0.accepted.load(SeqCst), accepted, "epoch {epoch}");
    }
    assert_eq!(connections.pool.status().recycles, 1);
}

#[tokio::test]
async fn what_is_kept_after_a_burst_is_the_size_of_the_pool() {
    let server = TestServer::start(10, usize::MAX).await;
    let connections = connections(2, 4, LONG);
    join_all((0..6).map(|_| read(&connections, &server, usize::MAX))).await;
    assert_eq!(connections.pool.status().connections, 6);
    sleep(BURST.0 + BURST.1 * 2 + FAREWELL.0).await;
    assert_eq!((connections.pool.status().connections, server.0.open.load(SeqCst)), (2, 2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn a_server_never_sees_more_connections_than_there_are_permits(
        size in 1_usize..4,
        overflow in 0_usize..4,
        most_requests in 1_usize..6,
        // How much of its answer each request reads before it is dropped, by task.
        reads in prop::collection::vec(prop::collection::vec(0_usize..2000, 1..8), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = TestServer::start(1000, most_requests).await;
            let connections = connections(size, overflow, Duration::from_millis(5));
            let tasks = reads.iter().map(|reads| {
                let (connections, server) = (Arc::clone(&connections), server.clone());
                async move {
                    for most in reads {
                        let _permit = connections.pool.acquire().await.unwrap();
                        // A server may close a connection while a request is on its way to it: that is for retries.
                        let _ = read(&connections, &server, *most).await;
                    }
                }
            });
            join_all(tasks).await;
            let most_open = server.0.most_open.load(SeqCst);
            prop_assert!(most_open <= size + overflow, "{} of {}", most_open, size + overflow);
            prop_assert!(connections.pool.status().connections <= size + overflow);
            Ok(())
        })?;
    }
}
