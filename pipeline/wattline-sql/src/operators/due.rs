//! When something is to be done about which key.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Keys by moments; a key may have several.
#[derive(Debug, Default)]
pub(crate) struct Due {
    first: BinaryHeap<Reverse<(i64, u32)>>,
    last_noted: Option<(i64, u32)>,
}

impl Due {
    /// At that moment, microseconds, something is to be done about the key.
    pub(crate) fn note(&mut self, at_us: i64, key: usize) {
        let noted = (at_us, u32::try_from(key).unwrap_or(u32::MAX));
        if self.last_noted.replace(noted) != Some(noted) {
            self.first.push(Reverse(noted));
        }
    }

    /// The first moment.
    pub(crate) fn first_us(&self) -> Option<i64> {
        self.first.peek().map(|Reverse((at_us, _))| *at_us)
    }

    /// Takes out the keys with moments up to this one, each once, ascending.
    pub(crate) fn take_until(&mut self, until_us: i64) -> Vec<usize> {
        self.last_noted = None;
        let mut keys = Vec::new();
        if until_us == i64::MAX {
            keys.extend(self.first.drain().map(|Reverse((_, key))| key as usize));
        }
        while self.first_us().is_some_and(|first_us| first_us <= until_us) {
            keys.extend(self.first.pop().map(|Reverse((_, key))| key as usize));
        }
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Gives each key its new number; those without one are forgotten, and so is what was noted twice.
    pub(crate) fn renumber(&mut self, numbers: &[Option<u32>]) {
        let before = std::mem::take(self).first.into_vec();
        let renumbered = before.into_iter().filter_map(|Reverse((at_us, key))| {
            let key = numbers.get(key as usize).copied().flatten()?;
            Some(Reverse((at_us, key)))
        });
        let mut renumbered: Vec<Reverse<(i64, u32)>> = renumbered.collect();
        renumbered.sort_unstable();
        renumbered.dedup();
        self.first = renumbered.into();
    }

    /// Memory held.
    pub(crate) fn bytes(&self) -> usize {
        self.first.capacity() * size_of::<Reverse<(i64, u32)>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_once_and_by_their_moments() {
        let mut due = Due::default();
        for (at_us, key) in [(5, 2), (1, 9), (1, 9), (3, 2), (8, 0), (3, 1)] {
            due.note(at_us, key);
        }
        assert_eq!(due.first_us(), Some(1));
        assert_eq!(due.take_until(3), [1, 2, 9]);
        assert_eq!(due.first_us(), Some(5));
        due.renumber(&[None, None, Some(0)]);
        assert_eq!(due.take_until(i64::MAX), [0]);
        assert_eq!(due.first_us(), None);
    }

    #[test]
    fn a_moment_noted_again_after_it_was_taken_is_there_again() {
        let mut due = Due::default();
        due.note(1, 4);
        assert_eq!(due.take_until(1), [4]);
        due.note(1, 4);
        assert_eq!(due.take_until(1), [4]);
    }
}
