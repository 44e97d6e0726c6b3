//! What the rules must have said: plain DataFusion over the raw table, cut to each rule's delay.
//!
//! The rows of the raw table are read back from the archive, so a row that was lost or doubled on the way shows here as
//! well. Result tables must be equal as multisets of rows. Conditions are folded through the same lifecycle and must give
//! the same alerts, fingerprint by fingerprint; occurrences are named by their event, which plain SQL does not carry along,
//! so they are compared by rule, entity, time and measured value.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::SessionContext;
use wattline_connect::archive::Archive;
use wattline_connect::reference::{ReferenceOptions, load_reference};
use wattline_connect::store::ObjectRoot;
use wattline_core::alert::{AlertRecord, AlertRule, Lifecycle, Severity};
use wattline_core::record::column;
use wattline_decode::StreamSchema;
use wattline_runtime::alerting::{AlertPlan, Candidates};
use wattline_runtime::port::RuleRows;
use wattline_runtime::stream_schema;
use wattline_runtime::table::{SystemStream, system_streams};
use wattline_sql::oracle::run_rule;
use wattline_sql::{Catalog, CompiledRule, ReferenceTable, RuleFile, RuleKind, RuleSet, RuleSeverity, Stream};

use super::job::JobFolder;
use super::traffic::{REFERENCE_TABLES, StreamOfTest, Traffic};
use crate::tree;

/// How many differing rows a failure shows.
const SHOWN_MAX: usize = 5;

/// Names one revision of an alert.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AlertKey {
    pub(super) fingerprint: String,
    pub(super) revision: u64,
}

/// The rules of a job and the events that they must have seen.
pub(super) struct Oracle {
    rules: RuleSet,
    events: BTreeMap<String, Vec<RecordBatch>>,
    archive: Archive,
    runtime: tokio::runtime::Runtime,
}

impl Oracle {
    /// Compiles the shipped rules and reads the raw tables of a folder's archive.
    pub(super) fn new(folder: &JobFolder, traffic: &Traffic) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let location = folder.archive().display().to_string();
        let archive = Archive::open(ObjectRoot::open(&location, &BTreeMap::new())?);
        let mut catalog = Catalog::new();
        let mut events = BTreeMap::new();
        for stream in traffic.streams() {
            let stream = shipped_stream(stream)?;
            let rows = runtime.block_on(read_on_time(&archive, &stream))?;
            events.insert(stream.name.clone(), rows);
            catalog.add_stream(stream)?;
        }
        for SystemStream { name, event_time, schema } in system_streams() {
            let stream = Stream {
                name: name.to_owned(),
                schema: stream_schema(&schema),
                event_time: event_time.to_owned(),
                key: Vec::new(),
                delay_ms: 0,
            };
            events.insert(name.to_owned(), runtime.block_on(read_on_time(&archive, &stream))?);
            catalog.add_stream(stream)?;
        }
        for name in REFERENCE_TABLES {
            let path = folder.path().join(format!("reference/{name}.csv"));
            let table = load_reference(&path, &options_of(name)?)?;
            catalog.add_reference(ReferenceTable {
                name: name.to_owned(),
                schema: table.schema,
                batches: vec![table.batch],
            })?;
        }
        let rules = RuleSet::compile(&catalog, &demo_rule_files()?).map_err(|mistakes| anyhow!("{mistakes:?}"))?;
        Ok(Self { rules, events, archive, runtime })
    }

    fn rows_of(&self, rule: &CompiledRule) -> Result<RecordBatch> {
        let rows = self.runtime.block_on(Box::pin(run_rule(&self.rules, &rule.header.id, &self.events)));
        rows.with_context(|| format!("rule `{}` by plain DataFusion", rule.header.id))
    }

    /// Each result table holds exactly the rows of its rule.
    pub(super) fn tables_equal(&self) -> Result<()> {
        let mut rows_in_all = 0;
        for rule in self.rules.rules().iter().filter(|rule| rule.header.kind == RuleKind::Table) {
            let expected = to_schema(&self.rows_of(rule)?, &rule.output_schema)?;
            let written = self.runtime.block_on(self.archive.read_table(&rule.header.id))?;
            let written =
                written.iter().map(|batch| to_schema(batch, &rule.output_schema)).collect::<Result<Vec<_>>>()?;
            let written = concat_batches(&rule.output_schema, &written)?;
            same_rows(&rule.header.id, &expected, &written)?;
            rows_in_all += expected.num_rows();
        }
        ensure!(rows_in_all > 0, "no rule gave a row: nothing was compared");
        Ok(())
    }

    /// The alerts table holds exactly the alerts of all rules.
    pub(super) fn alerts_equal(&self) -> Result<()> {
        let mut expected: Vec<String> = Vec::new();
        for rule in self.rules.rules().iter().filter(|rule| rule.header.kind == RuleKind::Alert) {
            let rows = RuleRows { rule: 0, batch: self.rows_of(rule)?, identity: None };
            let plan = alert_plan(rule);
            let candidates = Candidates::new(&plan, &rows)?;
            let mut order: Vec<(i64, usize)> = candidates.event_us().iter().copied().zip(0..).collect();
            order.sort_unstable();
            let mut lifecycle = Lifecycle::default();
            for (_, row) in order {
                if let Some(record) = candidates.fold(row, &mut lifecycle)? {
                    expected.push(shown(&record, rule.firing_column.is_some()));
                }
            }
        }
        let mut written = self.alerts_written()?;
        expected.sort_unstable();
        written.sort_unstable();
        ensure!(!expected.is_empty(), "no rule raised an alert: nothing was compared");
        // It follows each case by a row pattern, over all partitions of its topic.
        ensure!(expected.iter().any(|line| line.contains("tx_missing_step")), "the row pattern raised no alert");
        ensure!(expected.iter().any(|line| line.contains("op_refused_records")), "refused records raised no alert");
        same_lines("alerts", &expected, &written)
    }

    fn alerts_written(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for batch in self.runtime.block_on(self.archive.read_table("alerts"))? {
            let words = |name: &str| -> Result<ArrayRef> { Ok(cast(column_of(&batch, name)?, &DataType::Utf8)?) };
            let (rule, fingerprint, entity) = (words("rule_id")?, words("fingerprint")?, words("entity_id")?);
            let (status, severity) = (words("status")?, words("severity")?);
            let event = column_of(&batch, "event_ts")?.as_primitive::<TimestampMicrosecondType>().clone();
            let revision = column_of(&batch, "revision")?.as_primitive::<Int64Type>().clone();
            let measured = cast(column_of(&batch, "measured")?, &DataType::Float64)?;
            let measured = measured.as_primitive::<arrow::datatypes::Float64Type>();
            for k in 0..batch.num_rows() {
                let rule_id = rule.as_string::<i32>().value(k);
                let (_, compiled) = self.rules.rule(rule_id).with_context(|| format!("an alert of `{rule_id}`"))?;
                let name = AlertKey {
                    fingerprint: fingerprint.as_string::<i32>().value(k).to_owned(),
                    revision: revision.value(k).unsigned_abs(),
                };
                lines.push(line(
                    rule_id,
                    compiled.firing_column.is_some().then_some(&name),
                    [status.as_string::<i32>().value(k), severity.as_string::<i32>().value(k)],
                    entity.as_string::<i32>().value(k),
                    event.value(k),
                    measured.is_valid(k).then(|| measured.value(k)),
                ));
            }
        }
        Ok(lines)
    }
}

fn shown(record: &AlertRecord, condition: bool) -> String {
    let name = AlertKey { fingerprint: record.fingerprint.clone(), revision: record.revision };
    line(
        &record.rule_id,
        condition.then_some(&name),
        [record.status.as_str(), record.severity.as_str()],
        &record.entity_id,
        record.event_us,
        record.measured,
    )
}

/// What two alerts must agree on; the measured value to six decimals.
fn line(
    rule: &str,
    name: Option<&AlertKey>,
    states: [&str; 2],
    entity: &str,
    event_us: i64,
    measured: Option<f64>,
) -> String {
    let name = name.map(|key| format!("{}:{}", key.fingerprint, key.revision)).unwrap_or_default();
    let measured = measured.map(|value| format!("{value:.6}")).unwrap_or_default();
    format!("{rule} {entity} {event_us} {states:?} {measured} {name}")
}

/// What the job knows of an alert rule, from its header.
fn alert_plan(rule: &CompiledRule) -> AlertPlan {
    let header = &rule.header;
    let name = |at: usize| rule.output_schema.field(at).name().clone();
    AlertPlan {
        rule: AlertRule {
            id: header.id.clone(),
            version: header.version.clone(),
            title: header.title.clone(),
            title_zh: None,
            severity: match header.severity {
                RuleSeverity::Info => Severity::Info,
                RuleSeverity::Warning => Severity::Warning,
                RuleSeverity::Critical => Severity::Critical,
            },
            standard: None,
            category: String::new(),
            unit: header.unit.clone(),
            runbook: None,
            resolve_after: header.resolve_after,
            renotify_ms: header.renotify_ms,
        },
        entity: rule.entity_columns.iter().map(|at| name(*at)).collect(),
        event_time: name(rule.event_time_column),
        is_condition: rule.firing_column.is_some(),
        corrected: false,
        early: false,
    }
}

/// A shipped stream, as rules see it.
fn shipped_stream(stream: &StreamOfTest) -> Result<Stream> {
    let path = tree::root()?.join(format!("schemas/{}.avsc", stream.name));
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let parsed = StreamSchema::parse(&text, stream.name).map_err(|problems| anyhow!("{problems:?}"))?;
    Ok(Stream {
        name: stream.name.to_owned(),
        schema: stream_schema(&parsed.arrow),
        event_time: parsed.event_time_field().name.clone(),
        key: parsed.key.clone(),
        delay_ms: stream.delay_ms,
    })
}

/// The rules of the demo, as its configuration names them.
pub(super) fn demo_rules() -> Result<Vec<String>> {
    let text = fs::read_to_string(tree::root()?.join("pipeline/wattline/assets/demo.toml"))?;
    let demo: toml::Table = toml::from_str(&text)?;
    let paths = demo["rules"]["paths"].as_array().context("a list of rules")?;
    paths.iter().map(|path| Ok(path.as_str().context("a path")?.to_owned())).collect()
}

fn demo_rule_files() -> Result<Vec<RuleFile>> {
    let root = tree::root()?;
    let each = demo_rules()?.into_iter().map(|path| {
        let path = root.join("sql").join(format!("{}.sql", path.trim_start_matches("builtin:")));
        Ok(RuleFile { text: fs::read_to_string(&path)?, path: path.display().to_string() })
    });
    each.collect()
}

/// How a job reads a reference table of that name.
fn options_of(table: &str) -> Result<ReferenceOptions> {
    let text = fs::read_to_string(tree::root()?.join("sql/reference/tables.toml"))?;
    let tables: toml::Table = toml::from_str(&text)?;
    let columns = tables[table]["columns"].as_table().context("columns")?;
    let known = columns.iter().map(|(name, of)| (name.clone(), of.as_str().unwrap_or_default().to_owned())).collect();
    Ok(ReferenceOptions { known, ..ReferenceOptions::default() })
}

/// The rows of a raw table within the delay, as batches of the stream's schema.
///
/// Most columns of a wide schema hold nothing in a test; they are not read, and one array of nulls stands for all of a type.
async fn read_on_time(archive: &Archive, stream: &Stream) -> Result<Vec<RecordBatch>> {
    let schema = &stream.schema;
    let session = SessionContext::new();
    session.register_table(&stream.name, archive.provider(&stream.name).await?)?;
    let counts: Vec<String> = schema.fields().iter().map(|field| format!("count({0}) AS {0}", field.name())).collect();
    let counts = session.sql(&format!("SELECT {} FROM {}", counts.join(", "), stream.name)).await?.collect().await?;
    let counts = counts.first().context("no counts")?;
    let present: Vec<&str> = schema
        .fields()
        .iter()
        .filter(|field| {
            counts.column_by_name(field.name()).is_some_and(|count| count.as_primitive::<Int64Type>().value(0) > 0)
        })
        .map(|field| field.name().as_str())
        .collect();
    let query = format!(
        "SELECT {} FROM {} WHERE {} <= {}",
        present.join(", "),
        stream.name,
        column::LATENESS_MS,
        stream.delay_ms
    );
    let batches = session.sql(&query).await?.collect().await?;
    let rows_max = batches.iter().map(RecordBatch::num_rows).max().unwrap_or_default();
    let mut nulls: Vec<(DataType, ArrayRef)> = Vec::new();
    for field in schema.fields() {
        if !nulls.iter().any(|(kind, _)| kind == field.data_type()) {
            nulls.push((field.data_type().clone(), new_null_array(field.data_type(), rows_max)));
        }
    }
    batches.iter().map(|batch| widen(batch, schema, &nulls)).collect()
}

fn widen(batch: &RecordBatch, schema: &SchemaRef, nulls: &[(DataType, ArrayRef)]) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| {
        if let Some(present) = batch.column_by_name(field.name()) {
            return Ok(cast(present, field.data_type())?);
        }
        let empty =
            nulls.iter().find(|(kind, _)| kind == field.data_type()).map(|(_, array)| array.slice(0, batch.num_rows()));
        empty.with_context(|| format!("no nulls for `{}`", field.name()))
    });
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_>>()?)?)
}

/// The named columns of a batch, in the types of `schema`.
fn to_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| Ok(cast(column_of(batch, field.name())?, field.data_type())?));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_>>()?)?)
}

fn column_of<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).with_context(|| format!("no column `{name}` among {:?}", batch.schema().fields()))
}

/// Compares two batches as multisets of rows.
fn same_rows(what: &str, expected: &RecordBatch, written: &RecordBatch) -> Result<()> {
    let fields = expected.schema().fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let (left, right) = (converter.convert_columns(expected.columns())?, converter.convert_columns(written.columns())?);
    let sorted = |rows: &arrow::row::Rows| -> Vec<(Vec<u8>, usize)> {
        let mut all: Vec<(Vec<u8>, usize)> = rows.iter().map(|row| row.as_ref().to_vec()).zip(0..).collect();
        all.sort_unstable();
        all
    };
    let (left, right) = (sorted(&left), sorted(&right));
    let same = left.len() == right.len() && left.iter().zip(&right).all(|(a, b)| a.0 == b.0);
    if same {
        return Ok(());
    }
    let lines = |batch: &RecordBatch, rows: &[(Vec<u8>, usize)]| {
        rows.iter().map(|(_, k)| row_text(batch, *k)).collect::<Result<Vec<_>>>()
    };
    let (mut left, mut right) = (lines(expected, &left)?, lines(written, &right)?);
    left.sort_unstable();
    right.sort_unstable();
    same_lines(what, &left, &right)?;
    anyhow::bail!("`{what}`: rows differ in something that their text does not show")
}

fn row_text(batch: &RecordBatch, row: usize) -> Result<String> {
    let options = FormatOptions::default().with_null("null");
    let cells =
        batch.columns().iter().map(|array| Ok(ArrayFormatter::try_new(array, &options)?.value(row).to_string()));
    Ok(cells.collect::<Result<Vec<_>>>()?.join(" | "))
}

/// Compares two sorted lists of lines and shows the first that only one of them has.
fn same_lines(what: &str, expected: &[String], written: &[String]) -> Result<()> {
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        let mut count: BTreeMap<&String, i64> = BTreeMap::new();
        these.iter().for_each(|line| *count.entry(line).or_default() += 1);
        those.iter().for_each(|line| *count.entry(line).or_default() -= 1);
        count.into_iter().filter(|(_, n)| *n > 0).map(|(line, n)| format!("{n} x {line}")).collect()
    };
    let (missing, surplus) = (only(expected, written), only(written, expected));
    ensure!(
        missing.is_empty() && surplus.is_empty(),
        "`{what}`: {} expected, {} written; {} missing, such as {:#?}; {} too many, such as {:#?}",
        expected.len(),
        written.len(),
        missing.len(),
        &missing[..missing.len().min(SHOWN_MAX)],
        surplus.len(),
        &surplus[..surplus.len().min(SHOWN_MAX)],
    );
    Ok(())
}
