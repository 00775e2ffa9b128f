//! A PostgreSQL server of the test's own: a new cluster in a temporary folder on a free port, ended with the test binary.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tempfile::TempDir;

/// A running server.
pub struct Cluster {
    programs: PathBuf,
    folder: TempDir,
    pub port: u16,
    /// Ends the server when its standard input closes, which happens at the latest when this process ends.
    _warden: Child,
    databases: AtomicUsize,
}

impl Cluster {
    /// The server that tests share, or the reason why there is none. On a build server it must be there.
    pub fn shared() -> Option<&'static Cluster> {
        static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
        SHARED.get_or_init(Cluster::start).as_ref()
    }

    /// Starts a server that nobody else uses.
    pub fn start() -> Option<Cluster> {
        let Some(programs) = programs() else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "PostgreSQL is needed for this test");
            println!("skipped: PostgreSQL is not installed");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(folder.path()));
        }
        let data = folder.path().join("data");
        run(as_postgres(&programs.join("initdb"))
            .args(["--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "-D"])
            .arg(&data));
        // The port is free until somebody else takes it in the meantime; then the server does not come up.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nmax_connections = 60\n\
             fsync = off\nshared_buffers = 64MB\nmax_wal_size = 4GB\nlog_min_messages = fatal\n",
            folder.path().display()
        );
        fs::OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"))
            .and_then(|mut file| file.write_all(settings.as_bytes()))
            .unwrap();
        let script = "cat > /dev/null; \"$1/pg_ctl\" -D \"$2\" -m immediate -s stop; rm -rf \"$3\"";
        let warden = as_postgres(Path::new("sh"))
            .args(["-c", script, "warden"])
            .args([&programs, &data, &folder.path().to_owned()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let cluster = Cluster { programs, folder, port, _warden: warden, databases: AtomicUsize::new(0) };
        cluster.pg_ctl(&["start"]);
        Some(cluster)
    }

    /// Runs `pg_ctl`: `start`, `stop -m immediate`.
    pub fn pg_ctl(&self, arguments: &[&str]) {
        let log = self.folder.path().join("log");
        run(as_postgres(&self.programs.join("pg_ctl"))
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .arg("-l")
            .arg(log)
            .args(["-s", "-w"])
            .args(arguments));
    }

    /// Has the server take TLS, with this certificate.
    pub fn use_tls(&self, certificate: &Path, key: &Path) {
        let data = self.folder.path().join("data");
        for (from, name) in [(certificate, "server.crt"), (key, "server.key")] {
            let to = data.join(name);
            fs::copy(from, &to).unwrap();
            run(Command::new("chmod").arg("600").arg(&to));
            if is_root() {
                run(Command::new("chown").arg("postgres").arg(&to));
            }
        }
        self.psql("postgres", "ALTER SYSTEM SET ssl = on");
        self.pg_ctl(&["restart"]);
    }

    /// A new database's URL.
    pub fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, SeqCst));
        self.psql("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgres://postgres@127.0.0.1:{}/{name}", self.port)
    }

    /// What `psql` answers, without headers, columns separated by `|`.
    pub fn ask(&self, url: &str, sql: &str) -> String {
        self.psql(url.rsplit('/').next().unwrap(), sql)
    }

    fn psql(&self, database: &str, sql: &str) -> String {
        let output = run(Command::new(self.programs.join("psql"))
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres", "-p"])
            .arg(self.port.to_string())
            .args(["-d", database, "-c", sql]));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }
}

/// Debian keeps several versions side by side; the newest is taken.
fn programs() -> Option<PathBuf> {
    let has_all = |folder: &PathBuf| ["initdb", "pg_ctl", "psql"].iter().all(|name| folder.join(name).is_file());
    let on_path = std::env::split_paths(&std::env::var_os("PATH")?).find(has_all);
    let versions = || fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path().join("bin")).max();
    on_path.or_else(versions).filter(has_all)
}

fn is_root() -> bool {
    let user = Command::new("id").arg("-u").output().unwrap();
    user.stdout.trim_ascii() == b"0"
}

/// The server refuses to run as root.
fn as_postgres(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program);
    command.current_dir("/");
    command
}

fn run(command: &mut Command) -> Output {
    // The server inherits what it is given: a pipe would stay open as long as it runs.
    let starts = command.get_args().any(|argument| argument == "start" || argument == "restart");
    let output = if starts {
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        Output { status, stdout: Vec::new(), stderr: Vec::new() }
    } else {
        command.output().unwrap()
    };
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
