//! What the slots of a job tell of a rule while it waits for its past.
//!
//! A pass goes up to a level link of each slot (see [`wattline_core::exchange`]): what was told by then is made of records that
//! the archive has. What is told later is of later records, and is kept until the pass is over:
//!
//! ```text
//! slot 0   ── level 7 ── 8 ── 9 ── level 12 ── 13 ──▶   kept: 8, 9, 12, 13
//! slot 1   ───── level 4 ───── 5 ───────── 6 ───────▶   kept: 5, 6
//!                └ the pass begins       ends ┘
//! ```
//! Then the rule has everything up to the last message that its home has taken in, each record once. Memory bounds what is kept.
//! If a pass takes so long that more is told, what was told before the newest level links is dropped: the archive has it for the
//! next pass, which goes up to these and has less to read. Should what one slot has told since its newest level link be too much
//! by itself, that goes too, and the next level link of the slot is waited for.
//!
//! A slot that begins to run the rule anew, or without what it had told of it before, says another time from which on it does.
//! What it has told by then is no continuation of its level link.

use std::collections::VecDeque;
use std::sync::Arc;

use wattline_core::exchange::{Close, Positions, Sender};

use super::super::held_bytes;
use crate::port::{RuleRows, StateDelta};

/// A piece of what was told.
#[derive(Debug, Clone)]
pub(in super::super) enum Piece {
    State(StateDelta),
    Rows(RuleRows),
}

impl Piece {
    fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::State(delta) => held_bytes(&delta.batch),
            Self::Rows(rows) => held_bytes(&rows.batch) + rows.identity.as_ref().map_or(0, held_bytes),
        };
        bytes.max(1)
    }
}

/// From one level link to the next.
#[derive(Debug)]
struct Stretch {
    /// No other has this number.
    number: u64,
    /// Where the slot stood at the link.
    positions: Arc<Positions>,
    /// Each with its place among all that was told.
    pieces: Vec<(u64, Piece)>,
    bytes: u64,
}

#[derive(Debug, Default)]
struct OfSlot {
    /// From which time on it runs the rule, if it does.
    runs_from_us: Option<i64>,
    /// The last one goes on.
    stretches: VecDeque<Stretch>,
}

impl OfSlot {
    fn bytes(&self) -> u64 {
        self.stretches.iter().map(|stretch| stretch.bytes).sum()
    }

    fn keep_newest(&mut self) {
        self.stretches.drain(..self.stretches.len().saturating_sub(1));
    }
}

/// What was told of one rule.
#[derive(Debug)]
pub(super) struct Told {
    fingerprint: String,
    /// By their number.
    slots: Vec<OfSlot>,
    next: u64,
    /// The stretches with which the pass began that is under way, by slot.
    pass: Option<Vec<u64>>,
}

impl Told {
    /// Goes on from what was taken in before.
    pub(super) fn begin(fingerprint: &str, senders: &[Sender]) -> Self {
        let mut told = Self { fingerprint: fingerprint.to_owned(), slots: Vec::new(), next: 0, pass: None };
        for sender in senders {
            let runs_from_us = sender.rules.get(fingerprint).copied();
            told.slots.push(OfSlot { runs_from_us, stretches: VecDeque::new() });
            if sender.is_level && runs_from_us.is_some() {
                told.note_level(told.slots.len() - 1, &sender.positions);
            }
        }
        told
    }

    /// Keeps a piece, as far as there is room; whether something had to be dropped.
    pub(super) fn take(&mut self, from: u32, piece: Piece, bytes_max: u64) -> bool {
        self.next += 1;
        let this = self.next;
        let Some(stretch) = self.slots.get_mut(from as usize).and_then(|slot| slot.stretches.back_mut()) else {
            return false;
        };
        stretch.bytes += piece.bytes();
        stretch.pieces.push((this, piece));
        if self.bytes() <= bytes_max {
            return false;
        }
        self.pass = None;
        self.slots.iter_mut().for_each(OfSlot::keep_newest);
        while self.bytes() > bytes_max {
            let largest = self.slots.iter_mut().max_by_key(|slot| slot.bytes());
            largest.into_iter().for_each(|slot| slot.stretches.clear());
        }
        true
    }

    /// A slot has told all of a link.
    pub(super) fn close(&mut self, from: u32, close: &Close) {
        let at = from as usize;
        let Some(slot) = self.slots.get_mut(at) else { return };
        if let Some(rules) = &close.rules {
            let runs_from_us = rules.get(&self.fingerprint).copied();
            if runs_from_us != slot.runs_from_us {
                slot.stretches.clear();
            }
            slot.runs_from_us = runs_from_us;
        }
        if close.is_level && slot.runs_from_us.is_some() {
            self.note_level(at, &close.positions);
        }
    }

    fn note_level(&mut self, at: usize, positions: &Positions) {
        self.next += 1;
        let stretch =
            Stretch { number: self.next, positions: Arc::new(positions.clone()), pieces: Vec::new(), bytes: 0 };
        let slot = &mut self.slots[at];
        slot.stretches.push_back(stretch);
        if self.pass.is_none() {
            slot.keep_newest();
        }
    }

    fn bytes(&self) -> u64 {
        self.slots.iter().map(OfSlot::bytes).sum()
    }

    /// Where the slots stood at their newest level links, if all have one.
    pub(super) fn newest(&self) -> Option<Vec<Arc<Positions>>> {
        self.slots.iter().map(|slot| slot.stretches.back().map(|stretch| Arc::clone(&stretch.positions))).collect()
    }

    /// A pass begins that goes up to the newest level links.
    pub(super) fn begin_pass(&mut self) {
        self.slots.iter_mut().for_each(OfSlot::keep_newest);
        self.pass = self.first_numbers();
    }

    /// Whether what was told since the level links of a pass is kept.
    pub(super) fn has_pass(&self) -> bool {
        self.pass.is_some()
    }

    /// No pass is under way any more.
    pub(super) fn end_pass(&mut self) {
        self.pass = None;
        self.slots.iter_mut().for_each(OfSlot::keep_newest);
    }

    fn first_numbers(&self) -> Option<Vec<u64>> {
        self.slots.iter().map(|slot| slot.stretches.front().map(|stretch| stretch.number)).collect()
    }

    /// All that was told since the level links with which the pass began, in its order; `None` if it is not all here.
    pub(super) fn since_pass(&self) -> Option<Vec<Piece>> {
        let is_whole = self.pass.is_some() && self.pass == self.first_numbers();
        let stretches = || self.slots.iter().flat_map(|slot| &slot.stretches);
        is_whole.then(|| {
            let mut pieces: Vec<&(u64, Piece)> = stretches().flat_map(|stretch| &stretch.pieces).collect();
            pieces.sort_unstable_by_key(|(place, _)| *place);
            pieces.into_iter().map(|(_, piece)| piece.clone()).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{Int64Array, RecordBatch};

    use super::*;

    const ROOM: u64 = 1 << 20;

    fn level() -> Close {
        Close { is_level: true, ..Close::default() }
    }

    fn runs(from_us: Option<i64>) -> Close {
        Close { rules: Some(from_us.map(|us| ("rule".to_owned(), us)).into_iter().collect()), ..level() }
    }

    /// The number of the state stands for what is told.
    fn piece(which: usize) -> Piece {
        let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1; 100])) as _)]).expect("batch");
        Piece::State(StateDelta { state: which, final_at_us: 0, batch })
    }

    fn kept(told: &Told) -> Option<Vec<usize>> {
        let which = |piece: Piece| match piece {
            Piece::State(delta) => delta.state,
            Piece::Rows(_) => usize::MAX,
        };
        told.since_pass().map(|pieces| pieces.into_iter().map(which).collect())
    }

    /// Two slots, of which the second has told a level link before.
    fn two_slots() -> Told {
        let rules = BTreeMap::from([("rule".to_owned(), 5)]);
        Told::begin("rule", &[Sender::new(0), Sender { rules, is_level: true, ..Sender::new(1) }])
    }

    #[test]
    fn what_is_told_behind_the_level_links_of_a_pass_is_kept_in_its_order() {
        let mut told = two_slots();
        assert!(told.newest().is_none(), "one slot does not run the rule");
        told.close(0, &level());
        assert!(told.newest().is_none(), "it has not said that it does");
        told.close(0, &runs(Some(9)));
        assert!(!told.take(0, piece(1), ROOM));
        told.close(0, &level());
        told.begin_pass();
        for (slot, which) in [(1, 2), (0, 3), (1, 4)] {
            assert!(!told.take(slot, piece(which), ROOM));
        }
        told.close(0, &level());
        told.close(1, &Close::default());
        assert!(!told.take(0, piece(5), ROOM));
        assert_eq!(kept(&told), Some(vec![2, 3, 4, 5]), "the first is in the archive");
        told.begin_pass();
        assert_eq!(kept(&told), Some(vec![2, 4, 5]), "the newest level link of the second slot is the one before");
        told.end_pass();
        assert_eq!(kept(&told), None);
    }

    #[test]
    fn a_pass_that_is_outrun_is_followed_by_another() {
        let room = 3 * piece(0).bytes();
        let mut told = two_slots();
        told.close(0, &runs(Some(9)));
        told.begin_pass();
        assert!(!told.take(0, piece(1), room));
        assert!(!told.take(1, piece(2), room));
        told.close(0, &level());
        assert!(!told.take(1, piece(3), room));
        assert!(told.take(0, piece(4), room), "more than there is room for");
        assert_eq!(kept(&told), None, "the pass lacks the first");
        assert!(told.newest().is_some(), "the next goes up to what came later");
        told.begin_pass();
        assert_eq!(kept(&told), Some(vec![2, 3, 4]));
        // Of one slot alone it is too much.
        assert!(told.take(1, piece(5), room));
        assert!(told.newest().is_none());
        told.close(1, &level());
        told.begin_pass();
        assert_eq!(kept(&told), Some(vec![4]));
    }

    #[test]
    fn a_slot_that_begins_anew_with_the_rule_is_waited_for() {
        let mut told = two_slots();
        told.close(0, &runs(Some(9)));
        told.begin_pass();
        told.close(1, &Close { is_level: false, ..runs(Some(5)) });
        assert_eq!(kept(&told), Some(vec![]), "it has only been started again");
        told.close(1, &runs(None));
        assert!(kept(&told).is_none() && told.newest().is_none());
        told.close(1, &Close { is_level: false, ..runs(Some(7)) });
        assert!(told.newest().is_none());
        told.close(1, &level());
        assert!(told.newest().is_some() && kept(&told).is_none());
    }
}
