//! From rows of alert rules to alert records, and from records to the messages that consumers read.
//!
//! Rows are looked at by column: a row that does not fire for an entity without an open alert (nearly all rows
//! of a healthy grid) costs one hash look-up and no allocation beyond the entity's text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use arrow::array::{Array, AsArray, BooleanArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::row::{RowConverter, Rows, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use wattline_core::alert::{
    AlertRecord, AlertRow, AlertRule, Lifecycle, Severity, Source, Standing, Status, entity_id,
};
use wattline_core::record::column;

use crate::error::{Error, Result};
use crate::port::RuleRows;
use crate::table::timestamp_type;

/// What the coordinator must know of an alert rule.
#[derive(Debug, Clone)]
pub struct AlertPlan {
    /// What the lifecycle must know.
    pub rule: AlertRule,
    /// Output columns that name the entity.
    pub entity: Vec<String>,
    /// Output column with the event time.
    pub event_time: String,
    /// Whether its rows say if a condition holds, so that its alerts resolve; else each is an occurrence.
    pub is_condition: bool,
    /// Whether late events correct its alerts. Then floating-point columns are no part of what an occurrence is known by:
    /// computed again, they may differ in the last digit.
    pub corrected: bool,
    /// Whether its alerts are told before they are committed. They must then not depend on when rows were given.
    pub early: bool,
}

/// Rows of one alert rule, made ready for folding: each with its event time.
#[derive(Debug)]
pub struct Candidates<'a> {
    plan: &'a AlertPlan,
    rows: &'a RuleRows,
    event_us: Vec<i64>,
    firing: Option<BooleanArray>,
    columns: Conventional,
    /// What puts rows of one time in order, if that must not depend on who gave them first: identity, then all columns.
    order: Option<Rows>,
}

/// Rows with their evidence, by event time and entity.
type RowsByPlace = BTreeMap<(i64, String), Vec<(AlertRow, String)>>;

/// The conventional columns of an alert rule's output, as far as the rule has them.
#[derive(Debug)]
struct Conventional {
    measured: Option<Float64Array>,
    limit_low: Option<Float64Array>,
    limit_high: Option<Float64Array>,
    severity: Option<arrow::array::StringArray>,
    unit: Option<arrow::array::StringArray>,
    window_start: Option<Vec<Option<i64>>>,
    window_end: Option<Vec<Option<i64>>>,
}

/// Folds what one watermark makes final, of all rules, in the order of event time; rows of one time as they were given, or, of a
/// condition that is told early, by what they hold.
///
/// # Errors
/// [`Error::Arrow`] if a value cannot be shown as text.
pub fn fold_in_order(candidates: &[Candidates<'_>], lifecycle: &mut Lifecycle) -> Result<Vec<AlertRecord>> {
    let mut order: Vec<(i64, usize, usize)> = Vec::new();
    for (which, candidate) in candidates.iter().enumerate() {
        order.extend(candidate.event_us.iter().enumerate().map(|(k, us)| (*us, which, k)));
    }
    // Rows of one rule may come in parts.
    let part_of = |which: usize| candidates.iter().position(|of| of.rows.rule == candidates[which].rows.rule);
    let parts: Vec<Option<usize>> = (0..candidates.len())
        .map(|which| candidates[which].order.as_ref().map_or(Some(which), |_| part_of(which)))
        .collect();
    let held = |which: usize, k: usize| candidates[which].order.as_ref().map(|order| order.row(k));
    order.sort_unstable_by(|a, b| {
        let by_rule = (a.0, parts[a.1]).cmp(&(b.0, parts[b.1]));
        by_rule.then_with(|| held(a.1, a.2).cmp(&held(b.1, b.2))).then_with(|| a.cmp(b))
    });
    let fold = |(_, which, k): (i64, usize, usize)| candidates[which].fold(k, lifecycle).transpose();
    order.into_iter().filter_map(fold).collect()
}

impl<'a> Candidates<'a> {
    /// Reads the conventional columns of a batch of rows.
    ///
    /// # Errors
    /// [`Error::Arrow`] if a conventional column cannot be read as its type; `check` refuses such rules.
    pub fn new(plan: &'a AlertPlan, rows: &'a RuleRows) -> Result<Self> {
        let batch = &rows.batch;
        let id = &plan.rule.id;
        let event_us = times(batch, &plan.event_time, id)?
            .unwrap_or_default()
            .into_iter()
            .map(Option::unwrap_or_default)
            .collect();
        let firing = typed(batch, "firing", &DataType::Boolean, id)?.map(|array| array.as_boolean().clone());
        let float = |name: &str| -> Result<Option<Float64Array>> {
            Ok(typed(batch, name, &DataType::Float64, id)?.map(|array| array.as_primitive().clone()))
        };
        let word = |name: &str| -> Result<Option<arrow::array::StringArray>> {
            Ok(typed(batch, name, &DataType::Utf8, id)?.map(|array| array.as_string().clone()))
        };
        let columns = Conventional {
            measured: float("measured")?,
            limit_low: float("limit_low")?,
            limit_high: float("limit_high")?,
            severity: word("severity")?,
            unit: word("unit")?,
            window_start: times(batch, "window_start", id)?,
            window_end: times(batch, "window_end", id)?,
        };
        let order = if plan.early && firing.is_some() { Some(in_order(rows, id)?) } else { None };
        Ok(Self { plan, rows, event_us, firing, columns, order })
    }

    /// Event time of each row, microseconds since the epoch.
    pub fn event_us(&self) -> &[i64] {
        &self.event_us
    }

    /// Folds row `k` through the lifecycle.
    ///
    /// # Errors
    /// [`Error::Arrow`] if a value cannot be shown as text.
    pub fn fold(&self, k: usize, lifecycle: &mut Lifecycle) -> Result<Option<AlertRecord>> {
        let entity = self.entity(k)?;
        let firing = self.firing.as_ref().map(|firing| firing.is_valid(k).then(|| firing.value(k)));
        // A condition that is null says nothing: it neither opens nor resolves.
        let firing = match firing {
            Some(None) => return Ok(None),
            Some(Some(firing)) => Some(firing),
            None => None,
        };
        let rule = &self.plan.rule;
        if firing == Some(false) && !lifecycle.is_open(&rule.id, &entity_id(&entity)) {
            return Ok(None);
        }
        let source = self.source(k);
        let evidence = if firing.is_none() && source.is_none() { self.known_by(k)? } else { String::new() };
        let row = AlertRow { evidence, ..self.row(k, entity, firing, source) };
        let Some(mut record) = lifecycle.fold(rule, row) else { return Ok(None) };
        record.evidence = self.evidence(k)?;
        Ok(Some(record))
    }

    /// Row `k` without its evidence.
    fn row(&self, k: usize, entity: Vec<(String, String)>, firing: Option<bool>, source: Option<Source>) -> AlertRow {
        let c = &self.columns;
        AlertRow {
            entity,
            event_us: self.event_us[k],
            firing,
            severity: text(c.severity.as_ref(), k).and_then(Severity::parse),
            measured: number(c.measured.as_ref(), k),
            limit_low: number(c.limit_low.as_ref(), k),
            limit_high: number(c.limit_high.as_ref(), k),
            unit: text(c.unit.as_ref(), k).map(str::to_owned),
            window_us: window(c, k),
            evidence: String::new(),
            source,
        }
    }

    /// All rows that say something, by event time and entity, each with its evidence.
    fn all(&self) -> Result<RowsByPlace> {
        let mut rows = RowsByPlace::new();
        for k in 0..self.rows.batch.num_rows() {
            if self.firing.as_ref().is_some_and(|firing| firing.is_null(k)) {
                continue;
            }
            let firing = self.firing.as_ref().map(|firing| firing.value(k));
            let row = self.row(k, self.entity(k)?, firing, self.source(k));
            let row = AlertRow { evidence: self.known_by(k)?, ..row };
            rows.entry((row.event_us, entity_id(&row.entity))).or_default().push((row, self.evidence(k)?));
        }
        Ok(rows)
    }

    /// Notes for each wanted entity which of its rows fire.
    fn note_standing(&self, standing: &mut BTreeMap<&str, BTreeMap<i64, bool>>) -> Result<()> {
        let Some(firing) = &self.firing else { return Ok(()) };
        for k in (0..self.rows.batch.num_rows()).filter(|k| firing.is_valid(*k)) {
            if let Some(rows) = standing.get_mut(entity_id(&self.entity(k)?).as_str()) {
                *rows.entry(self.event_us[k]).or_default() |= firing.value(k);
            }
        }
        Ok(())
    }

    fn entity(&self, k: usize) -> Result<Vec<(String, String)>> {
        let batch = &self.rows.batch;
        self.plan
            .entity
            .iter()
            .map(|name| {
                let value = match batch.column_by_name(name) {
                    Some(array) if array.is_valid(k) => display(array.as_ref(), k, &self.plan.rule.id)?,
                    Some(_) | None => String::new(),
                };
                Ok((name.clone(), value))
            })
            .collect()
    }

    fn source(&self, k: usize) -> Option<Source> {
        let identity = self.rows.identity.as_ref()?;
        let topic = cast(identity.column_by_name(column::TOPIC)?, &DataType::Utf8).ok()?;
        Some(Source {
            topic: topic.as_string::<i32>().value(k).to_owned(),
            partition: identity.column_by_name(column::PARTITION)?.as_primitive::<Int32Type>().value(k),
            offset: identity.column_by_name(column::OFFSET)?.as_primitive::<Int64Type>().value(k),
            index: identity.column_by_name(column::INDEX)?.as_primitive::<Int32Type>().value(k),
        })
    }

    /// What an occurrence without an event behind it is known by.
    fn known_by(&self, k: usize) -> Result<String> {
        if !self.plan.corrected {
            return self.evidence(k);
        }
        let batch = &self.rows.batch;
        let exact = batch.columns().iter().enumerate().filter(|(_, column)| !column.data_type().is_floating());
        let exact = batch.project(&exact.map(|(at, _)| at).collect::<Vec<_>>());
        self.as_json(&exact.map_err(Error::arrow(&self.plan.rule.id))?, k)
    }

    fn evidence(&self, k: usize) -> Result<String> {
        self.as_json(&self.rows.batch, k)
    }

    fn as_json(&self, batch: &RecordBatch, k: usize) -> Result<String> {
        let id = &self.plan.rule.id;
        let mut writer = arrow::json::WriterBuilder::new()
            .with_explicit_nulls(true)
            .build::<_, arrow::json::writer::LineDelimited>(Vec::new());
        writer.write(&batch.slice(k, 1)).map_err(Error::arrow(id))?;
        writer.finish().map_err(Error::arrow(id))?;
        Ok(String::from_utf8_lossy(&writer.into_inner()).trim_end().to_owned())
    }
}

/// Corrects the alerts of a rule whose rows changed, in the order of event time. `now` holds all rows of the rule, as they
/// are now, from before the first that changed up to the newest.
///
/// # Errors
/// [`Error::Arrow`] if a conventional column cannot be read.
pub fn correct(
    plan: &AlertPlan,
    retracted: &RuleRows,
    inserted: &RuleRows,
    now: &[RuleRows],
    lifecycle: &mut Lifecycle,
) -> Result<Vec<AlertRecord>> {
    let mut was = Candidates::new(plan, retracted)?.all()?;
    let mut is = Candidates::new(plan, inserted)?.all()?;
    let places: BTreeSet<(i64, String)> = was.keys().chain(is.keys()).cloned().collect();
    let mut standing: BTreeMap<&str, BTreeMap<i64, bool>> =
        places.iter().map(|(_, entity)| (entity.as_str(), BTreeMap::new())).collect();
    for rows in now {
        Candidates::new(plan, rows)?.note_standing(&mut standing)?;
    }
    let mut records = Vec::new();
    for place in &places {
        let (was, is) = (was.remove(place).unwrap_or_default(), is.remove(place).unwrap_or_default());
        let rows = standing.get(place.1.as_str());
        let standing = rows.map_or_else(Standing::default, |rows| stands(rows, place.0, plan.rule.resolve_after));
        let pairs = was.len().max(is.len());
        let (mut was, mut is) = (was.into_iter(), is.into_iter());
        for (was, is) in (0..pairs).map(|_| (was.next(), is.next())) {
            let evidence: Vec<String> = match (&was, &is) {
                (Some((row, was)), Some((_, is))) if row.firing.is_none() => vec![was.clone(), is.clone()],
                (_, Some((_, evidence))) | (Some((_, evidence)), None) => vec![evidence.clone()],
                (None, None) => Vec::new(),
            };
            let told = lifecycle.correct(&plan.rule, was.map(|of| of.0), is.map(|of| of.0), standing);
            records.extend(told.into_iter().zip(evidence).map(|(record, evidence)| AlertRecord { evidence, ..record }));
        }
    }
    Ok(records)
}

/// How an entity stands by its rows (whether each fires, by event time) from the one that changed on.
fn stands(rows: &BTreeMap<i64, bool>, changed_us: i64, resolve_after: u32) -> Standing {
    let last_firing_us = rows.iter().rev().find(|(_, fires)| **fires).map(|(event_us, _)| *event_us);
    // If none fires any more, what came before the change has nothing to do with it.
    let since_us = last_firing_us.unwrap_or(changed_us.saturating_sub(1));
    let calm: Vec<i64> = rows.keys().copied().filter(|event_us| *event_us > since_us).collect();
    Standing {
        settled_us: calm.get(resolve_after.max(1) as usize - 1).copied(),
        calm_rows: u32::try_from(calm.len()).unwrap_or(u32::MAX),
        last_firing_us,
    }
}

/// Rows as they are compared: by the events behind them, then by all that they hold.
fn in_order(rows: &RuleRows, rule: &str) -> Result<Rows> {
    let batches = rows.identity.iter().chain([&rows.batch]);
    let columns: Vec<_> = batches.flat_map(|batch| batch.columns().iter().cloned()).collect();
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converter = RowConverter::new(fields).map_err(Error::arrow(rule))?;
    converter.convert_columns(&columns).map_err(Error::arrow(rule))
}

fn typed(batch: &RecordBatch, name: &str, to: &DataType, rule: &str) -> Result<Option<arrow::array::ArrayRef>> {
    batch.column_by_name(name).map(|array| cast(array, to).map_err(Error::arrow(rule))).transpose()
}

fn times(batch: &RecordBatch, name: &str, rule: &str) -> Result<Option<Vec<Option<i64>>>> {
    let array = typed(batch, name, &timestamp_type(), rule)?;
    Ok(array.map(|array| array.as_primitive::<TimestampMicrosecondType>().iter().collect()))
}

fn number(array: Option<&Float64Array>, k: usize) -> Option<f64> {
    array.filter(|array| array.is_valid(k)).map(|array| array.value(k))
}

fn text(array: Option<&arrow::array::StringArray>, k: usize) -> Option<&str> {
    array.filter(|array| array.is_valid(k)).map(|array| array.value(k))
}

fn window(columns: &Conventional, k: usize) -> Option<(i64, i64)> {
    Some((columns.window_start.as_ref()?[k]?, columns.window_end.as_ref()?[k]?))
}

fn display(array: &dyn Array, k: usize, rule: &str) -> Result<String> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array, &options).map_err(Error::arrow(rule))?;
    Ok(formatter.value(k).to_string())
}

/// Shows an instant as RFC 3339 in UTC.
pub fn rfc3339(us: i64) -> String {
    let array = arrow::array::TimestampMicrosecondArray::from(vec![us]).with_timezone("UTC");
    display(&array, 0, "instant").unwrap_or_else(|_| us.to_string())
}

/// `topic/partition/offset/index` of an event.
pub fn source_text(source: &Source) -> String {
    format!("{}/{}/{}/{}", source.topic, source.partition, source.offset, source.index)
}

/// One sentence that tells a person what happened, against which limit, by which standard.
pub fn explanation(record: &AlertRecord) -> String {
    let mut out = String::with_capacity(160);
    let entity: Vec<String> = record.entity.iter().map(|(name, value)| format!("{name} {value}")).collect();
    // Writing to a String cannot fail.
    let mut say = |part: std::fmt::Arguments<'_>| out.write_fmt(part).unwrap_or_default();
    say(format_args!("{}: {}", entity.join(", "), record.title));
    if let Some(measured) = record.measured {
        let unit = record.unit.as_deref().map(|unit| format!(" {unit}")).unwrap_or_default();
        say(format_args!("; measured {measured}{unit}"));
        match (record.limit_low, record.limit_high) {
            (Some(low), Some(high)) => say(format_args!(", allowed {low} to {high}{unit}")),
            (Some(low), None) => say(format_args!(", allowed at least {low}{unit}")),
            (None, Some(high)) => say(format_args!(", allowed at most {high}{unit}")),
            (None, None) => {}
        }
    }
    match record.window_us {
        Some((start, end)) => say(format_args!("; window {} to {}", rfc3339(start), rfc3339(end))),
        None => say(format_args!("; at {}", rfc3339(record.event_us))),
    }
    match record.status {
        Status::Open => {}
        Status::Update => say(format_args!("; still so after {} occurrences", record.occurrences)),
        Status::Resolved => say(format_args!("; resolved after {} occurrences", record.occurrences)),
    }
    if record.corrected {
        say(format_args!("; corrected by late events"));
    }
    if record.backfilled {
        say(format_args!("; found in the archive when the rule was new"));
    }
    if let Some(standard) = &record.standard {
        say(format_args!(" ({standard})"));
    }
    out
}

/// The JSON payload of an alert message, as `schemas/alert.schema.json` describes it.
///
/// A function of the record alone: the same record gives the same bytes on every re-execution.
pub fn payload(record: &AlertRecord) -> Vec<u8> {
    let is_json = serde_json::from_str::<&RawValue>(&record.evidence).is_ok();
    payload_with(record, if is_json { &record.evidence } else { "null" })
}

/// The same for a topic that does not take as much: how large the evidence is, in place of it. The table of alerts has it all.
pub fn payload_without_evidence(record: &AlertRecord) -> Vec<u8> {
    payload_with(record, &json!({"left_out": format!("{} bytes", record.evidence.len())}).to_string())
}

/// The evidence goes in as the text that the table has: its numbers are not read, and so not rounded.
fn payload_with(record: &AlertRecord, evidence: &str) -> Vec<u8> {
    let time = |us: i64| Value::String(rfc3339(us));
    let entity: Map<String, Value> = record.entity.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    let source = record
        .source
        .as_ref()
        .map(|s| json!({"topic": s.topic, "partition": s.partition, "offset": s.offset, "index": s.index}));
    let members = json!({
        "alert_id": record.id(),
        "fingerprint": record.fingerprint,
        "revision": record.revision,
        "status": record.status.as_str(),
        "severity": record.severity.as_str(),
        "rule_id": record.rule_id,
        "rule_version": record.rule_version,
        "standard": record.standard,
        "category": record.category,
        "entity": entity,
        "entity_id": record.entity_id,
        "title": record.title,
        "title_zh": record.title_zh,
        "measured": record.measured,
        "limit_low": record.limit_low,
        "limit_high": record.limit_high,
        "unit": record.unit,
        "event_ts": time(record.event_us),
        "window_start": record.window_us.map(|w| time(w.0)),
        "window_end": record.window_us.map(|w| time(w.1)),
        "first_seen_ts": time(record.first_seen_us),
        "last_seen_ts": time(record.last_seen_us),
        "resolved_ts": record.resolved_us.map(time),
        "occurrences": record.occurrences,
        "peak_measured": record.peak_measured,
        "explanation": explanation(record),
        "source": source,
        "runbook": record.runbook,
        "corrected": record.corrected,
        "backfilled": record.backfilled,
    });
    let members = members.to_string();
    let members = members.strip_suffix('}').unwrap_or(&members);
    format!("{members},\"evidence\":{evidence}}}").into_bytes()
}

/// The CloudEvents 1.0 headers of an alert message in Kafka binary mode.
pub fn headers(record: &AlertRecord, job: &str) -> Vec<(String, String)> {
    let word = match record.status {
        Status::Open => "opened",
        Status::Update => "updated",
        Status::Resolved => "resolved",
    };
    [
        ("ce_specversion", "1.0".to_owned()),
        ("ce_id", record.id()),
        ("ce_source", format!("/wattline/{job}")),
        ("ce_type", format!("io.wattline.alert.{word}.v1")),
        ("ce_subject", record.entity_id.clone()),
        ("ce_time", rfc3339(record.event_us)),
        ("ce_dataschema", "schemas/alert.schema.json".to_owned()),
        ("ce_partitionkey", record.fingerprint.clone()),
        ("content-type", "application/json".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Decimal128Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    fn plan() -> AlertPlan {
        AlertPlan {
            rule: AlertRule {
                id: "r".into(),
                version: "1".into(),
                title: "voltage outside limits".into(),
                title_zh: None,
                severity: Severity::Warning,
                standard: Some("GB/T 12325-2008, 4.2".into()),
                category: "power_quality".into(),
                unit: Some("V".into()),
                runbook: None,
                resolve_after: 1,
                renotify_ms: None,
            },
            entity: vec!["meter_id".into()],
            event_time: "window_end".into(),
            is_condition: true,
            corrected: false,
            early: false,
        }
    }

    fn rows() -> RuleRows {
        let times = |values: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) as _;
        let measured = Decimal128Array::from(vec![2360, 2300]).with_precision_and_scale(9, 1).expect("decimal");
        let high = Decimal128Array::from(vec![2354, 2354]).with_precision_and_scale(9, 1).expect("decimal");
        let batch = RecordBatch::try_from_iter([
            ("meter_id", Arc::new(StringArray::from(vec!["M1", "M2"])) as _),
            ("window_start", times(vec![0, 0])),
            ("window_end", times(vec![600_000_000, 600_000_000])),
            ("measured", Arc::new(measured) as _),
            ("limit_high", Arc::new(high) as _),
            ("firing", Arc::new(BooleanArray::from(vec![true, false])) as _),
        ])
        .expect("batch");
        RuleRows { rule: 0, batch, identity: None }
    }

    #[test]
    fn a_firing_row_becomes_an_explained_record_and_a_calm_one_nothing() {
        let (plan, rows) = (plan(), rows());
        let candidates = Candidates::new(&plan, &rows).expect("columns");
        let mut lifecycle = Lifecycle::default();
        let record = candidates.fold(0, &mut lifecycle).expect("fold").expect("told");
        assert!(candidates.fold(1, &mut lifecycle).expect("fold").is_none());
        assert_eq!(
            explanation(&record),
            "meter_id M1: voltage outside limits; measured 236 V, allowed at most 235.4 V; \
             window 1970-01-01T00:00:00Z to 1970-01-01T00:10:00Z (GB/T 12325-2008, 4.2)"
        );
        let payload: Value = serde_json::from_slice(&payload(&record)).expect("json");
        assert_eq!(payload["entity"]["meter_id"], "M1");
        assert_eq!(payload["evidence"]["firing"], true);
        let long = AlertRecord { evidence: r#"{"mean":236.00000000000003}"#.into(), ..record.clone() };
        let text = String::from_utf8(super::payload(&long)).expect("text");
        assert!(text.contains(r#""evidence":{"mean":236.00000000000003}"#), "{text}");
        let mut short: Value = serde_json::from_slice(&payload_without_evidence(&record)).expect("json");
        let left_out = std::mem::replace(&mut short["evidence"], payload["evidence"].clone());
        assert_eq!(left_out, json!({"left_out": format!("{} bytes", record.evidence.len())}));
        assert_eq!(short, payload, "the evidence is all that differs");
        assert!(headers(&record, "j").contains(&("ce_type".into(), "io.wattline.alert.opened.v1".into())));
    }

    #[test]
    fn rows_that_changed_correct_their_alerts_and_no_others() {
        let (plan, rows) = (plan(), rows());
        let mut lifecycle = Lifecycle::default();
        let candidates = Candidates::new(&plan, &rows).expect("columns");
        candidates.fold(0, &mut lifecycle).expect("fold").expect("told");
        let part = |at: usize| RuleRows { rule: 0, batch: rows.batch.slice(at, 1), identity: None };
        let calm = part(1).batch;
        let renamed = RecordBatch::try_new(
            calm.schema(),
            calm.columns()
                .iter()
                .enumerate()
                .map(|(at, c)| if at == 0 { rows.batch.column(0).slice(0, 1) } else { c.clone() })
                .collect(),
        );
        let is = RuleRows { rule: 0, batch: renamed.expect("the same columns"), identity: None };
        let now = std::slice::from_ref(&is);
        let records = correct(&plan, &part(0), &is, now, &mut lifecycle).expect("corrected");
        let [record] = &records[..] else { panic!("{records:?}") };
        assert_eq!((record.status, record.revision, record.entity_id.as_str()), (Status::Resolved, 2, "M1"));
        assert!(explanation(record).contains("corrected by late events"), "{}", explanation(record));
        assert_eq!(serde_json::from_slice::<Value>(&payload(record)).expect("json")["corrected"], true);
    }
}
