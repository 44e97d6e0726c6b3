//! `wattline check`: every mistake at once, each with its place and what to write instead.

use std::process::ExitCode;

use anyhow::Result;
use wattline_sql::UserFunctions;

use crate::cli::{CheckArgs, OutputFormat};
use crate::{project, report};

pub(super) fn run(args: &CheckArgs, functions: &UserFunctions) -> Result<ExitCode> {
    let (diagnostics, texts, told) = match project::load(&args.config.config, functions) {
        Ok(project) => {
            let told = format!(
                "{}, {}, {}: ",
                counted(project.streams.len(), "stream"),
                counted(project.rules.rules().len(), "rule"),
                counted(project.rules.views().len(), "view")
            );
            (project.warnings, project.texts, told)
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

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
