//! A search through all states that a model can come to, breadth first, so that what it finds is found by the fewest steps.
//!
//! Two questions are asked: whether a step breaks what has to hold, and, once all states are known, whether from each of them the
//! end can be reached by steps that are no faults. Without the second a protocol that stands still would be safe.
//!
//! A state is known by 128 bits of its hash; states themselves are kept only until their steps were taken.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher};

/// What may happen in a state.
pub(crate) struct Step<S> {
    /// Who does what.
    pub(crate) label: Label,
    /// Nobody relies on it to come to the end.
    pub(crate) is_fault: bool,
    /// The state after it, or what it breaks.
    pub(crate) next: Result<S, String>,
}

/// Who does what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label {
    /// A name and a number, such as `process 2`.
    pub(crate) who: (&'static str, u8),
    /// What is done, and to which number, if it has one.
    pub(crate) what: (&'static str, Option<u8>),
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((who, number), (what, which)) = (self.who, self.what);
        write!(f, "{who} {number} {what}")?;
        which.map_or(Ok(()), |which| write!(f, " {which}"))
    }
}

/// What can be searched.
pub(crate) trait Model {
    /// A state of everything that there is.
    type State: Hash;

    /// Before anything happened.
    fn start(&self) -> Self::State;

    /// All that may happen.
    fn steps(&self, state: &Self::State) -> Vec<Step<Self::State>>;

    /// Whether all work is done.
    fn is_end(&self, state: &Self::State) -> bool;
}

/// What a search has found.
pub(crate) struct Found {
    /// How many states there are, or were looked at until something was found.
    pub(crate) states: usize,
    /// What is wrong, if anything is.
    pub(crate) violation: Option<Violation>,
}

/// Something that must not be.
#[derive(Debug)]
pub(crate) struct Violation {
    /// What it is.
    pub(crate) what: String,
    /// The steps that lead to it.
    pub(crate) trace: Vec<Label>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, after", self.what)?;
        self.trace.iter().enumerate().try_for_each(|(at, label)| write!(f, "\n  {:>3}. {label}", at + 1))
    }
}

/// How the states hang together.
#[derive(Default)]
struct Graph {
    numbers: HashMap<u128, u32>,
    /// By number: the state from which it was come to first, and how.
    reached: Vec<Option<(u32, Label)>>,
    /// Steps that are no faults: from, to.
    steps: Vec<(u32, u32)>,
    ends: Vec<u32>,
}

impl Graph {
    /// The number of a state, and whether it is new.
    fn number(&mut self, state: &impl Hash, reached: Option<(u32, Label)>) -> (u32, bool) {
        let next = u32::try_from(self.reached.len()).expect("fewer states than that");
        match self.numbers.entry(fingerprint(state)) {
            Entry::Occupied(known) => (*known.get(), false),
            Entry::Vacant(place) => {
                place.insert(next);
                self.reached.push(reached);
                (next, true)
            }
        }
    }

    fn trace(&self, mut of: u32, last: Option<Label>) -> Vec<Label> {
        let mut trace: Vec<Label> = last.into_iter().collect();
        while let Some((before, label)) = self.reached[of as usize] {
            trace.push(label);
            of = before;
        }
        trace.reverse();
        trace
    }

    /// The first state from which the end cannot be reached.
    fn dead_end(mut self) -> Option<Vec<Label>> {
        self.steps.sort_unstable_by_key(|(_, to)| *to);
        let mut can_end = vec![false; self.reached.len()];
        let mut open = std::mem::take(&mut self.ends);
        open.iter().for_each(|end| can_end[*end as usize] = true);
        while let Some(state) = open.pop() {
            let begin = self.steps.partition_point(|(_, to)| *to < state);
            for (from, _) in self.steps[begin..].iter().take_while(|(_, to)| *to == state) {
                if !std::mem::replace(&mut can_end[*from as usize], true) {
                    open.push(*from);
                }
            }
        }
        let first = can_end.iter().position(|can_end| !can_end)?;
        Some(self.trace(u32::try_from(first).expect("a number of a state"), None))
    }
}

fn fingerprint(state: &impl Hash) -> u128 {
    let mut hasher = Fnv128(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
    state.hash(&mut hasher);
    hasher.0
}

/// FNV-1a of 128 bits, by numbers instead of bytes where there are numbers.
struct Fnv128(u128);

impl Fnv128 {
    fn add(&mut self, number: u64) {
        self.0 = (self.0 ^ u128::from(number)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
}

impl Hasher for Fnv128 {
    fn finish(&self) -> u64 {
        unreachable!("all bits are wanted")
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.add(u64::from(*byte)));
    }

    fn write_u8(&mut self, number: u8) {
        self.add(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.add(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.add(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.add(number as u64);
    }
}

/// Goes through all states of a model.
pub(crate) fn search<M: Model>(model: &M) -> Found {
    let mut graph = Graph::default();
    let start = model.start();
    graph.number(&start, None);
    let mut open = VecDeque::from([(0, start)]);
    while let Some((number, state)) = open.pop_front() {
        if model.is_end(&state) {
            graph.ends.push(number);
        }
        for Step { label, is_fault, next } in model.steps(&state) {
            let next = match next {
                Ok(next) => next,
                Err(what) => {
                    let violation = Violation { what, trace: graph.trace(number, Some(label)) };
                    return Found { states: graph.reached.len(), violation: Some(violation) };
                }
            };
            let (to, is_new) = graph.number(&next, Some((number, label)));
            if !is_fault {
                graph.steps.push((number, to));
            }
            if is_new {
                open.push_back((to, next));
            }
        }
    }
    let states = graph.reached.len();
    let violation = graph.dead_end().map(|trace| Violation { what: "the end cannot be reached".to_owned(), trace });
    Found { states, violation }
}

/// Searches a model in which nothing is left out: nothing may be wrong, and there have to be about as many states as ever.
pub(crate) fn holds<M: Model>(name: &str, model: &M, states_min: usize) {
    let Found { states, violation } = search(model);
    eprintln!("{name}: {states} states");
    if let Some(violation) = violation {
        panic!("{name}: {violation}");
    }
    assert!(
        states >= states_min,
        "{name}: {states} states only, of {states_min}: what does the model not do any more?"
    );
}

/// Searches a model in which something is left out: that has to show.
pub(crate) fn is_caught<M: Model>(name: &str, model: &M) {
    let Found { states, violation } = search(model);
    match violation {
        Some(violation) => eprintln!("{name}, found after {states} states: {violation}"),
        None => panic!("{name}: nothing is wrong in {states} states"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts up to the end, by ones or by twos; from `pit` on nothing moves.
    struct Count {
        end: u8,
        pit: u8,
        forbidden: u8,
    }

    impl Model for Count {
        type State = u8;

        fn start(&self) -> u8 {
            0
        }

        fn steps(&self, state: &u8) -> Vec<Step<u8>> {
            let step = |by: u8| {
                let next = if state + by == self.forbidden { Err("forbidden".to_owned()) } else { Ok(state + by) };
                Step { label: Label { who: ("counter", 0), what: ("adds", Some(by)) }, is_fault: by == 1, next }
            };
            if *state >= self.end || *state == self.pit { Vec::new() } else { vec![step(1), step(2)] }
        }

        fn is_end(&self, state: &u8) -> bool {
            *state >= self.end
        }
    }

    fn found(end: u8, pit: u8, forbidden: u8) -> (usize, Option<(String, usize)>) {
        let found = search(&Count { end, pit, forbidden });
        (found.states, found.violation.map(|of| (of.what, of.trace.len())))
    }

    #[test]
    fn it_finds_what_is_forbidden_and_where_nothing_goes_on() {
        assert_eq!(found(9, 99, 99), (11, None));
        assert_eq!(found(9, 99, 7).1, Some(("forbidden".to_owned(), 4)));
        // Only by a fault could the pit be left aside.
        assert_eq!(found(8, 4, 99).1, Some(("the end cannot be reached".to_owned(), 0)));
    }
}
