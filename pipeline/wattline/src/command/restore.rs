//! `wattline archive restore`: a backup back into an empty archive, from which the job goes on.
//!
//! The chains come back under a new identity, drawn for this restore. The numbers that follow were used before: by the job that went on
//! after the backup, in the alert topic at least, and by other archives that came of the same backup. Under the old identity a marker
//! of those in the topic could say of an epoch that its alerts are out which nobody has published. Each table is told, in one more
//! version, what it has of which chain under the new name; so files of the newest epoch that are in it are not added again, and those
//! that wait are, by the next start.
//!
//! Alerts of the newest epoch, and all that the job finds again behind it, are published again: nothing tells which of them are out,
//! as the marker names links that are no more, and the topic may have been lost too. They have the ids that they had, by which
//! consumers drop what they know.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use anyhow::Result;
use bytes::Bytes;
use wattline_connect::archive::Archive;
use wattline_connect::backup::{Backups, Entry, Snapshot, SnapshotChain};
use wattline_runtime::snapshot::{CutChain, app_id, read_slots, reincarnated, restored_link};

use super::backup::{answer, backups_root, moment_of, refuse_one_place};
use super::copying::Copying;
use crate::adapt::archive::JOBS_FOLDER;
use crate::cli::{ArchiveRestoreArgs, OutputFormat};
use crate::report;
use crate::table_text::{bytes, grouped};

pub(super) async fn run(args: &ArchiveRestoreArgs) -> Result<ExitCode> {
    let configuration = super::archive::configuration(&args.of.place)?;
    let place = backups_root(args.source.as_deref(), &args.of, configuration.as_ref())?;
    let archive = Archive::open(super::archive::locate(&args.of.place, configuration.as_ref())?);
    refuse_one_place(archive.root(), &place)?;
    answer(restore(args, &Backups::open(place), &archive).await)
}

async fn restore(args: &ArchiveRestoreArgs, backups: &Backups, archive: &Archive) -> Result<ExitCode> {
    let Some(snapshot) = choose(backups, args.at).await? else { return Ok(report::answer_is_no()) };
    let entries = backups.list_of(&snapshot).await?;
    archive.root().probe().await?;
    let drawn = uuid::Uuid::new_v4().simple().to_string();
    let incarnation = backups.begin_restore(&snapshot, archive.root(), &drawn).await?.incarnation;
    let copying = Copying::of(snapshot.objects, snapshot.bytes, args.of.format);
    let rewrite = |path: &str, body: &Bytes| {
        if !is_link(path) {
            return Ok(None);
        }
        let damaged = |error: wattline_runtime::Error| wattline_connect::Error::BackupDamaged {
            path: path.to_owned(),
            detail: error.to_string(),
        };
        let of_job = |chain: &&SnapshotChain| path.contains(&format!("/{}/chains/", chain.job));
        let chains: Vec<CutChain> = snapshot.pinned.chains.iter().filter(of_job).map(cut).collect();
        reincarnated(path, body, &incarnation, &chains).map(Some).map_err(damaged)
    };
    let note = |bytes, is_new| copying.note(bytes, is_new);
    backups.restore(&entries, archive.root(), &rewrite, &note).await?;
    begin_chains(&snapshot, &entries, archive, &incarnation).await?;
    for table in &snapshot.pinned.tables {
        let txns = renamed(&snapshot, &table.txns, &incarnation);
        if !txns.is_empty() {
            archive.tell_transactions(&table.table, table.version, &txns, &incarnation).await?;
        }
    }
    backups.end_restore(archive.root()).await?;
    drop(copying);
    tell(&snapshot, archive, &incarnation, args.of.format);
    Ok(ExitCode::SUCCESS)
}

/// Gives slots of which the chains know and that had no checkpoint a link that says where all were cut off.
async fn begin_chains(snapshot: &Snapshot, entries: &[Entry], archive: &Archive, incarnation: &str) -> Result<()> {
    let (mut known, mut restored) = (BTreeMap::<&str, BTreeSet<u32>>::new(), BTreeSet::new());
    for path in entries.iter().map(|entry| entry.path.as_str()).filter(|path| is_link(path)) {
        let Some(body) = archive.root().get(path).await? else { continue };
        let [_, job, _, slot, _] = path.split('/').collect::<Vec<_>>()[..] else { continue };
        let slots = read_slots(path, &body)?;
        known.entry(job).or_default().extend(slots.known);
        if slots.is_restored {
            restored.insert((job, slot));
        }
    }
    // A job of several slots that has committed nothing begins anew.
    for (job, slots) in known.into_iter().filter(|(_, slots)| !slots.is_empty()) {
        let of_job: Vec<&SnapshotChain> = snapshot.pinned.chains.iter().filter(|chain| chain.job == job).collect();
        let cuts: Vec<CutChain> = of_job.iter().map(|chain| cut(chain)).collect();
        for slot in slots.iter().map(u32::to_string) {
            let chain = of_job.iter().find(|chain| chain.slot == slot);
            if chain.is_some_and(|chain| chain.checkpoint > 0) || restored.contains(&(job, slot.as_str())) {
                continue;
            }
            let last_link = chain.map_or(0, |chain| chain.last_link);
            let named = (incarnation, snapshot.pinned.pinned_ms);
            let (path, link) = restored_link(job, (&slot, last_link), named, (&slots, &cuts))?;
            archive.root().put(&format!("{JOBS_FOLDER}/{job}/{path}"), link).await?;
        }
    }
    Ok(())
}

fn cut(chain: &SnapshotChain) -> CutChain {
    CutChain { slot: chain.slot.clone(), incarnation: chain.incarnation.clone(), told: chain.told }
}

/// The backup that was asked for, or the newest.
async fn choose(backups: &Backups, at: Option<u64>) -> Result<Option<Snapshot>> {
    let mut snapshots = backups.snapshots().await?;
    let numbers: Vec<String> = snapshots.iter().map(|of| of.number.to_string()).collect();
    let found = match at {
        Some(at) => snapshots.into_iter().find(|of| of.number == at),
        None => snapshots.pop(),
    };
    if found.is_none() {
        let what = at.map_or_else(|| "no backup".to_owned(), |at| format!("no backup {at}"));
        let has = if numbers.is_empty() { "none at all".to_owned() } else { numbers.join(", ") };
        report::print_error(&format!("error: there is {what}; there are: {has}\n"));
    }
    Ok(found)
}

/// Whether an object of the archive is a link of a chain.
fn is_link(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    matches!(parts.as_slice(), [JOBS_FOLDER, _, "chains", _, link] if link.ends_with(".json"))
}

/// What a table has of each chain, under the name that it has now.
fn renamed(snapshot: &Snapshot, txns: &BTreeMap<String, i64>, incarnation: &str) -> BTreeMap<String, i64> {
    let chains = snapshot.pinned.chains.iter();
    let of_chain =
        chains.filter_map(|chain| Some((app_id(&chain.job, &chain.slot, incarnation), *txns.get(&chain.app_id)?)));
    of_chain.collect()
}

fn tell(snapshot: &Snapshot, archive: &Archive, incarnation: &str, format: OutputFormat) {
    let location = archive.root().location();
    if format == OutputFormat::Json {
        let told = serde_json::json!({
            "number": snapshot.number, "moment": moment_of(snapshot), "archive": location, "objects": snapshot.objects,
            "bytes": snapshot.bytes, "tables": snapshot.pinned.tables.len(), "chains": snapshot.pinned.chains,
            "incarnation": incarnation,
        });
        report::print(&format!("{told}\n"));
        return;
    }
    report::print(&format!(
        "backup {} of {} is in `{location}`: {} tables, {} objects, {}\n",
        snapshot.number,
        moment_of(snapshot),
        snapshot.pinned.tables.len(),
        grouped(snapshot.objects),
        bytes(snapshot.bytes)
    ));
    for chain in &snapshot.pinned.chains {
        report::print(&format!("chain {}/{} goes on behind link {}\n", chain.job, chain.slot, chain.last_link));
    }
    report::print(
        "next: `wattline archive verify`, then `wattline run`; alerts since the backup are published again, with the ids they had\n",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_told_from_other_objects() {
        assert!(is_link("_wattline/j/chains/0/00000000000000000001.json"));
        for path in ["_wattline/j/lanes/t/0/00000000000000000001.json", "chains/chains/_delta_log/0/1.json", "a.json"] {
            assert!(!is_link(path), "{path}");
        }
    }
}
