//! `wattline archive backup`: the archive as it was at one moment, in another store, beside the running job.
//!
//! What is copied is what a crash would have left at that moment, without what nothing names; `moment.rs` says how the moment is
//! found. So a job goes on from it as after a crash. In this order:
//!
//! 1. the versions that the tables have, so that each holds nothing of the links that follow;
//! 2. the newest link of every chain, all of them at one moment, and at once what these name, since the job deletes stored state with
//!    its next checkpoint; if it was faster, the moment is chosen anew;
//! 3. the tables, each at the version that holds those links. What a job takes out of a table stays for a week, so there is time;
//! 4. the snapshot, which names everything. Before that nothing is there, and after it everything.

mod moment;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use wattline_connect::archive::{Archive, PinnedTable};
use wattline_connect::backup::{Backups, Entry, Pinned, Pruned, Run, Snapshot, SnapshotTable, ToCopy};
use wattline_connect::store::ObjectRoot;
use wattline_core::error::Kind;
use wattline_runtime::alerting::rfc3339;

use super::archive::Configuration;
use super::copying::Copying;
use crate::cli::{ArchiveBackupArgs, BackupPlace, OutputFormat};
use crate::config::{self, Scalar};
use crate::table_text::{bytes, grouped, table};
use crate::{job, report};

pub(super) async fn run(args: &ArchiveBackupArgs) -> Result<ExitCode> {
    let configuration = super::archive::configuration(&args.of.place)?;
    let backups = backups_root(args.target.as_deref(), &args.of, configuration.as_ref())?;
    let outcome = match args.list {
        true => list(&Backups::open(backups), args.of.format).await,
        false => back_up(args, configuration.as_ref(), backups).await,
    };
    answer(outcome)
}

/// What cannot be done because of what is there is the answer no; all else could not be tried.
pub(super) fn answer(outcome: Result<ExitCode>) -> Result<ExitCode> {
    let is_no = |error: &anyhow::Error| {
        let of_store = error.downcast_ref().map(wattline_connect::Error::kind);
        let of_chain = error.downcast_ref().map(wattline_runtime::Error::kind);
        match of_store.or(of_chain) {
            Some(Kind::Data | Kind::Fenced) => true,
            Some(Kind::Invalid) => matches!(
                error.downcast_ref(),
                Some(wattline_connect::Error::BackupRefused { .. } | wattline_connect::Error::RestoreRefused { .. })
            ),
            Some(Kind::Unavailable | Kind::Exhausted | Kind::Internal) | None => false,
        }
    };
    match outcome {
        Err(error) if is_no(&error) => {
            report::failure(&error);
            Ok(report::answer_is_no())
        }
        outcome => outcome,
    }
}

/// The store of the backups, as the command line or the configuration names it.
pub(super) fn backups_root(
    named: Option<&str>,
    of: &BackupPlace,
    configuration: Option<&Configuration>,
) -> Result<ObjectRoot> {
    let section = configuration.and_then(|(config, folder)| Some((config.backup.as_ref()?, folder)));
    let location = match (named, section) {
        (Some(named), _) => named.to_owned(),
        (None, Some((section, folder))) => job::location(&section.url, folder),
        (None, None) => bail!(
            "it is not said where backups are: name the folder or URL, or write a section [backup] with its `url` into `{}`",
            of.place.config.config.display()
        ),
    };
    let mut options: BTreeMap<String, Scalar> = section.map(|(section, _)| section.options.clone()).unwrap_or_default();
    options.extend(of.store_options.iter().cloned());
    let options =
        config::reveal_all(&options).map_err(|e| anyhow::anyhow!("[backup.options] and --store-option: {e}"))?;
    Ok(ObjectRoot::open(&location, &options)?)
}

/// Archive and backups must not lie in each other: the one would be taken for a part of the other.
pub(super) fn refuse_one_place(archive: &ObjectRoot, backups: &ObjectRoot) -> Result<()> {
    if archive.holds(backups) || backups.holds(archive) {
        bail!(
            "the backups at `{}` and the archive `{}` lie in each other: name a place for the backups that is outside of the archive",
            backups.location(),
            archive.location()
        );
    }
    Ok(())
}

async fn back_up(
    args: &ArchiveBackupArgs,
    configuration: Option<&Configuration>,
    place: ObjectRoot,
) -> Result<ExitCode> {
    let archive = super::archive::existing(super::archive::locate(&args.of.place, configuration)?)?;
    refuse_one_place(archive.root(), &place)?;
    if let Some(restoring) = wattline_connect::backup::unfinished_restore(archive.root()).await? {
        bail!("{}", job::half_restored(archive.root(), &restoring));
    }
    let of_section = configuration.and_then(|(config, _)| config.backup.as_ref()?.keep);
    let keep = args.keep.or(of_section).map(|keep| usize::try_from(keep.get())).transpose()?;
    place.probe().await?;
    let backups = Backups::open(place.clone());
    let run = backups.begin(&uuid::Uuid::new_v4().simple().to_string()).await?;
    let (pinned, entries) = copy_all(&archive, &run, args.of.format).await?;
    let number = run.number();
    let snapshot = run.finish(pinned, entries).await.with_context(|| format!("making snapshot {number}"))?;
    let pruned = match keep {
        Some(keep) => {
            Some(backups.prune(&snapshot, keep).await.context("the backup is made; deleting old ones failed")?)
        }
        None => None,
    };
    match args.of.format {
        OutputFormat::Text => print_text(&snapshot, pruned.as_ref(), &place),
        OutputFormat::Json => {
            let pruned = pruned
                .map(|of| serde_json::json!({"snapshots": of.snapshots, "objects": of.objects, "bytes": of.bytes}));
            let told =
                serde_json::json!({"target": place.location(), "snapshot": in_json(&snapshot), "pruned": pruned});
            report::print(&format!("{told}\n"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies chains, state and tables as of one moment; gives what the snapshot will say.
async fn copy_all(archive: &Archive, run: &Run, format: OutputFormat) -> Result<(Pinned, Vec<Entry>)> {
    let before = archive.log_versions().await?;
    let (moment, mut entries) = moment::choose_and_copy(archive, run).await?;
    let after = archive.log_versions().await?;
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut tables = Vec::new();
    let mut objects = moment.files_without_table(archive, &names).await?;
    for name in names {
        let Some(pinned) = archive.pin_table(name, before.get(name).copied(), &moment.pins()).await? else { continue };
        tables.push(table_of(&pinned));
        let (log, files) = (pinned.log.into_iter(), pinned.files.into_iter());
        objects.extend(log.map(|object| ToCopy { object, is_named_once: false }));
        objects.extend(files.map(|object| ToCopy { object, is_named_once: pinned.is_own }));
    }
    if tables.is_empty() && moment.ends.is_empty() {
        bail!("there is neither a table nor a job at `{}`: is this the archive?", archive.root().location());
    }
    let size = objects.iter().map(|object| object.object.size_bytes).sum();
    let copying = Copying::of(objects.len() as u64, size, format);
    let (copied, gone) = run.copy(archive.root(), &objects, &|bytes, is_new| copying.note(bytes, is_new)).await?;
    if let Some(path) = gone.into_iter().next() {
        let detail = "was deleted while the backup ran".to_owned();
        return Err(wattline_connect::Error::ArchiveDamaged { path, detail }.into());
    }
    entries.extend(copied);
    let archive = archive.root().location().to_owned();
    Ok((Pinned { pinned_ms: moment.pinned_ms, archive, chains: moment.chains(), tables }, entries))
}

fn table_of(pinned: &PinnedTable) -> SnapshotTable {
    SnapshotTable {
        table: pinned.table.clone(),
        version: pinned.version,
        txns: pinned.txns.clone(),
        files: pinned.files.len() as u64,
        bytes: pinned.files.iter().map(|file| file.size_bytes).sum(),
    }
}

async fn list(backups: &Backups, format: OutputFormat) -> Result<ExitCode> {
    let snapshots = backups.snapshots().await?;
    match format {
        OutputFormat::Json => {
            report::print(&format!("{}\n", snapshots.iter().map(in_json).collect::<serde_json::Value>()));
        }
        OutputFormat::Text if snapshots.is_empty() => report::print("there is no backup\n"),
        OutputFormat::Text => report::print(&table_of_snapshots(&snapshots)),
    }
    Ok(if snapshots.is_empty() { report::answer_is_no() } else { ExitCode::SUCCESS })
}

/// The moment of a snapshot.
pub(super) fn moment_of(snapshot: &Snapshot) -> String {
    rfc3339(snapshot.pinned.pinned_ms.saturating_mul(1_000))
}

fn in_json(snapshot: &Snapshot) -> serde_json::Value {
    let Snapshot { pinned, number, .. } = snapshot;
    serde_json::json!({
        "number": number, "moment": moment_of(snapshot), "archive": pinned.archive, "chains": pinned.chains,
        "tables": pinned.tables, "objects": snapshot.objects, "bytes": snapshot.bytes,
        "copied_objects": snapshot.copied_objects, "copied_bytes": snapshot.copied_bytes, "made_by": snapshot.made_by,
    })
}

fn table_of_snapshots(snapshots: &[Snapshot]) -> String {
    let line = |of: &Snapshot| {
        let chains: Vec<String> =
            of.pinned.chains.iter().map(|chain| format!("{}/{}@{}", chain.job, chain.slot, chain.last_link)).collect();
        vec![
            of.number.to_string(),
            moment_of(of),
            of.pinned.tables.len().to_string(),
            grouped(of.objects),
            bytes(of.bytes),
            bytes(of.copied_bytes),
            chains.join(" "),
        ]
    };
    let rows: Vec<Vec<String>> = snapshots.iter().map(line).collect();
    table(&["backup", "moment", "tables", "objects", "size", "copied", "links"], &rows)
}

fn print_text(snapshot: &Snapshot, pruned: Option<&Pruned>, place: &ObjectRoot) {
    report::print(&table_of_snapshots(std::slice::from_ref(snapshot)));
    report::print(&format!(
        "backup {} is at `{}`: {} objects copied, {} were there\n",
        snapshot.number,
        place.location(),
        grouped(snapshot.copied_objects),
        grouped(snapshot.objects - snapshot.copied_objects)
    ));
    if let Some(pruned) = pruned.filter(|pruned| !pruned.snapshots.is_empty() || pruned.objects > 0) {
        let numbers: Vec<String> = pruned.snapshots.iter().map(u64::to_string).collect();
        let which = if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") };
        report::print(&format!(
            "deleted: backups {which}; {} objects that no backup names any more, {}\n",
            grouped(pruned.objects),
            bytes(pruned.bytes)
        ));
    }
}
