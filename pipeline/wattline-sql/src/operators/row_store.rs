//! Rows by number, in the order in which they came.
//!
//! They stay in their batches. Small neighbours become one batch, so that there are few however the rows came.

use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, interleave_record_batch};
use arrow::datatypes::SchemaRef;
use datafusion::common::exec_datafusion_err;
use datafusion::error::Result;

use super::spill::without_spare_bytes;

/// Rows of a batch at which it stays as it is.
const MERGED_ROWS_MAX: usize = 8 * 1024;

/// Rows with consecutive numbers from 0.
#[derive(Debug)]
pub(crate) struct RowStore {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    /// The number of the first row of each batch.
    begins: Vec<u32>,
    rows: u32,
    bytes: usize,
}

impl RowStore {
    pub(crate) fn new(schema: SchemaRef) -> Self {
        Self { schema, batches: Vec::new(), begins: Vec::new(), rows: 0, bytes: 0 }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows as usize
    }

    /// Memory held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.begins.capacity() * size_of::<u32>() + self.batches.capacity() * size_of::<RecordBatch>()
    }

    pub(crate) fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// Adds rows behind the others; gives the number of the first of them.
    pub(crate) fn push(&mut self, batch: &RecordBatch) -> Result<u32> {
        let first = self.rows;
        let rows = u32::try_from(batch.num_rows()).ok().and_then(|rows| first.checked_add(rows));
        self.rows = rows.ok_or_else(|| exec_datafusion_err!("more than {} rows are kept in one place", u32::MAX))?;
        let (mut begin, mut batch) = (first, batch.clone());
        // As in a binary counter: each row is copied about once for each time that their number doubles.
        while let (Some(before), Some(before_begins)) = (self.batches.last(), self.begins.last()) {
            let both = before.num_rows() + batch.num_rows();
            if before.num_rows() > batch.num_rows() || both > MERGED_ROWS_MAX {
                break;
            }
            begin = *before_begins;
            batch = without_spare_bytes(&concat_batches(&self.schema, [before, &batch])?)?;
            self.bytes -= self.batches.pop().map_or(0, |before| before.get_array_memory_size());
            self.begins.pop();
        }
        if batch.num_rows() > 0 {
            self.bytes += batch.get_array_memory_size();
            self.batches.push(batch);
            self.begins.push(begin);
        }
        Ok(first)
    }

    /// The rows with these numbers, in this order.
    pub(crate) fn gather(&self, numbers: &[u32]) -> Result<RecordBatch> {
        if numbers.is_empty() {
            return Ok(RecordBatch::new_empty(SchemaRef::clone(&self.schema)));
        }
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let place = |number: &u32| {
            let batch = self.begins.partition_point(|begin| begin <= number).saturating_sub(1);
            (batch, (number - self.begins[batch]) as usize)
        };
        let places: Vec<(usize, usize)> = numbers.iter().map(place).collect();
        Ok(interleave_record_batch(&batches, &places)?)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new(SchemaRef::clone(&self.schema));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn batch(values: std::ops::Range<i64>) -> RecordBatch {
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        RecordBatch::try_from_iter([("n", values)]).unwrap()
    }

    #[test]
    fn many_small_batches_become_few_and_rows_keep_their_numbers() {
        let mut store = RowStore::new(batch(0..0).schema());
        let mut next = 0;
        for rows in [1, 7, 3].into_iter().cycle().take(9_000) {
            assert_eq!(i64::from(store.push(&batch(next..next + rows)).unwrap()), next);
            next += rows;
        }
        assert_eq!(store.rows(), 33_000);
        assert!(store.batches().len() < 32, "{} batches", store.batches().len());
        let numbers = [32_999, 0, 8_191, 8_192, 20_000, 0];
        let gathered = store.gather(&numbers).unwrap();
        let values = gathered.column(0).as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(values, numbers.map(i64::from));
    }

    #[test]
    fn bytes_are_those_of_the_batches_that_are_left() {
        let mut store = RowStore::new(batch(0..0).schema());
        (0..100).for_each(|n| assert!(store.push(&batch(n..n + 1)).is_ok()));
        assert_eq!(store.bytes, store.batches().iter().map(RecordBatch::get_array_memory_size).sum::<usize>());
        store.clear();
        assert_eq!((store.rows(), store.bytes), (0, 0));
    }
}
