//! The clock of a lane: highest event time reached, lateness, time guards and idle advances.
//!
//! A lane is a function of its offsets: [`LaneClock::observe`] depends on the order of events and on nothing
//! else. What did need a wall clock (a refusal because an event lies in the future, an advance because the
//! lane fell silent) is a [`Verdict`] or an [`IdleAdvance`] that the manifest records; on re-reading it is
//! taken from there, so that a second execution is the same as the first.
//!
//! ```text
//! event time ──▶ guard ──accepted──▶ observe ──▶ lateness_ms = ceil(reached − ts), reached = max(reached, ts)
//!                  └─refused──▶ dead letter, moves nothing
//! watermark for delay d = reached − d
//! ```

use serde::{Deserialize, Serialize};

use crate::time::{BEFORE_TIME, END_OF_TIME};

const MICROS_PER_MILLI: i64 = 1_000;

/// A lane whose last event was at most this far from the clock is live: it follows real time.
pub const LIVE_SLACK_MS: i64 = 3_600_000;

/// The clocks of the machines that may run a job one after the other are less far apart.
pub const CLOCKS_APART_MS: i64 = 60_000;

/// The highest event time that a lane has reached, in microseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneClock {
    reached_us: i64,
}

impl Default for LaneClock {
    fn default() -> Self {
        Self { reached_us: BEFORE_TIME }
    }
}

impl LaneClock {
    /// A clock that has reached `reached_us`.
    pub fn at(reached_us: i64) -> Self {
        Self { reached_us }
    }

    /// The highest time reached; [`BEFORE_TIME`] if the lane never saw an event.
    pub fn reached_us(&self) -> i64 {
        self.reached_us
    }

    /// Takes in one accepted event and says how late it is, in milliseconds rounded up.
    ///
    /// Rounding up makes `lateness_ms <= delay_ms` say exactly `reached - ts <= delay`, so a rule never
    /// admits an event behind its own watermark.
    pub fn observe(&mut self, event_us: i64) -> i64 {
        if event_us >= self.reached_us {
            self.reached_us = event_us;
            return 0;
        }
        let behind_us = self.reached_us.saturating_sub(event_us);
        behind_us / MICROS_PER_MILLI + i64::from(behind_us % MICROS_PER_MILLI != 0)
    }

    /// Moves the clock forward without an event. Moving back has no effect.
    pub fn advance_to(&mut self, reached_us: i64) {
        self.reached_us = self.reached_us.max(reached_us);
    }
}

/// The watermark of a rule with the given delay over lanes that have reached `reached_min_us`.
///
/// The two ends of time stay what they are: an input that has ended needs no more patience.
pub fn watermark_us(reached_min_us: i64, delay_ms: i64) -> i64 {
    match reached_min_us {
        END_OF_TIME | BEFORE_TIME => reached_min_us,
        reached => reached.saturating_sub(delay_ms.saturating_mul(MICROS_PER_MILLI)),
    }
}

/// Bounds within which event times are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeGuard {
    /// How far ahead of the record's clock an event may lie.
    pub future_bound_ms: i64,
    /// The oldest event time that the archive takes.
    pub oldest_us: i64,
}

/// What the guard says of one event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The event enters the lane.
    Accepted,
    /// Too far ahead of the record's clock.
    TooFarAhead,
    /// Older than the archive's horizon.
    TooOld,
}

impl TimeGuard {
    /// Judges one event time against the clock of its record (broker append time, else fetch time).
    pub fn judge(&self, event_us: i64, clock_ms: i64) -> Verdict {
        let latest_us = clock_ms.saturating_add(self.future_bound_ms).saturating_mul(MICROS_PER_MILLI);
        if event_us > latest_us {
            Verdict::TooFarAhead
        } else if event_us < self.oldest_us {
            Verdict::TooOld
        } else {
            Verdict::Accepted
        }
    }

    /// Whether a later process says the same of the event by its own clock, which may differ by [`CLOCKS_APART_MS`]. What is refused
    /// as too far ahead is not so for ever.
    pub fn is_settled(&self, event_us: i64, clock_ms: i64) -> bool {
        let margin_ms = CLOCKS_APART_MS.min(self.future_bound_ms.saturating_abs() / 2);
        let latest_ms = clock_ms.saturating_add(self.future_bound_ms).saturating_sub(margin_ms);
        event_us <= latest_ms.saturating_mul(MICROS_PER_MILLI)
    }
}

/// A recorded advance of a silent lane: from `offset` on the lane counts as having reached `reached_us`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdleAdvance {
    /// The next offset of the lane when it was advanced.
    pub offset: i64,
    /// The time it was advanced to.
    pub reached_us: i64,
}

/// What is known of a lane that has read everything there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SilentLane {
    /// The highest time it has reached.
    pub reached_us: i64,
    /// The process clock when it became silent.
    pub silent_since_ms: i64,
}

/// Decides how far a silent lane is advanced so that it does not hold back the others.
///
/// A live lane (its last event was near the clock when it fell silent) follows the clock at a distance of the
/// idle timeout: absence rules fire on silent partitions. A lane that replays history, or that never had an
/// event, only catches up with the slowest of the other lanes: the clock says nothing about its times. So does one whose events
/// are far ahead of a clock that was set back.
pub fn decide_idle_advance(
    lane: SilentLane,
    others_reached_min_us: Option<i64>,
    clock_ms: i64,
    idle_timeout_ms: i64,
) -> Option<i64> {
    if clock_ms.saturating_sub(lane.silent_since_ms) < idle_timeout_ms {
        return None;
    }
    let begun = lane.reached_us != BEFORE_TIME;
    let behind_ms = lane.silent_since_ms.saturating_sub(lane.reached_us / MICROS_PER_MILLI);
    let live = begun && behind_ms.saturating_abs() <= LIVE_SLACK_MS;
    let target_us = if live {
        clock_ms.saturating_sub(idle_timeout_ms).saturating_mul(MICROS_PER_MILLI)
    } else {
        others_reached_min_us.filter(|us| *us != END_OF_TIME && *us != BEFORE_TIME)?
    };
    (target_us > lane.reached_us).then_some(target_us)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND_US: i64 = 1_000_000;

    #[test]
    fn lateness_is_measured_from_the_highest_time_before_the_event() {
        let mut clock = LaneClock::default();
        let lateness: Vec<i64> =
            [10 * SECOND_US, 8 * SECOND_US, 12 * SECOND_US, 12 * SECOND_US - 1].map(|ts| clock.observe(ts)).to_vec();
        assert_eq!(lateness, [0, 2_000, 0, 1]);
        assert_eq!(clock.reached_us(), 12 * SECOND_US);
    }

    #[test]
    fn guards_judge_by_the_clock_of_the_record() {
        let guard = TimeGuard { future_bound_ms: 1_000, oldest_us: 0 };
        assert_eq!(guard.judge(11 * SECOND_US, 10_000), Verdict::Accepted);
        assert_eq!(guard.judge(11 * SECOND_US + 1, 10_000), Verdict::TooFarAhead);
        assert_eq!(guard.judge(-1, 10_000), Verdict::TooOld);
    }

    #[test]
    fn a_verdict_near_the_bound_of_the_future_is_not_settled() {
        let guard = TimeGuard { future_bound_ms: 1_000, oldest_us: 0 };
        assert!(guard.is_settled(10 * SECOND_US + 500_000, 10_000) && guard.is_settled(-1, 10_000));
        assert!(!guard.is_settled(10 * SECOND_US + 500_001, 10_000), "a clock set back would refuse it");
        assert!(!guard.is_settled(12 * SECOND_US, 10_000), "a later clock will accept it");
        let hours = TimeGuard { future_bound_ms: -36_000_000, oldest_us: 0 };
        assert!(!hours.is_settled(-36_000_000_000, 0) && hours.is_settled(-36_060_000_000, 0));
    }

    #[test]
    fn a_live_lane_follows_the_clock_and_a_replayed_one_the_others() {
        let now_ms = 1_800_000_000_000;
        let live = SilentLane { reached_us: (now_ms - 60_000) * 1_000, silent_since_ms: now_ms - 40_000 };
        assert_eq!(decide_idle_advance(live, None, now_ms, 30_000), Some((now_ms - 30_000) * 1_000));
        assert_eq!(decide_idle_advance(live, None, now_ms - 11_000, 30_000), None);
        let old = SilentLane { reached_us: SECOND_US, silent_since_ms: now_ms - 40_000 };
        assert_eq!(decide_idle_advance(old, None, now_ms, 30_000), None);
        assert_eq!(decide_idle_advance(old, Some(5 * SECOND_US), now_ms, 30_000), Some(5 * SECOND_US));
        let empty = SilentLane { reached_us: BEFORE_TIME, silent_since_ms: now_ms - 40_000 };
        assert_eq!(decide_idle_advance(empty, Some(5 * SECOND_US), now_ms, 30_000), Some(5 * SECOND_US));
        assert_eq!(decide_idle_advance(empty, Some(END_OF_TIME), now_ms, 30_000), None);
        let ahead_us = (now_ms + 3 * LIVE_SLACK_MS) * 1_000;
        let ahead = SilentLane { reached_us: ahead_us, silent_since_ms: now_ms - 40_000 };
        assert_eq!(decide_idle_advance(ahead, Some(ahead_us + SECOND_US), now_ms, 30_000), Some(ahead_us + SECOND_US));
    }

    proptest! {
        #[test]
        fn an_admitted_event_never_lies_behind_the_watermark(
            times in prop::collection::vec(-1_000_000_i64..1_000_000, 1..60),
            delay_ms in 0_i64..500,
        ) {
            let mut clock = LaneClock::default();
            for ts in times {
                let before = watermark_us(clock.reached_us(), delay_ms);
                let lateness_ms = clock.observe(ts);
                prop_assert_eq!(lateness_ms <= delay_ms, ts >= before);
                prop_assert!(watermark_us(clock.reached_us(), delay_ms) >= before);
            }
        }
    }
}
