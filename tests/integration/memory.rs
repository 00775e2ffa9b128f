//! What memory the program needs, as the system measures it.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use tempfile::{TempDir, tempdir};

use crate::support::normstream;

/// The program with parts so small that many are scored at a time and one after the other, as in a file of many sessions.
fn with_small_parts() -> Command {
    let mut command = normstream();
    command.env("NORMSTREAM_ROW_GROUP_ROWS", "16384").env("NORMSTREAM_PART_ROWS", "16384");
    command
}

/// Sessions and the norms of 1,400 groups.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Files {
        let folder = tempdir().unwrap();
        let norms = folder.path().join("norms");
        let csv = folder.path().join("norms.csv");
        normstream().args(["generate", "norms", "--groups", "1400", "--to"]).arg(&csv).assert().success();
        normstream().args(["norms", "import"]).arg(&csv).arg("--to").arg(&norms).assert().success();
        Files { folder }
    }

    fn sessions(&self, rows: u64) -> PathBuf {
        let path = self.folder.path().join(format!("{rows}.parquet"));
        with_small_parts()
            .args(["generate", "sessions", "--rows", &rows.to_string(), "--to"])
            .arg(&path)
            .assert()
            .success();
        path
    }

    /// The greatest resident size of the process that scores a file, in MiB.
    fn peak(&self, sessions: &Path, more: &[&str]) -> f64 {
        let stats = self.folder.path().join("stats.json");
        with_small_parts()
            .arg("score")
            .arg(sessions)
            .args(["--overwrite", "--threads", "2", "--to"])
            .arg(self.folder.path().join("out.parquet"))
            .arg("--norms")
            .arg(self.folder.path().join("norms"))
            .arg("--stats")
            .arg(&stats)
            .args(more)
            .assert()
            .success();
        let stats: serde_json::Value = serde_json::from_slice(&std::fs::read(stats).unwrap()).unwrap();
        stats["peak_memory_bytes"].as_f64().unwrap() / f64::from(1 << 20)
    }
}

/// Of what is measured some 80 MiB are the pages of the program's own file: a program of the dev profile is that large.
#[test]
fn three_times_the_sessions_need_no_more_memory() {
    let files = Files::new();
    let (few, many) = (files.sessions(150_000), files.sessions(450_000));
    let constrained = ["--profile", "memory-constrained"];
    for (more, most) in [(&[][..], 200.0), (&constrained, 200.0)] {
        let (of_few, of_many) = (files.peak(&few, more), files.peak(&many, more));
        println!("peak memory {more:?}: {of_few:.0} MiB for 150,000 sessions, {of_many:.0} MiB for 450,000");
        assert!(of_many <= of_few * 1.1 && of_many <= most, "{more:?}: {of_few:.0} MiB, then {of_many:.0} MiB");
    }
}
