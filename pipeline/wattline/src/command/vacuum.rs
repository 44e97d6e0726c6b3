//! `wattline archive vacuum`: deletes the data files that no table needs, by the rules of the maintenance of a running job, and what
//! jobs have left of their own: stored objects that no link needs, links that are no part of a chain, generations of lanes that were replaced.
//!
//! A job deletes them too, but only from tables that it writes, and only while it runs. Beside it or without it, a file that a
//! manifest names and that is not in its table yet is kept whatever its age: the job may have been stopped in between, and
//! the next start brings the file there. So nothing is deleted where a chain cannot be read. A chain of another format is of a job
//! that this version cannot run: what it names is not known, and files are kept for as long as a chain remembers them.
//! Tables that other programs made are left alone.
//!
//! What jobs have left is decided from the newest links only (`wattline_core::leftover`, `wattline_core::chain`): objects are listed first and the ends
//! of the chains read after that. So nothing goes that a job has named meanwhile, none that an owner may still name, asleep or not, and none that
//! the next start needs; a backup that misses something chooses another moment. What is not a week old by the clock of the
//! store stays besides. Slots without a link, and jobs of another version, are left as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use wattline_connect::archive::{Archive, MaintainPolicy};
use wattline_connect::store::ObjectInfo;
use wattline_core::leftover::{LANES, OBJECT_FOLDERS, replaced_generations, written_for};
use wattline_core::manifest::Manifest;
use wattline_runtime::clock::{Clock, SystemClock};
use wattline_runtime::leftovers::needed;
use wattline_runtime::verify::read_chain;

use super::verify::{SlotOf, slots_of};
use crate::adapt::archive::JOBS_FOLDER;
use crate::cli::{ArchiveVacuumArgs, OutputFormat};
use crate::report;
use crate::table_text::{bytes, grouped, table};

/// How long links are kept, unless a job says otherwise.
const LINKS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Links before the first one of a chain that are looked at.
const STRAYS_MAX: usize = 64;

pub(super) async fn run(args: &ArchiveVacuumArgs) -> Result<ExitCode> {
    let archive = super::archive::open(&args.place).await?;
    let listed = list_jobs(&archive).await?;
    let Some(Seen { promised, needless }) = look_at_chains(&archive, listed).await? else {
        return Ok(report::answer_is_no());
    };
    let mut policy = MaintainPolicy::default();
    policy.file_retention = policy.file_retention.max(LINKS_KEPT);
    let nothing = BTreeSet::new();
    let mut deleted: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
    let mut left_alone = Vec::new();
    for name in archive.table_names().await? {
        if !archive.is_own(&name).await? {
            report::print_error(&format!("note: table `{name}` was not made by wattline: left alone\n"));
            left_alone.push(name);
            continue;
        }
        let objects = archive.vacuum(&name, &policy, promised.get(&name).unwrap_or(&nothing), args.dry_run).await?;
        deleted.insert(name, objects.into_iter().map(|object| (object.path, object.size_bytes)).collect());
    }
    let jobs = delete_needless(&archive, needless, args.dry_run).await?;
    match args.format {
        OutputFormat::Text => print_text(&deleted, &jobs, args.dry_run),
        OutputFormat::Json => print_json(&deleted, &jobs, &left_alone, args.dry_run),
    }
    Ok(ExitCode::SUCCESS)
}

/// What the chains say is needed, and what is not.
struct Seen {
    /// The files that manifests name, by table.
    promised: BTreeMap<String, BTreeSet<String>>,
    /// What jobs have left, by their paths in the archive.
    needless: Vec<ObjectInfo>,
}

/// The stored objects and the generations of one job, by their paths in its folder.
struct OfJob {
    objects: Vec<ObjectInfo>,
    lanes: Vec<ObjectInfo>,
}

async fn list_jobs(archive: &Archive) -> Result<BTreeMap<String, OfJob>> {
    let jobs = archive.root().child(JOBS_FOLDER);
    let mut listed = BTreeMap::new();
    for job in jobs.folders().await? {
        let of_job = jobs.child(&job);
        let mut objects = Vec::new();
        for folder in OBJECT_FOLDERS {
            objects.extend(of_job.list(folder).await?);
        }
        listed.insert(job, OfJob { objects, lanes: of_job.list(LANES).await? });
    }
    Ok(listed)
}

/// What the chains say; `None` if one has problems, which are told.
async fn look_at_chains(archive: &Archive, mut listed: BTreeMap<String, OfJob>) -> Result<Option<Seen>> {
    let mut promised: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let (mut is_whole, mut needless) = (true, Vec::new());
    for of in slots_of(archive).await? {
        let chain = read_chain(&of.store, &of.job, &of.slot).await?;
        if let Some(of_job) = listed.get(&of.job).filter(|_| chain.problems.is_empty() && chain.other_format.is_none())
        {
            needless.extend(needless_of_slot(&of, of_job, chain.first_link).await?);
        }
        for note in chain.notes.iter().filter(|_| chain.other_format.is_some()) {
            listed.remove(&of.job);
            let days = LINKS_KEPT.as_secs() / 86_400;
            report::print_error(&format!("note: {note}; all files of the last {days} days are kept\n"));
        }
        for problem in &chain.problems {
            is_whole = false;
            report::print_error(&format!("error: {}: {}\n", problem.place, problem.what));
        }
        for (table, files) in chain.adds {
            promised.entry(table).or_default().extend(files.into_iter().map(|file| file.path));
        }
    }
    for (amendment, _) in super::amend::newest_of_all(archive).await? {
        for (table, files) in amendment.adds {
            promised.entry(table).or_default().extend(files.into_iter().map(|file| file.path));
        }
    }
    if !is_whole {
        report::print_error(
            "nothing was deleted: it is not known which files are still needed; see `wattline archive verify`\n",
        );
    }
    for (job, of_job) in listed {
        let paths: Vec<&str> = of_job.lanes.iter().map(|object| object.path.as_str()).collect();
        let replaced: BTreeSet<&str> = replaced_generations(&paths).into_iter().collect();
        let is_replaced = |object: &&ObjectInfo| replaced.contains(object.path.as_str());
        needless.extend(of_job.lanes.iter().filter(is_replaced).map(|object| in_archive(&job, object)));
    }
    Ok(is_whole.then_some(Seen { promised, needless }))
}

/// What is left of a slot whose chain begins with link `first`.
async fn needless_of_slot(of: &SlotOf, of_job: &OfJob, first: u64) -> Result<Vec<ObjectInfo>> {
    let Some(needed) = needed(&of.store, &of.job, &of.slot).await? else { return Ok(Vec::new()) };
    let is_left_over = |object: &&ObjectInfo| {
        let is_of_slot = written_for(&object.path).is_some_and(|written| written.slot == of.slot);
        is_of_slot && needed.is_left_over(&object.path)
    };
    let mut needless: Vec<ObjectInfo> =
        of_job.objects.iter().filter(is_left_over).map(|object| in_archive(&of.job, object)).collect();
    // What lies before the chain was counted when it was read, and is little.
    let root = &of.store.0;
    for path in root.list_after(&format!("chains/{}", of.slot), &Manifest::path(&of.slot, 0), STRAYS_MAX).await? {
        if path < Manifest::path(&of.slot, first)
            && let Some(object) = root.info(&path).await?
        {
            needless.push(in_archive(&of.job, &object));
        }
    }
    Ok(needless)
}

fn in_archive(job: &str, object: &ObjectInfo) -> ObjectInfo {
    ObjectInfo { path: format!("{JOBS_FOLDER}/{job}/{}", object.path), ..object.clone() }
}

/// Deletes what is older than links are kept; gives it.
async fn delete_needless(archive: &Archive, mut objects: Vec<ObjectInfo>, dry_run: bool) -> Result<Vec<(String, u64)>> {
    let kept_ms = i64::try_from(LINKS_KEPT.as_millis())?;
    let old_ms = SystemClock.now_ms() - kept_ms;
    objects.retain(|object| object.modified_ms <= old_ms);
    if !dry_run {
        for object in &objects {
            archive.root().delete(&object.path).await?;
        }
    }
    Ok(objects.into_iter().map(|object| (object.path, object.size_bytes)).collect())
}

fn print_text(deleted: &BTreeMap<String, Vec<(String, u64)>>, jobs: &[(String, u64)], dry_run: bool) {
    for (name, files) in deleted {
        files.iter().for_each(|(path, size)| report::print(&format!("{name}/{path}  {}\n", bytes(*size))));
    }
    jobs.iter().for_each(|(path, size)| report::print(&format!("{path}  {}\n", bytes(*size))));
    let line = |name: &str, files: &[(String, u64)]| {
        let size: u64 = files.iter().map(|(_, size)| size).sum();
        vec![name.to_owned(), grouped(files.len() as u64), bytes(size)]
    };
    let mut rows: Vec<Vec<String>> = deleted.iter().map(|(name, files)| line(name, files)).collect();
    rows.push(line(JOBS_FOLDER, jobs));
    let header = if dry_run { "would be deleted" } else { "deleted" };
    report::print(&table(&["table", header, "size"], &rows));
}

fn print_json(
    deleted: &BTreeMap<String, Vec<(String, u64)>>,
    jobs: &[(String, u64)],
    left_alone: &[String],
    dry_run: bool,
) {
    let file = |(path, size): &(String, u64)| serde_json::json!({"path": path, "size_bytes": size});
    let tables: serde_json::Map<String, serde_json::Value> =
        deleted.iter().map(|(name, files)| (name.clone(), files.iter().map(file).collect())).collect();
    let jobs: serde_json::Value = jobs.iter().map(file).collect();
    let told = serde_json::json!({"dry_run": dry_run, "tables": tables, "jobs": jobs, "left_alone": left_alone});
    report::print(&format!("{told}\n"));
}
