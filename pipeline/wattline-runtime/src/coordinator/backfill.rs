//! A rule that is new to a job with a past is given that past out of the archive, and then goes on with the stream.
//!
//! Its header says how much (`backfill = "30 days"`). Until that is done the rule *waits*: it runs in the lanes as all do, but
//! what it gives and keeps is dropped, and no link knows it. Meanwhile it is run again by itself ([`Rerun`]) over the raw
//! tables, pass by pass, in the time that ticks leave:
//!
//! ```text
//! checkpoint n: all lanes of the rule have rolled their raw files at X(n), the others stand at watermark W(n)
//! pass 0        rows with offset < X(n), from the begin of the past; what is final at W(n) is its result
//! checkpoint m: the lanes are at X(m) by now
//! pass 1        rows with X(n) ≤ offset < X(m), …
//! ```
//! Each pass is shorter than the one before. One that comes to its end right after its checkpoint, before anything else
//! happened, has all that the others have: the lanes hand over partial state at a checkpoint, so what they hold of the rule now
//! is of records from X on. Then the rule joins the stream: its states and stages are filled with what the rerun holds at W,
//! and the next link, a checkpoint that comes at once, says that the rule is known, names the files with its results, and has
//! its state. So there is neither gap nor overlap, and one link decides:
//!
//! | a crash … | leaves | and the next start |
//! |---|---|---|
//! | before that link | files that nothing names | does not know the rule: it waits again, and its past is computed anew |
//! | after it | a rule like any other | goes on with it |
//!
//! While a lane reads again after a crash, it has not rolled what was published, and the rule waits for that too.
//!
//! In a job of several slots the rule is run in the lanes of all from the beginning, and what they have of it is told to its home,
//! where it waits. Slots make their checkpoints each by itself, so a pass goes up to a level link of each (see [`told`]), which
//! tells where its lanes are in the archive, and comes after the raw rows before that were committed to their table. What is told
//! behind these links is kept. When a pass is at its end, at whatever moment, the rerun takes that in too, and goes on to the
//! watermark to which the others have come by it: then it has all that they have, and joins as above. (If a slot has to catch up
//! after a crash, the others are ahead of the watermark, and the rule waits for it.) Links of its home know a
//! rule that waits, with what the lanes of that slot have told of it, and that it does; a crash of the home begins its past anew,
//! from level links that the inbox still has or that were the last to be taken in. A crash of another slot changes nothing: its
//! successor tells the rest of what its links have not told, as of every rule. Rows that table rules without state give in their
//! lanes are told to the home too, if the rule has a past to be given: so its lanes need not know when it joins.
//!
//! Results of the past are marked (`_backfilled_at`), alerts as well, and of these only those that are open in the end are
//! published ([`History`]). What began before the begin of the past is left alone, as a rule
//! without a past leaves alone what began before it. A state that the rule shares with an older one stays as it is, as it
//! holds the same. Late events count in the past of a rule that they correct; those that come after the first pass, or to
//! what is not final yet, correct it when it has joined. Rules of one text have one fingerprint: they are given their past
//! together, and one whose fingerprint is known already is not new.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema, SchemaRef};
use wattline_core::alert::History;
use wattline_core::error::Retry;
use wattline_core::manifest::{Correction, LaneSection, RuleProgress};
use wattline_core::record::{LaneId, column};
use wattline_core::time::BEFORE_TIME;

use super::exchange::Exchange;
use super::{Coordinator, Duration, Instant, RulePlan, StreamPlan, correction};
use crate::error::{Error, Result};
use crate::events;
use crate::port::{RuleFailure, StageState, StateDelta};
use crate::progress::Progress;
use crate::recovery::Past;
use crate::table::timestamp_type;
use rerun::{Cut, Rerun, Surroundings, Work};
use told::Told;

mod rerun;
mod shared;
mod told;

pub(super) use told::Piece;

/// How long the archive is read before it is looked whether something else is due.
const LOOK_AFTER: Duration = Duration::from_millis(100);
/// Passes after which the next is brought to its end whatever waits.
const PASSES_MAX: usize = 6;
/// Before the archive is asked again at the end of the input.
const REST: Duration = Duration::from_millis(500);

/// How a rule is given its past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfillPlan {
    /// How much of it, microseconds of event time.
    pub depth_us: i64,
    /// For each stream of the rule the columns that it reads, without the system columns.
    pub columns: Vec<Vec<String>>,
    /// For each state of the rule's own programs its number among those of the job.
    pub states: Vec<usize>,
}

/// Adds the column that says of a row when it was computed from the archive, if it was.
pub fn backfilled_schema(schema: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(column::BACKFILLED_AT, timestamp_type(), true)));
    Arc::new(Schema::new(fields))
}

/// Rows of the past as the table of the rule holds them.
fn marked(rows: &RecordBatch, at_us: i64) -> Result<RecordBatch> {
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from_value(at_us, rows.num_rows()).with_timezone("UTC"));
    let columns = rows.columns().iter().cloned().chain([at]).collect();
    RecordBatch::try_new(backfilled_schema(&rows.schema()), columns).map_err(Error::arrow("results of the past"))
}

/// The rules that wait for their past.
#[derive(Default)]
pub(super) struct Backfills {
    waiting: BTreeSet<usize>,
    under_way: Option<Rerun>,
    /// In a job of several slots: what they tell of each rule that waits.
    told: BTreeMap<usize, Told>,
}

impl Backfills {
    /// The rules that the past does not know, and whose streams it knows. In a job of several slots those that are at home in this
    /// one, if the job `has_begun` in any: what another has of the streams this one may not have been told.
    pub(super) fn of(
        rules: &[RulePlan],
        streams: &[StreamPlan],
        past: &Past,
        (exchange, has_begun): (Option<&Exchange>, bool),
    ) -> Self {
        let senders = exchange.map(Exchange::senders).unwrap_or_default();
        let has_past = |stream: &usize| {
            let name = streams.get(*stream).map(|plan| plan.name.as_str());
            let is_known = || past.lanes.values().any(|(section, _)| Some(section.stream.as_str()) == name);
            if exchange.is_some() { has_begun } else { is_known() }
        };
        let is_kept = |stream: &usize| streams.get(*stream).is_some_and(|plan| plan.table.is_some());
        let known = |rule: &RulePlan| past.rules.get(&rule.fingerprint).filter(|known| is_known_here(known, exchange));
        let is_new = |rule: &RulePlan| match known(rule) {
            Some(known) => known.shared.as_ref().is_some_and(|shared| shared.awaits_past),
            None => rule.streams.iter().any(has_past),
        };
        let waits = |rule: &usize| {
            let plan = &rules[*rule];
            let is_here = exchange.is_none_or(|exchange| exchange.is_home_of(*rule));
            plan.backfill.is_some() && is_here && is_new(plan) && plan.streams.iter().all(is_kept)
        };
        let waiting: BTreeSet<usize> = (0..rules.len()).filter(waits).collect();
        let told = |rule: &usize| (*rule, Told::begin(&rules[*rule].fingerprint, senders));
        let told = waiting.iter().filter(|_| exchange.is_some()).map(told).collect();
        Self { waiting, under_way: None, told }
    }
}

/// Whether what is known of a rule is of one that is at home here: of others of the same text this slot has nothing but what its
/// lanes have told.
fn is_known_here(known: &RuleProgress, exchange: Option<&Exchange>) -> bool {
    exchange.is_none_or(|exchange| exchange.place().is_home_of(&known.id))
}

impl Coordinator {
    /// Whether the rule is to be given its past first.
    pub(super) fn waits(&self, rule: usize) -> bool {
        self.backfills.waiting.contains(&rule)
    }

    /// Whether nothing is heard of the rule: it has stopped, or waits.
    pub(super) fn is_silent(&self, rule: usize) -> bool {
        self.waits(rule) || self.has_stopped(rule)
    }

    /// Whether only rules that wait have this state: nothing is kept in it.
    pub(super) fn is_awaited(&self, state: usize) -> bool {
        self.rules_here(state).all(|rule| self.waits(rule))
    }

    /// Right after a checkpoint: goes on with a rule that waits, and lets it join if that comes to an end now.
    pub(super) async fn backfill_at_checkpoint(&mut self) -> Result<()> {
        let tick_over = Instant::now() + self.settings.tick;
        while self.begin_pass() {
            let passes = self.backfills.under_way.as_ref().map_or(0, Rerun::passes);
            // In a job of several slots the last pass has all the time that it takes.
            let until = (passes < PASSES_MAX || self.exchange.is_some()).then_some(tick_over);
            if !self.read_past(until).await? || !self.let_join(true).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// At the end of a pass, of which it is known whether something happened since its checkpoint: lets the rule join, if the
    /// rerun has all that there is of it.
    async fn let_join(&mut self, is_newest: bool) -> Result<bool> {
        let has_all = if self.exchange.is_some() { self.take_what_was_told().await? } else { is_newest };
        if has_all {
            self.join_stream()?;
            self.tick(true, false).await?;
        }
        Ok(has_all)
    }

    /// Between checkpoints: goes on with the pass that is under way.
    pub(super) async fn read_on(&mut self) -> Result<()> {
        let is_reading = self.backfills.under_way.as_ref().is_some_and(Rerun::is_reading);
        if (is_reading || self.keeps_for_pass()) && self.read_past(Some(Instant::now() + self.settings.tick)).await? {
            self.let_join(false).await?;
        }
        Ok(())
    }

    /// At the end of bounded input, after the last checkpoint: nothing else is due.
    pub(super) async fn backfill_rest(&mut self) -> Result<()> {
        while !self.backfills.waiting.is_empty() && !*self.shutdown.borrow() {
            let begins = self.begin_pass();
            if !begins && !self.backfills.under_way.as_ref().is_some_and(Rerun::is_reading) {
                break;
            }
            match self.read_past(None).await? {
                // If it was under way, it may lack what came since its checkpoint.
                true => {
                    self.let_join(begins).await?;
                }
                false => tokio::time::sleep(REST).await,
            }
        }
        Ok(())
    }

    /// Begins the next pass, up to where the lanes have rolled their raw files; false if there is nothing to begin.
    fn begin_pass(&mut self) -> bool {
        if self.backfills.under_way.is_none() {
            self.backfills.under_way = self.begin_rerun();
        }
        let Some(mut rerun) = self.backfills.under_way.take() else { return false };
        let rule = rerun.rules()[0];
        let begins = !rerun.is_reading() && self.is_ready(rule);
        if begins {
            let (cut, reached_us) = (self.cut_of(&rerun), self.reached_max_us(rule));
            rerun.begin_pass(cut, reached_us);
            if let Some(told) = self.backfills.told.get_mut(&rule) {
                told.begin_pass();
            }
        }
        self.backfills.under_way = Some(rerun);
        begins
    }

    /// A rerun of the first rule for which it can be.
    fn begin_rerun(&mut self) -> Option<Rerun> {
        // A rule that has stopped as a whole is told so by the next link.
        let waiting: BTreeSet<usize> = std::mem::take(&mut self.backfills.waiting);
        self.backfills.waiting = waiting.into_iter().filter(|rule| !self.has_stopped(*rule)).collect();
        self.forget_told();
        let rule = self.backfills.waiting.iter().copied().find(|rule| self.is_ready(*rule))?;
        let fingerprint = &self.rules[rule].fingerprint;
        let of_text = |other: &usize| self.rules[*other].fingerprint == *fingerprint;
        let rules: Vec<usize> = self.backfills.waiting.iter().copied().filter(of_text).collect();
        let depth_us =
            rules.iter().filter_map(|of| self.rules[*of].backfill.as_ref()).map(|plan| plan.depth_us).max()?;
        let from_us = self.reached_max_us(rule).saturating_sub(depth_us);
        let began_us = from_us.saturating_add(self.rules[rule].span_us.unwrap_or(0) - 1);
        let histories = rules.iter().map(|of| History::of(&self.rules[*of].id, &self.lifecycle)).collect();
        let now_us = self.clock.now_ms().saturating_mul(1_000);
        let is_corrected = self.rules[rule].correction.is_some();
        events::BackfillBegun { rule: &self.rules[rule].id, from_us }.emit();
        let programs = || (self.programs)(rule);
        Some(Rerun::begin(rules, histories, programs, is_corrected, (from_us, began_us), now_us))
    }

    /// Whether the lanes of the rule have rolled all that was published, and it is known how far they have come.
    fn is_ready(&self, rule: usize) -> bool {
        let has_cut = self.exchange.is_none() || self.level_watermark_us(rule).is_some_and(|us| us != BEFORE_TIME);
        self.rule_watermark_us(rule) != BEFORE_TIME && self.has_caught_up(rule) && has_cut
    }

    fn sections_of(&self, rule: usize) -> impl Iterator<Item = &LaneSection> {
        let names: Vec<&str> = self.rules[rule].streams.iter().map(|of| self.streams[*of].name.as_str()).collect();
        self.own_sections().filter(move |section| names.contains(&section.stream.as_str()))
    }

    /// The highest time that any lane of the rule has reached.
    fn reached_max_us(&self, rule: usize) -> i64 {
        match &self.exchange {
            Some(_) => self.level_reached_max_us(rule),
            None => self.sections_of(rule).map(|section| section.reached_us).max().unwrap_or(BEFORE_TIME),
        }
    }

    /// Where the lanes of a rule stand: closed files have all before it. Of a lane in which the rule was stopped, what was before.
    fn cut_of(&self, rerun: &Rerun) -> Cut {
        let rule = rerun.rules()[0];
        let (ends, watermark_us): (Vec<(LaneId, i64)>, i64) = match &self.exchange {
            Some(_) => (self.level_ends(rule), self.level_watermark_us(rule).unwrap_or(BEFORE_TIME)),
            None => {
                let end = |section: &LaneSection| (section.lane.clone(), section.archive);
                (self.sections_of(rule).map(end).collect(), self.rule_watermark_us(rule))
            }
        };
        let stopped: HashMap<&LaneId, i64> = self.progress_of_rules[rule]
            .quarantined
            .iter()
            .filter_map(|quarantine| Some((quarantine.lane.as_ref()?, quarantine.offset)))
            .collect();
        let before_failure = |(lane, end): (LaneId, i64)| {
            let end = stopped.get(&lane).map_or(end, |stopped| end.min(*stopped));
            (lane, end)
        };
        Cut { ends: ends.into_iter().map(before_failure).collect(), watermark_us }
    }

    /// Reads until the pass is at its end, which is true, or until a moment, or until the job is to end. A rerun that cannot go
    /// on now is given up, and begun again at a later checkpoint.
    async fn read_past(&mut self, until: Option<Instant>) -> Result<bool> {
        let Some(mut rerun) = self.backfills.under_way.take() else { return Ok(false) };
        loop {
            if *self.shutdown.borrow() {
                self.give_up(&rerun);
                return Ok(false);
            }
            let look = Instant::now() + LOOK_AFTER;
            let with = Surroundings {
                archive: self.archive.as_ref(),
                streams: &self.streams,
                rules: &self.rules,
                settings: &self.settings,
            };
            match Box::pin(rerun.work(&with, until.map_or(look, |until| until.min(look)))).await {
                Ok(Work::Done) => {
                    self.backfills.under_way = Some(rerun);
                    return Ok(true);
                }
                Ok(Work::Full) => self.write_found(&mut rerun).await?,
                Ok(Work::Paused) if until.is_some_and(|until| Instant::now() >= until) => {
                    self.backfills.under_way = Some(rerun);
                    return Ok(false);
                }
                // Others that share the thread get their turn.
                Ok(Work::Paused) => tokio::task::yield_now().await,
                Err(error) if error.retry() == Retry::Backoff => {
                    events::BackfillPostponed { rule: &self.rules[rerun.rules()[0]].id, error: &error }.emit();
                    self.give_up(&rerun);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The pass of the rerun is no end: nothing needs to be kept for it.
    fn give_up(&mut self, rerun: &Rerun) {
        if let Some(told) = self.backfills.told.get_mut(&rerun.rules()[0]) {
            told.end_pass();
        }
    }

    /// Writes results into files that the link will name with which the rule joins.
    async fn write_found(&mut self, rerun: &mut Rerun) -> Result<()> {
        let tag = self.next_tag();
        let mut tables: BTreeMap<String, Vec<RecordBatch>> = BTreeMap::new();
        for (table, batch) in rerun.found.take_results() {
            tables.entry(table).or_default().push(batch);
        }
        let adds = self.write_files(BTreeMap::new(), tables.into_iter().collect(), &tag).await?;
        for (table, files) in adds {
            rerun.found.adds.entry(table).or_default().extend(files);
        }
        Ok(())
    }

    /// The rule goes on with the stream; the next link must say so.
    fn join_stream(&mut self) -> Result<()> {
        let Some(mut rerun) = self.backfills.under_way.take() else { return Ok(()) };
        let rules = rerun.rules().to_vec();
        self.backfills.waiting.retain(|rule| !rules.contains(rule));
        self.forget_told();
        self.uncommitted.corrected = true;
        self.state_written.ask_for_whole();
        if let Some(message) = rerun.stopped.take() {
            for rule in rules {
                let message = format!("the past of the rule cannot be computed: {message}");
                self.note_failure(None, RuleFailure { rule, offset: -1, message }, true);
            }
            return Ok(());
        }
        let (read, rows) = (rerun.found.events, rerun.found.rows);
        Progress::add(&self.progress.result_rows, rows);
        for (table, batch) in rerun.found.take_results() {
            self.uncommitted.results.push((table, batch));
        }
        for (table, files) in std::mem::take(&mut rerun.found.adds) {
            self.uncommitted.adds.entry(table).or_default().extend(files);
        }
        let mut told = 0;
        for history in std::mem::take(&mut rerun.histories) {
            for record in history.end(&mut self.lifecycle) {
                told += 1;
                self.note_alert(record);
            }
        }
        for (rule, message) in rules.iter().flat_map(|rule| rerun.found.left_out.iter().map(|of| (*rule, of.clone()))) {
            self.note_failure(None, RuleFailure { rule, offset: -1, message }, false);
        }
        for rule in &rules {
            self.note_past(*rule, &rerun);
        }
        self.take_over(&rules, &mut rerun)?;
        let took = rerun.begun.elapsed();
        events::Backfilled { rule: &self.rules[rules[0]].id, read, rows, told, took }.emit();
        Ok(())
    }

    /// Where the rule stands now.
    fn note_past(&mut self, rule: usize, rerun: &Rerun) {
        let joins_us = self.rules[rule].joins_us();
        let watermark_us = rerun.seen.watermark_us;
        let progress = &mut self.progress_of_rules[rule];
        (progress.final_until_us, progress.active_from_us) = (watermark_us, rerun.from_us);
        let Some(plan) = &self.rules[rule].correction else { return };
        // Late events of the first pass are in the results, of what is final; others are still to correct it.
        let settled_us = watermark_us.saturating_sub(plan.reach_us).saturating_sub(correction::MARGIN_US);
        let mut late = std::mem::take(&mut progress.late);
        for (first_us, last_us) in rerun.found.late.iter().filter(|(_, last_us)| *last_us >= settled_us) {
            late.add((first_us.max(settled_us), last_us), joins_us);
        }
        progress.late = late;
        let offsets = rerun.first_ends.iter().map(|(lane, end)| (lane.clone(), *end)).collect();
        progress.correction = Some(Correction { until_us: watermark_us, revision: 1, offsets });
    }

    /// Fills the states and stages of the rules with what the rerun holds.
    fn take_over(&mut self, rules: &[usize], rerun: &mut Rerun) -> Result<()> {
        let bad = |reason: String| Error::BadObject { path: "the past of a rule".to_owned(), reason };
        let watermark_us = rerun.seen.watermark_us;
        let rule = rules[0];
        let numbers = self.rules[rule].backfill.as_ref().map(|plan| plan.states.clone()).unwrap_or_default();
        let of_rule = |state: &usize| self.states[*state].rules.contains(&rule);
        let own: Vec<usize> = numbers.iter().copied().filter(of_rule).collect();
        let renewed: Vec<usize> =
            own.iter().copied().filter(|state| !self.is_held_whole(*state, rules, rerun)).collect();
        renewed.iter().for_each(|state| self.final_program.renew(*state, watermark_us));
        rules.iter().for_each(|rule| self.final_program.go_on(*rule, watermark_us));
        for state in own {
            let ignored_us = self.ignored_until_us(state);
            self.final_program.set_given(state, ignored_us);
        }
        for rule in rules {
            let began_us = self.began_before_us(*rule);
            self.final_program.begin_at(*rule, began_us);
        }
        let merged = rerun.merged();
        for stage in merged.dump_stages().map_err(bad)? {
            let stage = stage.map_err(bad)?;
            for of in rules.iter().filter(|_| stage.rule == rule && stage.batch.num_rows() > 0) {
                let stage = StageState { rule: *of, ..stage.clone() };
                self.final_program.restore_stage(&stage).map_err(bad)?;
                self.final_program.relieve()?;
            }
        }
        for delta in merged.dump().map_err(bad)? {
            let StateDelta { state, final_at_us, batch } = delta.map_err(bad)?;
            let Some(state) = numbers.get(state).copied().filter(|state| renewed.contains(state)) else { continue };
            self.final_program.restore(&StateDelta { state, final_at_us, batch }).map_err(bad)?;
            self.final_program.relieve()?;
        }
        Ok(())
    }

    /// Whether another rule has kept all of a state that the past has for it. What rules that came later have of it is in the past.
    fn is_held_whole(&self, state: usize, rules: &[usize], rerun: &Rerun) -> bool {
        let keeps = |of: &usize| {
            let began_us = self.progress_of_rules[*of].active_from_us;
            !rules.contains(of) && !self.is_silent(*of) && began_us <= rerun.from_us
        };
        self.rules_here(state).any(|rule| keeps(&rule))
    }
}
