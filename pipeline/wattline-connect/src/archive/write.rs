//! From batches to data files: one UTC date per file, rows sorted, Parquet that every engine skips well in.
//!
//! The sort is over row positions: only the key columns are gathered (as Arrow row-format keys), then rows are
//! interleaved in chunks straight into the encoder, so the batches are never copied as a whole. Ties keep the order of
//! arrival, which makes a file a function of its input. Memory beyond the input: the keys (about 40 bytes a row), one
//! chunk, and the encoded file (at most [`FILE_BYTES_MAX`] and one row group).

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, RecordBatch, new_null_array};
use arrow::compute::{concat, interleave_record_batch};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use arrow::temporal_conversions::date32_to_datetime;
use bytes::Bytes;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use wattline_core::record::column;

use super::DAY_US;
use crate::error::{Error, Result};

/// Encoded size at which a file is closed and the next begun.
pub(super) const FILE_BYTES_MAX: usize = 128 << 20;
const GROUP_ROWS_MAX: usize = 1 << 20;
/// Rows handed to the encoder at once: enough to amortise the call, small enough to stay in cache.
const CHUNK_ROWS: usize = 16 * 1024;
/// Rows that say what the values of a column are like.
const SAMPLE_ROWS: usize = 4 * 1024;

/// How the rows of one table lie in its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) schema: SchemaRef,
    pub(super) time_column: Option<String>,
    pub(super) sort_by: Vec<String>,
}

/// One encoded file, not yet in the store.
pub(super) struct Encoded {
    pub(super) event_date: Option<String>,
    pub(super) bytes: Bytes,
    pub(super) metadata: ParquetMetaData,
}

/// Splits, sorts and encodes `batches` (already in the table's schema); hands each file to `emit` as it is done.
///
/// CPU-bound: call it off the async threads. Stops early when `emit` returns false.
pub(super) fn encode_sorted(
    layout: &Layout,
    batches: &[RecordBatch],
    mut emit: impl FnMut(Encoded) -> bool,
) -> Result<()> {
    let order = Order::of(layout, batches).map_err(|source| failed("sort rows", source))?;
    let gatherer = Gatherer::new(layout, batches).map_err(|source| failed("gather rows", source))?;
    for run in order.rows.chunk_by(|a, b| order.days[*a] == order.days[*b]) {
        let mut encoder = Encoder::new(layout, run.first().and_then(|first| order.days[*first]));
        for chunk in run.chunks(CHUNK_ROWS) {
            let places: Vec<(usize, usize)> = chunk.iter().map(|row| order.place(*row)).collect();
            encoder.push(&gatherer.gather(&places).map_err(|source| failed("gather rows", source))?)?;
            if let Some(full) = encoder.roll_if_full()?
                && !emit(full)
            {
                return Ok(());
            }
        }
        if let Some(last) = encoder.finish()?
            && !emit(last)
        {
            return Ok(());
        }
    }
    Ok(())
}

/// Brings together rows of several batches. Columns without any value, most of a wide reading, are not walked.
struct Gatherer {
    schema: SchemaRef,
    /// For each column its place among the filled ones, or an array of nulls.
    columns: Vec<std::result::Result<usize, ArrayRef>>,
    /// The batches with their filled columns only.
    filled: Vec<RecordBatch>,
}

impl Gatherer {
    fn new(layout: &Layout, batches: &[RecordBatch]) -> std::result::Result<Self, ArrowError> {
        let mut kept = Vec::new();
        let mut columns = Vec::with_capacity(layout.schema.fields().len());
        for (at, field) in layout.schema.fields().iter().enumerate() {
            let is_empty = |batch: &RecordBatch| batch.column(at).null_count() == batch.num_rows();
            if batches.iter().all(is_empty) && field.is_nullable() {
                columns.push(Err(new_null_array(field.data_type(), CHUNK_ROWS)));
            } else {
                columns.push(Ok(kept.len()));
                kept.push(at);
            }
        }
        let filled = batches.iter().map(|batch| batch.project(&kept)).collect::<std::result::Result<_, _>>()?;
        Ok(Self { schema: Arc::clone(&layout.schema), columns, filled })
    }

    /// At most [`CHUNK_ROWS`] rows, each given by batch and row within it.
    fn gather(&self, places: &[(usize, usize)]) -> std::result::Result<RecordBatch, ArrowError> {
        let batches: Vec<&RecordBatch> = self.filled.iter().collect();
        let filled = interleave_record_batch(&batches, places)?;
        let column = |column: &std::result::Result<usize, ArrayRef>| match column {
            Ok(at) => Arc::clone(filled.column(*at)),
            Err(nulls) => nulls.slice(0, places.len()),
        };
        RecordBatch::try_new(Arc::clone(&self.schema), self.columns.iter().map(column).collect())
    }
}

/// The order in which the rows of several batches are written.
struct Order {
    /// Row numbers over all batches, in the order of writing.
    rows: Vec<usize>,
    /// Days since the epoch per row over all batches; `None` where the time is null or the table is undated.
    days: Vec<Option<i32>>,
    /// First row of each batch.
    starts: Vec<usize>,
}

impl Order {
    fn of(layout: &Layout, batches: &[RecordBatch]) -> std::result::Result<Self, ArrowError> {
        let mut starts = Vec::with_capacity(batches.len());
        let mut rows = 0;
        for batch in batches {
            starts.push(rows);
            rows += batch.num_rows();
        }
        let days = days(layout, batches, rows);
        let mut sorted: Vec<usize>;
        if rows > 0 && !layout.sort_by.is_empty() {
            let keys = key_columns(layout, batches)?;
            let converter =
                RowConverter::new(keys.iter().map(|key| SortField::new(key.data_type().clone())).collect())?;
            let keys = converter.convert_columns(&keys)?;
            // Most pairs differ in the first bytes: those are compared without a walk to the keys.
            let mut order: Vec<(Option<i32>, u128, usize)> =
                (0..rows).map(|row| (days[row], leading_bytes(keys.row(row).data()), row)).collect();
            order.sort_unstable_by(|a, b| {
                let leading = (a.0, a.1).cmp(&(b.0, b.1));
                leading.then_with(|| keys.row(a.2).cmp(&keys.row(b.2))).then(a.2.cmp(&b.2))
            });
            sorted = order.into_iter().map(|(_, _, row)| row).collect();
        } else {
            sorted = (0..rows).collect();
            sorted.sort_by_key(|&row| days[row]);
        }
        Ok(Self { rows: sorted, days, starts })
    }

    /// Batch and row within it.
    fn place(&self, row: usize) -> (usize, usize) {
        let batch = self.starts.partition_point(|start| *start <= row) - 1;
        (batch, row - self.starts[batch])
    }
}

/// The first bytes of a key as a number that sorts like them.
fn leading_bytes(key: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    let len = key.len().min(bytes.len());
    bytes[..len].copy_from_slice(&key[..len]);
    u128::from_be_bytes(bytes)
}

fn days(layout: &Layout, batches: &[RecordBatch], rows: usize) -> Vec<Option<i32>> {
    let mut days = Vec::with_capacity(rows);
    for batch in batches {
        match layout.time_column.as_deref().and_then(|name| batch.column_by_name(name)) {
            Some(times) => {
                let times = times.as_primitive::<TimestampMicrosecondType>();
                days.extend(times.iter().map(|time| time.and_then(|us| i32::try_from(us.div_euclid(DAY_US)).ok())));
            }
            None => days.extend(std::iter::repeat_n(None, batch.num_rows())),
        }
    }
    days
}

fn key_columns(layout: &Layout, batches: &[RecordBatch]) -> std::result::Result<Vec<ArrayRef>, ArrowError> {
    let names = layout.sort_by.iter().filter_map(|name| layout.schema.index_of(name).ok());
    names
        .map(|index| {
            let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(index).as_ref()).collect();
            concat(&parts)
        })
        .collect()
}

/// The number columns of a sample in which hardly any value comes twice, registers above all: there the encoder would look up
/// each value in a dictionary that it gives up in the end.
fn scattered_columns(sample: &RecordBatch) -> Vec<String> {
    let schema = sample.schema();
    let columns = schema.fields().iter().zip(sample.columns());
    columns.filter(|(_, column)| is_scattered(column)).map(|(field, _)| field.name().clone()).collect()
}

fn is_scattered(column: &ArrayRef) -> bool {
    let sample = column.slice(0, column.len().min(SAMPLE_ROWS));
    let (values, distinct) = match sample.data_type() {
        DataType::Int64 => distinct_of::<Int64Type>(&sample, i128::from),
        DataType::Float64 => distinct_of::<Float64Type>(&sample, |value| i128::from(value.to_bits())),
        DataType::Decimal128(_, _) => distinct_of::<Decimal128Type>(&sample, |value| value),
        _ => return false,
    };
    values >= SAMPLE_ROWS / 8 && distinct * 4 > values * 3
}

/// How many values there are, and how many different ones.
fn distinct_of<T: ArrowPrimitiveType>(sample: &ArrayRef, bits: impl Fn(T::Native) -> i128) -> (usize, usize) {
    let values = sample.as_primitive::<T>();
    let distinct: HashSet<i128> = values.iter().flatten().map(bits).collect();
    (values.len() - values.null_count(), distinct.len())
}

/// Writes rows of one date, already in order, into one or more Parquet files in memory.
pub(super) struct Encoder<'a> {
    layout: &'a Layout,
    event_date: Option<String>,
    /// From the first rows on, which say how their columns are best encoded.
    writer: Option<ArrowWriter<Vec<u8>>>,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(layout: &'a Layout, day: Option<i32>) -> Self {
        let event_date = day.and_then(date32_to_datetime).map(|at| at.date().to_string());
        Self::for_date(layout, event_date)
    }

    pub(super) fn for_date(layout: &'a Layout, event_date: Option<String>) -> Self {
        Self { layout, event_date, writer: None }
    }

    pub(super) fn push(&mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(open_writer(self.layout, &scattered_columns(rows)).map_err(encoding)?),
        };
        writer.write(rows).map_err(encoding)
    }

    /// Closes the file and begins the next one of the same date if this one is large enough.
    pub(super) fn roll_if_full(&mut self) -> Result<Option<Encoded>> {
        let bytes = self.writer.as_ref().map_or(0, |writer| writer.bytes_written() + writer.in_progress_size());
        if bytes < FILE_BYTES_MAX {
            return Ok(None);
        }
        let next = Self::for_date(self.layout, self.event_date.clone());
        std::mem::replace(self, next).finish()
    }

    /// The file, or `None` if it would have no rows.
    pub(super) fn finish(self) -> Result<Option<Encoded>> {
        let Some(mut writer) = self.writer else { return Ok(None) };
        let metadata = writer.finish().map_err(encoding)?;
        let bytes = std::mem::take(writer.inner_mut());
        Ok(Some(Encoded { event_date: self.event_date, bytes: bytes.into(), metadata }))
    }
}

fn open_writer(layout: &Layout, scattered: &[String]) -> parquet::errors::Result<ArrowWriter<Vec<u8>>> {
    let mut properties = WriterProperties::builder();
    for column in scattered {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(column.as_str()), false);
    }
    // Of events hardly any instant or offset comes twice: a dictionary would be built in vain.
    if layout.schema.column_with_name(column::OFFSET).is_some() {
        for column in [layout.time_column.as_deref(), Some(column::OFFSET)].into_iter().flatten() {
            let path = ColumnPath::from(column);
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
    }
    let properties = properties
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(GROUP_ROWS_MAX))
        .set_max_row_group_bytes(Some(FILE_BYTES_MAX))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_created_by(concat!("wattline ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_sorting_columns(sorting_columns(layout))
        .build();
    // The Arrow schema in the footer would only tell readers about types that the table does not have.
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&layout.schema), options)
}

/// The footer's claim about the order of rows, ascending with nulls first as the row format sorts.
///
/// Leaf numbers equal column numbers only before the first nested column, so the claim ends there.
pub(super) fn sorting_columns(layout: &Layout) -> Option<Vec<SortingColumn>> {
    let flat = layout.schema.fields().iter().take_while(|field| !field.data_type().is_nested()).count();
    let columns: Vec<SortingColumn> = layout
        .sort_by
        .iter()
        .map_while(|name| layout.schema.index_of(name).ok().filter(|index| *index < flat))
        .filter_map(|index| i32::try_from(index).ok())
        .map(|column_idx| SortingColumn { column_idx, descending: false, nulls_first: true })
        .collect();
    (columns.len() == layout.sort_by.len() && !columns.is_empty()).then_some(columns)
}

fn encoding(source: ParquetError) -> Error {
    Error::Parquet { path: "new file".to_owned(), source: Box::new(source) }
}

fn failed(operation: &'static str, source: ArrowError) -> Error {
    Error::Columns { operation, source: Box::new(source) }
}
