//! `wattline check`: every mistake at once, each with its place and what to write instead.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use wattline_core::time::HumanDuration;
use wattline_sql::diagnostic::code;
use wattline_sql::{Diagnostic, RuleHeader, RuleKind, UserFunctions, rule_of};

use crate::cli::{CheckArgs, OutputFormat};
use crate::project::Project;
use crate::{project, report};

pub(super) fn run(args: &CheckArgs, functions: &UserFunctions) -> Result<ExitCode> {
    let (diagnostics, texts, told) = match project::load(&args.config.config, functions) {
        Ok(project) => {
            let told = format!(
                "{}{}{}{}, {}, {}: ",
                left_out(&project.left_out),
                replaced(&project.replaced),
                backfilled(&project),
                counted(project.streams.len(), "stream"),
                counted(project.rules.rules().len(), "rule"),
                counted(project.rules.views().len(), "view")
            );
            let mut diagnostics = project.warnings.clone();
            if args.strict {
                diagnostics.extend(ungoverned(&project));
            }
            (diagnostics, project.texts, told)
        }
        Err(refused) => (refused.diagnostics, refused.texts, String::new()),
    };
    match args.format {
        OutputFormat::Json => {
            report::print(&format!("{}\n", report::diagnostics_json(&diagnostics, &texts)));
        }
        OutputFormat::Text => {
            report::diagnostics(&diagnostics, &texts);
            report::print(&format!("{told}{}\n", report::count(&diagnostics)));
        }
    }
    Ok(if project::has_errors(&diagnostics) { report::answer_is_no() } else { ExitCode::SUCCESS })
}

/// What rules do not say that a stranger would ask.
fn ungoverned(project: &Project) -> Vec<Diagnostic> {
    let rules = project.rules.rules().iter().map(|rule| &rule.header);
    let mut mistakes = Vec::new();
    for header in rules.chain(project.rules.views()) {
        let Some(file) = project.rule_files.iter().find(|file| rule_of(&file.path) == Some(&header.id)) else {
            continue;
        };
        let is_tested = project.tests.keys().any(|path| rule_of(path) == Some(&header.id));
        let is_dated = |standard: &String| standard == "internal" || has_year(standard);
        let lacks = [
            (header.description.is_none(), "description", "what it means, why, and what it cannot see"),
            (header.owner.is_none(), "owner", "who answers for it"),
            (header.standard.is_none(), "standard", "the standard behind it, or \"internal\""),
            (!header.standard.as_ref().is_none_or(is_dated), "edition", "the year of the edition, in `standard`"),
            (!is_tested && header.kind != RuleKind::View, "test", "cases in a file beside it, `<id>.test.toml`"),
        ];
        for (_, what, help) in lacks.into_iter().filter(|(lacks, ..)| *lacks) {
            let message = format!("rule `{}` has no {what}", header.id);
            let mistake = Diagnostic::error(code::UNGOVERNED, &file.path, message).at(header.span_of("id"));
            mistakes.push(mistake.help(format!("add {help}")));
        }
    }
    mistakes
}

fn has_year(standard: &str) -> bool {
    standard
        .as_bytes()
        .windows(4)
        .any(|four| four.iter().all(u8::is_ascii_digit) && (four[0] == b'1' || four[0] == b'2'))
}

/// Shipped rules that wait for a stream or a table.
fn left_out(by_table: &BTreeMap<String, Vec<String>>) -> String {
    let line = |(table, rules): (&String, &Vec<String>)| {
        let what = counted(rules.len(), "shipped rule");
        format!("{what} left out, as the job has no `{table}`: {}\n", rules.join(", "))
    };
    by_table.iter().map(line).collect()
}

/// Files of the job that are read in place of shipped rules.
fn replaced(by_path: &BTreeMap<String, String>) -> String {
    by_path.iter().map(|(own, shipped)| format!("{own} takes the place of {shipped}\n")).collect()
}

/// Rules that are given their past when a job first runs them.
fn backfilled(project: &Project) -> String {
    let headers = project.rules.rules().iter().map(|rule| &rule.header);
    let line = |header: &RuleHeader| {
        let depth = HumanDuration(header.backfill_ms?);
        Some(format!("{} is given {depth} of the archive, in a job with a past that does not know it yet\n", header.id))
    };
    headers.filter_map(line).collect()
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
