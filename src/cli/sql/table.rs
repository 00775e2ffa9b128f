//! Rows as a table of text that fits the terminal.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use terminal_size::{Width, terminal_size};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// How many rows a table shows.
pub(super) const TABLE_ROWS: usize = 1_000;

/// How wide a column may be where a table is too wide.
const WIDEST: usize = 40;

/// The width of the terminal that standard output is; `None` if it is none.
pub(super) fn terminal_width() -> Option<usize> {
    terminal_size().map(|(Width(columns), _)| usize::from(columns))
}

/// A table with its note: how many rows, and what is not shown. `is_cut` says that there are more rows.
///
/// Where it is wider than `width`, long texts are cut first, and then columns are left out in the middle.
pub(super) fn render(schema: &Schema, rows: &[RecordBatch], is_cut: bool, width: Option<usize>) -> String {
    if let Some(plans) = plans(schema, rows) {
        return plans;
    }
    let mut columns: Vec<Column> = (0..schema.fields().len()).map(|index| Column::new(schema, rows, index)).collect();
    let count = rows.iter().map(RecordBatch::num_rows).sum::<usize>();
    let all = columns.len();
    let shown = width.map_or(all, |width| fit(&mut columns, width, count));
    let line: String =
        columns.iter().map(|column| format!("+{}", "-".repeat(column.width + 2))).collect::<String>() + "+\n";
    let mut text = line.clone();
    for row in std::iter::once(None).chain((0..count).map(Some)) {
        for column in &columns {
            let cell = row.map_or(column.name.as_str(), |row| &column.cells[row]);
            let space = " ".repeat(column.width - cell.width());
            let is_right = row.is_some() && column.is_number;
            text.push_str(&if is_right { format!("| {space}{cell} ") } else { format!("| {cell}{space} ") });
        }
        text.push_str("|\n");
        if row.is_none() {
            text.push_str(&line);
        }
    }
    if count > 0 {
        text.push_str(&line);
    }
    text.push_str(&note(count, is_cut, all, shown));
    text
}

fn note(rows: usize, is_cut: bool, all: usize, shown: usize) -> String {
    let mut note = match (rows, is_cut) {
        (1, false) => "(1 row".to_owned(),
        (rows, false) => format!("({rows} rows"),
        (rows, true) => {
            format!("(the first {rows} rows; there are more, all of them with --format csv, ndjson or parquet")
        }
    };
    if shown < all {
        note.push_str(&format!("; {shown} of {all} columns fit"));
    }
    note + ")\n"
}

/// What EXPLAIN gives: plans, whose lines no table should cut.
fn plans(schema: &Schema, rows: &[RecordBatch]) -> Option<String> {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if names != ["plan_type", "plan"] {
        return None;
    }
    let (kinds, plans) = (Column::lines(rows, 0)?, Column::lines(rows, 1)?);
    let plan = |(kind, plan): (&String, &String)| format!("{kind}\n{}\n", indented(plan));
    Some(kinds.iter().zip(&plans).map(plan).collect())
}

fn indented(plan: &str) -> String {
    plan.lines().map(|line| format!("  {line}\n")).collect()
}

/// A column as text.
struct Column {
    name: String,
    cells: Vec<String>,
    width: usize,
    is_number: bool,
}

impl Column {
    fn new(schema: &Schema, rows: &[RecordBatch], index: usize) -> Column {
        let field = schema.field(index);
        let one_line =
            |text: String| if text.contains(['\n', '\t', '\r']) { text.replace(['\n', '\t', '\r'], " ") } else { text };
        let cells: Vec<String> = Column::lines(rows, index).unwrap_or_default().into_iter().map(one_line).collect();
        let mut column =
            Column { name: field.name().clone(), cells, width: 0, is_number: is_number(field.data_type()) };
        column.measure();
        column
    }

    fn lines(rows: &[RecordBatch], index: usize) -> Option<Vec<String>> {
        let options = FormatOptions::default().with_display_error(true);
        let mut lines = Vec::new();
        for batch in rows {
            let formatter = ArrayFormatter::try_new(batch.column(index), &options).ok()?;
            lines.extend((0..batch.num_rows()).map(|row| formatter.value(row).to_string()));
        }
        Some(lines)
    }

    /// A column that stands for those left out.
    fn gap(rows: usize) -> Column {
        Column { name: "…".to_owned(), cells: vec!["…".to_owned(); rows], width: 1, is_number: false }
    }

    fn measure(&mut self) {
        self.width = self.cells.iter().map(|cell| cell.width()).chain([self.name.width()]).max().unwrap_or(0);
    }

    fn cut(&mut self, width: usize) {
        for cell in self.cells.iter_mut().chain([&mut self.name]).filter(|cell| cell.width() > width) {
            *cell = cut(cell, width);
        }
        self.measure();
    }
}

fn is_number(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_number(value),
        other => other.is_numeric(),
    }
}

/// The beginning of a text, in so many columns of a terminal.
fn cut(text: &str, width: usize) -> String {
    let mut used = 1;
    let kept = text.chars().take_while(|c| {
        used += c.width().unwrap_or(0);
        used <= width
    });
    kept.chain(['…']).collect()
}

fn total(columns: &[Column]) -> usize {
    columns.iter().map(|column| column.width + 3).sum::<usize>() + 1
}

/// Cuts and leaves out until the rest fits; gives how many columns are left.
fn fit(columns: &mut Vec<Column>, width: usize, rows: usize) -> usize {
    if total(columns) <= width {
        return columns.len();
    }
    for column in columns.iter_mut().filter(|column| column.width > WIDEST) {
        column.cut(WIDEST);
    }
    if total(columns) <= width {
        return columns.len();
    }
    let middle = columns.len().div_ceil(2);
    let mut last = columns.split_off(middle);
    columns.push(Column::gap(rows));
    // From the middle outwards, on the longer side first; a column on the left stays.
    while total(columns) + total(&last) - 1 > width && columns.len() + last.len() > 2 {
        if last.len() >= columns.len() - 1 && !last.is_empty() {
            last.remove(0);
        } else {
            columns.remove(columns.len() - 2);
        }
    }
    columns.append(&mut last);
    // All but the gap.
    columns.len() - 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, StringArray};

    use super::*;

    fn batch(columns: &[(&str, ArrayRef)]) -> RecordBatch {
        RecordBatch::try_from_iter(columns.iter().map(|(name, column)| (*name, Arc::clone(column)))).unwrap()
    }

    fn shown(batch: &RecordBatch, width: Option<usize>) -> String {
        render(&batch.schema(), std::slice::from_ref(batch), false, width)
    }

    #[test]
    fn numbers_stand_right_and_text_left() {
        let rows = batch(&[
            ("style", Arc::new(StringArray::from(vec![Some("acting"), None]))),
            ("n", Arc::new(Int32Array::from(vec![7, 1_200]))),
        ]);
        insta::assert_snapshot!(shown(&rows, None), @r"
        +--------+------+
        | style  | n    |
        +--------+------+
        | acting |    7 |
        |        | 1200 |
        +--------+------+
        (2 rows)
        ");
    }

    #[test]
    fn a_table_without_rows_has_its_head() {
        let rows = batch(&[("n", Arc::new(Int32Array::from(Vec::<i32>::new())))]);
        assert_eq!(shown(&rows, None), "+---+\n| n |\n+---+\n(0 rows)\n");
    }

    #[test]
    fn a_table_fits_its_terminal() {
        let text: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(100)]));
        let number: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        let rows = batch(&[("a", Arc::clone(&number)), ("text", text), ("b", number)]);
        let wide = shown(&rows, Some(80));
        assert!(wide.lines().all(|line| line.width() <= 80), "{wide}");
        assert!(wide.contains("xxx…") && wide.ends_with("(1 row)\n"), "{wide}");
        let narrow = shown(&rows, Some(20));
        assert!(narrow.lines().take(5).all(|line| line.width() <= 20), "{narrow}");
        assert!(narrow.ends_with("(1 row; 2 of 3 columns fit)\n"), "{narrow}");
    }

    #[test]
    fn a_long_text_is_cut_by_the_width_of_its_characters() {
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("日本語テキスト", 6), "日本…");
    }

    #[test]
    fn plans_are_lines_and_no_table() {
        let rows = batch(&[
            ("plan_type", Arc::new(StringArray::from(vec!["physical_plan"]))),
            ("plan", Arc::new(StringArray::from(vec!["A\n  B"]))),
        ]);
        assert_eq!(shown(&rows, Some(10)), "physical_plan\n  A\n    B\n\n");
    }
}
