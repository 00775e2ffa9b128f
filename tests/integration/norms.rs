//! `normstream norms` as its user meets it: import, list, show, validate, lookup, exit codes.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use predicates::prelude::*;
use predicates::str::contains;
use tempfile::{TempDir, tempdir};

use crate::support::{floats, golden, integers, normstream, read_parquet, strings};

/// The golden groups, imported to the folder `norms` of a folder.
fn imported(folder: &TempDir) -> PathBuf {
    let norms = folder.path().join("norms");
    norms_command(&["import"]).arg(golden("demo_groups.csv")).arg("--to").arg(&norms).assert().success();
    norms
}

fn norms_command(words: &[&str]) -> assert_cmd::Command {
    let mut command = normstream();
    command.arg("norms").args(words);
    command
}

fn csv(folder: &TempDir, rows: &str) -> PathBuf {
    let path = folder.path().join("rows.csv");
    fs::write(&path, format!("norm_group,norm_version,scale,raw_score,percentile\n{rows}")).unwrap();
    path
}

fn written(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_import_says_what_it_wrote_and_a_second_one_of_the_version_is_refused() {
    let folder = tempdir().unwrap();
    let norms = folder.path().join("norms");
    let import = |more: &[&str]| {
        let mut command = norms_command(&["import"]);
        command.arg(golden("demo_groups.csv")).arg("--to").arg(&norms).args(more).assert()
    };
    import(&[]).success().stdout(contains("default.parquet: version default, 10 groups, 2019 rows, "));
    import(&[]).code(2).stderr(contains("exists: norms of version 'default' are never edited in place"));
    import(&["--norm-version", "2026"]).success();
    assert_eq!(written(&norms), ["2026.parquet", "default.parquet"]);
}

#[test]
fn an_import_with_faults_lists_them_all_and_writes_nothing() {
    let folder = tempdir().unwrap();
    let rows = csv(&folder, "Total,,CE,9,5\nTotal,,CE,12,5\nTotal,,CE,12,6\nTotal,,QQ,12,5\n");
    let norms = folder.path().join("norms");
    let assert = norms_command(&["import"]).arg(&rows).arg("--to").arg(&norms).assert().code(2).stdout("");
    let shown = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    let name = rows.display();
    assert_eq!(
        shown,
        format!(
            "normstream: 3 faults in the norm tables:\n  \
             {name}:2: the raw score 9 of CE is not from 11 to 48\n  \
             {name}:4: CE 12 of Total stands already in {name}:3\n  \
             {name}:5: 'QQ' is not a scale: CE, RO, AC, AE, ACCE, AERO or LFI\n"
        )
    );
    assert_eq!(written(&norms), [""; 0]);
    norms_command(&["validate"]).arg(&rows).assert().code(1).stderr(contains("3 faults"));
}

#[test]
fn a_list_names_groups_versions_scales_and_rows() {
    let folder = tempdir().unwrap();
    let norms = imported(&folder);
    let text = norms_command(&["list"]).arg(&norms).assert().success();
    let text = String::from_utf8(text.get_output().stdout.clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 12, "{text}");
    assert_eq!(lines[0], format!("norm table {} (2019 rows)", norms.display()));
    assert_eq!(lines[2], "     201  default       CE RO AC AE ACCE AERO         AGE:19-24");
    norms_command(&["list", "--format", "ndjson"]).arg(&norms).assert().success().stdout(contains(
        r#""group":"AGE:19-24","version":"default","scales":["CE","RO","AC","AE","ACCE","AERO"],"rows":201}"#,
    ));
    norms_command(&["list"]).assert().success().stdout(contains("Total").and(contains("klsi4-2013")));
}

#[test]
fn a_group_is_shown_as_csv_that_can_be_imported_again() {
    let folder = tempdir().unwrap();
    let norms = imported(&folder);
    let mut texts = fs::read_to_string(golden("demo_groups.csv")).unwrap();
    texts.retain(|character| character != '\r');
    let expected: Vec<&str> = texts.lines().filter(|line| line.starts_with("GENDER:Male,")).collect();
    let shown = norms_command(&["show", "--group", "GENDER:Male"]).arg(&norms).assert().success();
    let shown = String::from_utf8(shown.get_output().stdout.clone()).unwrap();
    assert_eq!(shown.lines().count(), expected.len() + 1);
    let again = folder.path().join("again.csv");
    fs::write(&again, &shown).unwrap();
    let copy = folder.path().join("copy");
    norms_command(&["import"]).arg(&again).arg("--to").arg(&copy).assert().success();
    assert_eq!(read_parquet(&copy.join("default.parquet")).num_rows(), expected.len());
    norms_command(&["show", "--group", "GENDER:None"])
        .arg(&norms)
        .assert()
        .code(2)
        .stderr(contains("no table has the group 'GENDER:None' in the version 'default'"));
    norms_command(&["show", "--group", "Total|klsi4-2013", "--scale", "CE"])
        .assert()
        .success()
        .stdout(contains("Total,klsi4-2013,CE,12,7.4\n").and(contains("LFI").not()));
}

#[test]
fn a_validation_finds_what_was_changed_behind_its_back() {
    let folder = tempdir().unwrap();
    let norms = imported(&folder);
    norms_command(&["validate"]).arg(&norms).assert().success().stdout(contains("2019 rows, as they were imported"));
    fs::rename(norms.join("default.parquet"), norms.join("2026.parquet")).unwrap();
    norms_command(&["validate"])
        .arg(&norms)
        .assert()
        .code(1)
        .stderr(contains("2019 faults").and(contains("the row has the version 'default', the file holds '2026'")));
}

#[test]
fn a_lookup_shows_each_step_of_the_chain() {
    let folder = tempdir().unwrap();
    let norms = imported(&folder);
    let lookup = |words: &[&str]| {
        norms_command(&["lookup", "--group", "COUNTRY:Spain", "--group", "GENDER:Male|2026"])
            .arg("--norms")
            .arg(&norms)
            .args(words)
            .assert()
    };
    lookup(&["--scale", "CE", "--raw", "12"]).success().stdout(
        "COUNTRY:Spain: no table has this group in this version\n\
         GENDER:Male|2026: no table has this group in this version\n\
         published: CE 12 has the percentile 7.4\n",
    );
    lookup(&["--scale", "CE", "--raw", "12", "--allow-version-fallback"])
        .success()
        .stdout(contains("GENDER:Male|2026: CE 12 has the percentile ").and(contains(", by GENDER:Male\n")));
    lookup(&["--scale", "ACCE", "--raw", "-29", "--format", "ndjson"])
        .success()
        .stdout(contains(r#"{"token":"COUNTRY:Spain","version":"default","outcome":"no_such_group"}"#));
    lookup(&["--scale", "CE", "--raw", "50"])
        .code(2)
        .stderr(contains("no session has the raw score 50 of CE: 11 to 48"));
}

#[test]
fn tables_that_are_not_there_or_were_not_imported_are_named_with_what_to_do() {
    let folder = tempdir().unwrap();
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    norms_command(&["list"]).arg(&empty).assert().code(2).stderr(contains("there are no norm tables (*.parquet) in"));
    norms_command(&["list"])
        .arg(golden("sessions.parquet"))
        .assert()
        .code(2)
        .stderr(contains("was not written by `norms import`: it has no column 'norm_group'"));
}

#[test]
fn scoring_with_imported_norms_gives_the_same_as_with_their_csv() {
    let folder = tempdir().unwrap();
    let norms = imported(&folder);
    let score = |norms: &Path, name: &str| {
        let out = folder.path().join(name);
        let mut command = normstream();
        command.arg("score").arg(golden("sessions.parquet")).arg("--norms").arg(norms).arg("--to").arg(&out);
        command.assert().success();
        fs::read(out).unwrap()
    };
    assert_eq!(score(&norms, "a.parquet"), score(&golden("demo_groups.csv"), "b.parquet"));
}

#[test]
fn every_percentile_is_that_of_its_group_however_many_are_distinct() {
    let folder = tempdir().unwrap();
    let [generated, distinct, norms, sessions, results] =
        ["generated.csv", "distinct.csv", "norms", "sessions.parquet", "results.parquet"]
            .map(|name| folder.path().join(name));
    normstream().args(["generate", "norms", "--groups", "500", "--to"]).arg(&generated).assert().success();
    // Some hundred thousand percentiles: more than keys of one dictionary.
    let mut rows = String::new();
    let mut percentile_of = HashMap::new();
    for (line, row) in fs::read_to_string(&generated).unwrap().lines().enumerate() {
        let mut fields: Vec<String> = row.split(',').map(str::to_owned).collect();
        if line > 0 {
            let (raw, percentile): (i64, f64) = (fields[3].parse().unwrap(), fields[4].parse().unwrap());
            let percentile = (percentile + (raw + 100) as f64 * 1e-6 + line as f64 * 1e-12).min(100.0);
            fields[4] = percentile.to_string();
            percentile_of.insert((fields[0].clone(), fields[2].to_lowercase(), raw), percentile);
        }
        rows.extend([fields.join(","), "\n".to_owned()]);
    }
    let values: HashSet<u64> = percentile_of.values().map(|percentile| percentile.to_bits()).collect();
    assert!(values.len() > 2 * 65_535, "{}", values.len());
    fs::write(&distinct, rows).unwrap();
    norms_command(&["import"]).arg(&distinct).arg("--to").arg(&norms).assert().success();
    normstream().args(["generate", "sessions", "--rows", "20000", "--to"]).arg(&sessions).assert().success();
    normstream().arg("score").arg(&sessions).arg("--norms").arg(&norms).arg("--to").arg(&results).assert().success();

    let results = read_parquet(&results);
    let mut answered = 0;
    for (scale, raw) in
        [("ce", "ce_raw"), ("ro", "ro_raw"), ("ac", "ac_raw"), ("ae", "ae_raw"), ("acce", "acce"), ("aero", "aero")]
    {
        let groups = strings(&results, &format!("{scale}_norm_group"));
        let found = floats(&results, &format!("{scale}_percentile"));
        for ((group, raw), found) in groups.into_iter().zip(integers(&results, raw)).zip(found) {
            if let (Some(group), Some(raw)) = (group.filter(|group| group != "published"), raw) {
                let expected = percentile_of[&(group, scale.to_owned(), raw)];
                assert_eq!(found.map(f64::to_bits), Some(expected.to_bits()), "{scale} {raw}");
                answered += 1;
            }
        }
    }
    assert!(answered > 50_000, "{answered}");
}
