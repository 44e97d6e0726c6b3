//! Store, archive and alert sink in plain memory, with faults at a chosen operation.
//!
//! [`World`] is what survives a crash. A [`Life`] is one process: it counts its operations, and its fault says at
//! which of them something goes wrong. Sinks behave like the real ones: a table remembers the last version of each
//! application, the alert topic refuses producers older than the newest one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use wattline_core::alert::AlertRecord;
use wattline_core::error::{Kind, Retry};
use wattline_core::manifest::AddedFile;

use super::rules::longs;
use crate::alerting::payload;
use crate::port::{AlertSink, Archive, Batches, ExchangeSink, FileTag, Put, SlotMessage, Store, TableRange};
use crate::snapshot::{ChainEnd, CutChain, app_id, reincarnated};
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
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    /// Counts the operations of a life from 1.
    pub(super) at: u64,
    pub(super) kind: FaultKind,
}

/// One process.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) slot: u32,
    pub(super) number: u64,
    pub(super) world: Arc<World>,
    fault: Option<Fault>,
    operations: AtomicU64,
    dead: AtomicBool,
    pub(super) paused: AtomicBool,
    pub(super) released: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct World(Mutex<Memory>);

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
    inboxes: BTreeMap<u32, Vec<Bytes>>,
}

impl World {
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What an inbox holds from an offset on.
    pub(super) fn inbox(&self, slot: u32, from: usize) -> Vec<Bytes> {
        self.look(|memory| {
            memory.inboxes.get(&slot).map_or_else(Vec::new, |inbox| inbox[from.min(inbox.len())..].to_vec())
        })
    }

    /// Names of all objects below the folder of the job.
    pub(super) fn objects(&self) -> Vec<String> {
        self.look(|memory| memory.objects.keys().cloned().collect())
    }

    /// Another world, as this one is now.
    pub(super) fn copy(&self) -> Self {
        Self(Mutex::new(self.look(|memory| memory.clone())))
    }

    /// All rows of a table, as any reader of the committed files sees them.
    pub(super) fn rows(&self, table: &str) -> Vec<RecordBatch> {
        self.look(|memory| memory.rows(table))
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
    pub(super) fn begin(world: &Arc<World>, number: u64, fault: Option<Fault>) -> Arc<Self> {
        Self::begin_in(0, world, number, fault)
    }

    pub(super) fn begin_in(slot: u32, world: &Arc<World>, number: u64, fault: Option<Fault>) -> Arc<Self> {
        world.look(|memory| {
            let newest = memory.newest_producers.entry(slot).or_default();
            *newest = (*newest).max(number);
        });
        Arc::new(Self {
            slot,
            number,
            world: Arc::clone(world),
            fault,
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

    async fn operate<T>(&self, what: &str, effect: impl FnOnce(&mut Memory) -> Result<T>) -> Result<T> {
        let crashed = || failed("the process has crashed", Kind::Internal, Retry::Never);
        if self.is_dead() {
            return Err(crashed());
        }
        let this = self.operations.fetch_add(1, Ordering::SeqCst) + 1;
        let Some(fault) = self.fault.filter(|fault| fault.at == this) else { return self.world.look(effect) };
        match fault.kind {
            FaultKind::CrashBefore => {
                self.dead.store(true, Ordering::SeqCst);
                Err(crashed())
            }
            FaultKind::CrashAfter => {
                self.dead.store(true, Ordering::SeqCst);
                self.world.look(effect)?;
                Err(crashed())
            }
            FaultKind::AckLost => {
                self.world.look(effect)?;
                Err(failed(what, Kind::Unavailable, Retry::Backoff))
            }
            FaultKind::Unavailable => Err(failed(what, Kind::Unavailable, Retry::Backoff)),
            FaultKind::Pause => {
                self.paused.store(true, Ordering::SeqCst);
                while !self.released.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                self.world.look(effect)
            }
        }
    }
}

#[async_trait]
impl Store for Life {
    async fn put_if_absent(&self, path: &str, body: Bytes) -> Result<Put> {
        self.operate(path, |memory| {
            if memory.objects.contains_key(path) {
                return Ok(Put::Exists);
            }
            memory.objects.insert(path.to_owned(), body);
            Ok(Put::Created)
        })
        .await
    }

    async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        self.operate(path, |memory| Ok(memory.objects.get(path).cloned())).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>> {
        self.operate(folder, |memory| {
            Ok(memory.objects.keys().filter(|path| path.starts_with(folder)).cloned().collect())
        })
        .await
    }

    async fn delete(&self, path: &str) -> Result<()> {
        self.operate(path, |memory| {
            memory.objects.remove(path);
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Archive for Life {
    async fn ensure_table(&self, table: &TableSpec) -> Result<()> {
        self.operate(&table.name, |_| Ok(())).await
    }

    async fn write_files(&self, table: &str, batches: Vec<RecordBatch>, tag: &FileTag) -> Result<Vec<AddedFile>> {
        self.operate(table, |memory| {
            memory.files_written += 1;
            let path = format!("{table}/{}-{}-{}-{}", tag.chain, tag.n, tag.nonce, memory.files_written);
            let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
            memory.files.insert(path.clone(), batches);
            Ok(vec![AddedFile { path, size_bytes: 1, event_date: None, rows, stats: String::new(), modified_ms: 0 }])
        })
        .await
    }

    async fn commit(&self, table: &str, files: &[AddedFile], app_id: &str, version: u64) -> Result<()> {
        self.operate(table, |memory| {
            let commits = memory.commits.entry((table.to_owned(), app_id.to_owned())).or_default();
            if commits.last().is_none_or(|(last, _)| *last < version) {
                commits.push((version, files.iter().map(|file| file.path.clone()).collect()));
            }
            Ok(())
        })
        .await
    }

    async fn read_range(&self, range: &TableRange<'_>) -> Result<Batches> {
        let rows = self.operate(range.table, |memory| Ok(memory.rows(range.table))).await?;
        let mut batches = Vec::new();
        for batch in rows {
            let times = longs(&batch, range.time);
            let mask: BooleanArray =
                times.iter().map(|us| Some((range.between_us.0..=range.between_us.1).contains(us))).collect();
            let columns: Vec<usize> =
                range.columns.iter().map(|name| batch.schema().index_of(name).expect("a column")).collect();
            let rows = filter_record_batch(&batch, &mask).and_then(|rows| rows.project(&columns));
            batches.push(Ok(rows.expect("rows of the table")));
        }
        Ok(futures::stream::iter(batches).boxed())
    }

    async fn maintain(&self, _table: &str) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl AlertSink for Life {
    async fn publish(&self, records: &[AlertRecord], marker: &str, _n: u64) -> Result<()> {
        self.operate("alerts", |memory| {
            if self.number < memory.newest_producers[&self.slot] {
                return Err(failed("a newer producer took over", Kind::Fenced, Retry::AfterRestore));
            }
            memory.publish(records);
            memory.markers.insert(self.slot, marker.to_owned());
            Ok(())
        })
        .await
    }

    async fn publish_early(&self, records: &[AlertRecord]) -> Result<()> {
        self.operate("early alerts", |memory| {
            memory.publish(records);
            memory.told_early.extend(records.iter().map(|record| (record.id(), record.rule_id.clone())));
            Ok(())
        })
        .await
    }

    async fn last_marker(&self) -> Result<Option<String>> {
        self.operate("marker", |memory| Ok(memory.markers.get(&self.slot).cloned())).await
    }
}

/// Messages come one by one: a crash may come between two.
#[async_trait]
impl ExchangeSink for Life {
    async fn send(&self, messages: &[SlotMessage]) -> Result<()> {
        for message in messages {
            self.operate("inbox", |memory| {
                memory.inboxes.entry(message.to).or_default().push(message.payload.clone());
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}
