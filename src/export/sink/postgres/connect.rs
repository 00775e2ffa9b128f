//! From a `postgres://` URL to connections: TLS modes as libpq names them.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::{Host, SslMode};
use url::{Url, form_urlencoded};

use crate::export::ExportError;

/// How much TLS: the names and meanings of libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsMode {
    /// None.
    Disable,
    /// If the server has it; its certificate is not checked.
    Prefer,
    /// Always; its certificate is not checked. With `sslrootcert` it is as [`TlsMode::VerifyCa`].
    Require,
    /// Always; the certificate must be signed by a known authority.
    VerifyCa,
    /// Always; the certificate must be signed by a known authority and name the host.
    VerifyFull,
}

impl FromStr for TlsMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "disable" => TlsMode::Disable,
            "allow" | "prefer" => TlsMode::Prefer,
            "require" => TlsMode::Require,
            "verify-ca" => TlsMode::VerifyCa,
            "verify-full" => TlsMode::VerifyFull,
            _ => return Err(format!("sslmode={text} is none of disable, prefer, require, verify-ca and verify-full")),
        })
    }
}

/// How a database is reached.
#[derive(Clone)]
pub(in crate::export) struct PostgresOptions {
    pub(super) config: tokio_postgres::Config,
    pub(super) tls: ClientConfig,
    /// How much TLS.
    #[cfg(test)]
    mode: TlsMode,
    /// Host and port, to be named in errors.
    pub(super) address: String,
}

impl PostgresOptions {
    /// Understands `postgres://user:password@host:port/database?sslmode=…&sslrootcert=FILE` and the other parameters of
    /// `tokio_postgres`. Without `sslmode` a server on this machine is reached as with `prefer`, any other as with
    /// `verify-full`. Without `sslrootcert` the authorities are those of the system.
    pub(in crate::export) fn parse(target: &str, url: &str) -> Result<Self, ExportError> {
        let refused = |reason: String| ExportError::Target { target: target.to_owned(), reason };
        let mut parsed = Url::parse(url).map_err(|error| refused(format!("its URL cannot be read: {error}")))?;
        let (mut mode, mut authorities, mut kept) = (None, None, Vec::new());
        for pair in parsed.query().unwrap_or_default().split('&') {
            // As everywhere in these URLs, a plus sign is no space.
            let plain = pair.replace('+', "%2B");
            let Some((key, value)) = form_urlencoded::parse(plain.as_bytes()).next() else { continue };
            match key.as_ref() {
                "sslmode" => mode = Some(value.parse::<TlsMode>().map_err(refused)?),
                "sslrootcert" => authorities = Some(value.into_owned()),
                _ => kept.push(pair),
            }
        }
        let kept = (!kept.is_empty()).then(|| kept.join("&"));
        parsed.set_query(kept.as_deref());
        // The URL itself is not repeated in an error: it holds the password.
        let mut config = tokio_postgres::Config::from_str(parsed.as_str())
            .map_err(|error| refused(format!("its URL cannot be used: {}", cause_of(&error))))?;
        let local = config.get_hosts().iter().all(is_local);
        let mode = match mode.unwrap_or(if local { TlsMode::Prefer } else { TlsMode::VerifyFull }) {
            TlsMode::Require if authorities.is_some() => TlsMode::VerifyCa,
            mode => mode,
        };
        config.ssl_mode(match mode {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
        if config.get_application_name().is_none() {
            config.application_name("normstream");
        }
        let tls = client_config(mode, authorities.as_deref().map(Path::new))
            .map_err(|reason| ExportError::Tls { target: target.to_owned(), reason })?;
        Ok(Self {
            address: address_of(&config),
            config,
            tls,
            #[cfg(test)]
            mode,
        })
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

fn address_of(config: &tokio_postgres::Config) -> String {
    let ports = config.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    let address = |(index, host): (usize, &Host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port(index)),
        #[cfg(unix)]
        Host::Unix(path) => path.display().to_string(),
    };
    config.get_hosts().iter().enumerate().map(address).collect::<Vec<_>>().join(", ")
}

fn cause_of(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

fn client_config(mode: TlsMode, authorities: Option<&Path>) -> Result<ClientConfig, String> {
    // Other libraries bring other providers; none is taken for granted.
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let dangerous = match mode {
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => Verifier { provider, authorities: None },
        TlsMode::VerifyFull => {
            return Ok(builder.with_root_certificates(roots(authorities)?).with_no_client_auth());
        }
        TlsMode::VerifyCa => {
            let roots = Arc::new(roots(authorities)?);
            let inner = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
            Verifier { provider, authorities: Some(inner.map_err(|error| error.to_string())?) }
        }
    };
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(dangerous)).with_no_client_auth())
}

/// The authorities of a file, or those of the system.
fn roots(authorities: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(file) => {
            let unreadable = |error| format!("sslrootcert {} cannot be read: {error}", file.display());
            for certificate in CertificateDer::pem_file_iter(file).map_err(unreadable)? {
                roots.add(certificate.map_err(unreadable)?).map_err(|error| error.to_string())?;
            }
        }
        None => {
            let (_, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err("no certificate authority is known: give sslrootcert=FILE in the URL".to_owned());
    }
    Ok(roots)
}

/// Checks less of a certificate than the default does: not the host, or nothing at all.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// Whoever must have signed; anybody if there is none.
    authorities: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(authorities) = &self.authorities else { return Ok(ServerCertVerified::assertion()) };
        match authorities.verify_server_cert(certificate, intermediates, host, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parsed(url: &str) -> Result<PostgresOptions, ExportError> {
        PostgresOptions::parse("dw", url)
    }

    #[test]
    fn a_server_on_this_machine_needs_no_certificate_and_any_other_does() {
        assert_eq!(parsed("postgres://u@localhost/db").unwrap().mode, TlsMode::Prefer);
        assert_eq!(parsed("postgres://u@127.0.0.1:5433/db").unwrap().mode, TlsMode::Prefer);
        assert_eq!(parsed("postgres://u@dw.example.com/db?sslmode=require").unwrap().mode, TlsMode::Require);
        let root = parsed("postgres://u@dw.example.com/db?sslrootcert=/nowhere.pem").err().unwrap().to_string();
        assert!(root.starts_with("dw: TLS cannot be used: sslrootcert /nowhere.pem cannot be read"), "{root}");
    }

    #[test]
    fn other_parameters_reach_the_database_and_the_address_names_host_and_port() {
        let options = parsed("postgres://u:p%40ss@localhost:5433/db?connect_timeout=7&sslmode=disable").unwrap();
        assert_eq!(options.config.get_password(), Some(b"p@ss".as_slice()));
        assert_eq!(options.config.get_connect_timeout(), Some(&std::time::Duration::from_secs(7)));
        assert_eq!(options.address, "localhost:5433");
        assert_eq!(options.config.get_application_name(), Some("normstream"));
    }

    #[test]
    fn other_parameters_are_kept_as_they_are_written() {
        let options =
            parsed("postgres://u@localhost/db?options=-c%20search_path%3Ddw&sslmode=disable&user=a+b").unwrap();
        assert_eq!(options.config.get_options(), Some("-c search_path=dw"));
        assert_eq!(options.config.get_user(), Some("a+b"));
    }

    #[test]
    fn a_plus_sign_in_the_name_of_a_file_of_authorities_is_one() {
        let root =
            parsed("postgres://u@localhost/db?sslmode=verify-ca&sslrootcert=/no+where%20here.pem").err().unwrap();
        assert!(root.to_string().contains("sslrootcert /no+where here.pem cannot be read"), "{root}");
    }

    #[test]
    fn an_authority_that_is_named_is_asked_where_tls_is_required() {
        let root = parsed("postgres://u@dw.example.com/db?sslmode=require&sslrootcert=/nowhere.pem").err().unwrap();
        assert!(root.to_string().contains("sslrootcert /nowhere.pem cannot be read"), "{root}");
        let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/support/tls/certificate.pem");
        let url = format!("postgres://u@dw.example.com/db?sslmode=require&sslrootcert={authority}");
        assert_eq!(parsed(&url).unwrap().mode, TlsMode::VerifyCa);
    }

    #[test]
    fn an_error_of_the_url_does_not_repeat_the_password() {
        for url in ["postgres://u:canary@localhost/db?sslmode=maybe", "postgres://u:canary@localhost/db?flavour=mint"] {
            let error = parsed(url).err().unwrap().to_string();
            assert!(error.contains("the target dw cannot be used"), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
