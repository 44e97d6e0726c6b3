//! Merges sorted Parquet files of one date into larger sorted ones.
//!
//! A merge, not a sort: each input is decoded a batch at a time, so memory is the encoded inputs (at most one target
//! file together) plus one decoded batch per input and the output being encoded. Inputs whose footer does not claim
//! our order are refused and left alone: they come from another engine.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use super::schema::conform;
use super::write::{Encoded, Encoder, Layout, sorting_columns};
use crate::error::{Error, Result};

/// Rows decoded at a time per input.
const BATCH_ROWS: usize = 4096;
/// Rows gathered before they go to the encoder.
const CHUNK_ROWS: usize = 16 * 1024;

/// One encoded input.
#[derive(Debug, Clone)]
pub(super) struct Input {
    pub(super) path: String,
    pub(super) bytes: Bytes,
}

/// Whether the footer says that rows lie in the order of `layout`.
pub(super) fn is_sorted(input: &Input, layout: &Layout) -> Result<bool> {
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(input.bytes.clone()).map_err(|source| decoding(input, source))?;
    let wanted = sorting_columns(layout);
    Ok(reader.metadata().row_groups().iter().all(|group| group.sorting_columns() == wanted.as_ref()))
}

/// Merges `inputs`, each sorted by `layout.sort_by`, into files of `event_date`. CPU-bound.
pub(super) fn merge_sorted(
    table: &str,
    layout: &Layout,
    event_date: Option<&str>,
    inputs: &[Input],
) -> Result<Vec<Encoded>> {
    let fields = layout.sort_by.iter().filter_map(|name| layout.schema.field_with_name(name).ok());
    let converter = RowConverter::new(fields.map(|field| SortField::new(field.data_type().clone())).collect())
        .map_err(|source| failed("merge rows", source))?;
    let mut cursors = Vec::with_capacity(inputs.len());
    let mut heads: BinaryHeap<Reverse<(OwnedRow, usize)>> = BinaryHeap::with_capacity(inputs.len());
    for (which, input) in inputs.iter().enumerate() {
        let mut cursor = Cursor::open(table, layout, input)?;
        if cursor.load(&converter)? {
            heads.push(Reverse((cursor.head(), which)));
        }
        cursors.push(cursor);
    }
    let mut output = Output { encoder: Encoder::for_date(layout, event_date.map(str::to_owned)), files: Vec::new() };
    let mut gathered = Gathered::default();
    while let Some(Reverse((_, which))) = heads.pop() {
        let cursor = &mut cursors[which];
        gathered.hold(which, &cursor.batch);
        // Keys of one entity lie together, so runs are long: go on while this input stays the least.
        let more = loop {
            gathered.take(which, cursor.at);
            cursor.at += 1;
            if cursor.at == cursor.rows.num_rows() {
                let more = cursor.load(&converter)?;
                gathered.release(which);
                break more;
            }
            let next = cursor.rows.row(cursor.at);
            if heads.peek().is_some_and(|Reverse((least, other))| (least.row(), *other) < (next, which)) {
                break true;
            }
        };
        if more {
            heads.push(Reverse((cursors[which].head(), which)));
        }
        if gathered.places.len() >= CHUNK_ROWS {
            output.push(&gathered.drain()?)?;
        }
    }
    if !gathered.places.is_empty() {
        output.push(&gathered.drain()?)?;
    }
    output.finish()
}

/// One input and the batch of it that is being merged.
struct Cursor<'a> {
    table: &'a str,
    layout: &'a Layout,
    input: &'a Input,
    reader: ParquetRecordBatchReader,
    batch: RecordBatch,
    rows: Rows,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn open(table: &'a str, layout: &'a Layout, input: &'a Input) -> Result<Self> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(input.bytes.clone())
            .and_then(|builder| builder.with_batch_size(BATCH_ROWS).build())
            .map_err(|source| decoding(input, source))?;
        let none = RowConverter::new(Vec::new()).map_err(|source| failed("merge rows", source))?;
        let batch = RecordBatch::new_empty(layout.schema.clone());
        Ok(Self { table, layout, input, reader, batch, rows: none.empty_rows(0, 0), at: 0 })
    }

    /// Decodes the next batch; false at the end of the file.
    fn load(&mut self, converter: &RowConverter) -> Result<bool> {
        for decoded in self.reader.by_ref() {
            let decoded =
                decoded.map_err(|source| decoding(self.input, ParquetError::ArrowError(source.to_string())))?;
            if decoded.num_rows() == 0 {
                continue;
            }
            self.batch = conform(self.table, &self.layout.schema, &decoded)?;
            let keys: Vec<ArrayRef> =
                self.layout.sort_by.iter().filter_map(|name| self.batch.column_by_name(name).cloned()).collect();
            self.rows = converter.convert_columns(&keys).map_err(|source| failed("merge rows", source))?;
            self.at = 0;
            return Ok(true);
        }
        Ok(false)
    }

    fn head(&self) -> OwnedRow {
        self.rows.row(self.at).owned()
    }
}

/// Rows chosen so far, as places in the batches they come from.
#[derive(Default)]
struct Gathered {
    batches: Vec<RecordBatch>,
    places: Vec<(usize, usize)>,
    /// Per input, where its current batch stands in `batches`.
    current: Vec<Option<usize>>,
}

impl Gathered {
    fn hold(&mut self, which: usize, batch: &RecordBatch) {
        if self.current.len() <= which {
            self.current.resize(which + 1, None);
        }
        if self.current[which].is_none() {
            self.current[which] = Some(self.batches.len());
            self.batches.push(batch.clone());
        }
    }

    fn take(&mut self, which: usize, row: usize) {
        if let Some(batch) = self.current[which] {
            self.places.push((batch, row));
        }
    }

    fn release(&mut self, which: usize) {
        self.current[which] = None;
    }

    fn drain(&mut self) -> Result<RecordBatch> {
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let rows = interleave_record_batch(&batches, &self.places).map_err(|source| failed("gather rows", source))?;
        self.batches.clear();
        self.places.clear();
        self.current.clear();
        Ok(rows)
    }
}

struct Output<'a> {
    encoder: Encoder<'a>,
    files: Vec<Encoded>,
}

impl Output<'_> {
    fn push(&mut self, rows: &RecordBatch) -> Result<()> {
        self.encoder.push(rows)?;
        self.files.extend(self.encoder.roll_if_full()?);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Encoded>> {
        self.files.extend(self.encoder.finish()?);
        Ok(self.files)
    }
}

fn decoding(input: &Input, source: ParquetError) -> Error {
    Error::Parquet { path: input.path.clone(), source: Box::new(source) }
}

fn failed(operation: &'static str, source: ArrowError) -> Error {
    Error::Columns { operation, source: Box::new(source) }
}
