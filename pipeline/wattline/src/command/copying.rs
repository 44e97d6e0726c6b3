//! How far a copy of many objects is, for people: one line that redraws itself on a terminal, elsewhere a line now and then.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cli::OutputFormat;
use crate::report::print_error;
use crate::status;
use crate::table_text::{bytes, grouped};

const REDRAW: Duration = Duration::from_millis(200);
const TELL_EVERY: Duration = Duration::from_secs(10);

/// A copy that is under way.
#[derive(Debug)]
pub(super) struct Copying {
    is_told: bool,
    is_terminal: bool,
    objects: u64,
    bytes: u64,
    done: AtomicU64,
    done_bytes: AtomicU64,
    copied: AtomicU64,
    told: Mutex<Instant>,
}

impl Copying {
    /// Of so many objects with so many bytes. Programs are told nothing.
    pub(super) fn of(objects: u64, bytes: u64, format: OutputFormat) -> Self {
        Self {
            is_told: format == OutputFormat::Text,
            is_terminal: std::io::stderr().is_terminal(),
            objects,
            bytes,
            done: AtomicU64::new(0),
            done_bytes: AtomicU64::new(0),
            copied: AtomicU64::new(0),
            told: Mutex::new(Instant::now()),
        }
    }

    /// One more is done: copied, or there already.
    pub(super) fn note(&self, bytes: u64, was_copied: bool) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.copied.fetch_add(u64::from(was_copied), Ordering::Relaxed);
        if !self.is_told {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() >= if self.is_terminal { REDRAW } else { TELL_EVERY } {
            *told = Instant::now();
            self.tell();
        }
    }

    fn tell(&self) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let line = format!(
            "{} of {} objects, {} of {}; {} copied",
            grouped(load(&self.done)),
            grouped(self.objects),
            bytes(load(&self.done_bytes)),
            bytes(self.bytes),
            grouped(load(&self.copied))
        );
        match self.is_terminal {
            true => print_error(&format!("\r\x1b[2K{line}")),
            false => print_error(&format!("{line}\n")),
        }
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        if self.is_told {
            status::clear();
        }
    }
}
