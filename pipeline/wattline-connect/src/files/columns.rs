//! Parquet files as batches of columns: no bytes to decode, so rows go to the stream as they are typed in the file.

use std::path::{Path, PathBuf};

use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use wattline_core::record::LaneId;

use super::open_file;
use crate::error::{Error, Result};
use crate::source::SourceEvent;

/// One open Parquet file.
pub(super) struct ColumnFile {
    lane: LaneId,
    path: PathBuf,
    rows: ParquetRecordBatchReader,
    next_row: i64,
}

impl ColumnFile {
    pub(super) fn open(path: &Path, lane: LaneId, first_wanted: i64, batch_rows_max: usize) -> Result<Self> {
        let refuse = |reason: String| Error::ParquetInput { path: path.to_owned(), row: first_wanted, reason };
        let file = open_file(path)?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| refuse(error.to_string()))?;
        let rows = builder
            .with_batch_size(batch_rows_max.max(1))
            .with_offset(usize::try_from(first_wanted).unwrap_or(0))
            .build()
            .map_err(|error| refuse(error.to_string()))?;
        Ok(Self { lane, path: path.to_owned(), rows, next_row: first_wanted.max(0) })
    }

    pub(super) fn next_batch(&mut self, fetched_at_ms: i64) -> Result<Vec<SourceEvent>> {
        let lane = self.lane.clone();
        match self.rows.next() {
            None => Ok(vec![SourceEvent::Ended { lane, next_offset: self.next_row }]),
            Some(Ok(batch)) => {
                let first_offset = self.next_row;
                self.next_row += i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
                Ok(vec![SourceEvent::Columns { lane, first_offset, fetched_at_ms, batch }])
            }
            Some(Err(error)) => {
                Err(Error::ParquetInput { path: self.path.clone(), row: self.next_row, reason: error.to_string() })
            }
        }
    }
}
