//! `wattline explain`: how a rule is run.

use std::process::ExitCode;

use anyhow::Result;
use wattline_sql::UserFunctions;
use wattline_sql::explain::explain;

use crate::cli::ExplainArgs;
use crate::{config, report};

pub(super) fn run(args: &ExplainArgs, functions: &UserFunctions) -> Result<ExitCode> {
    let project = match super::load(&args.config.config, functions) {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    if let Some(text) = explain(&project.rules, &args.rule) {
        report::print(&text);
        return Ok(ExitCode::SUCCESS);
    }
    let known: Vec<&str> = project.rules.rules().iter().map(|rule| rule.header.id.as_str()).collect();
    let help = config::nearest(&args.rule, &known).unwrap_or_else(|| format!("the job runs: {}", known.join(", ")));
    report::print_error(&format!("error: the job has no rule `{}`; {help}\n", args.rule));
    Ok(report::answer_is_no())
}
