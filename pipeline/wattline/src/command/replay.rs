//! `wattline replay` and `wattline rules diff`: a rule over the events of the archive, or two and how they differ.
//!
//! What a rule gives on the stream is what its query gives over the same events, so the past of a rule that never ran is a batch query.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::catalog::TableProvider;
use datafusion::functions_aggregate::expr_fn::{max, min};
use datafusion::logical_expr::ident;
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};
use wattline_sql::oracle::run_rule_over;
use wattline_sql::query::query_context;
use wattline_sql::{RuleSet, UserFunctions, rule_of};

use super::differences::{Replayed, differences};
use crate::assets::BUILTIN;
use crate::cli::{ArchivePlace, OutputFormat, QueryFormat, ReplayArgs, RulesDiffArgs, Stretch};
use crate::project::{self, Project};
use crate::{assets, config, report};

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
        let both = Compared { rules: [old, &args.rule], of: args.of.as_deref() };
        return compare(&project, &both, &args.place, &args.stretch, format).await;
    }
    let Some(rows) = replayed(&project, (&args.rule, args.of.as_deref()), &args.place, &args.stretch).await? else {
        return Ok(report::answer_is_no());
    };
    report::print(&super::query::format(&[rows.batch], args.format)?);
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn diff(args: RulesDiffArgs, functions: &UserFunctions) -> Result<ExitCode> {
    match super::load(&args.place.config.config, functions) {
        Ok(project) => {
            let both = Compared { rules: [&args.old, &args.new], of: args.of.as_deref() };
            compare(&project, &both, &args.place, &args.stretch, args.format).await
        }
        Err(code) => Ok(code),
    }
}

/// Two rules, or a rule that reads now the one, now the other.
struct Compared<'a> {
    rules: [&'a str; 2],
    of: Option<&'a str>,
}

/// The rule of the job with that id, or the one in a file (of the folder, or `builtin:` of the program) in its place; `None` if its mistakes were told.
fn find(project: &Project, rule: &str) -> Result<Option<(RuleSet, String)>> {
    if project.rules.rule(rule).is_some() || project.rules.views().iter().any(|view| view.id == rule) {
        return Ok(Some((project.rules.clone(), rule.to_owned())));
    }
    let text = match rule.strip_prefix(BUILTIN) {
        Some(path) => {
            let shipped = assets::rule(path.trim_end_matches(".sql"));
            shipped.with_context(|| format!("no rule `{rule}` comes with the program"))?
        }
        None if rule.ends_with(".sql") => std::fs::read_to_string(rule).with_context(|| format!("reading `{rule}`"))?,
        None => {
            let known: Vec<&str> = project.rules.rules().iter().map(|rule| rule.header.id.as_str()).collect();
            let help = config::nearest(rule, &known).unwrap_or_else(|| "`wattline rules list` names them".to_owned());
            bail!("the job has no rule `{rule}`, and it is no path of a rule file; {help}");
        }
    };
    let is_bare = rule.starts_with(BUILTIN) && !rule.ends_with(".sql");
    let path = if is_bare { format!("{rule}.sql") } else { rule.to_owned() };
    match project.with_rule(&path, text) {
        Ok(rules) => {
            let id = rule_of(&path).unwrap_or_default().to_owned();
            Ok(Some((rules, id)))
        }
        Err(refused) => {
            report::diagnostics(&refused.diagnostics, &refused.texts);
            Ok(None)
        }
    }
}

/// What a rule gives, or another that reads it.
async fn replayed(
    project: &Project,
    (rule, of): (&str, Option<&str>),
    place: &ArchivePlace,
    stretch: &Stretch,
) -> Result<Option<Replayed>> {
    let Some((rules, id)) = find(project, rule)? else { return Ok(None) };
    if let Some(of) = of {
        let readers = project.readers(&id);
        if !readers.iter().any(|reader| reader == of) {
            let known = if readers.is_empty() { "none does".to_owned() } else { readers.join(", ") };
            bail!("`{of}` does not read `{id}`; of the rules that do: {known}");
        }
    }
    let id = of.map_or(id, str::to_owned);
    let Some((_, compiled)) = rules.rule(&id) else {
        bail!("`{id}` is no rule with rows of its own; name one that reads it: `--of <rule>`")
    };
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

async fn compare(
    project: &Project,
    both: &Compared<'_>,
    place: &ArchivePlace,
    stretch: &Stretch,
    format: OutputFormat,
) -> Result<ExitCode> {
    let [old, new] = both.rules;
    let (Some(old), Some(new)) = (
        replayed(project, (old, both.of), place, stretch).await?,
        replayed(project, (new, both.of), place, stretch).await?,
    ) else {
        return Ok(report::answer_is_no());
    };
    let differences = differences(&old, &new)?;
    match format {
        OutputFormat::Text => {
            report::print(&differences.text(stretch.limit));
            if old.batch.num_rows() + new.batch.num_rows() == 0 {
                report::print(&held(&new, place).await?);
            }
            let mut readers = project.readers(&new.id);
            readers.retain(|id| project.rules.rule(id).is_some());
            if let Some(first) = readers.first() {
                let readers = readers.join(", ");
                report::print(&format!("\nread by {readers}: `--of {first}` says what changes there\n"));
            }
        }
        OutputFormat::Json => report::print(&format!("{}\n", differences.json())),
    }
    Ok(ExitCode::SUCCESS)
}

/// From when to when there are events, for who asked for others.
async fn held(of: &Replayed, place: &ArchivePlace) -> Result<String> {
    let Some(rule) = of.rule() else { return Ok(String::new()) };
    let archive = super::archive::open(place).await?;
    let mut told = String::new();
    for stream in &rule.streams {
        let known = of.rules.catalog().stream(stream).with_context(|| format!("the job has no stream `{stream}`"))?;
        let events = archive.provider(stream).await.with_context(|| format!("the raw events of `{stream}`"))?;
        let times = first_and_last(events, &known.event_time).await;
        let stretch = match times.with_context(|| format!("the times of the events of `{stream}`"))? {
            Some((first, last)) => format!("events from {first} to {last}"),
            None => "no events".to_owned(),
        };
        told.push_str(&format!("no rows in this stretch; `{stream}` has {stretch}\n"));
    }
    Ok(told)
}

/// The earliest and the latest time in a column, as text; `None` if there is none.
async fn first_and_last(events: Arc<dyn TableProvider>, time: &str) -> Result<Option<(String, String)>> {
    let session = query_context(&UserFunctions::default())?;
    let frame = session.read_table(events)?.aggregate(Vec::new(), vec![min(ident(time)), max(ident(time))])?;
    let rows = super::query::format(&frame.collect().await?, QueryFormat::Csv)?;
    let (first, last) = rows.lines().nth(1).and_then(|line| line.split_once(',')).context("no row of an aggregate")?;
    Ok((!first.is_empty()).then(|| (first.to_owned(), last.to_owned())))
}
