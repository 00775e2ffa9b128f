//! All stages chained over random batches give what the reference gives, column by column and to the last bit.

use std::sync::Arc;

use proptest::prelude::*;

use crate::instrument::Instrument;
use crate::model::norm::ChainScope;
use crate::model::session::{COMPLETED_AT, SESSION_ID, USER_ID};
use crate::model::{Layout, result};
use crate::scoring::tests::columns::{Form, form};
use crate::scoring::tests::norms::{Norms, chain, norm_rows};
use crate::scoring::tests::reference::{self, NormRows};
use crate::scoring::tests::session::{Session, long_session, packed_session, wide_session};
use crate::scoring::tests::table::{Table, Value};
use crate::scoring::{Combinations, Flags, Flexibility, RawScales, Style, Validate};

/// Sessions with their chains.
type Batch = Vec<(Session, Vec<Option<String>>)>;

fn batch(session: impl Strategy<Value = Session>) -> impl Strategy<Value = Batch> {
    prop::collection::vec((session, chain()), 1..70)
}

fn scope() -> impl Strategy<Value = ChainScope> {
    prop::sample::select(vec![ChainScope::PerScale, ChainScope::PerSession])
}

/// The stages before percentiles.
pub(super) fn scores(instrument: &Arc<Instrument>, layout: Layout, table: Table) -> Table {
    table
        .apply(&Validate::new(instrument, layout))
        .apply(&RawScales::new(instrument))
        .apply(&Combinations::new(instrument))
        .apply(&Style::new(instrument))
        .apply(&Flexibility::new(instrument))
}

fn agrees(layout: Layout, form: &Form, batch: Batch, scope: ChainScope, rows: NormRows) -> Result<(), TestCaseError> {
    let (sessions, chains): (Vec<Session>, Vec<_>) = batch.into_iter().unzip();
    let sessions = form.express(&sessions);
    let norms = Norms::new(rows);

    let instrument = Instrument::klsi4();
    let table = scores(&instrument, layout, form.table(layout, &sessions));
    let table = norms.apply(table, &chains, scope).apply(&Flags::new(&instrument));

    let expected: Vec<_> = sessions
        .iter()
        .zip(&chains)
        .map(|(session, chain)| {
            let chain: Vec<String> = chain.iter().flatten().cloned().collect();
            reference::score(layout, session, &chain, scope, &norms.rows)
        })
        .collect();
    for name in result::columns().iter().filter(|name| ![SESSION_ID, USER_ID, COMPLETED_AT].contains(&name.as_str())) {
        let expected: Vec<Value> = expected.iter().map(|row| row.get(name).cloned().unwrap_or(Value::Null)).collect();
        prop_assert_eq!(table.read(name), expected, "{}", name);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn wide_sessions_score_as_the_reference_says(
        batch in batch(wide_session()), form in form(), scope in scope(), norms in norm_rows(),
    ) {
        agrees(Layout::Wide, &form, batch, scope, norms)?;
    }

    #[test]
    fn packed_sessions_score_as_the_reference_says(
        batch in batch(packed_session()), form in form(), scope in scope(), norms in norm_rows(),
    ) {
        agrees(Layout::Packed, &form, batch, scope, norms)?;
    }

    #[test]
    fn assembled_long_sessions_score_as_the_reference_says(
        batch in batch(long_session()), form in form(), scope in scope(), norms in norm_rows(),
    ) {
        agrees(Layout::Long, &form, batch, scope, norms)?;
    }
}
