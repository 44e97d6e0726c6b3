//! Whether the wall clock was set while a process ran.
//!
//! How long a lane has been silent is judged by the wall clock, as its events are. When somebody sets that clock, a time measured before
//! and one measured after say nothing together: a clock that goes three hours ahead would make every silent lane one that
//! has been silent for three hours, advance it there, and make late whatever comes next. So the wall clock is held against a
//! steady one, which only counts, from look to look; both are arguments here.

/// A smaller difference is the steering of the clock, or the time between reading the two.
const SET_BY_MIN_MS: i64 = 10_000;

/// What both clocks said at the last look.
#[derive(Debug, Clone, Copy, Default)]
pub struct WallClockWatch {
    last: Option<Look>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    wall_ms: i64,
    steady_ms: i64,
}

impl WallClockWatch {
    /// By how much the wall clock was set since the last look, forward or (negative) back; `None` if it went on as it should.
    pub fn look(&mut self, wall_ms: i64, steady_ms: i64) -> Option<i64> {
        let last = self.last.replace(Look { wall_ms, steady_ms })?;
        let passed_ms = steady_ms.saturating_sub(last.steady_ms);
        let set_by_ms = wall_ms.saturating_sub(last.wall_ms).saturating_sub(passed_ms);
        (set_by_ms.saturating_abs() >= SET_BY_MIN_MS).then_some(set_by_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_told_from_one_that_went_on() {
        let hours_ms = 3 * 3_600_000;
        let mut watch = WallClockWatch::default();
        let looks = [
            (1_000, 0, None),
            (2_000, 1_000, None),
            // Nobody looked for a day.
            (86_402_000, 86_401_000, None),
            // It is steered, not set.
            (86_403_900, 86_402_000, None),
            (86_404_900 + hours_ms, 86_403_000, Some(hours_ms)),
            (86_405_900 + hours_ms, 86_404_000, None),
            (86_406_900, 86_405_000, Some(-hours_ms)),
            (86_407_900, 86_406_000, None),
        ];
        for (wall_ms, steady_ms, expected) in looks {
            assert_eq!(watch.look(wall_ms, steady_ms), expected, "at {steady_ms}");
        }
    }
}
