//! The same readings as Avro records, framed as a schema registry wants it, and the decoder for them.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int32Type, TimestampMicrosecondType};
use wattline_decode::{AvroDecoder, Framing, Limits, Mapping, SchemaName, SchemaUnknown, StreamSchema, WriterSchemas};
use wattline_sim::avro::{framed, write_bytes, write_long};

use crate::payloads::Block;

const NUMBER: u32 = 17;

/// A registry with one schema.
#[derive(Debug)]
struct One(Arc<str>);

impl WriterSchemas for One {
    fn schema(&self, name: SchemaName) -> Result<Option<Arc<str>>, SchemaUnknown> {
        Ok((name == SchemaName::Number(NUMBER)).then(|| Arc::clone(&self.0)))
    }
}

/// A decoder of what [`blocks`] writes; `text` is that of the schema.
pub(crate) fn decoder(schema: &Arc<StreamSchema>, text: &str) -> Result<AvroDecoder> {
    let schemas: Arc<dyn WriterSchemas> = Arc::new(One(text.into()));
    let schemas = (Framing::Confluent, schemas);
    Ok(AvroDecoder::new(Arc::clone(schema), &Mapping::default(), Limits::default(), schemas)?)
}

/// The rows of these batches, each a record.
pub(crate) fn blocks(schema: &StreamSchema, batches: &[RecordBatch]) -> Result<Vec<Block>> {
    let block = |batch: &RecordBatch| {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for row in 0..batch.num_rows() {
            bytes.extend(framed(NUMBER));
            for field in &schema.fields {
                let column = batch.column_by_name(&field.name).context("a column is missing")?;
                if !field.required {
                    write_long(i64::from(column.is_valid(row)), &mut bytes);
                }
                if column.is_valid(row) {
                    value(column, row, &mut bytes)?;
                }
            }
            ends.push(u32::try_from(bytes.len())?);
        }
        Ok(Block { bytes, ends })
    };
    batches.iter().map(block).collect()
}

fn value(column: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<()> {
    match column.data_type() {
        DataType::Utf8 => write_bytes(column.as_string::<i32>().value(row).as_bytes(), out),
        DataType::Int32 => write_long(i64::from(column.as_primitive::<Int32Type>().value(row)), out),
        DataType::Timestamp(..) => write_long(column.as_primitive::<TimestampMicrosecondType>().value(row), out),
        DataType::Float64 => out.extend(column.as_primitive::<Float64Type>().value(row).to_le_bytes()),
        DataType::Decimal128(..) => {
            let digits = column.as_primitive::<Decimal128Type>().value(row);
            write_bytes(&i64::try_from(digits).context("a large decimal")?.to_be_bytes(), out);
        }
        other => bail!("a reading with `{other}`"),
    }
    Ok(())
}

/// Decodes all blocks, of which no record may be refused.
pub(crate) fn decode(decoder: &mut AvroDecoder, blocks: &[Block]) -> Result<Vec<RecordBatch>> {
    let mut decode = |block: &Block| {
        let decoded = decoder.decode(block.records())?;
        ensure!(decoded.dead_letters.is_empty(), "refused: {:?}", decoded.dead_letters.first());
        Ok(decoded.batch)
    };
    blocks.iter().map(&mut decode).collect()
}
