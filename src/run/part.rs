//! One part of a run into a table: scored, and written as one immutable file.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use bytes::Bytes;
use futures::StreamExt;
use parquet::file::metadata::RowGroupMetaData;

use crate::engine::{FileFormat, InputPart, Source};
use crate::model::result::documented_type;
use crate::operators::row_group::ParquetFile;
use crate::run::account::{Counts, account_for};
use crate::run::encode::{Encoded, PartEncoder};
use crate::run::failures::{FailureTable, Failures};
use crate::run::journal::PartRecord;
use crate::run::output::Buffer;
use crate::run::profile::sum_of;
use crate::run::report::Progress;
use crate::run::steps::Steps;
use crate::run::{RunError, ScoreJob};
use crate::storage::{Location, StorageError, Upload, is_same};
use crate::table::{DataFile, Table, TableError, statistics, table_schema, table_type};

/// The columns of a table's files, and what brings a plan's rows into their types.
///
/// Dictionaries stay as they are: the encoder writes them as their values.
#[derive(Debug, Clone)]
pub(super) struct TableColumns {
    /// What the encoder is given.
    pub(super) encoded: SchemaRef,
    /// What is in the files.
    pub(super) written: SchemaRef,
    casts: Vec<Option<DataType>>,
}

impl TableColumns {
    pub(super) fn new(plan: &Schema) -> Result<TableColumns, TableError> {
        let written = Arc::new(table_schema(&crate::model::result::documented_schema(plan))?);
        let cast_of = |found: &DataType| {
            let wanted = table_type(found)?;
            (documented_type(found) != wanted).then_some(wanted)
        };
        let casts: Vec<_> = plan.fields().iter().map(|field| cast_of(field.data_type())).collect();
        let fields = plan.fields().iter().zip(&casts).map(|(field, cast)| match cast {
            Some(wanted) => Arc::new(field.as_ref().clone().with_data_type(wanted.clone())),
            None => Arc::clone(field),
        });
        let fields: Vec<_> = fields.map(|field| field.as_ref().clone().with_metadata(Default::default())).collect();
        Ok(TableColumns { encoded: Arc::new(Schema::new(fields)), written, casts })
    }

    fn convert(&self, batch: RecordBatch) -> Result<RecordBatch, RunError> {
        let columns = batch.columns().iter().zip(&self.casts).map(|(column, wanted)| match wanted {
            Some(wanted) => cast(column, wanted),
            None => Ok(Arc::clone(column)),
        });
        Ok(RecordBatch::try_new(Arc::clone(&self.encoded), columns.collect::<Result<Vec<_>, _>>()?)?)
    }
}

/// The work on one part.
pub(super) struct PartJob {
    pub(super) number: usize,
    pub(super) part: InputPart,
    pub(super) job: Arc<ScoreJob>,
    pub(super) table: Table,
    pub(super) columns: TableColumns,
    /// The name of its file.
    pub(super) name: String,
    /// Where its failed sessions go, if anywhere.
    pub(super) failures: Option<FailureTable>,
    pub(super) progress: Arc<Progress>,
}

impl PartJob {
    /// Scores the part and writes its file, the latter on a thread that has no part where there is one; nothing is recorded.
    ///
    /// Memory: a batch on its way through the stages or, where another thread writes, two; a row group being encoded; and what an
    /// upload buffers.
    pub(super) async fn run(self) -> Result<PartRecord, RunError> {
        let started = Instant::now();
        let _at_work = self.progress.begin_part();
        let part = Arc::new(self);
        let PartJob { job, progress, failures, .. } = part.as_ref();
        // A plan is executed once: a part that is done again gets a new one.
        let plan = job.plan(&part.part)?;
        let mut batches = plan.execute(0, job.context.task_ctx())?;
        let mut writing = Steps::new(PartWriter::new(&part));
        let (mut counts, mut failed) = (Counts::default(), Failures::default());
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| job.input.failed(&part.part, error))?;
            if failures.is_some() {
                failed.add(&batch)?;
            }
            let batch = account_for(batch, job.columns.len(), job.on_error, progress, &mut counts)?;
            let write = async move |mut writer: PartWriter| {
                writer.write(batch).await?;
                Ok(writer)
            };
            writing.step(progress.parts_at_work() < job.threads, write).await?;
        }
        drop(batches);
        let file = writing.finish().await?.finish().await?;
        let failures = match failures {
            Some(table) if !failed.is_empty() => Some(table.write(job, &part.part, &failed, &part.name).await?),
            _ => None,
        };
        part.check_unchanged().await?;
        let file = match file {
            Some(file) => Some(file.finish(&part.columns.written, &part.name).await?),
            None => None,
        };
        let scanned = sum_of("bytes_scanned", &plan) as u64;
        let bytes_read = if scanned > 0 { scanned } else { part.part.bytes() };
        progress.add_part(bytes_read, part.part.bytes());
        Ok(PartRecord {
            part: part.number,
            file,
            failures,
            sessions: counts.sessions,
            failed_by_code: counts.failed_by_code(),
            bytes_read,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// Fails if the input is not any more what the plan was made for. What was read before was of one version then.
    async fn check_unchanged(&self) -> Result<(), RunError> {
        let Source::File(found) = &self.part.file.source else { return Ok(()) };
        let now = found.location.head().await?;
        let is_same_version = match (&found.meta.e_tag, &now.e_tag) {
            (Some(planned), Some(now)) => is_same(planned, now),
            (planned, now) => planned == now,
        };
        if is_same_version && now.size == found.meta.size {
            return Ok(());
        }
        let (expected, found_now) = (found.meta.e_tag.clone(), now.e_tag);
        Err(StorageError::Changed { target: found.location.to_string(), expected, found: found_now }.into())
    }
}

/// What encodes the rows of a part, and its file once a row group is ready.
struct PartWriter {
    part: Arc<PartJob>,
    encoder: PartEncoder,
    file: Option<PartFile>,
}

impl PartWriter {
    fn new(part: &Arc<PartJob>) -> Self {
        let encoder = PartEncoder::new(FileFormat::Parquet, &part.columns.encoded, &part.job.row_groups);
        PartWriter { part: Arc::clone(part), encoder, file: None }
    }

    async fn write(&mut self, batch: RecordBatch) -> Result<(), RunError> {
        match self.encoder.encode(&self.part.columns.convert(batch)?)? {
            Some(encoded) => self.append(encoded).await,
            None => Ok(()),
        }
    }

    /// The file with all rows in it; `None` if there is no row.
    async fn finish(mut self) -> Result<Option<PartFile>, RunError> {
        if let Some(encoded) = self.encoder.finish()? {
            self.append(encoded).await?;
        }
        Ok(self.file)
    }

    async fn append(&mut self, encoded: Encoded) -> Result<(), RunError> {
        let PartJob { table, name, columns, job, .. } = self.part.as_ref();
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(PartFile::begin(table, name, &columns.encoded, job).await?),
        };
        file.append(encoded).await
    }
}

/// A Parquet file on its way into a table.
pub(super) struct PartFile {
    at: Location,
    /// Where it is once it is committed and published; somebody else may do that with the same run at any moment.
    published: Location,
    upload: Option<Upload>,
    parquet: ParquetFile<Buffer>,
    row_groups: Vec<RowGroupMetaData>,
    buffer: Buffer,
    rows: u64,
    size: u64,
}

impl PartFile {
    /// Begins a file. One that is there already, left by an earlier process before it was recorded, is kept: a name stands
    /// for the bytes, so it is as good. For the same reason it may be put over one that comes to be there in the meantime, and
    /// a put whose answer is lost may be repeated.
    pub(super) async fn begin(
        table: &Table,
        name: &str,
        schema: &SchemaRef,
        job: &ScoreJob,
    ) -> Result<PartFile, RunError> {
        let buffer = Buffer::default();
        let parquet = ParquetFile::try_new(buffer.clone(), schema, &job.row_groups)?;
        let (at, published) = (table.location_of_new(name), table.root().child(name));
        let upload = match at.exists().await? || published.exists().await? {
            true => None,
            false => Some(table.storage().upload(&at, true).await?),
        };
        let mut file = PartFile { at, published, upload, parquet, row_groups: Vec::new(), buffer, rows: 0, size: 0 };
        file.send().await?;
        Ok(file)
    }

    pub(super) async fn append(&mut self, encoded: Encoded) -> Result<(), RunError> {
        self.rows += encoded.rows() as u64;
        match encoded {
            Encoded::RowGroup(row_group) => self.row_groups.extend(self.parquet.append(row_group)?),
            Encoded::Text(..) | Encoded::Batch(_) => unreachable!("a table's files are Parquet"),
        }
        self.send().await
    }

    async fn send(&mut self) -> Result<(), RunError> {
        self.size += send(self.buffer.take(), &mut self.upload).await?;
        Ok(())
    }

    /// Completes the file, durably.
    pub(super) async fn finish(self, schema: &Schema, name: &str) -> Result<DataFile, RunError> {
        let PartFile { at, published, mut upload, parquet, row_groups, buffer, rows, mut size } = self;
        let statistics = Some(statistics(schema, parquet.schema_descr(), &row_groups));
        let end = parquet.end()?;
        size += send(buffer.take(), &mut upload).await?;
        for piece in end {
            size += send(vec![piece?.into()], &mut upload).await?;
        }
        let doubt = match upload {
            None => None,
            Some(upload) => match upload.commit().await {
                Ok(_) => return Ok(DataFile { path: name.to_owned(), size, rows: Some(rows), statistics }),
                Err(error @ StorageError::OutcomeUnknown { .. }) => Some(error),
                Err(error) => return Err(error.into()),
            },
        };
        let found = match at.head().await {
            Err(StorageError::NotFound { .. }) => published.head().await,
            found => found,
        };
        match (found, doubt) {
            (Ok(found), _) if found.size == size => {
                Ok(DataFile { path: name.to_owned(), size, rows: Some(rows), statistics })
            }
            (Ok(found), _) => Err(RunError::OtherFile { file: at.to_string(), found: found.size, expected: size }),
            (Err(_), Some(error)) | (Err(error), None) => Err(error.into()),
        }
    }
}

/// Sends bytes to an upload, or to nowhere where the file is there already; gives how many they were.
async fn send(blocks: Vec<Bytes>, upload: &mut Option<Upload>) -> Result<u64, RunError> {
    let mut sent = 0;
    for bytes in blocks {
        sent += bytes.len() as u64;
        if let Some(upload) = upload {
            upload.write(bytes).await?;
        }
    }
    Ok(sent)
}
