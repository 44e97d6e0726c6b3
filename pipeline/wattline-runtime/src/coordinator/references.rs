//! Reference tables change while the job runs.
//!
//! From time to time the tables are looked at, on a thread that may block. If some have other content than the rules join to,
//! the look gives programs with the new versions, and a checkpoint is taken at once:
//!
//! ```text
//! barrier ─▶ each worker seals the state of its old program and goes on with the new one
//!         ─▶ what is final comes out of the old merged program ─▶ commit ─▶ its state moves to the new merged program
//! ```
//! So every lane changes over between two records, at its state offset of that checkpoint, and the next links name the new
//! versions. What was joined before stays as it was: a window that is open at the change holds rows joined to both. After a
//! crash, records are read again from that checkpoint on, with the new version. Tables whose columns have changed are not
//! taken: their rules would mean something else.
//!
//! A table that is to be fresh and is not opens an alert, which the next version resolves.

use serde_json::json;
use tokio::sync::oneshot::{self, error::TryRecvError};
use wattline_core::alert::{AlertRow, AlertRule, Severity};

use super::{Coordinator, Instant};
use crate::alerting::rfc3339;
use crate::error::{Error, Result};
use crate::events;
use crate::port::{Freshness, References, ReferencesSeen, Reloaded};
use crate::threads::begin_aside;

/// The rule id of alerts about reference tables.
pub(super) const FRESHNESS: &str = "wattline_reference_freshness";

/// The tables as they stand outside, and what the last look found.
pub(super) struct ReferenceTables {
    tables: Option<Box<dyn References>>,
    look: Option<oneshot::Receiver<(Box<dyn References>, ReferencesSeen)>>,
    reloaded: Option<Reloaded>,
    last_look: Instant,
}

impl ReferenceTables {
    pub(super) fn new(tables: Option<Box<dyn References>>) -> Self {
        Self { tables, look: None, reloaded: None, last_look: Instant::now() }
    }

    /// Whether there are programs to change over to.
    pub(super) fn has_reloaded(&self) -> bool {
        self.reloaded.is_some()
    }

    pub(super) fn take_reloaded(&mut self) -> Option<Reloaded> {
        self.reloaded.take()
    }
}

impl Coordinator {
    /// Begins a look when it is due, and takes in what the last one found.
    pub(super) fn look_at_references(&mut self) -> Result<()> {
        let references = &mut self.reference_tables;
        match references.look.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Ok((tables, seen))) => {
                (references.look, references.tables) = (None, Some(tables));
                self.take_seen(seen);
                return Ok(());
            }
            Some(Err(TryRecvError::Closed)) => {
                return Err(Error::ThreadGone { thread: "looking at reference tables".into() });
            }
            Some(Err(TryRecvError::Empty)) | None => {}
        }
        if references.reloaded.is_none()
            && references.last_look.elapsed() >= self.settings.references
            && let Some(mut tables) = references.tables.take()
        {
            references.last_look = Instant::now();
            references.look = Some(begin_aside(&*self.threads, move || {
                let seen = tables.look();
                (tables, seen)
            }));
        }
        Ok(())
    }

    fn take_seen(&mut self, seen: ReferencesSeen) {
        for problem in &seen.problems {
            events::ReferenceNotTaken { problem }.emit();
        }
        // Of several slots one says so.
        let judged = if self.looks_after_tables() { seen.freshness } else { Vec::new() };
        for freshness in judged {
            self.judge_freshness(&freshness);
        }
        self.reference_tables.reloaded = seen.reloaded;
    }

    fn judge_freshness(&mut self, freshness: &Freshness) {
        let now_ms = self.clock.now_ms();
        let age_ms = now_ms.saturating_sub(freshness.changed_ms);
        let seconds = |ms: i64| Some(ms as f64 / 1_000.0);
        let row = AlertRow {
            entity: vec![("reference".to_owned(), freshness.table.clone())],
            event_us: now_ms.saturating_mul(1_000),
            firing: Some(age_ms > freshness.within_ms),
            severity: None,
            measured: seconds(age_ms),
            limit_low: None,
            limit_high: seconds(freshness.within_ms),
            unit: None,
            window_us: None,
            evidence: json!({
                "firing": age_ms > freshness.within_ms,
                "reference": freshness.table,
                "changed_at": rfc3339(freshness.changed_ms.saturating_mul(1_000)),
                "fresh_within_s": seconds(freshness.within_ms),
            })
            .to_string(),
            source: None,
        };
        if let Some(record) = self.lifecycle.fold(&freshness_rule(), row) {
            self.note_alert(record);
        }
    }

    /// Puts the new programs in the place of the old ones; the workers have theirs already.
    pub(super) async fn change_over(&mut self, reloaded: Reloaded) -> Result<()> {
        let bad = |what: &str| {
            let path = what.to_owned();
            move |reason: String| Error::BadObject { path, reason }
        };
        let mut old = std::mem::replace(&mut self.final_program, reloaded.final_program);
        self.say_what_is_out();
        for stage in old.dump_stages().map_err(bad("stages of the rules"))? {
            let restored = stage.and_then(|stage| self.final_program.restore_stage(&stage));
            restored.map_err(bad("stages of the rules"))?;
            self.relieve().await?;
        }
        for delta in old.dump().map_err(bad("state of the rules"))? {
            let merged = delta.and_then(|delta| self.final_program.merge(&delta));
            merged.map_err(bad("state of the rules"))?;
            self.relieve().await?;
        }
        self.programs = reloaded.programs;
        for (table, version) in &reloaded.versions {
            let before = self.references.get(table).filter(|before| *before != version);
            if let Some(before) = before {
                events::ReferenceReloaded { table, before, now: version }.emit();
            }
        }
        self.references = reloaded.versions;
        Ok(())
    }
}

fn freshness_rule() -> AlertRule {
    AlertRule {
        id: FRESHNESS.to_owned(),
        version: "1".to_owned(),
        title: "Reference table is older than it may be".to_owned(),
        title_zh: None,
        severity: Severity::Warning,
        standard: None,
        category: "operations".to_owned(),
        unit: Some("s".to_owned()),
        runbook: None,
        resolve_after: 1,
        renotify_ms: None,
    }
}
