//! What can be set about the HTTP client of a store, read and checked; the keys are those of `object_store`.

use std::time::Duration;

use object_store::{ClientConfigKey, ClientOptions, Error, HeaderMap};
use url::Url;

const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// The settings of a client, as `object_store` names and reads them.
#[derive(Clone)]
pub(crate) struct Settings {
    options: ClientOptions,
    /// Headers of every request that does not have them already.
    pub(crate) headers: HeaderMap,
    /// Longest silence of a server: the key `timeout`.
    pub(crate) silence: Duration,
    /// Longest time until a connection can be used.
    pub(crate) connect_timeout: Duration,
    /// Whether connections may go without TLS.
    pub(crate) allow_http: bool,
    /// Whether any certificate will do.
    pub(crate) allow_invalid_certificates: bool,
    /// Whether connections spread over all addresses of a name.
    pub(crate) randomize_addresses: bool,
}

impl Settings {
    /// The settings in `options`; those that are not understood are errors.
    pub(crate) fn of(options: &ClientOptions) -> object_store::Result<Self> {
        let read = Reader(options);
        if let Some(proxy) = read.text(ClientConfigKey::ProxyUrl)
            && !Url::parse(&proxy).is_ok_and(|proxy| matches!(proxy.scheme(), "http" | "https") && proxy.has_host())
        {
            return Err(unreadable(ClientConfigKey::ProxyUrl, "is not an http:// or https:// URL"));
        }
        Ok(Self {
            headers: options.get_default_headers().cloned().unwrap_or_default(),
            silence: read.duration(ClientConfigKey::Timeout)?.unwrap_or(Duration::from_secs(30)),
            connect_timeout: read.duration(ClientConfigKey::ConnectTimeout)?.unwrap_or(Duration::from_secs(5)),
            allow_http: read.flag(ClientConfigKey::AllowHttp)?,
            allow_invalid_certificates: read.flag(ClientConfigKey::AllowInvalidCertificates)?,
            randomize_addresses: read.flag(ClientConfigKey::RandomizeAddresses)?,
            options: options.clone(),
        })
    }

    /// The same without what identifies us, for other servers.
    pub(crate) fn without_credentials(&self) -> Self {
        Self { headers: HeaderMap::new(), ..self.clone() }
    }

    /// How this client calls itself.
    pub(crate) fn user_agent(&self) -> String {
        Reader(&self.options).text(ClientConfigKey::UserAgent).unwrap_or_else(|| USER_AGENT.to_owned())
    }

    /// The proxy, if one is set, and the hosts that are reached without it.
    pub(crate) fn proxy(&self) -> Option<(String, String)> {
        let read = Reader(&self.options);
        let excludes = read.text(ClientConfigKey::ProxyExcludes).unwrap_or_default();
        Some((read.text(ClientConfigKey::ProxyUrl)?, excludes))
    }

    /// The certificate of the proxy's authority, as PEM.
    pub(crate) fn proxy_ca_certificate(&self) -> Option<String> {
        Reader(&self.options).text(ClientConfigKey::ProxyCaCertificate)
    }
}

struct Reader<'a>(&'a ClientOptions);

impl Reader<'_> {
    fn text(&self, key: ClientConfigKey) -> Option<String> {
        self.0.get_config_value(&key)
    }

    fn flag(&self, key: ClientConfigKey) -> object_store::Result<bool> {
        match self.text(key) {
            Some(text) => flag(&text).ok_or_else(|| unreadable(key, "is neither true nor false")),
            None => Ok(false),
        }
    }

    fn duration(&self, key: ClientConfigKey) -> object_store::Result<Option<Duration>> {
        self.text(key)
            .map(|text| humantime::parse_duration(&text).map_err(|_| unreadable(key, "is not a duration such as 30s")))
            .transpose()
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

/// Without the value: it may be secret.
fn unreadable(key: ClientConfigKey, what: &str) -> Error {
    Error::Generic { store: "HTTP client", source: format!("{} {what}", key.as_ref()).into() }
}
