//! Which states number their keys together, and for how long.
//!
//! Numbers are never given back, so keys that do not come any more would stay for ever. So from time to time windows that begin are given
//! new numbers, and the old ones are gone with the last window that has them: when no open window has any, or when there are several times
//! as many as a window has groups.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::FinalState;
use crate::operators::{KeyNumbers, SharedKeyNumbers};
use crate::planner::Hold;
use crate::rule_set::CompiledRule;
use crate::shared_state::SharedState;

/// So many times the groups of the largest window are kept as numbers, and this many more.
const TIMES_MAX: usize = 4;
const SPARE_NUMBERS: usize = if cfg!(test) { 8 } else { 64 * 1024 };

/// States with keys of the same types.
#[derive(Debug)]
pub(super) struct SharedKeys {
    states: Vec<usize>,
    numbers: SharedKeyNumbers,
    /// Those before that windows still have.
    old: Vec<Weak<Mutex<KeyNumbers>>>,
}

impl SharedKeys {
    /// Of all states. A state that is alone with its types finds its groups by their keys: numbers would only be more to keep.
    pub(super) fn of(shared: &[SharedState], rules: &[CompiledRule]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for (number, state) in shared.iter().enumerate() {
            let Hold::Windows(window) = &state.feed(rules).hold else { continue };
            if window.keys.is_empty() {
                continue;
            }
            match all.iter_mut().find(|of| lock(&of.numbers, |numbers| numbers.fits(&window.key_schema))) {
                Some(of) => of.states.push(number),
                None => {
                    let numbers = Arc::new(Mutex::new(KeyNumbers::new(&window.key_schema)));
                    all.push(Self { states: vec![number], numbers, old: Vec::new() });
                }
            }
        }
        all.retain(|of| of.states.len() > 1);
        all
    }

    /// Has a state number its keys with the others, if it is one of them.
    pub(super) fn give(&self, number: usize, state: &mut FinalState) {
        if let FinalState::Windows(panes) = state
            && self.states.contains(&number)
        {
            panes.number_with(&self.numbers);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let old = self.old.iter().filter_map(Weak::upgrade).map(|numbers| lock(&numbers, |numbers| numbers.len()));
        old.sum::<usize>() + lock(&self.numbers, |numbers| numbers.len())
    }

    /// Memory of the keys.
    pub(super) fn bytes(&self) -> usize {
        let old: usize =
            self.old.iter().filter_map(Weak::upgrade).map(|numbers| lock(&numbers, |numbers| numbers.bytes())).sum();
        old + lock(&self.numbers, |numbers| numbers.bytes())
    }

    /// Lets go of what nobody needs. The states are those of the program.
    pub(super) fn tidy(&mut self, states: &mut [FinalState]) {
        let of_state = |state: &usize| match &states[*state] {
            FinalState::Windows(panes) => panes.most_numbered(&self.numbers),
            FinalState::Ordered(_) => 0,
        };
        let groups = self.states.iter().map(of_state).max().unwrap_or_default();
        let keys = lock(&self.numbers, |numbers| {
            numbers.forget_answers();
            numbers.len()
        });
        self.old.retain(|numbers| numbers.strong_count() > 0);
        if keys == 0 || (groups > 0 && keys <= TIMES_MAX * groups + SPARE_NUMBERS) {
            return;
        }
        let new = lock(&self.numbers, |numbers| numbers.anew());
        let before = std::mem::replace(&mut self.numbers, Arc::new(Mutex::new(new)));
        self.old.push(Arc::downgrade(&before));
        for state in self.states.clone() {
            self.give(state, &mut states[state]);
        }
    }
}

fn lock<T>(numbers: &SharedKeyNumbers, what: impl FnOnce(&mut KeyNumbers) -> T) -> T {
    what(&mut numbers.lock().unwrap_or_else(PoisonError::into_inner))
}
