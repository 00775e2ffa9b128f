//! Why sessions cannot be read or scored as a whole. Faults of single sessions are rows, not errors.

use std::error::Error as _;

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use parquet::errors::ParquetError;

use crate::model::Layout;
use crate::norms::NormError;
use crate::scoring::ScoringError;
use crate::storage::StorageError;
use crate::table::TableError;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A target could not be opened, listed or read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The log of a table could not be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Norms could not be read.
    #[error(transparent)]
    Norms(#[from] NormError),
    /// An input names nothing.
    #[error("{target} names no session file: nothing is there, or nothing with an extension that says its format")]
    NoFiles {
        /// The input as it was written.
        target: String,
    },
    /// An input is a glob that cannot be parsed.
    #[error("{target} is not a pattern of file names")]
    Pattern {
        /// The input as it was written.
        target: String,
        /// What the parser said.
        source: globset::Error,
    },
    /// A file's name does not say its format.
    #[error("cannot tell the format of {file} from its name: give --input-format parquet, csv, ndjson or arrow")]
    UnknownFormat {
        /// The file.
        file: String,
    },
    /// A file cannot be read as what it is taken for.
    #[error("cannot read {file} as {format}: {}", plan_failure(reason))]
    Unreadable {
        /// The file.
        file: String,
        /// The format.
        format: &'static str,
        /// What the reader said.
        reason: Box<DataFusionError>,
    },
    /// A file has the columns of no layout.
    #[error(
        "{file} has the columns of no layout: wide needs q01_ce, packed q01, long session_id, part, item, mode and rank; \
         it has {columns} (columns with other names are mapped with --column NAME=THEIRS)"
    )]
    UnknownLayout {
        /// The file.
        file: String,
        /// Its columns.
        columns: String,
    },
    /// A file lacks a column.
    #[error("{file} has no column '{column}'{}", needed_for(*layout))]
    MissingColumn {
        /// The file.
        file: String,
        /// The column, by the name it should have in the file.
        column: String,
        /// The layout that needs it; `None` for a column asked for by name.
        layout: Option<Layout>,
    },
    /// A column is said to have a name that no file knows.
    #[error("--column {column}={theirs}: no file of the input has a column '{theirs}'{}", near(hint.as_deref()))]
    MappedColumn {
        /// The column.
        column: String,
        /// Its name in the files.
        theirs: String,
        /// The nearest name that a file has.
        hint: Option<String>,
    },
    /// A column has a type that cannot be used.
    #[error("{file}: the column '{column}' is of type {found}, but must be {expected}")]
    ColumnType {
        /// The file.
        file: String,
        /// The column.
        column: String,
        /// Its type.
        found: DataType,
        /// What it must be.
        expected: &'static str,
    },
    /// Two files have one column in two types.
    #[error(
        "the column '{column}' is {first} in {first_file} and {second} in {second_file}: score them in two runs, or convert one"
    )]
    TypesDiffer {
        /// The column.
        column: String,
        /// The first file and its type.
        first_file: String,
        /// The type there.
        first: DataType,
        /// The second file.
        second_file: String,
        /// The type there.
        second: DataType,
    },
    /// Inputs of different layouts in one run.
    #[error("{first_file} is {first}, but {second_file} is {second}: score one layout at a time")]
    LayoutsDiffer {
        /// A file.
        first_file: String,
        /// Its layout.
        first: Layout,
        /// Another file.
        second_file: String,
        /// The other layout.
        second: Layout,
    },
    /// A column that is passed through is in neither table of the long layout.
    #[error("neither {ranks} nor {attributes} has a column '{column}'")]
    MissingAttribute {
        /// The column, by the name it should have in a file.
        column: String,
        /// A file of ranks.
        ranks: String,
        /// A file of attributes.
        attributes: String,
    },
    /// A column of the long layout's ranks is passed through.
    #[error("--pass {column}: in the long layout '{column}' has a value for each rank, not one for the session")]
    PassedRank {
        /// The column.
        column: String,
    },
    /// A table of attributes beside sessions that have theirs with them.
    #[error(
        "{file} is {layout}, and only the long layout has its attributes in a file of their own: leave --attributes {attributes} out"
    )]
    AttributesOfLayout {
        /// A session file.
        file: String,
        /// Its layout.
        layout: Layout,
        /// The file of attributes.
        attributes: String,
    },
    /// A column of the output is asked for that does not exist.
    #[error("'{column}' is not a column of the results{}", near(hint.as_deref()))]
    UnknownOutput {
        /// The column.
        column: String,
        /// The nearest name that exists.
        hint: Option<String>,
    },
    /// A passed-through column would stand in the output twice.
    #[error("--pass {column}: the results have a column of this name already")]
    PassedTwice {
        /// The column.
        column: String,
    },
    /// Standard input could not be read.
    #[error("cannot read standard input")]
    Stdin(#[source] std::io::Error),
    /// A plan failed to build or to run.
    #[error("{}", plan_failure(.0))]
    Plan(DataFusionError),
}

fn needed_for(layout: Option<Layout>) -> String {
    layout.map(|layout| format!(", which the {layout} layout needs")).unwrap_or_default()
}

fn near(hint: Option<&str>) -> String {
    hint.map(|hint| format!("; did you mean '{hint}'?")).unwrap_or_default()
}

/// The innermost cause that says something to the user; wrappers of DataFusion and Arrow only repeat it.
fn plan_failure(error: &DataFusionError) -> String {
    if let Some(error) = StorageError::find(error) {
        return error.to_string();
    }
    let root = error.find_root();
    match root {
        DataFusionError::External(inner) => inner.to_string(),
        DataFusionError::ArrowError(inner, _) => inner.to_string(),
        DataFusionError::ParquetError(inner) => inner.to_string(),
        DataFusionError::ObjectStore(inner) => {
            inner.source().map_or_else(|| inner.to_string(), |source| format!("{inner}: {source}"))
        }
        DataFusionError::ResourcesExhausted(message) => {
            format!("the memory limit is too low for this work: {message} (raise --memory-limit or lower --threads)")
        }
        other => other.to_string(),
    }
}

/// Whether bytes came as asked for and are not what they should be.
pub(super) fn is_of_content(error: &DataFusionError) -> bool {
    let is_of_content = match error.find_root() {
        DataFusionError::ArrowError(..) | DataFusionError::ParquetError(_) => true,
        DataFusionError::External(inner) => inner.is::<ParquetError>() || inner.is::<ArrowError>(),
        _ => false,
    };
    is_of_content && StorageError::find(error).is_none()
}

/// An error and its causes, without those that repeat what stands before them.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

impl From<DataFusionError> for EngineError {
    fn from(error: DataFusionError) -> Self {
        EngineError::Plan(error)
    }
}

impl From<ScoringError> for EngineError {
    fn from(error: ScoringError) -> Self {
        EngineError::Plan(DataFusionError::External(Box::new(error)))
    }
}

impl EngineError {
    /// Whether the same work may succeed when it is tried again.
    pub fn is_retryable(&self) -> bool {
        match self {
            EngineError::Storage(error) => error.is_retryable(),
            EngineError::Table(error) => error.is_retryable(),
            EngineError::Norms(error) => error.is_retryable(),
            EngineError::Unreadable { reason, .. } => is_retryable(reason),
            EngineError::Plan(error) => is_retryable(error),
            _ => false,
        }
    }
}

fn is_retryable(error: &DataFusionError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<NormError>() {
            return error.is_retryable();
        }
        if let Some(error) = StorageError::find(error) {
            return error.is_retryable();
        }
        cause = error.source();
    }
    false
}
