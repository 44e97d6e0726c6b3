//! Alerts that are told before they are committed: of rules with `delivery = "low_latency"`.
//!
//! ```text
//! worker: rows of such a rule, or its lanes have come on ─▶ barrier ─▶ what is certainly final ─▶ fold ─▶ publish   (no tick, no link)
//! the next tick                                          ─▶ … put manifest n ─▶ transaction with the others, marker n
//! ```
//! What was published at once is left out of the transaction of its link. It stands in the link and in the table as all alerts do,
//! and the marker is set even if nothing is left for the transaction.
//!
//! - Dies the process before the link, its successor reads the same events, and folds the same alerts: the same ids, and under each
//!   id the same content.
//! - Dies it after the link and before the marker, the successor cannot know which were out, and publishes all of the link.
//! - If they cannot be published at once, or not in time, all of them go with the transaction of their link, and nothing
//!   is told early until then: a broker that does not answer holds up one round and not each.
//!
//! So an alert is out at least once, and always under one id. Watermarks of other rules, and links, are left to the ticks.
//!
//! # Why a successor folds the same
//! An alert of a rule *known by events* (one row for each event, without `firing`) is named by its event. It is told at once, if whoever
//! reads the event again admits it: not behind a record that a clock has refused, or nearly, as a later clock may accept it and its
//! time make the event late; nor in a lane that no link names, which may begin at a later time then. An idle advance does not matter:
//! it can only have made the event later than it is for others.
//!
//! One of a rule *known by time* (windows, stages, conditions) follows from the rows of the rule in the order of their times. Where the
//! rows are cut into rounds does not matter: they become final in that order, rows of one time together, and these are put in order
//! by what they hold (`alerting.rs`). Folding up to W1 and then up to W2 is folding up to W2. The planner refuses rules of which that
//! is not so: late corrections, sums of floating-point values (whose last digit depends on what was added first), conditions whose
//! rows become final in another order than that of their times.
//!
//! Which rows are final, and what they hold, follows from the records of the lanes in their order, and from what was decided besides:
//!
//! | decided by | how it is kept from being told too soon |
//! |---|---|
//! | idle advances, the time at which a new lane begins | the lane counts as where it stood before (*in doubt*), until a link has the advance |
//! | refusals as too far ahead of the clock, and events so near to that bound that a clock a little behind would refuse them | the same |
//! | offsets that are gone | the same |
//! | bounded input that has ended: a successor may find more of it | the lane counts as where it stands; its end is left to the ticks |
//! | which lanes there are | a lane that no link names holds back all of its stream |
//! | system streams, which are dated at ticks | their rules are refused |
//! | several slots | rules known by time are refused: when a new rule begins is decided by checkpoints |
//!
//! *Certain* is the time that all lanes have reached without what is in doubt. What becomes final only by an advance waits for its tick
//! and goes out with the link. Nothing of it is lost by that: a lane is advanced by ticks only.
//!
//! Let `W` be certain, and a row final at `W`. A lane in doubt stood at `W` plus the delay or later; whatever is decided there in the next
//! life, events that it admits from then on lie at `W` or later. Up to there its records are judged as they were: the successor takes
//! their verdicts from the links, or they had none. A lane is not advanced at an offset that has a record behind it, as it is silent
//! only at the end of its log. So the row has the same events in each life, and so have all rows before it.
//!
//! What cannot be kept, as it lies outside of the chain: a rule, a limit, or a reference table that is another one when the successor
//! starts (an old version cannot be brought back, whether or not a link names it); a partition that it finds and its predecessor had
//! not; records that are gone from the log by then; a clock that is a minute or more behind.
//!
//! # When
//! A worker that has rows of a rule known by events rings at once. For rules known by time it rings when all lanes of a stream, of all
//! workers, have come on since the last look; between two such rounds there are [`EVERY`]. A round asks for nothing that rules
//! without `low_latency` do not owe anyway: of states that they share, their rows wait in memory for the next link.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use tokio::sync::Notify;
use tokio::time::Instant;
use wattline_core::alert::AlertRecord;
use wattline_core::lane::watermark_us;
use wattline_core::record::LaneId;
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use super::{Coordinator, Job, LaneStatus, RulePlan, StatePlan, events};
use crate::error::Result;
use crate::port::RuleRows;
use crate::worker::WorkerMessage;

/// Between two rounds that are there because time has come on.
const EVERY: Duration = Duration::from_millis(20);

/// Why it was rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bell {
    /// There are rows of a rule that is known by events.
    Rows,
    /// All lanes of a stream have come on.
    Time,
}

/// Which rules do not wait, and the bells that workers ring for them.
#[derive(Debug)]
pub(crate) struct EarlyRules {
    /// By number: rules that are known by events.
    by_events: Vec<bool>,
    /// The others.
    by_time: Vec<usize>,
    /// Ids of the first.
    ids_by_events: Vec<String>,
    /// Ids of the others.
    ids_by_time: Vec<String>,
    /// By number: states that are advanced with them. All states of one rule are, so also those of rules that share one.
    states: Vec<bool>,
    /// All rules of these states.
    moved: Vec<usize>,
    /// Whether workers ring at all.
    rings: bool,
    rows_bell: Notify,
    time_bell: Notify,
    /// By stream, for those that rules known by time read.
    streams: Vec<Option<Reached>>,
}

/// How far the lanes of a stream have come.
#[derive(Debug)]
struct Reached {
    /// By worker: the least of its lanes.
    workers_us: Vec<AtomicI64>,
    /// The least of all when the coordinator looked last.
    looked_us: AtomicI64,
}

impl Reached {
    fn least_us(&self) -> i64 {
        self.workers_us.iter().map(|us| us.load(Ordering::SeqCst)).min().unwrap_or(END_OF_TIME)
    }
}

impl EarlyRules {
    /// Those of a job; none if there is no topic. `rings` says whether rows are folded where they are found: in a job of several slots they
    /// come to the home of their rule by links.
    pub(super) fn of(job: &Job, rings: bool) -> Arc<Self> {
        let (streams, workers) = (job.streams.len(), job.lane_programs.len());
        let has_topic = job.alert_sink.is_some();
        Arc::new(Self::new((&job.rules, &job.states), (streams, workers), rings, has_topic))
    }

    fn new(
        (rules, states): (&[RulePlan], &[StatePlan]),
        (streams, workers): (usize, usize),
        rings: bool,
        has_topic: bool,
    ) -> Self {
        let is_early = |rule: usize| has_topic && rules[rule].alert.as_ref().is_some_and(|alert| alert.early);
        let keeps_state = |rule: usize| states.iter().any(|state| state.rules.contains(&rule));
        let (by_time, by_events): (Vec<usize>, Vec<usize>) =
            (0..rules.len()).filter(|rule| is_early(*rule)).partition(|rule| keeps_state(*rule));
        // Where rows come from other slots, nothing is certain before the link.
        let by_time = if rings { by_time } else { Vec::new() };
        let ids = |of: &[usize]| of.iter().map(|rule| rules[*rule].id.clone()).collect();
        let moved = moved_with(&by_time, states);
        let reads = |stream: usize| by_time.iter().any(|rule| rules[*rule].streams.contains(&stream));
        let reached = || Reached {
            workers_us: (0..workers).map(|_| AtomicI64::new(END_OF_TIME)).collect(),
            looked_us: AtomicI64::new(BEFORE_TIME),
        };
        let streams = (0..streams).map(|stream| reads(stream).then(reached)).collect();
        Self {
            streams,
            by_events: (0..rules.len()).map(|rule| by_events.contains(&rule)).collect(),
            ids_by_events: ids(&by_events),
            ids_by_time: ids(&by_time),
            states: states.iter().map(|state| state.rules.iter().any(|rule| moved.contains(rule))).collect(),
            moved: moved.into_iter().collect(),
            by_time,
            rings,
            rows_bell: Notify::new(),
            time_bell: Notify::new(),
        }
    }

    /// A worker has these rows.
    pub(crate) fn note(&self, rows: &[RuleRows]) {
        if self.rings && rows.iter().any(|of| self.by_events[of.rule] && of.batch.num_rows() > 0) {
            self.rows_bell.notify_one();
        }
    }

    /// Whether it matters how far the lanes of a stream have come.
    pub(crate) fn follows(&self, stream: usize) -> bool {
        self.streams.get(stream).is_some_and(Option::is_some)
    }

    /// The lanes that a worker has of a stream have come so far, if it has some.
    pub(crate) fn note_time(&self, worker: usize, stream: usize, least_us: Option<i64>) {
        let Some(reached) = self.streams.get(stream).and_then(Option::as_ref) else { return };
        reached.workers_us[worker].store(least_us.unwrap_or(END_OF_TIME), Ordering::SeqCst);
        let least_us = reached.least_us();
        if least_us != END_OF_TIME && least_us > reached.looked_us.load(Ordering::SeqCst) {
            self.time_bell.notify_one();
        }
    }

    /// A barrier is to come: what has been noted is seen then.
    pub(super) fn note_look(&self) {
        for reached in self.streams.iter().flatten() {
            reached.looked_us.store(reached.least_us(), Ordering::SeqCst);
        }
    }

    /// Waits until a worker rings, or has rung since the last time. `last` is when it was looked last.
    pub(super) async fn come(&self, last: Instant) -> Bell {
        let time_comes = async {
            // First the rest, then the bell: nothing is lost if this is dropped in between.
            tokio::time::sleep_until(last + EVERY).await;
            self.time_bell.notified().await;
        };
        tokio::select! {
            biased;
            () = self.rows_bell.notified() => Bell::Rows,
            () = time_comes => Bell::Time,
        }
    }

    /// Whether an alert is told early. It must be known by its event, or come of rows that are certainly final.
    fn tells(&self, record: &AlertRecord, is_certain: bool) -> bool {
        (record.source.is_some() && self.ids_by_events.contains(&record.rule_id))
            || (is_certain && self.ids_by_time.contains(&record.rule_id))
    }
}

/// The rules that are advanced with others: all states of one rule move together, and all rules of one state.
fn moved_with(rules: &[usize], states: &[StatePlan]) -> BTreeSet<usize> {
    let mut moved: BTreeSet<usize> = rules.iter().copied().collect();
    loop {
        let shares = |state: &&StatePlan| state.rules.iter().any(|rule| moved.contains(rule));
        let of_states: BTreeSet<usize> = states.iter().filter(shares).flat_map(|state| state.rules.clone()).collect();
        if of_states.is_subset(&moved) {
            return moved;
        }
        moved.extend(of_states);
    }
}

/// What is left for the transaction of an epoch.
pub(super) fn not_told<'a>(alerts: &'a [AlertRecord], told_early: &BTreeSet<String>) -> Cow<'a, [AlertRecord]> {
    match told_early.is_empty() {
        true => Cow::Borrowed(alerts),
        false => alerts.iter().filter(|record| !told_early.contains(&record.id())).cloned().collect(),
    }
}

impl LaneStatus {
    /// How far the lane can come before the next link, certainly.
    fn certain_limit_us(&self) -> i64 {
        match self.committed_offset {
            None => BEFORE_TIME,
            Some(_) => self.doubt.reached_us.unwrap_or(END_OF_TIME),
        }
    }

    /// The time that the lane has reached by what its records and the links say.
    fn certain_us(&self) -> i64 {
        self.section.reached_us.min(self.certain_limit_us())
    }
}

impl Coordinator {
    /// Sets those aside that do not wait for their link.
    pub(super) fn set_early_aside(&mut self, records: &[AlertRecord], is_certain: bool) {
        let told =
            |record: &&AlertRecord| self.early.tells(record, is_certain) && (is_certain || self.is_settled(record));
        let early: Vec<AlertRecord> = records.iter().filter(told).cloned().collect();
        self.uncommitted.early.extend(early);
    }

    /// Whether each process admits the event that the alert is known by. Behind a record of which a later clock may say something else,
    /// that is not so: it may move the time of its lane. Nor is it in a lane that no link names: the next process may have it begin at
    /// a later time.
    fn is_settled(&self, record: &AlertRecord) -> bool {
        let Some(source) = &record.source else { return false };
        let is_of = |lane: &LaneId| *lane.topic == *source.topic && lane.partition == source.partition;
        let is_settled = |status: &LaneStatus| {
            status.committed_offset.is_some() && status.doubt.unsettled.is_none_or(|from| from > source.offset)
        };
        self.lanes.iter().filter(|(lane, _)| is_of(lane)).all(|(_, status)| is_settled(status))
    }

    /// Between two ticks: takes what the workers have, and tells the alerts that do not wait. The next tick commits them.
    pub(super) async fn tell_early(&mut self, bell: Bell) -> Result<()> {
        self.last_early = Instant::now();
        if self.early_failed || (bell == Bell::Time && !self.may_be_certain()) {
            return Ok(());
        }
        self.early.note_look();
        // Without a checkpoint the workers keep the raw rows.
        let mut raw: BTreeMap<usize, Vec<RecordBatch>> = BTreeMap::new();
        let mut first_final_us = vec![END_OF_TIME; self.states.len()];
        let barrier = |reply| WorkerMessage::Barrier { checkpoint: false, program: None, reply };
        for report in self.ask_workers(barrier).await? {
            first_final_us.iter_mut().zip(&report.first_final_us).for_each(|(first, of)| *first = (*first).min(*of));
            self.absorb(report, &mut raw)?;
        }
        self.advance_early(&first_final_us).await?;
        self.publish_early().await;
        self.last_early = Instant::now();
        Ok(())
    }

    /// After a barrier: gives what is certainly final of the rules that do not wait.
    pub(super) async fn advance_early(&mut self, first_final_us: &[i64]) -> Result<()> {
        let early = Arc::clone(&self.early);
        if early.by_time.is_empty() {
            return Ok(());
        }
        let of_state = |state: usize| self.rules_here(state).map(|rule| self.certain_watermark_us(rule)).max();
        let states = early.states.iter().enumerate();
        let watermarks_us: Arc<[i64]> =
            states.map(|(state, is_early)| of_state(state).filter(|_| *is_early).unwrap_or(BEFORE_TIME)).collect();
        if watermarks_us.iter().all(|us| *us == BEFORE_TIME) {
            return Ok(());
        }
        self.close_lanes(first_final_us, &watermarks_us).await?;
        self.advance_states(&watermarks_us, true).await?;
        for rule in early.moved.iter().filter(|rule| !self.is_silent(**rule)).copied().collect::<Vec<_>>() {
            let watermark_us = self.certain_watermark_us(rule);
            let progress = &mut self.progress_of_rules[rule];
            progress.final_until_us = progress.final_until_us.max(watermark_us);
        }
        Ok(())
    }

    /// How far the slowest stream of a rule has certainly come, less the rule's delay.
    fn certain_watermark_us(&self, rule: usize) -> i64 {
        let plan = &self.rules[rule];
        let reached_us = plan.streams.iter().map(|stream| self.certain_reached_us(*stream)).min();
        watermark_us(reached_us.unwrap_or(BEFORE_TIME), plan.delay_ms)
    }

    /// The lowest time that all lanes of a stream have certainly reached.
    fn certain_reached_us(&self, stream: usize) -> i64 {
        if stream >= self.streams.len() {
            return BEFORE_TIME;
        }
        let assigned = self.lanes.values().filter(|status| status.stream == stream);
        // Before any is assigned, there may be some that no link names.
        let Some(assigned_us) = assigned.map(LaneStatus::certain_us).min() else { return BEFORE_TIME };
        self.awaited(stream).map(|(_, section)| section.resume_reached_us).fold(assigned_us, i64::min)
    }

    /// Whether a rule that is known by time can come on before the next link.
    fn may_be_certain(&self) -> bool {
        let limit_us = |stream: &usize| {
            let lanes = self.lanes.values().filter(|status| status.stream == *stream);
            lanes.map(LaneStatus::certain_limit_us).min().unwrap_or(BEFORE_TIME)
        };
        self.early.by_time.iter().any(|rule| {
            let plan = &self.rules[*rule];
            let least_us = plan.streams.iter().map(limit_us).min().unwrap_or(BEFORE_TIME);
            watermark_us(least_us, plan.delay_ms) > self.progress_of_rules[*rule].final_until_us
        })
    }

    /// Publishes the alerts that do not wait for their link. Those that cannot be published go with it.
    pub(super) async fn publish_early(&mut self) {
        let records = std::mem::take(&mut self.uncommitted.early);
        if records.is_empty() || self.early_failed {
            return;
        }
        let Some(sink) = self.alert_sink.clone() else { return };
        match sink.publish_early(&records).await {
            Ok(()) => self.uncommitted.told.extend(records.iter().map(AlertRecord::id)),
            Err(error) => {
                events::EarlyAlertsFailed { alerts: records.len(), error: &error }.emit();
                self.early_failed = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use wattline_core::alert::{AlertRow, AlertRule, Lifecycle, Severity, Source};

    use super::*;
    use crate::alerting::AlertPlan;

    fn rule(id: &str, early: bool) -> RulePlan {
        let rule = AlertRule {
            id: id.to_owned(),
            version: "1".to_owned(),
            title: id.to_owned(),
            title_zh: None,
            severity: Severity::Warning,
            standard: None,
            category: "general".to_owned(),
            unit: None,
            runbook: None,
            resolve_after: 1,
            renotify_ms: None,
        };
        let (entity, event_time) = (vec!["meter_id".to_owned()], "ts".to_owned());
        RulePlan {
            id: id.to_owned(),
            version: "1".to_owned(),
            fingerprint: id.to_owned(),
            streams: vec![0],
            delay_ms: 0,
            span_us: None,
            table: None,
            alert: Some(AlertPlan { rule, entity, event_time, is_condition: false, corrected: false, early }),
            correction: None,
            backfill: None,
        }
    }

    fn rows(rule: usize, count: i64) -> RuleRows {
        let column = Int64Array::from_iter_values(0..count);
        let batch = RecordBatch::try_from_iter([("n", Arc::new(column) as _)]).expect("batch");
        RuleRows { rule, batch, identity: None }
    }

    fn occurrence(offset: i64) -> AlertRow {
        AlertRow {
            entity: vec![("meter_id".to_owned(), "M1".to_owned())],
            event_us: 7,
            firing: None,
            severity: None,
            measured: None,
            limit_low: None,
            limit_high: None,
            unit: None,
            window_us: None,
            evidence: String::new(),
            source: Some(Source { topic: "readings".to_owned(), partition: 0, offset, index: 0 }),
        }
    }

    /// Folds these events in this order.
    fn alerts(rule: &RulePlan, offsets: &[i64]) -> Vec<AlertRecord> {
        let mut lifecycle = Lifecycle::default();
        let alert = rule.alert.as_ref().expect("an alert rule");
        offsets.iter().filter_map(|offset| lifecycle.fold(&alert.rule, occurrence(*offset))).collect()
    }

    fn ids(alerts: &[AlertRecord]) -> BTreeSet<String> {
        alerts.iter().map(AlertRecord::id).collect()
    }

    #[test]
    fn what_is_folded_again_in_another_tick_has_the_ids_that_were_told() {
        let rules = [rule("slow", false), rule("fast", true)];
        let early = EarlyRules::new((&rules, &[]), (1, 1), true, true);
        let (first, again) = (alerts(&rules[1], &[1, 2, 3]), alerts(&rules[1], &[3, 1, 2, 4]));
        assert!(first.iter().all(|record| early.tells(record, false)));
        assert!(alerts(&rules[0], &[1, 2]).iter().all(|record| !early.tells(record, true)));
        assert_eq!(ids(&first).len(), 3, "each event is an alert of its own");
        assert_eq!(ids(&not_told(&again, &ids(&first))), ids(&alerts(&rules[1], &[4])), "one is left");
        assert_eq!(not_told(&again, &BTreeSet::new()).len(), again.len(), "a successor knows of none that was told");
    }

    async fn has_rung(early: &EarlyRules) -> bool {
        rung(early, Instant::now()).await == Some(Bell::Rows)
    }

    async fn rung(early: &EarlyRules, last: Instant) -> Option<Bell> {
        tokio::time::timeout(EVERY * 3, early.come(last)).await.ok()
    }

    #[tokio::test]
    async fn the_bell_rings_for_rows_of_early_rules_only_and_once() {
        let rules = [rule("slow", false), rule("fast", true)];
        let early = EarlyRules::new((&rules, &[]), (1, 1), true, true);
        early.note(&[rows(0, 3), rows(1, 0)]);
        assert!(!has_rung(&early).await, "nothing is urgent");
        early.note(&[rows(0, 3), rows(1, 1)]);
        early.note(&[rows(1, 1)]);
        assert!(has_rung(&early).await, "it was rung before anybody waited");
        assert!(!has_rung(&early).await, "one round takes all");
        for (rings, has_topic) in [(false, true), (true, false)] {
            let early = EarlyRules::new((&rules, &[]), (1, 1), rings, has_topic);
            early.note(&[rows(1, 1)]);
            assert!(!has_rung(&early).await, "rings: {rings}, has a topic: {has_topic}");
        }
    }

    fn state(rules: &[usize]) -> StatePlan {
        StatePlan { fingerprint: String::new(), rules: rules.to_vec(), stream: 0 }
    }

    #[test]
    fn all_states_of_a_rule_and_all_rules_of_a_state_move_together() {
        let states = [state(&[0, 1]), state(&[1, 2]), state(&[3]), state(&[2]), state(&[4])];
        assert_eq!(moved_with(&[0], &states), [0, 1, 2].into());
        assert_eq!(moved_with(&[3], &states), [3].into());
        let rules = [rule("a", false), rule("b", false), rule("c", true), rule("d", false), rule("e", false)];
        let early = EarlyRules::new((&rules, &states), (1, 1), true, true);
        assert_eq!(early.states, [true, true, false, true, false]);
        let record = alerts(&rules[2], &[1]).remove(0);
        assert!(early.tells(&record, true) && !early.tells(&record, false), "it is known by time");
        let of_slots = EarlyRules::new((&rules, &states), (1, 1), false, true);
        assert!(!of_slots.tells(&record, true) && !of_slots.follows(0), "rows come by links");
    }

    #[tokio::test]
    async fn the_bell_rings_when_the_last_lane_of_all_workers_has_come_on() {
        let rules = [rule("slow", false), rule("fast", true)];
        let early = EarlyRules::new((&rules, &[state(&[1])]), (2, 2), true, true);
        assert!(early.follows(0) && !early.follows(1));
        let last = Instant::now();
        early.note_time(0, 0, Some(BEFORE_TIME));
        early.note_time(1, 0, Some(50));
        early.note_time(1, 1, Some(50));
        assert_eq!(rung(&early, last).await, None, "a lane of the other worker has not begun");
        early.note_time(0, 0, Some(40));
        assert_eq!(rung(&early, last).await, Some(Bell::Time));
        early.note_look();
        early.note_time(1, 0, Some(90));
        assert_eq!(rung(&early, last).await, None, "the slowest stands where it stood");
        early.note_time(0, 0, Some(70));
        let asked = Instant::now();
        assert_eq!(rung(&early, asked).await, Some(Bell::Time));
        assert!(asked.elapsed() >= EVERY, "not more often");
        early.note_look();
        early.note_time(0, 0, None);
        assert_eq!(rung(&early, last).await, Some(Bell::Time), "who has no lane holds nothing back");
    }
}
