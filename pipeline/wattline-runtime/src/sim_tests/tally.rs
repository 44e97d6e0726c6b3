//! Counts what was done to the worlds of a test: a run in which a fault that it promises did not happen proves nothing, and is red.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What may be done to a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mishap {
    CrashBefore,
    CrashAfter,
    AckLost,
    Unavailable,
    /// Of an operation with parts, some took effect.
    Torn,
    Slow,
    ClockAhead,
    ClockBack,
    /// A process was taken for dead, and went on.
    Pause,
    /// A lane went away from a process, and came back to it.
    Rebalance,
    /// A log lost its beginning before all of it was read.
    Expiry,
    /// A job went on from a backup.
    Restore,
    /// Links of the chain were deleted because of their age.
    Retention,
    /// Alerts were told before their link: what comes after must not make them untrue.
    ToldEarly,
    /// Lanes were assigned one after the other.
    LateLane,
    /// Rules came to a job with a past.
    LateRules,
    /// A source was held back, because a worker or the memory had no room.
    HeldBack,
    /// What rules keep went to disk, because it was more than their share of memory.
    Spilled,
}

impl Mishap {
    /// What random worlds have, if there are many.
    pub(super) const OF_WORLDS: [Self; 15] = [
        Self::CrashBefore,
        Self::CrashAfter,
        Self::AckLost,
        Self::Unavailable,
        Self::Torn,
        Self::Slow,
        Self::ClockAhead,
        Self::ClockBack,
        Self::Rebalance,
        Self::Expiry,
        Self::LateLane,
        Self::LateRules,
        Self::HeldBack,
        Self::Retention,
        Self::ToldEarly,
    ];
}

/// How often, in all worlds of a test.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally(Arc<Mutex<BTreeMap<Mishap, u64>>>);

impl Tally {
    pub(super) fn count(&self, mishap: Mishap) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(mishap).or_default() += 1;
    }

    pub(super) fn of(&self, mishap: Mishap) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&mishap).copied().unwrap_or_default()
    }

    /// At the end of a test: says what was done, and asserts that each of these was.
    pub(super) fn had(&self, promised: impl IntoIterator<Item = Mishap>) {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        println!("{}: {counts:?}", std::thread::current().name().unwrap_or_default());
        for mishap in promised {
            assert!(counts.contains_key(&mishap), "the test promises {mishap:?}, and had none: {counts:?}");
        }
    }
}
