//! Takes rows out of a table: files that hold some are written again without them, all in one version.
//!
//! What goes is named by the system columns `_topic` and `_offset`, and not by files, since a job that merges small files
//! meanwhile moves rows from one file to another: then the rows are looked for again in the files that there are now. The version
//! carries a transaction, so that repeating it is harmless; files that it replaces stay for the retention time, for readers of
//! older versions. Memory: one file with its rows at a time, and those written in its place.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use wattline_core::record::column;

use super::log::Change;
use super::schema::conform;
use super::table::Table;
use super::write::{Encoded, Layout, encode_sorted};
use super::{AddFile, Archive, Committed, store_file};
use crate::error::{Error, Result};

/// How often rows are looked for again because another writer has moved them.
const LOOKS_MAX: u32 = 20;

/// Whether the row with this `_topic` and `_offset` goes.
pub type IsOut = Arc<dyn Fn(&str, i64) -> bool + Send + Sync>;

impl Archive {
    /// Takes the rows that `is_out` names out of a table whose rows are events, in one Delta version carrying
    /// `txn(app_id, version)`. Idempotent, as [`commit`](Self::commit) is.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], [`Error::Store`] (the outcome is unknown then: call again), [`Error::CommitContended`] if another
    /// writer moves the rows faster than they can be taken out.
    pub async fn take_out(&self, table: &str, is_out: &IsOut, app_id: &str, version: i64) -> Result<Committed> {
        let table = self.table(table)?;
        for _ in 0..LOOKS_MAX {
            if table.txn_version(app_id).await? >= Some(version) {
                return Ok(Committed::AlreadyThere);
            }
            let state = table.current(|log| (log.files.clone(), Arc::clone(&log.layout))).await?;
            let (files, layout) = state.ok_or_else(|| table.unknown())?;
            let (mut adds, mut removes) = (Vec::new(), Vec::new());
            let mut is_moved = false;
            for path in files.into_keys() {
                let Some(bytes) = table.root.get(&path).await? else {
                    is_moved = true;
                    break;
                };
                if let Some(rest) = without(&table, &layout, &path, bytes, is_out).await? {
                    removes.push(path);
                    adds.extend(rest);
                }
            }
            if is_moved {
                continue;
            }
            let txn = Some((app_id, version));
            let change =
                Change { operation: "DELETE", adds: &adds, removes: &removes, data_change: true, txn, metadata: None };
            match table.commit(&change).await {
                Err(Error::FileGone { .. }) => {}
                committed => return committed,
            }
        }
        Err(Error::CommitContended { table: table.name.clone(), attempts: LOOKS_MAX })
    }
}

/// The files to stand in the place of one; `None` if it holds no row that goes.
async fn without(
    table: &Table,
    layout: &Arc<Layout>,
    path: &str,
    bytes: Bytes,
    is_out: &IsOut,
) -> Result<Option<Vec<AddFile>>> {
    let (name, kept_layout, from, is_out) =
        (table.name.clone(), Arc::clone(layout), path.to_owned(), Arc::clone(is_out));
    let rewrite = move || rest_of(&name, &kept_layout, &from, bytes, &is_out);
    let rest = tokio::task::spawn_blocking(rewrite)
        .await
        .map_err(|source| Error::Stopped { work: "take rows out of a file", source })??;
    let Some(rest) = rest else { return Ok(None) };
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    let mut adds = Vec::with_capacity(rest.len());
    for (i, file) in rest.into_iter().enumerate() {
        adds.push(store_file(table, layout, file, &format!("kept-{i}-{nonce}")).await?);
    }
    Ok(Some(adds))
}

/// The rows that stay, encoded; `None` if all do. CPU-bound.
fn rest_of(table: &str, layout: &Layout, path: &str, bytes: Bytes, is_out: &IsOut) -> Result<Option<Vec<Encoded>>> {
    let decoding = |source| Error::Parquet { path: path.to_owned(), source: Box::new(source) };
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(ParquetRecordBatchReaderBuilder::build);
    let (mut kept, mut gone) = (Vec::new(), 0);
    for batch in reader.map_err(decoding)? {
        let batch = batch.map_err(|source| decoding(ParquetError::ArrowError(source.to_string())))?;
        let batch = conform(table, &layout.schema, &batch)?;
        let stays = stays(&batch, is_out).map_err(failed)?;
        gone += batch.num_rows() - stays.true_count();
        kept.push(filter_record_batch(&batch, &stays).map_err(failed)?);
    }
    if gone == 0 {
        return Ok(None);
    }
    let mut files = Vec::new();
    encode_sorted(layout, &kept, |file| {
        files.push(file);
        true
    })?;
    Ok(Some(files))
}

/// Rows that do not say which they are stay.
fn stays(batch: &RecordBatch, is_out: &IsOut) -> std::result::Result<BooleanArray, ArrowError> {
    let at = |name: &str| batch.schema().index_of(name).map(|index| batch.column(index).clone());
    let topics = cast(&at(column::TOPIC)?, &DataType::Utf8)?;
    let offsets = cast(&at(column::OFFSET)?, &DataType::Int64)?;
    let (topics, offsets) = (topics.as_string::<i32>(), offsets.as_primitive::<Int64Type>());
    let goes =
        |row: usize| topics.is_valid(row) && offsets.is_valid(row) && is_out(topics.value(row), offsets.value(row));
    Ok((0..batch.num_rows()).map(|row| Some(!goes(row))).collect())
}

fn failed(source: ArrowError) -> Error {
    Error::Columns { operation: "take rows out of a file", source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::{Field, Schema, SchemaRef, TimeUnit};

    use super::*;
    use crate::archive::{FileNaming, TableSpec};
    use crate::store::ObjectRoot;

    const DAY_US: i64 = 86_400_000_000;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
            Field::new(column::TOPIC, DataType::Utf8, false),
            Field::new(column::OFFSET, DataType::Int64, false),
        ]))
    }

    fn rows(offsets: std::ops::Range<i64>) -> RecordBatch {
        let times = TimestampMicrosecondArray::from_iter_values(offsets.clone().map(|at| at * DAY_US / 4));
        let topics = StringArray::from_iter_values(offsets.clone().map(|_| "letters/0"));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(times.with_timezone("UTC")),
            Arc::new(topics),
            Arc::new(Int64Array::from_iter_values(offsets)),
        ];
        RecordBatch::try_new(schema(), columns).unwrap()
    }

    async fn offsets(archive: &Archive) -> Vec<i64> {
        let mut offsets = Vec::new();
        for batch in archive.read_table("letters").await.unwrap() {
            let column = batch.column_by_name(column::OFFSET).unwrap();
            offsets.extend(column.as_primitive::<Int64Type>().values());
        }
        offsets.sort_unstable();
        offsets
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rows_leave_once_and_the_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let root = ObjectRoot::open(folder.path().to_str().unwrap(), &BTreeMap::new()).unwrap();
        let archive = Archive::open(root);
        let spec = TableSpec {
            name: "letters".to_owned(),
            schema: schema(),
            time_column: Some("at".to_owned()),
            sort_by: vec!["at".to_owned(), column::OFFSET.to_owned()],
            description: "letters".to_owned(),
        };
        archive.ensure_table(spec).await.unwrap();
        for (n, batch) in [(1, rows(0..10)), (2, rows(10..12))] {
            let naming = FileNaming { chain: "c".to_owned(), epoch: n, part: 0, nonce: "n".to_owned() };
            let adds = archive.write_files("letters", vec![batch], &naming).await.unwrap();
            archive.commit("letters", &adds, &[], "job", i64::try_from(n).unwrap()).await.unwrap();
        }
        let before = archive.files("letters").await.unwrap();
        // One of the first day, all of the second, none of the third; a row of another topic has the same number.
        let is_out: IsOut = Arc::new(|topic, offset| topic == "letters/0" && [2, 4, 5, 6, 7].contains(&offset));
        let done = archive.take_out("letters", &is_out, "amendments", 1).await.unwrap();
        assert!(matches!(done, Committed::Done { .. }));
        assert_eq!(offsets(&archive).await, [0, 1, 3, 8, 9, 10, 11]);
        let after = archive.files("letters").await.unwrap();
        assert_eq!(after.iter().filter(|path| before.contains(path)).count(), 2, "{before:?} {after:?}");
        let all: IsOut = Arc::new(|_, _| true);
        let again = archive.take_out("letters", &all, "amendments", 1).await.unwrap();
        assert_eq!((again, offsets(&archive).await.len()), (Committed::AlreadyThere, 7));
        // Nothing to take out is an answer too, and is remembered.
        archive.take_out("letters", &is_out, "amendments", 2).await.unwrap();
        assert_eq!(archive.txn_version("letters", "amendments").await.unwrap(), Some(2));
        let other: IsOut = Arc::new(|topic, _| topic == "letters/1");
        archive.take_out("letters", &other, "amendments", 3).await.unwrap();
        assert_eq!(offsets(&archive).await.len(), 7);
    }
}
