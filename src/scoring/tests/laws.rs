//! Laws that hold for every session.

use arrow::array::{Array, AsArray, Int16Array};
use arrow::datatypes::Int16Type;
use proptest::prelude::*;

use crate::instrument::Instrument;
use crate::model::norm::ChainScope;
use crate::model::result::{norm_group_column, percentile_column};
use crate::model::{Layout, Scale};
use crate::scoring::Flags;
use crate::scoring::tests::agreement::scores;
use crate::scoring::tests::columns::{Form, form};
use crate::scoring::tests::norms::{Norms, chain, norm_rows};
use crate::scoring::tests::session::{Session, codes, packed_session, wide_session};
use crate::scoring::tests::table::{Table, Value};

fn bytes() -> Form {
    Form { types: vec![arrow::datatypes::DataType::UInt8], offset: 0 }
}

fn scored(layout: Layout, form: &Form, sessions: &[Session]) -> Table {
    scores(&Instrument::klsi4(), layout, form.table(layout, &form.express(sessions)))
}

fn ints(table: &Table, name: &str) -> Int16Array {
    table.get(name).as_primitive::<Int16Type>().clone()
}

proptest! {
    #[test]
    fn the_four_raw_scores_sum_to_ten_an_item(sessions in prop::collection::vec(codes(), 1..40)) {
        let sessions: Vec<_> = sessions.iter().map(|codes| Session::of_codes(codes)).collect();
        let table = scored(Layout::Wide, &bytes(), &sessions);
        let raw = ["ce_raw", "ro_raw", "ac_raw", "ae_raw"].map(|name| ints(&table, name));
        for row in 0..sessions.len() {
            prop_assert_eq!(raw.iter().map(|raw| raw.value(row)).sum::<i16>(), 120);
            prop_assert!(raw.iter().all(|raw| (12..=48).contains(&raw.value(row))));
        }
    }

    #[test]
    fn wide_and_packed_sessions_score_alike(sessions in prop::collection::vec(codes(), 1..40), wide in form(), packed in form()) {
        let wide_sessions: Vec<_> = sessions.iter().map(|codes| Session::of_codes(codes)).collect();
        let packed_sessions: Vec<_> = sessions.iter().map(|codes| Session::of_packed_codes(codes)).collect();
        let wide = scored(Layout::Wide, &wide, &wide_sessions);
        let packed = scored(Layout::Packed, &packed, &packed_sessions);
        for name in ["q01_code", "ctx08_code", "ok", "ce_raw", "intensity", "backup_style", "lfi", "context_styles"] {
            prop_assert_eq!(wide.read(name), packed.read(name), "{}", name);
        }
    }

    #[test]
    fn a_session_scores_alike_in_any_batch(sessions in prop::collection::vec(wide_session(), 2..40), form in form(), cut: prop::sample::Index) {
        let sessions = form.express(&sessions);
        let cut = cut.index(sessions.len() - 1) + 1;
        let whole = scored(Layout::Wide, &form, &sessions);
        let (first, second) = sessions.split_at(cut);
        let (first, second) = (scored(Layout::Wide, &form, first), scored(Layout::Wide, &form, second));
        for name in ["ok", "error_code", "error", "ae_raw", "converging_diverging", "style", "kendall_w", "context_styles"] {
            prop_assert_eq!(whole.read(name), [first.read(name), second.read(name)].concat(), "{}", name);
        }
    }

    #[test]
    fn a_session_is_ok_or_has_an_error_and_scores_are_null_exactly_without_ok(sessions in prop::collection::vec(packed_session(), 1..40), form in form()) {
        let table = scored(Layout::Packed, &form, &sessions);
        for (row, ok) in table.read("ok").into_iter().enumerate() {
            let ok = ok == Value::Bool(true);
            for name in ["error_stage", "error_code", "error"] {
                prop_assert_eq!(table.get(name).is_null(row), ok, "{}", name);
            }
            for name in ["ce_raw", "acce", "style", "kendall_w", "lfi", "context_styles", "lfi_key"] {
                prop_assert_eq!(table.get(name).is_valid(row), ok, "{}", name);
            }
        }
    }

    #[test]
    fn a_less_specific_group_changes_no_scale_that_was_answered(
        sessions in prop::collection::vec((codes(), chain()), 1..40), rows in norm_rows(), per_session: bool,
    ) {
        let scope = if per_session { ChainScope::PerSession } else { ChainScope::PerScale };
        let (codes, chains): (Vec<_>, Vec<_>) = sessions.into_iter().unzip();
        let sessions: Vec<_> = codes.iter().map(|codes| Session::of_codes(codes)).collect();
        let scores = scored(Layout::Wide, &bytes(), &sessions);
        let norms = Norms::new(rows);
        let of_first = |links: usize| {
            let chains: Vec<_> = chains.iter().map(|chain| chain[..links].to_vec()).collect();
            norms.apply(scores.clone(), &chains, scope)
        };
        for links in 0..chains[0].len() {
            let (shorter, longer) = (of_first(links), of_first(links + 1));
            for scale in Scale::ALL {
                let (group, percentile) = (norm_group_column(scale), percentile_column(scale));
                let after = longer.read(&group).into_iter().zip(longer.read(&percentile));
                let before = shorter.read(&group).into_iter().zip(shorter.read(&percentile));
                for (before, after) in before.zip(after) {
                    prop_assert!(before == after || before.0 == "published".into(), "{:?} became {:?}", before, after);
                }
            }
        }
    }

    #[test]
    fn a_chain_scoped_per_session_names_one_group_and_never_mixes(
        sessions in prop::collection::vec((codes(), chain()), 1..40), rows in norm_rows(),
    ) {
        let (codes, chains): (Vec<_>, Vec<_>) = sessions.into_iter().unzip();
        let sessions: Vec<_> = codes.iter().map(|codes| Session::of_codes(codes)).collect();
        let scores = scored(Layout::Wide, &bytes(), &sessions);
        let table = Norms::new(rows).apply(scores, &chains, ChainScope::PerSession).apply(&Flags::new(&Instrument::klsi4()));
        let groups = Scale::ALL.map(|scale| table.read(&norm_group_column(scale)));
        prop_assert!(groups.iter().all(|column| *column == groups[0]));
        for flags in table.read("flags") {
            let Value::List(flags) = flags else { panic!("{flags:?}") };
            prop_assert!(!flags.contains(&"mixed_provenance".to_owned()));
        }
    }
}
