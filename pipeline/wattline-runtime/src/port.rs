//! What a job needs from the outside, as small traits: source, decoder, programs, store, archive, alert sink.
//!
//! The binary fills these ports with Kafka, DataFusion and Delta; tests fill them with plain memory. A port
//! speaks only of Arrow batches and of the words of `wattline-core`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use wattline_core::alert::AlertRecord;
use wattline_core::gap::LogBounds;
use wattline_core::manifest::AddedFile;
use wattline_core::record::{LaneId, RecordBlock};

use crate::error::Result;

/// Where a lane begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// At this offset.
    Offset(i64),
    /// At the first record there is.
    Earliest,
    /// After the last record there is.
    Latest,
    /// At the first record whose timestamp is at least this, in milliseconds since the epoch.
    Timestamp(i64),
}

/// What a source has to say.
#[derive(Debug)]
pub enum SourceEvent {
    /// These lanes may be taken and started.
    Assigned(Vec<LaneId>),
    /// These lanes belong to someone else now.
    Revoked(Vec<LaneId>),
    /// Raw records of one lane.
    Records(RecordBlock),
    /// Typed rows of one lane (from a columnar file); row `k` has offset `first_offset + k`.
    Columns {
        /// The lane.
        lane: LaneId,
        /// Offset of the first row.
        first_offset: i64,
        /// Process clock at reading, milliseconds since the epoch.
        fetched_at_ms: i64,
        /// The rows as they are in the file.
        batch: RecordBatch,
    },
    /// The header line of a text file with columns, before its first record.
    Header {
        /// The lane.
        lane: LaneId,
        /// The line.
        line: Vec<u8>,
    },
    /// A record above the size limit, of which only the beginning was read.
    Oversized {
        /// The lane.
        lane: LaneId,
        /// Offset of the record.
        offset: i64,
        /// Its length in bytes, as far as it was read.
        length_bytes: u64,
        /// Its first bytes.
        head: Vec<u8>,
    },
    /// Everything that is in the lane now has been handed over; the next record will have this offset.
    CaughtUp(LaneId, i64),
    /// The bounded input of the lane has ended; a further record would have this offset. Said only after all lanes
    /// of the source were assigned: the end of all known lanes is the end of the input.
    Ended(LaneId, i64),
    /// What the log is called that the lane is read from, before its first record: another log has another name.
    Log(LaneId, String),
    /// The log does not have the offset at which the lane has to go on. The lane stands still until it is started again.
    OffsetLost {
        /// The lane.
        lane: LaneId,
        /// Wanted offset.
        wanted: i64,
        /// What the log has.
        log: LogBounds,
    },
    /// Something outside is wrong for now; the source goes on trying.
    Trouble(String),
}

/// A source of raw records. Driven by one thread; never blocks longer than `max_wait`.
pub trait Source: Send {
    /// Waits for events.
    ///
    /// # Errors
    /// What cannot heal by itself; everything else is [`SourceEvent::Trouble`].
    fn poll(&mut self, max_wait: Duration) -> Result<Vec<SourceEvent>>;

    /// Lets an assigned lane flow. `log` is the name of the log that it was read from before, if that is known. A lane that is
    /// not assigned any more is left alone: it is started again when it comes back.
    ///
    /// # Errors
    /// If the position cannot be resolved.
    fn start(&mut self, lane: &LaneId, position: Position, log: Option<&str>) -> Result<()>;

    /// Holds all lanes back, or lets them flow again.
    ///
    /// # Errors
    /// If the client library refuses.
    fn set_paused(&mut self, paused: bool) -> Result<()>;

    /// Tells others (lag monitors) how far the job is. Advisory: the manifests are the truth.
    fn report_published(&mut self, positions: &[(LaneId, i64)]);

    /// Records between the published position and the end of the lane, if the source knows.
    fn lag(&self) -> Option<u64>;
}

/// What the decoder made of a block.
#[derive(Debug)]
pub struct Decoded {
    /// One row per accepted event, exactly the columns of the stream's schema.
    pub batch: RecordBatch,
    /// For each row the record of the block it came from.
    pub record: Vec<u32>,
    /// For each row its position within that record.
    pub index: Vec<i32>,
    /// Records and events that could not be typed.
    pub refused: Vec<Refused>,
    /// Payload fields that the schema does not know, counted by name.
    pub unknown_fields: BTreeMap<String, u64>,
}

/// A record or event that could not be typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Record of the block.
    pub record: u32,
    /// Position within the record.
    pub index: i32,
    /// Stable code of the reason.
    pub reason: &'static str,
    /// What exactly is wrong.
    pub detail: String,
    /// The text of the row, where the block holds no bytes of it (columnar files).
    pub raw: Option<String>,
    /// It was somebody outside who said so, and who may say otherwise to the next process that reads the record.
    pub is_by_others: bool,
}

/// Turns raw records of one stream into typed rows. One per worker and stream.
pub trait Decoder: Send {
    /// Decodes a block; bad records are [`Refused`].
    ///
    /// # Errors
    /// If what is needed to tell good records from bad ones is not to be had, and the job is to end.
    fn decode(&mut self, block: &RecordBlock) -> Result<Decoded>;

    /// Takes in the header line of a text file with columns.
    ///
    /// # Errors
    /// What is wrong with the header, for people.
    fn set_header(&mut self, lane: &LaneId, line: &[u8]) -> Result<(), String>;

    /// Fits typed rows of a columnar file to the stream's schema.
    fn decode_columns(&mut self, lane: &LaneId, batch: &RecordBatch) -> Decoded;
}

/// Output rows of one rule.
#[derive(Debug, Clone)]
pub struct RuleRows {
    /// Number of the rule.
    pub rule: usize,
    /// Rows with the rule's output schema.
    pub batch: RecordBatch,
    /// The four identity columns of the event behind each row; only for stateless rules.
    pub identity: Option<RecordBatch>,
}

/// A part of a keyed state, which one or more rules share.
#[derive(Debug, Clone)]
pub struct StateDelta {
    /// Number of the state.
    pub state: usize,
    /// The watermark that makes all of it final, microseconds since the epoch.
    pub final_at_us: i64,
    /// State rows; only the program of the rules can read them.
    pub batch: RecordBatch,
}

/// What the stages of one rule keep over final rows: one part of it.
#[derive(Debug, Clone)]
pub struct StageState {
    /// Number of the rule.
    pub rule: usize,
    /// Up to which watermark the stages had taken rows in, microseconds since the epoch.
    pub taken_us: i64,
    /// Which part; only the program of the rules knows what it is.
    pub part: usize,
    /// The rows.
    pub batch: RecordBatch,
}

/// A rule that failed at run time, in one lane or after the lanes were merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFailure {
    /// Number of the rule.
    pub rule: usize,
    /// Offset of the record at which it failed; -1 after the merge.
    pub offset: i64,
    /// What went wrong.
    pub message: String,
}

/// What the rules made of a batch or of a watermark.
#[derive(Debug, Default)]
pub struct RuleOutput {
    /// Output rows.
    pub rows: Vec<RuleRows>,
    /// Rules that failed; in a lane they will not be run there again.
    pub failures: Vec<RuleFailure>,
}

/// What became final.
#[derive(Debug, Default)]
pub struct FinalOutput {
    /// Output rows.
    pub rows: Vec<RuleRows>,
    /// Rows that could not be computed; their rules go on.
    pub failures: Vec<RuleFailure>,
    /// Rules that failed as a whole, with what went wrong: nothing more comes from them.
    pub stopped: Vec<(usize, String)>,
    /// This is a part of it: the rest comes with the next call.
    pub more: bool,
}

/// The lane part of all rules. One per worker.
pub trait LaneProgram: Send {
    /// Runs the rules of a stream over a batch of one lane.
    fn push(&mut self, lane: u32, stream: usize, batch: &RecordBatch) -> RuleOutput;

    /// Hands over all partial state that it holds.
    ///
    /// # Errors
    /// The text of what went wrong: a bug, since accepted rows were already evaluated.
    fn seal(&mut self) -> Result<Vec<StateDelta>, String>;

    /// Hands over only what the watermark of each state makes final: no event that is in time can change it any more.
    ///
    /// # Errors
    /// As for [`seal`](Self::seal).
    fn close(&mut self, watermarks_us: &[i64]) -> Result<Vec<StateDelta>, String>;

    /// For each state the lowest watermark at which [`close`](Self::close) would find something.
    fn first_final_us(&self) -> Vec<i64>;

    /// Memory that partial state holds, bytes.
    fn state_bytes(&self) -> usize;

    /// Stops running a rule in a lane.
    fn quarantine(&mut self, rule: usize, lane: u32);
}

/// State, one part after the other: all of it may be more than memory holds.
pub type Deltas = Box<dyn Iterator<Item = Result<StateDelta, String>> + Send>;

/// What stages keep, one part after the other.
pub type StageStates = Box<dyn Iterator<Item = Result<StageState, String>> + Send>;

/// The part of all rules after the lanes are merged. One per process.
pub trait FinalProgram: Send {
    /// Takes in partial state.
    ///
    /// # Errors
    /// The text of what went wrong; the rules of the state are quarantined.
    fn merge(&mut self, delta: &StateDelta) -> Result<(), String>;

    /// For a restore: takes in a part of what [`dump`](Self::dump) gave, at once; it may do the work with later calls.
    ///
    /// # Errors
    /// The text of what went wrong.
    fn restore(&mut self, delta: &StateDelta) -> Result<(), String> {
        self.merge(delta)
    }

    /// Puts state on disk if it has more than its share of memory.
    ///
    /// # Errors
    /// If the disk does not take it. The program then has everything that it had, and the call may be made again.
    fn relieve(&mut self) -> Result<()>;

    /// Advances each state to its watermark and gives the rows of its rules that became final, or a part of them: then it is
    /// called again with the same watermarks.
    ///
    /// # Errors
    /// If what was put on disk cannot be read. If the disk does not take what is to be merged there, nothing has been given, and the
    /// call may be made again.
    fn advance(&mut self, watermarks_us: &[i64]) -> Result<FinalOutput>;

    /// For a restore, before any state comes in: everything that the state gives final at the watermark is out, and is not
    /// given again.
    fn set_given(&mut self, state: usize, watermark_us: i64);

    /// For a rule that begins in a running stream: what it gives final at the watermark would lack what came before it.
    fn begin_at(&mut self, rule: usize, watermark_us: i64);

    /// For a rule that begins while the program runs: nothing that is final at the watermark is given.
    fn leave_out(&mut self, rule: usize, watermark_us: i64);

    /// For a rule that is to be given its past: nothing comes from it, and its stages keep nothing, until it goes on.
    fn hold(&mut self, rule: usize);

    /// Empties a state and puts it at a watermark: what is merged next is all that it holds.
    fn renew(&mut self, state: usize, watermark_us: i64);

    /// A rule that was held goes on, with empty stages: everything that it gives final at the watermark is out.
    fn go_on(&mut self, rule: usize, given_us: i64);

    /// The watermark up to which a state has been taken out: a snapshot leaves away what was final then.
    fn taken_us(&self, state: usize) -> i64;

    /// The whole state that came from the lanes; the program keeps it.
    ///
    /// # Errors
    /// The text of what went wrong.
    fn dump(&mut self) -> Result<Deltas, String>;

    /// What the rules keep over final rows; the program keeps it.
    ///
    /// # Errors
    /// The text of what went wrong.
    fn dump_stages(&mut self) -> Result<StageStates, String>;

    /// For a restore, before any state is merged: takes back what [`dump_stages`](Self::dump_stages) gave.
    ///
    /// # Errors
    /// The text of what went wrong.
    fn restore_stage(&mut self, state: &StageState) -> Result<(), String>;

    /// Rows of state held.
    fn state_rows(&self) -> usize;
}

/// Programs that join to other versions of the reference tables than those before them; all else about them is the same.
pub struct Reloaded {
    /// Version of each reference table, a hash of its content.
    pub versions: BTreeMap<String, String>,
    /// Lane part of the rules, one for each worker.
    pub lane_programs: Vec<Box<dyn LaneProgram>>,
    /// Merged part of the rules.
    pub final_program: Box<dyn FinalProgram>,
    /// Makes the programs of single rules.
    pub programs: Box<crate::Programs>,
}

impl fmt::Debug for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloaded").field("versions", &self.versions).finish_non_exhaustive()
    }
}

/// How old the content of a reference table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// The table.
    pub table: String,
    /// When it was last written, milliseconds since the epoch.
    pub changed_ms: i64,
    /// How old it may become, milliseconds.
    pub within_ms: i64,
}

/// What there is to say of the reference tables.
#[derive(Debug, Default)]
pub struct ReferencesSeen {
    /// New programs, if tables have changed.
    pub reloaded: Option<Reloaded>,
    /// Tables that are to be fresh.
    pub freshness: Vec<Freshness>,
    /// Why a table that has changed cannot be taken; the old version goes on.
    pub problems: Vec<String>,
}

/// The reference tables that the rules join to, as they stand outside.
pub trait References: Send {
    /// Looks whether they have changed since the last look; may block and take its time.
    fn look(&mut self) -> ReferencesSeen;
}

/// Whether a put-if-absent created the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is ours.
    Created,
    /// The name was taken.
    Exists,
}

/// Where manifests, state and pending rows live.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Creates an object if the name is free; durable when it returns.
    async fn put_if_absent(&self, path: &str, body: Bytes) -> Result<Put>;
    /// Reads an object; `None` if there is none.
    async fn get(&self, path: &str) -> Result<Option<Bytes>>;
    /// Names of all objects below a folder, in order.
    async fn list(&self, folder: &str) -> Result<Vec<String>>;
    /// Names of objects below a folder that come after a name, in order: the first ones, at most so many. A store that can begin
    /// there does; here all are listed.
    async fn list_after(&self, folder: &str, after: &str, at_most: usize) -> Result<Vec<String>> {
        let mut names = self.list(folder).await?;
        names.retain(|name| name.as_str() > after);
        names.truncate(at_most);
        Ok(names)
    }
    /// Deletes an object; none is no error.
    async fn delete(&self, path: &str) -> Result<()>;
}

/// Names the files of one commit so that no two are ever the same.
#[derive(Debug, Clone)]
pub struct FileTag {
    /// The chain.
    pub chain: String,
    /// Number of the manifest that will name the files.
    pub n: u64,
    /// Which call of this manifest's it is.
    pub part: u32,
    /// Nonce of the process.
    pub nonce: String,
}

/// Which rows and columns of a table are wanted.
#[derive(Debug, Clone, Copy)]
pub struct TableRange<'a> {
    /// Name of the table.
    pub table: &'a str,
    /// The columns, in this order.
    pub columns: &'a [String],
    /// The column by which the table is dated.
    pub time: &'a str,
    /// First and last instant, microseconds since the epoch, both included.
    pub between_us: (i64, i64),
}

/// The rows of a table, as they are read.
pub type Batches = BoxStream<'static, Result<RecordBatch>>;

/// The tables of events and results.
#[async_trait]
pub trait Archive: Send + Sync + fmt::Debug {
    /// Creates the table, or checks that the existing one fits.
    async fn ensure_table(&self, table: &crate::table::TableSpec) -> Result<()>;
    /// Writes closed files that belong to the table once [`Archive::commit`] says so.
    async fn write_files(&self, table: &str, batches: Vec<RecordBatch>, tag: &FileTag) -> Result<Vec<AddedFile>>;
    /// Adds files to the table under (`app_id`, `version`); doing it again has no effect.
    async fn commit(&self, table: &str, files: &[AddedFile], app_id: &str, version: u64) -> Result<()>;
    /// The rows that the table holds now and whose time lies in a range, column by column as asked for.
    async fn read_range(&self, range: &TableRange<'_>) -> Result<Batches>;
    /// Compaction, log checkpoints, cleanup; called from time to time in the background.
    async fn maintain(&self, table: &str) -> Result<()>;
}

/// What one slot tells another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotMessage {
    /// The slot that it is for.
    pub to: u32,
    /// Only slots can read it.
    pub payload: Bytes,
}

/// How the slots of a job reach each other.
#[async_trait]
pub trait ExchangeSink: Send + Sync + fmt::Debug {
    /// Brings messages to the inboxes of their slots, those to one slot in their order; durable when it returns. After a failure
    /// all of them are sent again: receivers know what they have.
    async fn send(&self, messages: &[SlotMessage]) -> Result<()>;
}

/// Where alerts go besides their table.
#[async_trait]
pub trait AlertSink: Send + Sync + fmt::Debug {
    /// Publishes the alerts of epoch `n` at once or not at all; `marker` is remembered with them.
    async fn publish(&self, records: &[AlertRecord], marker: &str, n: u64) -> Result<()>;
    /// Publishes alerts before their epoch is committed, each for itself. After a failure some of them may be out.
    async fn publish_early(&self, records: &[AlertRecord]) -> Result<()>;
    /// The marker of the last publication with one.
    async fn last_marker(&self) -> Result<Option<String>>;
}
