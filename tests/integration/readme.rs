//! The README's tour runs as written, in an empty folder.

use std::path::Path;
use std::process::Command;

use assert_cmd::cargo::cargo_bin;
use tempfile::tempdir;

/// The commands of the README's tour, one a line.
fn tour() -> Vec<String> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let tour = readme.split("## A five-minute tour").nth(1).unwrap();
    let block = tour.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let commands = block.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    commands.map(str::to_owned).collect()
}

#[test]
fn every_command_of_the_tour_runs_as_written() {
    let folder = tempdir().unwrap();
    let program = cargo_bin("normstream");
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let commands = tour();
    assert!(commands.len() >= 8, "{commands:?}");
    for command in commands {
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &command])
            .env("PATH", &path)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command}\n{stdout}\n{stderr}");
    }
}
