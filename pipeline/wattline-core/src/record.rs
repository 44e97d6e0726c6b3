//! Where an event comes from: lanes, identities and blocks of raw records.
//!
//! A block is the unit that travels from a source to the decoder: the records of ONE lane, in offset order,
//! in one contiguous buffer. There is no object per record; at a million records a second an allocation
//! each would cost more than the decoding.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Names of the system columns that every stream batch carries after the columns of its schema.
pub mod column {
    /// Topic (or file) of the record: text.
    pub const TOPIC: &str = "_topic";
    /// Kafka partition, 0 for files: 32-bit integer.
    pub const PARTITION: &str = "_partition";
    /// Kafka offset or record number in the file: 64-bit integer.
    pub const OFFSET: &str = "_offset";
    /// Position of the event in its record, 0 unless the record was exploded: 32-bit integer.
    pub const INDEX: &str = "_index";
    /// How far the event lies behind the highest time its lane had reached before it, in milliseconds.
    pub const LATENESS_MS: &str = "_lateness_ms";
    /// The UTC date of the event time, by which archive tables are partitioned.
    pub const EVENT_DATE: &str = "event_date";

    /// In the table of a rule that corrects its results: `insert` or `retract`.
    pub const CHANGE: &str = "_change";
    /// In the table of a rule that corrects its results: 1 for what came out first, higher for each correction.
    pub const REVISION: &str = "_revision";
    /// In the table of a rule that is backfilled: the clock when the row was computed from the archive, null for rows of the stream.
    pub const BACKFILLED_AT: &str = "_backfilled_at";

    /// The four columns that identify an event.
    pub const IDENTITY: [&str; 4] = [TOPIC, PARTITION, OFFSET, INDEX];
    /// All columns that wattline adds to a stream, in their order.
    pub const SYSTEM: [&str; 5] = [TOPIC, PARTITION, OFFSET, INDEX, LATENESS_MS];
}

/// One Kafka partition or one file: the unit within which order means something.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LaneId {
    /// Kafka topic, or the path of a file.
    pub topic: Arc<str>,
    /// Kafka partition; 0 for a file.
    pub partition: i32,
}

impl LaneId {
    /// Names a lane.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// Raw records of one lane, in offset order. `ends[k]` is where record `k` ends in `bytes`.
#[derive(Debug, Clone)]
pub struct RecordBlock {
    /// The lane of all records.
    pub lane: LaneId,
    /// Offset of each record; strictly increasing, not always contiguous.
    pub offsets: Vec<i64>,
    /// Kafka timestamp of each record in milliseconds since the epoch, -1 if it has none.
    pub timestamps_ms: Vec<i64>,
    /// Whether `timestamps_ms` were set by the broker at append (then they serve as the clock of the time guards).
    pub log_append_time: bool,
    /// The process clock when the block was fetched, in milliseconds since the epoch.
    pub fetched_at_ms: i64,
    /// End of each record in `bytes`.
    pub ends: Vec<u32>,
    /// The payloads, one after the other.
    pub bytes: Vec<u8>,
}

impl RecordBlock {
    /// An empty block of a lane.
    pub fn new(lane: LaneId, fetched_at_ms: i64) -> Self {
        Self {
            lane,
            offsets: Vec::new(),
            timestamps_ms: Vec::new(),
            log_append_time: false,
            fetched_at_ms,
            ends: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Appends one record.
    ///
    /// # Panics
    /// If the block would exceed 4 GiB: sources cap blocks at a few MiB.
    pub fn push(&mut self, offset: i64, timestamp_ms: i64, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
        let end = u32::try_from(self.bytes.len()).expect("a block is capped far below 4 GiB");
        self.offsets.push(offset);
        self.timestamps_ms.push(timestamp_ms);
        self.ends.push(end);
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether the block holds no record.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The payload of record `k`.
    pub fn payload(&self, k: usize) -> &[u8] {
        let start = if k == 0 { 0 } else { self.ends[k - 1] as usize };
        &self.bytes[start..self.ends[k] as usize]
    }
}
