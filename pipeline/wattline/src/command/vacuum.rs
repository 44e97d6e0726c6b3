//! `wattline archive vacuum`: deletes the data files that no table needs, by the rules of the maintenance of a running job.
//!
//! A job deletes them too, but only from tables that it writes, and only while it runs. Beside it or without it, a file that a
//! manifest names and that is not in its table yet is kept whatever its age: the job may have been stopped in between, and
//! the next start brings the file there. So nothing is deleted where a chain cannot be read. A chain of another format is of a job
//! that this version cannot run: what it names is not known, and files are kept for as long as a chain remembers them.
//! Tables that other programs made are left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use wattline_connect::archive::{Archive, MaintainPolicy};
use wattline_runtime::verify::read_chain;

use crate::cli::{ArchiveVacuumArgs, OutputFormat};
use crate::report;
use crate::table_text::{bytes, grouped, table};

/// How long links are kept, unless a job says otherwise.
const LINKS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

pub(super) async fn run(args: &ArchiveVacuumArgs) -> Result<ExitCode> {
    let archive = super::archive::open(&args.place).await?;
    let Some(promised) = promised_files(&archive).await? else { return Ok(report::answer_is_no()) };
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
    match args.format {
        OutputFormat::Text => print_text(&deleted, args.dry_run),
        OutputFormat::Json => print_json(&deleted, &left_alone, args.dry_run),
    }
    Ok(ExitCode::SUCCESS)
}

/// The files that manifests name, by table; `None` if a chain has problems, which are told.
async fn promised_files(archive: &Archive) -> Result<Option<BTreeMap<String, BTreeSet<String>>>> {
    let mut promised: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut is_whole = true;
    for of in super::verify::slots_of(archive).await? {
        let chain = read_chain(&of.store, &of.job, &of.slot).await?;
        for note in &chain.notes {
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
    Ok(is_whole.then_some(promised))
}

fn print_text(deleted: &BTreeMap<String, Vec<(String, u64)>>, dry_run: bool) {
    for (name, files) in deleted {
        files.iter().for_each(|(path, size)| report::print(&format!("{name}/{path}  {}\n", bytes(*size))));
    }
    let line = |(name, files): (&String, &Vec<(String, u64)>)| {
        let size: u64 = files.iter().map(|(_, size)| size).sum();
        vec![name.clone(), grouped(files.len() as u64), bytes(size)]
    };
    let rows: Vec<Vec<String>> = deleted.iter().map(line).collect();
    let header = if dry_run { "would be deleted" } else { "deleted" };
    report::print(&table(&["table", header, "size"], &rows));
}

fn print_json(deleted: &BTreeMap<String, Vec<(String, u64)>>, left_alone: &[String], dry_run: bool) {
    let file = |(path, size): &(String, u64)| serde_json::json!({"path": path, "size_bytes": size});
    let tables: serde_json::Map<String, serde_json::Value> =
        deleted.iter().map(|(name, files)| (name.clone(), files.iter().map(file).collect())).collect();
    let told = serde_json::json!({"dry_run": dry_run, "tables": tables, "left_alone": left_alone});
    report::print(&format!("{told}\n"));
}
