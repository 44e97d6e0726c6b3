//! Backups of an archive: numbered snapshots in another store, each a list of all objects that make one up.
//!
//! ```text
//! snapshots/<n>.json             what snapshot n is; its creation makes it one
//! lists/<n>.jsonl.zst            its objects: path in the archive, size, SHA-256, and the backup that copied them
//! objects/<n>/<path>             what backup n copied
//! runs/<n>.json                  backup n has begun
//! ```
//! Objects of an archive never change, so a backup copies only those that the snapshot before it does not have. Names of links, lanes
//! and logs are plain numbers, and two archives that came of one backup give them to different objects: such an object is known again
//! only by its time too. Nothing in the store is overwritten, and it needs nothing but put-if-absent, as the archive does.
//!
//! **Beginning.** A backup creates `runs/<n>` above all numbers there are, and begins anew if a higher one turns up meanwhile. Then it
//! seals the numbers below it that have begun and have no snapshot: it creates `snapshots/<k>.json`, which says so. Whoever still works
//! on number k finds that name taken, and ends. So of all that are under way only the last can make a snapshot.
//!
//! **Reuse.** It takes over objects of the newest snapshot p, and what sealed backups after p have copied.
//!
//! **Pruning** by backup m comes after its own snapshot: it deletes snapshots but the newest few, then the objects of numbers up to m
//! that no snapshot names. It cannot meet a later backup: if that one began before snapshot m was there, m is sealed and never prunes;
//! if after, then it takes over what snapshot m or a later one names, which m keeps or has copied itself, and what numbers above m copied.
//! A seal is never deleted, or a process that slept through many backups could still make its snapshot.
//!
//! | a backup that dies … | leaves | and the next one |
//! |---|---|---|
//! | before its snapshot is created | objects that no snapshot names | seals it and takes them over |
//! | after it | a whole snapshot, `runs/<n>` | removes that mark |
//! | while it prunes | objects that no snapshot names any more | deletes them when it prunes itself |
//!
//! Map of the folder: `run` makes a snapshot, `prune` deletes old ones, `restore` brings one back.

mod prune;
mod restore;
mod run;
#[cfg(test)]
mod tests;

pub use prune::Pruned;
pub use restore::{Restoring, Rewrite, unfinished_restore};
pub use run::{Run, ToCopy};

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::store::{ObjectRoot, Put};

/// Version of what this file describes.
const FORMAT: u32 = 1;
const SNAPSHOTS: &str = "snapshots";
const LISTS: &str = "lists";
const OBJECTS: &str = "objects";
const RUNS: &str = "runs";
/// Objects that are read, written or deleted at the same time: each mostly waits for the disk or the network.
const AT_ONCE: usize = 16;
/// Bytes of objects that are in memory at the same time; one that is larger is there alone.
const BYTES_AT_ONCE: usize = 256 << 20;
/// How often a number is looked for that nobody else takes.
const BEGIN_TRIES: u32 = 20;
const ZSTD_LEVEL: i32 = 3;

/// Told of each object that is done with: its size, and whether it was copied or was there already.
pub type OnObject<'a> = &'a (dyn Fn(u64, bool) + Sync);

/// One object of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it lies in the archive.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// SHA-256 of its content, in hexadecimal digits.
    pub sha256: String,
    /// When it was written into the archive, by the archive's store, milliseconds since the Unix epoch.
    pub modified_ms: i64,
    /// The backup that copied it.
    pub run: u64,
}

/// A chain as of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotChain {
    /// The job.
    pub job: String,
    /// The slot.
    pub slot: String,
    /// Identity of the chain.
    pub incarnation: String,
    /// Its application id in Delta transactions.
    pub app_id: String,
    /// Number of its newest link.
    pub last_link: u64,
    /// Number of its newest epoch, 0 if it has none.
    pub last_epoch: u64,
    /// The checkpoint that this builds on, 0 if there is none.
    pub checkpoint: u64,
    /// In a job of several slots the last link that told the others something, 0 if none did.
    pub told: u64,
}

/// A table as of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotTable {
    /// Its name.
    pub table: String,
    /// Its version.
    pub version: u64,
    /// By application id the last epoch that it holds.
    pub txns: BTreeMap<String, i64>,
    /// Data files.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// What was pinned, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// Clock of the backup when it pinned the chains, milliseconds since the Unix epoch.
    pub pinned_ms: i64,
    /// The archive.
    pub archive: String,
    /// Its chains.
    pub chains: Vec<SnapshotChain>,
    /// Its tables.
    pub tables: Vec<SnapshotTable>,
}

/// A complete backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// What it is of.
    #[serde(flatten)]
    pub pinned: Pinned,
    /// Its objects.
    pub objects: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Objects that were copied for it; the others were there.
    pub copied_objects: u64,
    /// Their size in bytes.
    pub copied_bytes: u64,
    /// Version of the program that made it.
    pub made_by: String,
    /// SHA-256 of its list, in hexadecimal digits.
    list_sha256: String,
    /// Of the process that made it.
    nonce: String,
    /// Its number: the name of its object says it.
    #[serde(skip)]
    pub number: u64,
}

/// What `snapshots/<n>.json` says.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: u32,
    body: HeadBody,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum HeadBody {
    Snapshot(Box<Snapshot>),
    /// The backup of this number never came to its end.
    Sealed {
        by: u64,
    },
}

/// The backups in one store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Backups {
    root: ObjectRoot,
}

impl Backups {
    /// Names a place for backups without touching it. Call [`ObjectRoot::probe`] before the first one is made.
    #[must_use]
    pub fn open(root: ObjectRoot) -> Self {
        Self { root }
    }

    /// The complete snapshots, the oldest first.
    ///
    /// # Errors
    /// [`Error::BackupRefused`] for one of another format; the store's answer.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let mut snapshots = Vec::new();
        for number in self.numbers(SNAPSHOTS).await? {
            // One that is gone was pruned meanwhile.
            if let Some(HeadBody::Snapshot(snapshot)) = self.head(number).await? {
                snapshots.push(*snapshot);
            }
        }
        Ok(snapshots)
    }

    /// The objects of a snapshot.
    ///
    /// # Errors
    /// [`Error::BackupDamaged`] if its list is not what it was, or the store's answer.
    pub async fn list_of(&self, snapshot: &Snapshot) -> Result<Vec<Entry>> {
        let path = list_path(snapshot.number);
        let packed = self.root.get(&path).await?.ok_or_else(|| self.damaged(&path, "is not there"))?;
        if sha256_of(&packed) != snapshot.list_sha256 {
            return Err(self.damaged(&path, "is not what was written"));
        }
        let text = zstd::decode_all(packed.as_ref()).map_err(|error| self.damaged(&path, &error.to_string()))?;
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let entries: std::result::Result<Vec<Entry>, serde_json::Error> = lines.map(serde_json::from_slice).collect();
        entries.map_err(|error| self.damaged(&path, &format!("cannot be read: {error}")))
    }

    /// What snapshot `number` says; `None` if there is none.
    async fn head(&self, number: u64) -> Result<Option<HeadBody>> {
        let path = head_path(number);
        let Some(text) = self.root.get(&path).await? else { return Ok(None) };
        let format = serde_json::from_slice::<serde_json::Value>(&text).ok().and_then(|head| head["format"].as_u64());
        if let Some(format) = format.filter(|format| *format != u64::from(FORMAT)) {
            let detail =
                format!("`{path}` is of format {format}, this version reads {FORMAT}: use the version that made it");
            return Err(self.refused(&detail));
        }
        let head: Head =
            serde_json::from_slice(&text).map_err(|error| self.damaged(&path, &format!("cannot be read: {error}")))?;
        Ok(Some(match head.body {
            HeadBody::Snapshot(snapshot) => HeadBody::Snapshot(Box::new(Snapshot { number, ..*snapshot })),
            sealed @ HeadBody::Sealed { .. } => sealed,
        }))
    }

    /// Creates what stands at `snapshots/<number>.json`, unless something stands there.
    async fn put_head(&self, number: u64, body: HeadBody) -> Result<Put> {
        self.root.put_if_absent(&head_path(number), self.json(&Head { format: FORMAT, body })?).await
    }

    /// The numbers of the objects in a folder of this store, ascending.
    async fn numbers(&self, folder: &str) -> Result<BTreeSet<u64>> {
        let objects = self.root.list(folder).await?;
        let number = |path: &str| -> Option<u64> {
            path.strip_prefix(folder)?.strip_prefix('/')?.split('.').next()?.parse().ok()
        };
        Ok(objects.iter().filter_map(|object| number(&object.path)).collect())
    }

    fn json(&self, value: &impl Serialize) -> Result<Bytes> {
        let text = serde_json::to_vec(value).map_err(|error| self.refused(&format!("cannot write JSON: {error}")));
        text.map(Bytes::from)
    }

    fn damaged(&self, path: &str, detail: &str) -> Error {
        let path = format!("{}/{path}", self.root.location().trim_end_matches('/'));
        Error::BackupDamaged { path, detail: detail.to_owned() }
    }

    fn refused(&self, detail: &str) -> Error {
        Error::BackupRefused { location: self.root.location().to_owned(), detail: detail.to_owned() }
    }
}

fn head_path(number: u64) -> String {
    format!("{SNAPSHOTS}/{number:020}.json")
}

fn list_path(number: u64) -> String {
    format!("{LISTS}/{number:020}.jsonl.zst")
}

fn run_path(number: u64) -> String {
    format!("{RUNS}/{number:020}.json")
}

fn object_path(run: u64, path: &str) -> String {
    format!("{OBJECTS}/{run:020}/{path}")
}

fn sha256_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As [`sha256_of`], off the async threads.
async fn hash(bytes: &Bytes) -> Result<String> {
    let bytes = bytes.clone();
    let hashed = tokio::task::spawn_blocking(move || sha256_of(&bytes)).await;
    hashed.map_err(|source| Error::Stopped { work: "hash an object", source })
}

/// Bounds the bytes that are in memory, for objects that are worked on at the same time.
struct InMemory(tokio::sync::Semaphore);

/// What a permit is for: a semaphore has fewer of them than bytes.
const PERMIT_BYTES: usize = 4 << 10;

impl InMemory {
    fn new() -> Self {
        Self(tokio::sync::Semaphore::new(BYTES_AT_ONCE / PERMIT_BYTES))
    }

    /// Waits until there is room for an object of that size.
    async fn room(&self, size_bytes: u64) -> Option<tokio::sync::SemaphorePermit<'_>> {
        let wanted = usize::try_from(size_bytes).unwrap_or(usize::MAX).div_ceil(PERMIT_BYTES);
        let permits = wanted.clamp(1, BYTES_AT_ONCE / PERMIT_BYTES);
        // It is never closed.
        self.0.acquire_many(u32::try_from(permits).unwrap_or(u32::MAX)).await.ok()
    }
}
