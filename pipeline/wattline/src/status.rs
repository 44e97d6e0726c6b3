//! The live status line of a running job: on a terminal it redraws itself, elsewhere a log line now and then.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wattline_core::time::{BEFORE_TIME, END_OF_TIME};
use wattline_runtime::alerting::rfc3339;
use wattline_runtime::progress::Progress;

use crate::report::print_error;
use crate::table_text::grouped;

const REDRAW: Duration = Duration::from_millis(500);
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Shows the status until the task is aborted.
pub(crate) async fn show(look: impl Fn() -> Arc<Progress>) {
    let terminal = std::io::stderr().is_terminal();
    let mut every = tokio::time::interval(if terminal { REDRAW } else { LOG_EVERY });
    every.tick().await;
    let mut last = (Instant::now(), 0);
    loop {
        every.tick().await;
        let progress = look();
        let events = progress.events.load(Ordering::Relaxed);
        let rate = events.saturating_sub(last.1) as f64 / last.0.elapsed().as_secs_f64();
        last = (Instant::now(), events);
        let line = line(&progress, rate as u64);
        if terminal {
            print_error(&format!("\r\x1b[2K{line}"));
        } else {
            tracing::info!("{line}");
        }
    }
}

/// Removes the line from a terminal, so that what follows stands alone.
pub(crate) fn clear() {
    if std::io::stderr().is_terminal() {
        print_error("\r\x1b[2K");
    }
}

/// One line that says how the job is.
fn line(progress: &Progress, rate: u64) -> String {
    let load = |counter: &std::sync::atomic::AtomicU64| grouped(counter.load(Ordering::Relaxed));
    let mut parts = vec![format!("{}/s", grouped(rate)), format!("{} events", load(&progress.events))];
    if let Ok(lag) = u64::try_from(progress.lag.load(Ordering::Relaxed)) {
        parts.push(format!("lag {}", grouped(lag)));
    }
    parts.push(format!("watermark {}", watermark(progress.reached_us.load(Ordering::Relaxed))));
    parts.push(format!("{} alerts ({} open)", load(&progress.alerts), load(&progress.open_alerts)));
    parts.push(format!("{} refused", load(&progress.refused)));
    let failed = progress.rule_errors.load(Ordering::Relaxed);
    if failed > 0 {
        parts.push(format!("{failed} rule errors"));
    }
    let gone = progress.gone.load(Ordering::Relaxed);
    if gone > 0 {
        parts.push(format!("{} offsets gone", grouped(gone)));
    }
    if progress.stalled.load(Ordering::Relaxed) {
        parts.push("input held back until the output catches up".to_owned());
    }
    let trouble = progress.trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    parts.extend(trouble.map(|trouble| format!("trouble: {trouble}")));
    parts.join(" · ")
}

fn watermark(reached_us: i64) -> String {
    match reached_us {
        BEFORE_TIME => "none yet".to_owned(),
        END_OF_TIME => "end of input".to_owned(),
        us => rfc3339(us - us.rem_euclid(1_000_000)),
    }
}
