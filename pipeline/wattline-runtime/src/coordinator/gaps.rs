//! Offsets that are gone, and lanes that have not begun: what the next link says of them, and when it may.
//!
//! ```text
//! source: position lost ─▶ intake: on_gap = "record" ─▶ worker crosses the gap, in the order of records ─▶ next barrier
//! tick        nothing is committed: its link would say `published` behind the gap and `state` before it
//! checkpoint  one link: the gap in the lane's section, its row in `offset_gaps`, `state` and `archive` behind it
//! ```
//! A crash before that link leaves nothing: the next start finds the position lost as this one did, and records what is gone then.
//! After it the lane resumes behind the gap. So each gap is recorded once.

use wattline_core::gap::Gap;
use wattline_core::manifest::WaitingLane;
use wattline_core::record::LaneId;

use super::{Coordinator, LaneStatus};
use crate::events;
use crate::port::Position;
use crate::progress::Progress;
use crate::table::OffsetGap;

impl LaneStatus {
    /// Notes what the worker found to be gone. While the lane re-reads, a checkpoint repeats the verdicts that the rest needs.
    pub(super) fn cross_gaps(&mut self, gaps: &[Gap]) -> Vec<OffsetGap> {
        for gap in gaps {
            let ahead = self.replay.after_gap(*gap).filter(|advance| advance.offset > gap.next);
            self.replay.idle_advances.extend(ahead);
        }
        let found = gaps.iter().map(|gap| OffsetGap {
            stream: self.section.stream.clone(),
            lane: self.section.lane.clone(),
            gap: *gap,
            unread: gap.unread(self.replay.published),
        });
        found.collect()
    }
}

impl Coordinator {
    /// What was found in a tick is for the next checkpoint.
    pub(super) fn note_gaps(&mut self, found: Vec<OffsetGap>) {
        for OffsetGap { stream, lane, gap, unread } in &found {
            events::OffsetsGone { stream, lane, gap: *gap, unread: *unread }.emit();
            Progress::add(&self.progress.gone, usize::try_from(gap.offsets()).unwrap_or(usize::MAX));
            self.uncommitted.gaps.entry(lane.clone()).or_default().push(*gap);
        }
        self.checkpoint_first |= !found.is_empty();
        self.uncommitted.found_gaps.extend(found);
    }

    /// Whether only a checkpoint may commit what was gathered.
    pub(super) fn has_crossed_gaps(&self) -> bool {
        !self.uncommitted.gaps.is_empty()
    }

    /// Where a lane without a past begins. One that an earlier process had waited for begins where it would have begun then.
    pub(super) fn begin_at(&mut self, lane: &LaneId, stream: usize) -> Position {
        if let Some(waiting) = self.waiting.get(lane) {
            return Position::Timestamp(waiting.from_ms);
        }
        let position = self.first_position(stream);
        let from_ms = match position {
            Position::Latest => Some(self.clock.now_ms()),
            Position::Timestamp(from_ms) => Some(from_ms),
            Position::Earliest | Position::Offset(_) => None,
        };
        if let Some(from_ms) = from_ms {
            self.waiting.insert(lane.clone(), WaitingLane { lane: lane.clone(), from_ms });
        }
        position
    }

    /// The lanes that have not begun; those that have are in a section of their own from now on.
    pub(super) fn still_waiting(&mut self) -> Vec<WaitingLane> {
        let lanes = &self.lanes;
        self.waiting.retain(|lane, _| lanes.get(lane).is_none_or(|status| !status.begun));
        self.waiting.values().cloned().collect()
    }
}
