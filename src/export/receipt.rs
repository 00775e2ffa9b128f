//! What an export did: the row of the ledger, the answer of `export run`, the body of a hook.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::export::slice::{Cursor, rfc3339, time_text};
use crate::export::{ExportJob, Mode, Slice};

/// One export, as the ledger of its target keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Identifies what was exported: the same slice of the same query into the same table has the same id.
    pub run_id: String,
    /// The export's name.
    pub export: String,
    /// The target's name.
    pub target: String,
    /// The table.
    pub table: String,
    /// What was done with rows that were there: `append`, `overwrite`, `upsert by …`, or `set` for a cursor set by hand.
    pub mode: String,
    /// Which rows.
    pub slice: String,
    /// How far the export has come with it; `None` where it moves no cursor.
    pub cursor: Option<Cursor>,
    /// The slot of the schedule that it ran for.
    #[serde(with = "rfc3339::option")]
    pub slot: Option<DateTime<Utc>>,
    /// When it ran: `:run_at` of the query.
    #[serde(with = "rfc3339")]
    pub run_at: DateTime<Utc>,
    /// SHA-256 of the query's text.
    pub query_digest: String,
    /// Rows that were brought.
    pub rows: u64,
    /// Bytes that were sent.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Receipt {
    /// What is known of an export before it has begun.
    pub fn new(
        job: &ExportJob,
        mode: &str,
        slice: &Slice,
        slot: Option<DateTime<Utc>>,
        run_at: DateTime<Utc>,
        moves: bool,
    ) -> Self {
        let query_digest = hexadecimal(&Sha256::digest(&job.sql));
        let cursor = slice.end().filter(|_| moves);
        // What would double rows is identified by its slice alone; what can be repeated, by the time too.
        let doubles = mode == Mode::Append.to_string() && *slice != Slice::Everything;
        let repeated = match slot {
            Some(slot) => format!("slot {}", time_text(&slot)),
            None if doubles => String::new(),
            None => time_text(&run_at),
        };
        let run_id = digest([
            job.name.as_str(),
            &job.table,
            mode,
            &query_digest,
            &slice.to_string(),
            if moves { "moves the cursor" } else { "leaves the cursor" },
            &repeated,
        ]);
        Receipt {
            run_id: run_id[..32].to_owned(),
            export: job.name.clone(),
            target: job.target.name.clone(),
            table: job.table.clone(),
            mode: mode.to_owned(),
            slice: slice.to_string(),
            cursor,
            slot,
            run_at,
            query_digest,
            rows: 0,
            bytes: 0,
            seconds: 0.0,
        }
    }
}

/// SHA-256 of texts, each with its length before it, in hexadecimal.
pub(crate) fn digest<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hexadecimal(&hash.finalize())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
