//! Keyed state that rules share.
//!
//! Feeds that are the same up to and including what they hold (same stream, delay, steps, window, groups and
//! aggregates) keep one state: the lanes evaluate and aggregate once for all of them, and only what follows runs per
//! rule. A rule that reads a `table` rule is the common case.

use crate::planner::{Feed, Hold};
use crate::rule_set::CompiledRule;

/// State of one or more rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedState {
    /// 32 hex digits of a hash over everything that decides what the state means.
    pub fingerprint: String,
    /// The rules that keep it, in ascending order of their numbers; at least one.
    pub rules: Vec<usize>,
    /// The first of these feeds, by rule and number: all others are the same.
    first: (usize, usize),
}

impl SharedState {
    /// The states of the rules, in the order of their first rules; of one rule alone if `only` names it.
    pub(crate) fn of(rules: &[CompiledRule], only: Option<usize>) -> Vec<Self> {
        let mut states: Vec<Self> = Vec::new();
        for (number, rule) in rules.iter().enumerate().filter(|(number, _)| only.is_none_or(|only| only == *number)) {
            for (feed, fingerprint) in rule.feed_fingerprints.iter().enumerate() {
                if matches!(rule.plan.feeds[feed].hold, Hold::Nothing) {
                    continue;
                }
                match states.iter_mut().find(|state| state.fingerprint == *fingerprint) {
                    Some(state) if state.rules.last() == Some(&number) => {}
                    Some(state) => state.rules.push(number),
                    None => {
                        let (fingerprint, rules) = (fingerprint.clone(), vec![number]);
                        states.push(Self { fingerprint, rules, first: (number, feed) });
                    }
                }
            }
        }
        states
    }

    /// The rule whose plan stands for all up to the state.
    pub(crate) fn rule<'a>(&self, rules: &'a [CompiledRule]) -> &'a CompiledRule {
        &rules[self.first.0]
    }

    /// The feed that stands for all.
    pub(crate) fn feed<'a>(&self, rules: &'a [CompiledRule]) -> &'a Feed {
        &rules[self.first.0].plan.feeds[self.first.1]
    }
}
