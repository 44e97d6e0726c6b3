//! `wattline replay` and `wattline rules diff`: a rule over the events of the archive.
//!
//! What a rule gives on the stream is what its query gives over the same events, so the past of a rule that never ran is a batch query.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::TableProvider;
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};
use wattline_sql::oracle::run_rule_over;
use wattline_sql::{CompiledRule, RuleFile, RuleKind, RuleSet, UserFunctions, rule_of};

use crate::cli::{ArchivePlace, OutputFormat, QueryFormat, ReplayArgs, RulesDiffArgs, Stretch};
use crate::project::{self, Project};
use crate::{config, report};

pub(super) async fn run(args: ReplayArgs, functions: &UserFunctions) -> Result<ExitCode> {
    let project = match super::load(&args.place.config.config, functions) {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    if let Some(old) = &args.compare {
        let format = match args.format {
            QueryFormat::Text => OutputFormat::Text,
            QueryFormat::Json => OutputFormat::Json,
            QueryFormat::Csv => bail!("differences are printed as text or json"),
        };
        return compare(&project, [old, &args.rule], &args.place, &args.stretch, format).await;
    }
    let Some(rows) = replayed(&project, &args.rule, &args.place, &args.stretch).await? else {
        return Ok(report::answer_is_no());
    };
    report::print(&super::query::format(&[rows.batch], args.format)?);
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn diff(args: RulesDiffArgs, functions: &UserFunctions) -> Result<ExitCode> {
    match super::load(&args.place.config.config, functions) {
        Ok(project) => compare(&project, [&args.old, &args.new], &args.place, &args.stretch, args.format).await,
        Err(code) => Ok(code),
    }
}

/// What a rule gives over a stretch of the archive.
struct Replayed {
    rules: RuleSet,
    id: String,
    batch: RecordBatch,
}

impl Replayed {
    fn rule(&self) -> Option<&CompiledRule> {
        self.rules.rule(&self.id).map(|(_, rule)| rule)
    }
}

/// The rule of the job with that id, or the one in a file in its place; `None` if its mistakes were told.
fn find(project: &Project, rule: &str) -> Result<Option<(RuleSet, String)>> {
    if project.rules.rule(rule).is_some() {
        return Ok(Some((project.rules.clone(), rule.to_owned())));
    }
    if !rule.ends_with(".sql") {
        let known: Vec<&str> = project.rules.rules().iter().map(|rule| rule.header.id.as_str()).collect();
        let help = config::nearest(rule, &known).unwrap_or_else(|| "`wattline rules list` names them".to_owned());
        bail!("the job has no rule `{rule}`, and it is no path of a rule file; {help}");
    }
    let text = std::fs::read_to_string(rule).with_context(|| format!("reading `{rule}`"))?;
    let mut files: Vec<RuleFile> = project.rule_files.clone();
    files.retain(|file| rule_of(&file.path) != rule_of(rule));
    files.push(RuleFile { path: rule.to_owned(), text: text.clone() });
    match RuleSet::compile(project.rules.catalog(), &files) {
        Ok(rules) => {
            let id = rule_of(rule).unwrap_or_default().to_owned();
            Ok(Some((rules, id)))
        }
        Err(mistakes) => {
            let mut texts = project.texts.clone();
            texts.insert(rule.to_owned(), text);
            report::diagnostics(&mistakes, &texts);
            Ok(None)
        }
    }
}

async fn replayed(project: &Project, rule: &str, place: &ArchivePlace, stretch: &Stretch) -> Result<Option<Replayed>> {
    let Some((rules, id)) = find(project, rule)? else { return Ok(None) };
    let Some((_, compiled)) = rules.rule(&id) else { bail!("`{id}` is a view: name a rule that reads it") };
    let instant = |text: &Option<String>, open: i64| match text {
        None => Ok(open),
        Some(text) => {
            let day = format!("{text}T00:00:00Z");
            let instant = project::instant_us(text).or_else(|| project::instant_us(&day));
            instant.with_context(|| format!("`{text}` is no instant: write 2026-03-01 or 2026-03-01T00:00:00+08:00"))
        }
    };
    let (from_us, to_us) = (instant(&stretch.from, BEFORE_TIME)?, instant(&stretch.to, END_OF_TIME)?);
    let archive = super::archive::open(place).await?;
    let mut tables: BTreeMap<String, Arc<dyn TableProvider>> = BTreeMap::new();
    for stream in &compiled.streams {
        let provider = archive.provider(stream).await.with_context(|| format!("the raw events of `{stream}`"))?;
        tables.insert(stream.clone(), provider);
    }
    // Rows at the beginning of the stretch are made of events before it.
    let since_us = if from_us == BEFORE_TIME { from_us } else { from_us.saturating_sub(compiled.span_us.unwrap_or(0)) };
    let batch = run_rule_over(&rules, &id, &tables, (since_us, to_us)).await?;
    let times = batch.column(compiled.event_time_column).as_primitive::<TimestampMicrosecondType>();
    let within: BooleanArray =
        times.iter().map(|us| Some(us.is_some_and(|us| (from_us..=to_us).contains(&us)))).collect();
    let batch = filter_record_batch(&batch, &within)?;
    Ok(Some(Replayed { rules, id, batch }))
}

/// Rows of a rule by what they are about, each as its columns in text.
type Rows = BTreeMap<Vec<String>, Vec<BTreeMap<String, String>>>;

/// A column that differs, and both values.
type ChangedColumn = (String, String, String);

/// How rows of two rules differ.
#[derive(Debug, Default)]
struct Differences {
    alike: usize,
    /// What it is about, and the columns that differ.
    changed: Vec<(Vec<String>, Vec<ChangedColumn>)>,
    only_old: Vec<Vec<String>>,
    only_new: Vec<Vec<String>>,
}

async fn compare(
    project: &Project,
    [old, new]: [&String; 2],
    place: &ArchivePlace,
    stretch: &Stretch,
    format: OutputFormat,
) -> Result<ExitCode> {
    let (Some(old), Some(new)) =
        (replayed(project, old, place, stretch).await?, replayed(project, new, place, stretch).await?)
    else {
        return Ok(report::answer_is_no());
    };
    let (Some(old_rule), Some(new_rule)) = (old.rule(), new.rule()) else { bail!("a rule is gone") };
    let key = key_of(old_rule);
    if let Some(missing) = key.iter().find(|name| new_rule.output_schema.field_with_name(name).is_err()) {
        bail!("`{}` has no column `{missing}`, by which rows of the two are matched", new_rule.header.id);
    }
    let of = |rows: &RecordBatch| rows_by(&key, rows);
    let firing = |rows: &Replayed| match rows.rule().and_then(|rule| rule.firing_column) {
        Some(at) => rows.batch.column(at).as_boolean().true_count(),
        None => rows.batch.num_rows(),
    };
    let differences = differences(of(&old.batch)?, of(&new.batch)?);
    let counts = [(&old, firing(&old)), (&new, firing(&new))].map(|(rows, firing)| (rows.batch.num_rows(), firing));
    match format {
        OutputFormat::Text => report::print(&text(&key, counts, &differences, stretch.limit)),
        OutputFormat::Json => report::print(&format!("{}\n", json(&key, counts, &differences))),
    }
    Ok(ExitCode::SUCCESS)
}

/// The columns that tell rows apart: what they are about, and when.
fn key_of(rule: &CompiledRule) -> Vec<String> {
    let names = |at: &usize| rule.output_schema.field(*at).name().clone();
    let mut key = match rule.header.kind {
        RuleKind::Alert => rule.entity_columns.iter().map(names).collect(),
        _ if rule.header.key.is_empty() => {
            let texts = rule.output_schema.fields().iter().filter(|field| field.data_type().is_string());
            texts.map(|field| field.name().clone()).collect()
        }
        _ => rule.header.key.clone(),
    };
    let time = names(&rule.event_time_column);
    for name in ["window_start", &time] {
        if rule.output_schema.field_with_name(name).is_ok() && !key.iter().any(|known| known == name) {
            key.push(name.to_owned());
        }
    }
    key
}

fn rows_by(key: &[String], batch: &RecordBatch) -> Result<Rows> {
    let options = FormatOptions::default().with_null("NULL");
    let columns = batch.schema_ref().fields().iter().zip(batch.columns());
    let columns: Vec<(String, ArrayFormatter<'_>)> = columns
        .map(|(field, column)| Ok((field.name().clone(), ArrayFormatter::try_new(column, &options)?)))
        .collect::<Result<_>>()?;
    let mut rows = Rows::new();
    for at in 0..batch.num_rows() {
        let values: BTreeMap<String, String> =
            columns.iter().map(|(name, column)| (name.clone(), column.value(at).to_string())).collect();
        let about = key.iter().map(|name| values.get(name).cloned().unwrap_or_default()).collect();
        rows.entry(about).or_default().push(values);
    }
    rows.values_mut().for_each(|rows| rows.sort());
    Ok(rows)
}

fn differences(old: Rows, mut new: Rows) -> Differences {
    let mut all = Differences::default();
    for (about, olds) in old {
        let mut news = new.remove(&about).unwrap_or_default().into_iter();
        for old in olds {
            let Some(new) = news.next() else {
                all.only_old.push(about.clone());
                continue;
            };
            let differs = |(name, value): (&String, &String)| {
                let other = new.get(name)?;
                (other != value).then(|| (name.clone(), value.clone(), other.clone()))
            };
            let columns: Vec<_> = old.iter().filter_map(differs).collect();
            match columns.is_empty() {
                true => all.alike += 1,
                false => all.changed.push((about.clone(), columns)),
            }
        }
        all.only_new.extend(news.map(|_| about.clone()));
    }
    all.only_new.extend(new.into_iter().flat_map(|(about, rows)| rows.into_iter().map(move |_| about.clone())));
    all
}

fn named(key: &[String], about: &[String]) -> String {
    key.iter().zip(about).map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

fn text(key: &[String], counts: [(usize, usize); 2], all: &Differences, limit: usize) -> String {
    let [(old_rows, old_firing), (new_rows, new_firing)] = counts;
    let mut out = format!(
        "rows      {old_rows} before, {new_rows} after\nfiring    {old_firing} before, {new_firing} after\nalike     {}\nchanged   {}\nonly old  {}\nonly new  {}\n",
        all.alike,
        all.changed.len(),
        all.only_old.len(),
        all.only_new.len()
    );
    let changed = all.changed.iter().map(|(about, columns)| {
        let columns: Vec<String> = columns.iter().map(|(name, old, new)| format!("{name} {old} -> {new}")).collect();
        format!("~ {}: {}\n", named(key, about), columns.join(", "))
    });
    let gone = all.only_old.iter().map(|about| format!("- {}\n", named(key, about)));
    let come = all.only_new.iter().map(|about| format!("+ {}\n", named(key, about)));
    let total = all.changed.len() + all.only_old.len() + all.only_new.len();
    out.extend(changed.chain(gone).chain(come).take(limit));
    if total > limit {
        out.push_str(&format!("… and {} more: --limit {total} shows all\n", total - limit));
    }
    out
}

fn json(key: &[String], counts: [(usize, usize); 2], all: &Differences) -> serde_json::Value {
    let about = |values: &Vec<String>| -> serde_json::Map<String, serde_json::Value> {
        key.iter().zip(values).map(|(name, value)| (name.clone(), value.as_str().into())).collect()
    };
    let changed = all.changed.iter().map(|(values, columns)| {
        let columns: serde_json::Map<String, serde_json::Value> =
            columns.iter().map(|(name, old, new)| (name.clone(), serde_json::json!([old, new]))).collect();
        serde_json::json!({"about": about(values), "columns": columns})
    });
    let [(old_rows, old_firing), (new_rows, new_firing)] = counts;
    serde_json::json!({
        "rows": [old_rows, new_rows],
        "firing": [old_firing, new_firing],
        "alike": all.alike,
        "changed": changed.collect::<Vec<_>>(),
        "only_old": all.only_old.iter().map(about).collect::<Vec<_>>(),
        "only_new": all.only_new.iter().map(about).collect::<Vec<_>>(),
    })
}
