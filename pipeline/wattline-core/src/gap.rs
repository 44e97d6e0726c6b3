//! Offsets that are gone: what becomes of a lane whose log does not have the position at which it has to go on.
//!
//! ```text
//!                 first ├────── log ──────┤ end
//! wanted ────────▶ │                                [wanted, first) expired or was deleted: stop, or record it and go on at first
//!                                         │ ◀────── wanted: made anew, or its end cut off: stop
//!            another log ├────────────────┤         made anew, and grown past the position: stop
//! ```
//! Where the log has only lost its beginning, numbers go on: offsets that are gone are a stretch that nobody will fill, and a
//! stream with `on_gap = "record"` writes it down and goes on behind it. In the other cases the log gives numbers to other records
//! that were given before. (topic, partition, offset, index) is what tells events apart, in every table, in dead letters,
//! alerts and corrections, and for whoever reads them; so these records cannot go on under the name of the lane, whatever the stream
//! says. A second life of a topic needs a name of its own, and that is for the operator to give (`topic_life`): he alone
//! knows whether the topic was made anew, and is to be read from its beginning, or was cut, and holds what was read already. Under
//! its own name it is a lane without a past.
//!
//! A gap is committed by a checkpoint, never by a tick: the link that names it also says that the lane resumes behind it. So
//! no start meets a gap again that a link names, and a gap that no link names is found anew by the next start, at the same place.

use serde::{Deserialize, Serialize};

/// Offsets that are gone: from the first one up to, and without, the next one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gap {
    /// The first offset that is gone.
    pub first: i64,
    /// The offset at which the lane goes on.
    pub next: i64,
}

/// What a stream wants if offsets are gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnGap {
    /// The job ends.
    #[default]
    Stop,
    /// They are written down, and the lane goes on behind them.
    Record,
}

/// What the log of a lane has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// The first offset of the log.
    pub first: i64,
    /// The offset after its last record.
    pub end: i64,
    /// It is known to be another log than the one that was read before.
    pub is_another: bool,
}

/// What becomes of a lane whose position is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterLoss {
    /// The gap is written down, and the lane goes on behind it.
    Record(Gap),
    /// The job ends: the offsets are gone.
    Stop,
    /// The job ends: the log uses offsets a second time.
    UsedAgain,
}

impl Gap {
    /// How many offsets are gone.
    pub fn offsets(&self) -> u64 {
        self.next.abs_diff(self.first)
    }

    /// From where on they had not been read, of a lane that had been read up to `read_until`.
    pub fn unread(&self, read_until: i64) -> i64 {
        read_until.clamp(self.first, self.next)
    }
}

/// Decides about a lane that was to go on at `wanted`, which its log does not have.
pub fn decide_after_loss(on_gap: OnGap, wanted: i64, log: LogBounds) -> AfterLoss {
    if log.is_another || wanted >= log.first {
        return AfterLoss::UsedAgain;
    }
    match on_gap {
        OnGap::Stop => AfterLoss::Stop,
        OnGap::Record => AfterLoss::Record(Gap { first: wanted, next: log.first }),
    }
}

/// Puts gaps in order; those that touch or overlap become one.
pub fn merged(mut gaps: Vec<Gap>) -> Vec<Gap> {
    gaps.sort_unstable();
    let mut merged: Vec<Gap> = Vec::with_capacity(gaps.len());
    for gap in gaps {
        match merged.last_mut() {
            Some(last) if gap.first <= last.next => last.next = last.next.max(gap.next),
            _ => merged.push(gap),
        }
    }
    merged
}

/// What of a stretch, its first and its last offset, lies in no gap. The gaps are in order and do not touch.
pub fn outside(gaps: &[Gap], (first, last): (i64, i64)) -> Vec<(i64, i64)> {
    let mut rest = Vec::new();
    let mut from = first;
    let begin = gaps.partition_point(|gap| gap.next <= first);
    for gap in gaps[begin..].iter().take_while(|gap| gap.first <= last) {
        if gap.first > from {
            rest.push((from, gap.first - 1));
        }
        from = gap.next;
    }
    if from <= last {
        rest.push((from, last));
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(first: i64, next: i64) -> Gap {
        Gap { first, next }
    }

    #[test]
    fn only_a_lost_beginning_can_be_recorded() {
        let log = LogBounds { first: 100, end: 200, is_another: false };
        let other = LogBounds { is_another: true, ..log };
        for (on_gap, wanted, log, expected) in [
            (OnGap::Stop, 40, log, AfterLoss::Stop),
            (OnGap::Record, 40, log, AfterLoss::Record(gap(40, 100))),
            (OnGap::Record, 201, log, AfterLoss::UsedAgain),
            (OnGap::Stop, 201, log, AfterLoss::UsedAgain),
            (OnGap::Record, 40, other, AfterLoss::UsedAgain),
            (OnGap::Record, 150, other, AfterLoss::UsedAgain),
            // Nothing is left of it.
            (OnGap::Record, 40, LogBounds { first: 200, ..log }, AfterLoss::Record(gap(40, 200))),
        ] {
            assert_eq!(decide_after_loss(on_gap, wanted, log), expected, "{on_gap:?} {wanted} {log:?}");
        }
        assert_eq!(gap(40, 100).offsets(), 60);
        assert_eq!([10, 60, 120].map(|read| gap(40, 100).unread(read)), [40, 60, 100]);
    }

    #[test]
    fn stretches_are_cut_by_gaps() {
        let gaps = merged(vec![gap(30, 40), gap(5, 10), gap(10, 12), gap(33, 35), gap(20, 21)]);
        assert_eq!(gaps, [gap(5, 12), gap(20, 21), gap(30, 40)]);
        assert_eq!(outside(&gaps, (0, 50)), [(0, 4), (12, 19), (21, 29), (40, 50)]);
        assert_eq!(outside(&gaps, (6, 11)), []);
        assert_eq!(outside(&gaps, (12, 19)), [(12, 19)]);
        assert_eq!(outside(&gaps, (8, 20)), [(12, 19)]);
        assert_eq!(outside(&gaps, (39, 40)), [(40, 40)]);
        assert_eq!(outside(&[], (3, 4)), [(3, 4)]);
    }
}
