//! Tables of a real PostgreSQL: what an export makes of them, and what it refuses.

use normstream::export::{Cursor, ExportError, Incremental, Mode, Outcome, Request};

use super::{at, export, exporter, job, refused, run};
use crate::support::postgres::Cluster;

/// Rows of every type that results have.
const ROWS: &str = "SELECT value AS session_id, 'u' || CAST(value % 7 AS VARCHAR) AS user_id, value % 3 = 0 AS ok,
        arrow_cast(value % 40, 'Int16') AS ce_raw, CASE WHEN value % 5 = 0 THEN NULL ELSE value / 8.0 END AS lfi,
        arrow_cast('analyzing', 'Dictionary(UInt8, Utf8)') AS style,
        make_array('a', CAST(NULL AS VARCHAR), 'c;d') AS flags,
        arrow_cast(to_timestamp_micros(value * 1000001), 'Timestamp(Microsecond, Some(\"UTC\"))') AS completed_at,
        CAST(value AS DECIMAL(12, 3)) AS amount, CAST('2024-05-01' AS DATE) AS day
    FROM generate_series(1, 1000)";

#[tokio::test]
async fn a_first_export_makes_the_table_with_the_types_a_person_would_choose() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    let receipt = export(&job(&url, ROWS)).await;
    assert_eq!((receipt.rows, receipt.mode.as_str(), receipt.slice.as_str()), (1_000, "append", "everything"));
    let types = server.ask(
        &url,
        "SELECT string_agg(column_name || ' ' || data_type, ', ' ORDER BY ordinal_position)
         FROM information_schema.columns WHERE table_name = 'scores'",
    );
    assert_eq!(
        types,
        "session_id bigint, user_id text, ok boolean, ce_raw smallint, lfi double precision, style text, flags ARRAY, \
         completed_at timestamp with time zone, amount numeric, day date"
    );
    let sums = "SELECT count(*), sum(session_id), count(lfi), sum(lfi), sum(ce_raw), count(*) FILTER (WHERE ok),
                       sum(amount), min(completed_at AT TIME ZONE 'UTC'), min(flags::text), max(style) FROM scores";
    assert_eq!(
        server.ask(&url, sums),
        "1000|500500|800|50000|19500|333|500500.000|1970-01-01 00:00:01.000001|{a,NULL,c;d}|analyzing"
    );
    let ledger = "SELECT export, target_table, mode, rows, run_id = '";
    let ledger = format!("{ledger}{}' FROM normstream_exports", receipt.run_id);
    assert_eq!(server.ask(&url, &ledger), "nightly|\"public\".\"scores\"|append|1000|t");
}

#[tokio::test]
async fn append_keeps_what_is_there_and_overwrite_does_not() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    let mut job = job(&url, "SELECT value AS n FROM generate_series(1, 10)");
    export(&job).await;
    export(&job).await;
    assert_eq!(server.ask(&url, "SELECT count(*), sum(n) FROM scores"), "20|110");
    job.mode = Mode::Overwrite;
    job.sql = "SELECT value AS n FROM generate_series(1, 3)".to_owned();
    export(&job).await;
    assert_eq!(server.ask(&url, "SELECT count(*), sum(n) FROM scores"), "3|6");
}

#[tokio::test]
async fn upsert_replaces_rows_by_their_key() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    let mut job = job(&url, "SELECT value AS id, 'old' AS state FROM generate_series(1, 5)");
    job.mode = Mode::Upsert { key: vec!["id".to_owned()] };
    export(&job).await;
    job.sql = "SELECT value AS id, 'new' AS state FROM generate_series(4, 8)".to_owned();
    export(&job).await;
    assert_eq!(
        server.ask(&url, "SELECT string_agg(id || state, ' ' ORDER BY id) FROM scores"),
        "1old 2old 3old 4new 5new 6new 7new 8new"
    );
    job.sql = "SELECT 1 AS id, 'a' AS state UNION ALL SELECT 1, 'b'".to_owned();
    assert_eq!(refused(&job).await, "nightly gives a key more than once (1); upsert needs one row a key");
    job.sql = "SELECT CAST(NULL AS BIGINT) AS id, 'a' AS state".to_owned();
    assert_eq!(refused(&job).await, "nightly gives a key that is null (null); upsert needs one row a key");
    job.sql = "SELECT 1 AS number".to_owned();
    assert_eq!(refused(&job).await, "upsert goes by the key id, which the query does not give; it gives number");
    assert_eq!(server.ask(&url, "SELECT count(*) FROM scores"), "8");
}

#[tokio::test]
async fn upsert_into_a_table_without_a_unique_key_is_refused_with_the_way_out() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    server.ask(&url, "CREATE TABLE scores (id bigint, state text)");
    let mut job = job(&url, "SELECT 1 AS id, 'a' AS state");
    job.mode = Mode::Upsert { key: vec!["id".to_owned()] };
    assert_eq!(
        refused(&job).await,
        "upsert needs a unique index on the key of \"public\".\"scores\"; make one: \
         CREATE UNIQUE INDEX ON \"public\".\"scores\" (\"id\")"
    );
    server.ask(&url, "CREATE UNIQUE INDEX ON scores (id) INCLUDE (state)");
    export(&job).await;
}

#[tokio::test]
async fn a_query_that_gains_columns_adds_them_and_one_that_loses_them_leaves_them_empty() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    let mut job = job(&url, "SELECT 1 AS a");
    export(&job).await;
    job.sql = "SELECT 2 AS a, 'x' AS b".to_owned();
    export(&job).await;
    job.sql = "SELECT 'y' AS b".to_owned();
    export(&job).await;
    assert_eq!(server.ask(&url, "SELECT string_agg(concat_ws(',', a, b), ' ' ORDER BY a) FROM scores"), "1 2,x y");
    server.ask(&url, "ALTER TABLE scores ADD COLUMN must integer; UPDATE scores SET must = 0");
    server.ask(&url, "ALTER TABLE scores ALTER COLUMN must SET NOT NULL");
    assert_eq!(
        refused(&job).await,
        "\"public\".\"scores\" has the column must, which must not be null and has no default, but the query does not give it"
    );
}

#[tokio::test]
async fn a_change_of_type_is_refused_and_a_wider_column_is_taken() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    server.ask(&url, "CREATE TABLE scores (a numeric, b varchar(5), c text)");
    let mut job = job(&url, "SELECT 1 AS a, 'x' AS b, 'y' AS c");
    export(&job).await;
    job.sql = "SELECT 1 AS a, 'x' AS b, 3 AS c".to_owned();
    assert_eq!(
        refused(&job).await,
        "\"public\".\"scores\" has the column c as text, and the query gives bigint: types are not changed; cast it in the \
         query, or change the table by hand"
    );
    job.sql = "SELECT 1 AS a, 'too long' AS b".to_owned();
    assert_eq!(refused(&job).await, "dw: cannot append the rows: value too long for type character varying(5) [22001]");
    job.sql = "SELECT named_struct('x', 1) AS c".to_owned();
    assert!(refused(&job).await.contains("which dw cannot hold: cast it in the query"));
    assert_eq!(server.ask(&url, "SELECT count(*) FROM scores"), "1");
}

#[tokio::test]
async fn names_of_any_kind_are_quoted() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    server.ask(&url, "CREATE SCHEMA \"Data Warehouse\"");
    let mut job = job(&url, "SELECT 1 AS \"select\", 2 AS \"a \"\"b\"\"; DROP TABLE x\", 3 AS \"Ünï\"");
    job.table = "Data Warehouse.\"odd.\"\"name\"".to_owned();
    job.name = "it's \"odd\"".to_owned();
    job.mode = Mode::Upsert { key: vec!["select".to_owned(), "Ünï".to_owned()] };
    export(&job).await;
    export(&job).await;
    let rows = "SELECT \"select\", \"a \"\"b\"\"; DROP TABLE x\", \"Ünï\" FROM \"Data Warehouse\".\"odd.\"\"name\"";
    assert_eq!(server.ask(&url, rows), "1|2|3");
    assert_eq!(server.ask(&url, "SELECT count(*) FROM \"Data Warehouse\".normstream_exports"), "2");
}

#[tokio::test]
async fn slices_by_a_column_of_time_meet_and_do_not_overlap() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    // A row an hour of January 2024.
    let mut job = job(
        &url,
        "SELECT value AS n, arrow_cast(to_timestamp_seconds(1704067200 + 3600 * value), 'Timestamp(Second, Some(\"UTC\"))') AS completed_at
         FROM generate_series(0, 743)",
    );
    job.incremental = Incremental::Column("completed_at".to_owned());
    let exporter = exporter();
    let slot = |text| Request { slot: Some(at(text)), ..Request::default() };
    for (slots, rows) in [("2024-01-10", 216), ("2024-01-10T12:00:00Z", 12), ("2024-02-01", 516)] {
        let Outcome::Committed(receipt) = exporter.run(&job, slot(slots)).await.unwrap() else { panic!() };
        assert_eq!((receipt.rows, receipt.cursor), (rows, Some(Cursor::Time(at(slots)))));
    }
    assert_eq!(exporter.run(&job, slot("2024-01-31")).await.unwrap(), Outcome::SlotDone);
    assert_eq!(server.ask(&url, "SELECT count(*), count(DISTINCT n) FROM scores"), "744|744");

    // A window is exported beside, and once: the cursor stays.
    let window = Request { window: Some((at("2024-01-01"), at("2024-01-02"))), ..Request::default() };
    job.table = "january".to_owned();
    let Outcome::Committed(receipt) = exporter.run(&job, window).await.unwrap() else { panic!() };
    assert_eq!((receipt.rows, receipt.cursor), (24, None));
    assert!(matches!(exporter.run(&job, window).await.unwrap(), Outcome::AlreadyDone(_)));
    assert_eq!(exporter.state(&job).await.unwrap().cursor, None);

    // Everything in the place of what is there.
    job.table = "scores".to_owned();
    let full = Request { full: true, ..Request::default() };
    let Outcome::Committed(receipt) = exporter.run(&job, full).await.unwrap() else { panic!() };
    assert_eq!((receipt.rows, receipt.mode.as_str()), (744, "overwrite"));
    assert_eq!(server.ask(&url, "SELECT count(*) FROM scores"), "744");
}

#[tokio::test]
async fn parameters_are_typed_values_of_the_query() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    let job = job(
        &url,
        "SELECT value AS n, :run_at AS exported_at, :last_version AS last_version FROM generate_series(1, 3)
         WHERE arrow_cast(to_timestamp_seconds(value), 'Timestamp(Second, Some(\"UTC\"))') >= :from AND :to > :from",
    );
    let window = Request { window: Some((at("1970-01-01T00:00:02Z"), at("2024-01-01"))), ..Request::default() };
    exporter().run(&job, window).await.unwrap();
    assert_eq!(
        server.ask(
            &url,
            "SELECT min(n), count(exported_at), count(last_version), min(pg_typeof(exported_at)::text) FROM scores"
        ),
        "2|2|0|timestamp with time zone"
    );
}

#[tokio::test]
async fn what_cannot_be_exported_leaves_table_and_cursor_as_they_were() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    let mut job = job(&url, "SELECT value AS n FROM generate_series(1, 3)");
    export(&job).await;
    job.min_rows = 4;
    assert_eq!(refused(&job).await, "nightly gives 3 rows, fewer than min_rows = 4; nothing was written");
    job.sql = "SELECT value / (value - 20000) AS n FROM generate_series(1, 30000)".to_owned();
    assert!(refused(&job).await.contains("Divide by zero"), "{}", refused(&job).await);
    job.sql = "SELECT nonsense".to_owned();
    assert!(refused(&job).await.starts_with("the query of nightly failed: "));
    assert_eq!(server.ask(&url, "SELECT count(*), (SELECT count(*) FROM normstream_exports) FROM scores"), "3|1");
    server.ask(&url, "DROP TABLE scores");
}

#[tokio::test]
async fn a_table_that_is_gone_is_not_filled_from_the_middle() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    let mut job = job(&url, "SELECT arrow_cast(to_timestamp_seconds(5), 'Timestamp(Second, Some(\"UTC\"))') AS t");
    job.incremental = Incremental::Column("t".to_owned());
    export(&job).await;
    server.ask(&url, "DROP TABLE scores");
    let error = run(&job).await.unwrap_err();
    assert!(matches!(error, ExportError::TableGone { .. }), "{error}");
    exporter().run(&job, Request { full: true, ..Request::default() }).await.unwrap();
    assert_eq!(server.ask(&url, "SELECT count(*) FROM scores"), "1");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_temporary_failure_and_a_wrong_database_is_not() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    let nobody = run(&job("postgres://postgres@127.0.0.1:1/x", "SELECT 1 AS a")).await.unwrap_err();
    assert!(matches!(nobody, ExportError::Unreachable { .. }), "{nobody}");
    assert!(
        nobody.is_retryable() && nobody.to_string().starts_with("dw cannot be reached (127.0.0.1:1): "),
        "{nobody}"
    );
    let (server, _) = url.rsplit_once('/').unwrap();
    let missing = run(&job(&format!("{server}/none"), "SELECT 1 AS a")).await.unwrap_err();
    assert!(!missing.is_retryable());
    assert_eq!(missing.to_string(), "dw: cannot connect: database \"none\" does not exist [3D000]");
}

#[tokio::test]
async fn the_pool_has_the_settings_of_pools_and_a_lease_is_kept_by_its_connection() {
    let Some(server) = Cluster::shared() else { return };
    let url = server.database();
    let mut job = job(&url, "SELECT value AS n FROM generate_series(1, 3)");
    job.target.pool.size = 1;
    job.target.pool.max_overflow = 1;
    job.target.pool.timeout = std::time::Duration::from_millis(200);
    let exporter = exporter();
    let sink = exporter.targets.open(&job).unwrap();
    let held = sink.lease(std::time::Duration::ZERO).await.unwrap().unwrap();
    assert!(sink.lease(std::time::Duration::ZERO).await.unwrap().is_none());
    let busy = exporter.run(&job, Request::default()).await.unwrap_err();
    assert_eq!(busy.to_string(), "nightly is being exported by another process; nothing was done");
    let pool = sink.pool_status().unwrap();
    assert_eq!((pool.size, pool.max_overflow, pool.checked_out), (1, 1, 1));
    let other = {
        let mut other = job.clone();
        other.name = "other".to_owned();
        exporter.targets.open(&other).unwrap().lease(std::time::Duration::ZERO).await.unwrap().unwrap()
    };
    let error = exporter.run(&job, Request::default()).await.unwrap_err();
    assert!(matches!(error, ExportError::PoolTimeout { capacity: 2, .. }), "{error}");
    // Dropped, a connection is closed, and the server lets go of the lease.
    drop(held);
    other.release().await;
    let mut patient = job.clone();
    patient.overlap = normstream::export::Overlap::Queue;
    assert!(matches!(exporter.run(&patient, Request::default()).await.unwrap(), Outcome::Committed(_)));
    assert_eq!(sink.pool_status().unwrap().open, 1);
}
