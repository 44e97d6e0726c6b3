//! The manifest: the one object whose creation commits an epoch.
//!
//! A process slot owns a chain of manifests `<job>/chains/<slot>/<n>`. Each is created by a put that succeeds
//! only if the name is free, so number `n` exists once and for ever. What a manifest does not name does not
//! exist: files, state runs and rows written before a failed put are garbage.
//!
//! Two kinds of epochs alternate. A *tick* publishes: rows that became final, alerts, next offsets; its rows
//! stay in a data object until a file is worth writing. A *checkpoint* also closes the raw files and all
//! results worth a file (their Add actions are in the manifest) and stores the state of the rules, so that recovery
//! starts there:
//!
//! ```text
//!   checkpoint C ── tick C+1 ── … ── tick N      offsets of a lane:  resume(C) ≤ published(N)
//!   files, state    rows, alerts     rows        re-read [resume, published): raw rows and state are rebuilt,
//!                                                outputs are already out and are not emitted again
//! ```
//!
//! Invariants: numbers are contiguous; `checkpoint` names an epoch of the same chain at or before this one;
//! a lane's `resume` never decreases, and never exceeds `published`; offsets that are gone lie before the `resume` of the
//! epoch that names them (see [`crate::gap`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::alert::{AlertRecord, AlertState};
use crate::exchange::Sender;
use crate::gap::Gap;
use crate::lane::IdleAdvance;
use crate::late::LateStretches;
use crate::record::LaneId;
use crate::system_log::SystemSection;

/// Version of the manifest format that this build writes and reads. Whoever changes what is written or how it is read raises it; the
/// tests of the runtime's `recovery` hold what this version looks like.
pub const FORMAT: u32 = 6;

/// One link of a chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version, [`FORMAT`].
    pub format: u32,
    /// Name of the job.
    pub job: String,
    /// The slot that owns the chain.
    pub chain: String,
    /// Identity of the chain since its creation; part of the application id in Delta transactions.
    pub incarnation: String,
    /// Position in the chain, from 1.
    pub n: u64,
    /// Drawn at each start of a process: tells a lost acknowledgement from a lost race.
    pub nonce: String,
    /// The process clock at the put, milliseconds since the epoch; only cleaning up reads it.
    pub created_ms: i64,
    /// What this link says.
    pub body: Body,
}

/// What a link of a chain says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// An epoch was committed.
    Epoch(Box<Epoch>),
    /// The named lanes left this chain; whoever owned them under an older generation must let go.
    Seal(Seal),
    /// The slot had no checkpoint yet when the backup was made from which the job was restored.
    Restored(Restored),
}

/// Lanes that were taken from a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Each lane and the generation under which it was taken.
    pub lanes: Vec<(LaneId, u64)>,
    /// The chain that takes them over.
    pub taken_by: String,
}

/// What a slot that had no checkpoint has to know of the others after a restore: it reads all again that they told.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Restored {
    /// Where the chains of all slots were cut off.
    pub senders: Vec<Sender>,
}

/// A committed slice of the input of a process, with everything it produced.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Epoch {
    /// The last checkpoint at or before this epoch (its own number if it is one); 0 if there was none.
    pub checkpoint: u64,
    /// Revision of the rule set: a hash over id, version and fingerprint of all rules.
    pub rules_revision: String,
    /// Version (a hash of the content) of each reference table that the rules of this epoch joined to.
    pub references: BTreeMap<String, String>,
    /// The lanes owned, with their positions.
    pub lanes: Vec<LaneSection>,
    /// Lanes that were there when their stream began and that nobody could be asked about yet.
    pub waiting: Vec<WaitingLane>,
    /// The system streams, with their positions.
    pub system: Vec<SystemSection>,
    /// Progress of each rule by its fingerprint.
    pub rules: BTreeMap<String, RuleProgress>,
    /// Files that this epoch adds, by table.
    pub adds: BTreeMap<String, Vec<AddedFile>>,
    /// Object with rows that are published and not yet in files: at a checkpoint all of them, else those of this epoch.
    pub rows_object: Option<String>,
    /// At a checkpoint: the objects that together hold the state of the rules, oldest first.
    pub state_objects: Vec<String>,
    /// At a checkpoint: the objects that together hold what the rules keep over final rows.
    pub stage_objects: Vec<String>,
    /// At a checkpoint: the object that holds every alert state.
    pub alert_state_object: Option<String>,
    /// Alert states that this epoch changed.
    pub alert_changes: Vec<AlertState>,
    /// Alert records that this epoch publishes.
    pub alerts: Vec<AlertRecord>,
    /// In a job of several slots: what this epoch tells the slots, and what it was told.
    pub exchange: Option<Exchange>,
}

/// What an epoch of a job in several slots tells and was told; see [`crate::exchange`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exchange {
    /// Object with the messages that this epoch sends.
    pub outbox: Option<String>,
    /// The last link that told something, this one if it does; 0 if there was none.
    pub told: u64,
    /// What was taken in of each slot's messages, as of the published offset of the inbox.
    pub senders: Vec<Sender>,
}

/// Positions of one lane. Offsets name the next record to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneSection {
    /// The lane.
    pub lane: LaneId,
    /// The generation under which it is owned.
    pub generation: u64,
    /// The stream it feeds.
    pub stream: String,
    /// What the source calls the log that the offsets are of, if it has a name for it: a topic that is made anew has another.
    pub log: Option<String>,
    /// Outputs of all earlier records are out.
    pub published: i64,
    /// Raw rows of all earlier records are in closed files.
    pub archive: i64,
    /// The stored state covers all earlier records.
    pub state: i64,
    /// Highest event time reached at `published`, microseconds since the epoch.
    pub reached_us: i64,
    /// Highest event time reached at `archive` and `state`, which a checkpoint moves together.
    pub resume_reached_us: i64,
    /// Results are computed over the records from here on: where the lane began, or went on after all input had ended.
    pub since: i64,
    /// Whether the lane's bounded input has ended.
    pub ended: bool,
    /// Advances of the silent lane in this epoch.
    pub idle_advances: Vec<IdleAdvance>,
    /// Events (offset, index) refused in this epoch because of the clock, or of what somebody outside said (a schema registry).
    pub refused: Vec<(i64, i32)>,
    /// Offsets that were found to be gone in this epoch, which then is a checkpoint: `state` lies behind them.
    pub gaps: Vec<Gap>,
}

/// A lane that does not begin at its first record, and has not begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingLane {
    /// The lane.
    pub lane: LaneId,
    /// It begins at the first record whose timestamp is at least this, milliseconds since the epoch.
    pub from_ms: i64,
}

/// How far one rule has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleProgress {
    /// Rule id, for people.
    pub id: String,
    /// Everything final at this watermark has been emitted, microseconds since the epoch.
    pub final_until_us: i64,
    /// The rule was activated when its stream had reached this time; earlier windows are not its business.
    pub active_from_us: i64,
    /// Lanes in which the rule failed at run time, and where.
    pub quarantined: Vec<Quarantine>,
    /// Where late events are that are still to correct results; only for a rule that corrects them.
    pub late: LateStretches,
    /// The last correction, if there was one.
    pub correction: Option<Correction>,
    /// In a job of several slots: what only these have, if any.
    pub shared: Option<SharedProgress>,
}

/// How far a rule has come in a job of several slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedProgress {
    /// What this slot has of the rule and is final at this watermark was told to the rule's home, microseconds since the epoch.
    pub told_us: i64,
    /// Late events of this slot's lanes that the home was not told of: their rows are not in closed files yet.
    pub late: LateStretches,
    /// At the home: slots that have not said yet that they run the rule. It begins when all have.
    pub awaits: Vec<u32>,
    /// At the home: the rule is to be given its past first, and nothing of it is out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub awaits_past: bool,
}

/// Up to where late events are in the results of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correction {
    /// What was final at this watermark was corrected, microseconds since the epoch.
    pub until_us: i64,
    /// The revision of the last rows that changed; results as they first came out have revision 1.
    pub revision: i64,
    /// By late events of all records before these offsets.
    pub offsets: Vec<(LaneId, i64)>,
}

/// A rule that failed in a lane and is not run there any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// The lane; absent if the rule failed after the lanes were merged.
    pub lane: Option<LaneId>,
    /// Offset of the record at which it failed, -1 after the merge.
    pub offset: i64,
    /// What went wrong.
    pub message: String,
}

/// A closed Parquet file that belongs to a table once the manifest exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedFile {
    /// Path relative to the table.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Partition value, `YYYY-MM-DD`; absent for rows without a time.
    pub event_date: Option<String>,
    /// Rows.
    pub rows: u64,
    /// Delta statistics as JSON text.
    pub stats: String,
    /// Time of writing, milliseconds since the epoch.
    pub modified_ms: i64,
}

impl Manifest {
    /// The epoch, if this link is one.
    pub fn epoch(&self) -> Option<&Epoch> {
        match &self.body {
            Body::Epoch(epoch) => Some(epoch),
            Body::Seal(_) | Body::Restored(_) => None,
        }
    }

    /// Name of link `n` of a chain below the job's folder. Zero-padded, so that listings are in order.
    pub fn path(chain: &str, n: u64) -> String {
        format!("chains/{chain}/{n:020}.json")
    }
}
