//! The first steps of a lane: decode, guard, lateness, system columns.
//!
//! Everything here is a function of the records in offset order. Re-reading records that were published before
//! takes the clock's verdicts from the manifests ([`Replay`]), so the second pass equals the first.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::compute::FilterBuilder;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use wattline_core::gap::Gap;
use wattline_core::lane::{IdleAdvance, LaneClock, TimeGuard, Verdict};
use wattline_core::late::LateStretches;
use wattline_core::record::{LaneId, column};

use crate::error::{Error, Result};
use crate::port::Decoded;
use crate::progress::Progress;
use crate::table::DeadLetter;

/// The schema of a stream's batches: its own columns, then the system columns.
pub fn stream_schema(schema: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    for (name, kind) in
        column::SYSTEM.into_iter().zip([dictionary, DataType::Int32, DataType::Int64, DataType::Int32, DataType::Int64])
    {
        fields.push(Arc::new(Field::new(name, kind, false)));
    }
    Arc::new(Schema::new(fields))
}

/// Verdicts taken from the manifests for records that are read again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Replay {
    /// Records below this offset were published before.
    pub(crate) published: i64,
    /// Advances of the lane, by offset.
    pub(crate) idle_advances: VecDeque<IdleAdvance>,
    /// Events that were refused because of the clock, or because of what somebody outside said.
    pub(crate) refused: HashSet<(i64, i32)>,
    /// The time of the lane at `published`, as far as it matters: nothing behind what its rules have given may be on time then.
    pub(crate) reached_us: Option<i64>,
}

impl Replay {
    /// The verdicts as a manifest holds them, in order of offset.
    pub(crate) fn verdicts(&self) -> (Vec<IdleAdvance>, Vec<(i64, i32)>) {
        let mut refused: Vec<(i64, i32)> = self.refused.iter().copied().collect();
        refused.sort_unstable();
        (self.idle_advances.iter().copied().collect(), refused)
    }

    /// If a gap takes records away that were read before, the times of their events are gone too. Once the lane is past what was
    /// published, it stands at least where it stood then.
    pub(crate) fn after_gap(&self, gap: Gap) -> Option<IdleAdvance> {
        let reached_us = self.reached_us.filter(|_| gap.first < self.published)?;
        Some(IdleAdvance { offset: self.published, reached_us })
    }
}

/// What a stream asks of its lanes.
#[derive(Debug, Clone)]
pub(crate) struct StreamIntake {
    /// Stream name.
    pub(crate) name: Arc<str>,
    /// Schema with system columns.
    pub(crate) schema: SchemaRef,
    /// Index of the event-time column.
    pub(crate) event_time: usize,
    /// Bounds of event times.
    pub(crate) guard: TimeGuard,
    /// The rules whose results late events of this stream correct.
    pub(crate) corrected: Vec<CorrectedRule>,
    /// Ids of the rules that late events do not correct, by how much lateness they tolerate, milliseconds.
    pub(crate) by_delay: BTreeMap<i64, Vec<String>>,
}

/// A rule whose results late events correct.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CorrectedRule {
    pub(crate) rule: usize,
    pub(crate) delay_ms: i64,
    /// Late events no farther apart are taken in together.
    pub(crate) joins_us: i64,
}

impl StreamIntake {
    /// Counts for each rule the events of a batch that are too late for it.
    pub(crate) fn count_too_late(&self, batch: &RecordBatch, progress: &Progress) {
        let Some(lateness) = batch.column_by_name(column::LATENESS_MS) else { return };
        let lateness = lateness.as_primitive::<Int64Type>().values();
        let latest_ms = lateness.iter().copied().max().unwrap_or(0);
        for (delay_ms, rules) in self.by_delay.range(..latest_ms) {
            let too_late = lateness.iter().filter(|late_ms| *late_ms > delay_ms).count();
            progress.note_too_late(rules, too_late);
        }
    }

    /// Notes for each rule that is to be corrected where the late events of a batch are.
    pub(crate) fn note_late(&self, batch: &RecordBatch, late: &mut BTreeMap<usize, LateStretches>) {
        let Some(least_ms) = self.corrected.iter().map(|of| of.delay_ms).min() else { return };
        let Some(lateness) = batch.column_by_name(column::LATENESS_MS) else { return };
        let times = batch.column(self.event_time).as_primitive::<TimestampMicrosecondType>().values();
        let lateness = lateness.as_primitive::<Int64Type>().values();
        for (event_us, late_ms) in times.iter().zip(lateness).filter(|(_, late_ms)| **late_ms > least_ms) {
            for of in self.corrected.iter().filter(|of| *late_ms > of.delay_ms) {
                late.entry(of.rule).or_default().add((*event_us, *event_us), of.joins_us);
            }
        }
    }
}

/// Where the records of a decoded block stand.
#[derive(Debug)]
pub(crate) struct BlockPlace<'a> {
    /// Offset of each record.
    pub(crate) offsets: &'a [i64],
    /// Timestamp of each record, milliseconds since the epoch, -1 if none.
    pub(crate) timestamps_ms: &'a [i64],
    /// Whether the broker set them.
    pub(crate) log_append_time: bool,
    /// Process clock at fetching, milliseconds since the epoch.
    pub(crate) fetched_at_ms: i64,
}

impl BlockPlace<'_> {
    /// The clock against which a record is judged.
    fn clock_ms(&self, record: usize) -> i64 {
        if self.log_append_time { self.timestamps_ms[record] } else { self.fetched_at_ms }
    }

    /// The time a dead letter carries.
    fn record_ms(&self, record: usize) -> i64 {
        let stamp = self.timestamps_ms[record];
        if stamp >= 0 { stamp } else { self.fetched_at_ms }
    }
}

/// The accepted events of a block, and those that were refused.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// Rows with system columns.
    pub(crate) batch: RecordBatch,
    /// Rows that were published before: the first `replayed` rows of `batch`.
    pub(crate) replayed: usize,
    /// Refused records not published before.
    pub(crate) dead_letters: Vec<DeadLetter>,
    /// Events with a lateness above zero.
    pub(crate) late: usize,
}

/// The state of one lane on its worker.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) id: LaneId,
    pub(crate) stream: usize,
    pub(crate) clock: LaneClock,
    /// Offset after the last record taken in, if any was.
    pub(crate) next_offset: Option<i64>,
    /// The first offset taken in, or where the lane resumed.
    pub(crate) first_offset: Option<i64>,
    pub(crate) ended: bool,
    /// Nothing came since the source had handed over everything.
    pub(crate) silent: bool,
    replay: Replay,
    /// Rules that failed where the lane has not come to again, and where: they fail again by themselves, unless the record is gone.
    pub(crate) fails_later: Vec<(i64, usize)>,
    /// The log that it is read from, once the source has said so.
    pub(crate) log: Option<String>,
    topic: ArrayRef,
    /// Since the last report.
    pub(crate) idle_advances: Vec<IdleAdvance>,
    /// Since the last report.
    pub(crate) refused: Vec<(i64, i32)>,
    /// Since the last report.
    pub(crate) gaps: Vec<Gap>,
    /// Since the last report.
    pub(crate) doubt: Doubt,
}

/// From where on only a link can tell others how a lane went on: something was decided that its records do not say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Doubt {
    /// The time that the lane had reached when a clock decided first, or records were gone.
    pub(crate) reached_us: Option<i64>,
    /// The first record of which a later clock may say that it is too far ahead, or that it is not; or somebody outside, that it is good.
    pub(crate) unsettled: Option<i64>,
}

impl Doubt {
    /// This, and what came later.
    pub(crate) fn and(self, later: Self) -> Self {
        Self { reached_us: self.reached_us.or(later.reached_us), unsettled: self.unsettled.or(later.unsettled) }
    }
}

impl Lane {
    pub(crate) fn new(id: LaneId, stream: usize, resume: Option<i64>, reached_us: i64, replay: Replay) -> Self {
        let topic = Arc::new(StringArray::from(vec![id.topic.to_string()]));
        let mut lane = Self {
            id,
            stream,
            clock: LaneClock::at(reached_us),
            next_offset: resume,
            first_offset: resume,
            ended: false,
            silent: false,
            replay,
            fails_later: Vec::new(),
            log: None,
            topic,
            idle_advances: Vec::new(),
            refused: Vec::new(),
            gaps: Vec::new(),
            doubt: Doubt::default(),
        };
        lane.repeat_idle_advances();
        lane
    }

    /// Repeats the recorded advances that the lane has come to. Nothing may follow them: a lane that is still
    /// silent must not fall behind the watermark that it had helped to reach.
    fn repeat_idle_advances(&mut self) {
        let Some(next_offset) = self.next_offset else { return };
        while let Some(advance) = self.replay.idle_advances.pop_front_if(|advance| advance.offset <= next_offset) {
            self.clock.advance_to(advance.reached_us);
        }
    }

    /// Everything below this offset was handed over, also where offsets are missing.
    pub(crate) fn note_reached(&mut self, next_offset: i64) {
        self.first_offset.get_or_insert(next_offset);
        self.next_offset = Some(self.next_offset.unwrap_or(next_offset).max(next_offset));
        self.repeat_idle_advances();
    }

    /// Goes on behind offsets that are gone. Gives the rules that failed on one of their records.
    pub(crate) fn cross_gap(&mut self, gap: Gap) -> Vec<usize> {
        self.note_doubt();
        self.note_reached(gap.first);
        self.replay.idle_advances.extend(self.replay.after_gap(gap));
        self.note_reached(gap.next);
        self.silent = false;
        match self.gaps.last_mut() {
            Some(last) if last.next == gap.first => last.next = gap.next,
            _ => self.gaps.push(gap),
        }
        self.fails_later.extract_if(.., |(offset, _)| *offset < gap.next).map(|(_, rule)| rule).collect()
    }

    /// Records below this offset were published before.
    pub(crate) fn published(&self) -> i64 {
        self.replay.published
    }

    /// The records do not say what comes next.
    fn note_doubt(&mut self) {
        self.doubt.reached_us.get_or_insert(self.clock.reached_us());
    }

    /// Advances the silent lane and notes it for the manifest.
    pub(crate) fn advance_idle(&mut self, reached_us: i64) {
        self.note_doubt();
        self.clock.advance_to(reached_us);
        let offset = self.next_offset.unwrap_or(0);
        self.idle_advances.push(IdleAdvance { offset, reached_us });
    }

    /// Takes in a decoded block. `raw` gives the bytes of a record for its dead letter.
    ///
    /// # Errors
    /// [`Error::Arrow`] if the batch cannot be built.
    pub(crate) fn admit(
        &mut self,
        stream: &StreamIntake,
        decoded: Decoded,
        place: &BlockPlace<'_>,
        raw: &dyn Fn(usize) -> Vec<u8>,
    ) -> Result<Admitted> {
        let mut dead_letters = Vec::new();
        for refused in decoded.refused {
            let record = refused.record as usize;
            if place.offsets[record] < self.replay.published {
                continue;
            }
            if refused.is_by_others {
                self.note_doubt();
                self.doubt.unsettled.get_or_insert(place.offsets[record]);
                self.refused.push((place.offsets[record], refused.index));
            }
            dead_letters.push(DeadLetter {
                stream: Arc::clone(&stream.name),
                lane: self.id.clone(),
                offset: place.offsets[record],
                index: refused.index,
                record_ms: place.record_ms(record),
                reason: refused.reason,
                detail: refused.detail,
                raw: refused.raw.map_or_else(|| raw(record), String::into_bytes),
            });
        }
        let judged = self.judge(stream, &decoded.batch, &decoded.record, &decoded.index, place, raw, &mut dead_letters);
        if let (Some(first), Some(last)) = (place.offsets.first(), place.offsets.last()) {
            self.first_offset.get_or_insert(*first);
            self.next_offset = Some(last + 1);
            self.repeat_idle_advances();
            self.silent = false;
        }
        let replayed = judged.offsets.partition_point(|offset| *offset < self.replay.published);
        let late = judged.lateness_ms.iter().filter(|ms| **ms > 0).count();
        let batch = self.with_system_columns(stream, &decoded.batch, judged)?;
        Ok(Admitted { batch, replayed, dead_letters, late })
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of a decoded block, taken apart once")]
    fn judge(
        &mut self,
        stream: &StreamIntake,
        batch: &RecordBatch,
        record: &[u32],
        index: &[i32],
        place: &BlockPlace<'_>,
        raw: &dyn Fn(usize) -> Vec<u8>,
        dead_letters: &mut Vec<DeadLetter>,
    ) -> Judged {
        let times = batch.column(stream.event_time).as_primitive::<TimestampMicrosecondType>().values();
        let mut judged = Judged::with_capacity(batch.num_rows());
        for (row, event_us) in times.iter().copied().enumerate() {
            let at = record[row] as usize;
            let offset = place.offsets[at];
            while let Some(advance) = self.replay.idle_advances.pop_front_if(|advance| advance.offset <= offset) {
                self.clock.advance_to(advance.reached_us);
            }
            let published = offset < self.replay.published;
            if !published && !place.log_append_time && !stream.guard.is_settled(event_us, place.fetched_at_ms) {
                self.note_doubt();
                self.doubt.unsettled.get_or_insert(offset);
            }
            let verdict = if published && self.replay.refused.contains(&(offset, index[row])) {
                Verdict::TooFarAhead
            } else if published && !place.log_append_time {
                Verdict::Accepted
            } else {
                stream.guard.judge(event_us, place.clock_ms(at))
            };
            let too_old = event_us < stream.guard.oldest_us;
            if verdict == Verdict::Accepted && !too_old {
                judged.accept(offset, index[row], self.clock.observe(event_us));
                continue;
            }
            judged.refuse();
            if published {
                continue;
            }
            if verdict == Verdict::TooFarAhead && !place.log_append_time {
                self.refused.push((offset, index[row]));
            }
            dead_letters.push(DeadLetter {
                stream: Arc::clone(&stream.name),
                lane: self.id.clone(),
                offset,
                index: index[row],
                record_ms: place.record_ms(at),
                reason: if verdict == Verdict::TooFarAhead { "too_far_ahead" } else { "too_old" },
                detail: format!("event time {} is outside the bounds", crate::alerting::rfc3339(event_us)),
                raw: raw(at),
            });
        }
        judged
    }

    fn with_system_columns(
        &self,
        stream: &StreamIntake,
        batch: &RecordBatch,
        mut judged: Judged,
    ) -> Result<RecordBatch> {
        let kept;
        let batch = if judged.offsets.len() == batch.num_rows() {
            batch
        } else {
            let mask = BooleanArray::from(std::mem::take(&mut judged.mask));
            kept = keep_rows(batch, &mask).map_err(Error::arrow(&stream.name))?;
            &kept
        };
        let rows = judged.offsets.len();
        let topic = DictionaryArray::<Int32Type>::try_new(Int32Array::from_value(0, rows), Arc::clone(&self.topic))
            .map_err(Error::arrow(&stream.name))?;
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(topic));
        columns.push(Arc::new(Int32Array::from_value(self.id.partition, rows)));
        columns.push(Arc::new(Int64Array::from(judged.offsets)));
        columns.push(Arc::new(Int32Array::from(judged.index)));
        columns.push(Arc::new(Int64Array::from(judged.lateness_ms)));
        RecordBatch::try_new(Arc::clone(&stream.schema), columns).map_err(Error::arrow(&stream.name))
    }
}

/// The rows where the mask is true. Columns without a value go on sharing their array of nulls: copied, the many unused
/// columns of a wide stream would weigh more than its values.
fn keep_rows(batch: &RecordBatch, mask: &BooleanArray) -> std::result::Result<RecordBatch, ArrowError> {
    let (filter, kept) = (FilterBuilder::new(mask).optimize().build(), mask.true_count());
    let keep = |column: &ArrayRef| match column.null_count() == column.len() {
        true => Ok(column.slice(0, kept)),
        false => filter.filter(column),
    };
    let columns = batch.columns().iter().map(keep).collect::<std::result::Result<_, _>>()?;
    RecordBatch::try_new(batch.schema(), columns)
}

/// The verdicts of a block, by column.
#[derive(Debug)]
struct Judged {
    mask: Vec<bool>,
    offsets: Vec<i64>,
    index: Vec<i32>,
    lateness_ms: Vec<i64>,
}

impl Judged {
    fn with_capacity(rows: usize) -> Self {
        Self {
            mask: Vec::with_capacity(rows),
            offsets: Vec::with_capacity(rows),
            index: Vec::with_capacity(rows),
            lateness_ms: Vec::with_capacity(rows),
        }
    }

    fn accept(&mut self, offset: i64, index: i32, lateness_ms: i64) {
        self.mask.push(true);
        self.offsets.push(offset);
        self.index.push(index);
        self.lateness_ms.push(lateness_ms);
    }

    fn refuse(&mut self) {
        self.mask.push(false);
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMicrosecondArray;

    use super::*;
    use crate::port::Refused;
    use crate::table::timestamp_type;

    /// A block of two records, of which others say that the second is bad, or that it is not.
    fn block(is_refused: bool) -> Decoded {
        let schema = Arc::new(Schema::new(vec![Field::new("at", timestamp_type(), false)]));
        let record: Vec<u32> = if is_refused { vec![0] } else { vec![0, 1] };
        let times: Vec<i64> = record.iter().map(|record| i64::from(*record) + 1_000_000).collect();
        let times = TimestampMicrosecondArray::from(times).with_timezone("UTC");
        let refused = Refused {
            record: 1,
            index: 0,
            reason: "no_such_schema",
            detail: String::new(),
            raw: None,
            is_by_others: true,
        };
        Decoded {
            batch: RecordBatch::try_new(schema, vec![Arc::new(times)]).expect("one column"),
            index: vec![0; record.len()],
            record,
            refused: if is_refused { vec![refused] } else { Vec::new() },
            unknown_fields: BTreeMap::new(),
        }
    }

    #[test]
    fn what_others_said_of_a_record_is_noted_and_holds_when_it_is_read_again() {
        let schema = Arc::new(Schema::new(vec![Field::new("at", timestamp_type(), false)]));
        let stream = StreamIntake {
            name: "visits".into(),
            schema: stream_schema(&schema),
            event_time: 0,
            guard: TimeGuard { oldest_us: 0, future_bound_ms: 1_000 },
            corrected: Vec::new(),
            by_delay: BTreeMap::new(),
        };
        let place =
            BlockPlace { offsets: &[7, 8], timestamps_ms: &[-1, -1], log_append_time: false, fetched_at_ms: 9_000 };
        let admit = |lane: &mut Lane, decoded| lane.admit(&stream, decoded, &place, &|_| Vec::new()).expect("admitted");
        let new_lane = |replay| Lane::new(LaneId::new("visits", 0), 0, Some(7), 0, replay);

        let mut lane = new_lane(Replay::default());
        let admitted = admit(&mut lane, block(true));
        assert_eq!((admitted.batch.num_rows(), admitted.dead_letters.len()), (1, 1));
        assert_eq!((lane.refused.as_slice(), lane.doubt.unsettled), (&[(8, 0)][..], Some(8)));

        // The next process is told that the record is good.
        let replay = Replay { published: 9, refused: lane.refused.iter().copied().collect(), ..Replay::default() };
        let admitted = admit(&mut new_lane(replay), block(false));
        assert_eq!((admitted.batch.num_rows(), admitted.dead_letters.len()), (1, 0), "its dead letter is out");
        let replay = Replay { published: 7, ..Replay::default() };
        let admitted = admit(&mut new_lane(replay), block(false));
        assert_eq!(admitted.batch.num_rows(), 2, "nobody has refused it");
    }

    #[test]
    fn behind_a_gap_a_lane_is_where_its_rules_take_it_to_be_once_it_is_past_what_was_published() {
        let replay = Replay {
            published: 50,
            idle_advances: VecDeque::from([IdleAdvance { offset: 20, reached_us: 2_000 }]),
            reached_us: Some(9_000),
            ..Replay::default()
        };
        let lane = |replay: &Replay| {
            let mut lane = Lane::new(LaneId::new("readings", 0), 0, Some(10), 1_000, replay.clone());
            lane.fails_later = vec![(15, 3), (60, 4)];
            lane
        };
        let mut partly = lane(&replay);
        assert_eq!(partly.cross_gap(Gap { first: 10, next: 30 }), [3], "its record cannot fail again");
        assert_eq!((partly.next_offset, partly.clock.reached_us()), (Some(30), 2_000));
        partly.note_reached(50);
        assert_eq!(partly.clock.reached_us(), 9_000);
        assert_eq!(partly.cross_gap(Gap { first: 50, next: 80 }), [4]);
        assert_eq!(partly.gaps, [Gap { first: 10, next: 30 }, Gap { first: 50, next: 80 }]);

        let mut wholly = lane(&replay);
        assert_eq!(wholly.cross_gap(Gap { first: 10, next: 70 }), [3, 4]);
        assert_eq!((wholly.next_offset, wholly.clock.reached_us()), (Some(70), 9_000));
        // The log went on losing records before the lane was read again.
        assert_eq!(wholly.cross_gap(Gap { first: 70, next: 90 }), [0; 0]);
        assert_eq!(wholly.gaps, [Gap { first: 10, next: 90 }]);

        // Nothing that was read before is gone: the clock is where its events have brought it.
        let mut caught_up = lane(&Replay { published: 10, ..replay });
        caught_up.cross_gap(Gap { first: 10, next: 15 });
        assert_eq!(caught_up.clock.reached_us(), 1_000);
    }
}
