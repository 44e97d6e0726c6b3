//! The tables of the archive that wattline itself defines, and the batches that go into them.
//!
//! | table | one row per | event time |
//! |---|---|---|
//! | `<stream>` | accepted event: the columns of its schema, its identity, `_lateness_ms` | the stream's |
//! | `<rule id>` | row of a `table` rule | the rule's |
//! | `alerts` | record of an alert | `event_ts` |
//! | `dead_letters` | refused record or event, with its raw bytes | `refused_at` |
//! | `rule_errors` | rule that failed at run time | `failed_at` |
//! | `offset_gaps` | stretch of offsets that were gone from the source | `found_at` |
//! | `restatements`, `redemptions` | change from outside of a job (`audit`) | `restated_at`, `redeemed_at` |
//!
//! `dead_letters`, `rule_errors` and `offset_gaps` are streams as well ([`wattline_core::system_log`]): their rows have the system columns of events, and where
//! the record in question stands is in the columns `record_…`.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanArray, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit};
use wattline_core::alert::AlertRecord;
use wattline_core::gap::Gap;
use wattline_core::record::{LaneId, column};
use wattline_core::system_log::Recorded;

use crate::alerting;
use crate::error::{Error, Result};
use crate::intake::stream_schema;

mod audit;

pub use audit::{
    AUDIT_TABLES, Amended, REDEMPTIONS, RESTATEMENTS, Redemption, Restatement, redemption_batch, redemptions_table,
    restatement_batch, restatements_table,
};

/// Name of the table of alerts.
pub const ALERTS: &str = "alerts";
/// Name of the table of refused records.
pub const DEAD_LETTERS: &str = "dead_letters";
/// Name of the table of failed rules.
pub const RULE_ERRORS: &str = "rule_errors";
/// Name of the table of offsets that are gone. Not `gaps`: that is what a rule over readings would be called.
pub const OFFSET_GAPS: &str = "offset_gaps";

/// What the archive must know of a table.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Table name.
    pub name: String,
    /// What a row is, for people.
    pub description: String,
    /// Columns.
    pub schema: SchemaRef,
    /// The column whose UTC date partitions the table.
    pub event_time: String,
    /// Columns by which rows are sorted within a file.
    pub sort_by: Vec<String>,
}

/// The type of every instant in wattline.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn text(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Utf8, nullable)
}

fn instant(name: &str, nullable: bool) -> Field {
    Field::new(name, timestamp_type(), nullable)
}

/// A table of wattline itself that rules can read as a stream.
#[derive(Debug, Clone)]
pub struct SystemStream {
    /// Name of the stream and of its table.
    pub name: &'static str,
    /// The event-time column: when the row was recorded.
    pub event_time: &'static str,
    /// Its own columns, without the system columns.
    pub schema: SchemaRef,
}

/// The streams that every job has beside its own, in the order of their numbers, which follow those of the job's.
pub fn system_streams() -> [SystemStream; 3] {
    let stream = |name, event_time, fields| SystemStream { name, event_time, schema: Arc::new(Schema::new(fields)) };
    [
        stream(DEAD_LETTERS, "refused_at", dead_letter_fields()),
        stream(RULE_ERRORS, "failed_at", rule_error_fields()),
        stream(OFFSET_GAPS, "found_at", offset_gap_fields()),
    ]
}

/// The tables that every job has.
pub fn system_tables() -> Vec<TableSpec> {
    let spec = |name: &str, description: &str, schema: SchemaRef, event_time: &str, sort_by: &[&str]| TableSpec {
        name: name.into(),
        description: description.into(),
        schema,
        event_time: event_time.into(),
        sort_by: sort_by.iter().map(|s| (*s).to_owned()).collect(),
    };
    let alerts = spec(
        ALERTS,
        "alert records: every revision of every alert",
        Arc::new(Schema::new(alert_fields())),
        "event_ts",
        &["rule_id", "entity_id", "event_ts"],
    );
    let streams = system_streams().map(|stream| {
        let (description, first) = match stream.name {
            DEAD_LETTERS => ("records and events that could not be accepted", "stream"),
            OFFSET_GAPS => ("offsets that were gone from the source before they could be read", "stream"),
            _ => ("rules that failed at run time", "rule_id"),
        };
        let sort_by = [first, stream.event_time, column::OFFSET];
        spec(stream.name, description, stream_schema(&stream.schema), stream.event_time, &sort_by)
    });
    std::iter::once(alerts).chain(streams).collect()
}

fn alert_fields() -> Vec<Field> {
    let float = |name: &str| Field::new(name, DataType::Float64, true);
    let long = |name: &str| Field::new(name, DataType::Int64, false);
    vec![
        text("alert_id", false),
        text("fingerprint", false),
        long("revision"),
        text("status", false),
        text("severity", false),
        text("rule_id", false),
        text("rule_version", false),
        text("standard", true),
        text("category", false),
        text("entity_id", false),
        text("title", false),
        text("title_zh", true),
        float("measured"),
        float("limit_low"),
        float("limit_high"),
        text("unit", true),
        instant("event_ts", false),
        instant("window_start", true),
        instant("window_end", true),
        instant("first_seen_ts", false),
        instant("last_seen_ts", false),
        instant("resolved_ts", true),
        long("occurrences"),
        float("peak_measured"),
        text("explanation", false),
        text("evidence", false),
        text("source", true),
        text("runbook", true),
        Field::new("backfilled", DataType::Boolean, true),
    ]
}

fn dead_letter_fields() -> Vec<Field> {
    vec![
        instant("refused_at", false),
        text("stream", false),
        text("reason", false),
        text("detail", false),
        Field::new("raw", DataType::Binary, false),
        instant("record_ts", false),
        text("record_topic", false),
        Field::new("record_partition", DataType::Int32, false),
        Field::new("record_offset", DataType::Int64, false),
        Field::new("record_index", DataType::Int32, false),
    ]
}

fn rule_error_fields() -> Vec<Field> {
    vec![
        instant("failed_at", false),
        text("rule_id", false),
        text("rule_version", false),
        text("message", false),
        text("record_topic", true),
        Field::new("record_partition", DataType::Int32, true),
        Field::new("record_offset", DataType::Int64, true),
    ]
}

fn offset_gap_fields() -> Vec<Field> {
    vec![
        instant("found_at", false),
        text("stream", false),
        text("record_topic", false),
        Field::new("record_partition", DataType::Int32, false),
        Field::new("record_offset", DataType::Int64, false),
        Field::new("unread_offset", DataType::Int64, false),
        Field::new("next_offset", DataType::Int64, false),
    ]
}

/// A refused record with everything needed to repair and replay it.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The stream it was meant for.
    pub stream: Arc<str>,
    /// Where it stands.
    pub lane: LaneId,
    /// Offset of the record.
    pub offset: i64,
    /// Position of the event in the record.
    pub index: i32,
    /// Timestamp of the record, milliseconds since the epoch.
    pub record_ms: i64,
    /// Stable code of the reason.
    pub reason: &'static str,
    /// What exactly is wrong.
    pub detail: String,
    /// The record as it came.
    pub raw: Vec<u8>,
}

impl DeadLetter {
    /// Memory that it holds.
    pub(crate) fn held_bytes(&self) -> u64 {
        (size_of::<Self>() + self.detail.len() + self.raw.len()) as u64
    }
}

/// A rule that failed, for the table of rule errors.
#[derive(Debug, Clone)]
pub struct RuleError {
    /// Rule id.
    pub rule_id: String,
    /// Rule version.
    pub rule_version: String,
    /// The lane; absent if the lanes were already merged.
    pub lane: Option<LaneId>,
    /// Offset of the record, -1 if the lanes were already merged.
    pub offset: i64,
    /// What went wrong.
    pub message: String,
}

/// Offsets of a lane that are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetGap {
    /// The stream.
    pub stream: String,
    /// The lane.
    pub lane: LaneId,
    /// The offsets.
    pub gap: Gap,
    /// From here on they had not been read before.
    pub unread: i64,
}

fn micros(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter(values).with_timezone("UTC"))
}

fn strings<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(StringArray::from_iter(values))
}

fn batch(table: &str, fields: Vec<Field>, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(Error::arrow(table))
}

/// Puts the system columns after the others.
fn recorded_batch(
    stream: &SystemStream,
    lane: &LaneId,
    recorded: Recorded,
    mut columns: Vec<ArrayRef>,
) -> Result<RecordBatch> {
    let rows = columns[0].len();
    let topic = Arc::new(StringArray::from(vec![lane.topic.to_string()]));
    let topic = DictionaryArray::<Int32Type>::try_new(Int32Array::from_value(0, rows), topic);
    let offsets = (recorded.first_offset..).take(rows);
    let system: [ArrayRef; 5] = [
        Arc::new(topic.map_err(Error::arrow(stream.name))?),
        Arc::new(Int32Array::from_value(lane.partition, rows)),
        Arc::new(Int64Array::from_iter_values(offsets)),
        Arc::new(Int32Array::from_value(0, rows)),
        Arc::new(Int64Array::from_value(recorded.lateness_ms, rows)),
    ];
    columns.extend(system);
    RecordBatch::try_new(stream_schema(&stream.schema), columns).map_err(Error::arrow(stream.name))
}

/// Rows of the stream and table of dead letters, as they are recorded in a lane.
///
/// # Errors
/// [`Error::Arrow`] if more than 2 GiB of raw bytes come together.
pub fn dead_letter_batch(letters: &[DeadLetter], lane: &LaneId, recorded: Recorded) -> Result<RecordBatch> {
    let [stream, ..] = system_streams();
    let mut raw = BinaryBuilder::with_capacity(letters.len(), letters.iter().map(|l| l.raw.len()).sum());
    letters.iter().for_each(|letter| raw.append_value(&letter.raw));
    let columns: Vec<ArrayRef> = vec![
        micros(letters.iter().map(|_| Some(recorded.at_us))),
        strings(letters.iter().map(|l| Some(&*l.stream))),
        strings(letters.iter().map(|l| Some(l.reason))),
        strings(letters.iter().map(|l| Some(l.detail.as_str()))),
        Arc::new(raw.finish()),
        micros(letters.iter().map(|l| Some(l.record_ms.saturating_mul(1_000)))),
        strings(letters.iter().map(|l| Some(&*l.lane.topic))),
        Arc::new(Int32Array::from_iter_values(letters.iter().map(|l| l.lane.partition))),
        Arc::new(Int64Array::from_iter_values(letters.iter().map(|l| l.offset))),
        Arc::new(Int32Array::from_iter_values(letters.iter().map(|l| l.index))),
    ];
    recorded_batch(&stream, lane, recorded, columns)
}

/// Rows of the stream and table of rule errors, as they are recorded in a lane.
///
/// # Errors
/// [`Error::Arrow`] if the batch cannot be built.
pub fn rule_error_batch(errors: &[RuleError], lane: &LaneId, recorded: Recorded) -> Result<RecordBatch> {
    let [_, stream, _] = system_streams();
    let columns: Vec<ArrayRef> = vec![
        micros(errors.iter().map(|_| Some(recorded.at_us))),
        strings(errors.iter().map(|e| Some(e.rule_id.as_str()))),
        strings(errors.iter().map(|e| Some(e.rule_version.as_str()))),
        strings(errors.iter().map(|e| Some(e.message.as_str()))),
        strings(errors.iter().map(|e| e.lane.as_ref().map(|lane| &*lane.topic))),
        Arc::new(errors.iter().map(|e| e.lane.as_ref().map(|lane| lane.partition)).collect::<Int32Array>()),
        Arc::new(errors.iter().map(|e| e.lane.as_ref().map(|_| e.offset)).collect::<Int64Array>()),
    ];
    recorded_batch(&stream, lane, recorded, columns)
}

/// Rows of the stream and table of offsets that are gone, as they are recorded in a lane.
///
/// # Errors
/// [`Error::Arrow`] if the batch cannot be built.
pub fn offset_gap_batch(gaps: &[OffsetGap], lane: &LaneId, recorded: Recorded) -> Result<RecordBatch> {
    let [_, _, stream] = system_streams();
    let long = |of: fn(&OffsetGap) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(gaps.iter().map(of))) };
    let columns: Vec<ArrayRef> = vec![
        micros(gaps.iter().map(|_| Some(recorded.at_us))),
        strings(gaps.iter().map(|of| Some(of.stream.as_str()))),
        strings(gaps.iter().map(|of| Some(&*of.lane.topic))),
        Arc::new(Int32Array::from_iter_values(gaps.iter().map(|of| of.lane.partition))),
        long(|of| of.gap.first),
        long(|of| of.unread),
        long(|of| of.gap.next),
    ];
    recorded_batch(&stream, lane, recorded, columns)
}

/// Rows of the table of alerts.
///
/// # Errors
/// [`Error::Arrow`] if the batch cannot be built.
pub fn alert_batch(records: &[AlertRecord]) -> Result<RecordBatch> {
    let ids: Vec<String> = records.iter().map(AlertRecord::id).collect();
    let explanations: Vec<String> = records.iter().map(alerting::explanation).collect();
    let sources: Vec<Option<String>> = records.iter().map(|r| r.source.as_ref().map(alerting::source_text)).collect();
    let float = |get: fn(&AlertRecord) -> Option<f64>| -> ArrayRef {
        Arc::new(records.iter().map(get).collect::<Float64Array>())
    };
    let long = |get: fn(&AlertRecord) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(records.iter().map(|r| i64::try_from(get(r)).unwrap_or(i64::MAX))))
    };
    let word = |get: fn(&AlertRecord) -> Option<&str>| strings(records.iter().map(get));
    let time = |get: fn(&AlertRecord) -> Option<i64>| micros(records.iter().map(get));
    batch(
        ALERTS,
        alert_fields(),
        vec![
            strings(ids.iter().map(|id| Some(id.as_str()))),
            word(|r| Some(&r.fingerprint)),
            long(|r| r.revision),
            word(|r| Some(r.status.as_str())),
            word(|r| Some(r.severity.as_str())),
            word(|r| Some(&r.rule_id)),
            word(|r| Some(&r.rule_version)),
            word(|r| r.standard.as_deref()),
            word(|r| Some(&r.category)),
            word(|r| Some(&r.entity_id)),
            word(|r| Some(&r.title)),
            word(|r| r.title_zh.as_deref()),
            float(|r| r.measured),
            float(|r| r.limit_low),
            float(|r| r.limit_high),
            word(|r| r.unit.as_deref()),
            time(|r| Some(r.event_us)),
            time(|r| r.window_us.map(|w| w.0)),
            time(|r| r.window_us.map(|w| w.1)),
            time(|r| Some(r.first_seen_us)),
            time(|r| Some(r.last_seen_us)),
            time(|r| r.resolved_us),
            long(|r| r.occurrences),
            float(|r| r.peak_measured),
            strings(explanations.iter().map(|e| Some(e.as_str()))),
            word(|r| Some(&r.evidence)),
            strings(sources.iter().map(|s| s.as_deref())),
            word(|r| r.runbook.as_deref()),
            Arc::new(records.iter().map(|r| Some(r.backfilled)).collect::<BooleanArray>()),
        ],
    )
}
