//! `wattline replay` and `wattline rules diff`: a rule over the events of the archive, or two and how they differ.
//!
//! What a rule gives on the stream is what its query gives over the same events, so the past of a rule that never ran is a batch query.
//! A long stretch is computed in slices where time bounds which events share a row: each slice reads so much more on both sides, and
//! gives the rows of its own time.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::catalog::TableProvider;
use datafusion::functions_aggregate::expr_fn::{max, min};
use datafusion::logical_expr::ident;
use wattline_connect::archive::Archive;
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};
use wattline_sql::oracle::{Events, run_rule_over};
use wattline_sql::query::query_context;
use wattline_sql::{CompiledRule, RuleSet, UserFunctions, rule_of};

use super::differences::{Replayed, differences};
use super::progress_line::ProgressLine;
use crate::assets::BUILTIN;
use crate::cli::{ArchivePlace, OutputFormat, QueryFormat, ReplayArgs, RulesDiffArgs, Stretch};
use crate::project::{self, Project};
use crate::{assets, config, report};

pub(super) async fn run(args: ReplayArgs, functions: &UserFunctions) -> Result<ExitCode> {
    let project = match super::load(&args.place.config.config, functions) {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    if args.write {
        return super::restate::run(&args, &project).await;
    }
    if args.dead_letters {
        return super::redeem::run(&args, &project).await;
    }
    if args.amend.dry_run || args.amend.reason.is_some() || args.amend.by.is_some() {
        bail!(
            "`--dry-run`, `--reason` and `--by` go with `--write` or `--dead-letters`: without them nothing is written"
        );
    }
    let [rule] = args.rules.as_slice() else { bail!("name one rule; only `--write` takes several") };
    if let Some(old) = &args.compare {
        let format = match args.format {
            QueryFormat::Text => OutputFormat::Text,
            QueryFormat::Json => OutputFormat::Json,
            QueryFormat::Csv => bail!("differences are printed as text or json"),
        };
        let both = Compared { rules: [old, rule], of: args.of.as_deref() };
        return compare(&project, &both, &args.place, &args.stretch, format).await;
    }
    let Some(rows) = replayed(&project, (rule, args.of.as_deref()), &args.place, &args.stretch).await? else {
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
    let archive = super::archive::open(place).await?;
    let batch = rows_of_stretch(&archive, &rules, compiled, instants(stretch)?).await?;
    Ok(Some(Replayed { rules, id, batch }))
}

/// Reads an instant, or a day in UTC.
pub(super) fn instant(text: &str) -> Result<i64> {
    let day = format!("{text}T00:00:00Z");
    let instant = project::instant_us(text).or_else(|| project::instant_us(&day));
    instant.with_context(|| format!("`{text}` is no instant: write 2026-03-01 or 2026-03-01T00:00:00+08:00"))
}

/// Beginning and end of a stretch, microseconds since the epoch.
pub(super) fn instants(stretch: &Stretch) -> Result<(i64, i64)> {
    let of = |text: &Option<String>, open: i64| text.as_deref().map_or(Ok(open), instant);
    Ok((of(&stretch.from, BEFORE_TIME)?, of(&stretch.to, END_OF_TIME)?))
}

/// The rows that a rule gives over the events within its delay that lie in a stretch, and the width of its windows before it.
async fn rows_of_stretch(
    archive: &Archive,
    rules: &RuleSet,
    rule: &CompiledRule,
    (from_us, to_us): (i64, i64),
) -> Result<RecordBatch> {
    // Rows at the beginning of the stretch are made of events before it.
    let since_us = if from_us == BEFORE_TIME { from_us } else { from_us.saturating_sub(rule.span_us.unwrap_or(0)) };
    let asked = Asked { rules, rule, events: Events::WithinDelay, read_us: (since_us, to_us) };
    let what = format!("replaying `{}`", rule.header.id);
    asked.rows(archive, (from_us, to_us), &what).await
}

/// Least width of a slice of a stretch.
const SLICE_US: i64 = 86_400_000_000;
/// Slices are so many times as wide as what they read beside themselves.
const SLICE_PARTS: i64 = 4;
/// More than the instants by which steps wait beyond their bounds.
const MARGIN_US: i64 = 1_000;

/// A rule to be run over events of the archive.
pub(super) struct Asked<'a> {
    pub(super) rules: &'a RuleSet,
    pub(super) rule: &'a CompiledRule,
    pub(super) events: Events,
    /// Events from the first instant until before the second may be read.
    pub(super) read_us: (i64, i64),
}

impl Asked<'_> {
    /// Its rows whose event time lies within these instants, both included.
    pub(super) async fn rows(
        &self,
        archive: &Archive,
        (from_us, until_us): (i64, i64),
        what: &str,
    ) -> Result<RecordBatch> {
        let mut tables: BTreeMap<String, Arc<dyn TableProvider>> = BTreeMap::new();
        for stream in &self.rule.streams {
            let provider = archive.provider(stream).await.with_context(|| format!("the raw events of `{stream}`"))?;
            tables.insert(stream.clone(), provider);
        }
        let slices = slices((from_us, until_us), self.rule.bound_us);
        let mut line = ProgressLine::new(what, "slices", slices.len());
        let mut batches = Vec::with_capacity(slices.len());
        for (done, (slice_us, read_us)) in slices.into_iter().enumerate() {
            line.at(done);
            let read_us = (read_us.0.max(self.read_us.0), read_us.1.min(self.read_us.1));
            let rows = run_rule_over(self.rules, &self.rule.header.id, &tables, read_us, self.events).await?;
            let times = rows.column(self.rule.event_time_column).as_primitive::<TimestampMicrosecondType>();
            let within: BooleanArray =
                times.iter().map(|us| Some(us.is_some_and(|us| (slice_us.0..=slice_us.1).contains(&us)))).collect();
            batches.push(filter_record_batch(&rows, &within)?);
        }
        drop(line);
        let schema = batches.first().map_or_else(|| Arc::clone(&self.rule.output_schema), RecordBatch::schema);
        Ok(concat_batches(&schema, &batches)?)
    }
}

/// The slices of a stretch, instants both included, and the events that each needs, from the first until before the second.
fn slices((from_us, until_us): (i64, i64), bound_us: Option<i64>) -> Vec<((i64, i64), (i64, i64))> {
    let all = vec![((from_us, until_us), (BEFORE_TIME, END_OF_TIME))];
    let Some(bound_us) = bound_us else { return all };
    let beside_us = bound_us.saturating_add(MARGIN_US);
    let width_us = SLICE_US.max(beside_us.saturating_mul(SLICE_PARTS));
    if from_us == BEFORE_TIME || until_us == END_OF_TIME || until_us.saturating_sub(from_us) < width_us {
        return all;
    }
    let mut slices = Vec::new();
    let mut begin_us = from_us;
    while begin_us <= until_us {
        let end_us = begin_us.saturating_add(width_us - 1).min(until_us);
        let read_us = (begin_us.saturating_sub(beside_us), end_us.saturating_add(beside_us));
        slices.push(((begin_us, end_us), read_us));
        begin_us = end_us + 1;
    }
    slices
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_a_stretch_once() {
        let hour_us = SLICE_US / 24;
        let month = (0, 30 * SLICE_US + 5);
        let sliced = slices(month, Some(hour_us));
        assert_eq!((sliced.len(), sliced[0].0.0, sliced[30].0.1), (31, month.0, month.1));
        for pair in sliced.windows(2) {
            assert_eq!(pair[0].0.1 + 1, pair[1].0.0);
        }
        assert_eq!(sliced[1].1, (SLICE_US - hour_us - MARGIN_US, 2 * SLICE_US - 1 + hour_us + MARGIN_US));
        assert_eq!(slices(month, Some(10 * SLICE_US)).len(), 1, "a slice would read more beside itself than in itself");
        assert_eq!(slices(month, None).len(), 1);
        assert_eq!(slices((0, END_OF_TIME), Some(hour_us)).len(), 1);
    }
}
