//! `wattline apply`: the running job of this folder goes on with the rules that now stand there.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use wattline_sql::UserFunctions;

use crate::cli::ApplyArgs;
use crate::reload::{Desk, differences};
use crate::report;

mod slots;

/// How often it looks for the answer.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn run(args: ApplyArgs, functions: &UserFunctions) -> Result<ExitCode> {
    let project = match super::load(&args.config.config, functions) {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    report::diagnostics(&project.warnings, &project.texts);
    if project.config.run.slots > 1 {
        return slots::run(&project, &args).await;
    }
    let desk = Desk::of(&project.folder, &project.config);
    let request = uuid::Uuid::new_v4().simple().to_string();
    let asked = Instant::now();
    desk.ask(&request)?;
    loop {
        if let Some(answer) = desk.answer(&request) {
            return Ok(match answer.refused {
                Some(why) => {
                    report::print_error(&format!("the job goes on with the rules that it had: {why}\n"));
                    report::answer_is_no()
                }
                None => {
                    let told = differences(&answer.before, &answer.now);
                    report::print(&format!("applied after {:.1} s: {told}\n", asked.elapsed().as_secs_f64()));
                    ExitCode::SUCCESS
                }
            });
        }
        if asked.elapsed() > args.wait.duration() {
            desk.withdraw(&request);
            bail!(
                "job `{}`, slot `{}`, does not answer: is `wattline run` running with this configuration?",
                project.config.job.get_ref(),
                project.config.slot
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
