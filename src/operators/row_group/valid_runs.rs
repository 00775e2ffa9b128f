//! The rows of a batch that are not null, as runs. Most columns of results are null in the same rows, so runs are found once.

use std::ops::Range;

use arrow::buffer::NullBuffer;

/// The runs of rows that are not null. Those of the last column with nulls are kept, and its null buffer with them.
#[derive(Default)]
pub(super) struct ValidRuns {
    nulls: Option<NullBuffer>,
    runs: Vec<Range<usize>>,
    /// The one run of a column without nulls.
    all: Range<usize>,
}

impl ValidRuns {
    /// The runs of a column of `rows` rows, in order.
    pub(super) fn of(&mut self, nulls: Option<&NullBuffer>, rows: usize) -> &[Range<usize>] {
        let Some(nulls) = nulls.filter(|nulls| nulls.null_count() > 0) else {
            self.all = 0..rows;
            return std::slice::from_ref(&self.all);
        };
        if !self.nulls.as_ref().is_some_and(|known| known.inner().ptr_eq(nulls.inner())) {
            self.runs.clear();
            self.runs.extend(nulls.valid_slices().map(|(from, to)| from..to));
            self.nulls = Some(nulls.clone());
        }
        &self.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_those_of_the_column_asked_for() {
        let nulls = NullBuffer::from(vec![true, true, false, true, false, false, true]);
        let others = NullBuffer::from(vec![false, true, true, true, true, true, true]);
        let mut runs = ValidRuns::default();
        let mut of = |nulls: Option<&NullBuffer>, rows| -> Vec<(usize, usize)> {
            runs.of(nulls, rows).iter().map(|run| (run.start, run.end)).collect()
        };
        assert_eq!(of(Some(&nulls), 7), [(0, 2), (3, 4), (6, 7)]);
        assert_eq!(of(None, 5), [(0, 5)]);
        assert_eq!(of(Some(&nulls.clone()), 7), [(0, 2), (3, 4), (6, 7)]);
        assert_eq!(of(Some(&others), 7), [(1, 7)]);
        assert_eq!(of(Some(&nulls.slice(1, 4)), 4), [(0, 1), (2, 3)]);
        assert_eq!(of(Some(&nulls.slice(1, 2)), 2), [(0, 1)]);
        assert_eq!(of(Some(&nulls.slice(2, 2)), 2), [(1, 2)]);
        assert_eq!(of(Some(&NullBuffer::new_null(3)), 3), []);
        assert_eq!(of(Some(&NullBuffer::new_valid(3)), 3), [(0, 3)]);
    }
}
