//! [`SqlSession`]: tables, views and functions, and statements planned and run over them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::{MemTable, ViewTable};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties as _};
use datafusion::prelude::SessionContext;
use futures::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use crate::engine::functions;
use crate::engine::query::budget::Budgeted;
use crate::engine::query::error::KnownNames;
use crate::engine::query::score_call::score_request;
use crate::engine::query::statement::{OpenRelations, RESULTS_AT, Relation, SCORE, TableCall};
use crate::engine::query::{QueryBudget, QueryError, SqlStatement, View};
use crate::engine::tables::{ResultsTable, norms_table, open_table};
use crate::engine::{EngineError, EngineOptions, ScoreTable, sql_context};
use crate::instrument::Instrument;
use crate::norms::{Chain, NormStore};
use crate::storage::Storage;

/// The table of results.
const RESULTS: &str = "results";
/// The table of norms.
const NORMS: &str = "norms";
/// The table of the runs that have written results; whoever knows runs adds it.
pub const RUNS: &str = "runs";
/// The table of sessions that runs could not score, with all their columns; as `runs`.
pub const FAILURES: &str = "failures";

/// How many bytes of filtered columns each reader of a file may keep for the rows that pass.
const PREDICATE_CACHE: usize = 8 << 20;

/// What a session may use and how it scores.
#[derive(Debug, Clone)]
pub struct SqlOptions {
    /// Memory, disk and threads.
    pub engine: EngineOptions,
    /// The limits of each query.
    pub budget: QueryBudget,
    /// How `score('…')` scores.
    pub instrument: Arc<Instrument>,
    /// The norm chain of `score('…')`.
    pub chain: Chain,
    /// Whether a statement may name files and URLs, and make tables and views of its own. Only for statements of whoever runs the
    /// program.
    pub local: bool,
}

/// Tables, views and functions. Cheap to share as an `Arc`; statements may run at once.
///
/// 1. A statement reads: nothing that it can say writes a file or changes a table that is not the session's own.
/// 2. Each query has the session's budgets to itself, but memory and disk are those of all queries together.
/// 3. Files are those that are there when a statement is planned (`score('…')`, names in quotes) or when the table was added.
pub struct SqlSession {
    context: SessionContext,
    storage: Storage,
    options: SqlOptions,
    results: Option<ResultsTable>,
    /// Views that the results do not suffice for, with what they need.
    lacking: Vec<(String, String)>,
}

/// A statement that runs.
pub struct Query {
    /// The columns.
    pub schema: SchemaRef,
    /// The plan, whose metrics grow while the stream is read.
    pub plan: Arc<dyn ExecutionPlan>,
    /// The rows. An error of it says what a user needs through [`Query::error`]. Dropped, the work stops.
    pub stream: SendableRecordBatchStream,
    engine: EngineOptions,
}

impl Query {
    /// The next rows.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, QueryError> {
        match self.stream.next().await {
            None => Ok(None),
            Some(Ok(batch)) => Ok(Some(batch)),
            Some(Err(error)) => Err(self.error(error)),
        }
    }

    /// What an error of the stream means.
    pub fn error(&self, error: DataFusionError) -> QueryError {
        QueryError::of_execution(error, self.engine.memory_limit, self.engine.spill_limit)
    }
}

/// Batches that may wait to be taken.
const AHEAD: usize = 2;

/// The rows of a plan, made by a task of its own: while others are written, and where work that does not pause keeps neither a
/// limit of time nor Ctrl-C from being seen.
fn beside(plan: &Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> SendableRecordBatchStream {
    let merged = match plan.output_partitioning().partition_count() {
        1 => Arc::clone(plan),
        _ => Arc::new(CoalescePartitionsExec::new(Arc::clone(plan))),
    };
    let mut rows = RecordBatchReceiverStreamBuilder::new(plan.schema(), AHEAD);
    let sender = rows.tx();
    rows.spawn(async move {
        let mut made = merged.execute(0, context)?;
        while let Some(batch) = made.next().await {
            let is_last = batch.is_err();
            if sender.send(batch).await.is_err() || is_last {
                break;
            }
        }
        Ok(())
    });
    rows.build()
}

impl SqlSession {
    /// A session with the table `norms` and all functions. Norms are looked up in `norms` only when a query needs them.
    pub async fn open(storage: &Storage, norms: Arc<NormStore>, options: SqlOptions) -> Result<SqlSession, QueryError> {
        let context = sql_context(options.engine, storage, Arc::clone(&norms)).map_err(EngineError::from)?;
        {
            let state = context.state_ref();
            let mut state = state.write();
            let config = state.config_mut().options_mut();
            config.catalog.information_schema = true;
            config.sql_parser.collect_spans = true;
            // Rows that a filter drops are not worth decoding eighty columns of ranks, let alone scoring.
            config.execution.parquet.pushdown_filters = true;
            config.execution.parquet.max_predicate_cache_size = Some(PREDICATE_CACHE);
        }
        functions::register(&context, &options.instrument, &norms);
        let table = norms_table(&context, storage, &norms).await?;
        context.register_table(NORMS, table).map_err(EngineError::from)?;
        Ok(SqlSession { context, storage: storage.clone(), options, results: None, lacking: Vec::new() })
    }

    /// Adds the table `results`, and the views over it.
    pub async fn add_results(&mut self, target: &str) -> Result<(), QueryError> {
        let results = ResultsTable::new(&self.storage, target);
        let table = results.latest(&self.context).await?;
        self.results = Some(results);
        self.add_results_table(table).await
    }

    /// Adds rows that the caller has chosen as the table `results`, and the views over it.
    pub async fn add_results_table(&mut self, table: Arc<dyn TableProvider>) -> Result<(), QueryError> {
        let schema = table.schema();
        self.context.register_table(RESULTS, table).map_err(EngineError::from)?;
        for view in View::all() {
            let lacks = view.lacks(&schema).join(",");
            if !lacks.is_empty() {
                let needs = format!("the view of this name needs results with {lacks}: score with --pass {lacks}");
                self.lacking.push((view.name.to_owned(), needs));
                continue;
            }
            // Results may have only some of the columns, or lists as text, as CSV has them: then there are fewer views.
            if let Err(QueryError::View { source, .. }) = self.add_view(view.name, &view.query(&schema)).await {
                let needs = source.to_string();
                let needs = needs.lines().next().unwrap_or_default();
                self.lacking
                    .push((view.name.to_owned(), format!("the view of this name needs whole results: {needs}")));
            }
        }
        Ok(())
    }

    /// Adds a table: a file, a folder, a pattern or a URL, or a Delta table.
    pub async fn add_table(&self, name: &str, target: &str) -> Result<(), QueryError> {
        if self.context.table_exist(name).map_err(EngineError::from)? {
            let what = "there is a table of this name already";
            return Err(QueryError::TableName { name: name.to_owned(), what });
        }
        let table = open_table(&self.context, &self.storage, target).await?;
        self.add_provider(name, table)
    }

    /// Adds a table of rows that the caller has.
    pub fn add_batch(&self, name: &str, rows: RecordBatch) -> Result<(), QueryError> {
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).map_err(EngineError::from)?;
        self.add_provider(name, Arc::new(table))
    }

    /// Adds a table that the caller has made.
    pub fn add_provider(&self, name: &str, table: Arc<dyn TableProvider>) -> Result<(), QueryError> {
        let reference = datafusion::common::TableReference::bare(name.to_owned());
        self.context.register_table(reference, table).map_err(EngineError::from)?;
        Ok(())
    }

    /// Adds a query under a name.
    pub async fn add_view(&self, name: &str, query: &str) -> Result<(), QueryError> {
        let failed = |source: QueryError| QueryError::View { view: name.to_owned(), source: Box::new(source) };
        let known = self.known_names();
        let plan = self.context.state().create_logical_plan(query).await;
        let plan = plan.map_err(|error| failed(QueryError::of_planning(error, query, &known)))?;
        self.add_provider(name, Arc::new(ViewTable::new(plan, Some(query.to_owned()))))
    }

    /// Runs a text of one statement.
    pub async fn query(&self, sql: &str) -> Result<Query, QueryError> {
        self.query_with(sql, &[]).await
    }

    /// Runs a text of one statement with values for its parameters, written `:name` or `$name`.
    pub async fn query_with(&self, sql: &str, parameters: &[(String, ScalarValue)]) -> Result<Query, QueryError> {
        let mut statements = SqlStatement::parse(sql)?;
        match (statements.pop(), statements.is_empty()) {
            (Some(statement), true) => self.run_with(&statement, parameters).await,
            (None, _) => Err(QueryError::Syntax { message: "there is no statement".to_owned(), place: None }),
            (Some(_), false) => {
                let message = "there are several statements where one is expected".to_owned();
                Err(QueryError::Syntax { message, place: None })
            }
        }
    }

    /// Plans a statement and begins it. Rows are computed when the stream is read.
    pub async fn run(&self, statement: &SqlStatement) -> Result<Query, QueryError> {
        self.run_with(statement, &[]).await
    }

    async fn run_with(
        &self,
        statement: &SqlStatement,
        parameters: &[(String, ScalarValue)],
    ) -> Result<Query, QueryError> {
        let start = Instant::now();
        let budget = self.options.budget;
        let plan = self.plan(statement, parameters);
        let (frame, plan) = match (budget.deadline(start), budget.timeout) {
            (Some(deadline), Some(limit)) => {
                timeout_at(deadline, plan).await.map_err(|_| QueryError::TimedOut { limit })??
            }
            _ => plan.await?,
        };
        let (schema, stream) = (plan.schema(), beside(&plan, Arc::new(frame.task_ctx())));
        let stream = Box::pin(Budgeted::new(stream, budget, start));
        Ok(Query { schema, plan, stream, engine: self.options.engine })
    }

    async fn plan(
        &self,
        statement: &SqlStatement,
        parameters: &[(String, ScalarValue)],
    ) -> Result<(DataFrame, Arc<dyn ExecutionPlan>), QueryError> {
        let opened = self.open_relations(statement).await?;
        let mut state = self.context.state();
        state.register_relation_planner(Arc::new(opened)).map_err(EngineError::from)?;
        let known = self.known_names();
        let failed = |error| QueryError::of_planning(error, &statement.text, &known);
        let mut plan = state.statement_to_plan(statement.parsed.clone()).await.map_err(failed)?;
        if !parameters.is_empty() {
            plan = plan.with_param_values(parameters.to_vec()).map_err(failed)?;
        }
        self.check(&plan)?;
        let frame = match plan {
            // Statements and definitions change the session, not the copy of its state.
            LogicalPlan::Ddl(_) | LogicalPlan::Statement(_) => {
                self.context.execute_logical_plan(plan).await.map_err(failed)?
            }
            plan => DataFrame::new(state, plan),
        };
        let plan = frame.clone().create_physical_plan().await.map_err(failed)?;
        Ok((frame, plan))
    }

    /// Refuses what is not reading.
    fn check(&self, plan: &LogicalPlan) -> Result<(), QueryError> {
        let refused = |what: &str, instead| Err(QueryError::Refused { what: what.to_owned(), instead });
        match plan {
            LogicalPlan::Ddl(ddl) if self.options.local => match ddl {
                DdlStatement::CreateExternalTable(_) => {
                    return refused("CREATE EXTERNAL TABLE", "give --table NAME=URL, or write FROM 'file.parquet'");
                }
                DdlStatement::CreateFunction(_) | DdlStatement::DropFunction(_) => {
                    return refused(ddl.name(), "functions are those of \\df");
                }
                _ => return Ok(()),
            },
            LogicalPlan::Statement(_) if self.options.local => return Ok(()),
            _ => {}
        }
        let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reading.verify_plan(plan).or_else(|error| {
            let message = error.strip_backtrace();
            if message.contains("COPY") {
                // DataFusion's own COPY leaves a file that looks complete when the query fails.
                return refused("COPY", "write the rows of a query with -o FILE, which leaves a whole file or none");
            }
            let what = message.rsplit(": ").next().unwrap_or(&message).to_owned();
            refused(&what, "statements only read here")
        })
    }

    /// Opens what a statement names that is not in the catalog.
    async fn open_relations(&self, statement: &SqlStatement) -> Result<OpenRelations, QueryError> {
        let mut opened = OpenRelations::default();
        for relation in statement.relations()? {
            let table = match &relation {
                Relation::Call(call) if call.function == RESULTS_AT => Some(self.results_at(call).await?),
                Relation::Call(call) => {
                    let scored = self.score(call).await;
                    let target = call.positional.first().map_or("", String::as_str);
                    Some(Arc::new(scored.map_err(|error| error.of_target(target, &statement.text))?)
                        as Arc<dyn TableProvider>)
                }
                Relation::Quoted(name) => {
                    self.quoted(name).await.map_err(|error| error.of_target(name, &statement.text))?
                }
            };
            if let Some(table) = table {
                opened.0.insert(relation, table);
            }
        }
        Ok(opened)
    }

    /// The file of a name in quotes; none if there is a table of that name.
    async fn quoted(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, QueryError> {
        let reference = datafusion::common::TableReference::bare(name.to_owned());
        if self.context.table_exist(reference).map_err(EngineError::from)? {
            return Ok(None);
        }
        if !self.options.local {
            return Err(QueryError::Refused {
                what: format!("reading '{name}'"),
                instead: "only tables can be read here",
            });
        }
        Ok(Some(open_table(&self.context, &self.storage, name).await?))
    }

    async fn results_at(&self, call: &TableCall) -> Result<Arc<dyn TableProvider>, QueryError> {
        let ([version], true) = (call.positional.as_slice(), call.named.is_empty()) else {
            return Err(call.refuse("it takes a version, as in results_at(7)"));
        };
        match &self.results {
            Some(results) => results.at(&self.context, version).await,
            None => Err(call.refuse("there are no results: give --results")),
        }
    }

    /// `score(input [, option => value …])`.
    async fn score(&self, call: &TableCall) -> Result<ScoreTable, QueryError> {
        if !self.options.local {
            return Err(QueryError::Refused { what: format!("{SCORE}()"), instead: "only tables can be read here" });
        }
        let request = score_request(call, &self.options.chain)?;
        Ok(ScoreTable::open(&self.context, &self.storage, &self.options.instrument, request).await?)
    }

    /// The names of tables and views, in alphabetical order.
    pub fn tables(&self) -> Vec<String> {
        let catalog = self.context.catalog("datafusion").and_then(|catalog| catalog.schema("public"));
        let mut names = catalog.map(|schema| schema.table_names()).unwrap_or_default();
        names.sort();
        names
    }

    /// A table or view; a view has a definition.
    pub async fn table(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        self.context.table_provider(datafusion::common::TableReference::parse_str(name)).await.ok()
    }

    /// DataFusion's session, for what this one does not say.
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    /// Views that the results do not suffice for, with what they need.
    pub fn lacking_views(&self) -> &[(String, String)] {
        &self.lacking
    }

    fn known_names(&self) -> KnownNames {
        let state = self.context.state();
        let functions = state.scalar_functions().keys().chain(state.aggregate_functions().keys());
        let functions = functions.chain(state.window_functions().keys()).chain(state.table_functions().keys()).cloned();
        let mut missing = self.lacking.clone();
        if self.results.is_none() {
            let needs = "give --results, a file, folder or Delta table that `normstream score` has written";
            let names = View::all().into_iter().map(|view| view.name.to_owned()).chain([RESULTS.to_owned()]);
            missing.extend(names.map(|name| (name, needs.to_owned())));
        }
        for name in [RUNS, FAILURES] {
            let needs = match name {
                RUNS => "it is there when --results is a table that `normstream score --to` has written to",
                _ => {
                    "it is there when a run of the table of --results had --failures-to; failed_sessions is always there"
                }
            };
            missing.push((name.to_owned(), needs.to_owned()));
        }
        KnownNames {
            tables: self.tables(),
            functions: functions.chain([SCORE, RESULTS_AT].map(str::to_owned)).collect(),
            missing,
        }
    }
}
