//! `wattline run`: the job, until its input ends or it is told to stop.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use wattline_runtime::RunSummary;
use wattline_runtime::progress::Progress;
use wattline_sql::UserFunctions;

use crate::cli::RunArgs;
use crate::job::{self, RunOptions, WrapSource};
use crate::project::Project;
use crate::table_text::grouped;
use crate::{allocator, report, status};

/// After the first signal the job drains; this long after it, the process ends anyway.
const DRAIN_MAX: Duration = Duration::from_secs(10);

pub(super) async fn run(args: RunArgs, functions: &UserFunctions) -> Result<ExitCode> {
    let project = match super::load(&args.config.config, functions) {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    report::diagnostics(&project.warnings, &project.texts);
    let progress = Arc::new(Progress::default());
    let started = Instant::now();
    let summary = run_with(&project, args.until_end, Arc::clone(&progress), None).await?;
    report::print(&told(&summary, &progress, started.elapsed()));
    Ok(ExitCode::SUCCESS)
}

/// Runs a project whose Kafka source is wrapped.
pub(super) async fn run_wrapped(project: &Project, progress: Arc<Progress>, wrap: WrapSource) -> Result<RunSummary> {
    run_with(project, false, progress, Some(wrap)).await
}

/// Runs a project with a status line and signal handling.
async fn run_with(
    project: &Project,
    until_end: bool,
    progress: Arc<Progress>,
    wrap_kafka: Option<WrapSource>,
) -> Result<RunSummary> {
    let (stop, shutdown) = watch::channel(false);
    let signals = tokio::spawn(stop_on_signal(stop)?);
    let built = tokio::select! {
        built = job::build(project, RunOptions {
            until_end,
            progress: Arc::clone(&progress),
            shutdown: shutdown.clone(),
            wrap_kafka,
        }) => built?,
        () = told_to_stop(shutdown) => anyhow::bail!("stopped before the job had started; nothing was read"),
    };
    let status = tokio::spawn(status::show(progress));
    let memory = tokio::spawn(allocator::keep_below(project.config.run.memory.0));
    let outcome = wattline_runtime::run(built).await;
    status.abort();
    memory.abort();
    signals.abort();
    status::clear();
    Ok(outcome?)
}

async fn told_to_stop(mut shutdown: watch::Receiver<bool>) {
    // The sender lives as long as the signal task.
    shutdown.wait_for(|stop| *stop).await.map(|_stop| ()).unwrap_or_default();
}

/// The first signal asks the job to drain; a second one, or a drain that takes too long, ends the process.
fn stop_on_signal(stop: watch::Sender<bool>) -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: what was read is being committed; a second signal ends at once");
        stop.send_replace(true);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = tokio::time::sleep(DRAIN_MAX) => {
                tracing::warn!("the drain took longer than {} s; the next start continues from the last commit", DRAIN_MAX.as_secs());
            }
        }
        end_at_once();
    })
}

/// Ends the process with what is committed: the next start continues there.
#[expect(clippy::disallowed_methods, reason = "asked to end at once, nothing may hold the process back")]
fn end_at_once() {
    status::clear();
    std::process::exit(130);
}

/// What the person at the terminal reads at the end.
fn told(summary: &RunSummary, progress: &Progress, took: Duration) -> String {
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let events = load(&progress.events);
    let seconds = took.as_secs_f64();
    let mut out = format!(
        "{} after {seconds:.1} s: {} events ({}/s), {} late, {} refused, {} result rows, {} alert records\n",
        if summary.ended { "input ended" } else { "stopped" },
        grouped(events),
        grouped((events as f64 / seconds) as u64),
        grouped(load(&progress.late)),
        grouped(load(&progress.refused)),
        grouped(load(&progress.result_rows)),
        grouped(load(&progress.alerts)),
    );
    let failed = load(&progress.rule_errors);
    if failed > 0 {
        out.push_str(&format!("{failed} rule errors: wattline query \"SELECT * FROM rule_errors\"\n"));
    }
    if load(&progress.refused) > 0 {
        out.push_str("refused records, by reason: wattline query \"SELECT stream, reason, count(*) FROM dead_letters GROUP BY 1, 2\"\n");
    }
    let too_late = progress.too_late.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !too_late.is_empty() {
        let rules = too_late.iter().take(12).map(|(rule, events)| format!("{rule} ({})", grouped(*events)));
        let more =
            too_late.len().checked_sub(12).filter(|more| *more > 0).map(|more| format!(" and {more} more rules"));
        let (rules, more) = (rules.collect::<Vec<_>>().join(", "), more.unwrap_or_default());
        out.push_str(&format!("events later than a rule's delay, in their raw table only: {rules}{more}\n"));
    }
    let unknown = progress.unknown_fields.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !unknown.is_empty() {
        let fields: Vec<String> =
            unknown.iter().take(12).map(|(name, n)| format!("{name} ({})", grouped(*n))).collect();
        out.push_str(&format!("payload fields that no schema knows: {}\n", fields.join(", ")));
    }
    out
}
