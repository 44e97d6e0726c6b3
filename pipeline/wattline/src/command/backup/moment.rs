//! The moment that a backup is of, and what the chains name at it.
//!
//! Of each chain the newest link is looked for; then each is asked whether there is a further one. Once none of them has moved while
//! all were asked, these links were the newest ones at one moment. Up to then every link but the newest of each chain was brought
//! out, and no table had anything of a later link: this is what a crash leaves, and what recovery goes on from.
//!
//! Amendments (`replay --write`, `--dead-letters`) are chains beside the job's and are treated alike: the newest of each job at that
//! moment is pinned, and what of it is in no table yet waits with its files for whoever amends the restored archive next.
//!
//! The objects with stored state are copied at once, the newest first, since the job replaces those soonest. If one is gone, the job
//! has made a checkpoint meanwhile: another moment is chosen. What was copied is not copied again, and old parts of the state stay
//! as they are from checkpoint to checkpoint, so each try has less to do.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use wattline_connect::archive::{Archive, ChainPin};
use wattline_connect::backup::{Entry, Run, SnapshotChain, ToCopy};
use wattline_connect::store::{ObjectInfo, ObjectRoot};
use wattline_core::amendment::{AMENDMENTS, Amendment};
use wattline_core::chain_check::chain_place;
use wattline_runtime::clock::{Clock, SystemClock};
use wattline_runtime::snapshot::{ChainEnd, newest_link, read_end};

use crate::adapt::archive::{JOBS_FOLDER, add_file};
use crate::command::amend::{Amendments, Steps, newest_numbers};
use crate::command::verify::{SlotOf, slots_of};

/// Moments that are tried.
const MOMENTS_MAX: u32 = 20;
/// Times that all chains are asked whether they have moved.
const LOOKS_MAX: u32 = 10_000;
const INFOS_AT_ONCE: usize = 16;

/// What the chains were at one moment.
pub(super) struct Moment {
    pub(super) pinned_ms: i64,
    pub(super) ends: Vec<ChainEnd>,
    /// The newest amendment of each job.
    amendments: Vec<ChainPin>,
}

/// The numbers of the newest links, in the order of the slots, and of the newest amendments, by job.
type Newest = (Vec<u64>, BTreeMap<String, u64>);

/// Chooses a moment, and copies links, lanes and stored objects as of it.
pub(super) async fn choose_and_copy(archive: &Archive, run: &Run) -> Result<(Moment, Vec<Entry>)> {
    for _ in 0..MOMENTS_MAX {
        let slots = slots_of(archive).await?;
        let (links, amended) = newest_of_one_moment(archive, &slots).await?;
        let pinned_ms = SystemClock.now_ms();
        let Some(ends) = read_ends(&slots, &links).await? else { continue };
        refuse_strangers(run, &ends)?;
        if let Some(mut entries) = copy_ends(archive.root(), run, &ends).await? {
            entries.extend(copy_amendments(archive.root(), run, &amended).await?);
            let amendments = pins_of_amendments(archive, &amended).await?;
            return Ok((Moment { pinned_ms, ends, amendments }, entries));
        }
    }
    bail!(
        "links or stored objects of a chain are gone before they are copied, {MOMENTS_MAX} times in a row: `wattline archive verify` says \
         whether they are lost; else the job replaces its state faster than it can be copied: raise `[run] checkpoint`, or name a \
         store for the backups that is nearer"
    )
}

/// The newest link of each chain and the newest amendment of each job, all at the same time.
async fn newest_of_one_moment(archive: &Archive, slots: &[SlotOf]) -> Result<Newest> {
    let mut before: Option<Newest> = None;
    for _ in 0..LOOKS_MAX {
        let known = |slot: usize| before.as_ref().map(|(links, _)| links[slot]);
        let looks = slots.iter().enumerate().map(|(slot, of)| newest_link(&of.store, &of.slot, known(slot)));
        let links = futures::future::try_join_all(looks).await?;
        let newest = (links, newest_numbers(archive).await?);
        if before.as_ref() == Some(&newest) {
            return Ok(newest);
        }
        before = Some(newest);
    }
    bail!("the chains of this archive move on faster than they can be looked at: run the backup nearer to the archive")
}

async fn read_ends(slots: &[SlotOf], links: &[u64]) -> Result<Option<Vec<ChainEnd>>> {
    let mut ends = Vec::new();
    for (of, link) in slots.iter().zip(links).filter(|(_, link)| **link > 0) {
        let end = read_end(&of.store, &of.job, &of.slot, *link).await.with_context(|| {
            let place = chain_place(&of.job, &of.slot);
            format!("{place} cannot be backed up; one of another version only by that version, and one that nobody needs is to be removed")
        })?;
        match end {
            Some(end) => ends.push(end),
            None => return Ok(None),
        }
    }
    Ok(Some(ends))
}

/// Backups of two archives in one place would push each other out.
fn refuse_strangers(run: &Run, ends: &[ChainEnd]) -> Result<()> {
    let Some(base) = run.base() else { return Ok(()) };
    let before: BTreeSet<&str> = base.pinned.chains.iter().map(|chain| chain.job.as_str()).collect();
    let now: BTreeSet<&str> = ends.iter().map(|end| end.job.as_str()).collect();
    if before.is_empty() || now.is_empty() || !before.is_disjoint(&now) {
        return Ok(());
    }
    let names = |jobs: BTreeSet<&str>| jobs.into_iter().collect::<Vec<_>>().join(", ");
    let detail = format!(
        "the newest one is of `{}` with job {}, this archive has job {}: name another place for its backups",
        base.pinned.archive,
        names(before),
        names(now)
    );
    Err(wattline_connect::Error::BackupRefused { location: run.location().to_owned(), detail }.into())
}

/// Copies what the chains name; `None` if something of it is gone.
async fn copy_ends(root: &ObjectRoot, run: &Run, ends: &[ChainEnd]) -> Result<Option<Vec<Entry>>> {
    let mut entries = Vec::new();
    for end in ends {
        let state = end.objects.iter().rev().map(|path| (path, true));
        let named: Vec<(String, bool)> = state
            .chain(end.links.iter().map(|path| (path, false)))
            .map(|(path, is_named_once)| (format!("{JOBS_FOLDER}/{}/{path}", end.job), is_named_once))
            .collect();
        let infos = named.iter().map(|(path, _)| root.info(path));
        let infos: Vec<_> = futures::stream::iter(infos).buffered(INFOS_AT_ONCE).try_collect().await?;
        let named = named
            .iter()
            .zip(infos)
            .map(|((_, is_named_once), object)| Some(ToCopy { object: object?, is_named_once: *is_named_once }));
        let Some(objects) = named.collect::<Option<Vec<ToCopy>>>() else { return Ok(None) };
        let (copied, gone) = run.copy(root, &objects, &|_, _| {}).await?;
        if !gone.is_empty() {
            return Ok(None);
        }
        entries.extend(copied);
    }
    // Whoever takes a lane next goes on from its newest generation, also if nothing was read under that one.
    let mut jobs: Vec<&str> = ends.iter().map(|end| end.job.as_str()).collect();
    jobs.dedup();
    for job in jobs {
        let lanes = root.list(&format!("{JOBS_FOLDER}/{job}/lanes")).await?;
        let lanes: Vec<ToCopy> = lanes.into_iter().map(|object| ToCopy { object, is_named_once: false }).collect();
        let (copied, gone) = run.copy(root, &lanes, &|_, _| {}).await?;
        if !gone.is_empty() {
            return Ok(None);
        }
        entries.extend(copied);
    }
    Ok(Some(entries))
}

/// Copies the amendments up to the newest ones of the moment: their numbers may not be used again.
async fn copy_amendments(root: &ObjectRoot, run: &Run, newest: &BTreeMap<String, u64>) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for (job, newest) in newest {
        let folder = format!("{JOBS_FOLDER}/{job}/");
        let objects = root.list(&format!("{folder}{}", AMENDMENTS.trim_end_matches('/'))).await?;
        let number = |object: &ObjectInfo| Amendment::number_of(object.path.strip_prefix(&folder)?);
        let of_moment = objects.into_iter().filter(|object| number(object).is_some_and(|n| n <= *newest));
        let objects: Vec<ToCopy> = of_moment.map(|object| ToCopy { object, is_named_once: false }).collect();
        let (copied, gone) = run.copy(root, &objects, &|_, _| {}).await?;
        if let Some(path) = gone.into_iter().next() {
            let detail = "was deleted while the backup ran".to_owned();
            return Err(wattline_connect::Error::ArchiveDamaged { path, detail }.into());
        }
        entries.extend(copied);
    }
    Ok(entries)
}

/// How far the amendments are, for the tables. One whose files are gone brings nothing into the tables that lack it.
async fn pins_of_amendments(archive: &Archive, newest: &BTreeMap<String, u64>) -> Result<Vec<ChainPin>> {
    let mut pins = Vec::new();
    for (job, n) in newest {
        let amendments = Amendments::of(archive, job, Steps::default());
        let amendment = amendments.read(*n).await?;
        let (app_id, epoch) = (amendment.app_id(), i64::try_from(*n).unwrap_or(i64::MAX));
        let mut adds = BTreeMap::new();
        for (table, files) in amendment.adds {
            if amendments.are_there(&table, &files).await? {
                adds.insert(table, files.into_iter().map(add_file).collect());
            }
        }
        pins.push(ChainPin { app_id, epoch, adds });
    }
    Ok(pins)
}

impl Moment {
    /// How far the chains are, for the tables.
    pub(super) fn pins(&self) -> Vec<ChainPin> {
        let pin = |end: &ChainEnd| ChainPin {
            app_id: end.app_id(),
            epoch: i64::try_from(end.last_epoch).unwrap_or(i64::MAX),
            adds: end
                .adds
                .iter()
                .map(|(table, files)| (table.clone(), files.iter().cloned().map(add_file).collect()))
                .collect(),
        };
        self.ends.iter().map(pin).chain(self.amendments.iter().cloned()).collect()
    }

    /// The chains as the snapshot tells them.
    pub(super) fn chains(&self) -> Vec<SnapshotChain> {
        let chain = |end: &ChainEnd| SnapshotChain {
            job: end.job.clone(),
            slot: end.slot.clone(),
            incarnation: end.incarnation.clone(),
            app_id: end.app_id(),
            last_link: end.last_link,
            told: end.told,
            last_epoch: end.last_epoch,
            checkpoint: end.checkpoint,
        };
        self.ends.iter().map(chain).collect()
    }

    /// Files that wait for a table which is not there: the next start makes it, and brings them there.
    pub(super) async fn files_without_table(
        &self,
        archive: &Archive,
        tables: &BTreeSet<&String>,
    ) -> Result<Vec<ToCopy>> {
        let adds = self.ends.iter().flat_map(|end| &end.adds).filter(|(table, _)| !tables.contains(table));
        let mut files = Vec::new();
        for path in adds.flat_map(|(table, files)| files.iter().map(move |file| format!("{table}/{}", file.path))) {
            match archive.root().info(&path).await? {
                Some(object) => files.push(ToCopy { object, is_named_once: true }),
                None => {
                    let detail = "is not there, and the newest link names it".to_owned();
                    return Err(wattline_connect::Error::ArchiveDamaged { path, detail }.into());
                }
            }
        }
        Ok(files)
    }
}
