//! A web server with files in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;

use super::http_server::{Reply, Response, Server, serve_file};

/// Files by path (`/a/b`), with how often each was written.
pub type Files = Arc<Mutex<BTreeMap<String, (Arc<[u8]>, u32)>>>;

/// A running web server, and the files it serves.
pub struct StaticFiles {
    pub server: Server,
    files: Files,
}

impl StaticFiles {
    /// Serves files, each answer after `latency`.
    pub fn start(latency: Duration) -> Self {
        let files = Files::default();
        let served = Arc::clone(&files);
        let server = Server::start(Arc::new(move |request, _| {
            let files = Arc::clone(&served);
            async move {
                tokio::time::sleep(latency).await;
                if !matches!(request.method.as_str(), "GET" | "HEAD") {
                    return Response::new(405).into();
                }
                let found = files.lock().unwrap().get(&request.target).cloned();
                match found {
                    Some((content, version)) => {
                        Reply::Answer(serve_file(&request, &content, &format!("\"v{version}-{}\"", content.len())))
                    }
                    None => Response::new(404).into(),
                }
            }
            .boxed()
        }));
        Self { server, files }
    }

    /// The same files on another server.
    pub fn on_another_server(&self, latency: Duration) -> Self {
        let other = Self::start(latency);
        other.files.lock().unwrap().clone_from(&self.files.lock().unwrap());
        other
    }

    /// Serves `content` under `path`, with a new ETag.
    pub fn put(&self, path: &str, content: impl Into<Vec<u8>>) {
        let mut files = self.files.lock().unwrap();
        let version = files.get(path).map_or(1, |(_, version)| version + 1);
        files.insert(path.to_owned(), (content.into().into(), version));
    }
}
