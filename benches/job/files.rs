//! The sessions and norms that cases read: generated once, by the program itself, and kept under the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::measure::run;

/// Norm groups, and as many synthetic countries as make sessions name all of them.
const GROUPS: &str = "1400";
const COUNTRIES: &str = "1372";
/// The share of sessions with a fault.
const BAD_FRACTION: &str = "0.01";
/// The folder of norms.
const NORMS: &str = "norms";

/// Where files are, and how many sessions most of them hold.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// The program under test: a copy, so that a build in the meantime does not change it.
    pub(crate) program: PathBuf,
    folder: PathBuf,
    rows: u64,
}

impl Files {
    /// The files for a number of sessions.
    pub(crate) fn within(rows: u64) -> Files {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("job");
        std::fs::create_dir_all(&folder).expect("a folder under the target folder");
        let program = folder.join("normstream");
        std::fs::copy(env!("CARGO_BIN_EXE_normstream"), &program).expect("the program is built");
        // How norms are laid out is a part of the program: those that another build imported are none of its.
        let _ = std::fs::remove_dir_all(folder.join(NORMS));
        Files { program, folder, rows }
    }

    /// A file for results. Cases replace each other's.
    pub(crate) fn output(&self, name: &str) -> PathBuf {
        self.folder.join(format!("out-{name}"))
    }

    /// Sessions: a layout, a format, and how many times the usual number.
    pub(crate) fn sessions(&self, layout: &str, extension: &str, times: u64) -> PathBuf {
        let rows = self.session_count(times);
        let path = self.folder.join(format!("{layout}-{rows}.{extension}"));
        if !path.exists() {
            eprintln!("generating {}", path.display());
            let mut command = Command::new(&self.program);
            command.args(["generate", "sessions", "--rows", &rows.to_string(), "--layout", layout]);
            command.args(["--countries", COUNTRIES, "--bad-fraction", BAD_FRACTION, "--progress", "off", "--to"]);
            run(command.arg(&path));
        }
        path
    }

    /// How many sessions a file of so many times the usual number holds.
    pub(crate) fn session_count(&self, times: u64) -> u64 {
        self.rows * times
    }

    /// A folder with one imported table of 1,400 groups.
    pub(crate) fn norms(&self) -> PathBuf {
        let folder = self.folder.join(NORMS);
        if !self.norm_table().exists() {
            eprintln!("generating {}", folder.display());
            let csv = self.folder.join("norms.csv");
            let mut command = Command::new(&self.program);
            command.args(["generate", "norms", "--groups", GROUPS, "--overwrite", "--progress", "off", "--to"]);
            run(command.arg(&csv));
            let mut command = Command::new(&self.program);
            run(command.args(["norms", "import"]).arg(&csv).arg("--to").arg(&folder));
        }
        folder
    }

    /// The table in that folder.
    pub(crate) fn norm_table(&self) -> PathBuf {
        self.folder.join(NORMS).join("default.parquet")
    }

    /// The scored sessions of the wide file, as the program writes them.
    pub(crate) fn scored(&self) -> PathBuf {
        let path = self.folder.join(format!("scored-{}.parquet", self.rows));
        if !path.exists() {
            eprintln!("generating {}", path.display());
            let mut command = Command::new(&self.program);
            command.arg("score").arg(self.sessions("wide", "parquet", 1)).arg("--norms").arg(self.norms());
            run(command.args(["--progress", "off", "--to"]).arg(&path));
        }
        path
    }
}
