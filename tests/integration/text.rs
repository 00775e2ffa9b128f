//! Text as it comes from the world: keys that appear late, values of odd types, blank times, frames, pauses.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::thread::sleep;
use std::time::Duration;

use arrow::array::RecordBatch;
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::tempdir;

use crate::support::{booleans, column, integers, normstream, read_parquet, strings};

const MODES: [&str; 4] = ["ce", "ro", "ac", "ae"];

/// The names of the 80 rank columns.
fn ranks() -> impl Iterator<Item = String> {
    let items = (1..=12).map(|item| format!("q{item:02}")).chain((1..=8).map(|context| format!("ctx{context:02}")));
    items.flat_map(|item| MODES.map(|mode| format!("{item}_{mode}")))
}

/// A line of NDJSON: a session whose ranks are 1 to 4 in every item, with other values instead and besides.
fn line(id: usize, others: &[(&str, &str)]) -> String {
    let mut session = format!("{{\"session_id\": {id}");
    for (place, name) in ranks().enumerate() {
        if others.iter().all(|(other, _)| *other != name) {
            write!(session, ", \"{name}\": {}", place % 4 + 1).unwrap();
        }
    }
    for (name, value) in others {
        write!(session, ", \"{name}\": {value}").unwrap();
    }
    session + "}\n"
}

/// A CSV file of sessions that are alike but for the columns of `header`, given line by line.
fn csv(header: &str, lines: &[&str]) -> String {
    let names: Vec<String> = ranks().collect();
    let mut text = format!("session_id,{header},{}\n", names.join(","));
    for (id, line) in lines.iter().enumerate() {
        writeln!(text, "{id},{line}{}", ",1,2,3,4".repeat(20)).unwrap();
    }
    text
}

fn score(input: &Path, more: &[&str]) -> assert_cmd::assert::Assert {
    let out = input.with_extension("out.parquet");
    normstream().arg("score").arg(input).arg("--to").arg(out).arg("--overwrite").args(more).assert()
}

fn scored(input: &Path, more: &[&str]) -> RecordBatch {
    score(input, more).success();
    read_parquet(&input.with_extension("out.parquet"))
}

#[test]
fn a_key_that_only_later_lines_have_is_read() {
    let folder = tempdir().unwrap();
    let input = folder.path().join("sessions.ndjson");
    let mut lines: String = (0..1_500).map(|id| line(id, &[])).collect();
    lines += &line(
        1_500,
        &[("education_level", "\"Doctoral Degree\""), ("user_id", "7"), ("completed_at", "\"2024-05-01T10:00:00Z\"")],
    );
    fs::write(&input, &lines).unwrap();
    let result = scored(&input, &["--norms", "tests/golden/demo_groups.csv"]);
    assert_eq!(integers(&result, "user_id")[1_499..], [None, Some(7)]);
    assert!(column(&result, "completed_at").is_valid(1_500));
    let groups = strings(&result, "ce_norm_group");
    assert_eq!([0, 1_500].map(|row| groups[row].as_deref()), [Some("published"), Some("EDU:Doctoral Degree")]);
    // A column that is to be passed on must be seen.
    score(&input, &["--pass", "team"]).code(2).stderr(contains("team"));
}

#[test]
fn a_value_of_another_type_is_the_fault_of_its_session_alone() {
    let folder = tempdir().unwrap();
    let input = folder.path().join("sessions.ndjson");
    let others: [&[(&str, &str)]; 8] = [
        &[("education_level", "\"3\"")],
        &[("education_level", "3"), ("gender", "1"), ("country", "true")],
        &[("q01_ce", "\"one\"")],
        &[("q01_ce", "\"\"")],
        &[("q01_ce", "true")],
        &[("q01_ce", "1.5")],
        &[("q01_ce", "null")],
        &[("q01_ce", "1.0"), ("completed_at", "\" \""), ("date_of_birth", "\"\"")],
    ];
    let lines: String = others.iter().enumerate().map(|(id, others)| line(id, others)).collect();
    fs::write(&input, lines).unwrap();
    let result = scored(&input, &[]);
    assert_eq!(
        booleans(&result, "ok"),
        [true, true, false, false, false, false, false, true].map(Some),
        "all eight are there, in their order"
    );
    let codes = strings(&result, "error_code");
    let code = |row: usize| codes[row].as_deref().unwrap_or("none");
    assert_eq!(
        [2, 3, 4, 5, 6].map(code),
        ["rank_out_of_range", "missing_rank", "rank_out_of_range", "rank_out_of_range", "missing_rank"]
    );
    assert!(column(&result, "completed_at").is_null(7));
}

#[test]
fn ranks_and_blank_times_of_a_csv_file_are_read_as_those_of_other_formats() {
    let folder = tempdir().unwrap();
    let input = folder.path().join("sessions.csv");
    let times = ["2024-05-01 10:00:00,1990-01-01", " ,  ", ","];
    fs::write(&input, csv("completed_at,date_of_birth", &times).replace(",1,2,3,4\n", ",1.0,2.0, 3 ,4\n")).unwrap();
    let result = scored(&input, &[]);
    assert_eq!(booleans(&result, "ok"), [Some(true); 3]);
    let completed = column(&result, "completed_at");
    assert_eq!([0, 1, 2].map(|row| completed.is_null(row)), [false, true, true]);
    fs::write(&input, csv("completed_at,date_of_birth", &["yesterday,"])).unwrap();
    score(&input, &[]).code(2).stderr(contains("sessions.csv").and(contains("yesterday")));
}

#[test]
fn a_number_is_no_time() {
    let folder = tempdir().unwrap();
    let input = folder.path().join("sessions.ndjson");
    fs::write(&input, line(1, &[("completed_at", "1714521600000")])).unwrap();
    score(&input, &[]).code(2).stderr(contains("1714521600000"));
}

#[test]
fn fractions_in_a_column_that_began_with_integers_are_an_error_and_not_cut_off() {
    let folder = tempdir().unwrap();
    let input = folder.path().join("sessions.ndjson");
    let durations = |last: &str| {
        let duration = |id| if id < 1_000 { "12" } else { last };
        (0..1_001).map(|id| line(id, &[("duration", duration(id))])).collect::<String>()
    };
    fs::write(&input, durations("13")).unwrap();
    let result = scored(&input, &["--pass", "duration"]);
    assert_eq!(integers(&result, "duration")[999..], [Some(12), Some(13)]);
    fs::write(&input, durations("12.5")).unwrap();
    score(&input, &["--pass", "duration"])
        .code(2)
        .stderr(contains("column 'duration' is read as integers").and(contains("12.5")));
}

#[test]
fn compressed_files_put_one_after_the_other_are_read_to_the_end() {
    let folder = tempdir().unwrap();
    let halves = [0..700, 700..1_000].map(|ids| ids.map(|id| line(id, &[])).collect::<String>());
    let gzip = |text: &String| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |text: &String| zstd::encode_all(text.as_bytes(), 1).unwrap();
    let files =
        [("sessions.ndjson.gz", halves.each_ref().map(gzip)), ("sessions.ndjson.zst", halves.each_ref().map(zstd))];
    for (name, [first, second]) in files {
        let input = folder.path().join(name);
        let bytes = [first, second].concat();
        fs::write(&input, &bytes).unwrap();
        assert_eq!(scored(&input, &[]).num_rows(), 1_000, "{name}");
        let out = folder.path().join("out.parquet");
        normstream()
            .args(["score", "-", "--overwrite", "--to"])
            .arg(&out)
            .write_stdin(bytes.clone())
            .assert()
            .success();
        assert_eq!(read_parquet(&out).num_rows(), 1_000, "{name} on standard input");
        fs::write(&input, &bytes[..bytes.len() - 9]).unwrap();
        score(&input, &[]).code(2).stderr(contains(name));
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_line() {
    let folder = tempdir().unwrap();
    let texts = [("sessions.ndjson", line(7, &[])), ("sessions.csv", csv("country", &["Spain"]))];
    for (name, text) in texts {
        let marked = "\u{feff}".to_owned() + &text;
        let input = folder.path().join(name);
        fs::write(&input, &marked).unwrap();
        assert_eq!(booleans(&scored(&input, &[]), "ok"), [Some(true)], "{name}");
        let out = folder.path().join("out.parquet");
        normstream().args(["score", "-", "--overwrite", "--to"]).arg(&out).write_stdin(marked).assert().success();
        assert_eq!(read_parquet(&out).num_rows(), 1, "{name} on standard input");
    }
}

#[test]
fn standard_input_may_pause_in_the_middle_of_a_line() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.parquet");
    for text in [csv("country", &["Spain", "Peru", "Chad"]), (0..3).map(|id| line(id, &[])).collect()] {
        let program = normstream();
        let mut scoring = Process::new(program.get_program())
            .args(["score", "-", "--overwrite", "--progress", "off", "--to"])
            .arg(&out)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (first, rest) = text.split_at(text.len() - 40);
        let mut stdin = scoring.stdin.take().unwrap();
        stdin.write_all(first.as_bytes()).unwrap();
        sleep(Duration::from_millis(200));
        stdin.write_all(rest.as_bytes()).unwrap();
        drop(stdin);
        let mut told = String::new();
        scoring.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert!(scoring.wait().unwrap().success(), "{told}");
        assert_eq!(read_parquet(&out).num_rows(), 3);
    }
}

#[test]
fn what_sql_reads_of_a_column_that_is_empty_at_first_is_there_later() {
    let folder = tempdir().unwrap();
    let [results, lines] = ["results.csv", "lines.ndjson"].map(|name| folder.path().join(name));
    let mut text = "id,code\n".to_owned() + &"1,\n".repeat(1_500);
    text += "2,missing_rank\n3,\"a\nb\"\n";
    fs::write(&results, text).unwrap();
    let line = |code: &str| format!("{{\"id\": 1, \"code\": {code}}}\n");
    fs::write(&lines, line("null").repeat(1_500) + &line("\"missing_rank\"") + &line("7")).unwrap();
    for (file, expected) in [(&results, "a\\nb,1\nmissing_rank,1\n"), (&lines, "7,1\nmissing_rank,1\n")] {
        let query = format!(
            "SELECT replace(code, chr(10), '\\n') AS code, count(*) AS n FROM '{}' WHERE code <> '' GROUP BY 1 ORDER BY 1",
            file.display()
        );
        let output = normstream().args(["sql", "--format", "csv", "-c", &query]).assert().success();
        assert_eq!(String::from_utf8_lossy(&output.get_output().stdout), format!("code,n\n{expected}"));
    }
}

#[test]
fn line_breaks_in_values_are_no_ends_of_lines_for_sql_however_large_the_file() {
    let folder = tempdir().unwrap();
    let input = folder.path().join("sessions.csv");
    let comment = format!("\"{}\"", "so it is\n".repeat(199));
    let lines = vec![comment.as_str(); 2_000];
    fs::write(&input, csv("comment", &lines)).unwrap();
    assert!(fs::metadata(&input).unwrap().len() > 3 << 20);
    let path = input.display();
    for from in [format!("'{path}'"), format!("score('{path}', pass => 'comment', csv_newlines => true)")] {
        let query = format!("SELECT count(*) AS n, count(DISTINCT comment) AS comments FROM {from}");
        let output = normstream().args(["sql", "--format", "csv", "--threads", "4", "-c", &query]).assert().success();
        assert_eq!(String::from_utf8_lossy(&output.get_output().stdout), "n,comments\n2000,1\n", "{from}");
    }
}

#[test]
fn lines_are_counted_without_a_column_of_theirs() {
    let folder = tempdir().unwrap();
    let text = (0..3_000).map(|id| line(id, &[])).collect::<String>();
    for (name, text) in [("sessions.ndjson", text), ("sessions.csv", csv("country", &["Spain"; 3_000]))] {
        let input = folder.path().join(name);
        fs::write(&input, text).unwrap();
        for from in [format!("'{}'", input.display()), format!("score('{}')", input.display())] {
            let query = format!("SELECT count(*) AS n FROM {from}");
            let output = normstream().args(["sql", "--format", "csv", "-c", &query]).assert().success();
            assert_eq!(String::from_utf8_lossy(&output.get_output().stdout), "n\n3000\n", "{from}");
        }
    }
}

#[test]
fn a_key_that_one_file_does_not_show_has_the_type_of_the_others() {
    let folder = tempdir().unwrap();
    let [first, second] = ["a.ndjson", "b.ndjson"].map(|name| folder.path().join(name));
    fs::write(&first, line(1, &[("score", "1.5"), ("active", "true"), ("user_id", "\"u-1\"")])).unwrap();
    fs::write(&second, line(2, &[])).unwrap();
    let out = folder.path().join("out.parquet");
    for inputs in [[&first, &second], [&second, &first]] {
        let mut command = normstream();
        command.arg("score").args(inputs).args(["--chain", "S:{score},A:{active},Total", "--overwrite", "--to"]);
        command.arg(&out).assert().success();
        let users = strings(&read_parquet(&out), "user_id");
        assert!(users.contains(&Some("u-1".to_owned())) && users.contains(&None), "{users:?}");
    }
}
