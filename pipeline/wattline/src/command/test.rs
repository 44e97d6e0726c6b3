//! `wattline test`: the tests beside the rules, through the streaming engine and through plain DataFusion.
//!
//! Rows are decoded by the same decoder as in production, so a test also tests the payload; alerts are folded by
//! the same lifecycle. Each case runs at several batch sizes and numbers of lanes.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, AsArray, DictionaryArray, Int32Array, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::record_batch::RecordBatch;
use serde_json::Value;
use wattline_core::alert::{AlertRecord, Lifecycle};
use wattline_decode::{JsonDecoder, Records};
use wattline_runtime::alerting::{Candidates, fold_in_order, payload};
use wattline_runtime::port::RuleRows;
use wattline_runtime::table::{SystemStream, system_streams};
use wattline_runtime::{RulePlan, stream_schema};
use wattline_sql::test_file::{CaseKind, Expected, ExpectedRow, TestCase, TestFile};
use wattline_sql::{TestOutcome, UserFunctions, rule_of, run_rule_test};

use crate::adapt::plans::rule_plans;
use crate::assets::BUILTIN;
use crate::cli::{OutputFormat, TestArgs};
use crate::project::{Project, Refused};
use crate::rule_paths::test_of;
use crate::{project, report};

/// The lateness that cases of shipped rules are written for.
const SHIPPED_DELAY_MS: i64 = 120_000;

/// How one case went.
struct Verdict {
    rule: String,
    case: String,
    shows: Vec<CaseKind>,
    failures: Vec<String>,
    took_ms: u128,
}

pub(super) fn run(args: &TestArgs, functions: &UserFunctions) -> Result<ExitCode> {
    let loaded = if args.builtin { project::shipped()? } else { project::load(&args.config.config, functions) };
    let mut project = match loaded {
        Ok(project) => project,
        Err(refused) => return Ok(super::refuse(&refused)),
    };
    let (paths, filter): (Vec<&String>, Vec<&String>) = args.filter.iter().partition(|part| part.ends_with(".sql"));
    let mut ids = Vec::new();
    for path in paths {
        match put_in_place(&mut project, path)? {
            Ok(id) => ids.push(id),
            Err(refused) => return Ok(super::refuse(&refused)),
        }
    }
    let of_others = cases_of_others(&project);
    let mut files = Vec::new();
    let mut mistakes = Vec::new();
    for (path, text) in project.tests.iter().filter(|(path, _)| !of_others.contains_key(*path)) {
        match TestFile::parse(path, text, project.rules.catalog()) {
            Ok(mut file) => {
                if path.starts_with(BUILTIN) {
                    // Whatever the delays of the job, cases of shipped rules are for those of `--builtin`.
                    file.cases.iter_mut().for_each(|case| case.delay_ms = case.delay_ms.or(Some(SHIPPED_DELAY_MS)));
                }
                files.push((rule_of(path).unwrap_or_default().to_owned(), file));
            }
            Err(diagnostics) => mistakes.extend(diagnostics),
        }
    }
    let cases = files.iter().flat_map(|(rule, file)| file.cases.iter().map(move |case| (rule.as_str(), case)));
    let wanted = |(rule, case): &(&str, &TestCase)| {
        let name = format!("{rule}::{}", case.name);
        args.filter.is_empty()
            || ids.iter().any(|id| id == rule)
            || filter.iter().any(|part| name.contains(part.as_str()))
    };
    let cases: Vec<(&str, &TestCase)> = cases.filter(wanted).collect();
    let verdicts = judge_all(&project, &cases, |verdict| {
        if args.format == OutputFormat::Text {
            report::print(&line(verdict));
        }
    })?;
    report::diagnostics(&mistakes, &project.texts);
    for (path, read) in &of_others {
        let id = rule_of(path).unwrap_or_default();
        report::print_error(&format!(
            "cases of `{id}` left out: they are for the shipped `{read}`, and the job has one of its own; `wattline rules show {id} --builtin --cases` gives them to copy\n"
        ));
    }
    if verdicts.is_empty() && mistakes.is_empty() && !args.filter.is_empty() {
        let called = args.filter.join("`, `");
        let untested = untested(&project).into_iter().find(|id| args.filter.iter().any(|part| id.contains(part)));
        match untested {
            Some(id) => bail!("rule `{id}` has no cases: write them beside it, into `{id}.test.toml`"),
            None => bail!("no case is called like `{called}`; names look as `wattline test` prints them: `rule::case`"),
        }
    }
    let failed = verdicts.iter().filter(|verdict| !verdict.failures.is_empty()).count();
    let passed = verdicts.len() - failed;
    match args.format {
        OutputFormat::Json => report::print(&format!("{}\n", json(&verdicts))),
        OutputFormat::Text => {
            let untested = untested(&project);
            if !untested.is_empty() {
                report::print(&format!("rules without a test: {}\n", untested.join(", ")));
            }
            report::print(&format!("{passed} passed, {failed} failed\n"));
        }
    }
    Ok(if failed == 0 && mistakes.is_empty() { ExitCode::SUCCESS } else { report::answer_is_no() })
}

/// Puts the rule of a file, and the cases beside it, into the project; gives its id.
fn put_in_place(project: &mut Project, path: &str) -> Result<Result<String, Refused>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading `{path}`"))?;
    let cases = test_of(path);
    if !Path::new(&cases).exists() {
        bail!("`{path}` has no cases: write them beside it, into `{cases}`");
    }
    let read = std::fs::read_to_string(&cases).with_context(|| format!("reading `{cases}`"))?;
    let id = rule_of(path).unwrap_or_default().to_owned();
    let files = project.files_with(path, text.clone());
    project.rules = match project.with_rule(path, text.clone()) {
        Ok(rules) => rules,
        Err(refused) => return Ok(Err(refused)),
    };
    project.rule_files = files;
    project.tests.retain(|path, _| rule_of(path) != Some(&id));
    project.texts.extend([(path.to_owned(), text), (cases.clone(), read.clone())]);
    project.tests.insert(cases, read);
    Ok(Ok(id))
}

/// Cases of shipped rules that read a rule which the job has replaced: what they expect is not what it says. By path, what is read.
fn cases_of_others(project: &Project) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for read in project.replaced.keys().filter_map(|path| rule_of(path)) {
        let readers = project.readers(read);
        let is_of = |path: &&String| path.starts_with(BUILTIN) && readers.iter().any(|id| rule_of(path) == Some(id));
        found.extend(project.tests.keys().filter(is_of).map(|path| (path.clone(), read.to_owned())));
    }
    found
}

fn untested(project: &Project) -> Vec<String> {
    let tested: Vec<&str> = project.tests.keys().filter_map(|path| rule_of(path)).collect();
    let rules = project.rules.rules().iter().map(|rule| rule.header.id.clone());
    rules.filter(|id| !tested.contains(&id.as_str())).collect()
}

/// Judges the cases, as many at once as there are processors; tells of each in their order.
fn judge_all(project: &Project, cases: &[(&str, &TestCase)], mut tell: impl FnMut(&Verdict)) -> Result<Vec<Verdict>> {
    let next = AtomicUsize::new(0);
    let (send, verdicts) = std::sync::mpsc::sync_channel(cases.len());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZero::get) {
            let (send, next) = (send.clone(), &next);
            scope.spawn(move || {
                while let Some((at, (rule, case))) = take(cases, next) {
                    // Whoever no longer listens has met an error.
                    if send.send((at, judge(project, rule, case))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        let (mut early, mut judged) = (BTreeMap::new(), Vec::with_capacity(cases.len()));
        for (at, verdict) in verdicts {
            early.insert(at, verdict?);
            while let Some(verdict) = early.remove(&judged.len()) {
                tell(&verdict);
                judged.push(verdict);
            }
        }
        Ok(judged)
    })
}

/// The next of the items, with its number.
fn take<'a, T>(items: &'a [T], next: &AtomicUsize) -> Option<(usize, &'a T)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    Some((at, items.get(at)?))
}

fn judge(project: &Project, rule: &str, case: &TestCase) -> Result<Verdict> {
    let started = Instant::now();
    let given = |stream: &str, rows: &[Value]| -> Result<RecordBatch, String> { decode(project, stream, rows) };
    let outcome = run_rule_test(&project.rules, &project.rule_files, rule, case, &given)
        .with_context(|| format!("running test `{rule}::{}`", case.name))?;
    let mut failures = outcome.failures.clone();
    if let Some(expected) = &case.alerts {
        failures.extend(compare_alerts(project, &outcome, expected)?);
    }
    let took_ms = started.elapsed().as_millis();
    Ok(Verdict { rule: rule.to_owned(), case: case.name.clone(), shows: case.shows.clone(), failures, took_ms })
}

/// Decodes rows as one lane would, without the mapping: test rows use the canonical names.
fn decode(project: &Project, stream: &str, rows: &[Value]) -> Result<RecordBatch, String> {
    if let Some(system) = system_streams().into_iter().find(|system| system.name == stream) {
        return decode_system(&system, rows);
    }
    let stream = project
        .streams
        .iter()
        .find(|loaded| loaded.name == stream)
        .ok_or_else(|| format!("the job has no stream `{stream}`"))?;
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut bytes, row).map_err(|e| e.to_string())?;
        ends.push(u32::try_from(bytes.len()).map_err(|e| e.to_string())?);
    }
    let mut decoder = JsonDecoder::new(Arc::clone(&stream.schema), &Default::default(), stream.limits())
        .map_err(|e| e.to_string())?;
    let decoded = decoder.decode(Records { bytes: &bytes, ends: &ends });
    if let Some(letter) = decoded.dead_letters.first() {
        return Err(format!(
            "row {} of `{}` is refused: {}: {}",
            letter.record + 1,
            stream.name,
            letter.reason,
            letter.detail
        ));
    }
    let unknown: Vec<&str> = decoded.unknown_fields.keys().map(String::as_str).collect();
    if !unknown.is_empty() {
        return Err(format!("rows of `{}` have unknown fields: {}", stream.name, unknown.join(", ")));
    }
    with_identity(&stream.name, stream.schema.event_time, &stream.arrow, &decoded.batch)
}

/// Rows of a system stream. Only the event time must be given: a text that is left out is empty, a number 0, what may be
/// null is null. Bytes are written as text.
fn decode_system(stream: &SystemStream, rows: &[Value]) -> Result<RecordBatch, String> {
    let wrong = |error: ArrowError| error.to_string();
    let fields = stream.schema.fields();
    let as_text = |field: &Arc<Field>| match field.data_type() {
        DataType::Binary => Arc::new(Field::new(field.name(), DataType::Utf8, field.is_nullable())),
        _ => Arc::clone(field),
    };
    let read = Arc::new(Schema::new(fields.iter().map(as_text).collect::<Vec<_>>()));
    let mut filled = Vec::with_capacity(rows.len());
    for (number, row) in rows.iter().enumerate() {
        let mut row = row.as_object().cloned().unwrap_or_default();
        let Some(time) = row.get(stream.event_time).cloned() else {
            return Err(format!("row {} has no `{}`", number + 1, stream.event_time));
        };
        if let Some(unknown) = row.keys().find(|name| stream.schema.index_of(name).is_err()) {
            return Err(format!("row {} has an unknown field `{unknown}`", number + 1));
        }
        for field in fields.iter().filter(|field| !field.is_nullable()) {
            let empty = match field.data_type() {
                DataType::Utf8 | DataType::Binary => Value::from(""),
                DataType::Timestamp(..) => time.clone(),
                _ => Value::from(0),
            };
            row.entry(field.name()).or_insert(empty);
        }
        filled.push(row);
    }
    let mut decoder = ReaderBuilder::new(Arc::clone(&read)).build_decoder().map_err(wrong)?;
    decoder.serialize(&filled).map_err(wrong)?;
    let batch = decoder.flush().map_err(wrong)?.unwrap_or_else(|| RecordBatch::new_empty(read));
    let typed = |(column, field): (&ArrayRef, &Arc<Field>)| cast(column, field.data_type());
    let columns = batch.columns().iter().zip(fields).map(typed).collect::<Result<_, _>>().map_err(wrong)?;
    let batch = RecordBatch::try_new(Arc::clone(&stream.schema), columns).map_err(wrong)?;
    let time = stream.schema.index_of(stream.event_time).map_err(wrong)?;
    with_identity(stream.name, time, &stream_schema(&stream.schema), &batch)
}

/// Appends the system columns of a lane named after the stream; lateness follows from the order of the rows.
fn with_identity(stream: &str, time: usize, schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, String> {
    let rows = batch.num_rows();
    let mut clock = wattline_core::lane::LaneClock::default();
    let times = batch.column(time).as_primitive::<TimestampMicrosecondType>();
    let lateness: Int64Array = times.values().iter().map(|us| clock.observe(*us)).collect();
    let topic = Arc::new(StringArray::from(vec![stream.to_owned()]));
    let topic =
        DictionaryArray::<Int32Type>::try_new(Int32Array::from_value(0, rows), topic).map_err(|e| e.to_string())?;
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(topic));
    columns.push(Arc::new(Int32Array::from_value(0, rows)));
    columns.push(Arc::new((0_i64..).take(rows).collect::<Int64Array>()));
    columns.push(Arc::new(Int32Array::from_value(0, rows)));
    columns.push(Arc::new(lateness));
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|e| e.to_string())
}

fn compare_alerts(project: &Project, outcome: &TestOutcome, expected: &[ExpectedRow]) -> Result<Vec<String>> {
    let plans = rule_plans(&project.rules, &project.stream_names());
    let got = fold(&plans, outcome)?;
    let got = got.iter().map(|record| Ok(serde_json::from_slice(&payload(record))?)).collect::<Result<Vec<Value>>>()?;
    let mut failures = Vec::new();
    for (k, row) in expected.iter().enumerate() {
        let Some(alert) = got.get(k) else {
            failures.push(format!("- alert {}", shown(row)));
            continue;
        };
        if let Some(name) = row.keys().find(|name| alert.get(key_of(name)).is_none()) {
            failures.push(format!("the expected alerts name `{name}`, which no alert has"));
        } else if !matches(row, alert) {
            failures.push(format!("- alert {}\n+ alert {}", shown(row), summary(alert, row)));
        }
    }
    failures.extend(
        got.iter().skip(expected.len()).map(|alert| format!("+ alert {}", summary(alert, &ExpectedRow::new()))),
    );
    Ok(failures)
}

/// `entity` is short for the entity id.
fn key_of(name: &str) -> &str {
    if name == "entity" { "entity_id" } else { name }
}

/// Folds the rows as a job does with those that one watermark makes final.
fn fold(plans: &[RulePlan], outcome: &TestOutcome) -> Result<Vec<AlertRecord>> {
    let rows: Vec<RuleRows> = outcome
        .rows
        .iter()
        .map(|rows| RuleRows { rule: rows.rule, batch: rows.batch.clone(), identity: rows.identity.clone() })
        .collect();
    let plan_of = |rows: &RuleRows| plans.get(rows.rule).and_then(|plan| plan.alert.as_ref());
    let of_alerts = rows.iter().filter_map(|rows| Some(Candidates::new(plan_of(rows)?, rows)));
    let candidates = of_alerts.collect::<Result<Vec<_>, _>>()?;
    Ok(fold_in_order(&candidates, &mut Lifecycle::default())?)
}

fn matches(expected: &ExpectedRow, alert: &Value) -> bool {
    expected.iter().all(|(name, value)| {
        let got = &alert[key_of(name)];
        match value {
            Expected::Text(text) => got.as_str() == Some(text) || (text == "null" && got.is_null()),
            Expected::Boolean(flag) => got.as_bool() == Some(*flag),
            Expected::Number(digits) => match (digits.parse::<f64>(), got.as_f64()) {
                (Ok(wanted), Some(got)) => (wanted - got).abs() <= f64::EPSILON * wanted.abs(),
                _ => false,
            },
        }
    })
}

fn shown(row: &ExpectedRow) -> String {
    row.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// What tells an alert from others, and what is expected of it.
fn summary(alert: &Value, expected: &ExpectedRow) -> String {
    let always = ["entity", "status", "severity", "revision"];
    let also = expected.keys().map(String::as_str).filter(|name| !always.contains(name));
    let shown = always.into_iter().chain(also).map(|name| match &alert[key_of(name)] {
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn line(verdict: &Verdict) -> String {
    let word = if verdict.failures.is_empty() { "PASS" } else { "FAIL" };
    let mut out = format!("{word} {}::{}  {} ms\n", verdict.rule, verdict.case, verdict.took_ms);
    for failure in &verdict.failures {
        for line in failure.lines() {
            out.push_str(&format!("       {line}\n"));
        }
    }
    out
}

fn json(verdicts: &[Verdict]) -> Value {
    let each = |v: &Verdict| {
        let shows: Vec<&str> = v.shows.iter().map(|kind| kind.name()).collect();
        let took_ms = u64::try_from(v.took_ms).unwrap_or(u64::MAX);
        serde_json::json!({"rule": v.rule, "test": v.case, "shows": shows, "passed": v.failures.is_empty(), "failures": v.failures, "took_ms": took_ms})
    };
    verdicts.iter().map(each).collect()
}
