//! The plans of a job's parts: made once for all files that are alike, and given what reads each part.

use std::sync::{Arc, Mutex, PoisonError};

use datafusion::physical_plan::ExecutionPlan;

use crate::engine::{EngineError, InputPart, SessionFile};
use crate::run::ScoreJob;
use crate::run::account::COUNTED;

/// The plan of the file that was planned last. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct PartPlans(Arc<Mutex<Option<Planned>>>);

/// A plan, and what it is a plan for.
#[derive(Debug, Clone)]
struct Planned {
    columns: Vec<String>,
    file: Arc<SessionFile>,
    needed: Vec<String>,
    plan: Arc<dyn ExecutionPlan>,
}

impl PartPlans {
    /// The plan of a part of `job`: the output's columns, then those it is counted by that are not among them.
    ///
    /// It takes a plan of its own, as what a plan measures is measured for all who execute it.
    pub(super) fn plan(&self, job: &ScoreJob, part: &InputPart) -> Result<Arc<dyn ExecutionPlan>, EngineError> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(Planned { columns, file, needed, plan }) = last
            && columns == job.columns
            && job.input.are_scored_alike(&file, &part.file)
        {
            return Ok(job.input.scan_instead(&job.context, &plan, part, &needed)?);
        }
        let mut wanted = job.columns.clone();
        wanted.extend(COUNTED.map(str::to_owned).into_iter().filter(|name| !job.columns.contains(name)));
        let needed = job.scoring.needed_columns(&job.input.columns.schema(), &wanted);
        let scan = job.input.scan_to_score(&job.context, part, &needed)?;
        let plan = job.scoring.plan(scan, &wanted)?;
        let (columns, file) = (job.columns.clone(), Arc::clone(&part.file));
        let planned = Planned { columns, file, needed, plan: Arc::clone(&plan) };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(planned);
        Ok(plan)
    }
}
