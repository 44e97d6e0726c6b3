//! System streams: what a job says of itself, as streams that rules can read.
//!
//! `dead_letters` and `rule_errors` are tables and streams like those of events, but nothing outside holds their records:
//! the chain is their log. A process slot has one lane of each, `<stream>/<slot>[0]`. When a tick has found rows for it, they
//! are numbered, dated and handed to the rules within that tick, and the link that commits the rows commits what the rules
//! made of them:
//!
//! ```text
//! rows of a tick ──▶ numbers from `next`, time = max(clock, reached) ──▶ rules ──▶ one link
//! after the tick     reached = max(clock, reached): later rows are no earlier, so no row is ever late
//! ```
//! The clock is asked once and its answer is in the rows. After a crash the rows since the last checkpoint are taken from the
//! links, and rows that no link holds are found again by whatever found them first. When bounded input ends, the
//! stream ends; a row that comes even later (a rule that fails on the end of the stream) is late by all of time, as
//! no rule has seen it.

use serde::{Deserialize, Serialize};

use crate::lane::LaneClock;
use crate::time::{BEFORE_TIME, END_OF_TIME};

/// Where the lane of a system stream stands, as a manifest says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemSection {
    /// The stream.
    pub stream: String,
    /// Number of the next row; all before are published, with what rules made of them.
    pub next: i64,
    /// The stored state covers all rows before this number.
    pub state: i64,
    /// The time reached, microseconds since the epoch.
    pub reached_us: i64,
}

/// The lane of a system stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemLog {
    next: i64,
    last_us: i64,
    ended: bool,
}

/// How rows were recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// Number of the first row.
    pub first_offset: i64,
    /// Time of all rows, microseconds since the epoch.
    pub at_us: i64,
    /// Zero, unless the stream had ended.
    pub lateness_ms: i64,
}

impl Default for SystemLog {
    /// A log without rows.
    fn default() -> Self {
        Self::at(0, BEFORE_TIME)
    }
}

impl SystemLog {
    /// A log that goes on at a number and a time.
    pub fn at(next: i64, reached_us: i64) -> Self {
        Self { next, last_us: reached_us, ended: false }
    }

    /// Number of the next row.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// The time up to which all rows are in it, microseconds since the epoch; the end of time if it has ended.
    pub fn reached_us(&self) -> i64 {
        if self.ended { END_OF_TIME } else { self.last_us }
    }

    /// The time of the last row or advance, also if the log has ended: where it goes on after a restart.
    pub fn last_us(&self) -> i64 {
        self.last_us
    }

    /// Records rows at this time of the clock.
    pub fn record(&mut self, rows: usize, now_us: i64) -> Recorded {
        let at_us = now_us.max(self.last_us);
        let recorded =
            Recorded { first_offset: self.next, at_us, lateness_ms: LaneClock::at(self.reached_us()).observe(at_us) };
        self.next = self.next.saturating_add(i64::try_from(rows).unwrap_or(i64::MAX));
        self.last_us = at_us;
        recorded
    }

    /// All rows before this time of the clock are recorded.
    pub fn advance_to(&mut self, now_us: i64) {
        self.last_us = self.last_us.max(now_us);
    }

    /// No more rows are expected.
    pub fn end(&mut self) {
        self.ended = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_numbered_and_never_late_whatever_the_clock_does() {
        let mut log = SystemLog::at(7, 1_000);
        for (now_us, at_us, first_offset) in [(900, 1_000, 7), (2_000, 2_000, 10), (1_500, 2_000, 13)] {
            assert_eq!(log.record(3, now_us), Recorded { first_offset, at_us, lateness_ms: 0 });
            assert!(log.reached_us() <= at_us);
        }
        log.advance_to(5_000);
        log.advance_to(4_000);
        assert_eq!((log.next(), log.reached_us()), (16, 5_000));
        assert_eq!(log.record(1, 4_500).at_us, 5_000);
    }

    #[test]
    fn a_row_after_the_end_is_too_late_for_every_rule() {
        let mut log = SystemLog::at(0, 1_000);
        log.end();
        assert_eq!(log.reached_us(), END_OF_TIME);
        let recorded = log.record(1, 2_000_000);
        assert_eq!((recorded.at_us, log.last_us()), (2_000_000, 2_000_000));
        assert!(recorded.lateness_ms > 1_000 * 365 * 86_400_000);
    }
}
