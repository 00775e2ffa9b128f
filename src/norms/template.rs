//! Chain templates: how a session's attributes become group tokens.

use std::fmt;
use std::str::FromStr;

use crate::norms::token::{GroupToken, VERSION_SEPARATOR};

/// A template of one chain step, such as `EDU:{education_level}`, `AGE:{age_band}|{norm_year}` or `Total`.
///
/// Text stands for itself and `{attribute}` for the session's value. Behind one `|` stands the version, which may hold
/// attributes too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChainTemplate {
    group: Vec<Segment>,
    version: Option<Vec<Segment>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    Text(String),
    Attribute(String),
}

/// The templates of a norm chain, most specific first, read from `EDU:{education_level},COUNTRY:{country},Total`.
///
/// ```
/// use normstream::norms::Chain;
/// let chain: Chain = "EDU:{education_level},AGE:{age_band},Total".parse()?;
/// let tokens = chain.expand(|attribute| (attribute == "age_band").then_some("25-34"));
/// assert_eq!(tokens.iter().map(ToString::to_string).collect::<Vec<_>>(), ["AGE:25-34", "Total"]);
/// # Ok::<(), normstream::norms::TemplateError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Chain {
    /// The templates, most specific first. An empty chain leaves everything to the published table.
    pub templates: Vec<ChainTemplate>,
}

/// Why a chain is refused: which template, where in the text, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template {number} of the norm chain, '{template}', {what} (character {position} of the chain)")]
pub struct TemplateError {
    /// The template's number, from 1.
    pub number: usize,
    /// The template.
    pub template: String,
    /// The place in the whole chain, in characters from 1.
    pub position: usize,
    /// What is wrong.
    pub what: TemplateFault,
}

/// What can be wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateFault {
    /// Nothing between two commas, or nothing before the version.
    #[error("names no group")]
    NoGroup,
    /// Nothing behind the `|`.
    #[error("names no version behind the '|'")]
    NoVersion,
    /// A second `|`.
    #[error("holds more than one '|'")]
    SecondSeparator,
    /// A `{` that nothing closes.
    #[error("has a '{{' without a '}}'")]
    Unclosed,
    /// A `}` that nothing opened.
    #[error("has a '}}' without a '{{'")]
    Unopened,
    /// Braces around something that is not a column name.
    #[error("has '{{{attribute}}}', which is not a column name: letters, digits and '_'")]
    NotAnAttribute {
        /// What stands between the braces.
        attribute: String,
    },
}

impl ChainTemplate {
    /// The attributes that the template reads, in the order of their first use.
    pub fn attributes(&self) -> Vec<&str> {
        let mut attributes = Vec::new();
        for segment in self.group.iter().chain(self.version.iter().flatten()) {
            if let Segment::Attribute(name) = segment
                && !attributes.contains(&name.as_str())
            {
                attributes.push(name.as_str());
            }
        }
        attributes
    }

    /// The token for one session, or `None` when one of its attributes is null or blank: the step is then left out.
    ///
    /// Values are taken as they are, not trimmed. A `|` in a value of the group part stays part of the group.
    pub fn expand<'a>(&self, mut attribute: impl FnMut(&str) -> Option<&'a str>) -> Option<GroupToken> {
        let mut fill = |segments: &[Segment]| {
            let mut text = String::new();
            for segment in segments {
                match segment {
                    Segment::Text(fixed) => text.push_str(fixed),
                    Segment::Attribute(name) => {
                        text.push_str(attribute(name).filter(|value| !value.trim().is_empty())?);
                    }
                }
            }
            Some(text)
        };
        let group = fill(&self.group)?;
        let version = match &self.version {
            Some(segments) => Some(fill(segments)?),
            None => None,
        };
        Some(GroupToken { group, version })
    }

    fn parse(text: &str, number: usize, start: usize) -> Result<ChainTemplate, TemplateError> {
        let fail = |position, what| {
            Err(TemplateError { number, template: text.trim().to_owned(), position: start + position, what })
        };
        let (mut group, mut version) = (Vec::new(), None);
        let mut characters = text.chars().enumerate();
        while let Some((position, character)) = characters.next() {
            if character == VERSION_SEPARATOR {
                if version.replace(Vec::new()).is_some() {
                    return fail(position, TemplateFault::SecondSeparator);
                }
                continue;
            }
            let segments = version.as_mut().unwrap_or(&mut group);
            match character {
                '}' => return fail(position, TemplateFault::Unopened),
                '{' => {
                    let mut name = String::new();
                    loop {
                        match characters.next() {
                            Some((_, '}')) => break,
                            Some((_, inner)) if inner != '{' => name.push(inner),
                            _ => return fail(position, TemplateFault::Unclosed),
                        }
                    }
                    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
                        return fail(position, TemplateFault::NotAnAttribute { attribute: name });
                    }
                    segments.push(Segment::Attribute(name));
                }
                _ => match segments.last_mut() {
                    Some(Segment::Text(fixed)) => fixed.push(character),
                    _ => segments.push(Segment::Text(character.to_string())),
                },
            }
        }
        trim(&mut group);
        if group.is_empty() {
            return fail(0, TemplateFault::NoGroup);
        }
        if let Some(segments) = &mut version {
            trim(segments);
            if segments.is_empty() {
                return fail(text.chars().count().saturating_sub(1), TemplateFault::NoVersion);
            }
        }
        Ok(ChainTemplate { group, version })
    }
}

/// Drops blanks around a template, so that a chain may be written with a space behind each comma.
fn trim(segments: &mut Vec<Segment>) {
    if let Some(Segment::Text(first)) = segments.first_mut() {
        *first = first.trim_start().to_owned();
    }
    if let Some(Segment::Text(last)) = segments.last_mut() {
        *last = last.trim_end().to_owned();
    }
    segments.retain(|segment| !matches!(segment, Segment::Text(text) if text.is_empty()));
}

impl fmt::Display for ChainTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut write = |segments: &[Segment]| {
            segments.iter().try_for_each(|segment| match segment {
                Segment::Text(fixed) => f.write_str(fixed),
                Segment::Attribute(name) => write!(f, "{{{name}}}"),
            })
        };
        write(&self.group)?;
        match &self.version {
            Some(version) => {
                write(&[Segment::Text(VERSION_SEPARATOR.to_string())])?;
                write(version)
            }
            None => Ok(()),
        }
    }
}

impl Chain {
    /// The attributes that any template reads, each once, in the order of their first use.
    pub fn attributes(&self) -> Vec<&str> {
        let mut attributes: Vec<&str> = Vec::new();
        for attribute in self.templates.iter().flat_map(ChainTemplate::attributes) {
            if !attributes.contains(&attribute) {
                attributes.push(attribute);
            }
        }
        attributes
    }

    /// The tokens of one session, most specific first; templates with a null or blank attribute are left out.
    pub fn expand<'a>(&self, mut attribute: impl FnMut(&str) -> Option<&'a str>) -> Vec<GroupToken> {
        self.templates.iter().filter_map(|template| template.expand(&mut attribute)).collect()
    }

    /// A chain from templates given one by one, as an instrument definition does. Positions in errors count as if the
    /// templates were joined by commas.
    pub fn from_templates<'a>(templates: impl IntoIterator<Item = &'a str>) -> Result<Chain, TemplateError> {
        let mut start = 1;
        let mut parsed = Vec::new();
        for (index, template) in templates.into_iter().enumerate() {
            parsed.push(ChainTemplate::parse(template, index + 1, start)?);
            start += template.chars().count() + 1;
        }
        Ok(Chain { templates: parsed })
    }
}

impl FromStr for Chain {
    type Err = TemplateError;

    /// Reads templates separated by commas. A blank text is the empty chain.
    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if text.trim().is_empty() {
            return Ok(Chain::default());
        }
        Chain::from_templates(text.split(','))
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, template) in self.templates.iter().enumerate() {
            write!(f, "{}{template}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DEFAULT: &str = "EDU:{education_level},COUNTRY:{country},AGE:{age_band},GENDER:{gender},Total";

    fn expand(chain: &str, values: &[(&str, &'static str)]) -> Vec<String> {
        let chain: Chain = chain.parse().unwrap();
        let lookup = |name: &str| values.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        chain.expand(lookup).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_chain_reads_back_as_it_is_written_and_knows_its_attributes() {
        let chain: Chain = DEFAULT.parse().unwrap();
        assert_eq!(chain.to_string(), DEFAULT);
        assert_eq!(chain.attributes(), ["education_level", "country", "age_band", "gender"]);
        let spaced: Chain = "EDU:{education_level}, Total | 2026 ".parse().unwrap();
        assert_eq!(spaced.to_string(), "EDU:{education_level},Total|2026");
    }

    #[test]
    fn templates_whose_attribute_is_null_or_blank_are_left_out() {
        assert_eq!(
            expand(DEFAULT, &[("country", "Spain"), ("gender", " ")]),
            ["COUNTRY:Spain", "Total"],
            "no education level and no age, a blank gender"
        );
        assert_eq!(expand("", &[]), [""; 0]);
    }

    #[test]
    fn a_template_may_hold_several_attributes_and_a_version() {
        let chain = "{country}/{gender}|{norm_year},AGE:{age_band}|2026";
        let all = [("country", "Spain"), ("gender", "Female"), ("norm_year", "2024"), ("age_band", "<19")];
        assert_eq!(expand(chain, &all), ["Spain/Female|2024", "AGE:<19|2026"]);
        assert_eq!(expand(chain, &all[..2]), [""; 0], "a version without its year can't be asked for");
    }

    #[test]
    fn values_with_separators_stay_one_group() {
        let chain: Chain = "COUNTRY:{country}".parse().unwrap();
        let tokens = chain.expand(|_| Some("Korea, Republic of|2026"));
        assert_eq!(tokens, [GroupToken::new("COUNTRY:Korea, Republic of|2026")]);
    }

    #[test]
    fn errors_name_the_template_and_the_place() {
        let error = |chain: &str| chain.parse::<Chain>().unwrap_err();
        let unclosed = error("Total,EDU:{education_level");
        assert_eq!((unclosed.number, unclosed.position), (2, 11));
        assert_eq!(
            unclosed.to_string(),
            "template 2 of the norm chain, 'EDU:{education_level', has a '{' without a '}' (character 11 of the chain)"
        );
        let cases = [
            ("Total,,AGE:{age_band}", 2, 7, TemplateFault::NoGroup),
            ("Total|", 1, 6, TemplateFault::NoVersion),
            ("Total|1|2", 1, 8, TemplateFault::SecondSeparator),
            ("EDU:education}", 1, 14, TemplateFault::Unopened),
            ("é,EDU:{a b}", 2, 7, TemplateFault::NotAnAttribute { attribute: "a b".into() }),
            ("EDU:{}", 1, 5, TemplateFault::NotAnAttribute { attribute: String::new() }),
        ];
        for (chain, number, position, what) in cases {
            let found = error(chain);
            assert_eq!((found.number, found.position, found.what), (number, position, what), "{chain}");
        }
    }
}
