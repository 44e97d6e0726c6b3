//! Holds the rows of a condition rule until the watermark has passed them, then releases them in order.
//!
//! A condition (`firing` true or false per event) is folded in the order of event time, while lanes deliver
//! in the order of offsets; so its rows wait here, as state rows: `event_time_us` Int64, the identity
//! (`_topic` Utf8, `_partition`, `_offset`, `_index`), then the output columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::cast::as_int64_array;
use datafusion::error::Result;
use wattline_core::time::END_OF_TIME;

use super::record_batch;

/// Columns before the output columns.
const PREFIX: usize = 5;

/// Rows that wait for the watermark.
#[derive(Debug)]
pub(crate) struct OrderBuffer {
    schema: SchemaRef,
    output_schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

/// The identity columns of an event.
pub(crate) fn identity_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("_topic", DataType::Utf8, false),
        Field::new("_partition", DataType::Int32, false),
        Field::new("_offset", DataType::Int64, false),
        Field::new("_index", DataType::Int32, false),
    ]))
}

impl OrderBuffer {
    pub(crate) fn new(output_schema: SchemaRef) -> Self {
        let time = Arc::new(Field::new("event_time_us", DataType::Int64, false));
        let identity = identity_schema();
        let fields = std::iter::once(&time).chain(identity.fields()).chain(output_schema.fields());
        let schema = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
        Self { schema, output_schema, batches: Vec::new() }
    }

    pub(crate) fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.batches.iter().map(RecordBatch::get_array_memory_size).sum()
    }

    /// Adds output rows with their event times and identities.
    pub(crate) fn push(&mut self, times: Int64Array, identity: &RecordBatch, output: &RecordBatch) -> Result<()> {
        let rows = output.num_rows();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(times)];
        columns.extend(identity.columns().iter().cloned());
        columns.extend(output.columns().iter().cloned());
        self.batches.push(record_batch(&self.schema, columns, rows)?);
        Ok(())
    }

    /// The earliest event time that waits, microseconds since the epoch.
    pub(crate) fn first_us(&self) -> Option<i64> {
        let times = |batch: &RecordBatch| as_int64_array(batch.column(0)).ok().and_then(arrow::compute::min);
        self.batches.iter().filter_map(times).min()
    }

    /// Takes out the rows with an event time before the watermark; they are final, but for their order, at any later one.
    pub(crate) fn drain_before(&mut self, watermark_us: i64) -> Result<Option<(i64, RecordBatch)>> {
        Ok(self.take_before(watermark_us)?.map(|rows| (END_OF_TIME, rows)))
    }

    fn take_before(&mut self, watermark_us: i64) -> Result<Option<RecordBatch>> {
        let batches = std::mem::take(&mut self.batches);
        if batches.is_empty() {
            return Ok(None);
        }
        let all = concat_batches(&self.schema, &batches)?;
        if watermark_us == END_OF_TIME {
            return Ok(Some(all));
        }
        let times = as_int64_array(all.column(0))?;
        let done: BooleanArray = times.values().iter().map(|&time| Some(time < watermark_us)).collect();
        let ready = filter_record_batch(&all, &done)?;
        if ready.num_rows() < all.num_rows() {
            self.batches.push(filter_record_batch(&all, &arrow::compute::not(&done)?)?);
        }
        Ok((ready.num_rows() > 0).then_some(ready))
    }

    /// Adds state rows, except those released before (event time before `final_at_us`).
    pub(crate) fn merge(&mut self, state: &RecordBatch, final_at_us: i64) -> Result<()> {
        let state = record_batch(&self.schema, state.columns().to_vec(), state.num_rows())?;
        let times = as_int64_array(state.column(0))?;
        if times.values().iter().all(|&time| time >= final_at_us) {
            self.batches.push(state);
            return Ok(());
        }
        let open: BooleanArray = times.values().iter().map(|&time| Some(time >= final_at_us)).collect();
        let state = filter_record_batch(&state, &open)?;
        if state.num_rows() > 0 {
            self.batches.push(state);
        }
        Ok(())
    }

    /// Output rows and identities with an event time before the watermark, in order of (event time, identity).
    pub(crate) fn release_before(&mut self, watermark_us: i64) -> Result<Option<(RecordBatch, RecordBatch)>> {
        let Some(ready) = self.take_before(watermark_us)? else { return Ok(None) };
        let order = &ready.columns()[..PREFIX];
        let converter = RowConverter::new(order.iter().map(|c| SortField::new(c.data_type().clone())).collect())?;
        let rows = converter.convert_columns(order)?;
        let mut numbers: Vec<u32> = (0..u32::try_from(ready.num_rows()).unwrap_or(u32::MAX)).collect();
        numbers.sort_by(|&a, &b| rows.row(a as usize).cmp(&rows.row(b as usize)));
        let sorted = take_record_batch(&ready, &UInt32Array::from(numbers))?;
        let count = sorted.num_rows();
        let identity = record_batch(&identity_schema(), sorted.columns()[1..PREFIX].to_vec(), count)?;
        let output = record_batch(&self.output_schema, sorted.columns()[PREFIX..].to_vec(), count)?;
        Ok(Some((output, identity)))
    }
}
