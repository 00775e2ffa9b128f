//! TLS in front of another server of a test, with a certificate that nobody trusts unless told to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// The certificate, for `localhost` and `127.0.0.1`.
pub fn certificate() -> PathBuf {
    support("certificate.pem")
}

/// Its private key.
pub fn key() -> PathBuf {
    support("key.pem")
}

fn support(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/integration/support/tls", name].iter().collect()
}

/// Passes what arrives over TLS on to `upstream`, as long as the runtime lives; gives its port.
pub async fn start(upstream: SocketAddr) -> u16 {
    let certificate = CertificateDer::from_pem_file(certificate()).unwrap();
    let key = PrivateKeyDer::from_pem_file(key()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut client = acceptor.accept(stream).await?;
                let mut server = TcpStream::connect(upstream).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    port
}
