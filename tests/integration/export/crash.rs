//! Exporter and server die at every place where that could matter, and the target has each row once.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use chrono::{SecondsFormat, Utc};
use normstream::storage::{Storage, StorageOptions};
use normstream::table::Table;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use tempfile::TempDir;

use crate::support::postgres::Cluster;
use crate::support::{integers, read_parquet};

/// Rows that a round adds to the source: several batches of a COPY.
const ROWS: u64 = 20_000;

/// Files that grow round by round, and an export of what is new in them.
struct Source {
    folder: TempDir,
    rounds: u64,
}

impl Source {
    fn new(url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let query = "SELECT CAST(n AS BIGINT) AS n, repeat('x', 40) AS padding, \
                     arrow_cast(t, 'Timestamp(Microsecond, Some(\\\"UTC\\\"))') AS t FROM 'rows/*.csv'";
        let settings = format!(
            "[targets.dw]\nurl = \"{url}\"\n[exports.nightly]\nquery = \"{query}\"\ntarget = \"dw\"\ntable = \"scores\"\n\
             incremental = \"column:t\"\noverlap = \"queue\"\nretries = 0\n"
        );
        fs::create_dir(folder.path().join("rows")).unwrap();
        fs::write(folder.path().join("normstream.toml"), settings).unwrap();
        Self { folder, rounds: 0 }
    }

    /// Adds the rows of another round.
    fn grow(&mut self) {
        let now = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
        let first = self.rounds * ROWS;
        let rows: String = (first..first + ROWS).map(|n| format!("{n},{now}\n")).collect();
        fs::write(self.folder.path().join(format!("rows/{:04}.csv", self.rounds)), format!("n,t\n{rows}")).unwrap();
        self.rounds += 1;
    }

    fn start(&self, failpoints: &str) -> Child {
        Command::new(cargo_bin("normstream"))
            .args(["export", "run"])
            .env("FAILPOINTS", failpoints)
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.folder.path().join("stderr")).unwrap())
            .spawn()
            .unwrap()
    }

    fn run(&self, failpoints: &str) -> ExitStatus {
        self.start(failpoints).wait().unwrap()
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    /// Exports without a disturbance; then the target has what the source has, each row once, and the cursor is that of the
    /// last entry of the ledger.
    fn check(&self, server: &Cluster, url: &str, round: &str) {
        assert!(self.run("").success(), "{round}: {}", self.stderr());
        let rows = self.rounds * ROWS;
        let sums = server.ask(url, "SELECT count(*), count(DISTINCT n), sum(n) FROM scores");
        assert_eq!(sums, format!("{rows}|{rows}|{}", rows * (rows - 1) / 2), "{round}: {}", self.stderr());
        let ledger = "SELECT sum(rows), count(*) = count(DISTINCT cursor_time),
                             max(cursor_time) = (SELECT cursor_time FROM normstream_exports ORDER BY sequence DESC LIMIT 1)
                      FROM normstream_exports";
        assert_eq!(server.ask(url, ledger), format!("{rows}|t|t"), "{round}");
    }
}

/// Ends a process as `kill -9` does.
fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn thirty_deaths_of_exporter_and_server_neither_lose_nor_double_a_row() {
    let Some(server) = Cluster::start() else { return };
    let url = server.database();
    let mut source = Source::new(&url);
    source.grow();
    source.check(&server, &url, "the first export");
    let mut random = Pcg64::seed_from_u64(7);

    // The exporter at each place, three times; at others it is somewhere in the middle.
    for place in ["leased", "copying", "staged", "merged", "committed"] {
        for time in 0..3 {
            source.grow();
            assert!(!source.run(&format!("export::{place}=return")).success(), "{place}");
            source.check(&server, &url, &format!("{place} {time}"));
        }
    }
    for time in 0..6 {
        source.grow();
        let child = source.start("");
        sleep(Duration::from_millis(random.random_range(100..900)));
        kill(child);
        source.check(&server, &url, &format!("somewhere {time}"));
    }

    // The server while rows are copied.
    for time in 0..3 {
        source.grow();
        let mut child = source.start("export::copying=sleep(300)");
        sleep(Duration::from_millis(random.random_range(500..1_000)));
        server.pg_ctl(&["stop", "-m", "immediate"]);
        assert_eq!(child.wait().unwrap().code(), Some(75), "{}", source.stderr());
        server.pg_ctl(&["start"]);
        source.check(&server, &url, &format!("server, copying {time}"));
    }

    // The server within the commit, before it is durable: a trigger holds it there.
    let hold =
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2); RETURN NULL; END';
                CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON normstream_exports DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION hold()";
    server.ask(&url, hold);
    for time in 0..3 {
        source.grow();
        server.ask(&url, "ALTER TABLE normstream_exports ENABLE TRIGGER hold");
        let child = source.start("");
        until_commit(&server, &url, "PgSleep");
        server.pg_ctl(&["stop", "-m", "immediate"]);
        server.pg_ctl(&["start"]);
        // It looks its commit up, does not find it, and says so.
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(75), "{}", source.stderr());
        server.ask(&url, "ALTER TABLE normstream_exports DISABLE TRIGGER hold");
        source.check(&server, &url, &format!("server, committing {time}"));
    }

    // The server within the commit, after it is durable: it waits for a standby that does not exist, and the reply is lost.
    let wait = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
                    'BEGIN PERFORM set_config(''synchronous_commit'', ''on'', true); RETURN NEW; END';
                CREATE TRIGGER wait BEFORE INSERT ON normstream_exports FOR EACH ROW EXECUTE FUNCTION wait()";
    server.ask(&url, "ALTER SYSTEM SET synchronous_commit = 'local'");
    server.ask(&url, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    server.ask(&url, "SELECT pg_reload_conf()");
    server.ask(&url, wait);
    for time in 0..3 {
        source.grow();
        server.ask(&url, "ALTER TABLE normstream_exports ENABLE TRIGGER wait");
        let child = source.start("");
        until_commit(&server, &url, "SyncRep");
        server.pg_ctl(&["stop", "-m", "immediate"]);
        server.pg_ctl(&["start"]);
        // It looks its commit up, and finds it.
        assert!(child.wait_with_output().unwrap().status.success(), "{}", source.stderr());
        server.ask(&url, "ALTER TABLE normstream_exports DISABLE TRIGGER wait");
        source.check(&server, &url, &format!("server, committed {time}"));
    }
}

/// Waits until a connection of ours waits in a commit.
fn until_commit(server: &Cluster, url: &str, event: &str) {
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'normstream' AND wait_event = '{event}' AND query = 'COMMIT'"
    );
    for _ in 0..600 {
        if server.ask(url, &waiting) == "1" {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    panic!("no commit was seen to wait");
}

/// Rows that a target in a folder has, in order.
type Rows = fn(&Path) -> Vec<u64>;

/// The formats of folders, and how each is read.
const FOLDERS: [(&str, Rows); 2] = [("csv", rows_of_files), ("delta", rows_of_delta)];

fn source_into(target: &Path, format: &str) -> Source {
    let source = Source::new(target.to_str().unwrap());
    let settings = source.folder.path().join("normstream.toml");
    let text = fs::read_to_string(&settings).unwrap().replace("[exports", &format!("format = \"{format}\"\n[exports"));
    fs::write(&settings, text).unwrap();
    source
}

#[test]
fn folders_have_each_row_once_wherever_the_exporter_dies() {
    for (format, rows_of) in FOLDERS {
        let target = tempfile::tempdir().unwrap();
        let mut source = source_into(target.path(), format);
        let mut random = Pcg64::seed_from_u64(11);
        let check = |source: &Source, place: &str| {
            // Nobody gives the lease of a dead process back; a minute later it would have ended.
            end_leases(&target.path().join("_normstream/scores/nightly"));
            assert!(source.run("").success(), "{format} {place}: {}", source.stderr());
            let rows = rows_of(target.path());
            assert!(rows.iter().copied().eq(0..source.rounds * ROWS), "{format} {place}: {} rows", rows.len());
        };
        // The first leaves files where there is no table yet.
        for place in ["merged", "leased", "copying", "staged", "committed"] {
            source.grow();
            assert!(!source.run(&format!("export::{place}=return")).success(), "{place}");
            check(&source, place);
        }
        for _ in 0..3 {
            source.grow();
            let child = source.start("");
            sleep(Duration::from_millis(random.random_range(50..500)));
            kill(child);
            check(&source, "somewhere");
        }
    }
}

#[test]
fn an_exporter_whose_lease_has_ended_commits_nothing_after_another_has() {
    for (format, rows_of) in FOLDERS {
        let target = tempfile::tempdir().unwrap();
        let mut source = source_into(target.path(), format);
        source.grow();
        let slow = source.start("export::staged=sleep(4000)");
        let log = target.path().join("_normstream/scores/nightly");
        while fs::read_dir(&log).map_or(0, Iterator::count) == 0 {
            sleep(Duration::from_millis(20));
        }
        // As if it had been held up for longer than its lease.
        sleep(Duration::from_millis(1_500));
        end_leases(&log);
        let fast =
            Command::new(cargo_bin("normstream")).args(["export", "run"]).current_dir(source.folder.path()).output();
        assert!(fast.unwrap().status.success(), "{format}");
        assert_eq!(slow.wait_with_output().unwrap().status.code(), Some(75), "{format}: {}", source.stderr());
        assert!(
            source.stderr().contains("another process has exported nightly in the meantime"),
            "{}",
            source.stderr()
        );
        assert!(rows_of(target.path()).into_iter().eq(0..ROWS), "{format}");
    }
}

/// Files with a dot in front are unfinished; no reader takes them.
fn rows_of_files(target: &Path) -> Vec<u64> {
    let files = fs::read_dir(target.join("scores")).unwrap().map(Result::unwrap);
    let files = files.filter(|file| !file.file_name().to_str().unwrap().starts_with('.'));
    let mut rows: Vec<u64> = files.flat_map(|file| numbers(&file.path())).collect();
    rows.sort_unstable();
    rows
}

/// The rows of the files that are live.
fn rows_of_delta(target: &Path) -> Vec<u64> {
    let live = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let storage = Storage::new(StorageOptions::default(), []).unwrap();
        let table = storage.open(target.join("scores").to_str().unwrap()).unwrap();
        let table = Table::open(&storage, &table).await.unwrap().unwrap();
        table.snapshot().await.unwrap().unwrap().files
    });
    let files = live.iter().map(|file| read_parquet(&target.join("scores").join(&file.path)));
    let mut rows: Vec<u64> = files.flat_map(|rows| integers(&rows, "n")).map(|n| n.unwrap() as u64).collect();
    rows.sort_unstable();
    rows
}

fn numbers(file: &Path) -> Vec<u64> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().skip(1).map(|line| line.split(',').next().unwrap().parse().unwrap()).collect()
}

/// Lets time pass for the leases in a log.
pub fn end_leases(log: &Path) {
    for entry in fs::read_dir(log).unwrap() {
        let path = entry.unwrap().path();
        // What a process that died was writing has another name.
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let mut entry: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        if entry["expires"].is_string() {
            entry["expires"] = "2000-01-01T00:00:00Z".into();
            fs::write(&path, entry.to_string()).unwrap();
        }
    }
}
