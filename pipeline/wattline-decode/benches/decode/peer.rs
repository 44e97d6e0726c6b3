//! What the decoder is measured against: `arrow-json` on the same bytes, and Arrow's builders on values that are parsed already.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Decimal128Builder, Float64Array, Float64Builder, Int32Array,
    Int32Builder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;

use crate::payloads::Block;

/// The schema as `arrow-json` can read it: it has no database of zones, so UTC is an offset there.
pub(crate) fn schema_of(schema: &Schema) -> SchemaRef {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::Timestamp(..) => Arc::new(field.as_ref().clone().with_data_type(utc.clone())),
        _ => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// A decoder that gives one batch for each block.
pub(crate) fn decoder(schema: &SchemaRef, blocks: &[Block]) -> Result<Decoder> {
    let records = blocks.iter().map(|block| block.ends.len()).max().context("there are no blocks")?;
    // One record more, so that a block never fills the batch before its end.
    Ok(ReaderBuilder::new(Arc::clone(schema)).with_batch_size(records + 1).build_decoder()?)
}

/// All records of a block in one call.
pub(crate) fn concatenated(decoder: &mut Decoder, block: &Block) -> Result<RecordBatch> {
    let read = decoder.decode(&block.bytes)?;
    ensure!(read == block.bytes.len(), "arrow-json stopped at byte {read}");
    decoder.flush()?.context("arrow-json gave no batch")
}

/// A call for each record.
pub(crate) fn one_by_one(decoder: &mut Decoder, block: &Block) -> Result<RecordBatch> {
    for (_, payload) in block.records().iter() {
        let read = decoder.decode(payload)?;
        ensure!(read == payload.len(), "arrow-json stopped at byte {read}");
    }
    decoder.flush()?.context("arrow-json gave no batch")
}

/// A column, and a builder of its type.
enum Pair<'a> {
    Text(&'a StringArray, StringBuilder),
    Float(&'a Float64Array, Float64Builder),
    Integer(&'a Int32Array, Int32Builder),
    Decimal(&'a Decimal128Array, Decimal128Builder),
    Instant(&'a TimestampMicrosecondArray, TimestampMicrosecondBuilder),
}

/// Appends the values of a batch, row by row, to a builder for each column.
pub(crate) fn rebuild(batch: &RecordBatch) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let mut pairs: Vec<Pair<'_>> = batch.columns().iter().map(pair).collect::<Result<_>>()?;
    for row in 0..rows {
        for pair in &mut pairs {
            match pair {
                Pair::Text(column, to) => to.append_option(column.is_valid(row).then(|| column.value(row))),
                Pair::Float(column, to) => to.append_option(column.is_valid(row).then(|| column.value(row))),
                Pair::Integer(column, to) => to.append_option(column.is_valid(row).then(|| column.value(row))),
                Pair::Decimal(column, to) => to.append_option(column.is_valid(row).then(|| column.value(row))),
                Pair::Instant(column, to) => to.append_option(column.is_valid(row).then(|| column.value(row))),
            }
        }
    }
    let arrays = pairs.into_iter().map(|pair| -> ArrayRef {
        match pair {
            Pair::Text(_, mut to) => Arc::new(to.finish()),
            Pair::Float(_, mut to) => Arc::new(to.finish()),
            Pair::Integer(_, mut to) => Arc::new(to.finish()),
            Pair::Decimal(_, mut to) => Arc::new(to.finish()),
            Pair::Instant(_, mut to) => Arc::new(to.finish()),
        }
    });
    Ok(RecordBatch::try_new(batch.schema(), arrays.collect())?)
}

fn pair(column: &ArrayRef) -> Result<Pair<'_>> {
    let rows = column.len();
    let data_type = column.data_type().clone();
    Ok(match column.data_type() {
        DataType::Utf8 => Pair::Text(column.as_string(), StringBuilder::with_capacity(rows, rows * 16)),
        DataType::Float64 => Pair::Float(column.as_primitive(), Float64Builder::with_capacity(rows)),
        DataType::Int32 => Pair::Integer(column.as_primitive(), Int32Builder::with_capacity(rows)),
        DataType::Decimal128(..) => {
            Pair::Decimal(column.as_primitive(), Decimal128Builder::with_capacity(rows).with_data_type(data_type))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => Pair::Instant(
            column.as_primitive(),
            TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(data_type),
        ),
        other => bail!("no builder for `{other}`"),
    })
}
