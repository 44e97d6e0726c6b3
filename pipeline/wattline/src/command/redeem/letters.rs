//! The dead letters that are asked for, by the record that each is of: everything of them but their bytes.
//!
//! A record is taken with all its letters if one of them is asked for, since what becomes of it is decided as a whole. Kept are
//! some 200 bytes a record; the records themselves are read later, as they are decoded.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use futures::StreamExt;
use wattline_connect::archive::Archive;
use wattline_core::amendment::Amendment;
use wattline_core::record::{LaneId, column};
use wattline_runtime::alerting::rfc3339;
use wattline_runtime::table::DEAD_LETTERS;

use super::OfStream;

const COLUMNS: [&str; 10] = [
    "stream",
    "reason",
    "refused_at",
    "record_ts",
    "record_topic",
    "record_partition",
    "record_offset",
    "record_index",
    column::TOPIC,
    column::OFFSET,
];

/// Which letters are asked for.
pub(super) struct Asked {
    pub(super) stream: Option<String>,
    pub(super) reason: Option<String>,
    /// Refused from then on, microseconds since the epoch.
    pub(super) since_us: Option<i64>,
}

impl Asked {
    /// As it stands in the table of redemptions.
    pub(super) fn words(&self) -> String {
        let stream = self.stream.as_ref().map(|stream| format!("stream {stream}"));
        let reason = self.reason.as_ref().map(|reason| format!("reason {reason}"));
        let since = self.since_us.map(|us| format!("since {}", rfc3339(us)));
        let words: Vec<String> = [stream, reason, since].into_iter().flatten().collect();
        if words.is_empty() { "all".to_owned() } else { words.join(", ") }
    }

    fn is(&self, reason: &str, refused_us: i64) -> bool {
        self.reason.as_deref().is_none_or(|wanted| wanted == reason)
            && self.since_us.is_none_or(|since_us| refused_us >= since_us)
    }
}

/// A letter's row of the table: its `_topic` and `_offset`.
pub(super) type LetterRow = (String, i64);

/// A record that was refused, or some of whose events were.
pub(super) struct Record {
    /// Its letters by the index of their event, with the reason they were refused for.
    pub(super) letters: BTreeMap<i32, (String, Vec<LetterRow>)>,
    /// By what clock its event times are judged, milliseconds since the epoch: when it was written, or read if that was earlier.
    pub(super) clock_ms: i64,
    /// Its events that are rows of the raw table.
    pub(super) rows: BTreeSet<i32>,
    is_asked: bool,
}

impl Record {
    /// How many letters it has.
    pub(super) fn letters(&self) -> u64 {
        self.letters.values().map(|(_, rows)| rows.len() as u64).sum()
    }
}

/// Lane and offset of a record.
pub(super) type Place = (LaneId, i64);

/// The records of one stream.
#[derive(Default)]
pub(super) struct Records(pub(super) BTreeMap<Place, Record>);

impl Records {
    /// Leaves out records whose letters stay, and counts these.
    pub(super) fn leave(&mut self, why: &str, told: &mut OfStream, stays: impl Fn(&Place, &Record) -> bool) {
        self.0.retain(|place, record| {
            let leaves = stays(place, record);
            if leaves {
                *told.left.entry(why.to_owned()).or_default() += record.letters();
            }
            !leaves
        });
    }

    /// The same of all.
    pub(super) fn leave_all(&mut self, why: &str, told: &mut OfStream) {
        self.leave(why, told, |_, _| true);
    }
}

/// Reads the letters that are asked for, by stream. Those that an unfinished amendment takes out are there no more.
pub(super) async fn read_letters(
    archive: &Archive,
    asked: &Asked,
    unfinished: Option<&Amendment>,
) -> Result<BTreeMap<String, Records>> {
    let mut streams: BTreeMap<String, Records> = BTreeMap::new();
    let mut batches = std::pin::pin!(archive.read_columns(DEAD_LETTERS, &COLUMNS).await?);
    while let Some(batch) = batches.next().await {
        note(&batch?, asked, unfinished, &mut streams)?;
    }
    for records in streams.values_mut() {
        records.0.retain(|_, record| record.is_asked);
    }
    streams.retain(|_, records| !records.0.is_empty());
    Ok(streams)
}

fn note(
    batch: &RecordBatch,
    asked: &Asked,
    unfinished: Option<&Amendment>,
    streams: &mut BTreeMap<String, Records>,
) -> Result<()> {
    let text = |at: usize| Ok::<_, anyhow::Error>(cast(batch.column(at), &DataType::Utf8)?.as_string::<i32>().clone());
    let instant = |at: usize| batch.column(at).as_primitive::<TimestampMicrosecondType>();
    let (stream, reason, topic, letter_topic) = (text(0)?, text(1)?, text(4)?, text(8)?);
    let (refused_us, record_us) = (instant(2), instant(3));
    let (partition, index) = (batch.column(5).as_primitive::<Int32Type>(), batch.column(7).as_primitive::<Int32Type>());
    let (offset, letter_offset) =
        (batch.column(6).as_primitive::<Int64Type>(), batch.column(9).as_primitive::<Int64Type>());
    // Rows that another program wrote do not say what they are, and stay.
    let is_whole = |row: &usize| batch.columns().iter().all(|column| column.is_valid(*row));
    for row in (0..batch.num_rows()).filter(is_whole) {
        let (name, letter) = (stream.value(row), (letter_topic.value(row).to_owned(), letter_offset.value(row)));
        let is_of_stream = asked.stream.as_deref().is_none_or(|wanted| wanted == name);
        if !is_of_stream || unfinished.is_some_and(|of| of.takes_out(&letter.0, letter.1)) {
            continue;
        }
        let records = match streams.get_mut(name) {
            Some(records) => records,
            None => streams.entry(name.to_owned()).or_default(),
        };
        let place = (LaneId::new(topic.value(row), partition.value(row)), offset.value(row));
        let clock_ms = record_us.value(row).min(refused_us.value(row)).div_euclid(1_000);
        let record = records.0.entry(place).or_insert_with(|| Record {
            letters: BTreeMap::new(),
            clock_ms,
            rows: BTreeSet::new(),
            is_asked: false,
        });
        record.is_asked |= asked.is(reason.value(row), refused_us.value(row));
        let letters = record.letters.entry(index.value(row));
        letters.or_insert_with(|| (reason.value(row).to_owned(), Vec::new())).1.push(letter);
    }
    Ok(())
}
