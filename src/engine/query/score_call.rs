//! The arguments of `score(input, … [, option => value …])`.

use crate::engine::query::QueryError;
use crate::engine::query::statement::TableCall;
use crate::engine::{ColumnNames, InputOptions, ScoreRequest, chain_columns};
use crate::norms::Chain;

/// The options, as an error lists them.
const OPTIONS: [&str; 8] = ["pass", "contexts", "column", "layout", "format", "attributes", "chain", "csv_newlines"];

/// Reads a call; `chain` is the session's. Lists are written with commas: `pass => 'team_id,country'`.
pub(super) fn score_request(call: &TableCall, chain: &Chain) -> Result<ScoreRequest, QueryError> {
    if call.positional.is_empty() {
        return Err(call.refuse("it takes session files, as in score('sessions/*.parquet')"));
    }
    let mut request = ScoreRequest {
        inputs: call.positional.clone(),
        attributes: None,
        format: None,
        input: InputOptions::default(),
        chain: chain.clone(),
        contexts: true,
    };
    for (option, value) in &call.named {
        let wrong = |what: &dyn std::fmt::Display| call.refuse(format!("{option} => '{value}': {what}"));
        let list = || value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned);
        match option.as_str() {
            "pass" => request.input.passed.extend(list()),
            "column" => request.input.names = names(list()).ok_or_else(|| wrong(&"write 'user_id=respondent'"))?,
            "layout" => request.input.layout = Some(value.parse().map_err(|error: String| wrong(&error))?),
            "format" => request.format = Some(value.parse().map_err(|error: String| wrong(&error))?),
            "attributes" => request.attributes = Some(value.clone()),
            "chain" => request.chain = value.parse().map_err(|error: crate::norms::TemplateError| wrong(&error))?,
            "contexts" => request.contexts = value.parse().map_err(|_| wrong(&"true or false"))?,
            "csv_newlines" => request.input.csv_newlines = value.parse().map_err(|_| wrong(&"true or false"))?,
            _ => return Err(call.refuse(format!("'{option}' is not an option: {}", OPTIONS.join(", ")))),
        }
    }
    request.input.attributes = chain_columns(&request.chain);
    Ok(request)
}

fn names(pairs: impl Iterator<Item = String>) -> Option<ColumnNames> {
    let pair =
        |pair: String| pair.split_once('=').map(|(ours, theirs)| (ours.trim().to_owned(), theirs.trim().to_owned()));
    pairs.map(pair).collect::<Option<_>>().map(ColumnNames)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(named: &[(&str, &str)]) -> Result<ScoreRequest, QueryError> {
        let named = named.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let call = TableCall { function: "score".to_owned(), positional: vec!["a.parquet".to_owned()], named };
        score_request(&call, &"Total".parse().unwrap())
    }

    #[test]
    fn options_are_read() {
        let request = read(&[("pass", "team_id, country"), ("column", "user_id=who"), ("layout", "wide")]).unwrap();
        assert_eq!(request.input.passed, ["team_id", "country"]);
        assert_eq!(request.input.names.in_file("user_id"), "who");
        assert_eq!(request.input.layout.unwrap().to_string(), "wide");
        assert_eq!(read(&[("chain", "COUNTRY:{country},Total")]).unwrap().input.attributes, ["country"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |named: &[(&str, &str)]| read(named).unwrap_err().to_string();
        let options = "pass, contexts, column, layout, format, attributes, chain, csv_newlines";
        assert_eq!(error(&[("passed", "a")]), format!("score(): 'passed' is not an option: {options}"));
        assert_eq!(error(&[("column", "a")]), "score(): column => 'a': write 'user_id=respondent'");
        assert!(error(&[("layout", "tall")]).starts_with("score(): layout => 'tall': "));
    }
}
