//! Writes one version's table: sorted Parquet made for lookups, staged beside its place and then published at once.

use std::path::{Path as LocalPath, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, Int32Builder, Int64Builder, RecordBatch, StringBuilder};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, WriteMultipart};
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::io::AsyncReadExt;

use crate::model::norm::{FREQUENCY, NORM_SCHEMA, PERCENTILE, RAW_SCORE};
use crate::norms::error::NormError;
use crate::norms::import::ImportedTable;
use crate::norms::import::series::SortedRow;
use crate::norms::parquet::ROWS_DIGEST;
use crate::norms::source::hex;

/// Rows a row group has, about; it is a whole number of pages.
const ROW_GROUP_ROWS: usize = 16_384;

/// A table that fits is put in one request, which stores do only if the name is free; a larger one goes up in parts of this
/// size under another name and is then renamed.
const PART_BYTES: usize = 32 << 20;

/// Where imported tables go: one file a version, named by it.
#[derive(Debug, Clone)]
pub enum ImportTarget {
    /// A local directory, made if it does not exist.
    Local(PathBuf),
    /// A prefix in a store.
    Store {
        /// The store.
        store: Arc<dyn ObjectStore>,
        /// The prefix.
        prefix: Path,
        /// What messages call it.
        location: String,
    },
}

impl ImportTarget {
    /// How messages call the table of a version.
    pub(crate) fn table(&self, version: &str) -> String {
        match self {
            ImportTarget::Local(directory) => directory.join(file_name(version)).display().to_string(),
            ImportTarget::Store { location, .. } => {
                format!("{}/{}", location.trim_end_matches('/'), file_name(version))
            }
        }
    }

    /// Fails if the target holds the version already.
    pub(crate) async fn check_free(&self, version: &str) -> Result<(), NormError> {
        let location = self.table(version);
        let exists = match self {
            ImportTarget::Local(directory) => tokio::fs::try_exists(directory.join(file_name(version)))
                .await
                .map_err(NormError::io("look for", &location))?,
            ImportTarget::Store { store, prefix, .. } => {
                match store.head(&prefix.clone().join(file_name(version))).await {
                    Ok(_) => true,
                    Err(object_store::Error::NotFound { .. }) => false,
                    Err(error) => return Err(NormError::store(location)(error)),
                }
            }
        };
        if exists { Err(NormError::VersionExists { version: version.to_owned(), location }) } else { Ok(()) }
    }

    /// A temporary file from which a table can be published: beside its place if that is local.
    fn stage(&self) -> Result<NamedTempFile, NormError> {
        match self {
            ImportTarget::Local(directory) => {
                let location = directory.display().to_string();
                std::fs::create_dir_all(directory).map_err(NormError::io("create", &location))?;
                let mut builder = tempfile::Builder::new();
                builder.prefix(".importing-").suffix(".tmp");
                #[cfg(unix)]
                {
                    // Readable for all that the umask allows, as an ordinary file is.
                    use std::os::unix::fs::PermissionsExt;
                    builder.permissions(std::fs::Permissions::from_mode(0o666));
                }
                builder.tempfile_in(directory).map_err(NormError::io("write to", location))
            }
            ImportTarget::Store { .. } => NamedTempFile::new().map_err(NormError::io("write", "a temporary file")),
        }
    }
}

fn file_name(version: &str) -> String {
    format!("{version}.parquet")
}

/// A table as it is being written. Memory: the rows of one row group, decoded and encoded.
pub(crate) struct TableWriter {
    version: String,
    staged: NamedTempFile,
    writer: AsyncArrowWriter<tokio::fs::File>,
    location: String,
    rows: RowBuffer,
    row_group_rows: usize,
    last_group: Option<String>,
    groups: u64,
    written: u64,
    digest: Sha256,
}

#[derive(Default)]
struct RowBuffer {
    groups: StringBuilder,
    versions: StringBuilder,
    scales: StringBuilder,
    raws: Int32Builder,
    percentiles: Float64Builder,
    frequencies: Int64Builder,
}

impl TableWriter {
    pub(crate) async fn create(target: &ImportTarget, version: &str, chunk_rows: usize) -> Result<Self, NormError> {
        target.check_free(version).await?;
        let location = target.table(version);
        let staged = target.stage()?;
        let file = staged.reopen().map_err(NormError::io("write", &location))?;
        let schema = Arc::clone(&NORM_SCHEMA);
        let writer = AsyncArrowWriter::try_new(tokio::fs::File::from_std(file), schema, Some(properties(chunk_rows)))
            .map_err(NormError::parquet(&location))?;
        Ok(TableWriter {
            version: version.to_owned(),
            staged,
            writer,
            location,
            rows: RowBuffer::default(),
            row_group_rows: row_group_rows(chunk_rows),
            last_group: None,
            groups: 0,
            written: 0,
            digest: Sha256::new(),
        })
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Takes the next row in order.
    pub(crate) async fn push(&mut self, row: &SortedRow<'_>) -> Result<(), NormError> {
        if self.last_group.as_deref() != Some(row.group) {
            self.last_group = Some(row.group.to_owned());
            self.groups += 1;
        }
        digest_row(&mut self.digest, row);
        self.rows.groups.append_value(row.group);
        self.rows.versions.append_value(row.version);
        self.rows.scales.append_value(row.scale.code());
        self.rows.raws.append_value(row.raw);
        self.rows.percentiles.append_value(row.percentile);
        self.rows.frequencies.append_option(row.frequency);
        self.written += 1;
        if self.rows.raws.values_slice().len() == self.row_group_rows { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), NormError> {
        let rows = std::mem::take(&mut self.rows);
        let write = async {
            self.writer.write(&rows.batch()?).await?;
            self.writer.flush().await
        };
        write.await.map_err(NormError::parquet(&self.location))
    }

    /// Ends the table; it is on disk, complete, and visible to nobody.
    pub(crate) async fn finish(mut self) -> Result<StagedTable, NormError> {
        if !self.rows.raws.values_slice().is_empty() {
            self.flush().await?;
        }
        let digest = hex(&self.digest.finalize());
        self.writer.append_key_value_metadata(KeyValue::new(ROWS_DIGEST.to_owned(), digest));
        self.writer.close().await.map_err(NormError::parquet(&self.location))?;
        let location = self.location.clone();
        let synced = tokio::task::spawn_blocking(move || {
            self.staged.as_file().sync_all()?;
            let bytes = self.staged.as_file().metadata()?.len();
            Ok((self.staged, bytes))
        });
        let (staged, bytes) = flatten(synced.await).map_err(NormError::io("write", &location))?;
        let table = ImportedTable { version: self.version, location, groups: self.groups, rows: self.written, bytes };
        Ok(StagedTable { staged, table })
    }
}

impl RowBuffer {
    fn batch(mut self) -> Result<RecordBatch, ParquetError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.groups.finish()),
            Arc::new(self.versions.finish()),
            Arc::new(self.scales.finish()),
            Arc::new(self.raws.finish()),
            Arc::new(self.percentiles.finish()),
            Arc::new(self.frequencies.finish()),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&NORM_SCHEMA), columns)?)
    }
}

/// Adds a row to the digest of a table's rows.
pub(crate) fn digest_row(digest: &mut Sha256, row: &SortedRow<'_>) {
    for text in [row.group, row.version, row.scale.code()] {
        digest.update(text);
        digest.update([0]);
    }
    digest.update(row.raw.to_le_bytes());
    digest.update(row.percentile.to_le_bytes());
    digest.update(row.frequency.map_or(-1, |frequency| frequency.max(0)).to_le_bytes());
}

/// A complete table under a temporary name. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct StagedTable {
    staged: NamedTempFile,
    table: ImportedTable,
}

impl StagedTable {
    /// Makes the table visible under its own name, if nobody else has taken that by now.
    pub(crate) async fn publish(self, target: &ImportTarget) -> Result<ImportedTable, NormError> {
        let StagedTable { staged, table } = self;
        match target {
            ImportTarget::Local(directory) => publish_local(staged, directory, &table).await?,
            ImportTarget::Store { store, prefix, .. } => upload(staged, store, prefix, &table).await?,
        }
        Ok(table)
    }
}

async fn publish_local(staged: NamedTempFile, directory: &LocalPath, table: &ImportedTable) -> Result<(), NormError> {
    let (directory, name) = (directory.to_owned(), file_name(&table.version));
    let published = tokio::task::spawn_blocking(move || {
        staged.persist_noclobber(directory.join(name)).map_err(|error| error.error)?;
        // A rename is durable once the directory is.
        #[cfg(unix)]
        std::fs::File::open(&directory)?.sync_all()?;
        Ok(())
    });
    flatten(published.await).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => version_exists(table),
        _ => NormError::io("write", &table.location)(error),
    })
}

async fn upload(
    staged: NamedTempFile,
    store: &Arc<dyn ObjectStore>,
    prefix: &Path,
    table: &ImportedTable,
) -> Result<(), NormError> {
    let place = prefix.clone().join(file_name(&table.version));
    let failed = |error| match error {
        object_store::Error::AlreadyExists { .. } => version_exists(table),
        error => NormError::store(&table.location)(error),
    };
    let read = NormError::io("read", "a temporary file");
    if table.bytes <= PART_BYTES as u64 {
        let bytes = tokio::fs::read(staged.path()).await.map_err(read)?;
        let put = store.put_opts(&place, PutPayload::from(bytes), PutMode::Create.into());
        return put.await.map(|_| ()).map_err(failed);
    }
    let name = staged.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let temporary = prefix.clone().join(format!(".importing-{name}"));
    let mut parts =
        WriteMultipart::new_with_chunk_size(store.put_multipart(&temporary).await.map_err(failed)?, PART_BYTES);
    let mut file = tokio::fs::File::open(staged.path()).await.map_err(read)?;
    loop {
        let mut part = Vec::with_capacity(PART_BYTES);
        match (&mut file).take(PART_BYTES as u64).read_to_end(&mut part).await {
            Ok(0) => break,
            Ok(_) => {
                parts.wait_for_capacity(1).await.map_err(failed)?;
                parts.put(part.into());
            }
            Err(error) => {
                // The error that counts is the one above; what is left is removed by the store's rule for dead uploads.
                let _ = parts.abort().await;
                return Err(NormError::io("read", "a temporary file")(error));
            }
        }
    }
    parts.finish().await.map_err(failed)?;
    let renamed = store.rename_if_not_exists(&temporary, &place).await;
    if renamed.is_err() {
        let _ = store.delete(&temporary).await;
    }
    renamed.map_err(failed)
}

fn version_exists(table: &ImportedTable) -> NormError {
    NormError::VersionExists { version: table.version.clone(), location: table.location.clone() }
}

fn flatten<T>(joined: Result<std::io::Result<T>, tokio::task::JoinError>) -> std::io::Result<T> {
    joined.unwrap_or_else(|panic| Err(std::io::Error::other(panic)))
}

fn row_group_rows(chunk_rows: usize) -> usize {
    ROW_GROUP_ROWS.div_ceil(chunk_rows) * chunk_rows
}

/// Small pages, so that a group costs few rows; bounds of each page for the columns that are searched; no dictionary where
/// values hardly repeat within a page, since a dictionary is read with every page; LZ4, since a page of a few hundred bytes
/// is decoded before Zstandard has set itself up.
fn properties(chunk_rows: usize) -> WriterProperties {
    let path = |name: &str| ColumnPath::from(name);
    WriterProperties::builder()
        .set_max_row_group_row_count(Some(row_group_rows(chunk_rows)))
        .set_data_page_row_count_limit(chunk_rows)
        // The limit of rows is looked at between batches of this size only.
        .set_write_batch_size(chunk_rows)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_column_statistics_enabled(path(PERCENTILE), EnabledStatistics::Chunk)
        .set_column_statistics_enabled(path(FREQUENCY), EnabledStatistics::Chunk)
        .set_column_dictionary_enabled(path(RAW_SCORE), false)
        .set_column_encoding(path(RAW_SCORE), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(path(PERCENTILE), false)
        .set_column_dictionary_enabled(path(FREQUENCY), false)
        .set_compression(Compression::LZ4_RAW)
        .set_sorting_columns(Some(
            (0..4).map(|column_idx| SortingColumn { column_idx, descending: false, nulls_first: false }).collect(),
        ))
        .build()
}
