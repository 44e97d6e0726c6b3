//! In a job of several slots: the past of a rule that waits in its home ends where each slot has a level link.

use std::sync::Arc;

use wattline_core::error::Retry;
use wattline_core::exchange::{Close, Positions};
use wattline_core::lane::watermark_us;
use wattline_core::record::LaneId;
use wattline_core::time::BEFORE_TIME;

use super::super::Coordinator;
use super::rerun::{Rerun, Surroundings};
use super::told::{Piece, Told};
use crate::error::Result;
use crate::events;

impl Coordinator {
    /// A slot has told something of a rule, or of a state.
    pub(in super::super) fn keep_told(&mut self, from: u32, piece: &Piece) {
        if self.backfills.told.is_empty() {
            return;
        }
        let is_of = |rule: usize| match piece {
            Piece::State(delta) => self.states[delta.state].rules.contains(&rule),
            Piece::Rows(rows) => rows.rule == rule,
        };
        let rules: Vec<usize> = self.backfills.told.keys().copied().filter(|rule| is_of(*rule)).collect();
        let next = self.next_in_line();
        for rule in rules {
            // The others are not kept for yet: of a slot that has told something of them, a newer level link will do.
            let bytes_max = if next == Some(rule) { self.settings.state_bytes } else { 0 };
            let Some(told) = self.backfills.told.get_mut(&rule) else { continue };
            let has_dropped = told.take(from, piece.clone(), bytes_max);
            if has_dropped && next == Some(rule) {
                events::BackfillOutrun { rule: &self.rules[rule].id, bytes_max }.emit();
            }
        }
    }

    /// A slot has told all of a link.
    pub(in super::super) fn note_told(&mut self, from: u32, close: &Close) {
        self.backfills.told.values_mut().for_each(|told| told.close(from, close));
    }

    /// What was told of rules that do not wait any more is with them.
    pub(super) fn forget_told(&mut self) {
        let waiting = &self.backfills.waiting;
        self.backfills.told.retain(|rule, _| waiting.contains(rule));
    }

    /// The rule that is given its past now, or could be next.
    fn next_in_line(&self) -> Option<usize> {
        let could = |rule: &usize| !self.has_stopped(*rule) && self.rule_watermark_us(*rule) != BEFORE_TIME;
        let under_way = self.backfills.under_way.as_ref().map(|rerun| rerun.rules()[0]);
        under_way.or_else(|| self.backfills.waiting.iter().copied().find(could))
    }

    /// Whether a pass is under way, or at its end and kept for.
    pub(super) fn keeps_for_pass(&self) -> bool {
        let told = self.backfills.under_way.as_ref().and_then(|rerun| self.backfills.told.get(&rerun.rules()[0]));
        told.is_some_and(Told::has_pass)
    }

    fn level_positions(&self, rule: usize) -> Option<Vec<Arc<Positions>>> {
        self.backfills.told.get(&rule).and_then(Told::newest)
    }

    /// The watermark of a rule as of the newest level links, if all slots have one.
    pub(super) fn level_watermark_us(&self, rule: usize) -> Option<i64> {
        let (positions, exchange) = (self.level_positions(rule)?, self.exchange.as_ref()?);
        let plan = &self.rules[rule];
        let names: Vec<String> = plan.streams.iter().map(|stream| self.name_of_stream(*stream)).collect();
        let reached_us = |of: &Positions, name: &str| match exchange.awaits_files(rule) {
            true => of.archived_us(name),
            false => of.least_us(name),
        };
        let each = positions.iter().flat_map(|of| names.iter().map(move |name| reached_us(of, name)));
        Some(watermark_us(each.min().unwrap_or(BEFORE_TIME), plan.delay_ms))
    }

    /// The highest time that a lane of the rule had reached at its newest level link.
    pub(super) fn level_reached_max_us(&self, rule: usize) -> i64 {
        let positions = self.level_positions(rule).unwrap_or_default();
        let names: Vec<String> = self.rules[rule].streams.iter().map(|stream| self.name_of_stream(*stream)).collect();
        let each = positions.iter().flat_map(|of| names.iter().map(move |name| of.most_us(name)));
        each.max().unwrap_or(BEFORE_TIME)
    }

    /// Where the lanes of a rule were in closed files at the newest level links.
    pub(super) fn level_ends(&self, rule: usize) -> Vec<(LaneId, i64)> {
        let positions = self.level_positions(rule).unwrap_or_default();
        let names: Vec<String> = self.rules[rule].streams.iter().map(|stream| self.name_of_stream(*stream)).collect();
        let lanes = positions.iter().flat_map(|of| &of.lanes).filter(|lane| names.contains(&lane.stream));
        lanes.map(|lane| (lane.lane.clone(), lane.archive)).collect()
    }

    /// At the end of a pass: has the rerun take in what was told behind its level links, and brings it to where the home stands;
    /// true if it is there. It is tried again if the home has to catch up first.
    pub(super) async fn take_what_was_told(&mut self) -> Result<bool> {
        let Some(mut rerun) = self.backfills.under_way.take() else { return Ok(false) };
        if rerun.stopped.is_some() {
            self.backfills.under_way = Some(rerun);
            return Ok(true);
        }
        let rule = rerun.rules()[0];
        let told = self.backfills.told.get(&rule).and_then(Told::since_pass);
        let Some(told) = told.filter(|_| self.has_caught_up(rule) && !self.awaits_slots(rule)) else {
            self.give_up(&rerun);
            self.backfills.under_way = Some(rerun);
            return Ok(false);
        };
        let watermark_us = self.rule_watermark_us(rule);
        if watermark_us < self.had_come_us(rule, &rerun) {
            self.backfills.under_way = Some(rerun);
            return Ok(false);
        }
        let with = Surroundings {
            archive: self.archive.as_ref(),
            streams: &self.streams,
            rules: &self.rules,
            settings: &self.settings,
        };
        match rerun.take_told(&with, told, watermark_us) {
            Ok(()) => self.backfills.under_way = Some(rerun),
            Err(error) if error.retry() == Retry::Backoff => {
                events::BackfillPostponed { rule: &self.rules[rule].id, error: &error }.emit();
                self.give_up(&rerun);
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        self.read_past(None).await
    }

    /// How far the rule's states had come, and the rerun. A slot that was started again tells of lower times than before; until it
    /// has caught up, states of this home, or what is out of them, are ahead of the watermark.
    fn had_come_us(&self, rule: usize, rerun: &Rerun) -> i64 {
        let states = (0..self.states.len()).filter(|state| self.states[*state].rules.contains(&rule));
        let had_come_us = |state: usize| self.final_program.taken_us(state).max(self.final_until_us(state));
        states.map(had_come_us).fold(rerun.seen.watermark_us, i64::max)
    }

    /// Whether every slot has told what the rules that wait here need of it; at the end of bounded input.
    pub(in super::super) fn know_all_pasts(&self) -> bool {
        let is_known = |rule: &usize| {
            self.has_stopped(*rule) || (!self.awaits_slots(*rule) && self.level_positions(*rule).is_some())
        };
        self.backfills.told.keys().all(is_known)
    }
}
