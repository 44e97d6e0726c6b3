//! How far event time has come: of lanes, streams, rules and states.
//!
//! A rule's watermark is the lowest time that all lanes of its streams have reached, less its delay. In a job of several slots that is
//! what all slots have told; up to which time a slot hands over what it has follows from its own lanes.

use std::sync::Arc;

use wattline_core::lane::{SilentLane, decide_idle_advance, watermark_us};
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use super::{Coordinator, gone};
use crate::error::Result;
use crate::worker::WorkerMessage;

impl Coordinator {
    /// The lowest time that all lanes of a stream have reached, in a job of several slots those of this slot. A lane that never had
    /// an event holds back the others until it is advanced as idle.
    pub(super) fn own_reached_us(&self, stream: usize) -> i64 {
        if let Some(system) = stream.checked_sub(self.streams.len()).and_then(|which| self.system.get(which)) {
            return system.reached_us();
        }
        let assigned = self.lanes.values().filter(|status| status.stream == stream);
        let assigned = assigned.map(|s| if s.section.ended { END_OF_TIME } else { s.section.reached_us });
        // Before the source has said which lanes there are, a new one could come too late.
        let has_none = || self.exchange.is_some() && self.all_sources_heard() && self.awaited(stream).next().is_none();
        let Some(assigned_us) = assigned.min() else {
            return if has_none() { END_OF_TIME } else { BEFORE_TIME };
        };
        // All known lanes have ended, but a notice that waits may bring more.
        if assigned_us == END_OF_TIME && !self.notices.is_empty() {
            return BEFORE_TIME;
        }
        // So could what a lane of the past has to say that is not assigned yet.
        self.awaited(stream).map(|(_, section)| section.resume_reached_us).fold(assigned_us, i64::min)
    }

    /// The lowest time that all lanes of a stream have reached, of all slots. Results that late events correct wait for closed files.
    pub(super) fn reached_us(&self, stream: usize, rule: usize) -> i64 {
        match &self.exchange {
            Some(exchange) => exchange.least_us(&self.name_of_stream(stream), exchange.awaits_files(rule)),
            None => self.own_reached_us(stream),
        }
    }

    /// How far the slowest stream of a rule has come, less the rule's delay.
    pub(super) fn rule_watermark_us(&self, rule: usize) -> i64 {
        let plan = &self.rules[rule];
        if self.awaits_slots(rule) {
            return BEFORE_TIME;
        }
        let reached_us = plan.streams.iter().map(|stream| self.reached_us(*stream, rule)).min();
        watermark_us(reached_us.unwrap_or(BEFORE_TIME), plan.delay_ms)
    }

    /// Whether there are slots that may not run the rule yet.
    pub(super) fn awaits_slots(&self, rule: usize) -> bool {
        self.progress_of_rules[rule].shared.as_ref().is_some_and(|shared| !shared.awaits.is_empty())
    }

    /// Whether another slot puts together what there is of the rule.
    pub(super) fn is_elsewhere(&self, rule: usize) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| !exchange.is_home_of(rule))
    }

    /// The watermark to which each state is to be advanced; all its rules have it, if they run in all slots.
    pub(super) fn watermarks_us(&self) -> Arc<[i64]> {
        let of_state = |state| self.rules_here(state).map(|rule| self.rule_watermark_us(rule)).max();
        (0..self.states.len()).map(|state| of_state(state).unwrap_or(BEFORE_TIME)).collect()
    }

    /// The rules of a state that are put together in this slot.
    pub(super) fn rules_here(&self, state: usize) -> impl Iterator<Item = usize> {
        self.states[state].rules.iter().copied().filter(|rule| !self.is_elsewhere(*rule))
    }

    /// The watermark up to which the lanes hand over what they have of each state.
    pub(super) fn lane_watermarks_us(&self) -> Arc<[i64]> {
        if self.exchange.is_none() {
            return self.watermarks_us();
        }
        self.states.iter().map(|state| self.handed_over_us(state.rules[0])).collect()
    }

    /// Up to where everything that a state gives is out.
    pub(super) fn final_until_us(&self, state: usize) -> i64 {
        let of_rules = self.rules_here(state).map(|rule| self.progress_of_rules[rule].final_until_us);
        of_rules.max().unwrap_or(BEFORE_TIME)
    }

    /// Has the workers hand over what these watermarks make final.
    pub(super) async fn close_lanes(&mut self, first_final_us: &[i64], watermarks_us: &Arc<[i64]>) -> Result<()> {
        if !first_final_us.iter().zip(watermarks_us.iter()).any(|(first, watermark)| first <= watermark) {
            return Ok(());
        }
        let close = |reply| WorkerMessage::Close { watermarks_us: Arc::clone(watermarks_us), reply };
        for closed in self.ask_workers(close).await? {
            for delta in closed? {
                // A pane is complete long before the last window that needs it is over; rows in order are out at once.
                let is_kept = delta.final_at_us > watermarks_us[delta.state] && delta.final_at_us != END_OF_TIME;
                self.take_delta(delta, is_kept)?;
            }
        }
        Ok(())
    }

    /// Advances lanes that stay at their end, so that they do not hold up the others.
    pub(super) fn advance_silent_lanes(&mut self) -> Result<()> {
        let now_ms = self.clock.now_ms();
        self.look_at_clock(now_ms);
        let mut advances = Vec::new();
        for (id, status) in &self.lanes {
            let Some(silent_since_ms) = status.silent_since_ms.filter(|_| !status.section.ended) else { continue };
            let Some(plan) = self.streams.get(status.stream) else { continue };
            let own =
                self.lanes.iter().filter(|(other, s)| *other != id && s.stream == status.stream && !s.section.ended);
            let foreign = self.exchange.iter().flat_map(|exchange| exchange.others_us(&plan.name));
            let others = own
                .map(|(_, s)| s.section.reached_us)
                .chain(foreign.filter(|us| *us != END_OF_TIME))
                .filter(|us| *us != BEFORE_TIME && *us > status.section.reached_us);
            let lane = SilentLane { reached_us: status.section.reached_us, silent_since_ms };
            let timeout_ms = i64::try_from(plan.idle_timeout.as_millis()).unwrap_or(i64::MAX);
            if let Some(reached_us) = decide_idle_advance(lane, others.min(), now_ms, timeout_ms) {
                advances.push((status.worker, status.number, reached_us));
            }
        }
        for (worker, number, reached_us) in advances {
            self.workers[worker].try_send(WorkerMessage::Idle(number, reached_us)).or_else(|error| match error {
                // A worker with a full queue is not silent; the next look decides anew.
                crossbeam_channel::TrySendError::Full(_) => Ok(()),
                crossbeam_channel::TrySendError::Disconnected(_) => Err(gone(worker)),
            })?;
        }
        Ok(())
    }
}
