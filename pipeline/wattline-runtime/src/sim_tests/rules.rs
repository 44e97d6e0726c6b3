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
//!
//! State is a batch of (window start, key, sum, count). Like the real program, a merge ignores windows that were taken
//! out; `running` shares the state of `sums`, keeps what it has seen, and goes through it again after a restore.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt32Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use wattline_core::alert::{AlertRule, Severity};
use wattline_core::record::{LaneId, RecordBlock, column};
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use crate::alerting::AlertPlan;
use crate::error::Result;
use crate::port::{
    Decoded, Decoder, Deltas, FinalOutput, FinalProgram, LaneProgram, References, ReferencesSeen, Refused, Reloaded,
    RuleOutput, RuleRows, StageState, StageStates, StateDelta,
};
use crate::stream_schema;
use crate::table::{TableSpec, timestamp_type};
use crate::{CorrectionPlan, RulePlan, StatePlan, corrected_schema};

pub(super) const BIG: usize = 0;
pub(super) const SPIKE: usize = 1;
pub(super) const SUMS: usize = 2;
pub(super) const HEAVY: usize = 3;
pub(super) const RUNNING: usize = 4;
pub(super) const MENDED: usize = 5;
pub(super) const EVERY: usize = 6;
pub(super) const TIDIED: usize = 7;
pub(super) const DELAYS_MS: [i64; 8] = [20_000, 20_000, 5_000, 30_000, 5_000, 5_000, 2_000, 0];
pub(super) const BIG_ABOVE: i64 = 60;
pub(super) const SPIKE_ABOVE: i64 = 90;
pub(super) const HEAVY_ABOVE: i64 = 160;
pub(super) const WINDOW_US: i64 = 10_000_000;

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
        severity: Severity::Warning,
        standard: None,
        category: "test".into(),
        unit: None,
        runbook: None,
        resolve_after: 1,
        renotify_ms: None,
    }
}

pub(super) fn plans() -> Vec<RulePlan> {
    let plan = |rule: usize, id: &str, span_us: Option<i64>, table: Option<TableSpec>, alert| RulePlan {
        id: id.into(),
        version: "1".into(),
        fingerprint: format!("fingerprint of {id}"),
        streams: vec![0],
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
    };
    let alert = |id: &str, event_time: &str| {
        let (rule, event_time) = (alert_rule(id), event_time.into());
        Some(AlertPlan { rule, entity: vec!["key".into()], event_time, corrected: id == "tidied" })
    };
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
    ]
}

/// The rules with state, by the number of their state.
const STATES: [usize; 3] = [SUMS, HEAVY, TIDIED];

pub(super) fn states() -> Vec<StatePlan> {
    let plan = |rule: &usize| StatePlan { fingerprint: format!("state of {rule}"), rules: rules_of(*rule).to_vec() };
    STATES.iter().map(plan).collect()
}

/// The rules that share the state of a rule.
fn rules_of(rule: usize) -> &'static [usize] {
    match rule {
        SUMS => &[SUMS, RUNNING, MENDED],
        HEAVY => &[HEAVY],
        _ => &[TIDIED],
    }
}

pub(super) fn window_start_us(event_us: i64) -> i64 {
    event_us.div_euclid(WINDOW_US) * WINDOW_US
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
    fn decode(&mut self, block: &RecordBlock) -> Decoded {
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
        Decoded { batch, record, index, refused, unknown_fields: BTreeMap::new() }
    }

    fn set_header(&mut self, _lane: &LaneId, _line: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn decode_columns(&mut self, _lane: &LaneId, _batch: &RecordBatch) -> Decoded {
        unreachable!("the scripts hold text")
    }
}

#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// By state.
    partial: [BTreeMap<Pane, Total>; 3],
    /// The only rule that is run, if not all are.
    only: Option<usize>,
}

impl Lanes {
    pub(super) fn only(rule: usize) -> Self {
        Self { only: Some(rule), ..Self::default() }
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
        let batch = take_record_batch(batch, &kept).expect("rows of the batch");
        Some(RuleRows { rule, identity: Some(batch.clone()), batch })
    }
}

impl LaneProgram for Lanes {
    fn state_bytes(&self) -> usize {
        self.partial.iter().map(BTreeMap::len).sum()
    }

    fn push(&mut self, _lane: u32, _stream: usize, batch: &RecordBatch) -> RuleOutput {
        let (times, values) = (longs(batch, "ts"), longs(batch, "value"));
        let (keys, lateness) = (text(batch, "key"), longs(batch, column::LATENESS_MS));
        for (rule, panes) in STATES.into_iter().zip(&mut self.partial) {
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
        self.close(&[END_OF_TIME; 3])
    }

    fn close(&mut self, watermarks_us: &[i64]) -> Result<Vec<StateDelta>, String> {
        let mut deltas = Vec::new();
        for (state, (panes, watermark_us)) in self.partial.iter_mut().zip(watermarks_us).enumerate() {
            let is_final = |pane: &Pane, _total: &mut Total| pane.0 + WINDOW_US <= *watermark_us;
            let closed: BTreeMap<Pane, Total> = panes.extract_if(.., is_final).collect();
            deltas.extend(closed.into_iter().map(|window| delta(state, &[window])));
        }
        Ok(deltas)
    }

    fn first_final_us(&self) -> Vec<i64> {
        let first = |panes: &BTreeMap<Pane, Total>| panes.keys().next().map_or(END_OF_TIME, |pane| pane.0 + WINDOW_US);
        self.partial.iter().map(first).collect()
    }

    fn quarantine(&mut self, _rule: usize, _lane: u32) {}
}

fn delta(state: usize, window: &[(Pane, Total)]) -> StateDelta {
    let final_at_us = window.iter().map(|(pane, _)| pane.0 + WINDOW_US).max().unwrap_or(END_OF_TIME);
    StateDelta { state, final_at_us, batch: total_batch(window) }
}

#[derive(Debug)]
pub(super) struct Merged {
    /// By state.
    panes: [BTreeMap<Pane, Total>; 3],
    taken_us: [i64; 3],
    /// What `running` keeps, by key.
    running: BTreeMap<String, Total>,
    /// By rule.
    given_us: [i64; 8],
    /// The only rule that is run, if not all are.
    only: Option<usize>,
}

impl Default for Merged {
    fn default() -> Self {
        let (taken_us, given_us) = ([BEFORE_TIME; 3], [BEFORE_TIME; 8]);
        Self { panes: Default::default(), taken_us, running: BTreeMap::new(), given_us, only: None }
    }
}

impl Merged {
    pub(super) fn only(rule: usize) -> Self {
        Self { only: Some(rule), ..Self::default() }
    }

    fn advance_to(&mut self, state: usize, watermark_us: i64) -> Vec<RuleRows> {
        if watermark_us <= self.taken_us[state] {
            return Vec::new();
        }
        self.taken_us[state] = watermark_us;
        let is_final = |pane: &Pane, _total: &mut Total| pane.0 + WINDOW_US <= watermark_us;
        let closed: Vec<(Pane, Total)> = self.panes[state].extract_if(.., is_final).collect();
        let mut rows = Vec::new();
        let only = self.only;
        for rule in rules_of(STATES[state]).iter().filter(|rule| only.is_none_or(|only| only == **rule)) {
            let given: Vec<(Pane, Total)> = match *rule {
                RUNNING => closed.iter().map(|(pane, total)| (pane.clone(), self.run(&pane.1, *total))).collect(),
                _ => closed.clone(),
            };
            if watermark_us > self.given_us[*rule] {
                self.given_us[*rule] = watermark_us;
                rows.extend((!given.is_empty()).then(|| RuleRows {
                    rule: *rule,
                    batch: total_batch(&given),
                    identity: None,
                }));
            }
        }
        rows
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
            if pane.0 + WINDOW_US > self.taken_us[delta.state] {
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
        let mut rows = Vec::new();
        for turn_us in [self.given_us[RUNNING], END_OF_TIME] {
            for (state, watermark_us) in watermarks_us.iter().enumerate() {
                rows.extend(self.advance_to(state, (*watermark_us).min(turn_us)));
                if !rows.is_empty() && self.only.is_none() {
                    return Ok(FinalOutput { rows, more: true, ..FinalOutput::default() });
                }
            }
        }
        Ok(FinalOutput { rows, ..FinalOutput::default() })
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

/// Programs that are the same and come anew with every second look: changing over may change nothing.
#[derive(Debug)]
pub(super) struct Registers {
    workers: usize,
    looks: usize,
}

impl Registers {
    pub(super) fn new(workers: usize) -> Self {
        Self { workers, looks: 0 }
    }
}

impl References for Registers {
    fn look(&mut self) -> ReferencesSeen {
        self.looks += 1;
        let reloaded = self.looks.is_multiple_of(2).then(|| Reloaded {
            versions: BTreeMap::from([("keys".to_owned(), self.looks.to_string())]),
            lane_programs: (0..self.workers).map(|_| Box::<Lanes>::default() as _).collect(),
            final_program: Box::<Merged>::default(),
            programs: Box::new(single_rule),
        });
        ReferencesSeen { reloaded, ..ReferencesSeen::default() }
    }
}

/// The programs of one rule.
pub(super) fn single_rule(rule: usize) -> (Box<dyn LaneProgram>, Box<dyn FinalProgram>) {
    (Box::new(Lanes::only(rule)), Box::new(Merged::only(rule)))
}
