//! The shell, driven through a terminal.

use std::process::Command;
use std::time::{Duration, Instant};

use expectrl::session::OsSession;
use expectrl::{Expect as _, Session};
use tempfile::{TempDir, tempdir};

const PROMPT: &str = "normstream> ";

/// A shell in a folder of its own, which is its home too.
fn shell() -> (OsSession, TempDir) {
    let folder = tempdir().unwrap();
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("normstream"));
    command.args(["sql", "--threads", "2"]).current_dir(folder.path());
    command.env("XDG_DATA_HOME", folder.path()).env("TERM", "xterm").env("NO_COLOR", "1");
    let mut session = Session::spawn(command).unwrap();
    session.set_expect_timeout(Some(Duration::from_secs(20)));
    session.expect(PROMPT).unwrap();
    (session, folder)
}

#[test]
fn statements_commands_and_their_mistakes() {
    let (mut shell, folder) = shell();
    // A statement may go over lines.
    shell.send_line("SELECT 6 *").unwrap();
    shell.send_line("7 AS answer;").unwrap();
    shell.expect("|     42 |").unwrap();
    shell.expect(PROMPT).unwrap();
    shell.send_line("\\df kendall_w").unwrap();
    shell.expect("Kendall's W").unwrap();
    shell.send_line("\\d norms").unwrap();
    shell.expect("percentile").unwrap();
    shell.send_line("\\dv").unwrap();
    shell.expect("team_rollup").unwrap();
    shell.send_line("\\format csv").unwrap();
    shell.expect("shown as csv").unwrap();
    shell.send_line("\\timing").unwrap();
    shell.expect("timing is on").unwrap();
    shell.send_line("SELECT 1 AS one;").unwrap();
    shell.expect("one\r\n1\r\n").unwrap();
    shell.expect(" s\r\n").unwrap();
    shell.send_line("SELECT * FROM nroms;").unwrap();
    shell.expect("did you mean 'norms'?").unwrap();
    // A word is completed.
    shell.send("SEL\t 3 AS three;\n").unwrap();
    shell.expect("three\r\n3\r\n").unwrap();
    shell.expect(PROMPT).unwrap();
    shell.send_line("\\q").unwrap();
    shell.expect(expectrl::Eof).unwrap();
    let history = std::fs::read_to_string(folder.path().join("normstream/sql_history")).unwrap();
    assert!(history.contains("\\df kendall_w"), "{history}");
}

#[test]
fn ctrl_c_ends_a_long_sort_and_not_the_shell() {
    let (mut shell, _folder) = shell();
    shell.send_line("SELECT value FROM generate_series(1, 2000000000) ORDER BY value % 1000003 DESC, value;").unwrap();
    std::thread::sleep(Duration::from_millis(2_500));
    let stopped = Instant::now();
    shell.send(expectrl::ControlCode::EndOfText).unwrap();
    shell.expect("cancelled").unwrap();
    shell.expect(PROMPT).unwrap();
    let took = stopped.elapsed();
    assert!(took < Duration::from_secs(1), "the prompt came back after {took:?}");
    shell.send_line("SELECT 1 + 1 AS two;").unwrap();
    shell.expect("|   2 |").unwrap();
    // At the prompt it gives up the line.
    shell.send("SELECT nonsense").unwrap();
    shell.expect("nonsense").unwrap();
    shell.send(expectrl::ControlCode::EndOfText).unwrap();
    shell.expect(PROMPT).unwrap();
    // What was stopped does not keep it from ending.
    shell.send_line("\\q").unwrap();
    shell.expect(expectrl::Eof).unwrap();
}
