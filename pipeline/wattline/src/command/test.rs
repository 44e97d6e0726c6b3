//! `wattline test`: the tests beside the rules, through the streaming engine and through plain DataFusion.
//!
//! Rows are decoded by the same decoder as in production, so a test also tests the payload; alerts are folded by
//! the same lifecycle. Each case runs at several batch sizes and numbers of lanes.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use arrow::array::{DictionaryArray, Int32Array, Int64Array, StringArray};
use arrow::datatypes::Int32Type;
use arrow::record_batch::RecordBatch;
use serde_json::Value;
use wattline_core::alert::{AlertRecord, Lifecycle};
use wattline_decode::{JsonDecoder, Records};
use wattline_runtime::RulePlan;
use wattline_runtime::alerting::{Candidates, payload};
use wattline_runtime::port::RuleRows;
use wattline_sql::test_file::{Expected, ExpectedRow, TestCase, TestFile};
use wattline_sql::{TestOutcome, UserFunctions, run_rule_test};

use crate::cli::{OutputFormat, TestArgs};
use crate::project::{LoadedStream, Project};
use crate::{assets, job, project, report};

/// How one case went.
struct Verdict {
    rule: String,
    case: String,
    failures: Vec<String>,
    took_ms: u128,
}

pub(super) fn run(args: &TestArgs, functions: &UserFunctions) -> Result<ExitCode> {
    let loaded = if args.builtin { shipped()? } else { project::load(&args.config.config, functions) };
    let project = match loaded {
        Ok(project) => project,
        Err(refused) => return Ok(super::refuse(&refused)),
    };
    let mut verdicts = Vec::new();
    let mut mistakes = Vec::new();
    for (path, text) in &project.tests {
        let rule = rule_of(path);
        let file = match TestFile::parse(path, text, project.rules.catalog()) {
            Ok(file) => file,
            Err(diagnostics) => {
                mistakes.extend(diagnostics);
                continue;
            }
        };
        for case in &file.cases {
            let wanted = |part: &String| rule.contains(part.as_str()) || case.name.contains(part.as_str());
            if !args.filter.is_empty() && !args.filter.iter().any(wanted) {
                continue;
            }
            let verdict = judge(&project, &rule, case)?;
            if args.format == OutputFormat::Text {
                report::print(&line(&verdict));
            }
            verdicts.push(verdict);
        }
    }
    report::diagnostics(&mistakes, &project.texts);
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

/// The project of all shipped rules, with the reference tables of the sample.
fn shipped() -> Result<Result<Project, project::Refused>> {
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    for path in assets::sample_paths().iter().filter(|path| path.starts_with("reference/")) {
        super::init::write(&folder.path().join(path), &assets::sample(path).unwrap_or_default())?;
    }
    Ok(project::load_in(folder.path(), "demo.toml", assets::demo_config()))
}

fn rule_of(path: &str) -> String {
    let name = Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.trim_end_matches(".test.toml").to_owned()
}

fn untested(project: &Project) -> Vec<String> {
    let tested: Vec<String> = project.tests.keys().map(|path| rule_of(path)).collect();
    let rules = project.rules.rules().iter().map(|rule| rule.header.id.clone());
    rules.filter(|id| !tested.contains(id)).collect()
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
    Ok(Verdict { rule: rule.to_owned(), case: case.name.clone(), failures, took_ms: started.elapsed().as_millis() })
}

/// Decodes rows as one lane would, without the mapping: test rows use the canonical names.
fn decode(project: &Project, stream: &str, rows: &[Value]) -> Result<RecordBatch, String> {
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
    with_identity(stream, &decoded.batch)
}

/// Appends the system columns of a lane named after the stream; lateness follows from the order of the rows.
fn with_identity(stream: &LoadedStream, batch: &RecordBatch) -> Result<RecordBatch, String> {
    use arrow::array::AsArray;
    use arrow::datatypes::TimestampMicrosecondType;
    let rows = batch.num_rows();
    let mut clock = wattline_core::lane::LaneClock::default();
    let times = batch.column(stream.schema.event_time).as_primitive::<TimestampMicrosecondType>();
    let lateness: Int64Array = times.values().iter().map(|us| clock.observe(*us)).collect();
    let topic = Arc::new(StringArray::from(vec![stream.name.clone()]));
    let topic =
        DictionaryArray::<Int32Type>::try_new(Int32Array::from_value(0, rows), topic).map_err(|e| e.to_string())?;
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(topic));
    columns.push(Arc::new(Int32Array::from_value(0, rows)));
    columns.push(Arc::new((0_i64..).take(rows).collect::<Int64Array>()));
    columns.push(Arc::new(Int32Array::from_value(0, rows)));
    columns.push(Arc::new(lateness));
    RecordBatch::try_new(stream.arrow.clone(), columns).map_err(|e| e.to_string())
}

fn compare_alerts(project: &Project, outcome: &TestOutcome, expected: &[ExpectedRow]) -> Result<Vec<String>> {
    let names: Vec<String> = project.streams.iter().map(|stream| stream.name.clone()).collect();
    let plans = job::rule_plans(&project.rules, &names);
    let got = fold(&plans, outcome)?;
    let mut failures = Vec::new();
    for (k, row) in expected.iter().enumerate() {
        match got.get(k) {
            Some(record) if matches(row, record)? => {}
            Some(record) => failures.push(format!("- alert {}\n+ alert {}", shown(row), summary(record))),
            None => failures.push(format!("- alert {}", shown(row))),
        }
    }
    failures.extend(got.iter().skip(expected.len()).map(|record| format!("+ alert {}", summary(record))));
    Ok(failures)
}

fn fold(plans: &[RulePlan], outcome: &TestOutcome) -> Result<Vec<AlertRecord>> {
    let mut lifecycle = Lifecycle::default();
    let mut records = Vec::new();
    for rows in &outcome.rows {
        let Some(plan) = plans.get(rows.rule).and_then(|plan| plan.alert.as_ref()) else { continue };
        let rows = RuleRows { rule: rows.rule, batch: rows.batch.clone(), identity: rows.identity.clone() };
        let candidates = Candidates::new(plan, &rows)?;
        for k in 0..rows.batch.num_rows() {
            records.extend(candidates.fold(k, &mut lifecycle)?);
        }
    }
    Ok(records)
}

fn matches(expected: &ExpectedRow, record: &AlertRecord) -> Result<bool> {
    let payload: Value = serde_json::from_slice(&payload(record))?;
    Ok(expected.iter().all(|(name, value)| {
        let got = if name == "entity" { &payload["entity_id"] } else { &payload[name.as_str()] };
        match value {
            Expected::Text(text) => got.as_str() == Some(text) || (text == "null" && got.is_null()),
            Expected::Boolean(flag) => got.as_bool() == Some(*flag),
            Expected::Number(digits) => match (digits.parse::<f64>(), got.as_f64()) {
                (Ok(wanted), Some(got)) => (wanted - got).abs() <= f64::EPSILON * wanted.abs(),
                _ => false,
            },
        }
    }))
}

fn shown(row: &ExpectedRow) -> String {
    row.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

fn summary(record: &AlertRecord) -> String {
    format!(
        "entity={} status={} severity={} revision={}",
        record.entity_id, record.status, record.severity, record.revision
    )
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
    let each = |v: &Verdict| serde_json::json!({"rule": v.rule, "test": v.case, "passed": v.failures.is_empty(), "failures": v.failures, "took_ms": u64::try_from(v.took_ms).unwrap_or(u64::MAX)});
    verdicts.iter().map(each).collect()
}
