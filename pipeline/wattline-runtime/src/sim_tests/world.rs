//! Store, archive and alert sink in plain memory, with faults at a chosen operation.
//!
//! [`World`] is what survives a crash. A [`Life`] is one process: it counts its operations, and its faults say at
//! which of them something goes wrong. Sinks behave like the real ones: a table remembers the last version of each
//! application, the alert topic refuses producers older than the newest one. Some operations take a moment, as the seed wants.
//!
//! A world that is watched writes down each operation with all that was given to it, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use wattline_core::alert::AlertRecord;
use wattline_core::error::{Kind, Retry};
use wattline_core::manifest::AddedFile;

use super::rules::longs;
use super::script::Dice;
use super::sql_rules::with_system_names;
use super::tally::{Mishap, Tally};
use super::turns::Turns;
use crate::alerting::payload;
use crate::port::{AlertSink, Archive, Batches, ExchangeSink, FileTag, Put, SlotMessage, Store, TableRange};
use crate::snapshot::{ChainEnd, CutChain, app_id, read_slots, reincarnated, restored_link};
use crate::table::TableSpec;
use crate::{Error, Result};

/// What goes wrong at the chosen operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// The process ends before the operation takes effect.
    CrashBefore,
    /// The process ends after the operation took effect, before it hears of it.
    CrashAfter,
    /// The operation takes effect, its acknowledgement is lost; the process goes on.
    AckLost,
    /// The operation fails without effect; the process goes on.
    Unavailable,
    /// The process stops for long before the operation, then goes on.
    Pause,
    /// Of the parts of the operation only some take effect, and it fails; the process goes on. One without parts has no effect.
    Torn,
    /// The operation takes long.
    Slow,
    /// The clock of the process is set ahead, by an hour.
    ClockAhead,
    /// The clock of the process is set back, by two minutes.
    ClockBack,
}

impl FaultKind {
    pub(super) fn mishap(self) -> Mishap {
        match self {
            Self::CrashBefore => Mishap::CrashBefore,
            Self::CrashAfter => Mishap::CrashAfter,
            Self::AckLost => Mishap::AckLost,
            Self::Unavailable => Mishap::Unavailable,
            Self::Pause => Mishap::Pause,
            Self::Torn => Mishap::Torn,
            Self::Slow => Mishap::Slow,
            Self::ClockAhead => Mishap::ClockAhead,
            Self::ClockBack => Mishap::ClockBack,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    /// Counts the operations of a life from 1.
    pub(super) at: u64,
    pub(super) kind: FaultKind,
}

/// How long an operation takes that is slow.
const SLOW: Duration = Duration::from_millis(300);
const AHEAD_MS: i64 = 3_600_000;
const BACK_MS: i64 = 120_000;

/// One process.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) slot: u32,
    pub(super) number: u64,
    pub(super) world: Arc<World>,
    pub(super) faults: Vec<Fault>,
    dice: Mutex<Dice>,
    /// By how much its clock was set while it ran.
    pub(super) clock_set_ms: Arc<AtomicI64>,
    operations: AtomicU64,
    dead: AtomicBool,
    pub(super) paused: AtomicBool,
    pub(super) released: AtomicBool,
}

#[derive(Debug)]
pub(super) struct World {
    memory: Mutex<Memory>,
    pub(super) tally: Tally,
    pub(super) turns: Arc<Turns>,
    pub(super) began: Instant,
    /// What was done, if anybody wants to know.
    trace: Option<Mutex<Vec<String>>>,
}

/// Version and paths of one commit.
type Commit = (u64, Vec<String>);

#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    objects: BTreeMap<String, Bytes>,
    files: BTreeMap<String, Vec<RecordBatch>>,
    files_written: u64,
    /// By table and application: versions and their files, ascending.
    commits: BTreeMap<(String, String), Vec<Commit>>,
    /// Alert id and status word, in the order of publication.
    pub(super) published: Vec<(String, &'static str)>,
    /// Everything that was ever said under an id.
    pub(super) payloads: BTreeMap<String, BTreeSet<Vec<u8>>>,
    /// Ids that were told before their link, and the rules that they are of.
    pub(super) told_early: BTreeMap<String, String>,
    /// By slot.
    pub(super) markers: BTreeMap<u32, String>,
    newest_producers: BTreeMap<u32, u64>,
    /// What was sent to each slot, by its offset.
    pub(super) inboxes: BTreeMap<u32, Vec<Bytes>>,
}

impl World {
    /// A world in which nothing has been done.
    pub(super) fn begin(tally: &Tally, turns: &Arc<Turns>, is_watched: bool) -> Arc<Self> {
        let (tally, turns) = (tally.clone(), Arc::clone(turns));
        let trace = is_watched.then(Mutex::default);
        Arc::new(Self { memory: Mutex::default(), tally, turns, began: Instant::now(), trace })
    }

    /// How long there has been a world.
    pub(super) fn age_ms(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_millis()).expect("a young world")
    }

    /// The objects below a folder and their bytes.
    pub(super) fn objects(&self, folder: &str) -> (usize, usize) {
        self.look(|memory| {
            let below = memory.objects.iter().filter(|(path, _)| path.starts_with(folder));
            below.fold((0, 0), |(count, bytes), (_, body)| (count + 1, bytes + body.len()))
        })
    }

    /// Writes down what is done, if anybody wants to know.
    pub(super) fn note(&self, what: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            let line = format!("{:?} {}", self.began.elapsed(), what());
            trace.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }

    pub(super) fn take_trace(&self) -> Vec<String> {
        let take =
            |trace: &Mutex<Vec<String>>| std::mem::take(&mut *trace.lock().unwrap_or_else(PoisonError::into_inner));
        self.trace.as_ref().map(take).unwrap_or_default()
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T {
        look(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What an inbox holds from an offset on.
    pub(super) fn inbox(&self, slot: u32, from: usize) -> Vec<Bytes> {
        self.look(|memory| {
            memory.inboxes.get(&slot).map_or_else(Vec::new, |inbox| inbox[from.min(inbox.len())..].to_vec())
        })
    }

    /// Names of all objects below the folder of the job.
    pub(super) fn paths(&self) -> Vec<String> {
        self.look(|memory| memory.objects.keys().cloned().collect())
    }

    /// Another world, as this one is now.
    pub(super) fn copy(&self) -> Self {
        let (tally, turns) = (self.tally.clone(), Arc::clone(&self.turns));
        Self { memory: Mutex::new(self.look(|memory| memory.clone())), tally, turns, began: self.began, trace: None }
    }

    /// All rows of a table, as any reader of the committed files sees them.
    pub(super) fn rows(&self, table: &str) -> Vec<RecordBatch> {
        self.look(|memory| memory.rows(table)).into_iter().map(with_system_names).collect()
    }
}

impl Memory {
    /// As a vacuum does.
    pub(super) fn forget(&mut self, path: &str) {
        self.objects.remove(path);
    }

    /// Forgets what a backup does not have, and gives the chain another identity.
    pub(super) fn restore(&mut self, ends: &[ChainEnd], incarnation: &str) {
        let chains: Vec<CutChain> = ends.iter().map(ChainEnd::cut).collect();
        let is_copied = |path: &String| ends.iter().any(|end| end.links.contains(path) || end.objects.contains(path));
        self.objects.retain(|path, _| path.starts_with("lanes/") || is_copied(path));
        let mut files: Vec<String> =
            ends.iter().flat_map(|end| end.adds.values().flatten()).map(|file| file.path.clone()).collect();
        files.extend(self.commits.values().flatten().flat_map(|(_, paths)| paths.clone()));
        self.files.retain(|path, _| files.contains(path));
        ends.iter().for_each(|end| self.restore_chain(end, incarnation, &chains));
        let links = ends.iter().flat_map(|end| end.links.iter().map(move |path| (end, path)));
        let (mut slots, mut has_link) = (BTreeSet::new(), BTreeSet::new());
        for (end, path) in links {
            let of_link = read_slots(path, &self.objects[path]).expect("a link");
            slots.extend(of_link.known);
            if of_link.is_restored || end.checkpoint > 0 {
                has_link.insert(end.slot.clone());
            }
        }
        for slot in slots.iter().map(u32::to_string).filter(|slot| !has_link.contains(slot)) {
            let last_link = ends.iter().find(|end| end.slot == slot).map_or(0, |end| end.last_link);
            let link = restored_link("sim", (&slot, last_link), (incarnation, 0), (&slots, &chains));
            let (path, link) = link.expect("a link");
            self.objects.insert(path, link);
        }
    }

    fn restore_chain(&mut self, end: &ChainEnd, incarnation: &str, chains: &[CutChain]) {
        for path in &end.links {
            let link = reincarnated(path, &self.objects[path], incarnation, chains).expect("a link");
            self.objects.insert(path.clone(), link);
        }
        let app = app_id(&end.job, &end.slot, incarnation);
        let last = |((table, of), commits): (&(String, String), &Vec<Commit>)| {
            Some((table.clone(), commits.last().filter(|_| *of == end.app_id())?.0))
        };
        let taken: Vec<(String, u64)> = self.commits.iter().filter_map(last).collect();
        let told = taken.into_iter().map(|(table, version)| ((table, app.clone()), vec![(version, Vec::new())]));
        self.commits.extend(told);
    }

    fn publish(&mut self, records: &[AlertRecord]) {
        for record in records {
            self.published.push((record.id(), record.status.as_str()));
            self.payloads.entry(record.id()).or_default().insert(payload(record));
        }
    }

    fn rows(&self, table: &str) -> Vec<RecordBatch> {
        let mut seen = BTreeSet::new();
        let mut rows = Vec::new();
        for ((name, _), commits) in &self.commits {
            for path in commits.iter().filter(|_| name == table).flat_map(|(_, paths)| paths) {
                assert!(seen.insert(path.clone()), "file {path} of {table} was committed twice");
                rows.extend(self.files[path].iter().cloned());
            }
        }
        rows
    }
}

fn failed(what: &str, kind: Kind, retry: Retry) -> Error {
    Error::Port { what: what.to_owned(), kind, retry, source: "simulated".into() }
}

impl Life {
    pub(super) fn begin(world: &Arc<World>, number: u64, faults: impl IntoIterator<Item = Fault>) -> Arc<Self> {
        Self::begin_in(0, world, number, faults)
    }

    pub(super) fn begin_in(
        slot: u32,
        world: &Arc<World>,
        number: u64,
        faults: impl IntoIterator<Item = Fault>,
    ) -> Arc<Self> {
        world.look(|memory| {
            let newest = memory.newest_producers.entry(slot).or_default();
            *newest = (*newest).max(number);
        });
        Arc::new(Self {
            slot,
            number,
            world: Arc::clone(world),
            faults: faults.into_iter().collect(),
            dice: Mutex::new(Dice::new(world.turns.seed ^ (number << 20) ^ (u64::from(slot) << 40))),
            clock_set_ms: Arc::default(),
            operations: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            released: AtomicBool::new(false),
        })
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    /// The fault of an operation, if it has one.
    fn fault_at(&self, operation: u64) -> Option<FaultKind> {
        self.faults.iter().find(|fault| fault.at == operation).map(|fault| fault.kind)
    }

    /// Sometimes an operation takes a moment: others go on meanwhile.
    async fn dally(&self) {
        let moments = self.dice.lock().unwrap_or_else(PoisonError::into_inner).below(24);
        if (1..=3).contains(&moments) {
            tokio::time::sleep(Duration::from_millis(moments)).await;
        }
    }

    fn set_clock(&self, by_ms: i64) {
        self.clock_set_ms.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// An operation that has no parts.
    async fn operate<T>(
        &self,
        what: &str,
        given: impl FnOnce() -> String,
        effect: impl FnOnce(&mut Memory) -> Result<T>,
    ) -> Result<T> {
        self.operate_in_parts(what, given, |memory, torn| if torn { Ok(None) } else { effect(memory).map(Some) }).await
    }

    /// An operation of which a part may take effect: told to be torn, it has that part only, if it has parts, and gives nothing.
    async fn operate_in_parts<T>(
        &self,
        what: &str,
        given: impl FnOnce() -> String,
        effect: impl FnOnce(&mut Memory, bool) -> Result<Option<T>>,
    ) -> Result<T> {
        let crashed = || failed("the process has crashed", Kind::Internal, Retry::Never);
        if self.is_dead() {
            return Err(crashed());
        }
        let this = self.operations.fetch_add(1, Ordering::SeqCst) + 1;
        let fault = self.fault_at(this);
        let (slot, life) = (self.slot, self.number);
        self.world.note(|| format!("slot {slot} life {life} operation {this} {fault:?} {what} {}", given()));
        // Which operation has parts is known where it is done.
        let counted = fault.iter().filter(|kind| **kind != FaultKind::Torn);
        counted.for_each(|kind| self.world.tally.count(kind.mishap()));
        let effect = |memory: &mut Memory| effect(memory, fault == Some(FaultKind::Torn));
        match fault {
            Some(FaultKind::CrashBefore) => {
                self.dead.store(true, Ordering::SeqCst);
                return Err(crashed());
            }
            Some(FaultKind::CrashAfter) => {
                self.dead.store(true, Ordering::SeqCst);
                self.world.look(effect)?;
                return Err(crashed());
            }
            Some(FaultKind::AckLost) => {
                self.world.look(effect)?;
                return Err(failed(what, Kind::Unavailable, Retry::Backoff));
            }
            Some(FaultKind::Unavailable) => return Err(failed(what, Kind::Unavailable, Retry::Backoff)),
            Some(FaultKind::Torn) => {
                self.world.look(effect)?;
                return Err(failed(what, Kind::Unavailable, Retry::Backoff));
            }
            Some(FaultKind::Slow) => tokio::time::sleep(SLOW).await,
            Some(FaultKind::ClockAhead) => self.set_clock(AHEAD_MS),
            Some(FaultKind::ClockBack) => self.set_clock(-BACK_MS),
            Some(FaultKind::Pause) => {
                self.paused.store(true, Ordering::SeqCst);
                while !self.released.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            None => self.dally().await,
        }
        let done = self.world.look(effect)?;
        self.dally().await;
        Ok(done.expect("the whole of it"))
    }
}

fn bytes_given(body: &[u8]) -> String {
    let hash = Sha256::digest(body);
    let shown = String::from_utf8_lossy(body);
    let shown: String = shown.chars().take_while(|c| !c.is_control()).take(4_000).collect();
    format!("{} bytes {:02x}{:02x}{:02x}{:02x} {shown}", body.len(), hash[0], hash[1], hash[2], hash[3])
}

fn rows_given(batches: &[RecordBatch]) -> String {
    let named: Vec<_> = batches.iter().map(|batch| (String::new(), batch.clone())).collect();
    bytes_given(&crate::frames::write(&named).expect("rows"))
}

fn alerts_given(records: &[AlertRecord]) -> String {
    records.iter().map(|record| format!("{} {} ", record.id(), record.status.as_str())).collect()
}

#[async_trait]
impl Store for Life {
    async fn put_if_absent(&self, path: &str, body: Bytes) -> Result<Put> {
        let given = body.clone();
        self.operate(
            &format!("put {path}"),
            || bytes_given(&given),
            |memory| {
                if memory.objects.contains_key(path) {
                    return Ok(Put::Exists);
                }
                memory.objects.insert(path.to_owned(), body);
                Ok(Put::Created)
            },
        )
        .await
    }

    async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        self.operate(&format!("get {path}"), String::new, |memory| Ok(memory.objects.get(path).cloned())).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>> {
        self.operate(&format!("list {folder}"), String::new, |memory| {
            Ok(memory.objects.keys().filter(|path| path.starts_with(folder)).cloned().collect())
        })
        .await
    }

    async fn delete(&self, path: &str) -> Result<()> {
        self.operate(&format!("delete {path}"), String::new, |memory| {
            let was_there = memory.objects.remove(path).is_some();
            if was_there && path.starts_with("chains/") {
                self.world.tally.count(Mishap::Retention);
            }
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Archive for Life {
    async fn ensure_table(&self, table: &TableSpec) -> Result<()> {
        self.operate(&format!("prepare {}", table.name), String::new, |_| Ok(())).await
    }

    async fn write_files(&self, table: &str, batches: Vec<RecordBatch>, tag: &FileTag) -> Result<Vec<AddedFile>> {
        let what = format!("write {table} {tag:?}");
        self.operate_in_parts(
            &what,
            || rows_given(&batches),
            |memory, torn| {
                // What was written before it failed is a file that nothing names.
                memory.files_written += 1;
                if torn {
                    self.world.tally.count(Mishap::Torn);
                }
                let path = format!("{table}/{}-{}-{}-{}", tag.chain, tag.n, tag.nonce, memory.files_written);
                let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
                memory.files.insert(path.clone(), batches.clone());
                let added =
                    AddedFile { path, size_bytes: 1, event_date: None, rows, stats: String::new(), modified_ms: 0 };
                Ok((!torn).then(|| vec![added]))
            },
        )
        .await
    }

    async fn commit(&self, table: &str, files: &[AddedFile], app_id: &str, version: u64) -> Result<()> {
        let paths = || files.iter().map(|file| format!("{} ", file.path)).collect();
        self.operate(&format!("commit {table} {app_id} {version}"), paths, |memory| {
            let commits = memory.commits.entry((table.to_owned(), app_id.to_owned())).or_default();
            if commits.last().is_none_or(|(last, _)| *last < version) {
                commits.push((version, files.iter().map(|file| file.path.clone()).collect()));
            }
            Ok(())
        })
        .await
    }

    async fn read_range(&self, range: &TableRange<'_>) -> Result<Batches> {
        let what = format!("read {} {:?}", range.table, range.between_us);
        let rows = self.operate(&what, String::new, |memory| Ok(memory.rows(range.table))).await?;
        let mut batches = Vec::new();
        for batch in rows {
            let times = longs(&batch, range.time);
            if !times.iter().any(|us| (range.between_us.0..=range.between_us.1).contains(us)) {
                continue;
            }
            let mask: BooleanArray =
                times.iter().map(|us| Some((range.between_us.0..=range.between_us.1).contains(us))).collect();
            let columns: Vec<usize> =
                range.columns.iter().map(|name| batch.schema().index_of(name).expect("a column")).collect();
            let rows = filter_record_batch(&batch, &mask).and_then(|rows| rows.project(&columns));
            batches.push(Ok(rows.expect("rows of the table")));
        }
        // To read takes time: a rule that is given its past is interrupted by ticks.
        let read = |batch| async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            batch
        };
        Ok(futures::stream::iter(batches).then(read).boxed())
    }

    async fn maintain(&self, _table: &str) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl AlertSink for Life {
    async fn publish(&self, records: &[AlertRecord], marker: &str, _n: u64) -> Result<()> {
        self.operate(
            &format!("publish {marker}"),
            || alerts_given(records),
            |memory| {
                if self.number < memory.newest_producers[&self.slot] {
                    return Err(failed("a newer producer took over", Kind::Fenced, Retry::AfterRestore));
                }
                memory.publish(records);
                memory.markers.insert(self.slot, marker.to_owned());
                Ok(())
            },
        )
        .await
    }

    async fn publish_early(&self, records: &[AlertRecord]) -> Result<()> {
        self.operate(
            "publish early",
            || alerts_given(records),
            |memory| {
                self.world.tally.count(Mishap::ToldEarly);
                memory.publish(records);
                memory.told_early.extend(records.iter().map(|record| (record.id(), record.rule_id.clone())));
                Ok(())
            },
        )
        .await
    }

    async fn last_marker(&self) -> Result<Option<String>> {
        self.operate("ask for the marker", String::new, |memory| Ok(memory.markers.get(&self.slot).cloned())).await
    }
}

/// Messages come one by one: a crash may come between two.
#[async_trait]
impl ExchangeSink for Life {
    async fn send(&self, messages: &[SlotMessage]) -> Result<()> {
        for message in messages {
            self.operate(
                &format!("send to {}", message.to),
                || bytes_given(&message.payload),
                |memory| {
                    memory.inboxes.entry(message.to).or_default().push(message.payload.clone());
                    Ok(())
                },
            )
            .await?;
        }
        Ok(())
    }
}
