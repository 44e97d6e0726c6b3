//! Cleaning up after a checkpoint: what the last one named and this one does not, links past their retention, what earlier
//! lives of the slot have left behind.
//!
//! The first is done at once. The others in the background, every `maintenance`, beside the ticks:
//!
//! - *Links* before the checkpoint are deleted when they are old, from the oldest on, some at once, until none is left that is. The
//!   oldest is looked for once in the life of a process; from then on the numbers follow from each other, and the chain is not
//!   listed. In which order links may go, so that whoever has slept meanwhile cannot take their place, is said in [`wattline_core::chain`].
//! - *Leftovers*: what is in the folders of the slot and was written for a link up to the checkpoint, and is not named by it, is of a
//!   process that died, or could not be deleted ([`wattline_core::leftover`]). The folders hold little, and are listed once, and again if a deletion has failed.
//! - *Generations* of the lanes that were replaced before the last owner's, as they were listed when the lanes were taken.
//!
//! All of it is behind a link that this process has put and stands behind, and concerns what nobody needs from that link on. So it may
//! end at any point, be done twice, or by a process that others have overtaken since.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt};
use tokio::task::JoinSet;
use tokio::time::Instant;
use wattline_core::chain::{DELETED_AT_ONCE, OldLink, decide_deletable, decide_strays};
use wattline_core::leftover::{OBJECT_FOLDERS, is_left_over};
use wattline_core::manifest::{Epoch, Manifest};

use super::{Coordinator, events};
use crate::error::Result;
use crate::links::numbers_after;
use crate::port::Store;
use crate::recovery::parse_manifest;
use crate::verify::note_objects;

/// Links that are read before some are deleted.
const BATCH_MAX: u64 = 64;
/// The oldest links of a chain, among which are those that an interrupted deletion has left.
const OLDEST_MAX: usize = 4 * DELETED_AT_ONCE;

/// How far the background work is.
#[derive(Debug, Default)]
pub(super) struct CleanUp {
    /// Ends with the coordinator.
    task: JoinSet<()>,
    /// What was due while the task ran.
    missed: Option<Work>,
    last: Option<Instant>,
    done: Arc<Done>,
}

#[derive(Debug, Default)]
struct Done {
    /// The oldest link, 0 while it is not known.
    oldest: AtomicU64,
    /// Nothing is left of earlier lives.
    has_swept: AtomicBool,
}

/// What is to be cleaned up, as of a checkpoint.
#[derive(Debug)]
struct Work {
    store: Arc<dyn Store>,
    slot: String,
    checkpoint: u64,
    /// What its link names.
    named: BTreeSet<String>,
    /// Links that were put before are old, milliseconds since the epoch.
    horizon_ms: i64,
    generations: Vec<String>,
    done: Arc<Done>,
}

impl Coordinator {
    /// Deletes the objects that the last checkpoint named and this one does not, and starts what else is due.
    pub(super) async fn clean_up(&mut self, n: u64, epoch: &Epoch) {
        let mut obsolete = std::mem::take(&mut self.rows_objects);
        obsolete.extend(std::mem::take(&mut self.state_objects));
        obsolete.extend(self.alert_state_object.take());
        obsolete.extend(std::mem::replace(&mut self.stage_objects, epoch.stage_objects.clone()));
        self.state_objects.clone_from(&epoch.state_objects);
        self.alert_state_object.clone_from(&epoch.alert_state_object);
        self.rows_objects.extend(epoch.rows_object.clone());
        obsolete.extend(self.outboxes_to_delete(epoch));
        obsolete.retain(|path| {
            !epoch.state_objects.contains(path)
                && epoch.alert_state_object.as_ref() != Some(path)
                && !epoch.stage_objects.contains(path)
                && epoch.rows_object.as_ref() != Some(path)
        });
        let this = &*self;
        futures::stream::iter(obsolete).for_each_concurrent(DELETED_AT_ONCE, |path| this.delete(path)).await;
        if self.clean_up.last.get_or_insert_with(Instant::now).elapsed() >= self.settings.maintenance {
            self.start_clean_up(n, epoch);
        }
    }

    /// Deletes what no link needs any more; what cannot be deleted is looked for again.
    async fn delete(&self, path: String) {
        if let Err(error) = self.chain.store.delete(&path).await {
            events::CleanupFailed { path: &path, error: &error }.emit();
            self.clean_up.done.has_swept.store(false, Ordering::Relaxed);
        }
    }

    fn start_clean_up(&mut self, n: u64, epoch: &Epoch) {
        self.clean_up.last = Some(Instant::now());
        let retention_ms = i64::try_from(self.settings.manifest_retention.as_millis()).unwrap_or(i64::MAX);
        let mut named = Vec::new();
        note_objects(&mut named, n, epoch);
        let mut generations = std::mem::take(&mut self.chain.replaced);
        generations.extend(self.clean_up.missed.take().into_iter().flat_map(|missed| missed.generations));
        let work = Work {
            store: Arc::clone(&self.chain.store),
            slot: self.settings.slot.clone(),
            checkpoint: n,
            named: named.into_iter().collect(),
            horizon_ms: self.clock.now_ms().saturating_sub(retention_ms),
            generations,
            done: Arc::clone(&self.clean_up.done),
        };
        while self.clean_up.task.try_join_next().is_some() {}
        if self.clean_up.task.is_empty() {
            self.clean_up.task.spawn(work.run());
        } else {
            self.clean_up.missed = Some(work);
        }
    }

    /// At the end of bounded input: waits for what was started, and does what was due meanwhile.
    pub(super) async fn finish_clean_up(&mut self) {
        while self.clean_up.task.join_next().await.is_some() {}
        if let Some(work) = self.clean_up.missed.take() {
            work.run().await;
        }
    }
}

impl Work {
    async fn run(self) {
        for (what, outcome) in [
            ("chains", self.delete_old_links().await),
            ("lanes", self.delete_all(self.generations.clone()).await),
            ("objects of earlier processes", self.sweep().await),
        ] {
            if let Err(error) = outcome {
                events::CleanupFailed { path: what, error: &error }.emit();
            }
        }
    }

    async fn delete_old_links(&self) -> Result<()> {
        let mut oldest = match self.done.oldest.load(Ordering::Relaxed) {
            0 => self.find_oldest().await?,
            known => known,
        };
        // The very first link goes alone: as long as it is there, whoever checks the chain knows that none was deleted.
        let mut batch = 1;
        while oldest > 0 && oldest < self.checkpoint {
            let numbers = oldest..self.checkpoint.min(oldest + batch);
            let links: Vec<Option<OldLink>> =
                futures::stream::iter(numbers).map(|n| self.read(n)).buffered(DELETED_AT_ONCE).try_collect().await?;
            let count = decide_deletable(&links, self.horizon_ms);
            let paths: Vec<String> = (oldest..).take(count).map(|n| Manifest::path(&self.slot, n)).collect();
            self.delete_all(paths).await?;
            oldest += count as u64;
            self.done.oldest.store(oldest, Ordering::Relaxed);
            if count == 0 {
                break;
            }
            batch = (2 * batch).min(BATCH_MAX);
        }
        Ok(())
    }

    /// The oldest link of the chain. What lies before it and is no part of it goes.
    async fn find_oldest(&self) -> Result<u64> {
        let numbers = numbers_after(self.store.as_ref(), &self.slot, 0, OLDEST_MAX).await?;
        let (strays, chain) = numbers.split_at(decide_strays(&numbers, self.checkpoint));
        for n in strays {
            self.store.delete(&Manifest::path(&self.slot, *n)).await?;
        }
        Ok(chain.first().copied().unwrap_or_default())
    }

    async fn read(&self, n: u64) -> Result<Option<OldLink>> {
        let path = Manifest::path(&self.slot, n);
        let Some(body) = self.store.get(&path).await? else { return Ok(None) };
        let Manifest { nonce, created_ms, .. } = parse_manifest(&path, &body)?;
        Ok(Some(OldLink { nonce, created_ms }))
    }

    /// Deletes some at a time, in order: whatever ends it leaves no more than these between those that are gone.
    async fn delete_all(&self, paths: Vec<String>) -> Result<()> {
        let deletions = futures::stream::iter(paths).map(|path| async move { self.store.delete(&path).await });
        deletions.buffered(DELETED_AT_ONCE).try_collect().await
    }

    async fn sweep(&self) -> Result<()> {
        if self.done.has_swept.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let swept = self.sweep_all().await;
        if swept.is_err() {
            self.done.has_swept.store(false, Ordering::Relaxed);
        }
        swept
    }

    async fn sweep_all(&self) -> Result<()> {
        for folder in OBJECT_FOLDERS {
            let mut listed = self.store.list(&format!("{folder}/{}/", self.slot)).await?;
            listed.retain(|path| is_left_over(path, self.checkpoint, &self.named));
            self.delete_all(listed).await?;
        }
        Ok(())
    }
}
