//! Rows into the staging table by binary COPY, a batch at a time.

use std::pin::pin;

use arrow::array::RecordBatch;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Field, Schema, SchemaRef};
use bytes::{Bytes, BytesMut};
use datafusion::execution::SendableRecordBatchStream;
use futures::{SinkExt, StreamExt};
use pgpq::ArrowToPostgresBinaryEncoder;
use std::sync::Arc;

use crate::engine::EngineError;
use crate::export::ExportError;
use crate::export::sink::postgres::Session;
use crate::export::sink::postgres::table::TablePlan;

/// Copies all rows and returns how many rows and bytes they were. Memory: one batch and its encoding. Without an answer to
/// the end of the copy the staging table has none of them.
pub(super) async fn copy(
    session: &Session,
    plan: &TablePlan,
    rows: &mut SendableRecordBatchStream,
    export: &str,
) -> Result<(u64, u64), ExportError> {
    let fields = plan.columns.iter().map(|column| Field::new(&column.name, column.encoded.clone(), true));
    let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let encode_failed =
        |source| ExportError::Encode { target: session.pool.name().to_owned(), source: Box::new(source) };
    let query_failed =
        |error: EngineError| ExportError::Query { export: export.to_owned(), source: Box::new(error.into()) };
    let mut encoder = ArrowToPostgresBinaryEncoder::try_new(&schema).map_err(encode_failed)?;
    let copy = session.client().copy_in::<_, Bytes>(&plan.copy()).await;
    let mut sink = pin!(copy.map_err(|source| session.pool.error("begin to copy", source))?);
    let mut buffer = BytesMut::new();
    let (mut count, mut bytes) = (0, 0);
    encoder.write_header(&mut buffer).map_err(encode_failed)?;
    while let Some(batch) = rows.next().await {
        let batch = encodable(batch.map_err(|error| query_failed(error.into()))?, &schema)
            .map_err(|error| query_failed(datafusion::error::DataFusionError::from(error).into()))?;
        encoder.write_batch(&batch, &mut buffer).map_err(encode_failed)?;
        count += batch.num_rows() as u64;
        bytes += buffer.len() as u64;
        sink.send(buffer.split().freeze()).await.map_err(|source| session.pool.error("copy rows", source))?;
        crash_point!("export::copying");
    }
    encoder.write_footer(&mut buffer).map_err(encode_failed)?;
    bytes += buffer.len() as u64;
    sink.send(buffer.freeze()).await.map_err(|source| session.pool.error("copy rows", source))?;
    let copied = sink.finish().await.map_err(|source| session.pool.error("copy rows", source))?;
    debug_assert_eq!(copied, count);
    Ok((copied, bytes))
}

/// A batch in the types that the encoder and the staging table have.
fn encodable(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, arrow::error::ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| match column.data_type() == field.data_type() {
        true => Ok(Arc::clone(column)),
        // A value that does not fit is an error, not a null.
        false => cast_with_options(column, field.data_type(), &CastOptions { safe: false, ..CastOptions::default() }),
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<Vec<_>, _>>()?)
}
