//! Opening session files: schemas, layout, canonical columns, parts.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::file_format::FileFormat as _;
use datafusion::datasource::file_format::arrow::ArrowFormat;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt, stream};

use crate::engine::EngineError;
use crate::engine::error::is_of_content;
use crate::engine::input::canonical::{
    CanonicalColumns, ColumnNames, WantedColumns, attribute_type, canonical_columns, detect_layout, is_string,
    rank_columns, text_type,
};
use crate::engine::input::discover::FoundFile;
use crate::engine::input::footer::{FileFooter, ParquetPart};
use crate::engine::input::format::{Compression, FileFormat};
use crate::engine::input::long::LongInput;
use crate::engine::input::part::{InputPart, PartLimits, cut_lines};
use crate::engine::input::stdin::{STDIN, StdinStream};
use crate::engine::input::text;
use crate::engine::near::nearest;
use crate::instrument::Instrument;
use crate::model::Layout;
use crate::model::result::documented_type;
use crate::model::session::{MODE, PART};

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

/// Where the sessions of a run come from.
#[derive(Debug, Default)]
pub struct Sources {
    /// Session files, in input order.
    pub sessions: Vec<Source>,
    /// Long layout: the files of the table with the per-session columns, in order; none where the rows have them.
    pub attributes: Vec<Source>,
}

impl From<Vec<Source>> for Sources {
    fn from(sessions: Vec<Source>) -> Sources {
        Sources { sessions, attributes: Vec::new() }
    }
}

/// A session file whose schema is known.
#[derive(Debug)]
pub struct SessionFile {
    /// Where it comes from.
    pub source: Source,
    /// The schema under which it is read, in file order.
    pub schema: SchemaRef,
    /// Parquet: its parts.
    parts: Vec<ParquetPart>,
    /// Parquet: the columns that [`RankScanExec`](crate::operators::RankScanExec) can read.
    pub(super) byte_columns: HashSet<String>,
}

impl SessionFile {
    /// How many sessions (for the long layout: ranks) the file holds, where it says so.
    pub fn rows(&self) -> Option<u64> {
        (self.format() == FileFormat::Parquet).then(|| self.parts.iter().map(|part| part.rows).sum())
    }

    /// Whether one scan can read this file and another.
    pub(in crate::engine) fn is_read_like(&self, other: &SessionFile) -> bool {
        match (&self.source, &other.source) {
            (Source::File(a), Source::File(b)) => {
                let place = |found: &FoundFile| (found.format, found.compression, found.location.store_url.clone());
                place(a) == place(b) && self.schema == other.schema
            }
            _ => false,
        }
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
    /// Long layout: the files of the table with the per-session columns.
    pub attributes: Vec<Arc<SessionFile>>,
    /// The layout of the session files.
    pub layout: Layout,
    /// The columns that a scan gives.
    pub columns: CanonicalColumns,
    /// How the files are understood.
    pub options: InputOptions,
    /// Wide and packed layouts: the rank columns.
    pub(super) ranks: HashSet<String>,
    /// What is known of the long layout's tables.
    pub(super) long: Option<LongInput>,
}

impl SessionInput {
    /// Opens files: reads footers or first rows, nothing more.
    pub async fn open(
        context: &SessionContext,
        sources: impl Into<Sources>,
        instrument: &Instrument,
        options: InputOptions,
    ) -> Result<SessionInput, EngineError> {
        let sources = sources.into();
        let mut files = open_files(context, sources.sessions, options.part_limits).await?;
        let mut attributes = open_files(context, sources.attributes, options.part_limits).await?;
        check_names(&files, &attributes, &options.names)?;
        let layout = settle_layout(&files, &options)?;
        let (columns, ranks, long) = if layout == Layout::Long {
            let (columns, long) = LongInput::settle(&mut files, &mut attributes, instrument, &options)?;
            (columns, Vec::new(), Some(long))
        } else {
            if let Some(attributes) = attributes.first() {
                let (file, attributes) = (files[0].name(), attributes.name());
                return Err(EngineError::AttributesOfLayout { file, layout, attributes });
            }
            let ranks = rank_columns(layout, instrument);
            let InputOptions { names, attributes, passed, .. } = &options;
            let wanted = WantedColumns { names, layout, ranks: &ranks, attributes, passed };
            (settle_columns(&mut files, wanted)?, ranks, None)
        };
        let ranks = ranks.into_iter().collect();
        let [files, attributes] = [files, attributes].map(|files| files.into_iter().map(Arc::new).collect());
        Ok(SessionInput { files, attributes, layout, columns, options, ranks, long })
    }

    /// How many sessions there are, where the files say so. Rows of the long layout do not.
    pub fn sessions(&self) -> Option<u64> {
        self.files.iter().map(|file| file.rows()).sum::<Option<u64>>().filter(|_| self.layout != Layout::Long)
    }

    /// The size of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().chain(&self.attributes).map(|file| file.size()).sum()
    }

    /// Whether any of it comes from another machine.
    pub fn is_remote(&self) -> bool {
        let is_remote = |file: &Arc<SessionFile>| match &file.source {
            Source::File(found) => found.location.scheme().is_remote(),
            Source::Stdin(_) => false,
        };
        self.files.iter().chain(&self.attributes).any(is_remote)
    }

    /// Why a part could not be read, and which file that is of, if the file is at fault.
    pub fn failed(&self, part: &InputPart, error: DataFusionError) -> EngineError {
        // In the long layout a part is many files.
        if self.layout == Layout::Long || !is_of_content(&error) {
            return error.into();
        }
        let format = part.file.format().name();
        EngineError::Unreadable { file: part.file.name(), format, reason: Box::new(error) }
    }

    /// The parts of all files, in input order.
    ///
    /// A Parquet file is cut between row groups, an uncompressed text file at lines; any other file is one part, and so is the
    /// whole input in the long layout.
    pub fn parts(&self) -> Vec<InputPart> {
        match (self.layout, self.files.first()) {
            (Layout::Long, Some(first)) => vec![InputPart::assembled(first, self.bytes())],
            _ => self.files.iter().flat_map(|file| self.parts_of(file)).collect(),
        }
    }

    /// The parts of one file.
    pub(super) fn parts_of(&self, file: &Arc<SessionFile>) -> Vec<InputPart> {
        let (limits, size) = (self.options.part_limits, file.size());
        let Source::File(found) = &file.source else { return vec![InputPart::whole(file)] };
        match found.format {
            FileFormat::Parquet => file.parts.iter().map(|part| InputPart::of_row_groups(file, part)).collect(),
            FileFormat::Csv if self.options.csv_newlines => vec![InputPart::whole(file)],
            format if format.is_text() && found.compression == Compression::None => {
                cut_lines(size, limits).into_iter().map(|range| InputPart::of_lines(file, range)).collect()
            }
            _ => vec![InputPart::whole(file)],
        }
    }
}

/// Fails when a name that a column is said to have in files is in none of them: a slip that would leave the column null.
fn check_names(files: &[SessionFile], attributes: &[SessionFile], names: &ColumnNames) -> Result<(), EngineError> {
    let in_files: BTreeSet<&String> =
        files.iter().chain(attributes).flat_map(|file| file.schema.fields()).map(|field| field.name()).collect();
    match names.0.iter().find(|(_, theirs)| !in_files.contains(theirs)) {
        None => Ok(()),
        Some((column, theirs)) => Err(EngineError::MappedColumn {
            column: column.clone(),
            theirs: theirs.clone(),
            hint: nearest(theirs, in_files.into_iter().map(String::as_str)),
        }),
    }
}

/// The layout of all files: that of the options, else the one that their columns show.
fn settle_layout(files: &[SessionFile], options: &InputOptions) -> Result<Layout, EngineError> {
    let Some(first_file) = files.first() else {
        return Err(EngineError::NoFiles { target: "the input".to_owned() });
    };
    if let Some(layout) = options.layout {
        return Ok(layout);
    }
    let layout_of = |file: &SessionFile| detect_layout(&file.schema, &options.names, &file.name());
    let first = layout_of(first_file)?;
    for file in &files[1..] {
        let second = layout_of(file)?;
        if second != first {
            let (first_file, second_file) = (first_file.name(), file.name());
            return Err(EngineError::LayoutsDiffer { first_file, first, second_file, second });
        }
    }
    Ok(first)
}

/// The canonical columns of files that are read as one. Each file gets the schema under which it is read.
pub(super) fn settle_columns(
    files: &mut [SessionFile],
    wanted: WantedColumns<'_>,
) -> Result<CanonicalColumns, EngineError> {
    let mut settled: Option<(CanonicalColumns, String)> = None;
    for file in files.iter_mut() {
        file.schema = reading_schema(&file.schema, file.format(), wanted);
        let name = file.name();
        let columns = canonical_columns(&name, &file.schema, wanted)?;
        settled = Some(match settled {
            None => (columns, name),
            Some((known, first)) => (merge_columns(known, columns, &first, &name, wanted.ranks)?, first),
        });
    }
    let mut columns = settled.map_or(CanonicalColumns { columns: Vec::new() }, |(columns, _)| columns);
    for file in files.iter_mut().filter(|file| file.format() == FileFormat::Ndjson) {
        add_unseen(file, &mut columns, wanted);
    }
    Ok(columns)
}

/// How many files are opened at once.
const OPENED_AT_ONCE: usize = 8;

/// Reads the schemas of files, as they state them.
pub(in crate::engine) async fn open_files(
    context: &SessionContext,
    sources: Vec<Source>,
    limits: PartLimits,
) -> Result<Vec<SessionFile>, EngineError> {
    let opened = stream::iter(sources).map(|source| async move {
        let FileFooter { schema, parts, byte_columns } = match &source {
            Source::File(found) => read_schema(context, found, limits).await?,
            Source::Stdin(stdin) => FileFooter::of_schema(Arc::clone(&stdin.schema)),
        };
        Ok(SessionFile { source, schema, parts, byte_columns })
    });
    opened.buffered(OPENED_AT_ONCE).try_collect().await
}

/// The schema that a file states or shows in its first rows, and what the footer of a Parquet file says beside it.
async fn read_schema(
    context: &SessionContext,
    found: &FoundFile,
    limits: PartLimits,
) -> Result<FileFooter, EngineError> {
    let unreadable = |reason: DataFusionError| EngineError::Unreadable {
        file: found.location.to_string(),
        format: found.format.name(),
        reason: Box::new(reason),
    };
    let store = &found.location.store;
    let schema = match found.format {
        FileFormat::Parquet => {
            return FileFooter::read(found, limits).await.map_err(|error| unreadable(error.into()));
        }
        FileFormat::Csv | FileFormat::Ndjson => {
            text::read_schema(store, &found.meta, found.format, found.compression).await
        }
        FileFormat::Arrow => ArrowFormat.infer_schema(&context.state(), store, std::slice::from_ref(&found.meta)).await,
    };
    Ok(FileFooter::of_schema(schema.map_err(unreadable)?))
}

/// The schema under which a file is read: what scoring needs of it, in the types that serve scoring best.
fn reading_schema(raw: &SchemaRef, format: FileFormat, wanted: WantedColumns<'_>) -> SchemaRef {
    let canonical = |in_file: &str| {
        let mapped = wanted.names.0.iter().find(|(_, theirs)| *theirs == in_file);
        mapped.map_or(in_file, |(ours, _)| ours).to_owned()
    };
    let fields: Vec<Field> = raw
        .fields()
        .iter()
        .map(|field| {
            let name = canonical(field.name());
            let data_type = match format {
                format if format.is_text() => text_type(&name, wanted, field.data_type()),
                // Attributes of few values are strings in dictionary pages: read as dictionaries, they cost no string a row.
                FileFormat::Parquet if wanted.attributes.contains(&name) && *field.data_type() == DataType::Utf8 => {
                    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
                }
                // So are the parts and modes of rank rows.
                FileFormat::Parquet if matches!(name.as_str(), PART | MODE) && is_string(field.data_type()) => {
                    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
                }
                _ => field.data_type().clone(),
            };
            field.as_ref().clone().with_data_type(data_type)
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// Adds to the schema of an NDJSON file what scoring can use and its first lines do not show, as later ones may have it: in the type
/// that other files have it in, else as text.
fn add_unseen(file: &mut SessionFile, columns: &mut CanonicalColumns, wanted: WantedColumns<'_>) {
    let mut fields = file.schema.fields().to_vec();
    for name in wanted.optional() {
        let in_file = wanted.names.in_file(name);
        if fields.iter().any(|field| field.name() == in_file) {
            continue;
        }
        let known = match columns.data_type(name) {
            Some(text) if is_string(&documented_type(text)) => DataType::Utf8,
            Some(known) => known.clone(),
            None => DataType::Null,
        };
        let data_type = text_type(name, wanted, &known);
        if columns.data_type(name).is_none() {
            columns.insert(name, attribute_type(name, &data_type), wanted.ranks);
        }
        fields.push(Arc::new(Field::new(in_file, data_type, true)));
    }
    file.schema = Arc::new(Schema::new(fields));
}

/// Whether two types hold the same values, however they are encoded.
fn same_values(first: &DataType, second: &DataType) -> bool {
    let is_text = |data_type: &DataType| is_string(&documented_type(data_type));
    first == second || (is_text(first) && is_text(second))
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
    let mut merged = known;
    for (name, data_type) in other.columns {
        match merged.columns.iter_mut().find(|(column, _)| *column == name) {
            None => merged.insert(&name, data_type, ranks),
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
    Ok(merged)
}
