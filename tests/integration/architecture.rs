//! The layers of the library: which module may name which, read from its `use crate::` lines.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module and the modules that it may name. A module may always name itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("tasks", &[]),
    ("model", &[]),
    ("instrument", &["model"]),
    ("scoring", &["model", "instrument"]),
    ("generate", &["model"]),
    ("storage", &[]),
    ("table", &["storage"]),
    ("norms", &["tasks", "model", "instrument", "storage"]),
    ("operators", &["model", "instrument", "scoring", "norms"]),
    ("engine", &["model", "instrument", "scoring", "norms", "storage", "table", "operators"]),
    ("run", &["tasks", "model", "instrument", "scoring", "norms", "storage", "table", "operators", "engine"]),
    ("export", &["model", "norms", "storage", "table", "operators", "engine", "run"]),
    ("config", &["model", "norms", "storage", "operators", "engine", "run", "export"]),
    ("telemetry", &["config", "norms", "run"]),
    ("error", &["config", "instrument", "norms", "storage", "table", "engine", "run", "export"]),
    (
        "cli",
        &[
            "model",
            "instrument",
            "scoring",
            "generate",
            "storage",
            "table",
            "norms",
            "operators",
            "engine",
            "run",
            "export",
            "config",
            "telemetry",
            "error",
        ],
    ),
];

/// The modules whose only dependency beside the standard library and small crates is Arrow.
const ARROW_ONLY: &[&str] = &["model", "instrument", "scoring", "generate"];
const HEAVY: &[&str] = &["datafusion::", "parquet::", "object_store::", "tokio::", "std::fs::File"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The lines of every source file, by top-level module, tests left out.
fn lines_by_module() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut lines = BTreeMap::<_, Vec<_>>::new();
    for file in files {
        let inside = file.strip_prefix(&root).unwrap().to_owned();
        let is_test = inside.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs");
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if is_test || module == "lib" || module == "main" {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let kept = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.entry(module).or_default().extend(kept.map(|line| (inside.clone(), line.to_owned())));
    }
    lines
}

/// The modules that a line names as `crate::module`.
fn named(line: &str) -> Vec<&str> {
    let end = |rest: &str| rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    line.match_indices("crate::").map(|(at, found)| &line[at + found.len()..]).map(|rest| &rest[..end(rest)]).collect()
}

#[test]
fn every_module_is_in_the_table_of_layers() {
    let known: Vec<&str> = LAYERS.iter().map(|(module, _)| *module).collect();
    for module in lines_by_module().keys() {
        assert!(known.contains(&module.as_str()), "give {module} a place in the table of layers");
    }
}

#[test]
fn modules_name_only_the_layers_below_them() {
    let mut violations = Vec::new();
    for (module, lines) in lines_by_module() {
        let (_, allowed) = LAYERS.iter().find(|(name, _)| *name == module).unwrap();
        for (file, line) in &lines {
            for named in named(line) {
                let is_module = LAYERS.iter().any(|(name, _)| *name == named);
                if is_module && named != module && !allowed.contains(&named) {
                    violations.push(format!("{}: {module} names {named}: {}", file.display(), line.trim()));
                }
            }
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn kernels_and_vocabulary_name_nothing_heavier_than_arrow() {
    let mut violations = Vec::new();
    for (module, lines) in lines_by_module() {
        if ARROW_ONLY.contains(&module.as_str()) {
            let heavy = lines.iter().filter(|(_, line)| HEAVY.iter().any(|name| line.contains(name)));
            violations.extend(heavy.map(|(file, line)| format!("{}: {}", file.display(), line.trim())));
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}
