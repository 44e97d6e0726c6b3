//! What a process finds when it starts: the chain of its slot, read back to the last checkpoint.
//!
//! ```text
//! newest link (links.rs) ─▶ newest epoch N (seals are skipped) ─▶ its checkpoint C
//! from C     state objects, snapshot of the alert states, files closed
//! C+1 … N    alert changes, pending rows, idle advances, refusals: what was published since; rows of system streams
//! from N     positions of the lanes, progress of the rules
//! ```
//! All links from C on are there, so they are read by their numbers, and one that is missing ends the start.
//!
//! Link `n` is put only after link `n − 1` was rolled forward, so only N may have files or alerts that are
//! committed but not out yet.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use wattline_core::alert::{AlertState, Lifecycle};
use wattline_core::chain::{ResumePoint, decide_resume};
use wattline_core::exchange::Sender;
use wattline_core::manifest::{Body, FORMAT, LaneSection, Manifest, RuleProgress, WaitingLane};
use wattline_core::record::LaneId;
use wattline_core::system_log::SystemSection;
use wattline_core::time::END_OF_TIME;

use crate::coordinator::INBOX_STREAM;
use crate::error::{Error, Result};
use crate::frames;
use crate::intake::Replay;
use crate::links::{newest_number, number_of};
use crate::port::Store;

/// The committed past of a slot.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// Number of the newest link, 0 if there is none.
    pub(crate) last_link: u64,
    /// Identity of the chain, if it exists.
    pub(crate) incarnation: Option<String>,
    /// The last epoch, if any.
    pub(crate) last_epoch: Option<Manifest>,
    /// Its checkpoint, 0 if none.
    pub(crate) checkpoint: u64,
    /// Lanes as of the last epoch, with everything to re-execute them.
    pub(crate) lanes: BTreeMap<LaneId, (LaneSection, Replay)>,
    /// Lanes that have not begun, as of the last epoch.
    pub(crate) waiting: Vec<WaitingLane>,
    /// Progress of the rules as of the last epoch.
    pub(crate) rules: BTreeMap<String, RuleProgress>,
    /// Objects with the state of the rules at the checkpoint.
    pub(crate) state_objects: Vec<String>,
    /// Objects with what rules keep over final rows, at the checkpoint.
    pub(crate) stage_objects: Vec<String>,
    /// Object with all alert states at the checkpoint.
    pub(crate) alert_state_object: Option<String>,
    /// Alert states as of the last epoch.
    pub(crate) lifecycle: Lifecycle,
    /// Rows that are published and not in files, by table.
    pub(crate) pending: Vec<(String, RecordBatch)>,
    /// Objects that hold them, oldest first.
    pub(crate) rows_objects: Vec<String>,
    /// Which of them the checkpoint wrote.
    checkpoint_rows: Option<String>,
    /// System streams as of the last epoch.
    pub(crate) system: Vec<SystemSection>,
    /// Rows of system streams that the stored state does not cover, by stream.
    pub(crate) system_rows: Vec<(String, RecordBatch)>,
    /// In a job of several slots: what was told as of the checkpoint, from which on the inbox is read again.
    pub(crate) senders: Vec<Sender>,
    /// The last link that told the slots something.
    pub(crate) told: u64,
    /// The objects with what was told from the checkpoint on, oldest first.
    pub(crate) outboxes: Vec<String>,
}

/// Reads a manifest.
pub(crate) async fn read_manifest(store: &dyn Store, chain: &str, n: u64) -> Result<Manifest> {
    let path = Manifest::path(chain, n);
    let body = store.get(&path).await?;
    let body = body.ok_or_else(|| Error::BadManifest { path: path.clone(), reason: "it does not exist".into() })?;
    parse_manifest(&path, &body)
}

/// All that manifests of any format have in common.
#[derive(serde::Deserialize)]
struct AnyFormat {
    format: u32,
}

/// The format of a manifest, if it says one.
pub(crate) fn format_of(body: &[u8]) -> Option<u32> {
    serde_json::from_slice(body).ok().map(|AnyFormat { format }| format)
}

/// Reads the text of a manifest; `path` is for messages. The format is looked at first: of another one nothing else is known, and
/// what it lacks is not what is wrong with it.
pub(crate) fn parse_manifest(path: &str, body: &[u8]) -> Result<Manifest> {
    let bad = |reason: String| Error::BadManifest { path: path.to_owned(), reason };
    let AnyFormat { format } = serde_json::from_slice(body).map_err(|e| bad(e.to_string()))?;
    if format != FORMAT {
        return Err(bad(format!("its format is {format}, this version of wattline reads {FORMAT}")));
    }
    serde_json::from_slice(body).map_err(|e| bad(e.to_string()))
}

/// Numbers of all links of a chain, in order: there may be a week of them.
pub(crate) async fn link_numbers(store: &dyn Store, chain: &str) -> Result<Vec<u64>> {
    let names = store.list(&format!("chains/{chain}/")).await?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads the committed past of a slot.
pub(crate) async fn read_past(store: &dyn Store, chain: &str) -> Result<Past> {
    let mut past = Past { last_link: newest_number(store, chain).await?, ..Past::default() };
    let mut newest_first = Vec::new();
    for n in (1..=past.last_link).rev() {
        let manifest = read_manifest(store, chain, n).await?;
        past.incarnation.get_or_insert_with(|| manifest.incarnation.clone());
        if let Body::Restored(restored) = &manifest.body
            && past.senders.is_empty()
        {
            past.senders.clone_from(&restored.senders);
        }
        newest_first.push(manifest);
        if let ResumePoint::Epoch { checkpoint, .. } = decide_resume(newest_first.iter())
            && n <= checkpoint
        {
            break;
        }
    }
    let ResumePoint::Epoch { checkpoint, .. } = decide_resume(newest_first.iter()) else { return Ok(past) };
    past.checkpoint = checkpoint;
    let mut changes: Vec<AlertState> = Vec::new();
    for manifest in newest_first.into_iter().rev() {
        let n = manifest.n;
        let Some(epoch) = manifest.epoch() else { continue };
        if n < checkpoint {
            continue;
        }
        if n == checkpoint {
            past.state_objects.clone_from(&epoch.state_objects);
            past.alert_state_object.clone_from(&epoch.alert_state_object);
            past.stage_objects.clone_from(&epoch.stage_objects);
            past.checkpoint_rows.clone_from(&epoch.rows_object);
            past.senders = epoch.exchange.iter().flat_map(|of| of.senders.iter().cloned()).collect();
        } else {
            changes.extend(epoch.alert_changes.iter().cloned());
        }
        past.rows_objects.extend(epoch.rows_object.clone());
        for section in &epoch.lanes {
            merge_section(&mut past.lanes, section, n == checkpoint);
        }
        past.waiting.clone_from(&epoch.waiting);
        past.rules.clone_from(&epoch.rules);
        past.system.clone_from(&epoch.system);
        if let Some(exchange) = &epoch.exchange {
            past.told = exchange.told;
            past.outboxes.extend(exchange.outbox.clone());
        }
        past.last_epoch = Some(manifest);
    }
    load_objects(store, &mut past).await?;
    changes.into_iter().for_each(|state| past.lifecycle.restore(state));
    Ok(past)
}

/// Adds what an epoch says of a lane. Of a checkpoint's verdicts only those at or after its resume offset count:
/// it has some if it was taken while the lane was still re-reading what had been published before.
fn merge_section(lanes: &mut BTreeMap<LaneId, (LaneSection, Replay)>, section: &LaneSection, is_checkpoint: bool) {
    let (known, replay) = lanes.entry(section.lane.clone()).or_insert_with(|| (section.clone(), Replay::default()));
    known.clone_from(section);
    replay.published = section.published;
    let resume = if is_checkpoint { section.state } else { i64::MIN };
    replay.idle_advances.extend(section.idle_advances.iter().filter(|advance| advance.offset >= resume));
    replay.refused.extend(section.refused.iter().filter(|(offset, _)| *offset >= resume));
}

async fn load_objects(store: &dyn Store, past: &mut Past) -> Result<()> {
    for path in &past.rows_objects {
        let rows = load_frames(store, path).await?;
        if past.checkpoint_rows.as_ref() != Some(path) {
            let is_system = |(table, _): &&(String, RecordBatch)| past.system.iter().any(|of| of.stream == *table);
            past.system_rows.extend(rows.iter().filter(is_system).cloned());
        }
        past.pending.extend(rows);
    }
    if let Some(path) = &past.alert_state_object {
        let body = load(store, path).await?;
        let states: Vec<AlertState> = serde_json::from_slice(&body)
            .map_err(|e| Error::BadObject { path: path.clone(), reason: e.to_string() })?;
        states.into_iter().for_each(|state| past.lifecycle.restore(state));
    }
    Ok(())
}

async fn load_frames(store: &dyn Store, path: &str) -> Result<Vec<(String, RecordBatch)>> {
    frames::read(path, &load(store, path).await?)
}

pub(crate) async fn load(store: &dyn Store, path: &str) -> Result<bytes::Bytes> {
    let missing = || Error::BadObject { path: path.to_owned(), reason: "it does not exist".into() };
    store.get(path).await?.ok_or_else(missing)
}

impl Past {
    /// Whether the last run had come to the end of its input, with everything in closed files. That its lanes had
    /// ended does not say so: there may be some that had not begun, and only the rules waited for them.
    pub(crate) fn had_ended(&self) -> bool {
        // A rule that has stopped goes no farther, and is not corrected any more.
        let is_done = |rule: &RuleProgress| {
            let has_stopped = rule.quarantined.iter().any(|q| q.lane.is_none());
            has_stopped || (rule.final_until_us == END_OF_TIME && rule.late.is_empty())
        };
        // What slots tell each other has no end.
        let ended = |section: &LaneSection| {
            section.stream == INBOX_STREAM || (section.ended && section.state == section.published)
        };
        !self.lanes.is_empty()
            && self.lanes.values().all(|(section, _)| ended(section))
            && self.rules.values().all(is_done)
    }

    /// The lanes that have not begun, by their names.
    pub(crate) fn take_waiting(&mut self) -> BTreeMap<LaneId, WaitingLane> {
        std::mem::take(&mut self.waiting).into_iter().map(|waiting| (waiting.lane.clone(), waiting)).collect()
    }

    /// The highest time that any lane of a stream had reached.
    pub(crate) fn reached_max_us(&self, stream: &str) -> Option<i64> {
        let lanes = self.lanes.values().filter(|(s, _)| s.stream == stream).map(|(s, _)| s.reached_us);
        let system = self.system.iter().filter(|s| s.stream == stream).map(|s| s.reached_us);
        lanes.chain(system).max()
    }
}

#[cfg(test)]
mod tests;
