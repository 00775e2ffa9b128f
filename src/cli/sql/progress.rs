//! The progress of a query that takes longer than a second, on standard error.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::physical_plan::ExecutionPlan;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget};

use crate::config::ProgressStyle;
use crate::telemetry::print_line;

/// A query that is done by then shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a bar is drawn.
const BAR_PERIOD: Duration = Duration::from_millis(200);
/// How often a line is printed where there is no bar.
const LINE_PERIOD: Duration = Duration::from_secs(10);

/// Shows a query at work until it is finished or dropped.
pub(super) struct QueryProgress {
    bar: Option<ProgressBar>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl QueryProgress {
    /// Watches a plan. Without a terminal, `auto` shows nothing: the rows are what is wanted.
    pub(super) fn start(style: ProgressStyle, plan: &Arc<dyn ExecutionPlan>) -> Self {
        let is_bar = match style {
            ProgressStyle::Auto => std::io::stderr().is_terminal(),
            ProgressStyle::Bar => true,
            ProgressStyle::Plain | ProgressStyle::Json => false,
            ProgressStyle::Off => return QueryProgress { bar: None, task: None },
        };
        if style == ProgressStyle::Auto && !is_bar {
            return QueryProgress { bar: None, task: None };
        }
        let bar = is_bar.then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()));
        let (plan, shown) = (Arc::clone(plan), bar.clone());
        let task = tokio::spawn(async move {
            let started = Instant::now();
            tokio::time::sleep(PATIENCE).await;
            if let Some(bar) = &shown {
                bar.set_draw_target(ProgressDrawTarget::stderr());
            }
            loop {
                let Work { rows, bytes, spilled } = Work::of(plan.as_ref());
                let seconds = started.elapsed().as_secs_f64();
                let mut text = format!("{} rows read, {}, {seconds:.0} s", HumanCount(rows), HumanBytes(bytes));
                if spilled > 0 {
                    text.push_str(&format!(", {} spilled to disk", HumanBytes(spilled)));
                }
                match (&shown, style) {
                    (Some(bar), _) => {
                        bar.set_message(text);
                        bar.tick();
                    }
                    (None, ProgressStyle::Json) => print_line(
                        &serde_json::json!({"rows_read": rows, "bytes_read": bytes, "bytes_spilled": spilled, "seconds": seconds})
                            .to_string(),
                    ),
                    (None, _) => print_line(&text),
                }
                tokio::time::sleep(if shown.is_some() { BAR_PERIOD } else { LINE_PERIOD }).await;
            }
        });
        QueryProgress { bar, task: Some(task) }
    }

    /// Takes the bar off a terminal that rows are about to be written to, if they are.
    pub(super) fn clear_before(&self, rows_on_terminal: bool) {
        if rows_on_terminal {
            self.stop();
        }
    }

    /// Ends it, and leaves nothing behind.
    pub(super) fn finish(self) {
        self.stop();
    }

    fn stop(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for QueryProgress {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a plan has done so far.
#[derive(Default)]
struct Work {
    /// Rows that its leaves gave.
    rows: u64,
    /// Bytes that its scans read.
    bytes: u64,
    /// Bytes that it spilled.
    spilled: u64,
}

impl Work {
    fn of(plan: &dyn ExecutionPlan) -> Work {
        let mut work = Work::default();
        work.add(plan);
        work
    }

    fn add(&mut self, plan: &dyn ExecutionPlan) {
        if let Some(metrics) = plan.metrics() {
            let sum = |name: &str| metrics.sum_by_name(name).map_or(0, |value| value.as_usize() as u64);
            self.bytes += sum("bytes_scanned");
            self.spilled += metrics.spilled_bytes().unwrap_or(0) as u64;
            if plan.children().is_empty() {
                self.rows += metrics.output_rows().unwrap_or(0) as u64;
            }
        }
        for child in plan.children() {
            self.add(child.as_ref());
        }
    }
}
