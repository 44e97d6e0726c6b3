//! How far a slot has come and what of it is not in the tables yet, for whoever changes tables beside it.
//!
//! Reads only. A job that runs deletes links and objects that it needs no more, so what is gone is looked for again from the end
//! of the chain; what it says is true of the moment of the last look, and positions only grow.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use wattline_core::manifest::{LaneSection, RuleProgress};

use crate::commit::app_id;
use crate::error::{Error, Result};
use crate::port::Store;
use crate::recovery::read_past;

/// How often a chain is read that moves on meanwhile.
const LOOKS_MAX: u32 = 20;

/// Where the newest epoch of a slot stands.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The job.
    pub job: String,
    /// The slot.
    pub slot: String,
    /// Number of the newest epoch.
    pub epoch: u64,
    /// Application id of the chain in Delta transactions.
    pub app_id: String,
    /// The tables to which the newest epoch adds files; only those of the newest may not be in their tables yet.
    pub adds_to: BTreeSet<String>,
    /// The lanes of the slot, those of the past too.
    pub lanes: Vec<LaneSection>,
    /// The rules, by fingerprint.
    pub rules: Vec<(String, RuleProgress)>,
    /// Rows that are published and in no file yet, by table.
    pub waiting: Vec<(String, RecordBatch)>,
    /// The input had ended and all that came of it is out: another run gives rows of new input alone.
    pub had_ended: bool,
}

/// Reads where a slot stands; `None` if it has committed nothing.
///
/// # Errors
/// If the store does not answer, or the end of the chain cannot be read.
pub async fn standing(store: &dyn Store, job: &str, slot: &str) -> Result<Option<Standing>> {
    let mut looks = 1;
    let past = loop {
        match read_past(store, slot).await {
            // A job that runs has deleted it, unless it is lost.
            Err(Error::BadManifest { .. } | Error::BadObject { .. }) if looks < LOOKS_MAX => looks += 1,
            read => break read?,
        }
    };
    let had_ended = past.had_ended();
    let Some(newest) = past.last_epoch else { return Ok(None) };
    let adds_to = newest.epoch().map(|epoch| epoch.adds.keys().cloned().collect()).unwrap_or_default();
    Ok(Some(Standing {
        job: job.to_owned(),
        slot: slot.to_owned(),
        epoch: newest.n,
        app_id: app_id(job, slot, &newest.incarnation),
        adds_to,
        lanes: past.lanes.into_values().map(|(section, _)| section).collect(),
        rules: past.rules.into_iter().collect(),
        waiting: past.pending,
        had_ended,
    }))
}
