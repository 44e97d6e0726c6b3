//! What the threads of a process use, by what they are for.
//!
//! The kernel tells a thread's time for as long as the thread is there, so it is asked four times a second; what a thread does after that is
//! not in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

const EVERY: Duration = Duration::from_millis(250);
/// What the kernel counts processor time in, a second.
const TICKS: f64 = 100.0;

/// Beginnings of the names of threads, and what these are for.
const PARTS: [(&str, &str); 5] = [
    ("rdk:", "fetch"),
    ("wattline-source", "take in"),
    ("wattline-worker", "decode, rules, panes"),
    ("tokio", "encode, store, commit"),
    ("wattline", "merge, close"),
];

/// Asks until it is stopped.
pub(crate) struct ThreadTimes {
    is_over: Arc<AtomicBool>,
    asking: JoinHandle<BTreeMap<u64, (String, f64)>>,
}

impl ThreadTimes {
    pub(crate) fn of(process: u32) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&is_over);
        let ask = move || {
            let mut seen = BTreeMap::new();
            while !until.load(Ordering::Relaxed) {
                look(process, &mut seen);
                std::thread::park_timeout(EVERY);
            }
            seen
        };
        let asking = std::thread::Builder::new().name("thread-times".to_owned()).spawn(ask)?;
        Ok(Self { is_over, asking })
    }

    /// Seconds of processor time by part.
    pub(crate) fn stop(self) -> Result<BTreeMap<&'static str, f64>> {
        self.is_over.store(true, Ordering::Relaxed);
        self.asking.thread().unpark();
        let seen = self.asking.join().map_err(|_panic| anyhow!("the thread that asks panicked"))?;
        let mut parts = BTreeMap::new();
        for (name, seconds) in seen.values() {
            let part = PARTS.iter().find(|(begin, _)| name.starts_with(begin)).map_or("others", |(_, part)| part);
            *parts.entry(part).or_default() += seconds;
        }
        Ok(parts)
    }
}

fn look(process: u32, seen: &mut BTreeMap<u64, (String, f64)>) {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return };
    for thread in threads.flatten() {
        let number = thread.file_name().to_string_lossy().parse().unwrap_or_default();
        // A thread that is gone keeps what it had.
        if let Ok(found) = times(&thread.path()) {
            seen.insert(number, found);
        }
    }
}

/// Name, and user and system time in seconds.
fn times(thread: &Path) -> Result<(String, f64)> {
    let stat = fs::read_to_string(thread.join("stat"))?;
    let (head, tail) = stat.rsplit_once(')').context("no name in `stat`")?;
    let name = head.split_once('(').context("no name in `stat`")?.1;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).context("no time in `stat`");
    Ok((name.to_owned(), (ticks(11)? + ticks(12)?) as f64 / TICKS))
}
