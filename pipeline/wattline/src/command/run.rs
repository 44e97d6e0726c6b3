//! `wattline run`: the job, until its input ends or it is told to stop.

use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wattline_core::exchange::Place;
use wattline_runtime::clock::{Clock, SystemClock};
use wattline_runtime::progress::Progress;
use wattline_runtime::{Job, RunSummary};
use wattline_sql::UserFunctions;

#[cfg(debug_assertions)]
use crate::adapt::crash_points::CrashPoints;
use crate::cli::RunArgs;
use crate::job::{self, RunOptions, WrapSource};
use crate::project::Project;
use crate::reload::{Change, Reloads};
use crate::table_text::grouped;
use crate::{allocator, report, status};

mod slots;

/// After the first signal the job drains; this long after it, the process ends anyway.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Before a job that could not go on tries again.
const REST: Duration = Duration::from_secs(2);

pub(super) async fn run(args: RunArgs, functions: &UserFunctions) -> Result<ExitCode> {
    let mut project = match super::load(&args.config.config, functions) {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    report::diagnostics(&project.warnings, &project.texts);
    let mut reloads = Reloads::of(&args.config.config, functions, &project)?;
    let how = RunHow {
        until_end: args.until_end,
        #[cfg(debug_assertions)]
        crash_points: Some(CrashPoints::of(&args.crash)?),
    };
    let stop = stop_on_signal()?;
    if project.config.run.slots > 1 {
        return slots::run(project, reloads, how, stop).await;
    }
    let mut has_run = false;
    let mut change = None;
    loop {
        let progress = Arc::new(Progress::default());
        let started = Instant::now();
        let mut run = match Run::build(&project, &how, None, &progress, &stop).await {
            Ok(run) => run,
            Err(error) if !has_run => return Err(error),
            Err(_) if *stop.borrow() => return Ok(ExitCode::SUCCESS),
            Err(error) => {
                // A job that ran is not ended by rules that cannot start, nor by a broker that is gone meanwhile.
                match change.take() {
                    Some(change) => project = reloads.give_back(change, &error),
                    None => tracing::warn!("the job cannot start again and keeps trying: {error:#}"),
                }
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        has_run = true;
        if let Some(change) = change.take() {
            reloads.taken(&change, &project);
        }
        let (summary, next) = tokio::select! {
            summary = run.until_its_end(&stop) => (summary?, None),
            next = reloads.next(&project) => (run.stopped().await?, Some(next)),
        };
        report::print(&told(&summary, &progress, started.elapsed()));
        match next {
            Some((next, requests)) if !*stop.borrow() => {
                report::diagnostics(&next.warnings, &next.texts);
                change = Some(Change { before: std::mem::replace(&mut project, next), requests });
            }
            _ => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Runs a project whose Kafka source is wrapped.
pub(super) async fn run_wrapped(project: &Project, progress: Arc<Progress>, wrap: WrapSource) -> Result<RunSummary> {
    let stop = stop_on_signal()?;
    let mut run = Run::build(project, &RunHow::default(), Some(wrap), &progress, &stop).await?;
    run.until_its_end(&stop).await
}

/// What a command decides about a run.
#[derive(Clone, Default)]
struct RunHow {
    until_end: bool,
    #[cfg(debug_assertions)]
    crash_points: Option<Arc<CrashPoints>>,
}

impl RunHow {
    fn options(&self, place: Option<Place>, progress: &Arc<Progress>, shutdown: watch::Receiver<bool>) -> RunOptions {
        RunOptions {
            place,
            until_end: self.until_end,
            clock: self.clock(),
            progress: Arc::clone(progress),
            shutdown,
            wrap_kafka: None,
            #[cfg(debug_assertions)]
            on_publish_step: self.crash_points.as_ref().map(CrashPoints::on_publish_step),
            #[cfg(not(debug_assertions))]
            on_publish_step: None,
        }
    }

    fn around(&self, job: Job) -> Job {
        #[cfg(debug_assertions)]
        if let Some(points) = &self.crash_points {
            return points.around(job);
        }
        job
    }

    fn clock(&self) -> Arc<dyn Clock> {
        #[cfg(debug_assertions)]
        if let Some(points) = &self.crash_points {
            return points.clock();
        }
        Arc::new(SystemClock)
    }
}

/// A running job with its status line.
struct Run {
    job: Pin<Box<dyn Future<Output = wattline_runtime::Result<RunSummary>>>>,
    /// Tells the job to drain and end.
    end: watch::Sender<bool>,
    _beside: Beside,
}

impl Run {
    async fn build(
        project: &Project,
        how: &RunHow,
        wrap_kafka: Option<WrapSource>,
        progress: &Arc<Progress>,
        stop: &watch::Receiver<bool>,
    ) -> Result<Self> {
        let (end, shutdown) = watch::channel(false);
        let options = RunOptions { wrap_kafka, ..how.options(None, progress, shutdown) };
        let job = tokio::select! {
            built = job::build(project, options) => built?,
            () = told_to_stop(stop) => anyhow::bail!("stopped before the job had started; nothing was read"),
        };
        let job = how.around(job);
        let beside = Beside(vec![
            tokio::spawn({
                let progress = Arc::clone(progress);
                status::show(move || Arc::clone(&progress))
            }),
            tokio::spawn(allocator::keep_below(project.config.run.memory.0)),
        ]);
        let running = tokio::select! {
            running = Box::pin(wattline_runtime::start(job)) => running?,
            () = told_to_stop(stop) => anyhow::bail!("stopped before the job had started; nothing was read"),
        };
        Ok(Self { job: Box::pin(running.serve()), end, _beside: beside })
    }

    /// Until its input ends, or the process is told to stop and the job has drained.
    async fn until_its_end(&mut self, stop: &watch::Receiver<bool>) -> Result<RunSummary> {
        tokio::select! {
            outcome = &mut self.job => Ok(outcome?),
            () = told_to_stop(stop) => self.stopped().await,
        }
    }

    /// Commits what was read.
    async fn stopped(&mut self) -> Result<RunSummary> {
        self.end.send_replace(true);
        Ok((&mut self.job).await?)
    }
}

/// What goes on beside a job, as long as it does.
struct Beside(Vec<JoinHandle<()>>);

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
        status::clear();
    }
}

async fn told_to_stop(stop: &watch::Receiver<bool>) {
    // The sender lives as long as the signal task.
    stop.clone().wait_for(|stop| *stop).await.map(|_stop| ()).unwrap_or_default();
}

/// Turns true at the first signal, which asks the job to drain; a second one, or a drain that takes too long, ends the process.
fn stop_on_signal() -> Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, told) = watch::channel(false);
    // It goes with the process.
    tokio::spawn(async move {
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
    });
    Ok(told)
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
    let gone = load(&progress.gone);
    if gone > 0 {
        out.push_str(&format!(
            "{} offsets were gone before they could be read: wattline query \"SELECT * FROM offset_gaps\"\n",
            grouped(gone)
        ));
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
