//! The second stage: merges the partial states of all workers, gives out what the watermark makes final, and runs what
//! follows of each rule over it.
//!
//! ```text
//! deltas of the lanes ─▶ state (windows, rows in order) ─final─▶ stages of each rule that keeps it ─▶ rows
//! ```
//! A state can be restored from a snapshot that is older than what was given out since. The state of a rule without stages of
//! its own takes nothing in again that was final then. A rule with stages goes through it again, to have them as they were,
//! and gives nothing out until it is past what was given: its output depends on the watermark only, not on when it came.
//!
//! What states and stages keep is bounded by a share of memory, if the program has one: above it, the largest go to scratch files, and
//! what becomes final is then given in parts. A stage takes each part in and gives out what is final with the last. A disk that is full costs
//! nothing but time: what it does not take stays in memory, and [`FinalProgram::relieve`] says so until it does.
//!
//! A row that fails in a step is left out and reported; which rows fail does not depend on batching, as a failing batch is
//! halved down to single rows. A rule that fails in a stage that keeps state is reported as stopped.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use datafusion::error::DataFusionError;
use wattline_core::error::Retry;
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use crate::error::Error;
use crate::lane_program::state_error;
#[cfg(test)]
use crate::operators::TestDisk;
use crate::operators::{
    FinalPanes, InOrder, OrderBuffer, Run, Scratch, filled_bytes, is_of_scratch, is_of_writing, record_batch,
    without_panic, without_spare_bytes,
};
use crate::planner::{Feed, Hold, Node};
use crate::program::{FinalOutput, RuleFailure, RuleRows, StageState, StateDelta};
use crate::rule_set::CompiledRule;
use crate::shared_state::SharedState;

mod dump;
mod past;
mod shared_keys;
mod stage;

pub use dump::{Dump, StageDump};
use dump::{DumpedRun, DumpedStage};
use shared_keys::SharedKeys;
use stage::{Advance, Released, Stage};

/// All rules, with the merged state of a process.
pub struct FinalProgram {
    rules: Arc<Vec<CompiledRule>>,
    shared: Arc<Vec<SharedState>>,
    states: Vec<FinalState>,
    shared_keys: Vec<SharedKeys>,
    /// What each state has given is final up to here.
    watermarks_us: Vec<i64>,
    stages: Vec<RuleStages>,
    share: Option<Share>,
}

/// How often it is looked what the states have while their share is merged.
const LOOKS_PER_SHARE: usize = 16;

/// Restored rows that come into their tables with one advance, about: some tens of milliseconds.
const TAKEN_IN_ROWS: usize = if cfg!(test) { 40 } else { 64 * 1024 };

/// How much memory the states may have.
#[derive(Debug)]
struct Share {
    bytes: usize,
    scratch: Scratch,
    /// Bytes merged since it was last looked how much memory the states have: to look means to ask every window.
    merged: usize,
}

enum FinalState {
    Windows(Box<FinalPanes>),
    Ordered(OrderBuffer),
}

/// Who has memory: a state by its number, or the stages of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    State(usize),
    Stages(usize),
}

/// What follows the states of a rule.
struct RuleStages {
    /// For each feed its state.
    feeds: Vec<Option<usize>>,
    root: Stage,
    keeps_state: bool,
    /// Everything that was final at this watermark is out.
    given_us: i64,
    /// Of what this watermark makes final only a part is out.
    open: Option<i64>,
    stopped: bool,
}

impl fmt::Debug for FinalProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FinalProgram")
            .field("rules", &self.rules.len())
            .field("state_rows", &self.state_rows())
            .field("stage_rows", &self.stages.iter().map(|stages| stages.root.rows()).collect::<Vec<_>>())
            .finish()
    }
}

impl FinalState {
    fn new(feed: &Feed) -> Self {
        match &feed.hold {
            Hold::Windows(window) => Self::Windows(Box::new(FinalPanes::new(Arc::clone(window)))),
            Hold::Rows | Hold::Nothing => Self::Ordered(OrderBuffer::new(Arc::clone(&feed.schema))),
        }
    }

    fn rows(&self) -> usize {
        match self {
            Self::Windows(panes) => panes.rows(),
            Self::Ordered(buffer) => buffer.rows(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Windows(panes) => panes.bytes(),
            Self::Ordered(buffer) => buffer.bytes(),
        }
    }

    /// Memory that [`spill`](Self::spill) gives back.
    fn bytes_to_spill(&self) -> usize {
        match self {
            Self::Windows(panes) if !panes.can_spill() => 0,
            Self::Windows(_) | Self::Ordered(_) => self.bytes(),
        }
    }

    fn spill(&mut self, scratch: &Scratch) -> Result<(), DataFusionError> {
        match self {
            Self::Windows(panes) => panes.spill(scratch),
            Self::Ordered(buffer) => buffer.spill(scratch),
        }
    }
}

impl FinalProgram {
    /// `shared` are the states of the rules that run, and of others, which are not given out.
    pub(crate) fn new(
        rules: Arc<Vec<CompiledRule>>,
        shared: Arc<Vec<SharedState>>,
        runs: impl Fn(&CompiledRule, usize) -> bool,
    ) -> Self {
        let shared_keys = SharedKeys::of(&shared, &rules);
        let mut states: Vec<FinalState> = shared.iter().map(|state| FinalState::new(state.feed(&rules))).collect();
        for (number, state) in states.iter_mut().enumerate() {
            shared_keys.iter().for_each(|keys| keys.give(number, state));
        }
        let state_of = |fingerprint: &String| shared.iter().position(|state| state.fingerprint == *fingerprint);
        let stages = rules.iter().enumerate().map(|(number, rule)| RuleStages {
            feeds: rule.feed_fingerprints.iter().map(state_of).collect(),
            root: Stage::new(&rule.plan.root),
            keeps_state: rule.plan.root.keeps_state(),
            given_us: BEFORE_TIME,
            open: None,
            stopped: !runs(rule, number),
        });
        let stages = stages.collect();
        Self { watermarks_us: vec![BEFORE_TIME; shared.len()], rules, shared, states, shared_keys, stages, share: None }
    }

    /// Gives what the rules keep so many bytes of memory; the rest of it goes to files without names in `folder`.
    #[must_use]
    pub fn with_memory(mut self, bytes: usize, folder: &Path) -> Self {
        self.share = Some(Share { bytes, scratch: Scratch::new(folder, bytes), merged: 0 });
        self
    }

    /// As [`with_memory`](Self::with_memory), on a disk that may be full.
    #[cfg(test)]
    pub(crate) fn with_disk(mut self, bytes: usize, disk: Arc<TestDisk>) -> Self {
        let scratch = Scratch::new(&std::env::temp_dir(), bytes).on(disk);
        self.share = Some(Share { bytes, scratch, merged: 0 });
        self
    }

    /// Puts what the rules keep on disk if it has more than its share of memory, the largest first, until half of it is left.
    ///
    /// # Errors
    /// [`Error::Scratch`] if the disk does not take it: it is all still there, and the call can be made again.
    pub fn relieve(&mut self) -> Result<(), Error> {
        let Some(Share { bytes: most, scratch, merged }) = &mut self.share else { return Ok(()) };
        if *merged <= *most / LOOKS_PER_SHARE {
            return Ok(());
        }
        // Until it is done the next call looks again.
        *merged = usize::MAX;
        let (states, stages) = (0..self.states.len(), 0..self.stages.len());
        let holders = states.map(Holder::State).chain(stages.map(Holder::Stages));
        let mut largest_first: Vec<(usize, Holder)> = holders
            .map(|holder| match holder {
                Holder::State(state) => (self.states[state].bytes_to_spill(), holder),
                Holder::Stages(rule) => (self.stages[rule].root.bytes_to_spill(), holder),
            })
            .collect();
        let mut total: usize = largest_first.iter().map(|(bytes, _)| bytes).sum();
        total += self.shared_keys.iter().map(SharedKeys::bytes).sum::<usize>();
        if total <= *most {
            *merged = 0;
            return Ok(());
        }
        largest_first.sort_unstable_by(|a, b| b.cmp(a));
        for (bytes, holder) in largest_first {
            let spilled = match holder {
                Holder::State(state) => {
                    let spilled = self.states[state].spill(scratch);
                    spilled.map_err(|source| (self.shared[state].rule(&self.rules), source))
                }
                Holder::Stages(rule) => {
                    let spilled = self.stages[rule].root.visit(&mut 0, &mut |_, stage| stage.spill(scratch, *most));
                    spilled.map_err(|source| (&self.rules[rule], source))
                }
            };
            spilled.map_err(|(rule, source)| scratch_or_state(&rule.header.id, source))?;
            let left = match holder {
                Holder::State(state) => self.states[state].bytes_to_spill(),
                Holder::Stages(rule) => self.stages[rule].root.bytes_to_spill(),
            };
            total -= bytes.saturating_sub(left);
            if total <= *most / 2 {
                break;
            }
        }
        *merged = 0;
        self.tidy_keys();
        Ok(())
    }

    /// Keys that have a number now.
    #[cfg(test)]
    pub(crate) fn numbered_keys(&self) -> usize {
        self.shared_keys.iter().map(SharedKeys::len).sum()
    }

    fn tidy_keys(&mut self) {
        self.shared_keys.iter_mut().for_each(|keys| keys.tidy(&mut self.states));
    }

    /// The next [`relieve`](Self::relieve) is to look whether there is too much.
    fn owe_relief(&mut self) {
        if let Some(share) = &mut self.share {
            share.merged = usize::MAX;
        }
    }

    /// Adds state rows: a worker's delta.
    ///
    /// # Errors
    /// [`Error::State`] if the rows do not have the shape of the state.
    pub fn merge(&mut self, delta: &StateDelta) -> Result<(), Error> {
        let final_at_us = self.watermarks_us[delta.state];
        if let Some(share) = &mut self.share {
            share.merged = share.merged.saturating_add(delta.batch.get_array_memory_size());
        }
        let held = &mut self.states[delta.state];
        let merged = without_panic(|| match held {
            FinalState::Windows(panes) => panes.merge(&delta.batch, final_at_us),
            FinalState::Ordered(buffer) => buffer.merge(&delta.batch, final_at_us),
        });
        merged.map_err(|source| state_error(self.shared[delta.state].rule(&self.rules), source))
    }

    /// Adds a part of a snapshot. Windows leave it as it is for now: it comes into their tables with the next advances, or when a window
    /// is final. So it can be given at once, however much there is.
    ///
    /// # Errors
    /// [`Error::State`] if the rows do not have the shape of the state.
    pub fn restore(&mut self, delta: &StateDelta) -> Result<(), Error> {
        let FinalState::Windows(panes) = &mut self.states[delta.state] else { return self.merge(delta) };
        let restored = panes.restore_later(&delta.batch, self.watermarks_us[delta.state]);
        if let Some(share) = &mut self.share {
            share.merged = share.merged.saturating_add(filled_bytes(&delta.batch));
        }
        restored.map_err(|source| state_error(self.shared[delta.state].rule(&self.rules), source))
    }

    /// Brings some of what was restored into its tables.
    fn take_in(&mut self) -> Result<(), Error> {
        let mut left = TAKEN_IN_ROWS;
        for (state, held) in self.states.iter_mut().enumerate() {
            let FinalState::Windows(panes) = held else { continue };
            let taken = without_panic(|| panes.take_in(left));
            let taken = taken.map_err(|source| state_error(self.shared[state].rule(&self.rules), source))?;
            left = left.saturating_sub(taken);
        }
        Ok(())
    }

    /// Moves each state to its watermark (microseconds) and gives out what that makes final for its rules, or a part of it: then
    /// it is to be called again with the same watermarks. Never moves back. All states of a rule have the same watermark.
    ///
    /// # Errors
    /// [`Error::Scratch`] if what was put on disk cannot be read. If the disk does not take what is to be merged there, nothing has been
    /// given, and the call can be made again.
    pub fn advance(&mut self, watermarks_us: &[i64]) -> Result<FinalOutput, Error> {
        let mut output = FinalOutput::default();
        self.take_in()?;
        // Where a rule that goes through the past again begins to give.
        let mut turns: Vec<i64> = self.stages.iter().map(|of| of.given_us).collect();
        turns.push(END_OF_TIME);
        turns.sort_unstable();
        turns.dedup();
        for turn_us in turns {
            let targets_us: Vec<i64> = watermarks_us.iter().map(|us| (*us).min(turn_us)).collect();
            self.advance_to(&targets_us, &mut output)?;
            if output.more {
                break;
            }
        }
        self.tidy_keys();
        Ok(output)
    }

    fn advance_to(&mut self, targets_us: &[i64], output: &mut FinalOutput) -> Result<(), Error> {
        let moved: Vec<bool> = targets_us.iter().zip(&self.watermarks_us).map(|(to, at)| to > at).collect();
        let before_us = self.watermarks_us.clone();
        let mut released: Vec<Released> = Vec::with_capacity(self.states.len());
        let mut put_off = None;
        for (state, moves) in moved.iter().enumerate() {
            let taken = if *moves { self.release(state, targets_us[state], output) } else { Ok(Released::default()) };
            let of_state = match taken {
                // What others have given must not be lost with it: it is to come with the next part.
                Err(error) if error.retry() == Retry::Backoff => {
                    put_off = Some(error);
                    Released { more: true, ..Released::default() }
                }
                taken => taken?,
            };
            output.more |= of_state.more;
            if let Some(share) = &mut self.share {
                share.merged = share.merged.saturating_add(of_state.bytes());
            }
            released.push(of_state);
        }
        if let Some(error) = put_off
            && released.iter().all(|of| of.batches.is_empty())
            && output.is_empty()
        {
            self.watermarks_us = before_us;
            return Err(error);
        }
        for rule in 0..self.rules.len() {
            let stages = &self.stages[rule];
            let mut feeds = stages.feeds.iter().flatten();
            let goes_on = |state: usize| stages.open.is_some_and(|to_us| targets_us[state] >= to_us);
            let state = feeds.find(|state| moved[**state] || goes_on(**state));
            if let (Some(state), false) = (state, stages.stopped) {
                self.advance_rule(rule, targets_us[*state], &released, output)?;
            }
        }
        Ok(())
    }

    /// Brings what the states of a rule have given to its stages.
    fn advance_rule(
        &mut self,
        rule: usize,
        watermark_us: i64,
        released: &[Released],
        output: &mut FinalOutput,
    ) -> Result<(), Error> {
        let none = Released::default();
        let part_rows = self.part_rows();
        let stages = &mut self.stages[rule];
        let feeds: Vec<&Released> =
            stages.feeds.iter().map(|state| state.map_or(&none, |state| &released[state])).collect();
        let mut failures = Vec::new();
        let mut to = Advance { feeds: &feeds, watermark_us, part_rows, put_off: false, failures: &mut failures };
        let given = without_panic(|| stages.root.advance(&mut to));
        let put_off = to.put_off;
        let is_new = watermark_us > stages.given_us;
        let identity = match (&self.rules[rule].plan.root, &feeds[..]) {
            (Node::Feed(_), [Released { identity, .. }]) => identity.clone(),
            _ => None,
        };
        if put_off && let Some(share) = &mut self.share {
            share.merged = usize::MAX;
        }
        let rows = match given {
            Ok(given) => {
                // Until all parts are out, the rule stays where it is.
                stages.open = given.more.then_some(watermark_us);
                if !given.more {
                    stages.given_us = stages.given_us.max(watermark_us);
                }
                output.more |= given.more;
                self.joined(rule, &given.batches)
            }
            Err(error) if is_of_scratch(&error) => return Err(scratch_or_state(&self.rules[rule].header.id, error)),
            Err(error) => Err(Error::from(error)),
        };
        match rows {
            Err(error) => {
                self.stop(rule);
                output.stopped.push((rule, error.to_string()));
            }
            Ok(_) if !is_new => {}
            Ok(batch) => {
                output.rows.extend(batch.map(|batch| RuleRows { rule, batch, identity }));
                output.errors.extend(failures.into_iter().map(|message| RuleFailure {
                    rule,
                    lane: None,
                    row: None,
                    partition: None,
                    offset: None,
                    message,
                }));
            }
        }
        Ok(())
    }

    fn part_rows(&self) -> usize {
        self.share.as_ref().map_or(usize::MAX, |share| share.scratch.part_rows())
    }

    /// Takes out of a state what a watermark makes final, or a part of it; its rules stop if that fails.
    fn release(&mut self, state: usize, watermark_us: i64, output: &mut FinalOutput) -> Result<Released, Error> {
        let given_us = std::mem::replace(&mut self.watermarks_us[state], watermark_us);
        let part_rows = self.part_rows();
        let held = &mut self.states[state];
        let released = without_panic(|| match held {
            FinalState::Windows(panes) => panes
                .close_until(given_us, watermark_us, part_rows)
                .map(|closed| Released { more: closed.more, ..Released::new(closed.batches, None) }),
            FinalState::Ordered(buffer) => buffer.release_before(watermark_us).map(|rows| match rows {
                Some(InOrder { rows, identity, more }) => {
                    Released { more, ..Released::new(vec![rows], Some(identity)) }
                }
                None => Released::default(),
            }),
        });
        if released.as_ref().is_ok_and(|released| released.more) {
            self.watermarks_us[state] = given_us;
        }
        match released {
            Ok(released) => Ok(released),
            Err(error) if is_of_scratch(&error) => {
                // Where the disk was full, nothing was taken out.
                self.watermarks_us[state] = given_us;
                Err(scratch_or_state(&self.shared[state].rule(&self.rules).header.id, error))
            }
            Err(error) => {
                self.empty_state(state);
                for rule in self.shared[state].rules.clone() {
                    self.stop(rule);
                    output.stopped.push((rule, error.strip_backtrace()));
                }
                Ok(Released::default())
            }
        }
    }

    fn empty_state(&mut self, state: usize) {
        let mut empty = FinalState::new(self.shared[state].feed(&self.rules));
        self.shared_keys.iter().for_each(|keys| keys.give(state, &mut empty));
        self.states[state] = empty;
    }

    /// What a rule keeps that failed is of no use any more.
    fn stop(&mut self, rule: usize) {
        let stages = &mut self.stages[rule];
        (stages.stopped, stages.open) = (true, None);
        stages.root = Stage::new(&self.rules[rule].plan.root);
    }

    /// One batch per call rather than one per window.
    fn joined(&self, rule: usize, rows: &[RecordBatch]) -> Result<Option<RecordBatch>, Error> {
        let schema = &self.rules[rule].output_schema;
        let rows: Vec<&RecordBatch> = rows.iter().filter(|rows| rows.num_rows() > 0).collect();
        Ok(match &rows[..] {
            [] => None,
            [one] => Some(record_batch(schema, one.columns().to_vec(), one.num_rows())?),
            [first, ..] => {
                let all = concat_batches(&first.schema(), rows.iter().copied())?;
                Some(record_batch(schema, all.columns().to_vec(), all.num_rows())?)
            }
        })
    }

    /// Says up to where what a state gives is out, as a manifest has it. What was final then is not taken in again, unless
    /// a rule has to go through it again.
    pub fn set_given(&mut self, state: usize, watermark_us: i64) {
        let rules = &self.shared[state].rules;
        for rule in rules {
            let given_us = &mut self.stages[*rule].given_us;
            *given_us = (*given_us).max(watermark_us);
        }
        if !rules.iter().any(|rule| self.stages[*rule].keeps_state) {
            self.watermarks_us[state] = self.watermarks_us[state].max(watermark_us);
        }
    }

    /// For a rule that begins in a running stream: what its stages would give before they have seen all of it is left out.
    /// A rule without stages gives what the state that it shares holds.
    pub fn begin_at(&mut self, rule: usize, watermark_us: i64) {
        let stages = &mut self.stages[rule];
        if stages.keeps_state {
            stages.given_us = stages.given_us.max(watermark_us);
        }
    }

    /// For a rule that begins while the program runs: nothing of what is final at the watermark is given, also of what states hold.
    pub fn leave_out(&mut self, rule: usize, watermark_us: i64) {
        let given_us = &mut self.stages[rule].given_us;
        *given_us = (*given_us).max(watermark_us);
    }

    /// The watermark up to which a state has been taken out: what a snapshot leaves away.
    #[must_use]
    pub fn taken_us(&self, state: usize) -> i64 {
        self.watermarks_us[state]
    }

    /// The whole state that came from the lanes, as rows; the program keeps it. What is on disk is read as it is asked for.
    ///
    /// # Errors
    /// [`Error::State`] if an accumulator cannot give its state or take it back, [`Error::Scratch`] if the disk fails.
    pub fn dump(&mut self) -> Result<Dump, Error> {
        let mut deltas = Vec::new();
        let (mut runs, mut restored) = (Vec::new(), Vec::new());
        for (state, held) in self.states.iter_mut().enumerate() {
            let taken = match held {
                FinalState::Windows(panes) => {
                    let delta = |(final_at_us, batch)| StateDelta { state, final_at_us, batch };
                    restored.extend(panes.restored().map(delta));
                    runs.extend(panes.runs().map(|(final_at_us, run)| DumpedRun::new(state, final_at_us, run)));
                    panes.drain_tables()
                }
                FinalState::Ordered(buffer) => {
                    runs.extend(buffer.runs().map(|run| DumpedRun::new(state, END_OF_TIME, run)));
                    buffer.drain_before(END_OF_TIME).map(|taken| taken.into_iter().collect())
                }
            };
            let taken = taken.map_err(|source| state_error(self.shared[state].rule(&self.rules), source))?;
            for (final_at_us, batch) in taken {
                deltas.push(StateDelta { state, final_at_us, batch: without_spare_bytes(&batch)? });
            }
        }
        for delta in &deltas {
            self.merge(delta)?;
        }
        deltas.extend(restored);
        let rules_of_states = self.shared.iter().map(|state| state.rule(&self.rules).header.id.clone()).collect();
        Ok(Dump { deltas: deltas.into_iter(), runs: runs.into_iter(), open: None, rules_of_states })
    }

    /// What the stages of the rules keep; the program keeps it. What is on disk is read as it is asked for.
    ///
    /// # Errors
    /// [`Error::State`] if a stage cannot give its state.
    pub fn dump_stages(&mut self) -> Result<StageDump, Error> {
        let mut all = Vec::new();
        for (rule, stages) in self.stages.iter_mut().enumerate().filter(|(_, stages)| stages.keeps_state) {
            let taken_us = stages.feeds.iter().flatten().map(|state| self.watermarks_us[*state]).min();
            let taken_us = taken_us.unwrap_or(BEFORE_TIME);
            let parts = stages.root.dump().map_err(|source| scratch_or_state(&self.rules[rule].header.id, source))?;
            all.extend(parts.into_iter().map(|(part, kept)| DumpedStage { rule, taken_us, part, kept }));
        }
        let rules = self.rules.iter().map(|rule| rule.header.id.clone()).collect();
        Ok(StageDump { parts: all.into_iter(), open: None, rules })
    }

    /// Takes back what [`dump_stages`](Self::dump_stages) gave; before any state is merged.
    ///
    /// # Errors
    /// [`Error::State`] if the rows do not have the shape of the stage.
    pub fn restore_stage(&mut self, state: &StageState) -> Result<(), Error> {
        let stages = &mut self.stages[state.rule];
        for feed in stages.feeds.iter().flatten() {
            self.watermarks_us[*feed] = self.watermarks_us[*feed].max(state.taken_us);
        }
        if let Some(share) = &mut self.share {
            share.merged = share.merged.saturating_add(filled_bytes(&state.batch));
        }
        let restored = stages.root.restore(state.part, &state.batch, state.taken_us);
        let mut put_off = false;
        stages.root.visit(&mut 0, &mut |_, stage| {
            put_off |= stage.take_put_off();
            Ok(())
        })?;
        if put_off {
            self.owe_relief();
        }
        restored.map_err(|source| scratch_or_state(&self.rules[state.rule].header.id, source))
    }

    /// Groups and waiting rows held.
    #[must_use]
    pub fn state_rows(&self) -> usize {
        let of_stages: usize = self.stages.iter().map(|stages| stages.root.rows()).sum();
        of_stages + self.states.iter().map(FinalState::rows).sum::<usize>()
    }

    /// Memory held, bytes.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        let of_stages: usize = self.stages.iter().map(|stages| stages.root.bytes()).sum();
        let of_keys: usize = self.shared_keys.iter().map(SharedKeys::bytes).sum();
        of_stages + of_keys + self.states.iter().map(FinalState::bytes).sum::<usize>()
    }
}

fn scratch_or_state(rule: &str, source: DataFusionError) -> Error {
    let source = Box::new(source);
    match is_of_scratch(&source) {
        true => Error::Scratch { is_kept: is_of_writing(&source), source },
        false => Error::State { rule: rule.to_owned(), source },
    }
}
