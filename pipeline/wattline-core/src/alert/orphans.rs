//! Alerts that are open and that no rule looks after any more: nothing would ever resolve them.

use std::collections::HashMap;

use super::{AlertRecord, AlertState, Lifecycle, Status};

impl Lifecycle {
    /// Resolves the open alerts that no rule looks after any more: nothing would ever resolve them. Gives the records to publish.
    pub fn withdraw(&mut self, is_looked_after: impl Fn(&AlertState) -> bool) -> Vec<AlertRecord> {
        let gone = |state: &&AlertState| state.status == Status::Open && !is_looked_after(state);
        let mut orphans: Vec<AlertState> =
            self.states.values().flat_map(HashMap::values).filter(gone).cloned().collect();
        orphans.sort_by(|a, b| (&a.rule_id, &a.entity_id).cmp(&(&b.rule_id, &b.entity_id)));
        let resolved = |state: AlertState| {
            let state = AlertState {
                status: Status::Resolved,
                revision: state.revision + 1,
                notified_us: state.last_seen_us,
                ..state
            };
            self.changed.insert((state.rule_id.clone(), state.entity_id.clone()), state.clone());
            self.restore(state.clone());
            orphaned(state)
        };
        orphans.into_iter().map(resolved).collect()
    }
}

/// The last record of an alert whose rule is gone: what the rule would say of it is not known any more.
fn orphaned(state: AlertState) -> AlertRecord {
    AlertRecord {
        fingerprint: state.fingerprint,
        revision: state.revision,
        status: Status::Resolved,
        severity: state.severity,
        rule_id: state.rule_id,
        rule_version: "removed".to_owned(),
        title: "The rule is no longer run".to_owned(),
        title_zh: Some("规则已不再运行".to_owned()),
        standard: None,
        category: "general".to_owned(),
        entity: vec![("entity".to_owned(), state.entity_id.clone())],
        entity_id: state.entity_id,
        measured: None,
        limit_low: None,
        limit_high: None,
        unit: None,
        event_us: state.last_seen_us,
        window_us: None,
        first_seen_us: state.first_seen_us,
        last_seen_us: state.last_seen_us,
        resolved_us: Some(state.last_seen_us),
        occurrences: state.occurrences,
        peak_measured: state.peak_measured,
        evidence: r#"{"reason":"the rule is no longer run"}"#.to_owned(),
        source: None,
        runbook: None,
        corrected: false,
        backfilled: false,
    }
}
