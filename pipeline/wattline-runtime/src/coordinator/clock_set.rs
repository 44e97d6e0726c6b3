//! The clock of the machine is set while the job runs: see [`wattline_core::wall_clock`].
//!
//! Lanes that were silent count as silent from then on, by the clock as it is now. Their events are then held against it: a lane
//! that is far from it does not follow it.

use tokio::time::Instant;
use wattline_core::wall_clock::WallClockWatch;

use super::Coordinator;
use crate::events;

/// The wall clock beside one that only counts.
#[derive(Debug)]
pub(super) struct ClockWatch {
    began: Instant,
    watch: WallClockWatch,
}

impl Default for ClockWatch {
    fn default() -> Self {
        Self { began: Instant::now(), watch: WallClockWatch::default() }
    }
}

impl Coordinator {
    /// To be called before the silence of lanes is judged by `now_ms`.
    pub(super) fn look_at_clock(&mut self, now_ms: i64) {
        let steady_ms = i64::try_from(self.clock_watch.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        let Some(by_ms) = self.clock_watch.watch.look(now_ms, steady_ms) else { return };
        events::ClockSet { by_ms }.emit();
        for status in self.lanes.values_mut() {
            status.silent_since_ms = status.silent_since_ms.map(|_before| now_ms);
        }
    }
}
