//! A worker thread: owns some lanes, runs everything that is per lane.
//!
//! Messages arrive in one bounded queue, so a barrier stands between two blocks and cuts all lanes of the worker
//! at a record boundary. At a barrier the worker hands over what it gathered and goes on at once: sealing moves
//! buffers, it does not copy or wait. Partial state is handed over only for a checkpoint, or window by window once the
//! coordinator knows from the barrier how far all lanes have come: what is final cannot change after the barrier.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use crossbeam_channel::{Receiver, TryRecvError};
use tokio::sync::oneshot;
use wattline_core::gap::Gap;
use wattline_core::lane::IdleAdvance;
use wattline_core::late::LateStretches;
use wattline_core::record::{LaneId, RecordBlock};

use crate::coordinator::{EarlyRules, INBOX, InboxMessage, held_bytes};
use crate::error::{Error, Result};
use crate::intake::{BlockPlace, Doubt, Lane, Replay, StreamIntake};
use crate::port::{Decoded, Decoder, LaneProgram, RuleFailure, RuleOutput, RuleRows, StateDelta};
use crate::progress::Progress;
use crate::table::DeadLetter;
use crate::threads::{Part, Turn};

/// Rows after which a worker looks how much memory its partial state has.
const LOOK_ROWS: usize = 32 * 1024;

/// Number of a lane within the process.
pub(crate) type LaneNumber = u32;

/// What a worker is told.
pub(crate) enum WorkerMessage {
    /// Take this lane.
    Open(Box<LaneOpening>),
    /// Raw records.
    Records(LaneNumber, RecordBlock),
    /// Typed rows.
    Columns { lane: LaneNumber, first_offset: i64, fetched_at_ms: i64, batch: RecordBatch },
    /// Header line of a text file.
    Header(LaneNumber, Vec<u8>),
    /// A record that is too large to be read.
    Oversized { lane: LaneNumber, offset: i64, length_bytes: u64, head: Vec<u8>, fetched_at_ms: i64 },
    /// The silent lane is advanced.
    Idle(LaneNumber, i64),
    /// The source has handed over everything below this offset, also where offsets are missing.
    Reached(LaneNumber, i64),
    /// The lane's bounded input has ended.
    Ended(LaneNumber, i64),
    /// The source reads the lane from the log of this name.
    Log(LaneNumber, String),
    /// These offsets of the lane are gone.
    Gap(LaneNumber, Gap),
    /// These rules were stopped in the lane of a system stream.
    Quarantine(LaneNumber, Vec<usize>),
    /// Run the rules over rows of a system stream, and hand over the partial state up to these watermarks, if they are given.
    System {
        lane: LaneNumber,
        stream: usize,
        batch: RecordBatch,
        watermarks_us: Option<Arc<[i64]>>,
        reply: oneshot::Sender<SystemReport>,
    },
    /// Report; with the raw rows and all partial state for a checkpoint. A checkpoint can also be where another program, with
    /// other versions of the reference tables, takes the place of the one before.
    Barrier { checkpoint: bool, program: Option<Box<dyn LaneProgram>>, reply: oneshot::Sender<WorkerReport> },
    /// Hand over the partial state that the watermark of each state makes final.
    Close { watermarks_us: Arc<[i64]>, reply: oneshot::Sender<Result<Vec<StateDelta>>> },
}

/// How a lane begins on its worker.
pub(crate) struct LaneOpening {
    pub(crate) number: LaneNumber,
    pub(crate) lane: LaneId,
    pub(crate) stream: usize,
    pub(crate) resume: Option<i64>,
    pub(crate) reached_us: i64,
    pub(crate) replay: Replay,
    pub(crate) quarantined: Vec<usize>,
    /// Rules that failed at or after `resume`, and where.
    pub(crate) fails_later: Vec<(i64, usize)>,
}

/// What a worker has to say at a barrier.
#[derive(Debug, Default)]
pub(crate) struct WorkerReport {
    pub(crate) lanes: Vec<LaneReport>,
    pub(crate) rows: Vec<RuleRows>,
    pub(crate) failures: Vec<(LaneId, RuleFailure)>,
    /// All partial state, only for a checkpoint.
    pub(crate) deltas: Vec<StateDelta>,
    /// For each state the lowest watermark that would make something final that is held here.
    pub(crate) first_final_us: Vec<i64>,
    pub(crate) dead_letters: Vec<DeadLetter>,
    /// Where events are that came too late for a rule that corrects its results, by rule.
    pub(crate) late: BTreeMap<usize, LateStretches>,
    /// What came for this slot from the slots.
    pub(crate) inbox: Vec<InboxMessage>,
    /// Raw rows by stream, only for a checkpoint.
    pub(crate) raw: BTreeMap<usize, Vec<RecordBatch>>,
    pub(crate) error: Option<Error>,
}

/// What the rules made of rows of a system stream.
#[derive(Debug)]
pub(crate) struct SystemReport {
    pub(crate) output: RuleOutput,
    pub(crate) deltas: Result<Vec<StateDelta>, String>,
}

/// Where a lane stands at a barrier.
#[derive(Debug)]
pub(crate) struct LaneReport {
    pub(crate) lane: LaneId,
    /// The first offset taken in, if the lane has begun.
    pub(crate) first_offset: Option<i64>,
    pub(crate) next_offset: Option<i64>,
    pub(crate) reached_us: i64,
    pub(crate) ended: bool,
    /// Nothing came since the source had handed over everything.
    pub(crate) silent: bool,
    pub(crate) idle_advances: Vec<IdleAdvance>,
    pub(crate) refused: Vec<(i64, i32)>,
    pub(crate) log: Option<String>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) doubt: Doubt,
}

/// A worker and what it works with.
pub(crate) struct Worker {
    pub(crate) number: usize,
    pub(crate) queue: Receiver<WorkerMessage>,
    pub(crate) streams: Arc<[StreamIntake]>,
    pub(crate) decoders: Vec<Box<dyn Decoder>>,
    pub(crate) program: Box<dyn LaneProgram>,
    /// The program before it, until the next barrier: what is to be run for the epoch that the last one cut belongs to it.
    pub(crate) before: Option<Box<dyn LaneProgram>>,
    /// In a job of several slots: what is final at these watermarks, by state, was told before this process began.
    pub(crate) told_us: Option<Arc<[i64]>>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) lanes: BTreeMap<LaneNumber, Lane>,
    /// Rules that were stopped in a lane.
    pub(crate) quarantined: BTreeSet<(usize, LaneNumber)>,
    pub(crate) pending: WorkerReport,
    /// Rules whose rows do not wait for the next tick.
    pub(crate) early: Arc<EarlyRules>,
    /// What this worker has added to the gauge of partial state.
    pub(crate) state_bytes: u64,
    /// Rows since it was last looked how much memory the partial state has: to look means to ask every window.
    pub(crate) rows_since_look: usize,
}

/// Works until the queue is closed.
impl Part for Worker {
    fn turn(&mut self, waits: bool) -> Turn {
        let next = if waits { self.queue.recv().map_err(TryRecvError::from) } else { self.queue.try_recv() };
        match next {
            // A coordinator that no longer listens is shutting down.
            Ok(message) => {
                if self.take(message) {
                    Turn::Done
                } else {
                    Turn::Over
                }
            }
            Err(TryRecvError::Empty) => Turn::Nothing,
            Err(TryRecvError::Disconnected) => Turn::Over,
        }
    }
}

impl Worker {
    /// Does what a message says; false if nobody listens to the answer.
    fn take(&mut self, message: WorkerMessage) -> bool {
        match message {
            WorkerMessage::Barrier { checkpoint, program, reply } => {
                let report = self.report(checkpoint);
                self.before = None;
                if let Some(program) = program {
                    self.change_over(program);
                }
                reply.send(report).is_ok()
            }
            WorkerMessage::Close { watermarks_us, reply } => {
                let dropped = self.drop_what_was_told();
                let closed = dropped.and_then(|()| self.program.close(&watermarks_us));
                let closed = closed.map_err(|what| Error::State { what });
                self.note_state();
                reply.send(closed).is_ok()
            }
            WorkerMessage::System { lane, stream, batch, watermarks_us, reply } => {
                reply.send(self.take_system_rows(lane, stream, &batch, watermarks_us)).is_ok()
            }
            message => {
                if self.pending.error.is_none() {
                    self.pending.error = self.handle(message).err();
                }
                true
            }
        }
    }

    fn handle(&mut self, message: WorkerMessage) -> Result<()> {
        match message {
            WorkerMessage::Open(opening) => self.open(*opening),
            WorkerMessage::Records(lane, block) => self.take_records(lane, &block)?,
            WorkerMessage::Columns { lane, first_offset, fetched_at_ms, batch } => {
                self.take_columns(lane, first_offset, fetched_at_ms, &batch)?;
            }
            WorkerMessage::Header(lane, line) => self.take_header(lane, &line)?,
            WorkerMessage::Oversized { lane, offset, length_bytes, head, fetched_at_ms } => {
                self.refuse_oversized(lane, offset, length_bytes, head, fetched_at_ms);
            }
            WorkerMessage::Idle(lane, reached_us) => {
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.advance_idle(reached_us);
                }
            }
            WorkerMessage::Reached(lane, next_offset) => {
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.note_reached(next_offset);
                    // While it re-reads, a lane takes its advances from the manifests and gets no new ones.
                    lane.silent = next_offset >= lane.published();
                    self.progress.note_processed(&lane.id, next_offset);
                }
            }
            WorkerMessage::Ended(lane, next_offset) => {
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.note_reached(next_offset);
                    lane.ended = true;
                }
            }
            WorkerMessage::Log(lane, log) => {
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.log = Some(log);
                }
            }
            WorkerMessage::Gap(lane, gap) => self.cross_gap(lane, gap),
            WorkerMessage::Quarantine(lane, rules) => rules.into_iter().for_each(|rule| self.quarantine(rule, lane)),
            WorkerMessage::Barrier { .. } | WorkerMessage::Close { .. } | WorkerMessage::System { .. } => {}
        }
        Ok(())
    }

    fn note_failures(&mut self, number: LaneNumber, lane: &LaneId, failures: Vec<RuleFailure>) {
        self.quarantined.extend(failures.iter().map(|failure| (failure.rule, number)));
        self.pending.failures.extend(failures.into_iter().map(|failure| (lane.clone(), failure)));
    }

    fn quarantine(&mut self, rule: usize, lane: LaneNumber) {
        self.program.quarantine(rule, lane);
        self.quarantined.insert((rule, lane));
    }

    fn cross_gap(&mut self, number: LaneNumber, gap: Gap) {
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        let failed = lane.cross_gap(gap);
        self.progress.note_processed(&lane.id, gap.next);
        failed.into_iter().for_each(|rule| self.quarantine(rule, number));
    }

    fn take_system_rows(
        &mut self,
        lane: LaneNumber,
        stream: usize,
        batch: &RecordBatch,
        watermarks_us: Option<Arc<[i64]>>,
    ) -> SystemReport {
        let program = self.before.as_mut().unwrap_or(&mut self.program);
        let output = program.push(lane, stream, batch);
        let told = self.told_us.as_ref().map_or_else(|| Ok(Vec::new()), |told_us| program.close(told_us));
        let deltas = watermarks_us.map_or_else(|| Ok(Vec::new()), |until_us| program.close(&until_us));
        let deltas = told.and(deltas);
        output.failures.iter().for_each(|failure| self.quarantine(failure.rule, lane));
        self.note_state();
        SystemReport { output, deltas }
    }

    /// Goes on with another program; nothing is left in the old one.
    fn change_over(&mut self, program: Box<dyn LaneProgram>) {
        self.before = Some(std::mem::replace(&mut self.program, program));
        for (rule, lane) in &self.quarantined {
            self.program.quarantine(*rule, *lane);
        }
    }

    fn open(&mut self, opening: LaneOpening) {
        opening.quarantined.into_iter().for_each(|rule| self.quarantine(rule, opening.number));
        let mut lane = Lane::new(opening.lane, opening.stream, opening.resume, opening.reached_us, opening.replay);
        lane.fails_later = opening.fails_later;
        self.lanes.insert(opening.number, lane);
        self.note_time(opening.stream);
    }

    fn take_records(&mut self, number: LaneNumber, block: &RecordBlock) -> Result<()> {
        let Some(lane) = self.lanes.get_mut(&number) else { return Ok(()) };
        if lane.stream == INBOX {
            if let Some(last) = block.offsets.last() {
                lane.first_offset.get_or_insert(block.offsets[0]);
                lane.note_reached(last + 1);
            }
            let message =
                |k: usize| InboxMessage { offset: block.offsets[k], payload: block.payload(k).to_vec().into() };
            self.progress.buffered_bytes.fetch_add(block.bytes.len() as u64, Ordering::Relaxed);
            self.pending.inbox.extend((0..block.len()).map(message));
            return Ok(());
        }
        let decoded = self.decoders[lane.stream].decode(block)?;
        Progress::add(&self.progress.records, block.len());
        Progress::add(&self.progress.bytes, block.bytes.len());
        let place = BlockPlace {
            offsets: &block.offsets,
            timestamps_ms: &block.timestamps_ms,
            log_append_time: block.log_append_time,
            fetched_at_ms: block.fetched_at_ms,
        };
        self.take_decoded(number, decoded, &place, &|record| block.payload(record).to_vec())
    }

    fn take_columns(
        &mut self,
        number: LaneNumber,
        first_offset: i64,
        fetched_at_ms: i64,
        batch: &RecordBatch,
    ) -> Result<()> {
        let Some(lane) = self.lanes.get(&number) else { return Ok(()) };
        let decoded = self.decoders[lane.stream].decode_columns(&lane.id, batch);
        let rows = batch.num_rows();
        Progress::add(&self.progress.records, rows);
        let offsets: Vec<i64> = (first_offset..).take(rows).collect();
        let timestamps_ms = vec![-1; rows];
        let place =
            BlockPlace { offsets: &offsets, timestamps_ms: &timestamps_ms, log_append_time: false, fetched_at_ms };
        self.take_decoded(number, decoded, &place, &|record| row_json(batch, record))
    }

    fn take_header(&mut self, number: LaneNumber, line: &[u8]) -> Result<()> {
        let Some(lane) = self.lanes.get(&number) else { return Ok(()) };
        self.decoders[lane.stream].set_header(&lane.id, line).map_err(|reason| Error::Port {
            what: format!("reading the header of `{}`: {reason}", lane.id.topic),
            kind: wattline_core::error::Kind::Invalid,
            retry: wattline_core::error::Retry::Never,
            source: reason.into(),
        })
    }

    fn refuse_oversized(&mut self, number: LaneNumber, offset: i64, length: u64, head: Vec<u8>, fetched_at_ms: i64) {
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        Progress::add(&self.progress.records, 1);
        Progress::add(&self.progress.refused, 1);
        lane.note_reached(offset + 1);
        if offset < lane.published() {
            return;
        }
        let Some(stream) = self.streams.get(lane.stream) else { return };
        let letter = DeadLetter {
            stream: Arc::clone(&stream.name),
            lane: lane.id.clone(),
            offset,
            index: 0,
            record_ms: fetched_at_ms,
            reason: "too_large",
            detail: format!("the record has {length} bytes or more; only its beginning is kept"),
            raw: head,
        };
        self.keep_letters(vec![letter]);
    }

    fn take_decoded(
        &mut self,
        number: LaneNumber,
        decoded: Decoded,
        place: &BlockPlace<'_>,
        raw: &dyn Fn(usize) -> Vec<u8>,
    ) -> Result<()> {
        let Some(lane) = self.lanes.get_mut(&number) else { return Ok(()) };
        let streams = Arc::clone(&self.streams);
        let stream = &streams[lane.stream];
        self.progress.note_unknown(&stream.name, &decoded.unknown_fields);
        let admitted = lane.admit(stream, decoded, place, raw)?;
        let (number_of_stream, id) = (lane.stream, lane.id.clone());
        let rows = admitted.batch.num_rows();
        Progress::add(&self.progress.events, rows);
        Progress::add(&self.progress.late, admitted.late);
        Progress::add(&self.progress.refused, admitted.dead_letters.len());
        stream.note_late(&admitted.batch, &mut self.pending.late);
        self.keep_letters(admitted.dead_letters);
        if rows > 0 {
            let (old, new) = (admitted.replayed, rows - admitted.replayed);
            if old > 0 {
                // These rows were published before: they rebuild state, their outputs are already out.
                let output = self.program.push(number, number_of_stream, &admitted.batch.slice(0, old));
                self.note_failures(number, &id, output.failures);
            }
            if new > 0 {
                stream.count_too_late(&admitted.batch.slice(old, new), &self.progress);
                let output = self.program.push(number, number_of_stream, &admitted.batch.slice(old, new));
                self.early.note(&output.rows);
                self.pending.rows.extend(output.rows);
                self.note_failures(number, &id, output.failures);
            }
            self.rows_since_look += rows;
            if self.rows_since_look >= LOOK_ROWS {
                self.note_state();
            }
            let bytes = held_bytes(&admitted.batch);
            self.progress.buffered_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.pending.raw.entry(number_of_stream).or_default().push(admitted.batch);
        }
        if let Some(next) = self.lanes.get(&number).and_then(|lane| lane.next_offset) {
            self.progress.note_processed(&id, next);
        }
        self.note_time(number_of_stream);
        Ok(())
    }

    /// Tells how far the lanes of a stream have come, if somebody waits for that.
    fn note_time(&self, stream: usize) {
        if self.early.follows(stream) {
            let of_stream = self.lanes.values().filter(|lane| lane.stream == stream);
            let least_us = of_stream.map(|lane| lane.clock.reached_us()).min();
            self.early.note_time(self.number, stream, least_us);
        }
    }

    /// Keeps refused records for the next report. A flood of them fills the buffers as events do.
    fn keep_letters(&mut self, letters: Vec<DeadLetter>) {
        let bytes = letters.iter().map(DeadLetter::held_bytes).sum();
        self.progress.buffered_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.pending.dead_letters.extend(letters);
    }

    /// Tells how much memory the partial state has now.
    fn note_state(&mut self) {
        self.rows_since_look = 0;
        let bytes = self.program.state_bytes() as u64;
        let before = std::mem::replace(&mut self.state_bytes, bytes);
        // Wraps around where it becomes less: the sum over all workers is right.
        self.progress.state_bytes.fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Drops the partial state of which the slot had told before this process began, and which was read again.
    fn drop_what_was_told(&mut self) -> Result<(), String> {
        match &self.told_us {
            Some(told_us) => self.program.close(told_us).map(drop),
            None => Ok(()),
        }
    }

    fn report(&mut self, checkpoint: bool) -> WorkerReport {
        let kept_raw = if checkpoint { BTreeMap::new() } else { std::mem::take(&mut self.pending.raw) };
        let mut report = std::mem::take(&mut self.pending);
        self.pending.raw = kept_raw;
        if checkpoint {
            match self.drop_what_was_told().and_then(|()| self.program.seal()) {
                Ok(deltas) => report.deltas = deltas,
                Err(what) => report.error = report.error.or(Some(Error::State { what })),
            }
            self.note_state();
        }
        report.first_final_us = self.program.first_final_us();
        report.lanes = self
            .lanes
            .values_mut()
            .map(|lane| LaneReport {
                lane: lane.id.clone(),
                first_offset: lane.first_offset,
                next_offset: lane.next_offset,
                reached_us: lane.clock.reached_us(),
                ended: lane.ended,
                silent: lane.silent,
                idle_advances: std::mem::take(&mut lane.idle_advances),
                refused: std::mem::take(&mut lane.refused),
                log: lane.log.clone(),
                gaps: std::mem::take(&mut lane.gaps),
                doubt: std::mem::take(&mut lane.doubt),
            })
            .collect();
        report
    }
}

/// The text of a row of a columnar file, for its dead letter.
fn row_json(batch: &RecordBatch, row: usize) -> Vec<u8> {
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    match writer.write(&batch.slice(row, 1)).and_then(|()| writer.finish()) {
        Ok(()) => writer.into_inner(),
        Err(error) => format!("row cannot be shown: {error}").into_bytes(),
    }
}
