//! The views that come with the program: one file each in `sql/views`, over the table `results`.
//!
//! A file opens with comments that say what the view is for, its grain, what it needs and its columns; the rest is its query. A
//! block from `-- if NAME` to `-- end` is part of the query only where results have a column of this name.
//!
//! ```text
//! -- team_rollup: each team's sessions
//! -- grain: one row per team
//! -- needs: team_id
//! -- columns:
//! --   team_id   text    the team
//! ```

use arrow::datatypes::Schema;

/// A view, before it is known whether the results have what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Its name.
    pub name: &'static str,
    /// What it is for, in a line.
    pub summary: String,
    /// What one row stands for.
    pub grain: String,
    /// Columns that results must have beside those that they always have.
    pub needs: Vec<String>,
    /// The file.
    pub text: &'static str,
}

macro_rules! views {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../sql/views/", $name, ".sql")))),*]
    };
}

/// Each view's name and file, in alphabetical order.
const FILES: &[(&str, &str)] = views![
    "duplicate_sessions",
    "failed_sessions",
    "flexibility_summary",
    "lfi_context_profile",
    "norm_coverage",
    "percentile_histogram",
    "score_summary",
    "session_deltas",
    "style_distribution",
    "team_rollup",
];

impl View {
    /// All views, by name.
    pub fn all() -> Vec<View> {
        FILES.iter().map(|(name, text)| View::read(name, text)).collect()
    }

    fn read(name: &'static str, text: &'static str) -> View {
        let comments = || text.lines().map_while(|line| line.strip_prefix("--")).map(str::trim);
        let value = |key: &str| {
            let found = comments().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            found.unwrap_or_default().trim().to_owned()
        };
        let needs = value("needs");
        let needs = needs.split(',').map(str::trim).filter(|column| !column.is_empty()).map(str::to_owned).collect();
        View { name, summary: value(name), grain: value("grain"), needs, text }
    }

    /// The columns that results lack for it.
    pub(super) fn lacks(&self, results: &Schema) -> Vec<&str> {
        self.needs.iter().map(String::as_str).filter(|column| results.index_of(column).is_err()).collect()
    }

    /// The query over results of a schema: the file without comments and without the blocks for columns that are not there.
    pub(super) fn query(&self, results: &Schema) -> String {
        let mut query = String::new();
        let mut left_out = false;
        for line in self.text.lines() {
            match line.trim().strip_prefix("--").map(str::trim) {
                Some("end") => left_out = false,
                Some(comment) => {
                    if let Some(column) = comment.strip_prefix("if ") {
                        left_out = results.index_of(column.trim()).is_err();
                    }
                }
                None if left_out => {}
                None => {
                    query.push_str(line);
                    query.push('\n');
                }
            }
        }
        query.trim().trim_end_matches(';').trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::datatypes::{DataType, Field};

    use super::*;

    #[test]
    fn every_view_says_what_it_is_and_what_a_row_is() {
        for view in View::all() {
            assert!(!view.summary.is_empty() && !view.grain.is_empty(), "{}", view.name);
            assert!(view.text.contains("-- columns:"), "{}", view.name);
        }
        assert!(FILES.is_sorted());
    }

    #[test]
    fn every_file_of_the_folder_is_a_view() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/views");
        let files = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        assert_eq!(names, FILES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }

    #[test]
    fn a_block_is_there_if_its_column_is() {
        let text =
            "-- v: a view\n-- grain: a row\n-- needs: a, b\nSELECT 1\n-- if country\nUNION ALL SELECT 2\n-- end\n;";
        let view = View::read("v", text);
        assert_eq!((view.summary.as_str(), view.grain.as_str(), view.needs.len()), ("a view", "a row", 2));
        let with =
            Schema::new(vec![Field::new("country", DataType::Utf8, true), Field::new("a", DataType::Utf8, true)]);
        assert_eq!(view.query(&with), "SELECT 1\nUNION ALL SELECT 2");
        assert_eq!(view.query(&Schema::empty()), "SELECT 1");
        assert_eq!(view.lacks(&with), ["b"]);
    }
}
