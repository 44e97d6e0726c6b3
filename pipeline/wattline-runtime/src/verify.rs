//! Whether what a chain says is true: its links among each other, and the objects that the next start needs.
//!
//! Reads only, and may do so beside the job that owns the chain. That one deletes links and objects which it needs no more, the
//! objects of a checkpoint with the next one. So objects are looked for by a fresh look at the end of the chain only, and what is
//! gone then is a loss if the end of the chain still names it.
//!
//! Judgement is in [`wattline_core::chain_check`]; this file reads for it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::StreamExt;
use wattline_core::alert::AlertState;
use wattline_core::chain::is_left_of_old_links;
use wattline_core::chain_check::{ChainCheck, NamedFile, chain_place};
use wattline_core::gap::Gap;
use wattline_core::manifest::{Body, Epoch, FORMAT, Manifest};
use wattline_core::problem::{Advice, Problem, Problems};
use wattline_core::record::LaneId;

use crate::commit::app_id;
use crate::coordinator::read_messages;
use crate::error::{Error, Result};
use crate::frames;
use crate::links::newest_number;
use crate::port::Store;
use crate::recovery::{format_of, link_numbers, parse_manifest};

/// Links that are read at the same time: a read mostly waits for the network.
const LINKS_AT_ONCE: usize = 16;
/// How often the end of a chain is read that moves on meanwhile.
const LOOKS_MAX: u32 = 20;
/// Links at the end of a chain among which an epoch is looked for: the others are seals of processes that committed nothing.
const END_MAX: u64 = 1_000;

const UNREADABLE: Advice = Advice {
    means: "what this link committed cannot be told any more; a start that needs it is refused",
    action: "restore the archive as a whole from a backup; else go on with a new job name and an archive of its own",
};
const OBJECT_GONE: Advice = Advice {
    means: "the job does not start: it does not find the state, the alerts or the waiting rows that it committed",
    action: "restore the archive as a whole from a backup; else go on with a new job name and an archive of its own",
};

/// What a chain says, and what is wrong with it.
#[derive(Debug, Clone)]
pub struct ChainReport {
    /// The job.
    pub job: String,
    /// The slot.
    pub slot: String,
    /// Its application id in Delta transactions, if any link could be read.
    pub app_id: Option<String>,
    /// Links that there are.
    pub links: usize,
    /// Number of the first of them, 0 if there is none.
    pub first_link: u64,
    /// Number of the last of them, 0 if there is none.
    pub last_link: u64,
    /// The newest epoch.
    pub newest: Option<Manifest>,
    /// The format of its links, if it is not the one that this version reads. Then nothing is known of it.
    pub other_format: Option<u32>,
    /// The objects that the next start needs, from the checkpoint on, as far as they were asked for.
    pub objects: Vec<String>,
    /// Files that the links add, by table.
    pub adds: BTreeMap<String, Vec<NamedFile>>,
    /// Offsets that the links say are gone.
    pub gaps: BTreeMap<LaneId, Vec<Gap>>,
    /// What could not be judged.
    pub notes: Vec<String>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// Reads all links of a chain and says what is wrong with them. The objects that they name are left to [`check_chain`].
///
/// # Errors
/// If the store does not answer. A link that cannot be read is a problem of the chain and no error.
pub async fn read_chain(store: &dyn Store, job: &str, slot: &str) -> Result<ChainReport> {
    // Before all links are listed: whatever is deleted meanwhile lies before it.
    let checkpoint = newest_epoch(store, slot).await?.and_then(|newest| Some(newest.epoch()?.checkpoint));
    let numbers = link_numbers(store, slot).await?;
    let mut reading = Reading::new(job, slot, checkpoint.unwrap_or_default());
    let links = futures::stream::iter(numbers).map(move |n| async move { (n, read_link(store, slot, n).await) });
    let mut links = std::pin::pin!(links.buffered(LINKS_AT_ONCE));
    while let Some((n, link)) = links.next().await {
        if reading.is_behind_strays(n) {
            reading.begin_anew(reading.strays + reading.report.links);
        }
        match link? {
            Link::Read(manifest) => reading.take(n, *manifest),
            Link::Unreadable(error) => reading.take_unreadable(n, &error),
            Link::OtherFormat(format) => reading.take_other_format(n, format),
            // The job has just deleted it, and all links before it: now the chain begins behind it.
            Link::Gone => reading.begin_anew(reading.strays),
        }
    }
    Ok(reading.finish())
}

/// As [`read_chain`], and reads the objects that the next start needs.
///
/// # Errors
/// As for [`read_chain`].
pub async fn check_chain(store: &dyn Store, job: &str, slot: &str) -> Result<ChainReport> {
    let mut report = read_chain(store, job, slot).await?;
    let mut problems = Problems::of(chain_place(job, slot));
    // What the links said may long be out of date: they are many.
    let mut needed = needed_objects(store, slot).await?;
    let mut told = BTreeSet::new();
    for look in 1..=LOOKS_MAX {
        let mut gone = BTreeSet::new();
        // The last ones are replaced with each checkpoint, the first ones seldom.
        for path in needed.iter().rev().filter(|path| !told.contains(*path)).cloned().collect::<Vec<_>>() {
            let Some(body) = store.get(&path).await? else {
                gone.insert(path);
                continue;
            };
            if let Err(error) = read_object(&path, &body) {
                problems.add(error.to_string(), OBJECT_GONE);
            }
            told.insert(path);
        }
        if gone.is_empty() {
            break;
        }
        // A job that runs deletes what its newest checkpoint does not name. What that one does name is lost.
        needed = needed_objects(store, slot).await?;
        for path in needed.iter().filter(|path| gone.contains(*path)) {
            problems.add(format!("object `{path}` is not there"), OBJECT_GONE);
            told.insert(path.clone());
        }
        if look == LOOKS_MAX && needed.iter().any(|path| !told.contains(path)) {
            report.notes.push(format!(
                "{}: not all objects were read, as the job replaces them faster than that",
                chain_place(job, slot)
            ));
        }
    }
    report.objects = needed;
    report.problems.extend(problems.finish());
    Ok(report)
}

/// The objects that a start from the end of the chain needs, from its newest checkpoint on. Reads no link before that.
async fn needed_objects(store: &dyn Store, slot: &str) -> Result<Vec<String>> {
    let mut looks = 0;
    'look: loop {
        looks += 1;
        let (mut newest_first, mut checkpoint) = (Vec::new(), 0);
        for n in (1..=newest_number(store, slot).await?).rev() {
            if n < checkpoint {
                break;
            }
            match read_link(store, slot, n).await? {
                Link::Read(manifest) => {
                    let Body::Epoch(epoch) = manifest.body else { continue };
                    if newest_first.is_empty() {
                        checkpoint = epoch.checkpoint;
                    }
                    newest_first.push((n, epoch));
                }
                Link::OtherFormat(_) => break,
                Link::Gone if looks < LOOKS_MAX => continue 'look,
                // It is lost; without a checkpoint nobody knows how far back there are others.
                Link::Gone if checkpoint == 0 => break,
                Link::Unreadable(_) | Link::Gone => {}
            }
        }
        let mut objects = Vec::new();
        for (n, epoch) in newest_first.into_iter().rev() {
            note_objects(&mut objects, n, &epoch);
        }
        return Ok(objects);
    }
}

/// The newest epoch of a chain that can be read.
///
/// # Errors
/// If the store does not answer.
pub async fn newest_epoch(store: &dyn Store, slot: &str) -> Result<Option<Manifest>> {
    let newest = newest_number(store, slot).await?;
    for n in (newest.saturating_sub(END_MAX) + 1..=newest).rev() {
        match read_link(store, slot, n).await? {
            Link::Read(manifest) if manifest.epoch().is_some() => return Ok(Some(*manifest)),
            // So are those before it.
            Link::OtherFormat(_) => break,
            Link::Read(_) | Link::Unreadable(_) | Link::Gone => {}
        }
    }
    Ok(None)
}

/// What became of reading a link.
enum Link {
    Read(Box<Manifest>),
    Unreadable(Error),
    /// Another version of wattline wrote it.
    OtherFormat(u32),
    Gone,
}

async fn read_link(store: &dyn Store, slot: &str, n: u64) -> Result<Link> {
    let path = Manifest::path(slot, n);
    let Some(body) = store.get(&path).await? else { return Ok(Link::Gone) };
    if let Some(format) = format_of(&body).filter(|format| *format != FORMAT) {
        return Ok(Link::OtherFormat(format));
    }
    Ok(match parse_manifest(&path, &body) {
        Ok(manifest) => Link::Read(Box::new(manifest)),
        Err(error) => Link::Unreadable(error),
    })
}

/// Reads an object as a start would.
fn read_object(path: &str, body: &Bytes) -> Result<()> {
    if path.starts_with("alert-state/") {
        let states: Result<Vec<AlertState>, _> = serde_json::from_slice(body);
        return states.map(drop).map_err(|e| Error::BadObject { path: path.to_owned(), reason: e.to_string() });
    }
    if path.starts_with(OUTBOX) {
        return read_messages(path, body).map(drop);
    }
    frames::read(path, body).map(drop)
}

/// A chain that is being read, link by link.
struct Reading {
    /// The newest one: old links were deleted before it.
    checkpoint: u64,
    /// Links that are left of old ones, and no part of the chain any more.
    strays: usize,
    check: ChainCheck,
    unreadable: Problems,
    report: ChainReport,
}

impl Reading {
    fn new(job: &str, slot: &str, checkpoint: u64) -> Self {
        Self {
            checkpoint,
            strays: 0,
            check: ChainCheck::new(job, slot),
            unreadable: Problems::of(chain_place(job, slot)),
            report: ChainReport {
                job: job.to_owned(),
                slot: slot.to_owned(),
                app_id: None,
                links: 0,
                first_link: 0,
                last_link: 0,
                newest: None,
                other_format: None,
                objects: Vec::new(),
                adds: BTreeMap::new(),
                gaps: BTreeMap::new(),
                notes: Vec::new(),
                problems: Vec::new(),
            },
        }
    }

    /// Whether all links so far are left of old ones, and the chain begins with this one. The first link of all is deleted by itself and
    /// before any other: where it is, none was.
    fn is_behind_strays(&self, n: u64) -> bool {
        let (before, is_gap) = (self.strays + self.report.links, n > self.report.last_link + 1);
        let may_be_old = self.strays > 0 || self.report.first_link > 1;
        self.report.links > 0 && may_be_old && is_gap && is_left_of_old_links(before, n, self.checkpoint)
    }

    /// What was read so far is no part of the chain; `strays` of it are still there.
    fn begin_anew(&mut self, strays: usize) {
        *self = Self { strays, ..Self::new(&self.report.job, &self.report.slot, self.checkpoint) };
    }

    fn count(&mut self, n: u64) {
        if self.report.links == 0 {
            self.report.first_link = n;
        }
        self.report.links += 1;
        self.report.last_link = n;
    }

    fn take_unreadable(&mut self, n: u64, error: &Error) {
        self.count(n);
        self.unreadable.add(error.to_string(), UNREADABLE);
        self.check.take(n, None);
    }

    fn take_other_format(&mut self, n: u64, format: u32) {
        self.count(n);
        self.report.other_format = Some(format);
    }

    fn take(&mut self, n: u64, manifest: Manifest) {
        self.count(n);
        self.check.take(n, Some(&manifest));
        let report = &mut self.report;
        report.app_id.get_or_insert_with(|| app_id(&report.job, &report.slot, &manifest.incarnation));
        let Some(epoch) = manifest.epoch() else { return };
        for (table, files) in &epoch.adds {
            let named = |path: &String| NamedFile { n, created_ms: manifest.created_ms, path: path.clone() };
            report.adds.entry(table.clone()).or_default().extend(files.iter().map(|file| named(&file.path)));
        }
        for section in epoch.lanes.iter().filter(|section| !section.gaps.is_empty()) {
            report.gaps.entry(section.lane.clone()).or_default().extend(&section.gaps);
        }
        report.newest = Some(manifest);
    }

    fn finish(mut self) -> ChainReport {
        self.report.problems = self.unreadable.finish();
        self.report.problems.extend(self.check.finish());
        if self.strays > 0 {
            let place = chain_place(&self.report.job, &self.report.slot);
            self.report.notes.push(format!("{place}: old links before the first one: {}, not judged", self.strays));
        }
        if let Some(format) = self.report.other_format {
            let place = chain_place(&self.report.job, &self.report.slot);
            self.report.notes.push(format!("{place}: format {format}, this version reads {FORMAT}: not judged"));
        }
        self.report
    }
}

/// Where the messages of links are.
const OUTBOX: &str = "outbox/";

/// A checkpoint needs its own objects only; an epoch after it adds the rows that it published.
pub(crate) fn note_objects(objects: &mut Vec<String>, n: u64, epoch: &Epoch) {
    if epoch.checkpoint == n {
        objects.clear();
        objects.extend(epoch.state_objects.iter().chain(&epoch.stage_objects).cloned());
        objects.extend(epoch.alert_state_object.clone());
    }
    objects.extend(epoch.rows_object.clone());
    // What a link tells was sent before the next one was put.
    objects.retain(|path| !path.starts_with(OUTBOX));
    objects.extend(epoch.exchange.iter().flat_map(|of| of.outbox.clone()));
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use arrow::array::{Int64Array, RecordBatch};
    use async_trait::async_trait;
    use bytes::Bytes;

    use super::*;
    use crate::port::Put;

    const STATE: &str = "state/0/2-me.0.frames";
    const ROWS: &str = "rows/0/3-me.frames";
    const ALERTS: &str = "alert-state/0/2-me.json";

    /// Objects in memory.
    #[derive(Debug, Default)]
    struct Objects {
        objects: Mutex<BTreeMap<String, Bytes>>,
        /// Checkpoints that a job still commits, each just before somebody reads the state of the alerts.
        moves: Mutex<u32>,
    }

    #[async_trait]
    impl Store for Objects {
        async fn put_if_absent(&self, path: &str, body: Bytes) -> Result<Put> {
            self.objects.lock().expect("no panic").insert(path.to_owned(), body);
            Ok(Put::Created)
        }

        async fn get(&self, path: &str) -> Result<Option<Bytes>> {
            let moves = *self.moves.lock().expect("no panic");
            if path.starts_with("alert-state/") && moves > 0 {
                *self.moves.lock().expect("no panic") -= 1;
                self.move_on(path);
            }
            Ok(self.objects.lock().expect("no panic").get(path).cloned())
        }

        async fn list(&self, folder: &str) -> Result<Vec<String>> {
            let names = self.objects.lock().expect("no panic").keys().cloned().collect::<Vec<_>>();
            Ok(names.into_iter().filter(|name| name.starts_with(folder)).collect())
        }

        async fn delete(&self, path: &str) -> Result<()> {
            self.objects.lock().expect("no panic").remove(path);
            Ok(())
        }
    }

    impl Objects {
        /// A checkpoint that puts another object in the place of that one.
        fn move_on(&self, alerts: &str) {
            let links =
                self.objects.lock().expect("no panic").keys().filter(|path| path.starts_with("chains/")).count();
            let n = links as u64 + 1;
            let next = format!("alert-state/0/{n}-me.json");
            let state_objects = vec![STATE.to_owned()];
            self.put(&next, "[]");
            self.link(
                n,
                Epoch { checkpoint: n, state_objects, alert_state_object: Some(next.clone()), ..Epoch::default() },
            );
            self.objects.lock().expect("no panic").retain(|path, _| path != alerts && path != ROWS);
        }

        fn link(&self, n: u64, epoch: Epoch) {
            let manifest = Manifest {
                format: FORMAT,
                job: "j".into(),
                chain: "0".into(),
                incarnation: "i".into(),
                n,
                nonce: "me".into(),
                created_ms: 0,
                body: Body::Epoch(Box::new(epoch)),
            };
            self.put(&Manifest::path("0", n), serde_json::to_vec(&manifest).expect("a manifest"));
        }

        fn put(&self, path: &str, body: impl Into<Bytes>) {
            self.objects.lock().expect("no panic").insert(path.to_owned(), body.into());
        }

        /// Takes an object out and puts in its place what is made of it; gives what the check says then.
        async fn told_with(&self, path: &str, damage: impl FnOnce(&Bytes) -> Option<Bytes>) -> String {
            let whole = self.get(path).await.expect("an answer").expect("the object");
            match damage(&whole) {
                Some(damaged) => self.put(path, damaged),
                None => self.delete(path).await.expect("an answer"),
            }
            let report = check_chain(self, "j", "0").await.expect("an answer");
            self.put(path, whole);
            report.problems.iter().map(|problem| format!("{}: {}\n", problem.place, problem.what)).collect()
        }
    }

    /// A checkpoint, and a tick after it with rows; before them a link that was a checkpoint too.
    fn chain() -> Objects {
        let objects = Objects::default();
        let link = |n: u64, epoch: Epoch| objects.link(n, epoch);
        // What it names was deleted when the next checkpoint was there.
        link(1, Epoch { checkpoint: 1, state_objects: vec!["state/0/1-me.0.frames".into()], ..Epoch::default() });
        link(
            2,
            Epoch {
                checkpoint: 2,
                state_objects: vec![STATE.into()],
                alert_state_object: Some(ALERTS.into()),
                ..Epoch::default()
            },
        );
        link(3, Epoch { checkpoint: 2, rows_object: Some(ROWS.into()), ..Epoch::default() });
        let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1, 2])) as _)]).expect("batch");
        let frames = frames::write(&[("a".to_owned(), batch)]).expect("frames");
        objects.put(STATE, frames.clone());
        objects.put(ROWS, frames);
        objects.put(ALERTS, "[]");
        objects
    }

    #[tokio::test]
    async fn a_chain_is_read_with_what_its_next_start_needs() {
        let objects = chain();
        let report = check_chain(&objects, "j", "0").await.expect("an answer");
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        assert_eq!((report.links, report.first_link, report.last_link), (3, 1, 3));
        assert_eq!(report.objects, [STATE, ALERTS, ROWS]);
        assert_eq!(report.app_id.as_deref(), Some("wattline/j/0/i"));
        let newest = newest_epoch(&objects, "0").await.expect("an answer").expect("an epoch");
        assert_eq!(newest.n, 3);
        let nothing = check_chain(&objects, "j", "1").await.expect("an answer");
        assert_eq!((nothing.links, nothing.problems.len()), (0, 0));
    }

    #[tokio::test]
    async fn damage_is_told_by_the_name_of_the_object() {
        let objects = chain();
        for path in [STATE, ROWS, ALERTS] {
            let cut = objects.told_with(path, |whole| Some(whole.slice(..whole.len() - 1))).await;
            assert!(cut.contains("chain `j/0`") && cut.contains(path) && cut.contains("is damaged"), "{path}: {cut}");
            let gone = objects.told_with(path, |_| None).await;
            assert!(gone.contains(path) && gone.contains("is not there"), "{path}: {gone}");
        }
        let link = Manifest::path("0", 3);
        let cut = objects.told_with(&link, |whole| Some(whole.slice(..whole.len() / 2))).await;
        assert!(cut.contains(&link) && cut.contains("cannot be read"), "{cut}");
        let gone = objects.told_with(&Manifest::path("0", 2), |_| None).await;
        assert!(gone.contains("link 2 is missing") && gone.contains("builds on 2, which is no checkpoint"), "{gone}");
        assert_eq!(objects.told_with(&link, |whole| Some(whole.clone())).await, "");
    }

    #[tokio::test]
    async fn what_is_left_of_old_links_is_no_damage() {
        let objects = Objects::default();
        let checkpoint_of = |n: u64| if n < 40 { 30 } else { 40 };
        for n in [21, 23].into_iter().chain(30..=42) {
            let state_objects = if n >= 40 { vec![STATE.into()] } else { Vec::new() };
            objects.link(n, Epoch { checkpoint: checkpoint_of(n), state_objects, ..Epoch::default() });
        }
        objects.put(STATE, frames::write(&[]).expect("frames"));
        let report = check_chain(&objects, "j", "0").await.expect("an answer");
        assert!(report.problems.is_empty(), "{report:?}");
        assert_eq!((report.links, report.first_link, report.last_link), (13, 30, 42));
        assert_eq!(report.notes, ["chain `j/0`: old links before the first one: 2, not judged"]);
        // A start needs what lies behind the checkpoint.
        let gone = objects.told_with(&Manifest::path("0", 41), |_| None).await;
        assert!(gone.contains("link 41 is missing"), "{gone}");
    }

    #[tokio::test]
    async fn a_chain_that_moves_on_meanwhile_is_looked_at_again() {
        let objects = chain();
        *objects.moves.lock().expect("no panic") = 7;
        let report = check_chain(&objects, "j", "0").await.expect("an answer");
        assert!(report.problems.is_empty() && report.notes.is_empty(), "{report:?}");
        assert_eq!(report.objects, [STATE, "alert-state/0/10-me.json"]);
        *objects.moves.lock().expect("no panic") = u32::MAX;
        let report = check_chain(&objects, "j", "0").await.expect("an answer");
        assert!(report.problems.is_empty() && report.notes.len() == 1, "{report:?}");
        // Objects that are lost are lost, however fast the chain moves on.
        objects.delete(STATE).await.expect("an answer");
        let report = check_chain(&objects, "j", "0").await.expect("an answer");
        assert_eq!(report.problems.len(), 1, "{report:?}");
        assert!(report.problems[0].what.contains(STATE), "{report:?}");
    }

    #[tokio::test]
    async fn links_of_another_format_are_noted_and_not_judged() {
        let objects = Objects::default();
        for n in [1, 3] {
            objects.put(&Manifest::path("0", n), format!("{{\"format\":{}}}", FORMAT - 1));
        }
        let report = check_chain(&objects, "j", "0").await.expect("an answer");
        assert!(report.problems.is_empty() && report.objects.is_empty(), "{report:?}");
        assert_eq!((report.links, report.other_format), (2, Some(FORMAT - 1)));
        let note = format!("chain `j/0`: format {}, this version reads {FORMAT}: not judged", FORMAT - 1);
        assert_eq!(report.notes, [note]);
        assert!(newest_epoch(&objects, "0").await.expect("an answer").is_none());
    }
}
