//! Bringing a snapshot back into an archive that is empty.
//!
//! First `_restore/unfinished.json` is created, which says what is being restored and under which identity the chains go on; last it is
//! deleted. While it is there no job starts on the archive. A restore that dies is taken up again by another one of the same
//! snapshot, under the same identity: every object is put as it was, or skipped if it is there with its size, since puts are whole or
//! not at all. What is read is compared with the list of the snapshot before it is put.

use std::collections::HashMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::{AT_ONCE, Backups, Entry, InMemory, OnObject, Snapshot, hash, object_path};
use crate::error::{Error, Result};
use crate::store::{ObjectRoot, Put};

/// The mark of an archive that is being restored.
const UNFINISHED: &str = "_restore/unfinished.json";

/// A restore that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoring {
    /// Where the backups are.
    pub source: String,
    /// Number of the snapshot.
    pub snapshot: u64,
    /// What identifies it beside its number.
    list_sha256: String,
    /// The identity under which chains go on.
    pub incarnation: String,
}

/// Changes an object on its way: gives what is put in its place, or nothing to leave it as it is.
pub type Rewrite<'a> = &'a (dyn Fn(&str, &Bytes) -> Result<Option<Bytes>> + Sync);

/// The restore that has begun in an archive and has not come to its end.
///
/// # Errors
/// [`Error::RestoreRefused`] if its mark cannot be read; the store's answer.
pub async fn unfinished_restore(archive: &ObjectRoot) -> Result<Option<Restoring>> {
    let Some(text) = archive.get(UNFINISHED).await? else { return Ok(None) };
    let mark = serde_json::from_slice(&text);
    mark.map(Some).map_err(|error| refused(archive, &format!("its mark `{UNFINISHED}` cannot be read: {error}")))
}

fn refused(archive: &ObjectRoot, detail: &str) -> Error {
    Error::RestoreRefused { location: archive.location().to_owned(), detail: detail.to_owned() }
}

impl Backups {
    /// Marks an empty archive as one that is being restored. If this snapshot was being restored into it already, that restore
    /// is taken up, with the identity that it had; else the chains go on under `incarnation`.
    ///
    /// # Errors
    /// [`Error::RestoreRefused`] if the archive is not empty; the store's answer.
    pub async fn begin_restore(
        &self,
        snapshot: &Snapshot,
        archive: &ObjectRoot,
        incarnation: &str,
    ) -> Result<Restoring> {
        let wanted = Restoring {
            source: self.root.location().to_owned(),
            snapshot: snapshot.number,
            list_sha256: snapshot.list_sha256.clone(),
            incarnation: incarnation.to_owned(),
        };
        if unfinished_restore(archive).await?.is_none() {
            if !archive.is_empty().await? {
                let advice = "it is not empty: name another one with `--archive`, or move what is there away";
                return Err(refused(archive, advice));
            }
            if archive.put_if_absent(UNFINISHED, self.json(&wanted)?).await? == Put::Created {
                return Ok(wanted);
            }
        }
        let Some(found) = unfinished_restore(archive).await? else {
            return Err(refused(archive, "another restore into it has just come to its end"));
        };
        if (found.snapshot, &found.list_sha256) != (wanted.snapshot, &wanted.list_sha256) {
            let detail = format!(
                "a restore of snapshot {} from `{}` has begun there and not come to its end: restore that one again, or empty the archive",
                found.snapshot, found.source
            );
            return Err(refused(archive, &detail));
        }
        Ok(found)
    }

    /// Puts the objects of a snapshot into the archive.
    ///
    /// # Errors
    /// [`Error::BackupDamaged`] for an object that is not what the snapshot says; the answer of a store.
    pub async fn restore(
        &self,
        entries: &[Entry],
        archive: &ObjectRoot,
        rewrite: Rewrite<'_>,
        on_object: OnObject<'_>,
    ) -> Result<()> {
        let listed = archive.list("").await?;
        let there: HashMap<String, u64> = listed.into_iter().map(|object| (object.path, object.size_bytes)).collect();
        let (there, memory) = (&there, &InMemory::new());
        let puts = entries.iter().map(|entry| async move {
            if there.get(&entry.path) == Some(&entry.size_bytes) {
                on_object(entry.size_bytes, false);
                return Ok(());
            }
            let _room = memory.room(entry.size_bytes).await;
            let bytes = self.read(entry).await?;
            let changed = rewrite(&entry.path, &bytes)?;
            archive.put(&entry.path, changed.unwrap_or(bytes)).await?;
            on_object(entry.size_bytes, true);
            Ok::<(), Error>(())
        });
        futures::stream::iter(puts).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
    }

    /// The content of an object, if it is what the snapshot says.
    async fn read(&self, entry: &Entry) -> Result<Bytes> {
        let path = object_path(entry.run, &entry.path);
        let bytes = self.root.get(&path).await?.ok_or_else(|| self.damaged(&path, "is not there"))?;
        if bytes.len() as u64 != entry.size_bytes {
            let detail = format!("has {} bytes, the snapshot says {}", bytes.len(), entry.size_bytes);
            return Err(self.damaged(&path, &detail));
        }
        if hash(&bytes).await? != entry.sha256 {
            return Err(self.damaged(&path, "is not what was copied: its checksum is another"));
        }
        Ok(bytes)
    }

    /// Takes the mark away: the archive is whole.
    ///
    /// # Errors
    /// The store's answer; the mark may be gone then.
    pub async fn end_restore(&self, archive: &ObjectRoot) -> Result<()> {
        archive.delete(UNFINISHED).await
    }
}
