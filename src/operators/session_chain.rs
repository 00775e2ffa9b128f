//! The norm chain of one session, spelled out: what each template becomes, and what leaves one out.
//!
//! For showing how a percentile came about. The percentile stage reads attributes by the same rules, a batch at a time.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use datafusion::error::Result;

use crate::instrument::Instrument;
use crate::norms::{Chain, GroupToken};
use crate::operators::attributes::{Attribute, NULL_ID};

/// A template of a chain, filled from one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainEntry {
    /// The template as it was written.
    pub template: String,
    /// The token it becomes; `None` when it is left out.
    pub token: Option<GroupToken>,
    /// The attributes that are null or blank and so leave the template out.
    pub missing: Vec<String>,
}

/// The chain of the session in the first row of `session`, most specific template first.
///
/// `session` has the columns of a scan; an attribute it lacks counts as null.
pub fn session_chain(chain: &Chain, instrument: &Arc<Instrument>, session: &RecordBatch) -> Result<Vec<ChainEntry>> {
    let mut names: Vec<String> = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for name in chain.attributes().into_iter().flat_map(Attribute::candidates) {
        if let (false, Some(column)) = (names.iter().any(|known| known == name), session.column_by_name(name)) {
            names.push(name.to_owned());
            columns.push(Arc::clone(column));
        }
    }
    let mut values: Vec<(&str, Option<String>)> = Vec::new();
    for name in chain.attributes() {
        let mut attribute = Attribute::new(name, &names, instrument);
        let ids = attribute.ids(session.num_rows(), &columns)?;
        let id = ids.and_then(|ids| ids.first().copied()).unwrap_or(NULL_ID);
        values.push((name, attribute.values().value(id).map(str::to_owned)));
    }
    let value = |name: &str| values.iter().find(|(known, _)| *known == name).and_then(|(_, value)| value.as_deref());
    let entry = |template: &crate::norms::ChainTemplate| ChainEntry {
        template: template.to_string(),
        token: template.expand(value),
        missing: template.attributes().into_iter().filter(|name| value(name).is_none()).map(str::to_owned).collect(),
    };
    Ok(chain.templates.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::array::{Date32Array, StringArray};

    use super::*;

    fn chain_of(chain: &str, columns: Vec<(&str, ArrayRef)>) -> Vec<(String, Vec<String>)> {
        let session = RecordBatch::try_from_iter(columns).unwrap();
        let entries = session_chain(&chain.parse().unwrap(), &Instrument::klsi4(), &session).unwrap();
        entries
            .into_iter()
            .map(|entry| (entry.token.map_or_else(|| "-".to_owned(), |token| token.to_string()), entry.missing))
            .collect()
    }

    fn text(value: Option<&str>) -> ArrayRef {
        Arc::new(StringArray::from(vec![value]))
    }

    #[test]
    fn each_template_becomes_a_token_or_names_what_it_lacks() {
        let columns = vec![("country", text(Some("Spain"))), ("gender", text(Some("  ")))];
        let entries = chain_of("C:{country},G:{gender}:{country},L:{language},Total", columns);
        let missing = |name: &str| vec![name.to_owned()];
        let expected = [
            ("C:Spain".to_owned(), vec![]),
            ("-".to_owned(), missing("gender")),
            ("-".to_owned(), missing("language")),
            ("Total".to_owned(), vec![]),
        ];
        assert_eq!(entries, expected);
    }

    #[test]
    fn a_missing_age_band_is_reckoned_from_the_dates() {
        let columns = |band| {
            vec![
                ("age_band", text(band)),
                ("date_of_birth", Arc::new(Date32Array::from(vec![0])) as ArrayRef),
                ("completed_at", Arc::new(Date32Array::from(vec![20_000])) as ArrayRef),
            ]
        };
        assert_eq!(chain_of("AGE:{age_band}", columns(None)), [("AGE:45-54".to_owned(), vec![])]);
        assert_eq!(chain_of("AGE:{age_band}", columns(Some("19-24"))), [("AGE:19-24".to_owned(), vec![])]);
    }
}
