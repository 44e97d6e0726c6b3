//! Decoder and rules of the simulation: small enough to be read at a glance, honest about state and restore.
//!
//! | rule | kind | says | delay |
//! |---|---|---|---|
//! | `big` | table | events above a value | 20 s |
//! | `spike` | alert, occurrence | events above a higher value | 20 s |
//! | `sums` | table | sum and count per key and window | 5 s |
//! | `heavy` | alert, condition | keys whose sum in a window is above a limit | 30 s |
//! | `running` | table | sum and count per key of all windows so far, over `sums` | 5 s |
//! | `mended` | table, corrected by late events | as `sums` | 5 s |
//! | `every` | table, corrected by late events | events above a value | 2 s |
//! | `tidied` | alert, condition, corrected by late events | as `heavy`, without delay | 0 s |
//! | `refusals` | table | dead letters per reason and short window | 0 s |
//! | `letters` | table | each dead letter | 0 s |
//! | `failures` | table | rule errors per rule and short window | 0 s |
//! | `brittle` | table | each dead letter, until it fails on the one with the number [`BREAKS_AT`] | 0 s |
//!
//! Some of them can come later, and are then given their past ([`LATE_COMERS`]): before that, a rule of another name and
//! fingerprint is in the place of each.
//!
//! `sums` fails on some of its final rows ([`is_unlucky`]), and goes on.
//!
//! State is a batch of (window start, key, sum, count). Like the real program, a merge ignores windows that were taken
//! out; `running` shares the state of `sums`, keeps what it has seen, and goes through it again after a restore.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt32Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use wattline_core::alert::{AlertRule, Severity};
use wattline_core::exchange::Place;
use wattline_core::record::{LaneId, RecordBlock, column};
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use crate::alerting::AlertPlan;
use crate::error::Result;
use crate::port::{
    Decoded, Decoder, Deltas, FinalOutput, FinalProgram, LaneProgram, References, ReferencesSeen, Refused, Reloaded,
    RuleFailure, RuleOutput, RuleRows, StageState, StageStates, StateDelta,
};
use crate::stream_schema;
use crate::table::{TableSpec, system_streams, timestamp_type};
use crate::{BackfillPlan, CorrectionPlan, RulePlan, StatePlan, corrected_schema};

pub(super) const BIG: usize = 0;
pub(super) const SPIKE: usize = 1;
pub(super) const SUMS: usize = 2;
pub(super) const HEAVY: usize = 3;
pub(super) const RUNNING: usize = 4;
pub(super) const MENDED: usize = 5;
pub(super) const EVERY: usize = 6;
pub(super) const TIDIED: usize = 7;
pub(super) const REFUSALS: usize = 8;
pub(super) const LETTERS: usize = 9;
pub(super) const FAILURES: usize = 10;
pub(super) const BRITTLE: usize = 11;
pub(super) const RULES: usize = 12;
/// Rules that come later, of each kind: without state, with a state of their own, with one that they share, with stages, and
/// corrected by late events.
pub(super) const LATE_COMERS: [usize; 7] = [BIG, SPIKE, HEAVY, RUNNING, MENDED, EVERY, TIDIED];
/// What the name of a rule begins with that is in the place of another.
pub(super) const BEFORE: &str = "before_";
pub(super) const BREAKS_AT: i64 = 4;
pub(super) const BROKEN: &str = "the fifth letter is too much";
pub(super) const DELAYS_MS: [i64; RULES] = [20_000, 20_000, 5_000, 30_000, 5_000, 5_000, 2_000, 0, 0, 0, 0, 0];
pub(super) const BIG_ABOVE: i64 = 60;
pub(super) const SPIKE_ABOVE: i64 = 90;
pub(super) const HEAVY_ABOVE: i64 = 160;
pub(super) const WINDOW_US: i64 = 10_000_000;
/// Windows over what the job says of itself, which goes by the clock of the process.
pub(super) const SYSTEM_WINDOW_US: i64 = 5_000;

/// A window and a key.
pub(super) type Pane = (i64, String);
/// Sum and count.
pub(super) type Total = (i64, i64);

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ts", timestamp_type(), false),
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Int64, false),
    ]))
}

fn table(name: &str, event_time: &str, schema: SchemaRef) -> TableSpec {
    TableSpec { name: name.into(), description: String::new(), schema, event_time: event_time.into(), sort_by: vec![] }
}

pub(super) fn raw_table() -> TableSpec {
    table("readings", "ts", stream_schema(&schema()))
}

pub(super) fn alert_rule(id: &str) -> AlertRule {
    AlertRule {
        id: id.into(),
        version: "1".into(),
        title: id.into(),
        title_zh: None,
        severity: Severity::Warning,
        standard: None,
        category: "test".into(),
        unit: None,
        runbook: None,
        resolve_after: 1,
        renotify_ms: None,
    }
}

/// The rules as they are before some have come, or after.
fn plans_with(late_comers: bool) -> Vec<RulePlan> {
    let mut plans = plans();
    for rule in LATE_COMERS {
        let plan = &mut plans[rule];
        if late_comers {
            plan.backfill = Some(BackfillPlan {
                depth_us: 86_400_000_000,
                columns: vec![vec!["key".into(), "value".into()]],
                states: (0..STATES.len()).collect(),
            });
            continue;
        }
        let name = format!("{BEFORE}{}", plan.id);
        plan.fingerprint = format!("fingerprint of {name}");
        if let Some(table) = &mut plan.table {
            table.name.clone_from(&name);
        }
        if let Some(alert) = &mut plan.alert {
            alert.rule.id.clone_from(&name);
        }
        plan.id = name;
    }
    plans
}

/// The rules whose alerts late events do not correct tell them early, or as all others.
pub(super) fn told_early(early: bool, mut plans: Vec<RulePlan>) -> Vec<RulePlan> {
    let alerts = plans.iter_mut().filter_map(|plan| plan.alert.as_mut());
    alerts.filter(|alert| !alert.corrected).for_each(|alert| alert.early = early);
    plans
}

fn plans() -> Vec<RulePlan> {
    let plan = |rule: usize, id: &str, span_us: Option<i64>, table: Option<TableSpec>, alert| RulePlan {
        id: id.into(),
        version: "1".into(),
        fingerprint: format!("fingerprint of {id}"),
        streams: vec![stream_of(rule)],
        delay_ms: DELAYS_MS[rule],
        span_us,
        table: table.map(|table| match [MENDED, EVERY].contains(&rule) {
            true => TableSpec { schema: corrected_schema(&table.schema), ..table },
            false => table,
        }),
        alert,
        correction: [MENDED, EVERY, TIDIED].contains(&rule).then(|| CorrectionPlan {
            reach_us: span_us.unwrap_or(0),
            columns: vec![vec!["key".into(), "value".into()]],
        }),
        backfill: None,
    };
    let alert = |id: &str, event_time: &str| {
        let (rule, event_time) = (alert_rule(id), event_time.into());
        let (entity, corrected) = (vec!["key".into()], id == "tidied");
        Some(AlertPlan { rule, entity, event_time, is_condition: true, corrected, early: false })
    };
    let letters = stream_schema(&system_streams()[0].schema);
    vec![
        plan(BIG, "big", None, Some(table("big", "ts", stream_schema(&schema()))), None),
        plan(SPIKE, "spike", None, None, alert("spike", "ts")),
        plan(SUMS, "sums", Some(WINDOW_US), Some(table("sums", "window_end", total_batch(&[]).schema())), None),
        plan(HEAVY, "heavy", Some(WINDOW_US), None, alert("heavy", "window_end")),
        plan(
            RUNNING,
            "running",
            Some(WINDOW_US),
            Some(table("running", "window_end", total_batch(&[]).schema())),
            None,
        ),
        plan(MENDED, "mended", Some(WINDOW_US), Some(table("mended", "window_end", total_batch(&[]).schema())), None),
        plan(EVERY, "every", None, Some(table("every", "ts", stream_schema(&schema()))), None),
        plan(TIDIED, "tidied", Some(WINDOW_US), None, alert("tidied", "window_end")),
        plan(
            REFUSALS,
            "refusals",
            Some(SYSTEM_WINDOW_US),
            Some(table("refusals", "window_end", total_batch(&[]).schema())),
            None,
        ),
        plan(LETTERS, "letters", None, Some(table("letters", "refused_at", Arc::clone(&letters))), None),
        plan(
            FAILURES,
            "failures",
            Some(SYSTEM_WINDOW_US),
            Some(table("failures", "window_end", total_batch(&[]).schema())),
            None,
        ),
        plan(BRITTLE, "brittle", None, Some(table("brittle", "refused_at", letters)), None),
    ]
}

/// The rules with state, by the number of their state.
const STATES: [usize; 5] = [SUMS, HEAVY, TIDIED, REFUSALS, FAILURES];

/// How wide the windows of a state are.
fn width_us(state: usize) -> i64 {
    if [REFUSALS, FAILURES].contains(&STATES[state]) { SYSTEM_WINDOW_US } else { WINDOW_US }
}

fn states() -> Vec<StatePlan> {
    let plan = |rule: &usize| StatePlan {
        fingerprint: format!("state of {rule}"),
        rules: rules_of(*rule).to_vec(),
        stream: stream_of(*rule),
    };
    STATES.iter().map(plan).collect()
}

/// The stream that a rule reads: the only one of the job, dead letters, or rule errors.
fn stream_of(rule: usize) -> usize {
    match rule {
        REFUSALS | LETTERS | BRITTLE => 1,
        FAILURES => 2,
        _ => 0,
    }
}

/// The rules that share the state of a rule.
fn rules_of(rule: usize) -> &'static [usize] {
    match rule {
        SUMS => &[SUMS, RUNNING, MENDED],
        HEAVY => &[HEAVY],
        TIDIED => &[TIDIED],
        REFUSALS => &[REFUSALS],
        _ => &[FAILURES],
    }
}

pub(super) fn window_start_us(event_us: i64) -> i64 {
    event_us.div_euclid(WINDOW_US) * WINDOW_US
}

/// Whether `sums` fails on a window.
pub(super) fn is_unlucky((sum, _): Total) -> bool {
    sum % 3 == 0
}

/// How it says so.
pub(super) fn bad_luck((start_us, key): &Pane) -> String {
    format!("the window of {key} from {start_us} brings bad luck")
}

pub(super) fn longs<'a>(batch: &'a RecordBatch, name: &str) -> &'a [i64] {
    let array = batch.column_by_name(name).expect("a column of the batch");
    match array.data_type() {
        DataType::Int64 => array.as_primitive::<Int64Type>().values(),
        _ => array.as_primitive::<TimestampMicrosecondType>().values(),
    }
}

pub(super) fn text<'a>(batch: &'a RecordBatch, name: &str) -> &'a StringArray {
    batch.column_by_name(name).expect("a column of the batch").as_string()
}

fn instants(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}

fn total_batch(rows: &[(Pane, Total)]) -> RecordBatch {
    let sums: Vec<i64> = rows.iter().map(|(_, (sum, _))| *sum).collect();
    RecordBatch::try_from_iter([
        ("window_start", instants(rows.iter().map(|((start, _), _)| *start))),
        ("window_end", instants(rows.iter().map(|((start, _), _)| *start + WINDOW_US))),
        ("key", Arc::new(StringArray::from_iter_values(rows.iter().map(|((_, key), _)| key.as_str()))) as ArrayRef),
        ("firing", Arc::new(BooleanArray::from_iter(sums.iter().map(|sum| Some(*sum > HEAVY_ABOVE)))) as ArrayRef),
        ("measured", Arc::new(Int64Array::from(sums)) as ArrayRef),
        ("count", Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, (_, count))| *count))) as ArrayRef),
    ])
    .expect("columns of one length")
}

pub(super) fn totals(batch: &RecordBatch) -> Vec<(Pane, Total)> {
    let (starts, sums, counts) = (longs(batch, "window_start"), longs(batch, "measured"), longs(batch, "count"));
    let keys = text(batch, "key");
    (0..batch.num_rows()).map(|k| ((starts[k], keys.value(k).to_owned()), (sums[k], counts[k]))).collect()
}

#[derive(Debug)]
pub(super) struct TextDecoder;

impl Decoder for TextDecoder {
    fn decode(&mut self, block: &RecordBlock) -> Result<Decoded> {
        let (mut times, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let (mut record, mut index, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for k in 0..block.len() {
            let number = u32::try_from(k).expect("few records");
            let payload = std::str::from_utf8(block.payload(k)).expect("text");
            if payload == "not an event" {
                refused.push(Refused {
                    record: number,
                    index: 0,
                    reason: "bad_text",
                    detail: String::new(),
                    raw: None,
                    is_by_others: false,
                });
                continue;
            }
            for (event, part) in payload.split(';').enumerate() {
                let fields: Vec<&str> = part.split(',').collect();
                times.push(fields[0].parse::<i64>().expect("a time"));
                keys.push(fields[1].to_owned());
                values.push(fields[2].parse::<i64>().expect("a value"));
                record.push(number);
                index.push(i32::try_from(event).expect("few events"));
            }
        }
        let columns: Vec<ArrayRef> =
            vec![instants(times.into_iter()), Arc::new(StringArray::from(keys)), Arc::new(Int64Array::from(values))];
        let batch = RecordBatch::try_new(schema(), columns).expect("columns of the schema");
        Ok(Decoded { batch, record, index, refused, unknown_fields: BTreeMap::new() })
    }

    fn set_header(&mut self, _lane: &LaneId, _line: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn decode_columns(&mut self, _lane: &LaneId, _batch: &RecordBatch) -> Decoded {
        unreachable!("the scripts hold text")
    }
}

#[derive(Debug, Default)]
struct Lanes {
    /// By state.
    partial: [BTreeMap<Pane, Total>; STATES.len()],
    /// The only rule that is run, if not all are.
    only: Option<usize>,
    /// `brittle` was stopped.
    is_broken: bool,
}

impl Lanes {
    fn only(rule: usize) -> Self {
        Self { only: Some(rule), ..Self::default() }
    }

    fn push_system(&mut self, stream: usize, batch: &RecordBatch) -> RuleOutput {
        let (state, time, key) = if stream == 1 { (3, "refused_at", "reason") } else { (4, "failed_at", "rule_id") };
        let (times, keys, lateness) = (longs(batch, time), text(batch, key), longs(batch, column::LATENESS_MS));
        for k in (0..batch.num_rows()).filter(|k| lateness[*k] <= 0) {
            let start_us = times[k].div_euclid(SYSTEM_WINDOW_US) * SYSTEM_WINDOW_US;
            let total = self.partial[state].entry((start_us, keys.value(k).to_owned())).or_default();
            *total = (total.0 + 1, total.1 + 1);
        }
        if stream != 1 {
            return RuleOutput::default();
        }
        let rows = |rule, batch: RecordBatch| RuleRows { rule, identity: Some(batch.clone()), batch };
        let mut output = RuleOutput { rows: vec![rows(LETTERS, batch.clone())], failures: Vec::new() };
        if !self.is_broken {
            let breaks_at = longs(batch, column::OFFSET).iter().position(|offset| *offset == BREAKS_AT);
            output.rows.push(rows(BRITTLE, batch.slice(0, breaks_at.unwrap_or(batch.num_rows()))));
            self.is_broken = breaks_at.is_some();
            let failure = RuleFailure { rule: BRITTLE, offset: BREAKS_AT, message: BROKEN.to_owned() };
            output.failures.extend(self.is_broken.then_some(failure));
        }
        output
    }

    fn above(rule: usize, limit: i64, batch: &RecordBatch) -> Option<RuleRows> {
        let (values, lateness) = (longs(batch, "value"), longs(batch, column::LATENESS_MS));
        let kept: UInt32Array = (0..batch.num_rows())
            .filter(|k| values[*k] > limit && lateness[*k] <= DELAYS_MS[rule])
            .map(|k| u32::try_from(k).expect("few rows"))
            .collect();
        if kept.is_empty() {
            return None;
        }
        let identity = take_record_batch(batch, &kept).expect("rows of the batch");
        // What an alert says has no system columns.
        let columns = if rule == SPIKE { 3 } else { identity.num_columns() };
        let batch = identity.project(&(0..columns).collect::<Vec<_>>()).expect("columns of the batch");
        Some(RuleRows { rule, identity: Some(identity), batch })
    }
}

impl LaneProgram for Lanes {
    fn state_bytes(&self) -> usize {
        self.partial.iter().map(BTreeMap::len).sum()
    }

    fn push(&mut self, _lane: u32, stream: usize, batch: &RecordBatch) -> RuleOutput {
        if stream > 0 {
            return self.push_system(stream, batch);
        }
        let (times, values) = (longs(batch, "ts"), longs(batch, "value"));
        let (keys, lateness) = (text(batch, "key"), longs(batch, column::LATENESS_MS));
        for (rule, panes) in STATES.into_iter().zip(&mut self.partial).take(3) {
            for k in (0..batch.num_rows()).filter(|k| lateness[*k] <= DELAYS_MS[rule]) {
                let total = panes.entry((window_start_us(times[k]), keys.value(k).to_owned())).or_default();
                *total = (total.0 + values[k], total.1 + 1);
            }
        }
        let rows = [(BIG, BIG_ABOVE), (SPIKE, SPIKE_ABOVE), (EVERY, BIG_ABOVE)];
        let runs = |rule: usize| self.only.is_none_or(|only| only == rule);
        let rows = rows
            .into_iter()
            .filter(|(rule, _)| runs(*rule))
            .filter_map(|(rule, limit)| Self::above(rule, limit, batch))
            .collect();
        RuleOutput { rows, failures: Vec::new() }
    }

    fn seal(&mut self) -> Result<Vec<StateDelta>, String> {
        self.close(&[END_OF_TIME; STATES.len()])
    }

    fn close(&mut self, watermarks_us: &[i64]) -> Result<Vec<StateDelta>, String> {
        let mut deltas = Vec::new();
        for (state, (panes, watermark_us)) in self.partial.iter_mut().zip(watermarks_us).enumerate() {
            let is_final = |pane: &Pane, _total: &mut Total| pane.0 + width_us(state) <= *watermark_us;
            let closed: BTreeMap<Pane, Total> = panes.extract_if(.., is_final).collect();
            deltas.extend(closed.into_iter().map(|window| delta(state, &[window])));
        }
        Ok(deltas)
    }

    fn first_final_us(&self) -> Vec<i64> {
        let first = |(state, panes): (usize, &BTreeMap<Pane, Total>)| {
            panes.keys().next().map_or(END_OF_TIME, |pane| pane.0 + width_us(state))
        };
        self.partial.iter().enumerate().map(first).collect()
    }

    fn quarantine(&mut self, rule: usize, _lane: u32) {
        self.is_broken |= rule == BRITTLE;
    }
}

fn delta(state: usize, window: &[(Pane, Total)]) -> StateDelta {
    let final_at_us = window.iter().map(|(pane, _)| pane.0 + width_us(state)).max().unwrap_or(END_OF_TIME);
    StateDelta { state, final_at_us, batch: total_batch(window) }
}

#[derive(Debug)]
struct Merged {
    /// By state.
    panes: [BTreeMap<Pane, Total>; STATES.len()],
    taken_us: [i64; STATES.len()],
    /// What `running` keeps, by key.
    running: BTreeMap<String, Total>,
    /// By rule.
    given_us: [i64; RULES],
    /// The only rule that is run, if not all are.
    only: Option<usize>,
    /// Rules that are given out in another slot.
    elsewhere: Vec<usize>,
    held: BTreeSet<usize>,
}

impl Default for Merged {
    fn default() -> Self {
        let (taken_us, given_us) = ([BEFORE_TIME; STATES.len()], [BEFORE_TIME; RULES]);
        Self {
            panes: Default::default(),
            taken_us,
            running: BTreeMap::new(),
            given_us,
            only: None,
            elsewhere: Vec::new(),
            held: BTreeSet::new(),
        }
    }
}

impl Merged {
    fn only(rule: usize) -> Self {
        Self { only: Some(rule), ..Self::default() }
    }

    fn at(place: Place) -> Self {
        let elsewhere =
            plans().into_iter().enumerate().filter(|(_, rule)| !place.is_home_of(&rule.id)).map(|(rule, _)| rule);
        Self { elsewhere: elsewhere.collect(), ..Self::default() }
    }

    fn advance_to(&mut self, state: usize, watermark_us: i64) -> FinalOutput {
        let mut output = FinalOutput::default();
        if watermark_us <= self.taken_us[state] {
            return output;
        }
        self.taken_us[state] = watermark_us;
        let is_final = |pane: &Pane, _total: &mut Total| pane.0 + width_us(state) <= watermark_us;
        let closed: Vec<(Pane, Total)> = self.panes[state].extract_if(.., is_final).collect();
        let (only, elsewhere, held) = (self.only, self.elsewhere.clone(), self.held.clone());
        let is_held = |rule: &usize| elsewhere.contains(rule) || held.contains(rule);
        let runs = |rule: &&usize| only.is_none_or(|only| only == **rule) && !is_held(rule);
        for rule in rules_of(STATES[state]).iter().filter(runs) {
            let given: Vec<(Pane, Total)> = match *rule {
                RUNNING => closed.iter().map(|(pane, total)| (pane.clone(), self.run(&pane.1, *total))).collect(),
                _ => closed.clone(),
            };
            if watermark_us > self.given_us[*rule] {
                self.given_us[*rule] = watermark_us;
                let (unlucky, given): (Vec<_>, Vec<_>) =
                    given.into_iter().partition(|(_, total)| *rule == SUMS && is_unlucky(*total));
                output.rows.extend((!given.is_empty()).then(|| RuleRows {
                    rule: *rule,
                    batch: total_batch(&given),
                    identity: None,
                }));
                let failure = |(pane, _)| RuleFailure { rule: *rule, offset: -1, message: bad_luck(&pane) };
                output.failures.extend(unlucky.into_iter().map(failure));
            }
        }
        output
    }

    fn run(&mut self, key: &str, window: Total) -> Total {
        let total = self.running.entry(key.to_owned()).or_default();
        *total = (total.0 + window.0, total.1 + window.1);
        *total
    }
}

impl FinalProgram for Merged {
    fn merge(&mut self, delta: &StateDelta) -> Result<(), String> {
        let panes = &mut self.panes[delta.state];
        for (pane, (sum, count)) in totals(&delta.batch) {
            if pane.0 + width_us(delta.state) > self.taken_us[delta.state] {
                let total = panes.entry(pane).or_default();
                *total = (total.0 + sum, total.1 + count);
            }
        }
        Ok(())
    }

    fn relieve(&mut self) -> Result<()> {
        Ok(())
    }

    /// Gives one state after the other; a rule by itself gives all at once.
    fn advance(&mut self, watermarks_us: &[i64]) -> Result<FinalOutput> {
        let mut all = FinalOutput::default();
        // A rule that is at home elsewhere, or new, may have another place up to which it gives nothing than those it shares with.
        let mut turns_us = [self.given_us[SUMS], self.given_us[RUNNING], self.given_us[MENDED], END_OF_TIME];
        turns_us.sort_unstable();
        for turn_us in turns_us {
            for (state, watermark_us) in watermarks_us.iter().enumerate() {
                let output = self.advance_to(state, (*watermark_us).min(turn_us));
                all.more = self.only.is_none() && !(output.rows.is_empty() && output.failures.is_empty());
                all.rows.extend(output.rows);
                all.failures.extend(output.failures);
                if all.more {
                    return Ok(all);
                }
            }
        }
        Ok(all)
    }

    fn set_given(&mut self, state: usize, watermark_us: i64) {
        for rule in rules_of(STATES[state]) {
            self.given_us[*rule] = watermark_us;
        }
        if STATES[state] != SUMS {
            self.taken_us[state] = watermark_us;
        }
    }

    fn begin_at(&mut self, rule: usize, watermark_us: i64) {
        if rule == RUNNING {
            self.given_us[rule] = self.given_us[rule].max(watermark_us);
        }
    }

    fn leave_out(&mut self, rule: usize, watermark_us: i64) {
        self.given_us[rule] = self.given_us[rule].max(watermark_us);
    }

    fn hold(&mut self, rule: usize) {
        self.held.insert(rule);
    }

    fn renew(&mut self, state: usize, watermark_us: i64) {
        self.panes[state].clear();
        self.taken_us[state] = watermark_us;
    }

    fn go_on(&mut self, rule: usize, given_us: i64) {
        assert!(self.held.remove(&rule), "only what was held goes on");
        self.given_us[rule] = given_us;
        if rule == RUNNING {
            self.running.clear();
        }
    }

    fn taken_us(&self, state: usize) -> i64 {
        self.taken_us[state]
    }

    fn dump(&mut self) -> Result<Deltas, String> {
        let windows = |(state, panes): (usize, &BTreeMap<Pane, Total>)| {
            panes.iter().map(move |(pane, total)| delta(state, &[(pane.clone(), *total)])).collect::<Vec<_>>()
        };
        let deltas: Vec<StateDelta> = self.panes.iter().enumerate().flat_map(windows).collect();
        Ok(Box::new(deltas.into_iter().map(Ok)))
    }

    fn dump_stages(&mut self) -> Result<StageStates, String> {
        let rows: Vec<(Pane, Total)> = self.running.iter().map(|(key, total)| ((0, key.clone()), *total)).collect();
        let state = StageState { rule: RUNNING, taken_us: self.taken_us[0], part: 7, batch: total_batch(&rows) };
        Ok(Box::new(std::iter::once(Ok(state))))
    }

    fn restore_stage(&mut self, state: &StageState) -> Result<(), String> {
        assert_eq!((state.rule, state.part), (RUNNING, 7));
        self.taken_us[0] = state.taken_us;
        self.running = totals(&state.batch).into_iter().map(|((_, key), total)| (key, total)).collect();
        Ok(())
    }

    fn state_rows(&self) -> usize {
        self.panes.iter().map(BTreeMap::len).sum()
    }
}

/// The rules of a life, and how it makes their programs.
pub(super) struct LifeRules {
    pub(super) plans: Vec<RulePlan>,
    pub(super) states: Vec<StatePlan>,
    /// Makes programs without state.
    pub(super) programs: Box<dyn Fn() -> Reloaded + Send>,
}

/// The rules as they are run here. Those that come later may be there or not; they are there from the first on if that is absent.
pub(super) fn life_rules(workers: usize, place: Option<Place>, late_comers: Option<bool>) -> LifeRules {
    LifeRules {
        plans: late_comers.map_or_else(plans, plans_with),
        states: states(),
        programs: Box::new(move || Reloaded {
            versions: BTreeMap::new(),
            lane_programs: (0..workers).map(|_| Box::<Lanes>::default() as _).collect(),
            final_program: Box::new(place.map_or_else(Merged::default, Merged::at)),
            programs: Box::new(single_rule),
        }),
    }
}

/// Programs that are the same and come anew with every second look: changing over may change nothing.
pub(super) struct Registers {
    looks: usize,
    programs: Box<dyn Fn() -> Reloaded + Send>,
}

impl Registers {
    pub(super) fn new(programs: Box<dyn Fn() -> Reloaded + Send>) -> Self {
        Self { looks: 0, programs }
    }
}

impl References for Registers {
    fn look(&mut self) -> ReferencesSeen {
        self.looks += 1;
        let reloaded = self.looks.is_multiple_of(2).then(|| Reloaded {
            versions: BTreeMap::from([("keys".to_owned(), self.looks.to_string())]),
            ..(self.programs)()
        });
        ReferencesSeen { reloaded, ..ReferencesSeen::default() }
    }
}

/// The programs of one rule.
fn single_rule(rule: usize) -> (Box<dyn LaneProgram>, Box<dyn FinalProgram>) {
    (Box::new(Lanes::only(rule)), Box::new(Merged::only(rule)))
}
