//! `wattline rules list|show|pages`: what rules there are, and what each does.
//!
//! A page is made of what the program knows of the rule: header, compiled plan, first test. So it cannot drift from the rule.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use wattline_core::time::HumanDuration;
use wattline_runtime::alerting::rfc3339;
use wattline_sql::explain::kept;
use wattline_sql::{CompiledRule, Delivery, LatePolicy, RuleFile, RuleHeader, RuleKind, UserFunctions, rule_of};

use crate::assets::BUILTIN;
use crate::cli::{OutputFormat, RulesCommand, RulesListArgs, RulesOf, RulesPagesArgs, RulesShowArgs};
use crate::project::{self, Project};
use crate::table_text::table;
use crate::{config, report};

pub(super) fn run(command: &RulesCommand, functions: &UserFunctions) -> Result<ExitCode> {
    match command {
        RulesCommand::List(args) => list(args, functions),
        RulesCommand::Show(args) => show(args, functions),
        RulesCommand::Pages(args) => pages(args, functions),
        RulesCommand::Diff(_) => Ok(report::could_not_run()),
    }
}

fn load(of: &RulesOf, functions: &UserFunctions) -> Result<Result<Project, ExitCode>> {
    let loaded = if of.builtin { project::shipped()? } else { project::load(&of.config.config, functions) };
    Ok(loaded.map_err(|refused| super::refuse(&refused)))
}

/// The headers of all rules and views, by id.
fn headers(project: &Project) -> BTreeMap<&str, &RuleHeader> {
    let rules = project.rules.rules().iter().map(|rule| &rule.header);
    rules.chain(project.rules.views()).map(|header| (header.id.as_str(), header)).collect()
}

fn list(args: &RulesListArgs, functions: &UserFunctions) -> Result<ExitCode> {
    let project = match load(&args.of, functions)? {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    let standard = |header: &RuleHeader| standard_of(header).unwrap_or_default();
    if args.format == OutputFormat::Json {
        let each = |header: &&RuleHeader| {
            serde_json::json!({"id": header.id, "kind": kind_of(header), "title": header.title, "title_zh": header.title_zh,
                "severity": header.severity.as_str(), "category": header.category, "standard": header.standard,
                "clause": header.clause, "owner": header.owner, "version": header.version})
        };
        let all: serde_json::Value = headers(&project).values().map(each).collect();
        report::print(&format!("{all}\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let row = |(id, header): (&str, &RuleHeader)| {
        let severity = if header.kind == RuleKind::Alert { header.severity.as_str() } else { "" };
        let owner = header.owner.clone().unwrap_or_default();
        vec![
            id.to_owned(),
            kind_of(header).to_owned(),
            severity.to_owned(),
            standard(header),
            owner,
            header.title.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = headers(&project).into_iter().map(row).collect();
    report::print(&table(&["rule", "kind", "severity", "standard", "owner", "says"], &rows));
    Ok(ExitCode::SUCCESS)
}

fn show(args: &RulesShowArgs, functions: &UserFunctions) -> Result<ExitCode> {
    let project = match load(&args.of, functions)? {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    let headers = headers(&project);
    if let Some(header) = headers.get(args.rule.as_str()) {
        if args.sql {
            report::print(&file_of(&project, &header.id)?.text);
            return Ok(ExitCode::SUCCESS);
        }
        if args.cases {
            let cases = project.tests.iter().find(|(path, _)| rule_of(path) == Some(&header.id));
            let Some((_, text)) = cases else { bail!("rule `{}` has no cases", header.id) };
            report::print(text);
            return Ok(ExitCode::SUCCESS);
        }
        report::print(&page(&project, header)?);
        return Ok(ExitCode::SUCCESS);
    }
    let known: Vec<&str> = headers.keys().copied().collect();
    let help = config::nearest(&args.rule, &known).unwrap_or_else(|| "`wattline rules list` names them".to_owned());
    report::print_error(&format!("error: there is no rule `{}`; {help}\n", args.rule));
    Ok(report::answer_is_no())
}

fn pages(args: &RulesPagesArgs, functions: &UserFunctions) -> Result<ExitCode> {
    let project = match load(&args.of, functions)? {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    let write = |name: &str, text: &str| {
        let path = args.folder.join(name);
        super::init::write(&path, text.as_bytes()).with_context(|| format!("writing `{}`", path.display()))
    };
    let mut by_folder: BTreeMap<String, Vec<&RuleHeader>> = BTreeMap::new();
    for header in headers(&project).into_values() {
        write(&format!("{}.md", header.id), &page(&project, header)?)?;
        by_folder.entry(folder_of(&project, &header.id)?).or_default().push(header);
    }
    let mut index = "# Rules\n".to_owned();
    for (folder, headers) in by_folder {
        writeln!(index, "\n## {folder}\n\n| rule | kind | severity | says | standard |\n|---|---|---|---|---|")?;
        for header in headers {
            let severity = if header.kind == RuleKind::Alert { header.severity.as_str() } else { "" };
            let (id, kind, standard) = (&header.id, kind_of(header), standard_of(header).unwrap_or_default());
            writeln!(index, "| [`{id}`]({id}.md) | {kind} | {severity} | {} | {standard} |", header.title)?;
        }
    }
    write("README.md", &index)?;
    Ok(ExitCode::SUCCESS)
}

fn kind_of(header: &RuleHeader) -> &'static str {
    match header.kind {
        RuleKind::Alert => "alert",
        RuleKind::Table => "table",
        RuleKind::View => "view",
    }
}

fn standard_of(header: &RuleHeader) -> Option<String> {
    let standard = header.standard.as_ref()?;
    Some(match &header.clause {
        Some(clause) => format!("{standard}, {clause}"),
        None => standard.clone(),
    })
}

fn file_of<'a>(project: &'a Project, id: &str) -> Result<&'a RuleFile> {
    let file = project.rule_files.iter().find(|file| rule_of(&file.path) == Some(id));
    file.with_context(|| format!("no file of the project is that of rule `{id}`"))
}

/// The folder of its file; empty if that is in none.
fn folder_of(project: &Project, id: &str) -> Result<String> {
    let path = file_of(project, id)?.path.trim_start_matches(BUILTIN);
    Ok(path.rsplit_once('/').map_or_else(String::new, |(folder, _)| folder.to_owned()))
}

/// The page of a rule, as Markdown.
fn page(project: &Project, header: &RuleHeader) -> Result<String> {
    let mut text = String::new();
    let compiled = project.rules.rule(&header.id).map(|(_, rule)| rule);
    writeln!(text, "# {}\n\n**{}**", header.id, header.title)?;
    if let Some(title) = &header.title_zh {
        writeln!(text, "· {title}")?;
    }
    if let Some(description) = &header.description {
        writeln!(text, "\n{}", description.trim())?;
    }
    writeln!(text, "\n| | |\n|---|---|")?;
    for (what, value) in facts(project, header, compiled)? {
        writeln!(text, "| {what} | {} |", value.replace('|', "\\|"))?;
    }
    if !header.params.is_empty() {
        writeln!(text, "\n## Parameters\n\n| name | value |\n|---|---|")?;
        for (name, param) in &header.params {
            writeln!(text, "| `{name}` | `{}` |", param.value)?;
        }
    }
    if let Some(rule) = compiled {
        writeln!(text, "\n## What it gives\n\n| column | type | |\n|---|---|---|")?;
        for (at, field) in rule.output_schema.fields().iter().enumerate() {
            let role = match at {
                _ if at == rule.event_time_column => "event time",
                _ if rule.entity_columns.contains(&at) => "what it is about",
                _ if Some(at) == rule.firing_column => "whether it fires",
                _ => "",
            };
            writeln!(text, "| `{}` | {} | {role} |", field.name(), field.data_type())?;
        }
    }
    if let Some(example) = example(project, &header.id) {
        writeln!(text, "\n## Example\n\n```toml\n{}\n```", example.trim())?;
    }
    writeln!(text, "\n## Tune or silence\n\n{}", tuning(&file_of(project, &header.id)?.path, header))?;
    Ok(text)
}

fn facts(
    project: &Project,
    header: &RuleHeader,
    compiled: Option<&CompiledRule>,
) -> Result<Vec<(&'static str, String)>> {
    let mut facts = vec![("kind", kind_of(header).to_owned())];
    let mut add = |what: &'static str, value: Option<String>| facts.extend(value.map(|value| (what, value)));
    if header.kind == RuleKind::Alert {
        add("severity", Some(header.severity.as_str().to_owned()));
        add("about", Some(header.entity.join(", ")));
        add(
            "resolves",
            Some(format!("after {} good rows in a row", header.resolve_after)).filter(|_| header.resolve_after > 1),
        );
        let early =
            (header.delivery == Delivery::LowLatency).then(|| "before its tick is committed, at least once".to_owned());
        add("told", early);
        add("told again", header.renotify_ms.map(|ms| format!("every {}", HumanDuration(ms))));
    }
    add("standard", standard_of(header));
    add("in force from", header.effective_from_us.map(rfc3339));
    add("in force until", header.effective_to_us.map(rfc3339));
    add("category", header.category.clone());
    add("unit", header.unit.clone());
    add("owner", header.owner.clone());
    add("version", Some(header.version.clone()));
    add("runbook", header.runbook.clone());
    let reads = file_of(project, &header.id)?.tables_read();
    add(
        "reads",
        (!reads.is_empty()).then(|| reads.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    );
    let readers = project.rule_files.iter().filter(|file| file.tables_read().contains(&header.id));
    let readers: Vec<String> = readers.filter_map(|file| Some(format!("`{}`", rule_of(&file.path)?))).collect();
    add("read by", (!readers.is_empty()).then(|| readers.join(", ")));
    if let Some(rule) = compiled {
        add("delay", Some(HumanDuration(rule.delay_ms).to_string()));
        add("rows are final", Some(rule.final_at.clone()));
        add("keeps", Some(kept(rule)));
        let late = if header.late == LatePolicy::Update { "corrects what is out" } else { "is in the raw table only" };
        add("what comes later", Some(late.to_owned()));
        let depth = header.backfill_ms.map(|ms| format!("{} of the archive", HumanDuration(ms)));
        add("is given, when new", depth);
    }
    Ok(facts)
}

/// A case that is long needs patience.
const EXAMPLE_LINES: usize = 60;

/// The first case of its tests that is not long, else the shortest.
fn example(project: &Project, id: &str) -> Option<String> {
    const CASE: &str = "[[test]]";
    let (_, text) = project.tests.iter().find(|(path, _)| rule_of(path) == Some(id))?;
    let cases: Vec<String> = text.split(CASE).skip(1).map(|case| format!("{CASE}{case}")).collect();
    let short = cases.iter().find(|case| case.lines().count() <= EXAMPLE_LINES);
    short.or_else(|| cases.iter().min_by_key(|case| case.len())).cloned()
}

/// `path`: that of the rule's file, below the folder of the job unless it comes with the program.
fn tuning(path: &str, header: &RuleHeader) -> String {
    let id = &header.id;
    let what = if header.params.is_empty() { "change the query" } else { "change `params`, or the query" };
    let silence = match header.kind {
        RuleKind::Alert => {
            " To silence it, name in `[rules] paths` the rules that are to run, without it; to hear of it less often, raise `resolve_after` or leave out `renotify`."
        }
        RuleKind::Table | RuleKind::View => "",
    };
    let change = match path.starts_with(BUILTIN) {
        true => format!(
            "`wattline rules show {id} --builtin --sql` and `--cases` print its files: put them into a folder of the job's own, where they take its place, and {what}; raise `version` if the meaning changes. `wattline test {id}.sql` tries it, `wattline rules diff {id} {id}.sql` says which verdicts change over the archive."
        ),
        false => format!(
            "In `{path}`, {what}; raise `version` if the meaning changes. `wattline test {path}` tries it. To see which verdicts change over the archive before they do, change a copy outside of `[rules] paths`: `wattline rules diff {path} {id}.sql`."
        ),
    };
    format!("{change}{silence}")
}
