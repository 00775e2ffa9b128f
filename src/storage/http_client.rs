//! A reqwest client from the settings of a store. `object_store` has the same, but follows redirects to anywhere.

use std::sync::Arc;
use std::time::Duration;

use object_store::{ClientConfigKey, ClientOptions, Error, HeaderMap};
use reqwest::tls::Certificate;
use reqwest::{NoProxy, Proxy, redirect};
use url::Url;

use crate::storage::connections::{GateLayer, Ledger};
use crate::storage::redirect::Resolver;

const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// The settings of a client, as `object_store` names and reads them.
pub(crate) struct Settings {
    options: ClientOptions,
    headers: HeaderMap,
    /// Longest silence of a server: the key `timeout`.
    pub(crate) silence: Duration,
}

impl Settings {
    /// The settings in `options`; those that are not understood are errors.
    pub(crate) fn of(options: &ClientOptions) -> object_store::Result<Self> {
        let headers = options.get_default_headers().cloned().unwrap_or_default();
        let mut settings = Self { options: options.clone(), headers, silence: Duration::ZERO };
        settings.silence = settings.duration(ClientConfigKey::Timeout)?.unwrap_or(Duration::from_secs(30));
        settings.check()?;
        Ok(settings)
    }

    /// The same without what identifies us, for other servers.
    pub(crate) fn without_credentials(&self) -> Self {
        Self { options: self.options.clone(), headers: HeaderMap::new(), silence: self.silence }
    }

    /// The host of the proxy, if one is set.
    pub(crate) fn proxy_host(&self) -> Option<String> {
        host(&self.text(ClientConfigKey::ProxyUrl)?)
    }

    fn text(&self, key: ClientConfigKey) -> Option<String> {
        self.options.get_config_value(&key)
    }

    /// Whether `key` is set; checked when the settings were taken.
    pub(crate) fn flag(&self, key: ClientConfigKey) -> bool {
        self.text(key).and_then(|text| flag(&text)).unwrap_or(false)
    }

    fn duration(&self, key: ClientConfigKey) -> object_store::Result<Option<Duration>> {
        self.text(key)
            .map(|text| humantime::parse_duration(&text).map_err(|_| unreadable(key, "is not a duration such as 30s")))
            .transpose()
    }

    fn check(&self) -> object_store::Result<()> {
        for key in [
            ClientConfigKey::ConnectTimeout,
            ClientConfigKey::Http2KeepAliveInterval,
            ClientConfigKey::Http2KeepAliveTimeout,
        ] {
            self.duration(key)?;
        }
        for key in [
            ClientConfigKey::AllowHttp,
            ClientConfigKey::AllowInvalidCertificates,
            ClientConfigKey::Http1Only,
            ClientConfigKey::Http2Only,
            ClientConfigKey::Http2KeepAliveWhileIdle,
            ClientConfigKey::RandomizeAddresses,
        ] {
            if let Some(text) = self.text(key)
                && flag(&text).is_none()
            {
                return Err(unreadable(key, "is neither true nor false"));
            }
        }
        if let Some(size) = self.text(ClientConfigKey::Http2MaxFrameSize) {
            size.parse::<u32>()
                .map_err(|_| unreadable(ClientConfigKey::Http2MaxFrameSize, "is not a number of bytes"))?;
        }
        Ok(())
    }
}

/// What a text says about a setting that is on or off.
pub(crate) fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "on" | "yes" | "y" => Some(true),
        "0" | "false" | "off" | "no" | "n" => Some(false),
        _ => None,
    }
}

/// The host of a URL.
pub(crate) fn host(url: &str) -> Option<String> {
    Url::parse(url).ok()?.host_str().map(str::to_owned)
}

/// A client with its own connections, of which it keeps at most `idle` to a host; it begins them by way of `ledger`. Follows
/// no redirects.
pub(crate) fn build(
    settings: &Settings,
    idle: usize,
    resolver: Arc<Resolver>,
    ledger: Arc<Ledger>,
) -> reqwest::Result<reqwest::Client> {
    let duration = |key| settings.duration(key).ok().flatten();
    let mut builder = reqwest::ClientBuilder::new()
        .user_agent(settings.text(ClientConfigKey::UserAgent).unwrap_or_else(|| USER_AGENT.to_owned()))
        .default_headers(settings.headers.clone())
        .redirect(redirect::Policy::none())
        .connector_layer(GateLayer(ledger))
        .dns_resolver(resolver)
        .pool_max_idle_per_host(idle)
        .https_only(!settings.flag(ClientConfigKey::AllowHttp))
        // The size of an object is its Content-Length.
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate();
    if let Some(timeout) = duration(ClientConfigKey::ConnectTimeout) {
        builder = builder.connect_timeout(timeout);
    }
    if let Some(proxy) = settings.text(ClientConfigKey::ProxyUrl) {
        let mut proxy = Proxy::all(proxy)?;
        if let Some(excludes) = settings.text(ClientConfigKey::ProxyExcludes) {
            proxy = proxy.no_proxy(NoProxy::from_string(&excludes));
        }
        if let Some(certificate) = settings.text(ClientConfigKey::ProxyCaCertificate) {
            builder = builder.add_root_certificate(Certificate::from_pem(certificate.as_bytes())?);
        }
        builder = builder.proxy(proxy);
    }
    if settings.flag(ClientConfigKey::AllowInvalidCertificates) {
        builder = builder.danger_accept_invalid_certs(true);
    }
    if settings.flag(ClientConfigKey::Http2Only) {
        builder = builder.http2_prior_knowledge();
    } else if settings.flag(ClientConfigKey::Http1Only) {
        builder = builder.http1_only();
    }
    if let Some(interval) = duration(ClientConfigKey::Http2KeepAliveInterval) {
        builder = builder.http2_keep_alive_interval(interval);
    }
    if let Some(timeout) = duration(ClientConfigKey::Http2KeepAliveTimeout) {
        builder = builder.http2_keep_alive_timeout(timeout);
    }
    if settings.flag(ClientConfigKey::Http2KeepAliveWhileIdle) {
        builder = builder.http2_keep_alive_while_idle(true);
    }
    if let Some(size) = settings.text(ClientConfigKey::Http2MaxFrameSize).and_then(|size| size.parse::<u32>().ok()) {
        builder = builder.http2_max_frame_size(size);
    }
    builder.build()
}

/// Without the value: it may be secret.
fn unreadable(key: ClientConfigKey, what: &str) -> Error {
    Error::Generic { store: "HTTP client", source: format!("{} {what}", key.as_ref()).into() }
}
