//! Opening session files: schemas, layout, canonical columns, parts.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::file_format::FileFormat as _;
use datafusion::datasource::file_format::arrow::ArrowFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::file::metadata::ParquetMetaData;

use crate::engine::EngineError;
use crate::engine::input::canonical::{
    CanonicalColumns, ColumnNames, canonical_columns, detect_layout, rank_columns, text_type,
};
use crate::engine::input::discover::FoundFile;
use crate::engine::input::format::{Compression, FileFormat};
use crate::engine::input::part::{InputPart, PartLimits, RowGroup, cut_lines, cut_row_groups};
use crate::engine::input::stdin::{STDIN, StdinStream};
use crate::instrument::Instrument;
use crate::model::Layout;
use crate::model::result::documented_type;

/// How session files are to be understood.
#[derive(Debug, Clone, Default)]
pub struct InputOptions {
    /// The layout; `None` to tell it from the columns.
    pub layout: Option<Layout>,
    /// Names of columns in the files, where they are not the canonical ones.
    pub names: ColumnNames,
    /// Attributes that scoring can use, where the files have them.
    pub attributes: Vec<String>,
    /// Columns that the output passes through.
    pub passed: Vec<String>,
    /// Whether a value of a CSV file may hold a line break; such files are not cut into parts.
    pub csv_newlines: bool,
    /// How large parts may grow.
    pub part_limits: PartLimits,
}

/// Where sessions come from.
#[derive(Debug)]
pub enum Source {
    /// A file of a store.
    File(Box<FoundFile>),
    /// Standard input, as a stream of text.
    Stdin(Arc<StdinStream>),
}

/// A session file whose schema is known.
#[derive(Debug)]
pub struct SessionFile {
    /// Where it comes from.
    pub source: Source,
    /// The schema under which it is read, in file order.
    pub schema: SchemaRef,
    row_groups: Vec<RowGroup>,
}

impl SessionFile {
    /// How many sessions (for the long layout: ranks) the file holds, where it says so.
    pub fn rows(&self) -> Option<u64> {
        (self.format() == FileFormat::Parquet).then(|| self.row_groups.iter().map(|group| group.rows).sum())
    }

    /// The file as its user wrote it.
    pub fn name(&self) -> String {
        match &self.source {
            Source::File(found) => found.location.to_string(),
            Source::Stdin(_) => STDIN.to_owned(),
        }
    }

    /// The file's format.
    pub fn format(&self) -> FileFormat {
        match &self.source {
            Source::File(found) => found.format,
            Source::Stdin(stdin) => stdin.format,
        }
    }

    /// The file's size in bytes; nothing for standard input.
    pub fn size(&self) -> u64 {
        match &self.source {
            Source::File(found) => found.meta.size,
            Source::Stdin(_) => 0,
        }
    }
}

/// All session files of a run.
///
/// Invariants: every file has every canonical column that is not an identifier or an attribute, in the type that
/// [`SessionInput::columns`] states or one that casts to it; all files are of one layout.
#[derive(Debug, Clone)]
pub struct SessionInput {
    /// The files, in input order.
    pub files: Vec<Arc<SessionFile>>,
    /// The layout of all of them.
    pub layout: Layout,
    /// The columns that a scan gives.
    pub columns: CanonicalColumns,
    /// How the files are understood.
    pub options: InputOptions,
}

impl SessionInput {
    /// Opens files: reads footers or first rows, nothing more.
    pub async fn open(
        context: &SessionContext,
        sources: Vec<Source>,
        instrument: &Instrument,
        options: InputOptions,
    ) -> Result<SessionInput, EngineError> {
        let mut files = Vec::with_capacity(sources.len());
        let mut settled: Option<(Layout, CanonicalColumns, String)> = None;
        for source in sources {
            let (raw, row_groups) = match &source {
                Source::File(found) => read_schema(context, found).await?,
                Source::Stdin(stdin) => (Arc::clone(&stdin.schema), Vec::new()),
            };
            let mut file = SessionFile { source, schema: Arc::clone(&raw), row_groups };
            let name = file.name();
            let layout = match options.layout {
                Some(layout) => layout,
                None => detect_layout(&raw, &options.names, &name)?,
            };
            let ranks = rank_columns(layout, instrument);
            file.schema = reading_schema(&raw, file.format(), &options, &ranks);
            let columns = canonical_columns(
                &name,
                &file.schema,
                &options.names,
                layout,
                &ranks,
                &options.attributes,
                &options.passed,
            )?;
            settled = Some(match settled {
                None => (layout, columns, name),
                Some((first, _, first_file)) if first != layout => {
                    return Err(EngineError::LayoutsDiffer { first_file, first, second_file: name, second: layout });
                }
                Some((layout, known, first_file)) => {
                    (layout, merge_columns(known, columns, &first_file, &name, &ranks)?, first_file)
                }
            });
            files.push(Arc::new(file));
        }
        let Some((layout, columns, _)) = settled else {
            return Err(EngineError::NoFiles { target: "the input".to_owned() });
        };
        Ok(SessionInput { files, layout, columns, options })
    }

    /// The parts of all files, in input order.
    ///
    /// A Parquet file is cut between row groups, an uncompressed text file at lines; any other file is one part.
    pub fn parts(&self) -> Vec<InputPart> {
        self.files.iter().flat_map(|file| self.parts_of(file)).collect()
    }

    fn parts_of(&self, file: &Arc<SessionFile>) -> Vec<InputPart> {
        let (limits, size) = (self.options.part_limits, file.size());
        let part = |range, rows| InputPart { file: Arc::clone(file), range, rows };
        let Source::File(found) = &file.source else { return vec![part(None, None)] };
        match found.format {
            FileFormat::Parquet => cut_row_groups(&file.row_groups, size, limits)
                .into_iter()
                .map(|(range, rows)| part(Some(range), Some(rows)))
                .collect(),
            FileFormat::Csv if self.options.csv_newlines => vec![part(None, None)],
            format if format.is_text() && found.compression == Compression::None => {
                cut_lines(size, limits).into_iter().map(|range| part(Some(range), None)).collect()
            }
            _ => vec![part(None, None)],
        }
    }
}

/// The schema that a file states or shows in its first rows.
async fn read_schema(context: &SessionContext, found: &FoundFile) -> Result<(SchemaRef, Vec<RowGroup>), EngineError> {
    let unreadable = |source: DataFusionError| EngineError::Unreadable {
        file: found.location.to_string(),
        format: found.format.name(),
        source: Box::new(source),
    };
    let store = &found.location.store;
    let objects = std::slice::from_ref(&found.meta);
    let state = context.state();
    let schema = match found.format {
        FileFormat::Parquet => {
            let metadata = DFParquetMetadata::new(store.as_ref(), &found.meta)
                .with_metadata_size_hint(Some(64 << 10))
                .fetch_metadata()
                .await
                .map_err(unreadable)?;
            let file = metadata.file_metadata();
            let schema = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata())
                .map_err(|error| unreadable(error.into()))?;
            return Ok((Arc::new(schema), row_groups(&metadata)));
        }
        FileFormat::Csv => {
            let format =
                CsvFormat::default().with_has_header(true).with_file_compression_type(found.compression.into());
            format.infer_schema(&state, store, objects).await
        }
        FileFormat::Ndjson => {
            let format = JsonFormat::default().with_file_compression_type(found.compression.into());
            format.infer_schema(&state, store, objects).await
        }
        FileFormat::Arrow => ArrowFormat.infer_schema(&state, store, objects).await,
    };
    Ok((schema.map_err(unreadable)?, Vec::new()))
}

fn row_groups(metadata: &ParquetMetaData) -> Vec<RowGroup> {
    let row_group = |group: &parquet::file::metadata::RowGroupMetaData| RowGroup {
        start: group.columns().first().map_or(0, |column| column.byte_range().0),
        rows: group.num_rows() as u64,
    };
    metadata.row_groups().iter().map(row_group).collect()
}

/// The schema under which a file is read: what scoring needs of it, in the types that serve scoring best.
fn reading_schema(raw: &SchemaRef, format: FileFormat, options: &InputOptions, ranks: &[String]) -> SchemaRef {
    let canonical = |in_file: &str| {
        let mapped = options.names.0.iter().find(|(_, theirs)| *theirs == in_file);
        mapped.map_or(in_file, |(ours, _)| ours).to_owned()
    };
    let fields: Vec<Field> = raw
        .fields()
        .iter()
        .map(|field| {
            let name = canonical(field.name());
            let data_type = match format {
                format if format.is_text() => {
                    text_type(&name, ranks.contains(&name), format == FileFormat::Csv, field.data_type())
                }
                // Attributes of few values are strings in dictionary pages: read as dictionaries, they cost no string a row.
                FileFormat::Parquet if options.attributes.contains(&name) && *field.data_type() == DataType::Utf8 => {
                    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
                }
                _ => field.data_type().clone(),
            };
            field.as_ref().clone().with_data_type(data_type)
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// Whether two types hold the same values, however they are encoded.
fn same_values(first: &DataType, second: &DataType) -> bool {
    let is_string = |data_type: &DataType| {
        matches!(documented_type(data_type), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
    };
    first == second || (is_string(first) && is_string(second))
}

/// The columns of two files that are read as one: identifiers widen to strings, attributes may be missing in either, ranks are
/// read in each file's own type, and everything else must agree.
fn merge_columns(
    known: CanonicalColumns,
    other: CanonicalColumns,
    known_file: &str,
    other_file: &str,
    ranks: &[String],
) -> Result<CanonicalColumns, EngineError> {
    let mut columns = known.columns;
    for (name, data_type) in other.columns {
        match columns.iter_mut().find(|(column, _)| *column == name) {
            None => {
                let before_ranks =
                    columns.iter().position(|(column, _)| ranks.contains(column)).unwrap_or(columns.len());
                columns.insert(before_ranks, (name, data_type));
            }
            Some((_, first)) if ranks.contains(&name) || same_values(first, &data_type) => {}
            Some((_, first)) if first.is_integer() && data_type == DataType::Utf8 => *first = data_type,
            Some((_, first)) if *first == DataType::Utf8 && data_type.is_integer() => {}
            Some((_, first)) => {
                return Err(EngineError::TypesDiffer {
                    column: name,
                    first_file: known_file.to_owned(),
                    first: first.clone(),
                    second_file: other_file.to_owned(),
                    second: data_type,
                });
            }
        }
    }
    Ok(CanonicalColumns { columns })
}
