//! Who is told when an export is done or has failed: a command, or a web server.

use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use object_store::ClientOptions;
use object_store::client::{HttpConnector, ReqwestConnector};
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long a hook may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A hook. Whether it works changes nothing about the export.
#[derive(Clone, PartialEq, Eq)]
pub enum Hook {
    /// Run by the shell, with a JSON object on its standard input.
    Command(String),
    /// Sent a JSON object with POST. The URL may hold a secret.
    Webhook(String),
}

impl Hook {
    /// A text that begins with `http://` or `https://` is a webhook, any other a command.
    pub fn new(text: String) -> Self {
        if text.starts_with("https://") || text.starts_with("http://") {
            Hook::Webhook(text)
        } else {
            Hook::Command(text)
        }
    }

    /// Tells of an export, and waits for the end of that. A hook that fails is logged.
    pub async fn tell(&self, export: &str, news: &impl Serialize) {
        let body = serde_json::to_vec(news).unwrap_or_default();
        let told = tokio::time::timeout(PATIENCE, async {
            match self {
                Hook::Command(command) => run(command, &body).await,
                Hook::Webhook(url) => send(url, body).await,
            }
        });
        let failure = match told.await {
            Ok(Ok(())) => return,
            Ok(Err(reason)) => reason,
            Err(_) => format!("no end within {PATIENCE:?}"),
        };
        tracing::warn!(export, hook = ?self, "a hook failed: {failure}");
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hook::Command(command) => f.debug_tuple("Command").field(command).finish(),
            Hook::Webhook(_) => f.write_str("Webhook"),
        }
    }
}

async fn run(command: &str, body: &[u8]) -> Result<(), String> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that reads nothing closes its end.
        let _ = stdin.write_all(body).await;
    }
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("the command ended with {status}")) }
}

async fn send(url: &str, body: Vec<u8>) -> Result<(), String> {
    let client = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true));
    let client = client.map_err(|error| error.to_string())?;
    let request = http::Request::post(url).header("content-type", "application/json").body(body.into());
    // What a client says of its failure may repeat the URL, which may hold a token.
    let request = request.map_err(|_| "its URL cannot be used".to_owned())?;
    let response = client.execute(request).await.map_err(|_| "the server cannot be reached".to_owned())?;
    if response.status().is_success() { Ok(()) } else { Err(format!("the server answered {}", response.status())) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_command_gets_the_news_on_its_standard_input() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("news.json");
        Hook::new(format!("cat > '{}'", file.display())).tell("x", &serde_json::json!({"rows": 3})).await;
        assert_eq!(std::fs::read_to_string(file).unwrap(), "{\"rows\":3}");
    }

    #[tokio::test]
    async fn a_hook_that_fails_is_no_error() {
        Hook::new("exit 3".to_owned()).tell("x", &"news").await;
        Hook::new("http://127.0.0.1:1/".to_owned()).tell("x", &"news").await;
    }

    #[test]
    fn a_webhook_is_not_shown() {
        let hook = Hook::new("https://hooks.example.com/canary".to_owned());
        assert_eq!(format!("{hook:?}"), "Webhook");
    }
}
