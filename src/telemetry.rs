//! What the program tells while it works: log messages, and the progress of a run. All of it goes to stderr.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, ProgressStyle};
use crate::norms::NormStore;
use crate::run::{Progress, RunReport, TableReport};

/// Log messages of at least this level are shown unless the environment asks for others. What the Delta libraries call an
/// error or a warning, another commit that was faster or a table that is not there yet, is an ordinary answer to us.
const DEFAULT_FILTER: &str = "warn,deltalake_core=off,buoyant_kernel=off,buoyant_kernel_engine=off";
/// How often a bar is drawn.
const BAR_PERIOD: Duration = Duration::from_millis(200);
/// How often a line is printed where there is no bar.
const LINE_PERIOD: Duration = Duration::from_secs(10);

/// Sends log messages to stderr.
pub fn init_logging() {
    let filter = Config::log_filter().and_then(|filter| EnvFilter::try_new(filter).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new(DEFAULT_FILTER));
    let color = std::io::stderr().is_terminal() && !Config::no_color();
    // A second initialisation, as by tests in one process, changes nothing.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(color).try_init();
}

/// Shows the progress of a run until it is dropped.
#[derive(Debug)]
pub struct ProgressReporter {
    style: ProgressStyle,
    bar: Option<ProgressBar>,
    task: tokio::task::JoinHandle<()>,
}

impl ProgressReporter {
    /// Begins to show a run, and what it asks of a norm store.
    pub fn start(style: ProgressStyle, progress: &Arc<Progress>, norms: Option<&Arc<NormStore>>) -> Self {
        let style = match style {
            ProgressStyle::Auto if std::io::stderr().is_terminal() => ProgressStyle::Bar,
            ProgressStyle::Auto => ProgressStyle::Plain,
            other => other,
        };
        let bar = (style == ProgressStyle::Bar).then(|| bar(progress));
        let (progress, norms, shown) = (Arc::clone(progress), norms.cloned(), bar.clone());
        let period = if bar.is_some() { BAR_PERIOD } else { LINE_PERIOD };
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(period);
            ticks.tick().await;
            loop {
                ticks.tick().await;
                match (style, &shown) {
                    (ProgressStyle::Off, _) => return,
                    (_, Some(bar)) => draw(bar, &progress, norms.as_deref()),
                    (ProgressStyle::Json, None) => print_line(&json(&progress)),
                    (_, None) => print_line(&plain(&progress)),
                }
            }
        });
        ProgressReporter { style, bar, task }
    }

    /// Ends with a summary: in JSON the report, else its last words.
    pub fn finish(self, report: &impl Serialize, last_words: &str) {
        self.task.abort();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        match self.style {
            ProgressStyle::Off => {}
            ProgressStyle::Json => print_line(&serde_json::json!({ "finished": report }).to_string()),
            _ => print_line(last_words),
        }
    }
}

impl Drop for ProgressReporter {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(progress: &Progress) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(
        Some(progress.expected_sessions.unwrap_or(progress.expected_bytes)),
        ProgressDrawTarget::stderr(),
    );
    let template = if Config::no_color() {
        "{bar:30} {percent:>3}%  {msg}  ETA {eta}"
    } else {
        "{bar:30.cyan} {percent:>3}%  {msg}  ETA {eta}"
    };
    match BarStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn draw(bar: &ProgressBar, progress: &Progress, norms: Option<&NormStore>) {
    let position = match progress.expected_sessions {
        Some(_) => progress.sessions(),
        None => progress.finished_bytes(),
    };
    bar.set_position(position);
    let (count, rate) = (HumanCount(progress.sessions()), HumanCount(progress.rate() as u64));
    let cache = norms.map(|norms| format!("  norm cache {:.1}%", 100.0 * norms.stats().hit_rate)).unwrap_or_default();
    bar.set_message(format!("{count} {}  {rate}/s{cache}", progress.counted));
}

fn plain(progress: &Progress) -> String {
    let of = progress.expected_sessions.map(|expected| format!(" of {}", HumanCount(expected))).unwrap_or_default();
    let (count, rate) = (HumanCount(progress.sessions()), HumanCount(progress.rate() as u64));
    format!("{count}{of} {}, {rate}/s", progress.counted)
}

fn json(progress: &Progress) -> String {
    let counted = progress.counted;
    serde_json::json!({
        (counted): progress.sessions(),
        (format!("expected_{counted}")): progress.expected_sessions,
        "seconds": progress.seconds(),
        (format!("{counted}_per_second")): progress.rate(),
    })
    .to_string()
}

/// The last words of a run.
pub fn summary(report: &RunReport) -> String {
    let mut text = format!(
        "{} sessions: {} scored, {} failed, in {} ({}/s)",
        HumanCount(report.sessions),
        HumanCount(report.scored),
        HumanCount(report.failed),
        duration(report.seconds),
        HumanCount(report.sessions_per_second as u64),
    );
    if !report.failed_by_code.is_empty() {
        let codes: Vec<String> =
            report.failed_by_code.iter().map(|(code, count)| format!("{code} {}", HumanCount(*count))).collect();
        text.push_str(&format!("\nfailed: {}", codes.join(", ")));
    }
    text
}

/// The last words of writing a table to a target.
pub fn table_summary(progress: &Progress, report: &TableReport, target: &str) -> String {
    let (count, rows) = (progress.sessions(), report.rows);
    let rows = if rows == count { String::new() } else { format!(" ({} rows)", HumanCount(rows)) };
    format!(
        "{} {}{rows} written to {target}: {} in {} ({}/s)",
        HumanCount(count),
        progress.counted,
        HumanBytes(report.bytes_written),
        duration(report.seconds),
        HumanCount(progress.rate() as u64),
    )
}

fn duration(seconds: f64) -> String {
    match seconds {
        short if short < 60.0 => format!("{short:.2} s"),
        long => HumanDuration(Duration::from_secs_f64(long)).to_string(),
    }
}

/// Prints a line to stderr. A closed stderr is no reason to stop.
pub fn print_line(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
