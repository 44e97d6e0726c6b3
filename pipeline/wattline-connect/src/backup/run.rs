//! One backup from its beginning to its snapshot: see the page of the module for why nothing can come between.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use serde_json::json;

use super::{
    AT_ONCE, BEGIN_TRIES, Backups, Entry, HeadBody, InMemory, OBJECTS, OnObject, Pinned, RUNS, SNAPSHOTS, Snapshot,
    ZSTD_LEVEL, hash, list_path, object_path, run_path, sha256_of,
};
use crate::error::{Error, Result};
use crate::store::{ObjectInfo, ObjectRoot, Put};

/// An object of the archive that belongs to a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToCopy {
    /// Path, size and time.
    pub object: ObjectInfo,
    /// Whether its name carries a nonce: then an object of that name and size is this one, whenever it was written.
    pub is_named_once: bool,
}

/// A backup that is under way.
#[derive(Debug)]
pub struct Run {
    backups: Backups,
    number: u64,
    nonce: String,
    /// The newest snapshot, if there is one.
    base: Option<Snapshot>,
    /// Its objects, by path.
    known: HashMap<String, Entry>,
    /// Everything that backups have copied, by its path in this store, with its size.
    present: HashMap<String, u64>,
    /// Sealed backups after the newest snapshot, the newest first.
    sealed: Vec<u64>,
    /// What this one has copied or read.
    done: Mutex<HashMap<String, Entry>>,
}

impl Backups {
    /// Begins a backup. One that is still under way will make no snapshot.
    ///
    /// # Errors
    /// [`Error::BackupRefused`] for what another version wrote; [`Error::BackupDamaged`]; the store's answer.
    pub async fn begin(&self, nonce: &str) -> Result<Run> {
        let number = self.take_number(nonce).await?;
        self.seal_before(number).await?;
        let (mut base, mut sealed) = (None, Vec::new());
        for before in self.numbers(SNAPSHOTS).await?.into_iter().rev().filter(|before| *before < number) {
            match self.head(before).await? {
                Some(HeadBody::Snapshot(snapshot)) => {
                    base = Some(*snapshot);
                    break;
                }
                Some(HeadBody::Sealed { .. }) => sealed.push(before),
                None => {}
            }
        }
        let entries = match &base {
            Some(base) => self.list_of(base).await?,
            None => Vec::new(),
        };
        let objects = self.root.list(OBJECTS).await?;
        Ok(Run {
            backups: self.clone(),
            number,
            nonce: nonce.to_owned(),
            base,
            known: entries.into_iter().map(|entry| (entry.path.clone(), entry)).collect(),
            present: objects.into_iter().map(|object| (object.path, object.size_bytes)).collect(),
            sealed,
            done: Mutex::default(),
        })
    }

    /// A number above all others, of which nobody else knows.
    async fn take_number(&self, nonce: &str) -> Result<u64> {
        let text = self.json(&json!({ "nonce": nonce }))?;
        for _ in 0..BEGIN_TRIES {
            let number = self.all_numbers().await?.last().map_or(1, |last| last + 1);
            let path = run_path(number);
            let is_ours = self.root.put_if_absent(&path, text.clone()).await? == Put::Created
                || self.root.get(&path).await?.as_ref() == Some(&text);
            if !is_ours {
                continue;
            }
            // A number that others have left behind meanwhile is no use: they may prune what is copied under it.
            let newest = self.all_numbers().await?.last().copied().unwrap_or_default();
            if newest == number && self.head(number).await?.is_none() {
                return Ok(number);
            }
            self.root.delete(&path).await?;
        }
        Err(self.refused("others begin backups here all the time: let one of them come to its end"))
    }

    async fn all_numbers(&self) -> Result<BTreeSet<u64>> {
        let mut numbers = self.numbers(SNAPSHOTS).await?;
        numbers.extend(self.numbers(RUNS).await?);
        Ok(numbers)
    }

    /// Seals what began before `number` and has no snapshot.
    async fn seal_before(&self, number: u64) -> Result<()> {
        for before in self.numbers(RUNS).await?.into_iter().filter(|before| *before < number) {
            // If there is a snapshot it stays, and only the mark is left over.
            self.put_head(before, HeadBody::Sealed { by: number }).await?;
            self.root.delete(&run_path(before)).await?;
        }
        Ok(())
    }
}

impl Run {
    /// Its number, which its snapshot will have.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Where the backups are.
    pub fn location(&self) -> &str {
        self.backups.root.location()
    }

    /// The newest snapshot, on which it builds.
    pub fn base(&self) -> Option<&Snapshot> {
        self.base.as_ref()
    }

    /// Copies objects that are not there yet. Gives what a snapshot says of those that are, and the paths of those that
    /// the archive does not have any more.
    ///
    /// # Errors
    /// [`Error::ArchiveDamaged`] for an object of another size than it was listed with; the answer of a store.
    pub async fn copy(
        &self,
        archive: &ObjectRoot,
        objects: &[ToCopy],
        on_object: OnObject<'_>,
    ) -> Result<(Vec<Entry>, Vec<String>)> {
        let memory = InMemory::new();
        let memory = &memory;
        let copies = objects.iter().map(|object| self.copy_one(archive, object, memory, on_object));
        let copied: Vec<Option<Entry>> = futures::stream::iter(copies).buffered(AT_ONCE).try_collect().await?;
        let gone = objects.iter().zip(&copied).filter(|(_, entry)| entry.is_none());
        let gone = gone.map(|(object, _)| object.object.path.clone()).collect();
        Ok((copied.into_iter().flatten().collect(), gone))
    }

    async fn copy_one(
        &self,
        archive: &ObjectRoot,
        wanted: &ToCopy,
        memory: &InMemory,
        on_object: OnObject<'_>,
    ) -> Result<Option<Entry>> {
        let ObjectInfo { path, size_bytes, modified_ms } = &wanted.object;
        if let Some(entry) = self.there(wanted) {
            on_object(*size_bytes, false);
            return Ok(Some(entry));
        }
        let _room = memory.room(*size_bytes).await;
        let Some(bytes) = archive.get(path).await? else { return Ok(None) };
        if bytes.len() as u64 != *size_bytes {
            let detail = format!("gave {} bytes, its store lists {size_bytes}", bytes.len());
            return Err(Error::ArchiveDamaged { path: path.clone(), detail });
        }
        let sha256 = hash(&bytes).await?;
        let left = self.sealed.iter().find(|run| self.has(**run, path, *size_bytes)).filter(|_| wanted.is_named_once);
        if left.is_none() {
            self.backups.root.put(&object_path(self.number, path), bytes).await?;
        }
        on_object(*size_bytes, left.is_none());
        let run = left.copied().unwrap_or(self.number);
        let entry = Entry { path: path.clone(), size_bytes: *size_bytes, sha256, modified_ms: *modified_ms, run };
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.insert(path.clone(), entry.clone());
        Ok(Some(entry))
    }

    /// The object as it is in the store already: this backup has seen it, or the newest snapshot has it.
    fn there(&self, wanted: &ToCopy) -> Option<Entry> {
        let ObjectInfo { path, size_bytes, modified_ms } = &wanted.object;
        let is_it = |entry: &&Entry| {
            entry.size_bytes == *size_bytes && (entry.modified_ms == *modified_ms || wanted.is_named_once)
        };
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = done.get(path).filter(is_it) {
            return Some(entry.clone());
        }
        let entry = self.known.get(path).filter(is_it).filter(|entry| self.has(entry.run, path, *size_bytes))?;
        Some(Entry { modified_ms: *modified_ms, ..entry.clone() })
    }

    fn has(&self, run: u64, path: &str, size_bytes: u64) -> bool {
        self.present.get(&object_path(run, path)) == Some(&size_bytes)
    }

    /// Makes the snapshot: from now on it is there as a whole.
    ///
    /// # Errors
    /// [`Error::BackupOvertaken`] if another backup began meanwhile; the store's answer, which leaves the outcome unknown.
    pub async fn finish(self, pinned: Pinned, mut entries: Vec<Entry>) -> Result<Snapshot> {
        let Self { backups, number, nonce, .. } = self;
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        entries.dedup_by(|a, b| a.path == b.path);
        let mut text = Vec::new();
        for entry in &entries {
            text.extend_from_slice(&backups.json(entry)?);
            text.push(b'\n');
        }
        let packed = zstd::encode_all(text.as_slice(), ZSTD_LEVEL)
            .map_err(|error| backups.refused(&format!("cannot pack the list: {error}")))?;
        let packed = Bytes::from(packed);
        let copied = || entries.iter().filter(|entry| entry.run == number);
        let snapshot = Snapshot {
            pinned,
            objects: entries.len() as u64,
            bytes: entries.iter().map(|entry| entry.size_bytes).sum(),
            copied_objects: copied().count() as u64,
            copied_bytes: copied().map(|entry| entry.size_bytes).sum(),
            made_by: env!("CARGO_PKG_VERSION").to_owned(),
            list_sha256: sha256_of(&packed),
            nonce,
            number,
        };
        backups.root.put(&list_path(number), packed).await?;
        if backups.put_head(number, HeadBody::Snapshot(Box::new(snapshot.clone()))).await? == Put::Exists {
            match backups.head(number).await? {
                Some(HeadBody::Snapshot(found)) if found.nonce == snapshot.nonce => {}
                Some(HeadBody::Sealed { by }) => return Err(Error::BackupOvertaken { number, by }),
                _ => return Err(Error::BackupOvertaken { number, by: number }),
            }
        }
        backups.root.delete(&run_path(number)).await?;
        Ok(snapshot)
    }
}
