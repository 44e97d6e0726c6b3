//! Deleting old snapshots, and the objects that no snapshot names any more.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};

use super::{AT_ONCE, Backups, LISTS, OBJECTS, Snapshot, head_path, list_path, object_path};
use crate::error::Result;
use crate::store::ObjectInfo;

/// What was deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Numbers of the snapshots.
    pub snapshots: Vec<u64>,
    /// Objects that no snapshot named any more.
    pub objects: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

impl Backups {
    /// Deletes all snapshots but the newest `keep`, and what no snapshot names; `own` is the one that this process has just made.
    /// What later backups have copied is left alone.
    ///
    /// # Errors
    /// [`Error::BackupDamaged`](crate::Error::BackupDamaged) if a list of a snapshot that is kept cannot be read: then no object is
    /// deleted; the store's answer: then some are.
    pub async fn prune(&self, own: &Snapshot, keep: usize) -> Result<Pruned> {
        let mut old = self.snapshots().await?;
        let kept = old.split_off(old.len().saturating_sub(keep.max(1)));
        let mut named = HashSet::new();
        for snapshot in &kept {
            let entries = self.list_of(snapshot).await?;
            named.extend(entries.iter().map(|entry| object_path(entry.run, &entry.path)));
        }
        let mut pruned = Pruned { snapshots: old.iter().map(|of| of.number).collect(), ..Pruned::default() };
        for number in &pruned.snapshots {
            self.root.delete(&head_path(*number)).await?;
        }
        let is_kept = |number: &u64| kept.iter().any(|of| of.number == *number);
        for number in self.numbers(LISTS).await?.into_iter().filter(|number| *number <= own.number && !is_kept(number))
        {
            self.root.delete(&list_path(number)).await?;
        }
        let mut garbage = self.root.list(OBJECTS).await?;
        garbage.retain(|object| run_of(object).is_some_and(|run| run <= own.number) && !named.contains(&object.path));
        pruned.objects = garbage.len() as u64;
        pruned.bytes = garbage.iter().map(|object| object.size_bytes).sum();
        let deletions = garbage.iter().map(|object| self.root.delete(&object.path));
        futures::stream::iter(deletions).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        Ok(pruned)
    }
}

/// The backup that copied an object.
fn run_of(object: &ObjectInfo) -> Option<u64> {
    object.path.strip_prefix(OBJECTS)?.strip_prefix('/')?.split('/').next()?.parse().ok()
}
