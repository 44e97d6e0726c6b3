//! What the source knows of each lane, and how messages of many lanes become blocks of one lane each.
//!
//! Plain data without librdkafka, so that the rules can be tested message by message: a lane that was not started
//! gives nothing, an offset is given once however often it is fetched, a bounded lane ends exactly at its end, and the
//! records of a lane stay in order whatever else is mixed between them.

use std::collections::HashMap;

use wattline_core::record::{LaneId, RecordBlock};

use crate::source::SourceEvent;

/// Where reading of a lane begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// At this offset; if the log does not have it, the lane is lost and not moved.
    Offset(i64),
    /// At the first record of the log.
    Earliest,
    /// After the last record of the log.
    Latest,
    /// At the first record whose Kafka timestamp is at or after this time in milliseconds since the epoch; after the
    /// last record if there is none.
    Timestamp(i64),
}

/// How far a lane has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Assigned, no position yet (or its position was lost).
    Silent,
    /// A position was named; the next poll begins fetching.
    Starting(Position),
    /// Being fetched.
    Running,
    /// Read to its bound.
    Ended,
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) id: LaneId,
    pub(crate) phase: Phase,
    /// The log that it was read from before, if that is known.
    pub(crate) log: Option<String>,
    /// The lowest offset not yet handed over.
    pub(crate) next: i64,
    /// In bounded mode, the offset at which the lane ends.
    pub(crate) until: Option<i64>,
    /// Whether the client library fetches it.
    pub(crate) fetched: bool,
    /// Index of its open block among the events of this poll.
    block: Option<usize>,
    /// Size of its last block, reserved for the next one.
    bytes_hint: usize,
}

/// All lanes of a source.
#[derive(Debug)]
pub(crate) struct LaneTable {
    lanes: Vec<Lane>,
    by_key: HashMap<(usize, i32), usize>,
    last: Option<((usize, i32), usize)>,
    block_bytes_max: usize,
    fetched_at_ms: i64,
    /// Lanes that ended in this poll and should no longer be fetched.
    finished: Vec<LaneId>,
}

impl LaneTable {
    pub(crate) fn new(block_bytes_max: usize) -> Self {
        Self {
            lanes: Vec::new(),
            by_key: HashMap::new(),
            last: None,
            block_bytes_max: block_bytes_max.max(1),
            fetched_at_ms: 0,
            finished: Vec::new(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.lanes.iter_mut()
    }

    pub(crate) fn get(&self, id: &LaneId) -> Option<&Lane> {
        self.lanes.iter().find(|lane| lane.id == *id)
    }

    pub(crate) fn get_mut(&mut self, id: &LaneId) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.id == *id)
    }

    pub(crate) fn any_running(&self) -> bool {
        self.lanes.iter().any(|lane| lane.phase == Phase::Running)
    }

    pub(crate) fn any_starting(&self) -> bool {
        self.lanes.iter().any(|lane| matches!(lane.phase, Phase::Starting(_)))
    }

    /// Adds lanes; one that is already there begins anew.
    pub(crate) fn assign(&mut self, ids: &[LaneId]) {
        self.revoke(ids);
        self.add(ids);
    }

    /// Adds lanes that are not there yet.
    pub(crate) fn add(&mut self, ids: &[LaneId]) {
        self.lanes.extend(ids.iter().map(|id| Lane {
            id: id.clone(),
            phase: Phase::Silent,
            log: None,
            next: 0,
            until: None,
            fetched: false,
            block: None,
            bytes_hint: 0,
        }));
    }

    pub(crate) fn revoke(&mut self, ids: &[LaneId]) {
        self.lanes.retain(|lane| !ids.contains(&lane.id));
        self.forget_keys();
    }

    /// The keys of topics are addresses, which may be used again after a change of the assignment.
    pub(crate) fn forget_keys(&mut self) {
        self.by_key.clear();
        self.last = None;
    }

    /// Opens a poll: blocks of the last one are closed.
    pub(crate) fn begin_poll(&mut self, fetched_at_ms: i64) {
        self.fetched_at_ms = fetched_at_ms;
        for lane in &mut self.lanes {
            lane.block = None;
        }
    }

    pub(crate) fn take_finished(&mut self) -> Vec<LaneId> {
        std::mem::take(&mut self.finished)
    }

    /// Finds a lane by the key of its topic; asks for the topic's name only when the key is new.
    pub(crate) fn slot(&mut self, topic_key: usize, partition: i32, topic: impl FnOnce() -> String) -> Option<usize> {
        let key = (topic_key, partition);
        if let Some((last, slot)) = self.last
            && last == key
        {
            return Some(slot);
        }
        let slot = match self.by_key.get(&key) {
            Some(slot) => *slot,
            None => {
                let topic = topic();
                let slot =
                    self.lanes.iter().position(|lane| lane.id.partition == partition && *lane.id.topic == *topic)?;
                self.by_key.insert(key, slot);
                slot
            }
        };
        self.last = Some((key, slot));
        Some(slot)
    }

    /// Takes in one record.
    pub(crate) fn record(&mut self, slot: usize, record: &RawRecord<'_>, events: &mut Vec<SourceEvent>) {
        let lane = &mut self.lanes[slot];
        if lane.phase != Phase::Running || record.offset < lane.next {
            return;
        }
        if lane.until.is_some_and(|until| record.offset >= until) {
            self.end(slot, events);
            return;
        }
        lane.next = record.offset + 1;
        let open = match lane.block.and_then(|index| events.get_mut(index)) {
            Some(SourceEvent::Records(block))
                if block.log_append_time == record.log_append_time && block.bytes.len() < self.block_bytes_max =>
            {
                lane.bytes_hint = lane.bytes_hint.max(block.bytes.len());
                Some(block)
            }
            Some(_) | None => None,
        };
        if let Some(block) = open {
            block.push(record.offset, record.timestamp_ms, record.payload);
        } else {
            let mut block = RecordBlock::new(lane.id.clone(), self.fetched_at_ms);
            block.log_append_time = record.log_append_time;
            block.bytes.reserve(lane.bytes_hint.min(self.block_bytes_max).max(record.payload.len()));
            block.push(record.offset, record.timestamp_ms, record.payload);
            lane.block = Some(events.len());
            events.push(SourceEvent::Records(block));
        }
        if lane.until.is_some_and(|until| lane.next >= until) {
            self.end(slot, events);
        }
    }

    /// Takes in the news that a partition has nothing more at present.
    pub(crate) fn end_of_partition(&mut self, slot: usize, end: i64, events: &mut Vec<SourceEvent>) {
        let lane = &mut self.lanes[slot];
        if lane.phase != Phase::Running {
            return;
        }
        // Transaction markers occupy offsets without being records, so the end may lie beyond the last record.
        lane.next = lane.next.max(end);
        lane.block = None;
        events.push(SourceEvent::CaughtUp { lane: lane.id.clone(), next_offset: lane.next });
        if lane.until.is_some_and(|until| lane.next >= until) {
            self.end(slot, events);
        }
    }

    /// Sends a lane whose fetch failed back to be located anew; returns its name.
    pub(crate) fn relocate(&mut self, slot: usize) -> Option<LaneId> {
        let lane = &mut self.lanes[slot];
        if lane.phase != Phase::Running {
            return None;
        }
        lane.phase = Phase::Starting(Position::Offset(lane.next));
        Some(lane.id.clone())
    }

    pub(crate) fn lane(&self, slot: usize) -> &Lane {
        &self.lanes[slot]
    }

    fn end(&mut self, slot: usize, events: &mut Vec<SourceEvent>) {
        let lane = &mut self.lanes[slot];
        lane.phase = Phase::Ended;
        lane.block = None;
        events.push(SourceEvent::Ended { lane: lane.id.clone(), next_offset: lane.next });
        self.finished.push(lane.id.clone());
    }
}

/// One record on its way into a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawRecord<'a> {
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) log_append_time: bool,
    pub(crate) payload: &'a [u8],
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(until: Option<i64>) -> LaneTable {
        let mut table = LaneTable::new(1 << 20);
        table.assign(&[LaneId::new("a", 0), LaneId::new("b", 0)]);
        for lane in table.iter_mut() {
            lane.phase = Phase::Running;
            lane.until = until;
        }
        table.begin_poll(7);
        table
    }

    fn feed(table: &mut LaneTable, topic: &str, offset: i64, events: &mut Vec<SourceEvent>) {
        let key = topic.as_bytes()[0].into();
        let slot = table.slot(key, 0, || topic.to_owned()).expect("known lane");
        let payload = offset.to_string();
        let record = RawRecord { offset, timestamp_ms: 1, log_append_time: false, payload: payload.as_bytes() };
        table.record(slot, &record, events);
    }

    fn offsets(events: &[SourceEvent], topic: &str) -> Vec<Vec<i64>> {
        events
            .iter()
            .filter_map(|event| match event {
                SourceEvent::Records(block) if *block.lane.topic == *topic => Some(block.offsets.clone()),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn interleaved_lanes_become_one_block_each() {
        let (mut table, mut events) = (table(None), Vec::new());
        for offset in 0..5 {
            feed(&mut table, "a", offset, &mut events);
            feed(&mut table, "b", offset + 10, &mut events);
        }
        assert_eq!(offsets(&events, "a"), [vec![0, 1, 2, 3, 4]]);
        assert_eq!(offsets(&events, "b"), [vec![10, 11, 12, 13, 14]]);
        assert_eq!(table.get(&LaneId::new("b", 0)).map(|lane| lane.next), Some(15));
        let SourceEvent::Records(block) = &events[0] else { panic!("a block comes first") };
        assert_eq!((block.payload(3), block.fetched_at_ms), (&b"3"[..], 7));
    }

    #[test]
    fn an_offset_is_given_once_and_a_new_poll_opens_a_new_block() {
        let (mut table, mut events) = (table(None), Vec::new());
        for offset in [0, 1, 0, 1, 2] {
            feed(&mut table, "a", offset, &mut events);
        }
        let mut later = Vec::new();
        table.begin_poll(8);
        feed(&mut table, "a", 2, &mut later);
        feed(&mut table, "a", 5, &mut later);
        assert_eq!(offsets(&events, "a"), [vec![0, 1, 2]]);
        assert_eq!(offsets(&later, "a"), [vec![5]]);
    }

    #[test]
    fn a_bounded_lane_ends_at_its_end_even_behind_transaction_markers() {
        let (mut table, mut events) = (table(Some(3)), Vec::new());
        for offset in 0..5 {
            feed(&mut table, "a", offset, &mut events);
        }
        feed(&mut table, "b", 1, &mut events);
        let slot = table.slot(usize::from(b'b'), 0, String::new).expect("known lane");
        table.end_of_partition(slot, 3, &mut events);
        assert_eq!(offsets(&events, "a"), [vec![0, 1, 2]]);
        let ended: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                SourceEvent::Ended { lane, next_offset } => Some((lane.to_string(), *next_offset)),
                _ => None,
            })
            .collect();
        assert_eq!(ended, [("a[0]".to_owned(), 3), ("b[0]".to_owned(), 3)]);
        assert_eq!(table.take_finished().len(), 2);
    }

    #[test]
    fn silent_and_unknown_lanes_give_nothing() {
        let (mut table, mut events) = (table(None), Vec::new());
        table.assign(&[LaneId::new("a", 0)]);
        feed(&mut table, "a", 0, &mut events);
        assert!(events.is_empty());
        assert_eq!(table.slot(99, 0, || "c".to_owned()), None);
    }

    #[test]
    fn a_full_block_is_followed_by_another() {
        let mut table = table(None);
        table.block_bytes_max = 2;
        let mut events = Vec::new();
        for offset in 0..4 {
            feed(&mut table, "a", offset, &mut events);
        }
        assert_eq!(offsets(&events, "a"), [vec![0, 1], vec![2, 3]]);
    }
}
