//! Keyed state that rules share.
//!
//! Rules whose plans are the same up to and including the window (same stream, delay, steps, window, groups and
//! aggregates) keep one set of groups: the lanes evaluate and aggregate once for all of them, and only the steps
//! after the window run per rule. A rule that reads a `table` rule is the common case. The rows that wait in an
//! [`OrderBuffer`](crate::operators::OrderBuffer) are output rows, so each such rule has its own.

use crate::rule_set::CompiledRule;

/// State of one or more rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedState {
    /// 32 hex digits of a hash over everything that decides what the state means.
    pub fingerprint: String,
    /// The rules that keep it, in ascending order of their numbers; at least one.
    pub rules: Vec<usize>,
}

impl SharedState {
    /// The states of the rules, in the order of their first rules.
    pub(crate) fn of(rules: &[CompiledRule]) -> Vec<Self> {
        let mut states: Vec<Self> = Vec::new();
        for (number, rule) in rules.iter().enumerate() {
            let Some(fingerprint) = &rule.state_fingerprint else { continue };
            match states.iter_mut().find(|state| state.fingerprint == *fingerprint) {
                Some(state) => state.rules.push(number),
                None => states.push(Self { fingerprint: fingerprint.clone(), rules: vec![number] }),
            }
        }
        states
    }

    /// The rule whose plan stands for all up to the window.
    pub(crate) fn first<'a>(&self, rules: &'a [CompiledRule]) -> &'a CompiledRule {
        &rules[self.rules[0]]
    }
}
