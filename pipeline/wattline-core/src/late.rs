//! Which stretches of event time late events lie in, as far as they are still to correct results.
//!
//! Stretches that can share a result are one; those that cannot stay apart, so that an event of last month and one of ten
//! minutes ago do not have all between them computed again. There are never more than [`STRETCHES_MAX`]: then the nearest two
//! become one, which costs reading and nothing else.

use serde::{Deserialize, Serialize};

/// Most stretches that are kept apart.
pub const STRETCHES_MAX: usize = 16;

/// Stretches of event time, first and last instant each, microseconds since the epoch; ascending, apart from each other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LateStretches(Vec<(i64, i64)>);

impl LateStretches {
    /// Whether no late event waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The stretches.
    pub fn iter(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.0.iter().copied()
    }

    /// Adds a stretch; what is no farther apart than `reach_us` becomes one.
    pub fn add(&mut self, (first_us, last_us): (i64, i64), reach_us: i64) {
        let at = self.0.partition_point(|stretch| stretch.0 < first_us);
        self.0.insert(at, (first_us, last_us));
        let near = |before: &(i64, i64), next: &(i64, i64)| next.0.saturating_sub(before.1) <= reach_us;
        self.0.dedup_by(|next, before| {
            let joins = near(before, next);
            before.1 = if joins { before.1.max(next.1) } else { before.1 };
            joins
        });
        while self.0.len() > STRETCHES_MAX {
            let gap = |at: &usize| self.0[at + 1].0.saturating_sub(self.0[*at].1);
            let Some(at) = (0..self.0.len() - 1).min_by_key(gap) else { break };
            let next = self.0.remove(at + 1);
            self.0[at].1 = self.0[at].1.max(next.1);
        }
    }

    /// Adds all of another.
    pub fn add_all(&mut self, other: &Self, reach_us: i64) {
        other.iter().for_each(|stretch| self.add(stretch, reach_us));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_within_reach_are_one_and_others_stay_apart() {
        let mut late = LateStretches::default();
        for instant in [500, 100, 103, 106, 20] {
            late.add((instant, instant), 5);
        }
        assert_eq!(late.iter().collect::<Vec<_>>(), [(20, 20), (100, 106), (500, 500)]);
        late.add((0, 600), 5);
        assert_eq!(late.iter().collect::<Vec<_>>(), [(0, 600)]);
    }

    #[test]
    fn there_are_never_too_many() {
        let mut late = LateStretches::default();
        for instant in 0..100 {
            late.add((instant * instant, instant * instant), 0);
        }
        assert_eq!(late.iter().count(), STRETCHES_MAX);
        assert_eq!((late.iter().next().map(|s| s.0), late.iter().last()), (Some(0), Some((9_801, 9_801))));
        assert!(late.iter().zip(late.iter().skip(1)).all(|(a, b)| a.1 < b.0));
    }

    #[test]
    fn a_reach_without_end_makes_one_of_all() {
        let mut late = LateStretches::default();
        late.add((5, 6), i64::MAX);
        late.add((i64::MAX - 1, i64::MAX), i64::MAX);
        assert_eq!(late.iter().count(), 1);
    }
}
