//! Scoring jobs in this process, so that tests see the storage they run on.

use std::path::Path;
use std::sync::Arc;

use normstream::engine::{
    EngineOptions, InputOptions, Reading, Scoring, SessionInput, Source, discover, session_context,
};
use normstream::error::Error;
use normstream::instrument::Instrument;
use normstream::norms::{Chain, ImportOptions, NormStore, NormStoreOptions, open_norms};
use normstream::operators::row_group::RowGroupOptions;
use normstream::run::{OnError, PartPlans, RunReport, ScoreJob, Target};
use normstream::storage::Storage;

use super::normstream as program;

/// Scores `inputs` into `to`, by the norms of `norms` if there are any.
pub async fn score(
    storage: &Storage,
    inputs: &[String],
    norms: Option<&str>,
    to: &str,
    threads: usize,
) -> Result<RunReport, Error> {
    let instrument = Instrument::klsi4();
    let mut sources = Vec::new();
    if let Some(norms) = norms {
        sources.push(open_norms(storage, norms, ImportOptions::new(instrument.norm_ranges())).await?);
    }
    let norms = Arc::new(NormStore::new(sources, instrument.raw_ranges(), NormStoreOptions::default()));
    let engine = EngineOptions { threads, ..EngineOptions::default() };
    let context = session_context(engine, storage, norms).map_err(normstream::engine::EngineError::from)?;
    let found = discover(storage, inputs, None, Reading::Everything).await?;
    let files: Vec<Source> = found.into_iter().map(Box::new).map(Source::File).collect();
    let chain = Chain::from_templates(instrument.chain.iter().map(String::as_str))?;
    let attributes = chain.attributes().into_iter().map(str::to_owned).collect();
    let options = InputOptions { attributes, ..InputOptions::default() };
    let input = SessionInput::open(&context, files, &instrument, options).await?;
    let job = ScoreJob {
        context,
        scoring: Scoring { instrument, chain, layout: input.layout },
        input: Arc::new(input),
        columns: Scoring::output_columns(&[])?,
        on_error: OnError::Keep,
        threads,
        row_groups: RowGroupOptions::default(),
        plans: PartPlans::default(),
    };
    let Target::Output(target) = Target::new(storage, to, None)? else { panic!("{to} is a table") };
    let progress = Arc::new(job.progress());
    Ok(job.run(storage, target, false, &progress).await?.0)
}

/// Writes a file of generated sessions, and gives its bytes.
pub fn generated_sessions(to: &Path, rows: usize, seed: usize) -> Vec<u8> {
    let (rows, seed) = (rows.to_string(), seed.to_string());
    let arguments = ["generate", "sessions", "--rows", &rows, "--seed", &seed, "--bad-fraction", "0.01", "--to"];
    program().args(arguments).arg(to).assert().success();
    std::fs::read(to).unwrap()
}
