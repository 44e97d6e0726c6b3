//! Starting: read the past, bring out what it still owes, start workers and sources, take lanes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use crossbeam_channel::{TrySendError, bounded};
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::Instant;
use wattline_core::alert::AlertState;
use wattline_core::gap::OnGap;
use wattline_core::manifest::{LaneSection, Quarantine, RuleProgress};
use wattline_core::record::LaneId;
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use super::backfill::Backfills;
use super::clean_up::CleanUp;
use super::clock_set::ClockWatch;
use super::early::EarlyRules;
use super::exchange::{self, Exchange, INBOX, INBOX_STREAM};
use super::references::{FRESHNESS, ReferenceTables};
use super::system_streams::SystemLane;
use super::{
    Coordinator, Job, LaneStatus, RulePlan, StatePlan, StreamPlan, Uncommitted, WORKER_QUEUE_BLOCKS, epoch, gone,
};
use crate::commit::Chain;
use crate::error::{Error, Result};
use crate::events;
use crate::frames;
use crate::intake::{CorrectedRule, Doubt, Replay, StreamIntake, stream_schema};
use crate::intake_thread::{Intake, Route, SourceCommand};
use crate::port::{Position, RuleFailure, Source, StageState, StateDelta};
use crate::progress::Progress;
use crate::recovery::{Past, load, read_past};
use crate::retry::until_done;
use crate::table;
use crate::threads::{Role, aside, spawn};
use crate::worker::{LaneNumber, LaneOpening, Worker, WorkerMessage};

const NOTICES: usize = 64;
const COMMANDS: usize = 4_096;
/// Objects of a snapshot that are read at once.
const READ_AHEAD: usize = 3;

/// Brings a job up to the point where records flow.
pub(super) async fn start(mut job: Job) -> Result<Coordinator> {
    let mut sources = Unstarted(std::mem::take(&mut job.sources));
    ensure_tables(&job).await?;
    let (slot, progress) = (job.settings.slot.clone(), Arc::clone(&job.progress));
    let mut past = until_done("reading the chain", &progress, || read_past(job.store.as_ref(), &slot)).await?;
    // Slots cannot begin anew one by one: see `InputHadEnded`.
    let fresh = job.exchange.is_none() && past.had_ended();
    let progress_of_rules = progress_of_rules(&job, &past, fresh);
    let exchange = job.exchange.take().map(|plan| Exchange::new(plan, sources.0.len(), &job.rules, &job.states, &past));
    let told_us = exchange.as_ref().map(|_| told_of_states(&job.states, &progress_of_rules));
    let has_begun = past.last_epoch.is_some() || (exchange.is_some() && others_have_begun(&job).await?);
    let chain = chain_after(&past, &job, slot.clone(), &progress);
    let early = EarlyRules::of(&job, exchange.is_none());
    let workers = start_workers(&mut job, (told_us, &early), &progress)?;
    let (notify, notices) = mpsc::channel(NOTICES);
    let mut coordinator = Coordinator {
        system: SystemLane::all(&slot, job.streams.len(), &job.rules, &past, fresh),
        chain,
        rules_revision: rules_revision(&job.rules),
        references: job.references,
        reference_tables: ReferenceTables::new(job.reference_tables),
        progress_of_rules,
        final_program: job.final_program,
        programs: job.programs,
        backfills: Backfills::of(&job.rules, &job.streams, &past, (exchange.as_ref(), has_begun)),
        lifecycle: std::mem::take(&mut past.lifecycle),
        archive: job.archive,
        alert_sink: job.alert_sink,
        clock: Arc::clone(&job.clock),
        clock_watch: ClockWatch::default(),
        progress: Arc::clone(&progress),
        shutdown: job.shutdown,
        threads: job.threads,
        workers,
        source_commands: Vec::new(),
        notices,
        lanes: BTreeMap::new(),
        dormant: BTreeMap::new(),
        waiting: past.take_waiting(),
        uncommitted: Uncommitted::default(),
        early,
        early_failed: false,
        last_early: Instant::now(),
        exchange,
        checkpoint_n: past.checkpoint,
        state_objects: past.state_objects.clone(),
        state_written: epoch::StateWritten::restored(past.state_objects.len()),
        stage_objects: past.stage_objects.clone(),
        alert_state_object: past.alert_state_object.clone(),
        alert_states_changed: true,
        checkpoint_first: fresh,
        owes_relief: false,
        awaits_lanes: false,
        rows_objects: past.rows_objects.clone(),
        last_tick: Instant::now(),
        last_checkpoint: Instant::now(),
        last_maintenance: Instant::now(),
        last_correction: Instant::now(),
        clean_up: CleanUp::default(),
        maintenance: None,
        sample_alerts: Vec::new(),
        alerts_by_rule: BTreeMap::new(),
        settings: job.settings,
        streams: job.streams,
        rules: job.rules,
        states: job.states,
    };
    coordinator.begin((std::mem::take(&mut sources.0), &notify), past, fresh).await?;
    Ok(coordinator)
}

/// Whether any slot of the job has put a link.
async fn others_have_begun(job: &Job) -> Result<bool> {
    let list = || job.store.list("chains/");
    Ok(!until_done("looking for the chains of the other slots", &job.progress, list).await?.is_empty())
}

/// The end of the chain of a slot, to be gone on with.
fn chain_after(past: &Past, job: &Job, slot: String, progress: &Arc<Progress>) -> Chain {
    Chain {
        store: Arc::clone(&job.store),
        progress: Arc::clone(progress),
        clock: Arc::clone(&job.clock),
        job: job.settings.job.clone(),
        slot,
        incarnation: past.incarnation.clone().unwrap_or_else(|| job.settings.nonce.clone()),
        nonce: job.settings.nonce.clone(),
        next: past.last_link + 1,
        last_own: None,
        held: BTreeMap::new(),
        replaced: Vec::new(),
    }
}

/// Sources whose job may not start. To close one can take its time, with a broker that is to be told: not on a thread of the tasks.
struct Unstarted(Vec<Box<dyn Source>>);

impl Drop for Unstarted {
    fn drop(&mut self) {
        let sources = std::mem::take(&mut self.0);
        if sources.is_empty() {
            return;
        }
        // Without a thread they are closed here.
        spawn("wattline-closing".to_owned(), move || drop(sources)).unwrap_or_default();
    }
}

async fn ensure_tables(job: &Job) -> Result<()> {
    let streams = job.streams.iter().filter_map(|stream| stream.table.as_ref());
    let rules = job.rules.iter().filter_map(|rule| rule.table.as_ref());
    let system = table::system_tables();
    for spec in streams.chain(rules).chain(&system) {
        until_done(&format!("preparing table `{}`", spec.name), &job.progress, || job.archive.ensure_table(spec))
            .await?;
    }
    Ok(())
}

fn start_workers(
    job: &mut Job,
    (told_us, early): (Option<Arc<[i64]>>, &Arc<EarlyRules>),
    progress: &Arc<Progress>,
) -> Result<Vec<crossbeam_channel::Sender<WorkerMessage>>> {
    let intakes: Arc<[StreamIntake]> =
        (0..job.streams.len()).map(|stream| intake_of(stream, &job.streams[stream], &job.rules)).collect();
    let mut senders = Vec::new();
    for (number, program) in std::mem::take(&mut job.lane_programs).into_iter().enumerate() {
        let (sender, queue) = bounded(WORKER_QUEUE_BLOCKS);
        let worker = Worker {
            number,
            queue,
            streams: Arc::clone(&intakes),
            decoders: (0..job.streams.len()).map(&*job.decoders).collect(),
            program,
            before: None,
            told_us: told_us.clone(),
            progress: Arc::clone(progress),
            lanes: BTreeMap::new(),
            quarantined: Default::default(),
            pending: crate::worker::WorkerReport::default(),
            early: Arc::clone(early),
            state_bytes: 0,
            rows_since_look: 0,
        };
        job.threads.begin(Role::Worker(number), Box::new(worker))?;
        senders.push(sender);
    }
    Ok(senders)
}

fn intake_of(number: usize, stream: &StreamPlan, rules: &[RulePlan]) -> StreamIntake {
    let corrected = rules.iter().enumerate().filter(|(_, rule)| rule.correction.is_some());
    let corrected = corrected.filter(|(_, rule)| rule.streams.contains(&number));
    let mut by_delay: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for rule in rules.iter().filter(|rule| rule.streams.contains(&number) && rule.correction.is_none()) {
        by_delay.entry(rule.delay_ms).or_default().push(rule.id.clone());
    }
    StreamIntake {
        by_delay,
        corrected: corrected
            .map(|(rule, plan)| CorrectedRule { rule, delay_ms: plan.delay_ms, joins_us: plan.joins_us() })
            .collect(),
        name: stream.name.as_str().into(),
        schema: stream_schema(&stream.schema),
        event_time: stream.schema.index_of(&stream.event_time).unwrap_or_default(),
        guard: stream.guard,
    }
}

/// The revision of a set of rules, as links name it: a hash over id, version and fingerprint of each.
#[must_use]
pub fn rules_revision(rules: &[RulePlan]) -> String {
    let mut hash = Sha256::new();
    for RulePlan { id, version, fingerprint, .. } in rules {
        hash.update(format!("{id} {version} {fingerprint}\n"));
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Where each rule continues; a rule that the past does not know begins where its streams stand.
fn progress_of_rules(job: &Job, past: &Past, fresh: bool) -> Vec<RuleProgress> {
    let Job { rules, streams, .. } = job;
    let place = job.exchange.as_ref().map(|exchange| exchange.place);
    let system = table::system_streams().map(|stream| stream.name);
    let name = |stream: usize| match streams.get(stream) {
        Some(plan) => plan.name.as_str(),
        None => system[stream - streams.len()],
    };
    let names: Vec<String> = (0..streams.len() + system.len()).map(|stream| name(stream).to_owned()).collect();
    let senders = if fresh { &[][..] } else { &past.senders[..] };
    let begin = |rule: &RulePlan| {
        let reached = rule.streams.iter().filter_map(|stream| past.reached_max_us(name(*stream))).max();
        let told = place.and_then(|_| exchange::told_before_us(rule, &names, &past.senders));
        let reached = reached.max(told).filter(|_| !fresh);
        RuleProgress {
            id: rule.id.clone(),
            final_until_us: BEFORE_TIME,
            active_from_us: reached.unwrap_or(BEFORE_TIME),
            quarantined: Vec::new(),
            late: Default::default(),
            correction: None,
            shared: place.map(|place| exchange::first_progress(place, rule, senders)),
        }
    };
    let is_here = |id: &str| place.is_some_and(|place| place.is_home_of(id));
    let is_other = |rule: &RulePlan, known: &RuleProgress, waited: bool| match rule.backfill {
        Some(_) => !is_here(&known.id),
        None => waited,
    };
    let progress = |rule: &RulePlan| {
        let Some(known) = past.rules.get(&rule.fingerprint).filter(|_| !fresh) else { return begin(rule) };
        match &known.shared {
            // What is known is of a rule of the same text that has another home, and this one is to be given its past; or it waited
            // for that, and is not to be given it any more. Only what the lanes have told goes on.
            Some(shared) if is_here(&rule.id) && is_other(rule, known, shared.awaits_past) => {
                let mut progress = begin(rule);
                progress.shared.iter_mut().for_each(|begun| begun.told_us = shared.told_us);
                progress
            }
            _ => known.clone(),
        }
    };
    rules.iter().map(progress).collect()
}

/// What of each state was told is final at these watermarks.
fn told_of_states(states: &[StatePlan], progress: &[RuleProgress]) -> Arc<[i64]> {
    let told_us = |rule: &usize| progress[*rule].shared.as_ref().map_or(BEFORE_TIME, |shared| shared.told_us);
    // A rule that came to a state that others had was told with them from then on.
    states.iter().map(|state| state.rules.iter().map(told_us).max().unwrap_or(BEFORE_TIME)).collect()
}

impl Coordinator {
    /// Starts the sources, and takes over the past. They find their place in their groups meanwhile; lanes flow when they are taken,
    /// and that is later.
    async fn begin(
        &mut self,
        (sources, notify): (Vec<Box<dyn Source>>, &mpsc::Sender<crate::intake_thread::SourceNotice>),
        past: Past,
        fresh: bool,
    ) -> Result<()> {
        self.start_sources(sources, notify)?;
        let restored = self.restore(past, fresh).await;
        if restored.is_err() {
            self.stop_sources();
        }
        restored
    }

    /// Starts a thread for each source.
    fn start_sources(
        &mut self,
        sources: Vec<Box<dyn Source>>,
        notify: &mpsc::Sender<crate::intake_thread::SourceNotice>,
    ) -> Result<()> {
        for (number, source) in sources.into_iter().enumerate() {
            let (commands, received) = bounded(COMMANDS);
            let intake = Intake {
                number,
                source,
                workers: self.workers.clone(),
                commands: received,
                notices: notify.clone(),
                progress: Arc::clone(&self.progress),
                clock: Arc::clone(&self.clock),
                buffered_bytes_max: self.settings.buffered_bytes_max,
                state_bytes_max: self.settings.state_bytes.saturating_mul(2),
                routes: HashMap::new(),
                held: VecDeque::new(),
                paused: false,
            };
            self.threads.begin(Role::Source(number), Box::new(intake))?;
            self.source_commands.push(commands);
        }
        Ok(())
    }

    /// Takes over the committed past.
    async fn restore(&mut self, past: Past, fresh: bool) -> Result<()> {
        for (name, batch) in past.pending {
            self.uncommitted.pending.push(name, batch);
        }
        self.say_what_is_out();
        if fresh {
            events::EndedBefore.emit();
            self.state_objects.clear();
            self.stage_objects.clear();
            self.restore_system_streams(Vec::new()).await?;
        } else {
            let mut stages = self.read_ahead(&past.stage_objects);
            while let Some((path, frames)) = stages.try_next().await? {
                self.restore_stages(path, frames).await?;
            }
            // What an earlier life of a rule kept that waits for its past is part of that past.
            let known = self.states.iter().enumerate().filter(|(state, _)| !self.is_awaited(*state));
            let by_fingerprint: HashMap<String, usize> =
                known.map(|(state, plan)| (plan.fingerprint.clone(), state)).collect();
            let mut states = self.read_ahead(&past.state_objects);
            while let Some((path, frames)) = states.try_next().await? {
                for (fingerprint, batch) in frames {
                    let Some(state) = by_fingerprint.get(&fingerprint) else { continue };
                    let delta = StateDelta { state: *state, final_at_us: END_OF_TIME, batch };
                    let restored = self.final_program.restore(&delta);
                    restored.map_err(|reason| Error::BadObject { path: path.to_owned(), reason })?;
                    self.relieve().await?;
                }
            }
            self.restore_system_streams(past.system_rows).await?;
        }
        self.dormant = past.lanes;
        if fresh {
            self.dormant.values_mut().for_each(|(section, replay)| {
                section.since = section.state;
                *replay = Replay { published: section.published, ..Replay::default() };
            });
        }
        if let Some(manifest) = past.last_epoch {
            let before = manifest.epoch().map(|epoch| &epoch.references).into_iter().flatten();
            for (table, version) in before.filter(|(table, version)| self.references.get(*table) != Some(version)) {
                events::ReferenceChanged { table, before: version, now: self.references.get(table) }.emit();
            }
            events::Resumed {
                last: manifest.n,
                checkpoint: past.checkpoint,
                lanes: self.dormant.len(),
                state_rows: self.final_program.state_rows(),
            }
            .emit();
            self.roll_forward_past(&manifest).await?;
        }
        self.withdraw_orphans();
        Ok(())
    }

    /// Objects one after the other; the next are read and decoded meanwhile.
    fn read_ahead<'a>(
        &self,
        paths: &'a [String],
    ) -> impl Stream<Item = Result<(&'a str, Vec<(String, RecordBatch)>)>> + Unpin + use<'a> {
        let (store, threads) = (Arc::clone(&self.chain.store), Arc::clone(&self.threads));
        let progress = Arc::clone(&self.progress);
        let read = move |path: &'a String| {
            let (store, threads, progress) = (Arc::clone(&store), Arc::clone(&threads), Arc::clone(&progress));
            Box::pin(async move {
                let what = format!("reading `{path}`");
                let object = until_done(&what, &progress, || load(store.as_ref(), path)).await?;
                let of = path.clone();
                let frames = aside(&*threads, || what, move || frames::read(&of, &object)).await??;
                Ok((path.as_str(), frames))
            })
        };
        stream::iter(paths).map(read).buffered(READ_AHEAD)
    }

    /// Alerts that are open and that no rule of the job looks after any more: it is gone, or gives no conditions now.
    fn withdraw_orphans(&mut self) {
        let (rules, references) = (&self.rules, &self.references);
        let is_condition = |rule: &RulePlan| rule.alert.as_ref().is_some_and(|alert| alert.is_condition);
        let is_looked_after = |state: &AlertState| match state.rule_id.as_str() {
            FRESHNESS => references.contains_key(&state.entity_id),
            id => rules.iter().any(|rule| rule.id == id && is_condition(rule)),
        };
        for record in self.lifecycle.withdraw(is_looked_after) {
            events::AlertOrphaned { rule: &record.rule_id, entity: &record.entity_id }.emit();
            self.note_alert(record);
        }
    }

    /// Before any state comes into the program of the merged rules.
    pub(super) fn say_what_is_out(&mut self) {
        for state in 0..self.states.len() {
            let watermark_us = self.ignored_until_us(state);
            if watermark_us != BEFORE_TIME {
                self.final_program.set_given(state, watermark_us);
            }
        }
        for rule in 0..self.rules.len() {
            if self.waits(rule) {
                self.final_program.hold(rule);
                continue;
            }
            let began_us = self.began_before_us(rule);
            if began_us != BEFORE_TIME {
                self.final_program.begin_at(rule, began_us);
            }
        }
    }

    /// What rules kept that are no more is left alone.
    async fn restore_stages(&mut self, path: &str, stages: Vec<(String, RecordBatch)>) -> Result<()> {
        let bad = |reason: String| Error::BadObject { path: path.to_owned(), reason };
        for (name, batch) in stages {
            let Some((fingerprint, taken_us, part)) = epoch::read_stage_name(&name) else {
                return Err(bad(format!("`{name}` is no name of a stage")));
            };
            // Rules of one text have one fingerprint, and keep the same.
            let is_of = |rule: &usize| self.rules[*rule].fingerprint == fingerprint && !self.waits(*rule);
            for rule in (0..self.rules.len()).filter(is_of).collect::<Vec<_>>() {
                let state = StageState { rule, taken_us, part, batch: batch.clone() };
                self.final_program.restore_stage(&state).map_err(bad)?;
                self.relieve().await?;
            }
        }
        Ok(())
    }

    /// Before any state comes in: what was final is not taken in again. Rules that are all new leave alone the windows that
    /// began before them; a new rule that shares the state of an older one finds these windows whole, and gives them too.
    pub(super) fn ignored_until_us(&self, state: usize) -> i64 {
        let rules = self.rules_here(state).filter(|rule| !self.waits(*rule));
        let ignored = rules.map(|rule| self.began_before_us(rule)).min().unwrap_or(BEFORE_TIME);
        self.final_until_us(state).max(ignored)
    }

    /// What is final at this watermark reaches back to before the rule began.
    pub(super) fn began_before_us(&self, rule: usize) -> i64 {
        match self.progress_of_rules[rule].active_from_us {
            BEFORE_TIME => BEFORE_TIME,
            active_from_us => active_from_us.saturating_add(self.rules[rule].span_us.unwrap_or(0) - 1),
        }
    }

    /// Takes lanes that a source assigned, and lets them flow.
    pub(super) async fn take_lanes(&mut self, source: usize, lanes: &[LaneId]) -> Result<()> {
        let mine: Vec<LaneId> = lanes.iter().filter(|lane| !self.lanes.contains_key(lane)).cloned().collect();
        self.chain.take(&mine).await?;
        for lane in mine {
            let is_inbox = self.exchange.as_ref().is_some_and(|exchange| exchange.is_inbox(&lane));
            let of_job = self.streams.iter().position(|stream| stream.lanes.matches(&lane));
            let Some(stream) = of_job.or(is_inbox.then_some(INBOX)) else { continue };
            self.open_lane(source, stream, lane).await?;
        }
        Ok(())
    }

    async fn open_lane(&mut self, source: usize, stream: usize, lane: LaneId) -> Result<()> {
        let number = LaneNumber::try_from(self.lanes.len()).unwrap_or(LaneNumber::MAX);
        let worker = self.lanes.len() % self.workers.len();
        let known = self.dormant.remove(&lane);
        let begun = known.is_some();
        let name = self.streams.get(stream).map_or(INBOX_STREAM, |plan| plan.name.as_str());
        let (mut section, mut replay) = known.unwrap_or_else(|| (new_section(&lane, name), Replay::default()));
        replay.reached_us = self.watermark_base(stream).max(begun.then_some(section.reached_us));
        self.quarantine_sharers(&lane, section.state);
        let quarantined = self.quarantined_before(&lane, section.state);
        let opening = LaneOpening {
            number,
            lane: lane.clone(),
            stream,
            resume: begun.then_some(section.state),
            reached_us: section.resume_reached_us,
            replay: replay.clone(),
            quarantined,
            fails_later: self.failures_from(&lane, section.state),
        };
        let position = if begun { Position::Offset(section.state) } else { self.begin_at(&lane, stream) };
        let on_gap = self.streams.get(stream).map_or(OnGap::Stop, |plan| plan.on_gap);
        let log = section.log.clone();
        let went_on = section.ended && section.state == section.published;
        section.ended = false;
        self.tell_worker(worker, WorkerMessage::Open(Box::new(opening))).await?;
        if (!begun || went_on)
            && stream != INBOX
            && let Some(reached_us) = self.watermark_base(stream)
        {
            // A lane that appears in a running stream, or goes on after its end, cannot open windows that are closed.
            self.tell_worker(worker, WorkerMessage::Idle(number, reached_us)).await?;
        }
        let status = LaneStatus {
            number,
            worker,
            stream,
            source,
            committed_offset: begun.then_some(section.published),
            ended_committed: false,
            processed: section.state,
            replay,
            section,
            begun,
            silent_since_ms: None,
            doubt: Doubt::default(),
        };
        self.lanes.insert(lane.clone(), status);
        if let Some(commands) = self.source_commands.get(source) {
            commands
                .send(SourceCommand::Start(lane, Route { number, worker, position, log, on_gap }))
                .map_err(|_closed| Error::ThreadGone { thread: format!("source {source}") })?;
        }
        Ok(())
    }

    /// Where a lane without a past begins: as its stream says, if that has none either. A lane that comes to it later was empty when
    /// the stream began, and whatever is in it when it is found has come since.
    /// A lane that was there at the very first start, but had no leader until that process ended, is not one of these: see
    /// [`Self::begin_at`].
    pub(super) fn first_position(&self, stream: usize) -> Position {
        let Some(plan) = self.streams.get(stream) else { return Position::Earliest };
        let has_begun = self.lanes.values().any(|status| status.stream == stream && status.begun)
            || self.dormant.keys().any(|lane| plan.lanes.matches(lane));
        if has_begun { Position::Earliest } else { plan.start }
    }

    /// Sends a worker a message. The queue is bounded: that may wait for the worker to take a block.
    pub(super) async fn tell_worker(&self, worker: usize, message: WorkerMessage) -> Result<()> {
        let message = match self.workers[worker].try_send(message) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(message)) => message,
            Err(TrySendError::Disconnected(_)) => return Err(gone(worker)),
        };
        let queue = self.workers[worker].clone();
        let sent = aside(&*self.threads, || format!("worker {worker}"), move || queue.send(message).map_err(drop));
        sent.await?.map_err(|_closed| gone(worker))
    }

    /// Rules that failed in a lane before the offset where it resumes; later failures happen again by themselves.
    pub(super) fn quarantined_before(&self, lane: &LaneId, offset: i64) -> Vec<usize> {
        let failed = |progress: &RuleProgress| {
            progress.quarantined.iter().any(|q| q.lane.as_ref() == Some(lane) && q.offset < offset)
        };
        (0..self.rules.len()).filter(|rule| failed(&self.progress_of_rules[*rule])).collect()
    }

    /// Rules that failed in a lane at or after the offset where it resumes, and where.
    fn failures_from(&self, lane: &LaneId, offset: i64) -> Vec<(i64, usize)> {
        let each = self.progress_of_rules.iter().enumerate().flat_map(|(rule, progress)| {
            let here = progress.quarantined.iter().filter(|q| q.lane.as_ref() == Some(lane) && q.offset >= offset);
            here.map(move |q| (q.offset, rule))
        });
        each.collect()
    }

    /// A new rule that shares the state of one that failed in the lane is stopped there with it, and that is recorded: the
    /// state lacks the events from the failure on.
    pub(super) fn quarantine_sharers(&mut self, lane: &LaneId, offset: i64) {
        let failures: Vec<RuleFailure> = self
            .states
            .iter()
            .flat_map(|state| {
                let in_lane = |rule: usize| {
                    let quarantined = &self.progress_of_rules[rule].quarantined;
                    quarantined.iter().find(|q| q.lane.as_ref() == Some(lane) && q.offset < offset)
                };
                let first = state.rules.iter().find_map(|rule| in_lane(*rule));
                let others = state.rules.iter().filter(move |rule| in_lane(**rule).is_none());
                others.filter_map(move |rule| {
                    let Quarantine { offset, message, .. } = first?;
                    Some(RuleFailure { rule: *rule, offset: *offset, message: message.clone() })
                })
            })
            .collect();
        for failure in failures {
            self.note_failure(Some(lane.clone()), failure, true);
        }
    }

    /// The time that the lanes of a stream had reached when its rules emitted last, if any did.
    fn watermark_base(&self, stream: usize) -> Option<i64> {
        let of_stream = (0..self.rules.len()).filter(|rule| self.rules[*rule].streams.contains(&stream));
        of_stream
            .map(|rule| (self.progress_of_rules[rule].final_until_us, self.rules[rule].delay_ms))
            .filter(|(final_until_us, _)| *final_until_us != BEFORE_TIME && *final_until_us != END_OF_TIME)
            .map(|(final_until_us, delay_ms)| final_until_us.saturating_add(delay_ms.saturating_mul(1_000)))
            .max()
    }
}

fn new_section(lane: &LaneId, stream: &str) -> LaneSection {
    LaneSection {
        lane: lane.clone(),
        generation: 0,
        stream: stream.to_owned(),
        log: None,
        published: 0,
        archive: 0,
        state: 0,
        reached_us: BEFORE_TIME,
        resume_reached_us: BEFORE_TIME,
        since: 0,
        ended: false,
        idle_advances: Vec::new(),
        refused: Vec::new(),
        gaps: Vec::new(),
    }
}
