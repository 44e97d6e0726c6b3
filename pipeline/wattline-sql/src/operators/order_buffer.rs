//! Holds the rows of a condition rule until the watermark has passed them, then releases them in order.
//!
//! A condition (`firing` true or false per event) is folded in the order of event time, while lanes deliver
//! in the order of offsets; so its rows wait here, as state rows: `event_time_us` Int64, the identity
//! (`_topic` Utf8, `_partition`, `_offset`, `_index`), then the output columns.
//!
//! What memory does not hold goes to disk in slices of time, each a run of its own, and comes back slice by slice: they are given in
//! parts, each with all rows before a moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, interleave_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::cast::as_int64_array;
use datafusion::error::Result;
use wattline_core::time::END_OF_TIME;

use super::record_batch;
use super::spill::{Run, RunWriter, Scratch, in_slices};

/// Columns before the output columns.
const PREFIX: usize = 5;

/// Rows that wait for the watermark.
#[derive(Debug)]
pub(crate) struct OrderBuffer {
    schema: SchemaRef,
    output_schema: SchemaRef,
    batches: Vec<RecordBatch>,
    /// What is on disk, by the first time of a slice and the number that it was given.
    slices: BTreeMap<(i64, usize), Slice>,
    next_slice: usize,
}

/// Rows on disk, of a stretch of event time.
#[derive(Debug)]
struct Slice {
    last_us: i64,
    run: Run,
}

/// Rows in the order of their events, or a part of them.
#[derive(Debug)]
pub(crate) struct InOrder {
    pub(crate) rows: RecordBatch,
    pub(crate) identity: RecordBatch,
    /// Call again for the rest.
    pub(crate) more: bool,
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
        Self { schema, output_schema, batches: Vec::new(), slices: BTreeMap::new(), next_slice: 0 }
    }

    pub(crate) fn rows(&self) -> usize {
        let on_disk: usize = self.slices.values().map(|slice| slice.run.rows).sum();
        on_disk + self.batches.iter().map(RecordBatch::num_rows).sum::<usize>()
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

    /// Puts all rows that are in memory on disk, in slices of about so many rows as are given at once.
    pub(crate) fn spill(&mut self, scratch: &Scratch) -> Result<()> {
        let mut order: Vec<(i64, usize, usize)> = Vec::new();
        for (number, batch) in self.batches.iter().enumerate() {
            let times = as_int64_array(batch.column(0))?.values().iter();
            order.extend(times.enumerate().map(|(row, time_us)| (*time_us, number, row)));
        }
        if order.is_empty() {
            return Ok(());
        }
        order.sort_unstable();
        let mut writer = RunWriter::new(scratch, 0)?;
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let mut written = Vec::new();
        for slice in order.chunks(scratch.part_rows()) {
            let places: Vec<(usize, usize)> = slice.iter().map(|(_, batch, row)| (*batch, *row)).collect();
            let rows = interleave_record_batch(&batches, &places)?;
            let run = writer.write_all(&self.schema, in_slices(&rows))?;
            written.push((slice[0].0, Slice { last_us: slice[slice.len() - 1].0, run }));
        }
        // Only now is all of it there.
        self.batches.clear();
        for (first_us, slice) in written {
            self.slices.insert((first_us, self.next_slice), slice);
            self.next_slice += 1;
        }
        Ok(())
    }

    /// What is on disk.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.slices.values().map(|slice| &slice.run)
    }

    /// Brings the earliest slices back that have rows before the watermark; gives the moment up to which all rows are here then.
    fn load_before(&mut self, watermark_us: i64) -> Result<i64> {
        let first = |slices: &BTreeMap<(i64, usize), Slice>| {
            slices
                .first_key_value()
                .filter(|((first_us, _), _)| *first_us < watermark_us)
                .map(|(_, slice)| slice.last_us)
        };
        let Some(last_us) = first(&self.slices) else { return Ok(watermark_us) };
        let until_us = watermark_us.min(last_us.saturating_add(1));
        while let Some(entry) = self.slices.first_entry().filter(|entry| entry.key().0 < until_us) {
            for rows in entry.remove().run.batches()? {
                let rows = rows?;
                self.batches.push(record_batch(&self.schema, rows.columns().to_vec(), rows.num_rows())?);
            }
        }
        Ok(if first(&self.slices).is_some() { until_us } else { watermark_us })
    }

    /// Output rows and identities with an event time before the watermark, or a part of them, in order of (event time, identity).
    pub(crate) fn release_before(&mut self, watermark_us: i64) -> Result<Option<InOrder>> {
        let until_us = self.load_before(watermark_us)?;
        let more = until_us != watermark_us;
        let Some(ready) = self.take_before(until_us)? else { return Ok(None) };
        let order = &ready.columns()[..PREFIX];
        let converter = RowConverter::new(order.iter().map(|c| SortField::new(c.data_type().clone())).collect())?;
        let rows = converter.convert_columns(order)?;
        let mut numbers: Vec<u32> = (0..u32::try_from(ready.num_rows()).unwrap_or(u32::MAX)).collect();
        numbers.sort_by(|&a, &b| rows.row(a as usize).cmp(&rows.row(b as usize)));
        let sorted = take_record_batch(&ready, &UInt32Array::from(numbers))?;
        let count = sorted.num_rows();
        let identity = record_batch(&identity_schema(), sorted.columns()[1..PREFIX].to_vec(), count)?;
        let output = record_batch(&self.output_schema, sorted.columns()[PREFIX..].to_vec(), count)?;
        Ok(Some(InOrder { rows: output, identity, more }))
    }
}
