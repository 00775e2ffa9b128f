//! The table `normstream_exports`: one row an export that was committed, written in the transaction that brought its rows.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::export::sink::State;
use crate::export::sink::postgres::Session;
use crate::export::sink::postgres::table::TableName;
use crate::export::slice::Cursor;
use crate::export::{ExportError, Receipt};

/// The table's name; it stands in the schema of the table that is exported to.
const LEDGER: &str = "normstream_exports";

const COLUMNS: &str = "run_id, export, target_table, mode, slice, cursor_version, cursor_time, slot, run_at, query_digest, \
                       rows, bytes, seconds";

fn name(session: &Session) -> String {
    TableName { schema: session.table.schema.clone(), name: LEDGER.to_owned() }.quoted()
}

/// Makes the ledger if there is none.
pub(super) async fn ensure(session: &Session) -> Result<(), ExportError> {
    if exists(session).await? {
        return Ok(());
    }
    // Two that create it at once would meet in the catalog: they take turns by a lock that all exports share.
    let sql = format!(
        "BEGIN;
         SELECT pg_advisory_xact_lock(hashtext('{LEDGER}'));
         CREATE TABLE IF NOT EXISTS {} (
             sequence bigint GENERATED ALWAYS AS IDENTITY,
             run_id text PRIMARY KEY,
             export text NOT NULL,
             target_table text NOT NULL,
             mode text NOT NULL,
             slice text NOT NULL,
             cursor_version bigint,
             cursor_time timestamptz,
             slot timestamptz,
             run_at timestamptz NOT NULL,
             query_digest text NOT NULL,
             rows bigint NOT NULL,
             bytes bigint NOT NULL,
             seconds double precision NOT NULL,
             committed_at timestamptz NOT NULL DEFAULT now()
         );
         COMMIT",
        name(session)
    );
    session.execute("make the ledger", &sql).await
}

async fn exists(session: &Session) -> Result<bool, ExportError> {
    let row = session.client().query_one("SELECT to_regclass($1) IS NOT NULL", &[&name(session)]).await;
    Ok(row.map_err(session.error("look for the ledger"))?.get(0))
}

/// How far the export has come.
pub(super) async fn state(session: &Session) -> Result<State, ExportError> {
    if !exists(session).await? {
        return Ok(State::default());
    }
    let mine = format!("FROM {} WHERE export = $1 AND target_table = $2", name(session));
    let sql = format!(
        "SELECT (SELECT max(slot) {mine}), last.*
         FROM (SELECT 1) one LEFT JOIN LATERAL
              (SELECT cursor_version, cursor_time {mine} AND (cursor_version IS NOT NULL OR cursor_time IS NOT NULL)
               ORDER BY sequence DESC LIMIT 1) last ON true"
    );
    let table = session.table.quoted();
    let row = session.client().query_one(&sql, &[&session.export, &table]).await;
    let row = row.map_err(session.error("read the ledger"))?;
    let last = history(session, 1).await?.pop();
    Ok(State { cursor: cursor(row.get(1), row.get(2)), slot: row.get(0), last })
}

/// The export's last entries, the newest first.
pub(super) async fn history(session: &Session, most: usize) -> Result<Vec<Receipt>, ExportError> {
    if !exists(session).await? {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT {COLUMNS} FROM {} WHERE export = $1 AND target_table = $2 ORDER BY sequence DESC LIMIT {most}",
        name(session)
    );
    let rows = session.client().query(&sql, &[&session.export, &session.table.quoted()]).await;
    let rows = rows.map_err(session.error("read the ledger"))?;
    Ok(rows.iter().map(|row| receipt(session, row)).collect())
}

/// The entry of a run.
pub(super) async fn find(session: &Session, run_id: &str) -> Result<Option<Receipt>, ExportError> {
    let sql = format!("SELECT {COLUMNS} FROM {} WHERE run_id = $1", name(session));
    let row = session.client().query_opt(&sql, &[&run_id]).await.map_err(session.error("read the ledger"))?;
    Ok(row.map(|row| receipt(session, &row)))
}

/// Writes an entry.
pub(super) async fn insert(session: &Session, receipt: &Receipt) -> Result<(), ExportError> {
    let sql = format!(
        "INSERT INTO {} ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        name(session)
    );
    let (version, time) = match receipt.cursor {
        Some(Cursor::Version(version)) => (Some(signed(version)), None),
        Some(Cursor::Time(time)) => (None, Some(time)),
        None => (None, None),
    };
    let (table, rows, bytes) = (session.table.quoted(), signed(receipt.rows), signed(receipt.bytes));
    let values: [&(dyn ToSql + Sync); 13] = [
        &receipt.run_id,
        &receipt.export,
        &table,
        &receipt.mode,
        &receipt.slice,
        &version,
        &time,
        &receipt.slot,
        &receipt.run_at,
        &receipt.query_digest,
        &rows,
        &bytes,
        &receipt.seconds,
    ];
    session.client().execute(&sql, &values).await.map(|_| ()).map_err(session.error("write the ledger"))
}

fn receipt(session: &Session, row: &Row) -> Receipt {
    Receipt {
        run_id: row.get(0),
        export: row.get(1),
        target: session.pool.name().to_owned(),
        table: row.get(2),
        mode: row.get(3),
        slice: row.get(4),
        cursor: cursor(row.get(5), row.get(6)),
        slot: row.get(7),
        run_at: row.get(8),
        query_digest: row.get(9),
        rows: unsigned(row.get(10)),
        bytes: unsigned(row.get(11)),
        seconds: row.get(12),
    }
}

fn cursor(version: Option<i64>, time: Option<DateTime<Utc>>) -> Option<Cursor> {
    version.map(|version| Cursor::Version(unsigned(version))).or(time.map(Cursor::Time))
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
