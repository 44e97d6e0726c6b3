//! The coordinator: cuts epochs, makes them final, commits them and rolls them forward.
//!
//! One async task per process, the only writer of the chain. A tick is:
//!
//! ```text
//! barrier ─▶ collect what is final (a checkpoint: all state) ─▶ merge ─▶ advance to the watermark ─▶ fold alerts
//!         ─▶ hand dead letters and rule errors to the rules that read them
//!         ─▶ (checkpoint) write files, state, alert states ─▶ put manifest n ─▶ Delta commits ─▶ alert topic
//! ```
//!
//! A tick without alerts commits nothing unless a checkpoint is due: its rows can be computed again. The next
//! barrier comes after the roll-forward of the last, so at most one epoch is ever half out; meanwhile the
//! workers go on, until their buffers are full and the sources are paused.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use crossbeam_channel::Sender;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use wattline_core::alert::{AlertRecord, Lifecycle};
use wattline_core::gap::OnGap;
use wattline_core::lane::TimeGuard;
use wattline_core::manifest::{LaneSection, Quarantine, RuleProgress, WaitingLane};
use wattline_core::record::LaneId;
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use crate::alerting::{AlertPlan, Candidates, fold_in_order};
use crate::clock::Clock;
use crate::commit::Chain;
use crate::error::{Error, Result};
use crate::events;
use crate::intake::{Doubt, Replay};
use crate::intake_thread::{SourceCommand, SourceNotice};
use crate::port::{
    AlertSink, Archive, Decoder, FinalProgram, LaneProgram, Position, References, RuleFailure, RuleRows, Source,
    StateDelta, Store,
};
use crate::progress::Progress;
use crate::table::{RuleError, TableSpec};
use crate::threads::Threads;
use crate::worker::{LaneNumber, WorkerMessage, WorkerReport};

mod backfill;
mod clean_up;
mod clock_set;
mod correction;
mod early;
mod epoch;
mod exchange;
mod gaps;
mod references;
mod relief;
mod roll_forward;
mod start;
mod system_streams;
mod watermarks;

pub use backfill::{BackfillPlan, backfilled_schema};
pub use correction::{CorrectionPlan, INSERT, RETRACT, corrected_schema, with_change};
pub(crate) use early::EarlyRules;
pub use exchange::ExchangePlan;
pub(crate) use exchange::{INBOX, INBOX_STREAM, InboxMessage, read_messages};
pub use start::rules_revision;

use epoch::Uncommitted;
pub(crate) use epoch::held_bytes;
use system_streams::SystemLane;

/// Blocks that may wait for one worker.
const WORKER_QUEUE_BLOCKS: usize = 4;
/// Alert records kept for the summary, one a rule.
const SAMPLE_ALERTS: usize = 64;

/// How a job is run.
#[derive(Debug, Clone)]
pub struct JobSettings {
    /// Job name; everything it commits lies under it.
    pub job: String,
    /// The slot of this process within the job.
    pub slot: String,
    /// Drawn anew at each start.
    pub nonce: String,
    /// Time between ticks.
    pub tick: Duration,
    /// How often it is looked whether something is due; with each tick in any case.
    pub look: Duration,
    /// Time between checkpoints.
    pub checkpoint: Duration,
    /// Raw rows in memory at which a checkpoint comes early.
    pub checkpoint_bytes: u64,
    /// Raw rows in memory at which the sources are paused.
    pub buffered_bytes_max: u64,
    /// Partial state in the workers at which a checkpoint comes early; at twice as much the sources are paused.
    pub state_bytes: u64,
    /// Age at which results in memory are written into a file, however few.
    pub file_age: Duration,
    /// Bytes at which results in memory are written into a file, however young.
    pub file_bytes: u64,
    /// Bytes of published results in memory at which a checkpoint comes early and writes the largest into files; of those that no
    /// manifest names yet so many are written before it.
    pub results_bytes: u64,
    /// Uncompressed bytes of stored state at which another object is begun.
    pub object_bytes: u64,
    /// How long manifests are kept after they were superseded.
    pub manifest_retention: Duration,
    /// How often tables are compacted and cleaned.
    pub maintenance: Duration,
    /// How often late events correct results, of rules that want it.
    pub correction: Duration,
    /// How often the reference tables are looked at.
    pub references: Duration,
}

/// A stream as the runtime sees it.
#[derive(Debug, Clone)]
pub struct StreamPlan {
    /// Name, also of the raw table.
    pub name: String,
    /// The stream's own columns.
    pub schema: SchemaRef,
    /// Name of the event-time column.
    pub event_time: String,
    /// Bounds of event times.
    pub guard: TimeGuard,
    /// Silence after which a lane is advanced.
    pub idle_timeout: Duration,
    /// Where lanes without a past begin. One that comes to a stream with a past begins at its first record.
    pub start: Position,
    /// What becomes of its lanes if offsets are gone.
    pub on_gap: OnGap,
    /// Lanes of this stream: a lane belongs to the stream if this says so.
    pub lanes: LaneMatch,
    /// The raw table; absent if raw events are not kept.
    pub table: Option<TableSpec>,
}

/// Which lanes feed a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneMatch {
    /// All partitions of a topic.
    Topic(String),
    /// These files.
    Files(Vec<String>),
}

impl LaneMatch {
    fn matches(&self, lane: &LaneId) -> bool {
        match self {
            Self::Topic(topic) => *lane.topic == **topic,
            Self::Files(paths) => paths.iter().any(|path| *lane.topic == **path),
        }
    }
}

/// A rule as the runtime sees it; its number is its place in [`Job::rules`].
#[derive(Debug, Clone)]
pub struct RulePlan {
    /// Rule id.
    pub id: String,
    /// Rule version.
    pub version: String,
    /// Hash of everything that decides its output; names its progress.
    pub fingerprint: String,
    /// Numbers of its streams, at least one; those of the system streams follow those of [`Job::streams`].
    pub streams: Vec<usize>,
    /// Its delay.
    pub delay_ms: i64,
    /// How far a result may reach back in event time before the moment at which it is final, if it has windows.
    pub span_us: Option<i64>,
    /// Its result table, for table rules.
    pub table: Option<TableSpec>,
    /// Its alerts, for alert rules.
    pub alert: Option<AlertPlan>,
    /// How late events correct its results, if they do.
    pub correction: Option<CorrectionPlan>,
    /// How it is given its past if it is new, if it is.
    pub backfill: Option<BackfillPlan>,
}

impl RulePlan {
    /// Late events no farther apart correct results together: for alerts all, as an alert depends on the newest rows.
    fn joins_us(&self) -> i64 {
        match (&self.alert, &self.correction) {
            (None, Some(correction)) => correction.reach_us.saturating_add(correction::MARGIN_US),
            _ => i64::MAX,
        }
    }
}

/// A keyed state that one or more rules share; its number is its place in [`Job::states`].
#[derive(Debug, Clone)]
pub struct StatePlan {
    /// Hash of everything that decides what it means; names its rows in snapshots.
    pub fingerprint: String,
    /// Numbers of its rules, at least one; all have the same streams and one delay.
    pub rules: Vec<usize>,
    /// Number of the stream whose rows it holds.
    pub stream: usize,
}

/// Makes a decoder for a stream, by its number.
pub type DecoderFactory = dyn Fn(usize) -> Box<dyn Decoder> + Send;

/// Makes the two parts of one rule by itself, by its number, with empty state: to run it again over the archive.
pub type Programs = dyn Fn(usize) -> (Box<dyn LaneProgram>, Box<dyn FinalProgram>) + Send + Sync;

/// A job with everything it needs.
pub struct Job {
    /// How it is run.
    pub settings: JobSettings,
    /// Streams.
    pub streams: Vec<StreamPlan>,
    /// Rules.
    pub rules: Vec<RulePlan>,
    /// The states of the rules.
    pub states: Vec<StatePlan>,
    /// Version of each reference table, a hash of its content.
    pub references: BTreeMap<String, String>,
    /// The reference tables as they stand outside; absent if there are none.
    pub reference_tables: Option<Box<dyn References>>,
    /// Sources; each is driven by a thread of its own.
    pub sources: Vec<Box<dyn Source>>,
    /// Makes decoders.
    pub decoders: Box<DecoderFactory>,
    /// Lane part of the rules; one worker per element.
    pub lane_programs: Vec<Box<dyn LaneProgram>>,
    /// Merged part of the rules.
    pub final_program: Box<dyn FinalProgram>,
    /// Makes the programs of single rules.
    pub programs: Box<Programs>,
    /// Where manifests and state live.
    pub store: Arc<dyn Store>,
    /// The tables.
    pub archive: Arc<dyn Archive>,
    /// Where alerts go besides their table.
    pub alert_sink: Option<Arc<dyn AlertSink>>,
    /// The other slots, in a job of several.
    pub exchange: Option<ExchangePlan>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Where sources and workers run.
    pub threads: Arc<dyn Threads>,
    /// Counters.
    pub progress: Arc<Progress>,
    /// Turns true when the job shall drain and end.
    pub shutdown: watch::Receiver<bool>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct RunSummary {
    /// Whether all bounded input was read; false after a shutdown.
    pub ended: bool,
    /// Number of the last committed epoch.
    pub last_epoch: u64,
    /// The newest alert records of each rule, a few.
    pub sample_alerts: Vec<AlertRecord>,
    /// Alert records by rule id and status word.
    pub alerts_by_rule: BTreeMap<String, BTreeMap<&'static str, u64>>,
}

/// Where a lane stands.
#[derive(Debug)]
struct LaneStatus {
    number: LaneNumber,
    worker: usize,
    stream: usize,
    source: usize,
    /// As of the last barrier.
    section: LaneSection,
    /// Everything below was processed, as of the last barrier; less than what is published while the lane re-reads.
    processed: i64,
    /// Verdicts for what is read again.
    replay: Replay,
    begun: bool,
    silent_since_ms: Option<i64>,
    /// As of the last manifest; absent before the first, so that where a lane began is committed even if nothing comes: a
    /// lane that was to begin at the end must not begin at a later end.
    committed_offset: Option<i64>,
    ended_committed: bool,
    /// Since the last link that has this lane.
    doubt: Doubt,
}

/// Runs a job until its bounded input ends or it is told to stop.
///
/// # Errors
/// What cannot heal by trying again: a fenced lane, damaged manifests, lost offsets, refused configuration.
pub async fn run(job: Job) -> Result<RunSummary> {
    start(job).await?.serve().await
}

/// Prepares the tables and takes over the past; records flow with [`Running::serve`]. Dropped on the way it is as if the process had died.
///
/// # Errors
/// As for [`run`].
pub async fn start(job: Job) -> Result<Running> {
    start::start(job).await.map(|coordinator| Running { coordinator })
}

/// A job that has taken over its past.
pub struct Running {
    coordinator: Coordinator,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("settings", &self.coordinator.settings).finish_non_exhaustive()
    }
}

impl Running {
    /// Goes on until the bounded input of the job ends or it is told to stop.
    ///
    /// # Errors
    /// As for [`run`].
    pub async fn serve(self) -> Result<RunSummary> {
        let mut coordinator = self.coordinator;
        let outcome = coordinator.serve().await;
        coordinator.stop_sources();
        match outcome {
            Ok(ended) => Ok(coordinator.summary(ended)),
            Err(error) => Err(error),
        }
    }
}

struct Coordinator {
    settings: JobSettings,
    streams: Vec<StreamPlan>,
    rules: Vec<RulePlan>,
    states: Vec<StatePlan>,
    progress_of_rules: Vec<RuleProgress>,
    final_program: Box<dyn FinalProgram>,
    programs: Box<Programs>,
    backfills: backfill::Backfills,
    lifecycle: Lifecycle,
    archive: Arc<dyn Archive>,
    alert_sink: Option<Arc<dyn AlertSink>>,
    clock: Arc<dyn Clock>,
    clock_watch: clock_set::ClockWatch,
    progress: Arc<Progress>,
    shutdown: watch::Receiver<bool>,
    chain: Chain,
    threads: Arc<dyn Threads>,
    /// Workers end when their queues close.
    workers: Vec<Sender<WorkerMessage>>,
    source_commands: Vec<Sender<SourceCommand>>,
    notices: mpsc::Receiver<SourceNotice>,
    lanes: BTreeMap<LaneId, LaneStatus>,
    /// Lanes of the past that were not assigned (yet).
    dormant: BTreeMap<LaneId, (LaneSection, Replay)>,
    /// Lanes that have not begun, and do not begin at their first record.
    waiting: BTreeMap<LaneId, WaitingLane>,
    /// Lanes of the system streams, by their number less that of the job's own streams.
    system: Vec<SystemLane>,
    uncommitted: Uncommitted,
    /// Rules whose alerts are told before they are committed.
    early: Arc<EarlyRules>,
    /// That failed since the last link: until the next one alerts go with their links only.
    early_failed: bool,
    /// When it was last looked what can be told early.
    last_early: Instant,
    /// The other slots, in a job of several.
    exchange: Option<exchange::Exchange>,
    checkpoint_n: u64,
    state_objects: Vec<String>,
    state_written: epoch::StateWritten,
    stage_objects: Vec<String>,
    alert_state_object: Option<String>,
    /// Alert states changed since the last checkpoint.
    alert_states_changed: bool,
    /// The next link must be a checkpoint: the state of the last one is obsolete.
    checkpoint_first: bool,
    /// State was to go to disk, and the disk did not take it.
    owes_relief: bool,
    /// Everything else has ended and lanes of the past were not assigned: said once.
    awaits_lanes: bool,
    rows_objects: Vec<String>,
    rules_revision: String,
    references: BTreeMap<String, String>,
    reference_tables: references::ReferenceTables,
    last_tick: Instant,
    last_checkpoint: Instant,
    last_maintenance: Instant,
    last_correction: Instant,
    clean_up: clean_up::CleanUp,
    maintenance: Option<tokio::task::JoinHandle<()>>,
    sample_alerts: Vec<AlertRecord>,
    alerts_by_rule: BTreeMap<String, BTreeMap<&'static str, u64>>,
}

impl Coordinator {
    /// The loop; true if all bounded input was read.
    async fn serve(&mut self) -> Result<bool> {
        let mut look = tokio::time::interval(self.settings.look.min(self.settings.tick).max(Duration::from_millis(1)));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // In this order, whatever came first: none of them is there all the time.
                biased;
                changed = self.shutdown.changed() => {
                    // A sender that is gone can never ask to stop.
                    if changed.is_err() || *self.shutdown.borrow() {
                        self.drain(false).await?;
                        return Ok(false);
                    }
                }
                notice = self.notices.recv() => match notice {
                    Some(notice) => self.take_notice(notice).await?,
                    None => return Err(Error::ThreadGone { thread: "source".into() }),
                },
                _ = look.tick() => {
                    self.tick_if_due().await?;
                    if self.all_ended() && self.all_slots_ended().await? {
                        self.drain(true).await?;
                        return Ok(true);
                    }
                }
                bell = self.early.come(self.last_early) => self.tell_early(bell).await?,
            }
        }
    }

    async fn take_notice(&mut self, notice: SourceNotice) -> Result<()> {
        match notice {
            SourceNotice::Assigned(source, lanes) => {
                self.take_lanes(source, &lanes).await?;
                if let Some(exchange) = &mut self.exchange {
                    exchange.note_heard(source);
                }
                Ok(())
            }
            SourceNotice::Failed(error) => Err(self.of_inbox(error)),
        }
    }

    async fn tick_if_due(&mut self) -> Result<()> {
        let buffered = self.progress.buffered_bytes.load(Ordering::Relaxed);
        self.look_at_references()?;
        let checkpoint = buffered >= self.settings.checkpoint_bytes
            || self.progress.state_bytes.load(Ordering::Relaxed) >= self.settings.state_bytes
            || self.uncommitted.pending.bytes() >= self.settings.results_bytes
            || self.last_checkpoint.elapsed() >= self.settings.checkpoint
            || self.reference_tables.has_reloaded();
        if checkpoint || self.last_tick.elapsed() >= self.settings.tick {
            self.tick(checkpoint, false).await?;
            if checkpoint {
                self.backfill_at_checkpoint().await?;
            }
            if checkpoint && self.last_correction.elapsed() >= self.settings.correction {
                self.correct().await?;
            }
            self.advance_silent_lanes()?;
            self.start_maintenance();
        }
        self.read_on().await
    }

    fn all_ended(&mut self) -> bool {
        // A notice that waits may bring lanes.
        let assigned_ended = !self.lanes.is_empty()
            && self.notices.is_empty()
            && self.all_streams_assigned()
            && self.lanes.values().all(|status| status.stream == INBOX || status.section.ended);
        if !assigned_ended {
            return false;
        }
        let streams = 0..self.streams.len();
        let awaited: Vec<LaneId> =
            streams.flat_map(|stream| self.awaited(stream)).map(|(lane, _)| lane.clone()).collect();
        if !awaited.is_empty() && !std::mem::replace(&mut self.awaits_lanes, true) {
            events::LanesAwaited { lanes: &awaited }.emit();
        }
        awaited.is_empty()
    }

    /// Lanes of the past that feed a stream, have more to say and are not assigned yet.
    fn awaited(&self, stream: usize) -> impl Iterator<Item = (&LaneId, &LaneSection)> {
        let lanes = &self.streams[stream].lanes;
        let unread = |section: &LaneSection| !section.ended || section.state < section.published;
        self.dormant
            .iter()
            .map(|(lane, (section, _))| (lane, section))
            .filter(move |(lane, section)| lanes.matches(lane) && unread(section))
    }

    fn all_streams_assigned(&self) -> bool {
        if self.exchange.is_some() {
            // A slot may have no lane of a stream.
            return self.all_sources_heard();
        }
        (0..self.streams.len()).all(|stream| self.lanes.values().any(|status| status.stream == stream))
    }

    /// Stops the sources, cuts a last epoch, commits it; at the end of bounded input every window closes.
    async fn drain(&mut self, ended: bool) -> Result<()> {
        self.stop_sources();
        self.tick(true, ended).await?;
        if ended {
            self.backfill_rest().await?;
        }
        if ended && self.correct().await? {
            self.tick(true, false).await?;
        }
        if let Some(task) = self.maintenance.take() {
            // A failed task has logged its reason.
            task.await.unwrap_or_default();
        }
        if ended {
            self.finish_clean_up().await;
            self.maintain_all().await;
        }
        Ok(())
    }

    fn stop_sources(&mut self) {
        for commands in self.source_commands.drain(..) {
            // A source that has ended needs no telling.
            commands.send(SourceCommand::Stop).unwrap_or_default();
        }
    }

    /// Asks every worker, and waits for all answers.
    async fn ask_workers<T>(&self, mut question: impl FnMut(oneshot::Sender<T>) -> WorkerMessage) -> Result<Vec<T>> {
        let mut replies = Vec::with_capacity(self.workers.len());
        for number in 0..self.workers.len() {
            let (reply, answer) = oneshot::channel();
            self.tell_worker(number, question(reply)).await?;
            replies.push((number, answer));
        }
        let mut answers = Vec::with_capacity(replies.len());
        for (number, answer) in replies {
            answers.push(answer.await.map_err(|_closed| gone(number))?);
        }
        Ok(answers)
    }

    /// Cuts an epoch, and commits it if it has something to tell. `ended` says that all input has.
    async fn tick(&mut self, checkpoint: bool, ended: bool) -> Result<()> {
        let checkpoint = checkpoint || self.checkpoint_first;
        self.last_tick = Instant::now();
        let mut raw: BTreeMap<usize, Vec<RecordBatch>> = BTreeMap::new();
        let mut first_final_us = vec![END_OF_TIME; self.states.len()];
        self.early.note_look();
        let mut reloaded = if checkpoint { self.reference_tables.take_reloaded() } else { None };
        let mut programs = reloaded.as_mut().map(|of| std::mem::take(&mut of.lane_programs)).unwrap_or_default();
        // One barrier cuts all lanes of the process.
        let barrier = |reply| WorkerMessage::Barrier { checkpoint, program: programs.pop(), reply };
        for report in self.ask_workers(barrier).await? {
            first_final_us.iter_mut().zip(&report.first_final_us).for_each(|(first, of)| *first = (*first).min(*of));
            self.absorb(report, &mut raw)?;
        }
        self.note_own_reached();
        self.advance_early(&first_final_us).await?;
        self.close_lanes(&first_final_us, &self.lane_watermarks_us()).await?;
        let watermarks_us = self.watermarks_us();
        self.advance_rules(&watermarks_us).await?;
        self.feed_system_streams(checkpoint).await?;
        // The link that says of the lanes that they have ended says so of the rules. A tick without checkpoint leaves it to
        // the next, which comes at once.
        let ended = ended || self.all_ended();
        if ended && checkpoint && self.exchange.is_none() {
            self.end_system_streams().await?;
        }
        self.publish_early().await;
        self.note_gauges();
        let tells =
            !self.uncommitted.alerts.is_empty() || !self.uncommitted.adds.is_empty() || self.has_to_tell(checkpoint);
        let may_tell = tells && !ended && !self.has_crossed_gaps();
        let due = if checkpoint { tells || self.worth_a_checkpoint(&raw) } else { may_tell };
        if due {
            self.commit(checkpoint, raw).await?;
        }
        if let Some(reloaded) = reloaded {
            self.change_over(reloaded).await?;
        }
        if checkpoint {
            self.note_awaited_slots();
            self.last_checkpoint = Instant::now();
        }
        Ok(())
    }

    /// Takes in what a worker reported.
    fn absorb(&mut self, report: WorkerReport, raw: &mut BTreeMap<usize, Vec<RecordBatch>>) -> Result<()> {
        if let Some(error) = report.error {
            return Err(error);
        }
        let now_ms = self.clock.now_ms();
        let exchange = self.exchange.as_ref();
        let mut gone = Vec::new();
        for lane in report.lanes {
            let Some(status) = self.lanes.get_mut(&lane.lane) else { continue };
            let advances = self.uncommitted.idle_advances.entry(lane.lane.clone()).or_default();
            advances.extend(lane.idle_advances);
            self.uncommitted.refused.entry(lane.lane).or_default().extend(lane.refused);
            let section = &mut status.section;
            if let (false, Some(first)) = (status.begun, lane.first_offset) {
                status.begun = true;
                (section.archive, section.state, section.since) = (first, first, first);
                // It was advanced before anybody knew where it begins; below that, no resume would look for a verdict.
                advances.iter_mut().for_each(|advance| advance.offset = advance.offset.max(first));
            }
            status.processed = lane.next_offset.unwrap_or(status.processed);
            let from = status.replay.published.max(lane.first_offset.unwrap_or_default());
            if status.processed > from && exchange.is_some_and(|of| of.had_ended(status.stream)) {
                return Err(Error::InputHadEnded { lane: section.lane.clone(), from });
            }
            section.published = section.published.max(status.processed);
            section.reached_us = lane.reached_us;
            section.ended = lane.ended;
            section.log = lane.log.or(section.log.take());
            gone.extend(status.cross_gaps(&lane.gaps));
            status.doubt = status.doubt.and(lane.doubt);
            status.silent_since_ms = lane.silent.then(|| status.silent_since_ms.unwrap_or(now_ms));
        }
        self.note_gaps(gone);
        for (stream, batches) in report.raw {
            raw.entry(stream).or_default().extend(batches);
        }
        self.uncommitted.dead_letters.extend(report.dead_letters);
        for (rule, late) in &report.late {
            let progress = &mut self.progress_of_rules[*rule];
            let list = progress.shared.as_mut().map_or(&mut progress.late, |shared| &mut shared.late);
            list.add_all(late, self.rules[*rule].joins_us());
        }
        for (lane, failure) in report.failures {
            self.note_failure(Some(lane), failure, true);
        }
        report.deltas.into_iter().try_for_each(|delta| self.take_delta(delta, true))?;
        self.take_lane_rows(report.rows)?;
        self.take_inbox(&report.inbox)
    }

    /// Takes partial state in, unless nobody will ask for it.
    fn merge(&mut self, delta: &StateDelta) -> Result<()> {
        if self.rules_here(delta.state).all(|rule| self.is_silent(rule)) {
            return Ok(());
        }
        if let Err(message) = self.final_program.merge(delta) {
            self.stop_rules_of(delta.state, &message);
        }
        self.relieve_if_it_can()
    }

    /// Whether a rule failed after the lanes were merged.
    fn has_stopped(&self, rule: usize) -> bool {
        self.progress_of_rules[rule].quarantined.iter().any(|q| q.lane.is_none())
    }

    fn stop_rules_of(&mut self, state: usize, message: &str) {
        for rule in self.states[state].rules.clone() {
            self.note_failure(None, RuleFailure { rule, offset: -1, message: message.to_owned() }, true);
        }
    }

    /// Records a failure; one that `stops_rule` quarantines it in its lane, or as a whole after the merge. A lane that re-reads
    /// finds such failures again: those that the links hold are known, those of a rule that was changed are not.
    fn note_failure(&mut self, lane: Option<LaneId>, failure: RuleFailure, stops_rule: bool) {
        let quarantined = &mut self.progress_of_rules[failure.rule].quarantined;
        if stops_rule && quarantined.iter().any(|q| q.lane == lane) {
            return;
        }
        let rule = &self.rules[failure.rule];
        let (offset, message) = (failure.offset, failure.message.as_str());
        events::RuleFailed { rule: &rule.id, lane: lane.as_ref(), offset, message, stops_rule }.emit();
        Progress::add(&self.progress.rule_errors, 1);
        if stops_rule {
            let (offset, message) = (failure.offset, failure.message.clone());
            quarantined.push(Quarantine { lane: lane.clone(), offset, message });
        }
        self.uncommitted.rule_errors.push(RuleError {
            rule_id: rule.id.clone(),
            rule_version: rule.version.clone(),
            lane,
            offset: failure.offset,
            message: failure.message,
        });
    }

    /// Advances every state to its watermark, takes in what became final, notes how far each rule has come.
    async fn advance_rules(&mut self, watermarks_us: &[i64]) -> Result<()> {
        self.advance_states(watermarks_us, false).await?;
        for rule in (0..self.rules.len()).filter(|rule| !self.is_silent(*rule)).collect::<Vec<_>>() {
            let watermark_us = self.rule_watermark_us(rule);
            let progress = &mut self.progress_of_rules[rule];
            progress.final_until_us = progress.final_until_us.max(watermark_us);
        }
        Ok(())
    }

    /// Advances every state to its watermark and takes in what became final. `is_certain`: no watermark rests on the next link.
    async fn advance_states(&mut self, watermarks_us: &[i64], is_certain: bool) -> Result<()> {
        self.relieve().await?;
        // Parts come in any order, and alerts are folded in the order of event time.
        let mut of_alerts = Vec::new();
        loop {
            let output = self.advance_program(watermarks_us).await?;
            let is_given = |rule: usize| !self.is_silent(rule) && !self.awaits_slots(rule);
            let rows = output.rows.into_iter().filter(|rows| is_given(rows.rule));
            let (alerts, rows): (Vec<_>, Vec<_>) = rows.partition(|rows| self.rules[rows.rule].alert.is_some());
            of_alerts.extend(alerts);
            for failure in output.failures {
                // What it shares with others goes on after it has stopped.
                if !self.has_stopped(failure.rule) {
                    let stops_rule = self.reads_rule_errors(failure.rule);
                    self.note_failure(None, failure, stops_rule);
                }
            }
            for (rule, message) in output.stopped {
                self.note_failure(None, RuleFailure { rule, offset: -1, message }, true);
            }
            self.take_rows(rows, is_certain)?;
            if !output.more {
                break;
            }
            self.relieve().await?;
            self.write_early().await?;
        }
        self.write_early().await?;
        self.take_rows(of_alerts, is_certain)
    }

    /// Sorts rows of table rules into their tables and folds rows of alert rules. `is_certain` as for [`Self::advance_states`].
    fn take_rows(&mut self, rows: Vec<RuleRows>, is_certain: bool) -> Result<()> {
        let mut candidates = Vec::new();
        for rows in &rows {
            if self.waits(rows.rule) {
                continue;
            }
            let rule = &self.rules[rows.rule];
            if let Some(spec) = &rule.table {
                Progress::add(&self.progress.result_rows, rows.batch.num_rows());
                let batch = match rule.correction {
                    Some(_) => correction::first_revision(&rows.batch)?,
                    None => rows.batch.clone(),
                };
                self.uncommitted.results.push((spec.name.clone(), batch));
            }
            if let Some(plan) = &rule.alert {
                candidates.push(Candidates::new(plan, rows)?);
            }
        }
        let records = fold_in_order(&candidates, &mut self.lifecycle)?;
        self.set_early_aside(&records, is_certain);
        records.into_iter().for_each(|record| self.note_alert(record));
        Ok(())
    }

    fn note_alert(&mut self, record: AlertRecord) {
        let of_rule = self.alerts_by_rule.entry(record.rule_id.clone()).or_default();
        *of_rule.entry(record.status.as_str()).or_default() += 1;
        self.uncommitted.alerts.push(record);
    }

    fn note_gauges(&self) {
        let reached = (0..self.streams.len()).map(|stream| self.own_reached_us(stream)).min().unwrap_or(BEFORE_TIME);
        self.progress.reached_us.store(reached, Ordering::Relaxed);
        self.progress.open_alerts.store(self.lifecycle.open_count() as u64, Ordering::Relaxed);
    }

    fn summary(&self, ended: bool) -> RunSummary {
        RunSummary {
            ended,
            last_epoch: self.chain.next - 1,
            sample_alerts: self.sample_alerts.clone(),
            alerts_by_rule: self.alerts_by_rule.clone(),
        }
    }
}

fn gone(worker: usize) -> Error {
    Error::ThreadGone { thread: format!("worker {worker}") }
}
