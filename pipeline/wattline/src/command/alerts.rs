//! `wattline alerts explain`: what an alert is, how it came to be, and the events behind it.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use datafusion::common::Column;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{Expr, cast, lit};
use datafusion::prelude::SessionContext;
use serde_json::{Map, Value};
use wattline_connect::archive::Archive;
use wattline_core::record::column;
use wattline_runtime::table::ALERTS;
use wattline_sql::query::query_context;
use wattline_sql::{CompiledRule, UserFunctions};

use crate::cli::{AlertsCommand, AlertsExplainArgs, AlertsListArgs, OutputFormat};
use crate::project::{self, Project};
use crate::report;

pub(super) async fn run(command: AlertsCommand, functions: &UserFunctions) -> Result<ExitCode> {
    match command {
        AlertsCommand::List(args) => list(&args, functions).await,
        AlertsCommand::Explain(args) => explain(&args, functions).await,
    }
}

/// Newest revisions that people are shown.
const REVISIONS_SHOWN: usize = 10;

/// The events that an alert is made of, of one stream.
struct Inputs {
    stream: String,
    rows: Vec<RecordBatch>,
    /// Whether there are more than are shown.
    more: bool,
}

/// The newest record of each alert. What only occurs is never open: its rule has no `firing`.
async fn list(args: &AlertsListArgs, functions: &UserFunctions) -> Result<ExitCode> {
    let mut wanted = "newest = 1".to_owned();
    if args.open {
        wanted.push_str(" AND status IN ('open', 'update') AND evidence LIKE '%\"firing\":%'");
    }
    if let Some(rule) = &args.rule {
        wanted.push_str(&format!(" AND rule_id = '{}'", rule.replace('\'', "''")));
    }
    let sql = format!(
        "SELECT event_ts, severity, status, rule_id, entity_id, title, alert_id FROM (
             SELECT *, row_number() OVER (PARTITION BY fingerprint ORDER BY revision DESC, event_ts DESC) AS newest FROM alerts
         ) WHERE {wanted} ORDER BY event_ts DESC, alert_id LIMIT {}",
        args.limit
    );
    super::query::answer(&sql, &args.place, args.format, functions).await
}

async fn explain(args: &AlertsExplainArgs, functions: &UserFunctions) -> Result<ExitCode> {
    let archive = super::archive::open(&args.place).await?;
    let session = query_context(functions)?;
    let records = records(&session, &archive, &args.alert).await?;
    let Some(record) = records.iter().rev().find(|record| text(record, "alert_id") == args.alert).or(records.last())
    else {
        report::print_error(&format!(
            "error: the archive has no alert `{}`; `wattline alerts list` names them\n",
            args.alert
        ));
        return Ok(report::answer_is_no());
    };
    let rule_id = text(record, "rule_id");
    let project = project::load(&args.place.config.config, functions).ok();
    let rule = project.as_ref().and_then(|project| project.rules.rule(rule_id)).map(|(_, rule)| rule);
    let inputs = match (&project, rule) {
        (Some(project), Some(rule)) => inputs(&session, &archive, project, rule, record, args.limit).await?,
        _ => Vec::new(),
    };
    match args.format {
        OutputFormat::Json => report::print(&format!("{}\n", json(&records, record, &inputs)?)),
        OutputFormat::Text => {
            report::print(&told(&records, record, rule));
            for Inputs { stream, rows, more } in &inputs {
                let more = if *more { ", the first of them" } else { "" };
                report::print(&format!("\nevents of `{stream}` behind it{more}\n{}\n", pretty_format_batches(rows)?));
            }
            if rule.is_none() {
                report::print(&format!(
                    "\nThe job has no rule `{rule_id}` (any more): the events behind it are not looked up.\n"
                ));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All revisions of the alert, in order.
async fn records(session: &SessionContext, archive: &Archive, alert: &str) -> Result<Vec<Map<String, Value>>> {
    let fingerprint = alert.split(':').next().unwrap_or(alert);
    let table = session.read_table(archive.provider(ALERTS).await?)?;
    let is_it = named("fingerprint").eq(lit(fingerprint));
    let rows = table.filter(is_it)?.sort(vec![named("revision").sort(true, true)])?.collect().await?;
    rows_of(&rows)
}

fn named(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

fn rows_of(batches: &[RecordBatch]) -> Result<Vec<Map<String, Value>>> {
    let mut writer = arrow::json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow::json::writer::JsonArray>(Vec::new());
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.finish()?;
    let text = writer.into_inner();
    Ok(if text.is_empty() { Vec::new() } else { serde_json::from_slice(&text)? })
}

fn text<'a>(record: &'a Map<String, Value>, name: &str) -> &'a str {
    record.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Events of the entity within the window, or at the time, of the row behind the alert.
async fn inputs(
    session: &SessionContext,
    archive: &Archive,
    project: &Project,
    rule: &CompiledRule,
    record: &Map<String, Value>,
    limit: usize,
) -> Result<Vec<Inputs>> {
    let evidence: Map<String, Value> = serde_json::from_str(text(record, "evidence")).unwrap_or_default();
    let instant = |name: &str| {
        let text = text(record, name);
        let zoned = if text.ends_with('Z') || text.contains('+') { text.to_owned() } else { format!("{text}Z") };
        project::instant_us(&zoned)
    };
    let window = instant("window_start").zip(instant("window_end"));
    let Some(event_us) = instant("event_ts") else { bail!("the alert has no event time") };
    let (from_us, to_us) = window.unwrap_or((event_us, event_us + 1));
    let read = rule.columns_read(project.rules.catalog());
    let mut all = Vec::new();
    for (stream, read) in rule.streams.iter().zip(read) {
        let provider = archive.provider(stream).await.with_context(|| format!("the raw events of `{stream}`"))?;
        let Some(time) = project.rules.catalog().stream(stream).map(|stream| stream.event_time.clone()) else {
            continue;
        };
        let table = session.read_table(provider)?;
        let has = |name: &str| table.schema().has_column_with_unqualified_name(name);
        let at = |us: i64| lit(datafusion::common::ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())));
        let mut condition = named(&time).gt_eq(at(from_us)).and(named(&time).lt(at(to_us)));
        for name in rule.header.entity.iter().filter(|name| has(name)) {
            if let Some(value) = evidence.get(name) {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                condition = condition.and(cast(named(name), DataType::Utf8).eq(lit(value)));
            }
        }
        let place = [column::TOPIC, column::PARTITION, column::OFFSET, column::LATENESS_MS];
        let mut columns: Vec<String> = place.iter().filter(|name| has(name)).map(|name| (*name).to_owned()).collect();
        columns.push(time.clone());
        columns.extend(read.into_iter().filter(|name| *name != time && has(name)));
        let shown: Vec<Expr> = columns.iter().map(|name| named(name)).collect();
        let order = vec![named(&time).sort(true, true), named(column::OFFSET).sort(true, true)];
        let frame: DataFrame = table.filter(condition)?.sort(order)?.select(shown)?.limit(0, Some(limit + 1))?;
        let mut rows = frame.collect().await?;
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        let more = count > limit;
        if more && let Some(last) = rows.last_mut() {
            *last = last.slice(0, last.num_rows() - (count - limit).min(last.num_rows()));
        }
        all.push(Inputs { stream: stream.clone(), rows: without_empty_columns(&rows)?, more });
    }
    Ok(all)
}

/// Of a wide stream most columns hold nothing.
fn without_empty_columns(rows: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
    let Some(schema) = rows.first().map(RecordBatch::schema) else { return Ok(Vec::new()) };
    let is_filled = |at: &usize| rows.iter().any(|batch| batch.column(*at).null_count() < batch.num_rows());
    let filled: Vec<usize> = (0..schema.fields().len()).filter(is_filled).collect();
    rows.iter().map(|batch| Ok(batch.project(&filled)?)).collect()
}

fn told(records: &[Map<String, Value>], record: &Map<String, Value>, rule: Option<&CompiledRule>) -> String {
    let mut out = format!("{}\n", text(record, "explanation"));
    let mut say = |what: &str, value: &str| {
        if !value.is_empty() {
            out.push_str(&format!("  {what:<10} {value}\n"));
        }
    };
    say("", text(record, "title_zh"));
    say("alert", text(record, "alert_id"));
    say("status", text(record, "status"));
    say("severity", text(record, "severity"));
    say("rule", &format!("{} version {}", text(record, "rule_id"), text(record, "rule_version")));
    say("standard", text(record, "standard"));
    say("runbook", text(record, "runbook"));
    say("source", text(record, "source"));
    if let Some(description) = rule.and_then(|rule| rule.header.description.as_ref()) {
        say("means", &description.trim().replace('\n', " "));
    }
    out.push_str("\nrevisions\n");
    let skipped = records.len().saturating_sub(REVISIONS_SHOWN);
    if skipped > 0 {
        out.push_str(&format!("        {skipped} earlier ones\n"));
    }
    out.extend(records.iter().skip(skipped).map(|of| {
        let revision = of.get("revision").map(Value::to_string).unwrap_or_default();
        format!("  {revision:>4}  {:<9} {:<9} {}\n", text(of, "status"), text(of, "severity"), text(of, "event_ts"))
    }));
    let evidence: Map<String, Value> = serde_json::from_str(text(record, "evidence")).unwrap_or_default();
    if !evidence.is_empty() {
        out.push_str("\nevidence\n");
        let width = evidence.keys().map(String::len).max().unwrap_or(0);
        out.extend(evidence.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("  {name:<width$}  {value}\n")
        }));
    }
    out
}

fn json(records: &[Map<String, Value>], record: &Map<String, Value>, inputs: &[Inputs]) -> Result<Value> {
    let mut record = record.clone();
    let evidence: Value = serde_json::from_str(text(&record, "evidence")).unwrap_or_default();
    record.insert("evidence".to_owned(), evidence);
    let revisions = records.iter().map(|record| {
        let of = |name: &str| record.get(name).cloned().unwrap_or_default();
        serde_json::json!({"revision": of("revision"), "status": of("status"), "severity": of("severity"), "event_ts": of("event_ts")})
    });
    let mut events = Map::new();
    for Inputs { stream, rows, .. } in inputs {
        events.insert(stream.clone(), rows_of(rows)?.into_iter().map(Value::Object).collect());
    }
    Ok(serde_json::json!({"alert": record, "revisions": revisions.collect::<Vec<_>>(), "events": events}))
}
