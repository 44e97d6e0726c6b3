//! The past of an alert rule that is new, folded anew: what of it is told, and what only stands in the table.
//!
//! The rows of the past go through a lifecycle of their own, which begins with what is known of the rule's alerts: an older
//! version of the rule may have told of some, and revisions go on from there. Nobody is called out of bed for what is over:
//!
//! ```text
//! record ──▶ newest of its entity ──the next one of that entity──▶ settled: in the table only
//!               │ resolved, and was not open before the past ─────▶ settled
//!               └─ still there when the past ends ────────────────▶ told: the alert is open now, or is open no more
//! ```
//! An occurrence has no further life: it is settled at once. What is kept is one record for each alert that is open.

use std::collections::{BTreeMap, BTreeSet};

use super::{AlertRecord, Lifecycle, Status};

/// The alerts of one rule while its past is folded.
#[derive(Debug)]
pub struct History {
    rule_id: String,
    lifecycle: Lifecycle,
    /// Entities whose alerts were open before: who was told of them is told how they stand now.
    was_open: BTreeSet<String>,
    /// By entity.
    newest: BTreeMap<String, AlertRecord>,
}

impl History {
    /// Begins with what is known of the rule's alerts.
    pub fn of(rule_id: &str, known: &Lifecycle) -> Self {
        let states = known.states.get(rule_id).cloned().unwrap_or_default();
        let was_open = states.values().filter(|state| state.status == Status::Open);
        let was_open = was_open.map(|state| state.entity_id.clone()).collect();
        let mut lifecycle = Lifecycle::default();
        lifecycle.states.insert(rule_id.to_owned(), states);
        Self { rule_id: rule_id.to_owned(), lifecycle, was_open, newest: BTreeMap::new() }
    }

    /// Where the rows of the past are folded, in order of event time.
    pub fn lifecycle(&mut self) -> &mut Lifecycle {
        &mut self.lifecycle
    }

    /// Takes in a record that the fold gave; gives those that are settled by it.
    pub fn note(&mut self, record: AlertRecord) -> Vec<AlertRecord> {
        let record = AlertRecord { backfilled: true, ..record };
        let of_rule = self.lifecycle.states.get(&self.rule_id);
        let state = of_rule.and_then(|by_entity| by_entity.get(&record.entity_id));
        if state.is_none_or(|state| state.fingerprint != record.fingerprint) {
            return vec![record];
        }
        let mut settled: Vec<AlertRecord> = self.newest.remove(&record.entity_id).into_iter().collect();
        if record.status == Status::Resolved && !self.was_open.contains(&record.entity_id) {
            settled.push(record);
        } else {
            self.newest.insert(record.entity_id.clone(), record);
        }
        settled
    }

    /// The past is over: `known` takes over how the alerts stand. Gives the records that are told.
    pub fn end(mut self, known: &mut Lifecycle) -> Vec<AlertRecord> {
        for state in self.lifecycle.take_changes() {
            known.changed.insert((state.rule_id.clone(), state.entity_id.clone()), state.clone());
            known.restore(state);
        }
        self.newest.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AlertRow, AlertRule, Severity};
    use super::*;

    fn rule() -> AlertRule {
        AlertRule {
            id: "voltage".into(),
            version: "2".into(),
            title: "voltage".into(),
            title_zh: None,
            severity: Severity::Warning,
            standard: None,
            category: "pq".into(),
            unit: None,
            runbook: None,
            resolve_after: 1,
            renotify_ms: None,
        }
    }

    fn row(meter: &str, event_us: i64, firing: Option<bool>) -> AlertRow {
        AlertRow {
            entity: vec![("meter_id".into(), meter.into())],
            event_us,
            firing,
            severity: None,
            measured: None,
            limit_low: None,
            limit_high: None,
            unit: None,
            window_us: None,
            evidence: event_us.to_string(),
            source: None,
        }
    }

    type Told = Vec<(String, u64, Status)>;

    fn shown(records: Vec<AlertRecord>) -> Told {
        assert!(records.iter().all(|record| record.backfilled));
        records.into_iter().map(|record| (record.entity_id, record.revision, record.status)).collect()
    }

    fn of(meter: &str, revision: u64, status: Status) -> (String, u64, Status) {
        (meter.to_owned(), revision, status)
    }

    /// Folds rows through the past of a rule; what is settled, and what is told at its end.
    fn fold(known: &mut Lifecycle, rows: &[(&str, Option<bool>)]) -> (Told, Told) {
        let mut history = History::of("voltage", known);
        let mut settled = Vec::new();
        for (event_us, (meter, firing)) in (0..).zip(rows) {
            let record = history.lifecycle().fold(&rule(), row(meter, event_us, *firing));
            record.into_iter().for_each(|record| settled.extend(history.note(record)));
        }
        (shown(settled), shown(history.end(known)))
    }

    #[test]
    fn only_alerts_that_are_open_now_are_told() {
        let mut known = Lifecycle::default();
        let rows = [
            ("A", Some(true)),
            ("B", Some(true)),
            ("A", Some(false)),
            ("A", Some(true)),
            ("A", Some(true)),
            ("B", Some(false)),
        ];
        let (settled, told) = fold(&mut known, &rows);
        let over = [
            of("A", 1, Status::Open),
            of("A", 2, Status::Resolved),
            of("B", 1, Status::Open),
            of("B", 2, Status::Resolved),
        ];
        assert_eq!((&settled[..], &told[..]), (&over[..], &[of("A", 3, Status::Open)][..]));
        assert_eq!(known.open_count(), 1);
        assert_eq!(known.take_changes().len(), 2, "the next link says how both stand");
        let next = known.fold(&rule(), row("A", 99, Some(false))).expect("told");
        assert_eq!((next.revision, next.status, next.occurrences), (4, Status::Resolved, 2));
    }

    #[test]
    fn who_was_told_of_an_alert_is_told_how_it_stands_now() {
        let mut known = Lifecycle::default();
        for meter in ["A", "B", "C"] {
            known.fold(&rule(), row(meter, 500, Some(true))).expect("told");
        }
        // The changed rule says nothing of C, whose alert stays open as it was.
        let rows = [("A", Some(false)), ("B", Some(false)), ("B", Some(true))];
        let (settled, told) = fold(&mut known, &rows);
        assert_eq!(settled, [of("B", 2, Status::Resolved)]);
        assert_eq!(told, [of("A", 2, Status::Resolved), of("B", 3, Status::Open)]);
        assert_eq!(known.open_count(), 2);
    }

    #[test]
    fn occurrences_of_the_past_are_not_told() {
        let mut known = Lifecycle::default();
        let (settled, told) = fold(&mut known, &[("A", None), ("A", None)]);
        assert_eq!((settled.len(), told.len()), (2, 0));
    }
}
