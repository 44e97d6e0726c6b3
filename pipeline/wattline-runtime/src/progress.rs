//! Counters of a running job, read by the status line, by feeders that need backpressure, and by the summary.
//!
//! Written once per batch, never per event. All are monotonic except the gauges, which say so.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use wattline_core::record::LaneId;
use wattline_core::time::BEFORE_TIME;

/// Shared by all threads of a job.
#[derive(Debug)]
pub struct Progress {
    /// Records fetched.
    pub records: AtomicU64,
    /// Payload bytes fetched.
    pub bytes: AtomicU64,
    /// Events accepted.
    pub events: AtomicU64,
    /// Records and events refused.
    pub refused: AtomicU64,
    /// Events behind the highest time of their lane.
    pub late: AtomicU64,
    /// Alert records published.
    pub alerts: AtomicU64,
    /// Rows of result tables.
    pub result_rows: AtomicU64,
    /// Rules that failed.
    pub rule_errors: AtomicU64,
    /// Offsets that were gone from the source, and are recorded.
    pub gone: AtomicU64,
    /// Manifests committed.
    pub epochs: AtomicU64,
    /// Gauge: bytes of raw rows in memory, waiting for a file.
    pub buffered_bytes: AtomicU64,
    /// Gauge: bytes of partial state in the workers.
    pub state_bytes: AtomicU64,
    /// Gauge: alerts that are open.
    pub open_alerts: AtomicU64,
    /// Gauge: records not yet published; -1 if unknown.
    pub lag: AtomicI64,
    /// Gauge: the lowest time reached over all lanes, microseconds since the epoch.
    pub reached_us: AtomicI64,
    /// Gauge: the source is held back because the sinks are behind.
    pub stalled: AtomicBool,
    /// The last trouble with the outside, if it still lasts.
    pub trouble: Mutex<Option<String>>,
    /// Payload fields that no schema knows, by `stream.field`.
    pub unknown_fields: Mutex<BTreeMap<String, u64>>,
    /// Events that were too late for a rule, by its id.
    pub too_late: Mutex<BTreeMap<String, u64>>,
    /// Next offset to be processed of each lane.
    processed: Mutex<BTreeMap<LaneId, i64>>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            events: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            late: AtomicU64::new(0),
            alerts: AtomicU64::new(0),
            result_rows: AtomicU64::new(0),
            rule_errors: AtomicU64::new(0),
            gone: AtomicU64::new(0),
            epochs: AtomicU64::new(0),
            buffered_bytes: AtomicU64::new(0),
            state_bytes: AtomicU64::new(0),
            open_alerts: AtomicU64::new(0),
            lag: AtomicI64::new(-1),
            reached_us: AtomicI64::new(BEFORE_TIME),
            stalled: AtomicBool::new(false),
            trouble: Mutex::new(None),
            unknown_fields: Mutex::new(BTreeMap::new()),
            too_late: Mutex::new(BTreeMap::new()),
            processed: Mutex::new(BTreeMap::new()),
        }
    }
}

impl Progress {
    /// The counters of several jobs together, with the gauges of those that `run`.
    pub fn of_all<'a>(all: impl Iterator<Item = (&'a Self, bool)>) -> Self {
        let sum = Self::default();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut reached_us: Option<i64> = None;
        for (of, runs) in all {
            for (to, from) in sum.counters().into_iter().zip(of.counters()) {
                to.fetch_add(load(from), Ordering::Relaxed);
            }
            for (to, from) in [(&sum.unknown_fields, &of.unknown_fields), (&sum.too_late, &of.too_late)] {
                let mut to = lock(to);
                lock(from).iter().for_each(|(name, count)| *to.entry(name.clone()).or_default() += count);
            }
            if !runs {
                continue;
            }
            for (to, from) in sum.gauges().into_iter().zip(of.gauges()) {
                to.fetch_add(load(from), Ordering::Relaxed);
            }
            let lag = of.lag.load(Ordering::Relaxed);
            if lag >= 0 {
                sum.lag.store(sum.lag.load(Ordering::Relaxed).max(0) + lag, Ordering::Relaxed);
            }
            let reached = of.reached_us.load(Ordering::Relaxed);
            reached_us = Some(reached_us.map_or(reached, |least| least.min(reached)));
            sum.stalled.fetch_or(of.stalled.load(Ordering::Relaxed), Ordering::Relaxed);
            let trouble = lock(&of.trouble).clone();
            lock(&sum.trouble).get_or_insert_default().push_str(&trouble.unwrap_or_default());
        }
        lock(&sum.trouble).take_if(|trouble| trouble.is_empty());
        sum.reached_us.store(reached_us.unwrap_or(BEFORE_TIME), Ordering::Relaxed);
        sum
    }

    fn counters(&self) -> [&AtomicU64; 9] {
        [
            &self.records,
            &self.bytes,
            &self.events,
            &self.refused,
            &self.late,
            &self.alerts,
            &self.result_rows,
            &self.rule_errors,
            &self.epochs,
        ]
    }

    fn gauges(&self) -> [&AtomicU64; 3] {
        [&self.buffered_bytes, &self.state_bytes, &self.open_alerts]
    }

    /// The next offset of a lane that the workers have not processed yet; 0 before the first.
    pub fn processed(&self, lane: &LaneId) -> i64 {
        lock(&self.processed).get(lane).copied().unwrap_or(0)
    }

    /// Notes that all records of a lane below `next_offset` were processed.
    pub(crate) fn note_processed(&self, lane: &LaneId, next_offset: i64) {
        let mut processed = lock(&self.processed);
        match processed.get_mut(lane) {
            Some(offset) => *offset = next_offset,
            None => {
                processed.insert(lane.clone(), next_offset);
            }
        }
    }

    /// Adds counts of unknown payload fields of a stream.
    pub(crate) fn note_unknown(&self, stream: &str, fields: &BTreeMap<String, u64>) {
        if fields.is_empty() {
            return;
        }
        let mut all = lock(&self.unknown_fields);
        for (field, count) in fields {
            *all.entry(format!("{stream}.{field}")).or_default() += count;
        }
    }

    /// Adds events that were too late for each of these rules.
    pub(crate) fn note_too_late(&self, rules: &[String], events: usize) {
        let mut all = lock(&self.too_late);
        for rule in rules {
            *all.entry(rule.clone()).or_default() += events as u64;
        }
    }

    /// Notes what is wrong outside, or that nothing is any more.
    pub fn note_trouble(&self, trouble: Option<String>) {
        *lock(&self.trouble) = trouble;
    }

    /// Adds to a counter.
    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// A poisoned lock only means that another thread panicked between two writes of plain counters.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
