//! Kendall's W, LFI and context regions, by explicit rankings and over every sum of rankings.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{BooleanArray, UInt8Array};

use crate::instrument::Instrument;
use crate::model::permutation::{COUNT, RANKS, code_of};
use crate::model::session::Part;
use crate::scoring::tests::reference::region_of;
use crate::scoring::tests::table::{Table, Value, values};
use crate::scoring::{Flexibility, INVALID_CODE, code_column};

/// The code columns of sessions, each given by the codes of its contexts.
pub(super) fn contexts<C: AsRef<[u8]>>(sessions: &[C]) -> Table {
    let ok = sessions.iter().map(|codes| Some(codes.as_ref().iter().all(|&code| code < COUNT)));
    let width = sessions[0].as_ref().len();
    (0..width).fold(Table::default().with("ok", ok.collect::<BooleanArray>()), |table, context| {
        let codes = UInt8Array::from_iter_values(sessions.iter().map(|codes| codes.as_ref()[context]));
        table.with(&code_column(Part::Context, context + 1), codes)
    })
}

fn flexibility<C: AsRef<[u8]>>(sessions: &[C]) -> Table {
    contexts(sessions).apply(&Flexibility::new(&Instrument::klsi4()))
}

fn codes(rankings: [[u8; 4]; 8]) -> [u8; 8] {
    rankings.map(|ranks| code_of(ranks).unwrap())
}

/// Two rankings, one the reverse of the other: together they rank nothing above anything.
const FORTH: [u8; 4] = [1, 2, 3, 4];
const BACK: [u8; 4] = [4, 3, 2, 1];

#[test]
fn w_is_1_when_all_contexts_agree_and_0_when_they_cancel() {
    let alike = codes([FORTH; 8]);
    let opposed = codes([FORTH, BACK, FORTH, BACK, FORTH, BACK, FORTH, BACK]);
    let table = flexibility(&[alike, opposed]);
    assert_eq!(table.read("kendall_w"), values([1.0, 0.0]));
    assert_eq!(table.read("lfi"), values([0.0, 1.0]));
    assert_eq!(table.read("lfi_key"), values([0, 320]));
}

#[test]
fn w_follows_from_the_rank_sums() {
    // One context beside seven that cancel but for one: rank sums 11, 17, 23, 29 give S = 81 + 9 + 9 + 81 = 180.
    let table = flexibility(&[codes([FORTH, FORTH, FORTH, FORTH, FORTH, FORTH, FORTH, BACK])]);
    assert_eq!(table.read("lfi_key"), values([320 - 180]));
    assert_eq!(table.read("kendall_w"), values([180.0 / 320.0]));
    assert_eq!(table.read("lfi"), values([140.0 / 320.0]));
}

#[test]
fn each_context_has_the_region_of_its_ranking() {
    let table = flexibility(&[codes([
        FORTH,
        BACK,
        [4, 3, 1, 2],
        [3, 4, 2, 1],
        [1, 4, 3, 2],
        [1, 2, 4, 3],
        [2, 1, 3, 4],
        [2, 3, 1, 4],
    ])]);
    let regions =
        ["deciding", "imagining", "experiencing", "reflecting", "analyzing", "thinking", "acting", "balancing"];
    assert_eq!(table.read("context_styles"), values([regions]));
}

#[test]
fn all_24_rankings_have_the_region_of_appendix_8() {
    let sessions: Vec<[u8; 8]> = (0..COUNT).map(|code| [code; 8]).collect();
    let expected = RANKS.map(|ranks| Value::from([region_of(ranks.map(i64::from)); 8]));
    assert_eq!(flexibility(&sessions).read("context_styles"), expected);
}

#[test]
fn a_session_that_failed_validation_has_no_flexibility() {
    let mut spoilt = codes([FORTH; 8]);
    spoilt[4] = INVALID_CODE;
    let table = flexibility(&[spoilt, codes([FORTH; 8]), [INVALID_CODE; 8]]);
    assert_eq!(table.read("kendall_w"), values([None, Some(1.0), None]));
    assert_eq!(table.read("lfi"), values([None, Some(0.0), None]));
    assert_eq!(table.read("lfi_key"), values([None, Some(0), None]));
    assert_eq!(table.read("context_styles"), values([None, Some(["deciding"; 8]), None]));
}

#[test]
fn another_number_of_contexts_has_its_own_denominator() {
    let source = Instrument::klsi4().source().replace("    \"choosing between alternatives\",\n", "");
    let instrument = Instrument::parse(&source, "test").unwrap().into();
    let codes = codes([FORTH; 8]);
    let table = contexts(&[&codes[..7]]).apply(&Flexibility::new(&instrument));
    assert_eq!(table.read("kendall_w"), values([1.0]));
    assert_eq!(table.read("lfi_key"), values([0]));
    let back = code_of(BACK).unwrap();
    let table = contexts(&[[codes[0], codes[0], codes[0], codes[0], back, back, back]]);
    let table = table.apply(&Flexibility::new(&instrument));
    // Rank sums 16, 17, 18, 19 around 17.5: S = 2.25 + 0.25 + 0.25 + 2.25 = 5 of 5·7² = 245.
    assert_eq!(table.read("lfi_key"), values([240]));
    assert_eq!(table.read("kendall_w"), values([5.0 / 245.0]));
    assert_eq!(table.read("lfi"), values([240.0 / 245.0]));
}

/// One session for each combination of four rank sums that eight contexts can have.
pub(super) fn sessions_of_all_rank_sums() -> Vec<([i64; 4], [u8; 8])> {
    let mut reached = BTreeMap::from([([0; 4], [0; 8])]);
    for context in 0..8 {
        let step = |(sums, codes): (&[i64; 4], &[u8; 8])| {
            let (sums, codes) = (*sums, *codes);
            RANKS.iter().enumerate().map(move |(code, ranks)| {
                let mut codes = codes;
                codes[context] = code as u8;
                ([0, 1, 2, 3].map(|mode| sums[mode] + i64::from(ranks[mode])), codes)
            })
        };
        reached = reached.iter().flat_map(step).collect();
    }
    reached.into_iter().collect()
}

#[test]
fn lfi_takes_136_values_and_w_lies_between_0_and_1_over_all_rank_sums() {
    let (sums, sessions): (Vec<[i64; 4]>, Vec<[u8; 8]>) = sessions_of_all_rank_sums().into_iter().unzip();
    assert_eq!(sessions.len(), 9_201);
    let table = flexibility(&sessions);
    let s = sums.iter().map(|sums| sums.iter().map(|sum| (sum - 20).pow(2)).sum::<i64>());
    let s: Vec<i64> = s.collect();
    assert!(s.iter().all(|s| s % 2 == 0 && (0..=320).contains(s)));
    // To the last bit: each is one division of integers.
    assert_eq!(table.read("kendall_w"), values(s.iter().map(|&s| s as f64 / 320.0)));
    assert_eq!(table.read("lfi"), values(s.iter().map(|&s| (320 - s) as f64 / 320.0)));
    assert_eq!(table.read("lfi_key"), values(s.iter().map(|&s| 320 - s)));
    let bits = |value: Value| if let Value::Float(bits) = value { bits } else { panic!("{value:?}") };
    assert_eq!(table.read("lfi").into_iter().map(bits).collect::<BTreeSet<_>>().len(), 136);
    assert!(table.read("kendall_w").into_iter().all(|w| (0.0..=1.0).contains(&f64::from_bits(bits(w)))));
}
