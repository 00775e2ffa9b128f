//! `normstream score` as its user meets it: formats, layouts, targets, policies, exit codes.

use std::fs;
use std::path::Path;

use arrow::array::RecordBatch;
use assert_cmd::assert::Assert;
use parquet::arrow::ArrowWriter;
use parquet::basic::Encoding;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::{TempDir, tempdir};

use crate::support::{booleans, golden, integers, normstream, read_parquet, strings};

/// Scores the golden sessions, or a rewriting of them, into a target.
fn score(input: &Path, target: &Path, more: &[&str]) -> Assert {
    normstream().arg("score").arg(input).arg("--to").arg(target).args(more).assert()
}

/// The same, and reads the result.
fn scored(input: &Path, more: &[&str]) -> RecordBatch {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.parquet");
    score(input, &out, more).success();
    read_parquet(&out)
}

/// The golden sessions in another format, written by the program's own pass-through.
fn golden_as(folder: &TempDir, name: &str) -> std::path::PathBuf {
    let path = folder.path().join(name);
    rewrite::golden_sessions(&path);
    path
}

#[test]
fn every_format_of_the_wide_layout_gives_identical_rows() {
    let folder = tempdir().unwrap();
    let expected = scored(&golden("sessions.parquet"), &[]);
    for name in ["sessions.csv", "sessions.ndjson", "sessions.arrow", "sessions.csv.gz", "sessions.ndjson.zst"] {
        assert_eq!(scored(&golden_as(&folder, name), &[]), expected, "{name}");
    }
}

#[test]
fn standard_input_is_recognised_and_gives_identical_rows() {
    let folder = tempdir().unwrap();
    let expected = scored(&golden("sessions.parquet"), &[]);
    for name in ["sessions.csv", "sessions.ndjson", "sessions.arrow", "sessions.csv.gz"] {
        let out = folder.path().join(format!("{name}.parquet"));
        let input = fs::read(golden_as(&folder, name)).unwrap();
        normstream().args(["score", "-", "--to"]).arg(&out).write_stdin(input).assert().success();
        assert_eq!(read_parquet(&out), expected, "{name}");
    }
}

#[test]
fn the_packed_layout_gives_identical_scores() {
    let folder = tempdir().unwrap();
    let packed = folder.path().join("packed.parquet");
    rewrite::golden_sessions_packed(&packed);
    let (expected, result) = (scored(&golden("sessions.parquet"), &[]), scored(&packed, &[]));
    assert_eq!(booleans(&result, "ok"), booleans(&expected, "ok"));
    let without_errors = |batch: &RecordBatch| {
        let kept: Vec<usize> = (0..batch.num_columns())
            .filter(|&index| !batch.schema().field(index).name().starts_with("error"))
            .collect();
        batch.project(&kept).unwrap()
    };
    assert_eq!(without_errors(&result), without_errors(&expected));
}

#[test]
fn the_long_layout_with_its_attributes_gives_identical_rows() {
    let folder = tempdir().unwrap();
    let norms = golden("demo_groups.csv");
    let norms = ["--norms", norms.to_str().unwrap()];
    for (ranks, attributes) in [("ranks.parquet", "attributes.parquet"), ("ranks.csv", "attributes.csv")] {
        let (ranks, attributes) = (folder.path().join(ranks), folder.path().join(attributes));
        rewrite::golden_sessions_long(&ranks, &attributes);
        let more = ["--attributes", attributes.to_str().unwrap()];
        assert_eq!(scored(&ranks, &more), scored(&golden("sessions.parquet"), &[]), "{}", ranks.display());
        let more = [more, norms].concat();
        assert_eq!(scored(&ranks, &more), scored(&golden("sessions.parquet"), &norms), "{}", ranks.display());
    }
}

#[test]
fn the_output_is_equal_to_the_byte_at_any_number_of_threads_and_any_batch_size() {
    let folder = tempdir().unwrap();
    let write = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let mut command = normstream();
        command.arg("score").arg(golden("sessions.parquet")).arg("--to").arg(&out).args(more);
        command.arg("--norms").arg(golden("demo_groups.csv")).assert().success();
        fs::read(out).unwrap()
    };
    let expected = write("a.parquet", &["--threads", "1"]);
    assert_eq!(write("b.parquet", &["--threads", "8"]), expected);
    assert_eq!(write("c.parquet", &["--batch-size", "100"]), expected);
    assert_eq!(write("d.parquet", &["--batch-size", "1777", "--threads", "3"]), expected);
}

#[test]
fn an_existing_target_is_replaced_only_when_asked() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.csv");
    fs::write(&out, "precious").unwrap();
    score(&golden("sessions.parquet"), &out, &[]).code(2).stderr(contains("exists: give --overwrite"));
    assert_eq!(fs::read_to_string(&out).unwrap(), "precious");
    score(&golden("sessions.parquet"), &out, &["--overwrite"]).success();
    assert!(fs::read_to_string(&out).unwrap().starts_with("session_id,user_id,completed_at,ok,"));
}

#[test]
fn a_file_that_exists_is_a_file_whatever_its_name() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out");
    fs::write(&out, "precious").unwrap();
    score(&golden("sessions.parquet"), &out, &[]).code(2).stderr(contains("give --format parquet"));
    score(&golden("sessions.parquet"), &out, &["--format", "parquet"])
        .code(2)
        .stderr(contains("exists: give --overwrite"));
    assert_eq!(fs::read_to_string(&out).unwrap(), "precious");
    score(&golden("sessions.parquet"), &out, &["--format", "parquet", "--overwrite"]).success();
    assert!(fs::read(&out).unwrap().starts_with(b"PAR1"));
}

#[test]
fn a_file_whose_name_says_no_format_needs_one() {
    normstream()
        .arg("score")
        .arg(golden("sessions.parquet"))
        .args(["--to", "out.txt"])
        .assert()
        .code(2)
        .stderr(contains("give --format parquet, csv, ndjson or arrow"));
}

#[test]
fn failed_sessions_are_kept_dropped_or_the_end_of_the_run() {
    let folder = tempdir().unwrap();
    assert_eq!(scored(&golden("sessions.parquet"), &[]).num_rows(), 2_000);
    let stats = folder.path().join("stats.json");
    let dropped = scored(&golden("sessions.parquet"), &["--on-error", "drop", "--stats", stats.to_str().unwrap()]);
    assert_eq!(dropped.num_rows(), 1_944);
    let stats: serde_json::Value = serde_json::from_str(&fs::read_to_string(stats).unwrap()).unwrap();
    assert_eq!((&stats["sessions"], &stats["failed"]), (&2_000.into(), &56.into()));
    assert_eq!(stats["failed_by_code"]["missing_rank"], 17);

    let out = folder.path().join("fail.parquet");
    normstream()
        .arg("score")
        .arg(golden("sessions.parquet"))
        .args(["--on-error", "fail", "--to"])
        .arg(&out)
        .assert()
        .code(1)
        .stderr(contains("cannot be scored").and(contains("session_id")));
    assert!(!out.exists(), "nothing is written");
}

#[test]
fn more_failures_than_allowed_give_exit_code_1_and_still_a_result() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.parquet");
    let score = |most: &str| {
        let mut command = normstream();
        command.arg("score").arg(golden("sessions.parquet")).args(["--overwrite", "--max-failures", most, "--to"]);
        command.arg(&out).assert()
    };
    score("55").code(1).stderr(contains("56 sessions failed, more than the 55"));
    assert_eq!(read_parquet(&out).num_rows(), 2_000);
    score("56").success();
}

#[test]
fn selected_columns_come_alone_and_what_they_do_not_need_is_not_in_the_plan() {
    let result = scored(&golden("sessions.parquet"), &["--select", "style,session_id"]);
    let schema = result.schema();
    let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
    assert_eq!(names, ["style", "session_id"]);
    let plan = normstream()
        .arg("score")
        .arg(golden("sessions.parquet"))
        .args(["--select", "style,session_id", "--explain"])
        .assert()
        .success();
    let plan = String::from_utf8(plan.get_output().stdout.clone()).unwrap();
    assert!(plan.contains("StyleExec") && plan.contains("ValidateExec"), "{plan}");
    assert!(!plan.contains("PercentilesExec") && !plan.contains("FlexibilityExec"), "{plan}");
    assert!(!plan.contains("country") && !plan.contains("completed_at"), "{plan}");
}

#[test]
fn passed_columns_come_last_and_must_exist() {
    let result = scored(&golden("sessions.parquet"), &["--pass", "country", "--pass", "date_of_birth"]);
    let schema = result.schema();
    assert_eq!(schema.fields().len(), 43);
    assert_eq!((schema.field(41).name().as_str(), schema.field(42).name().as_str()), ("country", "date_of_birth"));
    assert_eq!(strings(&result, "country"), strings(&read_parquet(&golden("sessions.parquet")), "country"));
    normstream()
        .arg("score")
        .arg(golden("sessions.parquet"))
        .args(["--to", "x.parquet", "--pass", "team"])
        .assert()
        .code(2)
        .stderr(contains("has no column 'team'"));
}

#[test]
fn columns_with_other_names_are_mapped() {
    let folder = tempdir().unwrap();
    let csv = folder.path().join("renamed.csv");
    let text = fs::read_to_string(golden_as(&folder, "sessions.csv")).unwrap();
    fs::write(&csv, text.replacen("user_id", "respondent", 1)).unwrap();
    let expected = integers(&scored(&golden("sessions.parquet"), &[]), "user_id");
    assert_eq!(integers(&scored(&csv, &["--column", "user_id=respondent"]), "user_id"), expected);
    assert!(integers(&scored(&csv, &[]), "user_id").iter().all(Option::is_none), "unmapped, it is not there");
    normstream().arg("score").arg(&csv).args(["--to", "-", "--column", "user_id=respondant"]).assert().code(2).stderr(
        contains(
            "--column user_id=respondant: no file of the input has a column 'respondant'; did you mean 'respondent'?",
        ),
    );
}

#[test]
fn a_file_that_lacks_a_rank_column_is_refused_before_anything_is_scored() {
    let folder = tempdir().unwrap();
    let csv = folder.path().join("short.csv");
    let text = fs::read_to_string(golden_as(&folder, "sessions.csv")).unwrap();
    fs::write(&csv, text.replacen("q07_ac", "q07_xx", 1)).unwrap();
    normstream()
        .arg("score")
        .arg(&csv)
        .args(["--to", "-"])
        .assert()
        .code(2)
        .stdout("")
        .stderr(contains("short.csv has no column 'q07_ac', which the wide layout needs"));
}

#[test]
fn a_file_with_damaged_pages_is_named() {
    let folder = tempdir().unwrap();
    let mut bytes = fs::read(golden("sessions.parquet")).unwrap();
    let middle = bytes.len() / 8;
    bytes[middle..2 * middle].fill(0xff);
    fs::write(folder.path().join("damaged.parquet"), bytes).unwrap();
    let commands: [&[&str]; 3] = [
        &["score", "damaged.parquet", "--to", "out.parquet"],
        &["score", "damaged.parquet", "--to", "table"],
        &["explain", "damaged.parquet", "--session", "1"],
    ];
    for command in commands {
        normstream()
            .current_dir(&folder)
            .args(command)
            .assert()
            .code(2)
            .stderr(contains("cannot read damaged.parquet as parquet: ").and(contains("Parquet error: Parquet").not()));
        assert!(!folder.path().join("out.parquet").exists());
    }
}

#[test]
fn folders_and_patterns_name_their_files_in_order() {
    let folder = tempdir().unwrap();
    let sessions = folder.path().join("in/2024");
    fs::create_dir_all(&sessions).unwrap();
    fs::copy(golden("sessions.parquet"), sessions.join("b.parquet")).unwrap();
    fs::copy(golden("sessions.parquet"), sessions.join("a.parquet")).unwrap();
    fs::write(sessions.join("README.txt"), "not a session file").unwrap();
    let twice = scored(&folder.path().join("in"), &[]);
    assert_eq!(twice.num_rows(), 4_000);
    let pattern = scored(&folder.path().join("in/**/[ab].parquet"), &[]);
    assert_eq!(pattern, twice);
    normstream()
        .args(["score", "nowhere/*.parquet", "--to", "-"])
        .assert()
        .code(2)
        .stderr(contains("nowhere/*.parquet names no session file"));
}

/// The same rows with ranks as differences, which are not read as bytes.
fn with_ranks_as_differences(batch: &RecordBatch) -> Vec<u8> {
    let schema = batch.schema();
    let ranks = schema.fields().iter().filter(|field| field.name().starts_with("q") || field.name().starts_with("ctx"));
    let properties = ranks.fold(WriterProperties::builder(), |properties, rank| {
        let column = ColumnPath::from(rank.name().as_str());
        properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED)
    });
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties.build())).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    file
}

#[test]
fn files_of_one_schema_whose_ranks_are_encoded_unlike_are_scored_as_each_alone() {
    let folder = tempdir().unwrap();
    let sessions = golden("sessions.parquet");
    for copy in ["1.parquet", "3.parquet"] {
        fs::copy(&sessions, folder.path().join(copy)).unwrap();
    }
    fs::write(folder.path().join("2.parquet"), with_ranks_as_differences(&read_parquet(&sessions))).unwrap();
    let (all, alone) = (scored(folder.path(), &[]), scored(&sessions, &[]));
    assert_eq!(all.num_rows(), 3 * alone.num_rows());
    for file in 0..3 {
        assert_eq!(all.slice(file * alone.num_rows(), alone.num_rows()), alone, "file {}", file + 1);
    }
}

#[test]
fn results_on_standard_output_are_data_alone() {
    let output = normstream().arg("score").arg(golden("sessions.parquet")).args(["--to", "-"]).assert().success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    assert_eq!(text.lines().count(), 2_000);
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["session_id"], &first["style"], &first["lfi"]),
        (&1.into(), &"analyzing".into(), &0.83125.into())
    );
}

#[test]
fn unknown_settings_are_refused_with_the_nearest_name() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("normstream.toml"), "batch_sise = 100\n").unwrap();
    let show = |command: &mut assert_cmd::Command| command.current_dir(folder.path()).args(["config", "show"]).assert();
    show(&mut normstream())
        .code(2)
        .stderr(contains("unknown setting 'batch_sise' in normstream.toml; did you mean 'batch_size'?"));
    fs::write(
        folder.path().join("normstream.toml"),
        "batch_size = 100\n[storage.\"s3://b\"]\nsecret_access_key = \"s3cr3t\"\n",
    )
    .unwrap();
    show(normstream().env("NORMSTREAM_THREADS", "3"))
        .success()
        .stdout(contains("normstream.toml").and(contains("environment")).and(contains("s3cr3t").not()));
    show(normstream().env("NORMSTREAM_THREADS", "0"))
        .code(2)
        .stderr(contains("threads is 0: it must be from 1 to 1024"));
    show(normstream().env("NORMSTREAM_THREADS", "two")).code(2).stderr(contains(
        "the setting 'threads' in environment cannot be read: it must be a whole number, and is the string \"two\"",
    ));
}

/// The golden sessions in other formats and layouts, written with the Arrow libraries.
mod rewrite {
    use std::fs::File;
    use std::io::Write;
    use std::path::Path;
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt8Array};
    use arrow::datatypes::{Int64Type, UInt8Type};
    use arrow::json::LineDelimitedWriter;
    use normstream::model::{permutation, session};
    use parquet::arrow::ArrowWriter;

    use crate::support::{golden, read_parquet};

    pub(super) fn golden_sessions(path: &Path) {
        let sessions = read_parquet(&golden("sessions.parquet"));
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut bytes = Vec::new();
        if name.contains(".csv") {
            arrow::csv::Writer::new(&mut bytes).write(&sessions).unwrap();
        } else if name.contains(".ndjson") {
            let mut writer = LineDelimitedWriter::new(&mut bytes);
            writer.write(&sessions).unwrap();
            writer.finish().unwrap();
        } else {
            let mut writer = arrow::ipc::writer::FileWriter::try_new(&mut bytes, &sessions.schema()).unwrap();
            writer.write(&sessions).unwrap();
            writer.finish().unwrap();
        }
        let mut file = File::create(path).unwrap();
        if name.ends_with(".gz") {
            let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            gzip.write_all(&bytes).unwrap();
            gzip.finish().unwrap();
        } else if name.ends_with(".zst") {
            zstd::stream::copy_encode(bytes.as_slice(), file, 1).unwrap();
        } else {
            file.write_all(&bytes).unwrap();
        }
    }

    pub(super) fn golden_sessions_packed(path: &Path) {
        let sessions = read_parquet(&golden("sessions.parquet"));
        let mut columns: Vec<(String, ArrayRef)> = Vec::new();
        for name in ["session_id", "user_id", "completed_at", "education_level", "country", "date_of_birth", "gender"] {
            columns.push((name.to_owned(), Arc::clone(sessions.column_by_name(name).unwrap())));
        }
        for (part, item) in session::items(12, 8) {
            let ranks = normstream::model::Mode::ALL.map(|mode| {
                let name = session::wide_column(part, item, mode);
                sessions.column_by_name(&name).unwrap().as_primitive::<UInt8Type>().clone()
            });
            let code = |row: usize| {
                let missing = ranks.iter().any(|ranks| ranks.is_null(row));
                let code = permutation::code_of(ranks.each_ref().map(|ranks| ranks.value(row)));
                (!missing).then(|| code.unwrap_or(99))
            };
            let codes: UInt8Array = (0..sessions.num_rows()).map(code).collect();
            columns.push((session::packed_column(part, item), Arc::new(codes)));
        }
        write(path, &RecordBatch::try_from_iter(columns).unwrap());
    }

    /// A row for each rank that is there, and a table of the attributes.
    pub(super) fn golden_sessions_long(ranks: &Path, attributes: &Path) {
        let sessions = read_parquet(&golden("sessions.parquet"));
        let ids = sessions.column_by_name("session_id").unwrap().as_primitive::<Int64Type>();
        let mut columns: Vec<(&str, &str, usize, UInt8Array)> = Vec::new();
        for (part, item) in session::items(12, 8) {
            for mode in normstream::model::Mode::ALL {
                let name = session::wide_column(part, item, mode);
                let part = if name.starts_with("ctx") { "context" } else { "style" };
                let column = sessions.column_by_name(&name).unwrap().as_primitive::<UInt8Type>().clone();
                columns.push((part, mode.code(), item, column));
            }
        }
        let rows: Vec<(i64, &str, usize, &str, u8)> = (0..sessions.num_rows())
            .flat_map(|row| columns.iter().map(move |column| (row, column)))
            .filter(|(row, (.., ranks))| ranks.is_valid(*row))
            .map(|(row, (part, mode, item, ranks))| (ids.value(row), *part, *item, *mode, ranks.value(row)))
            .collect();
        let long = RecordBatch::try_from_iter([
            ("session_id", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))) as ArrayRef),
            ("part", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)))),
            ("item", Arc::new(UInt8Array::from_iter_values(rows.iter().map(|row| row.2 as u8)))),
            ("mode", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.3)))),
            ("rank", Arc::new(UInt8Array::from_iter_values(rows.iter().map(|row| row.4)))),
        ]);
        write(ranks, &long.unwrap());
        let is_rank = |name: &str| {
            session::items(12, 8).any(|(part, item)| {
                normstream::model::Mode::ALL.into_iter().any(|mode| session::wide_column(part, item, mode) == name)
            })
        };
        let schema = sessions.schema();
        let kept: Vec<usize> = (0..sessions.num_columns()).filter(|&at| !is_rank(schema.field(at).name())).collect();
        write(attributes, &sessions.project(&kept).unwrap());
    }

    fn write(path: &Path, rows: &RecordBatch) {
        let file = File::create(path).unwrap();
        if path.extension().is_some_and(|extension| extension == "csv") {
            return arrow::csv::Writer::new(file).write(rows).unwrap();
        }
        let mut writer = ArrowWriter::try_new(file, rows.schema(), None).unwrap();
        writer.write(rows).unwrap();
        writer.close().unwrap();
    }
}
