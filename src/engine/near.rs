//! Names near a wrong one, for hints.

/// How much alike two names must be for one to be worth a hint.
const ALIKE: f64 = 0.8;

/// Of the known names, the one most like a wrong one, if any is like it at all.
pub(super) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let wrong = wrong.to_lowercase();
    let likeness = |name: &'a str| (strsim::jaro_winkler(&wrong, &name.to_lowercase()), name);
    let alike = known.into_iter().map(likeness).filter(|(score, _)| *score > ALIKE);
    alike.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_the_hint_and_far_ones_are_none() {
        let known = ["style", "backup_style", "acce"];
        assert_eq!(nearest("stlye", known).as_deref(), Some("style"));
        assert_eq!(nearest("ACCE", known).as_deref(), Some("acce"));
        assert_eq!(nearest("percentile", known), None);
    }
}
