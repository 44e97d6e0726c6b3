//! A job in several slots: who reads what, who looks after which rule, and what slots tell each other.
//!
//! The work of a job is divided twice. Each partition of a topic is read by one slot ([`slot_of_partition`]): it decodes, keeps the
//! raw rows and begins to aggregate. Each rule has a home ([`home_of`]): the slot that puts together what all slots have of it, and
//! gives out its results and alerts.
//!
//! ```text
//! slot i:  partitions ─▶ lanes ─▶ partial state, rows of alert rules ─▶ outbox, in link n of chain i ─▶ inbox of each slot
//! slot h:  inbox ─▶ merge ─▶ advance to the lowest time that all slots have told ─▶ results, alerts, in chain h
//! ```
//! A slot tells in each link what it has not told before, and up to which time that is all there will be. What it tells is
//! written before the link and named by it; sending comes after the link, and is done again by whoever finds that link the last of
//! its chain. So a message is sent at least once, by any process that ever had the slot, and what is sent as (slot, link, part) is
//! always the same. The receiver takes it in once: it goes by the numbers ([`Sender::judge`]). Its inbox is a lane like others,
//! whose offsets stand in its manifests.
//!
//! ```text
//! a sender dies     before the link: nothing was told           after it, before or while sending: the next one sends it again
//! a receiver dies   before the link that has taken a message in: it reads the message again         after it: it goes on behind it
//! a sender that wakes up late sends what a link of its chain says: that was told already, and is passed over
//! ```
//! Numbers of slots are fixed for the life of a job: partition, home and inbox follow from them alone.
//!
//! `tests/model` goes through all orders of the steps of two slots, with these decisions.
//!
//! A link is *level* if it tells the last of all that is in closed files: what its slot has told by then, this link included, is
//! made of the records before the `archive` of its lanes, and what it tells later of the records behind them. A checkpoint is, as
//! long as no lane reads again what was published before. So a rule can be given its past up to a level link of each slot, and go
//! on with what was told since.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::late::LateStretches;
use crate::manifest::Quarantine;
use crate::record::LaneId;
use crate::time::{BEFORE_TIME, END_OF_TIME};

/// Version of the messages.
pub const FORMAT: u32 = 1;

/// One slot among those of its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the slot, from 0.
    pub slot: u32,
    /// How many slots the job has.
    pub of: u32,
}

impl Place {
    /// Whether this slot reads a partition.
    pub fn reads(self, partition: i32) -> bool {
        slot_of_partition(partition, self.of) == self.slot
    }

    /// Whether this slot looks after a rule.
    pub fn is_home_of(self, rule_id: &str) -> bool {
        home_of(rule_id, self.of) == self.slot
    }
}

/// The slot that reads a partition.
pub fn slot_of_partition(partition: i32, slots: u32) -> u32 {
    partition.unsigned_abs() % slots.max(1)
}

/// The slot that looks after a rule. It follows from the id alone: a rule stays where its open alerts are when it is
/// changed, and when others come and go.
pub fn home_of(rule_id: &str, slots: u32) -> u32 {
    // FNV-1a: these numbers are part of what a job has stored.
    let hash = rule_id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    u32::try_from(hash % u64::from(slots.max(1))).unwrap_or_default()
}

/// How far a slot has come in one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The lowest time that its lanes have reached: what is final by it was told. [`END_OF_TIME`] if it has none.
    pub least_us: i64,
    /// The same for rows that are in closed files.
    pub archived_us: i64,
    /// The highest time that one of its lanes has reached.
    pub most_us: i64,
}

/// Which rows of a lane are in closed files, and count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedLane {
    /// The lane.
    pub lane: LaneId,
    /// The stream it feeds.
    pub stream: String,
    /// Results are computed over the records from here on.
    pub since: i64,
    /// Raw rows of all earlier records are in closed files.
    pub archive: i64,
}

/// How far a slot has come, as it tells the others.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Positions {
    /// By name of the stream.
    pub streams: BTreeMap<String, Reached>,
    /// Its lanes.
    pub lanes: Vec<ArchivedLane>,
}

impl Positions {
    /// How far it has come in a stream; before all time if it did not say.
    pub fn least_us(&self, stream: &str) -> i64 {
        self.streams.get(stream).map_or(BEFORE_TIME, |reached| reached.least_us)
    }

    /// The same for rows that are in closed files.
    pub fn archived_us(&self, stream: &str) -> i64 {
        self.streams.get(stream).map_or(BEFORE_TIME, |reached| reached.archived_us)
    }

    /// The highest time that one of its lanes has reached in a stream.
    pub fn most_us(&self, stream: &str) -> i64 {
        self.streams.get(stream).map_or(BEFORE_TIME, |reached| reached.most_us)
    }

    /// Whether it has come to the end in all of these streams.
    pub fn has_ended<'a>(&self, mut streams: impl Iterator<Item = &'a str>) -> bool {
        streams.all(|stream| self.least_us(stream) == END_OF_TIME)
    }
}

/// The head of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Version of the messages, [`FORMAT`].
    pub format: u32,
    /// The slot that tells.
    pub from: u32,
    /// Identity of its chain: another one after the job was restored from a backup.
    pub incarnation: String,
    /// The link that says so.
    pub n: u64,
    /// Number of this message among those of the link to this receiver, from 0.
    pub part: u32,
    /// The link before it that told something, 0 if there was none.
    pub before: u64,
    /// With the last part: what holds once all parts are taken in.
    pub close: Option<Close>,
}

/// What ends the telling of a link.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Close {
    /// How far the slot has come.
    pub positions: Positions,
    /// Rules of the receiver that the slot runs, by fingerprint, each with the time from which on: said by each process when it begins.
    pub rules: Option<BTreeMap<String, i64>>,
    /// Where rules of the receiver have failed in lanes of the slot, by fingerprint.
    pub quarantined: Vec<(String, Quarantine)>,
    /// Late events that are in closed files now and are still to correct results, by fingerprint of the rule.
    pub late: Vec<(String, LateStretches)>,
    /// The link is level.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_level: bool,
}

/// What is to be done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It is the next one.
    Take,
    /// It was taken in before.
    Known,
    /// Others should have come before it.
    Gap,
}

/// What a slot has been told by another (or by itself), as its manifests have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// The slot that tells.
    pub slot: u32,
    /// The last link of which something was taken in, 0 before the first.
    pub n: u64,
    /// Identity of that chain; none before the first.
    pub incarnation: String,
    /// After a restore: where the chain was cut off, and its new identity.
    pub cut: Option<Cut>,
    /// After further restores, before anything of that identity was heard: where the chain was cut off each time. A version that does
    /// not know them comes to a gap and stops.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub later_cuts: Vec<Cut>,
    /// The next part of it; absent once all of it is taken in.
    pub next_part: Option<u32>,
    /// As of the last link that was taken in whole.
    pub positions: Positions,
    /// Rules that the slot runs, of those that are at home here: by fingerprint, each with the time from which on.
    pub rules: BTreeMap<String, i64>,
    /// The last link of which something was taken in is level, and all of it was taken in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_level: bool,
}

/// Where a backup has cut off a chain. What it told behind that is in the inboxes, and does not count: the restored job says it anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The last link that told something, of those that the backup has.
    pub last_link: u64,
    /// Identity of the chain from then on.
    pub incarnation: String,
}

impl Sender {
    /// Nothing was told yet.
    pub fn new(slot: u32) -> Self {
        Self {
            slot,
            n: 0,
            incarnation: String::new(),
            cut: None,
            later_cuts: Vec::new(),
            next_part: None,
            positions: Positions::default(),
            rules: BTreeMap::new(),
            is_level: false,
        }
    }

    /// Where the chain was cut off since the last message that was taken in, oldest first.
    fn cuts(&self) -> impl Iterator<Item = &Cut> {
        self.cut.iter().chain(&self.later_cuts)
    }

    /// Which life of the chain an identity is, counted from that of the last message that was taken in.
    fn life(&self, incarnation: &str) -> Option<usize> {
        let later = self.cuts().map(|cut| cut.incarnation.as_str());
        std::iter::once(self.incarnation.as_str()).chain(later).position(|of| of == incarnation)
    }

    /// Notes that the chain was restored from a backup: `of` is the identity that it had in it.
    pub fn cut_off(&mut self, of: &str, cut: Cut) {
        if self.cut.is_none() && self.incarnation.is_empty() {
            // Nothing was heard of it: what it told up to the cut is still to come.
            of.clone_into(&mut self.incarnation);
        }
        match self.cut {
            None => self.cut = Some(cut),
            Some(_) => self.later_cuts.push(cut),
        }
    }

    /// Judges a message by its numbers. A chain that was restored has had several lives, and of each counts what it told up to where
    /// it was cut off; lives that are none of them came of another restore, from the same backup or another one.
    pub fn judge(&self, head: &Head) -> Judgement {
        let is_first_word = self.cut.is_none() && self.incarnation.is_empty();
        match self.life(&head.incarnation) {
            None if is_first_word => {}
            None => return Judgement::Known,
            Some(life) => {
                if self.cuts().nth(life).is_some_and(|cut| head.n > cut.last_link) {
                    return Judgement::Known;
                }
            }
        }
        match (head.n.cmp(&self.n), self.next_part) {
            (std::cmp::Ordering::Less, _) | (std::cmp::Ordering::Equal, None) => Judgement::Known,
            (std::cmp::Ordering::Equal, Some(next)) if head.part < next => Judgement::Known,
            (std::cmp::Ordering::Equal, Some(next)) if head.part == next => Judgement::Take,
            // Of the one before only a part has come.
            (std::cmp::Ordering::Equal, Some(_)) | (std::cmp::Ordering::Greater, Some(_)) => Judgement::Gap,
            (std::cmp::Ordering::Greater, None) if head.part == 0 && head.before == self.n => Judgement::Take,
            (std::cmp::Ordering::Greater, None) => Judgement::Gap,
        }
    }

    /// Notes that a message was taken in.
    pub fn note(&mut self, head: &Head) {
        // Lives before this one have nothing more to say.
        for _ in 0..self.life(&head.incarnation).unwrap_or_default() {
            self.cut = if self.later_cuts.is_empty() { None } else { Some(self.later_cuts.remove(0)) };
        }
        self.incarnation.clone_from(&head.incarnation);
        self.n = head.n;
        self.is_level = head.close.as_ref().is_some_and(|close| close.is_level);
        self.next_part = match &head.close {
            Some(close) => {
                self.positions.clone_from(&close.positions);
                if let Some(rules) = &close.rules {
                    self.rules.clone_from(rules);
                }
                None
            }
            None => Some(head.part + 1),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(n: u64, part: u32, before: u64, last: bool) -> Head {
        Head { format: FORMAT, from: 1, incarnation: "a".into(), n, part, before, close: last.then(Close::default) }
    }

    #[test]
    fn messages_are_taken_in_once_and_in_order() {
        let mut sender = Sender::new(1);
        let told = [head(3, 0, 0, false), head(3, 1, 0, true), head(7, 0, 3, true), head(8, 0, 7, true)];
        for (at, message) in told.iter().enumerate() {
            assert_eq!(sender.judge(message), Judgement::Take, "{message:?}");
            // What comes after the next one comes too early.
            for later in told.iter().skip(at + 1) {
                assert_eq!(sender.judge(later), Judgement::Gap, "{later:?} before {message:?}");
            }
            sender.note(message);
            for known in &told[..=at] {
                assert_eq!(sender.judge(known), Judgement::Known, "{known:?} again after {message:?}");
            }
        }
        assert_eq!((sender.n, sender.next_part), (8, None));
    }

    #[test]
    fn a_slot_is_level_once_all_of_a_level_link_is_taken_in() {
        let mut sender = Sender::new(1);
        let level = |head: Head| Head { close: Some(Close { is_level: true, ..Close::default() }), ..head };
        let told = [head(1, 0, 0, false), level(head(1, 1, 0, true)), head(2, 0, 1, false), head(2, 1, 1, true)];
        let is_level = told.map(|head| {
            sender.note(&head);
            sender.is_level
        });
        assert_eq!(is_level, [false, true, false, false]);
    }

    #[test]
    fn after_a_restore_what_was_told_behind_the_cut_does_not_count() {
        let of = |incarnation: &str, head: Head| Head { incarnation: incarnation.into(), ..head };
        let mut sender = Sender::new(1);
        sender.note(&head(3, 0, 0, true));
        sender.cut = Some(Cut { last_link: 5, incarnation: "c".into() });
        let inbox = [
            (head(3, 0, 0, true), Judgement::Known),
            // The backup has it, and this slot had not taken it in.
            (head(5, 0, 3, true), Judgement::Take),
            (head(6, 0, 5, true), Judgement::Known),
            (of("b", head(6, 0, 5, true)), Judgement::Known),
            (of("c", head(6, 0, 5, true)), Judgement::Take),
            (head(7, 0, 6, true), Judgement::Known),
            (of("c", head(8, 0, 6, true)), Judgement::Take),
        ];
        for (message, judged) in inbox {
            assert_eq!(sender.judge(&message), judged, "{message:?}");
            if judged == Judgement::Take {
                sender.note(&message);
            }
        }
    }

    #[test]
    fn what_was_not_heard_before_a_second_restore_still_counts() {
        let of = |incarnation: &str, head: Head| Head { incarnation: incarnation.into(), ..head };
        let mut sender = Sender::new(1);
        sender.note(&head(3, 0, 0, true));
        sender.cut_off("a", Cut { last_link: 5, incarnation: "b".into() });
        sender.cut_off("b", Cut { last_link: 8, incarnation: "c".into() });
        sender.cut_off("c", Cut { last_link: 8, incarnation: "d".into() });
        let inbox = [
            (head(5, 0, 3, true), Judgement::Take),
            (head(6, 0, 5, true), Judgement::Known),
            // The start after the first restore sends what its last link says again.
            (head(5, 0, 3, true), Judgement::Known),
            (of("b", head(8, 0, 7, true)), Judgement::Gap),
            (of("b", head(7, 0, 5, false)), Judgement::Take),
            (of("b", head(7, 1, 5, true)), Judgement::Take),
            (of("x", head(8, 0, 7, true)), Judgement::Known),
            (of("b", head(8, 0, 7, true)), Judgement::Take),
            (of("b", head(9, 0, 8, true)), Judgement::Known),
            // That life told nothing before it was cut off.
            (of("c", head(9, 0, 8, true)), Judgement::Known),
            (of("d", head(9, 0, 8, true)), Judgement::Take),
            (head(10, 0, 9, true), Judgement::Known),
            (of("b", head(10, 0, 9, true)), Judgement::Known),
            (of("d", head(10, 0, 9, true)), Judgement::Take),
        ];
        for (message, judged) in inbox {
            assert_eq!(sender.judge(&message), judged, "{message:?}");
            if judged == Judgement::Take {
                sender.note(&message);
            }
        }
        assert_eq!((sender.cut, sender.later_cuts), (None, Vec::new()));
    }

    #[test]
    fn a_slot_that_had_told_nothing_is_heard_after_each_restore() {
        let of = |incarnation: &str, head: Head| Head { incarnation: incarnation.into(), ..head };
        let mut sender = Sender::new(1);
        // At the first backup it had no chain, at the second it had one and had not been heard.
        sender.cut_off("", Cut { last_link: 0, incarnation: "b".into() });
        sender.cut_off("b", Cut { last_link: 2, incarnation: "c".into() });
        assert_eq!(sender.judge(&head(1, 0, 0, true)), Judgement::Known, "of the job before the first restore");
        assert_eq!(sender.judge(&of("b", head(1, 0, 0, true))), Judgement::Take);
        sender.note(&of("b", head(1, 0, 0, true)));
        assert_eq!(sender.judge(&of("b", head(3, 0, 1, true))), Judgement::Known);
        assert_eq!(sender.judge(&of("c", head(3, 0, 1, true))), Judgement::Take);
    }

    #[test]
    fn every_partition_and_every_rule_has_one_slot() {
        for of in 1..9 {
            let places: Vec<Place> = (0..of).map(|slot| Place { slot, of }).collect();
            for number in 0..64 {
                assert_eq!(places.iter().filter(|place| place.reads(number)).count(), 1);
                let rule = format!("pq_rule_{number}");
                assert_eq!(places.iter().filter(|place| place.is_home_of(&rule)).count(), 1);
            }
        }
    }

    #[test]
    fn homes_do_not_move() {
        // Jobs have stored these.
        let homes: Vec<u32> = ["pq_voltage_deviation", "rd_gap", "tx_unpaid_bill"].map(|id| home_of(id, 8)).to_vec();
        assert_eq!(homes, [3, 0, 1]);
    }
}
