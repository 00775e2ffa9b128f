//! What the operators of a run measured, all parts taken together: the figures of `--explain analyze`.

use std::sync::Arc;

use datafusion::physical_plan::metrics::{Metric, MetricsSet};
use datafusion::physical_plan::{ExecutionPlan, displayable};

/// A plan's lines, each with the metrics of its operator summed over the parts of a run.
#[derive(Debug, Default)]
pub struct PlanProfile {
    lines: Vec<(String, MetricsSet)>,
}

impl PlanProfile {
    /// Adds the metrics of one part's plan, which has run. Plans of different parts have the same operators.
    pub fn add(&mut self, plan: &Arc<dyn ExecutionPlan>) {
        let mut line = 0;
        self.add_operator(plan, 0, &mut line);
    }

    fn add_operator(&mut self, plan: &Arc<dyn ExecutionPlan>, depth: usize, line: &mut usize) {
        if self.lines.len() == *line {
            let text = displayable(plan.as_ref()).one_line().to_string();
            self.lines.push((format!("{}{}", "  ".repeat(depth), text.trim_end()), MetricsSet::new()));
        }
        let mut metrics = self.lines[*line].1.clone();
        for metric in plan.metrics().iter().flat_map(|metrics| metrics.iter()) {
            metrics.push(Arc::clone(metric));
        }
        self.lines[*line].1 = metrics.aggregate_by_name();
        *line += 1;
        for child in plan.children() {
            self.add_operator(child, depth + 1, line);
        }
    }
}

/// The value of a counter, summed over all operators of a plan that have it.
pub(super) fn sum_of(counter: &str, plan: &Arc<dyn ExecutionPlan>) -> usize {
    let own = plan.metrics().and_then(|metrics| metrics.sum_by_name(counter)).map_or(0, |value| value.as_usize());
    own + plan.children().into_iter().map(|child| sum_of(counter, child)).sum::<usize>()
}

/// Not what is nothing, nor the times of the single columns of a projection.
fn says_something(metric: &Metric) -> bool {
    metric.value().as_usize() > 0 && !metric.value().name().starts_with("expr_")
}

impl std::fmt::Display for PlanProfile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (text, metrics) in &self.lines {
            let mut shown = MetricsSet::new();
            metrics.iter().filter(|metric| says_something(metric)).for_each(|metric| shown.push(Arc::clone(metric)));
            writeln!(f, "{text}, metrics=[{}]", shown.sorted_for_display().timestamps_removed())?;
        }
        Ok(())
    }
}
