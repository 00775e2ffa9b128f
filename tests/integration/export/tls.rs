//! How connections to PostgreSQL are encrypted: the modes of libpq, against servers with TLS and without.

use normstream::export::{ExportError, Outcome, Request};

use super::{exporter, job, run};
use crate::support::postgres::Cluster;
use crate::support::tls_front;

/// Exports over a connection of these parameters, and says whether it was encrypted, as the server sees it.
async fn encrypted(server: &Cluster, url: &str, parameters: &str) -> bool {
    let exporter = exporter();
    let job = job(&format!("{url}?{parameters}"), "SELECT 1 AS n");
    assert!(matches!(exporter.run(&job, Request::default()).await.unwrap(), Outcome::Committed(_)));
    let database = url.rsplit('/').next().unwrap();
    // The pool still has the connection.
    let sql = format!(
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
         WHERE application_name = 'normstream' AND datname = '{database}'"
    );
    server.ask(url, &sql) == "t"
}

async fn refused(url: &str, parameters: &str) -> String {
    let error = run(&job(&format!("{url}?{parameters}"), "SELECT 1 AS n")).await.unwrap_err();
    assert!(matches!(error, ExportError::Tls { .. }) && !error.is_retryable(), "{error:?}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mode_says_how_much_tls_there_is_and_what_of_the_certificate_is_checked() {
    let Some(server) = Cluster::start() else { return };
    server.use_tls(&tls_front::certificate(), &tls_front::key());
    let authority = format!("sslrootcert={}", tls_front::certificate().display());
    let on = |parameters: String| {
        let (server, url) = (&server, server.database());
        async move { encrypted(server, &url, &parameters).await }
    };
    assert!(!on("sslmode=disable".to_owned()).await);
    for mode in ["", "sslmode=prefer", "sslmode=require"] {
        assert!(on(mode.to_owned()).await, "{mode}");
    }
    for mode in ["verify-ca", "verify-full"] {
        assert!(on(format!("sslmode={mode}&{authority}")).await, "{mode}");
    }

    // Nobody of the system's authorities has signed it.
    let url = server.database();
    for mode in ["verify-ca", "verify-full"] {
        let error = refused(&url, &format!("sslmode={mode}")).await;
        assert!(error.starts_with("dw: TLS cannot be used: ") && error.contains("sslrootcert=FILE"), "{error}");
    }
    // It names another host.
    let elsewhere = url.replace("@127.0.0.1", "@dw.example.com");
    let parameters = format!("hostaddr=127.0.0.1&{authority}");
    let error = refused(&elsewhere, &format!("{parameters}&sslmode=verify-full")).await;
    assert!(error.contains("not valid for name \"dw.example.com\""), "{error}");
    let error = refused(&elsewhere, &parameters).await;
    assert!(error.contains("not valid for name"), "a server elsewhere is checked unless said otherwise: {error}");
    let on_elsewhere = run(&job(&format!("{elsewhere}?{parameters}&sslmode=verify-ca"), "SELECT 1 AS n")).await;
    assert!(matches!(on_elsewhere, Ok(Outcome::Committed(_))), "{on_elsewhere:?}");
}

#[tokio::test]
async fn a_server_without_tls_is_used_where_that_is_allowed() {
    let Some(server) = Cluster::shared() else { return };
    assert!(!encrypted(server, &server.database(), "sslmode=prefer").await);
    let error = refused(&server.database(), "sslmode=require").await;
    assert_eq!(
        error,
        "dw: TLS cannot be used: the server has none; give sslmode=prefer or sslmode=disable in the URL to do without"
    );
}
