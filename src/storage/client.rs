//! Builds the client of one store from its URL, its section of the config and the cloud's own environment variables.
//! Pools, retries and redirects are elsewhere.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::{ClientConfigKey, ClientOptions, HeaderMap, HeaderValue, ObjectStore, RetryConfig};
use url::Url;

use crate::storage::http::{Connector, Wire};
use crate::storage::{Result, Scheme, StorageError, client_settings};

/// The keys of one store's section, as they stand in the config.
pub(crate) type Section = BTreeMap<String, String>;

/// Keys every remote store takes: those of the HTTP client.
const CLIENT_KEYS: [&str; 10] = [
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "default_content_type",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "randomize_addresses",
    "timeout",
    "user_agent",
];

const S3_KEYS: [&str; 27] = [
    "access_key_id",
    "bucket",
    "checksum_algorithm",
    "conditional_put",
    "container_authorization_token_file",
    "container_credentials_full_uri",
    "container_credentials_relative_uri",
    "copy_if_not_exists",
    "disable_tagging",
    "endpoint",
    "endpoint_url_sts",
    "imdsv1_fallback",
    "metadata_endpoint",
    "region",
    "request_payer",
    "role_arn",
    "role_session_name",
    "s3_express",
    "secret_access_key",
    "server_side_encryption",
    "session_token",
    "skip_signature",
    "sse_customer_key_base64",
    "sse_kms_key_id",
    "unsigned_payload",
    "virtual_hosted_style_request",
    "web_identity_token_file",
];

const GCS_KEYS: [&str; 5] =
    ["application_credentials", "base_url", "service_account", "service_account_key", "skip_signature"];

const AZURE_KEYS: [&str; 20] = [
    "access_key",
    "account_key",
    "account_name",
    "authority_host",
    "authority_id",
    "bearer_token",
    "client_id",
    "client_secret",
    "container_name",
    "disable_tagging",
    "endpoint",
    "federated_token_file",
    "msi_endpoint",
    "msi_resource_id",
    "object_id",
    "sas_key",
    "skip_signature",
    "tenant_id",
    "use_azure_cli",
    "use_emulator",
];

/// Parts of keys that `object_store` knows and that mean nothing here: how many connections are kept is the pool's matter,
/// and a connection carries one request at a time.
const NOT_OURS: [&str; 4] = ["pool_max_idle_per_host", "pool_idle_timeout", "http1_", "http2_"];

/// The whole header `Authorization` of requests to a web server.
const AUTHORIZATION_KEY: &str = "authorization";

const HTTP_KEYS: [&str; 1] = [AUTHORIZATION_KEY];

/// Whether every key of `section` means something to a store of this kind.
pub(crate) fn check_keys(store: &str, scheme: Scheme, section: &Section) -> Result<()> {
    for key in section.keys() {
        let name = key.to_ascii_lowercase();
        let (known, names): (bool, &[&str]) = match scheme {
            Scheme::S3 => (AmazonS3ConfigKey::from_str(&name).is_ok(), &S3_KEYS),
            Scheme::Gcs => (GoogleConfigKey::from_str(&name).is_ok(), &GCS_KEYS),
            Scheme::Azure => (AzureConfigKey::from_str(&name).is_ok(), &AZURE_KEYS),
            Scheme::Http => (ClientConfigKey::from_str(&name).is_ok() || name == AUTHORIZATION_KEY, &HTTP_KEYS),
            Scheme::Local | Scheme::Memory => (false, &[]),
        };
        if !known || NOT_OURS.iter().any(|part| name.contains(part)) {
            let shared: &[&str] = if scheme.is_remote() { &CLIENT_KEYS } else { &[] };
            let nearest = names
                .iter()
                .chain(shared)
                .map(|candidate| (strsim::jaro_winkler(&name, candidate), *candidate))
                .filter(|(likeness, _)| *likeness > 0.8)
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .map(|(_, candidate)| candidate.to_owned());
            return Err(StorageError::UnknownKey { store: store.to_owned(), key: key.clone(), nearest });
        }
    }
    Ok(())
}

/// The client of the store at `store_url`; makes no request. `environment` may hold anything: only the cloud's own
/// variables are used, and `section` is stronger. Nothing is retried above `wire`.
pub(crate) fn build(
    scheme: Scheme,
    store_url: &Url,
    section: &Section,
    environment: &[(String, String)],
    wire: &Arc<Wire>,
) -> Result<Arc<dyn ObjectStore>> {
    let store = name_of(store_url);
    let failed = |source| StorageError::Client { store: store.clone(), source: Box::new(source) };
    let connector = Connector(Arc::clone(wire));
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    match scheme {
        Scheme::Local | Scheme::Memory => {
            let scheme = store_url.scheme().to_owned();
            Err(StorageError::UnsupportedScheme { target: store, scheme })
        }
        Scheme::S3 => {
            let mut builder = AmazonS3Builder::new();
            for (key, value) in settings(scheme, section, environment) {
                builder = builder.with_config(key, value);
            }
            let allow_http = builder.get_config_value(&AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
            for endpoint in [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint] {
                refuse_plain_http(&store, builder.get_config_value(&endpoint), allow_http.as_deref())?;
            }
            let builder = builder.with_url(store_url.as_str()).with_retry(retry).with_http_connector(connector);
            Ok(Arc::new(builder.build().map_err(failed)?))
        }
        Scheme::Gcs => {
            let mut builder = GoogleCloudStorageBuilder::new();
            for (key, value) in settings(scheme, section, environment) {
                builder = builder.with_config(key, value);
            }
            let allow_http = builder.get_config_value(&GoogleConfigKey::Client(ClientConfigKey::AllowHttp));
            let endpoint = builder.get_config_value(&GoogleConfigKey::BaseUrl);
            refuse_plain_http(&store, endpoint, allow_http.as_deref())?;
            let builder = builder.with_url(store_url.as_str()).with_retry(retry).with_http_connector(connector);
            Ok(Arc::new(builder.build().map_err(failed)?))
        }
        Scheme::Azure => {
            let mut builder = MicrosoftAzureBuilder::new();
            for (key, value) in settings(scheme, section, environment) {
                builder = builder.with_config(key, value);
            }
            let allow_http = builder.get_config_value(&AzureConfigKey::Client(ClientConfigKey::AllowHttp));
            let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
            refuse_plain_http(&store, endpoint, allow_http.as_deref())?;
            let builder = builder.with_url(store_url.as_str()).with_retry(retry).with_http_connector(connector);
            Ok(Arc::new(builder.build().map_err(failed)?))
        }
        Scheme::Http => {
            let mut options = ClientOptions::new();
            // Whoever writes http:// has allowed it.
            if store_url.scheme() == "http" {
                options = options.with_allow_http(true);
            }
            for (key, value) in settings(scheme, section, environment) {
                options = options.with_config(key, value);
            }
            if let Some(value) = section.get(AUTHORIZATION_KEY) {
                let mut value = HeaderValue::from_str(value)
                    .map_err(|_| StorageError::UnreadableKey { store: store.clone(), key: AUTHORIZATION_KEY })?;
                value.set_sensitive(true);
                options = options.with_default_headers(HeaderMap::from_iter([(AUTHORIZATION, value)]));
            }
            let builder = HttpBuilder::new().with_url(store.as_str()).with_client_options(options);
            Ok(Arc::new(builder.with_retry(retry).with_http_connector(connector).build().map_err(failed)?))
        }
    }
}

/// Scheme and authority without a final slash: how a store is named in messages and in the config.
pub(crate) fn name_of(store_url: &Url) -> String {
    store_url[..url::Position::BeforePath].to_owned()
}

/// The cloud's own variables out of the environment, then the section: the later is the stronger.
fn settings<'a, Key: FromStr + 'a>(
    scheme: Scheme,
    section: &'a Section,
    environment: &'a [(String, String)],
) -> impl Iterator<Item = (Key, &'a str)> {
    let prefix = match scheme {
        Scheme::S3 => "AWS_",
        Scheme::Gcs => "GOOGLE_",
        Scheme::Azure => "AZURE_",
        Scheme::Http | Scheme::Local | Scheme::Memory => "",
    };
    let cloud = environment.iter().filter_map(move |(name, value)| {
        let name = match (scheme, name.as_str()) {
            (Scheme::Gcs, "SERVICE_ACCOUNT") => "service_account",
            (Scheme::Azure, "IDENTITY_ENDPOINT") => "identity_endpoint",
            (_, name) if !prefix.is_empty() && name.starts_with(prefix) => name,
            _ => return None,
        };
        Some((name, value.as_str()))
    });
    let section = section.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    cloud.chain(section).filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)))
}

fn refuse_plain_http(store: &str, endpoint: Option<String>, allow_http: Option<&str>) -> Result<()> {
    let plain = endpoint.is_some_and(|endpoint| endpoint.to_ascii_lowercase().starts_with("http://"));
    let allowed = allow_http.and_then(client_settings::flag).unwrap_or(false);
    if plain && !allowed {
        return Err(StorageError::PlainHttp { store: store.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::storage::dial::ProxyVariables;
    use crate::storage::pool::Pool;
    use crate::storage::{PoolOptions, RetryOptions};

    fn section(keys: &[(&str, &str)]) -> Section {
        keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn refused_key(scheme: Scheme, key: &str) -> String {
        check_keys("s3://b", scheme, &section(&[(key, "x")])).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_the_nearest_one() {
        assert_eq!(
            refused_key(Scheme::S3, "endpiont"),
            "[storage.\"s3://b\"] has the unknown key endpiont; did you mean endpoint?"
        );
        assert_eq!(
            refused_key(Scheme::S3, "secret_acces_key"),
            "[storage.\"s3://b\"] has the unknown key secret_acces_key; did you mean secret_access_key?"
        );
        assert_eq!(
            refused_key(Scheme::Azure, "acount_name"),
            "[storage.\"s3://b\"] has the unknown key acount_name; did you mean account_name?"
        );
        assert_eq!(refused_key(Scheme::Gcs, "zzz"), "[storage.\"s3://b\"] has the unknown key zzz");
        assert_eq!(
            refused_key(Scheme::Http, "time_out"),
            "[storage.\"s3://b\"] has the unknown key time_out; did you mean timeout?"
        );
    }

    #[test]
    fn every_suggested_key_is_one_the_store_takes() {
        for (scheme, keys) in [(Scheme::S3, &S3_KEYS[..]), (Scheme::Gcs, &GCS_KEYS), (Scheme::Azure, &AZURE_KEYS)] {
            for key in keys.iter().chain(&CLIENT_KEYS) {
                check_keys("store", scheme, &section(&[(key, "x")])).unwrap();
            }
        }
        for key in CLIENT_KEYS.iter().chain(&HTTP_KEYS) {
            check_keys("store", Scheme::Http, &section(&[(key, "x")])).unwrap();
        }
    }

    #[test]
    fn the_environment_configures_a_store_and_its_section_is_stronger() {
        let environment = [
            ("AWS_REGION".to_owned(), "eu-west-1".to_owned()),
            ("AWS_PROFILE".to_owned(), "ignored".to_owned()),
            ("HOME".to_owned(), "/root".to_owned()),
        ];
        let section = section(&[("region", "eu-north-1")]);
        let values: Vec<(AmazonS3ConfigKey, &str)> = settings(Scheme::S3, &section, &environment).collect();
        assert_eq!(values, [(AmazonS3ConfigKey::Region, "eu-west-1"), (AmazonS3ConfigKey::Region, "eu-north-1")]);
    }

    #[test]
    fn a_plain_http_endpoint_has_to_be_allowed() {
        let url = Url::parse("s3://bucket/").unwrap();
        let plain = [("endpoint", "http://127.0.0.1:9000"), ("access_key_id", "a"), ("secret_access_key", "b")];
        let pool = Pool::new("s3://bucket", PoolOptions::default());
        let wire = Wire::new(pool, RetryOptions::default(), false, ProxyVariables::default());
        let error = build(Scheme::S3, &url, &section(&plain), &[], &wire).unwrap_err();
        assert!(matches!(error, StorageError::PlainHttp { ref store } if store == "s3://bucket"), "{error}");
        let allowed = [plain.as_slice(), &[("allow_http", "true")]].concat();
        build(Scheme::S3, &url, &section(&allowed), &[], &wire).unwrap();
    }
}
