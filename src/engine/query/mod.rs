//! SQL over sessions, norms and results.
//!
//! A [`SqlSession`] holds the tables (`results`, `norms`, those of one's own), the views of `sql/views`, the functions of
//! [`functions`](crate::engine::functions) and the table functions `score('…')` and `results_at(version)`. [`SqlSession::query`]
//! turns a statement into a [`Query`]: a schema, a plan and a stream of rows within the session's budgets. The shell, exports and
//! servers are ways to ask and to write the answer; none of them plans by itself.

mod budget;
mod error;
mod score_call;
mod session;
mod statement;
mod views;

pub use budget::QueryBudget;
pub use error::{Place, QueryError};
pub use session::{FAILURES, Query, RUNS, SqlOptions, SqlSession};
pub use statement::SqlStatement;
pub use views::View;
