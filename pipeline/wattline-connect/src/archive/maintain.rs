//! Background care of a table: log checkpoints, clean-up of expired log objects, merging small files, vacuum.
//!
//! Commits stay cheap by doing none of this. While a date still gets files, only the smallest of them are merged; once it has
//! settled, all that are below the target. So a full stream, whose files are of some size from the start, is rewritten once,
//! when its day is over, and not while it is at its busiest.
//!
//! All of it is safe beside the appender of this process (merges commit
//! through the same lock) and beside readers: what a merge replaces stays for the retention time. A merge that meets
//! another writer's removal gives up without trace; its output is garbage that vacuum collects.
//!
//! Vacuum deletes a file only if no version within the retention names it *and* it is older than the retention. So
//! files that an epoch has written but not yet committed are safe as long as roll-forward happens within that time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use deltalake_core::checkpoints::{cleanup_metadata, create_checkpoint};
use futures::TryStreamExt;
use serde_json::Value;

use super::log::{Change, LiveFile};
use super::merge::{Input, is_sorted, merge_sorted};
use super::table::{SORT_BY, Table, now_ms};
use super::write::Layout;
use super::{AddFile, Archive, store_file};
use crate::error::{Error, Result};
use crate::store::ObjectInfo;

/// Most files merged at once, which bounds open inputs and decoded batches.
const MERGE_FILES_MAX: usize = 64;

/// When to do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaintainPolicy {
    /// Versions between two log checkpoints.
    pub checkpoint_every: u64,
    /// Small files of one date that make a merge worth while.
    pub merge_files_min: usize,
    /// Size in bytes that merged files should reach; files of half that size and more are left alone.
    pub merge_target_bytes: u64,
    /// Files of a date that still gets files are left alone from this size on, bytes.
    pub merge_early_bytes: u64,
    /// A date that got no file for so long has settled.
    pub settled_after: Duration,
    /// Merges done in one call, so that a call ends in reasonable time.
    pub merges_max: usize,
    /// How long files that no version needs any more are kept for readers of older versions.
    pub file_retention: Duration,
    /// Least time between two vacuums of one table in this process (a vacuum lists all its objects).
    pub vacuum_every: Duration,
}

impl Default for MaintainPolicy {
    fn default() -> Self {
        Self {
            checkpoint_every: 50,
            merge_files_min: 8,
            merge_target_bytes: 128 << 20,
            merge_early_bytes: 8 << 20,
            settled_after: Duration::from_secs(3600),
            merges_max: 4,
            file_retention: Duration::from_secs(7 * 24 * 3600),
            vacuum_every: Duration::from_secs(6 * 3600),
        }
    }
}

/// What one call did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MaintainReport {
    /// Version of the checkpoint written.
    pub checkpoint_version: Option<u64>,
    /// Expired log objects deleted.
    pub log_objects_removed: usize,
    /// Small files replaced by merges.
    pub files_merged: usize,
    /// Files written by merges.
    pub files_written: usize,
    /// Unreferenced files deleted.
    pub files_vacuumed: usize,
}

impl Archive {
    /// Does what is due for one table. Call it now and then, not concurrently for one table, and only after
    /// roll-forward at start; it never holds up commits for longer than one commit takes.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], [`Error::Delta`], [`Error::Store`]: the work is taken up again at the next call.
    pub async fn maintain(&self, table: &str, policy: &MaintainPolicy) -> Result<MaintainReport> {
        let table = self.table(table)?;
        let mut report = MaintainReport::default();
        merge_small_files(&table, policy, &mut report).await?;
        checkpoint(&table, policy, &mut report).await?;
        vacuum(&table, policy, &mut report).await?;
        Ok(report)
    }

    /// Whether this program made the table, and can read its log. Of others it is not known who needs which file.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], [`Error::Delta`], [`Error::Store`].
    pub async fn is_own(&self, table: &str) -> Result<bool> {
        let table = self.table(table)?;
        match table.current(|log| log.metadata["configuration"][SORT_BY].is_string()).await {
            Ok(is_own) => is_own.ok_or_else(|| table.unknown()),
            Err(Error::TableForeign { .. } | Error::TableSettings { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes the data files of a table that no version within the retention names and that are older than it, as
    /// [`maintain`](Self::maintain) does from time to time; gives them. A `dry_run` deletes nothing.
    ///
    /// `promised` are the files that manifests name: one that is not in the table yet is left alone whatever its age, since the
    /// job may have been stopped before it was brought there.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], [`Error::Delta`], or [`Error::Store`]: then some of the files may be deleted.
    pub async fn vacuum(
        &self,
        table: &str,
        policy: &MaintainPolicy,
        promised: &BTreeSet<String>,
        dry_run: bool,
    ) -> Result<Vec<ObjectInfo>> {
        let table = self.table(table)?;
        let objects = unreferenced(&table, policy, promised).await?;
        if !dry_run {
            for object in &objects {
                table.root.delete(&object.path).await?;
            }
        }
        Ok(objects)
    }
}

async fn checkpoint(table: &Table, policy: &MaintainPolicy, report: &mut MaintainReport) -> Result<()> {
    let version = table.current(|log| log.version).await?.ok_or_else(|| table.unknown())?;
    let hint = table.root.get("_delta_log/_last_checkpoint").await?;
    let last =
        hint.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()).and_then(|hint| hint["version"].as_u64());
    if version - last.unwrap_or(0).min(version) < policy.checkpoint_every {
        return Ok(());
    }
    let delta = table.delta().await?;
    create_checkpoint(&delta, None).await.map_err(|source| table.failed("write a log checkpoint", source))?;
    report.checkpoint_version = delta.version();
    let removed = cleanup_metadata(&delta, None).await;
    report.log_objects_removed = removed.map_err(|source| table.failed("clean its log", source))?;
    Ok(())
}

async fn merge_small_files(table: &Table, policy: &MaintainPolicy, report: &mut MaintainReport) -> Result<()> {
    let planned = table.current(|log| (plan_merges(&log.files, policy, now_ms()), Arc::clone(&log.layout))).await?;
    let (groups, layout) = planned.ok_or_else(|| table.unknown())?;
    if layout.sort_by.is_empty() {
        return Ok(());
    }
    for group in groups.into_iter().take(policy.merges_max) {
        match merge_group(table, &layout, group, policy).await {
            Ok((merged, written)) => {
                report.files_merged += merged;
                report.files_written += written;
            }
            // Another writer was faster with these very files: its result is as good.
            Err(Error::FileGone { path, .. }) => tracing::debug!(table = table.name, path, "merge given up"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Files of one date to be merged into one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MergeGroup {
    event_date: Option<String>,
    paths: Vec<String>,
}

/// Which small files to merge: per date, the smallest first, as many as fit into one target file.
///
/// The largest of a group is left out while it outweighs all others together, so that one large file is not rewritten
/// for every handful of tiny ones: each row is rewritten a logarithmic number of times.
fn plan_merges(files: &BTreeMap<String, LiveFile>, policy: &MaintainPolicy, now_ms: i64) -> Vec<MergeGroup> {
    let mut newest_ms: BTreeMap<Option<&str>, i64> = BTreeMap::new();
    for file in files.values() {
        let newest_ms = newest_ms.entry(file.event_date.as_deref()).or_insert(i64::MIN);
        *newest_ms = (*newest_ms).max(file.modified_ms);
    }
    let settled_ms = now_ms - i64::try_from(policy.settled_after.as_millis()).unwrap_or(i64::MAX);
    let mut by_date: BTreeMap<Option<&str>, Vec<(u64, &str)>> = BTreeMap::new();
    for (path, file) in files {
        let date = file.event_date.as_deref();
        let settled = newest_ms.get(&date).is_some_and(|newest_ms| *newest_ms <= settled_ms);
        let target_bytes = policy.merge_target_bytes / 2;
        let small_bytes = if settled { target_bytes } else { policy.merge_early_bytes.min(target_bytes) };
        if file.size_bytes < small_bytes && !file.unsorted {
            by_date.entry(date).or_default().push((file.size_bytes, path));
        }
    }
    let mut groups = Vec::new();
    for (event_date, mut small) in by_date {
        small.sort_unstable();
        let mut total = 0;
        let mut chosen: Vec<(u64, &str)> = Vec::new();
        for (size, path) in small {
            if chosen.len() == MERGE_FILES_MAX || total + size > policy.merge_target_bytes {
                break;
            }
            total += size;
            chosen.push((size, path));
        }
        while chosen.len() >= policy.merge_files_min.max(2)
            && let Some((largest, _)) = chosen.last()
            && *largest > total - largest
        {
            total -= largest;
            chosen.pop();
        }
        if chosen.len() >= policy.merge_files_min.max(2) {
            let paths = chosen.into_iter().map(|(_, path)| path.to_owned()).collect();
            groups.push(MergeGroup { event_date: event_date.map(str::to_owned), paths });
        }
    }
    groups
}

/// Merges one group; returns the numbers of files replaced and written.
async fn merge_group(
    table: &Table,
    layout: &Arc<Layout>,
    group: MergeGroup,
    policy: &MaintainPolicy,
) -> Result<(usize, usize)> {
    let mut inputs = Vec::with_capacity(group.paths.len());
    let mut foreign = Vec::new();
    for path in group.paths {
        let bytes = table.root.get(&path).await?;
        let bytes = bytes.ok_or_else(|| Error::FileGone { table: table.name.clone(), path: path.clone() })?;
        let input = Input { path, bytes };
        if is_sorted(&input, layout)? { inputs.push(input) } else { foreign.push(input.path) }
    }
    table
        .current(|log| {
            for (path, file) in &mut log.files {
                file.unsorted |= foreign.contains(path);
            }
        })
        .await?;
    if inputs.len() < policy.merge_files_min.max(2) {
        return Ok((0, 0));
    }
    let removes: Vec<String> = inputs.iter().map(|input| input.path.clone()).collect();
    let (name, merge_layout, event_date) = (table.name.clone(), Arc::clone(layout), group.event_date);
    let merge = move || merge_sorted(&name, &merge_layout, event_date.as_deref(), &inputs);
    let merged = tokio::task::spawn_blocking(merge)
        .await
        .map_err(|source| Error::Stopped { work: "merge small files", source })??;
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    let mut adds: Vec<AddFile> = Vec::with_capacity(merged.len());
    for (i, file) in merged.into_iter().enumerate() {
        adds.push(store_file(table, layout, file, &format!("merged-{i}-{nonce}")).await?);
    }
    let change =
        Change { operation: "OPTIMIZE", adds: &adds, removes: &removes, data_change: false, txn: None, metadata: None };
    table.commit(&change).await?;
    Ok((removes.len(), adds.len()))
}

async fn vacuum(table: &Table, policy: &MaintainPolicy, report: &mut MaintainReport) -> Result<()> {
    let last = *table.vacuumed.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_some_and(|last| last.elapsed() < policy.vacuum_every) {
        return Ok(());
    }
    for object in unreferenced(table, policy, &BTreeSet::new()).await? {
        table.root.delete(&object.path).await?;
        report.files_vacuumed += 1;
    }
    *table.vacuumed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    Ok(())
}

/// Data files that no version within the retention names and that are older than it. Those of `promised` will be named,
/// unless the log says that they were and are no more.
async fn unreferenced(table: &Table, policy: &MaintainPolicy, promised: &BTreeSet<String>) -> Result<Vec<ObjectInfo>> {
    let removed_at = tombstones(table).await?;
    let live = table.current(|log| log.files.clone()).await?.ok_or_else(|| table.unknown())?;
    let cutoff_ms = now_ms() - i64::try_from(policy.file_retention.as_millis()).unwrap_or(i64::MAX);
    let mut objects = table.root.list("").await?;
    objects.retain(|object| {
        let data = object.path.ends_with(".parquet") && !object.path.starts_with("_delta_log/");
        let removed_ms = removed_at.get(&object.path);
        // A tombstone without a time is as old as can be; a file never named counts from when it was written.
        let since_ms = removed_ms.map_or(object.modified_ms, |removed_ms| (*removed_ms).max(object.modified_ms));
        let is_promised = removed_ms.is_none() && promised.contains(&object.path);
        data && !live.contains_key(&object.path) && !is_promised && since_ms <= cutoff_ms
    });
    Ok(objects)
}

/// Files removed within the log's memory, and when (milliseconds since the Unix epoch).
pub(super) async fn tombstones(table: &Table) -> Result<HashMap<String, i64>> {
    if !table.exists().await? {
        return Err(table.unknown());
    }
    let delta = table.delta().await?;
    let state = delta.snapshot().map_err(|source| table.failed("load its log", source))?;
    let views = state.all_tombstones(table.log_store.as_ref());
    views
        .map_ok(|view| (view.path().into_owned(), view.deletion_timestamp().unwrap_or_default()))
        .try_collect()
        .await
        .map_err(|source| table.failed("read its removed files", source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_at(sizes: &[u64], now_ms: i64) -> Vec<usize> {
        let file = |size_bytes: &u64| LiveFile {
            size_bytes: *size_bytes,
            rows: None,
            event_date: None,
            modified_ms: 0,
            unsorted: false,
        };
        let files = sizes.iter().enumerate().map(|(i, size)| (format!("{i:03}"), file(size))).collect();
        let policy = MaintainPolicy {
            merge_target_bytes: 1000,
            merge_early_bytes: 50,
            settled_after: Duration::from_secs(60),
            merge_files_min: 4,
            ..MaintainPolicy::default()
        };
        plan_merges(&files, &policy, now_ms).iter().map(|group| group.paths.len()).collect()
    }

    fn plan(sizes: &[u64]) -> Vec<usize> {
        plan_at(sizes, 60_000)
    }

    #[test]
    fn a_date_that_still_gets_files_is_not_rewritten_for_little() {
        let sizes = [10, 10, 10, 10, 60, 60, 60, 60];
        assert_eq!(plan_at(&sizes, 59_999), [4]);
        assert_eq!(plan_at(&sizes, 60_000), [8]);
    }

    #[test]
    fn merges_are_worth_their_while() {
        assert_eq!(plan(&[10, 10, 10]), [0_usize; 0], "too few");
        assert_eq!(plan(&[10, 10, 10, 10]), [4]);
        assert_eq!(plan(&[10, 10, 10, 10, 400]), [4], "the large one is not rewritten for the small ones");
        assert_eq!(plan(&[10, 10, 10, 100]), [0_usize; 0]);
        assert_eq!(plan(&[500, 600, 10, 10, 10, 10]), [4], "half the target is large enough");
        assert_eq!(plan(&[300; 10]), [0_usize; 0], "three fit into a target, four are wanted");
        assert_eq!(plan(&[1; 100]), [MERGE_FILES_MAX]);
    }
}
