//! State that memory does not hold: runs of rows in scratch files. Those of windows are sorted, and brought together again when their
//! window is final.
//!
//! ```text
//! over the share ─▶ all groups of a window, sorted by key ─▶ run (Arrow IPC, LZ4) in a file without a name
//! window is final ─▶ its runs, merged by key ─▶ the states of a group come one after the other ─▶ rows in order of key
//! ```
//! A write that fails, as on a full disk, leaves no run: what it has written is cut off, and whoever wrote keeps the rows. So it can be tried
//! again, and only errors of reading say that something is lost.
//!
//! A run is read at its place and can be read again, so panes of windows that overlap, and snapshots, share it. The files have no
//! names: they are gone with the process, and a restart has all that was in them from its checkpoint.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, MutableArrayData, RecordBatch, UInt32Array, make_array};
use arrow::compute::{SortOptions, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::row::{RowConverter, SortField};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use datafusion::physical_plan::sorts::streaming_merge::StreamingMergeBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;

use super::record_batch;

/// Rows that are read from a run at once.
const BATCH_ROWS: usize = 8 * 1024;
/// Runs of one window, or of its panes together, above which some are made one: each is a batch in memory while they are merged.
pub(crate) const RUNS_MAX: usize = 32;
/// Most rows that a window on disk gives at once, and the share of memory for each below that.
const PART_ROWS_MAX: usize = 64 * 1024;
const PART_SHARE_BYTES: usize = 2 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of a batch below which compressing takes longer than it saves.
const COMPRESSED_BYTES_MIN: usize = 16 * 1024;

/// A folder for scratch files.
#[derive(Debug, Clone)]
pub(crate) struct Scratch {
    folder: Arc<Path>,
    /// Rows that a window on disk gives at once, about.
    part_rows: usize,
    #[cfg(test)]
    disk: Option<Arc<TestDisk>>,
}

/// What was done to a scratch file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// A scratch file could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("scratch file in `{}`: {source}", folder.display())]
pub(crate) struct ScratchError {
    folder: PathBuf,
    access: Access,
    source: io::Error,
}

impl Scratch {
    /// For a program whose states may have so many bytes of memory.
    pub(crate) fn new(folder: &Path, share_bytes: usize) -> Self {
        Self {
            folder: folder.into(),
            part_rows: (share_bytes / PART_SHARE_BYTES).clamp(1, PART_ROWS_MAX),
            #[cfg(test)]
            disk: None,
        }
    }

    pub(crate) fn part_rows(&self) -> usize {
        self.part_rows
    }

    fn failed(&self, access: Access, source: io::Error) -> DataFusionError {
        DataFusionError::External(Box::new(ScratchError { folder: self.folder.to_path_buf(), access, source }))
    }

    fn failed_in_arrow(&self, access: Access, error: ArrowError) -> DataFusionError {
        match error {
            ArrowError::IoError(_, source) => self.failed(access, source),
            error => error.into(),
        }
    }

    #[cfg(test)]
    pub(crate) fn on(mut self, disk: Arc<TestDisk>) -> Self {
        self.disk = Some(disk);
        self
    }

    /// A disk that a test has filled takes half of what is written to it.
    #[cfg(test)]
    fn takes(&self, bytes: usize) -> (usize, io::Result<()>) {
        match &self.disk {
            Some(disk) if !disk.takes() => (bytes / 2, Err(io::ErrorKind::StorageFull.into())),
            _ => (bytes, Ok(())),
        }
    }

    #[cfg(not(test))]
    fn takes(&self, bytes: usize) -> (usize, io::Result<()>) {
        (bytes, Ok(()))
    }
}

/// A disk that is full for a while.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct TestDisk {
    /// Writes that were tried.
    pub(crate) writes: std::sync::atomic::AtomicUsize,
    /// The first one that is refused, and how many are.
    pub(crate) refused: (usize, usize),
}

#[cfg(test)]
impl TestDisk {
    fn takes(&self) -> bool {
        let write = self.writes.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let (first, count) = self.refused;
        !(first..first + count).contains(&write)
    }
}

/// Whether the error tells of the disk and not of the rows.
pub(crate) fn is_of_scratch(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::External(source) if source.is::<ScratchError>())
}

/// Whether the disk did not take something: whoever wrote it has it still, and may try again.
pub(crate) fn is_of_writing(error: &DataFusionError) -> bool {
    let DataFusionError::External(source) = error.find_root() else { return false };
    source.downcast_ref::<ScratchError>().is_some_and(|error| error.access == Access::Write)
}

/// Some rows on disk; those of a window are sorted by their group columns.
#[derive(Clone)]
pub(crate) struct Run {
    scratch: Scratch,
    file: Arc<File>,
    begin: u64,
    end: u64,
    pub(crate) rows: usize,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("rows", &self.rows).field("bytes", &(self.end - self.begin)).finish()
    }
}

impl Run {
    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    pub(crate) fn part_rows(&self) -> usize {
        self.scratch.part_rows
    }

    /// The batches of the run, read as they are asked for.
    pub(crate) fn batches(&self) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + use<>> {
        let part = FilePart { file: Arc::clone(&self.file), at: self.begin, end: self.end };
        let scratch = self.scratch.clone();
        let reader = StreamReader::try_new(BufReader::with_capacity(BUFFER_BYTES, part), None);
        let reader = reader.map_err(|error| scratch.failed_in_arrow(Access::Read, error))?;
        Ok(reader.map(move |batch| batch.map_err(|error| scratch.failed_in_arrow(Access::Read, error))))
    }
}

/// Reads a part of a file that others read too.
struct FilePart {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for FilePart {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let most = into.len().min(left);
        let read = self.file.read_at(&mut into[..most], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// A scratch file that is written.
struct Written<'a> {
    file: &'a File,
    scratch: &'a Scratch,
}

impl Write for Written<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (most, taken) = self.scratch.takes(bytes.len());
        let written = self.file.write(&bytes[..most])?;
        taken.map(|()| written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes runs into one scratch file.
pub(crate) struct RunWriter {
    scratch: Scratch,
    file: Arc<File>,
    /// Group columns of the state rows; they follow the window's start.
    keys: usize,
}

impl RunWriter {
    pub(crate) fn new(scratch: &Scratch, keys: usize) -> Result<Self> {
        let file = tempfile::tempfile_in(&scratch.folder).and_then(|file| scratch.takes(0).1.map(|()| file));
        let file = file.map_err(|error| scratch.failed(Access::Write, error))?;
        Ok(Self { scratch: scratch.clone(), file: Arc::new(file), keys })
    }

    /// The writer with an empty file, unless someone has a run of it.
    pub(crate) fn emptied(mut self) -> Result<Option<Self>> {
        let Some(file) = Arc::get_mut(&mut self.file) else { return Ok(None) };
        let emptied = file.set_len(0).and_then(|()| file.rewind());
        emptied.map_err(|error| self.scratch.failed(Access::Write, error))?;
        Ok(Some(self))
    }

    /// Writes state rows in any order; each group is there once.
    pub(crate) fn write(&mut self, state: &RecordBatch) -> Result<Run> {
        self.write_all(&state.schema(), sorted_slices(state, self.keys)?)
    }

    /// Writes rows as they come: in order, if they are to be merged.
    pub(crate) fn write_all(
        &mut self,
        schema: &SchemaRef,
        batches: impl Iterator<Item = Result<RecordBatch>>,
    ) -> Result<Run> {
        let io = |error| self.scratch.failed(Access::Write, error);
        let mut file = &*self.file;
        let begin = file.stream_position().map_err(io)?;
        match self.write_from(schema, batches) {
            Ok(rows) => {
                let end = file.stream_position().map_err(io)?;
                Ok(Run { scratch: self.scratch.clone(), file: Arc::clone(&self.file), begin, end, rows })
            }
            Err(error) => {
                // What cannot be cut off is overwritten, or lies there unread.
                file.set_len(begin).and_then(|()| file.seek(SeekFrom::Start(begin)).map(drop)).unwrap_or_default();
                Err(error)
            }
        }
    }

    fn write_from(&self, schema: &SchemaRef, batches: impl Iterator<Item = Result<RecordBatch>>) -> Result<usize> {
        let scratch = &self.scratch;
        let arrow = |error| scratch.failed_in_arrow(Access::Write, error);
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, Written { file: &self.file, scratch });
        let mut batches = batches.peekable();
        let is_much = batches.peek().is_some_and(|first| {
            first.as_ref().is_ok_and(|first| first.get_array_memory_size() >= COMPRESSED_BYTES_MIN)
        });
        let options = IpcWriteOptions::default().try_with_compression(is_much.then_some(CompressionType::LZ4_FRAME))?;
        let mut writer = StreamWriter::try_new_with_options(&mut out, schema, options).map_err(arrow)?;
        let mut rows = 0;
        for batch in batches {
            let batch = without_spare_bytes(&batch?)?;
            rows += batch.num_rows();
            writer.write(&batch).map_err(arrow)?;
        }
        writer.finish().map_err(arrow)?;
        drop(writer);
        out.flush().map_err(|error| scratch.failed(Access::Write, error))?;
        Ok(rows)
    }
}

/// A view column holds on to whole buffers for a few of their bytes: a run would have all of them with each batch, and state that is
/// stored and restored would have more of them each time.
pub(crate) fn without_spare_bytes(batch: &RecordBatch) -> Result<RecordBatch> {
    let compact = |column: &ArrayRef| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
            _ => Arc::clone(column),
        }
    };
    Ok(RecordBatch::try_new(batch.schema(), batch.columns().iter().map(compact).collect())?)
}

/// Bytes of what is in the columns of a batch. Columns that were read out of one buffer each hold on to all of it, and would count it
/// as often as there are columns.
pub(crate) fn filled_bytes(batch: &RecordBatch) -> usize {
    let column = |column: &ArrayRef| {
        let data = column.to_data();
        data.get_slice_memory_size().unwrap_or_else(|_error| data.get_array_memory_size())
    };
    batch.columns().iter().map(column).sum()
}

/// The same rows in buffers of their own.
pub(crate) fn in_own_buffers(batch: &RecordBatch) -> Result<RecordBatch> {
    let copy = |column: &ArrayRef| {
        let data = column.to_data();
        let mut own = MutableArrayData::new(vec![&data], false, column.len());
        own.try_extend(0, 0, column.len())?;
        Ok(make_array(own.freeze()))
    };
    let columns = batch.columns().iter().map(copy).collect::<Result<_>>()?;
    record_batch(&batch.schema(), columns, batch.num_rows())
}

/// Rows as they are, in slices.
pub(crate) fn in_slices(rows: &RecordBatch) -> impl Iterator<Item = Result<RecordBatch>> + use<> {
    let rows = rows.clone();
    (0..rows.num_rows())
        .step_by(BATCH_ROWS)
        .map(move |from| Ok(rows.slice(from, BATCH_ROWS.min(rows.num_rows() - from))))
}

/// State rows by key, in slices, so that they are never there twice as a whole.
fn sorted_slices(state: &RecordBatch, keys: usize) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + use<>> {
    let order = key_order(&state.columns()[1..=keys])?;
    let state = state.clone();
    Ok((0..state.num_rows()).step_by(BATCH_ROWS).map(move |from| {
        let rows = order.slice(from, BATCH_ROWS.min(order.len() - from));
        Ok(take_record_batch(&state, &rows)?)
    }))
}

/// The order of rows by their keys, at least one, ascending with nulls first.
pub(crate) fn key_order(keys: &[ArrayRef]) -> Result<UInt32Array> {
    let converter = RowConverter::new(keys.iter().map(|key| SortField::new(key.data_type().clone())).collect())?;
    let rows = converter.convert_columns(keys)?;
    let mut order: Vec<u32> = (0..u32::try_from(rows.num_rows()).unwrap_or(u32::MAX)).collect();
    order.sort_unstable_by(|&a, &b| rows.row(a as usize).cmp(&rows.row(b as usize)));
    Ok(UInt32Array::from(order))
}

/// State rows of several runs in the order of their keys: an iterator over batches.
pub(crate) struct Merged {
    stream: SendableRecordBatchStream,
}

impl fmt::Debug for Merged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merged").finish_non_exhaustive()
    }
}

impl Merged {
    /// At least one run or batch with rows; `states` are in memory, each group of a batch once.
    pub(crate) fn new(keys: usize, runs: Vec<Run>, states: Vec<RecordBatch>) -> Result<Self> {
        debug_assert!(runs.len() <= 2 * RUNS_MAX, "each of {} runs is open while they are merged", runs.len());
        let batch_rows = runs.first().map_or(BATCH_ROWS, |run| run.part_rows().min(BATCH_ROWS));
        let mut streams: Vec<SendableRecordBatchStream> = Vec::with_capacity(runs.len() + states.len());
        for state in states.iter().filter(|state| state.num_rows() > 0) {
            let slices = futures::stream::iter(sorted_slices(state, keys)?);
            streams.push(Box::pin(RecordBatchStreamAdapter::new(state.schema(), slices)));
        }
        for run in runs {
            let mut batches = run.batches()?.peekable();
            // A run has a row, and its first batch says what its columns are.
            let Some(Ok(first)) = batches.peek() else {
                batches.next().transpose()?;
                continue;
            };
            let schema = first.schema();
            streams.push(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter(batches))));
        }
        let Some(schema) = streams.first().map(|stream| stream.schema()) else {
            return datafusion::common::internal_err!("a window without rows cannot be merged");
        };
        let by_key = (1..=keys).map(|at| {
            let column = Arc::new(Column::new(schema.field(at).name(), at));
            PhysicalSortExpr::new(column, SortOptions { descending: false, nulls_first: true })
        });
        let order = LexOrdering::new(by_key);
        let order = order.ok_or_else(|| datafusion::common::internal_datafusion_err!("runs are sorted by keys"))?;
        // Whoever spilled says how much memory there is; a merge holds a batch of each run.
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let stream = StreamingMergeBuilder::new()
            .with_streams(streams)
            .with_schema(schema)
            .with_expressions(&order)
            .with_metrics(BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), 0))
            .with_batch_size(batch_rows)
            .with_reservation(MemoryConsumer::new("runs").register(&pool));
        Ok(Self { stream: stream.build()? })
    }
}

impl Merged {
    pub(crate) fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }
}

impl Iterator for Merged {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        // Files are read as they are polled: the stream is never left waiting.
        futures::executor::block_on(self.stream.next())
    }
}
