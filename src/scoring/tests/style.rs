//! Styles and backup styles over the whole grid of scores.

use arrow::array::{BooleanArray, Int16Array};

use crate::instrument::Instrument;
use crate::scoring::Style;
use crate::scoring::tests::reference::{WINDOWS, backup_style_of};
use crate::scoring::tests::table::{Table, values};

/// The styles of pairs of ACCE and AERO.
fn styled(pairs: &[(i16, i16)]) -> Table {
    let scores = |of: fn(&(i16, i16)) -> i16| pairs.iter().map(of).collect::<Vec<i16>>();
    Table::default()
        .with("ok", BooleanArray::from(vec![true; pairs.len()]))
        .with("acce", Int16Array::from(scores(|pair| pair.0)))
        .with("aero", Int16Array::from(scores(|pair| pair.1)))
        .apply(&Style::new(&Instrument::klsi4()))
}

fn whole_grid() -> Vec<(i16, i16)> {
    (-36..=36).flat_map(|acce| (-36..=36).map(move |aero| (acce, aero))).collect()
}

#[test]
fn each_window_ends_where_the_guide_says() {
    let table =
        styled(&[(5, 0), (5, 1), (5, 11), (5, 12), (6, 0), (14, 1), (6, 11), (14, 12), (15, 0), (15, 1), (15, 12)]);
    let expected = [
        "imagining",
        "experiencing",
        "experiencing",
        "initiating",
        "reflecting",
        "balancing",
        "balancing",
        "acting",
        "analyzing",
        "thinking",
        "deciding",
    ];
    assert_eq!(table.read("style"), values(expected));
}

#[test]
fn every_pair_of_scores_has_exactly_one_style_and_every_style_has_pairs() {
    let grid = whole_grid();
    let styles = styled(&grid).read("style");
    for (&(acce, aero), style) in grid.iter().zip(&styles) {
        let inside = |score: i16, [lowest, highest]: [i64; 2]| (lowest..=highest).contains(&i64::from(score));
        let windows: Vec<_> = WINDOWS.iter().filter(|(_, a, b)| inside(acce, *a) && inside(aero, *b)).collect();
        assert_eq!(windows.len(), 1, "{acce} {aero}");
        assert_eq!(*style, windows[0].0.into(), "{acce} {aero}");
    }
    for (name, ..) in WINDOWS {
        assert!(styles.contains(&name.into()), "{name}");
    }
}

#[test]
fn a_backup_style_is_the_nearest_other_window() {
    let table = styled(&[(5, 5), (14, 3), (20, -7), (-36, -36)]);
    assert_eq!(table.read("style"), values(["experiencing", "balancing", "analyzing", "imagining"]));
    assert_eq!(table.read("backup_style"), values(["balancing", "thinking", "reflecting", "experiencing"]));
}

#[test]
fn of_equally_near_windows_the_first_by_name_is_the_backup() {
    // The middle of the balancing window: experiencing and thinking are 5 away, acting and reflecting 6.
    // From (0, 6) of experiencing: balancing 6, imagining 6, initiating 6. From (14, 11): acting 1, thinking 1.
    let table = styled(&[(10, 6), (0, 6), (14, 11), (6, 1)]);
    assert_eq!(table.read("backup_style"), values(["experiencing", "balancing", "acting", "experiencing"]));
}

#[test]
fn a_backup_style_is_never_the_style_itself_and_agrees_with_a_search() {
    let grid = whole_grid();
    let table = styled(&grid);
    let (styles, backups) = (table.read("style"), table.read("backup_style"));
    for (row, &(acce, aero)) in grid.iter().enumerate() {
        assert_ne!(styles[row], backups[row], "{acce} {aero}");
        assert_eq!(backups[row], backup_style_of(acce.into(), aero.into()).into(), "{acce} {aero}");
    }
}
