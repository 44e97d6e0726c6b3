//! `wattline archive verify`: whether what the archive says of itself is true.
//!
//! Each statement is compared with one made independently of it: links of a chain with each other, stored objects with their
//! checksums, files that links name with the logs of the tables, logs with the files, rows with the offsets that they came from
//! (`verify/rows.rs`). It reads only, and may run beside the job. So chains are read before tables, what a table has taken before
//! its files, and positions of lanes after its rows: whatever the job adds meanwhile can then not look like a loss.

mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use anyhow::{Result, bail};
use serde::Serialize;
use wattline_connect::archive::Archive;
use wattline_connect::backup::unfinished_restore;
use wattline_core::chain_check::{TableSight, chain_place, judge_files};
use wattline_core::problem::{Advice, Problem, Problems};
use wattline_runtime::clock::{Clock, SystemClock};
use wattline_runtime::leftovers::leftovers;
use wattline_runtime::verify::{ChainReport, check_chain};

use crate::adapt::archive::{JOBS_FOLDER, JobStore};
use crate::cli::{ArchiveVerifyArgs, OutputFormat};
use crate::table_text::{bytes, grouped, table};
use crate::{job, report};

/// The log of a table remembers removed files for a week. A day less, as clocks differ.
const REMEMBERED_MS: i64 = 6 * 86_400_000;

const TABLE_UNREADABLE: Advice = Advice {
    means: "queries over the table fail; if it is the log that cannot be read, the job does not go on either",
    action: "bring the files that the message names, or all below `_delta_log` of the table, back from a backup",
};
const NO_TABLE: Advice = Advice {
    means: "rows that are committed are missing",
    action: "if the table was removed on purpose, nothing: links past `manifest_retention` are forgotten; else bring it back from a backup",
};

const HALF_RESTORED: Advice = Advice {
    means: "tables and chains are not all there; no job starts on this archive",
    action: "run the same `wattline archive restore` again, which goes on where the first one ended",
};

/// The chain of one slot, with the store that holds it.
pub(super) struct SlotOf {
    pub(super) job: String,
    pub(super) slot: String,
    pub(super) store: JobStore,
}

/// All slots of all jobs of an archive.
pub(super) async fn slots_of(archive: &Archive) -> Result<Vec<SlotOf>> {
    let jobs = archive.root().child(JOBS_FOLDER);
    let mut all = Vec::new();
    for job in jobs.folders().await? {
        for slot in JobStore(jobs.child(&job)).slots().await? {
            all.push(SlotOf { job: job.clone(), slot, store: JobStore(jobs.child(&job)) });
        }
    }
    Ok(all)
}

/// A chain as it was read.
struct Chain {
    of: SlotOf,
    report: ChainReport,
}

/// Everything that was looked at, and what came of it.
#[derive(Debug, Default, Serialize)]
struct Findings {
    chains: Vec<ChainLine>,
    tables: Vec<TableLine>,
    lanes: Vec<rows::LaneLine>,
    notes: Vec<String>,
    problems: Vec<Problem>,
}

#[derive(Debug, Serialize)]
struct ChainLine {
    job: String,
    slot: String,
    links: usize,
    first_link: u64,
    last_link: u64,
    newest_epoch: Option<u64>,
    checkpoint: Option<u64>,
    objects: usize,
}

#[derive(Debug, Serialize)]
struct TableLine {
    table: String,
    version: u64,
    files: u64,
    rows: u64,
    bytes: u64,
}

pub(super) async fn run(args: &ArchiveVerifyArgs) -> Result<ExitCode> {
    let archive = super::archive::open(&args.place).await?;
    let mut findings = Findings::default();
    if let Some(restoring) = unfinished_restore(archive.root()).await? {
        let mut problems = Problems::of("archive");
        problems.add(job::half_restored(archive.root(), &restoring), HALF_RESTORED);
        findings.problems.extend(problems.finish());
    }
    let chains = check_chains(&archive, &mut findings).await?;
    let tables = check_tables(&archive, &chains, &mut findings).await?;
    if chains.is_empty() && tables.is_empty() {
        bail!("there is neither a table nor a job at `{}`: is this the archive?", archive.root().location());
    }
    rows::check(&archive, &chains, &tables, &mut findings).await?;
    match args.format {
        OutputFormat::Text => print_text(&findings),
        OutputFormat::Json => report::print(&format!("{}\n", serde_json::json!(findings))),
    }
    Ok(if findings.problems.is_empty() { ExitCode::SUCCESS } else { report::answer_is_no() })
}

async fn check_chains(archive: &Archive, findings: &mut Findings) -> Result<Vec<Chain>> {
    let mut chains = Vec::new();
    for of in slots_of(archive).await? {
        let mut report = check_chain(&of.store, &of.job, &of.slot).await?;
        note_leftovers(&of, &report, findings).await?;
        findings.problems.append(&mut report.problems);
        findings.notes.append(&mut report.notes);
        let newest = report.newest.as_ref();
        findings.chains.push(ChainLine {
            job: of.job.clone(),
            slot: of.slot.clone(),
            links: report.links,
            first_link: report.first_link,
            last_link: report.last_link,
            newest_epoch: newest.map(|manifest| manifest.n),
            checkpoint: newest.and_then(|manifest| Some(manifest.epoch()?.checkpoint)),
            objects: report.objects.len(),
        });
        chains.push(Chain { of, report });
    }
    Ok(chains)
}

/// Objects of a slot that nothing needs do no harm. Where its chain cannot be read it is not known which they are.
async fn note_leftovers(of: &SlotOf, report: &ChainReport, findings: &mut Findings) -> Result<()> {
    if report.other_format.is_some() || !report.problems.is_empty() {
        return Ok(());
    }
    let left = leftovers(&of.store, &of.job, &of.slot).await?.len();
    if left > 0 {
        findings.notes.push(format!(
            "{}: stored objects that no link needs: {left}; the job deletes them after its next start, or `wattline archive vacuum`",
            chain_place(&of.job, &of.slot)
        ));
    }
    Ok(())
}

/// Looks at the files of all tables; says of each table whether they are whole.
async fn check_tables(archive: &Archive, chains: &[Chain], findings: &mut Findings) -> Result<BTreeMap<String, bool>> {
    let mut tables = BTreeMap::new();
    for name in archive.table_names().await? {
        let is_whole = match check_table(archive, &name, chains, findings).await {
            Ok(is_whole) => is_whole,
            Err(error) => {
                note_unreadable(&name, error, findings)?;
                false
            }
        };
        tables.insert(name, is_whole);
    }
    for chain in chains {
        let absent = chain.report.adds.keys().filter(|table| !tables.contains_key(*table));
        let mut problems = Problems::of(chain_place(&chain.of.job, &chain.of.slot));
        for table in absent {
            problems.add(format!("its links add files to table `{table}`, which is not there"), NO_TABLE);
        }
        findings.problems.extend(problems.finish());
    }
    Ok(tables)
}

/// Looks at the files of one table, and for those that links name; says whether its files are whole.
async fn check_table(archive: &Archive, name: &str, chains: &[Chain], findings: &mut Findings) -> Result<bool> {
    let mut taken = Vec::new();
    for chain in chains {
        let named = chain.report.adds.get(name);
        if let (Some(named), Some(app_id)) = (named, &chain.report.app_id) {
            taken.push((chain, named, archive.txn_version(name, app_id).await?));
        }
    }
    let files = archive.check_files(name).await?;
    findings.tables.push(TableLine {
        table: name.to_owned(),
        version: files.version,
        files: files.files,
        rows: files.rows,
        bytes: files.bytes,
    });
    if files.uncounted > 0 {
        let note = format!("table `{name}`: {} files without statistics, written by another program", files.uncounted);
        findings.notes.push(note);
    }
    let made_ms = files.made_ms;
    let is_whole = files.problems.is_empty();
    findings.problems.extend(files.problems);
    let remembers_since_ms = SystemClock.now_ms() - REMEMBERED_MS;
    for (chain, named, taken) in taken {
        let sight = TableSight { taken, live: &files.live, removed: &files.removed, remembers_since_ms, made_ms };
        let place = chain_place(&chain.of.job, &chain.of.slot);
        let verdict = judge_files(&place, name, named, chain.report.last_link, &sight);
        findings.problems.extend(verdict.problems);
        if verdict.older > 0 {
            findings.notes.push(format!(
                "{place}: files of links that are older than table `{name}`, which was made anew: {}, not looked for",
                verdict.older
            ));
        }
        if verdict.waiting > 0 {
            findings.notes.push(format!(
                "{place}: files of link {} that table `{name}` does not have yet: {}; the job, or its next start, brings them there",
                chain.report.last_link, verdict.waiting
            ));
        }
    }
    Ok(is_whole)
}

/// A table that cannot be read is a problem of the archive, unless it is the store that does not answer.
fn note_unreadable(table: &str, error: anyhow::Error, findings: &mut Findings) -> Result<()> {
    if matches!(error.downcast_ref(), Some(wattline_connect::Error::Store { .. })) {
        return Err(error);
    }
    let mut problems = Problems::of(format!("table `{table}`"));
    problems.add(format!("it cannot be read: {error}"), TABLE_UNREADABLE);
    findings.problems.extend(problems.finish());
    Ok(())
}

fn print_text(findings: &Findings) {
    let optional = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    let chains: Vec<Vec<String>> = findings
        .chains
        .iter()
        .map(|of| {
            let links = format!("{} ({} to {})", of.links, of.first_link, of.last_link);
            let objects = of.objects.to_string();
            vec![format!("{}/{}", of.job, of.slot), links, optional(of.newest_epoch), optional(of.checkpoint), objects]
        })
        .collect();
    let tables: Vec<Vec<String>> = findings
        .tables
        .iter()
        .map(|of| vec![of.table.clone(), of.version.to_string(), grouped(of.files), grouped(of.rows), bytes(of.bytes)])
        .collect();
    let sections = [
        table(&["chain", "links", "newest epoch", "its checkpoint", "objects read"], &chains),
        table(&["table", "version", "files", "rows", "size"], &tables),
        rows::text(&findings.lanes),
    ];
    report::print(&sections.join("\n"));
    report::print("\n");
    for note in &findings.notes {
        report::print(&format!("note: {note}\n"));
    }
    for problem in &findings.problems {
        report::print(&format!("problem: {}: {}\n", problem.place, problem.what));
    }
    // What is wrong in many places has one meaning.
    let advices: BTreeSet<(&str, &str)> =
        findings.problems.iter().map(|problem| (problem.means.as_str(), problem.action.as_str())).collect();
    for (means, action) in advices {
        let of = |problem: &&Problem| (problem.means.as_str(), problem.action.as_str()) == (means, action);
        if let Some(first) = findings.problems.iter().find(of) {
            let what = format!("{}: {}", first.place, first.what);
            report::print(&format!("\n{what}\n  means: {means}\n  do: {action}\n"));
        }
    }
    report::print(&match findings.problems.len() {
        0 => "all is well\n".to_owned(),
        1 => "\n1 problem\n".to_owned(),
        problems => format!("\n{problems} problems\n"),
    });
}
