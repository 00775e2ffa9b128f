//! The functions of SQL, one file each: scores of single sessions, ranks, norms.
//!
//! They compute what scoring computes, by the same instrument, from values that are not a whole session. Null in, null out; and
//! null, not an error, for values that are no ranking, so that one bad row does not end a query over many. All but
//! [`percentile`](mod@percentile) work on whole columns without I/O.

mod age_band;
mod context_region;
mod flexibility;
mod norm_table;
mod percentile;
mod ranks;
mod style;

use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::async_udf::AsyncScalarUDF;
use datafusion::logical_expr::{AggregateUDF, ColumnarValue, DocSection, Documentation, ScalarFunctionArgs, ScalarUDF};
use datafusion::prelude::SessionContext;

use crate::instrument::Instrument;
use crate::norms::NormStore;

/// What a function of ours is, for whoever lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionInfo {
    /// Its name.
    pub name: &'static str,
    /// How it is called, and what comes back.
    pub syntax: &'static str,
    /// What it computes.
    pub description: &'static str,
}

/// All functions of ours, by name.
pub const FUNCTIONS: &[FunctionInfo] = &[
    age_band::INFO,
    style::BACKUP_STYLE,
    context_region::INFO,
    flexibility::KENDALL_W,
    style::LEARNING_STYLE,
    flexibility::LFI,
    norm_table::INFO,
    ranks::PACK_RANKS,
    percentile::INFO,
    FunctionInfo {
        name: "results_at",
        syntax: "results_at(version) -> table",
        description: "The results as they were at a version of their table. A table of the Parquet format has the versions whose files no \
                      later version has dropped.",
    },
    FunctionInfo {
        name: "score",
        syntax: "score(input, … [, pass => 'columns'] [, contexts => false] [, column => 'name=theirs'] [, layout => …] [, format => …] \
                 [, attributes => 'file'] [, chain => 'templates'] [, csv_newlines => true]) -> table",
        description: "Session files as a table of their results, scored while they are read.",
    },
    ranks::UNPACK_RANKS,
];

/// Makes all functions known to a session.
pub(super) fn register(context: &SessionContext, instrument: &Arc<Instrument>, norms: &Arc<NormStore>) {
    let rules = Rules(Arc::clone(instrument));
    for function in [
        ScalarUDF::new_from_impl(age_band::AgeBand::new(rules.clone())),
        ScalarUDF::new_from_impl(style::StyleOf::learning(rules.clone())),
        ScalarUDF::new_from_impl(style::StyleOf::backup(rules.clone())),
        ScalarUDF::new_from_impl(context_region::ContextRegion::new(rules)),
        ScalarUDF::new_from_impl(flexibility::Flexibility::kendall_w()),
        ScalarUDF::new_from_impl(flexibility::Flexibility::lfi()),
        ScalarUDF::new_from_impl(ranks::PackRanks::new()),
        ScalarUDF::new_from_impl(ranks::UnpackRanks::new()),
        AsyncScalarUDF::new(Arc::new(percentile::Percentile::new(Arc::clone(norms)))).into_scalar_udf(),
    ] {
        context.register_udf(function);
    }
    context.register_udaf(AggregateUDF::new_from_impl(norm_table::NormTable::new()));
}

impl FunctionInfo {
    fn documentation(&self) -> Documentation {
        let section = DocSection { include: true, label: "Scoring functions", description: None };
        Documentation::builder(section, self.description, self.syntax).build()
    }
}

/// The instrument that a function computes by. Functions are equal if their instruments are: DataFusion compares them.
#[derive(Debug, Clone)]
struct Rules(Arc<Instrument>);

impl Deref for Rules {
    type Target = Arc<Instrument>;

    fn deref(&self) -> &Arc<Instrument> {
        &self.0
    }
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.source() == other.0.source()
    }
}

impl Eq for Rules {}

impl Hash for Rules {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.source().hash(state);
    }
}

/// The arguments as columns of one length, in the types of the signature.
fn columns<const N: usize>(args: &ScalarFunctionArgs, types: [&DataType; N]) -> Result<[ArrayRef; N]> {
    let columns = args.args.iter().zip(types).map(|(value, wanted)| {
        let array = value.to_array(args.number_rows)?;
        if array.data_type() == wanted { Ok(array) } else { Ok(arrow::compute::cast(&array, wanted)?) }
    });
    let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
    columns.try_into().map_err(|columns: Vec<ArrayRef>| {
        datafusion::error::DataFusionError::Internal(format!("{} arguments where {N} are expected", columns.len()))
    })
}

/// A result column: one value if all arguments were constants.
fn result(args: &ScalarFunctionArgs, column: ArrayRef) -> Result<ColumnarValue> {
    let constant = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
    if constant && column.len() == 1 {
        return Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&column, 0)?));
    }
    Ok(ColumnarValue::Array(column))
}

/// Names by number, null where there is none.
fn names<'a>(numbers: impl Iterator<Item = Option<u8>>, names: &'a [String]) -> ArrayRef {
    let name = |number: Option<u8>| -> Option<&'a str> { names.get(usize::from(number?)).map(String::as_str) };
    Arc::new(numbers.map(name).collect::<StringArray>())
}

#[cfg(test)]
mod tests;
