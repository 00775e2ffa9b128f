//! Statements: a text of SQL taken apart, and the tables of a statement that must be opened before it can be planned.
//!
//! DataFusion plans synchronously, and the schema of a table must be known by then. The schema of `score('sessions/*.parquet')`,
//! `results_at(7)` or `'a.parquet'` is known only when files have been looked at, which takes I/O. So a statement is walked first,
//! its [`Relation`]s are opened with `await`, and the planner finds them open ([`OpenRelations`]).

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::common::{Result, TableReference};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::sql::parser::{CopyToSource, DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, ObjectName, TableFactor, UnaryOperator, Value, Visit, Visitor,
};

use crate::engine::query::QueryError;

/// Scores session files.
pub(super) const SCORE: &str = "score";
/// The results as they were at a version.
pub(super) const RESULTS_AT: &str = "results_at";
/// The table functions whose tables are opened before planning.
const OPENED_FUNCTIONS: [&str; 2] = [SCORE, RESULTS_AT];

/// How deep expressions may nest.
const DEEPEST: usize = 64;

/// A parsed statement, and the text that it is part of: errors show where in it they are.
#[derive(Debug, Clone)]
pub struct SqlStatement {
    pub(super) parsed: Statement,
    pub(super) text: Arc<str>,
}

impl SqlStatement {
    /// Takes a text apart at its semicolons. A text of white space and comments alone has no statements.
    pub fn parse(text: &str) -> Result<Vec<SqlStatement>, QueryError> {
        let failed = |error: DataFusionError| match error.find_root() {
            DataFusionError::SQL(error, _) => QueryError::of_parsing(&error.to_string(), text),
            other => QueryError::Syntax { message: other.strip_backtrace(), place: None },
        };
        let mut parser = DFParserBuilder::new(text).with_recursion_limit(DEEPEST).build().map_err(failed)?;
        let shared: Arc<str> = text.into();
        let statements = parser.parse_statements().map_err(failed)?;
        Ok(statements.into_iter().map(|parsed| SqlStatement { parsed, text: Arc::clone(&shared) }).collect())
    }

    /// The tables that must be opened before the statement is planned, each once.
    pub(super) fn relations(&self) -> Result<Vec<Relation>, QueryError> {
        let mut found = Relations::default();
        visit(&self.parsed, &mut found);
        found.relations.into_iter().collect()
    }
}

fn visit(statement: &Statement, found: &mut Relations) {
    match statement {
        Statement::Statement(statement) => {
            let _ = statement.visit(found);
        }
        Statement::Explain(explain) => visit(&explain.statement, found),
        Statement::CopyTo(copy) => {
            if let CopyToSource::Query(query) = &copy.source {
                let _ = query.visit(found);
            }
        }
        Statement::CreateExternalTable(_) | Statement::Reset(_) => {}
    }
}

impl fmt::Display for SqlStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parsed.fmt(f)
    }
}

/// A table of a statement that is not in the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Relation {
    /// A call of a table function.
    Call(TableCall),
    /// A name in single quotes, as in `FROM 'sessions.parquet'`: a table of this name, else the file.
    Quoted(String),
}

/// A call of a table function. Arguments are literals.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TableCall {
    /// The function's name, in lower case.
    pub(super) function: String,
    /// The arguments without a name, in order.
    pub(super) positional: Vec<String>,
    /// The named arguments, as in `pass => 'team_id'`, in the order given.
    pub(super) named: Vec<(String, String)>,
}

impl Relation {
    fn of(factor: &TableFactor) -> Option<Result<Relation, QueryError>> {
        let TableFactor::Table { name, args, .. } = factor else { return None };
        match args {
            Some(args) => {
                let function = name_of(name)?.0.to_lowercase();
                OPENED_FUNCTIONS
                    .contains(&function.as_str())
                    .then(|| TableCall::of(function, &args.args).map(Relation::Call))
            }
            None => match name_of(name)? {
                (name, true) => Some(Ok(Relation::Quoted(name))),
                _ => None,
            },
        }
    }
}

/// A name of one part, and whether it is in single quotes.
fn name_of(name: &ObjectName) -> Option<(String, bool)> {
    let [part] = name.0.as_slice() else { return None };
    let ident = part.as_ident()?;
    Some((ident.value.clone(), ident.quote_style == Some('\'')))
}

impl TableCall {
    fn of(function: String, arguments: &[FunctionArg]) -> Result<TableCall, QueryError> {
        let mut call = TableCall { function, positional: Vec::new(), named: Vec::new() };
        for argument in arguments {
            match argument {
                FunctionArg::Unnamed(value) => call.positional.push(call.literal(value)?),
                FunctionArg::Named { name, arg, .. } => {
                    let value = call.literal(arg)?;
                    call.named.push((name.value.to_lowercase(), value));
                }
                FunctionArg::ExprNamed { name, .. } => return Err(call.refuse(format!("{name} is not a name"))),
            }
        }
        Ok(call)
    }

    fn literal(&self, argument: &FunctionArgExpr) -> Result<String, QueryError> {
        let value = match argument {
            FunctionArgExpr::Expr(Expr::Value(value)) => match &value.value {
                Value::SingleQuotedString(text) => Some(text.clone()),
                Value::Number(number, _) => Some(number.clone()),
                Value::Boolean(value) => Some(value.to_string()),
                _ => None,
            },
            FunctionArgExpr::Expr(Expr::UnaryOp { op: UnaryOperator::Minus, expr }) => match expr.as_ref() {
                Expr::Value(value) => match &value.value {
                    Value::Number(number, _) => Some(format!("-{number}")),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        };
        value.ok_or_else(|| self.refuse(format!("{argument} is not a literal, as in 'sessions/*.parquet'")))
    }

    /// The error for an argument of this call.
    pub(super) fn refuse(&self, what: impl Into<String>) -> QueryError {
        QueryError::Argument { function: self.function.clone(), what: what.into() }
    }
}

#[derive(Default)]
struct Relations {
    relations: Vec<Result<Relation, QueryError>>,
}

impl Visitor for Relations {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let Some(relation) = Relation::of(factor) {
            let known = |known: &Result<Relation, QueryError>| matches!((known, &relation), (Ok(a), Ok(b)) if a == b);
            if !self.relations.iter().any(known) {
                self.relations.push(relation);
            }
        }
        ControlFlow::Continue(())
    }
}

/// The opened relations of one statement, where the planner looks for them first.
#[derive(Debug, Default)]
pub(super) struct OpenRelations(pub(super) HashMap<Relation, Arc<dyn TableProvider>>);

impl RelationPlanner for OpenRelations {
    fn plan_relation(&self, factor: TableFactor, _: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
        let opened = match Relation::of(&factor) {
            Some(Ok(relation)) => self.0.get(&relation).map(|table| (relation, Arc::clone(table))),
            _ => None,
        };
        let TableFactor::Table { alias, .. } = &factor else {
            return Ok(RelationPlanning::Original(Box::new(factor)));
        };
        let Some((relation, table)) = opened else { return Ok(RelationPlanning::Original(Box::new(factor))) };
        let name = match relation {
            Relation::Call(call) => call.function,
            Relation::Quoted(name) => name,
        };
        let plan = LogicalPlanBuilder::scan(TableReference::bare(name), provider_as_source(table), None)?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn relations(sql: &str) -> Vec<Relation> {
        SqlStatement::parse(sql).unwrap()[0].relations().unwrap()
    }

    #[test]
    fn a_text_is_taken_apart_at_its_semicolons() {
        let statements = SqlStatement::parse("SELECT 1; -- two\n SELECT ';'").unwrap();
        assert_eq!(statements.iter().map(ToString::to_string).collect::<Vec<_>>(), ["SELECT 1", "SELECT ';'"]);
        assert!(SqlStatement::parse(" -- nothing\n").unwrap().is_empty());
    }

    #[test]
    fn table_functions_and_quoted_names_are_found_wherever_they_stand() {
        let found = relations(
            "EXPLAIN WITH a AS (SELECT * FROM score('s.parquet', pass => 'team_id'))
             SELECT * FROM a JOIN 'b.csv' b USING (x) WHERE x IN (SELECT x FROM results_at(-7)) AND y IN (SELECT y FROM 'b.csv')",
        );
        let call = |function: &str, positional: &str, named: &[(&str, &str)]| {
            let named = named.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Relation::Call(TableCall { function: function.to_owned(), positional: vec![positional.to_owned()], named })
        };
        let expected = [
            call("score", "s.parquet", &[("pass", "team_id")]),
            Relation::Quoted("b.csv".to_owned()),
            call("results_at", "-7", &[]),
        ];
        assert_eq!(found, expected);
        assert_eq!(relations("SELECT * FROM results"), []);
    }

    #[test]
    fn an_argument_that_is_no_literal_is_refused() {
        let error = SqlStatement::parse("SELECT * FROM score(lower('A'))").unwrap()[0].relations().unwrap_err();
        assert_eq!(error.to_string(), "score(): lower('A') is not a literal, as in 'sessions/*.parquet'");
    }
}
