//! The Parquet file: row groups in order, then the footer.

use std::io::{self, Write};

use arrow::datatypes::SchemaRef;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::writer::SerializedFileWriter;

use super::column::Encoded;
use super::error::{Result, RowGroupError};
use super::schema::FileSchema;
use super::{EncodedRowGroup, RowGroupOptions};

/// A Parquet file of encoded row groups. Bytes go to `W` as row groups are appended; only the footer and the page index are
/// held until [`finish`](Self::finish), some hundred bytes per column and page.
///
/// Dropped without `finish` it leaves a file without a footer, which no reader accepts.
pub struct ParquetFile<W: Write + Send> {
    writer: SerializedFileWriter<Slot<W>>,
}

impl<W: Write + Send> ParquetFile<W> {
    /// Begins a file for row groups encoded with the same plan schema and options.
    pub fn try_new(sink: W, schema: &SchemaRef, options: &RowGroupOptions) -> Result<Self> {
        let schema = FileSchema::try_new(schema, options)?;
        let writer = SerializedFileWriter::new(Slot(Some(sink)), schema.parquet.root_schema_ptr(), schema.properties)
            .map_err(RowGroupError::Write)?;
        Ok(Self { writer })
    }

    /// Appends a row group. One without rows is left out.
    pub fn append(&mut self, row_group: EncodedRowGroup) -> Result<()> {
        if row_group.rows == 0 {
            return Ok(());
        }
        let (expected, found) = (self.writer.schema_descr().num_columns(), row_group.chunks.len());
        if expected != found {
            return Err(RowGroupError::ForeignRowGroup { expected, found });
        }
        let mut writer = self.writer.next_row_group().map_err(RowGroupError::Write)?;
        for chunk in row_group.chunks {
            match chunk {
                Encoded::Own(chunk) => writer.append_column(&chunk.bytes, chunk.close),
                Encoded::Stock(chunk) => chunk.append_to_row_group(&mut writer),
            }
            .map_err(RowGroupError::Write)?;
        }
        writer.close().map_err(RowGroupError::Write)?;
        Ok(())
    }

    /// The bytes of the file so far.
    pub fn bytes_written(&self) -> usize {
        self.writer.bytes_written()
    }

    /// Writes page index and footer, flushes `W` and gives it back.
    pub fn finish(mut self) -> Result<(W, ParquetMetaData)> {
        let metadata = self.writer.finish().map_err(RowGroupError::Write)?;
        let sink = self.writer.inner_mut().0.take().ok_or_else(|| RowGroupError::Write(no_sink().into()))?;
        Ok((sink, metadata))
    }
}

/// Holds the sink until it is taken back from the library's writer, which has no way to give both it and the metadata.
struct Slot<W>(Option<W>);

impl<W: Write> Write for Slot<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.as_mut().ok_or_else(no_sink)?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        // Flushed once more, without bytes, when the writer is dropped after the sink was taken back.
        self.0.as_mut().map_or(Ok(()), Write::flush)
    }
}

fn no_sink() -> io::Error {
    io::Error::other("the sink was taken back")
}
