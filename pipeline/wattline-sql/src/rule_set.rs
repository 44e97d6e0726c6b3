//! All rules of a job, checked together and compiled.
//!
//! Rules are planned in the order in which they read each other. A rule whose source failed is skipped
//! without a message of its own: the cause has been reported. Nothing is returned unless everything is
//! right, so a process never starts with half of its rules.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{Query, Spanned, Statement};
use sha2::{Digest, Sha256};
use wattline_core::time::HumanDuration;

use crate::catalog::{Catalog, SYSTEM_COLUMNS};
use crate::check::check_syntax;
use crate::diagnostic::{Diagnostic, Severity, code};
use crate::final_program::FinalProgram;
use crate::lane_program::LaneProgram;
use crate::logical::{
    Anchor, Anchors, Refusal, Scope, all_streams_of, break_ties, comes_in_order_of, inexact_aggregate,
    join_as_of_event_time, parse, parse_mistake, planning_mistakes, replace_params, span_in, spell_out_distinct,
    tables_of, within_effect,
};
use crate::output::{OutputColumns, find_columns, project_for_archive};
use crate::planner::{Feed, Hold, Node, Problem, References, StreamPlan, analyze, lower};
use crate::rule_file::{Delivery, LatePolicy, RuleFile, RuleHeader, RuleKind, parse_header, rule_of};
use crate::shared_state::SharedState;

/// A rule that gives rows: kind alert or table.
#[derive(Debug)]
pub struct CompiledRule {
    /// What its header says.
    pub header: RuleHeader,
    /// The path of its file.
    pub path: String,
    /// The text of its file.
    pub sql: String,
    /// The columns it gives, all nullable, in types that the archive holds.
    pub output_schema: SchemaRef,
    /// The streams it reads, at least one.
    pub streams: Vec<String>,
    /// Lateness it tolerates, milliseconds.
    pub delay_ms: i64,
    /// 32 hex digits of a hash over plan, parameters, delay and the layout of stored state: what its state is addressed by.
    pub fingerprint: String,
    /// How far a result may reach back in event time before the moment at which it is final, microseconds: the width of a
    /// window, of windows over windows together; `None` for a rule whose rows stand for themselves.
    pub span_us: Option<i64>,
    /// How far apart in event time two events can be that share a result, microseconds: what late events can change. Only of
    /// rules with `late = "update"`.
    pub reach_us: Option<i64>,
    /// The same of every rule; `None` if time does not bound it.
    pub bound_us: Option<i64>,
    /// Position of the output column that says when: `Timestamp(Microsecond, "UTC")`.
    pub event_time_column: usize,
    /// Positions of the entity columns.
    pub entity_columns: Vec<usize>,
    /// Position of the BOOLEAN `firing` of a condition rule.
    pub firing_column: Option<usize>,
    /// Whether rows wait for the watermark to come out in event-time order (conditions without a window).
    pub ordered: bool,
    /// When a row is final, in words.
    pub final_at: String,
    /// For each feed of its plan 32 hex digits that name what it holds. Rules with the same one share it.
    pub(crate) feed_fingerprints: Vec<String>,
    pub(crate) plan: StreamPlan,
    /// The analysed plan, which batch runs execute.
    pub(crate) logical: LogicalPlan,
}

/// The compiled rules of a job.
#[derive(Debug, Clone)]
pub struct RuleSet {
    catalog: Catalog,
    rules: Arc<Vec<CompiledRule>>,
    states: Arc<Vec<SharedState>>,
    views: Arc<Vec<RuleHeader>>,
    warnings: Vec<Diagnostic>,
}

impl CompiledRule {
    /// Whether its rows are final at once, each with the event that it is of.
    #[must_use]
    pub fn is_final_at_once(&self) -> bool {
        self.plan.is_final_at_once()
    }

    /// Whether it keeps something over rows that are final: window functions, sessions, patterns, joins, windows over windows. Rules with one
    /// fingerprint keep it together.
    #[must_use]
    pub fn has_stages(&self) -> bool {
        self.plan.has_stages()
    }

    /// For each of its streams the columns that it reads, without the system columns.
    #[must_use]
    pub fn columns_read(&self, catalog: &Catalog) -> Vec<Vec<String>> {
        let of_stream = |name: &String| {
            let feeds = self.plan.feeds.iter().filter(|feed| feed.stream == *name);
            let columns: BTreeSet<usize> = feeds.flat_map(|feed| feed.columns.iter().copied()).collect();
            let schema = catalog.stream(name).map(|stream| Arc::clone(&stream.schema));
            let name = |at: usize| schema.as_ref().map(|schema| schema.field(at).name().clone());
            let names = columns.into_iter().filter_map(name);
            names.filter(|name| !SYSTEM_COLUMNS.contains(&name.as_str())).collect()
        };
        self.streams.iter().map(of_stream).collect()
    }
}

impl RuleSet {
    /// Checks and compiles rule files. Synchronous; reference tables are scanned once.
    ///
    /// # Errors
    /// Every mistake of every file, in the order of the files.
    pub fn compile(catalog: &Catalog, files: &[RuleFile]) -> Result<Self, Vec<Diagnostic>> {
        let mut compiler = Compiler::new(catalog, files);
        compiler.read_all();
        compiler.plan_all();
        let Compiler { mut rules, mut views, mut diagnostics, .. } = compiler;
        let order = |path: &str| files.iter().position(|file| file.path == path);
        diagnostics
            .sort_by_key(|diagnostic| (order(&diagnostic.file), diagnostic.span.as_ref().map_or(0, |span| span.start)));
        if diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
            return Err(diagnostics);
        }
        rules.sort_by(|a, b| a.header.id.cmp(&b.header.id));
        views.sort_by(|a, b| a.id.cmp(&b.id));
        let states = Arc::new(SharedState::of(&rules, None));
        let (rules, views) = (Arc::new(rules), Arc::new(views));
        Ok(Self { catalog: catalog.clone(), rules, states, views, warnings: diagnostics })
    }

    /// What is suspicious but runs.
    #[must_use]
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// Alert and table rules by id; their positions are the rule numbers of the programs.
    #[must_use]
    pub fn rules(&self) -> &[CompiledRule] {
        &self.rules
    }

    /// The keyed states of the rules; their positions are the state numbers of the programs.
    #[must_use]
    pub fn states(&self) -> &[SharedState] {
        &self.states
    }

    /// The stream whose rows a state holds.
    #[must_use]
    pub fn stream_of_state(&self, state: usize) -> &str {
        &self.states[state].feed(&self.rules).stream
    }

    /// Headers of the views by id.
    #[must_use]
    pub fn views(&self) -> &[RuleHeader] {
        &self.views
    }

    /// The rule of that id.
    #[must_use]
    pub fn rule(&self, id: &str) -> Option<(usize, &CompiledRule)> {
        self.rules.iter().enumerate().find(|(_, rule)| rule.header.id == id)
    }

    /// What the rules were compiled against.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// A first stage with empty state, for one worker.
    #[must_use]
    pub fn lane_program(&self) -> LaneProgram {
        LaneProgram::new(Arc::clone(&self.rules), Arc::clone(&self.states), None)
    }

    /// A second stage with empty state, for the process.
    #[must_use]
    pub fn final_program(&self) -> FinalProgram {
        self.final_program_of(|_| true)
    }

    /// A second stage for the rules with these ids only; all rules and states keep their numbers.
    #[must_use]
    pub fn final_program_of(&self, is_wanted: impl Fn(&str) -> bool) -> FinalProgram {
        FinalProgram::new(Arc::clone(&self.rules), Arc::clone(&self.states), |rule, _| is_wanted(&rule.header.id))
    }

    /// For each state of one rule by itself the number that it has among those of all rules.
    #[must_use]
    pub fn states_of(&self, rule: usize) -> Vec<usize> {
        let number = |own: &SharedState| self.states.iter().position(|state| state.fingerprint == own.fingerprint);
        SharedState::of(&self.rules, Some(rule)).iter().filter_map(number).collect()
    }

    /// Both stages of one rule by itself, with empty state: to run it again over what is in the archive. Its states are
    /// numbered from 0, rules keep their numbers.
    #[must_use]
    pub fn programs_of(&self, rule: usize) -> (LaneProgram, FinalProgram) {
        let states = Arc::new(SharedState::of(&self.rules, Some(rule)));
        let lanes = LaneProgram::new(Arc::clone(&self.rules), Arc::clone(&states), Some(rule));
        (lanes, FinalProgram::new(Arc::clone(&self.rules), states, |_, number| number == rule))
    }
}

struct Source<'a> {
    file: &'a RuleFile,
    header: RuleHeader,
    query: Query,
    anchors: Anchors,
    reads: BTreeSet<String>,
}

struct Compiler<'a> {
    catalog: &'a Catalog,
    files: &'a [RuleFile],
    sources: BTreeMap<String, Source<'a>>,
    /// Ids whose file has a mistake: what reads them is not planned.
    broken: BTreeSet<String>,
    delays: BTreeMap<String, Option<i64>>,
    /// Rules whose results late events correct, and views over them.
    corrected: BTreeSet<String>,
    rules: Vec<CompiledRule>,
    views: Vec<RuleHeader>,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Compiler<'a> {
    fn new(catalog: &'a Catalog, files: &'a [RuleFile]) -> Self {
        Self {
            catalog,
            files,
            sources: BTreeMap::new(),
            broken: BTreeSet::new(),
            delays: BTreeMap::new(),
            corrected: BTreeSet::new(),
            rules: Vec::new(),
            views: Vec::new(),
            diagnostics: Vec::new(),
        }
    }

    fn read_all(&mut self) {
        for file in self.files {
            let header = match parse_header(file) {
                Ok(header) => header,
                Err(mistakes) => {
                    self.diagnostics.extend(mistakes);
                    self.broken.extend(rule_of(&file.path).map(str::to_owned));
                    self.parse_query(file);
                    continue;
                }
            };
            self.refuse_taken_name(file, &header);
            let Some(mut query) = self.parse_query(file) else {
                self.broken.insert(header.id);
                continue;
            };
            let anchors = Anchors::of(&query, &file.text);
            let mut mistakes = check_syntax(&query, header.kind, file, self.catalog.session());
            mistakes.extend(replace_params(&mut query, &header, file));
            if mistakes.iter().any(|mistake| mistake.severity == Severity::Error) {
                self.broken.insert(header.id.clone());
            }
            self.diagnostics.extend(mistakes);
            let reads = tables_of(&query);
            self.sources.entry(header.id.clone()).or_insert(Source { file, header, query, anchors, reads });
        }
    }

    fn refuse_taken_name(&mut self, file: &RuleFile, header: &RuleHeader) {
        let taken = match self.sources.get(&header.id) {
            Some(other) => Some(format!("the rule in {}", other.file.path)),
            None => self.catalog.kind_of(&header.id).map(str::to_owned),
        };
        if let Some(taken) = taken {
            let message = format!("`{}` is already the name of {taken}", header.id);
            let diagnostic = Diagnostic::error(code::NAME_TAKEN, &file.path, message);
            self.diagnostics.push(diagnostic.at(header.span_of("id")).help("choose another `id`"));
        }
    }

    fn parse_query(&mut self, file: &RuleFile) -> Option<Query> {
        let mistake = match parse(&file.text) {
            Err(error) => parse_mistake(file, &error),
            Ok(mut statements) => match (statements.pop(), statements.len()) {
                (Some(Statement::Query(query)), 0) => return Some(*query),
                (statement, _) => {
                    let span = statement.and_then(|statement| span_in(&file.text, statement.span()));
                    Diagnostic::error(code::SQL_NOT_ONE_QUERY, &file.path, "a rule file holds exactly one query")
                        .at(span)
                        .help("write one `SELECT …` after the header; put other queries into files of their own")
                }
            },
        };
        self.diagnostics.push(mistake);
        None
    }

    /// Queries are planned after those that they read; then each rule is compiled by itself. As many at once as there are processors.
    fn plan_all(&mut self) {
        let mut scope = Scope::new(Arc::clone(self.catalog.session()), self.catalog.sources());
        let order = self.reading_order();
        let mut sources = std::mem::take(&mut self.sources);
        let mut planned = Vec::new();
        for ids in order {
            let mut ready = Vec::new();
            for source in ids.iter().filter_map(|id| sources.remove(id)) {
                if self.broken.contains(&source.header.id) || source.reads.iter().any(|read| self.broken.contains(read))
                {
                    self.broken.insert(source.header.id);
                } else {
                    ready.push(source);
                }
            }
            let plans = in_parallel(&ready, |source| plan_query(self.catalog, source, &scope));
            for (source, plan) in ready.into_iter().zip(plans) {
                let id = source.header.id.clone();
                match self.take_in(source, plan, &mut scope) {
                    Some(of_rule) => planned.push(of_rule),
                    None => {
                        self.broken.insert(id);
                    }
                }
            }
        }
        let compiled = compile_all(self.catalog, &scope, &planned);
        for (Planned { header, reads, .. }, compiled) in planned.into_iter().zip(compiled) {
            // What reads a rule with a mistake is not judged.
            if reads.iter().any(|read| self.broken.contains(read)) {
                self.broken.insert(header.id);
                continue;
            }
            match compiled {
                Ok(Some(rule)) => self.rules.push(rule),
                Ok(None) => self.views.push(header),
                Err(mistakes) => {
                    self.diagnostics.extend(mistakes);
                    self.broken.insert(header.id);
                }
            }
        }
    }

    /// Ids such that a rule comes after the rules it reads, together those that can be planned at once; reports circles.
    fn reading_order(&mut self) -> Vec<Vec<String>> {
        let mut order = Vec::new();
        let mut known = BTreeSet::new();
        let mut waiting: Vec<String> = self.sources.keys().cloned().collect();
        while !waiting.is_empty() {
            let (ready, blocked): (Vec<String>, Vec<String>) = waiting.into_iter().partition(|id| {
                let reads = &self.sources[id].reads;
                reads.iter().all(|read| !self.sources.contains_key(read) || known.contains(read))
            });
            if ready.is_empty() {
                self.report_circle(&blocked);
                break;
            }
            known.extend(ready.iter().cloned());
            order.push(ready);
            waiting = blocked;
        }
        order
    }

    fn report_circle(&mut self, ids: &[String]) {
        for id in ids {
            let source = &self.sources[id];
            let read = source.reads.iter().find(|read| ids.contains(read)).cloned().unwrap_or_default();
            let diagnostic = Diagnostic::error(
                code::CYCLE,
                &source.file.path,
                format!("rule `{id}` reads `{read}`, which reads it in turn"),
            );
            let place = source.anchors.place(&Anchor::From);
            self.diagnostics.push(diagnostic.at(place).help("read the stream itself in one of the rules"));
        }
    }

    /// Makes a planned rule readable for others; `None` if it has a mistake.
    fn take_in(
        &mut self,
        source: Source<'a>,
        planned: Result<LogicalPlan, Vec<Diagnostic>>,
        scope: &mut Scope,
    ) -> Option<Planned<'a>> {
        let Source { file, header, anchors, reads, .. } = source;
        let logical = planned.map_err(|mistakes| self.diagnostics.extend(mistakes)).ok()?;
        scope.add_view(&header.id, logical.clone());
        let delay = self.delay(file, &header, &logical, &reads);
        let delay_ms = delay.map_err(|mistake| self.diagnostics.push(*mistake)).ok()?;
        self.delays.insert(header.id.clone(), delay_ms);
        if let Err(mistake) = self.late_policy(file, &header, &reads) {
            self.diagnostics.push(*mistake);
            return None;
        }
        if header.kind == RuleKind::View && header.backfill_ms.is_some() {
            let message = "a view has no results of its own that the past could be computed for";
            let mistake = Diagnostic::error(code::BACKFILL, &file.path, message).at(header.span_of("backfill"));
            self.diagnostics.push(mistake.help("write it in the rules that read the view"));
            return None;
        }
        Some(Planned { file, header, anchors, reads, logical, delay_ms: delay_ms.unwrap_or(0) })
    }

    /// The delay of the rule that is read, else the header's, else the stream's; `None` without a stream.
    fn delay(
        &self,
        file: &RuleFile,
        header: &RuleHeader,
        plan: &LogicalPlan,
        reads: &BTreeSet<String>,
    ) -> Result<Option<i64>, Box<Diagnostic>> {
        let read = reads.iter().find_map(|read| self.delays.get(read).copied().flatten().map(|delay| (read, delay)));
        match (read, header.delay_ms) {
            (Some((read, delay)), Some(own)) if own != delay => {
                let message = format!(
                    "rule `{}` wants a delay of {}, but it reads `{read}`, whose delay is {}",
                    header.id,
                    HumanDuration(own),
                    HumanDuration(delay)
                );
                let diagnostic = Diagnostic::error(code::DELAY_CONFLICT, &file.path, message);
                Err(Box::new(diagnostic.at(header.span_of("delay")).help("remove `delay` here, or set it there")))
            }
            (Some((_, delay)), _) => Ok(Some(delay)),
            (None, Some(own)) => Ok(Some(own)),
            // The slower of several streams is waited for.
            (None, None) => Ok(all_streams_of(plan).iter().map(|stream| stream.delay_ms).max()),
        }
    }

    /// What reads corrected results must take corrections back too.
    fn late_policy(
        &mut self,
        file: &RuleFile,
        header: &RuleHeader,
        reads: &BTreeSet<String>,
    ) -> Result<(), Box<Diagnostic>> {
        let refused = |key: &str, message: String, help: String| {
            let diagnostic = Diagnostic::error(code::LATE_UPDATE, &file.path, message);
            Err(Box::new(diagnostic.at(header.span_of(key)).help(help)))
        };
        let corrected = reads.iter().find(|read| self.corrected.contains(*read));
        match (header.kind, header.late, corrected) {
            (RuleKind::View, LatePolicy::Update, _) => {
                let help = "write it in the rules that read the view".to_owned();
                return refused("late", "a view has no results that late events could correct".to_owned(), help);
            }
            (RuleKind::Alert | RuleKind::Table, LatePolicy::Ignore, Some(read)) => {
                let message = format!(
                    "rule `{}` reads `{read}`, whose results late events correct, and would not be corrected itself",
                    header.id
                );
                let key = if header.spans.contains_key("late") { "late" } else { "id" };
                return refused(key, message, "write `late = \"update\"` here too".to_owned());
            }
            (_, LatePolicy::Update, _) | (RuleKind::View, _, Some(_)) => {
                self.corrected.insert(header.id.clone());
            }
            (_, LatePolicy::Ignore, None) => {}
        }
        Ok(())
    }
}

/// A rule whose query is planned.
struct Planned<'a> {
    file: &'a RuleFile,
    header: RuleHeader,
    anchors: Anchors,
    reads: BTreeSet<String>,
    logical: LogicalPlan,
    delay_ms: i64,
}

/// A compiled rule, nothing of a view, or the mistakes.
type Compiled = Result<Option<CompiledRule>, Vec<Diagnostic>>;

fn plan_query(catalog: &Catalog, source: &Source<'_>, scope: &Scope) -> Result<LogicalPlan, Vec<Diagnostic>> {
    let Source { file, header, anchors, .. } = source;
    let plan = scope.plan(source.query.clone()).map_err(|error| planning_mistakes(file, &error, scope, anchors))?;
    let plan =
        spell_out_distinct(catalog.session(), plan).map_err(|error| planning_mistakes(file, &error, scope, anchors))?;
    let plan = join_as_of_event_time(plan).map_err(|refusal| vec![refusal.into_diagnostic(file, anchors)])?;
    let plan = break_ties(plan).map_err(|error| planning_mistakes(file, &error, scope, anchors))?;
    cut_to_effect(&plan, file, header)
}

fn compile_all(catalog: &Catalog, scope: &Scope, planned: &[Planned<'_>]) -> Vec<Compiled> {
    let references = Mutex::new(References::default());
    in_parallel(planned, |of| compile_one(catalog, scope, of, &references))
}

/// Works on as many items at once as there are processors; results are in the order of the items.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let work_on = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return done };
            done.push((at, work(item)));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(items.len());
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work_on)).collect();
        let joined = running.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        joined.flatten().collect()
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

fn compile_one(catalog: &Catalog, scope: &Scope, of: &Planned<'_>, references: &Mutex<References>) -> Compiled {
    let Planned { file, header, anchors, logical, .. } = of;
    match header.kind {
        RuleKind::View => match analyze(catalog.session(), logical.clone()) {
            Ok(_analyzed) => Ok(None),
            Err(error) => Err(planning_mistakes(file, &error, scope, anchors)),
        },
        RuleKind::Alert | RuleKind::Table => compile_rule(catalog, of, references).map(Some).map_err(|problems| {
            problems.into_iter().flat_map(|problem| describe(problem, file, scope, anchors)).collect()
        }),
    }
}

fn compile_rule(
    catalog: &Catalog,
    of: &Planned<'_>,
    references: &Mutex<References>,
) -> Result<CompiledRule, Vec<Problem>> {
    let Planned { file, header, logical, delay_ms, .. } = of;
    let refused = |refusals: Vec<Refusal>| refusals.into_iter().map(Problem::from).collect::<Vec<_>>();
    let session = catalog.session();
    let analyzed = analyze(session, logical.clone()).map_err(|error| vec![error.into()])?;
    let projected = match project_for_archive(analyzed.clone()) {
        Ok(projected) => projected.map_err(|error| vec![error.into()])?,
        Err(refusals) => {
            let mut problems = refused(refusals);
            problems.extend(lower(session, analyzed, false, references).err());
            return Err(problems);
        }
    };
    let columns = find_columns(&projected, header);
    let in_order = columns.as_ref().is_ok_and(|columns| columns.firing.is_some());
    match (columns, lower(session, projected.clone(), in_order, references)) {
        (Ok(columns), Ok(plan)) => {
            let reach_us = reach_us(header, &plan).map_err(|refusal| refused(vec![refusal]))?;
            check_delivery(header, &plan, &projected, &columns).map_err(|refusal| refused(vec![refusal]))?;
            Ok(assemble(file, header.clone(), projected, plan, columns, (*delay_ms, reach_us)))
        }
        (columns, plan) => {
            let mut refusals = columns.err().unwrap_or_default();
            // Without a stream, or with a window that is none, there is no time to select.
            if let Err(Problem::Refused(first)) = &plan
                && [code::NO_STREAM, code::TUMBLE].contains(&first.code)
            {
                refusals.retain(|refusal| refusal.code != code::EVENT_TIME_COLUMN);
            }
            let mut problems = refused(refusals);
            problems.extend(plan.err());
            Err(problems)
        }
    }
}

/// What the rule gives while it is in force.
fn cut_to_effect(plan: &LogicalPlan, file: &RuleFile, header: &RuleHeader) -> Result<LogicalPlan, Vec<Diagnostic>> {
    let cut = within_effect(plan, header.effective_from_us, header.effective_to_us);
    let refused = |message: String| {
        let key = if header.effective_from_us.is_some() { "effective_from" } else { "effective_to" };
        let diagnostic = Diagnostic::error(code::EVENT_TIME_COLUMN, &file.path, message).at(header.span_of(key));
        vec![diagnostic.help("add the event time, or `window_start`, to SELECT")]
    };
    match cut {
        Ok(Some(plan)) => Ok(plan),
        Ok(None) => Err(refused("the output does not say when, so nothing says what is in force".to_owned())),
        Err(error) => Err(refused(error.strip_backtrace())),
    }
}

/// What late events can change, if they correct the results of the rule.
fn reach_us(header: &RuleHeader, plan: &StreamPlan) -> Result<Option<i64>, Refusal> {
    if header.late == LatePolicy::Ignore {
        return Ok(None);
    }
    plan.reach_us().map(Some).map_err(|why| {
        Refusal::new(
            code::LATE_UPDATE,
            Anchor::Query,
            format!("the results of the rule cannot be corrected by late events: {why}"),
            "remove `late = \"update\"`, or compute the rule within time windows (TUMBLE, HOP, RANGE frames)",
        )
    })
}

/// What is told before it is committed may have to be told again, and must then be the same alert under the same id.
fn check_delivery(
    header: &RuleHeader,
    plan: &StreamPlan,
    projected: &LogicalPlan,
    columns: &OutputColumns,
) -> Result<(), Refusal> {
    let is_condition = columns.firing.is_some();
    if header.delivery == Delivery::ExactlyOnce || (plan.is_final_at_once() && !is_condition) {
        return Ok(());
    }
    let in_order = || plan.root.goes_by_one_instant() && comes_in_order_of(projected, columns.event_time);
    let (why, help) = if header.late == LatePolicy::Update {
        (
            "late events correct them when the archive has these events, and which revision that is depends on when"
                .to_owned(),
            "remove `delivery = \"low_latency\"`, or `late = \"update\"`",
        )
    } else if let Some(name) = inexact_aggregate(projected) {
        (
            format!(
                "`{name}` adds floating-point values up, and the last digit of what it gives depends on which come first"
            ),
            "make them decimals first, as in `avg(CAST(u_a_v AS DECIMAL(12, 3)))`, or remove `delivery = \"low_latency\"`",
        )
    } else if is_condition && !in_order() {
        (
            "its rows do not become final in the order of their times, and which revision one makes depends on those before it"
                .to_owned(),
            "write the condition over single events, or over windows of one size with `window_end` in SELECT; or remove `firing`, or `delivery = \"low_latency\"`",
        )
    } else {
        return Ok(());
    };
    let message = format!("the alerts of the rule cannot be told before they are committed: {why}");
    Err(Refusal::new(code::DELIVERY, Anchor::Query, message, help))
}

fn assemble(
    file: &RuleFile,
    header: RuleHeader,
    logical: LogicalPlan,
    plan: StreamPlan,
    columns: OutputColumns,
    (delay_ms, reach_us): (i64, Option<i64>),
) -> CompiledRule {
    let mut streams: Vec<String> = plan.feeds.iter().map(|feed| feed.stream.clone()).collect();
    streams.sort_unstable();
    streams.dedup();
    // The watermark goes by all streams of a rule, so what it holds of one is not what a rule over that one holds.
    let sources = streams.join("\n");
    let (span_us, bound_us) = (plan.span_us(), plan.reach_us().ok());
    let ordered = matches!((&plan.root, &plan.feeds[..]), (Node::Feed(_), [Feed { hold: Hold::Rows, .. }]));
    // What is corrected differs from what is not, but what they keep is the same.
    let late = if header.late == LatePolicy::Update { "late update\n" } else { "" };
    let text = format!("{late}{}", plan.optimized.display_indent_schema());
    let fingerprint = fingerprint(&sources, delay_ms, &text);
    let feed_fingerprints = plan.feeds.iter().map(|feed| {
        let kind = match feed.hold {
            Hold::Nothing | Hold::Rows => "rows",
            Hold::Windows(_) => "windows",
        };
        self::fingerprint(&sources, delay_ms, &format!("{kind}\n{}\n{}", feed.stream, feed.text))
    });
    let feed_fingerprints = feed_fingerprints.collect();
    CompiledRule {
        output_schema: crate::operators::nullable(logical.schema().as_arrow()),
        fingerprint,
        feed_fingerprints,
        final_at: final_at(&plan, delay_ms),
        path: file.path.clone(),
        sql: file.text.clone(),
        event_time_column: columns.event_time,
        entity_columns: columns.entity,
        firing_column: columns.firing,
        header,
        streams,
        delay_ms,
        span_us,
        reach_us,
        bound_us,
        ordered,
        plan,
        logical,
    }
}

/// Version of what stored state means. Raise it when rows that accumulators or stages store come to mean something else though the
/// plans that say so stay as they are: with a DataFusion whose accumulators keep other states, or a change of the columns or of
/// their meaning in an operator here. Then no rule finds what an earlier version stored, and each begins as a new one does.
const STATE_LAYOUT: u32 = 1;

/// Parameters are literals of a plan by now, so its text covers them.
fn fingerprint(streams: &str, delay_ms: i64, plan: &str) -> String {
    fingerprint_in(STATE_LAYOUT, streams, delay_ms, plan)
}

fn fingerprint_in(layout: u32, streams: &str, delay_ms: i64, plan: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(layout.to_le_bytes());
    hash.update(streams.as_bytes());
    hash.update(delay_ms.to_le_bytes());
    hash.update(plan.as_bytes());
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn final_at(plan: &StreamPlan, delay_ms: i64) -> String {
    let delay = HumanDuration(delay_ms);
    match (&plan.root, plan.span_us(), &plan.feeds[..]) {
        (_, Some(span_us), _) if plan.root.keeps_state() => format!(
            "a row is final when every lane has reached {delay} past the last event that can change it, at most {} after the first",
            HumanDuration(span_us / 1_000)
        ),
        (_, Some(span_us), _) => format!(
            "a window of {} is final when every lane has reached {delay} past its end",
            HumanDuration(span_us / 1_000)
        ),
        (Node::Feed(_), None, [Feed { hold: Hold::Nothing, .. }]) => "a row is final at once".to_owned(),
        (_, None, _) => format!("a row is final when every lane has reached {delay} past its event time"),
    }
}

fn describe(problem: Problem, file: &RuleFile, scope: &Scope, anchors: &Anchors) -> Vec<Diagnostic> {
    match problem {
        Problem::Refused(refusal) => vec![refusal.into_diagnostic(file, anchors)],
        Problem::Failed(error) => planning_mistakes(file, &error, scope, anchors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_addressed_by_all_that_decides_its_meaning() {
        let this = fingerprint("readings", 5, "plan");
        assert_eq!(this, fingerprint_in(STATE_LAYOUT, "readings", 5, "plan"));
        for other in [
            fingerprint_in(STATE_LAYOUT + 1, "readings", 5, "plan"),
            fingerprint("metrics", 5, "plan"),
            fingerprint("readings", 6, "plan"),
            fingerprint("readings", 5, "another plan"),
        ] {
            assert_ne!(this, other);
        }
    }
}
