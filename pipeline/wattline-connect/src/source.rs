//! What a source says to its driver, whether it reads Kafka or files.
//!
//! A driver calls `poll` and gets events in an order that means something per lane only: the records of a
//! lane come in offset order, and what is said about a lane (`CaughtUp`, `Ended`) is true of all records of it
//! that came before. Between lanes no order is promised.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use wattline_core::record::{LaneId, RecordBlock};

/// Tells the wall clock in milliseconds since the Unix epoch. Sources stamp what they fetch with it.
pub type ClockMs = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Something that a source has to say.
#[derive(Debug)]
pub enum SourceEvent {
    /// These lanes are now read by this process; each stays silent until it is started at a position.
    Assigned(Vec<LaneId>),
    /// These lanes are no longer read by this process; what is in flight of them must be dropped.
    Revoked(Vec<LaneId>),
    /// Raw records of one lane.
    Records(RecordBlock),
    /// Typed records of one lane: row `k` of the batch has offset `first_offset + k`.
    Columns {
        /// The lane.
        lane: LaneId,
        /// Offset of the first row.
        first_offset: i64,
        /// The clock when the rows were read, in milliseconds since the epoch.
        fetched_at_ms: i64,
        /// The rows, with the columns of the file.
        batch: RecordBatch,
    },
    /// The header line of a CSV file, before its first record (also when reading resumes in the middle).
    Header {
        /// The lane.
        lane: LaneId,
        /// The line without its end.
        line: Vec<u8>,
    },
    /// A record above the size limit, which is not handed over in a block: it is a dead letter.
    Oversized {
        /// The lane.
        lane: LaneId,
        /// Its offset.
        offset: i64,
        /// Its full size in bytes.
        length_bytes: u64,
        /// Its first bytes.
        head: Vec<u8>,
    },
    /// The lane has been read to its present end; said once for each end.
    CaughtUp {
        /// The lane.
        lane: LaneId,
        /// The offset that the next record will have at least.
        next_offset: i64,
    },
    /// The lane will give no more records: the end of a file, or of a partition read in bounded mode.
    Ended {
        /// The lane.
        lane: LaneId,
        /// The offset after the last record.
        next_offset: i64,
    },
    /// What the log is called that the lane is read from, said when the lane has been located: a topic that was made anew has
    /// logs of other names.
    Log {
        /// The lane.
        lane: LaneId,
        /// The name.
        log: String,
    },
    /// The wanted position is not in the log (expired, truncated or the topic was recreated). The lane stands still until
    /// it is started again; the source never chooses another position by itself.
    OffsetLost {
        /// The lane.
        lane: LaneId,
        /// The offset that was asked for.
        wanted: i64,
        /// The first offset the log has.
        first: i64,
        /// The offset after the last record of the log.
        end: i64,
        /// It is known not to be the log that the lane was read from before.
        is_another: bool,
    },
    /// The outside is in trouble; the source goes on trying.
    Trouble(Trouble),
}

/// A complaint of the client library that does not stop the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What it said.
    pub message: String,
    /// Whether no broker at all can be reached.
    pub all_brokers_down: bool,
}
