//! The HTTP below the stores: retries that honour `Retry-After`, redirects that stay outside private networks, and answers
//! that may not fall silent.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, IF_MATCH, IF_NONE_MATCH, LOCATION, RANGE};
use http::{Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use tokio::time::{Instant, Sleep, sleep, timeout};
use url::Url;

use crate::storage::RetryOptions;
use crate::storage::client_settings::Settings;
use crate::storage::connections::{Answer, Connections};
use crate::storage::dial::{Dialer, ProxyVariables};
use crate::storage::health::Ping;
use crate::storage::pool::Pool;
use crate::storage::redirect::{self, MOST_REDIRECTS, Resolver};
use crate::storage::retry::{Backoff, Repeatability, is_throttling, retry_after};

/// Why there is no usable answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HttpFailure {
    /// Every retry failed.
    #[error("given up after {retries} retries in {elapsed:.1?}, the last one because {last}")]
    GivenUp { retries: usize, elapsed: Duration, last: String },

    /// The server sent us to where we do not go.
    #[error("the server redirects to {to}, which is refused: {reason}")]
    RedirectRefused { to: String, reason: &'static str },

    /// The server cannot show that it is the one it claims to be.
    #[error("the server is not trusted: {reason}")]
    Untrusted { reason: String },

    /// The server sends us in circles.
    #[error("the server redirects more than {MOST_REDIRECTS} times")]
    TooManyRedirects,

    /// A write on a condition, which cannot be repeated, may have been done.
    #[error("the answer got lost: {reason}")]
    AnswerLost { reason: String },

    /// No answer, or no more of it, for too long.
    #[error("the server was silent for {0:?}")]
    Silent(Duration),
}

impl HttpFailure {
    /// Whether the same request would fail the same way again.
    fn is_final(&self) -> bool {
        matches!(self, Self::RedirectRefused { .. } | Self::TooManyRedirects | Self::Untrusted { .. })
    }

    /// The failure at or below `error`.
    pub(crate) fn find<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e HttpFailure> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(own) = error.downcast_ref() {
                return Some(own);
            }
            cause = error.source();
        }
        None
    }
}

/// What all HTTP clients of one store share.
pub(crate) struct Wire {
    pool: Arc<Pool>,
    retry: RetryOptions,
    allow_private_redirects: bool,
    proxies: ProxyVariables,
    /// Goes up when connections are not to be trusted any more, whatever their age.
    epoch: AtomicU64,
}

impl Wire {
    pub(crate) fn new(
        pool: Arc<Pool>,
        retry: RetryOptions,
        allow_private_redirects: bool,
        proxies: ProxyVariables,
    ) -> Arc<Self> {
        Arc::new(Self { pool, retry, allow_private_redirects, proxies, epoch: AtomicU64::new(0) })
    }

    /// Has new connections made for all requests from now on. Those in flight keep theirs.
    pub(crate) fn distrust(&self) {
        self.epoch.fetch_add(1, Relaxed);
    }

    fn connections(&self, settings: Settings, resolver: Resolver) -> Connections {
        let dialer = Dialer::new(settings.clone(), resolver, &self.proxies);
        Connections::new(dialer, settings, Arc::clone(&self.pool))
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// Makes the HTTP clients of one store.
#[derive(Debug, Clone)]
pub(crate) struct Connector(pub(crate) Arc<Wire>);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service::new(Arc::clone(&self.0), Settings::of(options)?)))
    }
}

struct Service {
    wire: Arc<Wire>,
    settings: Settings,
    direct: Connections,
    /// For redirects to other servers: resolves public addresses only, and has no credentials.
    outward: OnceLock<Connections>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("wire", &self.wire).finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if let Some(ping) = request.extensions().get::<Ping>().cloned() {
            let response = self.send(request).await?;
            if !response.status().is_server_error() {
                ping.answered();
            }
            return Ok(response);
        }
        let repeatability = Repeatability::of(&request);
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let started = Instant::now();
        let mut backoff = Backoff::new(&self.wire.retry);
        loop {
            let sent = Instant::now();
            let (last, asked) = match self.send(request.clone()).await {
                Ok(response) => {
                    let status = response.status();
                    if is_throttling(status) {
                        self.wire.pool.throttled();
                    } else if reads && status.is_success() {
                        self.wire.pool.answered(sent.elapsed());
                    }
                    let response = match hidden_error(&request, response).await? {
                        Ok(_) if repeatability.is_unknown_after_status(status) => {
                            return Err(answer_lost(format!("the server answered {status}")));
                        }
                        Ok(response) if !repeatability.after_status(status) => return Ok(response),
                        Ok(response) => response,
                        Err(conflict) => conflict,
                    };
                    (format!("the server answered {status}"), retry_after(response.headers(), SystemTime::now()))
                }
                Err(error) => {
                    if let Some(final_word) = HttpFailure::find(&error).filter(|failure| failure.is_final()) {
                        return Err(HttpError::new(HttpErrorKind::Unknown, final_word.clone()));
                    }
                    if repeatability.is_unknown_after_error(error.kind()) {
                        return Err(answer_lost(chain(&error)));
                    }
                    if !repeatability.after_error(error.kind()) {
                        return Err(error);
                    }
                    (chain(&error), None)
                }
            };
            let Some(wait) = backoff.next(started.elapsed(), asked) else {
                let failure = HttpFailure::GivenUp { retries: backoff.retries(), elapsed: started.elapsed(), last };
                return Err(HttpError::new(HttpErrorKind::Unknown, failure));
            };
            let (store, method, retry) = (self.wire.pool.name(), request.method(), backoff.retries());
            tracing::debug!(store, %method, retry, ?wait, reason = %last, "retry");
            self.wire.pool.meter.retry();
            sleep(wait).await;
        }
    }
}

impl Service {
    fn new(wire: Arc<Wire>, settings: Settings) -> Self {
        let resolver = Resolver::any(settings.randomize_addresses);
        let direct = wire.connections(settings.clone(), resolver);
        Self { wire, settings, direct, outward: OnceLock::new() }
    }

    /// The connections to servers we are redirected to.
    fn outward(&self) -> &Connections {
        self.outward.get_or_init(|| {
            let rotate = self.settings.randomize_addresses;
            let resolver = match self.wire.allow_private_redirects {
                true => Resolver::any(rotate),
                false => {
                    let set = self.settings.proxy().and_then(|(proxy, _)| Url::parse(&proxy).ok());
                    let set = set.and_then(|proxy| proxy.host_str().map(str::to_owned));
                    Resolver::public(self.wire.proxies.hosts().into_iter().chain(set).collect(), rotate)
                }
            };
            self.wire.connections(self.settings.without_credentials(), resolver)
        })
    }

    /// Sends `request` once, and follows redirects.
    async fn send(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let may_redirect = matches!(*request.method(), Method::GET | Method::HEAD);
        let mut connections = &self.direct;
        for _ in 0..=MOST_REDIRECTS {
            let again = may_redirect.then(|| request.clone());
            let response = self.exchange(connections, request).await?;
            let (Some(mut next), true) = (again, response.status().is_redirection()) else { return Ok(response) };
            let Some(location) = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()) else {
                return Ok(response);
            };
            let refused = |failure| HttpError::new(HttpErrorKind::Unknown, failure);
            let from =
                Url::parse(&next.uri().to_string()).map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
            let to = redirect::target(&from, location, self.wire.allow_private_redirects).map_err(refused)?;
            if !redirect::same_origin(&from, &to) {
                // What else is there may be credentials of the first server.
                let kept = [RANGE, IF_MATCH, IF_NONE_MATCH, ACCEPT];
                let headers =
                    kept.into_iter().filter_map(|name| Some((name.clone(), next.headers_mut().remove(name)?)));
                *next.headers_mut() = headers.collect::<Vec<_>>().into_iter().collect();
                connections = self.outward();
            }
            *next.uri_mut() = to.as_str().parse().map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
            request = next;
        }
        Err(HttpError::new(HttpErrorKind::Unknown, HttpFailure::TooManyRedirects))
    }

    /// Sends `request` and waits for the head of the answer, whose body may never be silent for too long.
    async fn exchange(&self, connections: &Connections, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let patience = self.settings.silence + sending_time(request.body().content_length());
        let silent = || HttpError::new(HttpErrorKind::Timeout, HttpFailure::Silent(patience));
        let sent = connections.send(request, self.wire.epoch.load(Relaxed));
        let response = timeout(patience, sent).await.map_err(|_| silent())??;
        Ok(response.map(|body| HttpResponseBody::new(Watched::new(body, self.settings.silence))))
    }
}

fn answer_lost(reason: String) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, HttpFailure::AnswerLost { reason })
}

/// How long sending so many bytes may take: as on a line of 64 KiB a second.
fn sending_time(bytes: usize) -> Duration {
    Duration::from_secs(bytes as u64 / (64 * 1024))
}

/// S3 answers some requests with a 200 before it knows how they end, and says in the body that they failed; and refuses
/// conditional writes with a 409 that only means that another one is on its way. `Err` is such an answer.
async fn hidden_error(
    request: &HttpRequest,
    response: HttpResponse,
) -> Result<Result<HttpResponse, HttpResponse>, HttpError> {
    let copies = request.headers().contains_key("x-amz-copy-source");
    let suspicious = match response.status() {
        StatusCode::OK => *request.method() == Method::POST || copies,
        StatusCode::CONFLICT => true,
        _ => false,
    };
    if !suspicious {
        return Ok(Ok(response));
    }
    let (parts, body) = response.into_parts();
    let body = body.bytes().await?;
    let says = |code: &str| body.windows(code.len()).any(|window| window == code.as_bytes());
    let failed = match parts.status {
        StatusCode::OK => says("<Code>InternalError</Code>") || says("<Code>SlowDown</Code>"),
        _ => says("ConditionalRequestConflict"),
    };
    let response = HttpResponse::from_parts(parts, body.into());
    Ok(if failed { Err(response) } else { Ok(response) })
}

/// An error and its causes in one line, without URLs (`object_store` took them out).
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// A body that fails once it has been silent for too long while somebody waits for it.
struct Watched {
    body: Answer,
    patience: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    fn new(body: Answer, patience: Duration) -> Self {
        Self { body, patience, waiting: None }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.waiting = None;
            return Poll::Ready(frame);
        }
        let patience = this.patience;
        let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
        match waiting.as_mut().poll(context) {
            Poll::Ready(()) => {
                Poll::Ready(Some(Err(HttpError::new(HttpErrorKind::Timeout, HttpFailure::Silent(patience)))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
