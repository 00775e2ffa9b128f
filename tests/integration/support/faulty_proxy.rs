//! A proxy in front of another server that does to some requests what networks and busy servers do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures::FutureExt;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use super::http_server::{Reply, Response, Server, forward};

/// What is done to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    InternalError,
    /// 503 with `Retry-After: 0`.
    Unavailable,
    /// 429.
    TooMany,
    /// Reset before the request is passed on.
    ResetBefore,
    /// Reset after it was passed on: the answer is lost.
    ResetAfter,
    /// Half of the body, then the end of the connection.
    Truncated,
    /// The body in small pieces.
    Slow,
    /// The ETag of another version.
    SwappedTag,
}

impl Fault {
    pub const ALL: [Fault; 8] = [
        Fault::InternalError,
        Fault::Unavailable,
        Fault::TooMany,
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::Truncated,
        Fault::Slow,
        Fault::SwappedTag,
    ];
}

/// A running proxy.
pub struct FaultyProxy {
    pub server: Server,
    faults: Arc<AtomicUsize>,
}

impl FaultyProxy {
    /// Passes requests on to `upstream`. Each meets one of `faults` with the given probability; which do, and which fault it
    /// is, depends on `seed` and on how many requests came before.
    pub fn start(upstream: SocketAddr, seed: u64, probability: f64, faults: &'static [Fault]) -> Self {
        let injected = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&injected);
        let server = Server::start(Arc::new(move |request, number| {
            let mut random = Pcg64::seed_from_u64(seed ^ ((number as u64) << 32));
            let fault = random.random_bool(probability).then(|| faults[random.random_range(0..faults.len())]);
            if fault.is_some() {
                counter.fetch_add(1, SeqCst);
            }
            async move {
                match fault {
                    Some(Fault::InternalError) => return Response::new(500).into(),
                    Some(Fault::Unavailable) => return Response::new(503).with("retry-after", 0).into(),
                    Some(Fault::TooMany) => return Response::new(429).into(),
                    Some(Fault::ResetBefore) => return Reply::Reset,
                    _ => {}
                }
                let Ok(mut response) = forward(upstream, &request).await else { return Response::new(502).into() };
                match fault {
                    Some(Fault::ResetAfter) => Reply::Reset,
                    Some(Fault::Truncated) => {
                        let half = response.body.len() / 2;
                        Reply::Truncated(response, half)
                    }
                    Some(Fault::Slow) => {
                        let piece = response.body.len().div_ceil(5).max(1);
                        Reply::Slow(response, piece, Duration::from_millis(2))
                    }
                    Some(Fault::SwappedTag) => {
                        for (name, value) in &mut response.headers {
                            if name.eq_ignore_ascii_case("etag") {
                                *value = "\"another-version\"".to_owned();
                            }
                        }
                        response.into()
                    }
                    _ => response.into(),
                }
            }
            .boxed()
        }));
        Self { server, faults: injected }
    }

    /// Faults so far.
    pub fn faults(&self) -> usize {
        self.faults.load(SeqCst)
    }
}
