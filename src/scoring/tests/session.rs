//! Random sessions, in the words of the questionnaire rather than of any file.

use std::ops::Range;

use proptest::prelude::*;

use crate::model::session::{Part, items};
use crate::model::{Fault, FaultCode, Mode, permutation};

pub(super) const STYLE_ITEMS: usize = 12;
pub(super) const CONTEXTS: usize = 8;

/// What one place of a session file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Missing,
    Number(i64),
    /// Something that is no whole number, such as 2.5 or a word.
    Unreadable,
}

/// One respondent's answers: the entries of each item, style items first. In the wide and the long layout an item has four
/// entries, its ranks in the order CE, RO, AC, AE; in the packed layout one, its code.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) items: Vec<Vec<Entry>>,
    /// Long layout: what is wrong with the rows themselves.
    pub(super) row_faults: Vec<Fault>,
}

impl Session {
    /// A session that ranks each item as the code says.
    pub(super) fn of_codes(codes: &[u8]) -> Session {
        let ranks = |&code: &u8| {
            permutation::RANKS[usize::from(code)].iter().map(|&rank| Entry::Number(i64::from(rank))).collect()
        };
        Session { items: codes.iter().map(ranks).collect(), row_faults: Vec::new() }
    }

    /// The same with packed items.
    pub(super) fn of_packed_codes(codes: &[u8]) -> Session {
        let items = codes.iter().map(|&code| vec![Entry::Number(i64::from(code))]).collect();
        Session { items, row_faults: Vec::new() }
    }
}

/// Codes of the 20 items of a session: unrelated ones, and ones of a respondent who nearly always ranks alike.
pub(super) fn codes() -> impl Strategy<Value = Vec<u8>> {
    let items = STYLE_ITEMS + CONTEXTS;
    let habit = (0u8..24, prop::collection::vec(prop::option::weighted(0.2, 0u8..24), items))
        .prop_map(|(usual, items)| items.into_iter().map(|other| other.unwrap_or(usual)).collect());
    prop_oneof![2 => prop::collection::vec(0u8..24, items), 1 => habit]
}

/// Numbers that are no rank or no code, among them some whose lower bytes look like one.
fn number() -> impl Strategy<Value = i64> {
    let far = prop::sample::select(vec![1 << 8, 1 << 16, 1 << 32, -1 << 8, -1 << 32, i64::MIN, i64::MAX - 8]);
    prop_oneof![
        2 => -2i64..30,
        1 => 120i64..260,
        1 => (far, 0i64..5).prop_map(|(far, near)| far + near),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        1 => Just(Entry::Missing),
        2 => number().prop_map(Entry::Number),
        1 => Just(Entry::Unreadable),
    ]
}

/// One valid session, then spoilt in a few places.
pub(super) fn wide_session() -> impl Strategy<Value = Session> {
    (codes(), spoils(80)).prop_map(|(codes, spoils)| {
        let mut session = Session::of_codes(&codes);
        for (place, entry) in spoils {
            session.items[place / 4][place % 4] = entry;
        }
        session
    })
}

/// The same with packed items.
pub(super) fn packed_session() -> impl Strategy<Value = Session> {
    (codes(), spoils(20)).prop_map(|(codes, spoils)| {
        let mut session = Session::of_packed_codes(&codes);
        for (place, entry) in spoils {
            session.items[place][0] = entry;
        }
        session
    })
}

/// The same as the long layout leaves it when its rows are assembled.
pub(super) fn long_session() -> impl Strategy<Value = Session> {
    (wide_session(), prop::collection::vec(row_fault(), 0..3), prop::bool::weighted(0.3)).prop_map(
        |(mut session, faults, faulty)| {
            session.row_faults = if faulty { faults } else { Vec::new() };
            session
        },
    )
}

fn row_fault() -> impl Strategy<Value = Fault> {
    let place = prop::sample::select(items(STYLE_ITEMS, CONTEXTS).collect::<Vec<_>>());
    let mode = prop::sample::select(Mode::ALL.to_vec());
    let nowhere = prop_oneof![
        Just(None),
        Just(Some((Part::Style, STYLE_ITEMS + 1))),
        Just(Some((Part::Context, 0))),
        Just(Some((Part::Context, 255))),
    ];
    prop_oneof![
        nowhere.prop_map(|item| Fault { code: FaultCode::UnknownItem, item, mode: None }),
        place.clone().prop_map(|place| Fault { code: FaultCode::UnknownMode, item: Some(place), mode: None }),
        (place, mode).prop_map(|(place, mode)| Fault {
            code: FaultCode::DuplicateRank,
            item: Some(place),
            mode: Some(mode)
        }),
    ]
}

/// Places of a session and what stands there instead; most sessions have none.
fn spoils(places: usize) -> impl Strategy<Value = Vec<(usize, Entry)>> {
    let some = |count: Range<usize>| prop::collection::vec((0..places, entry()), count);
    prop_oneof![3 => some(0..1), 1 => some(1..2), 1 => some(2..6)]
}
