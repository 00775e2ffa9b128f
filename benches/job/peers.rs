//! Other engines that do the same work, through the scripts in `benches/peers`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::compare::differences;
use crate::files::Files;
use crate::measure::{Figures, run, run_reporting};

pub(crate) const DUCKDB: &str = "peer: DuckDB";
pub(crate) const POLARS: &str = "peer: Polars";

/// An engine, and the files it works on.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    name: &'static str,
    script: PathBuf,
    files: Files,
}

impl Peer {
    /// The engines that this machine has and that agree with the program on the golden sessions; why not, for the others.
    pub(crate) fn all(files: &Files) -> Vec<Peer> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
        let peer = |(name, script)| Peer { name, script: folder.join(script), files: files.clone() };
        let peers = [(DUCKDB, "duckdb_job.py"), (POLARS, "polars_job.py")].map(peer);
        let usable = |peer: &Peer| match peer.check() {
            Ok(()) => true,
            Err(reason) => {
                println!("{} is left out: {reason}\n", peer.name);
                false
            }
        };
        peers.into_iter().filter(usable).collect()
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Scores the wide file.
    pub(crate) fn score(&self, threads: usize) -> Figures {
        let sessions = self.files.sessions("wide", "parquet", 1);
        self.files.norms();
        let output = self.files.output("peer.parquet");
        run_reporting(&mut self.command(&sessions, &self.files.norm_table(), &output, threads)).expect("the peer runs")
    }

    fn command(&self, sessions: &Path, norms: &Path, output: &Path, threads: usize) -> Command {
        let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/norms/klsi4_published.csv");
        let mut command = Command::new("python3");
        command.arg(&self.script).arg("--sessions").arg(sessions).arg("--norms").arg(norms);
        command.arg("--published").arg(published).arg("--threads").arg(threads.to_string()).arg("--to").arg(output);
        command
    }

    /// Whether the engine runs here and gives what the program gives, column by column.
    fn check(&self) -> Result<(), String> {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let (sessions, norms) = (golden.join("sessions.parquet"), golden.join("demo_groups.csv"));
        let (ours, theirs) = (self.files.output("golden.parquet"), self.files.output("golden-peer.parquet"));
        let mut program = Command::new(&self.files.program);
        program.arg("score").arg(&sessions).arg("--norms").arg(&norms).args([
            "--progress",
            "off",
            "--overwrite",
            "--to",
        ]);
        run(program.arg(&ours));
        run_reporting(&mut self.command(&sessions, &norms, &theirs, 1))?;
        match differences(&ours, &theirs) {
            differences if differences.is_empty() => Ok(()),
            differences => Err(format!("its results differ: {}", differences.join("; "))),
        }
    }
}
