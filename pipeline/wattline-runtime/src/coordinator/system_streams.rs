//! What the job says of itself, handed to its rules: see [`wattline_core::system_log`].
//!
//! Refused records, rule errors and gaps are gathered over a tick. At its end, after everything that can cause them, they are
//! numbered and dated, and the first worker runs over them the rules that read them. That may cause rule errors in turn,
//! which are taken in at once; it ends, as a rule is stopped in the lane of a system stream by its first error there. A rule
//! that reads `rule_errors` and fails after the lanes were merged is stopped as a whole: else it would feed itself.

use arrow::array::RecordBatch;
use wattline_core::record::LaneId;
use wattline_core::system_log::{Recorded, SystemLog, SystemSection};
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use super::{Coordinator, RulePlan, StatePlan, gone};
use crate::error::{Error, Result};
use crate::recovery::Past;
use crate::table::{self, DeadLetter, SystemStream};
use crate::worker::{LaneNumber, SystemReport, WorkerMessage};

/// The worker that has the lanes of the system streams.
const WORKER: usize = 0;

/// Which of the system streams.
const DEAD_LETTERS: usize = 0;
const RULE_ERRORS: usize = 1;
const OFFSET_GAPS: usize = 2;

/// The lane of a system stream.
pub(super) struct SystemLane {
    stream: SystemStream,
    lane: LaneId,
    log: SystemLog,
    /// The stored state covers all rows before this number.
    state: i64,
    /// Whether a rule reads it.
    is_read: bool,
}

impl SystemLane {
    /// The lanes of a slot as they stand after the past. `streams` is how many streams the job has of its own.
    pub(super) fn all(slot: &str, streams: usize, rules: &[RulePlan], past: &Past, fresh: bool) -> Vec<Self> {
        let lanes = table::system_streams().into_iter().enumerate().map(|(which, stream)| {
            let known = past.system.iter().find(|section| section.stream == stream.name);
            let log = known.map_or_else(SystemLog::default, |section| SystemLog::at(section.next, section.reached_us));
            let state = known.filter(|_| !fresh).map_or_else(|| log.next(), |section| section.state);
            let is_read = rules.iter().any(|rule| rule.streams.contains(&(streams + which)));
            let lane = LaneId::new(format!("{}/{slot}", stream.name), 0);
            Self { stream, lane, log, state, is_read }
        });
        lanes.collect()
    }

    pub(super) fn reached_us(&self) -> i64 {
        self.log.reached_us()
    }

    /// Whether a rule reads it.
    pub(super) fn is_read(&self) -> bool {
        self.is_read
    }

    /// Nothing comes any more.
    pub(super) fn end(&mut self) {
        self.log.end();
    }

    /// What the next link says; a checkpoint covers all rows, as they are handed to the rules before it.
    pub(super) fn section(&self, checkpoint: bool) -> SystemSection {
        SystemSection {
            stream: self.stream.name.to_owned(),
            next: self.log.next(),
            state: if checkpoint { self.log.next() } else { self.state },
            reached_us: self.log.last_us(),
        }
    }

    pub(super) fn note_committed(&mut self, section: &SystemSection) {
        self.state = section.state;
    }
}

impl Coordinator {
    /// The name of the lane of a system stream on its worker: no source has one so high.
    fn system_number(which: usize) -> LaneNumber {
        LaneNumber::MAX - LaneNumber::try_from(which).unwrap_or_default()
    }

    /// Whether the rule is told of rule errors, its own among them.
    pub(super) fn reads_rule_errors(&self, rule: usize) -> bool {
        self.rules[rule].streams.contains(&(self.streams.len() + RULE_ERRORS))
    }

    /// Gives the worker what the links say of the system streams: rules that were stopped, rows since the checkpoint.
    pub(super) async fn restore_system_streams(&mut self, rows: Vec<(String, RecordBatch)>) -> Result<()> {
        for which in 0..self.system.len() {
            let (lane, state) = (self.system[which].lane.clone(), self.system[which].state);
            self.quarantine_sharers(&lane, state);
            let rules = self.quarantined_before(&lane, state);
            self.tell_worker(WORKER, WorkerMessage::Quarantine(Self::system_number(which), rules)).await?;
        }
        for (stream, batch) in rows {
            let which = self.system.iter().position(|of| of.stream.name == stream && of.is_read);
            let Some(which) = which else { continue };
            // What the rules made of these rows is out.
            let report = self.run_over_system_rows(which, batch, false).await?;
            let lane = self.system[which].lane.clone();
            for failure in report.output.failures {
                self.note_failure(Some(lane.clone()), failure, true);
            }
        }
        Ok(())
    }

    /// Records what the tick has found, and hands it to the rules.
    pub(super) async fn feed_system_streams(&mut self, checkpoint: bool) -> Result<()> {
        let now_us = self.clock.now_ms().saturating_mul(1_000);
        let gaps = std::mem::take(&mut self.uncommitted.found_gaps);
        if !gaps.is_empty() {
            let (lane, recorded) = self.record(OFFSET_GAPS, gaps.len(), now_us);
            let batch = table::offset_gap_batch(&gaps, &lane, recorded)?;
            self.take_system_rows(OFFSET_GAPS, batch, checkpoint).await?;
        }
        loop {
            let letters = std::mem::take(&mut self.uncommitted.dead_letters);
            if !letters.is_empty() {
                self.uncommitted.letter_bytes += letters.iter().map(DeadLetter::held_bytes).sum::<u64>();
                let (lane, recorded) = self.record(DEAD_LETTERS, letters.len(), now_us);
                let batch = table::dead_letter_batch(&letters, &lane, recorded)?;
                self.take_system_rows(DEAD_LETTERS, batch, checkpoint).await?;
            }
            let errors = std::mem::take(&mut self.uncommitted.rule_errors);
            if !errors.is_empty() {
                let (lane, recorded) = self.record(RULE_ERRORS, errors.len(), now_us);
                let batch = table::rule_error_batch(&errors, &lane, recorded)?;
                self.take_system_rows(RULE_ERRORS, batch, checkpoint).await?;
            }
            if letters.is_empty() && errors.is_empty() {
                break;
            }
        }
        self.system.iter_mut().for_each(|of| of.log.advance_to(now_us));
        Ok(())
    }

    fn record(&mut self, which: usize, rows: usize, now_us: i64) -> (LaneId, Recorded) {
        let of = &mut self.system[which];
        (of.lane.clone(), of.log.record(rows, now_us))
    }

    async fn take_system_rows(&mut self, which: usize, batch: RecordBatch, checkpoint: bool) -> Result<()> {
        let of = &self.system[which];
        let (name, lane, is_read) = (of.stream.name.to_owned(), of.lane.clone(), of.is_read);
        self.uncommitted.system_rows.push((name, batch.clone()));
        if !is_read {
            return Ok(());
        }
        let report = self.run_over_system_rows(which, batch, checkpoint).await?;
        for failure in report.output.failures {
            self.note_failure(Some(lane.clone()), failure, true);
        }
        let deltas = report.deltas.map_err(|what| Error::State { what })?;
        deltas.into_iter().try_for_each(|delta| self.take_delta(delta, true))?;
        self.take_lane_rows(report.output.rows)
    }

    /// Runs the rules over rows of a system stream; for a checkpoint with all partial state that came of it. The worker has
    /// gone on since the barrier: what it holds of other streams belongs to the next epoch.
    async fn run_over_system_rows(&self, which: usize, batch: RecordBatch, checkpoint: bool) -> Result<SystemReport> {
        let (stream, lane) = (self.streams.len() + which, Self::system_number(which));
        let until_us = |state: &StatePlan| if state.stream == stream { END_OF_TIME } else { BEFORE_TIME };
        let watermarks_us = checkpoint.then(|| self.states.iter().map(until_us).collect());
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.tell_worker(WORKER, WorkerMessage::System { lane, stream, batch, watermarks_us, reply }).await?;
        answer.await.map_err(|_closed| gone(WORKER))
    }

    /// At the end of bounded input: the system streams end after all that can add to them, and their windows close. It is
    /// part of the tick in which the input ended, so that one link says of all rules that they came to the end.
    pub(super) async fn end_system_streams(&mut self) -> Result<()> {
        for which in [OFFSET_GAPS, DEAD_LETTERS, RULE_ERRORS] {
            self.system[which].end();
            if self.system[which].is_read {
                let watermarks_us = self.watermarks_us();
                self.advance_rules(&watermarks_us).await?;
                self.feed_system_streams(true).await?;
            }
        }
        Ok(())
    }
}
