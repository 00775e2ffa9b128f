//! An S3-compatible server: `moto`, from PyPI, started and stopped by the test.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::http_server::{Request, forward};

/// A running server with one bucket, named `bucket`.
pub struct S3Server {
    pub address: SocketAddr,
    process: Child,
}

impl S3Server {
    /// Starts a server, or says why there is none. On a build server it must be there.
    pub fn start() -> Option<Self> {
        let has_moto = Command::new("python3")
            .args(["-c", "import moto.server"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !has_moto {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "python3 with moto[server] is needed for this test");
            println!("skipped: python3 with moto[server] is not installed");
            return None;
        }
        // The port is free until somebody else takes it in the meantime; then the server does not come up.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new("python3")
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { address, process };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(started.elapsed() < Duration::from_secs(60), "the S3 server does not come up");
            std::thread::sleep(Duration::from_millis(50));
        }
        server.create_bucket();
        Some(server)
    }

    /// The settings of `[storage."s3://bucket"]` that reach this server, or a proxy before it at `endpoint`.
    pub fn settings(endpoint: &str) -> Vec<(&'static str, String)> {
        vec![
            ("endpoint", endpoint.to_owned()),
            ("allow_http", "true".to_owned()),
            ("access_key_id", "test-key".to_owned()),
            ("secret_access_key", "canary-secret-access-key".to_owned()),
            ("region", "us-east-1".to_owned()),
        ]
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn create_bucket(&self) {
        let headers = [("host".to_owned(), self.address.to_string())].into();
        let request = Request { method: "PUT".to_owned(), target: "/bucket".to_owned(), headers, body: Vec::new() };
        // On a thread of its own: the test may be in a runtime already.
        let send = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(forward(self.address, &request)).unwrap()
        };
        let response = std::thread::scope(|scope| scope.spawn(send).join().unwrap());
        assert_eq!(response.status, 200, "{response:?}");
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
