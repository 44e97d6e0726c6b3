//! The life of an alert: it opens, updates, resolves.
//!
//! [`Lifecycle`] folds the final rows of alert rules, in order of event time, into alert records. It keeps one
//! [`AlertState`] per (rule, entity) that ever fired, because a condition that comes back continues under the
//! same fingerprint with the next revision; a consumer that keeps the newest revision of each fingerprint has
//! the truth, and `fingerprint:revision` names a record for ever.
//!
//! ```text
//!            firing                     firing: severity changed, or the renotify period has passed
//!  (none) ───────────▶ open ─────────────────────▶ update ─┐
//!                        │  ◀──────────────────────────────┘
//!                        │ `resolve_after` rows in a row not firing
//!                        ▼              firing
//!                    resolved ───────────────────▶ open, next revision
//! ```
//!
//! A row of a rule without a `firing` column is an occurrence: it opens an alert of its own and has no further life.
//!
//! Where late events correct the rows of a rule, [`Lifecycle::correct`] is told each row as it was and as it is, and how the
//! entity stands now. A row that should have fired counts as one more, and opens the alert unless rows after it have settled
//! it; a row that should not have fired is taken out of the count, and the last one out resolves the alert. An occurrence that
//! was none is resolved. Of openings that are over, only the last is corrected.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

mod exact;
mod history;
mod orphans;

pub use history::History;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Someone should look.
    Warning,
    /// Someone must act.
    Critical,
}

/// Where an alert stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The condition began to hold, or something occurred.
    Open,
    /// The condition still holds and something about it changed.
    Update,
    /// The condition no longer holds.
    Resolved,
}

macro_rules! text_of {
    ($type:ident, $($variant:ident => $text:literal),+) => {
        impl $type {
            /// The word used in tables and messages.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// Reads the word back.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
text_of!(Severity, Info => "info", Warning => "warning", Critical => "critical");
text_of!(Status, Open => "open", Update => "update", Resolved => "resolved");

/// What the lifecycle needs to know of an alert rule.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertRule {
    /// Rule id.
    pub id: String,
    /// Version from the header, such as `1` or `2.1`; its first number is part of the fingerprint.
    pub version: String,
    /// One line for people.
    pub title: String,
    /// The same in Chinese.
    pub title_zh: Option<String>,
    /// Severity unless a row says otherwise.
    pub severity: Severity,
    /// The standard and clause behind the limit.
    pub standard: Option<String>,
    /// Area of the rule, such as `power_quality`.
    pub category: String,
    /// Unit of `measured` and the limits, unless a row says otherwise.
    pub unit: Option<String>,
    /// Where the person on call reads on.
    pub runbook: Option<String>,
    /// Rows in a row that must not fire before the alert resolves; at least 1.
    pub resolve_after: u32,
    /// Event time after which a still firing alert is told again; never if absent.
    pub renotify_ms: Option<i64>,
}

/// The event that a row of a stateless rule stems from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Topic or file.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Position in the record.
    pub index: i32,
}

/// One final row of an alert rule.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertRow {
    /// Entity as column and value, in the order of the rule's header.
    pub entity: Vec<(String, String)>,
    /// Event time of the row, microseconds since the epoch.
    pub event_us: i64,
    /// Whether the condition holds; absent for occurrences.
    pub firing: Option<bool>,
    /// Severity of this row.
    pub severity: Option<Severity>,
    /// The value that was judged.
    pub measured: Option<f64>,
    /// Lower limit.
    pub limit_low: Option<f64>,
    /// Upper limit.
    pub limit_high: Option<f64>,
    /// Unit of the three values above.
    pub unit: Option<String>,
    /// Window of the row, microseconds since the epoch.
    pub window_us: Option<(i64, i64)>,
    /// All columns of the row as a JSON object.
    pub evidence: String,
    /// The event behind the row, if there is exactly one.
    pub source: Option<Source>,
}

/// What is remembered of one alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertState {
    /// Rule id.
    pub rule_id: String,
    /// Entity values joined by `|`.
    pub entity_id: String,
    /// Stable name of the alert.
    pub fingerprint: String,
    /// Revision of the last record.
    pub revision: u64,
    /// Where it stands; [`Status::Update`] is kept as [`Status::Open`].
    pub status: Status,
    /// Severity of the last record.
    pub severity: Severity,
    /// First firing row of the current opening.
    pub first_seen_us: i64,
    /// Last firing row.
    pub last_seen_us: i64,
    /// Event time of the last record.
    pub notified_us: i64,
    /// Firing rows of the current opening.
    pub occurrences: u64,
    /// The measured value farthest outside its limits.
    #[serde(with = "exact")]
    pub peak_measured: Option<f64>,
    /// How far that value lies outside; absent if nothing was measured.
    #[serde(with = "exact")]
    pub peak_excess: Option<f64>,
    /// Rows in a row that did not fire.
    pub calm_rows: u32,
}

/// How an entity stands by its newest rows, late events included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// The time of the row that resolved the alert, if no row after it fires.
    pub settled_us: Option<i64>,
    /// Rows since the last one that fires.
    pub calm_rows: u32,
    /// The time of that one, if one is known.
    pub last_firing_us: Option<i64>,
}

/// One revision of an alert, as consumers see it. Times are microseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertRecord {
    /// Stable name of the alert: a hash of rule, major version and entity (and of the row, for occurrences).
    pub fingerprint: String,
    /// Counts the records of a fingerprint from 1.
    pub revision: u64,
    /// Open, update or resolved.
    pub status: Status,
    /// How bad it is.
    pub severity: Severity,
    /// Rule id.
    pub rule_id: String,
    /// Version of the rule.
    pub rule_version: String,
    /// Title of the rule.
    pub title: String,
    /// The same in Chinese.
    pub title_zh: Option<String>,
    /// Standard and clause.
    pub standard: Option<String>,
    /// Area of the rule.
    pub category: String,
    /// Entity as column and value.
    pub entity: Vec<(String, String)>,
    /// Entity values joined by `|`.
    pub entity_id: String,
    /// The value that was judged.
    #[serde(with = "exact")]
    pub measured: Option<f64>,
    /// Lower limit.
    #[serde(with = "exact")]
    pub limit_low: Option<f64>,
    /// Upper limit.
    #[serde(with = "exact")]
    pub limit_high: Option<f64>,
    /// Unit of the values.
    pub unit: Option<String>,
    /// Event time of the row behind this record.
    pub event_us: i64,
    /// Window of that row.
    pub window_us: Option<(i64, i64)>,
    /// First firing row.
    pub first_seen_us: i64,
    /// Last firing row.
    pub last_seen_us: i64,
    /// When the condition was found to hold no longer.
    pub resolved_us: Option<i64>,
    /// Firing rows so far.
    pub occurrences: u64,
    /// The measured value farthest outside its limits.
    #[serde(with = "exact")]
    pub peak_measured: Option<f64>,
    /// All columns of the row as a JSON object.
    pub evidence: String,
    /// The event behind the row, if there is exactly one.
    pub source: Option<Source>,
    /// Where the person on call reads on.
    pub runbook: Option<String>,
    /// Whether late events changed what had been said before.
    pub corrected: bool,
    /// Whether it comes of the past of a rule that is new, as the archive holds it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub backfilled: bool,
}

impl AlertRecord {
    /// Name of this record, the same on every re-execution.
    pub fn id(&self) -> String {
        format!("{}:{}", self.fingerprint, self.revision)
    }
}

/// The alerts of all rules.
#[derive(Debug, Default)]
pub struct Lifecycle {
    states: HashMap<String, HashMap<String, AlertState>>,
    changed: BTreeMap<(String, String), AlertState>,
}

impl Lifecycle {
    /// Takes in a state from a manifest or a snapshot.
    pub fn restore(&mut self, state: AlertState) {
        self.states.entry(state.rule_id.clone()).or_default().insert(state.entity_id.clone(), state);
    }

    /// The states that changed since the last call, in a stable order.
    pub fn take_changes(&mut self) -> Vec<AlertState> {
        std::mem::take(&mut self.changed).into_values().collect()
    }

    /// Every state, in a stable order.
    pub fn snapshot(&self) -> Vec<AlertState> {
        let mut all: Vec<AlertState> = self.states.values().flat_map(|by_entity| by_entity.values().cloned()).collect();
        all.sort_by(|a, b| (&a.rule_id, &a.entity_id).cmp(&(&b.rule_id, &b.entity_id)));
        all
    }

    /// Number of alerts that are open.
    pub fn open_count(&self) -> usize {
        self.states.values().flat_map(HashMap::values).filter(|state| state.status == Status::Open).count()
    }

    /// Whether a row that does not fire matters for this entity: only then must the caller build an [`AlertRow`].
    pub fn is_open(&self, rule_id: &str, entity_id: &str) -> bool {
        self.states
            .get(rule_id)
            .and_then(|by_entity| by_entity.get(entity_id))
            .is_some_and(|state| state.status == Status::Open)
    }

    /// Folds one row, in order of event time per entity; gives the record to publish, if any.
    pub fn fold(&mut self, rule: &AlertRule, row: AlertRow) -> Option<AlertRecord> {
        let Some(firing) = row.firing else {
            return Some(occurrence(rule, row));
        };
        let entity_id = entity_id(&row.entity);
        let state = self.states.get(&rule.id).and_then(|by_entity| by_entity.get(&entity_id));
        let (state, status) = decide(rule, state, &row, &entity_id, firing)?;
        self.changed.insert((rule.id.clone(), entity_id.clone()), state.clone());
        let record = status.map(|status| record(rule, row, &state, status));
        self.states.entry(rule.id.clone()).or_default().insert(entity_id, state);
        record
    }

    /// Takes in that late events changed a row: what it was, and what it is, and how the entity stands with all its rows. Both
    /// rows have the same entity and event time. Gives the records to publish.
    pub fn correct(
        &mut self,
        rule: &AlertRule,
        was: Option<AlertRow>,
        is: Option<AlertRow>,
        standing: Standing,
    ) -> Vec<AlertRecord> {
        let occurs = |row: &Option<AlertRow>| row.as_ref().is_some_and(|row| row.firing.is_none());
        let records: Vec<AlertRecord> = if occurs(&was) || occurs(&is) {
            let withdrawn = was.map(|row| withdrawal(rule, row));
            withdrawn.into_iter().chain(is.map(|row| occurrence(rule, row))).collect()
        } else {
            self.correct_condition(rule, was, is, standing).into_iter().collect()
        };
        records.into_iter().map(|record| AlertRecord { corrected: true, ..record }).collect()
    }

    fn correct_condition(
        &mut self,
        rule: &AlertRule,
        was: Option<AlertRow>,
        is: Option<AlertRow>,
        standing: Standing,
    ) -> Option<AlertRecord> {
        let fires = |row: &Option<AlertRow>| row.as_ref().is_some_and(|row| row.firing == Some(true));
        let (fired, fires) = (fires(&was), fires(&is));
        let row = is.or(was)?;
        let entity_id = entity_id(&row.entity);
        let state = self.states.get(&rule.id).and_then(|by_entity| by_entity.get(&entity_id));
        let was_open = state.is_some_and(|state| state.status == Status::Open);
        let mut state = recount(rule, state, &row, &entity_id, (fired, fires), standing)?;
        state.calm_rows = standing.calm_rows;
        if let Some(last_us) = standing.last_firing_us.filter(|us| *us >= state.first_seen_us) {
            state.last_seen_us = last_us;
        }
        if fires && row.event_us >= state.last_seen_us {
            state.severity = row.severity.unwrap_or(rule.severity);
        }
        state.status = match standing.settled_us {
            Some(_) => Status::Resolved,
            None if fires => Status::Open,
            None if state.occurrences == 0 => Status::Resolved,
            None => state.status,
        };
        let status = match state.status {
            Status::Resolved => Status::Resolved,
            _ if was_open => Status::Update,
            _ => Status::Open,
        };
        self.changed.insert((rule.id.clone(), entity_id.clone()), state.clone());
        let record = record(rule, row, &state, status);
        self.states.entry(rule.id.clone()).or_default().insert(entity_id, state);
        let resolved_us = record.resolved_us.map(|row_us| standing.settled_us.unwrap_or(row_us));
        Some(AlertRecord { resolved_us, ..record })
    }
}

/// The state of a condition of which one row fired and now fires or not; `None` if there is nothing to tell.
fn recount(
    rule: &AlertRule,
    state: Option<&AlertState>,
    row: &AlertRow,
    entity_id: &str,
    (fired, fires): (bool, bool),
    standing: Standing,
) -> Option<AlertState> {
    let is_added = fires && !fired;
    let Some(state) = state else { return is_added.then(|| opening(rule, None, row, entity_id)) };
    let is_open = state.status == Status::Open;
    if is_added && !is_open && row.event_us > state.last_seen_us {
        return Some(opening(rule, Some(state), row, entity_id));
    }
    let counted = (state.first_seen_us..=state.last_seen_us).contains(&row.event_us);
    let settles = is_open && standing.settled_us.is_some();
    if (fired && !counted) || !(fired || fires || settles) {
        return None;
    }
    let mut next = AlertState { revision: state.revision + 1, ..state.clone() };
    if fires && excess(row) > next.peak_excess {
        next.peak_excess = excess(row);
        next.peak_measured = row.measured;
    }
    if is_added {
        next.occurrences += 1;
        next.first_seen_us = next.first_seen_us.min(row.event_us);
        next.last_seen_us = next.last_seen_us.max(row.event_us);
    } else if !fires && fired {
        next.occurrences = next.occurrences.saturating_sub(1);
    }
    Some(next)
}

/// The state of an alert that a row opens, for the first time or again.
fn opening(rule: &AlertRule, state: Option<&AlertState>, row: &AlertRow, entity_id: &str) -> AlertState {
    AlertState {
        rule_id: rule.id.clone(),
        entity_id: entity_id.to_owned(),
        fingerprint: state.map_or_else(|| fingerprint(rule, entity_id, None), |s| s.fingerprint.clone()),
        revision: state.map_or(0, |s| s.revision) + 1,
        status: Status::Open,
        severity: row.severity.unwrap_or(rule.severity),
        first_seen_us: row.event_us,
        last_seen_us: row.event_us,
        notified_us: row.event_us,
        occurrences: 1,
        peak_measured: row.measured,
        peak_excess: excess(row),
        calm_rows: 0,
    }
}

/// Decides the next state of a condition and whether it is told.
fn decide(
    rule: &AlertRule,
    state: Option<&AlertState>,
    row: &AlertRow,
    entity_id: &str,
    firing: bool,
) -> Option<(AlertState, Option<Status>)> {
    let severity = row.severity.unwrap_or(rule.severity);
    let open = state.filter(|state| state.status == Status::Open);
    match (open, firing) {
        (None, false) => None,
        (None, true) => Some((opening(rule, state, row, entity_id), Some(Status::Open))),
        (Some(open), true) => {
            let mut next = open.clone();
            next.last_seen_us = row.event_us;
            next.occurrences += 1;
            next.calm_rows = 0;
            if excess(row) > next.peak_excess {
                next.peak_excess = excess(row);
                next.peak_measured = row.measured;
            }
            let due = rule.renotify_ms.is_some_and(|ms| row.event_us - open.notified_us >= ms.saturating_mul(1_000));
            let told = severity != open.severity || due;
            if told {
                next.severity = severity;
                next.revision += 1;
                next.notified_us = row.event_us;
            }
            Some((next, told.then_some(Status::Update)))
        }
        (Some(open), false) => {
            let mut next = open.clone();
            next.calm_rows += 1;
            let resolved = next.calm_rows >= rule.resolve_after.max(1);
            if resolved {
                next.status = Status::Resolved;
                next.revision += 1;
                next.notified_us = row.event_us;
            }
            Some((next, resolved.then_some(Status::Resolved)))
        }
    }
}

fn record(rule: &AlertRule, row: AlertRow, state: &AlertState, status: Status) -> AlertRecord {
    AlertRecord {
        fingerprint: state.fingerprint.clone(),
        revision: state.revision,
        status,
        severity: state.severity,
        rule_id: rule.id.clone(),
        rule_version: rule.version.clone(),
        title: rule.title.clone(),
        title_zh: rule.title_zh.clone(),
        standard: rule.standard.clone(),
        category: rule.category.clone(),
        entity_id: state.entity_id.clone(),
        entity: row.entity,
        measured: row.measured,
        limit_low: row.limit_low,
        limit_high: row.limit_high,
        unit: row.unit.or_else(|| rule.unit.clone()),
        event_us: row.event_us,
        window_us: row.window_us,
        first_seen_us: state.first_seen_us,
        last_seen_us: state.last_seen_us,
        resolved_us: (status == Status::Resolved).then_some(row.event_us),
        occurrences: state.occurrences,
        peak_measured: state.peak_measured,
        evidence: row.evidence,
        source: row.source,
        runbook: rule.runbook.clone(),
        corrected: false,
        backfilled: false,
    }
}

fn occurrence(rule: &AlertRule, row: AlertRow) -> AlertRecord {
    let entity_id = entity_id(&row.entity);
    let fingerprint = fingerprint(rule, &entity_id, Some(&row));
    let state = AlertState { fingerprint, ..opening(rule, None, &row, &entity_id) };
    record(rule, row, &state, Status::Open)
}

/// An occurrence that late events showed to be none.
fn withdrawal(rule: &AlertRule, row: AlertRow) -> AlertRecord {
    let occurred = occurrence(rule, row);
    AlertRecord {
        revision: occurred.revision + 1,
        status: Status::Resolved,
        resolved_us: Some(occurred.event_us),
        occurrences: 0,
        ..occurred
    }
}

/// Joins the values of an entity: `M1` or `M1|phase_a`.
pub fn entity_id(entity: &[(String, String)]) -> String {
    entity.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join("|")
}

/// How far the measured value lies outside its limits; its magnitude if there are none. Absent if nothing was measured.
fn excess(row: &AlertRow) -> Option<f64> {
    let measured = row.measured.filter(|measured| !measured.is_nan())?;
    Some(match (row.limit_low, row.limit_high) {
        (None, None) => measured.abs(),
        (Some(low), None) => low - measured,
        (None, Some(high)) => measured - high,
        (Some(low), Some(high)) => (measured - high).max(low - measured),
    })
}

fn fingerprint(rule: &AlertRule, entity_id: &str, occurrence: Option<&AlertRow>) -> String {
    let major = rule.version.split('.').next().unwrap_or_default();
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    part(&rule.id);
    part(major);
    part(entity_id);
    if let Some(row) = occurrence {
        part(&row.event_us.to_string());
        match &row.source {
            Some(s) => part(&format!("{}/{}/{}/{}", s.topic, s.partition, s.offset, s.index)),
            None => part(&row.evidence),
        }
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> AlertRule {
        AlertRule {
            id: "pq_voltage_deviation".into(),
            version: "1.2".into(),
            title: "Supply voltage outside limits".into(),
            title_zh: None,
            severity: Severity::Warning,
            standard: None,
            category: "power_quality".into(),
            unit: Some("V".into()),
            runbook: None,
            resolve_after: 2,
            renotify_ms: Some(3_600_000),
        }
    }

    fn row(minute: i64, measured: f64) -> AlertRow {
        AlertRow {
            entity: vec![("meter_id".into(), "M1".into())],
            event_us: minute * 60_000_000,
            firing: Some(measured > 235.4),
            severity: (measured > 242.0).then_some(Severity::Critical),
            measured: Some(measured),
            limit_low: Some(198.0),
            limit_high: Some(235.4),
            unit: None,
            window_us: None,
            evidence: "{}".into(),
            source: None,
        }
    }

    fn corrected(
        lifecycle: &mut Lifecycle,
        was: Option<AlertRow>,
        is: Option<AlertRow>,
        settled_minute: Option<i64>,
    ) -> Vec<(Status, u64, u64)> {
        let standing = Standing { settled_us: settled_minute.map(|minute| minute * 60_000_000), ..Standing::default() };
        let records = lifecycle.correct(&rule(), was, is, standing);
        assert!(records.iter().all(|record| record.corrected));
        records.into_iter().map(|record| (record.status, record.revision, record.occurrences)).collect()
    }

    #[test]
    fn a_row_that_should_have_fired_opens_the_alert_or_counts_as_one_more() {
        let mut lifecycle = Lifecycle::default();
        let opened = corrected(&mut lifecycle, Some(row(1, 230.0)), Some(row(1, 236.0)), None);
        assert_eq!(opened, [(Status::Open, 1, 1)]);
        assert_eq!(corrected(&mut lifecycle, None, Some(row(0, 250.0)), None), [(Status::Update, 2, 2)]);
        let state = lifecycle.snapshot().remove(0);
        assert_eq!((state.first_seen_us, state.last_seen_us, state.peak_measured), (0, 60_000_000, Some(250.0)));
        assert_eq!(corrected(&mut lifecycle, Some(row(2, 230.0)), Some(row(2, 231.0)), None), []);
    }

    #[test]
    fn what_rows_after_it_have_settled_is_told_as_resolved() {
        let mut lifecycle = Lifecycle::default();
        let records = lifecycle.correct(
            &rule(),
            None,
            Some(row(1, 236.0)),
            Standing { settled_us: Some(180_000_000), calm_rows: 2, last_firing_us: Some(60_000_000) },
        );
        let told: Vec<_> = records.iter().map(|r| (r.status, r.revision, r.first_seen_us, r.resolved_us)).collect();
        assert_eq!(told, [(Status::Resolved, 1, 60_000_000, Some(180_000_000))]);
        assert_eq!(told_of(&mut lifecycle, &[(4, 236.0)]), [(Status::Open, 2)]);
        // A calm row that was missing can be the one that resolves.
        assert_eq!(corrected(&mut lifecycle, None, Some(row(6, 230.0)), Some(6)), [(Status::Resolved, 3, 1)]);
    }

    #[test]
    fn a_row_that_should_not_have_fired_leaves_the_count_and_the_last_one_resolves() {
        let mut lifecycle = Lifecycle::default();
        assert_eq!(told_of(&mut lifecycle, &[(1, 236.0), (2, 237.0)]), [(Status::Open, 1)]);
        let changed = corrected(&mut lifecycle, Some(row(1, 236.0)), Some(row(1, 230.0)), None);
        assert_eq!(changed, [(Status::Update, 2, 1)]);
        assert_eq!(corrected(&mut lifecycle, Some(row(2, 237.0)), None, None), [(Status::Resolved, 3, 0)]);
        // An opening that is over and not the last is left as it was told.
        assert_eq!(told_of(&mut lifecycle, &[(9, 236.0)]), [(Status::Open, 4)]);
        assert_eq!(corrected(&mut lifecycle, Some(row(1, 236.0)), None, None), []);
    }

    #[test]
    fn calm_rows_are_those_after_the_last_that_fires() {
        let mut lifecycle = Lifecycle::default();
        assert_eq!(told_of(&mut lifecycle, &[(1, 236.0), (2, 230.0)]), [(Status::Open, 1)]);
        // The calm row fires after all, and badly; two more calm ones are needed.
        let standing = Standing { settled_us: None, calm_rows: 0, last_firing_us: Some(120_000_000) };
        let records = lifecycle.correct(&rule(), Some(row(2, 230.0)), Some(row(2, 250.0)), standing);
        assert_eq!((records[0].status, records[0].severity), (Status::Update, Severity::Critical));
        assert_eq!(told_of(&mut lifecycle, &[(3, 230.0)]), []);
        assert_eq!(told_of(&mut lifecycle, &[(4, 230.0)]), [(Status::Resolved, 3)]);
    }

    #[test]
    fn an_occurrence_that_was_none_is_resolved_under_its_fingerprint() {
        let occurred = |measured: f64| AlertRow { firing: None, evidence: format!("{measured}"), ..row(1, measured) };
        let mut lifecycle = Lifecycle::default();
        let first = lifecycle.fold(&rule(), occurred(236.0)).expect("an occurrence");
        let records = lifecycle.correct(&rule(), Some(occurred(236.0)), Some(occurred(237.0)), Standing::default());
        let told: Vec<_> = records.iter().map(|record| (record.status, record.revision)).collect();
        assert_eq!(told, [(Status::Resolved, 2), (Status::Open, 1)]);
        assert_eq!(records[0].fingerprint, first.fingerprint);
        assert_ne!(records[1].fingerprint, first.fingerprint);
    }

    #[test]
    fn what_is_written_is_read_to_the_last_bit() {
        let mut lifecycle = Lifecycle::default();
        let numbers =
            [Some(236.000_000_000_000_03), Some(0.1 + 0.2), Some(1.0 / 3.0), Some(f64::INFINITY), Some(-0.0), None];
        let rows = numbers.into_iter().zip(0..).map(|(measured, minute)| AlertRow {
            entity: vec![("meter_id".into(), format!("M{minute}"))],
            firing: Some(true),
            measured,
            limit_high: measured.map(|measured| measured / 7.0),
            ..row(minute, 236.0)
        });
        let records: Vec<AlertRecord> = rows.filter_map(|row| lifecycle.fold(&rule(), row)).collect();
        assert_eq!(records.len(), numbers.len());
        let text = serde_json::to_string(&records).expect("json");
        assert_eq!(serde_json::from_str::<Vec<AlertRecord>>(&text).expect("records"), records);
        let states = lifecycle.snapshot();
        let text = serde_json::to_string(&states).expect("json");
        assert_eq!(serde_json::from_str::<Vec<AlertState>>(&text).expect("states"), states);
    }

    #[test]
    fn open_alerts_of_rules_that_are_gone_are_resolved_once() {
        let mut lifecycle = Lifecycle::default();
        assert_eq!(told_of(&mut lifecycle, &[(1, 236.0)]), [(Status::Open, 1)]);
        assert_eq!(lifecycle.withdraw(|state| state.rule_id == rule().id), []);
        let records = lifecycle.withdraw(|_| false);
        let told: Vec<_> = records.iter().map(|r| (r.status, r.revision, r.resolved_us, &*r.entity_id)).collect();
        assert_eq!(told, [(Status::Resolved, 2, Some(60_000_000), "M1")]);
        assert_eq!(lifecycle.withdraw(|_| false), []);
        assert_eq!(told_of(&mut lifecycle, &[(2, 236.0)]), [(Status::Open, 3)], "the rule came back");
    }

    fn told_of(lifecycle: &mut Lifecycle, rows: &[(i64, f64)]) -> Vec<(Status, u64)> {
        let rule = rule();
        rows.iter()
            .filter_map(|(minute, value)| lifecycle.fold(&rule, row(*minute, *value)))
            .map(|record| (record.status, record.revision))
            .collect()
    }

    #[test]
    fn a_condition_opens_updates_resolves_and_comes_back_under_the_same_name() {
        let mut lifecycle = Lifecycle::default();
        let rows =
            [(0, 235.4), (10, 236.0), (20, 237.0), (30, 243.0), (40, 230.0), (50, 236.0), (60, 230.0), (70, 231.0)];
        assert_eq!(
            told_of(&mut lifecycle, &rows),
            [
                (Status::Open, 1),
                (Status::Update, 2), // critical
                (Status::Update, 3), // back to warning
                (Status::Resolved, 4),
            ]
        );
        let state = &lifecycle.snapshot()[0];
        assert_eq!((state.occurrences, state.peak_measured), (4, Some(243.0)));
        assert_eq!(told_of(&mut lifecycle, &[(80, 236.0)]), [(Status::Open, 5)]);
        assert_eq!(lifecycle.snapshot()[0].fingerprint, state_fingerprint());
    }

    fn state_fingerprint() -> String {
        fingerprint(&rule(), "M1", None)
    }

    #[test]
    fn a_lasting_condition_is_told_again_after_the_renotify_period() {
        let rows = [(0, 236.0), (30, 236.0), (60, 236.0), (90, 236.0), (120, 236.0)];
        let told = told_of(&mut Lifecycle::default(), &rows);
        assert_eq!(told, [(Status::Open, 1), (Status::Update, 2), (Status::Update, 3)]);
    }

    #[test]
    fn restoring_changes_continues_exactly() {
        let rows: Vec<(i64, f64)> = (0..40).map(|k| (k * 10, if k % 7 < 4 { 236.0 } else { 230.0 })).collect();
        let mut whole = Lifecycle::default();
        let expected = told_of(&mut whole, &rows);
        for cut in 0..rows.len() {
            let mut before = Lifecycle::default();
            let mut got = told_of(&mut before, &rows[..cut]);
            let mut after = Lifecycle::default();
            before.take_changes().into_iter().for_each(|state| after.restore(state));
            got.extend(told_of(&mut after, &rows[cut..]));
            assert_eq!(got, expected, "cut at {cut}");
        }
    }

    #[test]
    fn occurrences_are_told_once_each_and_named_by_their_event() {
        let occurrence = |offset| AlertRow {
            firing: None,
            source: Some(Source { topic: "t".into(), partition: 0, offset, index: 0 }),
            ..row(0, 1.0)
        };
        let mut lifecycle = Lifecycle::default();
        let first = lifecycle.fold(&rule(), occurrence(1)).expect("told");
        let second = lifecycle.fold(&rule(), occurrence(2)).expect("told");
        assert_ne!(first.fingerprint, second.fingerprint);
        assert!(lifecycle.take_changes().is_empty());
    }
}
