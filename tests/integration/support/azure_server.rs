//! An Azure-compatible blob server: Azurite, from npm, started and stopped by the test.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The account every Azurite has, and its published key.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Creates a container: the one request that has to be signed by hand.
const CREATE_CONTAINER: &str = r"
const [port, account, key, container] = process.argv.slice(1);
const date = new Date().toUTCString(), version = '2021-08-06', path = '/' + account + '/' + container;
const text = 'PUT' + '\n'.repeat(12) + 'x-ms-date:' + date + '\nx-ms-version:' + version + '\n/' + account + path
    + '\nrestype:container';
const hmac = require('crypto').createHmac('sha256', Buffer.from(key, 'base64')).update(text, 'utf8');
const headers = {
    'x-ms-date': date, 'x-ms-version': version, 'content-length': 0,
    authorization: 'SharedKey ' + account + ':' + hmac.digest('base64'),
};
const request = { port, method: 'PUT', path: path + '?restype=container', headers };
require('http').request(request, answer => process.exit(answer.statusCode === 201 ? 0 : 1)).end();
";

/// A running server with one container, named `container`.
pub struct AzureServer {
    pub address: SocketAddr,
    process: Child,
}

impl AzureServer {
    /// Starts a server, or says why there is none. On a build server with node it must be there.
    pub fn start() -> Option<Self> {
        let Some(azurite) = azurite() else {
            let node = Command::new("node").arg("--version").output().is_ok();
            assert!(
                !node || std::env::var("CI").as_deref() != Ok("true"),
                "azurite is needed for this test: npm has it"
            );
            println!("skipped: azurite-blob is not installed");
            return None;
        };
        // The port is free until somebody else takes it in the meantime; then the server does not come up.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let port = address.port().to_string();
        let process = Command::new(azurite)
            .args(["--blobPort", &port, "--inMemoryPersistence", "--silent"])
            .args(["--skipApiVersionCheck", "--disableTelemetry"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { address, process };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(started.elapsed() < Duration::from_secs(60), "the Azure server does not come up");
            std::thread::sleep(Duration::from_millis(50));
        }
        let created = Command::new("node").args(["-e", CREATE_CONTAINER, &port, ACCOUNT, KEY, "container"]).status();
        assert!(created.unwrap().success());
        Some(server)
    }

    /// The settings of `[storage."az://container"]` that reach this server.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("endpoint", format!("http://{}/{ACCOUNT}", self.address)),
            ("allow_http", "true".to_owned()),
            ("account_name", ACCOUNT.to_owned()),
            ("account_key", KEY.to_owned()),
        ]
    }
}

impl Drop for AzureServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program, on the path or where the build server's script puts it.
fn azurite() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let installed = cache.map(|cache| cache.join("normstream/node/node_modules/.bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain(installed);
    folders.find_map(|folder| Some(folder.join("azurite-blob")).filter(|program| program.is_file()))
}
