//! What a simulated source holds: a few lanes of records, fixed by a seed, and a [`Source`] that hands them over.
//!
//! Offsets have gaps; records hold one or two events; some are malformed, some late, some ahead of every clock, and
//! some ahead of the clock of an early process but not of a later one. The last lane falls silent half-way until the
//! others are nearly through; one lane carries append times of the broker. A log may lose its beginning while it is read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wattline_core::exchange::Place;
use wattline_core::gap::LogBounds;
use wattline_core::record::{LaneId, RecordBlock};

use super::Scene;
use super::tally::Mishap;
use super::world::{Life, World};
use crate::Result;
use crate::clock::Clock;
use crate::port::{Position, Source, SourceEvent};

/// Event time at which every script begins, milliseconds since the epoch.
pub(super) const BEGIN_MS: i64 = 1_700_000_000_000;
/// Events further than this after [`BEGIN_MS`] are refused by the first process; each later one allows more.
pub(super) const BELIEVED_MS: i64 = 300_000;
/// How far the process clock is ahead of the script: the lanes replay history, idle ones follow the others.
pub(super) const CLOCK_AHEAD_MS: i64 = 36_000_000;
/// How much more each later process allows.
pub(super) const PATIENCE_PER_LIFE_MS: i64 = 20_000;
/// Ahead of the clocks of the first processes only.
pub(super) const AHEAD_OF_SOME_MS: i64 = BEGIN_MS + 330_000;
/// Ahead of every clock.
pub(super) const AHEAD_OF_ALL_MS: i64 = BEGIN_MS + 10_000_000_000;
/// Event time from one record of a lane to the next, unless a script is live.
const STEP_MS: i64 = 2_000;

/// Steps of a linear congruential generator: the scripts must not change with a library.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        (0..4).for_each(|_| assert!(dice.below(2) < 2));
        dice
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    pub(super) event_us: i64,
    pub(super) key: String,
    pub(super) value: i64,
}

#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) offset: i64,
    /// Empty if the record is malformed.
    pub(super) events: Vec<Event>,
}

impl Record {
    /// `time,key,value;time,key,value`
    fn payload(&self) -> Vec<u8> {
        if self.events.is_empty() {
            return b"not an event".to_vec();
        }
        let text: Vec<String> = self.events.iter().map(|e| format!("{},{},{}", e.event_us, e.key, e.value)).collect();
        text.join(";").into_bytes()
    }
}

#[derive(Debug, Clone)]
pub(super) struct LaneScript {
    pub(super) id: LaneId,
    pub(super) records: Vec<Record>,
    pub(super) log_append_time: bool,
    /// Before this record the lane is silent until the others are nearly through.
    silent_before: Option<usize>,
    /// Whether that record has been written: then it is there for every process.
    is_written: Arc<AtomicBool>,
}

impl LaneScript {
    /// The offset after the last record.
    pub(super) fn end(&self) -> i64 {
        self.records.last().map_or(0, |record| record.offset + 1)
    }
}

/// The beginning of a log that is deleted once a source comes to a record, and then stays deleted for every process.
#[derive(Debug, Clone)]
pub(super) struct Expiry {
    pub(super) lane: usize,
    /// The record, by its place among those of the lane.
    pub(super) at: usize,
    /// The first offset that is left.
    pub(super) first: i64,
    pub(super) is_over: Arc<AtomicBool>,
}

#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) lanes: Vec<LaneScript>,
    /// Event time from one record of a lane to the next.
    step_ms: i64,
    /// Whether records come when their time has come; else all are there from the beginning.
    pub(super) is_live: bool,
    /// Whether the source assigns its lanes one by one.
    pub(super) one_by_one: bool,
    /// What one of the lanes loses, if one does.
    pub(super) expiry: Option<Expiry>,
    /// The one lane that is there when the first process begins, and empty. The others come when it has begun, and hold all their
    /// records when they are found.
    pub(super) begins_with: Option<usize>,
}

impl Script {
    pub(super) fn new(seed: u64, lanes: usize, records: usize) -> Self {
        Self::with_step(seed, lanes, records, STEP_MS)
    }

    /// A script whose records come one by one.
    pub(super) fn live(seed: u64, lanes: usize, records: usize, step_ms: i64) -> Self {
        let mut script = Self::with_step(seed, lanes, records, step_ms);
        script.is_live = true;
        script.lanes.iter_mut().for_each(|lane| lane.silent_before = None);
        script
    }

    fn with_step(seed: u64, lanes: usize, records: usize, step_ms: i64) -> Self {
        let mut dice = Dice::new(seed);
        let lanes = (0..lanes)
            .map(|number| LaneScript {
                id: LaneId::new("readings", i32::try_from(number).expect("few lanes")),
                records: Vec::new(),
                log_append_time: number == 1,
                silent_before: (number + 1 == lanes && number > 1).then_some(records / 2),
                is_written: Arc::default(),
            })
            .collect();
        let mut script = Self { lanes, step_ms, is_live: false, one_by_one: false, expiry: None, begins_with: None };
        script.extend(&mut dice, records);
        script
    }

    /// Whether the runtime may advance a lane because it is silent, or because it came after the others.
    pub(super) fn may_be_advanced(&self, lane: &LaneScript) -> bool {
        self.one_by_one || self.is_live || lane.silent_before.is_some()
    }

    /// When the broker appended a record, by the place of it in its lane.
    fn appended_ms(&self, record: usize) -> i64 {
        match self.is_live {
            true => BEGIN_MS + (i64::try_from(record).expect("few records") + 1) * self.step_ms,
            false => BEGIN_MS + CLOCK_AHEAD_MS,
        }
    }

    fn is_there(&self, record: usize, world: &World) -> bool {
        !self.is_live || BEGIN_MS + world.age_ms() >= self.appended_ms(record)
    }

    /// What one slot reads of it.
    pub(super) fn part_of(&self, place: Place) -> Self {
        let mut part = self.clone();
        part.lanes.retain(|lane| place.reads(lane.id.partition));
        part
    }

    /// More of the same, later.
    pub(super) fn extend(&mut self, dice: &mut Dice, records: usize) {
        let step_ms = self.step_ms;
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            let mut offset = lane.end();
            let begin = lane.records.len();
            for k in begin..begin + records {
                offset += 1 + i64::from(dice.below(5) == 0) * 3;
                let events = if dice.below(15) == 0 { Vec::new() } else { events(dice, number, k, step_ms) };
                lane.records.push(Record { offset, events });
            }
        }
    }
}

fn events(dice: &mut Dice, lane: usize, k: usize, step_ms: i64) -> Vec<Event> {
    let step = u64::try_from(step_ms).expect("it goes on");
    let count = 1 + dice.below(2);
    (0..count)
        .map(|_| {
            let on_time_ms = BEGIN_MS
                + i64::try_from(k).expect("few records") * step_ms
                + i64::try_from(dice.below(step * 3 / 4)).expect("small");
            let event_ms = match dice.below(40) {
                0 => AHEAD_OF_ALL_MS,
                1 if lane == 0 => AHEAD_OF_SOME_MS,
                2..=6 => on_time_ms - i64::try_from(dice.below(step * 20)).expect("small"),
                _ => on_time_ms,
            };
            Event {
                event_us: event_ms * 1_000 + 7,
                key: format!("k{}", dice.below(4)),
                value: i64::try_from(dice.below(101)).expect("small"),
            }
        })
        .collect()
}

/// The lanes of a slot, and its inbox.
#[derive(Debug)]
pub(super) struct SlotSource {
    lanes: ScriptedSource,
    world: Arc<World>,
    slot: u32,
    inbox: LaneId,
    next: Option<usize>,
}

impl SlotSource {
    pub(super) fn new(lanes: ScriptedSource, world: &Arc<World>, slot: u32) -> Self {
        Self { lanes, world: Arc::clone(world), slot, inbox: inbox_of(slot), next: None }
    }
}

pub(super) fn inbox_of(slot: u32) -> LaneId {
    LaneId::new("exchange", i32::try_from(slot).expect("few slots"))
}

impl Source for SlotSource {
    fn poll(&mut self, max_wait: Duration) -> Result<Vec<SourceEvent>> {
        let mut events = self.lanes.poll(max_wait)?;
        for event in &mut events {
            if let SourceEvent::Assigned(lanes) = event {
                lanes.push(self.inbox.clone());
            }
        }
        if let Some(next) = &mut self.next {
            let mut block = RecordBlock::new(self.inbox.clone(), self.lanes.clock.now_ms());
            for payload in self.world.inbox(self.slot, *next) {
                block.push(i64::try_from(*next).expect("few messages"), -1, &payload);
                *next += 1;
            }
            events.extend((!block.is_empty()).then_some(SourceEvent::Records(block)));
        }
        Ok(events)
    }

    fn start(&mut self, lane: &LaneId, position: Position, log: Option<&str>) -> Result<()> {
        if *lane != self.inbox {
            return self.lanes.start(lane, position, log);
        }
        self.next = match position {
            Position::Offset(offset) => Some(usize::try_from(offset).expect("an offset of the inbox")),
            _ => Some(0),
        };
        Ok(())
    }

    fn set_paused(&mut self, paused: bool) -> Result<()> {
        self.lanes.set_paused(paused)
    }

    fn report_published(&mut self, positions: &[(LaneId, i64)]) {
        self.lanes.report_published(positions);
    }

    fn lag(&self) -> Option<u64> {
        None
    }
}

/// As a trace has it.
fn text_of(event: &SourceEvent) -> String {
    match event {
        SourceEvent::Records(block) => format!("{} offsets {:?}", block.lane, block.offsets),
        event => format!("{event:?}"),
    }
}

/// How a lane is being handed over.
#[derive(Debug)]
struct Cursor {
    next: usize,
    /// Where it was started, before its first record.
    wanted: Option<i64>,
    told_silent: bool,
    ended: bool,
}

#[derive(Debug)]
pub(super) struct ScriptedSource {
    pub(super) script: Arc<Script>,
    pub(super) dice: Dice,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) records_per_block: u64,
    /// Lanes still to be assigned, in groups.
    to_assign: Vec<Vec<usize>>,
    cursors: BTreeMap<usize, Cursor>,
    /// The lane that the script begins with has not begun.
    waits_to_begin: bool,
    paused: bool,
    /// Whether lanes go away and come back.
    rebalances: bool,
    gone: Option<usize>,
    polls: u64,
    world: Arc<World>,
}

impl ScriptedSource {
    pub(super) fn new(scene: &Scene, script: &Arc<Script>, life: &Life, clock: Arc<dyn Clock>) -> Self {
        let seed = scene.seed ^ (life.number << 32) ^ (u64::from(life.slot) << 48);
        Self {
            world: Arc::clone(&life.world),
            script: Arc::clone(script),
            dice: Dice::new(seed),
            clock,
            records_per_block: scene.records_per_block,
            rebalances: scene.rebalances,
            gone: None,
            to_assign: if script.one_by_one {
                (0..script.lanes.len()).rev().map(|lane| vec![lane]).collect()
            } else {
                vec![(0..script.lanes.len()).collect()]
            },
            cursors: BTreeMap::new(),
            waits_to_begin: false,
            paused: false,
            polls: 0,
        }
    }

    fn block(&mut self, lane: usize) -> SourceEvent {
        let script = &self.script.lanes[lane];
        let mut block = RecordBlock::new(script.id.clone(), self.clock.now_ms());
        block.log_append_time = script.log_append_time;
        let count = 1 + self.dice.below(self.records_per_block);
        let Some(cursor) = self.cursors.get_mut(&lane) else { return SourceEvent::Records(block) };
        for _ in 0..count {
            let held = script.silent_before == Some(cursor.next) && !block.is_empty();
            let is_there = !held && self.script.is_there(cursor.next, &self.world);
            let Some(record) = script.records.get(cursor.next).filter(|_| is_there) else { break };
            if script.silent_before == Some(cursor.next) {
                script.is_written.store(true, Ordering::SeqCst);
            }
            block.push(record.offset, self.script.appended_ms(cursor.next), &record.payload());
            cursor.next += 1;
            cursor.told_silent = false;
            cursor.wanted = None;
        }
        SourceEvent::Records(block)
    }

    /// What there is to say now; each moment one thing.
    fn next_events(&mut self) -> Vec<SourceEvent> {
        if !self.to_assign.is_empty() && self.polls % 3 == 1 && !self.waits_to_begin {
            let lanes = self.to_assign.remove(0);
            if !self.cursors.is_empty() {
                self.world.tally.count(Mishap::LateLane);
            }
            self.waits_to_begin = self.script.begins_with.is_some() && self.cursors.is_empty();
            return vec![SourceEvent::Assigned(lanes.iter().map(|l| self.script.lanes[*l].id.clone()).collect())];
        }
        if self.rebalances && self.dice.below(8) == 0 {
            return self.rebalance().into_iter().collect();
        }
        let started: Vec<usize> = self.cursors.keys().copied().collect();
        if self.paused || started.is_empty() {
            return Vec::new();
        }
        let lane = started[usize::try_from(self.dice.below(started.len() as u64)).unwrap_or(0)];
        self.step(lane).into_iter().collect()
    }

    /// A lane goes away, or the one that is away comes back.
    fn rebalance(&mut self) -> Option<SourceEvent> {
        if let Some(lane) = self.gone.take() {
            self.world.tally.count(Mishap::Rebalance);
            return Some(SourceEvent::Assigned(vec![self.script.lanes[lane].id.clone()]));
        }
        let open: Vec<usize> = self.cursors.iter().filter(|(_, cursor)| !cursor.ended).map(|(lane, _)| *lane).collect();
        if open.is_empty() {
            return None;
        }
        let lane = open[usize::try_from(self.dice.below(open.len() as u64)).unwrap_or(0)];
        self.cursors.remove(&lane);
        self.gone = Some(lane);
        Some(SourceEvent::Revoked(vec![self.script.lanes[lane].id.clone()]))
    }

    /// What is lost of a lane at the place where it is, if that is so.
    fn lost(&mut self, lane: usize) -> Option<SourceEvent> {
        let expiry = self.script.expiry.as_ref().filter(|expiry| expiry.lane == lane)?;
        let lane_script = &self.script.lanes[lane];
        let cursor = self.cursors.get_mut(&lane)?;
        let wanted = cursor.wanted.unwrap_or(match cursor.next {
            0 => 0,
            next => lane_script.records[next - 1].offset + 1,
        });
        if cursor.next >= expiry.at {
            expiry.is_over.store(true, Ordering::SeqCst);
        }
        if cursor.ended || wanted >= expiry.first || !expiry.is_over.load(Ordering::SeqCst) {
            return None;
        }
        let log = LogBounds { first: expiry.first, end: lane_script.end(), is_another: false };
        self.world.tally.count(Mishap::Expiry);
        // It is silent until it is started again.
        self.cursors.remove(&lane);
        Some(SourceEvent::OffsetLost { lane: lane_script.id.clone(), wanted, log })
    }

    fn step(&mut self, lane: usize) -> Option<SourceEvent> {
        if let Some(lost) = self.lost(lane) {
            return Some(lost);
        }
        let script = Arc::clone(&self.script);
        let lane_script = &script.lanes[lane];
        let others_left: usize = self
            .cursors
            .iter()
            .filter(|(other, _)| **other != lane)
            .map(|(other, cursor)| script.lanes[*other].records.len().saturating_sub(cursor.next))
            .sum();
        let cursor = self.cursors.get_mut(&lane)?;
        if cursor.ended {
            return None;
        }
        let Some(record) = lane_script.records.get(cursor.next) else {
            // The end of one lane is the end of the input only if all lanes are known.
            if !self.to_assign.is_empty() {
                return None;
            }
            cursor.ended = true;
            return Some(SourceEvent::Ended(lane_script.id.clone(), lane_script.end()));
        };
        let is_written = lane_script.is_written.load(Ordering::SeqCst);
        let is_silent = lane_script.silent_before == Some(cursor.next) && others_left > 8 && !is_written;
        if is_silent || !script.is_there(cursor.next, &self.world) {
            let first = !std::mem::replace(&mut cursor.told_silent, true);
            return first.then(|| SourceEvent::CaughtUp(lane_script.id.clone(), record.offset));
        }
        Some(self.block(lane))
    }
}

impl Source for ScriptedSource {
    fn poll(&mut self, _max_wait: Duration) -> Result<Vec<SourceEvent>> {
        self.polls += 1;
        let events = self.next_events();
        events.iter().for_each(|event| self.world.note(|| format!("source: {}", text_of(event))));
        Ok(events)
    }

    fn start(&mut self, lane: &LaneId, position: Position, _log: Option<&str>) -> Result<()> {
        let number = self.script.lanes.iter().position(|script| script.id == *lane).expect("a lane of the script");
        self.waits_to_begin &= !matches!(position, Position::Offset(_));
        let begins = self.script.begins_with == Some(number);
        assert!(!begins || position != Position::Earliest, "the lane begins where its stream says");
        let records = &self.script.lanes[number].records;
        let next = match position {
            Position::Offset(offset) => records.partition_point(|record| record.offset < offset),
            // All that it holds is lost.
            Position::Latest if self.script.begins_with.is_some() && !begins => records.len(),
            Position::Earliest | Position::Latest | Position::Timestamp(_) => 0,
        };
        let wanted = match position {
            Position::Offset(offset) => Some(offset),
            Position::Earliest | Position::Latest | Position::Timestamp(_) => None,
        };
        self.cursors.insert(number, Cursor { next, wanted, told_silent: false, ended: false });
        Ok(())
    }

    fn set_paused(&mut self, paused: bool) -> Result<()> {
        if paused {
            self.world.tally.count(Mishap::HeldBack);
        }
        self.paused = paused;
        Ok(())
    }

    fn report_published(&mut self, positions: &[(LaneId, i64)]) {
        self.waits_to_begin &= positions.is_empty();
    }

    fn lag(&self) -> Option<u64> {
        None
    }
}
