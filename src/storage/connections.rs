//! The connections of one client: HTTP/1.1, one request at a time each, never more to a server than its pool has permits.
//!
//! A request takes the connection that was free last, or opens one. A connection becomes free when its answer is read to the
//! end; one that is too old, or whose answer was not read, is closed. A connection counts from before it is opened until
//! the server has seen it closed.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION, USER_AGENT};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpRequestBody};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use crate::storage::client_settings::Settings;
use crate::storage::dial::{Dialer, Route, Stream};
use crate::storage::pool::Pool;

/// How long a connection may take to be ready after its last answer, or else is not used again.
const READY: Duration = Duration::from_secs(1);
/// How long free connections beyond the pool's size are kept, and how often that is looked at.
const BURST: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(1));
/// How long a free connection is trusted not to have been dropped by something in between.
const IDLE: Duration = Duration::from_secs(90);
/// How long a server may take to see a connection closed, and how much it may still send.
const FAREWELL: (Duration, usize) = (Duration::from_millis(200), 64 << 10);

/// The connections of one client to all servers it talks to: as a rule one.
pub(crate) struct Connections {
    dialer: Dialer,
    settings: Settings,
    pool: Arc<Pool>,
    servers: Mutex<HashMap<String, Arc<Server>>>,
}

/// The connections to one server.
struct Server {
    pool: Arc<Pool>,
    permits: Arc<Semaphore>,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    /// The one that was used last stands last.
    connections: Vec<Connection>,
    /// Whether a task watches for those beyond the pool's size.
    watched: bool,
}

/// A connection without a request.
struct Connection {
    sender: SendRequest<HttpRequestBody>,
    opened: Instant,
    epoch: u64,
    used: Option<Instant>,
}

/// A connection while it is used.
struct Busy {
    connection: Connection,
    server: Arc<Server>,
}

impl Connections {
    pub(crate) fn new(dialer: Dialer, settings: Settings, pool: Arc<Pool>) -> Self {
        Self { dialer, settings, pool, servers: Mutex::default() }
    }

    /// Sends `request`, whose URI is whole, and gives the head of the answer. Connections of before `epoch` are not used.
    pub(crate) async fn send(&self, request: HttpRequest, epoch: u64) -> Result<Response<Answer>, HttpError> {
        let uri = request.uri().clone();
        let server = self.server(&uri);
        let mut request = self.prepared(request)?;
        loop {
            let mut busy = match server.free(epoch).await {
                Some(connection) => Busy { connection, server: Arc::clone(&server) },
                None => self.open(&uri, &server, epoch).await?,
            };
            let was_used = busy.connection.used.is_some();
            match busy.connection.sender.try_send_request(request).await {
                Ok(response) => return Ok(response.map(|body| Answer::new(body, busy))),
                Err(mut failed) => match failed.take_message() {
                    // The server closed it before a byte was sent.
                    Some(unsent) if was_used => request = unsent,
                    Some(_) => return Err(HttpError::new(HttpErrorKind::Connect, failed.into_error())),
                    None => return Err(broken(failed.into_error())),
                },
            }
        }
    }

    fn server(&self, uri: &Uri) -> Arc<Server> {
        let scheme = uri.scheme_str().unwrap_or_default();
        let name = format!("{scheme}://{}", uri.authority().map_or("", |authority| authority.as_str()));
        let server = || {
            let permits = Arc::new(Semaphore::new(self.pool.options().capacity()));
            Arc::new(Server { pool: Arc::clone(&self.pool), permits, free: Mutex::default() })
        };
        Arc::clone(lock(&self.servers).entry(name).or_insert_with(server))
    }

    async fn open(&self, uri: &Uri, server: &Arc<Server>, epoch: u64) -> Result<Busy, HttpError> {
        let no_connection = |error| HttpError::new(HttpErrorKind::Connect, error);
        let closed = |error| HttpError::new(HttpErrorKind::Connect, error);
        let permit = Arc::clone(&server.permits).acquire_owned().await.map_err(closed)?;
        let stream = self.dialer.dial(uri).await.map_err(|error| HttpError::new(HttpErrorKind::Connect, error))?;
        let opened = Opened::new(stream, permit, Arc::clone(&self.pool));
        let (mut sender, connection) = http1::handshake(TokioIo::new(opened)).await.map_err(no_connection)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "a connection ended");
            }
        });
        sender.ready().await.map_err(no_connection)?;
        let connection = Connection { sender, opened: Instant::now(), epoch, used: None };
        Ok(Busy { connection, server: Arc::clone(server) })
    }

    /// `request` as it is sent: with the headers of the settings, and the URI that its way asks for.
    fn prepared(&self, mut request: HttpRequest) -> Result<HttpRequest, HttpError> {
        let unusable = |error| HttpError::new(HttpErrorKind::Unknown, error);
        let uri = request.uri().clone();
        for (name, value) in &self.settings.headers {
            request.headers_mut().entry(name).or_insert_with(|| value.clone());
        }
        let user_agent = HeaderValue::try_from(self.settings.user_agent()).map_err(unusable)?;
        request.headers_mut().entry(USER_AGENT).or_insert(user_agent);
        if !request.headers().contains_key(HOST) {
            request.headers_mut().insert(HOST, host_of(&uri).map_err(unusable)?);
        }
        match self.dialer.route(&uri) {
            Route::Straight => {
                *request.uri_mut() = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")).into();
            }
            Route::Forwarded { authorization } => {
                request.headers_mut().extend(authorization.map(|value| (PROXY_AUTHORIZATION, value)));
            }
        }
        Ok(request)
    }
}

/// The value of `Host`: the port only where it is not the scheme's own.
fn host_of(uri: &Uri) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let host = uri.host().unwrap_or_default();
    let usual = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    match uri.port_u16() {
        Some(port) if port != usual => HeaderValue::try_from(format!("{host}:{port}")),
        _ => HeaderValue::from_str(host),
    }
}

impl Server {
    /// A free connection that can be used.
    async fn free(&self, epoch: u64) -> Option<Connection> {
        loop {
            let mut connection = lock(&self.free).connections.pop()?;
            if !self.is_young(&connection) || connection.epoch < epoch {
                self.pool.meter.recycle();
                continue;
            }
            let trusted = connection.used.is_none_or(|used| used.elapsed() < IDLE);
            if trusted && matches!(timeout(READY, connection.sender.ready()).await, Ok(Ok(()))) {
                return Some(connection);
            }
        }
    }

    fn is_young(&self, connection: &Connection) -> bool {
        connection.opened.elapsed() < self.pool.options().recycle
    }

    fn give_back(self: &Arc<Self>, mut connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        if !self.is_young(&connection) {
            self.pool.meter.recycle();
            return;
        }
        connection.used = Some(Instant::now());
        let mut free = lock(&self.free);
        free.connections.push(connection);
        if free.connections.len() > self.pool.options().size
            && !free.watched
            && let Ok(runtime) = Handle::try_current()
        {
            free.watched = true;
            runtime.spawn(Self::end_of_burst(Arc::downgrade(self)));
        }
    }

    /// Closes connections beyond the pool's size that nobody used for a while, until there are none.
    async fn end_of_burst(server: Weak<Self>) {
        loop {
            sleep(BURST.1).await;
            let Some(server) = server.upgrade() else { return };
            let mut free = lock(&server.free);
            let kept = server.pool.options().size;
            let unused = |connection: &Connection| connection.used.is_some_and(|used| used.elapsed() >= BURST.0);
            while free.connections.len() > kept && free.connections.first().is_some_and(unused) {
                free.connections.remove(0);
            }
            if free.connections.len() <= kept {
                free.watched = false;
                return;
            }
        }
    }
}

/// The body of an answer. Read to its end it frees its connection; dropped before it closes it.
pub(crate) struct Answer {
    body: Incoming,
    busy: Option<Busy>,
}

impl Answer {
    fn new(body: Incoming, busy: Busy) -> Self {
        let mut answer = Self { body, busy: Some(busy) };
        answer.look_for_the_end();
        answer
    }

    fn look_for_the_end(&mut self) {
        if self.body.is_end_stream() {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some(Busy { connection, server }) = self.busy.take() {
            server.give_back(connection);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(None) => self.end(),
            Poll::Ready(Some(Ok(_))) => self.look_for_the_end(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What an error of a connection in use means for its request.
fn broken(error: hyper::Error) -> HttpError {
    let io = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let kind = match io.map(std::io::Error::kind) {
        Some(std::io::ErrorKind::TimedOut) => HttpErrorKind::Timeout,
        Some(_) => HttpErrorKind::Interrupted,
        None if error.is_timeout() => HttpErrorKind::Timeout,
        None if error.is_canceled() || error.is_closed() || error.is_incomplete_message() => HttpErrorKind::Interrupted,
        None if error.is_body_write_aborted() => HttpErrorKind::Request,
        None => HttpErrorKind::Decode,
    };
    HttpError::new(kind, error)
}

/// An open connection and its permit, which comes back when the server has seen the end of it.
struct Opened {
    stream: Option<Box<dyn Stream>>,
    seat: Option<Seat>,
}

/// A connection that counts.
struct Seat {
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.pool.meter.closed();
    }
}

impl Opened {
    fn new(stream: Box<dyn Stream>, permit: OwnedSemaphorePermit, pool: Arc<Pool>) -> Self {
        pool.meter.opened();
        Self { stream: Some(stream), seat: Some(Seat { pool, _permit: permit }) }
    }

    fn stream(&mut self) -> std::io::Result<Pin<&mut Box<dyn Stream>>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| std::io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let (Some(stream), Some(seat), Ok(runtime)) = (self.stream.take(), self.seat.take(), Handle::try_current())
        else {
            return;
        };
        runtime.spawn(async move {
            say_farewell(stream).await;
            drop(seat);
        });
    }
}

/// Closes our side, and waits until the server has closed its own, or for as long as that is worth it.
async fn say_farewell(mut stream: Box<dyn Stream>) {
    let (patience, mut most) = FAREWELL;
    let farewell = async {
        stream.shutdown().await?;
        let mut ignored = [0; 4096];
        loop {
            match stream.read(&mut ignored).await? {
                0 => return Ok::<_, std::io::Error>(()),
                bytes if bytes > most => return Ok(()),
                bytes => most -= bytes,
            }
        }
    };
    // Whatever comes of it, the connection is dropped.
    let _ = timeout(patience, farewell).await;
}

impl AsyncRead for Opened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.stream()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Opened {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.stream()?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.stream()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.stream()?.poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.is_write_vectored())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.stream()?.poll_write_vectored(context, bytes)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
