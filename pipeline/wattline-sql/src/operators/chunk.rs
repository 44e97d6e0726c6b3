//! A batch on its way through operators, and which rows of the source batch it came from.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::error::Result;

/// Rows in flight.
///
/// `rows[i]` is the number of the source row that row `i` came from; `None` means row `i` itself. It is how
/// a result finds the identity of its event although the query did not select it.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) batch: RecordBatch,
    pub(crate) rows: Option<UInt32Array>,
}

impl Chunk {
    pub(crate) fn whole(batch: RecordBatch) -> Self {
        Self { batch, rows: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Rows `start .. start + len`.
    pub(crate) fn slice(&self, start: usize, len: usize) -> Self {
        let rows = match &self.rows {
            Some(rows) => rows.slice(start, len),
            None => {
                UInt32Array::from_iter_values((start..start + len).map(|row| u32::try_from(row).unwrap_or(u32::MAX)))
            }
        };
        Self { batch: self.batch.slice(start, len), rows: Some(rows) }
    }

    /// The number of the source row behind row `row`.
    pub(crate) fn source_row(&self, row: usize) -> usize {
        self.rows.as_ref().map_or(row, |rows| rows.value(row) as usize)
    }
}

/// The schema with every field nullable: operators state no nullability, as outer joins and optimiser rewrites change it.
pub(crate) fn nullable(schema: &Schema) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}

/// A batch that knows its row count even without columns.
pub(crate) fn record_batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
