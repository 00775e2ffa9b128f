//! Where a redirect may lead: not from a public server into the network this process stands in.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;
use url::{Host, Url};

use crate::storage::http::HttpFailure;

/// Redirects followed for one request.
pub(crate) const MOST_REDIRECTS: usize = 5;

/// Where a redirect from `from` to `location` leads, if it may. Hosts given by name are judged when they are resolved
/// ([`Resolver`]), so that a name cannot change its address in between.
pub(crate) fn target(from: &Url, location: &str, allow_private: bool) -> Result<Url, HttpFailure> {
    let refused = |to: &str, reason| Err(HttpFailure::RedirectRefused { to: to.to_owned(), reason });
    let Ok(to) = from.join(location) else { return refused("an unreadable address", "it is not a URL") };
    let host = to.host_str().unwrap_or_default();
    match to.scheme() {
        "https" => {}
        "http" if from.scheme() == "http" => {}
        "http" => return refused(host, "it leaves https"),
        _ => return refused(host, "it leaves HTTP"),
    }
    let address = match to.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        _ => None,
    };
    if !allow_private && !same_origin(from, &to) && address.is_some_and(is_private) {
        return refused(host, PRIVATE);
    }
    Ok(to)
}

/// Whether two URLs are served by the same server, to whom a request's credentials belong.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host() == b.host() && a.port_or_known_default() == b.port_or_known_default()
}

const PRIVATE: &str = "it is a private or link-local address; set allow_private_redirects if that is meant";

/// Resolves names as the operating system does.
#[derive(Debug, Clone)]
pub(crate) struct Resolver {
    public_only: bool,
    proxies: Arc<[String]>,
    rotate: bool,
    turn: Arc<AtomicUsize>,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let refuse = self.public_only && !self.proxies.iter().any(|proxy| proxy.eq_ignore_ascii_case(name.as_str()));
        let (rotate, turn) = (self.rotate, self.turn.fetch_add(1, Relaxed));
        async move {
            let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if addresses.is_empty() {
                return Err(io::Error::from(io::ErrorKind::NotFound).into());
            }
            if refuse && addresses.iter().any(|address| is_private(address.ip())) {
                return Err(HttpFailure::RedirectRefused { to: name.as_str().to_owned(), reason: PRIVATE }.into());
            }
            let first = if rotate { turn % addresses.len() } else { 0 };
            addresses.rotate_left(first);
            Ok(addresses.into_iter())
        }
        .boxed()
    }
}

impl Resolver {
    /// Resolves every name; with `rotate`, connections spread over all its addresses.
    pub(crate) fn any(rotate: bool) -> Self {
        Self { public_only: false, proxies: Arc::default(), rotate, turn: Arc::default() }
    }

    /// Refuses names of private addresses, but for those of `proxies`, which the user chose.
    pub(crate) fn public(proxies: Vec<String>, rotate: bool) -> Self {
        Self { public_only: true, proxies: proxies.into(), rotate, turn: Arc::default() }
    }
}

/// Whether an address means something only from where we are: private, link-local, loopback, or not for hosts at all.
pub(crate) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => is_private_v6(address),
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b)) // shared between carriers
        || (a == 198 && (18..20).contains(&b)) // benchmarks
        || (a == 192 && b == 0 && c == 0) // protocol assignments
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // An IPv4 address in disguise is what it hides: mapped, compatible, translated (64:ff9b::/96), 6to4.
    let inner = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_private_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inner(high, low),
        [0x2002, high, low, ..] => inner(high, low),
        [first, ..] => {
            first & 0xfe00 == 0xfc00 // unique local
                || first & 0xffc0 == 0xfe80 // link-local
                || first & 0xffc0 == 0xfec0 // site-local
                || address.is_multicast()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn from_to(from: &str, location: &str) -> Result<String, String> {
        let target = target(&Url::parse(from).unwrap(), location, false);
        target.map(|url| url.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_that_mean_something_only_here_are_private() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:169.254.169.254",
            "::10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ] {
            assert!(is_private(address.parse().unwrap()), "{address}");
        }
        for address in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
        {
            assert!(!is_private(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_redirect_into_the_private_network_or_out_of_https_is_refused() {
        for location in [
            "http://169.254.169.254/latest/meta-data",
            "http://2852039166/", // the same address as one number
            "http://[::1]/",
            "//127.0.0.1/x",
        ] {
            let error = from_to("http://example.com/a", location).unwrap_err();
            assert!(error.contains("private or link-local"), "{location}: {error}");
        }
        assert!(from_to("https://example.com/a", "http://example.com/a").unwrap_err().contains("leaves https"));
        assert!(from_to("https://example.com/a", "file:///etc/passwd").unwrap_err().contains("leaves HTTP"));
        assert_eq!(from_to("http://example.com/a", "https://1.1.1.1/b").unwrap(), "https://1.1.1.1/b");
    }

    #[test]
    fn a_server_may_redirect_to_itself_wherever_it_is() {
        assert_eq!(from_to("http://10.0.0.1:8000/a/b", "../c").unwrap(), "http://10.0.0.1:8000/c");
        assert!(from_to("http://10.0.0.1:8000/a", "http://10.0.0.1:8001/").is_err());
    }

    #[tokio::test]
    async fn a_name_of_a_private_address_is_refused_when_it_is_resolved() {
        let localhost = || "localhost".parse().unwrap();
        let error = Resolver::public(Vec::new(), true).call(localhost()).await.err().unwrap();
        assert!(matches!(error.downcast_ref(), Some(HttpFailure::RedirectRefused { .. })), "{error}");
        assert!(Resolver::any(true).call(localhost()).await.unwrap().next().unwrap().ip().is_loopback());
        assert!(Resolver::public(vec!["LOCALHOST".to_owned()], true).call(localhost()).await.is_ok());
    }
}
