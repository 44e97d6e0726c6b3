//! A process that dies at a named moment of a commit or of a recovery, to show that the next one goes on from there.
//!
//! Every call to the store, the tables, the alert topic and the inboxes of slots that makes, or reads, what the next process goes on from is a step, with a moment
//! before it and one after it: `manifest-of-tick.before`, `delta-commit.after`. With `run --crash-at manifest-of-tick.after#3` the process is gone when it
//! is there for the third time, as if its power had failed: nothing is flushed and nothing is closed. With `--moments FILE` a run writes
//! down the moments that it comes to, so that a test can go through all of them and learns of new ones by itself. With `--pace MS` the sources
//! rest after whatever they bring, so that little input makes many links. With `--clock-offset FILE` the clock of the process can be set while it
//! runs, see [`super::set_clock`].
//!
//! Only debug builds have this.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::future::Future;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use clap::Args;
use wattline_connect::kafka::alerts::{OnPublishStep, PublishStep};
use wattline_core::alert::AlertRecord;
use wattline_core::manifest::{AddedFile, Manifest};
use wattline_core::record::{LaneId, RecordBlock};
use wattline_runtime::clock::{Clock, SystemClock};
use wattline_runtime::port::{
    AlertSink, Archive, Batches, ExchangeSink, FileTag, Position, Put, SlotMessage, Source, SourceEvent, Store,
    TableRange,
};
use wattline_runtime::table::TableSpec;
use wattline_runtime::{ExchangePlan, Job, Result};

use super::set_clock::SetClock;

/// At which moment to die, and where to write the moments down.
#[derive(Debug, Clone, Args)]
pub(crate) struct CrashArgs {
    /// `<step>.<before|after>#<how often it is come to>`.
    #[arg(long, hide = true, value_parser = parse_moment)]
    crash_at: Option<Moment>,
    #[arg(long, hide = true)]
    moments: Option<PathBuf>,
    #[arg(long, hide = true)]
    pace: Option<u64>,
    #[arg(long, hide = true)]
    clock_offset: Option<PathBuf>,
}

/// A moment by name, and for which time.
type Moment = (String, u32);

fn parse_moment(text: &str) -> std::result::Result<Moment, String> {
    let (name, time) = text.split_once('#').unwrap_or((text, "1"));
    let time = time.parse().map_err(|_error| format!("`{time}` is no count"))?;
    Ok((name.to_owned(), time))
}

/// The moments of a run.
#[derive(Debug)]
pub(crate) struct CrashPoints {
    crash_at: Option<Moment>,
    told: Option<Mutex<File>>,
    times: Mutex<BTreeMap<String, u32>>,
    pace: Option<Duration>,
    clock_offset: Option<PathBuf>,
}

impl CrashPoints {
    /// # Errors
    /// If the moments cannot be written down.
    pub(crate) fn of(args: &CrashArgs) -> anyhow::Result<Arc<Self>> {
        let open = |path: &PathBuf| File::create(path).with_context(|| format!("cannot write `{}`", path.display()));
        let told = args.moments.as_ref().map(open).transpose()?.map(Mutex::new);
        let pace = args.pace.map(Duration::from_millis);
        Ok(Arc::new(Self {
            crash_at: args.crash_at.clone(),
            told,
            times: Mutex::default(),
            pace,
            clock_offset: args.clock_offset.clone(),
        }))
    }

    /// The clock that the job goes by.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        match &self.clock_offset {
            Some(file) => Arc::new(SetClock::by(file.clone())),
            None => Arc::new(SystemClock),
        }
    }

    /// Lets a job go by way of the moments.
    pub(crate) fn around(self: &Arc<Self>, job: Job) -> Job {
        let paced = |of: Box<dyn Source>| -> Box<dyn Source> {
            match self.pace {
                Some(rest) => Box::new(Paced { of, rest, paused: false, lanes: VecDeque::new() }),
                None => of,
            }
        };
        Job {
            sources: job.sources.into_iter().map(paced).collect(),
            store: Arc::new(Steps { of: job.store, points: Arc::clone(self) }),
            archive: Arc::new(Steps { of: job.archive, points: Arc::clone(self) }),
            alert_sink: job.alert_sink.map(|of| Arc::new(Steps { of, points: Arc::clone(self) }) as Arc<dyn AlertSink>),
            exchange: job.exchange.map(|plan| self.around_exchange(plan)),
            ..job
        }
    }

    fn around_exchange(self: &Arc<Self>, plan: ExchangePlan) -> ExchangePlan {
        let of = Arc::clone(&plan.sink);
        ExchangePlan { sink: Arc::new(Steps { of, points: Arc::clone(self) }), ..plan }
    }

    /// For the moments within a transaction of alerts.
    pub(crate) fn on_publish_step(self: &Arc<Self>) -> OnPublishStep {
        let points = Arc::clone(self);
        OnPublishStep::new(move |step| {
            points.come_to(match step {
                PublishStep::Begun => "alert-transaction.begun",
                PublishStep::Sent => "alert-transaction.sent",
                PublishStep::Marked => "alert-transaction.marked",
            });
        })
    }

    #[expect(clippy::disallowed_methods, reason = "the process is to vanish without any word")]
    pub(crate) fn come_to(&self, moment: &str) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let time = times.entry(moment.to_owned()).or_default();
        *time += 1;
        if let Some(told) = &self.told {
            let written = writeln!(told.lock().unwrap_or_else(PoisonError::into_inner), "{moment}#{time}");
            written.expect("the file of the moments takes a line");
        }
        if self.crash_at.as_ref().is_some_and(|(name, at)| name == moment && at == time) {
            std::process::abort();
        }
    }

    async fn around_step<T>(&self, step: &str, call: impl Future<Output = T>) -> T {
        self.come_to(&format!("{step}.before"));
        let done = call.await;
        self.come_to(&format!("{step}.after"));
        done
    }
}

/// Records that a slow source brings at once.
const RECORDS_AT_ONCE: usize = 1_500;
/// Parts of blocks that wait in a slow source before it is asked for more.
const PARTS_AHEAD: usize = 16;

/// A source that brings little at once, of each lane in turn, and rests after it.
struct Paced {
    of: Box<dyn Source>,
    rest: Duration,
    paused: bool,
    /// What waits of each lane; the first is the next.
    lanes: VecDeque<(LaneId, VecDeque<SourceEvent>)>,
}

impl Paced {
    fn waiting(&self) -> usize {
        self.lanes.iter().map(|(_, parts)| parts.len()).sum()
    }

    fn put_by(&mut self, lane: LaneId, parts: impl IntoIterator<Item = SourceEvent>) {
        match self.lanes.iter_mut().find(|(of, _)| *of == lane) {
            Some((_, waiting)) => waiting.extend(parts),
            None => self.lanes.push_back((lane, parts.into_iter().collect())),
        }
    }

    /// Gives what is of no lane; the rest waits for its turn.
    fn sort(&mut self, event: SourceEvent) -> Option<SourceEvent> {
        let lane = match &event {
            SourceEvent::Records(block) => {
                let (lane, parts) = (block.lane.clone(), parts_of(block));
                self.put_by(lane, parts);
                return None;
            }
            SourceEvent::CaughtUp(lane, _) | SourceEvent::Ended(lane, _) | SourceEvent::Log(lane, _) => lane.clone(),
            SourceEvent::OffsetLost { lane, .. }
            | SourceEvent::Columns { lane, .. }
            | SourceEvent::Header { lane, .. }
            | SourceEvent::Oversized { lane, .. } => lane.clone(),
            _ => return Some(event),
        };
        self.put_by(lane, [event]);
        None
    }

    fn next_part(&mut self) -> Option<SourceEvent> {
        for _ in 0..self.lanes.len() {
            let (lane, mut parts) = self.lanes.pop_front()?;
            let part = parts.pop_front();
            self.lanes.push_back((lane, parts));
            if part.is_some() {
                return part;
            }
        }
        None
    }
}

fn parts_of(block: &RecordBlock) -> Vec<SourceEvent> {
    let starts = (0..block.offsets.len()).step_by(RECORDS_AT_ONCE);
    let part = |start: usize| {
        let mut part = RecordBlock::new(block.lane.clone(), block.fetched_at_ms);
        part.log_append_time = block.log_append_time;
        for at in start..block.offsets.len().min(start + RECORDS_AT_ONCE) {
            let begin = if at == 0 { 0 } else { block.ends[at - 1] as usize };
            part.push(block.offsets[at], block.timestamps_ms[at], &block.bytes[begin..block.ends[at] as usize]);
        }
        SourceEvent::Records(part)
    };
    starts.map(part).collect()
}

impl Source for Paced {
    fn poll(&mut self, max_wait: Duration) -> Result<Vec<SourceEvent>> {
        let mut events = Vec::new();
        if self.paused || self.waiting() < PARTS_AHEAD {
            let wait = if self.waiting() > 0 && !self.paused { Duration::ZERO } else { max_wait };
            for event in self.of.poll(wait)? {
                events.extend(self.sort(event));
            }
        }
        // News of the group may have a lane started anew, and then what is handed over with them would come twice.
        if !self.paused
            && events.is_empty()
            && let Some(part) = self.next_part()
        {
            events.push(part);
            let rested = Instant::now();
            while rested.elapsed() < self.rest {
                std::thread::park_timeout(self.rest.saturating_sub(rested.elapsed()));
            }
        }
        Ok(events)
    }

    fn start(&mut self, lane: &LaneId, position: Position, log: Option<&str>) -> Result<()> {
        // What waits of it comes again.
        self.lanes.retain(|(of, _)| of != lane);
        self.of.start(lane, position, log)
    }

    fn set_paused(&mut self, paused: bool) -> Result<()> {
        self.paused = paused;
        self.of.set_paused(paused)
    }

    fn report_published(&mut self, positions: &[(LaneId, i64)]) {
        self.of.report_published(positions);
    }

    fn lag(&self) -> Option<u64> {
        self.of.lag()
    }
}

/// A port whose calls are steps.
#[derive(Debug)]
struct Steps<P> {
    of: P,
    points: Arc<CrashPoints>,
}

/// What the object of that path is.
fn step_of_put(path: &str, body: &[u8]) -> &'static str {
    match path.split('/').next().unwrap_or_default() {
        "chains" => match serde_json::from_slice::<Manifest>(body) {
            Ok(manifest) => match manifest.epoch() {
                Some(epoch) if epoch.checkpoint == manifest.n => "manifest-of-checkpoint",
                Some(_) => "manifest-of-tick",
                None => "seal",
            },
            Err(_) => "link",
        },
        "lanes" => "generation",
        "state" => "state",
        "stages" => "stages",
        "rows" => "rows",
        "alert-state" => "alert-state",
        "outbox" => "outbox",
        _ => "object",
    }
}

fn step_of_get(path: &str) -> &'static str {
    match path.split('/').next().unwrap_or_default() {
        "chains" => "read-link",
        "lanes" => "read-generation",
        _ => "read-object",
    }
}

#[async_trait]
impl Store for Steps<Arc<dyn Store>> {
    async fn put_if_absent(&self, path: &str, body: Bytes) -> Result<Put> {
        let step = step_of_put(path, &body);
        self.points.around_step(step, self.of.put_if_absent(path, body)).await
    }

    async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        self.points.around_step(step_of_get(path), self.of.get(path)).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>> {
        self.of.list(folder).await
    }

    async fn list_after(&self, folder: &str, after: &str, at_most: usize) -> Result<Vec<String>> {
        self.of.list_after(folder, after, at_most).await
    }

    async fn delete(&self, path: &str) -> Result<()> {
        self.points.around_step("clean-up", self.of.delete(path)).await
    }
}

#[async_trait]
impl Archive for Steps<Arc<dyn Archive>> {
    async fn ensure_table(&self, table: &TableSpec) -> Result<()> {
        self.points.around_step("table", self.of.ensure_table(table)).await
    }

    async fn write_files(&self, table: &str, batches: Vec<RecordBatch>, tag: &FileTag) -> Result<Vec<AddedFile>> {
        self.points.around_step("files", self.of.write_files(table, batches, tag)).await
    }

    async fn commit(&self, table: &str, files: &[AddedFile], app_id: &str, version: u64) -> Result<()> {
        self.points.around_step("delta-commit", self.of.commit(table, files, app_id, version)).await
    }

    async fn read_range(&self, range: &TableRange<'_>) -> Result<Batches> {
        self.points.around_step("read-range", self.of.read_range(range)).await
    }

    async fn maintain(&self, table: &str) -> Result<()> {
        self.points.around_step("maintenance", self.of.maintain(table)).await
    }
}

#[async_trait]
impl AlertSink for Steps<Arc<dyn AlertSink>> {
    async fn publish(&self, records: &[AlertRecord], marker: &str, n: u64) -> Result<()> {
        self.points.around_step("alerts", self.of.publish(records, marker, n)).await
    }

    async fn publish_early(&self, records: &[AlertRecord]) -> Result<()> {
        self.points.around_step("early-alerts", self.of.publish_early(records)).await
    }

    async fn last_marker(&self) -> Result<Option<String>> {
        self.points.around_step("read-marker", self.of.last_marker()).await
    }
}

/// The first message of a link goes by itself: a process may die when some slots know of the link and others do not.
#[async_trait]
impl ExchangeSink for Steps<Arc<dyn ExchangeSink>> {
    async fn send(&self, messages: &[SlotMessage]) -> Result<()> {
        let (first, rest) = messages.split_at(messages.len().min(1));
        for some in [first, rest].into_iter().filter(|some| !some.is_empty()) {
            self.points.around_step("exchange", self.of.send(some)).await?;
        }
        Ok(())
    }
}
