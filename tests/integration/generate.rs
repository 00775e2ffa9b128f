//! `normstream generate` as its user meets it: the same bytes each time, layouts, targets, refusals.

use std::fs;
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use assert_cmd::Command;
use normstream::model::Mode;
use normstream::model::session::{self, items, wide_column};
use parquet::basic::Encoding;
use parquet::file::reader::{FileReader, SerializedFileReader};
use predicates::str::contains;
use tempfile::{TempDir, tempdir};

use crate::support::{booleans, floats, integers, normstream, read_parquet, strings};

/// `normstream generate` with these words, in a folder.
fn generate(folder: &TempDir, words: &str) -> Command {
    let mut command = normstream();
    command.current_dir(folder.path()).arg("generate").args(words.split(' '));
    command
}

/// The bytes of a file that `normstream generate` writes.
fn generated(words: &str, name: &str) -> Vec<u8> {
    let folder = tempdir().unwrap();
    generate(&folder, words).args(["--to", name]).assert().success().stdout("");
    fs::read(folder.path().join(name)).unwrap()
}

#[test]
fn the_same_options_give_the_same_bytes_at_any_number_of_threads() {
    for (table, name) in [
        ("sessions --rows 20000 --bad-fraction 0.1 --teams --countries 40", "x.parquet"),
        ("sessions --rows 9000 --layout packed --bad-fraction 0.1", "x.csv"),
        ("sessions --rows 300 --layout long --bad-fraction 0.1", "x.ndjson"),
        ("sessions --rows 20000 --layout packed --bad-fraction 0.1", "x.arrow"),
        ("norms --groups 90", "x.parquet"),
        ("norms --groups 90", "x.csv"),
    ] {
        let first = generated(&format!("{table} --threads 1"), name);
        assert!(!first.is_empty());
        assert!(generated(&format!("{table} --threads 1"), name) == first, "{table} to {name}");
        assert!(generated(&format!("{table} --threads 4"), name) == first, "{table} to {name}");
        assert!(generated(&format!("{table} --seed 2"), name) != first, "{table} to {name}");
    }
}

#[test]
fn every_format_holds_the_same_sessions() {
    let folder = tempdir().unwrap();
    let score = |name: &str| {
        generate(&folder, "sessions --rows 3000 --bad-fraction 0.05").args(["--to", name]).assert().success();
        scored(&folder, name)
    };
    let expected = score("s.parquet");
    assert_eq!(expected.num_rows(), 3_000);
    for name in ["s.csv", "s.ndjson", "s.arrow", "folder/"] {
        assert_eq!(score(name), expected, "{name}");
    }
}

/// The results of scoring sessions in a folder.
fn scored(folder: &TempDir, name: &str) -> RecordBatch {
    let mut command = normstream();
    command.current_dir(folder.path()).args(["score", name, "--overwrite", "--to", "out.parquet"]).assert().success();
    read_parquet(&folder.path().join("out.parquet"))
}

#[test]
fn wide_and_packed_layouts_score_alike() {
    let folder = tempdir().unwrap();
    let score = |layout: &str| {
        let words = format!("sessions --rows 3000 --bad-fraction 0.05 --layout {layout}");
        generate(&folder, &words).args(["--overwrite", "--to", "s.parquet"]).assert().success();
        scored(&folder, "s.parquet")
    };
    let (wide, packed) = (score("wide"), score("packed"));
    assert_eq!(booleans(&packed, "ok"), booleans(&wide, "ok"));
    assert!(booleans(&wide, "ok").contains(&Some(false)));
    for column in ["session_id", "user_id", "ce_raw", "ae_raw", "acce"] {
        assert_eq!(integers(&packed, column), integers(&wide, column), "{column}");
    }
    assert_eq!(floats(&packed, "lfi_percentile"), floats(&wide, "lfi_percentile"));
    assert_eq!(strings(&packed, "style"), strings(&wide, "style"));
}

#[test]
fn the_long_layout_has_the_ranks_of_the_wide_one_and_its_attributes_beside_it() {
    let folder = tempdir().unwrap();
    generate(&folder, "sessions --rows 500 --teams --to wide.parquet").assert().success();
    generate(&folder, "sessions --rows 500 --teams --layout long --attributes who.parquet --to long.parquet")
        .assert()
        .success()
        .stderr(contains("500 sessions written to who.parquet"))
        .stderr(contains("500 sessions (40,000 rows) written to long.parquet"));
    let read = |name: &str| read_parquet(&folder.path().join(name));
    let (wide, long, who) = (read("wide.parquet"), read("long.parquet"), read("who.parquet"));

    let attributes = [
        session::SESSION_ID,
        session::USER_ID,
        session::COMPLETED_AT,
        session::EDUCATION_LEVEL,
        session::COUNTRY,
        session::DATE_OF_BIRTH,
        session::GENDER,
        "team_id",
    ];
    let names: Vec<String> = who.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, attributes);
    assert_eq!(who, wide.project(&[0, 1, 2, 3, 4, 5, 6, 7]).unwrap());

    let ranks: Vec<Vec<Option<i64>>> = items(12, 8)
        .flat_map(|(part, item)| Mode::ALL.map(|mode| integers(&wide, &wide_column(part, item, mode))))
        .collect();
    let row_by_row: Vec<Option<i64>> = (0..500).flat_map(|row| ranks.iter().map(move |ranks| ranks[row])).collect();
    assert_eq!(integers(&long, session::RANK), row_by_row);
    let first_parts: Vec<String> = strings(&long, session::PART)[..80].iter().flatten().cloned().collect();
    assert_eq!((first_parts[47].as_str(), first_parts[48].as_str()), ("style", "context"));
    assert_eq!(integers(&long, session::ITEM)[..5], [1, 1, 1, 1, 2].map(Some));
    assert_eq!(strings(&long, session::MODE)[..4], ["CE", "RO", "AC", "AE"].map(|mode| Some(mode.to_owned())));
}

#[test]
fn an_existing_file_is_replaced_only_when_asked_and_before_any_work() {
    let folder = tempdir().unwrap();
    let precious = folder.path().join("precious.csv");
    fs::write(&precious, "precious").unwrap();
    for words in ["sessions --rows 1000000000 --to precious.csv", "norms --to precious.csv"] {
        generate(&folder, words).assert().code(2).stderr(contains("precious.csv exists: give --overwrite"));
    }
    generate(&folder, "sessions --rows 9 --layout long --to new.csv --attributes precious.csv").assert().code(2);
    assert!(!folder.path().join("new.csv").exists());
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    generate(&folder, "sessions --rows 9 --to precious.csv --overwrite").assert().success();
    assert_eq!(fs::read_to_string(&precious).unwrap().lines().count(), 10);
}

#[test]
fn parquet_is_small_because_ranks_and_strings_are_dictionary_encoded() {
    let folder = tempdir().unwrap();
    generate(&folder, "sessions --rows 100000 --bad-fraction 0.015 --to s.parquet").assert().success();
    let file = folder.path().join("s.parquet");
    let size = fs::metadata(&file).unwrap().len();
    assert!(size < 4_000_000, "{size} bytes for 100,000 sessions");
    for column in ["q01_ce", "q12_ae", "ctx08_ro", "country", "education_level", "gender"] {
        assert!(encodings(&file, column).contains(&Encoding::RLE_DICTIONARY), "{column}");
    }
    assert_eq!(integers(&read_parquet(&file), "session_id"), (1..=100_000).map(Some).collect::<Vec<_>>());
}

fn encodings(file: &Path, column: &str) -> Vec<Encoding> {
    let reader = SerializedFileReader::new(fs::File::open(file).unwrap()).unwrap();
    let chunk = reader.metadata().row_group(0).columns().iter().find(|chunk| chunk.column_path().string() == column);
    chunk.unwrap().encodings().collect()
}

#[test]
fn standard_output_carries_data_alone_and_may_be_closed() {
    let folder = tempdir().unwrap();
    let output = generate(&folder, "sessions --rows 50 --first-session-id 7 --to -").assert().success();
    let lines = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    let sessions: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((sessions.len(), &sessions[0]["session_id"], &sessions[49]["session_id"]), (50, &7.into(), &56.into()));

    let mut endless = program(&folder, "sessions --rows 1000000000 --progress off --to -");
    let mut child = endless.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
}

/// `normstream generate` as a process of its own.
fn program(folder: &TempDir, words: &str) -> Process {
    let mut process = Process::new(normstream().get_program());
    process.current_dir(folder.path()).arg("generate").args(words.split(' '));
    process
}

#[test]
fn a_signal_leaves_nothing_behind() {
    let folder = tempdir().unwrap();
    let files = || fs::read_dir(folder.path()).unwrap().count();
    let mut process = program(&folder, "sessions --rows 1000000000 --to s.parquet");
    let mut child = process.stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while files() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing was begun");
        std::thread::sleep(Duration::from_millis(10));
    }
    Process::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(files(), 0);
}

#[test]
fn what_cannot_be_generated_is_refused_with_a_reason() {
    let folder = tempdir().unwrap();
    for (words, reason) in [
        ("sessions --to s.csv --bad-fraction 1.5", "the fraction of bad sessions is 1.5: give a number from 0 to 1"),
        ("sessions --to s.csv --first-session-id 0", "begin at 1 or more"),
        ("sessions --to s.csv --layout square", "'square' is not a layout: wide, packed or long"),
        ("sessions --to s.csv --attributes a.csv", "--attributes is for --layout long"),
        ("sessions --to s.csv --layout long --attributes ./s.csv", "--attributes and --to are both ./s.csv"),
        ("sessions --to - --layout long --attributes -", "--attributes and --to are both -"),
        ("sessions --to sessions.txt", "give --format parquet, csv, ndjson or arrow"),
        ("sessions --to folder/ --format csv", "csv is written as one file"),
        ("norms --to n.csv --groups 0", "0 is not in 1..=1000000"),
        ("norms --to n.csv --threads 0", "threads is 0: it must be from 1 to 1024"),
    ] {
        generate(&folder, words).assert().code(2).stdout("").stderr(contains(reason));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn generated_norms_are_used_as_they_are() {
    let folder = tempdir().unwrap();
    generate(&folder, "norms --groups 60 --to norms.csv").assert().success().stderr(contains("60 groups ("));
    let norms = fs::read_to_string(folder.path().join("norms.csv")).unwrap();
    let mut lines = norms.lines();
    assert_eq!(lines.next(), Some("norm_group,norm_version,scale,raw_score,percentile,frequency"));
    let mut groups: Vec<&str> = lines.filter_map(|line| line.split(',').next()).collect();
    groups.dedup();
    assert_eq!((groups.len(), groups[0], groups.is_sorted()), (60, "AGE:19-24", true));

    generate(&folder, "sessions --rows 2000 --countries 32 --to s.parquet").assert().success();
    let mut score = normstream();
    score.current_dir(folder.path()).args(["score", "s.parquet", "--norms", "norms.csv", "--to", "out.parquet"]);
    score.args(["--chain", "COUNTRY:{country},GENDER:{gender}"]).assert().success();
    let groups = strings(&read_parquet(&folder.path().join("out.parquet")), "acce_norm_group");
    let from = |group: &str| groups.iter().flatten().filter(|found| found.starts_with(group)).count();
    assert!(from("COUNTRY:Country 00") > 800, "{}", from("COUNTRY:Country 00"));
    assert!(from("COUNTRY:") > 1_800 && from("GENDER:") > 50);
}

#[test]
fn progress_can_be_told_as_json() {
    let folder = tempdir().unwrap();
    let output = generate(&folder, "norms --groups 3 --progress json --to norms.ndjson").assert().success();
    let told: serde_json::Value = serde_json::from_slice(&output.get_output().stderr).unwrap();
    let written = fs::read_to_string(folder.path().join("norms.ndjson")).unwrap();
    assert_eq!(told["finished"]["rows"], written.lines().count());
    assert_eq!(told["finished"]["bytes_written"], written.len());
}

#[test]
fn help_says_what_there_is_and_shows_examples() {
    let folder = tempdir().unwrap();
    for table in ["sessions", "norms"] {
        let output = generate(&folder, &format!("{table} -h")).assert().success();
        insta::assert_snapshot!(table, String::from_utf8(output.get_output().stdout.clone()).unwrap());
    }
}
