//! Books over the events of lanes: whether one is there twice, and which offsets are not there at all.
//!
//! An event is (topic, partition, offset, index). All are remembered, in whatever order they come, at a bit each or less
//! ([`OffsetSet`]), so that a table is judged as a whole and two rows far apart are found to be one event.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::gap::{Gap, outside};
use crate::offset_set::OffsetSet;
use crate::record::LaneId;

/// Events and holes that are named as examples.
const EXAMPLES: usize = 5;

/// The events of many lanes.
#[derive(Debug, Default)]
pub struct Ledger {
    lanes: Vec<LaneLedger>,
    /// Where a lane is, by topic and partition.
    places: BTreeMap<Arc<str>, BTreeMap<i32, usize>>,
    /// The lane of the last event, which is often that of the next.
    last: usize,
}

/// The events of one lane.
#[derive(Debug, Clone)]
pub struct LaneLedger {
    lane: LaneId,
    events: u64,
    offsets: OffsetSet,
    /// Offsets of the events that are the first, second … of their record.
    by_index: BTreeMap<i32, OffsetSet>,
    twice: Events,
}

/// Some events of a lane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    /// How many.
    pub count: u64,
    /// Offset and index of the first few.
    pub examples: Vec<(i64, i32)>,
}

/// How rows and dead letters of a lane add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneAccount {
    /// Rows.
    pub rows: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Different offsets of the two together.
    pub offsets: u64,
    /// The lowest offset.
    pub first: i64,
    /// The highest offset.
    pub last: i64,
    /// Offsets between the two that are neither, and that were recorded to be gone.
    pub gone: u64,
    /// Offsets between the two that are neither, nor recorded to be gone.
    pub missing: u64,
    /// The first few stretches of them, first and last offset of each.
    pub holes: Vec<(i64, i64)>,
}

impl Ledger {
    /// Takes in an event.
    pub fn note(&mut self, topic: &str, partition: i32, offset: i64, index: i32) {
        let is_last =
            self.lanes.get(self.last).is_some_and(|of| of.lane.partition == partition && *of.lane.topic == *topic);
        if !is_last {
            self.last = self.place(topic, partition);
        }
        self.lanes[self.last].note(offset, index);
    }

    fn place(&mut self, topic: &str, partition: i32) -> usize {
        if let Some(at) = self.places.get(topic).and_then(|partitions| partitions.get(&partition)) {
            return *at;
        }
        let (lane, at) = (LaneId::new(topic, partition), self.lanes.len());
        self.places.entry(Arc::clone(&lane.topic)).or_default().insert(partition, at);
        self.lanes.push(LaneLedger::new(lane));
        at
    }

    /// All lanes that have events.
    pub fn lanes(&self) -> impl Iterator<Item = &LaneId> {
        self.lanes.iter().map(|of| &of.lane)
    }

    /// The events of a lane, if there are any.
    pub fn lane(&self, lane: &LaneId) -> Option<&LaneLedger> {
        let at = self.places.get(&lane.topic)?.get(&lane.partition)?;
        self.lanes.get(*at)
    }
}

impl LaneLedger {
    fn new(lane: LaneId) -> Self {
        Self { lane, events: 0, offsets: OffsetSet::default(), by_index: BTreeMap::new(), twice: Events::default() }
    }

    fn note(&mut self, offset: i64, index: i32) {
        self.events += 1;
        self.offsets.insert(offset);
        if !self.by_index.entry(index).or_default().insert(offset) {
            self.twice.add(offset, index);
        }
    }

    /// How many events were taken in, those that are there twice counted twice.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The highest offset.
    pub fn last(&self) -> Option<i64> {
        self.offsets.last()
    }

    /// The events that came more than once, once for each time too many.
    pub fn twice(&self) -> &Events {
        &self.twice
    }

    /// The events that are in another ledger of this lane too.
    pub fn shared_with(&self, other: &Self) -> Events {
        let mut shared = Events::default();
        for (index, offsets) in &other.by_index {
            let Some(mine) = self.by_index.get(index) else { continue };
            let all = offsets.runs().flat_map(|(first, last)| first..=last);
            all.filter(|offset| mine.contains(*offset)).for_each(|offset| shared.add(offset, *index));
        }
        shared
    }
}

impl Events {
    fn add(&mut self, offset: i64, index: i32) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push((offset, index));
        }
    }
}

impl LaneAccount {
    /// Adds up the rows and the dead letters of a lane. Its gaps are in order and do not touch.
    pub fn of(rows: Option<&LaneLedger>, dead_letters: Option<&LaneLedger>, gaps: &[Gap]) -> Self {
        let mut offsets = rows.map(|of| of.offsets.clone()).unwrap_or_default();
        if let Some(letters) = dead_letters {
            offsets.insert_all(&letters.offsets);
        }
        let mut holes: Vec<(i64, i64)> = Vec::new();
        let mut missing = offsets.missing();
        if gaps.is_empty() {
            holes.extend(offsets.holes().take(EXAMPLES));
        } else {
            missing = 0;
            for hole in offsets.holes().flat_map(|hole| outside(gaps, hole)) {
                missing += hole.1.abs_diff(hole.0) + 1;
                if holes.len() < EXAMPLES {
                    holes.push(hole);
                }
            }
        }
        Self {
            rows: rows.map_or(0, LaneLedger::events),
            dead_letters: dead_letters.map_or(0, LaneLedger::events),
            offsets: offsets.len(),
            first: offsets.first().unwrap_or_default(),
            last: offsets.last().unwrap_or_default(),
            gone: offsets.missing() - missing,
            missing,
            holes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(events: &[(i32, i64, i32)]) -> Ledger {
        let mut ledger = Ledger::default();
        events.iter().for_each(|(partition, offset, index)| ledger.note("t", *partition, *offset, *index));
        ledger
    }

    #[test]
    fn rows_and_dead_letters_add_up() {
        let rows = ledger(&[(0, 5, 0), (1, 7, 0), (0, 3, 0), (0, 3, 1), (0, 9, 0)]);
        let letters = ledger(&[(0, 4, 0), (0, 3, 2)]);
        let lane = LaneId::new("t", 0);
        let (of_rows, of_letters) = (rows.lane(&lane), letters.lane(&lane));
        let account = LaneAccount::of(of_rows, of_letters, &[]);
        assert_eq!((account.rows, account.dead_letters, account.offsets), (4, 2, 4));
        assert_eq!((account.first, account.last, account.missing), (3, 9, 3));
        assert_eq!((account.gone, &account.holes[..]), (0, &[(6, 8)][..]));
        let told = LaneAccount::of(of_rows, of_letters, &[Gap { first: 0, next: 4 }, Gap { first: 7, next: 20 }]);
        assert_eq!((told.gone, told.missing, &told.holes[..]), (2, 1, &[(6, 6)][..]));
        let (of_rows, of_letters) = of_rows.zip(of_letters).expect("both have the lane");
        assert_eq!((of_rows.twice().count, of_rows.shared_with(of_letters).count), (0, 0));
        assert_eq!(rows.lanes().count(), 2);
        assert_eq!(LaneAccount::of(None, Some(of_letters), &[]).rows, 0);
    }

    #[test]
    fn an_event_that_is_there_twice_is_named() {
        let rows = ledger(&[(0, 5, 0), (0, 5, 1), (1, 5, 0), (0, 5, 1), (0, 6, 0), (0, 5, 1)]);
        let of_rows = rows.lane(&LaneId::new("t", 0)).expect("rows");
        assert_eq!(*of_rows.twice(), Events { count: 2, examples: vec![(5, 1), (5, 1)] });
        assert_eq!(of_rows.events(), 5);
        let letters = ledger(&[(0, 6, 0), (0, 6, 1), (0, 7, 0)]);
        let shared = of_rows.shared_with(letters.lane(&LaneId::new("t", 0)).expect("letters"));
        assert_eq!(shared, Events { count: 1, examples: vec![(6, 0)] });
    }
}
