//! An HTTP/1.1 server small enough to misbehave on command. It runs on a thread of its own, counts its connections, and ends
//! when it is dropped. Not for anything but tests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::sleep;

/// A request, read whole.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// An answer. `Content-Length` is that of `body` unless it is among the headers.
#[derive(Debug, Clone, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(header, _)| header.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }
}

/// What the server does with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    Answer(Response),
    /// The connection is reset without a word.
    Reset,
    /// The answer breaks off after so many bytes of its body, and the connection with it.
    Truncated(Response, usize),
    /// The body comes in pieces of so many bytes with a pause before each.
    Slow(Response, usize, Duration),
    /// Nothing, for ever, on an open connection.
    Silence,
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        Self::Answer(response)
    }
}

/// Gives the reply to the request, which is the `n`th of the server (from 0).
pub type Handler = Arc<dyn Fn(Request, usize) -> BoxFuture<'static, Reply> + Send + Sync>;

#[derive(Debug, Default)]
struct Counters {
    open: AtomicUsize,
    most_open: AtomicUsize,
    accepted: AtomicUsize,
    requests: AtomicUsize,
}

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    counters: Arc<Counters>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Starts a server on a free port of the loopback.
    pub fn start(handler: Handler) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let counters = Arc::new(Counters::default());
        let (stop, stopped) = oneshot::channel();
        let thread = {
            let counters = Arc::clone(&counters);
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let listener = TcpListener::from_std(listener).unwrap();
                    tokio::select! {
                        _ = stopped => {}
                        () = accept(listener, handler, counters) => {}
                    }
                });
            })
        };
        Self { address, counters, stop: Some(stop), thread: Some(thread) }
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The most connections that were open at one time.
    pub fn most_open(&self) -> usize {
        self.counters.most_open.load(SeqCst)
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.counters.accepted.load(SeqCst)
    }

    /// Requests read so far.
    pub fn requests(&self) -> usize {
        self.counters.requests.load(SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, handler: Handler, counters: Arc<Counters>) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        counters.accepted.fetch_add(1, SeqCst);
        let open = counters.open.fetch_add(1, SeqCst) + 1;
        counters.most_open.fetch_max(open, SeqCst);
        let (handler, counters) = (Arc::clone(&handler), Arc::clone(&counters));
        tokio::spawn(async move {
            let _ = serve(stream, handler, &counters).await;
            counters.open.fetch_sub(1, SeqCst);
        });
    }
}

async fn serve(mut stream: TcpStream, handler: Handler, counters: &Counters) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await? {
        let number = counters.requests.fetch_add(1, SeqCst);
        let head_only = request.method == "HEAD";
        match handler(request, number).await {
            Reply::Answer(response) => {
                stream.write_all(&head_of(&response)).await?;
                if !head_only {
                    stream.write_all(&response.body).await?;
                }
            }
            Reply::Slow(response, piece, pause) => {
                stream.write_all(&head_of(&response)).await?;
                if !head_only {
                    for piece in response.body.chunks(piece.max(1)) {
                        sleep(pause).await;
                        stream.write_all(piece).await?;
                    }
                }
            }
            Reply::Truncated(response, length) => {
                stream.write_all(&head_of(&response)).await?;
                if !head_only {
                    stream.write_all(&response.body[..length.min(response.body.len())]).await?;
                }
                return stream.shutdown().await;
            }
            Reply::Reset => {
                // Closing with unsent data thrown away makes it a reset.
                return stream.set_zero_linger();
            }
            Reply::Silence => std::future::pending().await,
        }
    }
    Ok(())
}

fn head_of(response: &Response) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} Status\r\n", response.status);
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if response.header("content-length").is_none() && response.status != 304 && response.status != 204 {
        head.push_str(&format!("content-length: {}\r\n", response.body.len()));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// The next request of a connection; `None` at its end. `buffer` keeps what was read beyond it.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<Request>> {
    let Some(end) = read_head(stream, buffer).await? else { return Ok(None) };
    let (first, headers) = parse_head(&buffer[..end]);
    buffer.drain(..end);
    let body = read_body(stream, buffer, &headers, false).await?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    Ok(Some(Request { method, target, headers, body }))
}

/// Reads until a head is complete, and gives its length with the blank line.
async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<usize>> {
    loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn parse_head(head: &[u8]) -> (String, BTreeMap<String, String>) {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let pair =
        |line: &str| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    (first, lines.filter_map(pair).collect())
}

async fn read_body(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    headers: &BTreeMap<String, String>,
    to_end: bool,
) -> std::io::Result<Vec<u8>> {
    if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(at) = buffer.windows(2).position(|window| window == b"\r\n") {
                    break String::from_utf8_lossy(&buffer.drain(..at + 2).collect::<Vec<u8>>()).trim().to_owned();
                }
                if stream.read_buf(buffer).await? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            };
            let length = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16).unwrap_or(0);
            fill(stream, buffer, length + 2).await?;
            body.extend(buffer.drain(..length));
            buffer.drain(..2);
            if length == 0 {
                return Ok(body);
            }
        }
    }
    match headers.get("content-length").and_then(|length| length.parse().ok()) {
        Some(length) => {
            fill(stream, buffer, length).await?;
            Ok(buffer.drain(..length).collect())
        }
        None if to_end => {
            while stream.read_buf(buffer).await? > 0 {}
            Ok(std::mem::take(buffer))
        }
        None => Ok(Vec::new()),
    }
}

async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>, length: usize) -> std::io::Result<()> {
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Sends a request to another server over a connection of its own, and reads the answer whole.
pub async fn forward(to: SocketAddr, request: &Request) -> std::io::Result<Response> {
    let mut stream = TcpStream::connect(to).await?;
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    for (name, value) in &request.headers {
        if !matches!(name.as_str(), "connection" | "transfer-encoding" | "content-length") {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str(&format!("content-length: {}\r\nconnection: close\r\n\r\n", request.body.len()));
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&request.body).await?;
    let mut buffer = Vec::new();
    let end = read_head(&mut stream, &mut buffer).await?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let (first, headers) = parse_head(&buffer[..end]);
    buffer.drain(..end);
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(502);
    let empty = request.method == "HEAD" || matches!(status, 204 | 304);
    let body = if empty { Vec::new() } else { read_body(&mut stream, &mut buffer, &headers, true).await? };
    let hop = |name: &str| matches!(name, "connection" | "transfer-encoding" | "keep-alive" | "content-length");
    let mut kept: Vec<(String, String)> =
        headers.iter().filter(|(name, _)| !hop(name)).map(|(n, v)| (n.clone(), v.clone())).collect();
    if let (true, Some(length)) = (empty, headers.get("content-length")) {
        kept.push(("content-length".to_owned(), length.clone()));
    }
    Ok(Response { status, headers: kept, body })
}

/// The answer of a static file server that holds `content` under some name: GET and HEAD, ranges, `If-Match`, ETags.
pub fn serve_file(request: &Request, content: &[u8], e_tag: &str) -> Response {
    let file = |status| {
        Response::new(status)
            .with("etag", e_tag)
            .with("accept-ranges", "bytes")
            .with("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")
    };
    if request.header("if-match").is_some_and(|wanted| wanted != "*" && wanted != e_tag) {
        return Response::new(412);
    }
    if request.header("if-none-match").is_some_and(|known| known == "*" || known == e_tag) {
        return file(304);
    }
    let length = content.len();
    let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (from, to) = match range {
        None => return file(200).body(content),
        Some(("", last)) => (length.saturating_sub(last.parse().unwrap()), length),
        Some((first, "")) => (first.parse().unwrap(), length),
        Some((first, last)) => (first.parse().unwrap(), length.min(last.parse::<usize>().unwrap() + 1)),
    };
    if from >= length {
        return Response::new(416).with("content-range", format!("bytes */{length}"));
    }
    file(206).with("content-range", format!("bytes {from}-{}/{length}", to - 1)).body(&content[from..to])
}
