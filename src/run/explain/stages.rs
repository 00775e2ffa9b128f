//! Reports of stages: the scores from the columns that a stage added, and the numbers they come from.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;

use crate::engine::Scoring;
use crate::instrument::{Instrument, Window};
use crate::model::result::{
    ACCE, AERO, ASSIMILATION_ACCOMMODATION, BACKUP_STYLE, BALANCE_ACCE, BALANCE_AERO, CONTEXT_STYLES,
    CONVERGING_DIVERGING, ERROR, ERROR_CODE, ERROR_STAGE, INTENSITY, KENDALL_W, LFI, OK, STYLE, raw_column,
};
use crate::model::session::{self, Part, packed_column, wide_column};
use crate::model::{Layout, Mode, permutation};
use crate::operators::PlanStage;
use crate::run::explain::report::{
    AsFound, ByMode, CombinationReport, ContextReport, Failure, FlexibilityReport, GridCell, ItemReport,
    RawScaleReport, StageReport, StyleReport, ValidateReport,
};
use crate::run::explain::row::Row;
use crate::run::explain::{flags, percentiles};
use crate::scoring::{LFI_KEY, code_column};

/// The report of a stage that has just run: `session` is the row as it was read, `scored` the row with the stage's columns.
pub(super) async fn report(
    stage: &Arc<dyn PlanStage>,
    scoring: &Scoring,
    context: &TaskContext,
    session: &RecordBatch,
    scored: &RecordBatch,
) -> Result<StageReport> {
    let (instrument, row) = (&*scoring.instrument, Row(scored));
    Ok(match stage.name() {
        "ValidateExec" => StageReport::Validate(validate(scoring, row)?),
        "RawScalesExec" => StageReport::RawScales(raw_scales(instrument, row)?),
        "CombinationsExec" => StageReport::Combinations(combinations(instrument, row)?),
        "StyleExec" => StageReport::Style(style(instrument, row)?),
        "FlexibilityExec" => StageReport::Flexibility(flexibility(instrument, row)?),
        "PercentilesExec" => StageReport::Percentiles(percentiles::report(scoring, context, session, row).await?),
        "FlagsExec" => StageReport::Flags(flags::report(instrument, row)?),
        other => return Err(DataFusionError::Internal(format!("no report is known for the stage {other}"))),
    })
}

/// The ranks of an item; `None` when they are no ranking.
fn ranks(row: Row<'_>, part: Part, item: usize) -> Result<Option<ByMode<u8>>> {
    let code = row.code(&code_column(part, item))?;
    Ok(permutation::RANKS.get(usize::from(code)).map(|&ranks| ranks.into()))
}

/// The ranks of an item of a session that passed validation.
fn valid_ranks(row: Row<'_>, part: Part, item: usize) -> Result<ByMode<u8>> {
    let item_name = || format!("item {} of a valid session is no ranking", packed_column(part, item));
    ranks(row, part, item)?.ok_or_else(|| DataFusionError::Internal(item_name()))
}

fn validate(scoring: &Scoring, row: Row<'_>) -> Result<ValidateReport> {
    let instrument = &scoring.instrument;
    let ok = row.boolean(OK)?;
    let item = |(part, item)| {
        let ranks = ranks(row, part, item)?;
        let found = if ranks.is_some() { None } else { Some(as_found(scoring.layout, row, part, item)?) };
        Ok(ItemReport { item: packed_column(part, item), ranks, found })
    };
    let items = session::items(instrument.style_items, instrument.contexts.len()).map(item);
    let failure = || {
        let [error_stage, error_code, error] = [row.text(ERROR_STAGE)?, row.text(ERROR_CODE)?, row.text(ERROR)?];
        Ok::<_, DataFusionError>(Failure { error_stage, error_code, error })
    };
    let failure = if ok { None } else { Some(failure()?) };
    Ok(ValidateReport { ok, failure, items: items.collect::<Result<_>>()? })
}

/// What the file has for an item that is no ranking.
fn as_found(layout: Layout, row: Row<'_>, part: Part, item: usize) -> Result<AsFound> {
    Ok(match layout {
        Layout::Packed => AsFound::Code(row.cell(&packed_column(part, item))?),
        Layout::Wide | Layout::Long => {
            let [ce, ro, ac, ae] = Mode::ALL.map(|mode| row.cell(&wide_column(part, item, mode)));
            AsFound::Ranks([ce?, ro?, ac?, ae?].into())
        }
    })
}

fn raw_scales(instrument: &Instrument, row: Row<'_>) -> Result<Vec<RawScaleReport>> {
    let scale = |mode: Mode| {
        let key = &instrument.key[mode as usize];
        let rank = |item: &usize| Ok(*valid_ranks(row, Part::Style, item + 1)?.each()[mode as usize]);
        Ok(RawScaleReport {
            scale: mode.code(),
            items: key.iter().map(|item| packed_column(Part::Style, item + 1)).collect(),
            ranks: key.iter().map(rank).collect::<Result<_>>()?,
            raw: row.score(&raw_column(mode))?,
        })
    };
    Mode::ALL.into_iter().map(scale).collect()
}

fn combinations(instrument: &Instrument, row: Row<'_>) -> Result<Vec<CombinationReport>> {
    let raw = |mode| row.score(&raw_column(mode));
    let [ce, ro, ac, ae] = [raw(Mode::Ce)?, raw(Mode::Ro)?, raw(Mode::Ac)?, raw(Mode::Ae)?];
    let (acce, aero) = (signed(row.score(ACCE)?), signed(row.score(AERO)?));
    let [median_acce, median_aero] = [instrument.median_acce, instrument.median_aero].map(operand);
    let formulas = [
        (ACCE, "AC − CE".to_owned(), format!("{ac} − {ce}")),
        (AERO, "AE − RO".to_owned(), format!("{ae} − {ro}")),
        (ASSIMILATION_ACCOMMODATION, "(AC + RO) − (AE + CE)".to_owned(), format!("({ac} + {ro}) − ({ae} + {ce})")),
        (CONVERGING_DIVERGING, "(AC + AE) − (CE + RO)".to_owned(), format!("({ac} + {ae}) − ({ce} + {ro})")),
        (BALANCE_ACCE, format!("|ACCE − {median_acce}|"), format!("|{acce} − {median_acce}|")),
        (BALANCE_AERO, format!("|AERO − {median_aero}|"), format!("|{aero} − {median_aero}|")),
        (INTENSITY, "|ACCE| + |AERO|".to_owned(), format!("|{acce}| + |{aero}|")),
    ];
    let combination =
        |(score, formula, numbers)| Ok(CombinationReport { score, formula, numbers, value: row.score(score)? });
    formulas.into_iter().map(combination).collect()
}

fn style(instrument: &Instrument, row: Row<'_>) -> Result<StyleReport> {
    let (acce, aero) = (row.score(ACCE)?, row.score(AERO)?);
    let cell = |acce_third: usize, aero_third: usize| GridCell {
        style: instrument.style_names[usize::from(instrument.grid[acce_third][aero_third])].clone(),
        acce: third(instrument.acce_window, acce_third),
        aero: third(instrument.aero_window, aero_third),
        distance: instrument.acce_window.distance(acce, acce_third) + instrument.aero_window.distance(aero, aero_third),
    };
    let grid = (0..9).map(|place| cell(place / 3, place % 3)).collect();
    Ok(StyleReport { acce, aero, style: row.text(STYLE)?, backup_style: row.text(BACKUP_STYLE)?, grid })
}

/// A third of a window, as in `≤ 5`, `6..14` and `≥ 15`.
fn third(window: Window, third: usize) -> String {
    match third {
        0 => format!("≤ {}", signed(window.lowest - 1)),
        1 if window.lowest == window.highest => signed(window.lowest),
        1 => format!("{}..{}", signed(window.lowest), signed(window.highest)),
        _ => format!("≥ {}", signed(window.highest + 1)),
    }
}

fn flexibility(instrument: &Instrument, row: Row<'_>) -> Result<FlexibilityReport> {
    let regions = row.texts(CONTEXT_STYLES)?;
    let mut contexts = Vec::with_capacity(regions.len());
    let mut sums = [0u16; 4];
    for ((item, context), region) in (1..).zip(&instrument.contexts).zip(regions) {
        let ranks = valid_ranks(row, Part::Context, item)?;
        for (sum, rank) in sums.iter_mut().zip(ranks.each()) {
            *sum += u16::from(*rank);
        }
        let item = packed_column(Part::Context, item);
        contexts.push(ContextReport { item, context: context.clone(), ranks, region });
    }
    let (denominator, lfi_raw) = (instrument.lfi_denominator(), row.score(LFI_KEY)?);
    Ok(FlexibilityReport {
        mean: f64::from(sums.iter().sum::<u16>()) / 4.0,
        rank_sums: sums.into(),
        contexts,
        sum_of_squares: denominator - lfi_raw,
        denominator,
        kendall_w: row.float(KENDALL_W)?,
        lfi: row.float(LFI)?,
        lfi_raw,
    })
}

/// A score with a minus sign rather than a hyphen.
pub(super) fn signed(score: impl Into<i32>) -> String {
    score.into().to_string().replace('-', "−")
}

/// A score as the right operand of a difference: in brackets when it is negative.
fn operand(score: i16) -> String {
    if score < 0 { format!("({})", signed(score)) } else { signed(score) }
}
