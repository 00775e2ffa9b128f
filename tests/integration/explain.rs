//! `normstream explain`: a session stage by stage, and how sessions are found.

use std::fs::File;
use std::path::Path;

use arrow::array::RecordBatch;
use predicates::str::{contains, starts_with};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::support::{booleans, floats, golden, integers, lists, normstream, read_parquet, strings};

const SESSIONS: &str = "tests/golden/sessions.parquet";

/// `normstream explain`, started where paths of golden files are short.
fn explain(inputs: &[&str], session: &str) -> assert_cmd::Command {
    let mut command = normstream();
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("explain").args(inputs).args(["--session", session]);
    command
}

fn stdout(command: &mut assert_cmd::Command) -> String {
    String::from_utf8(command.assert().success().get_output().stdout.clone()).unwrap()
}

/// The text of a session without its first report, which names the file.
fn stages(text: &str) -> &str {
    text.split_once("\nvalidate:").expect("a session is validated").1
}

#[test]
fn a_session_is_explained_stage_by_stage() {
    let text = stdout(explain(&[SESSIONS], "7").args(["--norms", "tests/golden/demo_groups.csv"]));
    insta::assert_snapshot!(text);
}

#[test]
fn a_chain_and_its_scope_are_followed() {
    let mut command = explain(&[SESSIONS], "1");
    command.args(["--norms", "tests/golden/demo_groups.csv", "--chain", "GENDER:{gender},AGE:{age_band}|2026"]);
    let text = stdout(command.args(["--chain-scope", "per-session", "--allow-version-fallback"]));
    let percentiles = text.split("\n\n").find(|stage| stage.starts_with("percentiles")).unwrap();
    insta::assert_snapshot!(percentiles);
}

#[test]
fn each_kind_of_fault_ends_with_its_sentence_and_exit_code_1() {
    let faults = [
        ("30", "missing_rank", "the rank of CE in item q04 is missing"),
        ("32", "rank_out_of_range", "the rank of CE in item ctx05 is not a whole number from 1 to 4"),
        ("113", "not_a_permutation", "the ranks of item q09 are not 1, 2, 3 and 4 once each"),
    ];
    for (session, code, sentence) in faults {
        let outcome = explain(&[SESSIONS], session).assert().code(1);
        let output = outcome.get_output();
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(text.contains(&format!("\nvalidate: failed, {code}\n")), "{text}");
        assert!(text.ends_with(&format!("\n  {sentence}\n")), "no stage follows:\n{text}");
        let message = format!("normstream: session {session} cannot be scored: {sentence} (validate, {code})\n");
        assert_eq!(String::from_utf8(output.stderr.clone()).unwrap(), message);
    }
}

#[test]
fn a_refused_session_shows_which_items_are_no_rankings() {
    let output = explain(&[SESSIONS], "30").assert().code(1).get_output().stdout.clone();
    insta::assert_snapshot!(String::from_utf8(output).unwrap());
}

#[test]
fn an_unknown_session_is_named_with_exit_code_2() {
    let message = format!("normstream: no session of {SESSIONS} has the session_id 99999: 2000 were looked at\n");
    explain(&[SESSIONS], "99999").assert().code(2).stdout("").stderr(message);
    explain(&[SESSIONS], "-1").assert().code(2).stderr(contains("has the session_id -1"));
    explain(&[SESSIONS, SESSIONS], "99999").assert().code(2).stderr(contains("no session of 2 files"));
}

#[test]
fn an_id_that_is_no_integer_is_refused_where_ids_are_integers() {
    let message = format!("normstream: the session ids of {SESSIONS} are integers, and 'A-7' is none\n");
    explain(&[SESSIONS], "A-7").assert().code(2).stdout("").stderr(message);
}

#[test]
fn of_several_sessions_with_one_id_the_first_is_explained_and_the_others_are_counted() {
    let text = stdout(&mut explain(&[SESSIONS, SESSIONS], "7"));
    let head = format!(
        "read: session 7 of {SESSIONS}, wide layout\n  2 sessions have this id; this is the first of them\n\nvalidate:"
    );
    assert!(text.starts_with(&head), "{text}");
    assert_eq!(text.matches("\nvalidate:").count(), 1);
}

/// Each line of `--format ndjson`.
fn ndjson(output: &[u8]) -> Vec<Value> {
    String::from_utf8(output.to_vec()).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn ndjson_has_one_stage_a_line_with_the_golden_numbers() {
    let mut command = explain(&[SESSIONS], "7");
    command.args(["--format", "ndjson", "--norms", "tests/golden/demo_groups.csv"]);
    let lines = ndjson(&command.assert().success().get_output().stdout);
    let stages: Vec<&str> = lines.iter().map(|line| line["stage"].as_str().unwrap()).collect();
    let all = ["read", "validate", "raw_scales", "combinations", "style", "flexibility", "percentiles", "flags"];
    assert_eq!(stages, all);
    assert!(lines.iter().all(|line| line.as_object().unwrap().len() == 2), "a stage and a result, nothing else");
    let result = |stage: &str| &lines[all.iter().position(|known| *known == stage).unwrap()]["result"];

    let expected = read_parquet(&golden("expected_groups.parquet")).slice(6, 1);
    let integer = |name: &str| integers(&expected, name)[0].unwrap();
    assert_eq!(integer("session_id"), 7);
    assert_eq!(result("read")["session_id"], 7);
    assert_eq!(result("validate")["ok"], true);
    for (place, scale) in ["ce", "ro", "ac", "ae"].into_iter().enumerate() {
        assert_eq!(result("raw_scales")[place]["raw"], integer(&format!("{scale}_raw")), "{scale}");
    }
    for score in result("combinations").as_array().unwrap() {
        assert_eq!(score["value"], integer(score["score"].as_str().unwrap()), "{score}");
    }
    assert_eq!(result("style")["style"], strings(&expected, "style")[0].clone().unwrap());
    assert_eq!(result("style")["backup_style"], strings(&expected, "backup_style")[0].clone().unwrap());
    assert_eq!(result("flexibility")["lfi"], floats(&expected, "lfi")[0].unwrap());
    let percentiles = result("percentiles");
    for (place, scale) in ["ce", "ro", "ac", "ae", "acce", "aero", "lfi"].into_iter().enumerate() {
        let found = &percentiles["scales"][place];
        assert_eq!(found["percentile"], floats(&expected, &format!("{scale}_percentile"))[0].unwrap(), "{scale}");
        let norm_group = strings(&expected, &format!("{scale}_norm_group"))[0].clone().unwrap();
        assert_eq!(found["norm_group"], norm_group, "{scale}");
    }
    assert_eq!(percentiles["used_fallback"], booleans(&expected, "used_fallback")[0].unwrap());
    let flags: Vec<&Value> = result("flags").as_array().unwrap().iter().map(|flag| &flag["flag"]).collect();
    assert_eq!(flags, lists(&expected, "flags")[0].clone().unwrap().iter().collect::<Vec<_>>());
}

#[test]
fn ndjson_of_a_refused_session_ends_with_stage_code_and_sentence() {
    let outcome = explain(&[SESSIONS], "113").args(["--format", "ndjson"]).assert().code(1);
    let lines = ndjson(&outcome.get_output().stdout);
    assert_eq!(lines.len(), 2);
    let validate = &lines[1]["result"];
    assert_eq!(validate["ok"], false);
    assert_eq!(validate["error_stage"], "validate");
    assert_eq!(validate["error_code"], "not_a_permutation");
    assert_eq!(validate["error"], "the ranks of item q09 are not 1, 2, 3 and 4 once each");
    let item = &validate["items"][8];
    assert_eq!(item["item"], "q09");
    assert!(item["found"]["CE"].is_string() && item.get("ranks").is_none(), "{item}");
}

/// The golden sessions in other formats.
struct Formats {
    folder: TempDir,
}

impl Formats {
    fn write() -> Formats {
        let folder = tempdir().unwrap();
        let sessions: RecordBatch = read_parquet(&golden("sessions.parquet"));
        let file = |name: &str| File::create(folder.path().join(name)).unwrap();
        arrow::csv::Writer::new(file("sessions.csv")).write(&sessions).unwrap();
        let mut json = arrow::json::LineDelimitedWriter::new(file("sessions.ndjson"));
        json.write(&sessions).unwrap();
        json.finish().unwrap();
        Formats { folder }
    }

    fn path(&self, name: &str) -> String {
        Path::new(self.folder.path()).join(name).display().to_string()
    }
}

#[test]
fn every_format_and_standard_input_give_the_same_explanation() {
    let formats = Formats::write();
    let expected = stdout(&mut explain(&[SESSIONS], "1234"));
    for name in ["sessions.csv", "sessions.ndjson"] {
        let path = formats.path(name);
        let text = stdout(&mut explain(&[&path], "1234"));
        assert_eq!(stages(&text), stages(&expected), "{name}");
        let text = stdout(explain(&["-"], "1234").pipe_stdin(path).unwrap());
        assert_eq!(stages(&text), stages(&expected), "{name} on standard input");
    }
    let text = stdout(explain(&["-"], "1234").pipe_stdin(golden("sessions.parquet")).unwrap());
    assert_eq!(stages(&text), stages(&expected), "Parquet on standard input");
}

#[test]
fn ids_may_be_strings_and_ranks_packed() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("packed.csv");
    let items = (1..=12).map(|item| format!("q{item:02}")).chain((1..=8).map(|item| format!("ctx{item:02}")));
    let header = items.collect::<Vec<_>>().join(",");
    let row = |id: &str, first: &str| format!("{id},{first},{}\n", vec!["23"; 19].join(","));
    let text = format!("session_id,{header}\n{}{}", row("A-7", "0"), row("B-7", "57"));
    std::fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    explain(&[&path], "A-7").assert().success().stdout(contains("\n  q01     1  2  3  4\n  q02     4  3  2  1\n"));
    let sentence =
        "session B-7 cannot be scored: the code of item q01 is not from 0 to 23 (validate, rank_out_of_range)";
    explain(&[&path], "B-7")
        .assert()
        .code(1)
        .stdout(contains("q01     code 57  no ranking"))
        .stderr(contains(sentence));
    explain(&[&path], "7").assert().code(2).stderr(starts_with("normstream: no session of"));
}
