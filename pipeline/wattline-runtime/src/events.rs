//! What operators read in the log: one struct per occurrence.

use std::time::Duration;

use tracing::{error, info, warn};
use wattline_core::gap::Gap;
use wattline_core::record::LaneId;

use crate::error::Error;

/// Shows an error with all its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        out.push_str(": ");
        out.push_str(&error.to_string());
        cause = error.source();
    }
    out
}

/// An operation failed and is tried again.
pub(crate) struct Retrying<'a> {
    pub(crate) what: &'a str,
    pub(crate) error: &'a Error,
    pub(crate) wait: Duration,
}

impl Retrying<'_> {
    pub(crate) fn emit(&self) {
        warn!(error = %chain(self.error), wait_ms = self.wait.as_millis(), "{} failed, trying again", self.what);
    }
}

/// The job continues from its chain.
pub(crate) struct Resumed {
    pub(crate) last: u64,
    pub(crate) checkpoint: u64,
    pub(crate) lanes: usize,
    pub(crate) state_rows: usize,
}

impl Resumed {
    pub(crate) fn emit(&self) {
        info!(
            epoch = self.last,
            checkpoint = self.checkpoint,
            lanes = self.lanes,
            state_rows = self.state_rows,
            "resuming from the chain"
        );
    }
}

/// Rules give nothing, as not all slots run them.
pub(crate) struct SlotsAwaited<'a> {
    pub(crate) rules: &'a [&'a str],
    pub(crate) slots: &'a [u32],
}

impl SlotsAwaited<'_> {
    pub(crate) fn emit(&self) {
        let shown = self.rules.iter().take(8).copied().collect::<Vec<_>>().join(", ");
        warn!(
            slots = ?self.slots,
            rules = self.rules.len(),
            "rules give nothing until these slots run them too ({shown}): start a process for each, and give all the same rules"
        );
    }
}

/// A reference table is not what it was when the job stopped.
pub(crate) struct ReferenceChanged<'a> {
    pub(crate) table: &'a str,
    pub(crate) before: &'a str,
    pub(crate) now: Option<&'a String>,
}

impl ReferenceChanged<'_> {
    pub(crate) fn emit(&self) {
        warn!(
            table = self.table,
            before = self.before,
            now = self.now.map(String::as_str),
            "a reference table has changed since the job stopped; from its next epoch on, and in windows that are open, \
             the rules join to the new version"
        );
    }
}

/// A reference table has changed while the job runs, and the rules join to the new version.
pub(crate) struct ReferenceReloaded<'a> {
    pub(crate) table: &'a str,
    pub(crate) before: &'a str,
    pub(crate) now: &'a str,
}

impl ReferenceReloaded<'_> {
    pub(crate) fn emit(&self) {
        info!(
            table = self.table,
            before = self.before,
            now = self.now,
            "a reference table has changed: rules join to it"
        );
    }
}

/// A reference table has changed and cannot be taken.
pub(crate) struct ReferenceNotTaken<'a> {
    pub(crate) problem: &'a str,
}

impl ReferenceNotTaken<'_> {
    pub(crate) fn emit(&self) {
        warn!("rules go on with the reference tables that they have: {}", self.problem);
    }
}

/// An alert was open of a rule that the job does not have any more.
pub(crate) struct AlertOrphaned<'a> {
    pub(crate) rule: &'a str,
    pub(crate) entity: &'a str,
}

impl AlertOrphaned<'_> {
    pub(crate) fn emit(&self) {
        info!(rule = self.rule, entity = self.entity, "an open alert is resolved: its rule is no longer run");
    }
}

/// The input of the job had ended and now there is more.
pub(crate) struct EndedBefore;

impl EndedBefore {
    pub(crate) fn emit(&self) {
        warn!(
            "the input of this job had ended and its windows were closed; windows of new input are computed from the new input alone"
        );
    }
}

/// An epoch was committed.
pub(crate) struct Committed {
    pub(crate) n: u64,
    pub(crate) checkpoint: bool,
    pub(crate) files: usize,
    pub(crate) alerts: usize,
    pub(crate) took: Duration,
}

impl Committed {
    pub(crate) fn emit(&self) {
        tracing::debug!(
            epoch = self.n,
            checkpoint = self.checkpoint,
            files = self.files,
            alerts = self.alerts,
            took_ms = self.took.as_millis(),
            "epoch committed"
        );
    }
}

/// Late events were taken into results that were out.
pub(crate) struct Corrected<'a> {
    pub(crate) rule: &'a str,
    pub(crate) retracted: usize,
    pub(crate) inserted: usize,
    pub(crate) took: Duration,
}

impl Corrected<'_> {
    pub(crate) fn emit(&self) {
        info!(
            rule = self.rule,
            retracted = self.retracted,
            inserted = self.inserted,
            took_ms = self.took.as_millis(),
            "late events corrected results"
        );
    }
}

/// Late events could not be taken into results now; they will be.
pub(crate) struct CorrectionPostponed<'a> {
    pub(crate) rule: &'a str,
    pub(crate) error: &'a Error,
}

impl CorrectionPostponed<'_> {
    pub(crate) fn emit(&self) {
        warn!(rule = self.rule, error = %chain(self.error), "results are corrected later: the archive cannot be read");
    }
}

/// A rule failed: it is quarantined, or one of its final rows is left out.
pub(crate) struct RuleFailed<'a> {
    pub(crate) rule: &'a str,
    pub(crate) lane: Option<&'a LaneId>,
    pub(crate) offset: i64,
    pub(crate) message: &'a str,
    pub(crate) stops_rule: bool,
}

impl RuleFailed<'_> {
    pub(crate) fn emit(&self) {
        let lane = self.lane.map_or_else(|| "all".to_owned(), LaneId::to_string);
        let outcome = if self.stops_rule { "rule failed and is quarantined" } else { "a row of a rule is left out" };
        error!(rule = self.rule, lane, offset = self.offset, "{outcome}: {}", self.message);
    }
}

/// Background work on a table failed; it will be tried again later.
pub(crate) struct MaintenanceFailed<'a> {
    pub(crate) table: &'a str,
    pub(crate) error: &'a Error,
}

impl MaintenanceFailed<'_> {
    pub(crate) fn emit(&self) {
        warn!(table = self.table, error = %chain(self.error), "maintenance of a table failed, trying again later");
    }
}

/// An object that nothing refers to could not be deleted.
pub(crate) struct CleanupFailed<'a> {
    pub(crate) path: &'a str,
    pub(crate) error: &'a Error,
}

impl CleanupFailed<'_> {
    pub(crate) fn emit(&self) {
        warn!(path = self.path, error = %chain(self.error), "an object that is no longer needed could not be deleted");
    }
}

/// Alerts could not be published before their epoch is committed.
pub(crate) struct EarlyAlertsFailed<'a> {
    pub(crate) alerts: usize,
    pub(crate) error: &'a Error,
}

impl EarlyAlertsFailed<'_> {
    pub(crate) fn emit(&self) {
        warn!(
            alerts = self.alerts,
            error = %chain(self.error),
            "alerts could not be published at once: they follow when their tick is committed, and some may be there twice"
        );
    }
}

/// The past of a rule begins to be computed.
pub(crate) struct BackfillBegun<'a> {
    pub(crate) rule: &'a str,
    pub(crate) from_us: i64,
}

impl BackfillBegun<'_> {
    pub(crate) fn emit(&self) {
        let from = crate::alerting::rfc3339(self.from_us);
        info!(
            rule = self.rule,
            from, "a rule is new: its past is computed from the archive before it joins the stream"
        );
    }
}

/// A rule was given its past and goes on with the stream.
pub(crate) struct Backfilled<'a> {
    pub(crate) rule: &'a str,
    pub(crate) read: usize,
    pub(crate) rows: usize,
    pub(crate) told: usize,
    pub(crate) took: Duration,
}

impl Backfilled<'_> {
    pub(crate) fn emit(&self) {
        info!(
            rule = self.rule,
            events = self.read,
            rows = self.rows,
            open_alerts = self.told,
            took_ms = self.took.as_millis(),
            "the rule has its past and joins the stream"
        );
    }
}

/// The archive could not be read for the past of a rule.
pub(crate) struct BackfillPostponed<'a> {
    pub(crate) rule: &'a str,
    pub(crate) error: &'a Error,
}

impl BackfillPostponed<'_> {
    pub(crate) fn emit(&self) {
        warn!(rule = self.rule, error = %chain(self.error), "the past of a rule cannot be computed now: it is begun again at a later checkpoint");
    }
}

/// While an archive was read for the past of a rule, slots told more of the rule than is kept.
pub(crate) struct BackfillOutrun<'a> {
    pub(crate) rule: &'a str,
    pub(crate) bytes_max: u64,
}

impl BackfillOutrun<'_> {
    pub(crate) fn emit(&self) {
        info!(
            rule = self.rule,
            kept_bytes = self.bytes_max,
            "more came for a new rule than memory holds while its past is computed: the archive is read up to newer checkpoints"
        );
    }
}

/// The outside is in trouble.
pub(crate) struct SourceTrouble<'a> {
    pub(crate) message: &'a str,
}

impl SourceTrouble<'_> {
    pub(crate) fn emit(&self) {
        warn!("{}", self.message);
    }
}

/// The consumer group took lanes away.
pub(crate) struct LanesRevoked<'a> {
    pub(crate) lanes: &'a [LaneId],
}

impl LanesRevoked<'_> {
    pub(crate) fn emit(&self) {
        let lanes: Vec<String> = self.lanes.iter().map(LaneId::to_string).collect();
        warn!(
            lanes = lanes.join(", "),
            "the consumer group took lanes away: another process with this group id may be running, or partitions were added"
        );
    }
}

/// Records were gone before they could be read, and the stream goes on without them.
pub(crate) struct OffsetsGone<'a> {
    pub(crate) stream: &'a str,
    pub(crate) lane: &'a LaneId,
    pub(crate) gap: Gap,
    /// From here on they had not been read before.
    pub(crate) unread: i64,
}

impl OffsetsGone<'_> {
    pub(crate) fn emit(&self) {
        error!(
            stream = self.stream,
            lane = %self.lane,
            first = self.gap.first,
            next = self.gap.next,
            unread = self.unread,
            "{} offsets are gone from the source; the lane goes on without them, as its stream wants",
            self.gap.offsets()
        );
    }
}

/// All input has ended except lanes that an earlier run had begun and no source assigns.
pub(crate) struct LanesAwaited<'a> {
    pub(crate) lanes: &'a [LaneId],
}

impl LanesAwaited<'_> {
    pub(crate) fn emit(&self) {
        let lanes: Vec<String> = self.lanes.iter().map(LaneId::to_string).collect();
        warn!(
            lanes = lanes.join(", "),
            "waiting for input that an earlier run had begun to read and that is not there: restore it, or start a new job name"
        );
    }
}

/// Somebody set the clock of the machine.
pub(crate) struct ClockSet {
    pub(crate) by_ms: i64,
}

impl ClockSet {
    pub(crate) fn emit(&self) {
        let (seconds, where_to) = (self.by_ms.abs() / 1_000, if self.by_ms > 0 { "forward" } else { "back" });
        warn!(
            "the clock of this machine was set {where_to} by {seconds} s: partitions that were silent count as silent from now on, and \
             events are held against the new time"
        );
    }
}
