//! A group token: which norm group is asked for, and in which version.

use std::fmt;
use std::str::FromStr;

use crate::model::norm::DEFAULT_VERSION;
use crate::norms::source::GroupName;

/// What separates a group from its version in a token's text. No group and no version may hold it.
pub(crate) const VERSION_SEPARATOR: char = '|';

/// One step of a norm chain: a group such as `EDU:University Degree`, and the version asked for, if any.
///
/// ```
/// use normstream::norms::GroupToken;
/// let token: GroupToken = "EDU:University Degree|2026".parse()?;
/// assert_eq!(token.group, "EDU:University Degree");
/// assert_eq!(token.version(), "2026");
/// assert_eq!(token.to_string(), "EDU:University Degree|2026");
/// # Ok::<(), normstream::norms::TokenError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupToken {
    /// The group, exactly as `norm_group` holds it.
    pub group: String,
    /// The version asked for; `None` stands for the version `default`.
    pub version: Option<String>,
}

/// Why a text is not a group token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No group, or only blanks.
    #[error("'{token}' names no group: write GROUP or GROUP|VERSION, as in 'COUNTRY:Spain|2026'")]
    NoGroup {
        /// The text.
        token: String,
    },
    /// A separator, and nothing behind it.
    #[error("'{token}' names no version behind the '|': leave the '|' out to ask for the version 'default'")]
    NoVersion {
        /// The text.
        token: String,
    },
    /// More than one separator.
    #[error("'{token}' holds more than one '|': a group and a version can't contain it")]
    SecondSeparator {
        /// The text.
        token: String,
    },
}

impl GroupToken {
    /// A token that asks for the version `default`.
    pub fn new(group: impl Into<String>) -> Self {
        GroupToken { group: group.into(), version: None }
    }

    /// A token that asks for one version.
    pub fn with_version(group: impl Into<String>, version: impl Into<String>) -> Self {
        GroupToken { group: group.into(), version: Some(version.into()) }
    }

    /// The version asked for.
    pub fn version(&self) -> &str {
        self.version.as_deref().unwrap_or(DEFAULT_VERSION)
    }

    /// What a source is asked for.
    pub(crate) fn name(&self) -> GroupName<'_> {
        GroupName { group: &self.group, version: self.version() }
    }
}

impl FromStr for GroupToken {
    type Err = TokenError;

    fn from_str(token: &str) -> Result<Self, TokenError> {
        let (group, version) = match token.split_once(VERSION_SEPARATOR) {
            None => (token, None),
            Some((group, version)) => (group, Some(version)),
        };
        if group.trim().is_empty() {
            return Err(TokenError::NoGroup { token: token.to_owned() });
        }
        if let Some(version) = version {
            if version.contains(VERSION_SEPARATOR) {
                return Err(TokenError::SecondSeparator { token: token.to_owned() });
            }
            if version.trim().is_empty() {
                return Err(TokenError::NoVersion { token: token.to_owned() });
            }
        }
        Ok(GroupToken { group: group.to_owned(), version: version.map(str::to_owned) })
    }
}

impl fmt::Display for GroupToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.group)?;
        match &self.version {
            Some(version) => write!(f, "{VERSION_SEPARATOR}{version}"),
            None => Ok(()),
        }
    }
}

/// How a group that answered in a version stands in results: the version `default` goes without saying.
pub(crate) fn provenance(group: &str, version: &str) -> String {
    if version == DEFAULT_VERSION { group.to_owned() } else { format!("{group}{VERSION_SEPARATOR}{version}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_reads_back_as_it_is_written() {
        for text in ["Total", "EDU:University Degree", "EDU:University Degree|2026", "AGE:<19|default"] {
            assert_eq!(text.parse::<GroupToken>().unwrap().to_string(), text);
        }
        let token: GroupToken = "COUNTRY:Korea, Republic of|2026".parse().unwrap();
        assert_eq!(token, GroupToken::with_version("COUNTRY:Korea, Republic of", "2026"));
    }

    #[test]
    fn a_token_without_a_version_asks_for_the_default_one() {
        assert_eq!(GroupToken::new("Total").version(), "default");
        assert_eq!(GroupToken::with_version("Total", "2026").version(), "2026");
    }

    #[test]
    fn a_token_without_group_or_version_is_refused() {
        let error = |text: &str| text.parse::<GroupToken>().unwrap_err();
        assert!(matches!(error(""), TokenError::NoGroup { .. }));
        assert!(matches!(error(" |2026"), TokenError::NoGroup { .. }));
        assert!(matches!(error("Total|"), TokenError::NoVersion { .. }));
        assert!(matches!(error("Total|2026|1"), TokenError::SecondSeparator { .. }));
    }
}
