//! Opens connections: names, proxies, TCP, TLS. What is sent over them is not known here.

use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::uri::Scheme;
use http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::storage::HttpFailure;
use crate::storage::client_settings::Settings;
use crate::storage::redirect::Resolver;
use crate::storage::tls;

/// Bytes both ways.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type BoxError = Box<dyn Error + Send + Sync>;

/// Why there is no connection. No text of it holds a URL.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("no connection within {0:?}")]
    TimedOut(std::time::Duration),
    #[error("plain http:// is not allowed here; set allow_http if it is meant")]
    PlainHttp,
    #[error("no connection")]
    Failed(#[source] BoxError),
}

/// How a server is reached.
pub(crate) enum Route {
    /// By itself, or through a tunnel: requests name the path alone.
    Straight,
    /// By a proxy that reads the requests, which therefore name the whole URL, and are signed for it.
    Forwarded { authorization: Option<HeaderValue> },
}

/// Opens the connections of one client.
#[derive(Clone)]
pub(crate) struct Dialer(Arc<Inner>);

struct Inner {
    settings: Settings,
    proxies: Matcher,
    connector: HttpConnector<Resolver>,
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Dialer {
    /// `environment` names the proxies, unless the settings do.
    pub(crate) fn new(settings: Settings, resolver: Resolver, environment: &ProxyVariables) -> Self {
        let proxies = match settings.proxy() {
            Some((proxy, excludes)) => Matcher::builder().all(proxy).no(excludes).build(),
            None => environment.matcher(),
        };
        let mut connector = HttpConnector::new_with_resolver(resolver);
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(settings.connect_timeout));
        Self(Arc::new(Inner { settings, proxies, connector, tls: OnceCell::new() }))
    }

    /// The way to the server of `uri`.
    pub(crate) fn route(&self, uri: &Uri) -> Route {
        match self.0.proxies.intercept(uri) {
            Some(proxy) if uri.scheme() == Some(&Scheme::HTTP) => {
                Route::Forwarded { authorization: proxy.basic_auth().cloned() }
            }
            _ => Route::Straight,
        }
    }

    /// A connection to the server of `uri`, by the way that [`Dialer::route`] gives.
    pub(crate) async fn dial(&self, uri: &Uri) -> Result<Box<dyn Stream>, DialError> {
        let secure = uri.scheme() == Some(&Scheme::HTTPS);
        if !secure && !self.0.settings.allow_http {
            return Err(DialError::PlainHttp);
        }
        let patience = self.0.settings.connect_timeout;
        let dial = async {
            match self.0.proxies.intercept(uri) {
                None => self.direct(uri).await,
                Some(proxy) if secure => self.tunnel(&proxy, uri).await,
                Some(proxy) => self.direct(proxy.uri()).await,
            }
        };
        timeout(patience, dial).await.map_err(|_| DialError::TimedOut(patience))?.map_err(DialError::Failed)
    }

    async fn direct(&self, uri: &Uri) -> Result<Box<dyn Stream>, BoxError> {
        let tcp = self.0.connector.clone().call(uri.clone()).await?.into_inner();
        if uri.scheme() == Some(&Scheme::HTTPS) { self.encrypt(tcp, uri).await } else { Ok(Box::new(tcp)) }
    }

    async fn tunnel(&self, proxy: &Intercept, uri: &Uri) -> Result<Box<dyn Stream>, BoxError> {
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.clone());
        if let Some(authorization) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        let stream = tunnel.call(uri.clone()).await?.into_inner();
        self.encrypt(stream, uri).await
    }

    async fn encrypt(&self, stream: impl Stream + 'static, uri: &Uri) -> Result<Box<dyn Stream>, BoxError> {
        let settings = self.0.settings.clone();
        let config = self.0.tls.get_or_try_init(|| async {
            let config = tokio::task::spawn_blocking(move || tls::config(&settings)).await?;
            Ok::<_, BoxError>(Arc::new(config?))
        });
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let server = ServerName::try_from(host.to_owned())?;
        let connected = TlsConnector::from(Arc::clone(config.await?)).connect(server, stream).await;
        Ok(Box::new(connected.map_err(untrusted)?))
    }
}

/// A certificate that is refused is refused for good.
fn untrusted(error: std::io::Error) -> BoxError {
    match error.get_ref().and_then(|cause| cause.downcast_ref()) {
        Some(refused @ rustls::Error::InvalidCertificate(_)) => {
            HttpFailure::Untrusted { reason: refused.to_string() }.into()
        }
        _ => error.into(),
    }
}

/// For [`Tunnel`], which asks for the connection to the proxy.
impl Service<Uri> for Dialer {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        async move { dialer.direct(&uri).await.map(TokioIo::new) }.boxed()
    }
}

/// The variables by which an environment names proxies: those that curl knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProxyVariables {
    http: String,
    https: String,
    all: String,
    none: String,
}

impl ProxyVariables {
    /// Those of an environment.
    pub(crate) fn of(environment: &[(String, String)]) -> Self {
        let value = |upper: &str| {
            let named = |name: &str| environment.iter().find(|(variable, _)| variable == name);
            let found = named(upper).or_else(|| named(&upper.to_ascii_lowercase()));
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        Self {
            http: value("HTTP_PROXY"),
            https: value("HTTPS_PROXY"),
            all: value("ALL_PROXY"),
            none: value("NO_PROXY"),
        }
    }

    /// The hosts of the proxies.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let host = |proxy: &String| url::Url::parse(proxy).ok()?.host_str().map(str::to_owned);
        [&self.http, &self.https, &self.all].into_iter().filter_map(host).collect()
    }

    fn matcher(&self) -> Matcher {
        let Self { http, https, all, none } = self;
        Matcher::builder().http(http).https(https).all(all).no(none).build()
    }
}
