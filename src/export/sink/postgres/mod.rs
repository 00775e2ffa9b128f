//! PostgreSQL as a target: binary COPY into a staging table, then one transaction that merges the rows and writes the ledger.

mod column;
mod connect;
mod copy;
mod ledger;
mod pool;
mod table;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::Schema;
use async_trait::async_trait;
use deadpool_postgres::Object;
use sha2::{Digest, Sha256};

use crate::export::sink::{Lease, Load, Loaded, PoolState, Sink, State};
use crate::export::{ExportError, ExportJob, Mode, Receipt};

pub(super) use connect::PostgresOptions;
pub(super) use pool::PostgresPool;
use table::{TableName, TablePlan};

/// How often a lease that another process has is asked for again.
const LEASE_POLL: Duration = Duration::from_millis(250);
/// How long the fate of a commit is looked for after its reply was lost.
const RESOLVE_FOR: Duration = Duration::from_secs(30);
/// The first wait between two looks.
const RESOLVE_EVERY: Duration = Duration::from_millis(250);

/// A table of a database as the target of one export.
pub(super) struct PostgresSink {
    pool: Arc<PostgresPool>,
    export: String,
    table: TableName,
}

impl PostgresSink {
    pub(super) fn new(job: &ExportJob, pool: Arc<PostgresPool>) -> Result<Self, ExportError> {
        Ok(Self { pool, export: job.name.clone(), table: TableName::parse(&job.table)? })
    }

    async fn connect(&self) -> Result<Session, ExportError> {
        let client = self.pool.get().await?;
        let schema = match &self.table.schema {
            Some(schema) => schema.clone(),
            None => {
                let row = client.query_one("SELECT current_schema()", &[]).await;
                let row = row.map_err(|source| self.pool.error("find the current schema", source))?;
                row.get::<_, Option<String>>(0).ok_or(ExportError::TableName {
                    table: self.table.name.clone(),
                    reason: "the search_path of the connection names no schema that exists; write SCHEMA.TABLE",
                })?
            }
        };
        let table = TableName { schema: Some(schema), name: self.table.name.clone() };
        let lock = lock_key(&self.export, &table);
        Ok(Session { client: Some(client), pool: Arc::clone(&self.pool), export: self.export.clone(), table, lock })
    }
}

#[async_trait]
impl Sink for PostgresSink {
    async fn state(&self) -> Result<State, ExportError> {
        let session = self.connect().await?;
        let state = session.state().await;
        session.give_back();
        state
    }

    async fn history(&self, most: usize) -> Result<Vec<Receipt>, ExportError> {
        let session = self.connect().await?;
        let history = ledger::history(&session, most).await;
        session.give_back();
        history
    }

    async fn describe(&self, schema: &Schema, mode: &Mode) -> Result<String, ExportError> {
        let session = self.connect().await?;
        let plan = TablePlan::new(&session, schema, mode).await.map(|plan| plan.to_string());
        session.give_back();
        plan
    }

    async fn lease(&self, patience: Duration) -> Result<Option<Box<dyn Lease>>, ExportError> {
        let session = self.connect().await?;
        let asked = Instant::now();
        loop {
            let row = session.client().query_one("SELECT pg_try_advisory_lock($1)", &[&session.lock]).await;
            if row.map_err(|source| self.pool.error("take the lease", source))?.get(0) {
                return Ok(Some(Box::new(session)));
            }
            if asked.elapsed() >= patience {
                session.give_back();
                return Ok(None);
            }
            tokio::time::sleep(LEASE_POLL.min(patience)).await;
        }
    }

    fn pool_status(&self) -> Option<PoolState> {
        Some(self.pool.state())
    }
}

/// The number that stands for an export into a table among the database's advisory locks.
fn lock_key(export: &str, table: &TableName) -> i64 {
    let digest = Sha256::digest(format!("normstream\0{export}\0{}", table.quoted()));
    i64::from_le_bytes([digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7]])
}

/// A connection, and what is exported over it. As a [`Lease`] it holds the export's advisory lock; dropped without
/// [`Session::give_back`] the connection is closed, and the database lets go of lock and staging table.
struct Session {
    client: Option<Object>,
    pool: Arc<PostgresPool>,
    export: String,
    table: TableName,
    lock: i64,
}

impl Session {
    /// The connection; there is one as long as the session lives.
    #[allow(clippy::expect_used)]
    fn client(&self) -> &Object {
        self.client.as_ref().expect("a session has a connection until it is given back")
    }

    /// Gives the connection back for the next one.
    fn give_back(mut self) {
        drop(self.client.take());
        self.pool.trim();
    }

    fn error(&self, operation: &'static str) -> impl FnOnce(tokio_postgres::Error) -> ExportError + '_ {
        move |source| self.pool.error(operation, source)
    }

    async fn execute(&self, operation: &'static str, sql: &str) -> Result<(), ExportError> {
        self.client().batch_execute(sql).await.map_err(self.error(operation))
    }

    async fn state(&self) -> Result<State, ExportError> {
        ledger::state(self).await
    }

    /// Brings rows into the staging table, and counts rows and bytes into the receipt.
    async fn stage(&self, plan: &TablePlan, load: &mut Load) -> Result<(), ExportError> {
        self.execute("make the staging table", &plan.staging()).await?;
        let (rows, bytes) = copy::copy(self, plan, &mut load.rows, &load.receipt.export).await?;
        load.receipt.rows = rows;
        load.receipt.bytes = bytes;
        if rows < load.min_rows {
            let export = load.receipt.export.clone();
            return Err(ExportError::TooFewRows { export, rows, min_rows: load.min_rows });
        }
        if let Mode::Upsert { key } = &load.mode {
            self.check_keys(plan, key, &load.receipt.export).await?;
        }
        Ok(())
    }

    /// Every key once, and none null.
    async fn check_keys(&self, plan: &TablePlan, key: &[String], export: &str) -> Result<(), ExportError> {
        for (sql, what) in plan.bad_keys(key) {
            if let Some(row) = self.client().query_opt(&sql, &[]).await.map_err(self.error("check the keys"))? {
                return Err(ExportError::BadKey { export: export.to_owned(), what, key: row.get(0) });
            }
        }
        Ok(())
    }

    /// Everything that becomes visible, in one transaction that ends with the commit.
    async fn merge(
        &mut self,
        plan: &TablePlan,
        mode: &Mode,
        base: &State,
        receipt: &Receipt,
    ) -> Result<(), ExportError> {
        self.execute("begin a transaction", "BEGIN").await?;
        self.execute("wait for other exports", &format!("SELECT pg_advisory_xact_lock({})", !self.lock)).await?;
        let state = self.state().await?;
        if (state.cursor, state.slot) != (base.cursor, base.slot) {
            return Err(ExportError::Conflict { export: self.export.clone() });
        }
        for (operation, sql) in plan.merge(mode) {
            self.execute(operation, &sql).await?;
        }
        ledger::insert(self, receipt).await?;
        crash_point!("export::merged");
        Ok(())
    }

    /// After the reply to a commit was lost: waits until the transaction has ended, and looks whether its entry is there.
    async fn resolve(&mut self, receipt: &Receipt, lost: tokio_postgres::Error) -> Result<(), ExportError> {
        let (asked, mut wait) = (Instant::now(), RESOLVE_EVERY);
        while asked.elapsed() < RESOLVE_FOR {
            match self.look_for(receipt).await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(self.pool.error("commit", lost)),
                Err(error) => tracing::warn!(%error, "the reply to a commit was lost and cannot be looked for yet"),
            }
            tokio::time::sleep(wait).await;
            wait = (2 * wait).min(Duration::from_secs(4));
        }
        Err(ExportError::Unknown {
            export: self.export.clone(),
            run_id: receipt.run_id.clone(),
            target: self.pool.name().to_owned(),
        })
    }

    async fn look_for(&self, receipt: &Receipt) -> Result<bool, ExportError> {
        let client = Some(self.pool.get().await?);
        let session = Session {
            client,
            pool: Arc::clone(&self.pool),
            export: self.export.clone(),
            table: self.table.clone(),
            lock: self.lock,
        };
        // Held by the lost transaction until it has ended, whichever way.
        let lock = format!("BEGIN; SET LOCAL lock_timeout = '20s'; SELECT pg_advisory_xact_lock({})", !self.lock);
        session.execute("wait for the lost transaction", &lock).await?;
        let found = ledger::find(&session, &receipt.run_id).await?;
        session.execute("end a transaction", "COMMIT").await?;
        session.give_back();
        Ok(found.is_some())
    }
}

#[async_trait]
impl Lease for Session {
    async fn state(&mut self) -> Result<State, ExportError> {
        ledger::state(self).await
    }

    async fn load(&mut self, mut load: Load) -> Result<Loaded, ExportError> {
        let began = Instant::now();
        crash_point!("export::leased");
        ledger::ensure(self).await?;
        if let Some(done) = ledger::find(self, &load.receipt.run_id).await? {
            return Ok(Loaded::AlreadyDone(done));
        }
        let plan = TablePlan::new(self, &load.rows.schema(), &load.mode).await?;
        if let (true, Some(cursor), false) = (plan.creates(), load.base.cursor, load.mode == Mode::Overwrite) {
            return Err(ExportError::TableGone {
                table: self.table.quoted(),
                cursor: format!("everything up to {cursor}"),
            });
        }
        self.stage(&plan, &mut load).await?;
        crash_point!("export::staged");
        load.receipt.seconds = began.elapsed().as_secs_f64();
        if let Err(error) = self.merge(&plan, &load.mode, &load.base, &load.receipt).await {
            let _ = self.client().batch_execute("ROLLBACK").await;
            return Err(error);
        }
        if let Err(lost) = self.client().batch_execute("COMMIT").await {
            self.resolve(&load.receipt, lost).await?;
        }
        crash_point!("export::committed");
        // The connection may serve others; a staging table that stays behind goes with it.
        let _ = self.client().batch_execute(table::DROP_STAGING).await;
        Ok(Loaded::Committed(load.receipt))
    }

    async fn set(&mut self, receipt: Receipt) -> Result<(), ExportError> {
        ledger::ensure(self).await?;
        ledger::insert(self, &receipt).await
    }

    async fn release(self: Box<Self>) {
        let unlocked = self.client().execute("SELECT pg_advisory_unlock($1)", &[&self.lock]).await;
        if unlocked.is_ok() {
            self.give_back();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            drop(Object::take(client));
        }
    }
}
