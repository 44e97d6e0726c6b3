//! `wattline replay RULE --write`: the results of a period, computed again from the archive and put into the rule's table.
//!
//! ```text
//! what is out    the rows of the table that hold now ─┐ by all columns but floating-point ones,
//! what should be the rule's query over all events ────┘ these within what summing in another order makes
//!                    └▶ rows to withdraw, rows to insert ─▶ one amendment: these rows, a row of `restatements`
//! ```
//! What is out is read and not computed, so it does not matter which version of the rule gave it. All accepted events count, late
//! and redeemed ones too: that is what restating is for. A restatement that is carried out leaves nothing to do, so it can be run
//! again at will, after a crash above all; two at the same time cannot both have the number of the amendment.
//!
//! A job may run meanwhile, if it has done with the period: its rows must all be out and in the table, and none may come any more.
//! A rule that late events correct is done only with what lies before it (`active_from_us`), as the job computes a correction
//! from what it knows itself to have given: restated under its feet, results would be withdrawn that are none, and others be
//! there twice. Alert rules are refused: what alerts say depends on a state that only the job may move.

mod rows;

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::take_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use serde_json::{Value, json};
use wattline_connect::archive::Archive;
use wattline_core::manifest::RuleProgress;
use wattline_core::time::{BEFORE_TIME, END_OF_TIME, HumanDuration};
use wattline_runtime::alerting::rfc3339;
use wattline_runtime::clock::{Clock, SystemClock};
use wattline_runtime::standing::Standing;
use wattline_runtime::table::{Amended, Restatement, TableSpec, restatement_batch, restatements_table, system_streams};
use wattline_runtime::{INSERT, RETRACT, corrected_schema, with_change};
use wattline_sql::oracle::Events;
use wattline_sql::{CompiledRule, RuleKind, rule_of};

use self::rows::{Changes, Out, Period, changes, rows_out};
use super::amend::{Amendments, Steps, TRIES_MAX, settled, user};
use super::differences::{Differences, Replayed, differences};
use super::replay::{Asked, instants};
use crate::adapt::plans::result_table;
use crate::cli::{QueryFormat, ReplayArgs};
use crate::project::Project;
use crate::{config, report};

pub(super) async fn run(args: &ReplayArgs, project: &Project) -> Result<ExitCode> {
    if args.format == QueryFormat::Csv {
        bail!("differences are printed as text or json");
    }
    let (from_us, to_us) = instants(&args.stretch)?;
    if from_us >= to_us {
        bail!("the period ends before it begins: `--from` is the first instant, `--to` the last");
    }
    let reason = match (args.amend.reason.as_deref().map(str::trim), args.amend.dry_run) {
        (None | Some(""), false) => bail!("say why with `--reason \"…\"`: it stands in the table `restatements`"),
        (reason, _) => reason.unwrap_or_default().to_owned(),
    };
    // All are looked at before any is written.
    let rules = args.rules.iter().map(|id| restatable(project, id)).collect::<Result<Vec<_>>>()?;
    let archive = super::archive::open(&args.place).await?;
    let amendments = Amendments::of(&archive, project.config.job.get_ref(), Steps::of(&args.amend)?);
    if args.amend.dry_run
        && let Some(open) = amendments.open().await?
    {
        let note = format!(
            "note: amendment {} was not finished; the next run without `--dry-run` finishes it first\n",
            open.n
        );
        report::print_error(&note);
    }
    let restating = Restating { args, project, archive, amendments, between_us: (from_us, to_us), reason };
    let (mut told, mut outcome) = (Vec::new(), Ok(ExitCode::SUCCESS));
    for rule in rules {
        let answer = Box::pin(restating.rule(rule)).await.with_context(|| format!("restating `{}`", rule.header.id));
        match (answer, args.format) {
            // What was done before it is told all the same.
            (Err(error), _) => {
                outcome = Err(error);
                break;
            }
            (Ok(answer), QueryFormat::Json) => told.push(answer.json()),
            (Ok(answer), QueryFormat::Text | QueryFormat::Csv) => report::print(&answer.text(args.stretch.limit)),
        }
    }
    if args.format == QueryFormat::Json && !told.is_empty() {
        report::print(&format!("{}\n", Value::Array(told)));
    }
    outcome
}

/// The rule of the job with that id, if its results are rows that can be computed again.
fn restatable<'a>(project: &'a Project, id: &str) -> Result<&'a CompiledRule> {
    let Some((_, rule)) = project.rules.rule(id) else {
        if project.rules.views().iter().any(|view| view.id == id) {
            bail!("`{id}` is a view and has no table: restate the rules that read it");
        }
        let known: Vec<&str> = project.rules.rules().iter().map(|rule| rule.header.id.as_str()).collect();
        let help = config::nearest(id, &known).unwrap_or_else(|| "`wattline rules list` names them".to_owned());
        bail!("the job has no rule `{id}`; {help}");
    };
    if rule.header.kind == RuleKind::Alert {
        bail!(
            "`{id}` is an alert rule: what is open, since when and under which revision is a state that only the running job \
             moves, and a record from outside would be told under a revision that the job gives too. With `late = \"update\"` \
             the job corrects the alerts of the rule itself; from now on another version judges if the first number of \
             `version` is raised; `wattline replay {id}` shows what the rule says of the period"
        );
    }
    if let Some(stream) = system_streams().iter().find(|stream| rule.streams.iter().any(|of| of == stream.name)) {
        bail!("`{id}` reads `{}`, what the job said of itself when it happened: that is not restated", stream.name);
    }
    let kept = |name: &String| project.streams.iter().any(|stream| stream.name == *name && stream.config.keep);
    if let Some(stream) = rule.streams.iter().find(|name| !kept(name)) {
        bail!(
            "`{id}` reads stream `{stream}`, which keeps no events (`keep = false`): there is nothing to compute it from"
        );
    }
    let of_topic = |name: &String| project.config.reference.get(name).is_some_and(|of| of.get_ref().topic.is_some());
    if let Some(table) = tables_read(project, id).into_iter().find(of_topic) {
        bail!(
            "`{id}` joins the reference table `{table}`, whose rows are in a topic that only a running job reads: write them to \
             a file and name it with `path` to restate with them"
        );
    }
    Ok(rule)
}

/// What a rule reads, directly or through others.
fn tables_read(project: &Project, id: &str) -> BTreeSet<String> {
    let (mut read, mut open) = (BTreeSet::new(), vec![id.to_owned()]);
    while let Some(id) = open.pop() {
        let file = project.rule_files.iter().find(|file| rule_of(&file.path) == Some(&id));
        for name in file.map(|file| file.tables_read()).unwrap_or_default() {
            if read.insert(name.clone()) {
                open.push(name);
            }
        }
    }
    read
}

/// What is asked of all rules.
struct Restating<'a> {
    args: &'a ReplayArgs,
    project: &'a Project,
    archive: Archive,
    amendments: Amendments,
    between_us: (i64, i64),
    reason: String,
}

/// What came of one rule.
struct Told {
    rule: String,
    version: String,
    period: Period,
    dry_run: bool,
    alike: usize,
    revision: i64,
    differences: Differences,
    /// Whether the table is to get `_change` and `_revision` first.
    lacks_columns: bool,
    /// The number of the amendment that was made.
    amendment: Option<u64>,
}

impl Restating<'_> {
    async fn rule(&self, rule: &CompiledRule) -> Result<Told> {
        let (from_us, to_us) = self.between_us;
        // A window counts at its end, and that of the last one is the end of the period.
        let until_us = if rule.span_us.is_some() { to_us } else { to_us - 1 };
        let period = Period { from_us, until_us, to_us };
        for _ in 0..TRIES_MAX {
            let next = match self.args.amend.dry_run {
                true => None,
                false => Some(self.amendments.begin().await?),
            };
            let standings = settled(&self.archive, &BTreeSet::from([rule.header.id.clone()])).await?;
            standings.iter().try_for_each(|standing| refuse_if_open(standing, rule, &period))?;
            let out = rows_out(&self.archive, rule, &period).await?;
            let is = self.computed(rule, &period).await?;
            let changes = changes(&out.rows, &is)?;
            let mut told = self.told(rule, &period, &out, &is, &changes)?;
            let Some(mut next) = next.filter(|_| !changes.is_empty()) else { return Ok(told) };
            if told.lacks_columns && !self.args.amend.add_columns {
                bail!(
                    "rows have to be withdrawn from table `{0}`, which has no columns `_change` and `_revision` to say so. With \
                     `--add-columns` it gets them; from then on `{0}` itself also holds rows that hold no more, and readers have to \
                     take `{0}_current` (docs/tables.md)",
                    rule.header.id
                );
            }
            let (spec, batches) = written(rule, &out, &is, &changes, told.revision)?;
            self.amendments.write(&mut next, &spec, batches).await?;
            let n = next.n;
            let audit = self.audit(rule, &told, n);
            self.amendments.write(&mut next, &restatements_table(), vec![restatement_batch(&audit)?]).await?;
            if self.amendments.commit(next, Vec::new()).await? {
                told.amendment = Some(n);
                return Ok(told);
            }
        }
        bail!("{TRIES_MAX} other amendments were made meanwhile: run this again when they are done")
    }

    /// What the rule gives over all events.
    async fn computed(&self, rule: &CompiledRule, period: &Period) -> Result<RecordBatch> {
        let read_us = (BEFORE_TIME, END_OF_TIME);
        let asked = Asked { rules: &self.project.rules, rule, events: Events::All, read_us };
        let what = format!("restating `{}`", rule.header.id);
        asked.rows(&self.archive, (period.from_us, period.until_us), &what).await
    }

    fn told(
        &self,
        rule: &CompiledRule,
        period: &Period,
        out: &Out,
        is: &RecordBatch,
        changes: &Changes,
    ) -> Result<Told> {
        let lacks_columns = !has_columns(rule, out) && !changes.withdrawn.is_empty();
        let side =
            |batch: RecordBatch| Replayed { rules: self.project.rules.clone(), id: rule.header.id.clone(), batch };
        let withdrawn = side(take_record_batch(&out.rows, &changes.withdrawn)?);
        let inserted = side(take_record_batch(is, &changes.inserted)?);
        Ok(Told {
            rule: rule.header.id.clone(),
            version: rule.header.version.clone(),
            period: *period,
            dry_run: self.args.amend.dry_run,
            alike: changes.alike,
            // A plain table that only gains rows stays one, and its rows have revision 1 as all others.
            revision: if has_columns(rule, out) || lacks_columns { out.revision + 1 } else { 1 },
            differences: differences(&withdrawn, &inserted)?,
            lacks_columns,
            amendment: None,
        })
    }

    fn audit(&self, rule: &CompiledRule, told: &Told, amendment: u64) -> Restatement {
        let (changed, withdrawn, added) = told.differences.counts();
        Restatement {
            amended: Amended {
                at_us: SystemClock.now_ms().saturating_mul(1_000),
                by: user(&self.args.amend),
                job: self.project.config.job.get_ref().clone(),
                amendment,
            },
            reason: self.reason.clone(),
            rule_id: told.rule.clone(),
            rule_version: told.version.clone(),
            fingerprint: rule.fingerprint.clone(),
            between_us: (told.period.from_us, told.period.to_us),
            revision: told.revision,
            alike: told.alike as u64,
            changed: changed as u64,
            withdrawn: withdrawn as u64,
            added: added as u64,
        }
    }
}

fn has_columns(rule: &CompiledRule, out: &Out) -> bool {
    out.has_change || rule.reach_us.is_some()
}

/// The rows that go into the table, and what it has to be for them. Without anything to withdraw a plain table stays one.
fn written(
    rule: &CompiledRule,
    out: &Out,
    is: &RecordBatch,
    changes: &Changes,
    revision: i64,
) -> Result<(TableSpec, Vec<RecordBatch>)> {
    let spec = result_table(rule);
    let inserted = take_record_batch(is, &changes.inserted)?;
    if !has_columns(rule, out) && changes.withdrawn.is_empty() {
        return Ok((spec, vec![inserted]));
    }
    let spec = TableSpec { schema: corrected_schema(&rule.output_schema), ..spec };
    let withdrawn = take_record_batch(&out.full, &changes.withdrawn)?;
    let rows = [(withdrawn, RETRACT), (inserted, INSERT)].into_iter().filter(|(rows, _)| rows.num_rows() > 0);
    let batches = rows.map(|(rows, change)| with_change(&rows, change, revision));
    Ok((spec, batches.collect::<Result<Vec<_>, _>>()?))
}

/// Whether a job may still give or correct rows of the period, or has some that are in no file.
fn refuse_if_open(standing: &Standing, rule: &CompiledRule, period: &Period) -> Result<()> {
    let (id, job) = (&rule.header.id, &standing.job);
    for (fingerprint, progress) in standing.rules.iter().filter(|(_, progress)| progress.id == *id) {
        let has_stopped = progress.quarantined.iter().any(|of| of.lane.is_none());
        if standing.had_ended || has_stopped {
            continue;
        }
        // A slot tells the home of the rule of its late events when they are in closed files.
        let is_still_told = progress.shared.as_ref().is_some_and(|shared| !shared.late.is_empty());
        let is_late = is_still_told || !progress.late.is_empty();
        let is_corrected = rule.reach_us.is_some() || progress.correction.is_some() || is_late;
        if is_corrected && period.to_us > progress.active_from_us {
            let begun = match progress.active_from_us {
                BEFORE_TIME => "from its first event on".to_owned(),
                us => format!("from {} on", rfc3339(us)),
            };
            let other = if *fingerprint == rule.fingerprint {
                ""
            } else {
                " (an earlier version of it: `wattline apply` first)"
            };
            bail!(
                "job `{job}` corrects `{id}`{other} by late events {begun}, and would do so over the restated rows. Restate what lies \
                 before. For what lies after, have the rule start afresh: change its query, a parameter or its delay, raise \
                 `version` with it, have the job take it (`wattline apply`), and restate up to where it began"
            );
        }
        refuse_if_not_final(progress, rule, period, job)?;
    }
    let mut waiting = standing.waiting.iter().filter(|(table, _)| table == id);
    if waiting.any(|(_, rows)| holds_rows_of(rows, rule, period)) {
        bail!(
            "job `{job}` has published rows of the period that wait for a file: run this again in a minute (`file_age`), or start \
             the job if it was stopped by force"
        );
    }
    Ok(())
}

fn refuse_if_not_final(progress: &RuleProgress, rule: &CompiledRule, period: &Period, job: &str) -> Result<()> {
    let (final_us, id) = (progress.final_until_us, &rule.header.id);
    // END_OF_TIME lies after every instant there can be.
    if final_us >= period.to_us.saturating_add(rule.span_us.unwrap_or(0)) {
        return Ok(());
    }
    let so_far = match final_us {
        BEFORE_TIME => "nothing is final yet".to_owned(),
        us => format!("rows are final up to {}", rfc3339(us)),
    };
    let span = HumanDuration(rule.span_us.unwrap_or(0) / 1_000);
    bail!(
        "job `{job}` still gives rows of `{id}` in this period ({so_far}, and a row may reach back {span}): restate an earlier \
         period, or wait"
    )
}

fn holds_rows_of(rows: &RecordBatch, rule: &CompiledRule, period: &Period) -> bool {
    let time = rule.output_schema.field(rule.event_time_column).name();
    let times = rows.column_by_name(time).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    // A column of another version of the rule does not say it: then they count.
    times.is_none_or(|times| times.iter().flatten().any(|us| (period.from_us..=period.until_us).contains(&us)))
}

impl Told {
    fn text(&self, limit: usize) -> String {
        let (changed, withdrawn, added) = self.differences.counts();
        let period = format!("{} to {}", rfc3339(self.period.from_us), rfc3339(self.period.to_us));
        let is_same = changed + withdrawn + added == 0;
        let done = match (is_same, self.dry_run, self.amendment) {
            (true, ..) => "nothing to restate".to_owned(),
            (false, true, _) => format!("would be restated as revision {}", self.revision),
            (false, false, n) => {
                format!("restated as revision {} (amendment {})", self.revision, n.unwrap_or_default())
            }
        };
        let mut out = format!(
            "{}, {period}: {done}\n{} rows as they were, {changed} changed, {withdrawn} withdrawn, {added} added\n",
            self.rule, self.alike
        );
        if self.lacks_columns && self.dry_run {
            out.push_str("rows are withdrawn, so the table needs `--add-columns`\n");
        }
        if !is_same {
            out.push_str(&format!("\nof the rows that differ:\n{}\n", self.differences.text(limit)));
        }
        out
    }

    fn json(&self) -> Value {
        let (changed, withdrawn, added) = self.differences.counts();
        json!({
            "rule": self.rule,
            "version": self.version,
            "from": rfc3339(self.period.from_us),
            "to": rfc3339(self.period.to_us),
            "dry_run": self.dry_run,
            "alike": self.alike,
            "changed": changed,
            "withdrawn": withdrawn,
            "added": added,
            "revision": self.revision,
            "lacks_columns": self.lacks_columns,
            "amendment": self.amendment,
            "differences": self.differences.json(),
        })
    }
}
