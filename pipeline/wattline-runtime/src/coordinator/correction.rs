//! Late events correct results: a rule is run again over the archive, and what differs is published.
//!
//! A rule sees the events within its delay. If its header says `late = "update"`, events beyond the delay change its results
//! after the fact. When a checkpoint has put such events into the raw tables, the rule is run over them anew, in three ways:
//!
//! ```text
//! before  at the last correction: on time, or before its offsets ── what it gave up to its watermark   ─┐
//! live    on time                                                ── what it gave since then            ─┴▶ what is out
//! after   everything before the archive offsets                  ── what it gives up to the watermark   ─▶ what should be
//! ```
//! The difference of the two, row by row as multisets, is published as rows that retract and rows that insert, with the next
//! revision, and corrects alerts. Both sides are computed from the same rows of the archive, so nothing about results must be
//! kept, whatever the rule is; and a result that late events do not touch cancels out, even one of which the range that is
//! read holds only a part. Only what can share a result with a late event is read: its reach before and after. Late events that
//! are farther apart than that are corrected one after the other.
//!
//! Which late events await correction (their range of time), up to which offsets and watermark results were corrected: that is
//! in each manifest, together with the rows that came of it. A crash computes the same again, from the same offsets.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, UInt32Array, new_null_array,
};
use arrow::compute::{cast, concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use futures::StreamExt;
use wattline_core::error::Retry;
use wattline_core::exchange::ArchivedLane;
use wattline_core::late::LateStretches;
use wattline_core::manifest::{Correction, LaneSection};
use wattline_core::record::{LaneId, column};
use wattline_core::redemption::REDEEMED_LATENESS_MS;
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use super::{Coordinator, INBOX, Instant, Programs, RulePlan};
use crate::alerting;
use crate::error::{Error, Result};
use crate::events;
use crate::intake::stream_schema;
use crate::port::{FinalProgram, LaneProgram, RuleFailure, RuleRows, TableRange};
use crate::progress::Progress;

/// More than the instants by which steps wait beyond their bounds: an event, or a window over windows, a microsecond each.
pub(super) const MARGIN_US: i64 = 1_000;
/// How often the archive is asked in one pass.
const READS_MAX: u32 = 3;
const READ_PAUSE: Duration = Duration::from_millis(200);

/// The word for rows that are results.
pub const INSERT: &str = "insert";
/// The word for rows that are results no longer.
pub const RETRACT: &str = "retract";

/// How the results of a rule are corrected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorrectionPlan {
    /// How far apart in event time two events can be that share a result, microseconds.
    pub reach_us: i64,
    /// For each stream of the rule the columns that it reads, without the system columns.
    pub columns: Vec<Vec<String>>,
}

/// Adds the columns that say which rows of a corrected table are results.
pub fn corrected_schema(schema: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(column::CHANGE, DataType::Utf8, false)));
    fields.push(Arc::new(Field::new(column::REVISION, DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}

/// Rows as the table of a corrected rule holds them.
///
/// # Errors
/// [`Error::Arrow`] if the batch cannot be built.
pub fn with_change(rows: &RecordBatch, change: &str, revision: i64) -> Result<RecordBatch> {
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(change, rows.num_rows()))));
    columns.push(Arc::new(Int64Array::from_value(revision, rows.num_rows())));
    RecordBatch::try_new(corrected_schema(&rows.schema()), columns).map_err(Error::arrow("corrected results"))
}

/// Rows that came out for the first time.
pub(super) fn first_revision(rows: &RecordBatch) -> Result<RecordBatch> {
    with_change(rows, INSERT, 1)
}

/// Which rows of a lane one of the three runs sees.
struct LaneCut {
    since: i64,
    /// Late events before this offset had corrected results.
    corrected: i64,
    /// Rows from here on are not seen: not in closed files yet, or after a failure of the rule.
    end: i64,
}

/// A run of one rule by itself.
struct Run {
    lanes: Box<dyn LaneProgram>,
    merged: Box<dyn FinalProgram>,
    rows: Vec<RuleRows>,
    /// Why the rule cannot be run over these events.
    stopped: Option<String>,
    /// What kept single rows from being computed.
    left_out: BTreeSet<String>,
}

impl Run {
    fn begin(programs: &Programs, rule: usize) -> Self {
        let (lanes, merged) = programs(rule);
        Self { lanes, merged, rows: Vec::new(), stopped: None, left_out: BTreeSet::new() }
    }

    fn push(&mut self, stream: usize, batch: &RecordBatch) {
        let output = self.lanes.push(0, stream, batch);
        self.rows.extend(output.rows);
        self.stopped = self.stopped.take().or_else(|| output.failures.into_iter().next().map(|of| of.message));
    }

    /// Hands what was pushed to the merged part.
    fn close(&mut self) -> Result<(), String> {
        self.lanes.seal()?.iter().try_for_each(|delta| self.merged.merge(delta))
    }

    /// What a watermark makes final.
    fn advance(&mut self, rule: usize, watermark_us: i64) -> Vec<RuleRows> {
        let watermarks_us = vec![watermark_us; self.lanes.first_final_us().len()];
        let mut rows = Vec::new();
        loop {
            let output = match self.merged.advance(&watermarks_us) {
                Ok(output) => output,
                Err(error) => {
                    self.stopped.get_or_insert_with(|| error.to_string());
                    return Vec::new();
                }
            };
            self.left_out.extend(output.failures.into_iter().map(|of| of.message));
            self.stopped = self.stopped.take().or(output.stopped.into_iter().next().map(|of| of.1));
            rows.extend(output.rows.into_iter().filter(|rows| rows.rule == rule));
            if !output.more || self.stopped.is_some() {
                return rows;
            }
        }
    }
}

/// What a correction changes, in the rows of a rule.
struct Difference {
    retracted: RuleRows,
    inserted: RuleRows,
    /// All rows as they are now, of the range that was read.
    now: Vec<RuleRows>,
}

impl Coordinator {
    /// Corrects the results of all rules that late events in closed files have to do with; true if the next link must say so.
    pub(super) async fn correct(&mut self) -> Result<bool> {
        let mut corrected = false;
        for rule in 0..self.rules.len() {
            let Some(plan) = self.rules[rule].correction.clone() else { continue };
            let stretches: Vec<(i64, i64)> = self.progress_of_rules[rule].late.iter().collect();
            let is_here = !self.is_elsewhere(rule) && !self.is_silent(rule);
            if stretches.is_empty() || !is_here || !self.has_caught_up(rule) {
                continue;
            }
            corrected |= self.correct_rule(rule, &plan, &stretches).await?;
        }
        self.uncommitted.corrected |= corrected;
        self.last_correction = Instant::now();
        Ok(corrected)
    }

    /// Corrects one rule, or leaves it as it is if the archive cannot be read now.
    async fn correct_rule(&mut self, rule: usize, plan: &CorrectionPlan, stretches: &[(i64, i64)]) -> Result<bool> {
        let started = Instant::now();
        let mut differences = Vec::with_capacity(stretches.len());
        for late_us in stretches {
            let runs = match self.read_patiently(rule, plan, *late_us).await {
                Ok(runs) => runs,
                Err(error) if error.retry() != Retry::Backoff => return Err(error),
                Err(error) => {
                    events::CorrectionPostponed { rule: &self.rules[rule].id, error: &error }.emit();
                    return Ok(false);
                }
            };
            match self.compare(rule, runs) {
                Ok(difference) => differences.extend(difference),
                Err(message) => {
                    // What is out stays, and counts as it was: other late events find it unchanged.
                    let message = format!("late events were not taken into the results: {message}");
                    self.note_failure(None, RuleFailure { rule, offset: -1, message }, false);
                    self.progress_of_rules[rule].late = LateStretches::default();
                    return Ok(true);
                }
            }
        }
        let (mut retracted, mut inserted) = (0, 0);
        for difference in &differences {
            self.publish_difference(rule, difference)?;
            retracted += difference.retracted.batch.num_rows();
            inserted += difference.inserted.batch.num_rows();
        }
        self.settle(rule, plan, stretches, !differences.is_empty());
        events::Corrected { rule: &self.rules[rule].id, retracted, inserted, took: started.elapsed() }.emit();
        Ok(true)
    }

    /// Where the lanes of this slot stand, those of the past that were not assigned too.
    pub(super) fn own_sections(&self) -> impl Iterator<Item = &LaneSection> {
        let assigned = self.lanes.values().map(|status| &status.section);
        assigned.chain(self.dormant.values().map(|(section, _)| section))
    }

    /// Where all lanes stand; in a job of several slots as the slots have told, with what is final by it.
    fn archived_lanes(&self) -> Vec<ArchivedLane> {
        let own = |section: &LaneSection| ArchivedLane {
            lane: section.lane.clone(),
            stream: section.stream.clone(),
            since: section.since,
            archive: section.archive,
        };
        match &self.exchange {
            Some(exchange) => exchange.archived_lanes().cloned().collect(),
            None => self.own_sections().map(own).collect(),
        }
    }

    /// Whether all that was published of the rule's streams is in closed files: while a lane re-reads it is not.
    pub(super) fn has_caught_up(&self, rule: usize) -> bool {
        if self.exchange.is_some() {
            // Nothing is published of it but what is, as far as all was heard again that the slots had told.
            return self.lanes.values().any(|of| of.stream == INBOX && of.processed >= of.section.published);
        }
        let streams = &self.rules[rule].streams;
        // A lane of the past that feeds the stream no more has nothing to read again.
        let of_rule = |lane: &LaneId| streams.iter().any(|of| self.streams[*of].lanes.matches(lane));
        self.own_sections().all(|section| !of_rule(&section.lane) || section.archive == section.published)
    }

    fn lane_cuts(&self, rule: usize) -> HashMap<LaneId, LaneCut> {
        let progress = &self.progress_of_rules[rule];
        let before: HashMap<&LaneId, i64> =
            progress.correction.iter().flat_map(|of| &of.offsets).map(|(lane, offset)| (lane, *offset)).collect();
        let cut = |section: &ArchivedLane| {
            let stopped = progress.quarantined.iter().find(|q| q.lane.as_ref() == Some(&section.lane));
            let cut = LaneCut {
                since: section.since,
                corrected: before.get(&section.lane).copied().unwrap_or(section.since),
                end: stopped.map_or(section.archive, |q| q.offset.min(section.archive)),
            };
            (section.lane.clone(), cut)
        };
        self.archived_lanes().iter().map(cut).collect()
    }

    /// As [`read_again`](Self::read_again), a few times: an archive that is away for longer must not hold up the job.
    async fn read_patiently(&self, rule: usize, plan: &CorrectionPlan, late_us: (i64, i64)) -> Result<[Run; 3]> {
        let cuts = self.lane_cuts(rule);
        let mut reads = 1;
        loop {
            match self.read_again(rule, plan, late_us, &cuts).await {
                Err(error) if error.retry() == Retry::Backoff && reads < READS_MAX => {
                    reads += 1;
                    tokio::time::sleep(READ_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// What the runs say that is to be changed.
    fn compare(&mut self, rule: usize, runs: [Run; 3]) -> Result<Option<Difference>, String> {
        let [mut before, mut live, mut after] = runs;
        [&mut before, &mut live, &mut after].into_iter().try_for_each(Run::close)?;
        let corrected_us = self.progress_of_rules[rule].correction.as_ref().map_or(BEFORE_TIME, |of| of.until_us);
        let until_us = self.progress_of_rules[rule].final_until_us;
        let began_us = self.began_before_us(rule);
        for run in [&mut before, &mut live, &mut after] {
            if began_us != BEFORE_TIME {
                run.advance(rule, began_us);
            }
        }
        let mut was = std::mem::take(&mut before.rows);
        was.extend(before.advance(rule, corrected_us));
        live.advance(rule, corrected_us);
        was.extend(live.advance(rule, until_us));
        let mut is = std::mem::take(&mut after.rows);
        is.extend(after.advance(rule, until_us));
        if let Some(message) = [&before, &live, &after].into_iter().find_map(|run| run.stopped.clone()) {
            return Err(message);
        }
        // Rows that could not be computed before were reported when they were due.
        for message in after.left_out.difference(&before.left_out.union(&live.left_out).cloned().collect()) {
            let message = message.clone();
            self.note_failure(None, RuleFailure { rule, offset: -1, message }, false);
        }
        difference(rule, &was, is).map_err(|error| error.to_string())
    }

    /// The three runs, with all events that matter pushed.
    async fn read_again(
        &self,
        rule: usize,
        plan: &CorrectionPlan,
        late_us: (i64, i64),
        cuts: &HashMap<LaneId, LaneCut>,
    ) -> Result<[Run; 3]> {
        let [mut before, mut live, mut after] = std::array::from_fn(|_| Run::begin(&self.programs, rule));
        let reach_us = plan.reach_us.saturating_add(MARGIN_US);
        let mut between_us = (late_us.0.saturating_sub(reach_us), late_us.1.saturating_add(reach_us));
        if self.rules[rule].span_us.is_none() {
            // Rows that stand for themselves, of a time before the rule, are not its business.
            between_us.0 = between_us.0.max(self.progress_of_rules[rule].active_from_us);
        }
        if self.rules[rule].alert.is_some() {
            // Whether an alert is open now depends on the newest rows of its entity.
            between_us.1 = between_us.1.max(self.progress_of_rules[rule].final_until_us);
        }
        let delay_ms = self.rules[rule].delay_ms;
        for (stream, columns) in self.rules[rule].streams.iter().zip(&plan.columns) {
            let stream_plan = &self.streams[*stream];
            let Some(table) = &stream_plan.table else { continue };
            let schema = nullable(&stream_schema(&stream_plan.schema));
            let wanted = wanted_columns(columns, &stream_plan.event_time);
            let range = TableRange { table: &table.name, columns: &wanted, time: &stream_plan.event_time, between_us };
            let mut batches = self.archive.read_range(&range).await?;
            while let Some(batch) = batches.next().await {
                let batch = as_stream_batch(&schema, &batch?)?;
                let seen = Seen::of(&batch, cuts, delay_ms)?;
                before.push(*stream, &seen.rows(&batch, |row| row.on_time || row.corrected)?);
                live.push(*stream, &seen.rows(&batch, |row| row.on_time)?);
                after.push(*stream, &seen.rows(&batch, |_| true)?);
            }
        }
        Ok([before, live, after])
    }

    /// Puts what changed among the results and corrects alerts.
    fn publish_difference(&mut self, rule: usize, difference: &Difference) -> Result<()> {
        let Difference { retracted, inserted, now } = difference;
        let revision = self.progress_of_rules[rule].correction.as_ref().map_or(1, |of| of.revision) + 1;
        let RulePlan { table, alert, .. } = &self.rules[rule];
        if let Some(spec) = table {
            for (rows, change) in [(&retracted.batch, RETRACT), (&inserted.batch, INSERT)] {
                if rows.num_rows() > 0 {
                    Progress::add(&self.progress.result_rows, rows.num_rows());
                    self.uncommitted.results.push((spec.name.clone(), with_change(rows, change, revision)?));
                }
            }
        }
        if let Some(plan) = alert {
            let records = alerting::correct(plan, retracted, inserted, now, &mut self.lifecycle)?;
            records.into_iter().for_each(|record| self.note_alert(record));
        }
        Ok(())
    }

    /// Notes up to where results are corrected. Late events whose results are not all final stay on the list.
    fn settle(&mut self, rule: usize, plan: &CorrectionPlan, stretches: &[(i64, i64)], changed: bool) {
        let streams = &self.rules[rule].streams;
        let of_rule = |stream: &str| streams.iter().any(|of| self.streams[*of].name == stream);
        let lanes = self.archived_lanes().into_iter().filter(|of| of_rule(&of.stream));
        let offsets = lanes.map(|of| (of.lane, of.archive)).collect();
        let joins_us = self.rules[rule].joins_us();
        let progress = &mut self.progress_of_rules[rule];
        let revision = progress.correction.as_ref().map_or(1, |of| of.revision) + i64::from(changed);
        let until_us = progress.final_until_us;
        progress.correction = Some(Correction { until_us, revision, offsets });
        progress.late = LateStretches::default();
        if until_us == END_OF_TIME {
            return;
        }
        // What an event before this has to do with is final.
        let settled_us = until_us.saturating_sub(plan.reach_us).saturating_sub(MARGIN_US);
        for (first_us, last_us) in stretches.iter().filter(|(_, last_us)| *last_us >= settled_us) {
            progress.late.add(((*first_us).max(settled_us), *last_us), joins_us);
        }
    }
}

/// The columns to be read from a raw table: those of the rule, the event time, the system columns.
pub(super) fn wanted_columns(columns: &[String], event_time: &str) -> Vec<String> {
    let mut wanted: Vec<String> = columns.to_vec();
    if !wanted.iter().any(|name| name == event_time) {
        wanted.push(event_time.to_owned());
    }
    wanted.extend(column::SYSTEM.into_iter().map(str::to_owned));
    wanted
}

pub(super) fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Rows of a raw table as the stream had them; what was not read is null.
pub(super) fn as_stream_batch(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    };
    let columns: std::result::Result<Vec<ArrayRef>, _> = schema.fields().iter().map(column).collect();
    let rows = columns.and_then(|columns| RecordBatch::try_new(Arc::clone(schema), columns));
    rows.map_err(Error::arrow("reading back events"))
}

/// What each row of a batch is to a rule.
struct Seen {
    rows: Vec<Option<SeenRow>>,
}

#[derive(Clone, Copy)]
struct SeenRow {
    /// Within the delay.
    on_time: bool,
    /// In the results since the last correction, if not on time.
    corrected: bool,
}

impl Seen {
    fn of(batch: &RecordBatch, cuts: &HashMap<LaneId, LaneCut>, delay_ms: i64) -> Result<Self> {
        let at = |name: &str| {
            let index = batch.schema().index_of(name).map_err(Error::arrow("reading back events"))?;
            Ok::<_, Error>(Arc::clone(batch.column(index)))
        };
        let topics = cast(&at(column::TOPIC)?, &DataType::Utf8).map_err(Error::arrow("reading back events"))?;
        let (topics, partitions) = (topics.as_string::<i32>().clone(), at(column::PARTITION)?);
        let (offsets, lateness) = (at(column::OFFSET)?, at(column::LATENESS_MS)?);
        let (partitions, offsets) = (partitions.as_primitive::<Int32Type>(), offsets.as_primitive::<Int64Type>());
        let lateness = lateness.as_primitive::<Int64Type>();
        let mut known: Option<(LaneId, Option<&LaneCut>)> = None;
        let mut rows = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let (topic, partition, offset) = (topics.value(row), partitions.value(row), offsets.value(row));
            if !known.as_ref().is_some_and(|(lane, _)| lane.partition == partition && *lane.topic == *topic) {
                let lane = LaneId::new(topic, partition);
                let cut = cuts.get(&lane);
                known = Some((lane, cut));
            }
            // Lanes of others, rows that are in no closed file of ours, and rows that were dead letters are not seen: the last came
            // behind offsets that count as corrected, and only a restatement takes them in.
            let is_redeemed = lateness.value(row) == REDEEMED_LATENESS_MS;
            let cut = known.as_ref().and_then(|(_, cut)| *cut);
            let cut = cut.filter(|cut| !is_redeemed && (cut.since..cut.end).contains(&offset));
            rows.push(
                cut.map(|cut| SeenRow { on_time: lateness.value(row) <= delay_ms, corrected: offset < cut.corrected }),
            );
        }
        Ok(Self { rows })
    }

    /// The rows that a run sees, none of them late any more.
    fn rows(&self, batch: &RecordBatch, sees: impl Fn(SeenRow) -> bool) -> Result<RecordBatch> {
        let mask: BooleanArray = self.rows.iter().map(|row| Some(row.is_some_and(&sees))).collect();
        let kept = filter_record_batch(batch, &mask).map_err(Error::arrow("reading back events"))?;
        in_time(&kept)
    }
}

/// The same rows, none of them late.
pub(super) fn in_time(rows: &RecordBatch) -> Result<RecordBatch> {
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| match field.name().as_str() {
        column::LATENESS_MS => Arc::new(Int64Array::from_value(0, rows.num_rows())) as ArrayRef,
        _ => Arc::clone(column),
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).map_err(Error::arrow("reading back events"))
}

/// The rows that are on one side only, counted as often as they are there.
fn difference(rule: usize, was: &[RuleRows], now: Vec<RuleRows>) -> Result<Option<Difference>> {
    let Some(some) = was.iter().chain(&now).next() else { return Ok(None) };
    let (was, is) = (Side::of(was, some)?, Side::of(&now, some)?);
    let fields = was.keys.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let compare = |error| Error::arrow("comparing results")(error);
    let converter = RowConverter::new(fields).map_err(compare)?;
    let (was_keys, is_keys) =
        (converter.convert_columns(&was.keys).map_err(compare)?, converter.convert_columns(&is.keys).map_err(compare)?);
    let mut gone: HashMap<&[u8], Vec<u32>> = HashMap::with_capacity(was_keys.num_rows());
    for (row, key) in (0_u32..).zip(was_keys.iter()) {
        gone.entry(key.data()).or_default().push(row);
    }
    let mut new = Vec::new();
    for (row, key) in (0_u32..).zip(is_keys.iter()) {
        if gone.get_mut(key.data()).and_then(Vec::pop).is_none() {
            new.push(row);
        }
    }
    let mut gone: Vec<u32> = gone.into_values().flatten().collect();
    gone.sort_unstable();
    if gone.is_empty() && new.is_empty() {
        return Ok(None);
    }
    Ok(Some(Difference { retracted: was.take(rule, gone)?, inserted: is.take(rule, new)?, now }))
}

/// All rows of a run.
struct Side {
    batch: RecordBatch,
    identity: Option<RecordBatch>,
    /// What tells rows apart: their values, and the events that they are.
    keys: Vec<ArrayRef>,
}

impl Side {
    fn of(rows: &[RuleRows], some: &RuleRows) -> Result<Self> {
        let joined = |schema: SchemaRef, batches: Vec<&RecordBatch>| {
            concat_batches(&schema, batches).map_err(Error::arrow("comparing results"))
        };
        let batch = joined(some.batch.schema(), rows.iter().map(|of| &of.batch).collect())?;
        let identity = match &some.identity {
            Some(identity) => {
                Some(joined(identity.schema(), rows.iter().filter_map(|of| of.identity.as_ref()).collect())?)
            }
            None => None,
        };
        let keys = batch.columns().iter().chain(identity.iter().flat_map(RecordBatch::columns)).cloned().collect();
        Ok(Self { batch, identity, keys })
    }

    fn take(&self, rule: usize, rows: Vec<u32>) -> Result<RuleRows> {
        let rows = UInt32Array::from(rows);
        let take = |batch: &RecordBatch| take_record_batch(batch, &rows).map_err(Error::arrow("comparing results"));
        Ok(RuleRows { rule, batch: take(&self.batch)?, identity: self.identity.as_ref().map(take).transpose()? })
    }
}
