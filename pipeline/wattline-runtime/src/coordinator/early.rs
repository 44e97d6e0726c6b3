//! Alerts that are told before they are committed: of rules with `delivery = "low_latency"`.
//!
//! ```text
//! worker has rows of such a rule ─▶ barrier ─▶ fold ─▶ publish at once          (no tick, no link)
//! the next tick                                     ─▶ … put manifest n ─▶ transaction with the others, marker n
//! ```
//! What was published at once is left out of the transaction of its link. It stands in the link and in the table as all alerts do,
//! and the marker is set even if nothing is left for the transaction.
//!
//! - Dies the process before the link, its successor reads the same events and folds the same alerts. Each is known by rule,
//!   entity and the event that it comes from, and by nothing that depends on when a tick was cut (the planner refuses rules of
//!   which more is to be known), so what is published again has the ids that were out.
//! - Dies it after the link and before the marker, the successor cannot know which were out, and publishes all of the link.
//! - If they cannot be published at once, or not in time, all of them go with the transaction of their link, and nothing
//!   is told early until then: a broker that does not answer holds up one round and not each.
//!
//! So an alert is out at least once, and always under one id. A round between ticks takes from the workers what a tick without
//! alerts would take; watermarks, windows and links are left to the ticks.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use tokio::sync::Notify;
use wattline_core::alert::AlertRecord;

use super::{Coordinator, RulePlan, events};
use crate::error::Result;
use crate::port::RuleRows;
use crate::worker::WorkerMessage;

/// Which rules do not wait, and the bell that workers ring when they have rows of one.
#[derive(Debug)]
pub(crate) struct EarlyRules {
    /// By number of the rule.
    is_early: Vec<bool>,
    /// Ids of these rules.
    ids: Vec<String>,
    /// Whether workers ring at all.
    rings: bool,
    bell: Notify,
}

impl EarlyRules {
    /// Those of a job; none if there is no topic. `rings` says whether rows are folded where they are found.
    pub(super) fn of(rules: &[RulePlan], rings: bool, has_topic: bool) -> Self {
        let is_early = |rule: &RulePlan| has_topic && rule.alert.as_ref().is_some_and(|alert| alert.early);
        Self {
            is_early: rules.iter().map(is_early).collect(),
            ids: rules.iter().filter(|rule| is_early(rule)).map(|rule| rule.id.clone()).collect(),
            rings,
            bell: Notify::new(),
        }
    }

    /// A worker has these rows.
    pub(crate) fn note(&self, rows: &[RuleRows]) {
        if self.rings && rows.iter().any(|of| self.is_early[of.rule] && of.batch.num_rows() > 0) {
            self.bell.notify_one();
        }
    }

    /// Waits until a worker has had rows since the last time.
    pub(super) async fn come(&self) {
        self.bell.notified().await;
    }

    /// Whether an alert is told early: it must be known by its event.
    pub(super) fn tells(&self, record: &AlertRecord) -> bool {
        record.source.is_some() && self.ids.contains(&record.rule_id)
    }
}

/// What is left for the transaction of an epoch.
pub(super) fn not_told<'a>(alerts: &'a [AlertRecord], told_early: &BTreeSet<String>) -> Cow<'a, [AlertRecord]> {
    match told_early.is_empty() {
        true => Cow::Borrowed(alerts),
        false => alerts.iter().filter(|record| !told_early.contains(&record.id())).cloned().collect(),
    }
}

impl Coordinator {
    /// Sets those aside that do not wait for their link.
    pub(super) fn set_early_aside(&mut self, records: &[AlertRecord]) {
        let early = records.iter().filter(|record| self.early.tells(record)).cloned();
        self.uncommitted.early.extend(early);
    }

    /// Between two ticks: takes what the workers have, and tells the alerts that do not wait. The next tick commits them.
    pub(super) async fn tell_early(&mut self) -> Result<()> {
        if self.early_failed {
            return Ok(());
        }
        // Without a checkpoint the workers keep the raw rows.
        let mut raw: BTreeMap<usize, Vec<RecordBatch>> = BTreeMap::new();
        let barrier = |reply| WorkerMessage::Barrier { checkpoint: false, program: None, reply };
        for report in self.ask_workers(barrier).await? {
            self.absorb(report, &mut raw)?;
        }
        self.publish_early().await;
        Ok(())
    }

    /// Publishes the alerts that do not wait for their link. Those that cannot be published go with it.
    pub(super) async fn publish_early(&mut self) {
        let records = std::mem::take(&mut self.uncommitted.early);
        if records.is_empty() || self.early_failed {
            return;
        }
        let Some(sink) = self.alert_sink.clone() else { return };
        match sink.publish_early(&records).await {
            Ok(()) => self.uncommitted.told.extend(records.iter().map(AlertRecord::id)),
            Err(error) => {
                events::EarlyAlertsFailed { alerts: records.len(), error: &error }.emit();
                self.early_failed = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use arrow::array::Int64Array;
    use wattline_core::alert::{AlertRow, AlertRule, Lifecycle, Severity, Source};

    use super::*;
    use crate::alerting::AlertPlan;

    fn rule(id: &str, early: bool) -> RulePlan {
        let rule = AlertRule {
            id: id.to_owned(),
            version: "1".to_owned(),
            title: id.to_owned(),
            title_zh: None,
            severity: Severity::Warning,
            standard: None,
            category: "general".to_owned(),
            unit: None,
            runbook: None,
            resolve_after: 1,
            renotify_ms: None,
        };
        let (entity, event_time) = (vec!["meter_id".to_owned()], "ts".to_owned());
        RulePlan {
            id: id.to_owned(),
            version: "1".to_owned(),
            fingerprint: id.to_owned(),
            streams: vec![0],
            delay_ms: 0,
            span_us: None,
            table: None,
            alert: Some(AlertPlan { rule, entity, event_time, is_condition: false, corrected: false, early }),
            correction: None,
            backfill: None,
        }
    }

    fn rows(rule: usize, count: i64) -> RuleRows {
        let column = Int64Array::from_iter_values(0..count);
        let batch = RecordBatch::try_from_iter([("n", Arc::new(column) as _)]).expect("batch");
        RuleRows { rule, batch, identity: None }
    }

    fn occurrence(offset: i64) -> AlertRow {
        AlertRow {
            entity: vec![("meter_id".to_owned(), "M1".to_owned())],
            event_us: 7,
            firing: None,
            severity: None,
            measured: None,
            limit_low: None,
            limit_high: None,
            unit: None,
            window_us: None,
            evidence: String::new(),
            source: Some(Source { topic: "readings".to_owned(), partition: 0, offset, index: 0 }),
        }
    }

    /// Folds these events in this order.
    fn alerts(rule: &RulePlan, offsets: &[i64]) -> Vec<AlertRecord> {
        let mut lifecycle = Lifecycle::default();
        let alert = rule.alert.as_ref().expect("an alert rule");
        offsets.iter().filter_map(|offset| lifecycle.fold(&alert.rule, occurrence(*offset))).collect()
    }

    fn ids(alerts: &[AlertRecord]) -> BTreeSet<String> {
        alerts.iter().map(AlertRecord::id).collect()
    }

    #[test]
    fn what_is_folded_again_in_another_tick_has_the_ids_that_were_told() {
        let rules = [rule("slow", false), rule("fast", true)];
        let early = EarlyRules::of(&rules, true, true);
        let (first, again) = (alerts(&rules[1], &[1, 2, 3]), alerts(&rules[1], &[3, 1, 2, 4]));
        assert!(first.iter().all(|record| early.tells(record)));
        assert!(alerts(&rules[0], &[1, 2]).iter().all(|record| !early.tells(record)));
        assert_eq!(ids(&first).len(), 3, "each event is an alert of its own");
        assert_eq!(ids(&not_told(&again, &ids(&first))), ids(&alerts(&rules[1], &[4])), "one is left");
        assert_eq!(not_told(&again, &BTreeSet::new()).len(), again.len(), "a successor knows of none that was told");
    }

    async fn has_rung(early: &EarlyRules) -> bool {
        tokio::time::timeout(Duration::from_millis(20), early.come()).await.is_ok()
    }

    #[tokio::test]
    async fn the_bell_rings_for_rows_of_early_rules_only_and_once() {
        let rules = [rule("slow", false), rule("fast", true)];
        let early = EarlyRules::of(&rules, true, true);
        early.note(&[rows(0, 3), rows(1, 0)]);
        assert!(!has_rung(&early).await, "nothing is urgent");
        early.note(&[rows(0, 3), rows(1, 1)]);
        early.note(&[rows(1, 1)]);
        assert!(has_rung(&early).await, "it was rung before anybody waited");
        assert!(!has_rung(&early).await, "one round takes all");
        for (rings, has_topic) in [(false, true), (true, false)] {
            let early = EarlyRules::of(&rules, rings, has_topic);
            early.note(&[rows(1, 1)]);
            assert!(!has_rung(&early).await, "rings: {rings}, has a topic: {has_topic}");
        }
    }
}
