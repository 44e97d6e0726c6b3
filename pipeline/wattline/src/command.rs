//! The commands, one file each.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use wattline_sql::UserFunctions;

use crate::cli::{Cli, Command, RulesCommand};

mod alerts;
mod amend;
mod apply;
mod archive;
mod backup;
mod check;
mod copying;
mod demo;
mod differences;
mod explain;
mod init;
mod progress_line;
mod query;
mod redeem;
mod replay;
mod reports;
mod restate;
mod restore;
mod rules;
mod run;
mod test;
mod vacuum;
mod verify;

/// Runs the command that was asked for; rules and queries may use `functions`.
pub(crate) fn run(cli: Cli, functions: &UserFunctions) -> Result<ExitCode> {
    match cli.command {
        Command::Init(args) => init::run(&args),
        Command::Check(args) => check::run(&args, functions),
        Command::Explain(args) => explain::run(&args, functions),
        Command::Test(args) => test::run(&args, functions),
        Command::Rules(RulesCommand::Diff(args)) => blocking_on(replay::diff(args, functions)),
        Command::Rules(command) => rules::run(&command, functions),
        Command::Replay(args) => blocking_on(replay::run(args, functions)),
        Command::Demo(args) => blocking_on(demo::run(args)),
        Command::Run(args) => blocking_on(run::run(args, functions)),
        Command::Apply(args) => blocking_on(apply::run(args, functions)),
        Command::Query(args) => blocking_on(query::run(args, functions)),
        Command::Alerts(command) => blocking_on(alerts::run(command, functions)),
        Command::Reports(command) => blocking_on(reports::run(command, functions)),
        Command::Archive(args) => blocking_on(archive::run(args)),
    }
}

/// How long a thread that has read or written files waits for more. Work goes round among those that wait, so with the usual ten
/// seconds as many would stay as were ever busy at once, each with memory of its own.
const IDLE_THREAD_MAX: Duration = Duration::from_millis(500);

fn blocking_on(future: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime =
        runtime.enable_all().thread_keep_alive(IDLE_THREAD_MAX).build().context("starting the async runtime")?;
    let outcome = runtime.block_on(Box::pin(future));
    // A client library that still tries to connect must not hold the process.
    runtime.shutdown_background();
    outcome
}

/// Loads a project, or prints every mistake.
fn load(path: &std::path::Path, functions: &UserFunctions) -> Result<crate::project::Project, ExitCode> {
    crate::project::load(path, functions).map_err(|refused| refuse(&refused))
}

fn refuse(refused: &crate::project::Refused) -> ExitCode {
    crate::report::diagnostics(&refused.diagnostics, &refused.texts);
    crate::report::print_error(&format!("{}\n", crate::report::count(&refused.diagnostics)));
    crate::report::answer_is_no()
}
