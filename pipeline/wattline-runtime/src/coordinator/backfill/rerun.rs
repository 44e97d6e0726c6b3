//! One rule by itself over the raw tables, in slices of event time.
//!
//! Rows of a slice are pushed as they come from the archive, in whatever order; when the slice is at its end, no row that is
//! earlier is still to come, and the merged part is advanced to it. So open windows of one slice are in memory, and what is
//! beyond its share goes to disk as in the stream. Slices grow while little is in them, so that an empty month costs a few
//! looks. What a pass has beyond the watermark of its cut is pushed last, and waits for the stream.
//!
//! A rule that late events correct is run twice at once: with all events for its results, and with those on time for what it
//! goes on with. Input that had ended before is part of the past like any other.
//!
//! A rule that fails on an event stops as a whole: in which order events fail says nothing here, and what is to be done about
//! it is the same, another text of the rule.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use futures::StreamExt;
use wattline_core::alert::History;
use wattline_core::late::LateStretches;
use wattline_core::manifest::AddedFile;
use wattline_core::record::{LaneId, column};
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use super::super::correction::{as_stream_batch, first_revision, in_time, nullable, wanted_columns};
use super::super::{Instant, JobSettings, RulePlan, StreamPlan, held_bytes};
use super::marked;
use super::told::Piece;
use crate::alerting::{Candidates, fold_in_order};
use crate::error::{Error, Result};
use crate::intake::stream_schema;
use crate::port::{Archive, Batches, FinalProgram, LaneProgram, RuleRows, StateDelta, TableRange};
use crate::table::{self, ALERTS};

/// The first slice of a pass, µs of event time.
const FIRST_SLICE_US: i64 = 60_000_000;
/// Rows after which slices do not grow any more.
const SLICE_ROWS: usize = 200_000;

/// How far the lanes of a rule are at a checkpoint.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    /// Of each lane the offset before which its records count.
    pub(super) ends: BTreeMap<LaneId, i64>,
    pub(super) watermark_us: i64,
}

/// What a rerun needs of the job.
pub(super) struct Surroundings<'a> {
    pub(super) archive: &'a dyn Archive,
    pub(super) streams: &'a [StreamPlan],
    pub(super) rules: &'a [RulePlan],
    pub(super) settings: &'a JobSettings,
}

/// How a stretch of work ended.
pub(super) enum Work {
    /// The pass is at its end.
    Done,
    /// There is more to do.
    Paused,
    /// There are results that are worth files.
    Full,
}

/// What was found so far.
#[derive(Default)]
pub(super) struct Found {
    results: Vec<(String, RecordBatch)>,
    bytes: u64,
    /// Files with the results before.
    pub(super) adds: BTreeMap<String, Vec<AddedFile>>,
    /// Where events are that came too late, of the first pass.
    pub(super) late: LateStretches,
    /// What kept single rows from being computed.
    pub(super) left_out: BTreeSet<String>,
    pub(super) events: usize,
    pub(super) rows: usize,
}

impl Found {
    fn push(&mut self, table: &str, batch: RecordBatch) {
        self.rows += batch.num_rows();
        self.bytes += held_bytes(&batch);
        self.results.push((table.to_owned(), batch));
    }

    pub(super) fn take_results(&mut self) -> Vec<(String, RecordBatch)> {
        self.bytes = 0;
        std::mem::take(&mut self.results)
    }
}

/// The programs of the rule.
struct Single {
    lanes: Box<dyn LaneProgram>,
    merged: Box<dyn FinalProgram>,
    /// Late events count as if they were not.
    takes_late: bool,
}

impl Single {
    fn begin((lanes, merged): (Box<dyn LaneProgram>, Box<dyn FinalProgram>), rule: usize, began_us: i64) -> Self {
        let mut single = Self { lanes, merged, takes_late: false };
        for state in 0..single.states() {
            single.merged.set_given(state, began_us);
        }
        single.merged.begin_at(rule, began_us);
        single
    }

    fn states(&self) -> usize {
        self.lanes.first_final_us().len()
    }

    /// Hands what was pushed to the merged part; the text of what went wrong inside, if anything did.
    fn close(&mut self) -> Result<Result<(), String>> {
        let deltas = match self.lanes.seal() {
            Ok(deltas) => deltas,
            Err(message) => return Ok(Err(message)),
        };
        for delta in deltas {
            if let Err(message) = self.merged.merge(&delta) {
                return Ok(Err(message));
            }
            self.merged.relieve()?;
        }
        Ok(Ok(()))
    }
}

/// Where a pass is.
struct Pass {
    until: Cut,
    /// Slices end here: there are no events beyond, or they wait for the watermark.
    sliced_until_us: i64,
    /// The slice: from an instant until before another.
    slice_us: (i64, i64),
    /// Length of the next one.
    length_us: i64,
    /// The stream that is read, by its place among those of the rule.
    stream: usize,
    reading: Option<Batches>,
    rows: usize,
    /// All rows of the slice were pushed, and this is what it makes final.
    advancing: Option<Vec<RuleRows>>,
}

/// A rule by itself, and how far it has come.
pub(super) struct Rerun {
    /// The rules that have its text.
    rules: Vec<usize>,
    /// The alerts of each.
    pub(super) histories: Vec<History>,
    pub(super) begun: Instant,
    /// The begin of the past.
    pub(super) from_us: i64,
    /// When its results were computed.
    now_us: i64,
    /// The first is the one whose state is taken over, the last the one whose results count.
    programs: Vec<Single>,
    /// What was pushed.
    pub(super) seen: Cut,
    /// Up to where the first pass went.
    pub(super) first_ends: BTreeMap<LaneId, i64>,
    pass: Option<Pass>,
    passes: usize,
    pub(super) found: Found,
    /// Why the rule cannot be run over these events.
    pub(super) stopped: Option<String>,
}

impl Rerun {
    /// `from_us` is the begin of the past, and what is final at `began_us` reaches back to before it.
    pub(super) fn begin(
        rules: Vec<usize>,
        histories: Vec<History>,
        programs: impl Fn() -> (Box<dyn LaneProgram>, Box<dyn FinalProgram>),
        is_corrected: bool,
        (from_us, began_us): (i64, i64),
        now_us: i64,
    ) -> Self {
        let mut singles = vec![Single::begin(programs(), rules[0], began_us)];
        if is_corrected {
            singles.push(Single { takes_late: true, ..Single::begin(programs(), rules[0], began_us) });
        }
        Self {
            rules,
            histories,
            begun: Instant::now(),
            from_us,
            now_us,
            programs: singles,
            seen: Cut { ends: BTreeMap::new(), watermark_us: BEFORE_TIME },
            first_ends: BTreeMap::new(),
            pass: None,
            passes: 0,
            found: Found::default(),
            stopped: None,
        }
    }

    pub(super) fn rules(&self) -> &[usize] {
        &self.rules
    }

    /// Passes that were begun.
    pub(super) fn passes(&self) -> usize {
        self.passes
    }

    pub(super) fn is_reading(&self) -> bool {
        self.pass.is_some()
    }

    /// The merged part whose state is taken over.
    pub(super) fn merged(&mut self) -> &mut dyn FinalProgram {
        self.programs[0].merged.as_mut()
    }

    /// Goes on up to a checkpoint. No event is later than `reached_us`.
    pub(super) fn begin_pass(&mut self, until: Cut, reached_us: i64) {
        if self.passes == 0 {
            self.first_ends.clone_from(&until.ends);
        }
        self.passes += 1;
        // What comes on time after a checkpoint is not before its watermark.
        let from_us = self.from_us.max(self.seen.watermark_us);
        let sliced_until_us = until.watermark_us.min(reached_us.saturating_add(1));
        self.pass = Some(Pass {
            until,
            sliced_until_us,
            slice_us: slice(from_us, FIRST_SLICE_US, sliced_until_us),
            length_us: FIRST_SLICE_US,
            stream: 0,
            reading: None,
            rows: 0,
            advancing: None,
        });
    }

    /// Takes in what was told of the rule since the records of the last pass, and goes on to a watermark: for the rest of the
    /// [`work`](Self::work) nothing is read.
    pub(super) fn take_told(&mut self, with: &Surroundings<'_>, told: Vec<Piece>, watermark_us: i64) -> Result<()> {
        let plan = &with.rules[self.rules[0]];
        let numbers = plan.backfill.as_ref().map(|plan| plan.states.clone()).unwrap_or_default();
        for piece in told {
            match piece {
                Piece::State(delta) => {
                    let Some(state) = numbers.iter().position(|number| *number == delta.state) else { continue };
                    let delta = StateDelta { state, ..delta };
                    for single in &mut self.programs {
                        if let Err(message) = single.merged.merge(&delta) {
                            self.stopped.get_or_insert(message);
                        }
                        single.merged.relieve()?;
                    }
                }
                Piece::Rows(rows) => self.give(with, &[rows])?,
            }
        }
        self.pass = Some(Pass {
            until: Cut { ends: self.seen.ends.clone(), watermark_us },
            sliced_until_us: END_OF_TIME,
            slice_us: (END_OF_TIME, END_OF_TIME),
            length_us: FIRST_SLICE_US,
            stream: plan.streams.len(),
            reading: None,
            rows: 0,
            advancing: Some(Vec::new()),
        });
        Ok(())
    }

    /// Reads on until the pass is at its end, there is much to be written, or a moment has come.
    pub(super) async fn work(&mut self, with: &Surroundings<'_>, until: Instant) -> Result<Work> {
        while self.stopped.is_none() {
            let Some(pass) = &mut self.pass else { break };
            if pass.advancing.is_some() {
                self.advance(with)?;
            } else if let Some(mut reading) = pass.reading.take() {
                match reading.next().await {
                    Some(batch) => {
                        pass.reading = Some(reading);
                        self.take(with, &batch?)?;
                    }
                    None => pass.stream += 1,
                }
            } else if pass.stream < with.rules[self.rules[0]].streams.len() {
                pass.reading = open(with, &with.rules[self.rules[0]], pass).await?;
                pass.stream += usize::from(pass.reading.is_none());
            } else {
                pass.advancing = Some(Vec::new());
                self.close()?;
            }
            if self.found.bytes >= with.settings.results_bytes {
                return Ok(Work::Full);
            }
            if Instant::now() >= until {
                return Ok(Work::Paused);
            }
        }
        // What cannot be run has no other end.
        self.pass = None;
        Ok(Work::Done)
    }

    /// Takes in rows of the archive.
    fn take(&mut self, with: &Surroundings<'_>, batch: &RecordBatch) -> Result<()> {
        let Some(pass) = &mut self.pass else { return Ok(()) };
        let plan = &with.rules[self.rules[0]];
        let number = plan.streams[pass.stream];
        let stream = &with.streams[number];
        let batch = as_stream_batch(&nullable(&stream_schema(&stream.schema)), batch)?;
        let mask = within(&batch, &self.seen.ends, &pass.until.ends)?;
        let rows = filter_record_batch(&batch, &mask).map_err(Error::arrow("reading back events"))?;
        pass.rows += rows.num_rows();
        self.found.events += rows.num_rows();
        if plan.correction.is_some() && self.passes == 1 {
            note_late(&rows, &stream.event_time, plan, &mut self.found.late)?;
        }
        let last = self.programs.len() - 1;
        let mut given = Vec::new();
        for (which, single) in self.programs.iter_mut().enumerate() {
            let takes_late = single.takes_late && self.passes == 1;
            let rows = if takes_late { in_time(&rows)? } else { rows.clone() };
            let output = single.lanes.push(0, number, &rows);
            if let Some(failure) = output.failures.into_iter().next() {
                let message =
                    format!("at offset {} of a lane of `{}`: {}", failure.offset, stream.name, failure.message);
                self.stopped.get_or_insert(message);
            }
            if which == last {
                given = output.rows;
            }
            if single.lanes.state_bytes() as u64 >= with.settings.state_bytes
                && let Err(message) = single.close()?
            {
                self.stopped.get_or_insert(message);
            }
        }
        self.give(with, &given)
    }

    /// All rows of the slice were pushed.
    fn close(&mut self) -> Result<()> {
        for single in &mut self.programs {
            if let Err(message) = single.close()? {
                self.stopped.get_or_insert(message);
            }
        }
        Ok(())
    }

    /// Takes what the slice makes final, or a part of it; then the next slice begins, or the pass ends.
    fn advance(&mut self, with: &Surroundings<'_>) -> Result<()> {
        let Some(pass) = &mut self.pass else { return Ok(()) };
        let is_last = pass.slice_us.1 == END_OF_TIME;
        let watermark_us = if is_last { pass.until.watermark_us } else { pass.slice_us.1 };
        let last = self.programs.len() - 1;
        let (mut more, mut given) = (false, Vec::new());
        for (which, single) in self.programs.iter_mut().enumerate() {
            let output = single.merged.advance(&vec![watermark_us; single.states()])?;
            more |= output.more;
            if let Some((_, message)) = output.stopped.into_iter().next() {
                self.stopped.get_or_insert(message);
            }
            if which == last {
                self.found.left_out.extend(output.failures.into_iter().map(|of| of.message));
                given = output.rows;
            }
            single.merged.relieve()?;
        }
        given.retain(|rows| rows.rule == self.rules[0]);
        // Parts come in any order, and alerts are folded in the order of event time.
        let (held, given) = match (with.rules[self.rules[0]].alert.is_some(), pass.advancing.take()) {
            (true, Some(mut held)) => {
                held.extend(given);
                if more { (Some(held), Vec::new()) } else { (None, held) }
            }
            (_, held) => (held.filter(|_| more), given),
        };
        pass.advancing = held;
        if !more {
            if is_last {
                self.seen = pass.until.clone();
                self.pass = None;
            } else {
                pass.next_slice();
            }
        }
        self.give(with, &given)
    }

    /// Rows of the rule are results of all that have its text.
    fn give(&mut self, with: &Surroundings<'_>, rows: &[RuleRows]) -> Result<()> {
        for (rule, history) in self.rules.iter().zip(&mut self.histories) {
            let plan = &with.rules[*rule];
            for batch in plan.table.iter().flat_map(|_| rows).map(|rows| &rows.batch) {
                let batch = match plan.correction {
                    Some(_) => first_revision(batch)?,
                    None => batch.clone(),
                };
                let name = plan.table.as_ref().map_or("", |spec| spec.name.as_str());
                self.found.push(name, marked(&batch, self.now_us)?);
            }
            let Some(alert) = &plan.alert else { continue };
            let candidates = rows.iter().map(|rows| Candidates::new(alert, rows)).collect::<Result<Vec<_>>>()?;
            let mut settled = Vec::new();
            for record in fold_in_order(&candidates, history.lifecycle())? {
                settled.extend(history.note(record));
            }
            if !settled.is_empty() {
                self.found.push(ALERTS, table::alert_batch(&settled)?);
            }
        }
        Ok(())
    }
}

/// A slice that begins at an instant; the last one has all that is beyond the others.
fn slice(from_us: i64, length_us: i64, until_us: i64) -> (i64, i64) {
    match from_us < until_us {
        true => (from_us, from_us.saturating_add(length_us).min(until_us)),
        false => (from_us, END_OF_TIME),
    }
}

impl Pass {
    fn next_slice(&mut self) {
        self.length_us = match self.rows {
            0..SLICE_ROWS => self.length_us.saturating_mul(2),
            rows if rows > 4 * SLICE_ROWS => (self.length_us / 2).max(1_000),
            _ => self.length_us,
        };
        self.slice_us = slice(self.slice_us.1, self.length_us, self.sliced_until_us);
        (self.stream, self.rows, self.advancing) = (0, 0, None);
    }
}

/// The rows of the slice, of the stream that is read.
async fn open(with: &Surroundings<'_>, plan: &RulePlan, pass: &Pass) -> Result<Option<Batches>> {
    let stream = &with.streams[plan.streams[pass.stream]];
    let columns = plan.backfill.as_ref().map(|backfill| &backfill.columns[pass.stream]);
    let (Some(table), Some(columns)) = (&stream.table, columns) else { return Ok(None) };
    let wanted = wanted_columns(columns, &stream.event_time);
    let last_us = if pass.slice_us.1 == END_OF_TIME { END_OF_TIME } else { pass.slice_us.1 - 1 };
    let between_us = (pass.slice_us.0, last_us);
    let range = TableRange { table: &table.name, columns: &wanted, time: &stream.event_time, between_us };
    with.archive.read_range(&range).await.map(Some)
}

/// Which rows are of these lanes, at or after one offset and before another.
fn within(batch: &RecordBatch, from: &BTreeMap<LaneId, i64>, until: &BTreeMap<LaneId, i64>) -> Result<BooleanArray> {
    let at = |name: &str| {
        let index = batch.schema().index_of(name).map_err(Error::arrow("reading back events"))?;
        Ok::<_, Error>(batch.column(index).clone())
    };
    let topics = cast(&at(column::TOPIC)?, &DataType::Utf8).map_err(Error::arrow("reading back events"))?;
    let (topics, partitions, offsets) = (topics.as_string::<i32>(), at(column::PARTITION)?, at(column::OFFSET)?);
    let partitions = partitions.as_primitive::<Int32Type>();
    let mut known: Option<(LaneId, std::ops::Range<i64>)> = None;
    let mut within = |row: usize, offset: i64| {
        let (topic, partition) = (topics.value(row), partitions.value(row));
        if !known.as_ref().is_some_and(|(lane, _)| lane.partition == partition && *lane.topic == *topic) {
            let lane = LaneId::new(topic, partition);
            let first = from.get(&lane).copied().unwrap_or(i64::MIN);
            // Lanes of others are not seen.
            let end = until.get(&lane).copied().unwrap_or(i64::MIN);
            known = Some((lane, first..end));
        }
        known.as_ref().is_some_and(|(_, range)| range.contains(&offset))
    };
    let offsets = offsets.as_primitive::<Int64Type>().values();
    Ok(offsets.iter().enumerate().map(|(row, offset)| Some(within(row, *offset))).collect())
}

/// Notes where events are that were late for the rule.
fn note_late(rows: &RecordBatch, event_time: &str, plan: &RulePlan, late: &mut LateStretches) -> Result<()> {
    let at = |name: &str| rows.schema().index_of(name).map_err(Error::arrow("reading back events"));
    let times = rows.column(at(event_time)?).as_primitive::<TimestampMicrosecondType>().values();
    let lateness = rows.column(at(column::LATENESS_MS)?).as_primitive::<Int64Type>().values();
    for (event_us, _) in times.iter().zip(lateness).filter(|(_, late_ms)| **late_ms > plan.delay_ms) {
        late.add((*event_us, *event_us), plan.joins_us());
    }
    Ok(())
}
