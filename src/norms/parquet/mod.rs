//! Norms in Parquet: one file, or a directory of them, searched in place.
//!
//! Tables are sorted by `norm_group, norm_version, scale, raw_score`, with small row groups and pages, as
//! [`import`](crate::norms::import()) writes them. Opening reads footers. A load searches the row groups' statistics for the
//! groups, reads the page index of those that may hold them (one call to the store, then remembered), and then the few pages
//! that may hold them (one more call). On a local disk a call costs a hop to a blocking thread and a handful of small reads,
//! which is why nothing is read in more calls than that, and why the groups of a batch of sessions are loaded together.

mod pages;
pub(crate) mod rows;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::basic::Type;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, ParquetStatisticsPolicy, RowGroupMetaData,
};
use parquet::file::statistics::Statistics;
use parquet::schema::types::SchemaDescriptor;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use crate::model::Scale;
use crate::model::norm::{FREQUENCY, GroupNorms, NORM_GROUP, NORM_VERSION, PERCENTILE, RAW_SCORE, SCALE};
use crate::norms::error::{NormError, NotImported};
use crate::norms::parquet::pages::PageDirectory;
use crate::norms::parquet::rows::{GroupRows, NormColumns, TextColumn};
use crate::norms::source::{GroupName, GroupSummary, NormSource, hex};
use crate::storage::{Location, ObjectReader};

/// The key of the footer's metadata under which import leaves a digest of the rows.
pub(crate) const ROWS_DIGEST: &str = "normstream.rows.sha256";

/// The footer of a table of a million rows has fewer bytes.
const TAIL: u64 = 64 << 10;

/// Page directories kept, in bytes: those of [`USUAL_DIRECTORIES`] row groups as import writes them.
const DIRECTORY_BYTES: u64 = 2 << 20;
const USUAL_DIRECTORIES: usize = 150;

/// The most chunks decoded at a time when many groups are loaded.
const MOST_CHUNKS: usize = 8;

/// The most row groups that one load reads at a time.
const ROW_GROUPS_AT_ONCE: usize = 4;

/// Decoded rows of a table, a batch at a time.
type NormBatches = ParquetRecordBatchStream<ObjectReader>;

/// A row group of more rows is not read without a page index.
const MAX_ROWS_WITHOUT_PAGES: i64 = 1 << 17;

/// Norm tables in Parquet, in one file or in all `*.parquet` files of a directory. A group may be in any of the files.
///
/// Holds the footers, of which only the statistics of `norm_group` and `norm_version` are decoded (some 4 KB a row group),
/// and at most 2 MiB of page directories.
#[derive(Debug)]
pub struct ParquetNorms {
    location: String,
    files: Vec<Arc<NormFile>>,
    directories: Cache<(usize, usize), Arc<PageDirectory>, DirectoryBytes>,
    chunk_rows: usize,
    digest: String,
}

/// What a page directory counts for in the cache.
#[derive(Debug, Clone)]
struct DirectoryBytes;

impl Weighter<(usize, usize), Arc<PageDirectory>> for DirectoryBytes {
    fn weight(&self, _: &(usize, usize), pages: &Arc<PageDirectory>) -> u64 {
        pages.bytes() as u64
    }
}

/// One opened table.
#[derive(Debug)]
struct NormFile {
    location: String,
    object: ObjectReader,
    metadata: ParquetMetaData,
    group_column: usize,
    version_column: usize,
}

impl ParquetNorms {
    /// Opens one Parquet object, or all `*.parquet` objects of a folder, at any depth, by path. Hidden ones and those whose
    /// name or folder begins with `_` are left alone. `chunk_rows` rows are decoded at a time.
    pub async fn open(at: &Location, chunk_rows: usize) -> Result<ParquetNorms, NormError> {
        let mut objects = at.list_files().await?;
        let listed = objects.len();
        objects.retain(|object| {
            let below: Vec<_> = object.location.prefix_match(&at.path).into_iter().flatten().collect();
            object.location.extension() == Some("parquet") && !below.iter().any(|part| part.as_ref().starts_with('_'))
        });
        if objects.is_empty() && listed == 1 && at.exists().await? {
            return Err(NormError::NotATable { location: at.to_string() });
        }
        if objects.is_empty() {
            return Err(NormError::NoTables { location: at.to_string() });
        }
        // Footers are fetched a few at a time, and digested in the order of the files.
        let opened = stream::iter(objects).map(|object| NormFile::open(at, object));
        let opened: Vec<(NormFile, [u8; 32])> = opened.buffered(8).try_collect().await?;
        let mut digest = Sha256::new();
        let files = opened.into_iter().map(|(file, file_digest)| {
            digest.update(file_digest);
            Arc::new(file)
        });
        let files = files.collect();
        Ok(ParquetNorms {
            location: at.to_string(),
            files,
            directories: Cache::with_weighter(USUAL_DIRECTORIES, DIRECTORY_BYTES, DirectoryBytes),
            chunk_rows: chunk_rows.max(1),
            digest: hex(&digest.finalize()),
        })
    }

    /// The files, as messages call them.
    pub fn locations(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| file.location.as_str())
    }

    /// How many rows the files hold.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.metadata.file_metadata().num_rows().max(0) as u64).sum()
    }

    /// The digest of the rows that import left in the footer of a file.
    pub(crate) fn rows_digest(&self, file: usize) -> Option<String> {
        self.files[file].rows_digest().map(str::to_owned)
    }

    /// All rows of a file in its order, with all its columns.
    pub(crate) fn batches(&self, file: usize) -> impl Stream<Item = Result<RecordBatch, NormError>> + '_ {
        self.files[file].batches(&[NORM_GROUP, NORM_VERSION, SCALE, RAW_SCORE, PERCENTILE, FREQUENCY])
    }

    /// The page directory of a row group, read once however many loads ask for it.
    async fn directory(&self, file: usize, row_group: usize) -> Result<Arc<PageDirectory>, NormError> {
        let NormFile { object, metadata, location, group_column, .. } = self.files[file].as_ref();
        let key = (file, row_group);
        let read = async {
            let row_group = metadata.row_group(row_group);
            let directory = PageDirectory::read(object, metadata.file_metadata(), row_group, *group_column).await;
            directory.map(Arc::new).map_err(NormError::parquet(location))
        };
        self.directories.get_or_insert_async(&key, read).await
    }

    /// The rows of groups, which are in order, in one row group of a file. A task of its own decodes them; dropped, it stops.
    async fn read<'a>(
        &self,
        (file, row_group): (usize, usize),
        names: Vec<GroupName<'a>>,
    ) -> Result<Vec<(GroupName<'a>, GroupRows)>, NormError> {
        let directory = self.directory(file, row_group).await?;
        let file = &self.files[file];
        let groups: Vec<&str> = names.iter().map(|name| name.group).collect();
        let Some(selection) = directory.rows_of(&groups) else { return Ok(Vec::new()) };
        let batches = file.selected(&directory, selection, self.chunk_rows * names.len().min(MOST_CHUNKS))?;
        let owned = names.iter().map(|name| (name.group.to_owned(), name.version.to_owned())).collect();
        let mut task = JoinSet::new();
        task.spawn(Arc::clone(file).rows_of(owned, batches));
        let rows = match task.join_next().await {
            Some(Err(error)) => Err(NormError::parquet(&file.location)(ParquetError::External(Box::new(error)))),
            Some(Ok(rows)) => rows,
            None => Ok(Vec::new()),
        };
        Ok(names.into_iter().zip(rows?).collect())
    }
}

#[async_trait]
impl NormSource for ParquetNorms {
    fn description(&self) -> String {
        match self.files.len() {
            1 => format!("norm table {} ({} rows)", self.location, self.rows()),
            files => format!("norm tables in {} ({files} files, {} rows)", self.location, self.rows()),
        }
    }

    /// SHA-256 over each file's size and footer, in the order of the files. The footer of an imported file holds a digest of
    /// its rows, so for those the digest changes with any percentile and stays the same when a table is imported anew. For
    /// other files the store's entity tag and the time of modification go in too.
    fn digest(&self) -> String {
        self.digest.clone()
    }

    /// The groups that lie in one row group are read together, and [`ROW_GROUPS_AT_ONCE`] row groups at once on any thread.
    async fn load(&self, groups: &[GroupName<'_>]) -> Result<Vec<Option<GroupNorms>>, NormError> {
        let mut names = groups.to_vec();
        names.sort_unstable();
        names.dedup();
        let mut wanted: BTreeMap<(usize, usize), Vec<GroupName<'_>>> = BTreeMap::new();
        for (number, file) in self.files.iter().enumerate() {
            for name in &names {
                for row_group in file.row_groups_of(name.group, name.version) {
                    wanted.entry((number, row_group)).or_default().push(*name);
                }
            }
        }
        let mut reads = Vec::with_capacity(wanted.len());
        for (place, names) in wanted {
            reads.push(self.read(place, names).boxed());
        }
        let mut reads = stream::iter(reads).buffered(ROW_GROUPS_AT_ONCE);
        let mut rows: HashMap<GroupName<'_>, GroupRows> = HashMap::with_capacity(names.len());
        while let Some(read) = reads.try_next().await? {
            for (name, read) in read {
                let taken = rows.entry(name).or_default().append(read);
                taken.map_err(|reason| NormError::damaged(&self.location, name, reason))?;
            }
        }
        if names.len() == groups.len() {
            return Ok(groups.iter().map(|name| rows.remove(name)?.finish()).collect());
        }
        let loaded: HashMap<GroupName<'_>, Option<GroupNorms>> =
            rows.into_iter().map(|(name, rows)| (name, rows.finish())).collect();
        Ok(groups.iter().map(|name| loaded.get(name).cloned().flatten()).collect())
    }

    fn files(&self) -> Vec<String> {
        self.locations().map(str::to_owned).collect()
    }

    fn groups(&self) -> BoxStream<'_, Result<GroupSummary, NormError>> {
        stream::iter(&self.files).flat_map(|file| file.groups()).boxed()
    }
}

impl NormFile {
    async fn open(folder: &Location, meta: ObjectMeta) -> Result<(NormFile, [u8; 32]), NormError> {
        let below: Vec<_> = meta.location.prefix_match(&folder.path).into_iter().flatten().collect();
        let below: Vec<&str> = below.iter().map(|part| part.as_ref()).collect();
        let location = match below.as_slice() {
            [] => folder.to_string(),
            names => folder.child(&names.join("/")).to_string(),
        };
        let object = ObjectReader::new(&folder.store, &meta);
        let parquet = NormError::parquet(&location);
        let footer = object.footer(TAIL).await.map_err(&parquet)?;
        let schema = ParquetMetaDataReader::decode_schema(&footer).map_err(&parquet)?;
        let (group_column, version_column) =
            check_columns(&schema).map_err(|reason| NormError::NotImported { location: location.clone(), reason })?;
        let options = ParquetMetaDataOptions::new()
            .with_schema(schema)
            .with_column_stats_policy(ParquetStatisticsPolicy::skip_except(&[group_column, version_column]))
            .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
            .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
        let metadata =
            ParquetMetaDataReader::decode_metadata_with_options(&footer, Some(&options)).map_err(&parquet)?;
        check_layout(&metadata, group_column)
            .map_err(|reason| NormError::NotImported { location: location.clone(), reason })?;

        let mut digest = Sha256::new();
        digest.update(meta.size.to_le_bytes());
        digest.update(&footer);
        let file = NormFile { location, object, metadata, group_column, version_column };
        if file.rows_digest().is_none() {
            digest.update(format!("{:?} {}", meta.e_tag, meta.last_modified));
        }
        Ok((file, digest.finalize().into()))
    }

    fn rows_digest(&self) -> Option<&str> {
        let entries = self.metadata.file_metadata().key_value_metadata()?;
        entries.iter().find(|entry| entry.key == ROWS_DIGEST)?.value.as_deref()
    }

    /// The row groups that may hold a group in a version, found by halving. Statistics may be truncated: a lower bound is
    /// then too low and an upper bound too high, so a row group may be named in vain but is never left out.
    fn row_groups_of<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = usize> + 'a {
        let row_groups = self.metadata.row_groups();
        let first = row_groups.partition_point(|row_group| {
            bounds(row_group, self.group_column).is_some_and(|(_, highest)| highest < group.as_bytes())
        });
        let may_hold = move |row_group: &RowGroupMetaData, column: usize, value: &str| {
            bounds(row_group, column)
                .is_none_or(|(lowest, highest)| lowest <= value.as_bytes() && value.as_bytes() <= highest)
        };
        (first..row_groups.len())
            .take_while(move |index| may_hold(&row_groups[*index], self.group_column, group))
            .filter(move |index| may_hold(&row_groups[*index], self.version_column, version))
    }

    /// Selected rows of one row group, so many decoded at a time.
    fn selected(
        &self,
        directory: &PageDirectory,
        selection: RowSelection,
        batch_rows: usize,
    ) -> Result<NormBatches, NormError> {
        let reader = directory.reader.clone();
        let columns = [NORM_GROUP, NORM_VERSION, SCALE, RAW_SCORE, PERCENTILE];
        let projection = ProjectionMask::columns(reader.parquet_schema(), columns);
        ParquetRecordBatchStreamBuilder::new_with_metadata(self.object.clone(), reader)
            .with_projection(projection)
            .with_row_selection(selection)
            .with_batch_size(batch_rows)
            .build()
            .map_err(NormError::parquet(&self.location))
    }

    /// The rows of each of `names`, which are groups and versions in order, among those of `batches`.
    async fn rows_of(
        self: Arc<Self>,
        names: Vec<(String, String)>,
        mut batches: NormBatches,
    ) -> Result<Vec<GroupRows>, NormError> {
        let mut wanted: Vec<(GroupName<'_>, GroupRows)> =
            names.iter().map(|(group, version)| (GroupName { group, version }, GroupRows::default())).collect();
        while let Some(batch) = batches.try_next().await.map_err(NormError::parquet(&self.location))? {
            self.append(&batch, &mut wanted)?;
        }
        Ok(wanted.into_iter().map(|(_, rows)| rows).collect())
    }

    /// Gives each row of a batch to its group, if that is among those wanted, which are in order.
    fn append(&self, batch: &RecordBatch, wanted: &mut [(GroupName<'_>, GroupRows)]) -> Result<(), NormError> {
        let columns = NormColumns::of(batch).map_err(|error| NormError::parquet(&self.location)(error.into()))?;
        let mut start = 0;
        while start < columns.len() {
            // Rows of one group follow each other: it is looked for once.
            let end = columns.end_of_name(start);
            if let Some(name) = columns.name(start)
                && let Ok(place) = wanted.binary_search_by(|(known, _)| (*known).cmp(&name))
            {
                let taken = wanted[place].1.extend(&columns, start..end);
                taken.map_err(|reason| NormError::damaged(&self.location, name, reason))?;
            }
            start = end;
        }
        Ok(())
    }

    /// All rows in file order, with the given columns.
    fn batches(&self, columns: &'static [&'static str]) -> impl Stream<Item = Result<RecordBatch, NormError>> + '_ {
        let open = async move {
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            let builder = ParquetRecordBatchStreamBuilder::new_with_options(self.object.clone(), options).await?;
            let projection = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
            builder.with_projection(projection).build()
        };
        stream::once(open).try_flatten().map_err(NormError::parquet(&self.location))
    }

    /// The groups of a sorted file, each when its last row was seen.
    fn groups(&self) -> BoxStream<'_, Result<GroupSummary, NormError>> {
        let mut current = None;
        self.batches(&[NORM_GROUP, NORM_VERSION, SCALE])
            .map_ok(Some)
            .chain(stream::once(async { Ok(None) }))
            .map(move |batch| {
                let ended = match batch? {
                    Some(batch) => self.ended_groups(&mut current, &batch)?,
                    None => current.take().into_iter().collect(),
                };
                Ok::<_, NormError>(stream::iter(ended.into_iter().map(Ok)))
            })
            .try_flatten()
            .boxed()
    }

    /// Adds the rows of a batch to the group that is being counted, and gives back the groups that ended.
    fn ended_groups(
        &self,
        current: &mut Option<GroupSummary>,
        batch: &RecordBatch,
    ) -> Result<Vec<GroupSummary>, NormError> {
        let column =
            |name| TextColumn::of(batch, name).map_err(|error| NormError::parquet(&self.location)(error.into()));
        let (groups, versions, scales) = (column(NORM_GROUP)?, column(NORM_VERSION)?, column(SCALE)?);
        let mut ended = Vec::new();
        for row in 0..batch.num_rows() {
            let [group, version, scale] = [&groups, &versions, &scales].map(|text| text.value(row).unwrap_or_default());
            let same = current.as_ref().is_some_and(|summary| summary.group == group && summary.version == version);
            if !same {
                ended.extend(current.take());
            }
            let summary = current.get_or_insert_with(|| GroupSummary {
                group: group.to_owned(),
                version: version.to_owned(),
                scales: Vec::new(),
                rows: 0,
            });
            summary.rows += 1;
            if let Some(scale) = Scale::from_code(scale)
                && let Err(place) = summary.scales.binary_search(&scale)
            {
                summary.scales.insert(place, scale);
            }
        }
        Ok(ended)
    }
}

/// The places of `norm_group` and `norm_version` among a file's columns, once all that lookups read are there.
fn check_columns(schema: &SchemaDescriptor) -> Result<(usize, usize), NotImported> {
    let find = |column: &'static str, expected: &'static str, types: &[Type]| {
        let place = schema.columns().iter().position(|leaf| leaf.path().parts() == [column]);
        let place = place.ok_or(NotImported::MissingColumn { column })?;
        if types.contains(&schema.column(place).physical_type()) {
            Ok(place)
        } else {
            Err(NotImported::WrongType { column, expected })
        }
    };
    const INTEGER: [Type; 2] = [Type::INT32, Type::INT64];
    const NUMBER: [Type; 4] = [Type::INT32, Type::INT64, Type::FLOAT, Type::DOUBLE];
    let group = find(NORM_GROUP, "text", &[Type::BYTE_ARRAY])?;
    let version = find(NORM_VERSION, "text", &[Type::BYTE_ARRAY])?;
    find(SCALE, "text", &[Type::BYTE_ARRAY])?;
    find(RAW_SCORE, "a whole number", &INTEGER)?;
    find(PERCENTILE, "a number", &NUMBER)?;
    Ok((group, version))
}

/// Whether a group can be found without reading all of the file.
fn check_layout(metadata: &ParquetMetaData, group_column: usize) -> Result<(), NotImported> {
    let mut before: Option<&RowGroupMetaData> = None;
    for row_group in metadata.row_groups() {
        let (lowest, highest) = bounds(row_group, group_column).ok_or(NotImported::NoStatistics)?;
        if let Some(other) = before
            && let Some((lowest_before, highest_before)) = bounds(other, group_column)
        {
            let exact = is_exact(other, group_column) && is_exact(row_group, group_column);
            if lowest < lowest_before || highest < highest_before || (exact && highest_before > lowest) {
                return Err(NotImported::Unsorted);
            }
        }
        before = Some(row_group);
        let has_pages = row_group.columns().iter().all(|column| column.offset_index_offset().is_some());
        if !has_pages && row_group.num_rows() > MAX_ROWS_WITHOUT_PAGES {
            return Err(NotImported::NoPageIndex { rows: row_group.num_rows() });
        }
    }
    Ok(())
}

/// Whether the bounds of a string column are values of it, not truncated ones.
fn is_exact(row_group: &RowGroupMetaData, column: usize) -> bool {
    row_group.column(column).statistics().is_some_and(|bounds| bounds.min_is_exact() && bounds.max_is_exact())
}

/// The lower and the upper bound of a string column within a row group.
fn bounds(row_group: &RowGroupMetaData, column: usize) -> Option<(&[u8], &[u8])> {
    match row_group.column(column).statistics()? {
        // Files of old writers compared bytes as signed numbers.
        statistics if statistics.is_min_max_deprecated() => None,
        Statistics::ByteArray(statistics) => Some((statistics.min_bytes_opt()?, statistics.max_bytes_opt()?)),
        _ => None,
    }
}
