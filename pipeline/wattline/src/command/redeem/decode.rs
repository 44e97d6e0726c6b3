//! Decodes the records of one stream again and decides what becomes of each.
//!
//! Memory: the records of one batch of the table at a time, at most [`BLOCK_BYTES_MAX`] and one record more, and what they become.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, TimestampMicrosecondType};
use datafusion::logical_expr::{ident, lit};
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::prelude::{Expr, SessionContext};
use futures::StreamExt;
use wattline_connect::archive::Archive;
use wattline_connect::files::{FileFormat, FileSource, FileSourceConfig, format_by_name};
use wattline_connect::source::SourceEvent;
use wattline_core::lane::{TimeGuard, Verdict};
use wattline_core::record::{LaneId, RecordBlock, column};
use wattline_core::redemption::{REDEEMED_LATENESS_MS, RefusedRecord, decide_redemption};
use wattline_decode::WriterSchemas;
use wattline_runtime::port::{Decoded, Decoder as _};
use wattline_runtime::table::DEAD_LETTERS;

use super::letters::{Place, Record, Records};
use super::{OfStream, Written};
use crate::adapt::decoder::StreamDecoder;
use crate::command::progress_line::ProgressLine;
use crate::job;
use crate::project::{LoadedStream, file_format};

/// Bytes of records that are decoded at once.
const BLOCK_BYTES_MAX: usize = 32 << 20;
/// The reason of a record that is beyond a limit.
const TOO_LARGE: &str = "too_large";
const RAW_COLUMNS: [&str; 4] = ["record_topic", "record_partition", "record_offset", "raw"];

/// Redeems what can be redeemed of a stream.
pub(super) async fn redeem_stream(
    archive: &Archive,
    (stream, registry): (&LoadedStream, Option<&Arc<dyn WriterSchemas>>),
    records: &mut Records,
    told: &mut OfStream,
    written: &mut Written<'_>,
) -> Result<()> {
    let mut decoder = StreamDecoder::new(stream, registry)?;
    leave_unreadable(stream, records, &mut decoder, told);
    if records.0.is_empty() {
        return Ok(());
    }
    note_rows(archive, &stream.name, records).await?;
    let mut line = ProgressLine::new(format!("redeeming `{}`", stream.name), "records", records.0.len());
    let mut batches = read(archive, DEAD_LETTERS, &RAW_COLUMNS, ident("stream").eq(lit(stream.name.as_str()))).await?;
    let (mut redeeming, mut seen) = (Decoding { stream, decoder, told, guard: job::time_guard(stream) }, 0);
    while let Some(batch) = batches.next().await {
        let mut blocks = Blocks::default();
        let batch = batch?;
        for row in Raw::of(&batch)?.rows() {
            let Some(record) = records.0.remove(&row.0) else { continue };
            seen += 1;
            blocks.push(row, record);
            if blocks.bytes >= BLOCK_BYTES_MAX {
                redeeming.decode(std::mem::take(&mut blocks), written).await?;
            }
        }
        redeeming.decode(blocks, written).await?;
        line.at(seen);
    }
    // They left meanwhile: somebody else takes letters out of the table.
    records.leave_all("no longer there", redeeming.told);
    Ok(())
}

/// Leaves out what cannot be decoded from what is kept of it. Lanes of CSV files get their header.
fn leave_unreadable(stream: &LoadedStream, records: &mut Records, decoder: &mut StreamDecoder, told: &mut OfStream) {
    if stream.config.files.is_none() {
        return;
    }
    let configured = stream.config.format.as_ref().and_then(|format| file_format(format.get_ref()));
    let format = |lane: &LaneId| configured.or_else(|| format_by_name(Path::new(&*lane.topic)));
    let is_columnar = |place: &Place, _: &Record| format(&place.0) == Some(FileFormat::Parquet);
    records.leave("a row of a Parquet file, of which only a text is kept", told, is_columnar);
    let is_cut = |_: &Place, record: &Record| record.letters.values().any(|(reason, _)| reason == TOO_LARGE);
    records.leave("too_large: of an oversized line only the beginning is kept", told, is_cut);
    let lanes: BTreeSet<LaneId> = records.0.keys().map(|(lane, _)| lane.clone()).collect();
    for lane in lanes.into_iter().filter(|lane| format(lane) == Some(FileFormat::Csv)) {
        let set = header_of(&lane).and_then(|line| decoder.set_header(&lane, &line).map_err(|why| anyhow!(why)));
        if let Err(error) = set {
            let why = format!("the header of `{}` cannot be used: {error}", lane.topic);
            records.leave(&why, told, |place, _| place.0 == lane);
        }
    }
}

/// The header line of a CSV file as it is now.
fn header_of(lane: &LaneId) -> Result<Vec<u8>> {
    let mut config = FileSourceConfig::new(&*lane.topic);
    config.format = Some(FileFormat::Csv);
    let mut source = FileSource::open(config, Arc::new(|| 0_i64))?;
    let first = source.lanes().first().cloned().context("it is not there")?;
    source.start(&first, 0)?;
    let header = source.poll()?.into_iter().find_map(|event| match event {
        SourceEvent::Header { line, .. } => Some(line),
        _ => None,
    });
    header.context("it is empty")
}

/// Notes which events of the records are rows already.
async fn note_rows(archive: &Archive, table: &str, records: &mut Records) -> Result<()> {
    if !archive.table_names().await?.iter().any(|name| name == table) {
        return Ok(());
    }
    let offsets = || records.0.keys().map(|(_, offset)| *offset);
    let (Some(first), Some(last)) = (offsets().min(), offsets().max()) else { return Ok(()) };
    let within = ident(column::OFFSET).gt_eq(lit(first)).and(ident(column::OFFSET).lt_eq(lit(last)));
    let mut batches = read(archive, table, &column::IDENTITY, within).await?;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        let indexes = batch.column(3).as_primitive::<Int32Type>();
        for (at, place) in places(&batch)?.into_iter().enumerate() {
            let record = place.and_then(|place| records.0.get_mut(&place));
            if let Some(record) = record.filter(|_| indexes.is_valid(at)) {
                record.rows.insert(indexes.value(at));
            }
        }
    }
    Ok(())
}

/// The columns asked for of the rows of a table for which a condition holds.
async fn read(archive: &Archive, table: &str, columns: &[&str], filter: Expr) -> Result<SendableRecordBatchStream> {
    let provider = archive.provider(table).await?;
    let columns: Vec<Expr> = columns.iter().copied().map(ident).collect();
    let rows = SessionContext::new().read_table(provider)?.filter(filter)?.select(columns)?;
    rows.execute_stream().await.with_context(|| format!("the rows of table `{table}`"))
}

/// Lane and offset in the first three columns of a batch, row by row.
fn places(batch: &RecordBatch) -> Result<Vec<Option<Place>>> {
    let topics = cast(batch.column(0), &DataType::Utf8)?;
    let topics = topics.as_string::<i32>();
    let partitions = batch.column(1).as_primitive::<Int32Type>();
    let offsets = batch.column(2).as_primitive::<Int64Type>();
    let mut last: Option<LaneId> = None;
    let mut places = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        if topics.is_null(row) || partitions.is_null(row) || offsets.is_null(row) {
            places.push(None);
            continue;
        }
        let (topic, partition) = (topics.value(row), partitions.value(row));
        let lane = match last.take() {
            Some(lane) if lane.partition == partition && *lane.topic == *topic => lane,
            _ => LaneId::new(topic, partition),
        };
        places.push(Some((lane.clone(), offsets.value(row))));
        last = Some(lane);
    }
    Ok(places)
}

/// The bytes of a batch of letters.
struct Raw {
    places: Vec<Option<Place>>,
    raw: ArrayRef,
}

impl Raw {
    fn of(batch: &RecordBatch) -> Result<Self> {
        Ok(Self { places: places(batch)?, raw: cast(batch.column(3), &DataType::Binary)? })
    }

    fn rows(&self) -> impl Iterator<Item = (Place, &[u8])> {
        let raw = self.raw.as_binary::<i32>();
        let whole = self.places.iter().enumerate().filter(move |(row, _)| raw.is_valid(*row));
        whole.filter_map(move |(row, place)| Some((place.clone()?, raw.value(row))))
    }
}

/// Records that are decoded together, by lane.
#[derive(Default)]
struct Blocks {
    lanes: BTreeMap<LaneId, (RecordBlock, Vec<Record>)>,
    bytes: usize,
}

impl Blocks {
    fn push(&mut self, ((lane, offset), raw): (Place, &[u8]), record: Record) {
        let (block, records) = self
            .lanes
            .entry(lane)
            .or_insert_with_key(|lane| (RecordBlock::new(lane.clone(), record.clock_ms), Vec::new()));
        block.push(offset, record.clock_ms, raw);
        records.push(record);
        self.bytes += raw.len();
    }
}

/// Decodes records of a stream and counts what becomes of them.
struct Decoding<'a> {
    stream: &'a LoadedStream,
    decoder: StreamDecoder,
    told: &'a mut OfStream,
    guard: TimeGuard,
}

impl Decoding<'_> {
    async fn decode(&mut self, blocks: Blocks, written: &mut Written<'_>) -> Result<()> {
        for (block, records) in blocks.lanes.into_values() {
            let decoded = tokio::task::block_in_place(|| self.decoder.decode(&block))?;
            let judged = self.judge(&decoded, &records);
            let mut rows: HashMap<u32, BTreeSet<i32>> = HashMap::new();
            for ((number, record), mut of) in (0_u32..).zip(&records).zip(judged) {
                let decided = decide_redemption(&of.events(record));
                self.told.events += decided.rows.len() as u64;
                for (index, (reason, letters)) in &record.letters {
                    if decided.letters_out.contains(index) {
                        self.told.letters_out += letters.len() as u64;
                        self.told.already_rows += u64::from(record.rows.contains(index)) * letters.len() as u64;
                        letters.iter().for_each(|(topic, offset)| written.take_out(topic, *offset));
                    } else {
                        let why = of.why(*index);
                        let why = why.unwrap_or_else(|| format!("{reason}: no such event comes of the record now"));
                        *self.told.left.entry(why).or_default() += letters.len() as u64;
                    }
                }
                rows.insert(number, decided.rows);
            }
            let rows = self.rows(&block, &decoded, &rows)?;
            written.take(self.stream, rows).await?;
        }
        Ok(())
    }

    /// Which events of each record are accepted, and why the others are not.
    fn judge(&self, decoded: &Decoded, records: &[Record]) -> Vec<Judged> {
        let mut judged: Vec<Judged> = records.iter().map(|_| Judged::default()).collect();
        let times = decoded.batch.column(self.stream.schema.event_time).as_primitive::<TimestampMicrosecondType>();
        for (row, event_us) in times.values().iter().enumerate() {
            let (number, index) = (decoded.record[row] as usize, decoded.index[row]);
            let refused = match self.guard.judge(*event_us, records[number].clock_ms) {
                Verdict::Accepted => {
                    judged[number].accepted.insert(index);
                    continue;
                }
                Verdict::TooFarAhead => "too_far_ahead",
                Verdict::TooOld => "too_old",
            };
            judged[number].refused.insert(index, refused);
        }
        for refused in &decoded.refused {
            judged[refused.record as usize].refused.insert(refused.index, refused.reason);
        }
        judged
    }

    /// The rows that go into the raw table, with their system columns.
    fn rows(&self, block: &RecordBlock, decoded: &Decoded, rows: &HashMap<u32, BTreeSet<i32>>) -> Result<RecordBatch> {
        let places = || decoded.record.iter().zip(&decoded.index);
        let is_row = |(record, index): (&u32, &i32)| rows.get(record).is_some_and(|rows| rows.contains(index));
        let kept: Vec<(u32, i32)> =
            places().filter(|place| is_row(*place)).map(|(record, index)| (*record, *index)).collect();
        let mask: BooleanArray = places().map(|place| Some(is_row(place))).collect();
        let batch = filter_record_batch(&decoded.batch, &mask)?;
        let count = kept.len();
        let system: [(&str, ArrayRef); 5] = [
            (column::TOPIC, Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&*block.lane.topic, count)))),
            (column::PARTITION, Arc::new(Int32Array::from_value(block.lane.partition, count))),
            (
                column::OFFSET,
                Arc::new(Int64Array::from_iter_values(kept.iter().map(|(record, _)| block.offsets[*record as usize]))),
            ),
            (column::INDEX, Arc::new(Int32Array::from_iter_values(kept.iter().map(|(_, index)| *index)))),
            (column::LATENESS_MS, Arc::new(Int64Array::from_value(REDEEMED_LATENESS_MS, count))),
        ];
        let mut fields: Vec<Arc<Field>> = batch.schema().fields().iter().cloned().collect();
        let mut columns = batch.columns().to_vec();
        for (name, values) in system {
            fields.push(Arc::new(Field::new(name, values.data_type().clone(), false)));
            columns.push(values);
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}

/// What a record is now.
#[derive(Default)]
struct Judged {
    accepted: BTreeSet<i32>,
    refused: BTreeMap<i32, &'static str>,
}

impl Judged {
    fn events(&mut self, record: &Record) -> RefusedRecord {
        RefusedRecord {
            letters: record.letters.keys().copied().collect(),
            rows: record.rows.clone(),
            accepted: std::mem::take(&mut self.accepted),
            refused: self.refused.keys().copied().collect(),
        }
    }

    /// Why the event is refused, or else the record that it is of.
    fn why(&self, index: i32) -> Option<String> {
        let why = self.refused.get(&index).or_else(|| self.refused.values().next());
        why.map(|reason| (*reason).to_owned())
    }
}
