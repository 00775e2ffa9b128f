//! The Parquet file: row groups in order, then the page index and the footer.

use std::io::{self, Write};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::{FileMetaData, KeyValue, ParquetMetaDataBuilder, RowGroupMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::file::properties::WriterPropertiesPtr;
use parquet::file::writer::{SerializedRowGroupWriter, TrackedWrite};
use parquet::schema::types::SchemaDescriptor;

use super::column::Encoded;
use super::error::{Result, RowGroupError};
use super::schema::FileSchema;
use super::spool::Spool;
use super::{EncodedRowGroup, RowGroupOptions};
use crate::operators::{EncodedFooter, RowGroupCodec};

const MAGIC: &[u8] = b"PAR1";

/// A Parquet file of encoded row groups. Bytes go to `W` as row groups are appended.
///
/// Memory: none that grows with the row groups. What page index and footer will say of them is held encoded, and where that is more
/// than half a mebibyte, in temporary files. (The library's writer of files holds it decoded, a thousand bytes for each column of a
/// row group.)
///
/// Dropped before its end is written it leaves a file without a footer, which no reader accepts.
pub struct ParquetFile<W: Write + Send> {
    sink: TrackedWrite<W>,
    properties: WriterPropertiesPtr,
    codec: RowGroupCodec,
    rows: i64,
    /// The page index of each row group, as it will stand in the file.
    page_indexes: Spool,
    /// Each row group as the footer lists it, but for the places of its page index, which are counted from the beginning of that.
    row_groups: Spool,
}

impl<W: Write + Send> ParquetFile<W> {
    /// Begins a file for row groups encoded with the same plan schema and options.
    pub fn try_new(sink: W, schema: &SchemaRef, options: &RowGroupOptions) -> Result<Self> {
        let FileSchema { parquet, properties, .. } = FileSchema::try_new(schema, options)?;
        let codec = RowGroupCodec::new(Arc::new(parquet)).map_err(RowGroupError::Encode)?;
        let mut sink = TrackedWrite::new(sink);
        sink.write_all(MAGIC).map_err(write_failed)?;
        let (page_indexes, row_groups) = (Spool::default(), Spool::default());
        Ok(Self { sink, properties, codec, rows: 0, page_indexes, row_groups })
    }

    /// The columns.
    pub fn schema_descr(&self) -> &SchemaDescriptor {
        self.codec.schema()
    }

    /// Appends a row group, and tells what the footer will say of it. One without rows is left out.
    pub fn append(&mut self, row_group: EncodedRowGroup) -> Result<Option<RowGroupMetaData>> {
        if row_group.rows == 0 {
            return Ok(None);
        }
        let (expected, found) = (self.schema_descr().num_columns(), row_group.chunks.len());
        if expected != found {
            return Err(RowGroupError::ForeignRowGroup { expected, found });
        }
        let ordinal = i16::try_from(self.row_groups.len()).map_err(|_| RowGroupError::TooManyRowGroups)?;
        let (mut columns, mut offsets) = (Vec::new(), Vec::new());
        let (schema, properties) = (Arc::clone(self.codec.schema()), Arc::clone(&self.properties));
        let keep_page_index = Box::new(|_: &mut _, _, _, found_columns, found_offsets| {
            (columns, offsets) = (found_columns, found_offsets);
            Ok(())
        });
        let mut writer =
            SerializedRowGroupWriter::new(schema, properties, &mut self.sink, ordinal, Some(keep_page_index));
        for chunk in row_group.chunks {
            match chunk {
                Encoded::Own(chunk) => writer.append_column(&chunk.bytes, chunk.close),
                Encoded::Stock(chunk) => chunk.append_to_row_group(&mut writer),
            }
            .map_err(RowGroupError::Write)?;
        }
        let metadata = writer.close().map_err(RowGroupError::Write)?;
        self.rows += metadata.num_rows();
        self.hold(&metadata, columns, offsets)?;
        Ok(Some(Arc::unwrap_or_clone(metadata)))
    }

    /// The bytes of the file so far.
    pub fn bytes_written(&self) -> usize {
        self.sink.bytes_written()
    }

    /// Writes page index and footer, flushes `W` and gives it back.
    pub fn finish(self) -> Result<W> {
        let mut end = self.end()?;
        while let Some(piece) = end.next() {
            end.file.sink.write_all(&piece?).map_err(write_failed)?;
        }
        end.file.sink.into_inner().map_err(RowGroupError::Write)
    }

    /// Flushes `W`, and gives page index and footer in pieces, which are to be written after it.
    pub fn end(mut self) -> Result<FileEnd<W>> {
        self.sink.flush().map_err(write_failed)?;
        let footer = self.footer().map_err(RowGroupError::Encode)?;
        self.page_indexes.rewind().and(self.row_groups.rewind()).map_err(RowGroupError::Spool)?;
        let page_index_at = self.sink.bytes_written();
        Ok(FileEnd { file: self, footer, step: 0, page_index_at, length: 0 })
    }

    /// Holds what there is to say of a row group whose data is written.
    fn hold(
        &mut self,
        metadata: &RowGroupMetaData,
        columns: Vec<Option<ColumnIndexMetaData>>,
        offsets: Vec<Option<OffsetIndexMetaData>>,
    ) -> Result<()> {
        let columns = columns.into_iter().map(|column| column.unwrap_or(ColumnIndexMetaData::NONE)).collect();
        let offsets = offsets.into_iter().collect::<Option<_>>();
        let metadata = ParquetMetaDataBuilder::new(self.file_metadata(None))
            .add_row_group(metadata.clone())
            .set_column_index(Some(vec![columns]))
            .set_offset_index(offsets.map(|offsets| vec![offsets]))
            .build();
        let (page_index, footer) = EncodedFooter::encode(&metadata, false).map_err(RowGroupError::Encode)?;
        self.page_indexes.push(&page_index).map_err(RowGroupError::Spool)?;
        self.row_groups.push(&footer.row_groups().concat()).map_err(RowGroupError::Spool)
    }

    /// A row group as the footer lists it, of a page index that begins at `at`. Of the bounds of columns that the library encodes it has
    /// those that readers ask for, and not a second time in the fields that the format had for them before.
    fn with_page_index_at(&self, at: usize, encoded: &[u8]) -> ParquetResult<Vec<u8>> {
        let mut metadata = self.codec.decode(0, 1, encoded)?.into_builder();
        let moved = |offset: Option<i64>| offset.map(|offset| offset + at as i64);
        let mut row_groups = metadata.take_row_groups();
        for row_group in &mut row_groups {
            let columns = row_group.columns().iter().map(|column| {
                let (columns, offsets) = (column.column_index_offset(), column.offset_index_offset());
                let column = column.clone().into_builder().set_column_index_offset(moved(columns));
                column.set_offset_index_offset(moved(offsets)).build()
            });
            let columns = columns.collect::<ParquetResult<_>>()?;
            *row_group = row_group.clone().into_builder().set_column_metadata(columns).build()?;
        }
        let (_, footer) = EncodedFooter::encode(&metadata.set_row_groups(row_groups).build(), true)?;
        Ok(footer.row_groups().concat())
    }

    /// The footer without row groups.
    fn footer(&self) -> ParquetResult<EncodedFooter> {
        let metadata = self.file_metadata(self.properties.key_value_metadata().cloned());
        Ok(EncodedFooter::encode(&ParquetMetaDataBuilder::new(metadata).build(), true)?.1)
    }

    fn file_metadata(&self, key_values: Option<Vec<KeyValue>>) -> FileMetaData {
        let (version, writer) = (self.properties.writer_version().as_num(), self.properties.created_by().to_owned());
        FileMetaData::new(version, 0, Some(writer), key_values, Arc::clone(self.codec.schema()), None)
    }
}

/// What comes after the row groups of a file: page index and footer, a row group at a time.
pub struct FileEnd<W: Write + Send> {
    file: ParquetFile<W>,
    footer: EncodedFooter,
    step: usize,
    /// Where the page index of the next row group of the footer begins.
    page_index_at: usize,
    /// The bytes of the footer so far.
    length: usize,
}

impl<W: Write + Send> FileEnd<W> {
    /// The footer before, of and after its row groups.
    fn footer(&mut self, step: usize) -> Result<Vec<u8>> {
        let file = &mut self.file;
        let piece = match step {
            0 => self.footer.head(file.rows, file.row_groups.len()),
            step if step <= file.row_groups.len() => {
                let row_group = file.row_groups.read(step - 1).map_err(RowGroupError::Spool)?;
                let at = self.page_index_at;
                self.page_index_at += file.page_indexes.length(step - 1);
                file.with_page_index_at(at, &row_group).map_err(RowGroupError::Encode)?
            }
            _ => {
                let length = u32::try_from(self.length + self.footer.tail().len());
                let length = length.map_err(|_| RowGroupError::TooManyRowGroups)?;
                [self.footer.tail(), &length.to_le_bytes(), MAGIC].concat()
            }
        };
        self.length += piece.len();
        Ok(piece)
    }
}

impl<W: Write + Send> Iterator for FileEnd<W> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Result<Vec<u8>>> {
        let (row_groups, step) = (self.file.row_groups.len(), self.step);
        self.step += 1;
        match step.checked_sub(row_groups) {
            None => Some(self.file.page_indexes.read(step).map_err(RowGroupError::Spool)),
            Some(step) if step <= row_groups + 1 => Some(self.footer(step)),
            Some(_) => None,
        }
    }
}

fn write_failed(error: io::Error) -> RowGroupError {
    RowGroupError::Write(error.into())
}
